package badger

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// An export steps over what is below the floor, or seeks past it: the next key may
// be as near as one byte.
func TestExportPassesOldVersions(t *testing.T) {
	e := newEngine(t)
	var revision uint64
	var expected []string
	for versions := 1; versions < 3*exportStep; versions++ {
		for _, key := range []string{"k", "k\x00", "k\x00\x00", "k\x01"} {
			key = fmt.Sprintf("%02d%s", versions, key)
			for range versions {
				revision++
				if err := e.Write(disktest.Whole(disk.Row{Key: []byte(key), Revision: revision})); err != nil {
					t.Fatal(err)
				}
			}
			expected = append(expected, fmt.Sprintf("%q %d", key, revision))
		}
	}
	err := e.Export(disk.Cursor{}, revision, revision, func(r disk.Row) bool {
		got := fmt.Sprintf("%q %d", r.Key, r.Revision)
		if len(expected) == 0 || got != expected[0] {
			t.Fatalf("got %s, expected %.1q", got, expected)
		}
		expected = expected[1:]
		return true
	})
	if err != nil || len(expected) > 0 {
		t.Fatalf("%d keys are missing: %v", len(expected), err)
	}
}

// A key of many versions, a few at a time: each part begins where the last ended.
// Stepping over all before would take a minute.
func TestExportOfOneKeyInParts(t *testing.T) {
	e := newEngine(t)
	const versions, part = 100_000, 10
	rows := make([]disk.Row, 0, 1000)
	for revision := uint64(1); revision <= versions; revision++ {
		if rows = append(rows, disk.Row{Key: []byte("hot"), Value: []byte("v"), Revision: revision}); len(rows) == cap(rows) {
			if err := e.Write(disktest.Whole(rows...)); err != nil {
				t.Fatal(err)
			}
			rows = rows[:0]
		}
	}
	began, next, after := time.Now(), uint64(versions), disk.Cursor{}
	for next > 0 {
		n := 0
		err := e.Export(after, 0, versions, func(r disk.Row) bool {
			if r.Revision != next {
				t.Fatalf("revision %d, expected %d", r.Revision, next)
			}
			after = disk.Cursor{Key: bytes.Clone(r.Key), Revision: r.Revision}
			next--
			n++
			return n < part
		})
		if err != nil || n == 0 {
			t.Fatalf("%d rows: %v", n, err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// The rows of an export come in the order that a staging wants, and hold all that
// reads at its floor and above can see.
func TestExportIsASnapshot(t *testing.T) {
	e := newEngine(t)
	var revision uint64
	rapid.Check(t, func(t *rapid.T) {
		first := revision
		for range rapid.IntRange(0, 30).Draw(t, "writes") {
			revision++
			r := disk.Row{Key: []byte(rapid.StringN(1, 3, 4).Draw(t, "key")), Revision: revision, Deleted: rapid.Bool().Draw(t, "deleted")}
			if !r.Deleted {
				r.Value = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")
			}
			if err := e.Write(disktest.Whole(r)); err != nil {
				t.Fatal(err)
			}
		}
		floor := rapid.Uint64Range(first, revision).Draw(t, "floor")
		export := func(e disk.Engine, floor uint64) (rows []disk.Row) {
			err := e.Export(disk.Cursor{}, floor, revision, func(r disk.Row) bool {
				rows = append(rows, disk.Row{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Revision: r.Revision, Created: r.Created, Version: r.Version, Deleted: r.Deleted, Sum: r.Sum})
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			return rows
		}
		rows := export(e, floor)
		staged := stagedModel{}
		for _, r := range rows {
			staged.add(t, r)
		}
		// Nothing is left out of a snapshot that a read at the floor or above can see.
		for at := floor; at <= revision; at++ {
			n := 0
			if err := e.Scan(nil, nil, at, false, func(r disk.Row) bool {
				if !sameRow(staged.newest(r.Key, at), r) {
					t.Fatalf("at %d, %q is of revision %d", at, r.Key, r.Revision)
				}
				n++
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if live := staged.live(at); live != n {
				t.Fatalf("at %d, %d keys are live, and %d in the snapshot", at, n, live)
			}
		}
	})
}

// stagedModel takes rows in the order in which a staging wants them.
type stagedModel struct {
	last disk.Cursor
	rows map[string][]disk.Row
}

func (s *stagedModel) add(t *rapid.T, r disk.Row) {
	if !s.last.Before(r) {
		t.Fatalf("%q at %d comes behind %q at %d", r.Key, r.Revision, s.last.Key, s.last.Revision)
	}
	if s.rows == nil {
		s.rows = map[string][]disk.Row{}
	}
	s.last = disk.Cursor{Key: r.Key, Revision: r.Revision}
	s.rows[string(r.Key)] = append(s.rows[string(r.Key)], r)
}

func (s *stagedModel) newest(key []byte, revision uint64) disk.Row {
	for _, r := range s.rows[string(key)] {
		if r.Revision <= revision {
			return r
		}
	}
	return disk.Row{}
}

func (s *stagedModel) live(revision uint64) (n int) {
	for key := range s.rows {
		if r := s.newest([]byte(key), revision); r.Revision > 0 && !r.Deleted {
			n++
		}
	}
	return n
}
