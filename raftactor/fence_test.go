package raftactor

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"keyval/messages"
)

// fenced is a fence of replica 3 in term 2, whose log ends at index 5, and what became of it.
type fencedTest struct {
	*fence
	view
	asked    []uint64
	recorded int // suspicions that wait to be durable
	disk     *messages.Suspicion
	reason   string
}

func newFenced(voters int, disk *messages.Suspicion) *fencedTest {
	t := &fencedTest{view: view{self: 3, term: 2, last: 5}, disk: disk}
	for id := range uint64(voters) {
		t.voters = append(t.voters, id+1)
	}
	t.halves[0] = t.voters
	t.fence = newFence(100, disk)
	t.open(t.view)
	t.carry()
	return t
}

func (t *fencedTest) carry() {
	for _, e := range t.take() {
		switch e := e.(type) {
		case AskLoss:
			t.asked = append(t.asked, e.To)
		case RecordSuspicion:
			if e.Condemned != "" {
				t.reason = e.Condemned
				continue
			}
			t.disk = e.Suspicion
			t.recorded++
		}
	}
}

func (t *fencedTest) durable() {
	for ; t.recorded > 0; t.recorded-- {
		t.fence.recorded(t.view)
	}
	t.carry()
}

// says lets a member answer the last question: it follows a leader of a term, and if it is
// the leader, counts on entries up to an index.
func (t *fencedTest) says(from, leader, term, acknowledged uint64, settled bool, followers ...uint64) {
	t.answered(t.view, from, &messages.LossAnswer{
		Nonce: t.fence.nonce, Leader: leader, Term: term, Acknowledged: acknowledged, Settled: settled, Followers: followers})
	t.carry()
	t.durable()
}

// recalls lets a member that follows another answer: it led a term, and this replica
// acknowledged entries up to an index then.
func (t *fencedTest) recalls(from, leader, term, led, acknowledged uint64) {
	t.answered(t.view, from, &messages.LossAnswer{Nonce: t.fence.nonce, Leader: leader, Term: term, LedTerm: led, LedAcknowledged: acknowledged})
	t.carry()
	t.durable()
}

func (t *fencedTest) ticks(n int) {
	for range n {
		t.tick(t.view)
	}
	t.carry()
	t.durable()
}

func (t *fencedTest) refusal(by uint64) { t.refusedBy(t.view, by); t.carry(); t.durable() }
func (t *fencedTest) beat(by, term, commit uint64) {
	t.accused(t.view, by, term, commit)
	t.carry()
	t.durable()
}

func (t *fencedTest) is() string {
	s := [...]string{"asking", "takes part", "doubted", "suspected", "condemned"}[t.stage]
	if n := len(t.disk.GetAccusations()); n > 0 {
		s += fmt.Sprintf(", %d on disk", n)
	}
	return s
}

