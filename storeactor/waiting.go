package storeactor

import (
	"keyval/messages"
)

// waitingReadsMax bounds the reads that wait for an index to be applied; more are
// refused as busy.
const waitingReadsMax = 16_384

// waitingReads are the reads whose index is not applied yet.
type waitingReads struct {
	batches []*messages.ReadAt
	reads   int // in all batches, at most waitingReadsMax
}

// add takes a batch in and reports whether there was room.
func (w *waitingReads) add(m *messages.ReadAt) bool {
	if w.reads+len(m.Reads) > waitingReadsMax {
		return false
	}
	w.batches = append(w.batches, m)
	w.reads += len(m.Reads)
	return true
}

// release gives out the batches whose index is applied, in the order they came.
func (w *waitingReads) release(applied uint64) []*messages.ReadAt {
	var ready []*messages.ReadAt
	rest := w.batches[:0]
	for _, m := range w.batches {
		if m.Index <= applied {
			ready = append(ready, m)
			w.reads -= len(m.Reads)
		} else {
			rest = append(rest, m)
		}
	}
	clear(w.batches[len(rest):])
	w.batches = rest
	return ready
}
