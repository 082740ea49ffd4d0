package rules

import (
	"bytes"
	"slices"

	"keyval/messages"
)

// View is what the leader knows of its cluster when it decides. It is never modified.
type View struct {
	Configuration
	Self        messages.RaftID
	Operations  []*messages.ClusterOperation // all records, ended ones too
	Healing     *messages.Healing            // nil: never said
	Backups     []*messages.BackupJob        // by name
	Auth        *messages.Auth               // nil: never said
	Invitations *messages.Invitations        // nil: there never was one
	Replication *messages.Replication        // the last one of this node's raft
	Following   Following                    // how the others have followed lately
	Waiting     []*messages.WaitingNode
	Shipments   map[messages.RaftID]Shipment // snapshots under way; may lack some
	TickMS      uint64
	NowMS       int64 // wall time, for people; 0: not known
}

// Shipment is how far a snapshot has come, in bytes. Total is an estimate; 0: not known.
type Shipment struct{ Done, Total uint64 }

// ContactTicksMax is how long a member may be silent and still count as in contact, in
// ticks: ten heartbeats, and an election timeout.
const ContactTicksMax = 20

// Leads reports whether this node leads.
func (v View) Leads() bool { return v.Self != 0 && v.Replication.GetLeader() == v.Self }

// Alive reports whether the leader is in contact with a member, or is it.
func (v View) Alive(id messages.RaftID) bool {
	if id == v.Self {
		return true
	}
	p := v.progress(id)
	return p != nil && InContact(p)
}

// InContact reports whether a member was heard of lately, and its process has not died since.
func InContact(p *messages.Progress) bool { return !p.Gone && p.SilentTicks <= ContactTicksMax }

// Answers reports whether a member is in contact, and has acknowledged something to this
// leader. One that has just begun to lead has heard nobody, and those that died before count
// as in contact for a while.
func (v View) Answers(id messages.RaftID) bool {
	return id == v.Self || v.Alive(id) && v.progress(id).GetMatch() > 0
}

func (v View) progress(id messages.RaftID) *messages.Progress {
	for _, p := range v.Replication.GetProgress() {
		if p.RaftId == id {
			return p
		}
	}
	return nil
}

// Named finds a member by its name. While another takes its place under the same name, it is
// the old one.
func (v View) Named(name string) *messages.Member {
	for _, m := range v.Members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Votes reports whether a member votes, in any half.
func (v View) Votes(id messages.RaftID) bool { return slices.Contains(votersOf(v.ConfState), id) }

// Budget is that of the configuration now.
func (v View) Budget() *messages.FaultBudget { return Budget(v.ConfState, v.Members, v.Alive) }

// Operation finds a record by its id, or returns nil.
func (v View) Operation(id []byte) *messages.ClusterOperation {
	for _, o := range v.Operations {
		if string(o.Id) == string(id) {
			return o
		}
	}
	return nil
}

// waitingMS is for how long a node that asks to join may be silent and still be taken for
// running, in ms. It asks several times a second.
const waitingMS = 2000

// Waits reports whether a node that asked to join still does.
func Waits(n *messages.WaitingNode) bool { return n.SilentMs <= waitingMS }

// WaitingNamed finds the node of a name that asks to join, or returns nil: none does, or more
// than one, and nobody can tell which is meant.
func (v View) WaitingNamed(name string) *messages.WaitingNode {
	var found *messages.WaitingNode
	for _, w := range v.Waiting {
		switch {
		case w.Name != name || !Waits(w):
		case found != nil && (!bytes.Equal(found.Incarnation, w.Incarnation) || found.Address != w.Address):
			return nil
		default:
			found = w
		}
	}
	return found
}

// refused is why a node that asked to join is not let in; empty: it is not refused, or did not
// ask lately.
func (v View) refused(name, address string) string {
	for _, w := range v.Waiting {
		if w.Name == name && w.Address == address && w.Refused != "" {
			return w.Refused
		}
	}
	return ""
}

// Swapped reports whether an operation can only go forward: the joint configuration was
// entered, or it is over.
func Swapped(o *messages.ClusterOperation) bool {
	return Ended(o) || o.GetReached() >= messages.OperationPhase_PROMOTION
}

// InTheWay is an operation that is under way and touches a member, a name or an address that
// op is about, or nil. There is one replace at a time.
func (v View) InTheWay(op *messages.ClusterOperation) *messages.ClusterOperation {
	for _, o := range v.Operations {
		if Ended(o) || string(o.Id) == string(op.Id) {
			continue
		}
		sameAddress := o.NewAddress != "" && o.NewAddress == op.NewAddress
		if shared(o, op) != "" || sameAddress || o.Kind == messages.OperationKind_REPLACE && op.Kind == messages.OperationKind_REPLACE {
			return o
		}
	}
	return nil
}

// SameNode reports whether two operations are about the same node: then the state refuses
// the one that comes later.
func SameNode(a, b *messages.ClusterOperation) bool { return shared(a, b) != "" }