func TestFence(t *testing.T) {
	byTwo := &messages.Suspicion{Accusations: []*messages.Accusation{{RaftId: 2, Term: 2, Acknowledged: 9, Last: 5}}}
	older := &messages.Suspicion{Accusations: []*messages.Accusation{{RaftId: 2, Last: 5}}}
	for _, row := range []struct {
		name   string
		voters int
		disk   *messages.Suspicion
		do     func(*fencedTest)
		want   string
	}{
		{"a group of one asks nobody", 0, nil, func(*fencedTest) {}, "takes part"},
		{"it waits for the others", 3, nil, func(f *fencedTest) { f.says(1, 1, 2, 0, true) }, "asking"},
		{"and takes part when all have answered", 3, nil, func(f *fencedTest) { f.says(1, 1, 2, 0, true); f.says(2, 1, 2, 0, false) }, "takes part"},
		{"or have had the time to", 3, nil, func(f *fencedTest) { f.ticks(fenceStartTicks) }, "takes part"},
		{"an answer to another question is none", 3, nil, func(f *fencedTest) {
			f.answered(f.view, 1, &messages.LossAnswer{Nonce: 7, Leader: 1, Term: 2, Acknowledged: 9})
		}, "asking"},
		{"one who has no vote has no voice", 3, nil, func(f *fencedTest) { f.says(9, 9, 2, 9, true); f.refusal(9) }, "asking"},
		{"a leader that counts on more is believed, when it is asked", 3, nil, func(f *fencedTest) { f.says(2, 2, 2, 6, false) }, "suspected, 1 on disk"},
		{"not one of an older term", 3, nil, func(f *fencedTest) { f.says(2, 2, 1, 6, true) }, "asking"},
		{"one that led and leads no more knows what it was promised", 3, nil, func(f *fencedTest) { f.recalls(2, 1, 4, 2, 6) }, "suspected, 1 on disk"},
		{"in a later term of its own too", 3, nil, func(f *fencedTest) { f.recalls(2, 1, 4, 3, 6) }, "suspected, 1 on disk"},
		{"not what was replaced since", 3, nil, func(f *fencedTest) { f.recalls(2, 1, 4, 1, 6) }, "asking"},
		{"nor what is here", 3, nil, func(f *fencedTest) { f.recalls(2, 1, 4, 2, 5) }, "asking"},
		{"nor if it was promised nothing", 3, nil, func(f *fencedTest) { f.recalls(2, 1, 4, 0, 0) }, "asking"},
		{"with those whom it follows, it condemns", 3, nil, func(f *fencedTest) { f.recalls(2, 1, 4, 2, 6); f.says(1, 1, 4, 0, true) }, "condemned, 1 on disk"},
		{"nor a follower", 3, nil, func(f *fencedTest) { f.says(2, 1, 2, 6, true) }, "asking"},
		{"a refusal is an answer", 3, nil, func(f *fencedTest) { f.refusal(2) }, "suspected, 1 on disk"},

		{"a heartbeat alone makes mute", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9) }, "doubted"},
		{"it is taken back", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(2, 2, 2, 5, true) }, "takes part"},
		{"its sender follows another in that term", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(2, 1, 2, 0, false) }, "takes part"},
		{"it was never in that term", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 5, 9); f.says(2, 1, 2, 0, false) }, "takes part"},
		{"it leads no more, and nobody else does", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(2, 0, 2, 0, false) }, "doubted"},
		{"not by another", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(1, 2, 2, 5, true) }, "doubted"},
		{"nor by time", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.ticks(1000) }, "doubted"},
		{"nor in a later term by the same", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(2, 1, 3, 0, true) }, "doubted"},
		{"a later term that is settled ends it", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(1, 1, 3, 0, true, 2) }, "takes part"},
		{"not before it is", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(1, 1, 3, 0, false, 2) }, "doubted"},
		{"nor with a minority", 5, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(1, 1, 3, 0, true, 4) }, "doubted"},
		{"it is repeated", 3, nil, func(f *fencedTest) { f.ticks(9); f.beat(2, 2, 9); f.says(2, 2, 2, 9, false) }, "suspected, 1 on disk"},

		{"a restart forgets nothing", 3, byTwo, func(f *fencedTest) { f.ticks(1000) }, "suspected, 1 on disk"},
		{"an accuser alone condemns nobody", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true) }, "suspected, 1 on disk"},
		{"with those who follow it, it does", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true); f.says(1, 2, 2, 0, false) }, "condemned, 1 on disk"},
		{"also in the words of the leader", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true, 1) }, "condemned, 1 on disk"},
		{"also in a later term, under another", 3, byTwo, func(f *fencedTest) { f.says(2, 1, 4, 0, false); f.says(1, 1, 4, 0, false) }, "condemned, 1 on disk"},
		{"the replica itself has no voice", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true, 3) }, "suspected, 1 on disk"},
		{"strangers have none", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true, 8, 9) }, "suspected, 1 on disk"},
		{"voices of two terms are not added", 5, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true, 4); f.says(1, 1, 3, 0, false) }, "suspected, 1 on disk"},
		{"those of two rounds neither", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 9, true); f.ticks(fenceAskTicks); f.says(1, 2, 2, 0, false) }, "suspected, 1 on disk"},
		{"two that let nobody in", 3, older, func(f *fencedTest) { f.refusal(2); f.refusal(1) }, "condemned, 2 on disk"},
		{"one, and the leader that has it with it", 3, older, func(f *fencedTest) { f.refusal(2); f.says(1, 1, 5, 0, false, 2) }, "condemned, 1 on disk"},
		{"one that leads, and its follower", 3, older, func(f *fencedTest) { f.refusal(2); f.says(1, 2, 5, 0, false) }, "condemned, 1 on disk"},
		{"a majority without it does not", 5, older, func(f *fencedTest) { f.says(1, 1, 5, 0, true, 4, 5) }, "suspected, 1 on disk"},
		{"two of four are no majority", 4, older, func(f *fencedTest) { f.refusal(2); f.refusal(1) }, "suspected, 2 on disk"},

		{"while voters are changed, both majorities", 5, byTwo, func(f *fencedTest) {
			f.halves = [2][]uint64{{1, 2, 3}, {3, 4, 5}}
			f.says(2, 2, 2, 9, true, 1)
		}, "suspected, 1 on disk"},
		{"and so it is", 5, byTwo, func(f *fencedTest) {
			f.halves = [2][]uint64{{1, 2, 3}, {3, 4, 5}}
			f.says(2, 2, 2, 9, true, 1, 4, 5)
		}, "condemned, 1 on disk"},

		{"all is taken back", 3, byTwo, func(f *fencedTest) { f.says(2, 2, 2, 5, true) }, "takes part"},
		{"a majority goes on without the accuser", 5, byTwo, func(f *fencedTest) { f.says(1, 1, 3, 0, true, 4, 5) }, "takes part"},
		{"in the same term that says nothing", 5, byTwo, func(f *fencedTest) { f.says(1, 1, 2, 0, true, 4, 5) }, "suspected, 1 on disk"},
		{"and it may count on too much itself", 5, byTwo, func(f *fencedTest) { f.says(1, 1, 3, 7, true, 4) }, "suspected, 2 on disk"},
	} {
		f := newFenced(row.voters, row.disk)
		if row.voters == 0 {
			f.view.voters = []uint64{3}
			f.settle(f.view)
		}
		if row.do(f); f.is() != row.want {
			t.Errorf("%s: it is %s, want %s", row.name, f.is(), row.want)
		}
		if (f.stage == condemned) != strings.Contains(f.reason, "stand by that") {
			t.Errorf("%s: %q", row.name, f.reason)
		}
	}
}

