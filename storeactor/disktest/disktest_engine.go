package disktest

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"keyval/storeactor"
)

var engineClauses = []clause{
	{"an export is the rows of a snapshot", testExport},
	{"an export begins behind any version", testExportCursors},
	{"an export in parts is the whole", testExportParts},
	{"what nobody reads goes, and nothing else", testDiscard},
	{"a floor never falls", testDiscardFloor},
	{"space comes back", testReclaim},
}

// exported is what an export yields, as lines.
func exported(n *node, after storeactor.Cursor, floor, revision uint64) (lines []string) {
	n.Helper()
	n.ok(n.engine.Export(after, floor, revision, func(r storeactor.Row) bool {
		lines = append(lines, line(r))
		return true
	}))
	return lines
}

func line(r storeactor.Row) string {
	if r.Deleted {
		return fmt.Sprintf("%s gone@%d", r.Key, r.Revision)
	}
	return fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Revision)
}

// exportModel is the same from a plain list of all that was ever written.
func exportModel(written []storeactor.Row, after storeactor.Cursor, floor, revision uint64) (lines []string) {
	rows := slices.Clone(written)
	slices.SortStableFunc(rows, func(a, b storeactor.Row) int {
		return cmp.Or(bytes.Compare(a.Key, b.Key), cmp.Compare(b.Revision, a.Revision))
	})
	var settled []byte // the key whose newest version at or below the floor has passed
	for i, r := range rows {
		same := i > 0 && bytes.Equal(rows[i-1].Key, r.Key)
		if !same {
			settled = nil
		}
		if r.Revision > revision || settled != nil || same && rows[i-1].Revision == r.Revision {
			continue
		}
		if r.Revision <= floor {
			settled = append([]byte{}, r.Key...)
			if r.Deleted {
				continue
			}
		}
		if begun := bytes.Compare(r.Key, after.Key); len(after.Key) == 0 && after.Revision == 0 ||
			begun > 0 || begun == 0 && r.Revision < after.Revision {
			lines = append(lines, line(r))
		}
	}
	return lines
}

func testExport(t *testing.T, o Opener) {
	n := start(t, o)
	n.same(exported(n, storeactor.Cursor{}, 0, 9), []string(nil))
	for _, r := range []storeactor.Row{
		row("a", "1", 1), row("b", "2", 2), row("a", "3", 3), deleted("b", 4), row("\x00", "5", 5),
		row("\xff", "6", 6), row("b", "7", 7), deleted("a", 8), row("ab", "9", 9), row("a", "10", 10),
	} {
		n.ok(n.engine.Write([]storeactor.Row{r}))
	}
	for _, c := range []struct {
		floor, revision uint64
		expected        []string
	}{
		{0, 0, nil},
		{0, 4, []string{"a=3@3", "a=1@1", "b gone@4", "b=2@2"}},
		{3, 4, []string{"a=3@3", "b gone@4", "b=2@2"}},
		{4, 4, []string{"a=3@3"}},
		{0, 10, []string{"\x00=5@5", "a=10@10", "a gone@8", "a=3@3", "a=1@1", "ab=9@9", "b=7@7", "b gone@4", "b=2@2", "\xff=6@6"}},
		{7, 10, []string{"\x00=5@5", "a=10@10", "a gone@8", "a=3@3", "ab=9@9", "b=7@7", "\xff=6@6"}},
		{8, 10, []string{"\x00=5@5", "a=10@10", "ab=9@9", "b=7@7", "\xff=6@6"}},
		{8, 9, []string{"\x00=5@5", "ab=9@9", "b=7@7", "\xff=6@6"}},
		{10, 10, []string{"\x00=5@5", "a=10@10", "ab=9@9", "b=7@7", "\xff=6@6"}},
		{10, 99, []string{"\x00=5@5", "a=10@10", "ab=9@9", "b=7@7", "\xff=6@6"}},
	} {
		t.Run(fmt.Sprintf("above %d up to %d", c.floor, c.revision), func(t *testing.T) {
			n := &node{T: t, engine: n.engine}
			n.same(exported(n, storeactor.Cursor{}, c.floor, c.revision), c.expected)
		})
	}
	seen := 0
	n.ok(n.engine.Export(storeactor.Cursor{}, 0, 10, func(storeactor.Row) bool { seen++; return seen < 3 }))
	n.same(seen, 3)
	n.close()
}

