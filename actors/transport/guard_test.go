package transport

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func TestAdmit(t *testing.T) {
	node := func(change func(*messages.Hello)) *messages.Hello {
		h := HelloTo(nodeLocal(2), 1, messages.Lane_APPEND)
		change(h)
		return h
	}
	client := func(change func(*messages.Hello)) *messages.Hello {
		h := HelloTo(clientLocal(1), 0, messages.Lane_CONTROL)
		change(h)
		return h
	}
	same := func(*messages.Hello) {}
	here := nodeLocal(1)
	founding := here
	founding.ClusterID = nil
	knows := Known{}.With([]*messages.Member{{RaftId: 1}, {RaftId: 2, Incarnation: incarnation(2)}, {RaftId: 3, Incarnation: incarnation(3)}, {RaftId: 4}})
	knows = knows.With([]*messages.Member{{RaftId: 1}, {RaftId: 2, Incarnation: incarnation(2)}, {RaftId: 4}}).With(nil)

	for _, test := range []struct {
		name  string
		local Local
		hello *messages.Hello
		code  messages.Code // OK: admitted
		text  string
	}{
		{"node", here, node(same), messages.Code_OK, ""},
		{"client", here, client(same), messages.Code_OK, ""},
		{"client of this cluster", here, client(func(h *messages.Hello) { h.ClusterId = clusterA }), messages.Code_OK, ""},
		{"client to this node", here, client(func(h *messages.Hello) { h.To = 1 }), messages.Code_OK, ""},
		{"unknown node", here, node(func(h *messages.Hello) { h.RaftId = 9 }), messages.Code_OK, ""},
		{"member without incarnation", here, node(func(h *messages.Hello) { h.RaftId = 4 }), messages.Code_OK, ""},
		{"founder to founder", founding, node(func(h *messages.Hello) { h.ClusterId = nil }), messages.Code_OK, ""},
		{"founder to member", here, node(func(h *messages.Hello) { h.ClusterId = nil }), messages.Code_OK, ""},
		{"member to founder", founding, node(same), messages.Code_OK, ""},
		{"client to founder", founding, client(same), messages.Code_OK, ""},

		{"no hello", here, nil, messages.Code_INVALID, "starts with a hello"},
		{"empty hello", here, &messages.Hello{}, messages.Code_UNSUPPORTED, "protocol 1, not 0"},
		{"newer protocol", here, node(func(h *messages.Hello) { h.Protocol = 2 }), messages.Code_UNSUPPORTED, "protocol 1, not 2"},
		{"no role", here, node(func(h *messages.Hello) { h.Role = 0 }), messages.Code_INVALID, "no role"},
		{"strange role", here, node(func(h *messages.Hello) { h.Role = 7 }), messages.Code_INVALID, "no role"},
		{"long version", here, node(func(h *messages.Hello) { h.Version = strings.Repeat("v", 129) }), messages.Code_INVALID, "version"},
		{"escape in version", here, client(func(h *messages.Hello) { h.Version = "\x1b[2J" }), messages.Code_INVALID, "version"},
		{"short cluster id", here, node(func(h *messages.Hello) { h.ClusterId = clusterA[:15] }), messages.Code_INVALID, "16 bytes"},
		{"other cluster", here, node(func(h *messages.Hello) { h.ClusterId = clusterB }), messages.Code_CONFLICT,
			"belongs to cluster aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, not to cluster bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},
		{"client of other cluster", here, client(func(h *messages.Hello) { h.ClusterId = clusterB }), messages.Code_CONFLICT, "not to cluster bbbb"},
		{"client of a cluster to founder", founding, client(func(h *messages.Hello) { h.ClusterId = clusterA }), messages.Code_CONFLICT, "no cluster yet"},
		{"for another node", here, node(func(h *messages.Hello) { h.To = 3 }), messages.Code_CONFLICT, "raft id 1, not 3"},
		{"client for another node", here, client(func(h *messages.Hello) { h.To = 3 }), messages.Code_CONFLICT, "raft id 1, not 3"},
		{"for nobody", here, node(func(h *messages.Hello) { h.To = 0 }), messages.Code_INVALID, "names the node"},
		{"raft id 0", here, node(func(h *messages.Hello) { h.RaftId = 0 }), messages.Code_INVALID, "0 is not the raft id"},
		{"raft's storage", here, node(func(h *messages.Hello) { h.RaftId = math.MaxUint64 }), messages.Code_INVALID, "not the raft id"},
		{"our raft id", here, node(func(h *messages.Hello) { h.RaftId = 1 }), messages.Code_CONFLICT, "raft id 1 itself"},
		{"no incarnation", here, node(func(h *messages.Hello) { h.Incarnation = nil }), messages.Code_INVALID, "incarnation has 16 bytes, this one 0"},
		{"wiped node", here, node(func(h *messages.Hello) { h.Incarnation = incarnation(8) }), messages.Code_NOT_ALLOWED, "a wiped node under its old name"},
		{"removed node", here, node(func(h *messages.Hello) { h.RaftId, h.Incarnation = 3, incarnation(3) }), messages.Code_NOT_ALLOWED, "raft id 3 was removed"},
		{"node with client address", here, node(func(h *messages.Hello) { h.Address = clientLocal(1).Address }), messages.Code_INVALID, "no client address"},
		{"lane 3", here, node(func(h *messages.Hello) { h.Lane = 3 }), messages.Code_INVALID, "no lane 3"},
		{"lane -1", here, node(func(h *messages.Hello) { h.Lane = -1 }), messages.Code_INVALID, "no lane -1"},
		{"client with node address", here, client(func(h *messages.Hello) { h.Address = "node/2" }), messages.Code_INVALID, `"node/2" is not a client's`},
		{"client without address", here, client(func(h *messages.Hello) { h.Address = "" }), messages.Code_INVALID, "not a client's"},
		{"client with raft id", here, client(func(h *messages.Hello) { h.RaftId = 2 }), messages.Code_INVALID, "neither raft id"},
		{"client on bulk", here, client(func(h *messages.Hello) { h.Lane = messages.Lane_BULK }), messages.Code_INVALID, "no lane"},
	} {
		t.Run(test.name, func(t *testing.T) {
			welcome, refusal := Admit(test.local, knows, test.hello)
			if (welcome == nil) == (refusal == nil) {
				t.Fatalf("welcome %v and refusal %v", welcome, refusal)
			}
			if refusal.GetCode() != test.code || !strings.Contains(refusal.GetMessage(), test.text) {
				t.Fatalf("%v, want %v with %q", refusal, test.code, test.text)
			}
			if welcome != nil && (welcome.RaftId != 1 || welcome.Name != "node1" || !bytes.Equal(welcome.ClusterId, test.local.ClusterID)) {
				t.Errorf("welcome %v", welcome)
			}
		})
	}
}

func TestFoundingIsMarkedBetweenNodesOnly(t *testing.T) {
	here, fresh := nodeLocal(1), nodeLocal(1)
	fresh.ClusterID = nil
	there, new := nodeLocal(2), nodeLocal(2)
	new.ClusterID = nil
	for _, test := range []struct {
		local, dials Local
		founding     bool
	}{
		{here, there, false}, {fresh, there, true}, {here, new, true}, {fresh, new, true},
		{here, clientLocal(1), false}, {fresh, clientLocal(1), false},
	} {
		to := messages.RaftID(1)
		hello := HelloTo(test.dials, to, messages.Lane_CONTROL)
		welcome, refusal := Admit(test.local, Known{}, hello)
		if refusal != nil {
			t.Fatal(refusal)
		}
		if c := Accepted(test.local, hello); c.Founding != test.founding || c.Address != test.dials.Address {
			t.Errorf("accepted %+v", c)
		}
		if r := Welcomed(test.dials, Known{}, to, welcome); r != nil {
			t.Fatal(r)
		}
		if c := Reached(test.dials, messages.Lane_CONTROL, welcome); c.Founding != test.founding || c.Address != "node/1" || c.Local != test.dials.RaftID {
			t.Errorf("reached %+v", c)
		}
	}
}

func TestWelcomed(t *testing.T) {
	client, bound := clientLocal(1), clientLocal(1)
	bound.ClusterID = clusterA
	fresh := nodeLocal(2)
	fresh.ClusterID = nil
	knows := Known{}.With([]*messages.Member{{RaftId: 1, Incarnation: incarnation(1)}})
	for _, test := range []struct {
		name   string
		local  Local
		to     messages.RaftID
		change func(*messages.Welcome)
		code   messages.Code
	}{
		{"node", nodeLocal(2), 1, nil, messages.Code_OK},
		{"founder", fresh, 1, nil, messages.Code_OK},
		{"founding", nodeLocal(2), 1, func(w *messages.Welcome) { w.ClusterId = nil }, messages.Code_OK},
		{"client", client, 0, nil, messages.Code_OK},
		{"client of the cluster", bound, 0, nil, messages.Code_OK},
		{"client of any, founding", client, 0, func(w *messages.Welcome) { w.ClusterId = nil }, messages.Code_OK},
		{"client of a cluster, founding", bound, 0, func(w *messages.Welcome) { w.ClusterId = nil }, messages.Code_CONFLICT},
		{"client of another cluster", bound, 0, func(w *messages.Welcome) { w.ClusterId = clusterB }, messages.Code_CONFLICT},
		{"another cluster", nodeLocal(2), 1, func(w *messages.Welcome) { w.ClusterId = clusterB }, messages.Code_CONFLICT},
		{"protocol", nodeLocal(2), 1, func(w *messages.Welcome) { w.Protocol = 0 }, messages.Code_UNSUPPORTED},
		{"another node", nodeLocal(2), 3, nil, messages.Code_CONFLICT},
		{"ourselves", nodeLocal(1), 0, nil, messages.Code_CONFLICT},
		{"nobody", client, 0, func(w *messages.Welcome) { w.RaftId = 0 }, messages.Code_INVALID},
		{"cluster id size", client, 0, func(w *messages.Welcome) { w.ClusterId = []byte{1} }, messages.Code_INVALID},
		{"incarnation size", client, 0, func(w *messages.Welcome) { w.Incarnation = []byte{1} }, messages.Code_INVALID},
		{"unreadable name", client, 0, func(w *messages.Welcome) { w.Name = "\x1b[2J" }, messages.Code_INVALID},
		{"wiped", nodeLocal(2), 1, func(w *messages.Welcome) { w.Incarnation = incarnation(7) }, messages.Code_NOT_ALLOWED},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, _ := Admit(nodeLocal(1), Known{}, HelloTo(clientLocal(2), 0, messages.Lane_CONTROL))
			if test.change != nil {
				test.change(w)
			}
			if r := Welcomed(test.local, knows, test.to, w); r.GetCode() != test.code {
				t.Errorf("%v, want %v", r, test.code)
			}
		})
	}
	if r := Welcomed(client, Known{}, 0, nil); r.GetCode() != messages.Code_UNREACHABLE {
		t.Errorf("%v", r)
	}
}

