package disktest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"keyval/messages"
	"keyval/storeactor/disk"
)

var engineClauses = []clause{
	{"a key has its newest version at a revision", testVersions},
	{"a row comes back whole", testWholeRows},
	{"a row that is not what was written is not handed out", testRot},
	{"a scan keeps to its bounds", testScan},
	{"an engine reads like a model", testEngineModel},
	{"an engine refuses what it cannot hold", testRowBounds},
	{"an export is the rows of a snapshot", testExport},
	{"an export begins behind any version", testExportCursors},
	{"an export in parts is the whole", testExportParts},
	{"what nobody reads goes, and nothing else", testDiscard},
	{"a floor never falls", testDiscardFloor},
	{"space comes back", testReclaim},
}

// testWholeRows: all that a row says comes back, over a restart and through a staging.
func testWholeRows(t *testing.T, o Opener) {
	n := start(t, o)
	rows := Whole(
		disk.Row{Key: []byte("a"), Value: []byte("young"), Revision: 300, Created: 300, Version: 1},
		disk.Row{Key: []byte("b"), Value: []byte("old"), Revision: 300, Created: 2, Version: 1 << 40},
		disk.Row{Key: []byte("c"), Revision: 300, Created: 299, Version: 200},
		disk.Row{Key: []byte("d"), Revision: 300, Deleted: true},
		disk.Row{Key: []byte("e"), Value: []byte("oldest"), Revision: 1<<63 + 1, Created: 1, Version: 1<<64 - 1},
	)
	n.ok(n.engine.Write(rows))
	for range 2 {
		var exported, scanned []disk.Row
		clone := func(r disk.Row) disk.Row {
			r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
			return r
		}
		n.ok(n.engine.Export(disk.Cursor{}, 0, 1<<63+1, func(r disk.Row) bool { exported = append(exported, clone(r)); return true }))
		n.ok(n.engine.Scan(nil, nil, 1<<63+1, false, func(r disk.Row) bool { scanned = append(scanned, clone(r)); return true }))
		n.same(wholeLines(exported), wholeLines(rows))
		n.same(wholeLines(scanned), wholeLines(slices.Delete(slices.Clone(rows), 3, 4)))
		for _, r := range rows {
			got, found, err := n.engine.Get(r.Key, r.Revision)
			n.ok(err)
			if found == r.Deleted || found && wholeLine(got) != wholeLine(r) {
				n.Errorf("got %s, found %t, for %s", wholeLine(got), found, wholeLine(r))
			}
		}
		n.ok(n.engine.Sync())
		n.again(true)
	}
	n.close()
}

func wholeLine(r disk.Row) string {
	return fmt.Sprintf("%s created=%d version=%d sum=%08x", line(r), r.Created, r.Version, r.Sum)
}

func wholeLines(rows []disk.Row) (lines []string) {
	for _, r := range rows {
		lines = append(lines, wholeLine(r))
	}
	return lines
}

// testRot writes rows whose checksums are of something else.
func testRot(t *testing.T, o Opener) {
	n := start(t, o)
	sound := row("a", "1", 1)
	n.ok(n.engine.Write([]disk.Row{sound, row("k", "old", 1)}))
	for i, alter := range []func(*disk.Row){
		func(r *disk.Row) { r.Value = []byte("otheR") }, func(r *disk.Row) { r.Value = nil },
		func(r *disk.Row) { r.Created-- }, func(r *disk.Row) { r.Version++ }, func(r *disk.Row) { r.Sum++ }, func(r *disk.Row) { r.Sum = 0 },
	} {
		r := row("k", "other", uint64(i)+2)
		alter(&r)
		n.ok(n.engine.Write([]disk.Row{r}))
		yielded := 0
		yield := func(disk.Row) bool { yielded++; return true }
		_, found, err := n.engine.Get(r.Key, r.Revision)
		for name, err := range map[string]error{
			"get": err, "scan": n.engine.Scan(nil, nil, r.Revision, false, yield),
			"export": n.engine.Export(disk.Cursor{}, r.Revision, r.Revision, yield),
		} {
			if rot, is := errors.AsType[*disk.Rot](err); !is || messages.CodeOf(rot) != messages.Code_DAMAGED {
				n.Errorf("alteration %d: %s says %v", i, name, err)
			}
		}
		if found || yielded != 2 {
			n.Errorf("alteration %d: found %t, and %d rows are handed out where 2 are sound", i, found, yielded)
		}
	}
	n.same(scan(n, "", "", 1, false, 0), []string{"a=1@1", "k=old@1"})
	n.close()
}

