package sim

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"keyval/actors"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// pairsEnv is every how many pairs TestPairsOfFaults plays one: 1 is all.
const pairsEnv = "KEYVAL_PAIRS"

// pairsSample is that without it. It has no divisor in common with the number of hits, so that
// the sample has each of them.
const pairsSample = 211

// juncture is a moment in the life of a replace at which a blow may fall: when a record of a phase is
// committed, or when a change of the members is proposed and no other node has it yet.
type juncture int

const (
	atAsked    juncture = iota // the operator has asked
	atBegun                    // ADD_LEARNER is committed
	atAdding                   // the learner is proposed
	atAdded                    // CATCH_UP is committed
	atFollows                  // a second later the learner has the log
	atCaughtUp                 // PROMOTION is committed
	atSwapping                 // the joint configuration is proposed
	atSwapped                  // REMOVE_OLD is committed
	atLeaving                  // the end of the joint configuration is proposed
	atEnded                    // COMPLETE or FAILED is committed
	junctures
)

func (m juncture) String() string {
	return [...]string{"asked", "begun", "adding", "added", "follows", "caught-up", "swapping", "swapped", "leaving", "ended"}[m]
}

// hit is what falls upon a replace of n2, which is dead, by n4.
type hit int

const (
	hitLeaderCrash hit = iota
	hitLeaderPower
	hitOtherCrash // the follower that lives: nobody is a quorum until it is back
	hitNewCrash
	hitNewPower
	hitNewWiped
	hitNewFull
	hitNewSync
	hitLeaderSync
	hitOperator
	hitAbort
	hitLeaderNew   // leader and new node lose each other
	hitLeaderOther // leader and follower do
	hitFreeze      // the leader stands still
	hitOldBack     // the old node is back
	hits
)

func (b hit) String() string {
	return [...]string{"leader-crash", "leader-power-cut", "other-crash", "new-crash", "new-power-cut", "new-wiped", "new-full", "new-sync-fails",
		"leader-sync-fails", "operator-crash", "abort", "leader-and-new", "leader-and-other", "leader-freezes", "old-returns"}[b]
}

// strike is a blow at a juncture.
type strike struct {
	hit hit
	at  juncture
}

func (s strike) String() string { return fmt.Sprintf("%s at %s", s.hit, s.at) }

// pairs are all ordered pairs of blows, the second no earlier than the first.
func pairs() (all [][2]strike) {
	for i := range junctures {
		for j := i; j < junctures; j++ {
			for a := range hits {
				for b := range hits {
					all = append(all, [2]strike{{a, i}, {b, j}})
				}
			}
		}
	}
	return all
}

// stage is the scenario: n1, n2 and n3 vote, n2 is dead, n4 waits, and an operator has n4 take
// the place of n2.
type stage struct {
	*run
	o       *messages.ClusterOperation
	left    []strike // to come
	struck  []strike
	revived bool // the old node
	passed  map[juncture]bool
}

func newStage(plan []strike) *stage {
	r := newRun(Options{Seed: 1, Nodes: 3})
	r.servers, r.swarm.spares, r.swarm.levels = r.servers[:3], 0, false
	r.check.nodes = r.check.nodes[:3]
	r.swarm.way, r.world.net.fair = quality{latency: time.Millisecond}, quality{latency: time.Millisecond}
	r.swarm.ttl, r.swarm.depth, r.swarm.idlers, r.swarm.hasty, r.swarm.think, r.swarm.down = 0, 1, 0, 0, 100*time.Millisecond, 300*time.Millisecond
	r.swarm.options = actors.Options{TickInterval: 50 * time.Millisecond, Readers: 1}
	r.clients = r.clients[:1]
	s := &stage{run: r, left: plan, passed: map[juncture]bool{}}
	r.spare()
	r.swarm.spares = 1
	r.world.watch = lookout{r, s}
	r.check.membership.onStep = s.recorded
	return s
}

// lookout also sees what is proposed.
type lookout struct {
	*run
	stage *stage
}

