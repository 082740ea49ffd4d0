package membershipactor

import "keyval/messages"

// View is what a node knows of its cluster: the members as last applied here, and the
// leader as last announced here. A View is never modified: a change makes another.
type View struct {
	ClusterID     []byte
	Members       []*messages.Member // by RaftID
	Configuration uint64             // index of the configuration
	Leader        messages.RaftID    // 0: none known
	Term          uint64
	Level         uint32 // of the cluster; 0: not known yet

	Before messages.RaftID // who led before Leader, in an earlier term perhaps; 0: nobody is known
	Why    string          // Before leads no more, for people

	state *messages.MembersChanged // what the machine said last; nil: nothing yet
}

// WithMembers is the view after a change of members or level.
func (v View) WithMembers(m *messages.MembersChanged) View {
	v.ClusterID, v.Members, v.Configuration, v.Level, v.state = m.ClusterId, m.Members, m.ConfigurationIndex, m.Level, m
	return v
}

// WithLeader is the view after an election. News of an older term change nothing.
func (v View) WithLeader(m *messages.LeaderChanged) View {
	if m.Term < v.Term {
		return v
	}
	if v.Leader != 0 && (m.Leader != v.Leader || m.Term != v.Term) {
		v.Before, v.Why = v.Leader, m.Why
	}
	v.Leader, v.Term = m.Leader, m.Term
	return v
}

// MembersChanged and LeaderChanged return the view as messages, for an actor that has
// restarted.
func (v View) MembersChanged() *messages.MembersChanged {
	if v.state == nil {
		return &messages.MembersChanged{}
	}
	return v.state
}

// LeaderChanged: see MembersChanged.
func (v View) LeaderChanged() *messages.LeaderChanged {
	return &messages.LeaderChanged{Leader: v.Leader, Term: v.Term}
}

// Member finds a member by its RaftID.
func (v View) Member(id messages.RaftID) (*messages.Member, bool) {
	for _, m := range v.Members {
		if m.RaftId == id {
			return m, true
		}
	}
	return nil, false
}

// LeaderRecord says where the leader is, for redirects; nil while none is known.
func (v View) LeaderRecord() *messages.Leader {
	m, ok := v.Member(v.Leader)
	if !ok {
		return nil
	}
	return &messages.Leader{RaftId: m.RaftId, Name: m.Name, Address: m.Address, Term: v.Term}
}

// Fill adds to a status what the view knows.
func (v View) Fill(s *messages.StatusReply, self messages.RaftID) {
	s.ClusterId, s.Members, s.Leader = v.ClusterID, v.ForClients(), v.LeaderRecord()
	if m, ok := v.Member(self); ok {
		s.Name = m.Name
	}
}

// ForClients is the members as clients are told them: incarnations are for nodes only.
func (v View) ForClients() []*messages.Member {
	var all []*messages.Member
	for _, m := range v.Members {
		all = append(all, forClients(m))
	}
	return all
}

func forClients(m *messages.Member) *messages.Member {
	return &messages.Member{RaftId: m.RaftId, Name: m.Name, Address: m.Address, AddedAtMs: m.AddedAtMs, Type: m.Type, Operation: m.Operation}
}