func TestLegible(t *testing.T) {
	for in, want := range map[string]string{
		"node2, näher": "node2, näher", "a\x1b[2J\nb": "a [2J b", "": "",
		strings.Repeat("x", 2*wordsMax): strings.Repeat("x", wordsMax), strings.Repeat("x", wordsMax-1) + "ä": strings.Repeat("x", wordsMax-1),
	} {
		if got := legible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// everyMessage is one of each type that crosses links, right where it can be.
var everyMessage = []proto.Message{
	&messages.Attach{}, &messages.Attached{}, &messages.Detach{}, &messages.Write{}, &messages.WriteReply{},
	&messages.Read{}, &messages.ReadReply{}, &messages.StatusRequest{}, &messages.StatusReply{},
	raftMessage(raftpb.MsgHeartbeat, 2, 1, 1), &messages.Propose{Origin: 2}, &messages.ProposalRefused{}, &messages.FounderState{RaftId: 2},
	&messages.SnapshotRequest{}, &messages.SnapshotReply{},
	offer(nil), &messages.SnapshotPull{Shipment: 1}, &messages.SnapshotPiece{Chunk: &messages.SnapshotChunk{}}, &messages.SnapshotEnd{},
	&messages.AuditAsk{Round: 1}, &messages.AuditAnswer{}, &messages.AuditVerdict{},
}

// offer is a rightful one of node 2 to node 1, but for change.
func offer(change func(*raftpb.Message)) *messages.SnapshotOffer {
	m := raftMessage(raftpb.MsgSnap, 2, 1, 3).Message
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(9)), Term: new(uint64(3)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}},
	}}
	if change != nil {
		change(m)
	}
	return &messages.SnapshotOffer{Shipment: 1, Message: m, Bytes: 1}
}

