package membershipactor

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// TestKeysAreKnownEverywhere: what each node says of its keys every other tells, the leader's
// own too.
func TestKeysAreKnownEverywhere(t *testing.T) {
	g := newGroup(&messages.MembersChanged{
		Members:   []*messages.Member{{RaftId: 1, Name: "n1"}, {RaftId: 2, Name: "n2"}, {RaftId: 3, Name: "n3"}},
		ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, NextRaftId: 4, Settled: true,
	}, 1, 2, 3)
	for id, c := range g {
		c.keys = &messages.Keys{Open: id == 2, ExpiresMs: int64(id)}
	}
	g.lead(1, 2)
	g.tick(3 * pulseTicks)
	for id, c := range g {
		for _, m := range c.clusterView().Members {
			if k := m.Keys; k == nil || k.ExpiresMs != int64(m.Member.RaftId) || k.Open != (m.Member.RaftId == 2) {
				t.Errorf("n%d says of n%d %v", id, m.Member.RaftId, k)
			}
		}
	}
}
