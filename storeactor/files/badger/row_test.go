package badger

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyval/storeactor/disk"
)

// A row comes back as it was, and takes few bytes beside its value.
func TestRowsAreDecodedAsTheyWereEncoded(t *testing.T) {
	for _, test := range []struct {
		row  disk.Row
		head int // bytes
	}{
		{disk.Row{Key: []byte("k"), Value: []byte("value"), Revision: 1 << 40, Created: 1 << 40, Version: 1}, 7},
		{disk.Row{Key: []byte("k"), Value: []byte{}, Revision: 1 << 40, Created: 1<<40 - 1000, Version: 200}, 9},
		{disk.Row{Key: []byte("k"), Value: []byte("v"), Revision: 1<<64 - 1, Created: 1, Version: 1<<64 - 1}, 25},
	} {
		row := test.row.Summed()
		stored := encodeValue(&row)
		got := disk.Row{Key: row.Key, Revision: row.Revision}
		if err := decodeValue(&got, stored); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(row, got); diff != "" || len(stored) != test.head+len(row.Value) || test.head > disk.HeadBytesMax {
			t.Errorf("%d bytes beside the value; (-encoded +decoded)\n%s", len(stored)-len(row.Value), diff)
		}
	}
}

// Whatever bit of a stored row is not as it was written, or of its key or revision, and
// wherever it is cut: it is rot, and no row.
func TestEveryFlippedBitOfARowIsFound(t *testing.T) {
	row := disk.Row{Key: []byte("key"), Value: []byte("a value of some length"), Revision: 1000, Created: 300, Version: 150}.Summed()
	rotten := func(what string, key []byte, revision uint64, deleted bool, stored []byte) {
		t.Helper()
		got := disk.Row{Key: key, Revision: revision, Deleted: deleted}
		if _, is := errors.AsType[*disk.Rot](decodeValue(&got, stored)); !is {
			t.Errorf("%s: %+v", what, got)
		}
	}
	stored := encodeValue(&row)
	for i := range len(stored) * 8 {
		bad := encodeValue(&row)
		bad[i/8] ^= 1 << (i % 8)
		rotten("a flipped bit", row.Key, row.Revision, false, bad)
	}
	for n := range stored {
		rotten("a cut value", row.Key, row.Revision, false, stored[:n])
	}
	for i := range 64 {
		rotten("another revision", row.Key, row.Revision^1<<i, false, stored)
	}
	for i := range len(row.Key) * 8 {
		key := []byte("key")
		key[i/8] ^= 1 << (i % 8)
		rotten("another key", key, row.Revision, false, stored)
	}
	rotten("a mark of deletion that was none", row.Key, row.Revision, true, stored)
	gone := disk.Row{Key: []byte("key"), Revision: 7, Deleted: true}
	if err := decodeValue(&gone, nil); err != nil || gone.Sum != (disk.Row{Key: []byte("key"), Revision: 7, Deleted: true}).Summed().Sum {
		t.Errorf("a deletion: %+v, %v", gone, err)
	}
}
