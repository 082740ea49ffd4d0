package grpc

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// hub is a node's place in the network: the process that stands for all actors
// of other systems, the links to its peers, and the streams that came in.
type hub struct {
	messages.UnimplementedLinkServer
	net      *Network
	system   *actor.ActorSystem
	events   *actor.PID
	logger   *slog.Logger
	outlet   outlet
	listener net.Listener
	replies  *budget // of what waits for clients, in bytes
	server   *grpc.Server
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup // all goroutines but gRPC's own
	absent   atomic.Int64   // messages that came for actors that are not there
	unrouted atomic.Int64   // messages for systems to which there is no way

	local atomic.Pointer[transport.Local]
	known atomic.Pointer[transport.Known]
	peers atomic.Pointer[map[string]*peer] // by logical address; never modified
	// rights are who may do what, of clients.
	rights atomic.Pointer[transport.Rights]
	// invited is until when nodes may come that have a token and no keys, in ms since 1970.
	invited atomic.Int64

	clients sync.Map            // logical address -> *inbound, the newest
	pool    *semaphore.Weighted // what clients have unanswered, in bytes

	mu      sync.Mutex
	inbound map[inboundKey][]*inbound // admitted, the newest last; none is empty
	closed  bool
}

var _ seam.Hub = (*hub)(nil)
var _ actor.Process = (*hub)(nil)

// Serve implements Network. The Hub has a method Addr() net.Addr, which tells
// where it listens when the port was 0.
func (g *Network) Serve(system *actor.ActorSystem, address string, local transport.Local, events *actor.PID) (seam.Hub, error) {
	l := g.bound
	if g.bound = nil; l == nil {
		var err error
		if l, err = listen(address); err != nil {
			return nil, err
		}
	}
	h := &hub{
		net: g, system: system, events: events, logger: g.logger(system),
		inbound: map[inboundKey][]*inbound{},
		listener: &gate{
			Listener: l, patience: g.options.HandshakeTimeout, places: g.options.Places, arrived: newBudget(arrivedMax),
		},
		replies: newBudget(repliesMax), pool: newPool(),
	}
	h.outlet = outlet{system: system, log: NewLimited(h.logger, "transport: ")}
	h.server = g.server(h.outlet.log, h.doorOpen)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	local.Principal = g.options.Keys.Principal()
	h.local.Store(&local)
	h.known.Store(&transport.Known{})
	h.rights.Store(&transport.Rights{})
	h.peers.Store(&map[string]*peer{})
	messages.RegisterLinkServer(h.server, h)
	system.ProcessRegistry.RegisterAddressResolver(h.resolve)
	g.hub.Store(h)
	h.running.Go(func() { g.options.Keys.Watch(h.ctx, h.logger, h.endStale) })
	h.running.Go(func() {
		if err := h.server.Serve(h.listener); err != nil && h.ctx.Err() == nil {
			h.logger.Error("transport: listening ended", "address", address, "reason", err, "hint", "start the node again: nobody reaches it any more")
		}
	})
	return h, nil
}

// Addr is where the hub listens.
func (h *hub) Addr() net.Addr { return h.listener.Addr() }

func (h *hub) self() messages.RaftID { return h.local.Load().RaftID }

// Identify implements Hub.
func (h *hub) Identify(local transport.Local) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := *h.local.Load()
	local.Principal = before.Principal
	h.local.Store(&local)
	if before.WaitingFor == "" && local.WaitingFor != "" {
		h.endAll(func(c *inbound) *messages.Error {
			if c.conn.Role != messages.Role_CLIENT {
				return nil
			}
			return messages.Errorf(messages.Code_UNREACHABLE, "node %s does not serve any more: %s", local.Name, local.WaitingFor)
		})
	}
	if bytes.Equal(before.ClusterID, local.ClusterID) && before.RaftID == local.RaftID && bytes.Equal(before.Incarnation, local.Incarnation) {
		return
	}
	for _, p := range *h.peers.Load() {
		p.restart()
	}
	h.endAll(func(c *inbound) *messages.Error {
		if c.conn.Founding || transport.OtherCluster(c.hello.ClusterId, local.ClusterID) {
			return messages.Errorf(messages.Code_CONFLICT, "node %s belongs to cluster %x now", local.Name, local.ClusterID)
		}
		return nil
	})
}

// SetPeers implements Hub.
func (h *hub) SetPeers(members []*messages.Member, next messages.RaftID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	known := h.known.Load().With(members, next)
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
	h.endRefused()
}

// SetAuth implements Hub.
func (h *hub) SetAuth(a *messages.Auth) {
	rights := transport.KnownRights(a)
	h.rights.Store(&rights)
}

// SetInvitedUntil implements Hub.
func (h *hub) SetInvitedUntil(ms int64) { h.invited.Store(ms) }

// doorOpen reports whether somebody may need to come without a certificate.
func (h *hub) doorOpen() bool {
	return h.rights.Load().DoorOpen() || h.net.options.Keys.Now().UnixMilli() < h.invited.Load()
}

// Remember implements Hub.
func (h *hub) Remember(heard *messages.StartsHeard) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.known.Load().Remember(heard)
	h.known.Store(&known)
	h.endRefused()
}

// hear takes what a node said of itself that was not refused. h.mu is held.
func (h *hub) hear(id messages.RaftID, incarnation []byte, starts *messages.Starts) {
	known, news := h.known.Load().Hear(id, incarnation, starts)
	if news == nil {
		return
	}
	h.known.Store(&known)
	h.tell(&messages.PeerStarted{Start: news})
}

