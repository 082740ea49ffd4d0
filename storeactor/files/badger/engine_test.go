package badger

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// fillEngine writes rows of these revisions, 1 KiB each.
func fillEngine(t *testing.T, e disk.Engine, from, to uint64) {
	t.Helper()
	for revision := from; revision <= to; revision++ {
		r := disk.Row{Key: fmt.Appendf(nil, "key%d", revision), Value: bytes.Repeat([]byte{byte(revision)}, 1024), Revision: revision}
		if err := e.Write(disktest.Whole(r)); err != nil {
			t.Fatal(err)
		}
	}
}

// makeEngine makes an engine's files with revisions 1 to 100 synced and 101 to
// 150 not; flushed: the first 50 are in a table.
func makeEngine(t *testing.T, flushed bool) (dir string, seal Seal) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	e, err := Open(dir, seal, quiet)
	if err != nil {
		t.Fatal(err)
	}
	fillEngine(t, e, 1, 50)
	if flushed {
		if err := errors.Join(e.Sync(), e.Close()); err != nil {
			t.Fatal(err)
		}
		if e, err = Open(dir, e.seal, quiet); err != nil {
			t.Fatal(err)
		}
	}
	fillEngine(t, e, 51, 100)
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	if seal, err = e.SealFor(100); err != nil {
		t.Fatal(err)
	}
	fillEngine(t, e, 101, 150)
	left := filepath.Join(t.TempDir(), "state")
	if err := disktest.CopyDirectory(dir, left); err != nil { // what a killed process leaves
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return left, seal
}

func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[0]
}