// A verdict waits until the suspicion is durable: a crash before leaves it suspected.
func TestASuspicionIsDurableFirst(t *testing.T) {
	f := newFenced(3, nil)
	f.refusedBy(f.view, 1)
	f.refusedBy(f.view, 2)
	if f.carry(); f.stage != suspected || f.recorded != 2 {
		t.Fatalf("%s, %d are recorded", f.is(), f.recorded)
	}
	if f.durable(); f.stage != condemned {
		t.Fatal(f.is())
	}
}

// Whatever a minority says, and nobody else says anything against the replica, it is never
// condemned; and whatever is said, none that is suspected on disk takes part.
func TestFenceHoldsWhateverIsSaid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := rapid.SampledFrom([]int{3, 4, 5, 7}).Draw(t, "voters")
		f := newFenced(voters, nil)
		liars := (voters - 1) / 2
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			from := uint64(rapid.IntRange(1, voters).Draw(t, "from"))
			lies := from != 3 && from <= uint64(liars)
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				f.ticks(rapid.IntRange(1, 12).Draw(t, "ticks"))
			case 1:
				if lies {
					f.refusal(from)
				}
			case 2:
				if lies {
					f.beat(from, rapid.Uint64Range(2, 4).Draw(t, "term"), 9)
				}
			case 3:
				leader, term := uint64(voters), uint64(2)
				if from != leader && !lies {
					f.says(from, 0, term, 0, false) // it follows nobody: who leads is among the liars
				} else if lies {
					f.says(from, from, rapid.Uint64Range(2, 4).Draw(t, "term"), rapid.Uint64Range(0, 9).Draw(t, "acknowledged"), true)
				}
			}
			if f.stage == condemned {
				t.Fatalf("condemned: %s", f.reason)
			}
			if len(f.disk.GetAccusations()) > 0 && !f.mute() {
				t.Fatalf("it takes part: %s", f.is())
			}
		}
	})
}

// A replica that may have lost data says nothing, is counted on by nobody, and answers none
// who ask; one heartbeat is taken back by the next answer.
func TestADoubtedReplicaIsMute(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	r := g.replicas[1]
	r.OnRead(&messages.ReadIndex{Session: "s", Read: &messages.Read{Request: 1}})
	r.Effects()
	beat := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(7)), Commit: new(uint64(90))}
	if err := r.OnPeer(beat); err != nil {
		t.Fatal(err)
	}
	vote := &raftpb.Message{Type: raftpb.MsgVote.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: new(uint64(9)), Index: new(uint64(50)), LogTerm: new(uint64(8))}
	if err := r.OnPeer(vote); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		r.OnTick(1)
		r.Advance()
	}
	r.OnLossAsk(2, &messages.LossAsk{Nonce: 5})
	r.OnPropose(Asker{Actor: "a"}, &messages.Propose{Seq: 1, Command: []byte("c")})
	r.OnRead(&messages.ReadIndex{Session: "s", Read: &messages.Read{Request: 2}})
	asked, refused := uint64(0), 0
	for _, e := range r.Effects() {
		switch e := e.(type) {
		case AskLoss:
			asked = e.Ask.Nonce
		case RefuseProposal, RefuseReads:
			refused++
		case AnnounceLeader:
			if !e.Fenced {
				t.Errorf("%#v", e)
			}
		case Warn:
		default:
			t.Errorf("it says %#v", e)
		}
	}
	if refused != 2 || asked == 0 || r.roleName() != "suspected" || !r.Leader().Fenced {
		t.Fatalf("%d refused, asked with %d, it is %s", refused, asked, r.roleName())
	}
	r.OnLossAnswer(2, &messages.LossAnswer{Nonce: asked, Leader: 2, Term: 7, Acknowledged: 1})
	r.Advance()
	if effects := r.Effects(); r.Leader().Fenced || len(effects) != 3 { // a Warn, an AnnounceLeader, a TellReplication
		t.Fatalf("it is %s: %#v", r.roleName(), effects)
	}
}

