package client

import (
	"bytes"
	"slices"

	"keyval/messages"
)

// endpoint is a place that can be dialled.
type endpoint struct {
	name string // host:port
	// From dial to LinkDown the endpoint is not dialled again, even when the link was
	// hung and only its LinkDown is awaited.
	link    *link
	hanging bool

	raftID   messages.RaftID // of the node that was there last, or is as the members say; 0: not known
	member   bool            // the members say that one is here
	gone     bool            // the node that was here is no member any more
	failures int             // in a row, without an answer of consequence between
	retryAt  uint64          // not dialled before
	note     *messages.Error // what went wrong last
	refused  bool            // note is a refusal that time does not cure
}

type phase int

const (
	dialling  phase = iota // dial was called
	reached                // the node is up; its turn for Attach has not come
	attaching              // Attach is unanswered
	ready                  // there is a session actor to talk to
	parting                // takes nothing new; hung when what it holds is answered or lost
)

// link is the way to one node, and what is under way on it.
type link struct {
	at     *endpoint
	phase  phase
	since  uint64 // when the phase began
	raftID messages.RaftID
	// address is the node's logical one.
	address string
	name    string

	attach    uint64 // the number of the last Attach
	asked     uint64 // its session epoch
	epoch     uint64 // the session epoch of the session actor; 0: none
	session   string // the session actor; empty: none
	logTimeMs uint64 // as of Attached

	// credits: requests never exceeds requestsMax when something is sent; bytes
	// exceeds bytesMax only with a single request.
	requestsMax, bytesMax int
	requests, bytes       int
	ofNode                int // statuses and snapshot requests: held too, without credits

	heard    uint64 // when it last gave an answer of consequence, or the link came up
	unwanted bool   // silent or useless: to be left as soon as another node is ready
}

func (l *link) held() int { return l.requests + l.ofNode }

// links is where the client is, and where it could be.
type links struct {
	endpoints []*endpoint // as configured, in order
	learned   []*endpoint // the members' and the leader's that are none of the above, and those still in use
	cursor    int         // in places(): where the next search starts
	pinned    bool        // the client is to ask its endpoints, and no others

	configuration uint64          // of the members that were learned last
	members       map[uint64]bool // by RaftID; nil: not known yet

	current *link // takes the requests
	next    *link // being made; becomes current
	parting []*link

	// attaches is the number of the last Attach, of any link. Only an Attached with the
	// number of the last one of a link counts: a node that is slow answers one of a link
	// that was given up long ago on the link that the client has to it now, and the
	// session actor that it names is gone, or is another client's on another node.
	attaches uint64

	leader    *messages.Leader // the newest that was named
	clusterID []byte           // of the first node reached; nodes of others are refused
	last      string           // the endpoint dialled last
}

func newLinks(names []string, first int, pinned bool) links {
	ls := links{cursor: first, last: names[first], pinned: pinned}
	for _, name := range names {
		ls.endpoints = append(ls.endpoints, &endpoint{name: name})
	}
	return ls
}

// find is the endpoint of this name, or nil.
func (ls *links) find(name string) *endpoint {
	for _, list := range [][]*endpoint{ls.endpoints, ls.learned} {
		for _, e := range list {
			if e.name == name {
				return e
			}
		}
	}
	return nil
}

func (ls *links) currentNode() messages.RaftID {
	if ls.current == nil {
		return 0
	}
	return ls.current.raftID
}

// learn remembers the leader that a reply named, unless a newer one is known.
func (c *core) learn(leader *messages.Leader) {
	ls := &c.links
	if leader == nil || leader.RaftId == 0 || ls.leader != nil && leader.Term < ls.leader.Term {
		return
	}
	if ls.leader != nil && leader.RaftId == ls.leader.RaftId && leader.Address == "" {
		return
	}
	ls.leader = leader
}

