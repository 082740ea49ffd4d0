package raftactor

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func (w *world) kindOfLast(h *host) raftpb.EntryType { return h.entries[len(h.entries)-1].GetType() }

// TestOneChangeAtATime: what is asked for too early is dropped, and not made an empty entry.
func TestOneChangeAtATime(t *testing.T) {
	seeded(t, 1)
	w := newWorld(t, small, 1, 2, 3)
	l := w.elect()
	w.drain()
	dropped := func(when string, h *host, list ...*messages.MemberChange) {
		t.Helper()
		last := h.last() + uint64(len(h.log))
		if w.change(h, list...); h.last()+uint64(len(h.log)) != last {
			t.Fatalf("%s: it was proposed", when)
		}
	}
	for _, id := range w.ids {
		if id != l.id {
			dropped("to one that does not lead", w.hosts[id], addOf(4))
		}
	}
	if !l.replica.settled() {
		t.Fatal("a leader that has applied an entry of its term is not settled")
	}
	w.change(l, addOf(4))
	dropped("while one is under way", l, removeOf(l.id))
	for w.logStep(l); len(w.network) > 0 || len(l.applies) == 0; {
		for len(w.network) > 0 {
			w.deliver(0, false)
		}
		for _, h := range w.hosts {
			if h != l {
				w.logStep(h)
			}
		}
	}
	w.apply(l)
	if l.replica.settled() || len(l.log) == 0 {
		t.Fatalf("settled: %v; %d appends follow the change", l.replica.settled(), len(l.log))
	}
	dropped("before the barrier is applied", l, removeOf(l.id))
	w.drain()
	if !l.replica.settled() || w.kindOfLast(l) != raftpb.EntryNormal || len(l.entries[len(l.entries)-1].GetData()) > 0 {
		t.Fatal("no barrier stands behind the change")
	}
	if !l.told.Settled || len(l.told.ConfState.Learners) != 1 {
		t.Fatalf("the next change waits for a tick: %v was told last", l.told)
	}
	last := l.last()
	for range 100 {
		w.tick(l)
		w.drain()
	}
	if l.last() != last {
		t.Errorf("%d barriers more", l.last()-last)
	}
	w.join(4)
	w.caughtUp(4)
	other := w.ids[slices.IndexFunc(w.ids, func(id uint64) bool { return id != l.id })]
	w.changed(promoteOf(4), removeOf(other))
	w.drain()
	l.replica.OnProposeChange(&messages.ProposeChange{Command: []byte{1}, Change: &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{NodeId: new(uint64(2))}}}})
	l.replica.OnProposeChange(&messages.ProposeChange{Change: &raftpb.ConfChangeV2{}})
	if w.took(l); len(l.log) > 0 {
		t.Error("a joint configuration is changed, or changed without a command")
	}
	w.changed()
	w.drain()
	l.replica.OnProposeChange(&messages.ProposeChange{Command: []byte{1}, Change: &raftpb.ConfChangeV2{}})
	if w.took(l); len(l.log) > 0 {
		t.Error("a simple configuration is left")
	}
}

// TestADoubtDoesNotReplaceTheBarrier: a leader that was mute for a moment still knows that
// nothing stands behind the change.
func TestADoubtDoesNotReplaceTheBarrier(t *testing.T) {
	seeded(t, 1)
	w := newWorld(t, small, 1, 2, 3)
	l := w.elect()
	w.drain()
	w.change(l, addOf(4))
	for w.logStep(l); len(w.network) > 0 || len(l.applies) == 0; {
		for len(w.network) > 0 {
			w.deliver(0, false)
		}
		for _, h := range w.hosts {
			if h != l {
				w.logStep(h)
			}
		}
	}
	w.apply(l)
	r, other := l.replica, l.id%3+1
	if r.settled() {
		t.Fatal("settled before the doubt")
	}
	forged := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(l.id), From: new(other), Term: new(r.term + 1), Commit: new(uint64(90))}
	if err := r.OnPeer(forged); err != nil || !r.fence.fenced() {
		t.Fatalf("it is %s: %v", r.roleName(), err)
	}
	r.OnLossAnswer(other, &messages.LossAnswer{Nonce: r.fence.nonce, Leader: l.id, Term: r.term})
	if r.Advance(); r.fence.fenced() || r.role != raft.StateLeader {
		t.Fatalf("it is %s", r.roleName())
	}
	if r.settled() {
		t.Error("settled, and no barrier is applied")
	}
}

