package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

// fileOf is a snapshot of these rows, as a file.
func fileOf(t snapshottest.T, revision, compacted uint64, rows []disk.Row) []byte {
	var b bytes.Buffer
	w := snapshot.NewWriter(&b)
	for _, c := range snapshottest.Cut(t, snapshot.NewSource(snapshottest.StateAt(revision, compacted), &messages.SnapshotHeader{CreatedBy: "node1"}, 200), rows) {
		if err := w.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// incrementOf is the increment from one file to another.
func incrementOf(t snapshottest.T, was, is []byte) []byte {
	base, err := snapshot.NewReader(bytes.NewReader(was), messages.Level)
	if err != nil {
		t.Fatal(err)
	}
	_, trailer, err := snapshot.Glance(bytes.NewReader(was), int64(len(was)), messages.Level)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := snapshot.NewIncrementWriter(&b, base, &messages.SnapshotBase{Name: "base.kvb", Revision: base.Header().Revision, Hash: trailer.Hash, Links: 1})
	if _, _, err := snapshot.Walk(bytes.NewReader(is), messages.Level, func(*messages.SnapshotHeader, *messages.Checkpoint) error { return nil }, w.Take); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// assembled is what both make together.
func assembled(was, increment []byte) ([]byte, error) {
	about, file, err := snapshot.Open(bytes.NewReader(increment))
	if err != nil {
		return nil, err
	}
	if about == nil {
		return io.ReadAll(file)
	}
	a, err := snapshot.Assemble(file, bytes.NewReader(was), messages.Level)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(a)
}

// drawRows are rows that a snapshot may have.
func drawRows(t *rapid.T, label string, revision, compacted uint64) (rows []disk.Row) {
	for _, key := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-d]{1,3}`), 0, 20, rapid.ID).Draw(t, label) {
		old := false
		for _, r := range rapid.SliceOfNDistinct(rapid.Uint64Range(1, revision), 1, 4, rapid.ID).Draw(t, "revisions") {
			deleted := r > compacted && rapid.Bool().Draw(t, "deleted")
			if r <= compacted {
				if old {
					continue
				}
				old = true
			}
			if deleted {
				rows = append(rows, snapshottest.Gone(key, r))
			} else {
				rows = append(rows, snapshottest.Row(key, r, rapid.StringMatching(`v{0,30}`).Draw(t, "value")))
			}
		}
	}
	slices.SortFunc(rows, func(a, b disk.Row) int {
		if order := bytes.Compare(a.Key, b.Key); order != 0 {
			return order
		}
		return int(b.Revision) - int(a.Revision)
	})
	// Of a key, the row at or below the compacted revision is the last.
	return slices.CompactFunc(rows, func(a, b disk.Row) bool {
		return bytes.Equal(a.Key, b.Key) && a.Revision <= compacted && b.Revision <= compacted
	})
}

// Whatever lies between two states, writes, deletions, history that was given up, or
// another past, base and increment make the file of the later one again.
func TestBaseAndIncrementMakeTheSnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		revision := rapid.Uint64Range(1, 30).Draw(t, "revision")
		compacted := rapid.Uint64Range(0, revision).Draw(t, "compacted")
		was := fileOf(t, revision, 0, drawRows(t, "base", revision, 0))
		is := fileOf(t, revision+10, compacted, drawRows(t, "rows", revision+10, compacted))
		increment := incrementOf(t, was, is)
		if made, err := assembled(was, increment); err != nil || !bytes.Equal(made, is) {
			t.Fatalf("%d bytes, not %d: %v", len(made), len(is), err)
		}
	})
}

// Few rows of many: the increment has these alone.
func TestAnIncrementIsSmall(t *testing.T) {
	var rows []disk.Row
	for i := range uint64(5000) {
		rows = append(rows, snapshottest.Row(fmt.Sprintf("key/%05d", i), i+1, strings.Repeat("v", 100)))
	}
	var later []disk.Row
	for i, r := range rows {
		switch i {
		case 70:
			later = append(later, snapshottest.Row(string(r.Key), 5001, "new"))
		case 4000: // deleted, and given up
		case 4500:
			later = append(later, snapshottest.Gone(string(r.Key), 5002), r)
		default:
			later = append(later, r)
		}
	}
	was, is := fileOf(t, 5000, 0, rows), fileOf(t, 5002, 4999, later)
	increment := incrementOf(t, was, is)
	if len(increment) > len(is)/20 { // a cut for each chunk of 200 bytes
		t.Errorf("%d bytes, of %d", len(increment), len(is))
	}
	if made, err := assembled(was, increment); err != nil || !bytes.Equal(made, is) {
		t.Errorf("%v", err)
	}
}

// A byte altered in the base or the increment, an end that is missing, a byte too many: none
// of it makes a snapshot.
func TestEveryFlippedByteOfAChainIsFound(t *testing.T) {
	was := fileOf(t, 9, 4, snapshottest.SomeRows())
	is := fileOf(t, 12, 4, append([]disk.Row{snapshottest.Row("Z", 12, "new"), snapshottest.Gone("a", 11)}, snapshottest.SomeRows()...))
	increment := incrementOf(t, was, is)
	refused := func(what string, was, increment []byte) {
		t.Helper()
		made, err := assembled(was, increment)
		if bytes.Equal(made, is) && err == nil {
			t.Errorf("%s: the whole snapshot came of it", what)
		}
		if err == nil {
			if _, _, err = snapshot.Walk(bytes.NewReader(made), messages.Level, func(*messages.SnapshotHeader, *messages.Checkpoint) error { return nil },
				func(*messages.SnapshotChunk, []disk.Row) error { return nil }); err == nil {
				t.Errorf("%s: it was not found", what)
			}
		}
	}
	for i := range increment {
		altered := bytes.Clone(increment)
		altered[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("byte %d of the increment", i), was, altered)
		refused(fmt.Sprintf("the increment cut at %d", i), was, increment[:i])
	}
	for i := range was {
		altered := bytes.Clone(was)
		altered[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("byte %d of the base", i), altered, increment)
	}
	refused("a byte too many", was, append(bytes.Clone(increment), 0))
}

// A chain that does not fit is named.
func TestABrokenChainIsNamed(t *testing.T) {
	first := fileOf(t, 9, 4, snapshottest.SomeRows())
	second := fileOf(t, 10, 4, append([]disk.Row{snapshottest.Row("0", 10, "x")}, snapshottest.SomeRows()...))
	increment := incrementOf(t, first, second)
	if _, err := assembled(second, increment); messages.CodeOf(err) != messages.Code_CONFLICT && messages.CodeOf(err) != messages.Code_DAMAGED {
		t.Errorf("%v", err)
	}
	first[len(first)-20] ^= 1
	_, err := assembled(first, increment)
	var link *snapshot.LinkError
	if !errors.As(err, &link) || !strings.Contains(err.Error(), "base.kvb: the snapshot is damaged: ") || !strings.Contains(err.Error(), "which begins at byte") {
		t.Errorf("%v", err)
	}
}
