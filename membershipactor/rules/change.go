// Package rules says what a change of the members may be. It decides, and knows no actor:
// the machine holds every change in the log against it, and the leader asks it before it
// proposes one.
//
// What stands in this file is part of what the log means. Replicas of different versions
// apply the same entries and must agree, so changing it needs a new cluster level.
package rules

import (
	"bytes"
	"cmp"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Configuration is who the members are. It is never modified: a change makes another.
//
// Invariants: Members are by RaftID, all below NextRaftID, and are those of ConfState with
// their types; incarnations are not used twice, nor are names and addresses, but by a member
// and the one that takes its place.
type Configuration struct {
	Index      uint64 // of the entry that changed members or ConfState last
	Members    []*messages.Member
	ConfState  *raftpb.ConfState
	NextRaftID uint64
}

// Joint reports whether two halves decide: nothing but leaving is possible then.
func (c Configuration) Joint() bool { return joint(c.ConfState) }

// Member finds a member by its RaftID, or returns nil.
func (c Configuration) Member(id messages.RaftID) *messages.Member {
	for _, m := range c.Members {
		if m.RaftId == id {
			return m
		}
	}
	return nil
}

// Change is the configuration behind the entry at index, which holds m, and what that means
// for raft, without a context. operation is the id of the operation that m is of, or nil.
// A change that must not be is refused, with what is wrong about it:
//
//	CONFLICT   another configuration is in force than the one m was decided upon, or a name,
//	           an address or an incarnation belongs to another member
//	NOT_FOUND  there is no such member
//	UNSAFE     nobody would be left to vote, or it is not known who would
//	INVALID    it cannot be in any configuration
func (c Configuration) Change(m *messages.ChangeMembers, index uint64, operation []byte) (Configuration, *raftpb.ConfChangeV2, *messages.Error) {
	if err := c.current(m.GetConfiguration()); err != nil {
		return Configuration{}, nil, err
	}
	if err := c.checkShape(m.GetChanges()); err != nil {
		return Configuration{}, nil, err
	}
	next := Configuration{Index: index, Members: slices.Clone(c.Members), NextRaftID: c.NextRaftID}
	change := &raftpb.ConfChangeV2{}
	for _, one := range m.GetChanges() {
		single, err := next.carryOut(one, operation, heir(m))
		if err != nil {
			return Configuration{}, nil, err
		}
		change.Changes = append(change.Changes, single)
	}
	if len(change.Changes) > 1 {
		change.Transition = raftpb.ConfChangeTransition_ConfChangeTransitionJointExplicit.Enum()
	}
	var err *messages.Error
	if next.ConfState, err = after(c.ConfState, change, index); err != nil {
		return Configuration{}, nil, err
	}
	next.Members = typed(next.Members, c.Members, next.ConfState)
	return next, change, nil
}

// Bind is the configuration with the incarnation of a member that has none yet. Its index
// stays: the configuration is the same.
func (c Configuration) Bind(m *messages.BindIncarnation) (Configuration, *messages.Error) {
	member := c.Member(m.GetRaftId())
	switch {
	case member == nil:
		return Configuration{}, c.noMember(m.GetRaftId())
	case len(m.GetIncarnation()) != messages.IncarnationSize:
		return Configuration{}, messages.Errorf(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(m.GetIncarnation()))
	case len(member.Incarnation) > 0:
		return Configuration{}, messages.Errorf(messages.Code_CONFLICT, "%s has another data directory already", member.Name)
	}
	if err := c.unusedIncarnation(m.GetIncarnation()); err != nil {
		return Configuration{}, err
	}
	return c.with(m.GetRaftId(), c.Index, func(member *messages.Member) { member.Incarnation = m.GetIncarnation() }), nil
}

// Update is the configuration behind the entry at index, which gives a member another address.
func (c Configuration) Update(m *messages.UpdateMember, index uint64) (Configuration, *messages.Error) {
	if err := c.current(m.GetConfiguration()); err != nil {
		return Configuration{}, err
	}
	member := c.Member(m.GetRaftId())
	if member == nil {
		return Configuration{}, c.noMember(m.GetRaftId())
	}
	if err := messages.CheckMemberAddress(m.GetAddress()); err != nil {
		return Configuration{}, err
	}
	if err := c.unusedAddress(m.GetAddress(), 0); err != nil {
		return Configuration{}, err
	}
	return c.with(m.GetRaftId(), index, func(member *messages.Member) { member.Address = m.GetAddress() }), nil
}

func (c Configuration) with(id messages.RaftID, index uint64, alter func(*messages.Member)) Configuration {
	c.Index, c.Members = index, slices.Clone(c.Members)
	for i, m := range c.Members {
		if m.RaftId == id {
			c.Members[i] = proto.Clone(m).(*messages.Member)
			alter(c.Members[i])
		}
	}
	return c
}

func (c Configuration) current(configuration uint64) *messages.Error {
	if configuration != c.Index {
		return messages.Errorf(messages.Code_CONFLICT, "the configuration of index %d is in force, and not that of index %d", c.Index, configuration).
			WithHint("look at the members as they are now, and decide anew")
	}
	return nil
}

// checkShape says which changes may be carried out together.
func (c Configuration) checkShape(changes []*messages.MemberChange) *messages.Error {
	switch n := len(changes); {
	case c.Joint() && n > 0:
		return messages.Errorf(messages.Code_CONFLICT, "a change of the members is under way: two configurations decide together").
			WithHint("wait until it has ended")
	case !c.Joint() && n == 0:
		return messages.Errorf(messages.Code_CONFLICT, "there is no joint configuration to leave")
	case n < 2:
		return nil
	case n > 2:
		return messages.Errorf(messages.Code_INVALID, "%d changes at once, up to 2 are allowed", n)
	}
	promoted, removed := changes[0].GetPromote(), changes[1].GetRemove()
	if promoted == nil {
		promoted, removed = changes[1].GetPromote(), changes[0].GetRemove()
	}
	switch {
	case promoted == nil || removed == nil:
		return messages.Errorf(messages.Code_INVALID, "changes at once are the promotion of one member and the removal of another, and nothing else")
	case promoted.RaftId == removed.RaftId:
		return messages.Errorf(messages.Code_INVALID, "the same member is to be promoted and removed")
	}
	if m := c.Member(removed.RaftId); m != nil && m.Type != messages.MemberType_VOTER {
		return messages.Errorf(messages.Code_INVALID, "%s does not vote, so nobody can take its place as a voter", m.Name)
	}
	return nil
}

// heir is the RaftID of the member whose place a learner takes, by the record of the replace
// that adds it, or 0. It may have that member's name and address: its disk was lost, and the
// same machine begins anew. Who is meant by a name then is told by the records.
func heir(m *messages.ChangeMembers) messages.RaftID {
	if o := m.GetRecord().GetOperation(); o.GetKind() == messages.OperationKind_REPLACE {
		return o.OldRaftId
	}
	return 0
}

// carryOut changes the members, but not their types, and says what raft is to do.
func (c *Configuration) carryOut(change *messages.MemberChange, operation []byte, heir messages.RaftID) (*raftpb.ConfChangeSingle, *messages.Error) {
	switch kind := change.GetKind().(type) {
	case *messages.MemberChange_AddLearner:
		return c.add(kind.AddLearner, operation, heir)
	case *messages.MemberChange_Promote:
		return c.promote(kind.Promote.GetRaftId())
	case *messages.MemberChange_Remove:
		return c.remove(kind.Remove.GetRaftId())
	}
	return nil, messages.Errorf(messages.Code_INVALID, "a change of a kind that this node does not know")
}

func (c *Configuration) add(m *messages.AddLearner, operation []byte, heir messages.RaftID) (*raftpb.ConfChangeSingle, *messages.Error) {
	switch {
	case m.GetRaftId() != c.NextRaftID:
		return nil, messages.Errorf(messages.Code_CONFLICT, "the next member gets raft id %d, and not %d", c.NextRaftID, m.GetRaftId())
	case len(c.Members) >= messages.MembersMax:
		return nil, messages.Errorf(messages.Code_BUSY, "there are %d members, as many as a cluster may have", len(c.Members)).
			WithHint("remove one first")
	case len(m.GetIncarnation()) != 0 && len(m.GetIncarnation()) != messages.IncarnationSize:
		return nil, messages.Errorf(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(m.GetIncarnation()))
	case len(operation) != 0 && len(operation) != messages.OperationIDSize:
		return nil, messages.Errorf(messages.Code_INVALID, "the id of an operation has %d bytes, this one %d", messages.OperationIDSize, len(operation))
	}
	err := cmp.Or(messages.CheckNodeName(m.GetName()), messages.CheckMemberAddress(m.GetAddress()),
		c.unusedName(m.GetName(), heir), c.unusedAddress(m.GetAddress(), heir), c.unusedIncarnation(m.GetIncarnation()))
	if err != nil {
		return nil, err
	}
	c.NextRaftID++
	c.Members = append(c.Members, &messages.Member{
		RaftId: m.GetRaftId(), Name: m.GetName(), Address: m.GetAddress(), AddedAtMs: m.GetAddedAtMs(),
		Incarnation: m.GetIncarnation(), Operation: operation, Type: messages.MemberType_LEARNER,
	})
	return single(raftpb.ConfChangeAddLearnerNode, m.GetRaftId()), nil
}

func (c *Configuration) promote(id messages.RaftID) (*raftpb.ConfChangeSingle, *messages.Error) {
	m := c.Member(id)
	switch {
	case m == nil:
		return nil, c.noMember(id)
	case m.Type != messages.MemberType_LEARNER:
		return nil, messages.Errorf(messages.Code_CONFLICT, "%s is a voter already", m.Name)
	case len(m.Incarnation) == 0:
		return nil, messages.Errorf(messages.Code_UNSAFE, "%s was never heard of, so nobody knows which data directory would vote", m.Name).
			WithHint("start it, and wait until it has caught up")
	}
	return single(raftpb.ConfChangeAddNode, id), nil
}

func (c *Configuration) remove(id messages.RaftID) (*raftpb.ConfChangeSingle, *messages.Error) {
	m := c.Member(id)
	if m == nil {
		return nil, c.noMember(id)
	}
	c.Members = slices.DeleteFunc(c.Members, func(other *messages.Member) bool { return other.RaftId == id })
	return single(raftpb.ConfChangeRemoveNode, id), nil
}

func single(kind raftpb.ConfChangeType, id messages.RaftID) *raftpb.ConfChangeSingle {
	return &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: &id}
}

