package membershipactor

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// Every node refuses writes while voters that are needed for a quorum lack room, and no longer;
// and a leader that lacks it knows a better one.
func TestRoomIsKnownEverywhere(t *testing.T) {
	lack := func(bytes uint64) *messages.RoomSeen {
		return &messages.RoomSeen{Bytes: bytes, Lacks: fmt.Sprintf("%d MB free, 512 MB are needed", bytes)}
	}
	roomy := &messages.RoomSeen{Bytes: 1 << 40}
	const goesOn = ": writes are refused; reads, deletes and compaction go on"
	for _, row := range []struct {
		name  string
		away  messages.RaftID
		rooms [3]*messages.RoomSeen
		want  string
		heir  messages.RaftID
	}{
		{"all have room", 0, [3]*messages.RoomSeen{roomy, roomy, roomy}, "", 0},
		{"one of three lacks some", 0, [3]*messages.RoomSeen{roomy, lack(1), roomy}, "", 0},
		{"the leader does", 0, [3]*messages.RoomSeen{lack(1), roomy, roomy}, "", 2},
		{"the leader and one more", 0, [3]*messages.RoomSeen{lack(1), lack(2), roomy},
			"n1 has 1 MB free, 512 MB are needed; n2 has 2 MB free, 512 MB are needed" + goesOn, 3},
		{"one that is needed, since another is away", 3, [3]*messages.RoomSeen{roomy, lack(2), roomy}, "n2 has 2 MB free, 512 MB are needed" + goesOn, 0},
		{"all", 0, [3]*messages.RoomSeen{lack(1), lack(2), lack(3)},
			"n1 has 1 MB free, 512 MB are needed; n2 has 2 MB free, 512 MB are needed; n3 has 3 MB free, 512 MB are needed" + goesOn, 0},
		{"nobody has looked yet", 0, [3]*messages.RoomSeen{}, "", 0},
	} {
		members := threeMembers()
		members.ConfState = &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
		members.Members[2].Type = messages.MemberType_VOTER
		g := newGroup(members, 1, 2, 3)
		delete(g, row.away)
		g.lead(1, 7)
		for i, r := range row.rooms {
			if c := g[messages.RaftID(i+1)]; c != nil && r != nil {
				c.onRoom(r)
			}
		}
		progress := func(silent uint64) {
			r := &messages.Replication{Leader: 1}
			for _, id := range []messages.RaftID{2, 3} {
				p := &messages.Progress{RaftId: id, State: messages.ProgressState_REPLICATING}
				if id == row.away {
					p.SilentTicks = silent
				}
				r.Progress = append(r.Progress, p)
			}
			g[1].onReplication(r)
		}
		for range 12 {
			progress(1000)
			g.tick(pulseTicks / 3)
		}
		for id, c := range g {
			if got := c.refusal(); got != row.want {
				t.Errorf("%s: n%d refuses by %q, want %q", row.name, id, got, row.want)
			}
			if heir := c.heir(1); id == 1 && heir != row.heir || id != 1 && heir != 0 {
				t.Errorf("%s: the heir that n%d knows is %d, want %d", row.name, id, heir, row.heir)
			}
		}
		if again := g[1].heir(yieldTicks - 1); again != 0 {
			t.Errorf("%s: %d is asked again at once", row.name, again)
		}
		if next := g[3]; next != nil { // it leads, and has heard nobody yet
			next.onLeader(&messages.LeaderChanged{Term: 8})
			next.onLeader(&messages.LeaderChanged{Leader: 3, Term: 8})
			next.onReplication(&messages.Replication{Leader: 3, Term: 8, Progress: []*messages.Progress{{RaftId: 1}, {RaftId: 2}}})
			if got := next.refusal(); got != row.want {
				t.Errorf("%s: as the next leader n3 refuses by %q, want %q", row.name, got, row.want)
			}
			next.onLeader(&messages.LeaderChanged{Term: 9})
			g.lead(1, 9)
		}
		for _, c := range g {
			c.onRoom(roomy)
		}
		for range 12 {
			progress(1000)
			g.tick(pulseTicks / 3)
		}
		for id, c := range g {
			if got := c.refusal(); got != "" {
				t.Errorf("%s: with room again n%d refuses by %q", row.name, id, got)
			}
		}
	}
}
