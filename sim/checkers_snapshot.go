package sim

import (
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// row is a version of a key, as disks hold it.
type row = disk.Row

// media is what checkers see of a node's disk beside its log.
type media struct {
	checkpoint *messages.Checkpoint // the last durable one
	rows       func() []row         // of a snapshot of that checkpoint; nil: the world has damaged some
}

// cutting: the entries that a log drops are applied, and covered by a durable
// checkpoint.
func (c *checkers) cutting(node int, m *memory, cut *messages.CutLog) {
	r := c.nodes[node]
	if cut.Index <= r.logBase {
		return
	}
	durable := c.media(node).checkpoint
	switch last := r.logBase + uint64(len(r.log)); {
	case cut.Index > durable.GetIndex() && !c.blind:
		c.fail("the log is cut behind a checkpoint", "%s cuts its log at index %d, its last durable checkpoint is of index %d", nameOf(node), cut.Index, durable.GetIndex())
	case cut.Index > m.applied && !c.blind:
		c.fail("the log is cut behind a checkpoint", "%s cuts its log at index %d, and has applied up to %d", nameOf(node), cut.Index, m.applied)
	case cut.Index > last || r.log[cut.Index-r.logBase-1] != cut.Term:
		c.fail("the log is cut where it is", "%s cuts its log at index %d of term %d, it holds (%d, %d]", nameOf(node), cut.Index, cut.Term, r.logBase, last)
	default:
		r.log = r.log[cut.Index-r.logBase:]
		r.logBase, r.baseTerm = cut.Index, cut.Term
	}
}

// bytesAbove is what a node's log was given above an index, in bytes, though it may have cut
// some of that since.
func (c *checkers) bytesAbove(node int, index uint64) (bytes uint64) {
	r := c.nodes[node]
	for last := r.logBase + uint64(len(r.log)); index < last; {
		index++
		at := position{index: index}
		if term, held := r.term(index); held {
			at.term = term
		} else if index > c.base && index <= c.last() {
			at = c.committed[index-c.base-1]
		}
		bytes += c.sizes[at]
	}
	return bytes
}

// basesRise: base <= checkpoint, where replay starts, and base never goes back.
func (c *checkers) basesRise(node int, o *messages.LogOpened) {
	r := c.nodes[node]
	durable := c.media(node).checkpoint
	switch {
	case o.BaseIndex > durable.GetIndex():
		c.fail("the log is cut behind a checkpoint", "the log of %s begins behind index %d, its last durable checkpoint is of index %d", nameOf(node), o.BaseIndex, durable.GetIndex())
	case o.BaseIndex < r.opened:
		c.fail("bases never go back", "the log of %s begins behind index %d, it began behind %d", nameOf(node), o.BaseIndex, r.opened)
	}
	r.opened = o.BaseIndex
}

// replacing: a snapshot takes the place of a log that does not reach it, or that has
// something else there.
func (c *checkers) replacing(node int, s *raftpb.SnapshotMetadata) {
	r := c.nodes[node]
	at := position{s.GetIndex(), s.GetTerm()}
	last := r.logBase + uint64(len(r.log))
	switch {
	case at.index <= r.logBase:
		c.fail("snapshots go ahead", "%s installs a snapshot of index %d, its log begins behind %d", nameOf(node), at.index, r.logBase)
	case at.index <= last && r.log[at.index-r.logBase-1] == at.term:
		c.fail("snapshots go ahead", "%s installs a snapshot of index %d and term %d, which its log holds", nameOf(node), at.index, at.term)
	}
	c.isCommitted(node, at)
	if at.index <= r.acked.index {
		r.acked.index = at.index // another leader's history replaces what was acknowledged
	}
	r.logBase, r.baseTerm, r.log = at.index, at.term, r.log[:0]
}

// isCommitted: what a snapshot stands for was committed.
func (c *checkers) isCommitted(node int, at position) {
	if at.index > c.last() || at.index > c.base && c.committed[at.index-c.base-1] != at {
		c.fail("snapshots are of what is committed", "%s installs a snapshot of index %d and term %d, which was not committed", nameOf(node), at.index, at.term)
	}
}

// installed: the machine is told that another state counts.
func (c *checkers) installed(node int, m *memory, i *messages.Installed) {
	m.installed = i.Index
	if durable := c.media(node).checkpoint; durable.GetIndex() != i.Index {
		c.fail("what is installed counts", "%s is told that the state of index %d was installed, its checkpoint is of index %d", nameOf(node), i.Index, durable.GetIndex())
	}
}

// machineOpened: applied jumps only when a snapshot is installed, and the state that is
// opened is that of replay.
func (c *checkers) machineOpened(node int, m *memory, o *messages.MachineOpened) {
	switch {
	case !m.opened:
	case m.installed != o.Index:
		c.fail("applied jumps by installation only", "%s goes from index %d to %d, index %d was installed", nameOf(node), m.applied, o.Index, m.installed)
	case o.Index < m.applied:
		c.fail("applied never goes back", "%s goes from index %d to %d", nameOf(node), m.applied, o.Index)
	}
	c.compacts(node, m, o.CompactedRevision)
	m.opened, m.applied, m.installed = true, o.Index, 0
	c.sameState(node, true)
}

// checkpointed: a checkpoint that is written is that of replay. Its rows are compared
// now and then.
func (c *checkers) checkpointed(node int) {
	c.written++
	c.sameState(node, c.written%rowsSampled == 0)
}

// rowsSampled: every so many checkpoints all rows are compared.
const rowsSampled = 8

// sameState: a durable state is that of replay at its index.
func (c *checkers) sameState(node int, rowsToo bool) {
	is := c.media(node)
	if is.checkpoint.GetIndex() == 0 || is.rows == nil { // a node that joins has no state yet
		return
	}
	if c.reference == nil {
		c.begin(is.checkpoint)
	}
	if other, known := c.histories[is.checkpoint.Index]; known && other.hash != is.checkpoint.HistoryHash {
		c.fail("equal state at equal index", "%v, but %v", c.is(node, "has a checkpoint with history %016x at index %d", is.checkpoint.HistoryHash, is.checkpoint.Index),
			other.was("had %016x there", other.hash))
	}
	what := c.reference.differs(is.checkpoint)
	if what == "" && rowsToo {
		what = c.reference.rowsDiffer(is.checkpoint, is.rows())
	}
	if what != "" {
		c.fail("state from snapshot equals state from replay", "%s: %s", nameOf(node), what)
	}
}

// begin: history begins with the first state that anybody opens.
func (c *checkers) begin(first *messages.Checkpoint) {
	var err error
	if c.reference, err = newReference(first, c.begins); err != nil {
		c.fail("state from snapshot equals state from replay", "nobody can begin with %s: %v", messages.Line(first), err)
		return
	}
	c.are(first.Index, c.reference.state.ConfState())
	c.membership.fail = c.fail
	c.membership.are(c.reference.state.ConfState(), c.reference.state.Members(), c.reference.state.Operations())
	c.model.level = first.Level
}

// compacts: the revision below which history is given up never goes back.
func (c *checkers) compacts(node int, m *memory, revision uint64) {
	if revision < m.compacted {
		c.fail("history stays given up", "%s gives up history below %d, and did below %d", nameOf(node), revision, m.compacted)
	}
	m.compacted = revision
}

// discards: rows are dropped only below the last durable checkpoint's compacted
// revision, so no replay and no reader needs them.
func (c *checkers) discards(node int, floor uint64) {
	if durable := c.media(node).checkpoint; floor > durable.GetCompactedRevision() && !c.blind {
		c.fail("rows are discarded behind a checkpoint", "%s discards rows below revision %d, its last durable checkpoint gives up what is below %d",
			nameOf(node), floor, durable.GetCompactedRevision())
	}
}
