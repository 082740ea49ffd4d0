package grpc

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

const (
	// replyBytesMax bounds the replies that wait for one client, in bytes. A client
	// that does not take them loses its connection.
	replyBytesMax = 8 << 20
	// repliesMax bounds the replies that wait for all clients, in bytes. arrivedMax
	// bounds what has arrived from all connections but members' and is not yet a whole
	// frame. Beyond either, the connection that holds the most is ended.
	repliesMax = 256 << 20
	arrivedMax = 256 << 20
	// connectionsOfClientMax is how many connections one client may have, as when it
	// knows a node by two names or left one half open. One more costs the oldest.
	connectionsOfClientMax = 4
	// partingPatience is how long a connection that is ended may take to hear why.
	partingPatience = time.Second
)

// inboundKey is a client's address or a node's lane. Of several connections the
// newest counts, since the far side knows best which is alive.
type inboundKey struct {
	address string
	lane    messages.Lane
}

// inbound is an admitted connection that came in.
type inbound struct {
	conn   transport.Conn
	hello  *messages.Hello
	queue  *queue  // to a client, or to a node that is no peer or has moved; to a peer it stays empty
	window *window // of a client; nil of a node, whose traffic Raft bounds
	guest  *guest
	chain  []*x509.Certificate // of the far side, or of who signed its token; none without keys
	claims *transport.Claims   // of its token; nil: it shows none

	reject  func(...item) // takes what was queued and is not sent
	once    sync.Once
	ended   chan struct{} // closed when it has to end
	refusal *messages.Error
}

func (c *inbound) key() inboundKey { return inboundKey{c.conn.Address, c.conn.Lane} }

// end makes the connection's handler say why and return, which closes the connection,
// since it carries one stream. A handler that takes too long is cut off. end does not
// wait.
func (c *inbound) end(why *messages.Error) {
	c.once.Do(func() {
		c.refusal = why
		c.reject(c.queue.close()...)
		if c.window != nil {
			c.window.close()
		}
		close(c.ended)
		time.AfterFunc(partingPatience, func() { _ = c.guest.Close() })
	})
}

// Connect implements messages.LinkServer: one stream that came in.
func (h *hub) Connect(s grpc.BidiStreamingServer[messages.Frame, messages.Frame]) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error")
			h.logger.Error("transport: a stream failed", "reason", r, "hint", "report it with this log: it is a defect of the software")
		}
	}()
	hello := &incoming{}
	defer hello.free()
	if err := s.RecvMsg(hello); err != nil {
		return err
	}
	c, welcome, refusal := h.enter(hello.Control.GetHello(), guestOf(s.Context()), chainOf(s.Context()))
	if refusal != nil {
		h.outlet.log.Warn("a connection was refused", "address", remote(s.Context()), "reason", refusal.Message)
		return s.SendMsg(refusalFrame(refusal))
	}
	defer h.leave(c)
	if err := s.SendMsg(&outgoing{control: &messages.Frame{Kind: &messages.Frame_Welcome{Welcome: welcome}}}); err != nil {
		return err
	}
	h.running.Go(func() { h.read(c, s) })
	if err := writeQueue(s, c.queue, c.ended, false, func(item) {}); err != nil {
		return err
	}
	if c.refusal != nil {
		return s.SendMsg(refusalFrame(c.refusal))
	}
	return nil
}

// read delivers what comes in and ends the connection when nothing more can.
func (h *hub) read(c *inbound, s stream) {
	err := (&inlet{system: h.system, conn: c.conn, absent: &h.absent, window: c.window, host: c.guest.network(), inbox: h.local.Load().Inbox, guest: c.guest, rights: &h.rights, denied: h.tell}).read(s)
	var violation *messages.Error
	if !errors.As(err, &violation) {
		if err != io.EOF && h.ctx.Err() == nil {
			h.logger.Debug("transport: a connection broke", "address", c.conn.Address, "reason", err)
		}
		c.end(nil)
		return
	}
	h.outlet.log.Warn("a connection was ended for what it sent", "address", c.conn.Address, "reason", violation.Message)
	c.end(violation)
}

