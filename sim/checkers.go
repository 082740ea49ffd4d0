package sim

import (
	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim/phrase"
)

// checkers hold what nodes say against what Raft and the project promise. They
// know nothing but the messages they are shown and what the disks hold durably.
type checkers struct {
	fail func(invariant, format string, args ...any)
	// durable is what a node's disk would still hold after a power cut: its
	// HardState, and the index and term of its log's last entry.
	durable func(node int) (hs *raftpb.HardState, last uint64)
	// stored reports whether a node's disk would still hold an entry then.
	stored func(node int, at position) bool
	// blind turns off the checks of what a node does, and leaves those of what comes of
	// it. The mutants are hunted in this way too.
	blind bool
	// media is what a node's disk would still hold beside its log.
	media func(node int) media

	leaders   map[uint64]int      // term -> node
	contents  map[position]uint64 // of every entry that any log was given -> its hash
	base      uint64              // the index before the first committed one that was seen
	committed []position          // from base+1 on: what all replicas must apply
	histories map[uint64]uint64   // applied index -> history hash
	nodes     []*replica
	model     *model
	reference *reference // nil: nobody has opened a state yet
	written   uint64     // checkpoints, of all nodes
	onCommit  func()     // told of every index that is first seen committed; may be nil
}

// position is a place in a log.
type position struct{ index, term uint64 }

// replica is what the checkers know of one node, over all its incarnations.
type replica struct {
	votes    map[uint64]messages.RaftID // granted to others, by term
	voted    uint64                     // the highest term of those
	acked    position                   // up to where the log was acknowledged and not replaced since: it must keep that
	logBase  uint64
	baseTerm uint64
	opened   uint64   // the base when the log was opened last
	log      []uint64 // terms of the entries behind logBase
	led      uint64   // the highest term whose leader's log was checked
}

// memory is what the checkers know of one incarnation.
type memory struct {
	opened    bool // its state, so that replay may start
	term      uint64
	commit    uint64
	applied   uint64
	log       bool   // its log was opened
	compacted uint64 // revision
	installed uint64 // index of the snapshot that its machine has to open; 0: none
}

func newCheckers(nodes int) *checkers {
	c := &checkers{
		leaders: map[uint64]int{}, contents: map[position]uint64{}, histories: map[uint64]uint64{}, model: newModel(),
	}
	for range nodes {
		c.nodes = append(c.nodes, &replica{votes: map[uint64]messages.RaftID{}})
	}
	return c
}

// received takes a message right before the actor of a node does.
func (c *checkers) received(node int, m *memory, actorID string, message any) {
	switch message := message.(type) {
	case *messages.LeaderChanged:
		if actorID == messages.ActorGateway {
			c.leader(node, message)
		}
	case *messages.LogOpened:
		c.logOpened(node, m, message)
	case *messages.MachineOpened:
		c.machineOpened(node, m, message)
	case *messages.Installed:
		if actorID == messages.ActorMachine {
			c.installed(node, m, message)
		}
	case *messages.CheckpointWritten:
		c.checkpointed(node)
	case *messages.CutLog:
		c.cutting(node, m, message)
	case *messages.Append:
		c.appending(node, m, message.Message)
	case *messages.Apply:
		c.applying(node, m, message.Message)
	case *messages.Applied:
		c.appliedAt(node, m, message)
	}
}

// leader: a term has one leader.
func (c *checkers) leader(node int, m *messages.LeaderChanged) {
	if m.Leader != idOf(node) {
		return
	}
	if other, known := c.leaders[m.Term]; known && other != node {
		c.fail("one leader a term", "%s and %s both lead in term %d", nameOf(other), nameOf(node), m.Term)
	}
	c.leaders[m.Term] = node
}

// logOpened: what a node has promised survives its restart.
func (c *checkers) logOpened(node int, m *memory, o *messages.LogOpened) {
	r := c.nodes[node]
	c.keeps(node, o)
	term, vote := o.HardState.GetTerm(), o.HardState.GetVote()
	if to, voted := r.votes[r.voted]; voted && (term < r.voted || term == r.voted && vote != to) {
		c.fail("votes survive", "%s voted for replica %d in term %d, its disk now says %d in term %d", nameOf(node), to, r.voted, vote, term)
	}
	c.basesRise(node, o)
	m.log, m.term, m.commit = true, term, o.HardState.GetCommit()
	r.logBase, r.baseTerm, r.log = o.BaseIndex, o.BaseTerm, r.log[:0]
	for _, e := range o.Entries {
		r.log = append(r.log, e.GetTerm())
		c.matches(node, e)
	}
}

