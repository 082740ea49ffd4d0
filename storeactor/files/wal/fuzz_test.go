package wal

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func FuzzWitnessFile(f *testing.F) {
	w := disk.Witness{Sequence: 7, BaseIndex: 1, BaseTerm: 1, Index: 5, Term: 2, HardTerm: 3, Vote: 1, Commit: 4}
	block := make([]byte, 2*witnessBlock)
	copy(block[witnessBlock:], encodeWitness(w))
	f.Add(block, false)
	f.Add(encodeWitness(w)[:witnessSlot-4], true)
	f.Add([]byte(witnessMagic), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		if sum && len(data) >= witnessSlot-4 {
			data = binary.LittleEndian.AppendUint32(data[:witnessSlot-4:witnessSlot-4], crc32.Checksum(data[:witnessSlot-4], disk.Castagnoli))
		}
		generation := t.TempDir()
		if err := os.WriteFile(filepath.Join(generation, WitnessName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := openWitness(generation)
		disktest.Openly(t, err)
		if err != nil {
			return
		}
		defer found.file.Close()
		// What it says is held against a log without a panic, whatever it says.
		disktest.Openly(t, found.last.Meet(&disk.LogImage{BaseIndex: 1, BaseTerm: 1}))
		if err := found.write(found.last); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzLogSegment: a log of which some bytes were changed is refused, or says what
// it said before.
func FuzzLogSegment(f *testing.F) {
	generation := f.TempDir()
	if err := Create(generation, disktest.First, disktest.HardState(disktest.First.Term, 0, disktest.First.Index), nil, disktest.Identity, 0, quiet); err != nil {
		f.Fatal(err)
	}
	l, _, err := reopenLog(generation)
	if err != nil {
		f.Fatal(err)
	}
	if err := l.Save(disktest.HardState(2, 1, 3), disktest.Entries(1, 2, 2)); err != nil {
		f.Fatal(err)
	}
	if err := l.Cut(2, 2); err != nil {
		f.Fatal(err)
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	_, image, err := reopenLog(generation)
	if err != nil {
		f.Fatal(err)
	}
	before := testLog{segments: map[string][]byte{}}
	name := filepath.Join(generation, dirName, "0000000000000000-0000000000000000.wal")
	if before.segments[filepath.Base(name)], err = os.ReadFile(name); err != nil {
		f.Fatal(err)
	}
	if before.witness, err = os.ReadFile(filepath.Join(generation, WitnessName)); err != nil {
		f.Fatal(err)
	}
	for at := uint16(0); at < 1024; at += 8 {
		f.Add(at, []byte{0})
		f.Add(at, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, at uint16, patch []byte) {
		segment := slices.Clone(before.segments[filepath.Base(name)])
		copy(segment[min(int(at), len(segment)):], patch)
		if got := before.with(segment).open(t, t.TempDir()); got != nil && (got.BaseIndex != 2 || !sameImage(got, image)) {
			t.Fatalf("with %x at %d the log holds %v", patch, at, got)
		}
	})
}
