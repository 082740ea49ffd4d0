package production

import (
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
)

// throughput is how many messages a mailbox handles before others may run.
const throughput = 300

// mailbox is the library's, in which nothing runs before its actor is there. The library makes
// an actor's name known before its mailbox has an actor and a dispatcher: whoever sends to it
// just then would panic, and leave a mailbox behind that never runs.
type mailbox struct {
	actor.Mailbox
	gate gate
}

// mailbox makes one that the crew runs.
func (c *crew) mailbox() actor.Mailbox {
	m := &mailbox{Mailbox: actor.Unbounded()(), gate: gate{crew: c}}
	m.Mailbox.RegisterHandlers(&m.gate, &m.gate)
	return m
}

// RegisterHandlers implements actor.Mailbox. The dispatcher is the crew in any case.
func (m *mailbox) RegisterHandlers(actor actor.MessageInvoker, _ actor.Dispatcher) {
	m.gate.MessageInvoker = actor
}

// Start implements actor.Mailbox. The message that starts the actor is in the mailbox by now.
func (m *mailbox) Start() {
	m.Mailbox.Start()
	m.gate.open()
}

// gate stands between a mailbox and those who run it and what it runs, until it is open.
type gate struct {
	actor.MessageInvoker // set before it is open; nothing runs before
	crew                 *crew

	isOpen atomic.Bool
	mutex  sync.Mutex
	waits  func() // what is to run once it is open: a mailbox asks once until it has run
}

var _ actor.Dispatcher = (*gate)(nil)

// Throughput implements actor.Dispatcher.
func (g *gate) Throughput() int { return throughput }

// Schedule implements actor.Dispatcher.
func (g *gate) Schedule(run func()) {
	if !g.isOpen.Load() && g.holds(run) {
		return
	}
	g.crew.schedule(run)
}

// holds keeps what is to run if the gate is not open.
func (g *gate) holds(run func()) bool {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.isOpen.Load() {
		return false
	}
	g.waits = run
	return true
}

func (g *gate) open() {
	g.mutex.Lock()
	g.isOpen.Store(true)
	run := g.waits
	g.waits = nil
	g.mutex.Unlock()
	if run != nil {
		g.crew.schedule(run)
	}
}
