package membershipactor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// membersOf are a configuration, of which replicas below next are or were members.
func membersOf(next uint64, conf *raftpb.ConfState) *messages.MembersChanged {
	m := &messages.MembersChanged{ClusterId: []byte{0xab}, NextRaftId: next, ConfState: conf}
	for _, id := range slices.Concat(conf.GetVoters(), conf.GetVotersOutgoing(), conf.GetLearners()) {
		m.Members = append(m.Members, &messages.Member{RaftId: id, Name: fmt.Sprintf("n%d", id)})
	}
	return m
}

func TestDeparture(t *testing.T) {
	voters := func(ids ...uint64) *raftpb.ConfState { return &raftpb.ConfState{Voters: ids} }
	for name, row := range map[string]struct {
		self      uint64
		conf      *raftpb.ConfState // as of the last change that was applied here
		refusedBy []uint64
		serves    bool
		over      bool
		asks      []uint64 // whom, to be sure
	}{
		"a member":                              {3, voters(1, 2, 3), nil, true, false, nil},
		"one refusal proves nothing":            {3, voters(1, 2, 3), []uint64{1}, true, false, []uint64{2}},
		"twice the same one neither":            {3, voters(1, 2, 3), []uint64{1, 1}, true, false, []uint64{2}},
		"two of three do":                       {3, voters(1, 2, 3), []uint64{1, 2}, false, true, nil},
		"of five, two are too few":              {5, voters(1, 2, 3, 4, 5), []uint64{1, 2}, true, false, []uint64{3, 4}},
		"and three are enough":                  {5, voters(1, 2, 3, 4, 5), []uint64{1, 2, 4}, false, true, nil},
		"of four, three":                        {4, voters(1, 2, 3, 4), []uint64{1, 2}, true, false, []uint64{3}},
		"of two, the other one":                 {2, voters(1, 2), []uint64{1}, false, true, nil},
		"strangers do not count":                {3, voters(1, 2, 3), []uint64{1, 8, 9}, true, false, []uint64{2}},
		"its removal is applied here":           {3, voters(1, 2), nil, false, false, []uint64{1, 2}},
		"and at one of those that are left":     {3, voters(1, 2), []uint64{1}, false, false, []uint64{2}},
		"and at most of them":                   {3, voters(1, 2), []uint64{1, 2}, false, true, nil},
		"one is left, and has applied it":       {2, voters(1), []uint64{1}, false, true, nil},
		"a learner":                             {4, &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}, []uint64{1, 2}, false, true, nil},
		"joint: a majority of one half is none": {1, &raftpb.ConfState{Voters: []uint64{2, 3, 7}, VotersOutgoing: []uint64{1, 2, 3}}, []uint64{3, 7}, true, false, []uint64{2}},
		"joint: both halves":                    {1, &raftpb.ConfState{Voters: []uint64{2, 3, 7}, VotersOutgoing: []uint64{1, 2, 3}}, []uint64{2, 3}, false, true, nil},
	} {
		d := newDeparture(row.self, "me")
		removed := d.onMembers(membersOf(10, row.conf))
		for _, by := range row.refusedBy {
			if news := d.onRefused(by); news != nil {
				removed = news
			}
		}
		if (removed == nil) != row.serves || removed.GetConfirmed() != row.over {
			t.Errorf("%s: %v", name, removed)
		}
		if asks := d.onTick(probeTicks); !slices.Equal(asks, row.asks) {
			t.Errorf("%s: it asks %v, want %v", name, asks, row.asks)
		}
		if again := d.onMembers(membersOf(10, row.conf)); again != nil {
			t.Errorf("%s: it is said again: %v", name, again)
		}
	}
}

func TestDepartureBeforeTheFirstState(t *testing.T) {
	d := newDeparture(4, "me")
	if d.onMembers(&messages.MembersChanged{Members: four(7).Members}) != nil || d.onRefused(1) != nil {
		t.Error("it is removed before it has a state, or by one refusal")
	}
	if m := d.onRefused(3); !m.GetConfirmed() {
		t.Errorf("those who let it in refuse it: %v", m)
	}
	if newDeparture(4, "me").onMembers(&messages.MembersChanged{}) != nil {
		t.Error("a node that knows nobody is removed")
	}
}

func TestDepartureSaysHow(t *testing.T) {
	m := membersOf(4, &raftpb.ConfState{Voters: []uint64{1, 2}})
	m.Operations = []*messages.ClusterOperation{{Id: []byte{1}, OldRaftId: 3}, {Id: []byte{2}, OldRaftId: 9}}
	if why := newDeparture(3, "n3").onMembers(m).GetWhy(); !strings.HasSuffix(why, "n3 was removed from cluster ab by operation 01") {
		t.Errorf("it says: %s", why)
	}
}