// TestARemovedLeaderStepsDown: also while entries are on their way to its log.
func TestARemovedLeaderStepsDown(t *testing.T) {
	seeded(t, 1)
	w := newWorld(t, small, 1, 2, 3)
	l := w.elect()
	w.drain()
	w.change(l, removeOf(l.id))
	w.propose(l)
	if len(l.log) != 2 {
		t.Fatalf("%d appends are with the log", len(l.log))
	}
	w.logStep(l)
	for range 20 {
		for len(w.network) > 0 {
			w.deliver(0, false)
		}
		for _, h := range w.hosts {
			if h != l {
				w.logStep(h)
			}
			w.apply(h)
		}
	}
	if w.members[l.state.index].Member(l.id) != nil || l.replica.role == raft.StateLeader || len(l.log) == 0 {
		t.Fatalf("it is a member: %v, and %s", w.members[l.state.index].Member(l.id), l.replica.roleName())
	}
	w.logStep(l)
	w.put(2)
	w.run("the others have it", w.equal)
	for range 200 {
		w.tick(l)
	}
	if stands(l.replica.role) {
		t.Error("it campaigns")
	}
}

// TestALogProvesWhatIsCommitted: a crash may leave entries without the hard state that came
// with them.
func TestALogProvesWhatIsCommitted(t *testing.T) {
	const put, change = raftpb.EntryNormal, raftpb.EntryConfChangeV2
	for name, row := range map[string]struct {
		commit uint64
		kinds  []raftpb.EntryType // from index 2 on
		want   uint64
	}{
		"nothing":                       {1, nil, 1},
		"no change":                     {1, []raftpb.EntryType{put, put}, 1},
		"one change":                    {1, []raftpb.EntryType{put, change, put}, 1},
		"a change behind a change":      {1, []raftpb.EntryType{change, put, change}, 2},
		"three":                         {1, []raftpb.EntryType{change, put, change, put, change, put}, 4},
		"it is known to be":             {4, []raftpb.EntryType{change, put, change}, 4},
		"the first is known to be":      {3, []raftpb.EntryType{change, put, put, change}, 3},
		"changes of the older sort too": {1, []raftpb.EntryType{raftpb.EntryConfChange, put, change}, 2},
	} {
		log := &messages.LogOpened{BaseIndex: 1, BaseTerm: 1, HardState: &raftpb.HardState{Term: new(uint64(3)), Vote: new(uint64(2)), Commit: &row.commit}}
		for i, kind := range row.kinds {
			log.Entries = append(log.Entries, &raftpb.Entry{Index: new(uint64(i) + 2), Term: new(uint64(1)), Type: kind.Enum()})
		}
		hs, _, _ := newTail(log, nil).InitialState()
		if hs.GetCommit() != row.want || hs.GetTerm() != 3 || hs.GetVote() != 2 {
			t.Errorf("%s: %v, want commit %d", name, hs, row.want)
		}
	}
}

// TestTheSnapshotIsNotOlderThanTheMembers: one that was added could use no older one.
func TestTheSnapshotIsNotOlderThanTheMembers(t *testing.T) {
	tail := newTail(&messages.LogOpened{BaseIndex: 1, BaseTerm: 1}, nil)
	tail.checkpointed(12, 4, &raftpb.ConfState{Voters: []uint64{1}})
	for _, row := range []struct {
		changed, checkpoint uint64
		err                 error
	}{{0, 12, nil}, {12, 12, nil}, {13, 12, raft.ErrSnapshotTemporarilyUnavailable}, {13, 13, nil}} {
		tail.reconfigured(row.changed)
		tail.checkpointed(row.checkpoint, 4, &raftpb.ConfState{Voters: []uint64{1}})
		if _, err := tail.Snapshot(); !errors.Is(err, row.err) {
			t.Errorf("changed at %d, checkpoint %d: %v", row.changed, row.checkpoint, err)
		}
	}
}

