package actors

import (
	"slices"

	"keyval/messages"
)

// Bounds of the gateway, in number.
const (
	sessionsMax         = 16 << 10 // attached clients of a node
	sessionsOfClientMax = 64       // of these, over the connections of one address
	statusWaitingMax    = 4 << 10  // status requests that wait; beyond it BUSY
)

// statusAgainTicks is after how long a status that did not come is asked for again:
// an actor on the way may have started anew.
const statusAgainTicks = 20

// attachments are the session actors of a gateway and whose they are.
//
// Invariant: of holds the newest session actor of each ClientID, and clientOf and
// byOwner say the same the other way round.
type attachments struct {
	of       map[string]attachment // by ClientID
	clientOf map[string]string     // ClientID by session actor
	byOwner  map[string][]string   // session actors by the address that attached them, the oldest first
}

type attachment struct {
	actor string // the session's
	owner string // the client's address
}

func newAttachments() *attachments {
	return &attachments{of: map[string]attachment{}, clientOf: map[string]string{}, byOwner: map[string][]string{}}
}

// check says why a client cannot be attached now; nil if it can.
func (a *attachments) check(client []byte, owner string) *messages.Error {
	old, again := a.of[string(client)]
	switch {
	case len(client) != messages.ClientIDSize:
		return messages.Errorf(messages.Code_INVALID, "a ClientID has %d bytes, this one %d", messages.ClientIDSize, len(client))
	case again && old.owner == owner:
	case len(a.byOwner[owner]) >= sessionsOfClientMax:
		return messages.Errorf(messages.Code_BUSY, "%d clients are attached over this connection already", sessionsOfClientMax)
	case !again && len(a.of) >= sessionsMax:
		return messages.Errorf(messages.Code_BUSY, "this node serves %d clients already", sessionsMax)
	}
	return nil
}

// add takes a new session actor; the client has no older one any more.
func (a *attachments) add(client, owner, actor string) {
	a.of[client] = attachment{actor: actor, owner: owner}
	a.clientOf[actor] = client
	a.byOwner[owner] = append(a.byOwner[owner], actor)
}

// remove forgets a session actor. It may be forgotten already.
func (a *attachments) remove(actor string) {
	client, ok := a.clientOf[actor]
	if !ok {
		return
	}
	owner := a.of[client].owner
	delete(a.clientOf, actor)
	delete(a.of, client)
	rest := slices.DeleteFunc(a.byOwner[owner], func(other string) bool { return other == actor })
	if len(rest) > 0 {
		a.byOwner[owner] = rest
	} else {
		delete(a.byOwner, owner)
	}
}

// statusDesk asks for one status at a time, however many want it: consensus has
// better things to do than to tell everybody how it is. Whoever asks is told what
// was so after he asked.
//
// Invariant: the first asked of waiting are answered by the status under way.
type statusDesk struct {
	waiting []statusAsker
	asked   int
	age     int // ticks since it was asked for
}

type statusAsker struct {
	address, actor string
	request        uint64
}

// ask queues a request, and reports whether a status is to be asked for now, and
// whether there was no room.
func (d *statusDesk) ask(who statusAsker) (send, busy bool) {
	if len(d.waiting) >= statusWaitingMax {
		return false, true
	}
	d.waiting = append(d.waiting, who)
	return d.next(), false
}

// next starts the next status, unless one is under way or nobody waits.
func (d *statusDesk) next() bool {
	if d.asked > 0 || len(d.waiting) == 0 {
		return false
	}
	d.asked, d.age = len(d.waiting), 0
	return true
}

// answered is whom a status that came answers, and whether to ask for the next.
func (d *statusDesk) answered() (whom []statusAsker, send bool) {
	whom, d.waiting, d.asked = d.waiting[:d.asked:d.asked], slices.Clone(d.waiting[d.asked:]), 0
	return whom, d.next()
}

// tick reports whether to ask again for what did not come.
func (d *statusDesk) tick(elapsed int) bool {
	if d.age += elapsed; d.asked == 0 || d.age < statusAgainTicks {
		return false
	}
	d.asked = 0
	return d.next()
}
