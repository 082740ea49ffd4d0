package sim

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// configurations are who decides, as of the last index that was seen committed.
type configurations struct {
	now    *raftpb.ConfState
	before *raftpb.ConfState // until the last change; it may still count where that is not applied
	// past are those before, until all voters know for sure that they are over, which they do
	// once the index of the last change is durable.
	past      []*raftpb.ConfState
	changedAt uint64
}

// are takes the configuration behind the next committed entry.
func (c *configurations) are(index uint64, conf *raftpb.ConfState) {
	if c.now == nil {
		c.before = conf
	} else if !proto.Equal(c.now, conf) {
		c.before, c.changedAt = c.now, index
		c.past = append(c.past, c.now)
	}
	c.now = conf
}

// isQuorum reports whether those who have what is asked for are a majority of the voters,
// of either half of a joint configuration.
func isQuorum(conf *raftpb.ConfState, has func(messages.RaftID) bool) bool {
	return isMajority(conf.GetVoters(), has) && isMajority(conf.GetVotersOutgoing(), has)
}

func isMajority(voters []uint64, has func(messages.RaftID) bool) bool {
	count := 0
	for _, id := range voters {
		if has(id) {
			count++
		}
	}
	return len(voters) == 0 || 2*count > len(voters)
}

// isMember reports whether a replica is of a configuration, as a voter or a learner.
func isMember(conf *raftpb.ConfState, id messages.RaftID) bool {
	for _, list := range [][]uint64{conf.GetVoters(), conf.GetVotersOutgoing(), conf.GetLearners(), conf.GetLearnersNext()} {
		if slices.Contains(list, id) {
			return true
		}
	}
	return false
}

// isMember reports whether a server holds a replica of the configuration. As long as
// there is none the founders do.
func (s *server) isMember() bool {
	conf := s.run.check.configurations.now
	return conf == nil && s.joins == nil || isMember(conf, s.id())
}

// suffices reports whether a quorum is left without the servers that are away, even if these
// operations are asked for too.
func (r *run) suffices(away func(*server) bool, asked ...*messages.ClusterOperation) bool {
	conf := r.check.configurations.now
	if conf == nil {
		return !slices.ContainsFunc(r.servers[:r.swarm.nodes], away)
	}
	there := func(id messages.RaftID) bool {
		node, there := r.check.holder(id)
		return there && !away(r.servers[node])
	}
	return !slices.ContainsFunc(r.possible(asked), func(c *raftpb.ConfState) bool { return !isQuorum(c, there) })
}

// possible are the configurations that may decide: the last that was seen, those before it
// that a node may still go back to, and those that the operations under way, or asked for, may
// lead to before the leader notices who is away: any of them, for any may fail.
func (r *run) possible(asked []*messages.ClusterOperation) []*raftpb.ConfState {
	now := r.check.configurations.now
	all, some := append(slices.Clone(r.unsettled()), now), [][]uint64{now.GetVoters()}
	for _, o := range slices.Concat(r.check.reference.state.Operations(), r.awaited(), asked) {
		if rules.Ended(o) {
			continue
		}
		o = r.resolved(o)
		for _, voters := range slices.Clone(some) {
			after := swapped(voters, o)
			some = append(some, after)
			all = append(all, &raftpb.ConfState{Voters: after})
		}
	}
	return all
}

// resolved is an operation with the replicas that its names mean, as far as they have one yet.
func (r *run) resolved(o *messages.ClusterOperation) *messages.ClusterOperation {
	if o.OldRaftId > 0 || o.NewRaftId > 0 {
		return o
	}
	return &messages.ClusterOperation{OldRaftId: r.memberNamed(o.OldNode).GetRaftId(), NewRaftId: r.memberNamed(o.NewNode).GetRaftId(),
		NewNode: o.NewNode, StayLearner: o.StayLearner}
}

// swapped are the voters behind an operation. A node that has no RaftID yet is nobody.
func swapped(voters []uint64, o *messages.ClusterOperation) []uint64 {
	after := slices.DeleteFunc(slices.Clone(voters), func(id uint64) bool { return id == o.OldRaftId })
	if o.NewNode != "" && !o.StayLearner && !slices.Contains(after, o.NewRaftId) {
		after = append(after, o.NewRaftId)
	}
	return after
}

// unsettled are the configurations before the last one, as long as it is not durable that
// they are over: not every voter of a later one knows it for sure.
func (r *run) unsettled() []*raftpb.ConfState {
	c := &r.check.configurations
	knows := func(id uint64) bool {
		node, there := r.check.holder(id)
		if !there {
			return true
		}
		hs, _ := r.check.durable(node)
		return max(hs.GetCommit(), r.servers[node].disk.LastCheckpoint().GetIndex()) >= c.changedAt
	}
	if len(c.past) > 0 && !slices.ContainsFunc(c.now.GetVoters(), func(id uint64) bool { return !knows(id) }) {
		c.past = nil
	}
	return c.past
}

// votersMin is how many voted at least: a node that lags knows an older configuration.
func (r *run) votersMin() int {
	if r.check.configurations.now == nil {
		return r.swarm.nodes
	}
	return r.check.membership.fewest
}