// alone is a replica whose log holds three entries more than it knows to be committed.
func alone(self uint64, conf *raftpb.ConfState) *Replica {
	r := NewReplica(ReplicaConfig{Self: self, TickMS: 50, ReadNonce: self, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
	log := &messages.LogOpened{BaseIndex: 1, BaseTerm: 1, HardState: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}}
	for index := uint64(2); index < 5; index++ {
		log.Entries = append(log.Entries, &raftpb.Entry{Index: &index, Term: new(uint64(1)), Data: []byte("x")})
	}
	r.OnLogOpened(log)
	r.OnMachineOpened(&messages.MachineOpened{Index: 1, Term: 1, ConfState: conf})
	return r
}

// TestALonelyVoterDoesNotAnswerFromThePast: one that decides alone has acknowledged what it
// does not yet know to be committed after a restart.
func TestALonelyVoterDoesNotAnswerFromThePast(t *testing.T) {
	seeded(t, 1)
	r := alone(1, &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}})
	r.reads.add(&messages.ReadIndex{Session: "s", Read: &messages.Read{Request: 1}})
	r.reads.next() // asked of a leader before
	ask := &raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), To: new(uint64(1)), Entries: []*raftpb.Entry{{Data: []byte("context of 2")}}}
	var applies []*raftpb.Message
	var answered []uint64
	run := func() {
		r.Advance()
		for again := true; again; {
			again = false
			for _, e := range r.Effects() {
				again = true
				switch e := e.(type) {
				case AppendLog:
					r.OnAppended(e.Message)
				case ApplyEntries:
					applies = append(applies, e.Message)
				case ReadAt:
					answered = append(answered, e.Index)
				case SendPeer:
					if e.Message.GetType() == raftpb.MsgReadIndexResp {
						answered = append(answered, e.Message.GetIndex())
					}
				}
			}
			r.Advance()
		}
	}
	for range 30 {
		r.OnTick(1)
		if err := r.OnPeer(proto.Clone(ask).(*raftpb.Message)); err != nil {
			t.Fatal(err)
		}
		run()
	}
	if r.role != raft.StateLeader || len(answered) > 0 {
		t.Fatalf("%s: answered with %v before it had applied an entry of its term", r.roleName(), answered)
	}
	for len(applies) > 0 {
		entries := applies[0].GetEntries()
		r.OnApplied(&messages.Applied{Message: applies[0], Index: entries[len(entries)-1].GetIndex()})
		applies = applies[1:]
		run()
	}
	if err := r.OnPeer(ask); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		r.OnTick(1)
		run()
	}
	if len(answered) != 2 || slices.Min(answered) < 5 {
		t.Errorf("answered with %v", answered)
	}
}

// TestOnlyVotersStand: whatever half of a joint configuration they vote in.
func TestOnlyVotersStand(t *testing.T) {
	seeded(t, 1)
	for name, row := range map[string]struct {
		conf *raftpb.ConfState
		want bool
	}{
		"a voter":           {&raftpb.ConfState{Voters: []uint64{1, 2, 3}}, true},
		"a learner":         {&raftpb.ConfState{Voters: []uint64{2, 3}, Learners: []uint64{1}}, false},
		"one that comes":    {&raftpb.ConfState{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{2, 3, 4}}, true},
		"one that leaves":   {&raftpb.ConfState{Voters: []uint64{2, 3, 4}, VotersOutgoing: []uint64{1, 2, 3}}, true},
		"a learner, joint":  {&raftpb.ConfState{Voters: []uint64{2, 3, 4}, VotersOutgoing: []uint64{2, 3, 5}, Learners: []uint64{1}}, false},
		"one that is gone":  {&raftpb.ConfState{Voters: []uint64{2, 3, 4}}, false},
		"one with no state": {&raftpb.ConfState{}, false},
	} {
		r, stood := alone(1, row.conf), false
		r.OnPeerGone(2)
		for range 200 {
			r.OnTick(1)
			r.Advance()
			stood = stood || stands(r.role)
		}
		if stood != row.want {
			t.Errorf("%s stands: %v", name, stood)
		}
		vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(90)), Index: new(uint64(9)), LogTerm: new(uint64(9))}
		r.Effects()
		if err := r.OnPeer(vote); err != nil {
			t.Fatal(err)
		}
		r.Advance()
		granted := slices.ContainsFunc(r.Effects(), func(e Effect) bool {
			a, is := e.(AppendLog)
			return is && slices.ContainsFunc(a.Message.GetResponses(), func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgVoteResp && !m.GetReject() })
		})
		if !granted {
			t.Errorf("%s refuses its vote", name)
		}
	}
}