// appending: term and commit never go back, logs that agree on a position agree
// on what is there, and a new leader has all that was committed.
func (c *checkers) appending(node int, m *memory, a *raftpb.Message) {
	if a.Term != nil && a.GetTerm() > 0 {
		if a.GetTerm() < m.term || a.GetCommit() < m.commit {
			c.fail("term and commit never go back", "%s goes from term %d, commit %d to term %d, commit %d",
				nameOf(node), m.term, m.commit, a.GetTerm(), a.GetCommit())
		}
		m.term, m.commit = a.GetTerm(), a.GetCommit()
	}
	if s := a.GetSnapshot().GetMetadata(); s.GetIndex() > 0 {
		c.replacing(node, s)
	}
	entries := a.GetEntries()
	if len(entries) == 0 {
		return
	}
	r := c.nodes[node]
	first := entries[0].GetIndex()
	if first <= r.logBase || first > r.logBase+uint64(len(r.log))+1 {
		c.fail("logs have no gaps", "%s appends index %d to a log of (%d, %d]", nameOf(node), first, r.logBase, r.logBase+uint64(len(r.log)))
		return
	}
	r.replace(entries)
	r.log = r.log[:first-r.logBase-1]
	for _, e := range entries {
		r.log = append(r.log, e.GetTerm())
		c.matches(node, e)
		if t := e.GetTerm(); t > r.led {
			if leader, known := c.leaders[t]; known && leader == node {
				r.led = t
				c.complete(node, e)
			}
		}
	}
}

// replace: what was acknowledged ends below the first entry that takes the place of
// another. The disk may hold any part of the new entries after a failed write.
func (r *replica) replace(entries []*raftpb.Entry) {
	for _, e := range entries {
		if e.GetIndex() > r.acked.index {
			return
		}
		if term, held := r.term(e.GetIndex()); held && term != e.GetTerm() {
			r.acked.index = e.GetIndex() - 1
			return
		}
	}
}

// term is that of an entry behind the log's base.
func (r *replica) term(index uint64) (term uint64, held bool) {
	if index <= r.logBase || index > r.logBase+uint64(len(r.log)) {
		return 0, false
	}
	return r.log[index-r.logBase-1], true
}

// keeps: the log that is opened holds what was acknowledged.
func (c *checkers) keeps(node int, o *messages.LogOpened) {
	r := c.nodes[node]
	if last := o.BaseIndex + uint64(len(o.Entries)); last < r.acked.index {
		c.fail("acknowledged entries survive", "%s acknowledged index %d in term %d, its log now ends at %d", nameOf(node), r.acked.index, r.acked.term, last)
	}
	for _, e := range o.Entries {
		if e.GetIndex() > r.acked.index {
			return
		}
		if term, held := r.term(e.GetIndex()); held && term != e.GetTerm() {
			c.fail("acknowledged entries survive", "%s acknowledged an entry of term %d at index %d, its log now holds one of term %d there",
				nameOf(node), term, e.GetIndex(), e.GetTerm())
			return
		}
	}
}

func (c *checkers) matches(node int, e *raftpb.Entry) {
	at, content := position{e.GetIndex(), e.GetTerm()}, hashOf(e)
	if other, known := c.contents[at]; known && other != content {
		c.fail("log matching", "%s has another entry at index %d of term %d than was seen before", nameOf(node), at.index, at.term)
	}
	c.contents[at] = content
}

func hashOf(e *raftpb.Entry) uint64 { return xxhash.Sum64(e.GetData())*31 + uint64(e.GetType()) }

// complete: leader completeness, checked when a leader appends its first entry. A slow
// disk may delay that until a leader of a newer term has committed. What was committed
// before the election is not known any more then, and nothing is checked.
func (c *checkers) complete(node int, first *raftpb.Entry) {
	r := c.nodes[node]
	if n := len(c.committed); n > 0 && c.committed[n-1].term >= first.GetTerm() {
		return
	}
	for _, p := range c.committed {
		if p.index <= r.logBase || p.index >= first.GetIndex() {
			continue
		}
		if have := r.log[p.index-r.logBase-1]; have != p.term {
			c.fail("leader completeness", "%s leads term %d without the entry committed at index %d in term %d: it has one of term %d",
				nameOf(node), first.GetTerm(), p.index, p.term, have)
			return
		}
	}
	if n := len(c.committed); n > 0 && c.committed[n-1].index >= first.GetIndex() {
		c.fail("leader completeness", "%s leads term %d from index %d on, but index %d was committed in term %d",
			nameOf(node), first.GetTerm(), first.GetIndex(), c.committed[n-1].index, c.committed[n-1].term)
	}
}

