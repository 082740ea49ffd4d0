package saga

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// A leader may begin a replace by itself: of a voter that has been out of contact for long,
// by a spare that waits. It never does so while it could make things worse: one at a time,
// with a quorum, and never when more than one voter is missing, since then the network is
// likelier to be at fault than the nodes.

// spareSilentMS is for how long a spare may not have asked to be let in and still counts as
// waiting, in milliseconds.
const spareSilentMS = 3000

// Heal is the replace that a leader is to begin by itself now; nil: none. says is what there
// is to be said of a voter that is lost, for people; empty: none is.
func Heal(v rules.View) (begin *messages.ClusterOperation, says string) {
	h := v.Healing
	if h.GetMode() == messages.HealingMode_HEALING_OFF || !v.Leads() {
		return nil, ""
	}
	lost, others := missing(v)
	if lost == nil {
		return nil, ""
	}
	after := time.Duration(h.AfterMs) * time.Millisecond
	silent := time.Duration(silence(v, lost.RaftId)*v.TickMS) * time.Millisecond
	says = fmt.Sprintf("%s is out of contact since %v", lost.Name, silent.Round(time.Second))
	o := v.InTheWay(&messages.ClusterOperation{Kind: messages.OperationKind_REPLACE, OldNode: lost.Name})
	switch {
	case len(others) > 0:
		return nil, fmt.Sprintf("%s are out of contact: nothing is replaced while more than one voter is", rules.And(append([]string{lost.Name}, others...)))
	case !v.Budget().Available:
		return nil, says + ": nothing is replaced without a quorum"
	case o != nil:
		return nil, "" // somebody sees to it, or to something else first: it is among the operations
	case silent < after:
		return nil, fmt.Sprintf("%s: it counts as lost after %v", says, after)
	}
	if failed := gaveUp(lost, v); failed != nil {
		return nil, fmt.Sprintf("%s, and operation %x, which was to replace it, failed: an operator has to see to it", says, failed.Id[:4])
	}
	spare := waitingSpare(h, v)
	if spare == nil {
		return nil, says + ", and no spare waits to take its place"
	}
	if h.Mode == messages.HealingMode_HEALING_DRY {
		return nil, fmt.Sprintf("%s: it would be replaced by %s at %s, if kvctl cluster autoreplace were on", says, spare.Name, spare.Address)
	}
	if v.Steady().Kind != rules.Nothing || v.Joint() {
		return nil, says
	}
	return &messages.ClusterOperation{
		Id: healingID(v.Index, lost.RaftId, spare.Incarnation), Kind: messages.OperationKind_REPLACE,
		OldNode: lost.Name, NewNode: spare.Name, NewAddress: spare.Address,
	}, fmt.Sprintf("%s: it is replaced by %s", says, spare.Name)
}

// missing are the voters out of contact: one, and the names of the others.
func missing(v rules.View) (lost *messages.Member, others []string) {
	for _, m := range v.Members {
		switch {
		case !v.Votes(m.RaftId) || v.Alive(m.RaftId):
		case lost == nil:
			lost = m
		default:
			others = append(others, m.Name)
		}
	}
	return lost, others
}

// silence is for how long a member was not heard by this leader, in ticks.
func silence(v rules.View, id messages.RaftID) uint64 {
	for _, p := range v.Replication.GetProgress() {
		if p.RaftId == id {
			return p.SilentTicks
		}
	}
	return 0
}

// gaveUp is a replace of that very member that failed, or nil. It is not tried over and over:
// somebody may have aborted it for a reason.
func gaveUp(lost *messages.Member, v rules.View) *messages.ClusterOperation {
	for _, o := range v.Operations {
		if o.Kind == messages.OperationKind_REPLACE && o.OldRaftId == lost.RaftId && o.Phase == failed {
			return o
		}
	}
	return nil
}

// waitingSpare is the first spare that waits to be added, or nil.
func waitingSpare(h *messages.Healing, v rules.View) *messages.WaitingNode {
	for _, name := range h.Spares {
		if w := v.WaitingNamed(name); w != nil && w.SilentMs <= spareSilentMS && w.Refused == "" && v.Named(name) == nil {
			return w
		}
	}
	return nil
}

// healingID is the id of a replace that nobody asked for. All who decide the same upon the
// same configuration begin the same operation.
func healingID(index uint64, lost messages.RaftID, incarnation []byte) []byte {
	data := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte("healing"), index), lost)
	sum := sha256.Sum256(append(data, incarnation...))
	return sum[:messages.OperationIDSize]
}
