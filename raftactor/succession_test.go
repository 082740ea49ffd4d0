package raftactor

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3"

	"keyval/messages"
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

// TestWhyALeaderWent: each replica says it as far as it knows.
func TestWhyALeaderWent(t *testing.T) {
	const ended, silent, few = "its process has ended: its port refuses", "no heartbeat came for 1s or longer", "it heard too few voters for 1s"
	for name, row := range map[string]struct {
		do   func(g *group, old uint64)
		want func(g *group, old uint64) map[uint64]string // what each says of the leader, in the end
	}{
		"it is silent": {
			func(g *group, old uint64) { g.cut[old] = true; g.ticksUntilLed(60) },
			func(_ *group, old uint64) map[uint64]string {
				return map[uint64]string{old: "", next(old): silent, next(next(old)): silent}
			},
		},
		"it hears nobody": {
			func(g *group, old uint64) {
				g.cut[old] = true
				for range 60 {
					g.replicas[old].OnTick(1)
					g.drain()
				}
			},
			func(_ *group, old uint64) map[uint64]string {
				return map[uint64]string{old: few, next(old): "", next(next(old)): ""}
			},
		},
		"its process ends": {
			func(g *group, old uint64) {
				g.cut[old] = true
				g.replicas[next(old)].OnPeerGone(old)
				g.replicas[next(next(old))].OnPeerGone(old)
				g.drain()
			},
			func(_ *group, old uint64) map[uint64]string {
				return map[uint64]string{old: "", next(old): ended, next(next(old)): ended}
			},
		},
		"it hands over": {
			func(g *group, old uint64) {
				for range 3 { // it has heard of all
					g.replicas[old].OnTick(1)
					g.drain()
				}
				g.replicas[old].OnTransferLead(&messages.TransferLead{To: next(old)})
				g.drain()
			},
			func(_ *group, old uint64) map[uint64]string {
				const handed = "it handed the lead over"
				return map[uint64]string{old: handed, next(old): handed, next(next(old)): handed}
			},
		},
		"it comes back late": {
			func(g *group, old uint64) {
				g.cut[old] = true
				g.ticksUntilLed(60)
				g.cut[old] = false
				for range 3 {
					g.replicas[next(old)].OnTick(1)
					g.replicas[next(next(old))].OnTick(1)
					g.drain()
				}
			},
			func(_ *group, old uint64) map[uint64]string {
				return map[uint64]string{old: "others had elected another, or stood: it heard of a later term", next(old): silent, next(next(old)): silent}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 1, 2, 3)
			old := g.elect()
			clear(g.seen)
			row.do(g, old)
			for id, want := range row.want(g, old) {
				got := ""
				for _, e := range g.seen[id] {
					if a, is := e.(AnnounceLeader); is && got == "" {
						got = a.Why
					}
				}
				if got != want {
					t.Errorf("%d says of %d: %q, want %q", id, old, got, want)
				}
			}
		})
	}
}

// next is the replica after another, of three.
func next(id uint64) uint64 { return id%3 + 1 }
