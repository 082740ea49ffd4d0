package badger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sys/unix"

	"keyval/messages"
	"keyval/storeactor/files/durable"
)

// How space comes back. Badger drops versions only where it compacts: of those at
// or below its discard timestamp, which is our floor, a compaction keeps the newest
// of a key, and not even that if it is a deletion with nothing underneath.
//
// Rows in use bring compactions with them, and so the space of their history comes
// back without our doing. But rows that nobody writes any more may stand in the
// last level for ever: no compaction begins there. Reclaim brings some about.
const (
	reclaimDead   = 8       // a table is worth it from 1/8 of dead bytes on
	reclaimFiller = 1 << 20 // bytes of a filling entry, nearly
	reclaimWait   = 10 * time.Second
	reclaimPause  = 10 * time.Millisecond
)

// Discard raises the floor.
//
// There is a defect in Badger to keep clear of. A compaction drops a deletion if no
// deeper level has the key; it does not look at the other tables of the first level. If
// two compactions of that level run at once, the one with the newer tables may drop a
// deletion while the other brings down the value that it deleted: the key is back. Two
// run at once only if that level has more than tablesMax tables, which happens after a
// restart. Then the floor waits.
func (e *Engine) Discard(floor uint64) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.floor = max(e.floor, floor)
	e.discard()
}

// discard hands the floor to Badger if it may have it; the mutex is held.
func (e *Engine) discard() {
	if e.discarded == e.floor || e.closed.Load() || e.db.Levels()[0].NumTables > tablesMax {
		return
	}
	e.discarded = e.floor
	e.db.SetDiscardTs(e.discarded)
}

// Size is that of the tables, and of what the memtables' files take by now.
func (e *Engine) Size() int64 {
	var size int64
	for _, l := range e.db.Levels() {
		size += l.Size
	}
	for _, name := range e.memTables() {
		var info unix.Stat_t
		if unix.Stat(name, &info) == nil {
			size += info.Blocks * 512
		}
	}
	return size
}

func (e *Engine) memTables() []string {
	// The pattern is well-formed, which is all that can be wrong.
	names, _ := filepath.Glob(filepath.Join(e.dir, "*"+memSuffix))
	return names
}

// Reclaim: the tables of the last level that hold much of what was discarded are
// touched; what is in memory, with these touches, is pushed out; and all levels
// are compacted into the last.
func (e *Engine) Reclaim() error {
	e.reclaiming.Lock()
	defer e.reclaiming.Unlock()
	e.mutex.Lock()
	e.discard()
	floor := e.discarded
	e.mutex.Unlock()
	if floor == 0 {
		return nil
	}
	if err := e.checkReclaim(); err != nil {
		return err
	}
	const what = "reclaim the space of the state"
	if err := e.reading(what, func() error { return e.reclaim(floor) }); err != nil {
		return durable.Error(what, err)
	}
	return e.refuseClosed() // it may have been called off
}

func (e *Engine) reclaim(floor uint64) error {
	touched, err := e.worth(floor)
	if err == nil {
		err = e.touch(touched)
	}
	if err == nil {
		err = e.pushDown()
	}
	if err == nil {
		err = e.flatten()
	}
	return err
}

// checkReclaim: a compaction writes anew before it removes, and may take in all
// there is; a full disk would end the process.
func (e *Engine) checkReclaim() error {
	if err := e.refuseClosed(); err != nil {
		return err
	}
	return durable.CheckRoom("reclaim the space of the state", e.dir, uint64(e.Size())+2*memTableBytes)
}

func (e *Engine) refuseClosed() error {
	if e.closed.Load() {
		return messages.Errorf(messages.Code_INTERNAL, "the state is closed")
	}
	return nil
}

// tally counts the bytes of the rows in one table's range.
type tally struct {
	table       badger.TableInfo
	total, dead int64
}