// enter admits a connection and makes it the newest of its key, or refuses it. A
// node has one connection a lane.
func (h *hub) enter(hello *messages.Hello, g *guest, chain []*x509.Certificate) (*inbound, *messages.Welcome, *messages.Error) {
	var claims *transport.Claims
	atDoor := h.net.options.Keys != nil && len(chain) == 0
	if atDoor && hello.GetToken() != "" {
		var err error
		if claims, chain, err = h.net.options.Keys.Prove(hello.Token); err != nil {
			return nil, nil, messages.Errorf(messages.Code_NOT_ALLOWED, "the token is not good: %s", transport.Legible(err.Error())).
				WithHint("log in again: kvctl login USER")
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	local, from := *h.local.Load(), keys.PrincipalOf(chain)
	var refusal *messages.Error
	if atDoor {
		if from, refusal = transport.AtDoor(local, *h.known.Load(), *h.rights.Load(), claims, h.net.options.Keys.Now()); refusal != nil {
			return nil, nil, refusal
		}
	}
	welcome, refusal := transport.Admit(local, *h.known.Load(), from, hello)
	switch {
	case refusal != nil:
		return nil, nil, refusal
	case h.net.options.Keys.Stale(chain, claims != nil) != nil: // keys were loaded between its handshake and its hello
		return nil, nil, messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s is good no more", from)
	case h.closed || g == nil:
		return nil, nil, messages.Errorf(messages.Code_UNREACHABLE, "node %s is stopping", local.Name)
	}
	c := &inbound{
		conn: transport.Accepted(local, from, hello), hello: hello, guest: g, chain: chain, claims: claims,
		ended: make(chan struct{}), reject: h.reject,
	}
	if of := h.inbound[c.key()]; c.conn.Role == messages.Role_CLIENT && len(of) > 0 && of[0].conn.Principal != from {
		if of[0].conn.Principal.Kind != transport.Nobody {
			return nil, nil, messages.Errorf(messages.Code_CONFLICT, "somebody else is connected as %s", c.conn.Address)
		}
		for _, nobody := range of { // who shows who he is comes first
			nobody.end(messages.Errorf(messages.Code_CONFLICT, "%s has connected as %s", c.conn.Address, from))
		}
	}
	if refusal := h.seat(c, local); refusal != nil {
		return nil, nil, refusal
	}
	room := 1
	if c.conn.Role == messages.Role_CLIENT {
		room = connectionsOfClientMax
		c.queue, c.window = newQueue(replyBytesMax, false), newWindow(h.pool)
		if from.Kind == transport.Nobody {
			c.window.requestsMax = 1
		}
		c.queue.share = h.replies.share(func() { c.end(notTaken(c.queue)) })
		h.clients.Store(c.conn.Address, c)
	} else {
		c.queue = newQueue(laneLimits[c.conn.Lane], c.conn.Lane == messages.Lane_CONTROL)
		h.hear(hello.RaftId, hello.Incarnation, hello.Starts)
		if p := (*h.peers.Load())[c.conn.Address]; p != nil {
			p.rouse()
		}
	}
	list := append(h.inbound[c.key()], c)
	h.inbound[c.key()] = list
	for _, old := range list[:max(0, len(list)-room)] {
		old.end(messages.Errorf(messages.Code_CONFLICT, "%s has connected again", c.conn.Address))
	}
	return c, welcome, nil
}

// seat gives a connection its place, or says why there is none. That of nobody stays a stranger's,
// with what bounds those: their number, and the time until they are let go of. h.mu is held.
func (h *hub) seat(c *inbound, local transport.Local) *messages.Error {
	from, places := c.conn.Principal, h.net.options.Places
	if from.Kind == transport.Nobody {
		c.guest.linger()
		return nil
	}
	as := h.known.Load().Standing(c.hello)
	leaves, own, ok := c.guest.seat(as, from.User(), c.end)
	if !ok {
		return places.Full(local.Name, as, from.User(), own)
	}
	if leaves != nil {
		leaves.dismiss(places.Parting(local.Name))
	}
	return nil
}

// leave forgets a connection. The event goes out under the lock, so that it comes
// before anything that a newer connection of the same client delivers.
func (h *hub) leave(c *inbound) {
	c.end(nil)
	c.queue.share.close()
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.DeleteFunc(h.inbound[c.key()], func(o *inbound) bool { return o == c })
	if len(list) > 0 {
		h.inbound[c.key()] = list
	} else {
		delete(h.inbound, c.key())
	}
	switch {
	case c.conn.Role != messages.Role_CLIENT:
	case len(list) > 0:
		h.clients.Store(c.conn.Address, list[len(list)-1])
	default:
		h.clients.Delete(c.conn.Address)
		if !h.closed {
			h.tell(&messages.ClientGone{Address: c.conn.Address})
		}
	}
}

// guestOf is the connection that a stream came on.
func guestOf(ctx context.Context) *guest {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if a, ok := p.Addr.(guestAddr); ok {
			return a.guest
		}
	}
	return nil
}

// chainOf is the certificate that a stream's connection came with, and those that lead to
// its authority; none without keys.
func chainOf(ctx context.Context) []*x509.Certificate {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if proved, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return proved.State.PeerCertificates
		}
	}
	return nil
}

func remote(ctx context.Context) string {
	if g := guestOf(ctx); g != nil {
		return g.Conn.RemoteAddr().String()
	}
	return "unknown"
}