func (l lookout) received(h *host, actorID string, message any) {
	l.run.received(h, actorID, message)
	change, is := message.(*messages.ProposeChange)
	if !is || actorID != messages.ActorRaft || l.stage.o == nil {
		return
	}
	now := l.check.reference.state.Operations()
	i := slices.IndexFunc(now, func(o *messages.ClusterOperation) bool { return string(o.Id) == string(l.stage.o.Id) })
	if i < 0 || change.Change == nil {
		return
	}
	switch now[i].Phase {
	case messages.OperationPhase_ADD_LEARNER:
		l.stage.comes(atAdding)
	case messages.OperationPhase_PROMOTION:
		l.stage.comes(atSwapping)
	case messages.OperationPhase_REMOVE_OLD:
		l.stage.comes(atLeaving)
	}
}

func (s *stage) recorded(o *messages.ClusterOperation) {
	at := map[messages.OperationPhase]juncture{
		messages.OperationPhase_ADD_LEARNER: atBegun, messages.OperationPhase_CATCH_UP: atAdded, messages.OperationPhase_PROMOTION: atCaughtUp,
		messages.OperationPhase_REMOVE_OLD: atSwapped, messages.OperationPhase_COMPLETE: atEnded, messages.OperationPhase_FAILED: atEnded,
	}[o.Phase]
	s.comes(at)
	if at == atAdded {
		s.world.clock.after(time.Second, nil, func() { s.comes(atFollows) })
	}
}

// comes: a juncture has come, for the first time. What is to strike then does so before the next
// message is taken.
func (s *stage) comes(at juncture) {
	if s.passed[at] {
		return
	}
	s.passed[at] = true
	for len(s.left) > 0 && s.left[0].at == at {
		next := s.left[0]
		s.left = s.left[1:]
		s.world.clock.after(0, nil, func() {
			if !s.healed && s.fall(next.hit) {
				s.struck = append(s.struck, next)
			}
		})
	}
}

// cast is who leads, and who else lives of the old voters.
func (s *stage) cast() (leader, other *server) {
	leader, other = s.servers[0], s.servers[2]
	if other.role() == "leader" {
		leader, other = other, leader
	}
	return leader, other
}

// fall reports whether it met somebody.
func (s *stage) fall(b hit) bool {
	leader, other := s.cast()
	old, fresh := s.servers[1], s.servers[3]
	back := func(v *server, powerCut bool) bool {
		if !v.up() {
			return false
		}
		s.crash(v, powerCut)
		return true
	}
	s.note("%s", b)
	switch b {
	case hitLeaderCrash, hitLeaderPower:
		return back(leader, b == hitLeaderPower)
	case hitOtherCrash:
		return back(other, false)
	case hitNewCrash, hitNewPower:
		return back(fresh, b == hitNewPower)
	case hitNewWiped:
		return s.empty(fresh)
	case hitNewFull:
		if !fresh.up() {
			return false
		}
		fresh.disk.Fill(true)
		s.after(time.Second, func() { fresh.disk.Fill(false) })
	case hitNewSync:
		return s.fails(fresh)
	case hitLeaderSync:
		return s.fails(leader)
	case hitOperator:
		s.restartClient(s.operator.customer)
	case hitAbort:
		s.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{
			Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: s.o.Id}}}})
	case hitLeaderNew:
		s.shut(leader.name(), fresh.name(), time.Second)
	case hitLeaderOther:
		s.shut(leader.name(), other.name(), 2*time.Second)
	case hitFreeze:
		if !leader.up() || leader.host.frozen {
			return false
		}
		h := leader.host
		s.world.net.freeze(h)
		s.after(1500*time.Millisecond, h.thaw)
	case hitOldBack:
		if s.revived {
			return false
		}
		s.revived = true
		delete(s.leftDown, old.node)
		old.start()
	}
	return true
}

func (s *stage) fails(v *server) bool {
	s.order(faultSyncFails, v)
	return v.up()
}

// await lets time pass until something holds; false: it does not for long.
func (s *stage) await(long time.Duration, holds func() bool) bool {
	for limit := s.world.clock.now + long; !s.world.over() && !holds(); {
		if s.world.clock.now >= limit {
			return false
		}
		s.world.run(s.world.clock.now + 10*time.Millisecond)
	}
	return !s.world.over()
}

