package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// The cluster heals itself where the operator wants it: a leader begins a replace of a voter
// that is lost by a spare. What it may base that on is checked when it proposes it.

// drawHealing is what the operator wants of that next.
func (r *run) drawHealing() *messages.ChangeHealing {
	mode := pick(r.chaos, messages.HealingMode_HEALING_OFF, messages.HealingMode_HEALING_DRY, messages.HealingMode_HEALING_ON, messages.HealingMode_HEALING_ON)
	asked := &messages.ChangeHealing{Mode: &mode, AfterMs: pick[uint64](r.chaos, rules.HealAfterMinMS, 2*rules.HealAfterMinMS)}
	if r.chaos.IntN(5) == 0 {
		asked.RemoveSpare = r.fresh().name()
	} else {
		asked.AddSpare = r.fresh().name()
	}
	return asked
}

func (r *run) askHealing(asked *messages.ChangeHealing) {
	r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_Healing{Healing: asked}}})
}

// knows is what the membership of a process was told of the members: the last, and what was
// said before that.
type knows struct {
	now, before *messages.MembersChanged
	at          time.Duration
}

// told takes the next.
func (k *knows) told(m *messages.MembersChanged, at time.Duration) {
	k.before, k.now, k.at = k.now, m, at
}

// onItsWay is how long a proposal may be between membership and raft.
const onItsWay = 100 * time.Millisecond

// until is what it went by if it decided a moment ago: news may have come since.
func (k *knows) until(now time.Duration) []*messages.MembersChanged {
	if k.before != nil && now-k.at < onItsWay {
		return []*messages.MembersChanged{k.now, k.before}
	}
	return []*messages.MembersChanged{k.now}
}

// proposed: a leader is about to write a record, which may be one of a replace that nobody
// asked for.
func (r *run) proposed(s *server, m *messages.Propose) {
	command := &messages.Command{}
	if r.operator == nil || proto.Unmarshal(m.Command, command) != nil {
		return
	}
	for _, op := range command.Operations {
		if o := op.GetRecordOperation().GetOperation(); o.GetVersion() == 1 && !r.operator.asked(o) {
			r.heals(s, o)
		}
	}
}

// asked reports whether the operator has asked for an operation.
func (p *operator) asked(o *messages.ClusterOperation) bool {
	return slices.ContainsFunc(p.begun, func(other *messages.ClusterOperation) bool { return string(other.Id) == string(o.Id) })
}

// heals: a leader begins a replace by itself.
func (r *run) heals(s *server, o *messages.ClusterOperation) {
	r.coverage[cellHeals]++
	wants := func(m *messages.MembersChanged) bool {
		return m.GetHealing().GetMode() == messages.HealingMode_HEALING_ON && slices.Contains(m.GetHealing().GetSpares(), o.NewNode)
	}
	free := func(m *messages.MembersChanged) bool {
		return !slices.ContainsFunc(m.GetOperations(), func(other *messages.ClusterOperation) bool {
			return other.Kind == messages.OperationKind_REPLACE && !rules.Ended(other) && string(other.Id) != string(o.Id)
		})
	}
	went := s.knows.until(r.world.clock.now)
	old := r.replica(o.OldRaftId, o.OldNode)
	switch missing := r.longGone(s); {
	case o.Kind != messages.OperationKind_REPLACE || !slices.ContainsFunc(went, wants):
		r.world.fail("the cluster heals itself only if asked", "%s begins %v, and knows as what is wanted: %v", s.name(), o, s.knows.now.GetHealing())
	case !slices.ContainsFunc(went, free):
		r.world.fail("one is replaced at a time", "%s begins %v, and under way is: %v", s.name(), o, s.knows.now.GetOperations())
	case len(missing) > 1:
		r.world.fail("nothing is replaced while more than one is missing", "%s begins %v, and %v are gone for long", s.name(), o, missing)
	case r.healed && old.up() && r.longTogether(s, old):
		r.world.fail("who is there is not replaced", "%s begins %v, and %s is up since %v, in a world without faults since %v", s.name(), o, old.name(), old.since, r.healedAt)
	}
}

