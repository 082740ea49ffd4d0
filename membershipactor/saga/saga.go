// Package saga carries operations on: what the leader does next for each of them, and why
// it waits.
//
// The truth is in the replicated state, as records and as the configuration; a saga may die
// at any line, and another leader begins it anew from there. A phase that changes the
// configuration writes its record in the same entry, so there is never one without the
// other. All else is a record of its own, written if its version is the one that follows. So
// each step takes effect once, however often it is proposed, and whoever proposes it; and it
// is proposed again until the state shows it.
package saga

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
	"keyval/mutant"
)

// RetryTicks is after how long a step is proposed again that the state does not show, in
// ticks. Raft drops proposals silently, changes of the configuration more than others.
const RetryTicks = 20

// Effect is what is to be done for an operation: Change, Record or Transfer.
type Effect interface{ effect() }

// Change is to be proposed as a change of the configuration.
type Change struct{ Members *messages.ChangeMembers }

// Record is to be proposed: the next version of an operation's record.
type Record struct{ Operation *messages.ClusterOperation }

// Transfer hands the lead over.
type Transfer struct{ To messages.RaftID }

func (Change) effect()   {}
func (Record) effect()   {}
func (Transfer) effect() {}

const (
	addLearner = messages.OperationPhase_ADD_LEARNER
	catchUp    = messages.OperationPhase_CATCH_UP
	promotion  = messages.OperationPhase_PROMOTION
	removeOld  = messages.OperationPhase_REMOVE_OLD
	complete   = messages.OperationPhase_COMPLETE
	failed     = messages.OperationPhase_FAILED
)

// Begin is the first record of an operation that rules.Check allows. asked has id, kind, the
// names, the address and perhaps the time.
func Begin(asked *messages.ClusterOperation, v rules.View) *messages.ClusterOperation {
	o := &messages.ClusterOperation{
		Id: asked.Id, Version: 1, Kind: asked.Kind, OldNode: asked.OldNode, NewNode: asked.NewNode, NewAddress: asked.NewAddress,
		StayLearner: asked.StayLearner, StartedAtMs: v.NowMS, ChangedAtMs: v.NowMS,
	}
	if m := v.Named(o.OldNode); o.OldNode != "" && m != nil {
		o.OldRaftId = m.RaftId
	}
	switch o.Kind {
	case messages.OperationKind_PROMOTE:
		o.Phase = promotion
		if m := v.Named(o.NewNode); m != nil {
			o.NewRaftId, o.NewAddress = m.RaftId, m.Address
		}
	case messages.OperationKind_REMOVE:
		o.Phase = removeOld
	default:
		o.Phase = addLearner
	}
	return o
}

// Abort is the step that gives an operation up, or why it cannot be; no step and no error: it
// is given up already.
func Abort(o *messages.ClusterOperation, v rules.View) (Effect, *messages.Error) {
	switch {
	case o.Aborting || o.Phase == failed:
		return nil, nil
	case o.Phase == complete:
		return nil, messages.Errorf(messages.Code_CONFLICT, "operation %x is complete: %s", o.Id, rules.Title(o)).
			WithHint("kvctl cluster members shows what came of it")
	case rules.Swapped(o) && !mutant.RollbackLate:
		return nil, messages.Errorf(messages.Code_CONFLICT, "operation %x only goes forward now: %s votes already, and %s leaves", o.Id, o.NewNode, o.OldNode).
			WithHint("follow it: kvctl ops follow %x", o.Id)
	}
	return giveUp(o, v, messages.Errorf(messages.Code_CONFLICT, "it was given up, as somebody asked")), nil
}

// next is the step that an operation is to take now, or why it waits. Neither: it has ended.
func next(o *messages.ClusterOperation, v rules.View) (Effect, rules.Why) {
	if rules.Ended(o) {
		return nil, rules.Why{}
	}
	if why := v.Steady(); why.Kind != rules.Nothing {
		return nil, why
	}
	if v.Joint() && !swapping(o) {
		return nil, rules.Why{Kind: rules.AnotherChange}
	}
	if o.Aborting {
		return undo(o, v), rules.Why{}
	}
	if err := lost(o, v); err != nil {
		return giveUp(o, v, err), rules.Why{}
	}
	switch o.Phase {
	case addLearner:
		return add(o, v), rules.Why{}
	case catchUp:
		return catchingUp(o, v)
	case promotion:
		return promote(o, v)
	case removeOld:
		return remove(o, v)
	}
	return giveUp(o, v, messages.Errorf(messages.Code_INTERNAL, "it is in phase %v, which a %v has not", o.Phase, o.Kind)), rules.Why{}
}

// swapping reports whether the joint configuration is this operation's.
func swapping(o *messages.ClusterOperation) bool {
	return !rules.Ended(o) && o.Kind == messages.OperationKind_REPLACE && o.Phase == removeOld && o.Reached == promotion
}

// lost says which member is gone that the operation needs. Only a change without a record
// takes one away.
func lost(o *messages.ClusterOperation, v rules.View) *messages.Error {
	if rules.Swapped(o) {
		return nil
	}
	gone := func(name string) *messages.Error {
		return messages.Errorf(messages.Code_NOT_FOUND, "%s is no member any more", name)
	}
	switch {
	case o.Phase > addLearner && o.NewNode != "" && v.Member(o.NewRaftId) == nil:
		return gone(o.NewNode)
	case o.Kind == messages.OperationKind_REPLACE && v.Member(o.OldRaftId) == nil:
		return gone(o.OldNode)
	}
	return nil
}

