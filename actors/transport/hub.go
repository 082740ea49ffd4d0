package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"

	"keyval/messages"
)

const (
	// replyBytesMax bounds the replies that wait for one client, in bytes. A client
	// that does not take them loses its connection.
	replyBytesMax = 8 << 20
	// connectionsOfClientMax is how many connections one client may have, as when it
	// knows a node by two names or left one half open. One more costs the oldest.
	connectionsOfClientMax = 4
	// partingPatience is how long a connection that is ended may take to hear why.
	partingPatience = time.Second
)

// hub is a node's place in the network: the process that stands for all actors
// of other systems, the links to its peers, and the streams that came in.
type hub struct {
	messages.UnimplementedLinkServer
	net      *GRPC
	system   *actor.ActorSystem
	events   *actor.PID
	logger   *slog.Logger
	outlet   outlet
	listener net.Listener
	server   *grpc.Server
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup // all goroutines but gRPC's own
	absent   atomic.Int64   // messages that came for actors that are not there
	unrouted atomic.Int64   // messages for systems to which there is no way

	local atomic.Pointer[Local]
	known atomic.Pointer[Known]
	peers atomic.Pointer[map[string]*peer] // by logical address; never modified

	clients sync.Map // logical address -> *inbound, the newest

	mu      sync.Mutex
	inbound map[inboundKey][]*inbound // admitted, the newest last; none is empty
	closed  bool
}

var _ Hub = (*hub)(nil)
var _ actor.Process = (*hub)(nil)

// Serve implements Network. The Hub has a method Addr() net.Addr, which tells
// where it listens when the port was 0.
func (g *GRPC) Serve(system *actor.ActorSystem, address string, local Local, events *actor.PID) (Hub, error) {
	l, err := listen(address)
	if err != nil {
		return nil, err
	}
	h := &hub{
		net: g, system: system, events: events, logger: g.logger(system),
		server: g.server(), inbound: map[inboundKey][]*inbound{},
		listener: &gate{Listener: l, patience: g.options.HandshakeTimeout, unprovenMax: unprovenMax, totalMax: connectionsMax},
	}
	h.outlet = outlet{system: system, log: &limited{logger: h.logger}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.local.Store(&local)
	h.known.Store(&Known{})
	h.peers.Store(&map[string]*peer{})
	messages.RegisterLinkServer(h.server, h)
	system.ProcessRegistry.RegisterAddressResolver(h.resolve)
	h.running.Go(func() {
		if err := h.server.Serve(h.listener); err != nil && h.ctx.Err() == nil {
			h.logger.Error("transport: listening ended", "address", address, "reason", err)
		}
	})
	return h, nil
}

// Addr is where the hub listens.
func (h *hub) Addr() net.Addr { return h.listener.Addr() }

func (h *hub) self() messages.RaftID { return h.local.Load().RaftID }

// Identify implements Hub.
func (h *hub) Identify(local Local) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := *h.local.Load()
	h.local.Store(&local)
	if bytes.Equal(before.ClusterID, local.ClusterID) && before.RaftID == local.RaftID && bytes.Equal(before.Incarnation, local.Incarnation) {
		return
	}
	for _, p := range *h.peers.Load() {
		p.restart()
	}
	h.endAll(func(c *inbound) *refusal {
		if c.conn.Founding || otherCluster(c.hello.ClusterId, local.ClusterID) {
			return refuse(messages.Code_CONFLICT, "node %s belongs to cluster %x now", local.Name, local.ClusterID)
		}
		return nil
	})
}

