package raftactor

import (
	"sort"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"keyval/messages"
	"keyval/mutant"
)

// cutTicks is how often the log is looked at without a checkpoint, in ticks.
const cutTicks = 20

// Parts of the bounds of a log; see Options for the bounds themselves.
const (
	// A cut frees at least this part of what is kept: each costs the disk two
	// fsyncs, whatever it frees.
	cutFreesPart = 4
	// In a thorough cut a leader keeps nothing for others, and a follower this part of
	// what it keeps otherwise: it may lead next, and does not know what others lack.
	cutSparePart = 16
	// Appends and proposals wait while the entries above the last checkpoint, which
	// nobody may cut, take this many times LogBytesMax.
	uncutFactor = 4
)

// weigher knows what entries take.
type weigher interface {
	bytesAbove(index uint64) uint64 // of the entries above index, base <= index <= last
}

// cutView is all that decides how far a log may be cut.
type cutView struct {
	base, last uint64
	applied    uint64
	checkpoint uint64 // index of the last durable one
	weigher    weigher

	leads     bool
	followers []follower // of a leader
	pins      []uint64   // indexes that are on their way as snapshots

	// thorough: somebody asked for space. Nothing is kept for followers that may
	// come later.
	thorough bool
}

// follower is what a leader knows of one of its followers' logs.
type follower struct {
	need    uint64 // it may lack the entries above
	active  bool   // it was heard of lately
	carried bool   // its snapshot has arrived lately; the entries behind it are kept like a pin's
}

// plan decides up to which index the log goes now, its base if it stays as it is.
// held says that followers or pins keep entries that would go otherwise.
//
// Entries that are not applied, or above the checkpoint, are never cut: replay starts
// at the checkpoint. Three kinds of entries are kept besides, each within a bound of
// its own: some below the checkpoint, so that a follower that was away for a moment
// needs no snapshot; those that active followers lack; and those above the index of a
// snapshot that is on its way.
func (v cutView) plan(o Options) (to uint64, held bool) {
	ceiling := min(v.checkpoint, v.applied, v.last)
	if mutant.CutUncovered { // replay lacks what no checkpoint holds
		ceiling = min(v.applied, v.last)
	}
	if ceiling <= v.base {
		return v.base, false
	}
	wanted := v.behind(ceiling, v.spare(o.LogEntriesKeep), v.spare(o.LogBytesKeep))
	to = wanted
	for _, f := range v.followers {
		if f.active && v.waitsFor(f, o) {
			to = min(to, f.need)
		}
	}
	for _, pin := range v.pins {
		if pin >= v.base && v.weigher.bytesAbove(pin) <= o.PinnedBytesMax {
			to = min(to, pin)
		}
	}
	if !v.thorough && !v.worth(to, o) {
		return v.base, to < wanted
	}
	return to, to < wanted
}

// spare is how much of a bound is kept behind the checkpoint.
func (v cutView) spare(bound uint64) uint64 {
	switch {
	case !v.thorough:
		return bound
	case v.leads:
		return 0
	}
	return bound / cutSparePart
}

// Spare is what a follower keeps behind its checkpoint when somebody asks for space, in
// entries and bytes, whichever are fewer.
func (o Options) Spare() (entries, bytes uint64) {
	o = o.withDefaults()
	return o.LogEntriesKeep / cutSparePart, o.LogBytesKeep / cutSparePart
}

// behind is the lowest index from which to ceiling there are at most so many
// entries and bytes.
func (v cutView) behind(ceiling, entries, bytes uint64) uint64 {
	above := v.weigher.bytesAbove(ceiling)
	return v.base + uint64(sort.Search(int(ceiling-v.base), func(n int) bool {
		index := v.base + uint64(n)
		return ceiling-index <= entries && v.weigher.bytesAbove(index)-above <= bytes
	}))
}

