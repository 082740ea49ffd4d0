package raftactor

import (
	"log/slog"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// group drives replicas by hand: storage answers at once unless held, and every
// message between them crosses a wire that can be cut.
type group struct {
	t        *testing.T
	replicas map[uint64]*Replica
	held     map[uint64][]*raftpb.Message // appends that the log has not answered
	hold     map[uint64]bool
	applying []*raftpb.Message // what machines have not answered; nil: they answer at once
	cut      map[uint64]bool
	seen     map[uint64][]Effect
	commands map[uint64]int // applied commands
}

func newGroup(t *testing.T, ids ...uint64) *group { return newTunedGroup(t, Options{}, ids...) }

func newTunedGroup(t *testing.T, options Options, ids ...uint64) *group {
	g := &group{t: t, replicas: map[uint64]*Replica{}, held: map[uint64][]*raftpb.Message{}, hold: map[uint64]bool{},
		cut: map[uint64]bool{}, seen: map[uint64][]Effect{}, commands: map[uint64]int{}}
	for _, id := range ids {
		r := NewReplica(ReplicaConfig{Self: id, TickMS: 50, ReadNonce: id, Logger: raftLogger{slog.New(slog.DiscardHandler)}, Options: options})
		conf := &raftpb.ConfState{Voters: ids}
		r.OnLogOpened(&messages.LogOpened{BaseIndex: 1, BaseTerm: 1, HardState: &raftpb.HardState{Term: proto.Uint64(1), Commit: proto.Uint64(1)}})
		r.OnMachineOpened(&messages.MachineOpened{Index: 1, Term: 1, ConfState: conf})
		welcome(r)
		g.replicas[id] = r
	}
	return g
}

// welcome has the others say to a replica that starts that it has lost nothing.
func welcome(r *Replica) {
	for _, e := range r.Effects() {
		if ask, is := e.(AskLoss); is {
			r.OnLossAnswer(ask.To, &messages.LossAnswer{Nonce: ask.Ask.Nonce})
		}
	}
	r.Advance()
	r.Effects()
}

// drain does all there is to do without any time passing.
func (g *group) drain() {
	for again := true; again; {
		again = false
		for id := uint64(1); id <= 9; id++ {
			r := g.replicas[id]
			if r == nil {
				continue
			}
			r.Advance()
			for _, e := range r.Effects() {
				again = true
				g.seen[id] = append(g.seen[id], e)
				g.run(id, r, e)
			}
		}
	}
}

func (g *group) run(id uint64, r *Replica, e Effect) {
	switch e := e.(type) {
	case SendPeer:
		to := g.replicas[e.Message.GetTo()]
		if to == nil || g.cut[id] || g.cut[e.Message.GetTo()] {
			return
		}
		if err := to.OnPeer(proto.Clone(e.Message).(*raftpb.Message)); err != nil {
			g.t.Fatalf("%d refuses %v of %d: %v", e.Message.GetTo(), e.Message.GetType(), id, err)
		}
	case AppendLog:
		g.held[id] = append(g.held[id], e.Message)
		if !g.hold[id] {
			g.release(id)
		}
	case ApplyEntries:
		entries := e.Message.GetEntries()
		for _, entry := range entries {
			c := new(messages.Commands)
			if err := proto.Unmarshal(entry.GetData(), c); err != nil {
				g.t.Fatal(err)
			}
			g.commands[id] += len(c.Proposals)
		}
		if g.applying != nil {
			g.applying = append(g.applying, e.Message)
			return
		}
		r.OnApplied(&messages.Applied{Message: e.Message, Index: entries[len(entries)-1].GetIndex()})
	}
}

func (g *group) release(id uint64) {
	for _, m := range g.held[id] {
		g.replicas[id].OnAppended(m)
	}
	g.held[id] = nil
}

func (g *group) elect() uint64 {
	for range 100 {
		for id := uint64(1); id <= 9; id++ {
			if r := g.replicas[id]; r != nil && !g.cut[id] {
				r.OnTick(1)
				g.drain()
				if r.leader == id && r.appliedTerm == r.term {
					return id
				}
			}
		}
	}
	g.t.Fatal("nobody was elected within 100 ticks")
	return 0
}

func (g *group) propose(id uint64, seq uint64) {
	g.replicas[id].OnPropose(Asker{"node/9", "s"}, &messages.Propose{Origin: 9, Seq: seq, Command: []byte("command")})
}

func refusals(effects []Effect) (codes []messages.Code) {
	for _, e := range effects {
		if r, ok := e.(RefuseProposal); ok {
			codes = append(codes, r.Refusal.Code)
		}
	}
	return codes
}

func elections(effects []Effect) (n int) {
	for _, e := range effects {
		if _, ok := e.(ElectionStarted); ok {
			n++
		}
	}
	return n
}

func TestEveryElectionIsToldOnce(t *testing.T) {
	for name, row := range map[string]struct {
		replicas []uint64
		options  Options
	}{
		"alone":            {[]uint64{1}, Options{}},
		"of three":         {[]uint64{1, 2, 3}, Options{}},
		"without pre-vote": {[]uint64{1, 2, 3}, Options{NoPreVote: true}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTunedGroup(t, row.options, row.replicas...)
			winner := g.elect()
			if n := elections(g.seen[winner]); n != 1 {
				t.Errorf("the winner of the first election has told of %d", n)
			}
		})
	}
}

