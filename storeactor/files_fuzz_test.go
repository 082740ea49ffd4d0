package storeactor

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/files/durable"
)

// The files of a directory carry checksums, so that bytes alone hardly ever get
// past them. Each target therefore also takes its input for what the checksum is
// made of: a file that is whole and senseless.

// openly is what every reader of a file may answer: its content, or an error that
// has a code and tells what to do.
func openly(t *testing.T, err error) {
	t.Helper()
	if e, ok := err.(*messages.Error); ok && (e.Hint == "" || e.Code != messages.Code_DAMAGED && e.Code != messages.Code_UNSUPPORTED) {
		t.Fatalf("%v: %v (%s)", e.Code, e, e.Hint)
	} else if err != nil && !ok {
		t.Fatalf("an error without a code: %v", err)
	}
}

func FuzzCheckpointFile(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, checkpointName)
	seal := engineSeal{Markers: 3, Table: 2, MemTables: []sealedMemTable{{Name: "00001.mem", Nonce: "0a", Length: 44}}}
	if err := writeCheckpoint(path, firstCheckpoint(), seal); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, false)
	f.Add(whole[:len(whole)-4], true)
	f.Add(whole[:checkpointHead], true)
	f.Add([]byte(checkpointMagic+"\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), true)
	f.Add([]byte(checkpointMagic+"\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, sum bool) {
		if sum {
			data = binary.LittleEndian.AppendUint32(data[:len(data):len(data)], crc32.Checksum(data, durable.Castagnoli))
		}
		path := filepath.Join(t.TempDir(), checkpointName)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, seal, err := readCheckpoint(path)
		openly(t, err)
		if err != nil {
			return
		}
		if _, err := FromCheckpoint(c); err != nil {
			openly(t, err)
			return
		}
		if err := writeCheckpoint(path, c, seal); err != nil {
			t.Fatal(err)
		}
		again, _, err := readCheckpoint(path)
		if err != nil || !proto.Equal(c, again) {
			t.Fatalf("%s is read again as %v: %v", messages.Line(c), again, err)
		}
	})
}

func FuzzIdentityFile(f *testing.F) {
	f.Add([]byte("keyval identity 1\n{}\ncrc32c 00000000\n"), false)
	f.Add([]byte("keyval identity 1\n{\"name\":\"n1\",\"founders\":[{\"name\":\"n1\",\"raft_id\":\"1\"}]}\n"), true)
	f.Add([]byte("keyval identity 2\n{}\n"), true)
	f.Add([]byte("keyval identity 1\n{\"format\":4294967295}\n"), true)
	f.Add([]byte("keyval identity 1\n{\"incarnation\":7}\n"), true)
	f.Add([]byte("keyval identity -1\n"), true)
	f.Add([]byte("\n\n\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, sum bool) {
		if sum {
			text = fmt.Appendf(text[:len(text):len(text)], identityTail, crc32.Checksum(text, durable.Castagnoli))
		}
		id, err := decodeIdentity("identity", text)
		openly(t, err)
		if err == nil && id == nil {
			t.Fatal("neither identity nor error")
		}
	})
}

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
			data = binary.LittleEndian.AppendUint32(data[:witnessSlot-4:witnessSlot-4], crc32.Checksum(data[:witnessSlot-4], durable.Castagnoli))
		}
		path := filepath.Join(t.TempDir(), witnessName)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := openWitness(path)
		openly(t, err)
		if err != nil {
			return
		}
		defer found.file.Close()
		// What it says is held against a log without a panic, whatever it says.
		openly(t, found.last.Meet(&disk.LogImage{BaseIndex: 1, BaseTerm: 1}))
		if err := found.write(found.last); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzCurrentFile(f *testing.F) {
	for _, s := range []string{"", "generation-1", "generation-1\n", "generation-2\n", "generation-01\n", "generation-1\n\n", "generation--1",
		"generation-18446744073709551616", "../generation-1", "/", "generation-1/../..", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := &files{dir: t.TempDir()}
		if err := os.Mkdir(d.path(firstName), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.path(currentName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		at, err := d.current()
		openly(t, err)
		if err == nil && at != d.path(firstName) {
			t.Fatalf("%q leads to %s", text, at)
		}
	})
}

// FuzzLogSegment: a log of which some bytes were changed is refused, or says what
// it said before.
func FuzzLogSegment(f *testing.F) {
	generation := f.TempDir()
	if err := createLog(generation, testFirst, disktest.HardState(testFirst.Term, 0, testFirst.Index), testIdentity, quiet); err != nil {
		f.Fatal(err)
	}
	l, _, err := reopenLog(generation)
	if err != nil {
		f.Fatal(err)
	}
	if err := l.Save(disktest.HardState(2, 1, 3), disktest.Entries(1, 2, 2)); err != nil {
		f.Fatal(err)
	}
	if err := l.Cut(2, 2, testConf); err != nil {
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
	name := filepath.Join(generation, walName, "0000000000000000-0000000000000000.wal")
	if before.segments[filepath.Base(name)], err = os.ReadFile(name); err != nil {
		f.Fatal(err)
	}
	if before.witness, err = os.ReadFile(filepath.Join(generation, witnessName)); err != nil {
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

// FuzzMemTable: however the end of the rows' file looks, it is told where what is
// whole ends, and that is where it said for the same bytes with more behind them.
func FuzzMemTable(f *testing.F) {
	entry := func(key, value string) []byte {
		b := append([]byte{0, 0, byte(len(key)), byte(len(value)), 0}, key+value...)
		return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, durable.Castagnoli))
	}
	f.Add(entry("k", "v"), entry("k2", ""))
	f.Add([]byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, []byte{})
	f.Add([]byte{0, 0, 0xff, 0xff, 0x07, 0x80, 0x80, 0x40, 0}, []byte{1})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		path := filepath.Join(t.TempDir(), "1"+memSuffix)
		ends := [2]int64{}
		for i, data := range [][]byte{one, append(slices.Clone(one), two...)} {
			if err := os.WriteFile(path, append(make([]byte, memHead), data...), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			ends[i], err = wholeEntries(file, memHead)
			file.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
		if ends[0] > ends[1] || ends[0] > memHead+int64(len(one)) {
			t.Fatalf("whole up to %d, with more behind it up to %d", ends[0], ends[1])
		}
	})
}
