package badger

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyval/storeactor/disk"
)

// FuzzMemTable: however the end of the rows' file looks, it is told where what is
// whole ends, and that is where it said for the same bytes with more behind them.
func FuzzMemTable(f *testing.F) {
	entry := func(key, value string) []byte {
		b := append([]byte{0, 0, byte(len(key)), byte(len(value)), 0}, key+value...)
		return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, disk.Castagnoli))
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
