// Package wal is a node's durable Raft log: etcd's write-ahead log, which cannot
// tell a torn end from a damaged one, and a witness beside it, which can.
package wal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// Log is the Log over etcd's WAL package and a witness.
type Log struct {
	wal     *wal.WAL
	dir     string
	witness *witnessFile
	step    func(string)        // told what was just done; for tests, which look at the files then
	synced  prometheus.Observer // told how long it took to make something durable, in seconds

	base      uint64 // index; entries start behind it
	index     uint64 // of the last entry that was saved, or the base
	term      uint64 // of the same
	terms     termRuns
	hardState *raftpb.HardState
	failed    error // of the first call that failed; the disk's state is unknown since

	syncedCommit atomic.Uint64 // of the last HardState that was surely synced
	closed       atomic.Bool
}

const dirName = "wal" // of the directory, in a generation's

// Metadata stands at the head of every segment: whose log it is.
func Metadata(clusterID, incarnation []byte) []byte {
	return fmt.Appendf(nil, "keyval log 1\ncluster %x\nincarnation %x\n", clusterID, incarnation)
}

// Create makes the log of a new generation and its witness, durably. Its base is the
// generation's checkpoint, and behind that it holds these entries: none, or those of the
// generation before, which were acknowledged. Term and vote are hs's, and so is the commit,
// as far as the log reaches; starts is how many processes were started on the generation
// before it.
func Create(generation string, at *messages.Checkpoint, hs *raftpb.HardState, entries []*raftpb.Entry, id *messages.Identity, starts uint64, logger *slog.Logger) error {
	if at.Index > 0 && at.ConfState == nil {
		return messages.Errorf(messages.Code_INVALID, "the checkpoint of index %d has no configuration", at.Index)
	}
	w, err := wal.Create(zapLogger(logger), filepath.Join(generation, dirName), Metadata(at.ClusterId, id.Incarnation))
	if err != nil {
		return err
	}
	base := &walpb.Snapshot{Index: new(at.Index), Term: new(at.Term), ConfState: at.ConfState}
	image := &disk.LogImage{BaseIndex: at.Index, BaseTerm: at.Term, Entries: entries}
	index, term := image.Last()
	image.HardState = &raftpb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(min(hs.GetCommit(), index))}
	hs = image.HardState
	err = errors.Join(image.Check(), w.SaveSnapshot(base), w.Save(hs, entries), w.Sync(), w.Close())
	if err != nil {
		return err
	}
	if err := durable.Sync(filepath.Join(generation, dirName)); err != nil {
		return err
	}
	return createWitness(generation, disk.Witness{
		BaseIndex: at.Index, BaseTerm: at.Term,
		Index: index, Term: term,
		HardTerm: hs.GetTerm(), Vote: hs.GetVote(), Commit: hs.GetCommit(), Starts: starts,
	})
}

// Open reads the log and holds it against its witness before anything is
// written, since opening for writing cuts off whatever looks like a torn end. What it
// returns is durable, also where a sync of the process before failed.
func Open(generation string, metadata []byte, step func(string), synced prometheus.Observer, logger *slog.Logger) (*Log, *disk.LogImage, error) {
	witness, err := openWitness(generation)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(generation, dirName)
	image, err := readLog(dir, witness.last, metadata, logger)
	if err != nil {
		witness.file.Close()
		return nil, nil, err
	}
	err = rewriteLast(dir)
	var w *wal.WAL
	if err == nil {
		w, err = openToAppend(dir, image, logger)
	}
	if err != nil {
		witness.file.Close()
		return nil, nil, err
	}
	l := &Log{wal: w, dir: dir, witness: witness, step: step, synced: synced,
		base: image.BaseIndex, terms: runsOf(image), hardState: proto.Clone(image.HardState).(*raftpb.HardState)}
	l.index, l.term = image.Last()
	if err := l.syncOpened(); err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, image, nil
}

// Read reads a log that nobody has open, and holds it against its witness. It changes
// nothing. Errors are as of Open.
func Read(generation string, metadata []byte, logger *slog.Logger) (*disk.LogImage, disk.Witness, error) {
	witness, found, err := ReadWitness(generation)
	if err == nil && !found {
		err = disk.Damaged("the log's witness in %s is missing", generation)
	}
	if err != nil {
		return nil, witness, err
	}
	image, err := readLog(filepath.Join(generation, dirName), witness, metadata, logger)
	return image, witness, err
}

