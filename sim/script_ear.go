package sim

import (
	"github.com/asynkron/protoactor-go/actor"
)

// ear hears what the actors of a world say to each other, and who speaks. What an
// actor sends without asking for an answer does not name it, so the ear remembers
// whose turn it was when the message was sent.
//
// A nil ear hears nothing and costs nothing.
//
// Invariant: senders only grows, for as long as a script lasts. So a message that
// goes to several actors keeps its sender, and no key is used again.
type ear struct {
	speaker *mailbox       // whose turn it is; nil: the world's
	senders map[any]string // "n1 node/raft", by message or envelope under way
	hear    func(said)
	note    func(name, text string) // what the world did to a machine
	enough  bool                    // the world stops before its next step
}

// said is one message, right before the actor is given it.
type said struct {
	from    string // "n1 node/raft"; empty: the world
	to      string
	message any
}

func newEar(hear func(said), note func(name, text string)) *ear {
	return &ear{senders: map[any]string{}, hear: hear, note: note}
}

func (e *ear) heardEnough() bool { return e != nil && e.enough }

func (e *ear) turn(m *mailbox) {
	if e != nil {
		e.speaker = m
	}
}

// sent is told of a message as it is posted, or of the envelope that carries it.
func (e *ear) sent(message any) {
	if e == nil || e.speaker == nil {
		return
	}
	e.senders[actor.UnwrapEnvelopeMessage(message)] = e.speaker.host.name + " " + e.speaker.id
}

// arrived is told that an envelope was opened.
func (e *ear) arrived(envelope, body any) {
	if e == nil {
		return
	}
	if from, known := e.senders[envelope]; known {
		e.senders[body] = from
	}
}

func (e *ear) received(h *host, actorID string, message any) {
	if e == nil {
		return
	}
	e.hear(said{from: e.senders[message], to: h.name + " " + actorID, message: message})
}

func (e *ear) noted(name, text string) {
	if e != nil {
		e.note(name, text)
	}
}