func (c Configuration) noMember(id messages.RaftID) *messages.Error {
	if 0 < id && id < c.NextRaftID {
		return messages.Errorf(messages.Code_NOT_FOUND, "the member with raft id %d was removed", id)
	}
	return messages.Errorf(messages.Code_NOT_FOUND, "no member has raft id %d", id)
}

// unusedName and unusedAddress refuse what is another member's than except's.
func (c Configuration) unusedName(name string, except messages.RaftID) *messages.Error {
	for _, m := range c.Members {
		if m.Name == name && m.RaftId != except {
			return messages.Errorf(messages.Code_CONFLICT, "%s is a member already, at %s", name, m.Address).
				WithHint("choose another name, or remove that member first")
		}
	}
	return nil
}

func (c Configuration) unusedAddress(address string, except messages.RaftID) *messages.Error {
	for _, m := range c.Members {
		if m.Address == address && m.RaftId != except {
			return messages.Errorf(messages.Code_CONFLICT, "%s is the address of %s", address, m.Name).
				WithHint("choose another address, or remove that member first")
		}
	}
	return nil
}

func (c Configuration) unusedIncarnation(incarnation []byte) *messages.Error {
	for _, m := range c.Members {
		if len(incarnation) > 0 && bytes.Equal(m.Incarnation, incarnation) {
			return messages.Errorf(messages.Code_CONFLICT, "%s has that data directory, or this is a copy of it", m.Name).
				WithHint("start the new member on an empty directory")
		}
	}
	return nil
}

