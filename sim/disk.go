package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor"
)

// ErrCrashed is what the handles of a process that has crashed answer.
var ErrCrashed = messages.Errorf(messages.Code_INTERNAL, "the simulated process has crashed")

// Disk is a node's data directory in memory: a storeactor.Disk with a page cache
// that outlives the process and media that outlive the power. It is used by one
// goroutine, and the same seed and calls give the same disk.
//
// After Close, Crash or PowerCut the same Disk stands for the directory as the
// next process opens it.
type Disk struct {
	rng        *rand.Rand
	process    uint64 // counts processes; handles of earlier ones are dead
	identity   *messages.Identity
	checkpoint *messages.Checkpoint // nil: not initialised
	log        diskLog
	engine     diskEngine
	faults     diskFaults
	onFault    func() // told when a fault meets the process; may be nil
	cause      string // what the process was told by the last of them
}

// diskFaults are the faults that were ordered and have not happened yet.
type diskFaults struct {
	failSave, failSync, crashInSave bool
	failReads                       int  // of the state, how many
	full                            bool // outlasts the process
	stateLost                       bool // so does this
}

// NewDisk makes an empty directory. rng decides what a crash takes.
func NewDisk(rng *rand.Rand) *Disk {
	return &Disk{rng: rng}
}

// Crash ends the process. What it wrote stays in the page cache, but for what
// it had not handed over yet.
func (d *Disk) Crash() {
	d.endProcess()
	d.log.dropBuffered(d.rng)
}

// PowerCut ends the process and loses what was never synced: of the log's saves
// any prefix stays, the last of it perhaps torn; of the engine's batches any
// subset; of the witness the old or the new.
func (d *Disk) PowerCut() {
	d.endProcess()
	d.log.powerCut(d.rng)
	d.engine.powerCut(d.rng)
}

// LoseMedia ends the process and leaves an empty directory.
func (d *Disk) LoseMedia() {
	d.endProcess()
	*d = Disk{rng: d.rng, process: d.process, onFault: d.onFault}
}

// LoseTail ends the process and takes the last n entries off the media, though
// they were synced: what a damaged log file looks like.
func (d *Disk) LoseTail(n int) {
	d.endProcess()
	d.log.powerCut(d.rng)
	d.log.durable.entries = d.log.durable.entries[:max(0, len(d.log.durable.entries)-n)]
	d.log.cached = d.log.durable.clone()
}

// LoseState ends the process and takes the engine's rows off the media, though
// they were synced.
func (d *Disk) LoseState() {
	d.endProcess()
	d.engine = diskEngine{}
	d.faults.stateLost = true
}

func (d *Disk) endProcess() {
	d.process++
	d.log.open, d.engine.open = false, false
	d.faults = diskFaults{full: d.faults.full, stateLost: d.faults.stateLost}
}

// strikes makes an error of a fault that meets the process now.
func (d *Disk) strikes(err *messages.Error) error {
	d.cause = err.Message
	if d.onFault != nil {
		d.onFault()
	}
	return err
}

// noRoom is what a full disk answers to whatever needs room on it.
func (d *Disk) noRoom(what string) error {
	if !d.faults.full {
		return nil
	}
	return d.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot write %s: no space left on device", what))
}

// Fill leaves no room on the disk, or makes room again.
func (d *Disk) Fill(full bool) { d.faults.full = full }

// FailNextReads lets the next reads of the state fail, so many of them.
func (d *Disk) FailNextReads(n int) { d.faults.failReads = n }

func (d *Disk) readFails() error {
	if d.faults.failReads == 0 {
		return nil
	}
	d.faults.failReads--
	return d.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot read the state: a simulated fault"))
}

// FailNextSave lets the next Save fail before it has written all; FailNextSync
// lets the next sync fail, also one within a Save. The log is of no use then.
func (d *Disk) FailNextSave() { d.faults.failSave = true }
func (d *Disk) FailNextSync() { d.faults.failSync = true }

// CrashInNextSave lets the next Save that needs a sync return ErrCrashed between
// its write and its sync. The world then calls Crash or PowerCut.
func (d *Disk) CrashInNextSave() { d.faults.crashInSave = true }

