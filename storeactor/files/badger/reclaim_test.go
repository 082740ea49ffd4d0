package badger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func newEngine(t *testing.T) *Engine {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	e, err := Open(dir, Seal{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// fillKeys writes rows of these keys with a value of some size.
func fillKeys(t *testing.T, e *Engine, from, to, size int, revision uint64, deleted bool) {
	t.Helper()
	for at := from; at < to; at += 1000 {
		var rows []disk.Row
		for i := at; i < min(to, at+1000); i++ {
			r := disk.Row{Key: fmt.Appendf(nil, "key%08d", i), Revision: revision, Deleted: deleted}
			if !deleted {
				r.Value = bytes.Repeat([]byte{byte(i), byte(revision)}, size/2)
			}
			rows = append(rows, r)
		}
		if err := e.Write(disktest.Whole(rows...)); err != nil {
			t.Fatal(err)
		}
	}
}

func countRows(t *testing.T, e *Engine, floor, revision uint64) (rows int) {
	t.Helper()
	if err := e.Export(disk.Cursor{}, floor, revision, func(disk.Row) bool { rows++; return true }); err != nil {
		t.Fatal(err)
	}
	return rows
}

// crashed opens what a process that was killed now would leave.
func crashed(t *testing.T, e *Engine, seal Seal) *Engine {
	t.Helper()
	left := filepath.Join(t.TempDir(), "state")
	if err := disktest.CopyDirectory(e.dir, left); err != nil {
		t.Fatal(err)
	}
	again, err := Open(left, seal, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

// Rows of the last level that no write ever meets again give their space back,
// and the seal from before, whose tables are gone for good, is kept to.
func TestReclaimOfOldRows(t *testing.T) {
	e := newEngine(t)
	const n = 40_000
	for revision := uint64(1); revision <= 4; revision++ {
		fillKeys(t, e, 0, n, 300, revision, false)
	}
	if err := errors.Join(e.Sync(), e.pushDown(), e.flatten()); err != nil {
		t.Fatal(err)
	}
	before := e.Size()
	if before < 4*n*300 || len(lastLevel(e.db)) < 4 {
		t.Fatalf("%d bytes in %d tables of the last level", before, len(lastLevel(e.db)))
	}
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	seal := e.seal
	e.Discard(4)
	if err := e.Reclaim(); err != nil {
		t.Fatal(err)
	}
	if after := e.Size(); after > before/3 {
		t.Errorf("of 4 versions 1 is left, and of %d bytes %d", before, after)
	}
	again := crashed(t, e, seal)
	if rows, there := countRows(t, e, 4, 4), countRows(t, again, 4, 4); rows != n || there != n {
		t.Errorf("%d and %d rows of %d", rows, there, n)
	}
	fillKeys(t, e, 0, n, 0, 5, true)
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	seal = e.seal
	e.Discard(5)
	if err := e.Reclaim(); err != nil {
		t.Fatal(err)
	}
	if after := e.Size(); after > before/20 {
		t.Errorf("nothing is left, and of %d bytes %d", before, after)
	}
	if rows, there := countRows(t, e, 0, 5), countRows(t, crashed(t, e, seal), 0, 5); rows != 0 || there != 0 {
		t.Errorf("%d and %d rows of none", rows, there)
	}
}

// Only tables with much that is dead are worth being written anew.
func TestReclaimIsSparing(t *testing.T) {
	e := newEngine(t)
	const n = 60_000
	fillKeys(t, e, 0, n, 300, 1, false)
	fillKeys(t, e, 0, n/4, 300, 2, false)      // much of the first quarter is dead
	fillKeys(t, e, n/2, n/2+10, 300, 2, false) // little of the third
	if err := errors.Join(e.pushDown(), e.flatten()); err != nil {
		t.Fatal(err)
	}
	quarter := fmt.Appendf(nil, "u")
	quarter = fmt.Appendf(quarter, "key%08d", n/4)
	for _, c := range []struct {
		floor    uint64
		expected bool
	}{{1, false}, {2, true}, {3, true}} {
		worth, err := e.worth(c.floor)
		if err != nil {
			t.Fatal(err)
		}
		if (len(worth) > 0) != c.expected || len(worth) == len(lastLevel(e.db)) {
			t.Errorf("floor %d: %d of %d tables", c.floor, len(worth), len(lastLevel(e.db)))
		}
		if slices.ContainsFunc(worth, func(left []byte) bool { return bytes.Compare(left, quarter) > 0 }) {
			t.Errorf("floor %d: %q", c.floor, worth)
		}
	}
}

// A touch is nothing to any read, before it is on its way and after.
func TestTouchesAreNotSeen(t *testing.T) {
	e := newEngine(t)
	rows := disktest.Whole(disk.Row{Key: []byte("a"), Value: []byte("1"), Revision: 1}, disk.Row{Key: []byte("b"), Value: []byte("2"), Revision: 2})
	if err := e.Write(disktest.Whole(rows...)); err != nil {
		t.Fatal(err)
	}
	if err := e.touch([][]byte{userKey([]byte("a")), userKey([]byte("aa")), userKey([]byte("c"))}); err != nil {
		t.Fatal(err)
	}
	reads := func() {
		t.Helper()
		if n := countRows(t, e, 0, 9); n != 2 {
			t.Errorf("an export has %d rows", n)
		}
		for _, reverse := range []bool{false, true} {
			for revision := range uint64(3) {
				n := 0
				if err := e.Scan(nil, nil, revision, reverse, func(disk.Row) bool { n++; return true }); err != nil || n != int(revision) {
					t.Errorf("a scan at %d has %d rows: %v", revision, n, err)
				}
			}
		}
		for key, expected := range map[string]bool{"a": true, "aa": false, "c": false} {
			if _, found, err := e.Get([]byte(key), 9); found != expected || err != nil {
				t.Errorf("%s: found %t, %v", key, found, err)
			}
		}
		if _, found, err := e.Get([]byte("a"), 0); found || err != nil {
			t.Errorf("found %t at revision 0, %v", found, err)
		}
	}
	reads()
	if err := errors.Join(e.pushDown(), e.flatten()); err != nil {
		t.Fatal(err)
	}
	reads()
	e.Discard(2)
	if err := e.Reclaim(); err != nil {
		t.Fatal(err)
	}
	reads()
}

// Reads and writes go on beside a Reclaim, and Close does not wait for its end.
func TestReclaimBesideEverything(t *testing.T) {
	e := newEngine(t)
	const n = 20_000
	fillKeys(t, e, 0, n, 500, 1, false)
	fillKeys(t, e, 0, n, 500, 2, false)
	if err := errors.Join(e.pushDown(), e.flatten()); err != nil {
		t.Fatal(err)
	}
	e.Discard(2)
	var group sync.WaitGroup
	ended := make(chan struct{})
	group.Go(func() {
		defer close(ended)
		for range 3 {
			if err := e.Reclaim(); err != nil {
				t.Error(err)
			}
		}
	})
	revision := uint64(2)
	for going := true; going; {
		revision++
		fillKeys(t, e, 0, 1000, 500, revision, false)
		if rows := countRows(t, e, 2, 2); rows != n {
			t.Errorf("%d rows of %d", rows, n)
		}
		if err := e.Sync(); err != nil {
			t.Error(err)
		}
		select {
		case <-ended:
			going = false
		default:
		}
	}
	group.Go(func() {
		for e.Reclaim() == nil {
			// until the engine is closed
		}
	})
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
	e.Discard(revision) // it is late, and does no harm
	if e.Size() == 0 {
		t.Error("a closed engine takes no space")
	}
}

func TestFlattenIsCalledOff(t *testing.T) {
	e := newEngine(t)
	fillKeys(t, e, 0, 10_000, 300, 1, false)
	if err := e.pushDown(); err != nil {
		t.Fatal(err)
	}
	fillKeys(t, e, 0, 10_000, 300, 2, false)
	if err := e.pushOut(); err != nil {
		t.Fatal(err)
	}
	tables := e.db.Tables()
	e.closed.Store(true)
	err := e.flatten()
	e.closed.Store(false)
	if err != nil || !slices.EqualFunc(tables, e.db.Tables(), func(a, b badger.TableInfo) bool { return a.ID == b.ID }) {
		t.Errorf("it went on: %v", err)
	}
	if err := e.flatten(); err != nil {
		t.Error(err)
	}
	if levels := e.db.Levels(); levels[0].NumTables > 0 {
		t.Errorf("%d tables are left in the first level", levels[0].NumTables)
	}
	if countRows(t, e, 0, 9) != 20_000 {
		t.Error("rows are lost")
	}
}

// While the first level holds more tables than it may once the engine runs, which
// only a restart can bring, Badger is not given the floor.
func TestDiscardWaitsForTheFirstLevel(t *testing.T) {
	if o := engineOptions("", quiet); o.NumLevelZeroTablesStall > 4 || o.NumVersionsToKeep != 1 {
		t.Fatal("two compactions of the first level at once could bring back what was deleted: see Discard")
	}
	e := newEngine(t)
	for revision := uint64(1); revision <= tablesMax+1; revision++ {
		fillKeys(t, e, 0, 100, 100, revision, false)
		if err := errors.Join(e.Sync(), e.Close()); err != nil {
			t.Fatal(err)
		}
		var err error
		// No compactions, so that tables add up.
		if e.db, err = openBadger(engineOptions(e.dir, quiet).WithNumCompactors(0)); err != nil {
			t.Fatal(err)
		}
		e.closed.Store(false)
		e.failed = nil
	}
	if n := e.db.Levels()[0].NumTables; n != tablesMax+1 {
		t.Fatalf("%d tables", n)
	}
	e.Discard(3)
	if e.discarded != 0 {
		t.Fatalf("Badger was given %d", e.discarded)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := Open(e.dir, e.seal, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.wait(e.below)
	e.Discard(3)
	if e.discarded != 3 {
		t.Fatalf("Badger was given %d", e.discarded)
	}
}

// A seal names only tables that cannot go for good.
// Badger empties the file of a table that a compaction has removed, before it unlinks it.
func TestSealPassesOverTablesThatGo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(table.NewFilename(1, dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		in   []uint64
		want messages.Code
	}{
		{nil, messages.Code_OK},
		{[]uint64{1}, messages.Code_DAMAGED},
		{[]uint64{2}, messages.Code_DAMAGED}, // its file is missing
	} {
		seal := Seal{Table: 2}
		err := seal.addTables(dir, []uint64{1, 2}, Seal{}, func(id uint64) bool { return slices.Contains(row.in, id) })
		if messages.CodeOf(err) != row.want || len(seal.Tables) > 0 {
			t.Errorf("%v are left: %v, %v", row.in, seal.Tables, err)
		}
	}
}

func TestSealNamesTablesWithMarkers(t *testing.T) {
	e := newEngine(t)
	fillKeys(t, e, 0, 1000, 100, 1, false)
	if err := errors.Join(e.Sync(), e.pushDown(), e.flatten()); err != nil {
		t.Fatal(err)
	}
	fillKeys(t, e, 0, 1000, 100, 2, true) // without a marker
	if err := e.pushOut(); err != nil {
		t.Fatal(err)
	}
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, info := range e.db.Tables() {
		if info.ID > e.seal.Table && info.Left[0] == prefixMarker {
			t.Errorf("%s begins with a marker, and the seal names table %d", table.IDToFilename(info.ID), e.seal.Table)
		}
		if info.ID == e.seal.Table && info.Left[0] != prefixMarker {
			t.Errorf("%s, which the seal names, begins with %q", table.IDToFilename(info.ID), info.Left)
		}
	}
	seal := e.seal
	e.Discard(2)
	if err := errors.Join(e.touch(nil), e.flatten()); err != nil {
		t.Fatal(err)
	}
	again := crashed(t, e, seal)
	if rows := countRows(t, again, 2, 2); rows != 0 {
		t.Errorf("%d rows are left", rows)
	}
}
