package grpc

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Bounds of what clients have in a node's mailboxes: requests that were delivered
// and not answered yet. A connection that is at its bound is not read from until
// replies go out, so that it is the client that waits. They are a little above the
// credits of a session, so that a client that keeps its credits never meets them.
const (
	windowRequestsMax = 1280
	windowBytesMax    = 12 << 20
	// poolBytesMax bounds what all clients of a node have unanswered, in bytes. A
	// connection that has nothing unanswered may exceed it by one request, so that no
	// client stands still because of the others.
	poolBytesMax = 256 << 20
	// requestOverhead is what a request costs in a mailbox beside its body, in bytes.
	requestOverhead = 1 << 10
	// windowPatience is how long a connection may stand at its bound without a
	// single reply. Then it ends: what it sent will not be answered.
	windowPatience = 10 * time.Second
)

// newPool is what all clients of a node share. Whoever waits for it is served in
// the order of coming.
func newPool() *semaphore.Weighted { return semaphore.NewWeighted(poolBytesMax) }

// window is what one connection has unanswered. It does not look at which reply answers
// which request: each reply gives back what the oldest request took. Only one goroutine
// calls enter; any may call answered.
type window struct {
	pool        *semaphore.Weighted
	requestsMax int // at once

	mu     sync.Mutex
	taken  []taken // one a request, the oldest first
	bytes  int     // their sum
	closed bool
	wake   context.CancelFunc // ends the wait of enter; nil: it does not wait
}

// taken is the room of one request.
type taken struct {
	size   int
	pooled bool // it is of the pool too
}

func newWindow(pool *semaphore.Weighted) *window {
	return &window{pool: pool, requestsMax: windowRequestsMax}
}

// enter waits until there is room for a request. It reports false if the
// connection ended, or if no reply went out for too long.
func (w *window) enter(size int) bool {
	size += requestOverhead
	for {
		wait, room := w.take(size)
		switch {
		case room == roomTaken || room == roomNever:
			return room == roomTaken
		case room == roomOfPool && w.pool.Acquire(wait, int64(size)) == nil:
			return w.takePooled(size)
		}
		<-wait.Done()
		if errors.Is(wait.Err(), context.DeadlineExceeded) {
			return false
		}
	}
}

// room is what take found.
type room int

const (
	roomTaken  room = iota
	roomNever       // the window is closed
	roomOfPool      // the connection has room, and the pool has none now
	roomLater       // the connection has none
)

// take takes room for a request if there is some. Otherwise it returns a wait that
// ends with the next reply, with the connection, or when patience does.
func (w *window) take(size int) (context.Context, room) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := roomLater
	switch first := len(w.taken) == 0; {
	case w.closed:
		return nil, roomNever
	case first || len(w.taken) < w.requestsMax && w.bytes+size <= windowBytesMax:
		if first || w.pool.TryAcquire(int64(size)) {
			w.add(taken{size, !first})
			return nil, roomTaken
		}
		found = roomOfPool
	}
	wait, wake := context.WithTimeout(context.Background(), windowPatience)
	w.wake = wake
	return wait, found
}

// takePooled takes room for a request of which the pool holds its part already. It
// reports false if the connection ended meanwhile.
func (w *window) takePooled(size int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rouse()
	if w.closed {
		w.pool.Release(int64(size))
		return false
	}
	w.add(taken{size, true})
	return true
}

func (w *window) add(t taken) {
	w.taken = append(w.taken, t)
	w.bytes += t.size
}

func (w *window) rouse() {
	if w.wake != nil {
		w.wake()
		w.wake = nil
	}
}

// answered gives back what the oldest request took.
func (w *window) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.taken) > 0 {
		w.giveOldest()
		w.rouse()
	}
}

func (w *window) giveOldest() {
	t := w.taken[0]
	w.taken = w.taken[1:]
	w.bytes -= t.size
	if t.pooled {
		w.pool.Release(int64(t.size))
	}
}

// close gives everything back.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.taken) > 0 {
		w.giveOldest()
	}
	w.taken, w.closed = nil, true
	w.rouse()
}
