package badger

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"keyval/storeactor/disk"
)

// No write waits until there is a next memtable: it is made before. And replicas, which
// write the same, do not all fill one up at the same row.
func TestTheNextMemTableIsThereBeforeItIsNeeded(t *testing.T) {
	const memTables, value = 5, 128 << 10
	dir := filepath.Join(t.TempDir(), "state")
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	e, err := Open(dir, Seal{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	revision := uint64(0)
	var rows []int // of each memtable
	for range memTables {
		inUse, there := e.db.MemTable(), false
		rows = append(rows, 0)
		for e.db.MemTable() == inUse {
			rows[len(rows)-1]++
			revision++
			row := disk.Row{Key: []byte("key"), Value: make([]byte, value), Revision: revision, Created: 1, Version: revision}
			if err := e.Write([]disk.Row{row.Summed()}); err != nil {
				t.Fatal(err)
			}
			if rows[len(rows)-1]*value < memTableBytes/4*3 || there { // the least that one takes
				continue
			}
			for end := time.Now().Add(5 * time.Second); !there && e.db.MemTable() == inUse && time.Now().Before(end); {
				there = slices.ContainsFunc(e.memTables(), func(name string) bool { return name > inUse })
				time.Sleep(time.Millisecond)
			}
		}
		if !there {
			t.Errorf("when %s was full, the next memtable was not there", inUse)
		}
	}
	slices.Sort(rows)
	if len(slices.Compact(rows)) == 1 || rows[len(rows)-1]*value > memTableBytes+2*value {
		t.Errorf("memtables took %v rows of %d bytes", rows, value)
	}
}
