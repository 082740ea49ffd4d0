package sim

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// Members that come and go: spare machines, and an operator who asks for every kind of change,
// some of them wrong, twice, or given up again.

// operator is a client who changes the members.
type operator struct {
	*customer
	begun []*messages.ClusterOperation // as they were asked for
	at    *server                      // the only one that its client asks; nil: any

	away map[string]messages.OperationPhase // at which step the old node of a replace is back that was taken away, by the operation's id
}

// goTo has the operator ask one server alone, as somebody does who knows that the leader is
// where the others do not look for it; nil: any.
func (p *operator) goTo(s *server) {
	if p.at == s {
		return
	}
	p.at = s
	p.crash()
	if s == nil {
		p.start()
	} else {
		p.startWith([]string{s.listen()}, true)
	}
}

// drawChurn draws the spares of a run and how busy its operator is.
func (s *swarm) drawChurn(chance *rand.Rand, o Options) {
	// A new member gets a snapshot, which would spread what was written wrong.
	if s.rates[faultMiswrite]+s.rates[faultMisstate] > 0 || chance.IntN(3) > 0 {
		return
	}
	s.spares = 1 + chance.IntN(3)
	s.asking = pick(chance, 200*time.Millisecond, 500*time.Millisecond, 2*time.Second)
	if o.Faults {
		s.steps = pick(chance, 0, 0.05, 0.2, 0.5)
		all := allStepBlows()
		for range pick(chance, 4, 16, 48) {
			s.blows = append(s.blows, pick(chance, all...))
		}
		if s.nodes > 2 { // few replaces come so far without their old node
			s.blows = append(s.blows, stepBlow{messages.OperationKind_REPLACE,
				pick(chance, messages.OperationPhase_PROMOTION, messages.OperationPhase_REMOVE_OLD, messages.OperationPhase_COMPLETE), harmBack})
		}
	}
}

// spare adds a machine that asks some of the founders to be let in.
func (r *run) spare() { r.rejoin(r.machine()) }

// rejoin empties the disk of a server that is down, and has what starts there ask others to be
// let in.
func (r *run) rejoin(s *server) {
	delete(r.leftDown, s.node)
	s.place = 0
	s.disk.LoseMedia()
	s.disk.MendFaults()
	s.damaged, s.aged, s.rot, s.joins, s.installed = false, false, rot{}, nil, 0
	for _, o := range r.servers {
		if o != s && (o.node < r.swarm.nodes || o.isMember()) {
			s.joins = append(s.joins, o.addresses()...)
		}
	}
	if s.level = 0; r.swarm.levels { // an older one would find out that it is too old, and end
		s.level = levelNewest
	}
	r.check.wiped(s.node)
}

// employ lets the operator ask at random times, until the world is healed.
func (r *run) employ() {
	if r.swarm.spares > 0 {
		r.hire()
		r.regularly("operator", 0, r.swarm.asking, func() {
			if r.check.reference != nil && !r.held {
				r.by("operator", r.operate)
			}
		})
	}
}

// hire adds the operator.
func (r *run) hire() {
	r.operator = &operator{customer: r.customer("operator"), away: map[string]messages.OperationPhase{}}
	r.operator.start()
}

// regularly has something done at random times, until the world is healed: so long apart at
// least, and so much longer on average.
func (r *run) regularly(kind string, least, more time.Duration, do func()) {
	wait := least + time.Duration(r.chancesOf(kind).ExpFloat64()*float64(more))
	r.world.clock.after(wait, nil, func() {
		if !r.healed {
			do()
			r.regularly(kind, least, more, do)
		}
	})
}

// chancesOf is the source of chance of a kind.
func (r *run) chancesOf(kind string) (chance *rand.Rand) {
	r.by(kind, func() { chance = r.chaos })
	return chance
}