// worth finds tables of the last level whose range holds much that is dead: what
// stands behind a key's newest version at or below the floor, and that version
// itself if it is a deletion.
func (e *Engine) worth(floor uint64) ([][]byte, error) {
	last := lastLevel(e.db)
	if len(last) == 0 {
		return nil, nil
	}
	txn := e.db.NewTransactionAt(^uint64(0), false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	at := 0
	var key []byte
	settled := false // the key's newest version at or below the floor has passed
	for it.Seek([]byte{prefixUser}); it.Valid() && !e.closed.Load(); it.Next() {
		item := it.Item()
		for at < len(last) && bytes.Compare(item.Key(), y.ParseKey(last[at].table.Right)) > 0 {
			at++
		}
		if at == len(last) {
			break
		}
		if !bytes.Equal(key, item.Key()) {
			key, settled = append(key[:0], item.Key()...), false
		}
		dead := settled
		if !settled && item.Version() <= floor {
			settled, dead = true, item.IsDeletedOrExpired()
		}
		if bytes.Compare(key, y.ParseKey(last[at].table.Left)) >= 0 {
			last[at].add(item.EstimatedSize(), dead)
		}
	}
	var worth [][]byte
	for _, t := range last {
		if t.dead > 0 && t.dead*reclaimDead >= t.total {
			worth = append(worth, y.ParseKey(t.table.Left))
		}
	}
	return worth, nil
}

func (t *tally) add(size int64, dead bool) {
	t.total += size
	if dead {
		t.dead += size
	}
}

// lastLevel is the tables of users' keys in the last level, in order.
func lastLevel(db *badger.DB) (last []tally) {
	for _, t := range db.Tables() {
		if t.Level == db.Opts().MaxLevels-1 && t.Right[0] == prefixUser {
			last = append(last, tally{table: t})
		}
	}
	slices.SortFunc(last, func(a, b tally) int { return y.CompareKeys(a.table.Left, b.table.Left) })
	return last
}

// touch brings about a compaction of the tables that hold these keys: it writes a
// deletion of each key at revision 0. No read can see that, since no row is as old. A
// compaction that takes it down to the last level writes the table anew in whose range
// the key is.
func (e *Engine) touch(keys [][]byte) error {
	for keys := range slices.Chunk(keys, 1000) {
		batch := e.db.NewManagedWriteBatch()
		for _, key := range keys {
			if err := batch.DeleteAt(bytes.Clone(key), 0); err != nil {
				batch.Cancel()
				return err
			}
		}
		if err := e.fill(batch, 0); err != nil {
			return err
		}
	}
	return nil
}

// fill writes a batch together with a filling entry, which is as good as deleted.
func (e *Engine) fill(batch *badger.WriteBatch, number uint64) error {
	defer batch.Cancel()
	key := binary.BigEndian.AppendUint64([]byte{prefixFiller}, number)
	entry := badger.NewEntry(key, make([]byte, reclaimFiller-1024))
	entry.ExpiresAt = 1 // long ago
	if err := batch.SetEntryAt(entry, ownVersion); err != nil {
		return err
	}
	return batch.Flush()
}

// pushDown pushes memtables out until there is a table below the first level:
// Flatten takes a first level on its own for flat.
func (e *Engine) pushDown() error {
	for range tablesDue { // with so many, Badger compacts on its own
		if err := e.pushOut(); err != nil || e.below() {
			return err
		}
	}
	e.wait(e.below)
	return nil
}

// below reports whether the first level is not all there is.
func (e *Engine) below() bool {
	levels := e.db.Levels()
	return levels[0].NumTables == 0 || slices.ContainsFunc(levels[1:], func(l badger.LevelInfo) bool { return l.NumTables > 0 })
}

// wait waits for what Badger does on its own, in vain if need be.
func (e *Engine) wait(done func() bool) {
	for waited := time.Duration(0); waited < reclaimWait && !e.closed.Load() && !done(); waited += reclaimPause {
		time.Sleep(reclaimPause)
	}
}

// pushOut fills the memtable in use until there is a next one, which is the only
// way to make a table of it, and waits for that: it is the last of those that were there.
// The wait is bounded, since Badger may be slow, or have failed.
func (e *Engine) pushOut() error {
	full := e.db.MemTable()
	for number := uint64(1); number <= 2*memTableBytes/reclaimFiller && e.db.MemTable() == full; number++ {
		if err := e.fill(e.db.NewManagedWriteBatch(), number); err != nil {
			return err
		}
	}
	e.wait(func() bool { return !exists(full) })
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// flattening bounds a Flatten, which goes on as long as writes bring new tables and
// cannot be cancelled. But Flatten logs a line before each of its steps, in the caller's
// goroutine: so the logger ends it with a panic, which flatten recovers.
type flattening struct {
	steps atomic.Int64 // that are left
	stop  *atomic.Bool
}

var errFlattened = errors.New("flattened enough")

func (f *flattening) says(format string) {
	if strings.HasPrefix(format, flattenStep) && (f.stop.Load() || f.steps.Add(-1) < 0) {
		panic(errFlattened)
	}
}

// flatten compacts all levels into the last. Badger's own compactions stand still
// meanwhile and go on afterwards, however it ends.
func (e *Engine) flatten() (err error) {
	defer func() {
		if r := recover(); r != nil && r != errFlattened {
			panic(r)
		}
	}()
	// Enough to take each table of today through all levels, and those that come.
	e.flattening.steps.Store(64 + 8*int64(len(e.db.Tables())))
	return e.db.Flatten(1)
}
