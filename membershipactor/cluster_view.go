package membershipactor

import (
	"cmp"

	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// What a member does, where raft's own words do not say.
const (
	roleLeader      = "leader"
	roleFollower    = "follower"
	roleLearner     = "learner"
	roleUnreachable = "unreachable"
	roleUnknown     = "unknown"
)

// reply answers a question about the cluster.
func (c *census) reply(m *messages.ClusterRequest) *messages.ClusterReply {
	r := &messages.ClusterReply{Request: m.Request, Leader: c.view.LeaderRecord()}
	if self, ok := c.view.Member(c.self); ok {
		r.Node = self.Name
	}
	if why := rules.CheckStale(m, c.view.Configuration, c.view.Term); why != nil {
		r.Code, r.Message, r.Hint = why.Code, why.Message, why.Hint
		return r
	}
	r.View = c.clusterView()
	if r.View.PulseKnown {
		r.Before = c.budget(r.View)
	}
	return r
}

// replyAuth says who may do what, as far as that is the asker's business.
func (c *census) replyAuth(m *messages.ClusterRequest) *messages.ClusterReply {
	r := &messages.ClusterReply{Request: m.Request, Leader: c.view.LeaderRecord(), Principal: m.Principal,
		Auth: auth.ForAsker(c.view.MembersChanged().Auth, m.Principal)}
	if self, ok := c.view.Member(c.self); ok {
		r.Node = self.Name
	}
	return r
}

// replyInvitations says which nodes have a token to come with.
func (c *census) replyInvitations(m *messages.ClusterRequest) *messages.ClusterReply {
	r := &messages.ClusterReply{Request: m.Request, Leader: c.view.LeaderRecord(), Invitations: auth.InvitationsTold(c.view.MembersChanged().GetInvitations().GetAll()...)}
	if self, ok := c.view.Member(c.self); ok {
		r.Node = self.Name
	}
	return r
}

// rulesView is what the rules decide upon.
func (c *census) rulesView() rules.View {
	s := c.view.MembersChanged()
	v := rules.View{
		Configuration: rules.Configuration{Index: s.ConfigurationIndex, Members: s.Members, ConfState: s.ConfState, NextRaftID: s.NextRaftId},
		Self:          c.self, Operations: s.Operations, Healing: s.Healing, Backups: s.Backups, Auth: s.Auth, Invitations: s.Invitations, Replication: c.replication, Following: c.following,
		Waiting: c.everyoneWaiting(), Shipments: map[messages.RaftID]rules.Shipment{}, TickMS: c.tickMS,
	}
	for id, t := range c.moving {
		v.Shipments[id] = rules.Shipment{Done: t.BytesDone, Total: t.BytesTotal}
	}
	return v
}

// clusterView is what this node knows of the cluster. It is made at most once for all
// who ask between two events.
func (c *census) clusterView() *messages.ClusterView {
	if c.answer != nil {
		return c.answer
	}
	s := c.view.MembersChanged()
	v := &messages.ClusterView{
		ClusterId: c.view.ClusterID, ConfigurationIndex: c.view.Configuration, Term: c.view.Term, Leader: c.view.Leader,
		Commit: max(c.replication.GetCommit(), c.pulse.GetCommit()), Operations: s.Operations,
		NextRaftId: s.NextRaftId, Waiting: c.everyoneWaiting(), Healing: s.Healing, Backups: s.Backups,
	}
	if c.leads() {
		v.PulseKnown, v.Waits, v.HealingSays = true, c.waits, c.healing
		known := c.rulesView()
		for _, m := range c.view.Members {
			v.Members = append(v.Members, c.seenByLeader(m, known))
		}
	} else {
		age := c.now - c.pulseAt
		v.PulseKnown = c.pulse != nil && age <= freshTicks
		if c.pulse != nil {
			v.PulseAgeMs, v.Waits, v.HealingSays = age*c.tickMS, c.pulse.Waits, c.pulse.HealingSays
		}
		for _, m := range c.view.Members {
			v.Members = append(v.Members, c.seenByPulse(m, v))
		}
	}
	c.answer = v
	return v
}

// seenByLeader is what the leader knows of a member from raft and from the member itself.
func (c *census) seenByLeader(m *messages.Member, known rules.View) *messages.MemberView {
	v := &messages.MemberView{Member: forClients(m), ContactKnown: true}
	if m.RaftId == c.self {
		v.Role, v.Match, v.Applied, v.Version = roleLeader, c.replication.GetLastIndex(), c.replication.GetApplied(), c.version
		v.Progress = messages.ProgressState_REPLICATING
		v.RoomBytes, v.Lacks, v.Keys = c.room.GetBytes(), c.room.GetLacks(), c.keys
		return v
	}
	silent, gone := c.now-c.electedAt, false
	v.ContactKnown = silent > rules.ContactTicksMax
	if h, ok := c.nodes[m.RaftId]; ok {
		v.ContactKnown, silent = true, min(silent, c.now-h.at)
		v.Applied, v.Version, v.Keys = h.pulse.Applied, h.pulse.Version, h.pulse.Keys
	}
	v.RoomBytes, v.Lacks = c.rooms[m.RaftId].GetBytes(), c.rooms[m.RaftId].GetLacks()
	for _, p := range c.replication.GetProgress() {
		if p.RaftId == m.RaftId {
			v.ContactKnown, silent, gone = true, p.SilentTicks+c.now-c.replicationAt, p.Gone
			v.Match, v.Progress, v.SnapshotNeeded = p.Match, p.State, p.State == messages.ProgressState_SNAPSHOT
			f := c.following[m.RaftId]
			v.Rate, v.EtaMs = uint64(f.Rate*1000/float64(c.tickMS)), f.ETATicks()*c.tickMS
		}
	}
	if t := c.moving[m.RaftId]; t != nil && v.SnapshotNeeded {
		v.SnapshotBytesDone, v.SnapshotBytesTotal, v.EtaMs = t.BytesDone, t.BytesTotal, t.EtaMs
	}
	v.SilentMs = silent * c.tickMS
	switch {
	case !v.ContactKnown:
		v.Role = roleUnknown
	case gone, silent > rules.ContactTicksMax:
		v.Role = roleUnreachable
	case m.Type == messages.MemberType_LEARNER:
		v.Role = roleLearner
	default:
		v.Role = roleFollower
	}
	if m.Type == messages.MemberType_LEARNER {
		v.WaitingFor = known.Ready(m.RaftId).String()
		v.Ready = v.WaitingFor == ""
	}
	return v
}

// seenByPulse is what a node that does not lead knows of a member: what the leader said of it
// last, and of itself more.
func (c *census) seenByPulse(m *messages.Member, of *messages.ClusterView) *messages.MemberView {
	v := &messages.MemberView{}
	for _, said := range c.pulse.GetMembers() {
		if said.GetMember().GetRaftId() == m.RaftId {
			v = proto.Clone(said).(*messages.MemberView)
			v.SilentMs += of.PulseAgeMs
		}
	}
	v.Member = forClients(m)
	fresh := of.PulseKnown || c.now-c.electedAt <= freshTicks // or there is a leader since a moment
	switch {
	case m.RaftId == c.self:
		v.Role = cmp.Or(c.replication.GetRole(), v.Role, ownRole(m))
		v.Applied, v.Version, v.SilentMs, v.ContactKnown = c.replication.GetApplied(), c.version, 0, true
		v.RoomBytes, v.Lacks, v.Keys = c.room.GetBytes(), c.room.GetLacks(), c.keys
	case m.RaftId == c.view.Leader && fresh:
		v.Role, v.ContactKnown = roleLeader, true
	case m.RaftId == c.view.Leader:
		v.Role = roleUnreachable
	case !of.PulseKnown || v.Role == "":
		v.Role, v.ContactKnown, v.Ready = roleUnknown, false, false
	}
	return v
}

// ownRole is what a node takes itself for before raft has said anything.
func ownRole(m *messages.Member) string {
	if m.Type == messages.MemberType_LEARNER {
		return roleLearner
	}
	return roleFollower
}

// budget says who may be lost, as far as this node knows who is there.
func (c *census) budget(v *messages.ClusterView) *messages.FaultBudget {
	alive := map[messages.RaftID]bool{}
	for _, m := range v.Members {
		alive[m.Member.RaftId] = m.Role != roleUnreachable && m.Role != roleUnknown
	}
	return rules.Budget(c.view.MembersChanged().ConfState, c.view.Members, func(id messages.RaftID) bool { return alive[id] })
}
