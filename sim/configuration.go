package sim

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// configurations are who decides, as of the last index that was seen committed.
type configurations struct {
	now    *raftpb.ConfState
	before *raftpb.ConfState // until the last change; it may still count where that is not applied
}

// are takes the configuration behind the next committed entry.
func (c *configurations) are(conf *raftpb.ConfState) {
	if c.now == nil {
		c.before = conf
	} else if !proto.Equal(c.now, conf) {
		c.before = c.now
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

// suffices reports whether a quorum is left without the servers that are away.
func (r *run) suffices(away func(*server) bool) bool {
	conf := r.check.configurations.now
	if conf == nil {
		return !slices.ContainsFunc(r.servers, away)
	}
	return isQuorum(conf, func(id messages.RaftID) bool {
		node, there := r.check.holder(id)
		return there && !away(r.servers[node])
	})
}
