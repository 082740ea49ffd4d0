package raftactor

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
)

// TestWhoSucceedsALeaderThatIsGone: the leader is cut off, and some of the others are told
// that its process is gone.
func TestWhoSucceedsALeaderThatIsGone(t *testing.T) {
	timeout := Options{}.withDefaults().ElectionTicks // the shortest that raft draws
	for name, row := range map[string]struct {
		voters     int
		away, told int // of the followers: the first so many are cut off too; are told
		earliest   int // ticks until another leads
		latest     int
	}{
		"all are told":            {voters: 3, told: 2, latest: 1 + successionTicks},
		"five":                    {voters: 5, told: 4, latest: 1 + successionTicks},
		"the next is away too":    {voters: 5, away: 1, told: 4, latest: 1 + 2*successionTicks},
		"one alone is told":       {voters: 3, told: 1, earliest: timeout - 1, latest: 2 * timeout},
		"nobody is told":          {voters: 3, earliest: timeout - 1, latest: 2 * timeout},
		"a majority is not there": {voters: 5, away: 2, told: 4, earliest: 3 * timeout, latest: 3 * timeout},
	} {
		t.Run(name, func(t *testing.T) {
			ids := []uint64{1, 2, 3, 4, 5}[:row.voters]
			g := newGroup(t, ids...)
			old := g.elect()
			for range 3 { // all have heard of it lately
				g.replicas[old].OnTick(1)
				g.drain()
			}
			followers := slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return id == old })
			for _, id := range append(followers[:row.away:row.away], old) {
				g.cut[id] = true
			}
			for _, id := range followers[:row.told] {
				g.replicas[id].OnPeerGone(old)
			}
			g.drain()
			if took := g.ticksUntilLed(3 * timeout); took < row.earliest || took > row.latest {
				t.Errorf("another leads after %d ticks, want %d to %d", took, row.earliest, row.latest)
			}
		})
	}
}

// ticksUntilLed is how long it takes until one that is not cut off leads, most if none does.
func (g *group) ticksUntilLed(most int) int {
	for tick := range most {
		for id := uint64(1); id <= 9; id++ {
			if r := g.replicas[id]; r != nil && !g.cut[id] {
				r.OnTick(1)
				g.drain()
				if r.role == raft.StateLeader {
					return tick + 1
				}
			}
		}
	}
	return most
}

// TestRumourOfALeadersDeathDoesNoHarm: one follower is told that the leader is gone, and it
// is not. The leader goes on in its term.
func TestRumourOfALeadersDeathDoesNoHarm(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	old := g.elect()
	term := g.replicas[old].term
	for range 20 {
		g.replicas[old%3+1].OnPeerGone(old)
		for id := uint64(1); id <= 3; id++ {
			g.replicas[id].OnTick(1)
			g.drain()
		}
	}
	if r := g.replicas[old]; r.role != raft.StateLeader || r.term != term {
		t.Errorf("%v in term %d, it led in term %d", r.role, r.term, term)
	}
}

// TestStartTogether: nobody leads, and nobody waits for a timeout.
func TestStartTogether(t *testing.T) {
	for name, row := range map[string]struct {
		replicas []uint64
		options  Options
		away     uint64
		latest   int // ticks until one leads
	}{
		"alone":            {replicas: []uint64{1}, latest: startTicks + 1},
		"of three":         {replicas: []uint64{1, 2, 3}, latest: startTicks + 1},
		"without one":      {replicas: []uint64{1, 2, 3}, away: 1, latest: startTicks + successionTicks + 1},
		"without pre-vote": {replicas: []uint64{1, 2, 3}, options: Options{NoPreVote: true}, latest: 2 * Options{}.withDefaults().ElectionTicks},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTunedGroup(t, row.options, row.replicas...)
			g.cut[row.away] = true
			if took := g.ticksUntilLed(100); took > row.latest {
				t.Errorf("it took %d ticks, want at most %d", took, row.latest)
			}
		})
	}
}