// SetPeers implements Hub.
func (h *hub) SetPeers(members []*messages.Member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	known := h.known.Load().With(members)
	h.known.Store(&known)
	before, now := *h.peers.Load(), map[string]*peer{}
	for _, m := range members {
		address := messages.NodeAddress(m.RaftId)
		switch p := before[address]; {
		case m.RaftId == h.self():
		case p != nil && p.member.Address == m.Address && p.conn.Local == h.self():
			now[address] = p
		default:
			now[address] = h.newPeer(m)
		}
	}
	h.peers.Store(&now)
	for address, p := range before {
		if now[address] != p {
			p.cancel()
		}
	}
	h.endAll(func(c *inbound) *refusal {
		if c.conn.Role != messages.Role_NODE {
			return nil
		}
		return known.refuses(c.conn.RaftID, c.hello.Incarnation)
	})
}

// endAll ends the connections that came in and for which why has a reason. h.mu
// is held.
func (h *hub) endAll(why func(*inbound) *refusal) {
	for _, list := range h.inbound {
		for _, c := range list {
			if r := why(c); r != nil {
				c.end(r.Refusal)
			}
		}
	}
}

// Close implements Hub.
func (h *hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.peers.Store(&map[string]*peer{})
	h.mu.Unlock()
	h.cancel()
	h.server.Stop()
	h.running.Wait()
}

// resolve stands behind all PIDs of other systems. PIDs keep what they are given,
// so it gives them something that lasts: the hub, which finds the way anew for
// every message.
func (h *hub) resolve(*actor.PID) (actor.Process, bool) { return h, true }

// SendUserMessage implements actor.Process: it seals the message in the sender's
// goroutine and queues it, or drops it. It never waits.
func (h *hub) SendUserMessage(pid *actor.PID, message any) {
	_, body, sender := actor.UnwrapEnvelope(message)
	if p := (*h.peers.Load())[pid.Address]; p != nil {
		h.sendPeer(p, pid, body, sender)
		return
	}
	if c, ok := h.clients.Load(pid.Address); ok {
		h.sendClient(c.(*inbound), pid, body, sender)
		return
	}
	h.unrouted.Add(1)
	if h.logger.Enabled(h.ctx, slog.LevelDebug) {
		h.logger.Debug("transport: dropped, for there is no way", "target", pid.Address+"/"+pid.Id, "type", fmt.Sprintf("%T", body))
	}
	if m, ok := body.(*messages.Propose); ok && sender != nil {
		h.reject(item{asker: sender, seq: m.Seq})
	}
}

// SendSystemMessage implements actor.Process. System messages go to nobody.
func (h *hub) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process. Nobody stops an actor of another system.
func (h *hub) Stop(*actor.PID) {}

func (h *hub) sendPeer(p *peer, pid *actor.PID, body any, sender *actor.PID) {
	it, ok := h.outlet.seal(p.conn, pid.Id, body, sender)
	if !ok {
		return
	}
	kind := messages.Lane_CONTROL
	switch m := body.(type) {
	case *messages.Propose:
		kind = LaneOf(m)
		it.asker, it.seq = sender, m.Seq
	case *messages.RaftMessage:
		kind = LaneOf(m)
	}
	if !p.lanes[kind].queue.push(it) {
		h.reject(it)
	}
}

func (h *hub) sendClient(c *inbound, pid *actor.PID, body any, sender *actor.PID) {
	it, ok := h.outlet.seal(c.conn, pid.Id, body, sender)
	if ok && !c.queue.push(it) {
		c.end(refuse(messages.Code_BUSY, "%d bytes of replies were not taken", replyBytesMax).
			hint("read replies as fast as requests are sent").Refusal)
	}
}

// reject tells those who wait for the proposals among the items that they were
// surely not proposed.
func (h *hub) reject(items ...item) {
	for _, it := range items {
		if it.asker == nil {
			continue
		}
		if asker, ok := h.system.ProcessRegistry.GetLocal(it.asker.Id); ok {
			asker.SendUserMessage(it.asker, &messages.ProposalRefused{Seq: it.seq, Code: messages.Code_BUSY})
		}
	}
}

// inboundKey is a client's address or a node's lane. Of several connections the
// newest counts, since the far side knows best which is alive.
type inboundKey struct {
	address string
	lane    messages.Lane
}