// Durable is what a power cut now would surely leave of the log.
func (d *Disk) Durable() (hardState *raftpb.HardState, lastIndex, lastTerm uint64) {
	lastIndex, lastTerm = d.log.durable.last()
	return proto.Clone(d.log.durable.hardState).(*raftpb.HardState), lastIndex, lastTerm
}

// Entry is the term of a durable entry, or of the base.
func (d *Disk) Entry(index uint64) (term uint64, ok bool) {
	return d.log.durable.term(index)
}

// Bytes is about what the disk holds, in bytes.
func (d *Disk) Bytes() int {
	n := d.engine.bytes
	for _, e := range d.log.cached.entries {
		n += len(e.GetData()) + 16
	}
	if d.checkpoint != nil {
		n += proto.Size(d.checkpoint)
	}
	return n
}

func (d *Disk) Identity() (*messages.Identity, error) {
	if d.identity == nil {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "the directory has no identity yet")
	}
	return proto.Clone(d.identity).(*messages.Identity), nil
}

func (d *Disk) WriteIdentity(id *messages.Identity) error {
	if d.identity != nil {
		return messages.Errorf(messages.Code_CONFLICT, "the directory has an identity already")
	}
	if err := d.noRoom("the identity"); err != nil {
		return err
	}
	d.identity = proto.Clone(id).(*messages.Identity)
	return nil
}

func (d *Disk) Initialised() (bool, error) { return d.checkpoint != nil, nil }

func (d *Disk) Initialise(first *messages.Checkpoint) error {
	switch {
	case d.identity == nil:
		return messages.Errorf(messages.Code_NOT_FOUND, "the directory has no identity yet")
	case d.checkpoint != nil:
		return messages.Errorf(messages.Code_CONFLICT, "the directory is initialised already")
	case first.Index > 0 && first.ConfState == nil:
		return messages.Errorf(messages.Code_INVALID, "the first checkpoint has no configuration")
	}
	if err := d.noRoom("the first checkpoint"); err != nil {
		return err
	}
	d.checkpoint = proto.Clone(first).(*messages.Checkpoint)
	d.log = newDiskLog(first.Index, first.Term)
	d.engine = diskEngine{}
	return nil
}

func (d *Disk) notInitialised() error {
	if d.checkpoint == nil {
		return messages.Errorf(messages.Code_NOT_FOUND, "the directory is not initialised")
	}
	return nil
}

func (d *Disk) Checkpoint() (*messages.Checkpoint, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	return proto.Clone(d.checkpoint).(*messages.Checkpoint), nil
}

func (d *Disk) WriteCheckpoint(c *messages.Checkpoint) error {
	if err := d.notInitialised(); err != nil {
		return err
	}
	switch first := d.engine.firstUnsynced(); {
	case c.Index < d.checkpoint.Index || c.Revision < d.checkpoint.Revision:
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint goes back from index %d to %d", d.checkpoint.Index, c.Index)
	case first != 0 && first <= c.Revision:
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint of revision %d comes before a sync of the state from revision %d on", c.Revision, first)
	case c.Index > d.log.durable.hardState.GetCommit():
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint of index %d comes before a synced commit: that is %d", c.Index, d.log.durable.hardState.GetCommit())
	}
	if err := d.noRoom("the checkpoint"); err != nil {
		return err
	}
	d.checkpoint = proto.Clone(c).(*messages.Checkpoint)
	return nil
}

// Close ends the process in good order; its handles are closed before.
func (d *Disk) Close() error {
	d.endProcess()
	return nil
}

// diskLog is a log as the page cache and as the media have it.
type diskLog struct {
	open           bool
	cached         logState
	durable        logState
	unsynced       []logSave // how cached came from durable, in order
	buffered       int       // saves at the end of unsynced that are still in the process
	witness        storeactor.Witness
	durableWitness storeactor.Witness
}

type logSave struct {
	hardState *raftpb.HardState // nil: unchanged
	entries   []*raftpb.Entry
}

