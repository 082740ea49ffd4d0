package grpc

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// item is one sealed message on its way out.
type item struct {
	sealed   []byte
	founding bool          // may pass before there is a cluster
	lane     messages.Lane // on which a node sends it to another
	asker    *actor.PID    // of a proposal: who hears that it was not proposed; nil otherwise
	seq      uint64        // of a proposal
}

// itemOverhead is what an item costs beside its message, in bytes.
const itemOverhead = 64

func (it item) size() int { return len(it.sealed) + itemOverhead }

// queue is a bounded queue of sealed messages: many senders, one writer. Senders
// never wait.
type queue struct {
	ready chan struct{} // holds a token whenever items came since the last take

	mu     sync.Mutex
	items  []item
	bytes  int    // of items; at most limit
	limit  int    // in bytes
	evict  bool   // a full queue loses its oldest items, otherwise the new one
	share  *share // of the budget of all queues of a kind; nil: there is none
	held   int    // in bytes, of the share: bytes, and what was taken and is not sent yet
	closed bool   // takes nothing more
	lost   int    // items that the bound cost, ever
}

func newQueue(limit int, evict bool) *queue {
	return &queue{ready: make(chan struct{}, 1), limit: limit, evict: evict}
}

// sent tells the share what of a queue is on its way.
func (q *queue) sent() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.share.take(q.bytes - q.held)
	q.held = q.bytes
}

// push reports whether it was taken.
func (q *queue) push(it item) bool {
	if !q.add(it, it.size()) {
		return false
	}
	q.share.take(it.size()) // without the lock: it may end this queue or another
	return true
}

func (q *queue) add(it item, size int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	if q.bytes+size > q.limit && (!q.evict || size > q.limit) {
		q.lost++
		return false
	}
	q.shrink(q.limit - size)
	q.items = append(q.items, it)
	q.bytes += size
	q.held += size
	q.signal()
	return true
}

// shrink drops the oldest items until at most room bytes are left. q.mu is held.
func (q *queue) shrink(room int) {
	n := 0
	for n < len(q.items) && q.bytes > room {
		q.bytes -= q.items[n].size()
		n++
	}
	q.lost += n
	q.discard(n)
}

// discard forgets the first n items, whose bytes are counted off already.
func (q *queue) discard(n int) {
	switch {
	case n == 0:
	case n == len(q.items):
		clear(q.items)
		q.items = q.items[:0]
	default:
		clear(q.items[:n])
		q.items = q.items[n:]
	}
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take appends the oldest items to batch: up to so many bytes and items, and at
// least one if there is one. If more are left, ready holds a token again.
func (q *queue) take(batch []item, bytesMax, itemsMax int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.items) && n < itemsMax {
		size := q.items[n].size()
		if n > 0 && bytes+size > bytesMax {
			break
		}
		bytes += size
		n++
	}
	batch = append(batch, q.items[:n]...)
	q.bytes -= bytes
	q.discard(n)
	if len(q.items) > 0 {
		q.signal()
	}
	return batch
}

// bound sets another limit for what is pushed from now on.
func (q *queue) bound(limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = limit
}

// drain empties the queue.
func (q *queue) drain() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items, q.bytes = nil, 0
	q.share.take(-q.held)
	q.held = 0
	return items
}

// close drains the queue for good.
func (q *queue) close() []item {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	return q.drain()
}

// sizes are the bytes queued now and the items lost so far.
func (q *queue) sizes() (bytes, lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.lost
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}
