package membershipactor

import (
	"bytes"
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// reply answers a question about the cluster.
func (c *census) reply(m *messages.ClusterRequest) *messages.ClusterReply {
	r := &messages.ClusterReply{Request: m.Request, Leader: c.view.LeaderRecord()}
	if self, ok := c.view.Member(c.self); ok {
		r.Node = self.Name
	}
	if why := c.view.Stale(m); why != nil {
		r.Code, r.Message, r.Hint = why.Code, why.Message, why.Hint
		return r
	}
	r.View = c.clusterView()
	return r
}

// clusterView is what this node knows of the cluster. It is made at most once for all
// who ask between two events.
func (c *census) clusterView() *messages.ClusterView {
	if c.answer != nil {
		return c.answer
	}
	v := &messages.ClusterView{
		ClusterId: c.view.ClusterID, ConfigurationIndex: c.view.Configuration, Term: c.view.Term, Leader: c.view.Leader,
		Commit: max(c.replication.GetCommit(), c.pulse.GetCommit()), Operations: c.view.MembersChanged().Operations,
		NextRaftId: c.view.MembersChanged().NextRaftId, Waiting: c.everyoneWaiting(),
	}
	switch {
	case c.leads():
		v.PulseKnown = true
	case c.pulse != nil:
		v.PulseKnown, v.PulseAgeMs = true, (c.now-c.pulseAt)*c.tickMS
	}
	for _, m := range c.view.Members {
		v.Members = append(v.Members, c.memberView(m, v))
	}
	c.answer = v
	return v
}

func (c *census) memberView(m *messages.Member, of *messages.ClusterView) *messages.MemberView {
	var v *messages.MemberView
	switch {
	case c.leads():
		v = c.seenByLeader(m)
	default:
		v = c.seenByPulse(m)
		v.SilentMs += of.PulseAgeMs
	}
	v.Member = forClients(m)
	if m.RaftId == c.self {
		v.Applied, v.Version = c.replication.GetApplied(), c.version
		v.SilentMs, v.ContactKnown = 0, true
	}
	v.Role = c.role(m, v)
	if m.Type == messages.MemberType_LEARNER && of.PulseKnown {
		v.WaitingFor = waitsFor(v, len(m.Incarnation) > 0, of.Commit)
		v.Ready = v.WaitingFor == ""
	}
	return v
}

// seenByLeader is what the leader knows of a member from raft and from the member itself.
func (c *census) seenByLeader(m *messages.Member) *messages.MemberView {
	if m.RaftId == c.self {
		return &messages.MemberView{Match: c.replication.GetLastIndex(), Progress: messages.ProgressState_REPLICATING, Rate: c.progress[c.self].perSecond(c.tickMS)}
	}
	v := &messages.MemberView{}
	silent := c.now - c.ledAt
	if silent > silentTicks {
		v.ContactKnown = true
	}
	if h, ok := c.nodes[m.RaftId]; ok {
		v.ContactKnown, silent = true, min(silent, c.now-h.at)
		v.Applied, v.Version, v.RoomBytes = h.pulse.Applied, h.pulse.Version, h.pulse.RoomBytes
	}
	if p := progressOf(c.replication, m.RaftId); p != nil {
		v.ContactKnown, silent = true, min(silent, p.SilentTicks+c.now-c.replicationAt)
		v.Match, v.Progress = p.Match, p.State
		v.Rate = c.progress[m.RaftId].perSecond(c.tickMS)
		c.timeLeft(v)
	}
	v.SilentMs = silent * c.tickMS
	if t := c.moving[m.RaftId]; t != nil {
		v.SnapshotBytesDone, v.SnapshotBytesTotal, v.EtaMs = t.BytesDone, t.BytesTotal, t.EtaMs
	}
	v.SnapshotNeeded = v.Progress == messages.ProgressState_SNAPSHOT
	return v
}

// timeLeft estimates when a member that gets entries has all of them. The log grows
// meanwhile.
func (c *census) timeLeft(v *messages.MemberView) {
	last, grows := c.replication.GetLastIndex(), c.progress[c.self].perSecond(c.tickMS)
	if v.Match < last && v.Rate > grows {
		v.EtaMs = max(1, (last-v.Match)*1000/(v.Rate-grows))
	}
}

// seenByPulse is what the leader said of a member last.
func (c *census) seenByPulse(m *messages.Member) *messages.MemberView {
	for _, v := range c.pulse.GetMembers() {
		if v.GetMember().GetRaftId() == m.RaftId {
			return proto.Clone(v).(*messages.MemberView)
		}
	}
	return &messages.MemberView{}
}

// role is what a member does, as far as is known here.
func (c *census) role(m *messages.Member, v *messages.MemberView) string {
	switch {
	case m.RaftId == c.view.Leader && (c.leads() || v.SilentMs <= silentTicks*c.tickMS):
		return "leader"
	case m.RaftId == c.self && c.replication.GetRole() != "":
		return c.replication.GetRole()
	case m.RaftId != c.self && !v.ContactKnown:
		return "unknown"
	case v.SilentMs > silentTicks*c.tickMS:
		return "unreachable"
	case m.Type == messages.MemberType_LEARNER:
		return "learner"
	}
	return "follower"
}

// lagReady is how many entries a learner may lack that is ready, in number: what comes
// within a moment.
const lagReady = 1000

// waitsFor says why a learner cannot be promoted yet; empty: it can.
func waitsFor(v *messages.MemberView, bound bool, commit uint64) string {
	switch {
	case !bound:
		return "it was not heard yet"
	case v.Role == "unknown" || v.Role == "unreachable":
		return fmt.Sprintf("it was not heard for %d ms", v.SilentMs)
	case v.Progress == messages.ProgressState_SNAPSHOT:
		return "it gets a snapshot"
	case v.Progress == messages.ProgressState_PROBING:
		return "the leader finds out what it has"
	case v.Match+lagReady < commit:
		return fmt.Sprintf("it lacks %d entries", commit-v.Match)
	}
	return ""
}

// progressOf is raft's word on a peer; nil: it has none.
func progressOf(r *messages.Replication, id messages.RaftID) *messages.Progress {
	for _, p := range r.GetProgress() {
		if p.RaftId == id {
			return p
		}
	}
	return nil
}

func compareWaiting(a, b *messages.WaitingNode) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address), bytes.Compare(a.Incarnation, b.Incarnation))
}