// TestElectionsInVainAreTold: each round of one that nobody hears.
func TestElectionsInVainAreTold(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	lonely := g.elect()%3 + 1
	g.cut[lonely] = true
	before, ticks := elections(g.seen[lonely]), 200
	for range ticks {
		g.replicas[lonely].OnTick(1)
		g.drain()
	}
	// A round takes one to two election timeouts.
	timeout := g.replicas[lonely].cfg.Options.ElectionTicks
	if n := elections(g.seen[lonely]) - before; n < ticks/(2*timeout)-1 || n > ticks/timeout {
		t.Errorf("%d elections in %d ticks, with a timeout of %d to %d", n, ticks, timeout, 2*timeout)
	}
}

// TestVotesAreAskedForOnceTheTermIsDurable: a majority may elect a replica before its own log
// has the term. If it crashed then it could be elected in the same term again, and put other
// entries where the first ones are.
func TestVotesAreAskedForOnceTheTermIsDurable(t *testing.T) {
	g := newTunedGroup(t, Options{NoPreVote: true}, 1, 2, 3)
	leader := g.elect()
	other := leader%3 + 1
	asked := func() (n int) {
		for _, e := range g.seen[other] {
			if m, ok := e.(SendPeer); ok && m.Message.GetType() == raftpb.MsgVote {
				n++
			}
		}
		return n
	}
	before := asked()
	g.cut[leader], g.hold[other] = true, true
	for elected := elections(g.seen[other]); elections(g.seen[other]) == elected; g.drain() {
		g.replicas[other].OnTick(1)
	}
	if n := asked() - before; n > 0 {
		t.Fatalf("%d votes are asked for in a term that is not durable", n)
	}
	g.hold[other] = false
	g.release(other)
	g.drain()
	if asked() == before {
		t.Error("no vote is asked for once it is")
	}
}

func TestProposalsCommitOnEveryReplica(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	for seq := range uint64(50) {
		g.propose(leader, seq+1)
	}
	g.drain()
	for range 3 {
		g.replicas[leader].OnTick(1)
		g.drain()
	}
	for id := range g.replicas {
		if g.commands[id] != 50 {
			t.Errorf("replica %d applied %d commands of 50", id, g.commands[id])
		}
	}
}

func TestGateLetsQueuedProposalsShareAnEntry(t *testing.T) {
	g := newGroup(t, 1)
	leader := g.elect()
	g.hold[leader] = true
	for seq := range uint64(20) {
		g.propose(leader, seq+1)
		g.drain()
	}
	if n := len(g.held[leader]); n != 2 {
		t.Fatalf("%d appends are with the log, 2 may be", n)
	}
	g.hold[leader] = false
	g.release(leader)
	g.drain()
	if g.commands[leader] != 20 {
		t.Fatalf("%d commands applied of 20", g.commands[leader])
	}
	if last := g.replicas[leader].tail.last(); last > 2+3 {
		t.Fatalf("20 commands took entries up to %d: those behind the gate did not share one", last)
	}
}

