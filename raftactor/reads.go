package raftactor

import (
	"encoding/binary"

	"keyval/messages"
)

// readsMax bounds the reads that wait for a ReadIndex, in number.
const readsMax = 64 << 10

// reads turns single reads into ReadIndex batches: one is in flight, the next fills.
// Raft drops a batch silently when leadership moves, so one that is not answered is
// asked for again under a fresh context. An answer to any of its contexts counts: the
// round trip may take longer than the pause between two contexts.
//
// Invariant: every context from first to counter was made after all reads of the
// batch had come, so whichever index answers it is at or above every write that
// was acknowledged before them.
type reads struct {
	nonce   uint64 // of this incarnation: contexts of two nodes or lives never meet
	counter uint64

	filling  []*messages.ReadIndex
	inFlight []*messages.ReadIndex // nil: nothing in flight
	first    uint64                // the batch's first context
	asked    int                   // ticks since the last context was made
	waited   int                   // ticks since the first
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
	if q.inFlight != nil || len(q.filling) == 0 {
		return nil
	}
	q.inFlight, q.filling = q.filling, nil
	q.first, q.waited = q.counter+1, 0
	return q.renew()
}

// renew gives the batch in flight a fresh context.
func (q *reads) renew() []byte {
	q.counter++
	q.asked = 0
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, q.nonce), q.counter)
}

// confirmed takes raft's answer; nil if it is not to the batch in flight.
func (q *reads) confirmed(context []byte) []*messages.ReadIndex {
	if q.inFlight == nil || len(context) != 16 || binary.BigEndian.Uint64(context) != q.nonce {
		return nil
	}
	if n := binary.BigEndian.Uint64(context[8:]); n < q.first || n > q.counter {
		return nil
	}
	return q.finish()
}

func (q *reads) finish() []*messages.ReadIndex {
	batch := q.inFlight
	q.inFlight = nil
	return batch
}

// tick says what became due: a batch to ask for again, or to give up.
func (q *reads) tick(retryTicks, giveUpTicks int) (again []byte, givenUp []*messages.ReadIndex) {
	if q.inFlight == nil {
		return nil, nil
	}
	q.asked++
	q.waited++
	if q.waited >= giveUpTicks {
		return nil, q.finish()
	}
	if q.asked >= retryTicks {
		return q.renew(), nil
	}
	return nil, nil
}

// asksMax bounds the ReadIndex messages of one peer that are taken in one tick, in number. A
// peer has one batch under way, and a leader that answers takes a round trip for each.
const asksMax = 1024

// asks counts the ReadIndex messages of peers. RawNode keeps each until a round of
// heartbeats, or the first entry of a leadership, is acknowledged. A leader that gets
// neither steps down after an election timeout and forgets them, so a bound for each tick
// bounds what it keeps.
type asks map[uint64]int // by peer, in this tick

func (a asks) tick() { clear(a) }

func (a asks) admit(peer uint64) bool {
	if a[peer] >= asksMax {
		return false
	}
	a[peer]++
	return true
}
