package storeactor

import (
	"fmt"
	"testing"

	"keyval/messages"
)

func TestWaitingReads(t *testing.T) {
	var w waitingReads
	batch := func(index uint64, reads int) *messages.ReadAt {
		return &messages.ReadAt{Index: index, Reads: make([]*messages.ReadIndex, reads)}
	}
	for _, b := range []*messages.ReadAt{batch(5, 1), batch(7, 2), batch(6, 3)} {
		if !w.add(b) {
			t.Fatal("there was room")
		}
	}
	if w.add(batch(9, waitingReadsMax-5)) {
		t.Error("one read more than there is room for was taken in")
	}
	if !w.add(batch(9, waitingReadsMax-6)) {
		t.Error("there was room for these")
	}
	var got []uint64
	for _, applied := range []uint64{4, 6, 6, 9} {
		for _, b := range w.release(applied) {
			got = append(got, applied, b.Index)
		}
	}
	if fmt.Sprint(got) != "[6 5 6 6 9 7 9 9]" || w.reads != 0 || len(w.batches) != 0 {
		t.Errorf("released (applied, index) %v, %d reads are left", got, w.reads)
	}
}
