package phrase

import (
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// NameOf is a message's own name; of one of raft's, what raft calls it.
// Heartbeats that carry a read are none.
func NameOf(m proto.Message) string {
	peer, ok := m.(*messages.RaftMessage)
	if !ok {
		return string(m.ProtoReflect().Descriptor().Name())
	}
	kind := peer.Message.GetType()
	beats := kind == raftpb.MsgHeartbeat || kind == raftpb.MsgHeartbeatResp
	if beats && len(peer.Message.GetContext()) > 0 {
		return kind.String() + "(read)"
	}
	return kind.String()
}

// Host is where a speaker is: of "n1 node/raft", "n1".
func Host(speaker string) string {
	host, _, _ := strings.Cut(speaker, " ")
	return host
}

// Actor is an actor as the conversation names it: "n1 session-1", and "c" for
// the one actor of a client.
func Actor(speaker string) string {
	host, id, named := strings.Cut(speaker, " ")
	switch {
	case !named:
		return "network"
	case strings.HasPrefix(id, messages.ActorNode):
		return host + " " + Short(id)
	}
	return host
}

// Short is an actor's own name, without its parents'.
func Short(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// Noise reports whether a message is one that is said all the time, and all the same.
func Noise(name string) bool { return noise[name] }

var noise = map[string]bool{
	"JoinAsk": true, "JoinAnswer": true, "InvitationAsk": true, "InvitationAnswer": true,
	"Tick": true, "Ticked": true, "Flush": true, "HearTicks": true, "LogTimeAdvanced": true,
	"MsgHeartbeat": true, "MsgHeartbeatResp": true,
	"AuditAsk": true, "AuditAnswer": true, "ReadsDone": true,
	"Replication": true, "NodePulse": true, "ClusterPulse": true, "StatusDraft": true, "StatusReply": true, "RoomSeen": true,
}

// Kinds are the actors that a filter can name.
var Kinds = append([]string{"client", "network"}, KindsOf(messages.Actors)...)

// KindsOf is what a filter calls these actors.
func KindsOf(actors []*messages.Actor) []string {
	var kinds []string
	for _, a := range actors {
		kinds = append(kinds, a.Kind())
	}
	return kinds
}

// Kind is what a filter calls an actor: "session", and "client" for a client.
func Kind(speaker string) string {
	name := Actor(speaker)
	_, actor, ofNode := strings.Cut(name, " ")
	switch {
	case name == "network":
		return name
	case !ofNode:
		return "client"
	}
	kind, _, _ := strings.Cut(actor, "-")
	return kind
}
