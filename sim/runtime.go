package sim

import (
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	cmap "github.com/orcaman/concurrent-map"
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/transport"
	"keyval/messages"
)

// queue is the one run queue of a world: the mailboxes that have something to
// do. Which of them is next is drawn from the seed.
type queue struct {
	chance   *rand.Rand // nil: they come in turn
	runnable []*mailbox
}

func (q *queue) push(m *mailbox) { q.runnable = append(q.runnable, m) }

// pop takes a runnable mailbox; nil if there is none.
func (q *queue) pop() *mailbox {
	for len(q.runnable) > 0 {
		last := len(q.runnable) - 1
		i := 0
		if last > 0 && q.chance != nil {
			i = q.chance.IntN(last + 1)
		}
		m := q.runnable[i]
		if q.chance == nil {
			copy(q.runnable, q.runnable[1:])
		} else {
			q.runnable[i] = q.runnable[last]
		}
		q.runnable[last] = nil
		q.runnable = q.runnable[:last]
		switch {
		case m.host.dead:
		case m.host.frozen:
			m.host.parked = append(m.host.parked, m)
		default:
			return m
		}
	}
	return nil
}

// host is one incarnation of a simulated process: an actor system and the
// world's hold on it. Once it is dead nothing of it runs again, and what it
// sends goes nowhere.
type host struct {
	world   *world
	name    string // of the server or the client: "n1", "c2"
	node    int    // index of the node; -1: a client
	keyless bool   // it has shown neither certificate nor token
	system  *actor.ActorSystem

	dead   bool
	frozen bool          // its mailboxes do not run, for a while
	awake  time.Duration // it was thawed last
	parked []*mailbox    // runnable while frozen

	pace  pace
	burst int // ticks that the next beat has too many
	// delay is how long an actor works on a message; nil: no time. The message reaches
	// the actor after that time.
	delay func(actorID string, message any) time.Duration

	// sabotage lets the next message to such an actor panic; nil: to none.
	sabotage *messages.Actor
	doomed   bool // an actor of its core was made to panic

	meter  *prometheus.Registry // of this process
	memory *memory              // what the checkers know of this incarnation
}

// principal is who the certificate of the machine names, or of every other client the token.
func (h *host) principal() transport.Principal {
	if h.keyless {
		return transport.Principal{Kind: transport.Nobody}
	}
	if h.node < 0 {
		kind := transport.UserKey
		if h.name[len(h.name)-1]%2 == 0 {
			kind = transport.TokenUser
		}
		return transport.Principal{Kind: kind, Name: h.name}
	}
	return transport.Principal{Kind: transport.NodeKey, Name: nameOf(h.node)}
}

var oneShard sync.Once

// NewSystem implements seam.Runtime.
func (h *host) NewSystem(address string, _ *slog.Logger) (*actor.ActorSystem, *actor.RootContext) {
	// A registry has 1,024 maps; with the usual 32 shards each, making one costs
	// 4 ms and 3 MB, without 0.1 ms.
	oneShard.Do(func() { cmap.SHARD_COUNT = 1 })
	silent := slog.New(slog.DiscardHandler)
	h.system = actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return silent }),
		actor.WithDeadLetterThrottleInterval(1),
	)
	h.system.ProcessRegistry.Address = address
	return h.system, h.system.Root.WithSpawnMiddleware(h.spawn)
}

// spawn gives every descendant a mailbox of this host, and itself to pass on.
// It ends the chain itself: the library's own end, of a root context that was
// copied, forgets the copy's guardian.
func (h *host) spawn(actor.SpawnFunc) actor.SpawnFunc {
	return func(system *actor.ActorSystem, id string, props *actor.Props, parent actor.SpawnerContext) (*actor.PID, error) {
		return actor.DefaultSpawner(system, id, props.Clone(
			actor.WithMailbox(func() actor.Mailbox { return &mailbox{host: h} }),
			actor.WithDispatcher(never{}),
			actor.WithSpawnMiddleware(h.spawn),
		), parent)
	}
}

// freeze stops the host's mailboxes; thaw lets them go on.
func (h *host) freeze() { h.frozen = true }

func (h *host) thaw() {
	h.frozen, h.awake = false, h.world.clock.now
	for _, m := range h.parked {
		h.world.queue.push(m)
	}
	h.parked = nil
}

// never is the dispatcher: nothing is scheduled but by the world.
type never struct{}

func (never) Schedule(func()) { panic("sim: an actor was scheduled outside the world's run queue") }
func (never) Throughput() int { return 1 }

// mailbox runs one message a step, system messages first. Suspended, it runs
// system messages only.
type mailbox struct {
	host      *host
	id        string // the actor's
	invoker   actor.MessageInvoker
	system    fifo
	user      fifo
	queued    bool // it is in the run queue, parked, or waits for its delay
	suspended bool
}

func (m *mailbox) RegisterHandlers(invoker actor.MessageInvoker, _ actor.Dispatcher) {
	m.invoker = invoker
	m.id = invoker.(interface{ Self() *actor.PID }).Self().Id
}

func (m *mailbox) Start()                {}
func (m *mailbox) UserMessageCount() int { return m.user.len() }

func (m *mailbox) PostUserMessage(message any) {
	if m.host.dead {
		return
	}
	m.host.world.ear.posted(m, message)
	m.user.push(message)
	m.schedule()
}

func (m *mailbox) PostSystemMessage(message any) {
	if m.host.dead {
		return
	}
	m.system.push(message)
	m.schedule()
}

// schedule puts the mailbox into the run queue if it has something to run.
func (m *mailbox) schedule() {
	if m.queued || m.system.len() == 0 && (m.suspended || m.user.len() == 0) {
		return
	}
	m.queued = true
	if m.host.delay != nil && m.system.len() == 0 {
		if d := m.host.delay(m.id, actor.UnwrapEnvelopeMessage(m.user.peek())); d > 0 {
			m.host.world.clock.after(d, m.host, func() { m.host.world.queue.push(m) })
			return
		}
	}
	m.host.world.queue.push(m)
}

// step runs one message. A panic of the actor is a failed run, unless the world
// caused it.
func (m *mailbox) step() {
	message, system := m.take()
	defer func() {
		if reason := recover(); reason != nil {
			m.host.world.panicked(m.host, m.id, reason, debug.Stack())
			m.invoker.EscalateFailure(reason, message)
		}
		m.queued = false
		m.schedule()
	}()
	if message == nil {
		return
	}
	switch message.(type) {
	case *actor.SuspendMailbox:
		m.suspended = true
		return
	case *actor.ResumeMailbox:
		m.suspended = false
		return
	}
	_, body, sender := actor.UnwrapEnvelope(message)
	m.host.world.observe(m.host, m.id, body, sender, system)
	if system {
		m.invoker.InvokeSystemMessage(message)
	} else {
		m.invoker.InvokeUserMessage(message)
	}
}

func (m *mailbox) take() (message any, system bool) {
	if m.system.len() > 0 {
		return m.system.pop(), true
	}
	if !m.suspended && m.user.len() > 0 {
		return m.user.pop(), false
	}
	return nil, false
}

// fifo is a queue that keeps its memory.
type fifo struct {
	items []any
	head  int
}

func (f *fifo) len() int      { return len(f.items) - f.head }
func (f *fifo) peek() any     { return f.items[f.head] }
func (f *fifo) push(item any) { f.items = append(f.items, item) }

func (f *fifo) pop() any {
	item := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	switch {
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
	case f.head >= 64 && f.head*2 >= len(f.items):
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return item
}
