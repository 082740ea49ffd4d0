package sim

import (
	"github.com/asynkron/protoactor-go/actor"
)

// ear hears what the actors of a world say to each other, and who speaks. What an
// actor sends without asking for an answer does not name it, so the ear remembers
// whose turn it was when the message was posted.
//
// A nil ear hears nothing and costs nothing.
//
// Invariant: what it remembers only grows, for as long as a scene lasts; so no
// address of a message is ever used again.
type ear struct {
	speaker *mailbox        // whose turn it is; nil: the world's
	posts   map[post]string // who posted it: "n1 node/raft"
	carried map[any]string  // who sent what crosses the network, by envelope and by message
	hear    func(Said)
	note    func(name, text string) // what the world did to a host
	enough  bool                    // the world stops before its next step
}

// post is a message on its way to one actor. An actor may pass on what another
// still has before it.
type post struct {
	message any
	host    *host
	actorID string
}

// Said is one message, right before the actor is given it.
type Said struct {
	From    string // "n1 node/raft"; empty: the world
	To      string
	Message any
}

func newEar(hear func(Said), note func(name, text string)) *ear {
	return &ear{posts: map[post]string{}, carried: map[any]string{}, hear: hear, note: note}
}

func (e *ear) heardEnough() bool { return e != nil && e.enough }

func (e *ear) turn(m *mailbox) {
	if e != nil {
		e.speaker = m
	}
}

// posted is told of a message as it comes into a mailbox.
func (e *ear) posted(m *mailbox, message any) {
	if e == nil {
		return
	}
	message = actor.UnwrapEnvelopeMessage(message)
	from := e.carried[message]
	if e.speaker != nil {
		from = e.speaker.host.name + " " + e.speaker.id
	}
	e.posts[post{message, m.host, m.id}] = from
}

// sealed and arrived are told of an envelope when it is sent, and when it is opened.
func (e *ear) sealed(envelope any) {
	if e != nil && e.speaker != nil {
		e.carried[envelope] = e.speaker.host.name + " " + e.speaker.id
	}
}

func (e *ear) arrived(envelope, body any) {
	if e != nil {
		e.carried[body] = e.carried[envelope]
	}
}

func (e *ear) received(h *host, actorID string, message any) {
	if e != nil {
		e.hear(Said{From: e.posts[post{message, h, actorID}], To: h.name + " " + actorID, Message: message})
	}
}

func (e *ear) noted(name, text string) {
	if e != nil {
		e.note(name, text)
	}
}
