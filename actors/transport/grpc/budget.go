package grpc

import (
	"sync"
	"sync/atomic"
)

// budget bounds the bytes that connections hold together. No connection is trusted to
// hold little. When the budget is overdrawn, the one that holds the most is closed, and
// then the next, until it is not; so a newcomer that wants little finds room.
type budget struct {
	left atomic.Int64

	mu     sync.Mutex
	shares map[*share]bool // false: it was told to leave
}

// share is what one connection holds of a budget. A nil share counts nothing.
type share struct {
	of    *budget
	held  atomic.Int64
	over  atomic.Bool
	leave func() // is called once at most, and does not wait
}

func newBudget(bytes int64) *budget {
	b := &budget{shares: map[*share]bool{}}
	b.left.Store(bytes)
	return b
}

// share opens a share that holds nothing.
func (b *budget) share(leave func()) *share {
	s := &share{of: b, leave: leave}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shares[s] = true
	return s
}

// take adds n bytes to what is held, or takes n away if that is negative.
func (s *share) take(n int) {
	if s == nil || n == 0 {
		return
	}
	s.held.Add(int64(n))
	if s.of.left.Add(-int64(n)) < 0 && n > 0 {
		s.of.relieve()
	}
	if s.over.Load() {
		s.release()
	}
}

// release gives back all that is held.
func (s *share) release() {
	if s != nil {
		s.of.left.Add(s.held.Swap(0))
	}
}

// close releases for good: what is taken afterwards is given back at once.
func (s *share) close() {
	if s == nil {
		return
	}
	s.over.Store(true)
	s.release()
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	delete(s.of.shares, s)
}

// relieve asks the greatest share to leave. It does nothing if shares that were asked
// before, and have not left yet, hold enough.
func (b *budget) relieve() {
	b.mu.Lock()
	var greatest *share
	leaving := int64(0)
	for s, stays := range b.shares {
		switch held := s.held.Load(); {
		case !stays:
			leaving += held
		case greatest == nil || held > greatest.held.Load():
			greatest = s
		}
	}
	if greatest == nil || b.left.Load()+leaving >= 0 {
		b.mu.Unlock()
		return
	}
	b.shares[greatest] = false
	b.mu.Unlock()
	greatest.leave()
}
