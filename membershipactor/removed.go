package membershipactor

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// A node that was removed may not see that: the others send it nothing more. They refuse
// its connections, and say why. One refusal proves nothing, since that node may have
// been mistaken for another, or be one of another time. A majority of the last
// configuration that this node knows does.
//
// A node that has applied its own removal is removed for certain, and serves nobody any
// more. It still votes: the others may need its vote to elect the leader that lets them
// apply the removal. A majority of those that are left ends that by refusing it.

// probeTicks is how often the others are asked by a node that may have been removed.
const probeTicks = 10

// departure is what a node knows of its own removal. Each method is one event.
type departure struct {
	self    messages.RaftID
	name    string
	members *messages.MembersChanged // the last
	refused map[messages.RaftID]bool // by these, in this life of the actor
	ticks   uint64                   // since the others were asked last
	said    *messages.Removed        // nil: nothing yet
}

func newDeparture(self messages.RaftID, name string) *departure {
	return &departure{self: self, name: name, refused: map[messages.RaftID]bool{}}
}

// applied reports whether the removal stands in this node's own state.
func (d *departure) applied() bool { return isRemoved(d.members, d.self) }

// isRemoved reports whether a RaftID was a member's, and is none's.
func isRemoved(m *messages.MembersChanged, id messages.RaftID) bool {
	return id < m.GetNextRaftId() && !slices.ContainsFunc(m.GetMembers(), func(m *messages.Member) bool { return m.RaftId == id })
}

// onMembers, onRefused and onTick return what is to be told: a Removed to this node's
// actors, nil if there is no news; and whom to ask.
func (d *departure) onMembers(m *messages.MembersChanged) *messages.Removed {
	d.members = m
	return d.news()
}

func (d *departure) onRefused(by messages.RaftID) *messages.Removed {
	d.refused[by] = true
	return d.news()
}

func (d *departure) onTick(elapsed uint64) (ask []messages.RaftID) {
	if d.ticks += elapsed; d.ticks < probeTicks || d.said.GetConfirmed() || !d.applied() && len(d.refused) == 0 {
		return nil
	}
	d.ticks = 0
	for _, id := range d.voters() {
		if id != d.self && !d.refused[id] {
			ask = append(ask, id)
		}
	}
	return ask
}

func (d *departure) news() *messages.Removed {
	confirmed := d.confirmed()
	if !d.applied() && !confirmed {
		return nil
	}
	now := &messages.Removed{Why: d.why(), Confirmed: confirmed}
	if proto.Equal(now, d.said) {
		return nil
	}
	d.said = now
	return now
}

// confirmed reports whether enough voters of the last configuration have refused.
func (d *departure) confirmed() bool {
	conf := d.members.GetConfState()
	if len(conf.GetVoters()) == 0 { // there is no state yet: whoever let this node in
		return d.refusedBy(d.voters())
	}
	return d.refusedBy(conf.Voters) && (len(conf.VotersOutgoing) == 0 || d.refusedBy(conf.VotersOutgoing))
}

// refusedBy reports whether a majority of the voters has refused; this node, if it is one
// of them, cannot.
func (d *departure) refusedBy(voters []uint64) bool {
	refused, others := 0, 0
	for _, id := range voters {
		if id != d.self {
			others++
		}
		if d.refused[id] {
			refused++
		}
	}
	if mutant.OneRefusal {
		return refused > 0
	}
	return others > 0 && refused >= min(others, len(voters)/2+1)
}

// voters are all who vote, in either half of a joint configuration.
func (d *departure) voters() []messages.RaftID {
	all := map[messages.RaftID]bool{}
	for _, id := range slices.Concat(d.members.GetConfState().GetVoters(), d.members.GetConfState().GetVotersOutgoing()) {
		all[id] = true
	}
	if len(all) == 0 {
		for _, m := range d.members.GetMembers() {
			if m.Type != messages.MemberType_LEARNER {
				all[m.RaftId] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// why is how this node was removed, as far as it knows.
func (d *departure) why() string {
	text := fmt.Sprintf("%s was removed from cluster %x", d.name, d.members.GetClusterId())
	for _, o := range slices.Backward(d.members.GetOperations()) {
		if d.applied() && (o.OldRaftId == d.self || o.NewRaftId == d.self) {
			return text + fmt.Sprintf(" by operation %x", o.Id)
		}
	}
	return text
}