func TestEngineDamageIsRefused(t *testing.T) {
	sealed := func(s Seal) int64 { return s.MemTables[0].Length }
	for _, c := range []struct {
		name     string
		flushed  bool
		change   func(t *testing.T, dir string, seal Seal)
		expected messages.Code
	}{
		{"whole", false, func(*testing.T, string, Seal) {}, messages.Code_OK},
		{"whole, with a table", true, func(*testing.T, string, Seal) {}, messages.Code_OK},
		{"unsynced rows damaged", false, func(t *testing.T, dir string, seal Seal) {
			disktest.FlipAt(t, only(t, dir, "*.mem"), sealed(seal)+30)
		}, messages.Code_OK},
		{"unsynced rows gone", false, func(t *testing.T, dir string, seal Seal) {
			os.Truncate(only(t, dir, "*.mem"), sealed(seal))
		}, messages.Code_OK},
		{"a new memtable without a byte", false, func(t *testing.T, dir string, _ Seal) {
			disktest.WriteFile(t, filepath.Join(dir, "00009.mem"), "") // made, and then the power failed
		}, messages.Code_OK},
		{"a new value log without a byte", true, func(t *testing.T, dir string, _ Seal) {
			disktest.WriteFile(t, filepath.Join(dir, "000009.vlog"), "")
		}, messages.Code_OK},
		{"no MANIFEST", true, func(t *testing.T, dir string, _ Seal) {
			os.Remove(filepath.Join(dir, badger.ManifestFilename))
		}, messages.Code_DAMAGED},
		{"MANIFEST empty", true, func(t *testing.T, dir string, _ Seal) {
			os.Truncate(filepath.Join(dir, badger.ManifestFilename), 0)
		}, messages.Code_DAMAGED},
		{"MANIFEST without its tables", true, func(t *testing.T, dir string, _ Seal) {
			os.Truncate(filepath.Join(dir, badger.ManifestFilename), 8)
		}, messages.Code_DAMAGED},
		{"MANIFEST altered", true, func(t *testing.T, dir string, _ Seal) {
			disktest.FlipAt(t, filepath.Join(dir, badger.ManifestFilename), 20)
		}, messages.Code_DAMAGED},
		{"a whole table of other rows", true, func(t *testing.T, dir string, _ Seal) {
			other := filepath.Join(t.TempDir(), "state")
			if err := create(other); err != nil {
				t.Fatal(err)
			}
			e, err := Open(other, Seal{}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			fillEngine(t, e, 1, 30)
			if err := errors.Join(e.Sync(), e.Close()); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(only(t, other, "*.sst"))
			if err != nil {
				t.Fatal(err)
			}
			disktest.WriteFile(t, only(t, dir, "*.sst"), string(b))
		}, messages.Code_DAMAGED},
		{"memtable gone", false, func(t *testing.T, dir string, _ Seal) {
			os.Remove(only(t, dir, "*.mem"))
		}, messages.Code_DAMAGED},
		{"memtable gone beside a table", true, func(t *testing.T, dir string, _ Seal) {
			os.Remove(only(t, dir, "*.mem"))
		}, messages.Code_DAMAGED},
		{"memtable empty", false, func(t *testing.T, dir string, _ Seal) {
			os.Truncate(only(t, dir, "*.mem"), 0)
		}, messages.Code_DAMAGED},
		{"memtable cut", false, func(t *testing.T, dir string, seal Seal) {
			os.Truncate(only(t, dir, "*.mem"), sealed(seal)-1)
		}, messages.Code_DAMAGED},
		{"first row altered", false, func(t *testing.T, dir string, _ Seal) {
			disktest.FlipAt(t, only(t, dir, "*.mem"), 100)
		}, messages.Code_DAMAGED},
		{"last synced row altered", false, func(t *testing.T, dir string, seal Seal) {
			disktest.FlipAt(t, only(t, dir, "*.mem"), sealed(seal)-500)
		}, messages.Code_DAMAGED},
		{"size of the first row altered", false, func(t *testing.T, dir string, _ Seal) {
			disktest.FlipAt(t, only(t, dir, "*.mem"), memHead+3)
		}, messages.Code_DAMAGED},
		{"table gone", true, func(t *testing.T, dir string, _ Seal) {
			os.Remove(only(t, dir, "*.sst"))
		}, messages.Code_DAMAGED},
		{"table altered", true, func(t *testing.T, dir string, _ Seal) {
			disktest.FlipAt(t, only(t, dir, "*.sst"), 3000)
		}, messages.Code_DAMAGED},
		{"table cut", true, func(t *testing.T, dir string, _ Seal) {
			os.Truncate(only(t, dir, "*.sst"), 5000)
		}, messages.Code_DAMAGED},
		{"all files gone but an empty start", true, func(t *testing.T, dir string, _ Seal) {
			if err := errors.Join(os.RemoveAll(dir), create(dir)); err != nil {
				t.Fatal(err)
			}
		}, messages.Code_DAMAGED},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, seal := makeEngine(t, c.flushed)
			c.change(t, dir, seal)
			tables := tableSizes(t, dir)
			e, err := Open(dir, seal, quiet)
			if messages.CodeOf(err) != c.expected {
				t.Fatalf("got %v, expected %v", err, c.expected)
			}
			if err != nil {
				if left := tableSizes(t, dir); !maps.Equal(left, tables) {
					t.Fatalf("tables %v were there, and %v are left", tables, left)
				}
				return
			}
			for revision := uint64(1); revision <= 100; revision++ {
				if _, found, err := e.Get(fmt.Appendf(nil, "key%d", revision), 100); !found || err != nil {
					t.Errorf("revision %d: found %t, %v", revision, found, err)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// tableSizes are the tables that are there. One that was refused stays as it was.
func tableSizes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	sizes, err := disktest.FileSizes(dir)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(sizes, func(name string, _ int64) bool { return filepath.Ext(name) != ".sst" })
	return sizes
}

// Names of memtable files come again; a seal of an older one must not be held
// against its namesake.
func TestSealOutlivesItsMemTables(t *testing.T) {
	dir, seal := makeEngine(t, true)
	e, err := Open(dir, seal, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil { // its memtables become tables
		t.Fatal(err)
	}
	if e, err = Open(dir, seal, quiet); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if only(t, dir, "*.mem") != filepath.Join(dir, seal.MemTables[0].Name) {
		t.Skip("names of memtable files do not come again")
	}
	left := filepath.Join(t.TempDir(), "state")
	if err := disktest.CopyDirectory(dir, left); err != nil {
		t.Fatal(err)
	}
	again, err := Open(left, seal, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSyncBesideWrites(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	e, err := Open(dir, Seal{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	written := make(chan uint64)
	group.Go(func() {
		defer close(written)
		// More than one memtable, so that files come and go under the sync.
		for revision := uint64(1); revision <= 400; revision++ {
			r := disk.Row{Key: fmt.Appendf(nil, "key%d", revision), Value: make([]byte, 256<<10), Revision: revision}
			if err := e.Write(disktest.Whole(r)); err != nil {
				t.Error(err)
				return
			}
			written <- revision
		}
	})
	var seal Seal
	var last uint64
	for revision := range written {
		if revision%60 != 0 {
			continue
		}
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		if seal, err = e.SealFor(revision); err != nil {
			t.Fatal(err)
		}
		last = revision
	}
	group.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(dir, seal, quiet); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if seal.Markers < 10 {
		t.Errorf("only %d markers in 100 MiB", seal.Markers)
	}
	for revision := uint64(1); revision <= last; revision++ {
		if _, found, err := e.Get(fmt.Appendf(nil, "key%d", revision), last); !found || err != nil {
			t.Fatalf("revision %d: found %t, %v", revision, found, err)
		}
	}
}