// after is what raft makes of a change, by raft's own rules. These panic inside raft, so a
// change that they do not allow is refused here.
func after(conf *raftpb.ConfState, change *raftpb.ConfChangeV2, index uint64) (*raftpb.ConfState, *messages.Error) {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: index}
	config, progress, err := confchange.Restore(changer, conf)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "the configuration in force cannot be: %v", err)
	}
	changer.Tracker.Config, changer.Tracker.Progress = config, progress
	if change.LeaveJoint() {
		config, _, err = changer.LeaveJoint()
	} else if autoLeave, ok := change.EnterJoint(); ok {
		config, _, err = changer.EnterJoint(autoLeave, change.Changes...)
	} else {
		config, _, err = changer.Simple(change.Changes...)
	}
	if err != nil {
		return nil, messages.Errorf(messages.Code_UNSAFE, "nobody would be left to vote").WithHint("add a voter first")
	}
	changer.Tracker.Config = config
	return changer.Tracker.ConfState(), nil
}

// typed gives the members the types that they have in conf. Those that were removed but
// still vote, or left just now, are found among the members before.
func typed(members, before []*messages.Member, conf *raftpb.ConfState) []*messages.Member {
	all := slices.Clone(members)
	for _, m := range before {
		if !slices.ContainsFunc(members, func(other *messages.Member) bool { return other.RaftId == m.RaftId }) {
			all = append(all, m)
		}
	}
	var kept []*messages.Member
	for _, m := range all {
		kind, is := typeIn(conf, m.RaftId)
		if !is {
			continue
		}
		if m.Type != kind {
			m = proto.Clone(m).(*messages.Member)
			m.Type = kind
		}
		kept = append(kept, m)
	}
	slices.SortFunc(kept, func(a, b *messages.Member) int { return cmp.Compare(a.RaftId, b.RaftId) })
	return kept
}

func typeIn(conf *raftpb.ConfState, id messages.RaftID) (kind messages.MemberType, is bool) {
	in, out := slices.Contains(conf.GetVoters(), id), slices.Contains(conf.GetVotersOutgoing(), id)
	switch {
	case in && !out && joint(conf):
		return messages.MemberType_INCOMING, true
	case in:
		return messages.MemberType_VOTER, true
	case out:
		return messages.MemberType_OUTGOING, true
	case slices.Contains(conf.GetLearners(), id):
		return messages.MemberType_LEARNER, true
	}
	return 0, false
}
