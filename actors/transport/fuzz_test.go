package transport

import (
	"bytes"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// fuzzConns are the connections that there can be.
var fuzzConns = []Conn{
	{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1},
	{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1, Founding: true},
	{Role: messages.Role_CLIENT, Address: clientLocal(1).Address, To: messages.Role_NODE, Local: 1},
	{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_CLIENT},
	{},
}

// lawful says again, in other words than the guard's, what may arrive where.
func lawful(c Conn, target string, m proto.Message) bool {
	session := len(target) > len(messages.ActorSessionPrefix) && target[:len(messages.ActorSessionPrefix)] == messages.ActorSessionPrefix
	fromNode := c.Role == messages.Role_NODE && c.To == messages.Role_NODE
	fromClient := c.Role == messages.Role_CLIENT && c.To == messages.Role_NODE
	toClient := c.Role == messages.Role_NODE && c.To == messages.Role_CLIENT
	switch m := m.(type) {
	case *messages.RaftMessage:
		r := m.GetMessage()
		return fromNode && !c.Founding && target == messages.ActorRaft && r.GetFrom() == c.RaftID && r.GetTo() == c.Local && len(r.GetResponses()) == 0 &&
			r.GetType() != raftpb.MsgSnap
	case *messages.Propose:
		return fromNode && !c.Founding && target == messages.ActorRaft && m.Origin == c.RaftID
	case *messages.LossAsk, *messages.LossAnswer:
		return fromNode && !c.Founding && target == messages.ActorRaft
	case *messages.ProposalRefused:
		return fromNode && !c.Founding && session
	case *messages.FounderState:
		return fromNode && target == messages.ActorFounding && m.RaftId == c.RaftID
	case *messages.SnapshotOffer:
		r := m.GetMessage()
		return fromNode && !c.Founding && target == messages.ActorSnapshots && r.GetType() == raftpb.MsgSnap && r.GetFrom() == c.RaftID && r.GetTo() == c.Local &&
			r.GetSnapshot().GetMetadata().GetIndex() > 0 && r.GetSnapshot().GetMetadata().GetTerm() > 0 &&
			len(r.GetSnapshot().GetData())+len(r.GetResponses())+len(r.GetEntries()) == 0
	case *messages.SnapshotPiece:
		return fromNode && !c.Founding && target == messages.ActorSnapshots && m.Chunk != nil
	case *messages.SnapshotPull, *messages.SnapshotEnd:
		return fromNode && !c.Founding && target == messages.ActorSnapshots
	case *messages.AuditAsk, *messages.AuditAnswer, *messages.AuditVerdict, *messages.AuditConfirmed:
		return fromNode && !c.Founding && target == messages.ActorAudit
	case *messages.NodePulse, *messages.ClusterPulse, *messages.LevelAsk, *messages.LevelAnswer:
		return fromNode && !c.Founding && target == messages.ActorMembership
	case *messages.ClusterRequest, *messages.JoinAsk, *messages.InvitationAsk:
		return fromClient && target == messages.ActorMembership
	case *messages.LoginRequest:
		return fromClient && target == messages.ActorLogin
	case *messages.SnapshotRequest:
		return fromClient && target == messages.ActorSnapshots
	case *messages.Attach, *messages.StatusRequest:
		return fromClient && target == messages.ActorGateway
	case *messages.Write, *messages.Read, *messages.Detach:
		return fromClient && session
	case *messages.Attached, *messages.WriteReply, *messages.ReadReply, *messages.StatusReply, *messages.SnapshotReply,
		*messages.ClusterReply, *messages.JoinAnswer, *messages.InvitationAnswer, *messages.LoginReply:
		return toClient && target != "eventstream" && target != "deadletter"
	}
	return false
}

// FuzzGuard: what the guard lets through is lawful, within its bounds, and what
// Check refuses Open refuses too; both with an error that has a code.
func FuzzGuard(f *testing.F) {
	targets := append(everyTarget(), "", "\x00")
	for i := range fuzzConns {
		for _, m := range everyMessage {
			for _, target := range targets {
				e, err := messages.Seal(target, "me", m)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(uint8(i), e.Type, e.Target, e.Sender, e.Body)
			}
		}
	}
	f.Add(uint8(0), uint32(4711), aSession, "", []byte{0xff})
	f.Fuzz(func(t *testing.T, which uint8, number uint32, target, sender string, body []byte) {
		c := fuzzConns[int(which)%len(fuzzConns)]
		e := &messages.Envelope{Type: number, Target: target, Sender: sender, Body: body}
		checked := c.Check(e)
		m, opened := c.Open(e)
		for _, err := range []error{checked, opened} {
			if code := messages.CodeOf(err); code != messages.Code_OK && code != messages.Code_INVALID && code != messages.Code_NOT_ALLOWED {
				t.Fatalf("%v: %v", code, err)
			}
		}
		if checked != nil && opened == nil {
			t.Fatalf("Check refuses what Open takes: %v", checked)
		}
		if opened == nil && (!lawful(c, target, m) || len(body) > BodySizeMax || len(target) > nameSizeMax || len(sender) > nameSizeMax) {
			t.Fatalf("over %+v came %s for %q", c, messages.Line(m), target)
		}
	})
}

// FuzzHello: a hello is welcomed or refused, never both, and the connection it
// makes is that of the role it has proved.
func FuzzHello(f *testing.F) {
	fresh := nodeLocal(1)
	fresh.ClusterID = nil
	locals := []Local{nodeLocal(1), fresh}
	knows := Known{}.With([]*messages.Member{{RaftId: 1}, {RaftId: 2, Incarnation: incarnation(2)}}, 4)
	for _, h := range []*messages.Hello{{}, HelloTo(nodeLocal(2), 1, 2), HelloTo(nodeLocal(3), 1, 0), HelloTo(clientLocal(1), 0, 0), HelloTo(nodeLocal(1), 1, 0), HelloTo(fresh, 1, 7)} {
		b, err := proto.Marshal(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, founding bool) {
		h := &messages.Hello{}
		if proto.Unmarshal(b, h) != nil {
			return
		}
		local := locals[0]
		if founding {
			local = locals[1]
		}
		w, r := Admit(local, knows, Principal{}, h)
		if (w == nil) == (r == nil) || r != nil && (r.Code == messages.Code_OK || r.Message == "") {
			t.Fatalf("welcome %v, refusal %v", w, r)
		}
		if r != nil {
			return
		}
		c := Accepted(local, Principal{}, h)
		id, isNode := messages.ParseNodeAddress(c.Address)
		good := c.Role == messages.Role_CLIENT && messages.IsClientAddress(c.Address) && c.RaftID == 0 && c.Lane == 0 ||
			c.Role == messages.Role_NODE && isNode && id == c.RaftID && id != local.RaftID && id != 3 && c.Lane >= 0 && c.Lane <= messages.Lane_BULK
		if !good || c.To != local.Role || c.Local != local.RaftID {
			t.Fatalf("%v makes %+v", h, c)
		}
		if !c.Founding && c.Role == messages.Role_NODE && !bytes.Equal(h.ClusterId, local.ClusterID) {
			t.Fatalf("%v of another cluster makes %+v", h, c)
		}
	})
}

// FuzzWelcome is the same from the other side: a node that lies to whoever dials.
func FuzzWelcome(f *testing.F) {
	w, _ := Admit(nodeLocal(1), Known{}, Principal{}, HelloTo(clientLocal(2), 0, messages.Lane_CONTROL))
	b, err := proto.Marshal(w)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	f.Add(b, true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, node bool) {
		w := &messages.Welcome{}
		if proto.Unmarshal(b, w) != nil {
			return
		}
		local := clientLocal(1)
		if node {
			local = nodeLocal(2)
		}
		if r := Welcomed(local, Known{}, Principal{}, 0, w); r != nil {
			return
		}
		if c := Reached(local, Principal{}, messages.Lane_CONTROL, w); c.RaftID == 0 || c.RaftID == local.RaftID || c.Address != messages.NodeAddress(c.RaftID) {
			t.Fatalf("%v makes %+v", w, c)
		}
	})
}
