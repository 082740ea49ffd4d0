package client

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// desk takes the answers for all callers of a Client. It is a process of the
// actor system, not an actor: it runs where the answer is sent, and never blocks.
type desk struct {
	pid    *actor.PID
	client *actor.PID    // the client actor
	ended  chan struct{} // closed when no answer will come any more

	mu      sync.Mutex
	why     error // it ended; nil: it has not
	tag     uint64
	waiting map[uint64]chan *messages.Done // one place each, so that a send never waits
}

var _ actor.Process = (*desk)(nil)

func newDesk(system *actor.ActorSystem) *desk {
	d := &desk{ended: make(chan struct{}), waiting: map[uint64]chan *messages.Done{}}
	pid, fresh := system.ProcessRegistry.Add(d, "desk")
	if !fresh {
		panic("the desk's name is taken in a system of its own")
	}
	d.pid = pid
	return d
}

// expect gives a tag and where its answer will come, or says why none will.
func (d *desk) expect() (tag uint64, answered <-chan *messages.Done, ended error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why != nil {
		return 0, nil, d.why
	}
	d.tag++
	place := make(chan *messages.Done, 1)
	d.waiting[d.tag] = place
	return d.tag, place, nil
}

// forget ends the wait for a tag's answer.
func (d *desk) forget(tag uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, tag)
}

// shut ends the wait for all answers, for the first reason given.
func (d *desk) shut(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why == nil {
		d.why = why
		close(d.ended)
	}
}

// reason is why the desk was shut.
func (d *desk) reason() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

// SendUserMessage implements actor.Process.
func (d *desk) SendUserMessage(_ *actor.PID, message any) {
	_, body, _ := actor.UnwrapEnvelope(message)
	switch m := body.(type) {
	case *messages.Done:
		d.deliver(m)
	case *actor.DeadLetterResponse:
		d.shut(messages.Errorf(messages.Code_INTERNAL, "the client has ended"))
	}
}

func (d *desk) deliver(m *messages.Done) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if answered := d.waiting[m.Tag]; answered != nil {
		answered <- m
		delete(d.waiting, m.Tag)
	}
}

// SendSystemMessage implements actor.Process. There is nothing to say.
func (d *desk) SendSystemMessage(*actor.PID, any) {}

// Stop implements actor.Process. Only shut ends it.
func (d *desk) Stop(*actor.PID) {}
