package sim

import (
	"slices"
	"time"

	"keyval/messages"
)

// An operator restarts all nodes one by one, each on its own directory, perhaps with newer
// software: as kvctl cluster upgrade does, with the lead moved away first, and no further while
// the cluster could not bear it.

// rollMax is how long an operator waits for the next node to be dispensable before the restarts
// end where they are.
const rollMax = 30 * time.Second

// rolling are the restarts under way.
type rolling struct {
	done  []string
	until time.Duration // for the next
}

// roll begins them, unless some are under way.
func (r *run) roll() {
	if r.rolls == nil {
		r.rolls = &rolling{until: r.world.clock.now + rollMax}
		r.rollOn()
	}
}

// rollOn asks who may be restarted now.
func (r *run) rollOn() {
	if r.healed || r.world.clock.now >= r.rolls.until {
		r.rolls = nil
		return
	}
	r.afterRoll(r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}}}), func(d *messages.Done) {
		next, leads := r.nextToRoll(d.Cluster)
		switch view := d.Cluster.GetView(); {
		case d.Cluster.GetCode() == messages.Code_OK && len(view.GetMembers()) > 0 && next == "" && r.rolledAll(view):
			r.coverage[cellRolled]++
			r.rolls = nil
		case next == "":
			r.rollSoon()
		case leads:
			r.afterRoll(r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{}}}}),
				func(*messages.Done) { r.rollSoon() })
		default:
			r.restart(next)
		}
	})
}

// afterRoll goes on once there is an answer. Without one the restarts end where they are: it
// may be another process that asks next.
func (r *run) afterRoll(op *operation, then func(*messages.Done)) {
	op.then = func(d *messages.Done) { r.by("operator", func() { then(d) }) }
	mine := r.rolls
	r.world.clock.after(2*deadlineMS*time.Millisecond, nil, func() {
		if r.rolls == mine && (op.done == nil || !op.certain()) {
			r.rolls = nil
		}
	})
}

func (r *run) rollSoon() {
	mine := r.rolls
	r.world.clock.after(r.swarm.electionTimeout()/4, nil, func() {
		if mine != nil && r.rolls == mine {
			r.by("operator", r.rollOn)
		}
	})
}

// nextToRoll is who was not restarted yet, the leader last, and is dispensable just now; empty:
// nobody is. leads: it leads, as far as the node knows that was asked.
func (r *run) nextToRoll(a *messages.ClusterReply) (next string, leads bool) {
	view := a.GetView()
	for _, m := range view.GetMembers() {
		name := m.Member.Name
		is := m.Member.RaftId == view.Leader
		if !slices.Contains(r.rolls.done, name) && (next == "" || leads) {
			next, leads = name, is
		}
	}
	pending := slices.ContainsFunc(view.GetOperations(), func(o *messages.ClusterOperation) bool {
		return o.Phase != messages.OperationPhase_COMPLETE && o.Phase != messages.OperationPhase_FAILED
	})
	if pending || view.GetLeader() == 0 || a.Before == nil || !slices.Contains(a.Before.Survives, next) && !r.isLearnerNamed(next) {
		return "", false
	}
	return next, leads
}

func (r *run) isLearnerNamed(name string) bool {
	m := r.memberNamed(name)
	return m != nil && isLearner(m)
}

func (r *run) rolledAll(view *messages.ClusterView) bool {
	return !slices.ContainsFunc(view.GetMembers(), func(m *messages.MemberView) bool { return !slices.Contains(r.rolls.done, m.Member.Name) })
}

// restart ends the process of a node, and starts the next one at once.
func (r *run) restart(name string) {
	s := r.named(name)
	r.rolls.done, r.rolls.until = append(r.rolls.done, name), r.world.clock.now+rollMax
	if s == nil || !s.up() || s.lost() {
		r.rollSoon()
		return
	}
	r.note("the operator restarts %s, a %s", name, s.role())
	r.coverage[cellRolls]++
	s.crash(false)
	r.world.clock.after(upTo(r.chaos, s.run.swarm.down/4), nil, func() {
		if !r.leftDown[s.node] && s.disk.Retired() == "" {
			s.start()
		}
	})
	r.rollSoon()
}

// What became of restarts.
const (
	cellRolls  = "rolling-restart"
	cellRolled = "rolled-all"
)
