package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/raftactor"
	"keyval/sim/phrase"
)

// checkers hold what nodes say against what Raft and the project promise. They
// know nothing but the messages they are shown and what the disks hold durably.
type checkers struct {
	fail  func(invariant, format string, args ...any)
	clock func() time.Duration
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

	leaders        map[uint64]sighting      // by term
	contents       map[position]sighting    // the hash of every entry that any log was given
	sizes          map[position]uint64      // what each takes of a log's bounds, in bytes
	base           uint64                   // the index before the first committed one that was seen
	committed      []position               // from base+1 on: what all replicas must apply
	appliers       []sighting               // who applied them first
	histories      map[uint64]sighting      // applied index -> history hash
	nodes          []*replica               // by machine
	gone           map[messages.RaftID]bool // the disk of their machine was emptied
	membership     membership
	configurations // as of the last committed index
	model          *model
	reference      *reference // nil: nobody has opened a state yet
	begins         []row      // with which the reference begins: those of a backup
	written        uint64     // checkpoints, of all nodes
	known          uint64     // the highest index that any node has said is committed
	onCommit       func()     // told of every index that is first seen committed; may be nil
}

// sighting is something that a node was the first to show.
type sighting struct {
	hash uint64 // of what it showed
	node int
	at   time.Duration
}

func (c *checkers) sees(node int, hash uint64) sighting { return sighting{hash, node, c.clock()} }

// was is what the node had or said then.
func (s sighting) was(format string, args ...any) fact {
	return fact{nameOf(s.node), s.at, fmt.Sprintf(format, args...)}
}

// is what the node has or says now.
func (c *checkers) is(node int, format string, args ...any) fact {
	return c.sees(node, 0).was(format, args...)
}

// position is a place in a log.
type position struct{ index, term uint64 }

// replica is what the checkers know of one replica, over all its processes: of the one
// that a machine holds now. A machine that is wiped begins another.
type replica struct {
	id       messages.RaftID            // 0: none yet
	votes    map[uint64]messages.RaftID // granted to others, by term
	voted    uint64                     // the highest term of those
	votedAt  time.Duration              // when it was granted
	ackedAt  time.Duration              // when that was said last
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
		leaders: map[uint64]sighting{}, contents: map[position]sighting{}, sizes: map[position]uint64{}, histories: map[uint64]sighting{}, model: newModel(),
		gone:       map[messages.RaftID]bool{},
		membership: membership{voted: map[messages.RaftID]bool{}, was: map[messages.RaftID]bool{}},
		clock:      func() time.Duration { return 0 },
	}
	for range nodes {
		c.machine()
	}
	return c
}

// machine adds a machine.
func (c *checkers) machine() { c.nodes = append(c.nodes, newReplica(0)) }

func newReplica(id messages.RaftID) *replica {
	return &replica{id: id, votes: map[uint64]messages.RaftID{}}
}

// starts: the process that starts on a machine has this RaftID; 0: none yet. A machine
// keeps the one that it has until it is wiped.
func (c *checkers) starts(node int, id messages.RaftID) {
	switch r := c.nodes[node]; {
	case r.id == 0:
		r.id = id
	case id != 0 && r.id != id:
		c.fail("identities last", "%s starts as replica %d, and was %d", nameOf(node), id, r.id)
	}
	if c.gone[id] {
		c.fail("identities are not used again", "%s starts as replica %d, whose disk was emptied", nameOf(node), id)
	}
	for other, r := range c.nodes {
		if id != 0 && other != node && r.id == id {
			c.fail("identities are not shared", "%s starts as replica %d, as %s did", nameOf(node), id, nameOf(other))
		}
	}
}

// wiped: what the machine had promised is nobody's any more.
func (c *checkers) wiped(node int) {
	if id := c.nodes[node].id; id != 0 {
		c.gone[id] = true
	}
	c.nodes[node] = newReplica(0)
}

// holder is the machine of a replica.
func (c *checkers) holder(id messages.RaftID) (node int, there bool) {
	node = slices.IndexFunc(c.nodes, func(r *replica) bool { return r.id == id })
	return node, node >= 0
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
	if m.Leader == 0 || m.Leader != c.nodes[node].id {
		return
	}
	other, known := c.leaders[m.Term]
	if known && other.node != node {
		c.fail("one leader a term", "%v, and %v", c.is(node, "leads in term %d", m.Term), other.was("came to lead in term %d", m.Term))
	}
	if !known {
		c.leaders[m.Term] = c.sees(node, 0)
	}
}

