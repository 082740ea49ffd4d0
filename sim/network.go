package sim

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

const (
	waitingMax = 256 // envelopes that wait for a node's link to come up; more are lost
	backoffMin = 50 * time.Millisecond
	backoffMax = time.Second
)

// network is every connection between the hosts of a world. A connection is a
// stream: complete and in order, until it breaks and loses what was under way.
// Messages between nodes may also be lost, repeated and reordered: in production
// links are made anew, and queues overflow.
type network struct {
	world    *world
	chance   *rand.Rand
	seats    []*seat // in the order they came
	conns    []*conn // not broken, in the order they were dialled
	ways     map[[2]string]*way
	fair     quality                                                          // of every way, when nothing is wrong
	showed   func(to *seat, token *transport.Claims, refusal *messages.Error) // is told what a node says to a token; may be nil
	patience time.Duration                                                    // a connection breaks when it has been silent for so long
}

// way is one direction between two hosts.
type way struct {
	quality
	cut bool // nothing gets through
}

// quality is what can be drawn for a way. The rates are those of messages
// between nodes.
type quality struct {
	latency   time.Duration
	jitter    time.Duration
	drop      float64
	duplicate float64
	overtake  float64
}

func (n *network) way(from, to *host) *way { return n.wayOf(from.name, to.name) }

func (n *network) wayOf(from, to string) *way {
	w := n.ways[[2]string{from, to}]
	if w == nil {
		w = &way{quality: n.fair}
		n.ways[[2]string{from, to}] = w
	}
	return w
}

func (n *network) latency(w *way) time.Duration {
	if w.jitter <= 0 {
		return w.latency
	}
	return w.latency + time.Duration(n.chance.Int64N(int64(w.jitter)))
}

// cut stops one direction between two hosts, or opens it again. A
// connection that stays silent for too long breaks.
func (n *network) cut(from, to string, cut bool) {
	w := n.wayOf(from, to)
	if w.cut == cut {
		return
	}
	w.cut = cut
	for _, c := range slices.Clone(n.conns) {
		if way := c.wayTo(from, to); way < 0 {
			continue
		} else if cut {
			n.doubt(c)
		} else {
			n.resume(c, way)
		}
	}
}