// TestCheckAllowsNothingElse holds every type against every actor, role and
// state of a connection; what passes is listed, what is not listed must not.
func TestCheckAllowsNothingElse(t *testing.T) {
	conns := map[string]Conn{
		"node":     {Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1},
		"founder":  {Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1, Founding: true},
		"client":   {Role: messages.Role_CLIENT, Address: clientLocal(1).Address, To: messages.Role_NODE, Local: 1},
		"to us":    {Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_CLIENT},
		"stranger": {},
	}
	targets := []string{
		messages.ActorNode, messages.ActorTicker, messages.ActorTransport, messages.ActorFounding, messages.ActorMembership,
		messages.ActorGateway, messages.ActorRaft, messages.ActorLog, messages.ActorMachine, messages.ActorCheckpoint,
		messages.ActorSnapshots, messages.ActorIntake, messages.ActorArchive, messages.ActorAudit, messages.ActorReclaim,
		messages.ActorReaderPrefix + "1", messages.ActorSessionPrefix, aSession, aSession + "/x", "eventstream", "deadletter", "future$1",
	}
	const raft, gateway, founding = messages.ActorRaft, messages.ActorGateway, messages.ActorFounding
	const snapshots, audit = messages.ActorSnapshots, messages.ActorAudit
	allowed := map[[3]string]bool{
		{"node", "RaftMessage", raft}: true, {"node", "Propose", raft}: true,
		{"node", "ProposalRefused", aSession}: true, {"node", "FounderState", founding}: true,
		{"founder", "FounderState", founding}: true,
		{"client", "Attach", gateway}:         true, {"client", "StatusRequest", gateway}: true,
		{"client", "Write", aSession}: true, {"client", "Read", aSession}: true, {"client", "Detach", aSession}: true,
		{"client", "SnapshotRequest", snapshots}: true,
		{"node", "SnapshotOffer", snapshots}:     true, {"node", "SnapshotPull", snapshots}: true,
		{"node", "SnapshotPiece", snapshots}: true, {"node", "SnapshotEnd", snapshots}: true,
		{"node", "AuditAsk", audit}: true, {"node", "AuditAnswer", audit}: true, {"node", "AuditVerdict", audit}: true,
	}
	for _, target := range targets {
		if target != "eventstream" && target != "deadletter" {
			for _, reply := range []string{"Attached", "WriteReply", "ReadReply", "StatusReply", "SnapshotReply"} {
				allowed[[3]string{"to us", reply, target}] = true
			}
		}
	}
	passed := 0
	for name, c := range conns {
		for _, target := range targets {
			for _, m := range everyMessage {
				e, err := messages.Seal(target, "someone", m)
				if err != nil {
					t.Fatal(err)
				}
				kind := string(m.ProtoReflect().Descriptor().Name())
				err = c.Check(e)
				if want := allowed[[3]string{name, kind, target}]; (err == nil) != want {
					t.Errorf("%s: %s to %s: %v, want allowed %v", name, kind, target, err, want)
				}
				if _, opened := c.Open(e); (opened == nil) != (err == nil) {
					t.Errorf("%s: %s to %s: Check says %v, Open %v", name, kind, target, err, opened)
				}
				if err == nil {
					passed++
				}
			}
		}
	}
	if passed != len(allowed) {
		t.Errorf("%d of %d passed", passed, len(allowed))
	}
}