// notices is how long a leader takes at most to notice that a member is gone, with a clock as
// slow as any is made.
func (r *run) notices() time.Duration {
	return 4*rules.ContactTicksMax*r.swarm.options.TickInterval + time.Second
}

// gone reports whether a leader must know by now that the process of another server is gone.
func (r *run) gone(leader, s *server) bool {
	return !s.up() && r.world.clock.now-max(s.since, leader.since, leader.host.awake) > r.notices()
}

// longGone are the voters of which the leader must know that they are gone.
func (r *run) longGone(leader *server) (names []string) {
	for _, id := range r.check.configurations.now.GetVoters() {
		if s := r.replica(id, ""); s != nil && r.gone(leader, s) {
			names = append(names, s.name())
		}
	}
	return names
}

// longTogether reports whether both have been up for long since the last fault.
func (r *run) longTogether(a, b *server) bool {
	return r.world.clock.now-max(r.healedAt, a.since, b.since) > r.notices()+r.swarm.electionTimeout()+r.shipping()+dialTimeout+backoffMax
}

// leaves: a leader is about to take a voter out for good. It hands the lead over before that is
// itself.
func (r *run) leaves(s *server, m *messages.ProposeChange) {
	changes := m.GetChange().GetChanges()
	self := len(changes) == 1 && changes[0].GetType() == raftpb.ConfChangeRemoveNode && changes[0].GetNodeId() == s.id()
	outgoing := len(changes) == 0 && r.check.membership.member(s.id()).GetType() == messages.MemberType_OUTGOING
	if self || outgoing {
		r.world.fail("a leader does not remove itself", "%s, replica %d, leads, and proposes %v", s.name(), s.id(), m.GetChange())
	}
}

// promotes: a leader is about to let a learner vote, perhaps in the place of another. It must
// have joined and hold a log by then. One that is gone must not take a place: the cluster would
// have fewer live voters than before.
func (r *run) promotes(s *server, m *messages.ProposeChange) {
	for _, c := range m.GetChange().GetChanges() {
		if c.GetType() != raftpb.ConfChangeAddNode {
			continue
		}
		id, fresh := c.GetNodeId(), r.replica(c.GetNodeId(), "")
		if is := r.check.membership.member(id); is != nil && len(is.Incarnation) == 0 {
			r.world.fail("who is promoted has joined", "%s lets replica %d vote, and nobody is bound to that: %v", s.name(), id, is)
			return
		}
		if fresh == nil || fresh.lost() || r.check.gone[id] {
			continue
		}
		if _, last := r.check.durable(fresh.node); last == 0 {
			r.world.fail("who is promoted has caught up", "%s lets %s vote, which has nothing of the log", s.name(), fresh.name())
		}
		if len(m.GetChange().GetChanges()) > 1 && r.gone(s, fresh) {
			r.world.fail("a replace keeps the live voters", "%s lets %s take a voter's place, which is gone since %v", s.name(), fresh.name(), fresh.since)
		}
	}
}

// mendMax is how long it may take until a voter that is lost for good is replaced by a spare
// that waits, in a world without faults, beside what the settings say and snapshots take.
const mendMax = 30 * time.Second