// TestWhoGetsTheLead: a voter that is close behind and was heard of lately, and nobody else.
func TestWhoGetsTheLead(t *testing.T) {
	for name, row := range map[string]struct {
		alter func(w *world, l *host, to uint64) uint64
		want  bool
	}{
		"one that is close": {func(_ *world, _ *host, to uint64) uint64 { return to }, true},
		"itself":            {func(_ *world, l *host, _ uint64) uint64 { return l.id }, false},
		"a stranger":        {func(*world, *host, uint64) uint64 { return 9 }, false},
		"nobody":            {func(*world, *host, uint64) uint64 { return 0 }, false},
		"a learner": {func(w *world, _ *host, _ uint64) uint64 {
			w.changed(addOf(4))
			w.join(4)
			w.caughtUp(4)
			return 4
		}, false},
		"one that is silent": {func(w *world, l *host, to uint64) uint64 {
			w.cutOff[to] = true
			for range 6 {
				w.tick(l)
				w.drain()
			}
			return to
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			seeded(t, 1)
			w := newWorld(t, small, 1, 2, 3)
			l := w.elect()
			for range 3 {
				w.tick(l)
				w.drain()
			}
			to := row.alter(w, l, l.id%3+1)
			l.replica.OnTransferLead(&messages.TransferLead{To: to})
			w.took(l)
			if on := l.replica.node.BasicStatus().LeadTransferee != 0; on != row.want {
				t.Fatalf("the lead is on its way: %v", on)
			}
			w.propose(l) // it waits at the gate
			w.drain()
			if row.want && (w.hosts[to].replica.role != raft.StateLeader || l.replica.leader != to) {
				t.Errorf("%d leads", l.replica.leader)
			}
		})
	}
}

// TestATransferThatFailsLosesNothing: proposals wait meanwhile.
func TestATransferThatFailsLosesNothing(t *testing.T) {
	seeded(t, 1)
	w := newWorld(t, small, 1, 2, 3)
	l := w.elect()
	for range 3 {
		w.tick(l)
		w.drain()
	}
	to := l.id%3 + 1
	w.cutOff[to] = true
	l.replica.OnTransferLead(&messages.TransferLead{To: to})
	w.took(l)
	before := l.state.index
	w.propose(l)
	if w.drain(); l.state.index != before || l.replica.leader != l.id {
		t.Fatalf("applied %d, %d before", l.state.index, before)
	}
	w.run("the leader keeps the lead", func() bool { return l.state.index > before })
}

// TestRaftAndMachineMustAgree: another configuration than the machine's ends the process.
func TestRaftAndMachineMustAgree(t *testing.T) {
	r := alone(1, &raftpb.ConfState{Voters: []uint64{1, 2, 3}})
	r.OnApplied(&messages.Applied{Index: 2, Message: &raftpb.Message{Entries: []*raftpb.Entry{{Index: new(uint64(2)), Term: new(uint64(1)), Type: raftpb.EntryConfChangeV2.Enum()}}},
		Verdicts: []*messages.Verdict{{Index: 2, Accepted: true, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
			Change: &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(4))}}}}}})
	died := slices.ContainsFunc(r.Effects(), func(e Effect) bool {
		d, is := e.(Die)
		return is && messages.CodeOf(d.Reason) == messages.Code_INTERNAL && strings.Contains(d.Reason.Error(), "Learners:[4]")
	})
	if !died {
		t.Error("it goes on")
	}
}

// TestHowReplicationGoes is told every few ticks, and at once when something changes.
func TestHowReplicationGoes(t *testing.T) {
	seeded(t, 1)
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	told := func(id uint64) (last *messages.Replication, n int) {
		for _, e := range g.seen[id] {
			if e, is := e.(TellReplication); is {
				last, n = e.Replication, n+1
			}
		}
		return last, n
	}
	silent := leader%3 + 1
	g.cut[silent] = true
	_, before := told(leader)
	for range 2 * replicationTicks {
		for id := range g.replicas {
			g.replicas[id].OnTick(1)
			g.drain()
		}
	}
	m, n := told(leader)
	if n != before+2 || m.Role != "leader" || m.Leader != leader || !m.Settled || len(m.Progress) != 2 || m.Applied == 0 || m.LastIndex != m.Commit {
		t.Fatalf("told %d times: %v", n-before, m)
	}
	for _, p := range m.Progress {
		if (p.SilentTicks > replicationTicks) != (p.RaftId == silent) || p.Match != m.LastIndex || p.State != messages.ProgressState_REPLICATING {
			t.Errorf("%v", p)
		}
	}
	g.cut[silent] = false
	for _, row := range []struct {
		gone bool
		do   func()
	}{
		{true, func() { g.replicas[leader].OnPeerGone(silent) }},
		{false, func() {
			for range replicationTicks {
				g.replicas[leader].OnTick(1)
				g.drain()
			}
		}},
	} {
		row.do()
		g.drain()
		for _, p := range func() []*messages.Progress { m, _ := told(leader); return m.Progress }() {
			if p.Gone != (row.gone && p.RaftId == silent) {
				t.Errorf("gone: %v; %v", row.gone, p)
			}
		}
	}
	if m, _ := told(leader%3 + 1); m.Role != "follower" || m.Settled || len(m.Progress) > 0 || m.Leader != leader {
		t.Errorf("a follower says %v", m)
	}
}