func TestCheckBounds(t *testing.T) {
	node := Conn{Role: messages.Role_NODE, RaftID: 2, To: messages.Role_NODE, Local: 1}
	client := Conn{Role: messages.Role_CLIENT, To: messages.Role_NODE, Local: 1}
	number := func(m proto.Message) uint32 { n, _ := messages.TypeNumber(m); return n }
	raft, write, piece := number(&messages.RaftMessage{}), number(&messages.Write{}), number(&messages.SnapshotPiece{})
	const snapshots = messages.ActorSnapshots
	long := strings.Repeat("x", nameSizeMax)
	for _, test := range []struct {
		name string
		conn Conn
		e    *messages.Envelope
		ok   bool
	}{
		{"largest Raft message", node, &messages.Envelope{Type: raft, Target: messages.ActorRaft, Body: make([]byte, BodySizeMax)}, true},
		{"larger", node, &messages.Envelope{Type: raft, Target: messages.ActorRaft, Body: make([]byte, BodySizeMax+1)}, false},
		{"largest piece", node, &messages.Envelope{Type: piece, Target: snapshots, Body: make([]byte, pieceBodyMax)}, true},
		{"larger", node, &messages.Envelope{Type: piece, Target: snapshots, Body: make([]byte, pieceBodyMax+1)}, false},
		{"largest command", client, &messages.Envelope{Type: write, Target: aSession, Body: make([]byte, CommandBodySizeMax)}, true},
		{"larger", client, &messages.Envelope{Type: write, Target: aSession, Body: make([]byte, CommandBodySizeMax+1)}, false},
		{"long sender", client, &messages.Envelope{Type: write, Target: aSession, Sender: long}, true},
		{"longer sender", client, &messages.Envelope{Type: write, Target: aSession, Sender: long + "x"}, false},
		{"longer target", client, &messages.Envelope{Type: write, Target: messages.ActorSessionPrefix + long}, false},
		{"newline in sender", client, &messages.Envelope{Type: write, Target: aSession, Sender: "a\nb"}, false},
		{"umlaut in sender", client, &messages.Envelope{Type: write, Target: aSession, Sender: "ä"}, false},
		{"no target", client, &messages.Envelope{Type: write}, false},
		{"unknown type", node, &messages.Envelope{Type: 999, Target: messages.ActorRaft}, false},
		{"no envelope", node, nil, false},
	} {
		err := test.conn.Check(test.e)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestOpenHoldsMessagesAgainstTheConnection(t *testing.T) {
	c := Conn{Role: messages.Role_NODE, Address: "node/2", RaftID: 2, To: messages.Role_NODE, Local: 1}
	const snapshots = messages.ActorSnapshots
	answers := raftMessage(raftpb.MsgApp, 2, 1, 1)
	answers.Message.Responses = []*raftpb.Message{{}}
	for _, test := range []struct {
		name, target string
		m            proto.Message
		ok           bool
	}{
		{"right", messages.ActorRaft, raftMessage(raftpb.MsgApp, 2, 1, 1), true},
		{"empty", messages.ActorRaft, &messages.RaftMessage{}, false},
		{"from another", messages.ActorRaft, raftMessage(raftpb.MsgApp, 3, 1, 1), false},
		{"from us", messages.ActorRaft, raftMessage(raftpb.MsgApp, 1, 1, 1), false},
		{"for another", messages.ActorRaft, raftMessage(raftpb.MsgApp, 2, 3, 1), false},
		{"for storage", messages.ActorRaft, raftMessage(raftpb.MsgApp, 2, math.MaxUint64, 1), false},
		{"with answers", messages.ActorRaft, answers, false},
		{"proposal", messages.ActorRaft, &messages.Propose{Origin: 2}, true},
		{"proposal of another", messages.ActorRaft, &messages.Propose{Origin: 1}, false},
		{"founder", messages.ActorFounding, &messages.FounderState{RaftId: 2}, true},
		{"founder in another's name", messages.ActorFounding, &messages.FounderState{RaftId: 3}, false},
		{"bare MsgSnap", messages.ActorRaft, &messages.RaftMessage{Message: offer(nil).Message}, false},
		{"offer", snapshots, offer(nil), true},
		{"empty offer", snapshots, &messages.SnapshotOffer{}, false},
		{"offer of another", snapshots, offer(func(m *raftpb.Message) { m.From = new(uint64(3)) }), false},
		{"offer for another", snapshots, offer(func(m *raftpb.Message) { m.To = new(uint64(3)) }), false},
		{"offer of something else", snapshots, offer(func(m *raftpb.Message) { m.Type = raftpb.MsgApp.Enum() }), false},
		{"offer without a snapshot", snapshots, offer(func(m *raftpb.Message) { m.Snapshot = nil }), false},
		{"offer without an index", snapshots, offer(func(m *raftpb.Message) { m.Snapshot.Metadata.Index = nil }), false},
		{"offer without a term", snapshots, offer(func(m *raftpb.Message) { m.Snapshot.Metadata.Term = nil }), false},
		{"offer without members", snapshots, offer(func(m *raftpb.Message) { m.Snapshot.Metadata.ConfState = nil }), false},
		{"offer with data", snapshots, offer(func(m *raftpb.Message) { m.Snapshot.Data = []byte{1} }), false},
		{"offer with entries", snapshots, offer(func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{{}} }), false},
		{"offer with a context", snapshots, offer(func(m *raftpb.Message) { m.Context = []byte{1} }), false},
		{"offer with answers", snapshots, offer(func(m *raftpb.Message) { m.Responses = []*raftpb.Message{{}} }), false},
		{"piece", snapshots, &messages.SnapshotPiece{Chunk: &messages.SnapshotChunk{}}, true},
		{"empty piece", snapshots, &messages.SnapshotPiece{}, false},
	} {
		e, err := messages.Seal(test.target, "", test.m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Open(e); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	for kind, name := range raftpb.MessageType_name {
		local := map[string]bool{
			"MsgSnap": true, "MsgHup": true, "MsgBeat": true, "MsgProp": true, "MsgUnreachable": true, "MsgSnapStatus": true, "MsgCheckQuorum": true,
			"MsgStorageAppend": true, "MsgStorageAppendResp": true, "MsgStorageApply": true, "MsgStorageApplyResp": true, "MsgForgetLeader": true,
		}[name]
		if what := contradiction(2, 1, raftMessage(raftpb.MessageType(kind), 2, 1, 1)); (what != "") != local {
			t.Errorf("%s: %q", name, what)
		}
	}
	if what := contradiction(2, 1, raftMessage(99, 2, 1, 1)); what == "" {
		t.Error("a Raft message of an unknown type passes")
	}
	broken := &messages.Envelope{Type: 32, Target: messages.ActorRaft, Body: []byte{0xff}}
	if _, err := c.Open(broken); messages.CodeOf(err) != messages.Code_INVALID {
		t.Errorf("%v", err)
	}
}

func TestLaneOf(t *testing.T) {
	full := raftMessage(raftpb.MsgApp, 1, 2, 1)
	full.Message.Entries = []*raftpb.Entry{{}}
	for _, test := range []struct {
		m    proto.Message
		lane messages.Lane
	}{
		{full, messages.Lane_APPEND}, {&messages.Propose{}, messages.Lane_APPEND},
		{offer(nil), messages.Lane_BULK}, {&messages.SnapshotPull{}, messages.Lane_BULK}, {&messages.SnapshotPiece{}, messages.Lane_BULK},
		{&messages.SnapshotEnd{}, messages.Lane_BULK}, {&messages.AuditAsk{}, messages.Lane_BULK},
		{&messages.AuditAnswer{}, messages.Lane_BULK}, {&messages.AuditVerdict{}, messages.Lane_BULK},
		{raftMessage(raftpb.MsgApp, 1, 2, 1), messages.Lane_CONTROL}, {raftMessage(raftpb.MsgVote, 1, 2, 1), messages.Lane_CONTROL},
		{&messages.FounderState{}, messages.Lane_CONTROL}, {&messages.RaftMessage{}, messages.Lane_CONTROL},
	} {
		if got := LaneOf(test.m); got != test.lane {
			t.Errorf("%s: %v, want %v", messages.Line(test.m), got, test.lane)
		}
	}
}

// FuzzOpen looks for an envelope that passes the guard and should not, or
// brings it down.
func FuzzOpen(f *testing.F) {
	for _, m := range everyMessage {
		for _, target := range []string{messages.ActorRaft, messages.ActorGateway, messages.ActorFounding, messages.ActorSnapshots, messages.ActorAudit, aSession} {
			e, _ := messages.Seal(target, "s", m)
			f.Add(e.Type, e.Target, e.Sender, e.Body, uint8(0))
		}
	}
	conns := []Conn{
		{Role: messages.Role_NODE, RaftID: 2, To: messages.Role_NODE, Local: 1},
		{Role: messages.Role_NODE, RaftID: 2, To: messages.Role_NODE, Local: 1, Founding: true},
		{Role: messages.Role_CLIENT, To: messages.Role_NODE, Local: 1},
		{Role: messages.Role_NODE, RaftID: 2, To: messages.Role_CLIENT},
	}
	f.Fuzz(func(t *testing.T, number uint32, target, sender string, body []byte, which uint8) {
		c := conns[int(which)%len(conns)]
		m, err := c.Open(&messages.Envelope{Type: number, Target: target, Sender: sender, Body: body})
		if err != nil {
			if code := messages.CodeOf(err); code != messages.Code_INVALID && code != messages.Code_NOT_ALLOWED {
				t.Fatalf("a refusal with code %v", code)
			}
			return
		}
		if r, ok := m.(*messages.RaftMessage); ok && (r.Message.GetFrom() != 2 || r.Message.GetTo() != 1 || c.To != messages.Role_NODE) {
			t.Fatalf("%v passed", r)
		}
		if target == "" || len(target) > 128 || len(sender) > 128 || len(body) > BodySizeMax {
			t.Fatal("a bound does not hold")
		}
		if c.Role == messages.Role_CLIENT && target != messages.ActorGateway && target != messages.ActorSnapshots && !strings.HasPrefix(target, messages.ActorSessionPrefix) {
			t.Fatalf("a client reached %s", target)
		}
	})
}