// A cursor may name a version that is gone, or never was.
func testExportCursors(t *testing.T, o Opener) {
	n := start(t, o)
	rows := []storeactor.Row{row("a", "2", 2), row("b", "3", 3), row("b", "5", 5), deleted("b", 7), row("c", "8", 8), deleted("a", 9), row("b", "10", 10)}
	for _, r := range rows {
		n.ok(n.engine.Write([]storeactor.Row{r}))
	}
	for _, key := range []string{"", "a", "aa", "b", "b\x00", "c", "d"} {
		for at := range uint64(13) {
			for floor := range uint64(12) {
				for revision := floor; revision < 12; revision++ {
					after := storeactor.Cursor{Key: []byte(key), Revision: at}
					expected := exportModel(rows, after, floor, revision)
					if got := exported(n, after, floor, revision); !slices.Equal(got, expected) {
						n.Fatalf("behind %q at %d, above %d up to %d: got %q, expected %q", key, at, floor, revision, got, expected)
					}
				}
			}
		}
	}
	n.close()
}

// history writes random rows, and keeps all of them.
type history struct {
	rng      *rand.Rand
	rows     []storeactor.Row
	revision uint64
}

func (h *history) key() []byte {
	return []byte([]string{"a", "aa", "ab", "b", "c", "cc", "d", "\xff"}[h.rng.IntN(8)])
}

func (h *history) write(n *node, revisions int) {
	n.Helper()
	for range revisions {
		h.revision++
		var batch []storeactor.Row
		for range 1 + h.rng.IntN(3) {
			r := storeactor.Row{Key: h.key(), Revision: h.revision, Deleted: h.rng.IntN(3) == 0}
			if !r.Deleted {
				r.Value = fmt.Appendf(nil, "%d", h.rng.IntN(1000))
			}
			if !slices.ContainsFunc(batch, func(b storeactor.Row) bool { return bytes.Equal(b.Key, r.Key) }) {
				batch = append(batch, r)
			}
		}
		n.ok(n.engine.Write(batch))
		h.rows = append(h.rows, batch...)
	}
}

// reads holds what can be read at a revision not below the floor against the rows.
func (h *history) reads(n *node, floor uint64) {
	n.Helper()
	revision := floor + h.rng.Uint64N(h.revision-floor+2)
	above := floor + h.rng.Uint64N(revision-floor+1)
	after := storeactor.Cursor{Key: h.key(), Revision: h.rng.Uint64N(h.revision + 2)}
	n.same(exported(n, storeactor.Cursor{}, above, revision), exportModel(h.rows, storeactor.Cursor{}, above, revision))
	n.same(exported(n, after, above, revision), exportModel(h.rows, after, above, revision))
	from, to := string(h.key()), string(h.key())
	for _, reverse := range []bool{false, true} {
		n.same(scan(n, from, to, revision, reverse, 0), scanModel(h.rows, from, cmp.Or(to, "\xff\xff"), revision, reverse))
	}
	key := h.key()
	got, found, err := n.engine.Get(key, revision)
	n.ok(err)
	var lines []string
	if found {
		lines = append(lines, fmt.Sprintf("%s=%s@%d", got.Key, got.Value, got.Revision))
	}
	n.same(lines, scanModel(h.rows, string(key), string(key)+"\x00", revision, false))
}