// exported is what an export yields, as lines.
func exported(n *node, after disk.Cursor, floor, revision uint64) (lines []string) {
	n.Helper()
	n.ok(n.engine.Export(after, floor, revision, func(r disk.Row) bool {
		lines = append(lines, line(r))
		return true
	}))
	return lines
}

func line(r disk.Row) string {
	if r.Deleted {
		return fmt.Sprintf("%s gone@%d", r.Key, r.Revision)
	}
	return fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Revision)
}

// exportModel is the same from a plain list of all that was ever written.
func exportModel(written []disk.Row, after disk.Cursor, floor, revision uint64) (lines []string) {
	rows := slices.Clone(written)
	slices.SortStableFunc(rows, func(a, b disk.Row) int {
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
	n.same(exported(n, disk.Cursor{}, 0, 9), []string(nil))
	for _, r := range []disk.Row{
		row("a", "1", 1), row("b", "2", 2), row("a", "3", 3), deleted("b", 4), row("\x00", "5", 5),
		row("\xff", "6", 6), row("b", "7", 7), deleted("a", 8), row("ab", "9", 9), row("a", "10", 10),
	} {
		n.ok(n.engine.Write([]disk.Row{r}))
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
			n.same(exported(n, disk.Cursor{}, c.floor, c.revision), c.expected)
		})
	}
	seen := 0
	n.ok(n.engine.Export(disk.Cursor{}, 0, 10, func(disk.Row) bool { seen++; return seen < 3 }))
	n.same(seen, 3)
	n.close()
}

