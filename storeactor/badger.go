package storeactor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// Keys in Badger begin with one byte that says whose they are, so that no key of
// a user can meet one of ours.
const (
	engineUser    = 'u' // a user's key; its versions are revisions
	engineEnd     = 'v' // behind all users' keys
	engineMarker  = 'm' // a marker: its number, big endian
	engineFiller  = 'w' // fills a memtable: a number, big endian
	engineVersion = 1   // of every marker and filler
)

const (
	engineMemTable    = 32 << 20  // bytes of rows and their index
	engineMemTableMax = 64 << 20  // bytes that earlier versions let a memtable have
	engineMemTables   = 2         // that may wait to become tables
	engineTables      = 3         // of the first level: from here they are compacted
	engineTablesStall = 4         // of the first level: no more; see Discard for why not
	engineTable       = 4 << 20   // bytes of a table, at the first level that is in order
	engineLevel       = 128 << 20 // bytes of that level
	engineValueLog    = 2 << 20   // bytes; there are none in it
	engineMarkEvery   = 8 << 20   // bytes of rows between markers, far below a memtable
)

// badgerEngine is the Engine over one Badger in managed mode: a version is a
// revision. Nothing is synced but by Sync, and no version is discarded above the
// floor, nor the newest at or below it.
type badgerEngine struct {
	db         *badger.DB
	dir        string
	closed     atomic.Bool
	flattening flattening

	syncing    sync.Mutex // held by the one Sync under way
	reclaiming sync.Mutex // held by the one Reclaim under way

	mutex     sync.Mutex // guards what is below
	failed    error      // of the first write or sync that failed
	markers   uint64     // numbers of markers given out
	marked    bool       // a marker was written behind the last row
	unmarked  int        // bytes of rows since the last marker
	unsynced  uint64     // the lowest revision written since the last Sync began; 0: none
	pending   uint64     // the same, of the Sync under way
	seal      engineSeal // what the last Sync made durable
	floor     uint64     // the highest one given to Discard
	discarded uint64     // the one that Badger has: the same, or one before
}

// engineOptions: memory goes to memtables (one in use, one being made a table,
// those that wait), and to the builders of tables, which keep what the largest
// table took. Checksums are verified when a table is opened; later it is mapped.
func engineOptions(dir string, logger *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(false).
		WithDetectConflicts(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithMetricsEnabled(false).
		WithMemTableSize(engineMemTable).
		WithNumMemtables(engineMemTables).
		WithNumLevelZeroTables(engineTables).
		WithNumLevelZeroTablesStall(engineTablesStall).
		WithBaseTableSize(engineTable).
		WithBaseLevelSize(engineLevel).
		WithNumCompactors(2).
		WithValueThreshold(disk.ValueBytesMax + 1).
		WithValueLogFileSize(engineValueLog).
		WithNumVersionsToKeep(1).
		WithChecksumVerificationMode(options.OnTableRead).
		WithBypassLockGuard(true). // the directory has a lock of its own
		WithLogger(badgerLogger{logger: logger})
}

// createEngine makes an empty engine, durably.
func createEngine(dir string, logger *slog.Logger) error {
	if err := durable.MakeDirectory(dir); err != nil {
		return err
	}
	db, err := badger.OpenManaged(engineOptions(dir, logger))
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return durable.SyncDirectory(dir)
}

// openEngine opens the rows and holds them against the seal of the checkpoint
// that replay will start from: first the files, which Badger would silently cut
// short or delete, then the markers that a lost file would have taken along.
func openEngine(dir string, seal engineSeal, logger *slog.Logger) (*badgerEngine, error) {
	if err := seal.checkTables(dir); err != nil {
		return nil, err
	}
	if err := seal.checkMemTables(dir); err != nil {
		return nil, err
	}
	if err := dropEmptyFiles(dir); err != nil {
		return nil, err
	}
	if err := shrinkMemTables(dir, logger); err != nil {
		return nil, err
	}
	e := &badgerEngine{dir: dir, markers: seal.Markers, marked: true, seal: seal}
	e.flattening.stop = &e.closed
	options := engineOptions(dir, logger).WithLogger(badgerLogger{logger, e.flattening.says})
	var err error
	if e.db, err = openBadger(options); err != nil {
		return nil, err
	}
	if err := seal.checkMarkers(e.db); err != nil {
		e.db.Close()
		return nil, err
	}
	return e, nil
}

// dropEmptyFiles removes files that a power cut left with a name and not a byte,
// over which Badger would not open. Where a byte was lost, the markers tell.
func dropEmptyFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if suffix := filepath.Ext(e.Name()); suffix != memSuffix && suffix != ".vlog" {
			continue
		}
		info, infoErr := e.Info()
		if infoErr == nil && info.Size() == 0 {
			infoErr = os.Remove(filepath.Join(dir, e.Name()))
		}
		err = errors.Join(err, infoErr)
	}
	if err != nil {
		return durable.Error("open the state", err)
	}
	return nil
}