func TestWhoRefusesProposals(t *testing.T) {
	fresh := NewReplica(ReplicaConfig{Self: 1, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
	fresh.OnPropose(Asker{"node/9", "s"}, &messages.Propose{Command: []byte("c")})
	if got := refusals(fresh.Effects()); len(got) != 1 || got[0] != messages.Code_NO_LEADER {
		t.Errorf("before the log is open: %v", got)
	}
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	follower := leader%3 + 1
	g.propose(follower, 1)
	if got := refusals(g.replicas[follower].Effects()); len(got) != 1 || got[0] != messages.Code_REDIRECT {
		t.Errorf("a follower: %v", got)
	}
	r := g.replicas[leader]
	r.OnPropose(Asker{}, &messages.Propose{Command: make([]byte, messages.CommandSizeMax+1)})
	if got := refusals(r.Effects()); len(got) != 1 || got[0] != messages.Code_INVALID {
		t.Errorf("too large: %v", got)
	}
	g.hold[leader] = true
	for range 100 {
		r.OnPropose(Asker{}, &messages.Propose{Command: make([]byte, 500<<10)})
		g.drain()
	}
	got := refusals(g.seen[leader])
	if len(got) == 0 || got[len(got)-1] != messages.Code_BUSY {
		t.Errorf("beyond the bound: %v", got)
	}
}

func TestQueuedProposalsComeBackWhenLeadershipIsLost(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	g.hold[leader] = true
	for seq := range uint64(5) {
		g.propose(leader, seq+1)
		g.drain()
	}
	g.cut[leader] = true
	for range 40 {
		g.replicas[leader].OnTick(1)
		g.drain()
	}
	if got := refusals(g.seen[leader]); len(got) != 3 {
		t.Fatalf("%d proposals came back; two are with the log, three were queued", len(got))
	}
}

func TestReadsShareOneReadIndex(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	follower := leader%3 + 1
	for _, id := range []uint64{leader, follower} {
		for n := range uint64(10) {
			g.replicas[id].OnRead(&messages.ReadIndex{Read: &messages.Read{Request: n}})
		}
		g.drain()
		batches, reads := 0, 0
		for _, e := range g.seen[id] {
			if r, ok := e.(ReadAt); ok {
				batches++
				reads += len(r.Reads)
			}
		}
		if batches != 1 || reads != 10 {
			t.Errorf("replica %d: %d batches with %d reads", id, batches, reads)
		}
	}
}

func TestReadsAreGivenUpWithoutAQuorum(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	g.cut[leader] = true
	g.replicas[leader].OnRead(&messages.ReadIndex{Read: &messages.Read{Request: 1}})
	for range 100 {
		g.replicas[leader].OnTick(1)
		g.drain()
	}
	for _, e := range g.seen[leader] {
		switch e := e.(type) {
		case ReadAt:
			if len(e.Reads) > 0 {
				t.Fatal("a leader without a quorum served a read")
			}
		case RefuseReads:
			if e.Code == messages.Code_NO_LEADER && len(e.Reads) == 1 {
				return
			}
		}
	}
	t.Fatal("the read was neither served nor refused")
}

func TestPeerMessagesAreValidated(t *testing.T) {
	message := func(change func(*raftpb.Message)) *raftpb.Message {
		m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: proto.Uint64(1), From: proto.Uint64(2), Term: proto.Uint64(3),
			Index: proto.Uint64(5), LogTerm: proto.Uint64(2)}
		change(m)
		return m
	}
	entry := func(index, term uint64) *raftpb.Entry {
		return &raftpb.Entry{Index: proto.Uint64(index), Term: proto.Uint64(term)}
	}
	for name, m := range map[string]*raftpb.Message{
		"to another":       message(func(m *raftpb.Message) { m.To = proto.Uint64(3) }),
		"from nobody":      message(func(m *raftpb.Message) { m.From = nil }),
		"from itself":      message(func(m *raftpb.Message) { m.From = proto.Uint64(1) }),
		"local type":       message(func(m *raftpb.Message) { m.Type = raftpb.MsgHup.Enum() }),
		"storage type":     message(func(m *raftpb.Message) { m.Type = raftpb.MsgStorageAppendResp.Enum() }),
		"proposal":         message(func(m *raftpb.Message) { m.Type = raftpb.MsgProp.Enum() }),
		"responses":        message(func(m *raftpb.Message) { m.Responses = []*raftpb.Message{{}} }),
		"gap":              message(func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{entry(7, 3)} }),
		"term goes back":   message(func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{entry(6, 1)} }),
		"term of future":   message(func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{entry(6, 4)} }),
		"read without one": message(func(m *raftpb.Message) { m.Type = raftpb.MsgReadIndex.Enum() }),
		"vote and entries": message(func(m *raftpb.Message) { m.Type = raftpb.MsgVote.Enum(); m.Entries = []*raftpb.Entry{entry(6, 3)} }),
	} {
		g := newGroup(t, 1, 2, 3)
		if err := g.replicas[1].OnPeer(m); err == nil {
			t.Errorf("%s: taken", name)
		}
		g.replicas[1].Advance()
		if effects := g.replicas[1].Effects(); len(effects) != 0 {
			t.Errorf("%s: %d effects of a refused message", name, len(effects))
		}
	}
}

