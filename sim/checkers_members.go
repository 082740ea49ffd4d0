package sim

import (
	"bytes"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// membership is what must hold of members and operations from one committed entry to the
// next, as the reference has them.
type membership struct {
	fail       func(invariant, format string, args ...any)
	conf       *raftpb.ConfState
	members    []*messages.Member
	operations []*messages.ClusterOperation
	fewest     int                      // voters of any configuration
	voted      map[messages.RaftID]bool // has been a voter of a configuration
	was        map[messages.RaftID]bool // has been a member
	onStep     func(*messages.ClusterOperation)
}

// are takes the configuration behind the next committed entry.
func (m *membership) are(conf *raftpb.ConfState, members []*messages.Member, operations []*messages.ClusterOperation) {
	if m.conf != nil && !sameConf(m.conf, conf) && !intersect(m.conf, conf) {
		m.fail("adjacent quorums intersect", "%s, and then %s", messages.Line(m.conf), messages.Line(conf))
	}
	for _, member := range members {
		if id := member.RaftId; m.conf != nil && m.was[id] && !isMember(m.conf, id) {
			m.fail("identities are not used again", "replica %d was removed, and is a member again", id)
		}
		m.was[member.RaftId] = true
	}
	if m.fewest == 0 || len(conf.GetVoters()) < m.fewest {
		m.fewest = len(conf.GetVoters())
	}
	for _, id := range slices.Concat(conf.GetVoters(), conf.GetVotersOutgoing()) {
		m.voted[id] = true
	}
	before := m.conf
	was := m.operations
	m.conf, m.members, m.operations = conf, members, operations
	for _, o := range operations {
		i := slices.IndexFunc(was, func(other *messages.ClusterOperation) bool { return bytes.Equal(other.Id, o.Id) })
		switch {
		case i >= 0 && was[i].Version == o.Version:
			continue
		case i >= 0:
			m.step(was[i], o, before)
		}
		if m.onStep != nil {
			m.onStep(o)
		}
	}
}

func sameConf(a, b *raftpb.ConfState) bool {
	return slices.Equal(a.GetVoters(), b.GetVoters()) && slices.Equal(a.GetVotersOutgoing(), b.GetVotersOutgoing())
}

// intersect reports whether each quorum of one configuration has a member with each of the
// other: no set of voters and the rest of them are quorums.
func intersect(a, b *raftpb.ConfState) bool {
	var all []messages.RaftID
	for _, id := range slices.Concat(a.GetVoters(), a.GetVotersOutgoing(), b.GetVoters(), b.GetVotersOutgoing()) {
		if !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	for set := range uint64(1) << len(all) {
		of := func(id messages.RaftID) bool { return set>>slices.Index(all, id)&1 == 1 }
		if isQuorum(a, of) && isQuorum(b, func(id messages.RaftID) bool { return !of(id) }) {
			return false
		}
	}
	return true
}

// step: an operation went on.
func (m *membership) step(was, o *messages.ClusterOperation, before *raftpb.ConfState) {
	if rules.Ended(was) {
		m.fail("operations end once", "%v became %v", was, o)
	}
	if o.Kind == messages.OperationKind_REPLACE && len(m.conf.GetVoters()) < len(before.GetVoters()) {
		m.fail("a replace keeps the voters", "%v: %s became %s", o, messages.Line(before), messages.Line(m.conf))
	}
	if rules.Swapped(was) && o.Phase == messages.OperationPhase_FAILED && was.Kind == messages.OperationKind_REPLACE {
		m.fail("behind the swap there is no way back", "%v became %v", was, o)
	}
	old, is := m.member(o.OldRaftId), m.member(o.NewRaftId)
	switch o.Phase {
	case messages.OperationPhase_FAILED:
		if (o.Kind == messages.OperationKind_ADD || o.Kind == messages.OperationKind_REPLACE) && is != nil {
			m.fail("nothing is left behind", "%v, and %v is a member", o, is)
		}
	case messages.OperationPhase_CATCH_UP:
		if is == nil {
			m.fail("records and members belong together", "%v, and nobody is replica %d", o, o.NewRaftId)
		}
	case messages.OperationPhase_COMPLETE:
		removes := o.Kind == messages.OperationKind_REMOVE || o.Kind == messages.OperationKind_REPLACE
		adds := o.Kind != messages.OperationKind_REMOVE
		switch {
		case removes && old != nil, adds && is == nil, len(m.conf.GetVotersOutgoing()) > 0 && o.Kind == messages.OperationKind_REPLACE,
			o.Kind == messages.OperationKind_PROMOTE && is.GetType() != messages.MemberType_VOTER:
			m.fail("what is complete is done", "%v, and the members are %v", o, m.members)
		}
	}
}

func (m *membership) member(id messages.RaftID) *messages.Member {
	i := slices.IndexFunc(m.members, func(member *messages.Member) bool { return member.RaftId == id })
	if i < 0 {
		return nil
	}
	return m.members[i]
}

// campaigns: only who has been a voter may stand for election.
func (m *membership) campaigns(id messages.RaftID) {
	if m.conf != nil && !m.voted[id] {
		m.fail("learners do not campaign", "replica %d stands for election, and the configuration is %s", id, messages.Line(m.conf))
	}
}

// hears: what a member sends whose directory is not agreed upon yet is refused.
func (m *membership) hears(from messages.RaftID) {
	if is := m.member(from); is != nil && len(is.Incarnation) == 0 {
		m.fail("who is not bound is not heard", "replica %d is heard, and which directory it has is not agreed upon: %v", from, is)
	}
}
