package badger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func beginStaging(t *testing.T) *Staging {
	t.Helper()
	s, err := Stage(filepath.Join(t.TempDir(), "state"), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed stages rows and opens the engine that they make.
func sealed(t *testing.T, rows []disk.Row) (string, Seal) {
	t.Helper()
	s := beginStaging(t)
	for len(rows) > 0 {
		n := min(len(rows), 100)
		if err := s.Write(rows[:n]); err != nil {
			t.Fatal(err)
		}
		rows = rows[n:]
	}
	seal, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return s.dir, seal
}

// stagedRows are n keys of three versions each, of which the middle one is a deletion.
func stagedRows(n int, size int) []disk.Row {
	var rows []disk.Row
	for i := range n {
		key := fmt.Appendf(nil, "key%08d", i)
		for revision := uint64(30); revision > 0; revision -= 10 {
			r := disk.Row{Key: key, Revision: revision + uint64(i%7), Deleted: revision == 20}
			if !r.Deleted {
				r.Value = bytes.Repeat([]byte{byte(i)}, size)
			}
			rows = append(rows, r)
		}
	}
	return disktest.Whole(rows...)
}

func TestStagedRowsReadBack(t *testing.T) {
	for _, rows := range [][]disk.Row{nil, disktest.Whole(disk.Row{Revision: 1}), stagedRows(1, 10), stagedRows(30_000, 500)} {
		t.Run(fmt.Sprint(len(rows)), func(t *testing.T) {
			dir, seal := sealed(t, rows)
			e, err := Open(dir, seal, quiet)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			at := 0
			err = e.Export(disk.Cursor{}, 0, 1000, func(r disk.Row) bool {
				if at == len(rows) || !sameRow(r, rows[at]) {
					t.Fatalf("row %d is %q at %d", at, r.Key, r.Revision)
				}
				at++
				return true
			})
			if err != nil || at != len(rows) {
				t.Fatalf("%d of %d rows: %v", at, len(rows), err)
			}
			// It is an engine like any other.
			fillEngine(t, e, 2000, 2010)
			if err := e.Sync(); err != nil {
				t.Fatal(err)
			}
			again := e.seal
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if e, err = Open(dir, again, quiet); err != nil {
				t.Fatal(err)
			}
			if _, found, err := e.Get([]byte("key2000"), 3000); !found || err != nil {
				t.Fatalf("found %t, %v", found, err)
			}
		})
	}
}

func sameRow(a, b disk.Row) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Revision == b.Revision && a.Deleted == b.Deleted
}

func TestStagedRowsComeInOrder(t *testing.T) {
	row := func(key string, revision uint64) disk.Row { return disk.Row{Key: []byte(key), Revision: revision} }
	for _, c := range []struct {
		name     string
		rows     []disk.Row
		expected messages.Code
	}{
		{"keys rise", []disk.Row{row("a", 1), row("b", 9), row("c", 2)}, messages.Code_OK},
		{"the empty key is first", []disk.Row{row("", 2), row("", 1), row("a", 1)}, messages.Code_OK},
		{"revisions fall", []disk.Row{row("a", 9), row("a", 8), row("a", 1)}, messages.Code_OK},
		{"a longer key is behind", []disk.Row{row("a", 9), row("a\x00", 10)}, messages.Code_OK},
		{"keys fall", []disk.Row{row("b", 1), row("a", 1)}, messages.Code_INVALID},
		{"revisions rise", []disk.Row{row("a", 1), row("a", 2)}, messages.Code_INVALID},
		{"a row comes twice", []disk.Row{row("a", 1), row("a", 1)}, messages.Code_INVALID},
		{"the empty key comes late", []disk.Row{row("a", 1), row("", 1)}, messages.Code_INVALID},
		{"no revision", []disk.Row{row("a", 0)}, messages.Code_INVALID},
		{"a key too long", []disk.Row{row(string(make([]byte, disk.KeyBytesMax+1)), 1)}, messages.Code_INVALID},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := beginStaging(t)
			err := s.Write(c.rows)
			if messages.CodeOf(err) != c.expected {
				t.Fatalf("got %v, expected %v", err, c.expected)
			}
			if _, again := s.Seal(); messages.CodeOf(again) != c.expected {
				t.Fatalf("sealed: %v, expected %v", again, c.expected)
			}
			if err := s.Drop(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
				t.Fatalf("it is there still: %v", err)
			}
			if err := s.Write(nil); err == nil {
				t.Fatal("rows are taken after the end")
			}
		})
	}
}

func TestStagingIsDropped(t *testing.T) {
	s := beginStaging(t)
	if err := s.Write(stagedRows(20_000, 500)); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Fatalf("it is there still: %v", err)
	}
}

// A seal of a staged engine notices every table that is lost, and a MANIFEST that
// was cut short anywhere.
func TestStagedDamageIsRefused(t *testing.T) {
	dir, seal := sealed(t, stagedRows(30_000, 500))
	tables := tableSizes(t, dir)
	if len(tables) < 4 {
		t.Fatalf("only %d tables", len(tables))
	}
	refused := func(what string, change func(dir string)) {
		left := filepath.Join(t.TempDir(), "state")
		if err := disktest.CopyDirectory(dir, left); err != nil {
			t.Fatal(err)
		}
		change(left)
		if _, err := Open(left, seal, quiet); messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Errorf("%s: %v", what, err)
		}
	}
	for name := range tables {
		refused(name+" gone", func(dir string) { os.Remove(filepath.Join(dir, name)) })
	}
	info, err := os.Stat(filepath.Join(dir, "MANIFEST"))
	if err != nil {
		t.Fatal(err)
	}
	for size := info.Size() - 1; size >= 0; size -= 13 {
		refused(fmt.Sprintf("MANIFEST of %d bytes", size), func(dir string) { os.Truncate(filepath.Join(dir, "MANIFEST"), size) })
	}
}
