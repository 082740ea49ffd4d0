package grpc

import (
	"sync"
	"time"
)

// Bounds of what clients have in a node's mailboxes: requests that were delivered
// and not answered yet. A connection that is at its bound is not read from until
// replies go out, so that it is the client that waits. They are a little above the
// credits of a session, so that a client that keeps its credits never meets them.
const (
	windowRequestsMax = 1280
	windowBytesMax    = 12 << 20
	// poolBytesMax bounds all clients of a node together, in bytes. A connection
	// with nothing unanswered may always go on.
	poolBytesMax = 256 << 20
	// requestOverhead is what a request costs in a mailbox beside its body, in bytes.
	requestOverhead = 1 << 10
	// windowPatience is how long a connection may stand at its bound without a
	// single reply. Then it ends: what it sent will not be answered.
	windowPatience = 10 * time.Second
	// poolPause is how long a connection waits before it looks at the pool again.
	poolPause = 10 * time.Millisecond
)

// pool is what all clients of a node have unanswered, in bytes.
type pool struct {
	mu    sync.Mutex
	bytes int
}

// take reports whether there was room; must takes all the same.
func (p *pool) take(size int, must bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !must && p.bytes+size > poolBytesMax {
		return false
	}
	p.bytes += size
	return true
}

func (p *pool) give(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= size
}

// window is what one connection has unanswered. Which reply answers which request
// is not looked at: each gives back what the oldest took.
type window struct {
	pool *pool
	room chan struct{} // holds a token whenever a reply went out since the last look

	mu     sync.Mutex
	sizes  []int // of the requests, the oldest first
	bytes  int   // their sum
	closed bool
}

func newWindow(p *pool) *window { return &window{pool: p, room: make(chan struct{}, 1)} }

// enter waits until there is room for a request. It reports false if the
// connection ended, or if no reply went out for too long.
func (w *window) enter(size int, ended <-chan struct{}) bool {
	size += requestOverhead
	var patience *time.Timer
	for !w.take(size) {
		if patience == nil {
			patience = time.NewTimer(windowPatience)
			defer patience.Stop()
		}
		pause := time.NewTimer(poolPause)
		select {
		case <-w.room:
			patience.Reset(windowPatience)
		case <-pause.C:
		case <-patience.C:
			pause.Stop()
			return false
		case <-ended:
			pause.Stop()
			return false
		}
		pause.Stop()
	}
	return true
}

func (w *window) take(size int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	empty := len(w.sizes) == 0
	if w.closed || !empty && (len(w.sizes) >= windowRequestsMax || w.bytes+size > windowBytesMax) || !w.pool.take(size, empty) {
		return false
	}
	w.sizes = append(w.sizes, size)
	w.bytes += size
	return true
}

// answered gives back what the oldest request took.
func (w *window) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sizes) == 0 {
		return
	}
	w.pool.give(w.sizes[0])
	w.bytes -= w.sizes[0]
	w.sizes = w.sizes[1:]
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// close gives everything back.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pool.give(w.bytes)
	w.sizes, w.bytes, w.closed = nil, 0, true
}
