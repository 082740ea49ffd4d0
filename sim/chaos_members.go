package sim

import (
	"fmt"
	"slices"
	"time"

	"keyval/messages"
)

// harm is what falls upon a change of the members right after one of its steps.
type harm int

const (
	harmLeader    harm = iota // the leader crashes
	harmOld                   // the node that leaves does
	harmNew                   // the new one does
	harmOperator              // who asked does
	harmPartition             // leader and new node, or old one, lose each other
	harmDisk                  // a write, or a sync, of the leader or of the new node fails
	harmWipe                  // the disk of the new node is emptied, and it waits again
	harmFull                  // the disk of the new node is full for a while
	harmBack                  // the node that leaves was away, and is back
	harmAbort                 // somebody gives the operation up, or tries to
	harms
)

func (h harm) String() string {
	return [...]string{"leader-crash", "old-crash", "new-crash", "operator-crash", "partition", "disk", "wipe", "full", "old-returns", "abort"}[h]
}

// meets reports whether an operation of this kind can be harmed so in this phase.
func (h harm) meets(kind messages.OperationKind, phase messages.OperationPhase) bool {
	switch h {
	case harmOld:
		return kind == messages.OperationKind_REMOVE || kind == messages.OperationKind_REPLACE
	case harmWipe: // a voter is emptied only where a quorum is left
		return (kind == messages.OperationKind_ADD || kind == messages.OperationKind_REPLACE) && phase <= messages.OperationPhase_CATCH_UP
	case harmBack, harmFull, harmAbort:
		return kind == messages.OperationKind_REPLACE
	case harmNew:
		return kind != messages.OperationKind_REMOVE
	}
	return true
}

// stepBlow is a harm that falls upon one step of an operation.
type stepBlow struct {
	kind  messages.OperationKind
	phase messages.OperationPhase
	harm  harm
}

func (b stepBlow) String() string { return fmt.Sprintf("%s %s x %s", b.kind, b.phase, b.harm) }

// stepsOf are the phases that an operation of each kind can go through.
var stepsOf = map[messages.OperationKind][]messages.OperationPhase{
	messages.OperationKind_ADD: {messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION,
		messages.OperationPhase_COMPLETE, messages.OperationPhase_FAILED},
	messages.OperationKind_PROMOTE: {messages.OperationPhase_PROMOTION, messages.OperationPhase_COMPLETE, messages.OperationPhase_FAILED},
	messages.OperationKind_REMOVE:  {messages.OperationPhase_REMOVE_OLD, messages.OperationPhase_COMPLETE, messages.OperationPhase_FAILED},
	messages.OperationKind_REPLACE: {messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION,
		messages.OperationPhase_REMOVE_OLD, messages.OperationPhase_COMPLETE, messages.OperationPhase_FAILED},
}

// allStepBlows are all steps with all that may fall upon them.
func allStepBlows() (all []stepBlow) {
	for kind := messages.OperationKind_ADD; kind <= messages.OperationKind_REPLACE; kind++ {
		for _, phase := range stepsOf[kind] {
			for h := range harms {
				if h.meets(kind, phase) {
					all = append(all, stepBlow{kind, phase, h})
				}
			}
		}
	}
	return all
}

// stepped draws what falls upon an operation whose record was just committed: at once, or a
// little later. What this run aims at falls whatever the weather, until it has met somebody.
func (r *run) stepped(o *messages.ClusterOperation) {
	r.coverage[fmt.Sprintf("%s %s", o.Kind, o.Phase)]++
	if r.healed || r.swarm.steps == 0 {
		return
	}
	r.by("steps", func() {
		returns := r.seekReturn(o)
		if r.seekFailure(o) && o.Kind == messages.OperationKind_PROMOTE { // another leader waits before it goes on
			r.world.clock.after(0, nil, func() {
				if !r.healed && !r.held {
					r.by("steps", func() { r.harm(o, harmLeader) })
				}
			})
		}
		h, strikes := harm(r.chaos.IntN(int(harms))), r.strikes() && r.chaos.Float64() < r.swarm.steps
		i := slices.IndexFunc(r.swarm.blows, func(b stepBlow) bool { // nobody can be back who is not away: see seekReturn
			return b.kind == o.Kind && b.phase == o.Phase && b.harm != harmBack
		})
		if i >= 0 && !r.held {
			h, strikes = r.swarm.blows[i].harm, true
		}
		if returns {
			h, strikes = harmBack, true
		}
		if !strikes {
			return
		}
		delay := upTo(r.chaos, pick(r.chaos, 0, 5*time.Millisecond, 100*time.Millisecond))
		r.world.clock.after(delay, nil, func() {
			if !r.healed && !r.held {
				r.by("steps", func() { r.harm(o, h) })
			}
		})
	})
}

// harm carries one out, and counts it if it met somebody.
func (r *run) harm(o *messages.ClusterOperation, h harm) {
	var leader *server
	for _, s := range r.servers {
		if s.role() == "leader" {
			leader = s
		}
	}
	old, fresh := r.replica(o.OldRaftId, o.OldNode), r.replica(o.NewRaftId, o.NewNode)
	other := fresh
	if other == nil {
		other = old
	}
	var victim *server
	switch h {
	case harmLeader, harmDisk, harmPartition:
		victim = leader
		if h == harmDisk && fresh != nil && r.chaos.IntN(2) == 0 {
			victim = fresh
		}
	case harmOld, harmBack:
		victim = old
	case harmNew, harmWipe, harmFull:
		victim = fresh
	}
	switch {
	case !h.meets(o.Kind, o.Phase):
		return
	case h == harmOperator:
		r.restartClient(r.operator.customer)
	case h == harmAbort:
		r.operator.submit(&messages.Submit{Cluster: &messages.ClusterRequest{
			Kind: &messages.ClusterRequest_Abort{Abort: &messages.AbortOperation{Id: o.Id}}}})
	case victim != nil && h == harmBack:
		if victim.up() || victim.lost() || victim.id() != o.OldRaftId || victim.disk.Retired() != "" {
			return
		}
		r.note("%s is back in %s %s", victim.name(), o.Kind, o.Phase)
		victim.start()
	case victim == nil || !victim.up():
		return
	case h == harmFull:
		r.order(faultFull, victim)
	case h == harmPartition && (other == nil || other == victim):
		return
	case h == harmPartition:
		r.note("partition of %s and %s in %s %s", victim.name(), other.name(), o.Kind, o.Phase)
		r.shut(victim.name(), other.name(), r.lasting())
	case h == harmDisk:
		r.order(pick(r.chaos, faultSaveFails, faultSyncFails, faultTornSave, faultStateSync), victim)
	case h == harmWipe:
		if !r.empty(victim) {
			return
		}
	default:
		r.note("%s in %s %s", h, o.Kind, o.Phase)
		r.crash(victim, r.chaos.IntN(2) == 0)
	}
	met := stepBlow{o.Kind, o.Phase, h}
	r.coverage[met.String()]++
	r.swarm.blows = slices.DeleteFunc(r.swarm.blows, func(b stepBlow) bool { return b == met })
}

// replica is the machine of a replica, or that of its name; nil: none.
func (r *run) replica(id messages.RaftID, name string) *server {
	if node, there := r.check.holder(id); id != 0 && there {
		return r.servers[node]
	}
	if i := slices.IndexFunc(r.servers, func(s *server) bool { return s.name() == name }); i >= 0 {
		return r.servers[i]
	}
	return nil
}
