package rules

import (
	"fmt"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// half is one set of voters: a joint configuration has two, and what it commits needs a
// quorum of each.
type half struct {
	voters []messages.RaftID
	alive  int // of the voters, in contact
}

func (h half) quorum() int { return len(h.voters)/2 + 1 }

// spare is how many of those in contact may be lost, whichever they are; below 0: so many
// are missing.
func (h half) spare() int { return h.alive - h.quorum() }

// halves are the sets of voters of a configuration: one, or two while it is joint.
func halves(conf *raftpb.ConfState, alive func(messages.RaftID) bool) []half {
	sets := []half{{voters: conf.GetVoters()}}
	if joint(conf) {
		sets = append(sets, half{voters: conf.GetVotersOutgoing()})
	}
	for i := range sets {
		for _, id := range sets[i].voters {
			if alive(id) {
				sets[i].alive++
			}
		}
	}
	return sets
}

// joint reports whether a configuration has two sets of voters.
func joint(conf *raftpb.ConfState) bool { return len(conf.GetVotersOutgoing()) > 0 }

// votersOf are all voters of a configuration, each once, incoming ones first.
func votersOf(conf *raftpb.ConfState) []messages.RaftID {
	var all []messages.RaftID
	seen := map[messages.RaftID]bool{}
	for _, set := range [][]uint64{conf.GetVoters(), conf.GetVotersOutgoing()} {
		for _, id := range set {
			if !seen[id] {
				seen[id] = true
				all = append(all, id)
			}
		}
	}
	return all
}

// Budget says which voters of a configuration may be lost before writes stop, given who is
// in contact. Names come from members, in the order of the voters; a voter that no longer
// is in contact is in neither list.
func Budget(conf *raftpb.ConfState, members []*messages.Member, alive func(messages.RaftID) bool) *messages.FaultBudget {
	sets, voters := halves(conf, alive), votersOf(conf)
	b := &messages.FaultBudget{Voters: uint32(len(voters))}
	spare := sets[0].spare()
	for _, h := range sets {
		b.Quorum = max(b.Quorum, uint32(h.quorum()))
		spare = min(spare, h.spare())
	}
	b.Available, b.Slack = spare >= 0 && len(voters) > 0, uint32(max(spare, 0))
	for _, id := range voters {
		if !alive(id) {
			continue
		}
		b.Alive++
		if !b.Available {
			continue
		}
		name := messages.MemberName(members, id)
		if losable(sets, id) {
			b.Survives = append(b.Survives, name)
		} else {
			b.Stops = append(b.Stops, name)
		}
	}
	return b
}

// losable reports whether every half of those in contact keeps its quorum without id.
func losable(sets []half, id messages.RaftID) bool {
	for _, h := range sets {
		for _, voter := range h.voters {
			if voter == id && h.spare() < 1 {
				return false
			}
		}
	}
	return true
}

// smaller is the budget of two that survives less.
func smaller(a, b *messages.FaultBudget) *messages.FaultBudget {
	switch {
	case a == nil:
		return b
	case b == nil || a.Available && !b.Available:
		return cond(b == nil, a, b)
	case a.Available == b.Available && (b.Slack < a.Slack || b.Slack == a.Slack && len(b.Stops) > len(a.Stops)):
		return b
	}
	return a
}

func cond[T any](yes bool, a, b T) T {
	if yes {
		return a
	}
	return b
}

// Words says a budget in one clause, for people.
func Words(b *messages.FaultBudget) string {
	switch {
	case b.GetVoters() == 0:
		return "no voters"
	case !b.Available && b.Alive >= b.Quorum:
		return fmt.Sprintf("no quorum: %d of %d voters %s in contact, but of one half of the joint configuration too few",
			b.Alive, b.Voters, isAre(b.Alive))
	case !b.Available:
		return fmt.Sprintf("no quorum: %d of %d voters %s in contact, %d are needed", b.Alive, b.Voters, isAre(b.Alive), b.Quorum)
	case b.Slack == 0 && len(b.Survives) == 0:
		return fmt.Sprintf("budget 0: the loss of %s stops writes", Or(b.Stops))
	case b.Slack == 0:
		return fmt.Sprintf("budget 0: the loss of %s stops writes, that of %s does not", Or(b.Stops), Or(b.Survives))
	case b.Slack == 1 && len(b.Survives) == 2:
		return fmt.Sprintf("survives the loss of %s, not both", Or(b.Survives))
	case b.Slack == 1:
		return fmt.Sprintf("survives the loss of %s, not of two", Or(b.Survives))
	default:
		return fmt.Sprintf("survives the loss of any %d of %s", b.Slack, And(b.Survives))
	}
}

func isAre(n uint32) string { return cond(n == 1, "is", "are") }

// Or lists names: "a", "a or b", "a, b or c". And likewise.
func Or(names []string) string { return list(names, "or") }

// And: see Or.
func And(names []string) string { return list(names, "and") }

func list(names []string, word string) string {
	switch n := len(names); n {
	case 0:
		return "nobody"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " " + word + " " + names[n-1]
	}
}

// missing are the names of voters out of contact whose return would make a quorum, each
// alone if that is enough, else all that are needed together.
func missing(conf *raftpb.ConfState, members []*messages.Member, alive func(messages.RaftID) bool) (alone, together []string) {
	for _, id := range votersOf(conf) {
		if alive(id) {
			continue
		}
		together = append(together, messages.MemberName(members, id))
		back := func(other messages.RaftID) bool { return other == id || alive(other) }
		if Budget(conf, members, back).Available {
			alone = append(alone, messages.MemberName(members, id))
		}
	}
	return alone, together
}

// WhoseReturn says whose return would make a quorum: "node2 or node3", or "two of ..."; only
// for a configuration without one.
func WhoseReturn(conf *raftpb.ConfState, members []*messages.Member, alive func(messages.RaftID) bool) string {
	alone, together := missing(conf, members, alive)
	if len(alone) > 0 {
		return Or(alone)
	}
	short := 0
	for _, h := range halves(conf, alive) {
		short = max(short, -h.spare())
	}
	if short >= len(together) {
		return And(together)
	}
	return fmt.Sprintf("%d of %s", short, And(together))
}
