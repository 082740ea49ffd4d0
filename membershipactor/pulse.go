package membershipactor

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// The leader alone hears of all members. Each tells it of itself with a NodePulse, and it
// tells all of them of each other with a ClusterPulse: so every node answers questions
// about the cluster from memory.

// Times of the pulses, in ticks.
const (
	pulseTicks = 10 // between two pulses
	newsTicks  = 2  // from an election or a change of members to the next pulse
	// freshTicks is how long a pulse is the leader's word: several of them may be lost.
	freshTicks = 40
)

// waitingMax bounds the nodes that a pulse names, in number.
const waitingMax = 64

// census is what a node has heard of the members lately. Each method is one event; it
// changes the state, and returns what is to be said. It knows no actor and no clock.
type census struct {
	self    messages.RaftID
	tickMS  uint64
	version string

	now       uint64 // ticks
	pulseIn   uint64 // ticks until the next pulse
	view      View
	electedAt uint64 // when the leader of view was announced here

	replication   *messages.Replication // raft's last word; nil: none yet
	replicationAt uint64

	// Of a leader, in its term:
	following rules.Following
	nodes     map[messages.RaftID]heard              // what the others said of themselves
	moving    map[messages.RaftID]*messages.Transfer // the snapshots that it sends
	waits     []*messages.OperationWait
	healing   string // what is to be said of a voter that is lost

	pulse   *messages.ClusterPulse // the leader's last, of view.Term; nil: none yet
	pulseAt uint64
	waiting []*messages.WaitingNode // that asked this node to be let in
	room    *messages.RoomSeen      // of this node; nil: not known
	keys    *messages.Keys          // of this node, for people; nil: not known
	yieldIn uint64                  // ticks until the lead may be handed over for want of room
	// rooms is what the other members said last of the room on their machines, to any leader:
	// an election changes nothing about it.
	rooms map[messages.RaftID]*messages.RoomSeen

	answer *messages.ClusterView // nil: something has changed since it was made
}

// heard is what a node said of itself, and when.
type heard struct {
	pulse *messages.NodePulse
	at    uint64
}

// saying is a message for the membership actor of another node; to is 0 if it is for the
// own snapshots actor.
type saying struct {
	to      messages.RaftID
	message proto.Message
}

func newCensus(self messages.RaftID, tickMS uint64, version string) *census {
	c := &census{self: self, tickMS: tickMS, version: version, pulseIn: pulseTicks, rooms: map[messages.RaftID]*messages.RoomSeen{}}
	c.forget()
	return c
}

// forget drops what was heard in another term.
func (c *census) forget() {
	c.nodes, c.moving = map[messages.RaftID]heard{}, map[messages.RaftID]*messages.Transfer{}
	c.following, c.waits, c.healing, c.pulse, c.electedAt = nil, nil, "", nil, c.now
}

func (c *census) leads() bool { return c.view.Leader == c.self }

// onMembers hears of a change of members.
func (c *census) onMembers(m *messages.MembersChanged) {
	c.answer = nil
	c.view = c.view.WithMembers(m)
	c.pulseIn = min(c.pulseIn, newsTicks)
	gone := func(id messages.RaftID) bool { _, member := c.view.Member(id); return !member }
	maps.DeleteFunc(c.nodes, func(id messages.RaftID, _ heard) bool { return gone(id) })
	maps.DeleteFunc(c.rooms, func(id messages.RaftID, _ *messages.RoomSeen) bool { return gone(id) })
}

// onLeader hears of an election. A node tells a new leader of itself at once.
func (c *census) onLeader(m *messages.LeaderChanged) []saying {
	c.answer = nil
	before := c.view
	c.view = c.view.WithLeader(m)
	if c.view.Leader == before.Leader && c.view.Term == before.Term {
		return nil
	}
	c.forget()
	c.pulseIn = newsTicks
	if c.leads() {
		return nil
	}
	return c.nodePulse()
}

// onReplication hears raft.
func (c *census) onReplication(m *messages.Replication) {
	c.answer = nil
	if c.leads() && m.Leader == c.self {
		c.following = c.following.After(m, c.now-c.replicationAt)
	}
	if c.leads() && !slices.Equal(gone(c.replication), gone(m)) {
		c.pulseIn = min(c.pulseIn, 1) // all are to know
	}
	c.replication, c.replicationAt = m, c.now
}

// gone is the members whose processes have died, as far as raft knows.
func gone(m *messages.Replication) (all []messages.RaftID) {
	for _, p := range m.GetProgress() {
		if p.Gone {
			all = append(all, p.RaftId)
		}
	}
	return all
}

// onNodePulse hears a node of itself. It may not be a member as far as this node knows.
func (c *census) onNodePulse(from messages.RaftID, m *messages.NodePulse) {
	if _, member := c.view.Member(from); !member || !c.leads() || m.Term != c.view.Term {
		return
	}
	c.answer = nil
	c.nodes[from] = heard{m, c.now}
	c.hearRoom(from, m.RoomBytes, m.Lacks)
}

