// Package badger keeps the rows of a node in Badger: unsynced but by Sync, and held
// against a seal when they are opened, since Badger takes a damaged file for a short one.
package badger

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// Keys in Badger begin with one byte that says whose they are, so that no key of
// a user can meet one of ours.
const (
	prefixUser   = 'u' // a user's key; its versions are revisions
	prefixEnd    = 'v' // behind all users' keys
	prefixMarker = 'm' // a marker: its number, big endian
	prefixFiller = 'w' // fills a memtable: a number, big endian
	ownVersion   = 1   // of every marker and filler
)

// Engine is the Engine over one Badger in managed mode: a version is a
// revision. Nothing is synced but by Sync, and no version is discarded above the
// floor, nor the newest at or below it.
type Engine struct {
	db         *badger.DB
	dir        string
	closed     atomic.Bool
	flattening flattening

	syncing    sync.Mutex // held by the one Sync under way
	reclaiming sync.Mutex // held by the one Reclaim under way

	mutex     sync.Mutex // guards what is below
	failed    error      // of the first write or sync that failed
	owner     string     // stands in each marker
	markers   uint64     // numbers of markers given out
	marked    bool       // a marker was written behind the last row
	unmarked  int        // bytes of rows since the last marker
	unsynced  uint64     // the lowest revision written since the last Sync began; 0: none
	pending   uint64     // the same, of the Sync under way
	seal      Seal       // what the last Sync made durable
	floor     uint64     // the highest one given to Discard
	discarded uint64     // the one that Badger has: the same, or one before
}

// Write is as disk.Engine says.
func (e *Engine) Write(rows []disk.Row) error {
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
	// Nothing here is synced.
	entries := make([]badger.Entry, len(rows), len(rows)+1)
	for i := range rows {
		entries[i] = entryOf(&rows[i])
	}
	if marker != 0 {
		entries = append(entries, markerEntry(marker, e.owner))
	}
	return e.endWrite(rows, marker, e.db.WriteVersions(entries))
}

func entryOf(r *disk.Row) badger.Entry {
	value := []byte(nil)
	if !r.Deleted {
		value = encodeValue(r)
	}
	return badger.NewVersion(userKey(r.Key), value, r.Revision, r.Deleted)
}

// userKey has room for its version.
func userKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)+8), prefixUser), key...)
}

func markerKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixMarker}, number)
}

func markerEntry(number uint64, owner string) badger.Entry {
	return badger.NewVersion(markerKey(number), []byte(owner), ownVersion, false)
}

// beginWrite gives out a marker's number if one is due, else 0.
func (e *Engine) beginWrite(rows []disk.Row) (marker uint64, err error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if err := e.check(); err != nil {
		return 0, err
	}
	for _, r := range rows {
		e.unmarked += len(r.Key) + len(r.Value)
	}
	if e.unmarked < markEveryBytes {
		return 0, nil
	}
	e.unmarked = 0
	e.markers++
	return e.markers, nil
}

func (e *Engine) endWrite(rows []disk.Row, marker uint64, err error) error {
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

// check is the first error, of ours or of Badger's; the mutex is held.
func (e *Engine) check() error {
	if e.failed == nil {
		e.failed = e.usable()
	}
	return e.failed
}

// fail keeps the first error; the mutex is held.
func (e *Engine) fail(what string, err error) error {
	if e.check() == nil {
		e.failed = durable.Error(what, err)
	}
	return e.failed
}

// Get is as disk.View says.
func (e *Engine) Get(key []byte, revision uint64) (row disk.Row, found bool, err error) {
	err = e.reading("read the state", func() error {
		row, found, err = e.get(key, revision)
		return err
	})
	if err != nil {
		return disk.Row{}, false, err
	}
	return row, found, nil
}

func (e *Engine) get(key []byte, revision uint64) (disk.Row, bool, error) {
	value, version, found, err := e.db.GetAt(userKey(key), revision)
	if err != nil {
		return disk.Row{}, false, damaged("key %q cannot be read: %v", key, err)
	}
	if !found {
		return disk.Row{}, false, nil
	}
	row := disk.Row{Key: bytes.Clone(key), Revision: version}
	if err := decodeValue(&row, value); err != nil {
		return disk.Row{}, false, err
	}
	row.Value = bytes.Clone(row.Value) // else it would keep a memtable
	return row, true, nil
}

// scanYieldRows is after how many rows a scan lets others run.
const scanYieldRows = 64

// Scan is as disk.View says.
func (e *Engine) Scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	return e.reading("read the state", func() error { return e.scan(from, to, revision, reverse, yield) })
}

func (e *Engine) scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	start, end := userKey(from), []byte{prefixEnd}
	if len(to) > 0 {
		end = userKey(to)
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
		row := disk.Row{Key: key[1:], Revision: item.Version()}
		more := false
		if err := readValue(item, &row, func() { more = yield(row) }); err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
	return nil
}

// readValue completes a row by its item's value, calls then with it, and reports a
// row that is not what was written.
func readValue(item *badger.Item, row *disk.Row, then func()) error {
	var rot error
	err := item.Value(func(value []byte) error {
		if rot = decodeValue(row, value); rot == nil {
			then()
		}
		return nil
	})
	if err != nil {
		return damaged("the value of %q cannot be read: %v", row.Key, err)
	}
	return rot
}

// Sync: a marker first, so that the memtable in use holds one; then every
// memtable's file and the directory. Badger's own Sync takes the newest only.
func (e *Engine) Sync() error {
	e.syncing.Lock()
	defer e.syncing.Unlock()
	markers, err := e.beginSync()
	if err != nil {
		return err
	}
	var seal Seal
	err = e.reading("sync the state", func() (err error) { // it looks into tables
		seal, err = sealFiles(e.db, e.dir, markers, e.seal)
		return err
	})
	return e.endSync(seal, err)
}

// beginSync marks the end of what is to be synced.
func (e *Engine) beginSync() (markers uint64, err error) {
	e.mutex.Lock()
	if err := e.check(); err != nil {
		defer e.mutex.Unlock()
		return 0, err
	}
	e.pending, e.unsynced = lowest(e.pending, e.unsynced), 0
	if e.marked {
		defer e.mutex.Unlock()
		return e.markers, nil
	}
	e.markers++
	markers, e.marked, e.unmarked = e.markers, true, 0
	e.mutex.Unlock()

	err = e.db.WriteVersions([]badger.Entry{markerEntry(markers, e.owner)})
	if err != nil {
		e.mutex.Lock()
		defer e.mutex.Unlock()
		return 0, e.fail("write the state", err)
	}
	return markers, nil
}

func (e *Engine) endSync(seal Seal, err error) error {
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

// SealFor is the seal for a checkpoint of this revision, which must be synced.
func (e *Engine) SealFor(revision uint64) (Seal, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if first := lowest(e.pending, e.unsynced); first != 0 && first <= revision {
		return Seal{}, messages.Errorf(messages.Code_INTERNAL, "the checkpoint of revision %d comes before a sync of the state from revision %d on", revision, first)
	}
	return e.seal, nil
}

// Closed reports whether the engine was closed. It may be asked beside everything else.
func (e *Engine) Closed() bool { return e.closed.Load() }

// Close ends a Reclaim, and lets go of the files.
func (e *Engine) Close() error {
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
