package transport

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// What one connection may have in the mailbox of one actor, in messages and in
// bytes of their bodies: twice this at most, and one message. Mailboxes have no
// bound of their own.
const (
	creditMessages = 128
	creditBytes    = 512 << 10
	mailboxesMax   = 1024 // actors that a connection's credits remember, in number
)

// absencePatience is how long an answer may fail to come before a credit looks
// whether the actor is still there.
const absencePatience = 20 * time.Millisecond

// credits bound what a connection has delivered and its actors have not taken. A
// reader that is ahead of an actor waits for it, and so does the far side, since
// nothing more is read from it: who floods waits for himself.
type credits struct {
	system    *actor.ActorSystem
	ended     <-chan struct{} // the connection's
	self      *actor.PID
	taken     chan struct{} // holds a token when an actor has answered since it was looked at
	mailboxes map[string]*mailbox
}

// mailbox is what stands in one actor's mailbox from this connection.
type mailbox struct {
	messages, bytes int         // since the last turn that was sent
	turn            *turn       // under way; nil: none
	answered        atomic.Bool // the turn was taken
}

// turn is a message that an actor answers without looking at it, when all that
// was delivered before it is taken. To an actor it is one of the library's own.
type turn struct{ of *mailbox }

// AutoReceiveMessage marks what actors leave to the library.
func (*turn) AutoReceiveMessage() {}

// GetAutoResponse implements actor.AutoRespond.
func (t *turn) GetAutoResponse(actor.Context) any { return t }

var creditNumber atomic.Uint64

func newCredits(system *actor.ActorSystem, ended <-chan struct{}) *credits {
	c := &credits{system: system, ended: ended, taken: make(chan struct{}, 1), mailboxes: map[string]*mailbox{}}
	c.self, _ = system.ProcessRegistry.Add(c, "credits-"+strconv.FormatUint(creditNumber.Add(1), 10))
	return c
}

func (c *credits) close() { c.system.ProcessRegistry.Remove(c.self) }

// SendUserMessage implements actor.Process: an actor has answered.
func (c *credits) SendUserMessage(_ *actor.PID, message any) {
	if _, m, _ := actor.UnwrapEnvelope(message); m != nil {
		if t, ok := m.(*turn); ok {
			t.of.answered.Store(true)
			select {
			case c.taken <- struct{}{}:
			default:
			}
		}
	}
}

// SendSystemMessage implements actor.Process.
func (c *credits) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process.
func (c *credits) Stop(*actor.PID) {}

// delivered counts a message of so many bytes to an actor, and waits for the actor
// if it is too far behind. It reports false if the connection ended meanwhile.
func (c *credits) delivered(name string, target actor.Process, pid *actor.PID, size int) bool {
	m := c.mailboxes[name]
	if m == nil {
		if len(c.mailboxes) == mailboxesMax {
			clear(c.mailboxes)
		}
		m = &mailbox{}
		c.mailboxes[name] = m
	}
	m.messages++
	m.bytes += size
	if m.messages < creditMessages && m.bytes < creditBytes {
		return true
	}
	if m.turn != nil && !c.await(name, m) {
		return false
	}
	m.messages, m.bytes, m.turn = 0, 0, &turn{m}
	m.answered.Store(false)
	target.SendUserMessage(pid, &actor.MessageEnvelope{Message: m.turn, Sender: c.self})
	return true
}

// await waits until an actor has taken its turn. One that is no more has taken all
// it ever will.
func (c *credits) await(name string, m *mailbox) bool {
	if m.answered.Load() {
		return true
	}
	look := time.NewTicker(absencePatience)
	defer look.Stop()
	for !m.answered.Load() {
		select {
		case <-c.taken:
		case <-c.ended:
			return false
		case <-look.C:
			if _, there := c.system.ProcessRegistry.GetLocal(name); !there {
				delete(c.mailboxes, name)
				return true
			}
		}
	}
	return true
}