// readLog reads all that can be read, changing nothing, and judges it.
func readLog(dir string, witness disk.Witness, metadata []byte, logger *slog.Logger) (image *disk.LogImage, err error) {
	// The package panics on records that pass their checksum and make no sense.
	defer func() {
		if r := recover(); r != nil {
			image, err = nil, disk.Damaged("the log %s cannot be read: %v", dir, r)
		}
	}()
	w, err := wal.OpenForRead(zapLogger(logger), dir, baseOf(witness))
	if err != nil {
		return nil, readError(dir, err)
	}
	// In this mode a torn end is no error, and a missing base is one; opened for
	// writing it is the other way round.
	found, hardState, entries, err := w.ReadAll()
	if err != nil {
		return nil, readError(dir, err)
	}
	if string(found) != string(metadata) {
		return nil, disk.Damaged("the log %s belongs to another node: it says %q, expected %q", dir, found, metadata)
	}
	image = &disk.LogImage{BaseIndex: witness.BaseIndex, BaseTerm: witness.BaseTerm, HardState: hardState, Entries: entries}
	if err := image.Check(); err != nil {
		return nil, err
	}
	return image, witness.Meet(image)
}

func baseOf(w disk.Witness) *walpb.Snapshot {
	return &walpb.Snapshot{Index: new(w.BaseIndex), Term: new(w.BaseTerm)}
}

func readError(dir string, err error) error {
	if durable.Refused(err) {
		return durable.Error("read the log", err)
	}
	return disk.Damaged("the log %s cannot be read: %v", dir, err)
}

// openToAppend opens a log that met its witness, repairing a torn end, and
// sees to it that this took nothing away.
func openToAppend(dir string, image *disk.LogImage, logger *slog.Logger) (*wal.WAL, error) {
	if err := dropUnfinished(dir); err != nil {
		return nil, durable.Error("remove unfinished parts of the log", err)
	}
	base := &walpb.Snapshot{Index: new(image.BaseIndex), Term: new(image.BaseTerm)}
	w, hardState, entries, err := openSegments(dir, base, logger)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if err := repair(dir, err, logger); err != nil {
			return nil, err
		}
		w, hardState, entries, err = openSegments(dir, base, logger)
	}
	if err != nil {
		return nil, readError(dir, err)
	}
	again := &disk.LogImage{BaseIndex: image.BaseIndex, BaseTerm: image.BaseTerm, HardState: hardState, Entries: entries}
	index, term := image.Last()
	if i, t := again.Last(); i != index || t != term || !proto.Equal(hardState, image.HardState) {
		w.Close()
		return nil, disk.Damaged("the log %s changed while it was opened: it ended at index %d, and now at %d", dir, index, i)
	}
	return w, nil
}

// repair cuts off a torn end. The WAL package keeps a copy of what was there, and does
// not say why it cannot.
func repair(dir string, torn error, logger *slog.Logger) error {
	const what = "repair the torn end of the log"
	names, err := segments(dir)
	if err != nil || len(names) == 0 {
		return durable.Error(what, errors.Join(torn, err))
	}
	last := filepath.Join(dir, names[len(names)-1])
	info, err := os.Stat(last)
	if err == nil {
		err = durable.CheckRoom(what, dir, uint64(info.Size()))
	}
	if err != nil {
		return durable.Error(what, err)
	}
	if wal.Repair(zapLogger(logger), dir) {
		return nil
	}
	if err := tryToRepair(last); durable.Refused(err) {
		return durable.Error(what, err)
	}
	return disk.Damaged("the torn end of the log %s cannot be repaired: %v", dir, torn)
}