// steer starts the one link that should be made now, if any.
func (c *core) steer() {
	ls := &c.links
	if ls.next != nil {
		c.attach(ls.next)
		return
	}
	switch l := ls.current; {
	case l == nil:
		if c.requests.count > 0 && !c.dialLeader() {
			c.dialAny()
		}
	case l.phase == attaching:
	case l.unwanted:
		if !c.dialLeader() && !c.dialAny() && c.now-l.since >= attachMs {
			c.attach(l) // there is no other node: perhaps its session actor is gone
		}
	case l.epoch != c.session.epoch:
		c.attach(l)
	default:
		c.dialLeader()
	}
}

// dialLeader goes to the leader when there is something for it to do, even if its address is
// not among the endpoints. It reports whether it dials.
func (c *core) dialLeader() bool {
	ls := &c.links
	to := ls.leader
	if to == nil || to.Address == "" || to.RaftId == ls.currentNode() || !c.requests.anyForLeader() {
		return false
	}
	e := ls.find(to.Address)
	if e == nil {
		e = &endpoint{name: to.Address, raftID: to.RaftId}
		ls.learned = append(ls.learned, e)
	}
	return c.tryDial(e)
}

// places is where the cluster can be reached: the endpoints, but for those of members that
// were removed, and those of members that were learned. If nothing is left of that, it is the
// endpoints.
func (ls *links) places() []*endpoint {
	var all []*endpoint
	for _, e := range ls.endpoints {
		if !e.gone {
			all = append(all, e)
		}
	}
	for _, e := range ls.learned {
		if e.member {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return ls.endpoints
	}
	return all
}

// learnMembers remembers where the members are, so that the client outlives those that it
// was told at first. An older configuration than the one known is no news.
func (c *core) learnMembers(members []*messages.Member, configuration uint64) {
	ls := &c.links
	if ls.pinned || len(members) == 0 || configuration < ls.configuration {
		return
	}
	ls.configuration, ls.members = configuration, map[uint64]bool{}
	for _, e := range ls.learned {
		e.member = false
	}
	for _, m := range members {
		ls.members[m.RaftId] = true
		e := ls.find(m.Address)
		if e == nil {
			e = &endpoint{name: m.Address}
			ls.learned = append(ls.learned, e)
		}
		e.member, e.gone = true, false
		if e.link == nil {
			e.raftID = m.RaftId
		}
	}
	for _, e := range ls.endpoints {
		e.gone = e.raftID != 0 && !ls.members[e.raftID]
	}
	c.forgetLearned()
}

// dialAny goes to the next place in turn that may be dialled. While none is, and the client has
// no link at all, it goes to an endpoint whose member was removed: since this client heard
// that, another may have come there, and all that it knows may have gone.
func (c *core) dialAny() bool {
	ls := &c.links
	places := ls.places()
	for i := range places {
		at := (ls.cursor + i) % len(places)
		e := places[at]
		if e.raftID != 0 && e.raftID == ls.currentNode() {
			continue
		}
		if c.tryDial(e) {
			ls.cursor = (at + 1) % len(places)
			return true
		}
	}
	return ls.current == nil && slices.ContainsFunc(ls.endpoints, func(e *endpoint) bool { return e.gone && c.tryDial(e) })
}

func (c *core) tryDial(e *endpoint) bool {
	if e.link != nil || e.hanging || c.now < e.retryAt {
		return false
	}
	e.link = &link{at: e, phase: dialling, since: c.now}
	c.links.next = e.link
	c.links.last = e.name
	c.emit(dial{e.name})
	return true
}

// linkUp: a node was reached.
func (c *core) linkUp(m *messages.LinkUp) []effect {
	ls := &c.links
	e := ls.find(m.Endpoint)
	if e == nil || e.link == nil || e.link.phase != dialling {
		return c.proceed() // hung meanwhile; its LinkDown follows
	}
	l := e.link
	e.raftID = m.RaftId
	l.raftID, l.address, l.name = m.RaftId, messages.NodeAddress(m.RaftId), m.Name
	switch {
	case len(ls.clusterID) > 0 && len(m.ClusterId) > 0 && !bytes.Equal(ls.clusterID, m.ClusterId):
		c.giveUp(l, messages.Errorf(messages.Code_NOT_ALLOWED, "node %s belongs to another cluster", m.Name).
			WithHint("name endpoints of one cluster only"))
	case m.WaitingFor != "" || m.RaftId == 0:
		c.giveUp(l, explainWaiting(m))
	default:
		if len(m.ClusterId) > 0 {
			ls.clusterID = m.ClusterId
		}
		l.phase, l.since, l.heard = reached, c.now, c.now
	}
	return c.proceed()
}

// attach asks the node of l for a session actor.
func (c *core) attach(l *link) {
	if l.phase != reached && l.phase != ready {
		return
	}
	c.links.attaches++
	l.phase, l.since, l.asked, l.attach = attaching, c.now, c.session.epoch, c.links.attaches
	c.emit(send{l.address, messages.ActorGateway, &messages.Attach{Client: c.session.client, Request: l.attach}})
}

// attached: a node gives a session actor, or refuses.
func (c *core) attached(m *messages.Attached) []effect {
	c.learn(m.Leader)
	c.learnMembers(m.Members, m.Configuration)
	switch l := c.links.attaching(m.Request); {
	case l == nil: // its link was hung meanwhile
	case m.Code != messages.Code_OK || m.Session == "":
		c.refuseLink(l, explainAttached(m))
	default:
		c.adopt(l, m)
	}
	return c.proceed()
}

// attaching is the link whose last Attach has this number and is unanswered; nil: none.
func (ls *links) attaching(request uint64) *link {
	for _, l := range []*link{ls.current, ls.next} {
		if l != nil && l.phase == attaching && l.attach == request {
			return l
		}
	}
	return nil
}

// adopt makes l the link in use, with the session actor that it was given.
func (c *core) adopt(l *link, m *messages.Attached) {
	ls := &c.links
	if l.session != "" && l.session != m.Session {
		c.emit(send{l.address, l.session, &messages.Detach{}})
		c.releaseAll(l, 0)
	}
	l.phase, l.since, l.unwanted = ready, c.now, false
	l.epoch, l.session, l.logTimeMs = l.asked, m.Session, m.LogTimeMs
	l.requestsMax = max(1, int(m.RequestsMax))
	l.bytesMax = int(min(m.BytesMax, bytesMax))
	if l.bytesMax == 0 {
		l.bytesMax = bytesMax
	}
	if l == ls.current {
		return
	}
	old := ls.current
	ls.current, ls.next = l, nil
	if old != nil {
		c.part(old)
		c.releaseAll(old, 1)
	}
}

// part gives a link nothing new. It is hung once all that it holds is answered.
func (c *core) part(l *link) {
	l.phase, l.since = parting, c.now
	c.links.parting = append(c.links.parting, l)
}

// refuseLink leaves a node that is up but gives no session; what was asked of
// its gateway may still be answered.
func (c *core) refuseLink(l *link, why *messages.Error) {
	ls := &c.links
	c.blame(l.at, why)
	if l == ls.next {
		ls.next = nil
	} else {
		ls.current = nil
		c.releaseSessions(l)
	}
	c.part(l)
}

// leave marks a node that is silent or of no use. It is used until another is ready.
func (c *core) leave(l *link, why *messages.Error) {
	if l.unwanted || l != c.links.current {
		return
	}
	l.unwanted, l.since = true, c.now
	c.blame(l.at, why)
	l.at.retryAt = max(l.at.retryAt, c.now+2*c.jitter(shunMs))
}

// blame notes what went wrong at an endpoint and keeps the client off it for a while.
func (c *core) blame(e *endpoint, why *messages.Error) {
	e.note = why
	e.refused = isRefusal(why.Code) || c.impatient && why.Code == messages.Code_STARTING
	e.retryAt = c.now + c.jitter(grown(redialMs, e.failures, redialMaxMs))
	e.failures++
}

// giveUp hangs a link that leads nowhere.
func (c *core) giveUp(l *link, why *messages.Error) {
	c.blame(l.at, why)
	c.hang(l)
}

// hang ends a link; LinkDown will follow. What was under way on it is sent again.
func (c *core) hang(l *link) {
	l.at.hanging = true
	c.emit(hang{l.at.name})
	c.forget(l)
}

// linkDown: a link could not be made, was refused, broke, or was hung.
func (c *core) linkDown(m *messages.LinkDown) []effect {
	e := c.links.find(m.Endpoint)
	switch {
	case e == nil:
	case e.hanging:
		e.hanging = false
	case e.link != nil:
		c.blame(e, explainDown(m))
		c.forget(e.link)
	}
	c.forgetLearned()
	return c.proceed()
}

// forget takes l out of the state.
func (c *core) forget(l *link) {
	ls := &c.links
	l.at.link = nil
	if ls.current == l {
		ls.current = nil
	}
	if ls.next == l {
		ls.next = nil
	}
	ls.parting = without(ls.parting, func(p *link) bool { return p == l })
	c.releaseAll(l, 0)
}

// forgetLearned drops addresses at which there is no member any more, and no leader.
func (c *core) forgetLearned() {
	ls := &c.links
	ls.learned = without(ls.learned, func(e *endpoint) bool {
		return !e.member && e.link == nil && !e.hanging && (ls.leader == nil || ls.leader.Address != e.name)
	})
}

// giveUpLinks ends dials and Attaches that nobody answers.
func (c *core) giveUpLinks() {
	if l := c.links.next; l != nil {
		switch waited := c.now - l.since; {
		case l.phase == dialling && waited >= dialMs:
			c.giveUp(l, messages.Errorf(messages.Code_UNREACHABLE, "no answer to the dial within %d ms", waited))
		case l.phase != dialling && waited >= attachMs:
			c.giveUp(l, explainSilent(l, waited))
		}
	}
	if l := c.links.current; l != nil && l.phase == attaching && c.now-l.since >= attachMs {
		c.giveUp(l, explainSilent(l, c.now-l.since))
	}
}

// hangDrained ends the links that were left and hold nothing any more.
func (c *core) hangDrained() {
	for i := 0; i < len(c.links.parting); {
		if l := c.links.parting[i]; l.held() == 0 {
			c.hang(l)
		} else {
			i++
		}
	}
}

// hangUp ends all links.
func (c *core) hangUp() {
	ls := &c.links
	if ls.current != nil && ls.current.session != "" {
		c.emit(send{ls.current.address, ls.current.session, &messages.Detach{}})
	}
	for _, list := range [][]*endpoint{ls.endpoints, ls.learned} {
		for _, e := range list {
			if e.link != nil {
				c.hang(e.link)
			}
		}
	}
}

// allRefuse reports that every endpoint has refused this client for a reason
// that waiting does not cure, and none is being tried again.
func (c *core) allRefuse() bool {
	ls := &c.links
	if ls.current != nil || ls.next != nil {
		return false
	}
	for _, e := range ls.places() {
		if !e.refused {
			return false
		}
	}
	return true
}

// isRefusal tells a node's decision from a link that failed.
func isRefusal(code messages.Code) bool {
	switch code {
	case messages.Code_NOT_ALLOWED, messages.Code_UNSUPPORTED, messages.Code_INVALID, messages.Code_CONFLICT:
		return true
	}
	return false
}

// without removes, in place and in order.
func without[T any](list []T, gone func(T) bool) []T {
	kept := list[:0]
	for _, v := range list {
		if !gone(v) {
			kept = append(kept, v)
		}
	}
	clear(list[len(kept):])
	return kept
}
