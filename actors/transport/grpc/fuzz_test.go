package grpc

import (
	"bytes"
	"io"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// tape is a stream that says what is on it.
type tape struct{ frames [][]byte }

func (s *tape) SendMsg(any) error { return nil }

func (s *tape) RecvMsg(m any) error {
	if len(s.frames) == 0 {
		return io.EOF
	}
	frame := slices.Clone(s.frames[0])
	s.frames = s.frames[1:]
	return codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(frame)}, m)
}

// fuzzConns are the connections that there can be.
var fuzzConns = []transport.Conn{
	{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1},
	{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1, Founding: true},
	{Role: messages.Role_CLIENT, Address: clientLocal(1).Address, To: messages.Role_NODE, Local: 1},
	{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_CLIENT},
	{},
}

// FuzzInlet: whatever frames come in on a connection, what reaches an actor has
// passed the guard and is in the name of the connection, and nothing panics.
func FuzzInlet(f *testing.F) {
	var all []item
	for _, m := range []proto.Message{
		&messages.Attach{}, &messages.Attached{}, &messages.Write{}, &messages.Read{}, &messages.ReadReply{}, &messages.SnapshotRequest{},
		raftMessage(raftpb.MsgHeartbeat, 2, 1, 1), &messages.Propose{Origin: 2}, &messages.Propose{Origin: 3}, &messages.FounderState{RaftId: 2},
		&messages.SnapshotPull{Shipment: 1}, &messages.AuditAsk{Round: 1},
	} {
		for _, target := range []string{messages.ActorRaft, messages.ActorGateway, messages.ActorSnapshots, messages.ActorAudit, aSession} {
			sealed := item{sealed: mustSeal(f, target, "me", m)}
			f.Add(uint8(0), mustMarshal(f, &outgoing{sealed: []item{sealed}}), []byte{})
			all = append(all, sealed)
		}
	}
	for i := range fuzzConns {
		f.Add(uint8(i), mustMarshal(f, &outgoing{sealed: all}), mustMarshal(f, &outgoing{control: helloFrame(nodeLocal(2), nil)}))
	}
	system := actor.NewActorSystem()
	var unlawful atomic.Pointer[string]
	var conn transport.Conn
	for _, name := range []string{messages.ActorRaft, messages.ActorGateway, messages.ActorFounding, messages.ActorMachine, messages.ActorSnapshots, messages.ActorAudit, messages.ActorNode, aSession} {
		system.ProcessRegistry.Add(recorder(func(pid *actor.PID, message any) {
			_, body, sender := actor.UnwrapEnvelope(message)
			m, ok := body.(proto.Message)
			if !ok || !passes(conn, name, m) || sender != nil && sender.Address != conn.Address {
				what := name + " heard what it must not"
				unlawful.Store(&what)
			}
		}), name)
	}
	f.Fuzz(func(t *testing.T, which uint8, one, two []byte) {
		conn = fuzzConns[int(which)%len(fuzzConns)]
		err := (&inlet{system: system, conn: conn, absent: new(atomic.Int64)}).read(&tape{[][]byte{one, two, one}})
		if err == nil || messages.CodeOf(err) == messages.Code_INTERNAL && bytes.Contains([]byte(err.Error()), []byte("receiving from")) {
			t.Fatalf("%v", err)
		}
		if what := unlawful.Load(); what != nil {
			t.Fatal(*what)
		}
	})
}

// passes asks the guard once more.
func passes(conn transport.Conn, target string, m proto.Message) bool {
	e, err := messages.Seal(target, "", m)
	if err != nil {
		return false
	}
	_, err = conn.Open(e)
	return err == nil
}

// recorder is a process that hears in the sender's turn.
type recorder func(*actor.PID, any)

func (r recorder) SendUserMessage(pid *actor.PID, m any)   { r(pid, m) }
func (r recorder) SendSystemMessage(pid *actor.PID, m any) { r(pid, m) }
func (r recorder) Stop(*actor.PID)                         {}