// onClusterPulse hears the leader. One of another term is no news.
func (c *census) onClusterPulse(from messages.RaftID, m *messages.ClusterPulse) {
	if from != c.view.Leader || m.Term != c.view.Term {
		return
	}
	c.answer = nil
	c.pulse, c.pulseAt = m, c.now
	for _, said := range m.Members {
		if id := said.GetMember().GetRaftId(); id != c.self {
			c.hearRoom(id, said.RoomBytes, said.Lacks)
		}
	}
}

// onTransfers hears of the snapshots that this node sends.
func (c *census) onTransfers(all []*messages.Transfer) {
	c.answer = nil
	clear(c.moving)
	for _, t := range all {
		if !t.Incoming {
			c.moving[t.Peer] = t
		}
	}
}

// onWaiting hears who asks this node to be let in.
func (c *census) onWaiting(all []*messages.WaitingNode) {
	c.answer = nil
	c.waiting = all
}

// onWaits hears why operations do not go on, and what is to be said of a voter that is lost.
func (c *census) onWaits(all []*messages.OperationWait, healing string) {
	c.answer = nil
	c.waits, c.healing = all, healing
}

// onTick lets time pass.
func (c *census) onTick(elapsed uint64) []saying {
	c.answer = nil
	c.now += elapsed
	if c.pulseIn > elapsed {
		c.pulseIn -= elapsed
		return nil
	}
	c.pulseIn = pulseTicks
	switch {
	case c.leads():
		return c.clusterPulse()
	default:
		return c.nodePulse()
	}
}

// nodePulse tells the leader of this node.
func (c *census) nodePulse() []saying {
	if c.view.Leader == 0 || c.leads() {
		return nil
	}
	m := &messages.NodePulse{
		Term: c.view.Term, ConfigurationIndex: c.view.Configuration, Version: c.version,
		Applied: c.replication.GetApplied(), Waiting: c.waiting, RoomBytes: c.room.GetBytes(), Lacks: c.room.GetLacks(), Keys: c.keys,
	}
	return []saying{{c.view.Leader, m}}
}

// clusterPulse tells the others of all, and asks how far the snapshots are that go out.
func (c *census) clusterPulse() []saying {
	view := c.clusterView()
	m := &messages.ClusterPulse{Term: c.view.Term, Commit: view.Commit, Waiting: view.Waiting, Waits: view.Waits, HealingSays: view.HealingSays}
	snapshots := len(c.moving) > 0
	for _, v := range view.Members {
		bare := proto.Clone(v).(*messages.MemberView)
		bare.Member = &messages.Member{RaftId: v.Member.RaftId}
		m.Members = append(m.Members, bare)
		snapshots = snapshots || v.Progress == messages.ProgressState_SNAPSHOT
	}
	var all []saying
	for _, v := range view.Members {
		if v.Member.RaftId != c.self {
			all = append(all, saying{v.Member.RaftId, m})
		}
	}
	if snapshots {
		all = append(all, saying{0, &messages.StatusDraft{Reply: &messages.StatusReply{}}})
	}
	return all
}

// everyoneWaiting is who waits to be added, as far as this node has heard, by name: those
// that asked here, and those that asked others. Whoever asked several is heard of once,
// from whom it asked last.
func (c *census) everyoneWaiting() []*messages.WaitingNode {
	var all []*messages.WaitingNode
	hear := func(list []*messages.WaitingNode, age uint64) {
		for _, w := range list {
			if age > 0 {
				w = proto.Clone(w).(*messages.WaitingNode)
				w.SilentMs += age * c.tickMS
			}
			if w.SilentMs <= waitingTicks*c.tickMS && !wasLetIn(c.view.Members, w) {
				all = append(all, w)
			}
		}
	}
	hear(c.waiting, 0)
	for _, m := range c.view.Members {
		if h, ok := c.nodes[m.RaftId]; ok {
			hear(h.pulse.Waiting, c.now-h.at)
		}
	}
	hear(c.pulse.GetWaiting(), c.now-c.pulseAt)
	slices.SortStableFunc(all, func(a, b *messages.WaitingNode) int {
		if o := compareWaiting(a, b); o != 0 {
			return o
		}
		return int(int64(a.SilentMs) - int64(b.SilentMs))
	})
	all = slices.CompactFunc(all, func(a, b *messages.WaitingNode) bool { return compareWaiting(a, b) == 0 })
	heard := slices.Clone(all)
	all = slices.DeleteFunc(all, func(w *messages.WaitingNode) bool {
		return slices.ContainsFunc(heard, func(o *messages.WaitingNode) bool {
			return o.Name == w.Name && o.Address == w.Address && o.SilentMs+supersededTicks*c.tickMS < w.SilentMs
		})
	})
	return all[:min(len(all), waitingMax)]
}
