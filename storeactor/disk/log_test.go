package disk_test

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func TestLogImageIsChecked(t *testing.T) {
	gap := append(disktest.Entries(10, 2), disktest.Entries(12, 2)...)
	strange := disktest.Entries(10, 2)
	strange[0].Type = raftpb.EntryType(7).Enum()
	for _, c := range []struct {
		name     string
		commit   uint64
		entries  []*raftpb.Entry
		expected messages.Code
	}{
		{"empty", 10, nil, messages.Code_OK},
		{"whole", 12, disktest.Entries(10, 2, 3), messages.Code_OK},
		{"a gap", 10, gap, messages.Code_DAMAGED},
		{"a gap behind the base", 10, disktest.Entries(11, 2), messages.Code_DAMAGED},
		{"a term that goes back", 10, disktest.Entries(10, 3, 2), messages.Code_DAMAGED},
		{"a term below the base's", 10, disktest.Entries(10, 1), messages.Code_DAMAGED},
		{"a commit beyond the end", 13, disktest.Entries(10, 2, 3), messages.Code_DAMAGED},
		{"a commit below the base", 9, disktest.Entries(10, 2, 3), messages.Code_DAMAGED},
		{"an unknown type", 10, strange, messages.Code_DAMAGED},
	} {
		image := &disk.LogImage{BaseIndex: 10, BaseTerm: 2, HardState: disktest.HardState(3, 0, c.commit), Entries: c.entries}
		if err := image.Check(); messages.CodeOf(err) != c.expected {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.expected)
		}
	}
}
