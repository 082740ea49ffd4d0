package sim

import (
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/transport"
	"keyval/messages"
)

const (
	stalledMax  = 4096            // envelopes that a cut holds up, a direction of a connection; more break it
	dialTimeout = 2 * time.Second // a handshake that takes longer has failed
)

type connState int

const (
	dialling connState = iota // hello is under way
	accepted                  // welcome is under way; the acceptor may send
	standing
	broken
)

// conn is one connection. Its ways are 0, from the dialler to the acceptor, and
// 1, back.
type conn struct {
	dialler  *seat
	acceptor *seat // nil until hello was heard
	endpoint string
	claims   *transport.Claims // of the token that the dialler shows; nil: none
	peer     messages.RaftID   // whom a node's link means to reach
	lane     messages.Lane
	link     *link // nil: a client's
	state    connState
	sides    [2]transport.Conn       // what dialler and acceptor know of the other
	ways     [2]*way                 // once there is an acceptor
	arrival  [2]time.Duration        // of the last envelope; none overtakes it
	stalled  [2][]*messages.Envelope // held up by a cut, in order
	doubts   int                     // expiries under way; only the last counts
}

// wayTo is the way of c that leads from one host to another, -1 if none does.
func (c *conn) wayTo(from, to string) int {
	if c.acceptor == nil {
		return -1
	}
	switch {
	case c.dialler.host.name == from && c.acceptor.host.name == to:
		return 0
	case c.acceptor.host.name == from && c.dialler.host.name == to:
		return 1
	}
	return -1
}

func (c *conn) touches(h *host) bool {
	return c.dialler.host == h || c.acceptor != nil && c.acceptor.host == h
}

// outlives reports whether c leads to an earlier incarnation of a host.
func (c *conn) outlives(h *host) bool {
	old := func(s *seat) bool { return s != nil && s.host != h && s.host.name == h.name }
	return old(c.dialler) || old(c.acceptor)
}

// outward is the way on which this seat may send, -1 if it may not.
func (c *conn) outward(s *seat) int {
	switch {
	case c.dialler == s && c.state == standing:
		return 0
	case c.acceptor == s && (c.state == standing || c.state == accepted):
		return 1
	}
	return -1
}

func (c *conn) ends(way int) (from, to *seat) {
	if way == 0 {
		return c.dialler, c.acceptor
	}
	return c.acceptor, c.dialler
}

// dial sends hello. The dialler hears LinkUp or LinkDown if it is a client.
func (n *network) dial(c *conn) {
	n.conns = append(n.conns, c)
	n.world.clock.after(dialTimeout, nil, func() {
		if c.state == dialling || c.state == accepted {
			n.fail(c, &messages.Error{Code: messages.Code_UNREACHABLE, Message: "no answer"})
		}
	})
	to := n.listener(c.endpoint)
	if to == nil {
		n.world.clock.after(2*n.fair.latency, nil, func() {
			n.fail(c, &messages.Error{Code: messages.Code_UNREACHABLE, Message: "connection refused"})
		})
		return
	}
	w := n.way(c.dialler.host, to.host)
	if w.cut {
		return // the timeout will tell
	}
	hello := transport.HelloTo(c.dialler.local, c.peer, c.lane)
	n.world.clock.after(n.latency(w), to.host, func() { n.greet(c, to, hello) })
}

// greet is the acceptor's answer to hello.
func (n *network) greet(c *conn, to *seat, hello *messages.Hello) {
	if c.state != dialling || to.gone() || to.host.frozen || c.dialler.gone() {
		return
	}
	from, refusal := to.atDoor(c)
	var welcome *messages.Welcome
	if refusal == nil {
		welcome, refusal = transport.Admit(to.local, to.known, from, hello)
	}
	w := n.way(to.host, c.dialler.host)
	if refusal != nil {
		if !w.cut {
			n.world.clock.after(n.latency(w), nil, func() {
				if c.link != nil && c.state == dialling {
					c.dialler.tell(&messages.PeerRefused{Peer: c.peer, Code: refusal.Code})
				}
				n.fail(c, refusal)
			})
		}
		return
	}
	if hello.Role == messages.Role_NODE {
		to.hear(hello.RaftId, hello.Incarnation, hello.Starts)
	}
	c.acceptor, c.state = to, accepted
	c.ways = [2]*way{n.way(c.dialler.host, to.host), w}
	c.sides[1] = transport.Accepted(to.local, from, hello)
	if w.cut {
		return
	}
	c.arrival[1] = n.world.clock.now + n.latency(w)
	n.world.clock.after(c.arrival[1]-n.world.clock.now, c.dialler.host, func() { n.stand(c, welcome) })
}

