package badger

import (
	"log/slog"
	"path/filepath"
	"runtime"
	"testing"

	"keyval/storeactor/disk"
)

// TestTablesAreNotMadeInMemory: a table goes to its file block by block. Badger kept
// all of it, twice, and all versions of a key are one table.
func TestTablesAreNotMadeInMemory(t *testing.T) {
	const (
		rows, value = 20, 512 << 10           // less than half a memtable: the next one is not made yet
		tables      = tablesDue + 1           // so many are compacted
		buffers     = 6 << 20                 // bytes: of a builder or two, no table
		arena       = memTableBytes * 13 / 10 // bytes: of the memtable that an engine begins with
	)
	dir := filepath.Join(t.TempDir(), "state")
	logger := slog.New(slog.DiscardHandler)
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	open := func() *Engine {
		e, err := Open(dir, Seal{}, logger)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	allocated := func(what string, most uint64, do func() error) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			t.Errorf("%s takes %d bytes of memory, %d are allowed", what, n, most)
		}
	}
	revision := uint64(0)
	for range tables { // the engine makes one when it is closed
		e := open()
		for range rows {
			revision++
			row := disk.Row{Key: []byte("key"), Value: make([]byte, value), Revision: revision, Created: 1, Version: revision}
			if err := e.Write([]disk.Row{row.Summed()}); err != nil {
				t.Fatal(err)
			}
		}
		allocated("to make a table of a memtable", buffers, e.Close)
	}
	allocated("to compact tables", arena+buffers, func() error {
		e := open()
		defer e.Close()
		if err := e.flatten(); err != nil {
			return err
		}
		if levels := e.db.Levels(); levels[len(levels)-1].Size < tables*rows*value {
			t.Errorf("the last level has %d bytes: not all were compacted into it", levels[len(levels)-1].Size)
		}
		return nil
	})
}