func add(o *messages.ClusterOperation, v rules.View) Effect {
	learner := &messages.AddLearner{RaftId: v.NextRaftID, Name: o.NewNode, Address: o.NewAddress, AddedAtMs: v.NowMS}
	after := to(o, v, catchUp, addLearner)
	if o.StayLearner {
		after.Phase = complete
	}
	after.NewRaftId = learner.RaftId
	return change(o, v, after, &messages.MemberChange{Kind: &messages.MemberChange_AddLearner{AddLearner: learner}})
}

func catchingUp(o *messages.ClusterOperation, v rules.View) (Effect, rules.Why) {
	if why := v.Ready(o.NewRaftId); why.Kind != rules.Nothing {
		return nil, why
	}
	phase := promotion
	if replacesLearner(o, v) {
		phase = removeOld // it stays a learner, as the old one was
	}
	return Record{to(o, v, phase, catchUp)}, rules.Why{}
}

func replacesLearner(o *messages.ClusterOperation, v rules.View) bool {
	return o.Kind == messages.OperationKind_REPLACE && v.Member(o.OldRaftId).GetType() == messages.MemberType_LEARNER
}

func promote(o *messages.ClusterOperation, v rules.View) (Effect, rules.Why) {
	in := &messages.MemberChange{Kind: &messages.MemberChange_Promote{Promote: &messages.PromoteLearner{RaftId: o.NewRaftId}}}
	if o.Kind != messages.OperationKind_REPLACE {
		if why := v.GuardVoters(o.NewRaftId, 0); why.Kind != rules.Nothing {
			return nil, why
		}
		return change(o, v, to(o, v, complete, promotion), in), rules.Why{}
	}
	if why := v.GuardSwap(o.NewRaftId, o.OldRaftId); why.Kind != rules.Nothing {
		return nil, why
	}
	return change(o, v, to(o, v, removeOld, promotion), in, removal(o.OldRaftId)), rules.Why{}
}

func remove(o *messages.ClusterOperation, v rules.View) (Effect, rules.Why) {
	old := v.Member(o.OldRaftId)
	if old == nil || swapping(o) && !v.Joint() {
		return Record{to(o, v, complete, removeOld)}, rules.Why{}
	}
	votes := old.Type != messages.MemberType_LEARNER
	if votes && !swapping(o) && len(v.ConfState.GetVoters()) == 1 { // the others left meanwhile
		return giveUp(o, v, messages.Errorf(messages.Code_UNSAFE, "%s is the last voter", old.Name)), rules.Why{}
	}
	if votes && !swapping(o) {
		if why := v.GuardVoters(0, old.RaftId); why.Kind != rules.Nothing {
			return nil, why
		}
	}
	if old.RaftId == v.Self && !mutant.LeaderRemoved {
		return handOver(old, v)
	}
	after := to(o, v, complete, removeOld)
	if swapping(o) && mutant.JointStays {
		return nil, rules.Why{}
	}
	if swapping(o) {
		return change(o, v, after), rules.Why{}
	}
	return change(o, v, after, removal(old.RaftId)), rules.Why{}
}

// handOver moves the lead off a leader that is to leave. The next leader goes on from the
// record.
func handOver(leader *messages.Member, v rules.View) (Effect, rules.Why) {
	if id := v.Replication.GetTransferringTo(); id != 0 {
		return nil, rules.Why{Kind: rules.Transferring, Node: messages.MemberName(v.Members, id)}
	}
	best, why := v.BestLeader(leader.RaftId)
	if why.Kind != rules.Nothing {
		return nil, why
	}
	return Transfer{best}, rules.Why{Kind: rules.Transferring, Node: messages.MemberName(v.Members, best)}
}

// giveUp is the step towards the end of an operation that cannot go on, or is not to.
func giveUp(o *messages.ClusterOperation, v rules.View, err *messages.Error) Effect {
	after := to(o, v, o.Phase, o.Reached)
	after.Aborting, after.Code, after.Error = true, err.Code, err.Message[:min(len(err.Message), rules.ErrorSizeMax)]
	return Record{after}
}

// undo is the step that leaves nothing behind.
func undo(o *messages.ClusterOperation, v rules.View) Effect {
	after := to(o, v, failed, o.Reached)
	mine := o.Kind == messages.OperationKind_ADD || o.Kind == messages.OperationKind_REPLACE
	if !mine || v.Member(o.NewRaftId) == nil {
		return Record{after}
	}
	return change(o, v, after, removal(o.NewRaftId))
}

// to is the record of a later version in that phase.
func to(o *messages.ClusterOperation, v rules.View, phase, reached messages.OperationPhase) *messages.ClusterOperation {
	after := proto.Clone(o).(*messages.ClusterOperation)
	after.Version, after.Phase, after.Reached = o.Version+1, phase, reached
	after.ChangedAtMs = v.NowMS
	return after
}

func removal(id messages.RaftID) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Remove{Remove: &messages.RemoveMember{RaftId: id}}}
}

// change is a change of the members together with the record behind it. One that the state
// would refuse ends the operation: the same view refuses it again.
func change(o *messages.ClusterOperation, v rules.View, after *messages.ClusterOperation, changes ...*messages.MemberChange) Effect {
	m := &messages.ChangeMembers{Configuration: v.Index, Changes: changes, Record: &messages.RecordOperation{Operation: after}}
	if _, _, err := v.Change(m, v.Index+1, o.Id); err != nil && !o.Aborting && !rules.Swapped(o) {
		return giveUp(o, v, messages.Errorf(err.Code, "%s", err.Message))
	}
	if mutant.EffectFirst {
		m.Record = nil
	}
	return Change{m}
}

// String is for traces and tests.
func (c Change) String() string {
	return fmt.Sprintf("change %s", messages.Line(c.Members))
}
