package grpc

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

// gate is a listener that bounds what others can hold. A connection is a stranger's
// until its hello is admitted. Strangers are bounded in number and in age; one more than
// allowed closes the oldest of the host that has the most, so that those who say nothing
// cannot shut out those who have something to say. Who else has a place,
// transport.Places decides.
type gate struct {
	net.Listener
	patience time.Duration // how long a connection may be a stranger's
	places   transport.Places
	arrived  *budget // of bytes that came in and are no whole frames yet

	mu      sync.Mutex
	guests  [transport.Standings]list.List // of *guest that are open; in the order in which they entered
	leaving int                            // of guests, those that were told to leave
}

// leavingMax bounds those who were told to leave for others and have not yet, in number.
const leavingMax = 16

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		guest := &guest{Conn: conn, gate: g, host: hostOf(conn.RemoteAddr())}
		guest.unread = g.arrived.share(func() { _ = guest.Close() })
		leaves, ok := g.enter(guest)
		if leaves != nil {
			_ = leaves.Close()
		}
		if ok {
			return guest, nil
		}
		guest.unread.close()
		_ = conn.Close()
	}
}

func hostOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return a.String()
}

// network is where a connection comes from, for what is counted by it: the host, of IPv6 its
// network, in which one host has as many addresses as it likes.
func (c *guest) network() []byte {
	tcp, ok := c.Conn.RemoteAddr().(*net.TCPAddr)
	switch {
	case !ok:
		return nil
	case tcp.IP.To4() != nil:
		return tcp.IP.To4()
	}
	return tcp.IP.Mask(net.CIDRMask(64, 128))[:8]
}

// enter counts a stranger in, and names the one that has to leave for it.
func (g *gate) enter(c *guest) (leaves *guest, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	kind, ok := g.places.Seat(g.held(), 0, func(as transport.Standing) time.Duration { return g.idle(as, "") }, transport.Stranger)
	if !ok {
		return nil, false
	}
	if kind == transport.Stranger {
		leaves = g.crowding()
	}
	c.place = g.guests[transport.Stranger].PushBack(c)
	c.timer = time.AfterFunc(g.patience, c.tire)
	return leaves, true
}

// held counts. g.mu is held.
func (g *gate) held() (held transport.Held) {
	for as := range g.guests {
		held[as] = g.guests[as].Len()
	}
	return held
}

// crowding is the oldest stranger of the host that has the most. g.mu is held.
func (g *gate) crowding() *guest {
	of := map[string]int{}
	most := 0
	for e := g.guests[transport.Stranger].Front(); e != nil; e = e.Next() {
		host := e.Value.(*guest).host
		of[host]++
		most = max(most, of[host])
	}
	for e := g.guests[transport.Stranger].Front(); e != nil; e = e.Next() {
		if c := e.Value.(*guest); of[c.host] == most {
			return c
		}
	}
	return nil
}

// own counts the connections of a user; of nobody, without keys, there are none. g.mu is held.
func (g *gate) own(user string) (n int) {
	if user == "" {
		return 0
	}
	for e := g.guests[transport.Client].Front(); e != nil; e = e.Next() {
		if e.Value.(*guest).user == user {
			n++
		}
	}
	return n
}

// idle is how long the idlest of a standing has been silent, of a user's if one is named; 0
// while many are leaving. g.mu is held.
func (g *gate) idle(as transport.Standing, user string) time.Duration {
	c := g.idlest(as, user)
	if c == nil || g.leaving >= leavingMax {
		return 0
	}
	return time.Since(time.Unix(0, c.heard.Load()))
}

// idlest is who of a standing, and of a user if one is named, has been silent for the longest
// time and stays; nil: nobody. g.mu is held.
func (g *gate) idlest(as transport.Standing, user string) (idlest *guest) {
	for e := g.guests[as].Front(); e != nil; e = e.Next() {
		if c := e.Value.(*guest); !c.leaves && (user == "" || c.user == user) && (idlest == nil || c.heard.Load() < idlest.heard.Load()) {
			idlest = c
		}
	}
	return idlest
}

// guest is an accepted connection. Its gate's lock guards its fields.
type guest struct {
	net.Conn
	gate    *gate
	host    string // of the far side
	as      transport.Standing
	user    string        // of a client with keys: whose it is
	place   *list.Element // in guests[as]; nil: closed
	timer   *time.Timer
	leaves  bool                  // it was told to
	dismiss func(*messages.Error) // ends it, and says why; of a stranger nil. The hub's lock is held at each call
	trusts  atomic.Bool           // a member's: what arrives is not counted
	heard   atomic.Int64          // when the last whole frame came, Unix nanoseconds
	unread  *share                // of gate.arrived: what came since the last whole frame
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
		c.heard.Store(time.Now().UnixNano())
		c.unread.release()
	}
}

func (c *guest) proved() bool {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	return c.as != transport.Stranger
}

// guestAddr leads from what gRPC knows of a stream to its connection.
type guestAddr struct {
	net.Addr
	guest *guest
}

// RemoteAddr implements net.Conn.
func (c *guest) RemoteAddr() net.Addr { return guestAddr{c.Conn.RemoteAddr(), c} }

// seat gives a stranger's connection the standing that its hello has shown, and names
// the one that has to be dismissed for it. It stays a stranger's if there is no place, or
// if it is closed already. What a member sends is not counted any more. dismiss ends the
// connection. user is whose it is, of a client with keys, and own how many he has already.
func (c *guest) seat(as transport.Standing, user string, dismiss func(*messages.Error)) (leaves *guest, own int, ok bool) {
	g := c.gate
	c.consumed()
	g.mu.Lock()
	defer g.mu.Unlock()
	own = g.own(user)
	whose := "" // are those of whom one may have to leave
	if as == transport.Client && g.places.AtShare(own) {
		whose = user
	}
	kind, ok := g.places.Seat(g.held(), own, func(as transport.Standing) time.Duration { return g.idle(as, whose) }, as)
	if !ok || c.place == nil {
		return nil, own, false
	}
	if kind != transport.Standings {
		if leaves = g.idlest(kind, whose); leaves != nil {
			leaves.leaves = true
			g.leaving++
		}
	}
	c.timer.Stop()
	g.guests[c.as].Remove(c.place)
	c.as, c.user, c.place, c.dismiss = as, user, g.guests[as].PushBack(c), dismiss
	c.trusts.Store(as == transport.Member)
	return leaves, own, true
}

// lingers is how much longer nobody may stay who has said hello than a stranger: in that time a
// busy machine has compared a password.
const lingers = 3

// linger gives nobody his time.
func (c *guest) linger() {
	c.consumed()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.place != nil {
		c.timer.Reset(lingers * c.gate.patience)
	}
}

// tire closes a connection that has not proved in time who it is.
func (c *guest) tire() {
	if !c.proved() {
		_ = c.Close()
	}
}

// Close implements net.Conn.
func (c *guest) Close() error {
	g := c.gate
	g.mu.Lock()
	if c.place != nil {
		c.timer.Stop()
		g.guests[c.as].Remove(c.place)
		c.place = nil
		if c.leaves {
			g.leaving--
		}
	}
	g.mu.Unlock()
	c.unread.close()
	return c.Conn.Close()
}
