package transport

import (
	"math"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// everyMessage is one of each type that crosses links, right where it can be.
var everyMessage = []proto.Message{
	&messages.Attach{}, &messages.Attached{}, &messages.Detach{}, &messages.Write{}, &messages.WriteReply{},
	&messages.Read{}, &messages.ReadReply{}, &messages.StatusRequest{}, &messages.StatusReply{},
	raftMessage(raftpb.MsgHeartbeat, 2, 1, 1), &messages.Propose{Origin: 2}, &messages.ProposalRefused{}, &messages.FounderState{RaftId: 2},
	&messages.SnapshotRequest{}, &messages.SnapshotReply{},
	offer(nil), &messages.SnapshotPull{Shipment: 1}, &messages.SnapshotPiece{Chunk: &messages.SnapshotChunk{}}, &messages.SnapshotEnd{},
	&messages.AuditAsk{Round: 1}, &messages.AuditAnswer{}, &messages.AuditVerdict{}, &messages.AuditConfirmed{},
	&messages.ClusterRequest{}, &messages.ClusterReply{}, &messages.JoinAsk{}, &messages.JoinAnswer{}, &messages.InvitationAsk{}, &messages.InvitationAnswer{}, &messages.NodePulse{}, &messages.ClusterPulse{},
	&messages.LossAsk{Nonce: 1}, &messages.LossAnswer{Nonce: 1}, &messages.LevelAsk{Round: 1}, &messages.LevelAnswer{},
	&messages.LoginRequest{}, &messages.LoginReply{},
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

// everyTarget is an actor of each kind that a node has, and what looks like one.
func everyTarget() []string {
	targets := []string{messages.ActorSessionPrefix, aSession + "/x", "eventstream", "deadletter", "future$1"}
	for _, a := range messages.Actors {
		name := a.Name
		if strings.HasSuffix(name, "-") {
			name += "1"
		}
		targets = append(targets, name)
	}
	return targets
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
	targets := everyTarget()
	const raft, gateway, founding = messages.ActorRaft, messages.ActorGateway, messages.ActorFounding
	const snapshots, audit, membership = messages.ActorSnapshots, messages.ActorAudit, messages.ActorMembership
	allowed := map[[3]string]bool{
		{"node", "RaftMessage", raft}: true, {"node", "Propose", raft}: true,
		{"node", "ProposalRefused", aSession}: true, {"node", "FounderState", founding}: true,
		{"founder", "FounderState", founding}: true,
		{"client", "Attach", gateway}:         true, {"client", "StatusRequest", gateway}: true,
		{"client", "Write", aSession}: true, {"client", "Read", aSession}: true, {"client", "Detach", aSession}: true,
		{"client", "SnapshotRequest", snapshots}: true,
		{"node", "SnapshotOffer", snapshots}:     true, {"node", "SnapshotPull", snapshots}: true,
		{"node", "SnapshotPiece", snapshots}: true, {"node", "SnapshotEnd", snapshots}: true,
		{"node", "AuditAsk", audit}: true, {"node", "AuditAnswer", audit}: true, {"node", "AuditVerdict", audit}: true, {"node", "AuditConfirmed", audit}: true,
		{"client", "ClusterRequest", membership}: true, {"client", "JoinAsk", membership}: true, {"client", "InvitationAsk", membership}: true, {"client", "LoginRequest", messages.ActorLogin}: true,
		{"node", "LevelAsk", membership}: true, {"node", "LevelAnswer", membership}: true,
		{"node", "NodePulse", membership}: true, {"node", "ClusterPulse", membership}: true,
		{"node", "LossAsk", raft}: true, {"node", "LossAnswer", raft}: true,
	}
	for _, target := range targets {
		if target != "eventstream" && target != "deadletter" {
			for _, reply := range []string{"Attached", "WriteReply", "ReadReply", "StatusReply", "SnapshotReply", "ClusterReply", "JoinAnswer", "InvitationAnswer", "LoginReply"} {
				allowed[[3]string{"to us", reply, target}] = true
			}
		}
	}
	for number := range uint32(1000) {
		same := func(m proto.Message) bool { return messages.KindOf(m) == messages.KindNumbered(number) }
		if messages.KindNumbered(number) != nil && !slices.ContainsFunc(everyMessage, same) {
			t.Errorf("everyMessage has none of number %d", number)
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
	number := func(m proto.Message) uint32 { return messages.KindOf(m).Number }
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
		{"largest piece", node, &messages.Envelope{Type: piece, Target: snapshots, Body: make([]byte, PieceBodySizeMax)}, true},
		{"larger", node, &messages.Envelope{Type: piece, Target: snapshots, Body: make([]byte, PieceBodySizeMax+1)}, false},
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
		{raftMessage(raftpb.MsgApp, 1, 2, 1), messages.Lane_APPEND}, {raftMessage(raftpb.MsgVote, 1, 2, 1), messages.Lane_CONTROL},
		{&messages.FounderState{}, messages.Lane_CONTROL}, {&messages.RaftMessage{}, messages.Lane_CONTROL},
	} {
		if got := LaneOf(messages.KindOf(test.m), test.m); got != test.lane {
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
		if c.Role == messages.Role_CLIENT && target != messages.ActorGateway && target != messages.ActorLogin && target != messages.ActorSnapshots && !strings.HasPrefix(target, messages.ActorSessionPrefix) {
			t.Fatalf("a client reached %s", target)
		}
	})
}