// logOpened: what a node has promised survives its restart.
func (c *checkers) logOpened(node int, m *memory, o *messages.LogOpened) {
	r := c.nodes[node]
	c.keeps(node, o)
	term, vote := o.HardState.GetTerm(), o.HardState.GetVote()
	if to, voted := r.votes[r.voted]; voted && (term < r.voted || term == r.voted && vote != to) {
		c.fail("votes survive", "%v, but %v", c.is(node, "opens a log with vote %d in term %d", vote, term),
			sighting{0, node, r.votedAt}.was("voted for replica %d in term %d", to, r.voted))
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
		c.known = max(c.known, m.commit)
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
			if leader, known := c.leaders[t]; known && leader.node == node {
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

func (r *replica) acknowledged(node int) fact {
	return sighting{0, node, r.ackedAt}.was("acknowledged what is up to index %d, last in term %d", r.acked.index, r.acked.term)
}

// standing is how much of an acknowledgement in a term still stands when it leaves. It
// may wait in the log for the sync of appends in which a newer leader replaces the entries.
func (r *replica) standing(index, term uint64) uint64 {
	last := r.logBase + uint64(len(r.log))
	if len(r.log) > 0 && r.log[len(r.log)-1] > term {
		index = min(index, last)
	}
	for {
		if newer, held := r.term(index); !held || newer <= term {
			return index
		}
		index--
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
		c.fail("acknowledged entries survive", "%v, but %v", c.is(node, "opens a log that ends at index %d", last), r.acknowledged(node))
	}
	for _, e := range o.Entries {
		if e.GetIndex() > r.acked.index {
			return
		}
		if term, held := r.term(e.GetIndex()); held && term != e.GetTerm() {
			c.fail("acknowledged entries survive", "%v, but %v and held one of term %d there",
				c.is(node, "opens a log with an entry of term %d at index %d", e.GetTerm(), e.GetIndex()), r.acknowledged(node), term)
			return
		}
	}
}

func (c *checkers) matches(node int, e *raftpb.Entry) {
	at, content := position{e.GetIndex(), e.GetTerm()}, hashOf(e)
	switch other, known := c.contents[at]; {
	case !known:
		c.contents[at], c.sizes[at] = c.sees(node, content), raftactor.EntryBytes(e)
	case other.hash != content:
		c.fail("log matching", "%v, but %v", c.is(node, "has an entry at index %d of term %d, with hash %016x", at.index, at.term, content),
			other.was("has one there with hash %016x", other.hash))
	}
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
			c.fail("leader completeness", "%v, but %v",
				c.is(node, "leads term %d, and has an entry of term %d at index %d", first.GetTerm(), have, p.index), c.applied(p))
			return
		}
	}
	if n := len(c.committed); n > 0 && c.committed[n-1].index >= first.GetIndex() {
		c.fail("leader completeness", "%v, but %v", c.is(node, "leads term %d from index %d on", first.GetTerm(), first.GetIndex()), c.applied(c.committed[n-1]))
	}
}

// applied is who first applied what was committed somewhere.
func (c *checkers) applied(at position) fact {
	return c.appliers[at.index-c.base-1].was("was the first to apply index %d, of term %d", at.index, at.term)
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
		c.committed, c.appliers = append(c.committed, at), append(c.appliers, c.sees(node, 0))
		c.matches(node, e)
		c.held(at)
		if c.reference != nil {
			c.model.members = messages.RaftIDs(c.reference.state.Members())
		}
		if err := c.model.apply(e); err != nil {
			c.fail("each command at most once", "%v", err)
		}
		if c.reference != nil {
			c.reference.apply(e)
			c.are(at.index, c.reference.state.ConfState())
			c.membership.are(c.reference.state.ConfState(), c.reference.state.Members(), c.reference.state.Operations())
		}
		if c.onCommit != nil {
			c.onCommit()
		}
	case at.index > next:
		c.fail("committed without a gap", "%s applies index %d, nobody has applied %d", nameOf(node), at.index, next)
	case at.index > c.base:
		if was := c.committed[at.index-c.base-1]; was != at {
			c.fail("committed once", "%v, but %v", c.is(node, "applies an entry of term %d at index %d", at.term, at.index), c.applied(was))
		}
		c.matches(node, e)
	}
}

// held: what is applied anywhere is durable on a quorum. The leader that committed it may
// not have applied the last change of the configuration yet.
func (c *checkers) held(at position) {
	if c.blind {
		return
	}
	holds := func(id messages.RaftID) bool {
		node, there := c.holder(id)
		return there && c.stored(node, at) || c.gone[id]
	}
	if !isQuorum(c.now, holds) && !isQuorum(c.before, holds) {
		c.fail("committed is durable on a quorum", "index %d of term %d is applied, and not on a quorum of the disks of %s", at.index, at.term, messages.Line(c.now))
	}
}