// operate is one thing that an operator does: to a machine, or by asking.
func (r *run) operate() {
	if r.renew(); len(r.operator.under) > 3 {
		return
	}
	if r.chaos.IntN(2) == 0 && (r.correct() || r.seekBlow()) {
		return
	}
	if r.chaos.IntN(16) == 0 {
		r.move()
		return
	}
	request := &messages.ClusterRequest{DryRun: r.chaos.IntN(8) == 0}
	if r.chaos.IntN(10) == 0 {
		request.Configuration = r.chaos.Uint64N(r.check.reference.state.Configuration().Index + 2)
	}
	members := r.check.reference.state.Members()
	member := pick(r.chaos, members...)
	switch n := r.chaos.IntN(20); {
	case n < 2:
		request.Kind = &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{To: pick(r.chaos, "", member.Name)}}
	case n < 4:
		address := pick(r.chaos, member.Address, pick(r.chaos, r.servers...).listen())
		request.Kind = &messages.ClusterRequest_Address{Address: &messages.ChangeAddress{Name: member.Name, Address: address}}
		there := r.named(member.Name)
		request.DryRun = request.DryRun || address != member.Address && (there == nil || there.listen() != address) // nobody is there
	case n == 5 && r.chaos.IntN(2) == 0:
		r.roll()
		return
	case n == 4:
		request.Kind = &messages.ClusterRequest_Healing{Healing: r.drawHealing()}
	case n < 7 && len(r.operator.begun) > 0:
		request.Kind = &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: pick(r.chaos, r.operator.begun...).Id}}
	case n == 7 && len(r.operator.begun) > 0: // once more
		o := pick(r.chaos, r.operator.begun...)
		request.Kind, request.DryRun = begin(o), request.DryRun || !r.bears(o)
	default:
		o := r.drawOperation(r.drawKind(), member)
		request.Kind, request.DryRun = begin(o), request.DryRun || !r.bears(o)
		if !request.DryRun {
			r.operator.begun = append(r.operator.begun, o)
		}
	}
	r.operator.submit(&messages.Submit{Cluster: request})
}

func begin(o *messages.ClusterOperation) *messages.ClusterRequest_Begin {
	return &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{Operation: o}}
}

// bears reports whether a quorum of sound disks is left behind a removal, or a promotion of whom
// the leader heard a moment ago: the operator cannot know of what nobody has noticed yet.
func (r *run) bears(o *messages.ClusterOperation) bool {
	decides := o.Kind == messages.OperationKind_REMOVE || o.Kind == messages.OperationKind_PROMOTE
	return !decides || r.suffices((*server).lost, o)
}

// awaited are the operations that the operator has asked for, and that may begin still.
func (r *run) awaited() (all []*messages.ClusterOperation) {
	if r.operator == nil {
		return nil
	}
	for _, tag := range slices.Sorted(maps.Keys(r.operator.under)) {
		asked := r.operator.under[tag].submit.Cluster
		if o := asked.GetBegin().GetOperation(); o != nil && !asked.DryRun {
			all = append(all, o)
		}
	}
	return all
}

// misplaced is a server that is up, and is not where its member's record says; nil: none.
func (r *run) misplaced() *server {
	for _, m := range r.check.reference.state.Members() {
		node, there := r.check.holder(m.RaftId)
		if there && r.servers[node].up() && r.servers[node].listen() != m.Address {
			return r.servers[node]
		}
	}
	return nil
}

// correct says where a member is that has moved, and reports whether there is one.
func (r *run) correct() bool {
	s := r.misplaced()
	if s == nil {
		return false
	}
	r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{
		Kind: &messages.ClusterRequest_Address{Address: &messages.ChangeAddress{Name: s.name(), Address: s.listen()}}}})
	return true
}

// move lets a member's process start where it has another address, which the record does not say
// until the operator does. One at a time, or two members could not find each other.
func (r *run) move() {
	s := pick(r.chaos, r.servers...)
	away := slices.ContainsFunc(r.servers, func(o *server) bool {
		m := r.memberNamed(o.name())
		return m != nil && m.Address != o.listen()
	})
	if away || !s.up() || !s.isMember() || s.id() == 0 || s.lost() || r.founding() || len(r.check.configurations.now.GetVoters()) < 2 {
		return
	}
	s.crash(r.chaos.IntN(2) == 0)
	s.place = 1 - s.place
	r.coverage[cellMoved]++
	r.note("%s moves to %s", s.name(), s.listen())
	s.restartLater()
}

// cellMoved is that a member's process moved.
const cellMoved = "moved"

