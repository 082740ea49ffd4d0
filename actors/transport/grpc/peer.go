package grpc

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

// Bounds of the queues to one peer, by lane, in bytes. An append lane holds about what
// Raft has in flight to one follower. While there is no connection a queue holds less:
// what is sent while one dials.
var (
	laneLimits     = [...]int{messages.Lane_CONTROL: 1 << 20, messages.Lane_APPEND: 32 << 20, messages.Lane_BULK: 8 << 20}
	diallingLimits = [...]int{messages.Lane_CONTROL: 64 << 10, messages.Lane_APPEND: 2 << 20, messages.Lane_BULK: 5 << 20}
)

// Delays between attempts to reach a peer.
const (
	delayMin     = 50 * time.Millisecond
	delayMax     = 2 * time.Second        // where nothing answers, or the answer is no
	delayNearMax = 200 * time.Millisecond // where the machine answers and the node is down: it may be back any moment
	standingMin  = time.Second            // a link that stood this long starts with no delay again
)

// peer is another node as this one sends to it.
type peer struct {
	hub    *hub
	member *messages.Member
	conn   transport.Conn // what an envelope to it has to respect
	lanes  [len(laneLimits)]*lane
	cancel context.CancelFunc
}

// lane is one of the streams to a peer, with the queue in front of it. A goroutine
// of its own dials, writes, and dials again.
type lane struct {
	peer  *peer
	kind  messages.Lane
	queue *queue
	wake  chan struct{} // holds a token when the peer may be back
	away  absence       // what people were told of the peer
	stood bool          // a connection stood since the peer was last known to be gone

	astray atomic.Bool // the last attempt found nobody at the peer's address

	mu        sync.Mutex
	interrupt context.CancelFunc // ends the attempt or the stream of now
	standing  *dialled           // the stream of now; nil: there is none
}

func (h *hub) newPeer(m *messages.Member) *peer {
	ctx, cancel := context.WithCancel(h.ctx)
	p := &peer{hub: h, member: m, cancel: cancel, conn: transport.Conn{
		Role: messages.Role_NODE, Address: messages.NodeAddress(m.RaftId), RaftID: m.RaftId,
		To: messages.Role_NODE, Local: h.self(),
	}}
	for kind := range p.lanes {
		l := &lane{peer: p, kind: messages.Lane(kind), wake: make(chan struct{}, 1)}
		l.queue = newQueue(diallingLimits[kind], l.kind == messages.Lane_CONTROL)
		p.lanes[kind] = l
		h.running.Go(func() { l.run(ctx) })
	}
	return p
}

// rouse has waiting lanes try again at once.
func (p *peer) rouse() {
	for _, l := range p.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// restart ends the streams to the peer and makes new ones.
func (p *peer) restart() {
	for _, l := range p.lanes {
		l.mu.Lock()
		if l.interrupt != nil {
			l.interrupt()
		}
		l.mu.Unlock()
	}
	p.rouse()
}

// refresh ends the streams that are to be made anew.
func (p *peer) refresh(stale func(*dialled) bool) {
	for _, l := range p.lanes {
		l.mu.Lock()
		if l.standing != nil && stale(l.standing) {
			l.interrupt()
		}
		l.mu.Unlock()
	}
}

// stands notes the stream of now; nil: there is none.
func (l *lane) stands(d *dialled) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.standing = d
}

// run keeps the lane until ctx ends. The control lane is made at once, since its
// hello tells the peer that this node is there; the others when they are needed.
func (l *lane) run(ctx context.Context) {
	defer func() { l.peer.hub.reject(l.queue.close()...) }()
	var delay time.Duration
	for {
		if l.kind != messages.Lane_CONTROL && !l.needed(ctx) {
			return
		}
		stood, err := l.attempt(ctx)
		l.queue.bound(diallingLimits[l.kind])
		l.peer.hub.reject(l.queue.drain()...)
		if ctx.Err() != nil {
			return
		}
		l.unlinked(err)
		if err.told {
			l.peer.hub.tell(&messages.PeerRefused{Peer: l.peer.member.RaftId, Code: err.Code})
		}
		l.mourn(err.near)
		delay = nextDelay(delay, stood, err.near)
		if !l.pause(ctx, &delay) {
			return
		}
	}
}

// nextDelay is how long to wait after an attempt that stood for so long and
// ended; before is the delay before that attempt.
func nextDelay(before, stood time.Duration, near bool) time.Duration {
	limit := delayMax
	switch {
	case stood >= standingMin:
		return 0
	case near:
		limit = delayNearMax
	}
	return min(max(2*before, delayMin), limit)
}

