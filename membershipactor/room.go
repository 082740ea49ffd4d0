package membershipactor

import (
	"strings"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// Room runs out on one node after the other. Writes that need room are refused while no quorum
// has any, and a leader that lacks it hands the lead to a voter that does not.

// yieldTicks is how long a leader waits before it hands the lead over once more.
const yieldTicks = 100

// onRoom hears how much room this node has.
func (c *census) onRoom(m *messages.RoomSeen) {
	c.answer = nil
	c.room = m
}

// hearRoom takes what another member says of its room. One that has just started says nothing.
func (c *census) hearRoom(id messages.RaftID, bytes uint64, lacks string) {
	if _, member := c.view.Member(id); member && (bytes > 0 || lacks != "") {
		c.rooms[id] = &messages.RoomSeen{Bytes: bytes, Lacks: lacks}
	}
}

// refusal is why writes that need room are refused; empty: they are not. Where nobody leads, or
// no quorum is there at all, writes wait for that.
func (c *census) refusal() string {
	v := c.clusterView()
	if !v.PulseKnown || !c.budget(v).Available {
		return ""
	}
	roomy, said := map[messages.RaftID]bool{}, []string(nil)
	for _, m := range v.Members {
		roomy[m.Member.RaftId] = m.Lacks == "" && m.Role != roleUnreachable && m.Role != roleUnknown
		if m.Lacks != "" {
			said = append(said, m.Member.Name+" has "+m.Lacks)
		}
	}
	if rules.Budget(c.view.MembersChanged().ConfState, c.view.Members, func(id messages.RaftID) bool { return roomy[id] }).Available || len(said) == 0 {
		return ""
	}
	return strings.Join(said, "; ") + ": writes are refused; reads, deletes and compaction go on"
}

// heir is the voter that is to lead in the place of this node; 0: this one has room, or none is
// better off.
func (c *census) heir(elapsed uint64) (to messages.RaftID) {
	c.yieldIn -= min(c.yieldIn, elapsed)
	if !c.leads() || c.room.GetLacks() == "" || c.yieldIn > 0 {
		return 0
	}
	match := uint64(0)
	for _, m := range c.clusterView().Members {
		if m.Role == roleFollower && m.ContactKnown && m.Lacks == "" && m.Progress == messages.ProgressState_REPLICATING && m.RoomBytes > 0 && (to == 0 || m.Match > match) {
			to, match = m.Member.RaftId, m.Match
		}
	}
	if to != 0 {
		c.yieldIn = yieldTicks
	}
	return to
}
