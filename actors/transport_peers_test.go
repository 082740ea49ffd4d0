package actors

import (
	"fmt"
	"testing"

	"keyval/messages"
)

// TestWhoIsAPeer: who was removed is refused once that is durable, and not before.
func TestWhoIsAPeer(t *testing.T) {
	list := func(ids ...uint64) (all []*messages.Member) {
		for _, id := range ids {
			all = append(all, &messages.Member{RaftId: id})
		}
		return all
	}
	for name, row := range map[string]struct {
		before  []*messages.Member
		members []*messages.Member
		next    uint64
		settled bool
		want    string
	}{
		"founding":             {list(1, 2), list(1, 3), 0, false, "[1 3]"},
		"one is added":         {list(1, 2), list(1, 2, 3), 4, false, "[1 2 3]"},
		"one was removed":      {list(1, 2), list(2), 4, false, "[2 1]"},
		"and that is durable":  {list(2, 1), list(2), 4, true, "[2]"},
		"another comes before": {list(2, 1), list(2, 4), 5, false, "[2 4 1]"},
	} {
		var got []uint64
		for _, p := range peersOf(row.before, &messages.MembersChanged{Members: row.members, NextRaftId: row.next, Settled: row.settled}) {
			got = append(got, p.RaftId)
		}
		if fmt.Sprint(got) != row.want {
			t.Errorf("%s: %v, want %s", name, got, row.want)
		}
	}
}