// stand brings the dialler's side up.
func (n *network) stand(c *conn, welcome *messages.Welcome) {
	if c.state != accepted || c.dialler.gone() {
		return
	}
	local := c.dialler.local
	if refusal := transport.Welcomed(local, c.dialler.known, c.acceptor.local.Principal, c.peer, welcome); refusal != nil {
		n.fail(c, refusal)
		return
	}
	c.state, c.sides[0] = standing, transport.Reached(local, c.acceptor.local.Principal, c.lane, welcome)
	if c.link == nil {
		c.dialler.tell(&messages.LinkUp{
			Endpoint: c.endpoint, RaftId: welcome.RaftId, Name: welcome.Name, ClusterId: welcome.ClusterId,
			Version: welcome.Version, WaitingFor: welcome.WaitingFor,
		})
		return
	}
	c.dialler.hear(welcome.RaftId, welcome.Incarnation, welcome.Starts)
	c.link.backoff, c.link.astray = backoffMin, false
	waiting := c.link.waiting
	c.link.waiting = nil
	for _, e := range waiting {
		n.transmit(c, 0, e)
	}
}

// tell posts an event to the actor that was named to Serve or Join.
func (s *seat) tell(event any) {
	if !s.gone() && s.events != nil {
		s.system.Root.Send(actor.NewPID(s.events.Address, s.events.Id), event)
	}
}

// fail ends a connection with a reason for the dialler.
func (n *network) fail(c *conn, refusal *messages.Error) {
	if c.state == broken {
		return
	}
	c.state = broken
	n.conns = slices.DeleteFunc(n.conns, func(o *conn) bool { return o == c })
	if l := c.link; l != nil {
		l.conn, l.waiting = nil, nil
		l.astray = c.acceptor == nil && refusal.Code == messages.Code_UNREACHABLE
		l.retryAt = n.world.clock.now + l.backoff
		l.backoff = min(2*l.backoff, backoffMax)
	} else {
		c.dialler.tell(&messages.LinkDown{Endpoint: c.endpoint, Code: refusal.Code, Message: refusal.Message, Hint: refusal.Hint})
	}
	n.part(c)
}

// part tells the acceptor that a client is gone, if this was its last connection.
func (n *network) part(c *conn) {
	if c.acceptor == nil || c.link != nil {
		return
	}
	for _, o := range n.conns {
		if o.acceptor == c.acceptor && o.sides[1].Address == c.sides[1].Address {
			return
		}
	}
	c.acceptor.tell(&messages.ClientGone{Address: c.sides[1].Address})
}

// end breaks a connection that the acceptor does not want any more, and says why unless
// nothing gets through.
func (n *network) end(c *conn, refusal *messages.Error) {
	if c.ways[1].cut {
		refusal = &messages.Error{Code: messages.Code_UNREACHABLE, Message: "it was closed"}
	}
	n.fail(c, refusal)
}

// sever breaks a connection; what is under way on it is lost.
func (n *network) sever(c *conn, why string) {
	n.fail(c, &messages.Error{Code: messages.Code_UNREACHABLE, Message: why})
}

// doubt breaks a silent connection once patience has run out, unless it has
// recovered by then.
func (n *network) doubt(c *conn) {
	c.doubts++
	doubts := c.doubts
	n.world.clock.after(n.patience, nil, func() {
		if c.state != broken && c.doubts == doubts && n.silent(c) {
			n.sever(c, "nothing was heard for too long")
		}
	})
}

func (n *network) silent(c *conn) bool {
	if c.acceptor == nil {
		return false
	}
	a, b := c.dialler.host, c.acceptor.host
	return a.dead || b.dead || a.frozen || b.frozen || c.ways[0].cut || c.ways[1].cut
}