// inbound is an admitted connection that came in.
type inbound struct {
	conn  Conn
	hello *messages.Hello
	queue *queue // to a client; of a node's connection it stays empty
	guest *guest

	once    sync.Once
	ended   chan struct{} // closed when it has to end
	refusal *messages.Refusal
}

func (c *inbound) key() inboundKey { return inboundKey{c.conn.Address, c.conn.Lane} }

// end has the connection's handler say why and return; then, or when that takes
// too long, the connection is closed: it carries one stream. It does not wait.
func (c *inbound) end(why *messages.Refusal) {
	c.once.Do(func() {
		c.refusal = why
		c.queue.close()
		close(c.ended)
		time.AfterFunc(partingPatience, func() { _ = c.guest.Close() })
	})
}

// Connect implements messages.LinkServer: one stream that came in.
func (h *hub) Connect(s grpc.BidiStreamingServer[messages.Frame, messages.Frame]) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error")
			h.logger.Error("transport: a stream failed", "reason", r)
		}
	}()
	hello := &incoming{}
	defer hello.free()
	if err := s.RecvMsg(hello); err != nil {
		return err
	}
	c, welcome, refusal := h.enter(hello.control.GetHello(), guestOf(s.Context()))
	if refusal != nil {
		h.outlet.log.warn("a connection was refused", "from", remote(s.Context()), "reason", refusal.Message)
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
	err := (&inlet{system: h.system, conn: c.conn, absent: &h.absent}).read(s)
	var violation *messages.Error
	if !errors.As(err, &violation) {
		if err != io.EOF && h.ctx.Err() == nil {
			h.logger.Debug("transport: a connection broke", "from", c.conn.Address, "reason", err)
		}
		c.end(nil)
		return
	}
	h.outlet.log.warn("a connection was ended for what it sent", "from", c.conn.Address, "reason", violation.Message)
	c.end(&messages.Refusal{Code: violation.Code, Message: violation.Message, Hint: violation.Hint})
}

// enter admits a connection and makes it the newest of its key, or refuses it. A
// node has one connection a lane.
func (h *hub) enter(hello *messages.Hello, g *guest) (*inbound, *messages.Welcome, *messages.Refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	local := *h.local.Load()
	welcome, refusal := Admit(local, *h.known.Load(), hello)
	switch {
	case refusal != nil:
		return nil, nil, refusal
	case h.closed || g == nil || !g.prove():
		return nil, nil, refuse(messages.Code_UNREACHABLE, "node %s is stopping", local.Name).Refusal
	}
	c := &inbound{
		conn: Accepted(local, hello), hello: hello, guest: g,
		queue: newQueue(replyBytesMax, false), ended: make(chan struct{}),
	}
	room := 1
	if c.conn.Role == messages.Role_CLIENT {
		room = connectionsOfClientMax
		h.clients.Store(c.conn.Address, c)
	} else if p := (*h.peers.Load())[c.conn.Address]; p != nil {
		p.rouse()
	}
	list := append(h.inbound[c.key()], c)
	h.inbound[c.key()] = list
	for _, old := range list[:max(0, len(list)-room)] {
		old.end(refuse(messages.Code_CONFLICT, "%s has connected again", c.conn.Address).Refusal)
	}
	return c, welcome, nil
}

// leave forgets a connection. The event goes out under the lock, so that it comes
// before anything that a newer connection of the same client delivers.
func (h *hub) leave(c *inbound) {
	c.end(nil)
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
		if !h.closed && h.events != nil {
			h.system.Root.Send(actor.NewPID(h.events.Address, h.events.Id), &messages.ClientGone{Address: c.conn.Address})
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

func remote(ctx context.Context) string {
	if g := guestOf(ctx); g != nil {
		return g.Conn.RemoteAddr().String()
	}
	return "unknown"
}