// A cursor may name a version that is gone, or never was.
func testExportCursors(t *testing.T, o Opener) {
	n := start(t, o)
	rows := []disk.Row{row("a", "2", 2), row("b", "3", 3), row("b", "5", 5), deleted("b", 7), row("c", "8", 8), deleted("a", 9), row("b", "10", 10)}
	for _, r := range rows {
		n.ok(n.engine.Write([]disk.Row{r}))
	}
	for _, key := range []string{"", "a", "aa", "b", "b\x00", "c", "d"} {
		for at := range uint64(13) {
			for floor := range uint64(12) {
				for revision := floor; revision < 12; revision++ {
					after := disk.Cursor{Key: []byte(key), Revision: at}
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
	rows     []disk.Row
	revision uint64
}

func (h *history) key() []byte {
	return []byte([]string{"a", "aa", "ab", "b", "c", "cc", "d", "\xff"}[h.rng.IntN(8)])
}

func (h *history) write(n *node, revisions int) {
	n.Helper()
	for range revisions {
		h.revision++
		var batch []disk.Row
		for range 1 + h.rng.IntN(3) {
			r := disk.Row{Key: h.key(), Revision: h.revision, Deleted: h.rng.IntN(3) == 0}
			if !r.Deleted {
				r.Value = fmt.Appendf(nil, "%d", h.rng.IntN(1000))
			}
			if !slices.ContainsFunc(batch, func(b disk.Row) bool { return bytes.Equal(b.Key, r.Key) }) {
				batch = append(batch, r)
			}
		}
		n.ok(n.engine.Write(Whole(batch...)))
		h.rows = append(h.rows, batch...)
	}
}

// reads holds what can be read at a revision not below the floor against the rows.
func (h *history) reads(n *node, floor uint64) {
	n.Helper()
	revision := floor + h.rng.Uint64N(h.revision-floor+2)
	above := floor + h.rng.Uint64N(revision-floor+1)
	after := disk.Cursor{Key: h.key(), Revision: h.rng.Uint64N(h.revision + 2)}
	n.same(exported(n, disk.Cursor{}, above, revision), exportModel(h.rows, disk.Cursor{}, above, revision))
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
		expected := exportModel(h.rows, disk.Cursor{}, floor, revision)
		var got []string
		var after disk.Cursor
		for more := true; more; {
			rows := 0
			n.ok(n.engine.Export(after, floor, revision, func(r disk.Row) bool {
				got, after = append(got, line(r)), disk.Cursor{Key: bytes.Clone(r.Key), Revision: r.Revision}
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
		n.ok(n.engine.Write([]disk.Row{row("k", fmt.Sprint(revision), revision)}))
	}
	n.engine.Discard(6)
	n.engine.Discard(3)
	n.engine.Discard(0)
	n.ok(n.engine.Reclaim())
	n.same(exported(n, disk.Cursor{}, 6, 9), []string{"k=9@9", "k=8@8", "k=7@7", "k=6@6"})
	n.same(exported(n, disk.Cursor{}, 0, 9), []string{"k=9@9", "k=8@8", "k=7@7", "k=6@6"}) // the others are gone
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
		n.ok(n.engine.Write(Whole(disk.Row{Key: fmt.Appendf(nil, "key%d", i), Value: value, Revision: i + 1})))
	}
	n.ok(n.engine.Sync())
	if got := n.engine.Size(); got < rows*size {
		t.Errorf("%d bytes of rows take %d", rows*size, got)
	}
	for i := range uint64(rows) {
		n.ok(n.engine.Write([]disk.Row{deleted(fmt.Sprintf("key%d", i), rows+i+1)}))
	}
	n.engine.Discard(rows + 1) // of all but the first key, the deletion is above
	n.ok(n.engine.Reclaim())
	n.same(len(exported(n, disk.Cursor{}, rows+1, 2*rows)), 2*(rows-1))
	n.engine.Discard(2 * rows)
	n.ok(n.engine.Reclaim())
	n.same(exported(n, disk.Cursor{}, 0, 2*rows), []string(nil))
	if got := n.engine.Size(); got > rows*size/2 {
		t.Errorf("no rows are left, and they take %d bytes", got)
	}
	n.again(true)
	n.same(exported(n, disk.Cursor{}, 2*rows, 2*rows), []string(nil))
	n.close()
}

func row(key, value string, revision uint64) disk.Row {
	return Whole(disk.Row{Key: []byte(key), Value: []byte(value), Revision: revision})[0]
}

func deleted(key string, revision uint64) disk.Row {
	return Whole(disk.Row{Key: []byte(key), Revision: revision, Deleted: true})[0]
}

func testVersions(t *testing.T, o Opener) {
	n := start(t, o)
	rows := []disk.Row{
		row("a", "a1", 1), row("b", "", 2), row("a", "a3", 3), deleted("a", 5), row("a", "a7", 7),
		row("", "no key", 8), row("a\x00", "a0", 8), deleted("never", 9),
	}
	n.ok(n.engine.Write(rows[:4])) // several versions of a key in one write
	n.ok(n.engine.Write(rows[4:]))
	n.ok(n.engine.Write(nil))
	check := func() {
		t.Helper()
		for _, c := range []struct {
			key      string
			revision uint64
			value    string
			at       uint64 // 0: not found
		}{
			{"a", 0, "", 0}, {"a", 1, "a1", 1}, {"a", 2, "a1", 1}, {"a", 3, "a3", 3}, {"a", 4, "a3", 3},
			{"a", 5, "", 0}, {"a", 6, "", 0}, {"a", 7, "a7", 7}, {"a", 1 << 62, "a7", 7},
			{"b", 1, "", 0}, {"b", 2, "", 2}, {"b", 9, "", 2},
			{"", 7, "", 0}, {"", 8, "no key", 8}, {"a\x00", 9, "a0", 8}, {"never", 9, "", 0}, {"c", 9, "", 0},
		} {
			got, found, err := n.engine.Get([]byte(c.key), c.revision)
			n.ok(err)
			if found != (c.at != 0) || found && (string(got.Key) != c.key || string(got.Value) != c.value || got.Revision != c.at) {
				t.Errorf("%q at %d: got %q at %d (found %t), expected %q at %d", c.key, c.revision, got.Value, got.Revision, found, c.value, c.at)
			}
		}
	}
	check()
	n.again(true)
	n.ok(n.engine.Write(rows)) // replay writes what is there once more
	check()
	n.again(false)
	check()
	n.close()
}

func scan(n *node, from, to string, revision uint64, reverse bool, limit int) []string {
	n.Helper()
	var got []string
	n.ok(n.engine.Scan([]byte(from), []byte(to), revision, reverse, func(r disk.Row) bool {
		got = append(got, fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Revision))
		return len(got) != limit
	}))
	return got
}

func testScan(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.engine.Write([]disk.Row{
		row("a", "1", 1), row("b", "2", 2), row("b\x00", "3", 3), row("c", "4", 4), row("\xff\xff", "5", 5),
		deleted("b", 6), row("c", "7", 7), row("aa", "8", 8), row("b", "9", 9),
	}))
	for _, c := range []struct {
		from, to string
		revision uint64
		limit    int
		expected []string // forward
	}{
		{"", "", 5, 0, []string{"a=1@1", "b=2@2", "b\x00=3@3", "c=4@4", "\xff\xff=5@5"}},
		{"", "", 6, 0, []string{"a=1@1", "b\x00=3@3", "c=4@4", "\xff\xff=5@5"}},
		{"", "", 9, 0, []string{"a=1@1", "aa=8@8", "b=9@9", "b\x00=3@3", "c=7@7", "\xff\xff=5@5"}},
		{"b", "c", 9, 0, []string{"b=9@9", "b\x00=3@3"}},
		{"b", "b\x00", 9, 0, []string{"b=9@9"}},
		{"b", "b", 9, 0, nil},
		{"c", "b", 9, 0, nil},
		{"ab", "bb", 5, 0, []string{"b=2@2", "b\x00=3@3"}},
		{"d", "", 9, 0, []string{"\xff\xff=5@5"}},
		{"\xff\xff\xff", "", 9, 0, nil},
		{"", "a", 9, 0, nil},
		{"", "", 0, 0, nil},
		{"", "\xff\xff", 1, 0, []string{"a=1@1"}},
	} {
		name := fmt.Sprintf("[%q, %q) at %d", c.from, c.to, c.revision)
		if diff := gocmp.Diff(c.expected, scan(n, c.from, c.to, c.revision, false, 0)); diff != "" {
			t.Errorf("%s: expected -, got +:\n%s", name, diff)
		}
		backward := slices.Clone(c.expected)
		slices.Reverse(backward)
		if diff := gocmp.Diff(backward, scan(n, c.from, c.to, c.revision, true, 0)); diff != "" {
			t.Errorf("%s in reverse: expected -, got +:\n%s", name, diff)
		}
	}
	n.same(scan(n, "", "", 9, false, 2), []string{"a=1@1", "aa=8@8"})
	n.same(scan(n, "", "", 9, true, 2), []string{"\xff\xff=5@5", "c=7@7"})
	n.close()
}

// testEngineModel drives the engine and a plain list of rows side by side.
func testEngineModel(t *testing.T, o Opener) {
	n := start(t, o)
	rng := rand.New(rand.NewPCG(1, 2))
	var written []disk.Row
	var revision uint64
	key := func() string { return string(rune('a' + rng.IntN(6))) }
	for step := range 400 {
		var batch []disk.Row
		for range rng.IntN(4) {
			revision++
			for _, k := range []string{key(), key()}[rng.IntN(2):] {
				r := disk.Row{Key: []byte(k), Revision: revision, Deleted: rng.IntN(4) == 0}
				if !r.Deleted {
					r.Value = fmt.Appendf(nil, "%d-%d", step, rng.IntN(100))
				}
				if len(batch) == 0 || batch[len(batch)-1].Revision != revision || string(batch[len(batch)-1].Key) != k {
					batch = append(batch, r)
				}
			}
		}
		n.ok(n.engine.Write(Whole(batch...)))
		written = append(written, batch...)
		from, to, at := key(), key(), uint64(rng.IntN(int(revision)+2))
		reverse := rng.IntN(2) == 0
		n.same(scan(n, from, to, at, reverse, 0), scanModel(written, from, to, at, reverse))
		if step%97 == 96 {
			n.ok(n.engine.Sync())
			n.again(rng.IntN(2) == 0)
		}
	}
	n.close()
}

func scanModel(written []disk.Row, from, to string, revision uint64, reverse bool) []string {
	newest := map[string]disk.Row{}
	for _, r := range written {
		if r.Revision <= revision && string(r.Key) >= from && string(r.Key) < to {
			newest[string(r.Key)] = r
		}
	}
	var lines []string
	for k, r := range newest {
		if !r.Deleted {
			lines = append(lines, fmt.Sprintf("%s=%s@%d", k, r.Value, r.Revision))
		}
	}
	slices.Sort(lines)
	if reverse {
		slices.Reverse(lines)
	}
	return lines
}

func testRowBounds(t *testing.T, o Opener) {
	n := start(t, o)
	long := disk.Row{Key: make([]byte, messages.KeySizeMax), Value: make([]byte, messages.ValueSizeMax), Revision: 1}
	n.ok(n.engine.Write(Whole(long)))
	got, found, err := n.engine.Get(long.Key, 1)
	n.ok(err)
	n.same(found && bytes.Equal(got.Value, long.Value), true)
	for _, bad := range []disk.Row{
		{Key: []byte("a")}, // no revision
		{Key: make([]byte, 65000), Revision: 2},
		{Key: []byte("a"), Value: make([]byte, 1<<20), Revision: 2},
	} {
		n.fails(messages.Code_INVALID, n.engine.Write([]disk.Row{row("x", "x", 2), bad}))
	}
	n.same(scan(n, "x", "y", 9, false, 0), []string(nil))
	n.close()
}