// Whatever the size of the parts, and whatever goes in between.
func testExportParts(t *testing.T, o Opener) {
	n := start(t, o)
	h := &history{rng: rand.New(rand.NewPCG(3, 4))}
	h.write(n, 60)
	for part := 1; part < 20; part += 3 {
		floor, revision := h.revision/3, h.revision-10
		expected := exportModel(h.rows, storeactor.Cursor{}, floor, revision)
		var got []string
		var after storeactor.Cursor
		for more := true; more; {
			rows := 0
			n.ok(n.engine.Export(after, floor, revision, func(r storeactor.Row) bool {
				got, after = append(got, line(r)), storeactor.Cursor{Key: bytes.Clone(r.Key), Revision: r.Revision}
				rows++
				return rows < part
			}))
			more = rows == part
			h.write(n, 1)
			n.engine.Discard(floor)
		}
		n.same(got, expected)
	}
	n.close()
}

// Reads at and above the floor stay exact, whatever the engine drops and when.
func testDiscard(t *testing.T, o Opener) {
	n := start(t, o)
	h := &history{rng: rand.New(rand.NewPCG(5, 6))}
	var floor uint64
	for step := range 40 {
		h.write(n, h.rng.IntN(20))
		if h.rng.IntN(2) == 0 && h.revision > 0 {
			floor += h.rng.Uint64N(h.revision - floor + 1)
			n.engine.Discard(floor)
		}
		switch h.rng.IntN(6) {
		case 0:
			n.ok(n.engine.Sync())
		case 1, 2:
			n.ok(n.engine.Sync())
			n.again(h.rng.IntN(2) == 0)
			n.engine.Discard(floor)
		case 3:
			if step%3 == 0 {
				n.ok(n.engine.Reclaim())
			}
		}
		for range 10 {
			h.reads(n, floor)
		}
	}
	n.close()
}

func testDiscardFloor(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.engine.Reclaim()) // nothing was discarded
	for revision := uint64(1); revision < 10; revision++ {
		n.ok(n.engine.Write([]storeactor.Row{row("k", fmt.Sprint(revision), revision)}))
	}
	n.engine.Discard(6)
	n.engine.Discard(3)
	n.engine.Discard(0)
	n.ok(n.engine.Reclaim())
	n.same(exported(n, storeactor.Cursor{}, 6, 9), []string{"k=9@9", "k=8@8", "k=7@7", "k=6@6"})
	n.same(exported(n, storeactor.Cursor{}, 0, 9), []string{"k=9@9", "k=8@8", "k=7@7", "k=6@6"}) // the others are gone
	n.engine.Discard(100)
	n.ok(n.engine.Reclaim())
	n.same(scan(n, "", "", 100, false, 0), []string{"k=9@9"})
	n.close()
}

func testReclaim(t *testing.T, o Opener) {
	n := start(t, o)
	const rows, size = 16, 512 << 10
	value := bytes.Repeat([]byte("v"), size)
	for i := range uint64(rows) {
		n.ok(n.engine.Write([]storeactor.Row{{Key: fmt.Appendf(nil, "key%d", i), Value: value, Revision: i + 1}}))
	}
	n.ok(n.engine.Sync())
	if got := n.engine.Size(); got < rows*size {
		t.Errorf("%d bytes of rows take %d", rows*size, got)
	}
	for i := range uint64(rows) {
		n.ok(n.engine.Write([]storeactor.Row{deleted(fmt.Sprintf("key%d", i), rows+i+1)}))
	}
	n.engine.Discard(rows + 1) // of all but the first key, the deletion is above
	n.ok(n.engine.Reclaim())
	n.same(len(exported(n, storeactor.Cursor{}, rows+1, 2*rows)), 2*(rows-1))
	n.engine.Discard(2 * rows)
	n.ok(n.engine.Reclaim())
	n.same(exported(n, storeactor.Cursor{}, 0, 2*rows), []string(nil))
	if got := n.engine.Size(); got > rows*size/2 {
		t.Errorf("no rows are left, and they take %d bytes", got)
	}
	n.again(true)
	n.same(exported(n, storeactor.Cursor{}, 2*rows, 2*rows), []string(nil))
	n.close()
}
