package wal

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

var testConf = &raftpb.ConfState{Voters: []uint64{1}}

// cutLog is a log of several segments, all of it committed and synced.
func cutLog(t *testing.T) (generation string, l *Log) {
	t.Helper()
	generation, l = makeLog(t)
	fillLog(t, generation, l)
	mustSave(t, l, disktest.HardState(l.term, 2, l.index), nil)
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	return generation, l
}

// isCutAt holds an image against the entries of the log as it was.
func isCutAt(t *testing.T, name string, image, whole *disk.LogImage, bases ...uint64) {
	t.Helper()
	if image == nil {
		t.Fatalf("%s: the log is damaged", name)
	}
	kept := whole.Entries[image.BaseIndex-whole.BaseIndex:]
	if !slices.Contains(bases, image.BaseIndex) || len(image.Entries) != len(kept) || len(kept) > 0 && image.Entries[0].GetIndex() != kept[0].GetIndex() ||
		image.HardState.GetCommit() != whole.HardState.GetCommit() {
		t.Fatalf("%s: the log holds %d entries behind %d, expected a base of %v", name, len(image.Entries), image.BaseIndex, bases)
	}
}

// TestCutIsWholeAtEveryStep looks at the files after every step of a cut, as a
// killed process leaves them, and as a power cut does: with a witness of any
// moment since its last sync.
func TestCutIsWholeAtEveryStep(t *testing.T) {
	generation, l := cutLog(t)
	whole := readFiles(t, generation).open(t, t.TempDir())
	before, index := l.base, l.index-1
	term := l.terms.at(index)

	type moment struct {
		step  string
		files testLog
	}
	moments := []moment{{"before", readFiles(t, generation)}}
	l.step = func(step string) { moments = append(moments, moment{step, readFiles(t, generation)}) }
	if err := l.Cut(index, term); err != nil {
		t.Fatal(err)
	}
	if len(moments) != 1+3+2 { // two of three segments went
		t.Fatalf("%d moments were seen", len(moments))
	}
	synced := 0 // the moment of the witness's last sync
	for i, m := range moments {
		if m.step == "base durable" {
			synced = i
		}
		isCutAt(t, m.step, m.files.open(t, t.TempDir()), whole, before, index)
		for _, older := range moments[synced : i+1] {
			m.files.witness = older.files.witness
			isCutAt(t, "power cut after "+m.step, m.files.open(t, t.TempDir()), whole, before, index)
		}
	}
	isCutAt(t, "after", readFiles(t, generation).open(t, t.TempDir()), whole, index)

	// What a crash left is removed when the log is opened.
	left := moments[3]
	copied := t.TempDir()
	isCutAt(t, left.step, left.files.open(t, copied), whole, index)
	if now := readFiles(t, copied); len(left.files.segments) != 3 || len(now.segments) != 1 {
		t.Fatalf("an open left %d of %d segments", len(now.segments), len(left.files.segments))
	}
}

func TestCutGivesSpaceBack(t *testing.T) {
	generation, l := makeLog(t)
	most := 0
	for term := uint64(2); term < 300; term++ {
		es := disktest.Entries(l.index, term, term, term)
		es[0].Data, es[2].Data = bytes.Repeat([]byte{1}, 900), bytes.Repeat([]byte{2}, 300)
		mustSave(t, l, disktest.HardState(term, 1, l.index), es)
		if err := l.Cut(l.hardState.GetCommit(), l.terms.at(l.hardState.GetCommit())); err != nil {
			t.Fatal(err)
		}
		most = max(most, len(readFiles(t, generation).segments))
		if len(l.terms) > 3 {
			t.Fatalf("a log of %d entries remembers %d terms", l.index-l.base, len(l.terms))
		}
	}
	names := slices.Sorted(maps.Keys(readFiles(t, generation).segments))
	var sequence, index uint64
	if fmt.Sscanf(names[len(names)-1], "%x-%x.wal", &sequence, &index); sequence < 10 || most > 2 {
		t.Fatalf("of %d segments up to %d were there at a time", sequence+1, most)
	}
}