func TestCheckpointAndLogMustBelongTogether(t *testing.T) {
	entries := grown(4, 4) // (4, 8] of term 4, behind term 3
	for _, row := range []struct {
		name        string
		index, term uint64
		dies        bool
	}{
		{"at the base", 4, 3, false}, {"at an entry", 6, 4, false}, {"at the commit", 7, 4, false},
		{"below the base", 3, 3, true}, {"above the commit", 8, 4, true},
		{"of another term than the base", 4, 2, true}, {"of another term than its entry", 6, 3, true},
	} {
		r := NewReplica(ReplicaConfig{Self: 1, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
		r.OnMachineOpened(&messages.MachineOpened{Index: row.index, Term: row.term, ConfState: &raftpb.ConfState{Voters: []uint64{1}}})
		r.OnLogOpened(&messages.LogOpened{BaseIndex: 4, BaseTerm: 3, Entries: entries, HardState: &raftpb.HardState{Term: proto.Uint64(4), Commit: proto.Uint64(7)}})
		if died := deaths(r.Effects()) == 1; died != row.dies || (r.node == nil) != row.dies {
			t.Errorf("%s: died: %v", row.name, died)
		}
	}
}

func TestALaterCheckpointMustBelongToTheLog(t *testing.T) {
	g := newGroup(t, 1)
	leader := g.replicas[g.elect()]
	leader.OnCheckpointed(&messages.Checkpointed{Index: leader.applied, Term: leader.term, ConfState: &raftpb.ConfState{Voters: []uint64{1}}})
	if n := deaths(leader.Effects()); n != 0 {
		t.Fatal("the replica died of a good checkpoint")
	}
	for name, m := range map[string]*messages.Checkpointed{
		"of another term": {Index: leader.applied, Term: leader.term + 1}, "beyond the log": {Index: leader.tail.last() + 1, Term: leader.term},
	} {
		leader.OnCheckpointed(m)
		if n := deaths(leader.Effects()); n != 1 {
			t.Errorf("%s: died %d times", name, n)
		}
	}
}

func deaths(effects []Effect) (n int) {
	for _, e := range effects {
		if _, ok := e.(Die); ok {
			n++
		}
	}
	return n
}

// Who writes little does not wait for whoever floods the gate, and finds room.
func TestTheGateIsSharedBySessions(t *testing.T) {
	const large = 400 << 10
	g := newTunedGroup(t, Options{ProposalBytesMax: 16 << 20}, 1)
	leader := g.replicas[g.elect()]
	g.seen[1] = nil
	g.hold[1] = true
	for seq := range uint64(100) {
		leader.OnPropose(Asker{"node/1", "flood"}, &messages.Propose{Origin: 1, Seq: seq + 1, Command: make([]byte, large)})
	}
	leader.OnPropose(Asker{"node/1", "small"}, &messages.Propose{Origin: 1, Seq: 1, Command: []byte("small")})
	g.drain()
	if got := len(refusals(g.seen[1])); got != 80 {
		t.Errorf("%d of the flood are refused", got)
	}
	for range 2 {
		g.release(1)
		g.drain()
	}
	if waits := leader.queue.Holds(Asker{"node/1", "small"}, func(proposal) bool { return true }); waits || leader.queue.Cost() == 0 {
		t.Errorf("the small one waits: %v; behind it are %d bytes", waits, leader.queue.Cost())
	}
}

// A session that asks again for what is under way, at the gate or behind it, does not have
// it twice in the log.
func TestWhatIsUnderWayIsNotLoggedTwice(t *testing.T) {
	g := newGroup(t, 1)
	leader := g.elect()
	g.hold[1] = true
	g.propose(leader, 1)
	g.drain() // it is with the log
	for _, seq := range []uint64{2, 3, 4, 3, 1, 2, 4, 5, 1} {
		g.propose(leader, seq)
	}
	g.hold[1] = false
	g.release(1)
	g.drain()
	if g.commands[1] != 5 {
		t.Errorf("%d commands are in the log, of 5", g.commands[1])
	}
	if under := &g.replicas[leader].under; len(under.askers)+len(under.logged) > 0 {
		t.Errorf("all is applied, and still under way are %d commands of %d askers", len(under.logged), len(under.askers))
	}
	g.propose(leader, 5) // nobody knows it here any more: the machine does
	g.drain()
	if g.commands[1] != 6 {
		t.Errorf("%d commands are in the log, of 6", g.commands[1])
	}
}

// What is applied ends what stands in the log up to there, and nothing behind it.
func TestWhatIsUnderWayEndsWhenItIsApplied(t *testing.T) {
	g := newGroup(t, 1)
	leader := g.replicas[g.elect()]
	g.applying = []*raftpb.Message{}
	g.propose(1, 1)
	g.drain()
	first := g.applying[0]
	g.propose(1, 2)
	g.drain()
	index := first.GetEntries()[len(first.GetEntries())-1].GetIndex()
	leader.OnApplied(&messages.Applied{Message: first, Index: index})
	if len(leader.under.logged) != 1 || leader.under.logged[0].index != index+1 {
		t.Errorf("entry %d is applied, and in the log are %+v", index, leader.under.logged)
	}
	g.propose(1, 2)
	if n := leader.QueuedBytes(); n > 0 {
		t.Errorf("what is in the log and not applied was queued again: %d bytes", n)
	}
}

// Commands that the room for uncommitted ones keeps back are under way too, and a new leader
// takes all anew.
func TestWhatIsUnderWayIsForgottenWithTheLeadership(t *testing.T) {
	g := newTunedGroup(t, Options{MaxUncommitted: 1}, 1, 2, 3)
	leader := g.elect()
	for id := range g.replicas {
		g.cut[id] = id != leader
	}
	for range 2 {
		for seq := range uint64(4) {
			g.propose(leader, seq+1)
			g.drain()
		}
	}
	r := g.replicas[leader]
	if a := r.under.askers[Asker{"node/9", "s"}]; a == nil || a.count != 4 {
		t.Fatalf("under way is %+v, of 4 commands", a)
	}
	for range 100 {
		r.OnTick(1)
		g.drain()
	}
	if len(r.under.askers)+len(r.under.logged) > 0 || r.leader == leader {
		t.Errorf("%d leads, and %d commands are under way at %d", r.leader, len(r.under.logged), leader)
	}
}

// Entries carry the cluster's level as it was applied last, whatever this software's is.
func TestEntriesCarryTheClustersLevel(t *testing.T) {
	g := newGroup(t, 1)
	g.elect()
	r := g.replicas[1]
	r.cfg.Level, r.level = 7, 2
	g.propose(1, 1)
	g.drain()
	stamped := uint32(0)
	for _, e := range g.seen[1] {
		if a, is := e.(ApplyEntries); is && len(a.Message.GetEntries()[0].GetData()) > 0 {
			c := new(messages.Commands)
			if err := proto.Unmarshal(a.Message.GetEntries()[0].GetData(), c); err != nil {
				t.Fatal(err)
			}
			stamped = c.Level
		}
	}
	s := &messages.StatusReply{}
	r.FillStatus(s)
	if stamped != 2 || s.Level != 2 {
		t.Errorf("an entry is stamped with level %d, the status says %d, the cluster is at 2", stamped, s.Level)
	}
}