// TestASnapshotOvertakesAVerdict: a change that was on its way to the machine when a snapshot
// came is part of the configuration that came with it.
func TestASnapshotOvertakesAVerdict(t *testing.T) {
	r := alone(1, &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}})
	for range fenceStartTicks {
		r.OnTick(1)
	}
	swap := &raftpb.ConfChangeV2{Transition: raftpb.ConfChangeTransition_ConfChangeTransitionJointExplicit.Enum(), Changes: []*raftpb.ConfChangeSingle{
		{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(4))}, {Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(3))}}}
	data, err := proto.Marshal(swap)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.OnPeer(&raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(2)),
		Index: new(uint64(4)), LogTerm: new(uint64(1)), Commit: new(uint64(5)),
		Entries: []*raftpb.Entry{{Index: new(uint64(5)), Term: new(uint64(2)), Type: raftpb.EntryConfChangeV2.Enum(), Data: data}}}); err != nil {
		t.Fatal(err)
	}
	var applies []*raftpb.Message
	run := func() {
		for r.Advance(); ; r.Advance() {
			effects := r.Effects()
			if len(effects) == 0 {
				return
			}
			for _, e := range effects {
				switch e := e.(type) {
				case AppendLog:
					if e.Message.GetSnapshot() == nil { // that is still being installed
						r.OnAppended(e.Message)
					}
				case ApplyEntries:
					applies = append(applies, e.Message)
				}
			}
		}
	}
	run()
	joint := &raftpb.ConfState{Voters: []uint64{1, 2, 4}, VotersOutgoing: []uint64{1, 2, 3}}
	s := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(2)), ConfState: joint}}
	if err := r.OnStaged(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(2)), Snapshot: s}); err != nil {
		t.Fatal(err)
	}
	if run(); r.installing == nil {
		t.Fatal("the snapshot is not being installed")
	}
	for _, m := range applies {
		entries := m.GetEntries()
		applied := &messages.Applied{Message: m, Index: entries[len(entries)-1].GetIndex()}
		if applied.Index == 5 {
			applied.Verdicts = []*messages.Verdict{{Index: 5, Accepted: true, Change: swap, ConfState: joint}}
		}
		r.OnApplied(applied)
	}
	if r.applied != 5 || joint.Equivalent(r.changes.conf) != nil {
		t.Errorf("applied %d, and it decides by %s", r.applied, raft.DescribeConfState(r.changes.conf))
	}
	for _, e := range r.Effects() {
		if d, is := e.(Die); is {
			t.Error(d.Reason)
		}
	}
}

// TestStrangersAsk: what is refused to one that is no member, and what is not.
func TestStrangersAsk(t *testing.T) {
	seeded(t, 1)
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	g.drain()
	r, follower := g.replicas[leader], g.replicas[leader%3+1]
	message := func(to *Replica, kind raftpb.MessageType, from uint64) *raftpb.Message {
		m := &raftpb.Message{Type: kind.Enum(), From: &from, To: &to.cfg.Self, Term: &r.term}
		if kind == raftpb.MsgReadIndex {
			m.Term, m.Entries = nil, []*raftpb.Entry{{Data: []byte("context")}}
		}
		return m
	}
	for name, row := range map[string]struct {
		to   *Replica
		m    *raftpb.Message
		says string
	}{
		"a read of a stranger":             {r, message(r, raftpb.MsgReadIndex, 9), "replica 9, which is no member"},
		"a read of a member":               {r, message(r, raftpb.MsgReadIndex, follower.cfg.Self), ""},
		"a read at one that does not lead": {follower, message(follower, raftpb.MsgReadIndex, 9), ""},
		"a lead from a stranger":           {follower, message(follower, raftpb.MsgTimeoutNow, 9), "replica 9, which does not lead"},
		"a lead from one that has none":    {r, message(r, raftpb.MsgTimeoutNow, follower.cfg.Self), "which does not lead"},
		"an answer of a stranger":          {r, message(r, raftpb.MsgHeartbeatResp, 9), ""},
		"a vote for a stranger":            {r, message(r, raftpb.MsgPreVote, 9), ""},
	} {
		err := row.to.OnPeer(row.m)
		if (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
