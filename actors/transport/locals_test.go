package transport

import (
	"bytes"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

const aSession = messages.ActorSessionPrefix + "1"

var (
	clusterA = bytes.Repeat([]byte{0xaa}, messages.ClusterIDSize)
	clusterB = bytes.Repeat([]byte{0xbb}, messages.ClusterIDSize)
)

func incarnation(id messages.RaftID) []byte {
	return bytes.Repeat([]byte{byte(id)}, messages.IncarnationSize)
}

func nodeLocal(id messages.RaftID) Local {
	return Local{
		Role: messages.Role_NODE, ClusterID: clusterA, RaftID: id, Incarnation: incarnation(id),
		Name: fmt.Sprintf("node%d", id), Address: messages.NodeAddress(id), Version: "test",
	}
}

func clientLocal(n byte) Local {
	return Local{Role: messages.Role_CLIENT, Address: messages.ClientAddress(bytes.Repeat([]byte{n}, 16)), Version: "test"}
}

func raftMessage(kind raftpb.MessageType, from, to, term uint64) *messages.RaftMessage {
	return &messages.RaftMessage{Message: &raftpb.Message{Type: kind.Enum(), From: &from, To: &to, Term: &term}}
}