func (s *stage) record() *messages.ClusterOperation {
	for _, o := range s.check.reference.state.Operations() {
		if s.o != nil && string(o.Id) == string(s.o.Id) {
			return o
		}
	}
	return nil
}

// play plays the scenario to its end.
func (s *stage) play() {
	for _, server := range s.servers {
		s.world.clock.after(0, nil, server.start)
	}
	s.clients[0].start()
	s.clients[0].work()
	s.hire()
	s.await(20*time.Second, func() bool { return s.check.last() > 0 && s.operator != nil })
	s.await(time.Second, func() bool { return false })
	s.leftDown[1] = true
	s.servers[1].crash(false)
	s.await(2*time.Second, func() bool { return false }) // it is out of contact
	s.await(20*time.Second, func() bool { return s.servers[0].role() == "leader" || s.servers[2].role() == "leader" })
	o := &messages.ClusterOperation{Id: make([]byte, messages.OperationIDSize), Kind: messages.OperationKind_REPLACE,
		OldNode: s.servers[1].name(), NewNode: s.servers[3].name(), NewAddress: s.servers[3].listen()}
	binary.BigEndian.PutUint64(o.Id, 12)
	s.o, s.operator.begun = o, append(s.operator.begun, o)
	s.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: begin(o)}})
	s.comes(atAsked)
	s.await(30*time.Second, func() bool {
		is := s.record()
		return is != nil && rules.Ended(is) && s.passed[atEnded] || is == nil && len(s.operator.under) == 0
	})
	s.await(2*time.Second, func() bool { return false }) // of what has struck last
	s.heal()
	s.progress()
	s.settle()
	s.converge()
	s.finish()
	s.outcome()
}

// outcome: the replace is complete or undone, and nothing in between; and it is undone only if
// somebody asked for that, or the node that was to come is gone.
func (s *stage) outcome() {
	if s.world.over() {
		return
	}
	var voters []string
	for _, m := range s.check.reference.state.Members() {
		if m.Type != messages.MemberType_VOTER {
			s.world.fail("a replace ends", "%v is no voter", m)
			return
		}
		voters = append(voters, m.Name)
	}
	o, want := s.record(), []string{"n1", "n2", "n3"}
	if o.GetPhase() == messages.OperationPhase_COMPLETE {
		want = []string{"n1", "n3", "n4"}
	}
	met := func(h hit) bool {
		return slices.ContainsFunc(s.struck, func(st strike) bool { return st.hit == h })
	}
	switch {
	case !slices.Equal(voters, want):
		s.world.fail("a replace ends", "%v, and the voters are %v", o, voters)
	case o == nil && !met(hitOperator):
		s.world.fail("a replace ends", "it never began, though the operator went on asking")
	case o.GetPhase() == messages.OperationPhase_FAILED && !met(hitAbort) && !met(hitNewWiped):
		s.world.fail("a replace ends", "%v, and nobody gave it up", o)
	}
}

// TestPairsOfFaults: whatever two blows fall upon a replace of a dead voter of three, whenever,
// it ends complete or undone, and every node tells the same.
func TestPairsOfFaults(t *testing.T) {
	all, step := pairs(), uint64(pairsSample)
	number(t, pairsEnv, &step)
	door.Lock()
	defer door.Unlock()
	played, both, one := 0, 0, 0
	var never []string
	ends, alone := map[string]int{}, map[string]int{}
	for i := 0; i < len(all); i += int(max(step, 1)) {
		s := newStage(all[i][:])
		undo := quicken(1)
		s.play()
		undo()
		played++
		for _, st := range s.struck {
			alone[st.String()]++
		}
		switch len(s.struck) {
		case 2:
			both++
		case 1:
			one++
		}
		ends[fmt.Sprint(s.record().GetPhase())]++
		if v := s.world.failure; v != nil {
			t.Errorf("pair %d, %v: %v", i, all[i], v)
		}
	}
	for h := range hits {
		for at := range junctures {
			if st := (strike{h, at}); alone[st.String()] == 0 {
				never = append(never, st.String())
			}
		}
	}
	t.Logf("%d of %d pairs played: both blows met somebody in %d, one in %d; outcomes %v; never met: %v",
		played, len(all), both, one, ends, never)
}
