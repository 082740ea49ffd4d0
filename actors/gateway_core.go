package actors

import (
	"slices"

	"keyval/messages"
)

// Bounds of the gateway.
const (
	sessionsMax         = 16 << 10 // attached clients of a node
	sessionsOfClientMax = 64       // of these, over the connections of one address
	// sessionsOfHolderMax bounds those of one user, or without keys of one host, over all his
	// connections: a half, so that he shuts nobody out.
	sessionsOfHolderMax = sessionsMax / 2
	statusWaitingMax    = 4 << 10 // status requests that wait; beyond it BUSY
)

// statusAgainTicks is after how long a status that has not come is asked for again: an
// actor on its way may have restarted and lost it.
const statusAgainTicks = 20

// attachments are the session actors of a gateway, by client and by owner.
//
// A client is a ClientID as one user names it: who knows another's stands beside him, and
// whatever he sends is refused when it is applied. What became of it is his to hear alone.
//
// Invariant: each client has one session actor, the first three maps hold the same ones, and
// ofHolder counts them.
type attachments struct {
	of       map[string]attachment // by client
	clientOf map[string]string     // client by session actor
	byOwner  map[string][]string   // session actors by the address that attached them, the oldest first
	ofHolder map[string]int        // by whose they are counted with
}

type attachment struct {
	actor  string // the session's
	owner  string // the client's address
	asker  string // the client's actor
	holder string // see messages.Attach
}

func newAttachments() *attachments {
	return &attachments{of: map[string]attachment{}, clientOf: map[string]string{}, byOwner: map[string][]string{}, ofHolder: map[string]int{}}
}

// clientKey is a client of a user; of no user, without keys.
func clientKey(id, user []byte) string { return string(id) + string(user) }

// check returns why a client cannot be attached now, or nil if it can.
func (a *attachments) check(client []byte, owner, holder string) *messages.Error {
	old, again := a.of[clientKey(client, messages.UserOf([]byte(holder)))]
	switch {
	case len(client) != messages.ClientIDSize:
		return messages.Errorf(messages.Code_INVALID, "a ClientID has %d bytes, this one %d", messages.ClientIDSize, len(client))
	case again && old.owner == owner:
	case len(a.byOwner[owner]) >= sessionsOfClientMax:
		return messages.Errorf(messages.Code_BUSY, "%d clients are attached over this connection already", sessionsOfClientMax)
	case holder != "" && a.ofHolder[holder] >= sessionsOfHolderMax && !(again && old.holder == holder):
		return messages.Errorf(messages.Code_BUSY, "this node serves %d clients of the same user or host already, and no one may have more", sessionsOfHolderMax)
	case !again && len(a.of) >= sessionsMax:
		return messages.Errorf(messages.Code_BUSY, "this node serves %d clients already", sessionsMax)
	}
	return nil
}

// add records a new session actor. The client's older one was removed before.
func (a *attachments) add(client string, of attachment) {
	a.of[client] = of
	a.clientOf[of.actor] = client
	a.byOwner[of.owner] = append(a.byOwner[of.owner], of.actor)
	a.ofHolder[of.holder]++
}

// remove deletes a session actor, if it is there.
func (a *attachments) remove(actor string) {
	client, ok := a.clientOf[actor]
	if !ok {
		return
	}
	owner, holder := a.of[client].owner, a.of[client].holder
	if a.ofHolder[holder]--; a.ofHolder[holder] == 0 {
		delete(a.ofHolder, holder)
	}
	delete(a.clientOf, actor)
	delete(a.of, client)
	rest := slices.DeleteFunc(a.byOwner[owner], func(other string) bool { return other == actor })
	if len(rest) > 0 {
		a.byOwner[owner] = rest
	} else {
		delete(a.byOwner, owner)
	}
}

// statusDesk bounds what status requests cost. Many clients may ask at once, and every
// status takes a turn of the raft actor, so one at most is under way. Requests that come
// meanwhile wait for the next one: nobody is told what was true before he asked.
//
// Invariant: the status under way answers the first `asked` elements of waiting.
type statusDesk struct {
	waiting []statusAsker
	asked   int
	age     int // ticks since it was asked for
}

type statusAsker struct {
	address, actor string
	request        uint64
	events         bool // wanted with it
}

// ask queues a request. send: a status is to be asked for now. busy: there is no room,
// and the request is not queued.
func (d *statusDesk) ask(who statusAsker) (send, busy bool) {
	if len(d.waiting) >= statusWaitingMax {
		return false, true
	}
	d.waiting = append(d.waiting, who)
	return d.next(), false
}

// next begins a status, and reports true, if somebody waits and none is under way.
func (d *statusDesk) next() bool {
	if d.asked > 0 || len(d.waiting) == 0 {
		return false
	}
	d.asked, d.age = len(d.waiting), 0
	return true
}

// answered returns whom the status that came answers, and whether to ask for another.
func (d *statusDesk) answered() (whom []statusAsker, send bool) {
	whom, d.waiting, d.asked = d.waiting[:d.asked:d.asked], slices.Clone(d.waiting[d.asked:]), 0
	return whom, d.next()
}

// tick reports whether to ask again, since the status under way has not come.
func (d *statusDesk) tick(elapsed int) bool {
	if d.age += elapsed; d.asked == 0 || d.age < statusAgainTicks {
		return false
	}
	d.asked = 0
	return d.next()
}