// applying: every incarnation applies every index once and in order, and all
// apply the same.
func (c *checkers) applying(node int, m *memory, a *raftpb.Message) {
	if !m.opened {
		c.fail("replay starts at the checkpoint", "%s applies before it has said where it starts", nameOf(node))
	}
	for _, e := range a.GetEntries() {
		if e.GetIndex() != m.applied+1 {
			c.fail("applied once and in order", "%s applies index %d after %d", nameOf(node), e.GetIndex(), m.applied)
			return
		}
		m.applied = e.GetIndex()
		c.commits(node, e)
	}
}

func (c *checkers) commits(node int, e *raftpb.Entry) {
	at := position{e.GetIndex(), e.GetTerm()}
	if len(c.committed) == 0 {
		c.base = at.index - 1
	}
	switch next := c.base + uint64(len(c.committed)) + 1; {
	case at.index == next:
		c.committed = append(c.committed, at)
		c.matches(node, e)
		c.held(at)
		if err := c.model.apply(e); err != nil {
			c.fail("each command at most once", "%v", err)
		}
		if c.reference != nil {
			c.reference.apply(e)
		}
		if c.onCommit != nil {
			c.onCommit()
		}
	case at.index > next:
		c.fail("committed without a gap", "%s applies index %d, nobody has applied %d", nameOf(node), at.index, next)
	case at.index > c.base:
		if was := c.committed[at.index-c.base-1]; was != at {
			c.fail("committed once", "%s applies an entry of term %d at index %d, another was committed there in term %d", nameOf(node), at.term, at.index, was.term)
		}
		c.matches(node, e)
	}
}

// held: what is applied anywhere is durable on a quorum.
func (c *checkers) held(at position) {
	holders := 0
	for node := range c.nodes {
		if c.stored(node, at) {
			holders++
		}
	}
	if !c.blind && 2*holders <= len(c.nodes) {
		c.fail("committed is durable on a quorum", "index %d of term %d is applied, and on %d of %d disks", at.index, at.term, holders, len(c.nodes))
	}
}

// appliedAt: equal history at equal index.
func (c *checkers) appliedAt(node int, m *memory, a *messages.Applied) {
	c.compacts(node, m, a.CompactedRevision)
	if other, known := c.histories[a.Index]; known && other != a.HistoryHash {
		c.fail("equal state at equal index", "%s has history %016x at index %d, another replica %016x", nameOf(node), a.HistoryHash, a.Index, other)
	}
	c.histories[a.Index] = a.HistoryHash
}

// departs: no vote and no acknowledgement leaves before it is durable.
func (c *checkers) departs(node int, body proto.Message) {
	raftMessage, ok := body.(*messages.RaftMessage)
	if !ok {
		return
	}
	m := raftMessage.Message
	if m.GetReject() {
		return
	}
	switch m.GetType() {
	case raftpb.MsgVoteResp:
		c.votes(node, m)
	case raftpb.MsgAppResp:
		c.acks(node, m)
	}
}

func (c *checkers) votes(node int, m *raftpb.Message) {
	r := c.nodes[node]
	if to, voted := r.votes[m.GetTerm()]; voted && to != m.GetTo() {
		c.fail("one vote a term", "%s votes for replica %d in term %d, and did for %d", nameOf(node), m.GetTo(), m.GetTerm(), to)
	}
	hs, _ := c.durable(node)
	if !c.blind && (hs.GetTerm() < m.GetTerm() || hs.GetTerm() == m.GetTerm() && hs.GetVote() != m.GetTo()) {
		c.fail("votes are durable first", "%s votes for replica %d in term %d, its disk holds vote %d in term %d",
			nameOf(node), m.GetTo(), m.GetTerm(), hs.GetVote(), hs.GetTerm())
	}
	r.votes[m.GetTerm()], r.voted = m.GetTo(), max(r.voted, m.GetTerm())
}

func (c *checkers) acks(node int, m *raftpb.Message) {
	r := c.nodes[node]
	hs, last := c.durable(node)
	if !c.blind && hs.GetTerm() < m.GetTerm() {
		c.fail("terms are durable first", "%s acknowledges in term %d, its disk holds term %d", nameOf(node), m.GetTerm(), hs.GetTerm())
	}
	if !c.blind && hs.GetTerm() == m.GetTerm() && last < m.GetIndex() {
		c.fail("acknowledgements are durable first", "%s acknowledges index %d in term %d, its disk holds entries up to %d",
			nameOf(node), m.GetIndex(), m.GetTerm(), last)
	}
	r.acked = position{max(r.acked.index, m.GetIndex()), max(r.acked.term, m.GetTerm())}
}

// last is the highest index that was seen committed.
func (c *checkers) last() uint64 { return c.base + uint64(len(c.committed)) }

func idOf(node int) messages.RaftID { return messages.RaftID(node) + 1 }
func nameOf(node int) string        { return phrase.Node(node) }
