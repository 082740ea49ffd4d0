package rules

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// voterBits are at most so many voters in the enumeration: each configuration and each set of
// the dead is a mask of them.
const voterBits = 5

func idsOf(mask int) (ids []uint64) {
	for i := range voterBits {
		if mask&(1<<i) != 0 {
			ids = append(ids, uint64(i+1))
		}
	}
	return ids
}

func named(ids ...uint64) (members []*messages.Member) {
	for _, id := range ids {
		members = append(members, &messages.Member{RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("h%d:7000", id), Incarnation: []byte{byte(id)}})
	}
	return members
}

// commits is what a quorum is, and nothing else of what is tested: more than half of each
// set.
func commits(sets []int, alive int) bool {
	for _, set := range sets {
		if 2*bits.OnesCount(uint(set&alive)) <= bits.OnesCount(uint(set)) {
			return false
		}
	}
	return true
}

// bruteSlack is the largest number of losses such that all sets of so many are survived.
func bruteSlack(sets []int, alive int) int {
	for k := range voterBits + 1 {
		for lost := alive; ; lost = (lost - 1) & alive {
			if bits.OnesCount(uint(lost)) == k && !commits(sets, alive&^lost) {
				return k - 1
			}
			if lost == 0 {
				break
			}
		}
	}
	return voterBits // more than there are: nobody's loss matters
}

// The fault budget is what trying out all losses says, for all configurations of up to five
// voters and all their joints, whoever is dead.
func TestBudgetIsWhatTryingAllLossesSays(t *testing.T) {
	members, all := named(1, 2, 3, 4, 5), 1<<voterBits
	checked := 0
	for voters := 1; voters < all; voters++ {
		for outgoing := range all {
			conf := &raftpb.ConfState{Voters: idsOf(voters), VotersOutgoing: idsOf(outgoing)}
			sets := []int{voters}
			if outgoing != 0 {
				sets = append(sets, outgoing)
			}
			for alive := range all {
				b := Budget(conf, members, func(id uint64) bool { return alive&(1<<(id-1)) != 0 })
				checked++
				union := voters | outgoing
				want := &messages.FaultBudget{
					Voters: uint32(bits.OnesCount(uint(union))), Alive: uint32(bits.OnesCount(uint(union & alive))),
					Quorum:    uint32(max(bits.OnesCount(uint(voters)), bits.OnesCount(uint(outgoing)))/2 + 1),
					Available: commits(sets, alive),
				}
				if want.Available {
					want.Slack = uint32(bruteSlack(sets, union&alive))
					for _, id := range idsOf(union & alive) {
						name := fmt.Sprintf("node%d", id)
						if commits(sets, alive&^(1<<(id-1))) {
							want.Survives = append(want.Survives, name)
						} else {
							want.Stops = append(want.Stops, name)
						}
					}
				}
				slices.Sort(b.Survives)
				slices.Sort(b.Stops)
				if messages.Line(b) != messages.Line(want) {
					t.Fatalf("voters %v, outgoing %v, alive %v: %s, want %s", conf.Voters, conf.VotersOutgoing, idsOf(alive), messages.Line(b), messages.Line(want))
				}
				if Words(b) == "" {
					t.Fatalf("no words for %s", messages.Line(b))
				}
			}
		}
	}
	if checked != 31*32*32 {
		t.Errorf("%d cases", checked)
	}
}

func TestWords(t *testing.T) {
	for name, row := range map[string]struct {
		voters, outgoing, dead []uint64
		want, back             string
	}{
		"one voter":            {[]uint64{1}, nil, nil, "budget 0: the loss of node1 stops writes", ""},
		"two voters":           {[]uint64{1, 2}, nil, nil, "budget 0: the loss of node1 or node2 stops writes", ""},
		"three voters":         {[]uint64{1, 2, 3}, nil, nil, "survives the loss of node1, node2 or node3, not of two", ""},
		"one of three is dead": {[]uint64{1, 2, 3}, nil, []uint64{2}, "budget 0: the loss of node1 or node3 stops writes", ""},
		"two of three are":     {[]uint64{1, 2, 3}, nil, []uint64{2, 3}, "no quorum: 1 of 3 voters is in contact, 2 are needed", "node2 or node3"},
		"five voters":          {[]uint64{1, 2, 3, 4, 5}, nil, nil, "survives the loss of any 2 of node1, node2, node3, node4 and node5", ""},
		"four of five dead":    {[]uint64{1, 2, 3, 4, 5}, nil, []uint64{2, 3, 4, 5}, "no quorum: 1 of 5 voters is in contact, 3 are needed", "2 of node2, node3, node4 and node5"},
		"both of two dead":     {[]uint64{1, 2}, nil, []uint64{1, 2}, "no quorum: 0 of 2 voters are in contact, 2 are needed", "node1 and node2"},
		"a swap, all alive":    {[]uint64{1, 3, 4}, []uint64{1, 2, 3}, nil, "survives the loss of node1, node3, node4 or node2, not of two", ""},
		"a swap, the old dead": {[]uint64{1, 3, 4}, []uint64{1, 2, 3}, []uint64{2}, "budget 0: the loss of node1 or node3 stops writes, that of node4 does not", ""},
		"one half is short":    {[]uint64{1, 4, 5}, []uint64{1, 2, 3}, []uint64{4, 5}, "no quorum: 3 of 5 voters are in contact, but of one half of the joint configuration too few", "node4 or node5"},
		"nobody":               {nil, nil, nil, "no voters", ""},
	} {
		alive := func(id uint64) bool { return !slices.Contains(row.dead, id) }
		conf := &raftpb.ConfState{Voters: row.voters, VotersOutgoing: row.outgoing}
		members := named(1, 2, 3, 4, 5)
		b := Budget(conf, members, alive)
		if got := Words(b); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
		if row.back != "" {
			if got := WhoseReturn(conf, members, alive); got != row.back {
				t.Errorf("%s: the return of %s, want %s", name, got, row.back)
			}
		}
	}
	if got := Words(&messages.FaultBudget{Voters: 3, Quorum: 1, Alive: 2, Slack: 1, Available: true, Survives: []string{"node1", "node3"}}); got != "survives the loss of node1 or node3, not both" {
		t.Error(got)
	}
}
