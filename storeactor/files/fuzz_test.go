package files

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/state"
)

// The files of a directory carry checksums, so that bytes alone hardly ever get
// past them. Each target therefore also takes its input for what the checksum is
// made of: a file that is whole and senseless.

func FuzzCheckpointFile(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, checkpointName)
	seal := badger.Seal{Markers: 3, Table: 2, MemTables: []badger.MemTable{{Name: "00001.mem", Nonce: "0a", Length: 44}}}
	if err := writeCheckpoint(path, disktest.First, seal); err != nil {
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
			data = binary.LittleEndian.AppendUint32(data[:len(data):len(data)], crc32.Checksum(data, disk.Castagnoli))
		}
		path := filepath.Join(t.TempDir(), checkpointName)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, seal, err := readCheckpoint(path)
		disktest.Openly(t, err)
		if err != nil {
			return
		}
		if _, err := state.FromCheckpoint(c, messages.Level); err != nil {
			disktest.Openly(t, err)
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
			text = fmt.Appendf(text[:len(text):len(text)], textTail, crc32.Checksum(text, disk.Castagnoli))
		}
		id, err := decodeIdentity("identity", text)
		disktest.Openly(t, err)
		if err == nil && id == nil {
			t.Fatal("neither identity nor error")
		}
	})
}

func FuzzCurrentFile(f *testing.F) {
	for _, s := range []string{"", "generation-1", "generation-1\n", "generation-2\n", "generation-01\n", "generation-1\n\n", "generation--1",
		"generation-18446744073709551616", "../generation-1", "/", "generation-1/../..", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := &directory{dir: t.TempDir()}
		if err := os.Mkdir(d.path(firstName), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.path(currentName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		at, err := d.current()
		disktest.Openly(t, err)
		if err == nil && at != d.path(firstName) {
			t.Fatalf("%q leads to %s", text, at)
		}
	})
}