// endRefused ends the connections of nodes that are not let in any more. h.mu is held.
func (h *hub) endRefused() {
	known := h.known.Load()
	h.endAll(func(c *inbound) *messages.Error {
		if c.conn.Role != messages.Role_NODE {
			return nil
		}
		return known.RefusesOf(c.conn.Principal, c.hello)
	})
}

// endStale ends the connections whose certificates or tokens are not good any more: they have
// expired, what has signed them is not trusted now, or a token's user is not who he was.
func (h *hub) endStale(stale func(chain []*x509.Certificate, signed bool) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	local, known, rights, now := *h.local.Load(), *h.known.Load(), *h.rights.Load(), h.net.options.Keys.Now()
	h.endAll(func(c *inbound) *messages.Error {
		if err := stale(c.chain, c.claims != nil); err != nil && c.claims != nil {
			return messages.Errorf(messages.Code_UNREACHABLE, "the token of %s is good no more, for who signed it: %v", c.conn.Principal, err).
				WithHint("log in again: kvctl login %s", c.claims.User)
		} else if err != nil {
			return messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s is good no more: %v", c.conn.Principal, err).
				WithHint("connect again with one that is: kvctl cert check")
		}
		if c.claims == nil {
			return nil
		}
		why := c.claims.Refuse(local, known, rights, now)
		if why != nil { // with another token he may come back: the next hello decides
			why.Code = messages.Code_UNREACHABLE
		}
		return why
	})
	for _, p := range *h.peers.Load() {
		p.refresh(func(d *dialled) bool { return stale(d.chain, false) != nil })
	}
}

// endAll ends the connections that came in and for which why has a reason. h.mu
// is held.
func (h *hub) endAll(why func(*inbound) *messages.Error) {
	for _, list := range h.inbound {
		for _, c := range list {
			if r := why(c); r != nil {
				c.end(r)
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

// resolve finds the process behind a PID of another system. A PID keeps what it is
// given for ever, so that must last: it is the hub itself, which looks up the way anew
// for every message.
func (h *hub) resolve(*actor.PID) (actor.Process, bool) { return h, true }

// SendUserMessage implements actor.Process: it seals the message in the sender's
// goroutine and queues it, or drops it. It never waits.
func (h *hub) SendUserMessage(pid *actor.PID, message any) {
	_, body, sender := actor.UnwrapEnvelope(message)
	if p := (*h.peers.Load())[pid.Address]; p != nil {
		if c := h.wayBack(p); c != nil {
			h.sendBack(c, pid, body, sender)
		} else {
			h.sendPeer(p, pid, body, sender)
		}
		return
	}
	if c, ok := h.clients.Load(pid.Address); ok {
		h.sendClient(c.(*inbound), pid, body, sender)
		return
	}
	if c := h.newest(inboundKey{pid.Address, messages.Lane_CONTROL}); c != nil {
		h.sendBack(c, pid, body, sender)
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
	if m, ok := body.(*messages.Propose); ok {
		it.asker, it.seq = sender, m.Seq
	}
	if !p.lanes[it.lane].queue.push(it) {
		h.reject(it)
	}
}

func (h *hub) sendClient(c *inbound, pid *actor.PID, body any, sender *actor.PID) {
	it, ok := h.outlet.seal(c.conn, pid.Id, body, sender)
	c.window.answered()
	if ok && !c.queue.push(it) {
		c.end(notTaken(c.queue))
	}
}

// wayBack is a connection that a peer has made which is not where its member's record says; nil:
// it is there, or has made none. It has moved, and the record cannot be changed before a leader is
// elected, for which its vote may be needed.
func (h *hub) wayBack(p *peer) *inbound {
	if !p.lanes[messages.Lane_CONTROL].astray.Load() {
		return nil
	}
	return h.newest(inboundKey{p.conn.Address, messages.Lane_CONTROL})
}

// sendBack sends to a node on a connection that it made. Such a node is a member that has moved
// or that this one has not heard of yet, or one that joins: its place in the network is not
// known here, but it may lead or stand for election and must be answered.
func (h *hub) sendBack(c *inbound, pid *actor.PID, body any, sender *actor.PID) {
	it, ok := h.outlet.seal(c.conn, pid.Id, body, sender)
	if !ok {
		return
	}
	if m, ok := body.(*messages.Propose); ok {
		it.asker, it.seq = sender, m.Seq
	}
	if own := h.newest(inboundKey{pid.Address, it.lane}); own != nil {
		c = own
	}
	if !c.queue.push(it) {
		h.reject(it)
	}
}

// hears reports whether a connection from a node stands, on any lane.
func (h *hub) hears(address string) bool {
	for lane := range laneLimits {
		if h.newest(inboundKey{address, messages.Lane(lane)}) != nil {
			return true
		}
	}
	return false
}

// tell posts an event.
func (h *hub) tell(event any) {
	if h.events != nil {
		h.system.Root.Send(actor.NewPID(h.events.Address, h.events.Id), event)
	}
}

// newest is the newest connection of a key that came in; nil: there is none.
func (h *hub) newest(key inboundKey) *inbound {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.inbound[key]
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

func notTaken(q *queue) *messages.Error {
	bytes, _ := q.sizes()
	return messages.Errorf(messages.Code_BUSY, "%d bytes of replies were not taken", bytes).
		WithHint("read replies as fast as requests are sent")
}

// reject tells the askers of the proposals among the items that these were surely not
// proposed.
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