func newDiskLog(index, term uint64) diskLog {
	s := logState{
		baseIndex: index, baseTerm: term,
		hardState: &raftpb.HardState{Term: new(term), Vote: new(uint64(0)), Commit: new(index)},
	}
	w := storeactor.Witness{BaseIndex: index, BaseTerm: term, Index: index, Term: term, HardTerm: term, Commit: index}
	return diskLog{cached: s, durable: s.clone(), witness: w, durableWitness: w}
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

func (l *diskLog) sync() {
	for _, save := range l.unsynced {
		l.durable.apply(save)
	}
	l.unsynced, l.buffered = nil, 0
}

// keep leaves the first n unsynced saves in the page cache, and torn entries of
// the one behind.
func (l *diskLog) keep(n, torn int) {
	rest := l.unsynced[n:]
	l.unsynced, l.buffered = l.unsynced[:n:n], 0
	if torn > 0 {
		l.unsynced = append(l.unsynced, logSave{entries: rest[0].entries[:torn:torn]})
	}
	l.cached = l.durable.clone()
	for _, save := range l.unsynced {
		l.cached.apply(save)
	}
}

// dropBuffered loses saves that the process had not written out yet.
func (l *diskLog) dropBuffered(rng *rand.Rand) {
	if l.buffered > 0 {
		l.keep(len(l.unsynced)-rng.IntN(l.buffered+1), 0)
	}
}

func (l *diskLog) powerCut(rng *rand.Rand) {
	if len(l.unsynced) > 0 {
		n, torn := rng.IntN(len(l.unsynced)+1), 0
		if n < len(l.unsynced) {
			torn = rng.IntN(len(l.unsynced[n].entries) + 1)
		}
		l.keep(n, torn)
		l.sync() // what is on the media now stays there
	}
	if l.witness != l.durableWitness {
		if rng.IntN(2) == 0 {
			l.witness = l.durableWitness
		}
		l.durableWitness = l.witness
	}
}

// testify is the witness of all that was synced.
func (l *diskLog) testify() {
	w := &l.witness
	w.Sequence++
	w.Index, w.Term = l.durable.last()
	hs := l.durable.hardState
	w.HardTerm, w.Vote, w.Commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
}

func (d *Disk) OpenLog() (storeactor.Log, *storeactor.LogImage, error) {
	if err := d.notInitialised(); err != nil {
		return nil, nil, err
	}
	l := &d.log
	if l.open {
		return nil, nil, messages.Errorf(messages.Code_CONFLICT, "the log is open already")
	}
	image := &storeactor.LogImage{
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
	h := &logHandle{disk: d, process: d.process}
	if err := h.Sync(); err != nil {
		return nil, nil, err
	}
	l.open = true
	return h, image, nil
}

// logHandle is a diskLog opened by one process.
type logHandle struct {
	disk    *Disk
	process uint64
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
	d, l := h.disk, &h.disk.log
	if err := l.refuseGap(entries); err != nil {
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
		d.faults.failSave = false
		l.tear(d.rng)
		return h.fail(d.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot write the log: a simulated fault")))
	case !mustSync:
		l.buffered++
		return nil
	case d.faults.full:
		l.tear(d.rng)
		return h.fail(d.noRoom("the log"))
	}
	l.buffered = 0
	if d.faults.crashInSave {
		d.faults.crashInSave = false
		return h.fail(d.strikes(ErrCrashed))
	}
	return h.sync()
}

// tear leaves a part of the last save's entries.
func (l *diskLog) tear(rng *rand.Rand) {
	n := len(l.unsynced) - 1
	l.keep(n, rng.IntN(len(l.unsynced[n].entries)+1))
}

func (l *diskLog) refuseGap(entries []*raftpb.Entry) error {
	last, _ := l.cached.last()
	next := last + 1
	for i, e := range entries {
		if i == 0 && e.GetIndex() > l.cached.baseIndex && e.GetIndex() <= next {
			next = e.GetIndex()
		}
		if e.GetIndex() != next {
			return messages.Errorf(messages.Code_INTERNAL, "the log (%d, %d] cannot take entry %d", l.cached.baseIndex, last, e.GetIndex())
		}
		next++
	}
	return nil
}

// sync makes the saves durable, and writes the witness of them.
func (h *logHandle) sync() error {
	l := &h.disk.log
	l.buffered = 0
	if h.disk.faults.failSync {
		h.disk.faults.failSync = false
		return h.fail(h.disk.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot sync the log: a simulated fault")))
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
	h.disk.log.durableWitness = h.disk.log.witness
	return nil
}

func (h *logHandle) Close() error {
	if h.process != h.disk.process {
		return nil
	}
	if h.failed == nil {
		h.disk.log.sync()
	}
	h.failed = messages.Errorf(messages.Code_INTERNAL, "the log is closed")
	h.disk.log.open = false
	return nil
}

// diskEngine is the rows, in order of keys and, within a key, of revisions.
type diskEngine struct {
	open     bool
	keys     []*diskKey
	unsynced []diskBatch
	bytes    int // of keys and values, all versions
}

type diskKey struct {
	key      string
	versions []diskVersion // revisions rise
}

type diskVersion struct {
	revision uint64
	value    []byte
	deleted  bool
	durable  bool
}

// diskBatch is what one Write added.
type diskBatch struct {
	first uint64 // its lowest revision
	rows  []diskRow
}

type diskRow struct {
	key      *diskKey
	revision uint64
}

func (d *Disk) OpenEngine(at *messages.Checkpoint) (storeactor.Engine, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	switch {
	case d.engine.open:
		return nil, messages.Errorf(messages.Code_CONFLICT, "the state is open already")
	case at.GetRevision() > d.checkpoint.Revision:
		return nil, messages.Errorf(messages.Code_INTERNAL, "the state cannot be opened at revision %d: the last checkpoint is of revision %d", at.GetRevision(), d.checkpoint.Revision)
	case d.faults.stateLost:
		return nil, messages.Errorf(messages.Code_DAMAGED, "the state is damaged: rows that were synced are gone").
			WithHint("put a new node in its place (kvctl cluster replace)")
	}
	d.engine.open = true
	return &engineHandle{disk: d, process: d.process}, nil
}

// find is where a key is, or would be.
func (e *diskEngine) find(key string) (int, bool) {
	at := sort.Search(len(e.keys), func(i int) bool { return e.keys[i].key >= key })
	return at, at < len(e.keys) && e.keys[at].key == key
}

func (k *diskKey) find(revision uint64) (int, bool) {
	// Most writes are of a newer revision than any before.
	at := len(k.versions)
	if at > 0 && k.versions[at-1].revision >= revision {
		at = sort.Search(at, func(i int) bool { return k.versions[i].revision >= revision })
	}
	return at, at < len(k.versions) && k.versions[at].revision == revision
}

// put adds a version. One that is there already is written once more by replay,
// which must write the same: a difference is a broken machine, and panics.
func (e *diskEngine) put(r storeactor.Row) *diskKey {
	at, found := e.find(string(r.Key))
	if !found {
		e.keys = slices.Insert(e.keys, at, &diskKey{key: string(r.Key)})
	}
	k := e.keys[at]
	v := diskVersion{revision: r.Revision, deleted: r.Deleted}
	if !r.Deleted {
		v.value = slices.Clone(r.Value)
	}
	i, found := k.find(r.Revision)
	if !found {
		k.versions = slices.Insert(k.versions, i, v)
		e.bytes += len(k.key) + len(v.value)
	} else if was := k.versions[i]; was.deleted != v.deleted || !bytes.Equal(was.value, v.value) {
		panic(fmt.Sprintf("key %q has two values at revision %d: %q (deleted %t), then %q (deleted %t)",
			k.key, r.Revision, was.value, was.deleted, v.value, v.deleted))
	}
	return k
}

func (e *diskEngine) firstUnsynced() uint64 {
	var first uint64
	for _, b := range e.unsynced {
		if first == 0 || b.first < first {
			first = b.first
		}
	}
	return first
}

// settle marks a batch's rows as durable.
func (b diskBatch) settle() {
	for _, r := range b.rows {
		if i, found := r.key.find(r.revision); found {
			r.key.versions[i].durable = true
		}
	}
}

// powerCut keeps any subset of the unsynced batches.
func (e *diskEngine) powerCut(rng *rand.Rand) {
	for _, b := range e.unsynced {
		if rng.IntN(2) == 0 {
			b.settle()
		}
	}
	for _, b := range e.unsynced {
		for _, r := range b.rows {
			e.drop(r)
		}
	}
	e.unsynced = nil
}

// drop removes a row that is not on the media.
func (e *diskEngine) drop(r diskRow) {
	i, found := r.key.find(r.revision)
	if !found || r.key.versions[i].durable {
		return
	}
	e.bytes -= len(r.key.key) + len(r.key.versions[i].value)
	r.key.versions = slices.Delete(r.key.versions, i, i+1)
	if len(r.key.versions) == 0 {
		at, _ := e.find(r.key.key)
		e.keys = slices.Delete(e.keys, at, at+1)
	}
}

// newest is a key's newest live version at or below a revision.
func (k *diskKey) newest(revision uint64) (storeactor.Row, bool) {
	i, found := k.find(revision)
	if !found {
		i--
	}
	if i < 0 || k.versions[i].deleted {
		return storeactor.Row{}, false
	}
	v := k.versions[i]
	return storeactor.Row{Key: []byte(k.key), Value: v.value, Revision: v.revision}, true
}

// engineHandle is a diskEngine opened by one process.
type engineHandle struct {
	disk    *Disk
	process uint64
	closed  bool
}

func (h *engineHandle) dead() error {
	switch {
	case h.process != h.disk.process:
		return ErrCrashed
	case h.closed:
		return messages.Errorf(messages.Code_INTERNAL, "the state is closed")
	}
	return nil
}

// Limits of a row, in bytes: those of the files.
const (
	diskKeyMax   = 65000 - 1
	diskValueMax = 1 << 20
)

func (h *engineHandle) Write(rows []storeactor.Row) error {
	if err := h.dead(); err != nil || len(rows) == 0 {
		return err
	}
	for _, r := range rows {
		if r.Revision == 0 || len(r.Key) > diskKeyMax || len(r.Value) >= diskValueMax {
			return messages.Errorf(messages.Code_INVALID, "a row without a revision, or above the bounds")
		}
	}
	if err := h.disk.noRoom("the state"); err != nil {
		return err
	}
	e := &h.disk.engine
	b := diskBatch{first: rows[0].Revision, rows: make([]diskRow, 0, len(rows))}
	for _, r := range rows {
		b.first = min(b.first, r.Revision)
		b.rows = append(b.rows, diskRow{key: e.put(r), revision: r.Revision})
	}
	e.unsynced = append(e.unsynced, b)
	return nil
}

// mayRead is why nothing can be read now.
func (h *engineHandle) mayRead() error {
	if err := h.dead(); err != nil {
		return err
	}
	return h.disk.readFails()
}

func (h *engineHandle) Get(key []byte, revision uint64) (storeactor.Row, bool, error) {
	if err := h.mayRead(); err != nil {
		return storeactor.Row{}, false, err
	}
	at, found := h.disk.engine.find(string(key))
	if !found {
		return storeactor.Row{}, false, nil
	}
	row, ok := h.disk.engine.keys[at].newest(revision)
	row.Value = slices.Clone(row.Value)
	return row, ok, nil
}

func (h *engineHandle) Scan(from, to []byte, revision uint64, reverse bool, yield func(storeactor.Row) bool) error {
	if err := h.mayRead(); err != nil {
		return err
	}
	keys := h.disk.engine.keys
	start, _ := h.disk.engine.find(string(from))
	end := len(keys)
	if len(to) > 0 {
		end, _ = h.disk.engine.find(string(to))
	}
	for n := range max(0, end-start) {
		at := start + n
		if reverse {
			at = end - 1 - n
		}
		if row, ok := keys[at].newest(revision); ok && !yield(row) {
			return nil
		}
	}
	return nil
}

func (h *engineHandle) Sync() error {
	if err := h.dead(); err != nil {
		return err
	}
	e := &h.disk.engine
	for _, b := range e.unsynced {
		b.settle()
	}
	e.unsynced = nil
	return nil
}

func (h *engineHandle) Close() error {
	if err := h.dead(); err != nil {
		return nil
	}
	err := h.Sync()
	h.closed, h.disk.engine.open = true, false
	return err
}
