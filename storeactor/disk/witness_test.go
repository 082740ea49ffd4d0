package disk_test

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func TestWitnessMeetsALog(t *testing.T) {
	// Base 10 of term 2; entry 13 of term 3 was synced, with a vote for 1 in term
	// 4 and commit 12.
	w := disk.Witness{BaseIndex: 10, BaseTerm: 2, Index: 13, Term: 3, HardTerm: 4, Vote: 1, Commit: 12}
	atBase := disk.Witness{BaseIndex: 10, BaseTerm: 2, Index: 10, Term: 2, HardTerm: 2, Commit: 10}
	noVote := w
	noVote.Vote = 0
	for _, c := range []struct {
		name      string
		witness   disk.Witness
		hardState *raftpb.HardState
		terms     []uint64
		expected  messages.Code
	}{
		{"the same", w, disktest.HardState(4, 1, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"more entries", w, disktest.HardState(4, 1, 14), []uint64{2, 3, 3, 4}, messages.Code_OK},
		{"a newer term", w, disktest.HardState(5, 2, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"a newer term without a vote", w, disktest.HardState(5, 0, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"a vote where none was", noVote, disktest.HardState(4, 2, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"replaced by a newer leader, shorter", w, disktest.HardState(4, 1, 12), []uint64{2, 4}, messages.Code_OK},
		{"replaced by a newer leader, longer", w, disktest.HardState(4, 1, 12), []uint64{2, 3, 4, 4}, messages.Code_OK},
		{"only the base", atBase, disktest.HardState(2, 0, 10), nil, messages.Code_OK},
		{"term lost", w, disktest.HardState(3, 1, 12), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"all of the hard state lost", w, &raftpb.HardState{}, []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"vote lost", w, disktest.HardState(4, 0, 12), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"another vote", w, disktest.HardState(4, 2, 12), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"commit lost", w, disktest.HardState(4, 1, 11), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"commit lost, newer term", w, disktest.HardState(5, 1, 11), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"an entry lost", w, disktest.HardState(4, 1, 12), []uint64{2, 3}, messages.Code_DAMAGED},
		{"all entries lost", w, disktest.HardState(4, 1, 12), nil, messages.Code_DAMAGED},
		{"an older entry there", w, disktest.HardState(4, 1, 12), []uint64{2, 2, 2}, messages.Code_DAMAGED},
	} {
		image := &disk.LogImage{BaseIndex: 10, BaseTerm: 2, HardState: c.hardState, Entries: disktest.Entries(10, c.terms...)}
		if err := c.witness.Meet(image); messages.CodeOf(err) != c.expected {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.expected)
		}
	}
}
