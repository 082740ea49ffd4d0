package snapshot

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/snapshot/snapshottest"
	"keyval/storeactor/state/statetest"
)

// Chunk by chunk, whatever their size, the rows are those of the export, and each
// chunk is what the library makes of them.
func TestRowsAreReadInParts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := disktest.NewMemory()
		revisions := uint64(rapid.IntRange(0, 40).Draw(rt, "revisions"))
		for revision := uint64(1); revision <= revisions; revision++ {
			row := disk.Row{
				Key:      []byte(rapid.StringMatching(`[a-d]{1,3}`).Draw(rt, "key")),
				Value:    []byte(strings.Repeat("v", rapid.IntRange(0, 300).Draw(rt, "value"))),
				Revision: revision,
			}
			if row.Deleted = rapid.IntRange(0, 3).Draw(rt, "deleted") == 0; row.Deleted {
				row.Value = nil
			}
			if err := store.Write(disktest.Whole(row)); err != nil {
				rt.Fatal(err)
			}
		}
		revision := rapid.Uint64Range(0, revisions).Draw(rt, "revision")
		floor := rapid.Uint64Range(0, revision).Draw(rt, "floor")
		want := &messages.SnapshotRows{}
		if err := store.Export(disk.Cursor{}, floor, revision, func(r disk.Row) bool {
			want.Rows = append(want.Rows, snapshottest.Message(r))
			return true
		}); err != nil {
			rt.Fatal(err)
		}
		limit := rapid.Uint32Range(1, 1000).Draw(rt, "limit")
		ask := &messages.ReadRows{Holder: "to-2", Sequence: 5, Revision: revision, CompactedRevision: floor, BytesMax: limit}
		got := &messages.SnapshotRows{}
		for {
			read, err := ReadRows(store, ask)
			if err != nil || read.Code != messages.Code_OK || read.Holder != "to-2" || read.Sequence != 5 {
				rt.Fatalf("%s: %v", messages.Line(read), err)
			}
			part := &messages.SnapshotRows{}
			if err := proto.Unmarshal(read.Rows, part); err != nil {
				rt.Fatal(err)
			}
			if string(statetest.Marshal(part)) != string(read.Rows) {
				rt.Fatalf("the library writes %x, and this is %x", statetest.Marshal(part), read.Rows)
			}
			n := len(part.Rows)
			if uint64(n) != read.Count || n > 1 && len(read.Rows) > int(limit) {
				rt.Fatalf("%d rows of %d bytes, count %d", n, len(read.Rows), read.Count)
			}
			got.Rows = append(got.Rows, part.Rows...)
			if n > 0 && (string(read.First) != string(part.Rows[0].Key) || string(read.Last.Key) != string(part.Rows[n-1].Key) ||
				read.Last.Revision != part.Rows[n-1].Revision) {
				rt.Fatalf("first %q, last %v", read.First, read.Last)
			}
			if !read.More {
				break
			}
			if n == 0 {
				rt.Fatal("there is more, and nothing came")
			}
			if len(got.Rows) == len(want.Rows) {
				rt.Fatal("there is said to be more than there is")
			}
			ask.After = read.Last
		}
		if string(statetest.Marshal(got)) != string(statetest.Marshal(want)) {
			rt.Fatalf("got %d rows, and not %d, or others", len(got.Rows), len(want.Rows))
		}
	})
}

func TestRowsAreBounded(t *testing.T) {
	store := disktest.NewMemory()
	for i := range 12 {
		row := disk.Row{Key: fmt.Appendf(nil, "k%02d", i), Value: []byte(strings.Repeat("v", messages.ValueSizeMax)), Revision: uint64(i) + 1}
		if err := store.Write([]disk.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	for asked, want := range map[uint32]uint64{0: 7, 1: 1, 2 << 20: 3, 1 << 31: 7} {
		read, err := ReadRows(store, &messages.ReadRows{Revision: 12, BytesMax: asked})
		if err != nil || read.Count != want || !read.More || len(read.Rows) > rowsBytesMax {
			t.Errorf("asked for %d bytes: %d rows of %d bytes, more: %v, error: %v", asked, read.Count, len(read.Rows), read.More, err)
		}
	}
	store.Err = messages.Errorf(messages.Code_DAMAGED, "a block is damaged")
	read, err := ReadRows(store, &messages.ReadRows{Holder: "file", Sequence: 3, Revision: 12})
	if got := messages.Line(read); got != `RowsRead{holder="file" sequence=3 code=DAMAGED message="a block is damaged"}` || !errors.Is(err, store.Err) {
		t.Errorf("a failed view gives %s, %v", got, err)
	}
}

// BenchmarkReadRows reads 1 MiB of rows of 256 bytes.
func BenchmarkReadRows(b *testing.B) {
	store := disktest.NewMemory()
	value := []byte(strings.Repeat("v", 256))
	var rows []disk.Row
	for i := range 5000 {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "key-%08d", i), Value: value, Revision: 1})
	}
	if err := store.Write(rows); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if read, err := ReadRows(store, &messages.ReadRows{Revision: 1, BytesMax: 1 << 20}); err != nil || !read.More {
			b.Fatal(err)
		}
	}
}