// waitsFor reports whether the log holds what a follower lacks, and that is within
// bounds. A follower that lacks more is better off with a snapshot.
func (v cutView) waitsFor(f follower, o Options) bool {
	if f.need < v.base || f.need > v.last {
		return false
	}
	bytes := v.weigher.bytesAbove(f.need)
	if f.carried {
		return bytes <= o.PinnedBytesMax
	}
	return bytes <= o.LogBytesMax && v.last-f.need <= o.LogEntriesMax
}

// worth reports whether a cut frees enough to be made.
func (v cutView) worth(to uint64, o Options) bool {
	freed := v.weigher.bytesAbove(v.base) - v.weigher.bytesAbove(to)
	return to > v.base && (to-v.base >= max(1, o.LogEntriesKeep/cutFreesPart) || freed >= max(1, o.LogBytesKeep/cutFreesPart))
}

// OnCheckpointed takes a checkpoint that became durable: the log may go up to it.
func (r *Replica) OnCheckpointed(m *messages.Checkpointed) {
	if r.node == nil {
		return
	}
	r.compacted = max(r.compacted, m.CompactedRevision)
	if m.Index < r.tail.checkpoint() {
		return // of the state before a snapshot
	}
	if term, err := r.tail.Term(m.Index); err != nil || term != m.Term {
		r.emit(Die{apart("the checkpoint is at index %d of term %d, the log holds (%d, %d] and there term %d",
			m.Index, m.Term, r.tail.base, r.tail.last(), term)})
		return
	}
	r.tail.checkpointed(m.Index, m.Term, m.ConfState)
	if m.Thorough {
		r.thorough = m.Index
	}
	r.cutLog()
}

// cutLog cuts the log if that is due. Below what is being installed there is
// nothing to cut.
func (r *Replica) cutLog() {
	if r.installing != nil || mutant.LogNeverCut { // it takes space for ever
		return
	}
	view := r.cutView()
	to, _ := view.plan(r.cfg.Options)
	if r.thorough > r.tail.base {
		view.thorough, view.checkpoint = true, min(view.checkpoint, r.thorough)
		all, held := view.plan(r.cfg.Options)
		to = max(to, all)
		if !held {
			r.thorough = 0
		}
	}
	if to == r.tail.base {
		return
	}
	r.tail.cut(to)
	r.emit(CutLog{Index: to, Term: r.tail.baseTerm})
}

func (r *Replica) cutView() cutView {
	view := cutView{
		base: r.tail.base, last: r.tail.last(), applied: r.applied, checkpoint: r.tail.checkpoint(), weigher: r.tail,
		leads: r.role == raft.StateLeader,
	}
	for _, s := range r.shipments {
		if s.open > 0 {
			view.pins = append(view.pins, s.index)
		}
	}
	if view.leads {
		view.followers = r.followers()
	}
	return view
}

// followers is what this leader knows of the others. A follower whose snapshot is on
// its way is left out: its entries are pinned.
func (r *Replica) followers() (found []follower) {
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if id == r.cfg.Self || p.State == tracker.StateSnapshot {
			return
		}
		f := follower{need: p.Match, active: r.active(id, p)}
		if p.State == tracker.StateProbe { // Match is old or unknown; raft probes from Next on
			f.need = p.Next - 1
		}
		if s := r.shipments[id]; s != nil {
			f.carried = s.carried
		}
		found = append(found, f)
	})
	return found
}

// sample lets the clock go on, and counts a follower that is new to this leadership as
// heard of now.
func (r *Replica) sample() {
	r.ticks++
	if r.role != raft.StateLeader {
		return
	}
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if _, known := r.contact[id]; !known {
			r.contact[id] = r.ticks
		}
		if s := r.shipments[id]; s != nil && s.carried && (p.Match >= r.tail.checkpoint() || !r.active(id, p)) {
			delete(r.shipments, id) // it follows from the log now, or is gone
		}
	})
}

// active reports whether a follower was heard of within two election timeouts. A
// follower that this leadership has not sampled yet counts as active.
func (r *Replica) active(id uint64, p tracker.Progress) bool {
	heard, known := r.contact[id]
	return p.RecentActive || !known || r.ticks-heard <= uint64(2*r.cfg.Options.ElectionTicks)
}