// shrinkMemTables makes tables of memtable files with more in them than Badger has
// room for now; it would end the process over them.
func shrinkMemTables(dir string, logger *slog.Logger) error {
	need, err := memTablesNeed(dir)
	if err != nil {
		return durable.Error("read the state", err)
	}
	if need <= engineMemTable {
		return nil
	}
	db, err := openBadger(engineOptions(dir, logger).WithMemTableSize(engineMemTableMax))
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return durable.Error("open the state", err)
	}
	return nil
}

func openBadger(options badger.Options) (db *badger.DB, err error) {
	dir := options.Dir
	// Badger panics on some damaged files.
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, engineDamaged("%s cannot be opened: %v", dir, r)
		}
	}()
	db, err = badger.OpenManaged(options)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, os.ErrPermission):
		return nil, durable.Error("open the state", err)
	}
	return nil, engineDamaged("%s cannot be opened: %v", dir, err)
}

func engineDamaged(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, "the state is damaged: "+format, args...).
		WithHint("keep the directory for inspection; the other nodes serve on without this one")
}

func (e *badgerEngine) Write(rows []disk.Row) error {
	if len(rows) == 0 {
		return nil
	}
	if err := disk.CheckRows(rows); err != nil {
		return err
	}
	marker, err := e.beginWrite(rows)
	if err != nil {
		return err
	}
	// The batch splits itself where it outgrows a transaction; nothing here is
	// synced, and Flush returns when the last part can be read.
	batch := e.db.NewManagedWriteBatch()
	defer batch.Cancel()
	for _, r := range rows {
		if err == nil {
			err = addRow(batch, r)
		}
	}
	if err == nil && marker != 0 {
		err = batch.SetEntryAt(markerEntry(marker), engineVersion)
	}
	if err == nil {
		err = batch.Flush()
	}
	return e.endWrite(rows, marker, err)
}

func addRow(batch *badger.WriteBatch, r disk.Row) error {
	key := engineKey(r.Key)
	if r.Deleted {
		return batch.DeleteAt(key, r.Revision)
	}
	return batch.SetEntryAt(badger.NewEntry(key, bytes.Clone(r.Value)), r.Revision)
}

func engineKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), engineUser), key...)
}

func markerKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{engineMarker}, number)
}

func markerEntry(number uint64) *badger.Entry {
	return badger.NewEntry(markerKey(number), nil)
}

// beginWrite gives out a marker's number if one is due, else 0.
func (e *badgerEngine) beginWrite(rows []disk.Row) (marker uint64, err error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.failed != nil {
		return 0, e.failed
	}
	for _, r := range rows {
		e.unmarked += len(r.Key) + len(r.Value)
	}
	if e.unmarked < engineMarkEvery {
		return 0, nil
	}
	e.unmarked = 0
	e.markers++
	return e.markers, nil
}

func (e *badgerEngine) endWrite(rows []disk.Row, marker uint64, err error) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if err != nil {
		return e.fail("write the state", err)
	}
	e.marked = false
	for _, r := range rows {
		if e.unsynced == 0 || r.Revision < e.unsynced {
			e.unsynced = r.Revision
		}
	}
	return nil
}

// fail keeps the first error; the mutex is held.
func (e *badgerEngine) fail(what string, err error) error {
	if e.failed == nil {
		e.failed = durable.Error(what, err)
	}
	return e.failed
}