// seekBlow asks for what may come to a step that this run aims at, and reports whether it can:
// the kinds that are left have equal chances, since few of them are asked for without.
func (r *run) seekBlow() bool {
	if slices.ContainsFunc(r.check.reference.state.Operations(), r.seekFailure) {
		return true
	}
	var kinds []messages.OperationKind
	for _, b := range r.swarm.blows {
		if !slices.Contains(kinds, b.kind) {
			kinds = append(kinds, b.kind)
		}
	}
	if len(kinds) == 0 {
		return false
	}
	kind, members, stays := pick(r.chaos, kinds...), r.check.reference.state.Members(), false
	learns, promotes := slices.ContainsFunc(members, isLearner), slices.Contains(kinds, messages.OperationKind_PROMOTE)
	switch {
	case learns && promotes && r.chaos.IntN(2) == 0:
		kind = messages.OperationKind_PROMOTE
	case !learns && kind == messages.OperationKind_PROMOTE:
		kind, stays = messages.OperationKind_ADD, true
	}
	member := pick(r.chaos, members...)
	if i := slices.IndexFunc(members, r.leads); i >= 0 && r.fails(kind) { // it hands the lead over first, which takes a moment
		member = members[i]
	}
	o := r.drawOperation(kind, member)
	o.StayLearner = o.StayLearner || stays
	if !r.bears(o) {
		return false
	}
	r.operator.begun = append(r.operator.begun, o)
	r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: begin(o)}})
	return true
}

func (r *run) leads(m *messages.Member) bool {
	s := r.named(m.Name)
	return s != nil && s.role() == "leader"
}

// fails reports whether this run aims at how an operation of this kind fails.
func (r *run) fails(kind messages.OperationKind) bool {
	return slices.ContainsFunc(r.swarm.blows, func(b stepBlow) bool { return b.kind == kind && b.phase == messages.OperationPhase_FAILED })
}

// seekFailure gives an operation up, now and then, if this run aims at how such a one fails, and
// reports whether it did. It is asked at each step too: most go on too fast for an operator who looks now and then.
func (r *run) seekFailure(o *messages.ClusterOperation) bool {
	if rules.Ended(o) || !r.fails(o.Kind) || r.chaos.IntN(2) == 0 {
		return false
	}
	if at, away := r.operator.away[string(o.Id)]; away && at != messages.OperationPhase_FAILED {
		return false // it is to come to the step at which its old node is back
	}
	r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{
		Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: o.Id}}}})
	return true
}

// seekReturn keeps the old node of a replace away, if this run aims at its return, and reports
// whether it is to be back now: at a step that is aimed at, or at the end if that did not come.
func (r *run) seekReturn(o *messages.ClusterOperation) bool {
	at, away := r.operator.away[string(o.Id)]
	if !away && o.Version == 1 {
		at, away = r.keepAway(o)
	}
	if !away || o.Phase != at && !rules.Ended(o) {
		return false
	}
	delete(r.operator.away, string(o.Id))
	return true
}

// keepAway takes the old node of a replace that begins away, unless it is already, and says until
// which step.
func (r *run) keepAway(o *messages.ClusterOperation) (until messages.OperationPhase, away bool) {
	var aims []messages.OperationPhase
	for _, b := range r.swarm.blows {
		if b.kind == o.Kind && b.harm == harmBack {
			aims = append(aims, b.phase)
		}
	}
	old := r.replica(o.OldRaftId, o.OldNode)
	if len(aims) == 0 || old == nil || old.id() != o.OldRaftId || old.lost() || r.held || old.up() && (r.founding() || r.needs(old)) {
		return 0, false
	}
	until = pick(r.chaos, aims...)
	r.operator.away[string(o.Id)] = until
	r.note("%s is away, until it is back in %s %s", old.name(), o.Kind, until)
	if old.up() {
		old.crash(false)
	}
	return until, true
}

func (r *run) drawKind() messages.OperationKind {
	switch n := r.chaos.IntN(12); {
	case n < 4:
		return messages.OperationKind_ADD
	case n < 6:
		return messages.OperationKind_PROMOTE
	case n < 8:
		return messages.OperationKind_REMOVE
	}
	return messages.OperationKind_REPLACE
}

