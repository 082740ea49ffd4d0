package grpc

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// gate is a listener that bounds what strangers can hold. A connection is unproven
// until its hello is admitted. The number of unproven connections and their age are
// bounded; one more than allowed closes the oldest, so that idle strangers cannot shut
// out those who have something to say.
type gate struct {
	net.Listener
	patience    time.Duration // how long a connection may stay unproven
	unprovenMax int           // in connections
	totalMax    int           // in connections
	arrived     *budget       // of bytes that came in and are no whole frames yet

	mu       sync.Mutex
	unproven list.List // of *guest, the oldest first
	total    int       // open connections
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		guest := &guest{Conn: conn, gate: g}
		guest.unread = g.arrived.share(func() { _ = guest.Close() })
		oldest, ok := g.enter(guest)
		if oldest != nil {
			_ = oldest.Close()
		}
		if ok {
			return guest, nil
		}
		guest.unread.close()
		_ = conn.Close()
	}
}

// enter counts a connection in, and names the one that has to leave for it.
func (g *gate) enter(c *guest) (leaves *guest, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unproven.Len() >= g.unprovenMax || g.total >= g.totalMax {
		front := g.unproven.Front()
		if front == nil {
			return nil, false
		}
		leaves = front.Value.(*guest)
	}
	g.total++
	c.place = g.unproven.PushBack(c)
	c.timer = time.AfterFunc(g.patience, c.tire)
	return leaves, true
}

// guest is an accepted connection. Its gate's lock guards its fields.
type guest struct {
	net.Conn
	gate   *gate
	place  *list.Element // among the unproven; nil: proved
	timer  *time.Timer
	closed bool
	trusts atomic.Bool // a member's: what arrives is not counted
	unread *share      // of gate.arrived: what came since the last whole frame
}

// Bounds of what may arrive before the hello is admitted, and since the last whole
// frame, in bytes.
const (
	helloBytesMax = 64 << 10
	unreadMax     = messageSizeMax + windowSize
)

var errUnread = errors.New("too much arrived that is no whole frame")

// Read implements net.Conn. Bytes that never become a whole frame hold memory that no
// reader gives back, so they are bounded for each connection and in all.
func (c *guest) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n <= 0 || c.trusts.Load() {
		return n, err
	}
	c.unread.take(n)
	if held := c.unread.held.Load(); held > unreadMax || held > helloBytesMax && !c.proved() {
		_ = c.Close()
		return 0, errUnread
	}
	return n, err
}

// consumed says that a frame is whole, and sets the count back to zero. The start of
// the next frame, which may have arrived already, is not counted then. That is at most
// one read: all that follows of the frame is counted.
func (c *guest) consumed() {
	if c != nil {
		c.unread.release()
	}
}

func (c *guest) proved() bool {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	return c.place == nil
}

// guestAddr leads from what gRPC knows of a stream to its connection.
type guestAddr struct {
	net.Addr
	guest *guest
}

// RemoteAddr implements net.Conn.
func (c *guest) RemoteAddr() net.Addr { return guestAddr{c.Conn.RemoteAddr(), c} }

// prove lets the connection stay; what a member sends is not counted any more. It
// reports false if the connection is closed already.
func (c *guest) prove(member bool) bool {
	c.trusts.Store(member)
	c.consumed()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.timer.Stop()
	if c.place != nil {
		c.gate.unproven.Remove(c.place)
		c.place = nil
	}
	return !c.closed
}

// tire closes a connection that has not proved in time who it is.
func (c *guest) tire() {
	c.gate.mu.Lock()
	unproven := c.place != nil
	c.gate.mu.Unlock()
	if unproven {
		_ = c.Close()
	}
}

// Close implements net.Conn.
func (c *guest) Close() error {
	c.gate.mu.Lock()
	if !c.closed {
		c.closed = true
		c.gate.total--
		c.timer.Stop()
		if c.place != nil {
			c.gate.unproven.Remove(c.place)
			c.place = nil
		}
	}
	c.gate.mu.Unlock()
	c.unread.close()
	return c.Conn.Close()
}