// pause waits for about so long. A peer that may be back ends it and the delay.
func (l *lane) pause(ctx context.Context, delay *time.Duration) bool {
	if *delay == 0 {
		return true
	}
	timer := time.NewTimer(*delay - rand.N(*delay/4))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-l.wake:
		*delay = 0
	case <-timer.C:
	}
	return true
}

// needed waits for a message to send.
func (l *lane) needed(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-l.queue.ready:
		l.queue.signal()
		return true
	}
}

// attempt dials, and serves the stream until it ends. It reports how long it stood.
func (l *lane) attempt(ctx context.Context) (time.Duration, *failure) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.interrupt = cancel // before the identity is read, so that any later change of it interrupts this attempt
	l.mu.Unlock()
	h, m := l.peer.hub, l.peer.member
	d, failed := h.net.dial(ctx, m.Address, *h.local.Load(), *h.known.Load(), m.RaftId, l.kind)
	l.astray.Store(failed != nil && !failed.told)
	if failed != nil {
		return 0, failed
	}
	defer d.close()
	l.stands(d)
	defer l.stands(nil)
	if err := h.net.options.Keys.Stale(d.chain, false); err != nil { // keys were loaded meanwhile
		return 0, &failure{Error: messages.Errorf(messages.Code_UNREACHABLE, "the certificate of %s is good no more: %v", m.Name, err)}
	}
	l.stood = true
	h.mu.Lock()
	h.hear(d.welcome.RaftId, d.welcome.Incarnation, d.welcome.Starts)
	h.mu.Unlock()
	l.linked(d)
	since := time.Now()
	err, told := l.serve(ctx, cancel, d)
	return time.Since(since), &failure{Error: err, told: told}
}

// serve writes the queue to the stream until it ends. It reports whether the peer ended it.
func (l *lane) serve(ctx context.Context, cancel context.CancelFunc, d *dialled) (why *messages.Error, told bool) {
	h := l.peer.hub
	l.queue.bound(laneLimits[l.kind])
	var broke error
	in := &inlet{system: h.system, conn: d.conn, absent: &h.absent, inbox: h.local.Load().Inbox}
	read := make(chan struct{})
	h.running.Go(func() {
		defer close(read)
		defer cancel()
		broke = in.read(d)
	})
	err := writeQueue(d, l.queue, ctx.Done(), d.conn.Founding, func(it item) { h.reject(it) })
	cancel()
	<-read
	var refusal *messages.Error
	switch {
	case errors.As(broke, &refusal):
		return refusal, in.refused
	case broke != nil:
		err = broke
	}
	return broken(l.peer.member.Address, err), false
}

// mourn tells that the peer's process has died, once, when a connection that stood is gone
// and its machine refuses another. What the process sent comes before that: as long as a
// connection from there stands, the next attempt decides.
func (l *lane) mourn(refused bool) {
	h := l.peer.hub
	if !refused || !l.stood || l.kind != messages.Lane_CONTROL || h.hears(l.peer.conn.Address) {
		return
	}
	l.stood = false
	h.tell(&messages.PeerGone{Peer: l.peer.member.RaftId})
}

// linked and unlinked tell people of the control lane that the peer is reached, that it has
// not been for a while, and that it is back.
func (l *lane) linked(d *dialled) {
	words := []any{"peer", d.welcome.Name, "address", l.peer.member.Address, "lane", l.kind.String()}
	away, told := l.away.over(time.Now())
	if told {
		l.tell(slog.LevelInfo, "a peer is back", append(words, "away", away.Round(time.Millisecond))...)
		return
	}
	l.tell(slog.LevelInfo, "a peer is reached", append(words, "founding", d.conn.Founding)...)
}

func (l *lane) unlinked(err *failure) {
	level := slog.LevelDebug
	if l.away.goesOn(time.Now(), err.Message) {
		level = slog.LevelWarn
	}
	words := []any{"peer", l.peer.member.Name, "address", l.peer.member.Address, "lane", l.kind.String(), "reason", err.Message}
	if err.Hint != "" {
		words = append(words, "hint", err.Hint)
	}
	l.tell(level, "a peer is not reached", words...)
}

func (l *lane) tell(level slog.Level, message string, words ...any) {
	l.peer.hub.logger.Log(context.Background(), l.level(level), message, words...)
}

func (l *lane) level(of slog.Level) slog.Level {
	if l.kind != messages.Lane_CONTROL {
		return slog.LevelDebug
	}
	return of
}
