package sim

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// TestSnapshotsThatHelp: who is healed, and has installed a snapshot, does not need the next, and
// the next, unless more came behind each than the options let the leader keep.
func TestSnapshotsThatHelp(t *testing.T) {
	const room = 400 // bytes: three entries of nothing
	for name, row := range map[string]struct {
		pinned   uint64 // in bytes
		behind   int    // entries that come behind each snapshot
		healed   bool
		quiet    bool
		dials    bool // a dial from before may hang
		violated bool
	}{
		"before it is healed":                {room, 1, false, false, false, false},
		"nothing comes behind them":          {room, 0, true, false, false, true},
		"a dial from before may hang":        {room, 0, true, false, true, false},
		"as much as is kept comes":           {room, 3, true, false, false, true},
		"more than is kept comes":            {room, 4, true, false, false, false},
		"more than is kept, and all is kept": {0, 4, true, false, false, true},
		"more than is kept, and nobody asks": {room, 4, true, true, false, true},
	} {
		r := newRun(Options{Nodes: 2})
		r.swarm.options.Raft.PinnedBytesMax, r.healed, r.quiet = row.pinned, row.healed, row.quiet
		if !row.dials {
			r.healedAt = -dialTimeout - backoffMax
		}
		leader, follower := r.servers[0], r.servers[1]
		for node := range r.servers {
			r.check.starts(node, idOf(node))
		}
		r.check.are(1, firstState().ConfState)
		index := uint64(1)
		r.check.nodes[leader.node].logBase = index
		leader.host, follower.host = &host{memory: &memory{}}, &host{memory: &memory{}}
		for range snapshotsMax + 1 {
			r.follow(leader, messages.ActorSnapshots, &messages.ShipSnapshot{Message: &raftpb.Message{To: new(idOf(1)), Type: raftpb.MsgSnap.Enum()}})
			r.follow(follower, messages.ActorLog, &messages.Switched{Index: index})
			for range row.behind {
				index++
				r.check.received(leader.node, leader.host.memory, messages.ActorLog, appending(entry(index, 2, "")))
			}
		}
		if violated := r.world.failure != nil; violated != row.violated {
			t.Errorf("%s: %v", name, r.world.failure)
		}
	}
}

// TestShipmentsUnderWay: a server ships until raft has heard of each shipment, or of all at once.
func TestShipmentsUnderWay(t *testing.T) {
	r := newRun(Options{Nodes: 2})
	s := r.servers[0]
	s.host = &host{memory: &memory{}}
	for n, step := range []struct {
		message any
		want    int
	}{
		{&messages.ShipSnapshot{}, 1},
		{&messages.ShipSnapshot{}, 2},
		{&messages.SnapshotShipped{Peer: 2}, 1},
		{&messages.ShipSnapshot{}, 2},
		{&messages.SnapshotShipped{Failed: true}, 0}, // the actor has started anew
		{&messages.SnapshotShipped{Peer: 2}, 0},      // of one that was counted with them
		{&messages.ShipSnapshot{}, 1},
	} {
		if r.follow(s, messages.ActorSnapshots, step.message); s.shipping != step.want {
			t.Errorf("step %d: %d are under way, want %d", n, s.shipping, step.want)
		}
	}
}