// transmit puts an envelope on its way. Between nodes it may be lost, doubled
// or overtaken.
func (n *network) transmit(c *conn, way int, e *messages.Envelope) {
	from, _ := c.ends(way)
	w := c.ways[way]
	if c.link == nil {
		n.stream(c, way, w, e)
		return
	}
	switch {
	case w.cut:
		n.world.met(from.host, "cut")
	case n.happens(w.drop):
		n.world.met(from.host, "drop")
	default:
		copies := 1
		if n.happens(w.duplicate) {
			copies = 2
			n.world.met(from.host, "duplicate")
		}
		for range copies {
			if n.happens(w.overtake) {
				n.world.met(from.host, "overtake")
				n.deliver(c, way, e, n.latency(w)+time.Duration(n.chance.Int64N(int64(8*w.latency)+1)))
			} else {
				n.stream(c, way, w, e)
			}
		}
	}
}

func (n *network) happens(rate float64) bool { return rate > 0 && n.chance.Float64() < rate }

// stream sends in order.
func (n *network) stream(c *conn, way int, w *way, e *messages.Envelope) {
	now := n.world.clock.now
	c.arrival[way] = max(c.arrival[way], now+n.latency(w))
	n.deliver(c, way, e, c.arrival[way]-now)
}

// deliver hands an envelope over when it arrives. Envelopes that a cut holds up are
// delivered when the way opens again, since nothing may be missing in a client's
// stream.
func (n *network) deliver(c *conn, way int, e *messages.Envelope, delay time.Duration) {
	from, to := c.ends(way)
	n.world.clock.after(delay, to.host, func() {
		switch {
		case c.state == broken || to.gone():
		case !c.ways[way].cut:
			n.receive(c, way, e)
		case c.link != nil:
			n.world.met(from.host, "cut")
		case len(c.stalled[way]) == stalledMax:
			n.sever(c, "its queue is full")
		default:
			c.stalled[way] = append(c.stalled[way], e)
		}
	})
}

// resume hands over what a cut held up.
func (n *network) resume(c *conn, way int) {
	stalled := c.stalled[way]
	c.stalled[way] = nil
	for _, e := range stalled {
		if c.state != broken {
			n.receive(c, way, e)
		}
	}
}

// receive gives an envelope to its target as production does: opened anew from
// its bytes, behind the guard.
func (n *network) receive(c *conn, way int, e *messages.Envelope) {
	_, to := c.ends(way)
	if way == 1 && c.state != standing || to.gone() {
		return
	}
	near := c.sides[1-way]
	body, err := near.Open(e)
	if err != nil {
		n.world.note(to.host, "guard refuses type %d for %s: %v", e.Type, e.Target, err)
		n.sever(c, "a message was refused")
		return
	}
	// A founder that does not know its cluster yet may ask late, whatever became of its place.
	if _, asks := body.(*messages.FounderState); near.Role == messages.Role_NODE && !asks && to.outlived(near.RaftID) {
		n.world.fail("who was removed is not heard", "%s takes a message of type %d from replica %d, though it knows that this is no member any more", to.host.name, e.Type, near.RaftID)
	}
	if near.Role == messages.Role_NODE && !to.local.Inbox.Enter(near.RaftID, body) {
		n.world.note(to.host, "type %d from node %d is dropped: too much waits", e.Type, near.RaftID)
		return
	}
	if near.Role == messages.Role_CLIENT {
		from, _ := c.ends(way)
		near.Claim(body, []byte(from.host.name))
		if reply, denied := to.rights.Refuse(near, body); reply != nil {
			to.system.Root.Send(actor.NewPID(near.Address, e.Sender), reply)
			if denied != nil {
				to.tell(denied)
			}
			return
		}
	}
	n.world.ear.arrived(e, body)
	target := to.system.NewLocalPID(e.Target)
	if e.Sender == "" {
		to.system.Root.Send(target, body)
		return
	}
	to.system.Root.RequestWithCustomSender(target, body, actor.NewPID(near.Address, e.Sender))
}
