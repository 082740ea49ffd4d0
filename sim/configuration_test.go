package sim

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
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

// TestRequestsUnderWay: what an operator has asked for may begin still, so a quorum has to be
// left behind that too; and nobody asks for a removal behind which there is none.
func TestRequestsUnderWay(t *testing.T) {
	removal := func(node int) *messages.ClusterOperation {
		return &messages.ClusterOperation{Id: []byte{byte(node)}, Kind: messages.OperationKind_REMOVE, OldNode: nameOf(node)}
	}
	for name, row := range map[string]struct {
		lost    []int // nodes
		asked   []int // whose removal is asked for and not answered
		dryRun  bool
		without int  // a node
		enough  bool // a quorum is left without that
		bears   bool // and behind its removal
	}{
		"nothing goes wrong": {nil, nil, false, 0, true, true},
		"one is lost":        {[]int{1}, nil, false, 0, true, true},
		"two are lost":       {[]int{1, 2}, nil, false, 0, false, false},
		"one is lost, and a removal is asked for": {[]int{1}, []int{2}, false, 0, false, true},
		"one is lost, and two are asked for":      {[]int{1}, []int{2, 3}, false, 4, false, false},
		"one is lost, and it is to be removed":    {[]int{1}, []int{1}, false, 0, true, true},
		"one is lost, and nothing is to be done":  {[]int{1}, []int{2}, true, 0, true, true},
		"one is lost, and is the one":             {[]int{1}, []int{2}, false, 1, true, true},
	} {
		r := newRun(Options{Nodes: 5})
		first := &messages.Checkpoint{Format: 1, Index: 1, Level: messages.LevelMin, Term: 1, ConfState: &raftpb.ConfState{}}
		for node := range r.servers {
			r.check.starts(node, idOf(node))
			first.ConfState.Voters = append(first.ConfState.Voters, idOf(node))
			first.Members = append(first.Members, &messages.Member{RaftId: idOf(node), Name: nameOf(node), Address: r.servers[node].listen(),
				Type: messages.MemberType_VOTER})
		}
		r.check.durable = func(int) (*raftpb.HardState, uint64) { return hardState(1, 0, 1), 1 }
		r.check.begin(first)
		r.operator = &operator{customer: &customer{run: r, under: map[uint64]*operation{}}}
		for _, node := range row.lost {
			r.servers[node].damaged = true
		}
		for _, node := range row.asked {
			r.operator.under[uint64(node)] = &operation{submit: &messages.Submit{Cluster: &messages.ClusterRequest{Kind: begin(removal(node)), DryRun: row.dryRun}}}
		}
		without := r.servers[row.without]
		enough := r.suffices(func(s *server) bool { return s == without || s.lost() })
		if bears := r.bears(removal(row.without)); r.world.failure != nil || enough != row.enough || bears != row.bears {
			t.Errorf("%s: a quorum is left without %s: %t, behind its removal: %t; %v", name, without.name(), enough, bears, r.world.failure)
		}
	}
}

// TestFounding: founders need each other until each has made durable that it takes part.
func TestFounding(t *testing.T) {
	r := newRun(Options{Nodes: 2})
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range r.servers {
		must(s.disk.WriteIdentity(&messages.Identity{Name: s.name()}))
		must(disk.Initialise(s.disk, firstState()))
		if !r.founding() {
			t.Errorf("%s has initialised its directory, and waits for the others", s.name())
		}
	}
	must(r.servers[0].disk.Found([]byte("c"), 0))
	if !r.founding() {
		t.Error("one takes part, and the other waits for it")
	}
	must(r.servers[1].disk.Found([]byte("c"), 0))
	if r.founding() {
		t.Error("both take part, and are founding still")
	}
}
