package disk

import (
	"math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// log is a log as the page cache and as the media have it.
type log struct {
	open           bool
	used           bool // it was opened once
	cached         logState
	durable        logState
	unsynced       []logSave // how cached came from durable, in order
	buffered       int       // saves at the end of unsynced that are still in the process
	clean          int       // saves at the head of unsynced that a failed sync left: no sync writes them, nor what is chained to them
	witness        disk.Witness
	durableWitness disk.Witness
}

type logSave struct {
	hardState *raftpb.HardState // nil: unchanged
	entries   []*raftpb.Entry
}

func newLog(index, term uint64, hs *raftpb.HardState) log {
	s := logState{baseIndex: index, baseTerm: term, hardState: proto.Clone(hs).(*raftpb.HardState)}
	w := disk.Witness{
		BaseIndex: index, BaseTerm: term, Index: index, Term: term,
		HardTerm: hs.GetTerm(), Vote: hs.GetVote(), Commit: hs.GetCommit(),
	}
	return log{cached: s, durable: s.clone(), witness: w, durableWitness: w}
}

// logState is a log's content. Entries are shared and never modified.
type logState struct {
	baseIndex, baseTerm uint64
	hardState           *raftpb.HardState
	entries             []*raftpb.Entry
}

func (s logState) clone() logState {
	s.entries = slices.Clone(s.entries)
	return s
}

func (s logState) last() (index, term uint64) {
	if n := len(s.entries); n > 0 {
		return s.entries[n-1].GetIndex(), s.entries[n-1].GetTerm()
	}
	return s.baseIndex, s.baseTerm
}

func (s logState) term(index uint64) (uint64, bool) {
	switch last, _ := s.last(); {
	case index == s.baseIndex:
		return s.baseTerm, true
	case index < s.baseIndex || index > last:
		return 0, false
	}
	return s.entries[index-s.baseIndex-1].GetTerm(), true
}

// apply is what a save does to a log.
func (s *logState) apply(save logSave) {
	if len(save.entries) > 0 {
		keep := save.entries[0].GetIndex() - s.baseIndex - 1
		s.entries = append(s.entries[:keep], save.entries...)
	}
	if save.hardState != nil {
		s.hardState = save.hardState
	}
}

func (l *log) sync() {
	if l.clean > 0 {
		l.buffered = 0
		return
	}
	for _, save := range l.unsynced {
		l.durable.apply(save)
	}
	l.unsynced, l.buffered = nil, 0
}

// keep leaves the first n unsynced saves in the page cache, and torn entries of
// the one behind.
func (l *log) keep(n, torn int) {
	rest := l.unsynced[n:]
	l.unsynced, l.buffered, l.clean = l.unsynced[:n:n], 0, min(l.clean, n)
	if torn > 0 {
		l.unsynced = append(l.unsynced, logSave{entries: rest[0].entries[:torn:torn]})
	}
	l.cached = l.durable.clone()
	for _, save := range l.unsynced {
		l.cached.apply(save)
	}
}

// evict takes pages out of memory that the system takes for written: what is read next
// is what the media hold.
func (l *log) evict(rng *rand.Rand) {
	if l.clean > 0 {
		l.keep(rng.IntN(l.clean+1), 0)
	}
}

// dropBuffered loses saves that the process had not written out yet.
func (l *log) dropBuffered(rng *rand.Rand) {
	if l.buffered > 0 {
		l.keep(len(l.unsynced)-rng.IntN(l.buffered+1), 0)
	}
}

func (l *log) powerCut(rng *rand.Rand) {
	if len(l.unsynced) > 0 {
		reach := len(l.unsynced) // of what may have been written
		if l.clean > 0 {
			reach = l.clean
		}
		n, torn := rng.IntN(reach+1), 0
		if n < reach {
			torn = rng.IntN(len(l.unsynced[n].entries) + 1)
		}
		l.keep(n, torn)
		l.clean = 0
		l.sync() // what is on the media now stays there
	}
	if l.witness != l.durableWitness {
		if rng.IntN(2) == 0 {
			l.witness = l.durableWitness
		}
		l.durableWitness = l.witness
	}
}

// testify is the witness of all that was synced, as the process believes.
func (l *log) testify() {
	w := &l.witness
	w.Sequence++
	w.BaseIndex, w.BaseTerm = l.cached.baseIndex, l.cached.baseTerm
	w.Index, w.Term = l.cached.last()
	hs := l.cached.hardState
	w.HardTerm, w.Vote, w.Commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
}

// count makes durable in the witness how many processes were started.
func (l *log) count(starts uint64) {
	l.witness.Sequence++
	l.witness.Starts = starts
	l.durableWitness = l.witness
}

func (d *Disk) OpenLog() (disk.Log, *disk.LogImage, error) {
	if err := d.notInitialised(); err != nil {
		return nil, nil, err
	}
	l := &d.now.log
	if l.open {
		return nil, nil, messages.Errorf(messages.Code_CONFLICT, "the log is open already")
	}
	image := &disk.LogImage{
		BaseIndex: l.cached.baseIndex, BaseTerm: l.cached.baseTerm,
		HardState: proto.Clone(l.cached.hardState).(*raftpb.HardState),
		Entries:   slices.Clone(l.cached.entries),
	}
	if err := image.Check(); err != nil {
		return nil, nil, err
	}
	if err := l.witness.Meet(image); err != nil {
		return nil, nil, err
	}
	if !mutant.PagesBelieved {
		l.clean = 0 // it is written anew
	}
	h := &logHandle{disk: d, process: d.process, log: l}
	if err := h.Sync(); err != nil {
		return nil, nil, err
	}
	d.before = nil
	l.open, l.used = true, true
	return h, image, nil
}

// logHandle is a log opened by one process.
type logHandle struct {
	disk    *Disk
	process uint64
	log     *log
	failed  error
}

// dead is why the handle cannot be used.
func (h *logHandle) dead() error {
	if h.process != h.disk.process {
		return ErrCrashed
	}
	return h.failed
}

func (h *logHandle) fail(err error) error {
	h.failed = err
	return err
}

func (h *logHandle) Save(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if err := h.dead(); err != nil {
		return err
	}
	d, l := h.disk, h.log
	last, _ := l.cached.last()
	if err := disk.RefuseGap(l.cached.baseIndex, last, entries); err != nil {
		return err
	}
	save := logSave{entries: slices.Clone(entries)}
	mustSync := len(entries) > 0
	if hs != nil && (hs.GetTerm() != 0 || hs.GetVote() != 0 || hs.GetCommit() != 0) {
		was := l.cached.hardState
		mustSync = mustSync || hs.GetTerm() != was.GetTerm() || hs.GetVote() != was.GetVote()
		save.hardState = proto.Clone(hs).(*raftpb.HardState)
	}
	l.unsynced = append(l.unsynced, save)
	l.cached.apply(save)
	switch {
	case d.faults.failSave:
		l.tear(d.rng)
		return h.fail(d.fails(&d.faults.failSave, "write the log"))
	case !mustSync:
		l.buffered++
		return nil
	case d.faults.full:
		l.tear(d.rng)
		return h.fail(d.noRoom("the log"))
	}
	l.buffered = 0
	if err := d.crashes(CrashInSave); err != nil {
		return err
	}
	return h.sync()
}

// tear leaves a part of the last save's entries.
func (l *log) tear(rng *rand.Rand) {
	n := len(l.unsynced) - 1
	l.keep(n, rng.IntN(len(l.unsynced[n].entries)+1))
}

// sync makes the saves durable, and writes the witness of them.
func (h *logHandle) sync() error {
	l := h.log
	l.buffered = 0
	if err := h.disk.fails(&h.disk.faults.failSync, "sync the log"); err != nil {
		l.clean = len(l.unsynced)
		return h.fail(err)
	}
	l.sync()
	l.testify()
	return nil
}

func (h *logHandle) Sync() error {
	if err := h.dead(); err != nil {
		return err
	}
	if err := h.sync(); err != nil {
		return err
	}
	h.log.durableWitness = h.log.witness
	return nil
}

func (h *logHandle) Close() error {
	if h.process != h.disk.process {
		return nil
	}
	if h.failed == nil {
		h.log.sync()
	}
	h.failed = messages.Errorf(messages.Code_INTERNAL, "the log is closed")
	h.log.open = false
	return nil
}

// Cut syncs all, and then moves the base: on the media there is the old one or the
// new.
func (h *logHandle) Cut(index, term uint64) error {
	if err := h.dead(); err != nil {
		return err
	}
	d, l := h.disk, h.log
	if index <= l.cached.baseIndex {
		return nil
	}
	switch held, ok := l.cached.term(index); {
	case !ok || held != term:
		return messages.Errorf(messages.Code_INTERNAL, "the log holds no entry %d of term %d: it cannot be cut there", index, term)
	case index > l.cached.hardState.GetCommit():
		return messages.Errorf(messages.Code_INTERNAL, "the log cannot be cut at index %d: it is committed up to %d", index, l.cached.hardState.GetCommit())
	}
	if err := h.sync(); err != nil {
		return err
	}
	if err := d.fails(&d.faults.failCut, "cut the log"); err != nil {
		return h.fail(err)
	}
	if err := d.crashes(CrashBeforeCut); err != nil {
		return err
	}
	l.cached.cut(index, term)
	if l.clean == 0 {
		l.durable.cut(index, term)
	}
	l.testify()
	l.durableWitness = l.witness
	return d.crashes(CrashAfterCut)
}

// cut makes an entry the base.
func (s *logState) cut(index, term uint64) {
	s.entries = slices.Clone(s.entries[index-s.baseIndex:])
	s.baseIndex, s.baseTerm = index, term
}
