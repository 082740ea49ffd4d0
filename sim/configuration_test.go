package sim

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

func TestQuorums(t *testing.T) {
	joint := &raftpb.ConfState{Voters: []uint64{2, 3, 7}, VotersOutgoing: []uint64{1, 2, 3}, Learners: []uint64{9}, LearnersNext: []uint64{1}}
	for name, row := range map[string]struct {
		conf *raftpb.ConfState
		have []uint64
		want bool
	}{
		"nobody is asked":                    {nil, nil, true},
		"a majority":                         {&raftpb.ConfState{Voters: []uint64{1, 2, 3}}, []uint64{1, 3}, true},
		"half is none":                       {&raftpb.ConfState{Voters: []uint64{1, 2, 3, 4}}, []uint64{1, 3}, false},
		"a learner does not count":           {&raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}, []uint64{1, 4}, false},
		"a removed one does not count":       {&raftpb.ConfState{Voters: []uint64{5, 6, 7}}, []uint64{1, 2, 3, 5}, false},
		"joint: both halves":                 {joint, []uint64{2, 3}, true},
		"joint: the incoming half alone":     {joint, []uint64{3, 7}, false},
		"joint: the outgoing half alone":     {joint, []uint64{1, 3}, false},
		"joint: one of either, and of both":  {joint, []uint64{1, 3, 7}, true},
		"joint: a learner stands for nobody": {joint, []uint64{3, 7, 9}, false},
	} {
		if got := isQuorum(row.conf, func(id messages.RaftID) bool { return slices.Contains(row.have, id) }); got != row.want {
			t.Errorf("%s: %t, want %t", name, got, row.want)
		}
	}
	for id, want := range map[messages.RaftID]bool{1: true, 2: true, 7: true, 9: true, 8: false, 0: false} {
		if isMember(joint, id) != want {
			t.Errorf("replica %d is a member: %t", id, !want)
		}
	}
}

// TestHolders: what is committed is on the disks of those whom the configuration of its
// index names, whatever machines hold them.
func TestHolders(t *testing.T) {
	for name, row := range map[string]struct {
		before, now []uint64 // voters
		broken      bool
	}{
		"the machines that hold it are voters":     {[]uint64{1, 2}, []uint64{1, 2}, false},
		"they were, where the change is not known": {[]uint64{1, 2}, []uint64{1, 2, 3, 4}, false},
		"they are, and were not all":               {[]uint64{1, 2, 3, 4}, []uint64{1, 2}, false},
		"they are too few, before and now":         {[]uint64{1, 2, 3, 4}, []uint64{1, 2, 3, 4, 5}, true},
		"other replicas are on these machines":     {[]uint64{3, 4}, []uint64{3, 4}, true},
	} {
		b := newBench()
		b.configurations = configurations{now: &raftpb.ConfState{Voters: row.now}, before: &raftpb.ConfState{Voters: row.before}}
		b.give(0, messages.ActorMachine, applying(entry(2, 1, "")))
		if broken := len(b.broken) > 0; broken != row.broken {
			t.Errorf("%s: %v", name, b.broken)
		}
	}
}

func TestReplicasAndMachines(t *testing.T) {
	b := newBench()
	b.wiped(1)
	b.starts(1, 0) // it waits to be added
	b.starts(1, 7)
	b.starts(1, 7)
	if node, there := b.holder(7); !there || node != 1 || len(b.broken) > 0 {
		t.Errorf("replica 7 is on machine %d, %t; broken: %v", node, there, b.broken)
	}
	if _, there := b.holder(2); there {
		t.Error("the replica of a machine that was emptied is still there")
	}
	b.starts(1, 8)
	b.starts(1, 1)
	want := []string{"identities last", "identities last", "identities are not shared"}
	if !slices.Equal(b.broken, want) {
		t.Errorf("broken: %v, want %v", b.broken, want)
	}
	b = newBench()
	b.wiped(1)
	if b.starts(1, 1); !slices.Equal(b.broken, []string{"identities are not shared"}) {
		t.Errorf("two machines hold replica 1; broken: %v", b.broken)
	}
}