// mend opens every way and makes it fair again.
func (n *network) mend(fair quality) {
	var keys [][2]string
	for key := range n.ways {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for _, key := range keys {
		n.ways[key].quality = fair
		n.cut(key[0], key[1], false)
	}
}

// freeze leaves a host's connections in doubt.
func (n *network) freeze(h *host) {
	h.freeze()
	for _, c := range n.conns {
		if c.touches(h) {
			n.doubt(c)
		}
	}
}

// lose breaks all connections of a host that died. If its server died too (silently),
// nobody resets them, and the other ends must notice the silence.
func (n *network) lose(h *host, silently bool) {
	for _, c := range slices.Clone(n.conns) {
		if !c.touches(h) {
			continue
		}
		if silently {
			n.doubt(c)
			continue
		}
		n.mourn(c, h)
		n.sever(c, "connection reset")
	}
	n.seats = slices.DeleteFunc(n.seats, func(s *seat) bool { return s.gone() })
}

// mourn tells a node that the process of a peer has died: a connection that it made is
// reset, and when it dials anew nothing listens there.
func (n *network) mourn(c *conn, dead *host) {
	if c.link == nil || c.dialler.host == dead || c.state != standing || c.lane != messages.Lane_CONTROL {
		return
	}
	to, from := c.ways[0], c.ways[1]
	n.world.clock.after(n.latency(from)+n.latency(to)+n.latency(from), c.dialler.host, func() {
		if !to.cut && !from.cut && n.listener(c.endpoint) == nil {
			c.dialler.tell(&messages.PeerGone{Peer: c.peer})
		}
	})
}

func (n *network) listener(address string) *seat {
	for _, s := range n.seats {
		if !s.gone() && s.listen == address {
			return s
		}
	}
	return nil
}

// nameAt is the host whose system has this logical address.
func (n *network) nameAt(address string) string {
	for _, s := range n.seats {
		if s.system.ProcessRegistry.Address == address {
			return s.host.name
		}
	}
	return address
}

// place is seam.Network for one host.
type place struct {
	net  *network
	host *host
}

func (p place) Serve(system *actor.ActorSystem, listen string, local transport.Local, events *actor.PID) (seam.Hub, error) {
	if p.net.listener(listen) != nil {
		return nil, messages.Errorf(messages.Code_CONFLICT, "address %s is in use", listen)
	}
	local.Principal = p.host.principal()
	return p.net.sit(&seat{host: p.host, system: system, local: local, listen: listen, events: events}), nil
}

func (p place) Join(system *actor.ActorSystem, local transport.Local, events *actor.PID) (seam.Dialer, error) {
	local.Principal = p.host.principal()
	return p.net.sit(&seat{host: p.host, system: system, local: local, events: events}), nil
}

func (n *network) sit(s *seat) *seat {
	s.net = n
	s.remotes, s.links = map[string]*remote{}, map[linkKey]*link{}
	n.seats = append(n.seats, s)
	for _, c := range slices.Clone(n.conns) {
		if c.outlives(s.host) {
			n.sever(c, "connection reset")
		}
	}
	s.system.ProcessRegistry.RegisterAddressResolver(s.resolve)
	return s
}

// seat is a system in the network. It is the seam.Hub of a node and the
// seam.Dialer of a client.
type seat struct {
	net    *network
	host   *host
	system *actor.ActorSystem
	local  transport.Local
	listen string // empty: it never listens
	events *actor.PID

	remotes map[string]*remote // by logical address
	told    []*messages.Member // by SetPeers last
	next    messages.RaftID    // the same
	peers   []*messages.Member // of them, those whom it has not been made to forget
	known   transport.Known    // whom it may refuse
	rights  transport.Rights   // of clients
	set     bool               // it was told of rights
	auth    *messages.Auth     // those
	shows   *transport.Claims  // the token of whoever dials next; nil: none
	invited int64              // until when somebody may come with a token and no keys, in ms
	links   map[linkKey]*link  // of a node, to its peers
	closed  bool
}

func (s *seat) gone() bool { return s.closed || s.host.dead }

// Identify implements seam.Hub.
func (s *seat) Identify(local transport.Local) {
	moved := string(local.ClusterID) != string(s.local.ClusterID)
	ceases := s.local.WaitingFor == "" && local.WaitingFor != ""
	local.Principal = s.local.Principal
	s.local = local
	if ceases {
		s.sever(func(c *conn) bool { return c.acceptor == s && c.link == nil }, "the node does not serve any more")
	}
	if moved {
		s.sever(func(*conn) bool { return true }, "the cluster id changed")
	}
}

// SetPeers implements seam.Hub.
func (s *seat) SetPeers(peers []*messages.Member, next messages.RaftID) {
	s.known, s.told, s.next = s.known.With(peers, next), peers, next
	s.setPeers(peers)
	for _, c := range slices.Clone(s.net.conns) {
		if c.acceptor != s || c.link == nil {
			continue
		}
		from := c.dialler.local
		if why := s.known.RefusesOf(from.Principal, transport.HelloTo(from, s.local.RaftID, c.lane)); why != nil && len(from.ClusterID) > 0 {
			s.net.end(c, why)
		}
	}
}

func (s *seat) setPeers(peers []*messages.Member) {
	s.peers = peers
	s.sever(func(c *conn) bool {
		if c.dialler != s || c.link == nil {
			return false
		}
		p := s.peer(c.peer)
		return p == nil || p.Address != c.endpoint
	}, "the peer has left or moved")
}

// forget takes a peer out of a host's table.
func (n *network) forget(h *host, id messages.RaftID) {
	for _, s := range n.seats {
		if s.host == h {
			s.setPeers(slices.DeleteFunc(slices.Clone(s.peers), func(p *messages.Member) bool { return p.RaftId == id }))
		}
	}
}

// outlived reports whether a replica was a member, and is none that this seat knows any more.
func (s *seat) outlived(id messages.RaftID) bool {
	return id != 0 && id < s.next && !slices.ContainsFunc(s.told, func(m *messages.Member) bool { return m.RaftId == id })
}

// SetAuth implements seam.Hub.
func (s *seat) SetAuth(a *messages.Auth) { s.rights, s.auth, s.set = transport.KnownRights(a), a, true }

// SetInvitedUntil implements seam.Hub.
func (s *seat) SetInvitedUntil(ms int64) { s.invited = ms }

// atDoor is who dials: whoever has no certificate is let in while the door is open, and is who his token says.
func (s *seat) atDoor(c *conn) (transport.Principal, *messages.Error) {
	from, now := c.dialler.local.Principal, s.net.world.clock.now.Milliseconds()
	switch {
	case from.Kind != transport.Nobody:
		return from, nil
	case !s.rights.DoorOpen() && now >= s.invited:
		return from, messages.Errorf(messages.Code_NOT_ALLOWED, "the handshake ends without a certificate")
	}
	from, refusal := transport.AtDoor(s.local, s.known, s.rights, c.claims, time.UnixMilli(now))
	if c.claims != nil && s.net.showed != nil {
		s.net.showed(s, c.claims, refusal)
	}
	return from, refusal
}

// Remember implements seam.Hub.
func (s *seat) Remember(heard *messages.StartsHeard) { s.known = s.known.Remember(heard) }

// hear takes what a node said of itself that was not refused.
func (s *seat) hear(id messages.RaftID, incarnation []byte, starts *messages.Starts) {
	known, news := s.known.Hear(id, incarnation, starts)
	if news != nil {
		s.known = known
		s.tell(&messages.PeerStarted{Start: news})
	}
}

func (s *seat) peer(id messages.RaftID) *messages.Member {
	for _, p := range s.peers {
		if p.RaftId == id && id != s.local.RaftID {
			return p
		}
	}
	return nil
}

// Dial implements seam.Dialer.
func (s *seat) Dial(endpoint string) {
	if s.connTo(endpoint) == nil && !s.gone() {
		s.net.dial(&conn{dialler: s, endpoint: endpoint, claims: s.shows})
	}
}

// Hang implements seam.Dialer.
func (s *seat) Hang(endpoint string) {
	if c := s.connTo(endpoint); c != nil {
		s.net.sever(c, "hung up")
	}
}

// Close implements both.
func (s *seat) Close() {
	s.sever(func(*conn) bool { return true }, "closed")
	s.closed = true
}

func (s *seat) connTo(endpoint string) *conn {
	for _, c := range s.net.conns {
		if c.dialler == s && c.endpoint == endpoint {
			return c
		}
	}
	return nil
}

func (s *seat) sever(which func(*conn) bool, why string) {
	for _, c := range slices.Clone(s.net.conns) {
		if (c.dialler == s || c.acceptor == s) && which(c) {
			s.net.sever(c, why)
		}
	}
}

func (s *seat) resolve(pid *actor.PID) (actor.Process, bool) {
	r := s.remotes[pid.Address]
	if r == nil {
		r = &remote{seat: s, address: pid.Address}
		s.remotes[pid.Address] = r
	}
	return r, true
}

// remote is another system as the PIDs of this one see it.
type remote struct {
	seat    *seat
	address string
}

func (r *remote) SendUserMessage(target *actor.PID, message any) {
	_, body, sender := actor.UnwrapEnvelope(message)
	if m, ok := body.(proto.Message); ok {
		r.seat.send(r.address, target, sender, m)
	}
}

// System messages come from nobody and go to nobody.
func (*remote) SendSystemMessage(*actor.PID, any) {}
func (*remote) Stop(*actor.PID)                   {}

// send carries a message to the system with this logical address: to a peer on a link of
// this seat, and to any other on a connection that came from there. Without one the
// message is lost.
func (s *seat) send(address string, target, sender *actor.PID, body proto.Message) {
	if s.gone() {
		return
	}
	from := ""
	if sender != nil {
		from = sender.Id
	}
	envelope, err := messages.Seal(target.Id, from, body)
	if err != nil {
		return // not a message for other systems
	}
	s.net.world.ear.sealed(envelope)
	if id, ok := messages.ParseNodeAddress(address); ok && s.local.Role == messages.Role_NODE {
		s.net.world.departs(s.host, id, body)
		if peer := s.peer(id); peer != nil {
			s.sendPeer(peer, transport.LaneOf(messages.KindOf(body), body), envelope)
			return
		}
	}
	for _, c := range s.net.conns {
		if out := c.outward(s); out >= 0 && c.sides[out].Address == address {
			s.net.transmit(c, out, envelope)
			return
		}
	}
}

// link is a node's side of one lane to a peer, made as messages need it.
type link struct {
	conn    *conn // nil: there is none
	waiting []*messages.Envelope
	backoff time.Duration
	retryAt time.Duration
	astray  bool // the last attempt found nobody there
}

type linkKey struct {
	peer messages.RaftID
	lane messages.Lane
}

func (s *seat) sendPeer(peer *messages.Member, lane messages.Lane, envelope *messages.Envelope) {
	id := peer.RaftId
	l := s.links[linkKey{id, lane}]
	if l == nil {
		l = &link{backoff: backoffMin}
		s.links[linkKey{id, lane}] = l
	}
	if l.conn == nil && s.net.world.clock.now >= l.retryAt {
		l.conn = &conn{dialler: s, endpoint: peer.Address, peer: id, lane: lane, link: l}
		s.net.dial(l.conn)
	}
	back := s.wayBack(id)
	switch {
	case l.conn != nil && l.conn.state == standing:
		s.net.transmit(l.conn, 0, envelope)
	case back != nil:
		s.net.transmit(back, 1, envelope)
	case l.conn == nil: // it failed, and is not tried again yet
	case len(l.waiting) < waitingMax:
		l.waiting = append(l.waiting, envelope)
	}
}

// wayBack is a connection that a peer has made which is not where its member's record says, as in
// production; nil: there is none.
func (s *seat) wayBack(id messages.RaftID) *conn {
	if l := s.links[linkKey{id, messages.Lane_CONTROL}]; l == nil || !l.astray {
		return nil
	}
	for _, c := range s.net.conns {
		if c.acceptor == s && c.outward(s) == 1 && c.sides[1].Address == messages.NodeAddress(id) {
			return c
		}
	}
	return nil
}