func (e *badgerEngine) Get(key []byte, revision uint64) (disk.Row, bool, error) {
	txn := e.db.NewTransactionAt(revision, false)
	defer txn.Discard()
	item, err := txn.Get(engineKey(key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return disk.Row{}, false, nil
	}
	if err != nil {
		return disk.Row{}, false, engineDamaged("key %q cannot be read: %v", key, err)
	}
	value, err := item.ValueCopy(nil)
	if err != nil {
		return disk.Row{}, false, engineDamaged("the value of %q cannot be read: %v", key, err)
	}
	return disk.Row{Key: bytes.Clone(key), Value: value, Revision: item.Version()}, true, nil
}

// scanYieldRows is after how many rows a scan lets others run.
const scanYieldRows = 64

func (e *badgerEngine) Scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	start, end := engineKey(from), []byte{engineEnd}
	if len(to) > 0 {
		end = engineKey(to)
	}
	txn := e.db.NewTransactionAt(revision, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Reverse: reverse})
	defer it.Close()
	seek := start
	if reverse {
		seek = end
	}
	seen := 0
	runtime.Gosched() // scans that follow each other without a pause must not keep the cores from commands
	for it.Seek(seek); it.Valid(); it.Next() {
		if seen++; seen%scanYieldRows == 0 {
			runtime.Gosched()
		}
		item := it.Item()
		key := item.Key()
		if reverse && bytes.Compare(key, end) >= 0 {
			continue // the end itself is outside
		}
		if bytes.Compare(key, start) < 0 || bytes.Compare(key, end) >= 0 {
			return nil
		}
		more := false
		err := item.Value(func(value []byte) error {
			more = yield(disk.Row{Key: key[1:], Value: value, Revision: item.Version()})
			return nil
		})
		if err != nil {
			return engineDamaged("the value of %q cannot be read: %v", key[1:], err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// Sync: a marker first, so that the memtable in use holds one; then every
// memtable's file and the directory. Badger's own Sync takes the newest only.
func (e *badgerEngine) Sync() error {
	e.syncing.Lock()
	defer e.syncing.Unlock()
	markers, err := e.beginSync()
	if err != nil {
		return err
	}
	seal, err := sealEngine(e.db, e.dir, markers, e.seal)
	return e.endSync(seal, err)
}

// beginSync marks the end of what is to be synced.
func (e *badgerEngine) beginSync() (markers uint64, err error) {
	e.mutex.Lock()
	if e.failed != nil {
		defer e.mutex.Unlock()
		return 0, e.failed
	}
	e.pending, e.unsynced = lowest(e.pending, e.unsynced), 0
	if e.marked {
		defer e.mutex.Unlock()
		return e.markers, nil
	}
	e.markers++
	markers, e.marked, e.unmarked = e.markers, true, 0
	e.mutex.Unlock()

	batch := e.db.NewManagedWriteBatch()
	defer batch.Cancel()
	err = batch.SetEntryAt(markerEntry(markers), engineVersion)
	if err == nil {
		err = batch.Flush()
	}
	if err != nil {
		e.mutex.Lock()
		defer e.mutex.Unlock()
		return 0, e.fail("write the state", err)
	}
	return markers, nil
}

func (e *badgerEngine) endSync(seal engineSeal, err error) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if err != nil {
		return e.fail("sync the state", err)
	}
	e.pending, e.seal = 0, seal
	e.discard()
	return nil
}

// lowest of two revisions of which 0 is none.
func lowest(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// sealFor is the seal for a checkpoint of this revision, which must be synced.
func (e *badgerEngine) sealFor(revision uint64) (engineSeal, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if first := lowest(e.pending, e.unsynced); first != 0 && first <= revision {
		return engineSeal{}, messages.Errorf(messages.Code_INTERNAL, "the checkpoint of revision %d comes before a sync of the state from revision %d on", revision, first)
	}
	return e.seal, nil
}

func (e *badgerEngine) Close() error {
	if e.closed.Swap(true) { // which ends a Reclaim
		return nil
	}
	e.reclaiming.Lock()
	defer e.reclaiming.Unlock()
	e.syncing.Lock()
	defer e.syncing.Unlock()
	e.mutex.Lock()
	if e.failed == nil {
		e.failed = messages.Errorf(messages.Code_INTERNAL, "the state is closed")
	}
	e.mutex.Unlock()
	if err := e.db.Close(); err != nil {
		return durable.Error("close the state", err)
	}
	return nil
}

// badgerLogger lets Badger speak through our logger, its chatter as detail.
type badgerLogger struct {
	logger *slog.Logger
	says   func(format string) // hears what is about to happen; nil: nobody does
}

func badgerLine(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}

func (l badgerLogger) Errorf(format string, args ...any) { l.logger.Error(badgerLine(format, args)) }
func (l badgerLogger) Warningf(format string, args ...any) {
	l.logger.Warn(badgerLine(format, args))
}
func (l badgerLogger) Infof(format string, args ...any) {
	if l.says != nil {
		l.says(format)
	}
	l.Debugf(format, args...)
}

func (l badgerLogger) Debugf(format string, args ...any) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug(badgerLine(format, args))
	}
}
