package client

import (
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// sendRequests sends what the link in use has credits for: first what was sent before,
// then the rest in the order of submission.
func (c *core) sendRequests() {
	l, q := c.links.current, &c.requests
	if l == nil || l.session == "" {
		return
	}
	c.sendAgain(func(r *request) bool { return !r.kind.ofNode() && c.mayCarry(l, r) }, l)
	for {
		r := c.nextWaiting(l)
		if r == nil || !l.hasCredit(r) {
			return
		}
		q.waiting[r.kind] = q.waiting[r.kind][1:]
		c.number(r)
		c.send(r, l)
	}
}

// nextWaiting is the oldest request that could be sent for the first time.
func (c *core) nextWaiting(l *link) *request {
	var first *request
	for k := range c.requests.waiting {
		for len(c.requests.waiting[k]) > 0 && c.requests.waiting[k][0].done {
			c.requests.waiting[k] = c.requests.waiting[k][1:]
		}
		if len(c.requests.waiting[k]) == 0 {
			continue
		}
		r := c.requests.waiting[k][0]
		if r.kind == write && !c.mayNumber(l) || r.retryAt > c.now {
			continue
		}
		if first == nil || r.order < first.order {
			first = r
		}
	}
	return first
}

// mayNumber reports whether the session takes one more command now.
func (c *core) mayNumber(l *link) bool {
	s := &c.session
	return !s.retiring && l.epoch == s.epoch && s.next-s.acked < sessionWindow
}

func (c *core) mayCarry(l *link, r *request) bool {
	return (r.kind != write || r.epoch == l.epoch) && l.hasCredit(r)
}

func (l *link) hasCredit(r *request) bool {
	return l.requests < l.requestsMax && (l.bytes+r.size <= l.bytesMax || l.requests == 0)
}

// number gives a request the number and the message that it keeps.
func (c *core) number(r *request) {
	q := &c.requests
	r.client = c.session.client
	switch r.kind {
	case write:
		c.numberCommand(r)
	case read:
		q.readNumber++
		r.number = q.readNumber
		q.reads[r.number] = r
		r.message = &messages.Read{Request: r.number, Consistency: r.read.Consistency, Revision: r.read.Revision, Kind: r.read.Kind, Traceparent: r.trace}
	default:
		r.client = c.address
		q.ofNodeNumber++
		r.number = q.ofNodeNumber
		q.ofNode[r.number] = r
		r.message = r.ofNodeMessage()
	}
}

func (r *request) ofNodeMessage() proto.Message {
	switch r.kind {
	case snapshot:
		return &messages.SnapshotRequest{Request: r.number, Kind: r.snapshot.Kind}
	case ofCluster:
		m := r.cluster
		return &messages.ClusterRequest{Request: r.number, Kind: m.Kind, Configuration: m.Configuration, Term: m.Term, DryRun: m.DryRun}
	}
	return &messages.StatusRequest{Request: r.number, Events: r.events}
}

func (c *core) numberCommand(r *request) {
	s := &c.session
	if s.open == nil {
		s.open = &messages.OpenSession{TtlMs: c.sessionTTLMs, BeforeMs: c.links.current.logTimeMs + min(c.sessionTTLMs, messages.SessionOpenMaxMS)}
	}
	r.command.Session, r.command.Seq, r.command.AckedBelow, r.command.Open = s.client, s.next, s.acked, nil
	if !s.opened {
		r.command.Open = s.open
	}
	body, err := proto.Marshal(r.command)
	if err != nil {
		panic("a checked command cannot be marshalled: " + err.Error())
	}
	r.number, r.epoch = s.next, s.epoch
	r.message = &messages.Write{Request: r.number, Command: body, Traceparent: r.trace}
	c.requests.writes[r.number] = r
	s.next++
}

// sendOfNode sends to any node that is up what needs no session.
func (c *core) sendOfNode() {
	q, l := &c.requests, c.links.current
	if l == nil {
		l = c.links.next
	}
	if l == nil || l.phase == dialling {
		return
	}
	for _, r := range q.fresh {
		switch {
		case r.done:
		case r.kind == reach:
			c.finish(r, &messages.Done{})
		default:
			c.number(r)
			c.send(r, l)
		}
	}
	q.fresh = q.fresh[:0]
	c.sendAgain(func(r *request) bool { return r.kind.ofNode() }, l)
}

// sendAgain sends over l what is due for one more sending and may go there.
func (c *core) sendAgain(may func(*request) bool, l *link) {
	q := &c.requests
	q.again = without(q.again, func(r *request) bool {
		if !r.done && r.via == nil && (r.retryAt > c.now || !may(r)) {
			return false
		}
		if !r.done && r.via == nil {
			if mutant.RetryRenumbered && r.kind == write { // the log takes it for another command
				c.dropNumber(r)
				c.numberCommand(r)
			}
			c.send(r, l)
		}
		r.again = false
		return true
	})
}

// send hands a numbered request to a link.
func (c *core) send(r *request, l *link) {
	to := l.session
	switch r.kind {
	case status:
		to = messages.ActorGateway
		l.ofNode++
	case snapshot:
		to = messages.ActorSnapshots
		l.ofNode++
	case ofCluster:
		to = messages.ActorMembership
		l.ofNode++
	default:
		l.requests++
		l.bytes += r.size
	}
	if r.changes() {
		r.live++
	}
	if r.missedAt != l {
		r.missedAt, r.misses = l, 0
	}
	r.via, r.endpoint, r.sentAt = l, l.at.name, c.now
	// Megabytes take their time. To send them again makes them later, and the node ends a
	// connection that has too much unanswered.
	r.patience = grown(r.firstPatience(), r.silences-1, patienceMaxMs) + c.random.Uint64N(patienceMs/4) + uint64(l.bytes)/patienceBytes
	c.emit(send{l.address, to, r.message})
}

// firstPatience is longer for requests that make a node read much, or the cluster agree.
func (r *request) firstPatience() uint64 {
	if r.kind == snapshot || r.change || r.read.GetDigest() != nil {
		return patienceMaxMs
	}
	return patienceMs
}

// release takes a request off its link, to be sent again at the given time.
func (c *core) release(r *request, at uint64) {
	c.unlink(r)
	r.retryAt = at
	if !r.again {
		r.again = true
		c.requests.again = append(c.requests.again, r)
	}
}

func (c *core) unlink(r *request) {
	l := r.via
	if l == nil {
		return
	}
	r.via = nil
	if r.kind.ofNode() {
		l.ofNode--
		return
	}
	l.requests--
	l.bytes -= r.size
}

// releaseAll takes the requests off l that have missed at least so often.
func (c *core) releaseAll(l *link, misses int) {
	for _, r := range c.requests.all {
		if r.via == l && r.misses >= misses {
			c.release(r, c.now)
		}
	}
}

// releaseSessions takes off l the requests that its session actor should have answered.
func (c *core) releaseSessions(l *link) {
	for _, r := range c.requests.all {
		if r.via == l && !r.kind.ofNode() {
			c.release(r, c.now)
		}
	}
}

// silence sends a request again that was not answered in time.
func (c *core) silence(r *request) {
	l := r.via
	r.silences++
	c.release(r, c.now)
	c.miss(r, l, messages.Errorf(messages.Code_TIMED_OUT, "no answer within %d ms", c.now-r.sentAt))
}

// refuse sends a request again, after a while, that a node did not take. A node that is
// busy keeps the client; one that is unsound loses it at once.
func (c *core) refuse(r *request, why *messages.Error) {
	l := r.via
	r.last = why
	c.release(r, c.now+c.jitter(grown(retryMs, r.refusals, retryMaxMs)))
	r.refusals++
	switch {
	case l == nil || why.Code == messages.Code_BUSY:
	case why.Code == messages.Code_DAMAGED || why.Code == messages.Code_INTERNAL:
		c.leave(l, why)
	default:
		c.miss(r, l, why)
	}
}

// wait sends a request again, after a while, that another node is to take. Nothing is
// wrong with this one.
func (c *core) wait(r *request, why *messages.Error) {
	r.last = why
	c.release(r, c.now+c.jitter(grown(retryMs, r.refusals, retryMaxMs)))
	r.refusals++
}

// miss counts a silence or refusal against the node of l. The node is left when it
// failed the same request several times and was of use to no other meanwhile.
func (c *core) miss(r *request, l *link, why *messages.Error) {
	r.misses++
	if r.misses >= missesMax && l.heard < r.sentAt {
		c.leave(l, why)
	}
}

// useful notes that the node of l gave an answer that shows it at work.
func (c *core) useful(l *link) {
	if l == nil {
		return
	}
	l.heard, l.unwanted = c.now, false
	l.at.failures, l.at.note, l.at.refused = 0, nil, false
}