// mendItself: in a healed world, a lost voter is replaced without anybody asking, if there is a
// spare. Then the operator ends that, so that the members stay as they are.
func (r *run) mendItself() {
	if r.operator == nil || r.world.over() || r.check.reference == nil {
		return
	}
	mode, off := messages.HealingMode_HEALING_ON, messages.HealingMode_HEALING_OFF
	if r.chancesOf("healing").IntN(4) > 0 {
		r.tidy()
	}
	if lost, spare := r.loses(); lost != nil {
		r.coverage[cellMends]++
		r.note("the operator wants %s replaced by the cluster itself, by %s", lost.Name, spare.name())
		asked := &messages.ChangeHealing{Mode: &mode, AfterMs: rules.HealAfterMinMS, AddSpare: spare.name()}
		limit := r.world.clock.now + mendMax + r.shipping()
		for again := r.world.clock.now; !r.world.over() && r.memberNamed(lost.Name).GetRaftId() == lost.RaftId && r.stillLoses(lost, spare); {
			if r.world.clock.now >= limit {
				r.world.fail("the cluster heals itself", "%v is lost, %s waits, and the settings are %v; operations: %v", lost, spare.name(),
					r.check.reference.state.Healing(), r.check.reference.state.Operations())
			}
			if h := r.check.reference.state.Healing(); r.world.clock.now >= again && (h.GetMode() != mode || !slices.Contains(h.GetSpares(), spare.name())) {
				again = r.world.clock.now + time.Second
				r.askHealing(asked)
			}
			r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
		}
	}
	limit := r.world.clock.now + settleMax + r.shipping()
	for again := r.world.clock.now; !r.world.over(); r.world.run(r.world.clock.now + r.swarm.options.TickInterval) {
		wanted := r.check.reference.state.Healing().GetMode() == mode
		asked := slices.ContainsFunc(r.operator.wants(), func(h *messages.ChangeHealing) bool { return h.GetMode() != off })
		if !wanted && !asked {
			break
		}
		if r.world.clock.now >= limit {
			r.world.fail("operations end", "the operator cannot end that the cluster heals itself: %v", r.check.reference.state.Healing())
		}
		if r.world.clock.now >= again {
			again = r.world.clock.now + time.Second
			r.askHealing(&messages.ChangeHealing{Mode: &off})
		}
	}
	r.world.run(r.world.clock.now + time.Second) // of what a leader decided before it knew
}

// tidy waits for what the operator has asked, for a while.
func (r *run) tidy() {
	busy := func() bool {
		return len(r.operator.under) > 0 || slices.ContainsFunc(r.check.reference.state.Operations(), func(o *messages.ClusterOperation) bool { return !rules.Ended(o) })
	}
	for limit := r.world.clock.now + giveUpMax; !r.world.over() && busy() && r.world.clock.now < limit; {
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
}

// wants are the settings that the operator has asked for and was not answered.
func (p *operator) wants() (all []*messages.ChangeHealing) {
	for _, op := range p.under {
		if h := op.submit.Cluster.GetHealing(); h != nil {
			all = append(all, h)
		}
	}
	return all
}

// loses is the one voter that is lost for good, and a machine that waits; nil: there is none, or
// somebody must see to something else first.
func (r *run) loses() (lost *messages.Member, spare *server) {
	for _, m := range r.check.reference.state.Members() {
		s := r.replica(m.RaftId, "")
		switch {
		case s != nil && s.up() && !s.lost() && s.id() == m.RaftId:
		case lost != nil || m.Type != messages.MemberType_VOTER:
			return nil, nil
		default:
			lost = m
		}
	}
	for _, s := range r.servers {
		if s.up() && s.joins != nil && s.id() == 0 && r.memberNamed(s.name()) == nil && r.knowsMember(s) {
			spare = s
		}
	}
	busy := slices.ContainsFunc(r.check.reference.state.Operations(), func(o *messages.ClusterOperation) bool {
		return !rules.Ended(o) || o.Phase == messages.OperationPhase_FAILED && o.OldRaftId == lost.GetRaftId()
	})
	if lost == nil || spare == nil || busy || r.misplaced() != nil || len(r.operator.under) > 0 {
		return nil, nil
	}
	return lost, spare
}

// stillLoses reports whether both are as they were, or the one is taking the other's place. The
// spare may have become a member meanwhile, as somebody asked before.
func (r *run) stillLoses(lost *messages.Member, spare *server) bool {
	s := r.replica(lost.RaftId, "")
	takes := slices.ContainsFunc(r.check.reference.state.Operations(), func(o *messages.ClusterOperation) bool {
		return o.OldRaftId == lost.RaftId && o.NewNode == spare.name()
	})
	return (s == nil || !s.up()) && spare.up() && (takes || r.memberNamed(spare.name()) == nil)
}

// knowsMember reports whether a machine that waits asks one that is up, and can tell.
func (r *run) knowsMember(s *server) bool {
	return slices.ContainsFunc(r.servers, func(o *server) bool {
		return o.up() && o.isMember() && o.id() != 0 && slices.Contains(s.joins, o.listen())
	})
}

// What became of healing.
const (
	cellHeals = "heals-itself"
	cellMends = "heals-a-loss"
)