// TestNewSegmentWithoutEntries: a log that has no entry behind its base begins new
// segments too, each with the name that an open at the base looks for.
func TestNewSegmentWithoutEntries(t *testing.T) {
	generation := t.TempDir()
	at := &messages.Checkpoint{ClusterId: disktest.First.ClusterId, Index: 1000, Term: 5, ConfState: testConf}
	if err := Create(generation, at, disktest.HardState(6, 2, 1000), nil, disktest.Identity, 0, quiet); err != nil {
		t.Fatal(err)
	}
	for term := uint64(6); len(readFiles(t, generation).segments) < 3; {
		l, image, err := reopenLog(generation)
		if err != nil {
			t.Fatal(err)
		}
		if image.BaseIndex != 1000 || image.HardState.GetTerm() != term {
			t.Fatalf("base %d, term %d, expected term %d", image.BaseIndex, image.HardState.GetTerm(), term)
		}
		for range 300 {
			term++
			mustSave(t, l, disktest.HardState(term, 2, 1000), nil)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnfinishedSegmentIsNotUsed: what a crash left of a segment in the making does
// not turn up behind the end of a later one.
func TestUnfinishedSegmentIsNotUsed(t *testing.T) {
	generation, l := makeLog(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0.tmp", "1.tmp"} {
		disktest.WriteFile(t, filepath.Join(generation, dirName, name), string(bytes.Repeat([]byte{0x55}, int(wal.SegmentSizeBytes))))
	}
	l, _, err := reopenLog(generation)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	fillLog(t, generation, l)
	files := readFiles(t, generation)
	records := files.records(t)
	if rest := files.segments[files.last()][records[len(records)-1]:]; slices.Max(rest) != 0 {
		t.Fatal("there is something behind the log's end")
	}
}

// TestSegmentsByBase: the first segment is the one that the WAL package begins
// with; ReleaseLockTo may keep one more.
func TestSegmentsByBase(t *testing.T) {
	for _, c := range []struct {
		indexes []uint64 // in the names
		base    uint64
		first   int
	}{
		{[]uint64{0}, 1, 0},
		{[]uint64{0, 10, 20}, 1, 0},
		{[]uint64{0, 10, 20}, 9, 0},
		{[]uint64{0, 10, 20}, 10, 1},
		{[]uint64{0, 10, 20}, 19, 1},
		{[]uint64{0, 10, 20}, 500, 2},
		{[]uint64{0, 30, 20, 40}, 25, 2}, // entries from 20 on were replaced
		{[]uint64{0, 30, 20, 40}, 35, 2},
		{[]uint64{0, 30, 20, 40}, 15, 0},
		{[]uint64{20, 30}, 5, 0}, // damaged: nothing is removed
	} {
		var names []string
		for i, index := range c.indexes {
			names = append(names, segmentName(uint64(i), index))
		}
		if got := firstSegment(names, c.base); got != c.first {
			t.Errorf("base %d in %v: %d, expected %d", c.base, c.indexes, got, c.first)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"0000000000000002-000000000000000b.wal", "0000000000000001-0000000000000000.wal",
		"0000000000000001-0000000000000000.wal.broken", "0.tmp", "x.wal", "0000000000000003-b.wal"} {
		disktest.WriteFile(t, filepath.Join(dir, name), "")
	}
	if names, err := segments(dir); err != nil || !slices.Equal(names, []string{segmentName(1, 0), segmentName(2, 11)}) {
		t.Fatalf("%v, %v", names, err)
	}
	if err := dropSegments(dir, 11, func(string) {}); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 4 || left[0].Name() != "0.tmp" || left[1].Name() != segmentName(2, 11) {
		t.Fatalf("left: %v", left)
	}
}

// TestTermRunsAreTerms holds the runs against a list of terms.
func TestTermRunsAreTerms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, terms := uint64(10), []uint64{3} // of base, base+1, ...
		runs := runsOf(&disk.LogImage{BaseIndex: base, BaseTerm: 3})
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			last := base + uint64(len(terms)) - 1
			if rapid.Bool().Draw(t, "cut") {
				to := rapid.Uint64Range(base, last).Draw(t, "to")
				terms, base = terms[to-base:], to
				runs = runs.above(to)
			} else {
				from := rapid.Uint64Range(base, last).Draw(t, "behind")
				terms = terms[:from-base+1]
				var added []uint64
				for range rapid.IntRange(1, 5).Draw(t, "entries") {
					term := append(terms, added...)[len(terms)+len(added)-1] + rapid.Uint64Range(0, 1).Draw(t, "rise")
					added = append(added, term)
				}
				terms = append(terms, added...)
				runs = runs.with(disktest.Entries(from, added...))
			}
			for i, term := range terms {
				if got := runs.at(base + uint64(i)); got != term {
					t.Fatalf("index %d: term %d, expected %d", base+uint64(i), got, term)
				}
			}
			if runs.at(base-1) != 0 || runs[0].index != base {
				t.Fatalf("%v begin before %d", runs, base)
			}
			for i := range runs[1:] {
				if runs[i].term == runs[i+1].term {
					t.Fatalf("%v tell a term twice", runs)
				}
			}
		}
	})
}
