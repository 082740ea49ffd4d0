package wal

import (
	"os"
	"path/filepath"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
)

func TestWitnessFile(t *testing.T) {
	generation := t.TempDir()
	if err := createWitness(generation, disk.Witness{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	f, err := openWitness(generation)
	if err != nil {
		t.Fatal(err)
	}
	defer f.file.Close()
	for i := uint64(2); i < 9; i++ {
		if err := f.write(disk.Witness{Index: i, Term: 1, Commit: i - 1}); err != nil {
			t.Fatal(err)
		}
		if got, err := readWitness(f.file); err != nil || got != (disk.Witness{Sequence: i, Index: i, Term: 1, Commit: i - 1}) {
			t.Fatalf("after writing %d: %+v, %v", i, got, err)
		}
	}
	whole, err := os.ReadFile(filepath.Join(generation, WitnessName))
	if err != nil {
		t.Fatal(err)
	}
	// Any flipped bit of the newer slot leaves the older one, of both slots nothing.
	for at := range witnessSlot {
		if got := damagedWitness(t, whole, at); got.Sequence != 7 {
			t.Fatalf("byte %d of the newer slot flipped: %+v", at, got)
		}
		if got := damagedWitness(t, whole, witnessBlock+at); got.Sequence != 8 {
			t.Fatalf("byte %d of the older slot flipped: %+v", at, got)
		}
		if got := damagedWitness(t, whole, at, witnessBlock+at); got.Sequence != 0 {
			t.Fatalf("byte %d of both slots flipped: %+v", at, got)
		}
	}
}

// damagedWitness is what is read with these bytes flipped; sequence 0 for DAMAGED.
func damagedWitness(t *testing.T, whole []byte, flips ...int) disk.Witness {
	t.Helper()
	damaged := append([]byte(nil), whole...)
	for _, at := range flips {
		damaged[at] ^= 0x10
	}
	generation := t.TempDir()
	if err := os.WriteFile(filepath.Join(generation, WitnessName), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openWitness(generation)
	if err != nil {
		if messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Fatalf("unexpected error: %v", err)
		}
		return disk.Witness{}
	}
	defer f.file.Close()
	return f.last
}