// tryToRepair is what the operating system says when the files that a repair needs are
// opened.
func tryToRepair(segment string) error {
	for _, path := range []string{segment, segment + ".broken"} {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

func openSegments(dir string, base *walpb.Snapshot, logger *slog.Logger) (*wal.WAL, *raftpb.HardState, []*raftpb.Entry, error) {
	w, err := wal.Open(zapLogger(logger), dir, base)
	if err != nil {
		return nil, nil, nil, err
	}
	_, hardState, entries, err := w.ReadAll()
	if err != nil {
		w.Close()
		return nil, nil, nil, err
	}
	return w, hardState, entries, nil
}

// syncOpened makes durable what was read: the newest segment's name too may have been in
// the page cache only. Then it removes what a crash in a cut
// left. Saving the HardState again tells it to the WAL, which repeats it at the
// head of the next segment; the base likewise, whose index the WAL needs for the
// next segment's name while there is no entry.
func (l *Log) syncOpened() error {
	base := &walpb.Snapshot{Index: new(l.base), Term: new(l.terms.at(l.base)), ConfState: &raftpb.ConfState{}}
	if err := errors.Join(l.wal.Save(l.hardState, nil), l.wal.SaveSnapshot(base)); err != nil {
		return durable.Error("write the log", err)
	}
	if err := durable.Sync(l.dir); err != nil {
		return durable.Error("sync the log's directory", err)
	}
	if err := l.Sync(); err != nil {
		return err
	}
	if err := dropSegments(l.dir, l.base, l.step); err != nil {
		return durable.Error("remove old parts of the log", err)
	}
	return nil
}

// Save is as disk.Log says.
func (l *Log) Save(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if l.failed != nil {
		return l.failed
	}
	if err := disk.RefuseGap(l.base, l.index, entries); err != nil {
		return err
	}
	synced := len(entries) > 0 ||
		hs != nil && (hs.GetTerm() != l.hardState.GetTerm() || hs.GetVote() != l.hardState.GetVote())
	if hs != nil {
		hs = proto.Clone(hs).(*raftpb.HardState) // the WAL keeps it
	}
	begun := time.Now()
	if err := l.wal.Save(hs, entries); err != nil {
		return l.fail("write the log", err)
	}
	if synced {
		l.synced.Observe(time.Since(begun).Seconds())
	}
	if hs != nil {
		l.hardState = hs
	}
	if n := len(entries); n > 0 {
		l.index, l.term = entries[n-1].GetIndex(), entries[n-1].GetTerm()
		l.terms = l.terms.with(entries)
	}
	if !synced {
		return nil
	}
	return l.testify()
}

// testify writes the witness of all that was saved, which has just been synced.
func (l *Log) testify() error {
	w := l.witness.last
	w.BaseIndex, w.BaseTerm = l.base, l.terms.at(l.base)
	w.Index, w.Term = l.index, l.term
	w.HardTerm, w.Vote, w.Commit = l.hardState.GetTerm(), l.hardState.GetVote(), l.hardState.GetCommit()
	if err := l.witness.write(w); err != nil {
		return l.fail("write the log's witness", err)
	}
	l.syncedCommit.Store(w.Commit)
	return nil
}

// Sync is as disk.Log says.
func (l *Log) Sync() error {
	if l.failed != nil {
		return l.failed
	}
	begun := time.Now()
	if err := l.wal.Sync(); err != nil {
		return l.fail("sync the log", err)
	}
	l.synced.Observe(time.Since(begun).Seconds())
	if err := l.testify(); err != nil {
		return err
	}
	if err := l.witness.file.Sync(); err != nil {
		return l.fail("sync the log's witness", err)
	}
	return nil
}

// fail keeps the first error: after it nobody knows what the disk holds.
func (l *Log) fail(what string, err error) error {
	l.failed = durable.Error(what, err)
	return l.failed
}

// SyncedCommit is the commit index of the last HardState that was surely synced.
// It may be asked beside everything else, as Closed.
func (l *Log) SyncedCommit() uint64 { return l.syncedCommit.Load() }

// Closed reports whether the log was closed.
func (l *Log) Closed() bool { return l.closed.Load() }

// Close lets go of the files.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	if l.failed == nil {
		l.failed = messages.Errorf(messages.Code_INTERNAL, "the log is closed")
	}
	if err := errors.Join(l.wal.Close(), l.witness.file.Close()); err != nil {
		return durable.Error("close the log", err)
	}
	return nil
}
