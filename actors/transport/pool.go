package transport

import "sync/atomic"

// shareParts is into how many parts the rest of a Pool is divided, to find what
// one of its users may hold.
const shareParts = 16

// Pool is a number of bytes that many draw from, none of whom is trusted. One may
// hold a sixteenth of what is left: when few are there that is more than they
// want; the more is held, the less anybody may hold more, and so something is left
// for whoever comes next and wants little. It never runs out.
//
// A Pool is shared: its methods may be called from everywhere, and never wait.
type Pool struct {
	left atomic.Int64
}

// NewPool makes a pool of so many bytes.
func NewPool(bytes int64) *Pool {
	p := &Pool{}
	p.left.Store(bytes)
	return p
}

// Take takes n bytes for one who holds so many already. It takes all or nothing.
func (p *Pool) Take(n, held int) bool {
	if left := p.left.Add(-int64(n)); left < 0 || int64(held+n) > (left+int64(held+n))/shareParts {
		p.left.Add(int64(n))
		return false
	}
	return true
}

// Give gives n bytes back that were taken.
func (p *Pool) Give(n int) { p.left.Add(int64(n)) }

// Left is what nobody holds.
func (p *Pool) Left() int64 { return p.left.Load() }
