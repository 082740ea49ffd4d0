package grpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// requestBytesMax bounds the requests that wait for one node, in bytes. A node
// that does not take them loses its link.
const requestBytesMax = 8 << 20

// dialer is a client's place in the network: the process that stands for the
// actors of all nodes, and the links to them.
type dialer struct {
	net      *Network
	system   *actor.ActorSystem
	events   *actor.PID
	local    transport.Local
	outlet   outlet
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	absent   atomic.Int64 // messages that came for actors that are not there
	unrouted atomic.Int64 // messages for systems to which there is no way

	routes sync.Map // logical address -> *clientLink, the newest of those that are up

	mu     sync.Mutex
	links  map[string]*clientLink // by endpoint; dialled or up
	ups    uint64                 // links that came up, ever
	closed bool
}

var _ seam.Dialer = (*dialer)(nil)
var _ actor.Process = (*dialer)(nil)

// clientLink is a client's link to one endpoint.
type clientLink struct {
	endpoint string
	queue    *queue
	cancel   context.CancelFunc
	overflow atomic.Bool // the node did not take what was sent
	hung     atomic.Bool

	conn transport.Conn // once it is up
	up   uint64         // when it came up, in links; 0: it is not. The dialer's lock guards it.
}

// Join implements Network.
func (g *Network) Join(system *actor.ActorSystem, local transport.Local, events *actor.PID) (seam.Dialer, error) {
	if !messages.IsClientAddress(local.Address) || local.Role != messages.Role_CLIENT {
		return nil, messages.Errorf(messages.Code_INVALID, "%q is not a client's address", local.Address)
	}
	d := &dialer{net: g, system: system, local: local, events: events, links: map[string]*clientLink{}}
	d.outlet = outlet{system: system, log: NewLimited(g.logger(system), "transport: ")}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.running.Go(func() { g.options.Keys.Watch(d.ctx, g.logger(system), nil) })
	system.ProcessRegistry.RegisterAddressResolver(func(*actor.PID) (actor.Process, bool) { return d, true })
	return d, nil
}

// Dial implements Dialer.
func (d *dialer) Dial(endpoint string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.links[endpoint] != nil {
		return
	}
	ctx, cancel := context.WithCancel(d.ctx)
	l := &clientLink{endpoint: endpoint, queue: newQueue(requestBytesMax, false), cancel: cancel}
	d.links[endpoint] = l
	d.running.Go(func() {
		defer cancel()
		d.down(l, d.run(ctx, l))
	})
}

// Hang implements Dialer.
func (d *dialer) Hang(endpoint string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.links[endpoint]; l != nil {
		l.hung.Store(true)
		l.cancel()
	}
}

// Close implements Dialer.
func (d *dialer) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.running.Wait()
}

// run makes a link and serves it until it ends.
func (d *dialer) run(ctx context.Context, l *clientLink) *messages.Error {
	s, failed := d.net.dial(ctx, l.endpoint, d.local, transport.Known{}, 0, messages.Lane_CONTROL)
	if failed != nil {
		return failed.Error
	}
	defer s.close()
	d.rise(l, s)
	var broke error
	read := make(chan struct{})
	d.running.Go(func() {
		defer close(read)
		defer l.cancel()
		broke = (&inlet{system: d.system, conn: s.conn, absent: &d.absent}).read(s)
	})
	err := writeQueue(s, l.queue, ctx.Done(), false, func(item) {})
	l.cancel()
	<-read
	var said *messages.Error
	switch {
	case errors.As(broke, &said):
		return said
	case broke != nil:
		err = broke
	}
	return broken(l.endpoint, err)
}

// rise opens the way over a link and says so, before anything comes over it.
func (d *dialer) rise(l *clientLink, s *dialled) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ups++
	l.conn, l.up = s.conn, d.ups
	d.routes.Store(s.conn.Address, l)
	w := s.welcome
	d.tell(&messages.LinkUp{
		Endpoint: l.endpoint, RaftId: w.RaftId, Name: w.Name, ClusterId: w.ClusterId, Version: w.Version, WaitingFor: transport.Legible(w.WaitingFor),
	})
}

// down forgets a link and says why; from then on the endpoint can be dialled again.
func (d *dialer) down(l *clientLink, why *messages.Error) {
	switch {
	case l.overflow.Load():
		why = messages.Errorf(messages.Code_UNREACHABLE, "%s does not take what it is sent", l.endpoint).WithHint("the node may be frozen")
	case l.hung.Load():
		why = messages.Errorf(messages.Code_UNREACHABLE, "the link to %s was hung up", l.endpoint)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.queue.close()
	delete(d.links, l.endpoint)
	if l.up != 0 {
		d.reroute(l.conn.Address)
	}
	d.tell(&messages.LinkDown{Endpoint: l.endpoint, Code: why.Code, Message: why.Message, Hint: why.Hint})
}

// reroute finds the newest link that is left to a node. d.mu is held.
func (d *dialer) reroute(address string) {
	var newest *clientLink
	for _, l := range d.links {
		if l.up != 0 && l.conn.Address == address && (newest == nil || l.up > newest.up) {
			newest = l
		}
	}
	if newest == nil {
		d.routes.Delete(address)
	} else {
		d.routes.Store(address, newest)
	}
}

// tell posts an event, under the lock so that events of one endpoint keep their order.
func (d *dialer) tell(event any) {
	if !d.closed && d.events != nil {
		d.system.Root.Send(actor.NewPID(d.events.Address, d.events.Id), event)
	}
}

// SendUserMessage implements actor.Process as hub's does.
func (d *dialer) SendUserMessage(pid *actor.PID, message any) {
	found, ok := d.routes.Load(pid.Address)
	if !ok {
		d.unrouted.Add(1)
		return
	}
	l := found.(*clientLink)
	_, body, sender := actor.UnwrapEnvelope(message)
	it, ok := d.outlet.seal(l.conn, pid.Id, body, sender)
	if ok && !l.queue.push(it) && !l.queue.isClosed() {
		l.overflow.Store(true)
		l.cancel()
	}
}

// SendSystemMessage implements actor.Process. System messages go to nobody.
func (d *dialer) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process. Nobody stops an actor of another system.
func (d *dialer) Stop(*actor.PID) {}