// A leader that is told of a loss is mute too, also when the machine has it carry out what
// raft had ready.
func TestASuspectedLeaderIsMute(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.replicas[g.elect()]
	g.drain()
	leader.OnPropose(Asker{Actor: "a"}, &messages.Propose{Seq: 1, Command: []byte("c")})
	leader.OnPeerRefused(&messages.PeerRefused{Peer: leader.cfg.Self%3 + 1, Code: messages.Code_NOT_ALLOWED})
	if leader.fence.mute() {
		t.Fatal("another refusal than of an older copy made it mute")
	}
	leader.OnPeerRefused(&messages.PeerRefused{Peer: leader.cfg.Self%3 + 1, Code: messages.Code_DAMAGED})
	beat := leader.node
	for range 50 {
		beat.Tick() // what is ready then, somebody takes
	}
	leader.ready()
	leader.Advance()
	leader.OnLossAsk(2, &messages.LossAsk{Nonce: 1})
	refused, recorded := 0, 0
	for _, e := range leader.Effects() {
		switch e := e.(type) {
		case RefuseProposal:
			refused++
		case RecordSuspicion:
			recorded++
		case AnnounceLeader:
			if !e.Fenced || e.Leader != 0 {
				t.Errorf("%#v", e)
			}
		case AppendLog, AskLoss, Warn:
		default:
			t.Errorf("it says %#v", e)
		}
	}
	if refused != 1 || recorded != 1 || !leader.Leader().Fenced {
		t.Errorf("%d refused, %d recorded", refused, recorded)
	}
}

// What a replica says of itself, and of others.
func TestLossAnswers(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.replicas[g.elect()]
	g.drain()
	for _, id := range []uint64{1, 2, 3} {
		r := g.replicas[id]
		r.OnLossAsk(9, &messages.LossAsk{Nonce: 4})
		a := r.Effects()[0].(AnswerLoss).Answer
		if a.Nonce != 4 || a.Leader != leader.cfg.Self || a.Term != leader.term || a.Settled != (r == leader) || len(a.Followers) != 2*btoi(r == leader) {
			t.Errorf("%d: %v", id, a)
		}
	}
	follower := leader.cfg.Self%3 + 1
	leader.OnLossAsk(follower, &messages.LossAsk{})
	if a := leader.Effects()[0].(AnswerLoss).Answer; a.Acknowledged != leader.tail.last() || len(a.Followers) != 1 || a.Followers[0] == follower {
		t.Errorf("%v", a)
	}
	term, last := leader.term, leader.tail.last()
	g.cut[leader.cfg.Self] = true
	next := g.replicas[g.elect()]
	g.cut[leader.cfg.Self] = false
	for range 5 {
		next.OnTick(1)
		g.drain()
	}
	leader.OnLossAsk(follower, &messages.LossAsk{})
	if a := leader.Effects()[0].(AnswerLoss).Answer; a.Leader != next.cfg.Self || a.LedTerm != term || a.LedAcknowledged != last {
		t.Errorf("it led term %d up to index %d, and says: %v", term, last, a)
	}
	r := NewReplica(ReplicaConfig{Self: 1, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
	r.OnLossAsk(2, &messages.LossAsk{})
	r.OnLossAnswer(2, &messages.LossAnswer{})
	r.OnPeerRefused(&messages.PeerRefused{Peer: 2, Code: messages.Code_DAMAGED})
	if n := len(r.Effects()); n != 0 {
		t.Errorf("%d effects before the log is open", n)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