// drawOperation makes one of those that have records, about a member where it needs one.
func (r *run) drawOperation(kind messages.OperationKind, member *messages.Member) *messages.ClusterOperation {
	o := &messages.ClusterOperation{Id: make([]byte, messages.OperationIDSize), Kind: kind}
	binary.BigEndian.PutUint64(o.Id, r.chaos.Uint64())
	target := r.fresh()
	switch kind {
	case messages.OperationKind_ADD:
		o.NewNode, o.NewAddress, o.StayLearner = target.name(), target.listen(), r.chaos.IntN(3) == 0
	case messages.OperationKind_PROMOTE:
		o.NewNode = member.Name
		if i := slices.IndexFunc(r.check.reference.state.Members(), isLearner); i >= 0 {
			o.NewNode = r.check.reference.state.Members()[i].Name
		}
	case messages.OperationKind_REMOVE:
		o.OldNode = member.Name
	default:
		o.OldNode, o.NewNode, o.NewAddress = member.Name, target.name(), target.listen()
		if i := slices.IndexFunc(r.check.reference.state.Members(), r.isGone); i >= 0 && r.chaos.IntN(2) == 0 {
			o.OldNode = r.check.reference.state.Members()[i].Name
		}
		if same := r.named(o.OldNode); r.chaos.IntN(3) == 0 && same != nil && (!same.isMember() || r.empty(same)) {
			o.NewNode, o.NewAddress = same.name(), same.listen()
		}
	}
	return o
}

func isLearner(m *messages.Member) bool { return m.Type == messages.MemberType_LEARNER }

// isGone reports whether no machine holds a member any more, or one that is out of service.
func (r *run) isGone(m *messages.Member) bool {
	node, there := r.check.holder(m.RaftId)
	return !there || r.servers[node].lost() || !r.servers[node].up()
}

func (r *run) named(name string) *server {
	for _, s := range r.servers {
		if s.name() == name {
			return s
		}
	}
	return nil
}

// fresh is a machine that waits to be added, if there is one.
func (r *run) fresh() *server {
	for _, i := range r.chaos.Perm(len(r.servers)) {
		if s := r.servers[i]; s.joins != nil && s.id() == 0 && r.memberNamed(s.name()) == nil {
			return s
		}
	}
	return pick(r.chaos, r.servers...)
}

func (r *run) memberNamed(name string) *messages.Member {
	if r.check.reference == nil {
		return nil
	}
	members := r.check.reference.state.Members()
	if i := slices.IndexFunc(members, func(m *messages.Member) bool { return m.Name == name }); i >= 0 {
		return members[i]
	}
	return nil
}

// empty wipes one of a minority, so that another replica may come to that machine.
func (r *run) empty(s *server) bool {
	if s.id() != 0 && s.disk.Retired() == "" && !s.damaged && r.needs(s) || r.founding() || s.aged {
		return false
	}
	if s.up() {
		r.world.note(s.host, "the server is replaced by one with an empty disk, which joins")
	}
	s.crash(true)
	r.rejoin(s)
	s.restartLater()
	return true
}

// founding reports whether a founder does not take part yet: it may take anybody in who has the
// name of another, and waits for all of them.
func (r *run) founding() bool {
	return slices.ContainsFunc(r.servers, func(s *server) bool {
		identity, err := s.disk.Identity()
		return s.joins == nil && !s.damaged && (err != nil || len(identity.ClusterId) == 0)
	})
}

// renew empties machines that hold a replica which is no member any more.
func (r *run) renew() {
	for _, s := range r.servers {
		if s.id() != 0 && !s.isMember() && (s.disk.Retired() != "" || s.damaged) && r.chaos.IntN(4) == 0 {
			r.empty(s)
		}
	}
}

// settleMax bounds how long operations take to end after the world was healed, and giveUpMax
// those whose nodes stay away, until the operator gives them up.
const (
	settleMax = 60 * time.Second
	giveUpMax = 5 * time.Second
)

// settle: every operation ends, and no joint configuration stays. What the operator asked last
// may begin one still, until it is answered.
func (r *run) settle() {
	began, asked := r.world.clock.now, r.world.clock.now+giveUpMax
	for !r.world.over() && r.operator != nil {
		var under []*messages.ClusterOperation
		for _, o := range r.check.reference.state.Operations() {
			if !rules.Ended(o) {
				under = append(under, o)
			}
		}
		joint := len(r.check.configurations.now.GetVotersOutgoing()) > 0
		astray := r.misplaced()
		if len(under)+len(r.operator.under) == 0 && !joint && astray == nil {
			return
		}
		if now := r.world.clock.now; now >= began+settleMax+r.shipping() {
			r.world.fail("operations end", "%v after the world was healed the configuration is %s, and under way is: %v",
				now-began, messages.Line(r.check.configurations.now), under)
		} else if now >= asked {
			asked = now + time.Second
			if astray != nil && astray.role() == "leader" {
				r.operator.goTo(astray)
			} else {
				r.operator.goTo(nil)
			}
			r.correct()
			for _, o := range under {
				r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{
					Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: o.Id}}}})
			}
		}
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
}
