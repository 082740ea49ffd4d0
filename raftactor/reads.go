package raftactor

import (
	"encoding/binary"

	"keyval/messages"
)

// readsMax bounds the reads that wait for a ReadIndex, in number.
const readsMax = 64 << 10

// reads turns single reads into ReadIndex batches: one is in flight, the next
// fills. A batch that is not answered is asked again under a fresh context, since
// raft loses it silently when leadership moves.
//
// Invariant: what is in flight was asked for before its context was made, so the
// index that answers it is at or above every write that was acknowledged before
// those reads came.
type reads struct {
	nonce   uint64 // of this incarnation: contexts of two nodes or lives never meet
	counter uint64

	filling  []*messages.ReadIndex
	inFlight []*messages.ReadIndex
	context  []byte // nil: nothing in flight
	asked    int    // ticks since the context was made
	waited   int    // ticks since the batch was first asked for
}

// add queues a read; false when the bound is reached.
func (q *reads) add(r *messages.ReadIndex) bool {
	if len(q.filling)+len(q.inFlight) >= readsMax {
		return false
	}
	q.filling = append(q.filling, r)
	return true
}

// next starts the filling batch and returns its context, or nil if a batch is in
// flight or none is filling.
func (q *reads) next() []byte {
	if q.context != nil || len(q.filling) == 0 {
		return nil
	}
	q.inFlight, q.filling = q.filling, nil
	q.waited = 0
	return q.renew()
}

// renew gives the batch in flight a fresh context.
func (q *reads) renew() []byte {
	q.counter++
	q.asked = 0
	q.context = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, q.nonce), q.counter)
	return q.context
}

// confirmed takes raft's answer; nil if it is not to the batch in flight.
func (q *reads) confirmed(context []byte) []*messages.ReadIndex {
	if q.context == nil || string(context) != string(q.context) {
		return nil
	}
	batch := q.inFlight
	q.inFlight, q.context = nil, nil
	return batch
}

// tick says what became due: a batch to ask for again, or to give up.
func (q *reads) tick(retryTicks, giveUpTicks int) (again []byte, givenUp []*messages.ReadIndex) {
	if q.context == nil {
		return nil, nil
	}
	q.asked++
	q.waited++
	if q.waited >= giveUpTicks {
		givenUp = q.inFlight
		q.inFlight, q.context = nil, nil
		return nil, givenUp
	}
	if q.asked >= retryTicks {
		return q.renew(), nil
	}
	return nil, nil
}

// drop empties both batches.
func (q *reads) drop() []*messages.ReadIndex {
	all := append(q.inFlight, q.filling...)
	q.inFlight, q.filling, q.context = nil, nil, nil
	return all
}
