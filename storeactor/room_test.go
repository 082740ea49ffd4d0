package storeactor

import (
	"testing"

	"keyval/storeactor/disk"
)

// What a node lacks after one look or several: bytes, files or descriptors, and what it
// lacked before it lacks until there is a quarter more.
func TestRoom(t *testing.T) {
	const mb, gb = 1 << 20, 1 << 30
	bytes := func(free, all uint64) disk.Room { return disk.Room{Bytes: free, BytesAll: all} }
	for _, row := range []struct {
		name string
		min  int64
		seen []disk.Room
		want string
	}{
		{"enough", 0, []disk.Room{bytes(10*gb, 100*gb)}, ""},
		{"a tenth of a disk is enough", 0, []disk.Room{bytes(gb, 10*gb)}, ""},
		{"less is not", 0, []disk.Room{bytes(gb-1, 10*gb)}, "1023 MB free, 1024 MB are needed"},
		{"2 GB of a large disk are enough", 0, []disk.Room{bytes(2*gb, 1000*gb)}, ""},
		{"512 MB at least", 0, []disk.Room{bytes(120*mb, gb)}, "120 MB free, 512 MB are needed"},
		{"a bound of one's own", 100 * mb, []disk.Room{bytes(99*mb, gb)}, "99 MB free, 100 MB are needed"},
		{"and enough by it", 100 * mb, []disk.Room{bytes(100*mb, gb)}, ""},
		{"switched off", -1, []disk.Room{{BytesAll: gb, FilesAll: 1000, DescriptorsAll: 1000}}, ""},
		{"it does not end at once", 100 * mb, []disk.Room{bytes(99*mb, gb), bytes(124*mb, gb)}, "124 MB free, 125 MB are needed"},
		{"but with a quarter more", 100 * mb, []disk.Room{bytes(99*mb, gb), bytes(125*mb, gb)}, ""},
		{"and begins below the bound only", 100 * mb, []disk.Room{bytes(99*mb, gb), bytes(125*mb, gb), bytes(101*mb, gb)}, ""},
		{"few files", 0, []disk.Room{{Bytes: gb, BytesAll: gb, Files: 99, FilesAll: 500}}, "room for 99 files, 100 are needed"},
		{"a tenth of many", 0, []disk.Room{{Bytes: gb, BytesAll: gb, Files: 999, FilesAll: 10_000}}, "room for 999 files, 1000 are needed"},
		{"files that nobody counts", 0, []disk.Room{{Bytes: gb, BytesAll: gb}}, ""},
		{"few descriptors", 0, []disk.Room{{Descriptors: 255, DescriptorsAll: 4096}}, "255 descriptors left, 256 are needed"},
		{"a node that is given few", 0, []disk.Room{{Descriptors: 30, DescriptorsAll: 90}}, ""},
		{"files while it lacks bytes", 0, []disk.Room{bytes(0, gb), {Bytes: gb, BytesAll: gb, Files: 110, FilesAll: 500}}, ""},
	} {
		var r room
		for _, now := range row.seen {
			r = r.after(now, row.min)
		}
		if r.lacks != row.want {
			t.Errorf("%s: %q, want %q", row.name, r.lacks, row.want)
		}
	}
}
