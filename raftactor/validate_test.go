package raftactor

import (
	"log/slog"
	"math"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// Each row is a message that RawNode would panic on, or be of no use after.
func TestPeersAreHeldAgainstWhatRaftTrusts(t *testing.T) {
	message := func(kind raftpb.MessageType, term uint64, change func(*raftpb.Message)) *raftpb.Message {
		m := &raftpb.Message{Type: kind.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: &term}
		if change != nil {
			change(m)
		}
		return m
	}
	from := func(id uint64) func(*raftpb.Message) { return func(m *raftpb.Message) { m.From = &id } }
	context := func(b ...byte) func(*raftpb.Message) { return func(m *raftpb.Message) { m.Context = b } }
	entries := func(index, logTerm uint64, of ...uint64) func(*raftpb.Message) { // index and term of each
		return func(m *raftpb.Message) {
			m.Index, m.LogTerm = &index, &logTerm
			for ; len(of) > 0; of = of[2:] {
				m.Entries = append(m.Entries, &raftpb.Entry{Index: new(of[0]), Term: new(of[1])})
			}
		}
	}
	for _, test := range []struct {
		name string
		m    *raftpb.Message
		want string // empty: it is taken
	}{
		{"a heartbeat", message(raftpb.MsgHeartbeat, 6, nil), ""},
		{"an append", message(raftpb.MsgApp, 7, entries(6, 5, 7, 6, 8, 7)), ""},
		{"a read", message(raftpb.MsgReadIndex, 0, entries(0, 0, 0, 0)), ""},
		{"a vote of a far term", message(raftpb.MsgVote, 6+termsAheadMax, nil), ""},

		{"for another", message(raftpb.MsgHeartbeat, 6, func(m *raftpb.Message) { m.To = new(uint64(2)) }), "is for replica 2"},
		{"from nobody", message(raftpb.MsgHeartbeat, 6, from(raft.None)), "from replica 0"},
		{"from itself", message(raftpb.MsgHeartbeat, 6, from(1)), "from replica 1"},
		{"from its log", message(raftpb.MsgApp, 6, from(raft.LocalAppendThread)), "from replica"},
		{"from its machine", message(raftpb.MsgApp, 6, from(raft.LocalApplyThread)), "from replica"},
		{"with storage's responses", message(raftpb.MsgApp, 6, func(m *raftpb.Message) { m.Responses = []*raftpb.Message{{}} }), "with responses"},
		{"a proposal", message(raftpb.MsgProp, 6, nil), "does not come from peers"},
		{"a hup", message(raftpb.MsgHup, 6, nil), "does not come from peers"},
		{"a snapshot", message(raftpb.MsgSnap, 6, nil), "does not come from peers"},
		{"storage's answer", message(raftpb.MsgStorageAppendResp, 6, nil), "does not come from peers"},
		{"an unknown type", message(99, 6, nil), "does not come from peers"},

		{"a vote without a term", message(raftpb.MsgVote, 0, nil), "of term 0"},
		{"a heartbeat without a term", message(raftpb.MsgHeartbeat, 0, func(m *raftpb.Message) { m.Commit = new(uint64(99)) }), "of term 0"},
		{"a read with a term", message(raftpb.MsgReadIndex, 7, entries(0, 0, 0, 0)), "of term 7"},
		{"the last term of all", message(raftpb.MsgVote, math.MaxUint64, nil), "this replica is in term 6"},
		{"a term too far", message(raftpb.MsgVote, 7+termsAheadMax, nil), "this replica is in term 6"},
		{"the last index of all", message(raftpb.MsgApp, 6, entries(math.MaxUint64, 5)), "with index"},
		{"a hint too far", message(raftpb.MsgAppResp, 6, func(m *raftpb.Message) { m.RejectHint = new(uint64(indexMax + 1)) }), "hint"},

		{"a gap", message(raftpb.MsgApp, 6, entries(6, 5, 8, 6)), "with entry 8 where 7 belongs"},
		{"a term that goes back", message(raftpb.MsgApp, 6, entries(6, 5, 7, 6, 8, 5)), "behind term 6"},
		{"a term to come", message(raftpb.MsgApp, 6, entries(6, 5, 7, 7)), "of term 7"},
		{"a read without its context", message(raftpb.MsgReadIndex, 0, nil), "with 0 entries"},
		{"an answer to no read", message(raftpb.MsgReadIndexResp, 6, nil), "with 0 entries"},
		{"a vote with entries", message(raftpb.MsgVote, 6, entries(6, 5, 7, 6)), "with entries"},
		{"a short position", message(raftpb.MsgHeartbeatResp, 6, context(1, 2, 3)), "a context of 3 bytes"},
		{"a position ahead", message(raftpb.MsgHeartbeatResp, 6, context(1, 0, 0, 0, 0, 0, 0, 0)), "confirms more reads"},
	} {
		s := newScript(nil)
		err := s.replica.OnPeer(test.m)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// A leader takes the position that its own heartbeat asked for, and none ahead of it.
func TestReadsAreConfirmedAsAsked(t *testing.T) {
	b := beats{}
	b.sent(&raftpb.Message{Term: new(uint64(3)), Context: []byte{9, 0, 0, 0, 0, 0, 0, 0}})
	b.sent(&raftpb.Message{Term: new(uint64(3))})
	answer := func(term uint64, position byte) *raftpb.Message {
		return &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: &term, Context: []byte{position, 0, 0, 0, 0, 0, 0, 0}}
	}
	if err := b.validate(answer(3, 9)); err != nil {
		t.Error(err)
	}
	if err := b.validate(answer(3, 10)); err == nil {
		t.Error("10 of 9 reads are confirmed")
	}
	b.sent(&raftpb.Message{Term: new(uint64(4))})
	if err := b.validate(answer(4, 9)); err == nil {
		t.Error("the next leadership has asked for nothing yet")
	}
	if err := b.validate(answer(3, 9)); err != nil {
		t.Errorf("what is late is raft's to drop: %v", err)
	}
}

// TestStrangersWaitForTheirTurn: while a leader is heard, nobody else leads its term, and no
// replica that the configuration does not hold is heard of a later one, in whatever kind of message.
// Where the leader has fallen silent it is, for it may be of a newer configuration.
func TestStrangersWaitForTheirTurn(t *testing.T) {
	kinds := []raftpb.MessageType{raftpb.MsgHeartbeat, raftpb.MsgApp, raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgAppResp, raftpb.MsgHeartbeatResp, raftpb.MsgVoteResp}
	message := func(kind raftpb.MessageType, from, term uint64) *raftpb.Message {
		return &raftpb.Message{Type: kind.Enum(), From: &from, To: new(uint64(1)), Term: &term, Index: new(uint64(6)), LogTerm: new(uint64(5))}
	}
	for _, kind := range kinds {
		leads, votes := kind == raftpb.MsgHeartbeat || kind == raftpb.MsgApp, kind == raftpb.MsgVote || kind == raftpb.MsgPreVote
		for _, row := range []struct {
			name       string
			from, term uint64
			ticks      int // since the leader was heard
			unseats    bool
			refused    bool
		}{
			{name: "a stranger of a later term", from: 99, term: 9},
			{name: "a stranger of this term", from: 99, term: 7, refused: leads},
			{name: "a member of this term", from: 3, term: 7, refused: leads},
			{name: "a member of a later term", from: 3, term: 9, unseats: !votes}, // which waits too: raft's own lease
			{name: "a stranger, the leader silent", from: 99, term: 9, ticks: 21, unseats: leads || kind == raftpb.MsgVote},
		} {
			s := newScript(nil)
			if err := s.replica.OnPeer(message(raftpb.MsgHeartbeat, 2, 7)); err != nil {
				t.Fatal(err)
			}
			s.replica.Advance()
			s.replica.ticks += uint64(row.ticks)
			before := s.replica.node.BasicStatus()
			if before.Lead != 2 || before.GetTerm() != 7 {
				t.Fatalf("%+v", before)
			}
			m := message(kind, row.from, row.term)
			if row.ticks > 0 && kind == raftpb.MsgVote { // raft has its own clock
				m.Context = []byte(campaignTransfer)
			}
			err := s.replica.OnPeer(m)
			after := s.replica.node.BasicStatus()
			if (err != nil) != row.refused || (after.GetTerm() > 7) != row.unseats || !row.unseats && after.Lead != 2 {
				t.Errorf("%v: %s: %v; replica %d leads term %d", kind, row.name, err, after.Lead, after.GetTerm())
			}
		}
	}
}

// TestLearnersSeekVoters: a learner that hears of no leader speaks to the voters that it knows once
// in an election timeout; they may need it, and be unable to reach it. Whoever votes stands instead.
func TestLearnersSeekVoters(t *testing.T) {
	for name, conf := range map[string]*raftpb.ConfState{
		"a learner": {Voters: []uint64{2, 3}, Learners: []uint64{1}},
		"a voter":   {Voters: []uint64{1, 2, 3}},
	} {
		r := NewReplica(ReplicaConfig{Self: 1, TickMS: 50, ReadNonce: 1, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
		r.OnLogOpened(&messages.LogOpened{BaseIndex: 3, BaseTerm: 1, HardState: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(3))}})
		r.OnMachineOpened(&messages.MachineOpened{Index: 3, Term: 1, ConfState: conf})
		welcome(r)
		r.Effects()
		asked := map[uint64]int{}
		for range 40 {
			r.OnTick(1)
			for _, e := range r.Effects() {
				if ask, is := e.(AskLoss); is {
					asked[ask.To]++
				}
			}
		}
		if learns := len(conf.Learners) > 0; learns && (asked[2] != 2 || asked[3] != 2) || !learns && len(asked) > 0 {
			t.Errorf("%s asks %v", name, asked)
		}
	}
}