// appliedAt: equal history at equal index.
func (c *checkers) appliedAt(node int, m *memory, a *messages.Applied) {
	c.compacts(node, m, a.CompactedRevision)
	switch other, known := c.histories[a.Index]; {
	case !known:
		c.histories[a.Index] = c.sees(node, a.HistoryHash)
	case other.hash != a.HistoryHash:
		c.fail("equal state at equal index", "%v, but %v", c.is(node, "has history %016x at index %d", a.HistoryHash, a.Index), other.was("had %016x there", other.hash))
	}
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
	case raftpb.MsgVote:
		c.asks(node, m)
	case raftpb.MsgVoteResp:
		c.votes(node, m)
	case raftpb.MsgAppResp:
		c.acks(node, m)
	case raftpb.MsgApp:
		c.leads(node, m)
	}
}

// leads: what a leader sends is what logs hold, and by its commit it counts entries of
// its own term only: one of an older term may be on a quorum and be replaced still.
func (c *checkers) leads(node int, m *raftpb.Message) {
	for _, e := range m.GetEntries() {
		if first, known := c.contents[position{e.GetIndex(), e.GetTerm()}]; known && first.hash != hashOf(e) {
			c.fail("leaders send what logs hold", "%v, but %v", c.is(node, "sends an entry at index %d of term %d with hash %016x", e.GetIndex(), e.GetTerm(), hashOf(e)),
				first.was("had one there with hash %016x", first.hash))
		}
	}
	if m.GetCommit() <= c.known {
		return
	}
	if term, held := c.nodes[node].term(m.GetCommit()); held && term < m.GetTerm() {
		c.fail("leaders commit by entries of their own", "%v, but %v", c.is(node, "leads term %d and sends a commit of %d", m.GetTerm(), m.GetCommit()),
			c.is(node, "has an entry of term %d there, and nobody knew it to be committed", term))
	}
	c.known = m.GetCommit()
}

// asks: whoever stands for election has voted for itself for good. Otherwise the others could
// elect it twice in one term.
func (c *checkers) asks(node int, m *raftpb.Message) {
	hs, _ := c.durable(node)
	if !c.blind && (hs.GetTerm() < m.GetTerm() || hs.GetTerm() == m.GetTerm() && hs.GetVote() != m.GetFrom()) {
		c.fail("votes are durable first", "%v, but %v", c.is(node, "asks for votes in term %d", m.GetTerm()),
			c.is(node, "has term %d and a vote for replica %d on its disk", hs.GetTerm(), hs.GetVote()))
	}
}

func (c *checkers) votes(node int, m *raftpb.Message) {
	r := c.nodes[node]
	if to, voted := r.votes[m.GetTerm()]; voted && to != m.GetTo() {
		c.fail("one vote a term", "%s votes for replica %d in term %d, and did for %d", nameOf(node), m.GetTo(), m.GetTerm(), to)
	}
	hs, _ := c.durable(node)
	if !c.blind && (hs.GetTerm() < m.GetTerm() || hs.GetTerm() == m.GetTerm() && hs.GetVote() != m.GetTo()) {
		c.fail("votes are durable first", "%v, but %v", c.is(node, "votes for replica %d in term %d", m.GetTo(), m.GetTerm()),
			c.is(node, "has vote %d in term %d on its disk", hs.GetVote(), hs.GetTerm()))
	}
	r.votes[m.GetTerm()], r.voted, r.votedAt = m.GetTo(), max(r.voted, m.GetTerm()), c.clock()
}

func (c *checkers) acks(node int, m *raftpb.Message) {
	r := c.nodes[node]
	hs, last := c.durable(node)
	if !c.blind && hs.GetTerm() < m.GetTerm() {
		c.fail("terms are durable first", "%v, but %v", c.is(node, "acknowledges in term %d", m.GetTerm()), c.is(node, "has term %d on its disk", hs.GetTerm()))
	}
	if !c.blind && hs.GetTerm() == m.GetTerm() && last < m.GetIndex() {
		c.fail("acknowledgements are durable first", "%v, but %v", c.is(node, "acknowledges index %d in term %d", m.GetIndex(), m.GetTerm()),
			c.is(node, "has entries up to index %d on its disk", last))
	}
	r.ackedAt = c.clock()
	r.acked = position{max(r.acked.index, r.standing(m.GetIndex(), m.GetTerm())), max(r.acked.term, m.GetTerm())}
}

// last is the highest index that was seen committed.
func (c *checkers) last() uint64 { return c.base + uint64(len(c.committed)) }

func nameOf(node int) string { return phrase.Node(node) }
