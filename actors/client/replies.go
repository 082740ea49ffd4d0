package client

import (
	"keyval/messages"
)

// writeReply hears what became of a command, or that a node did not take it.
func (c *core) writeReply(m *messages.WriteReply) []effect {
	c.learn(m.Leader)
	r := c.requests.writes[m.Request]
	if r == nil {
		return c.proceed() // answered or abandoned before
	}
	why := func() *messages.Error { return explainReply(m.Code, m.Message, m.Leader) }
	switch fate := fateOf(m.Code); {
	case m.Code == messages.Code_SESSION_EXPIRED:
		r.live = max(0, r.live-1)
		if m.Unopened {
			r.live = 0 // none of its sendings was executed, nor will be
		}
		c.expireSession(r, why())
	case fate == notTaken:
		r.live = max(0, r.live-1)
		c.refuse(r, why())
	case fate == unsure:
		c.refuse(r, why())
	case !ofLog(m) && m.Code != messages.Code_INVALID && r.live > 1:
		// A node's refusal, not the log's outcome: it says nothing about the other sendings.
		c.fail(r, explainUnknown(r, "another sending of this command was refused: "+why().Message))
	default:
		c.useful(r.via)
		c.session.opened = c.session.opened || ofLog(m)
		c.finish(r, &messages.Done{Write: m})
	}
	return c.proceed()
}

// expireSession hears that the log has forgotten the session. A command that was sent
// once, or whose session was never open, and was refused for this reason, surely did not happen: it goes into a new
// session. What became of the others is unknown.
func (c *core) expireSession(r *request, why *messages.Error) {
	c.session.retiring = true
	switch {
	case r.live > 0:
		c.fail(r, explainUnknown(r, "the session expired while the command was sent more than once"))
	case r.renewals >= renewalsMax:
		c.fail(r, why.WithHint("the cluster drops sessions faster than they can be used; nothing was executed; try later"))
	default:
		c.useful(r.via)
		c.unlink(r)
		c.dropNumber(r)
		r.number, r.message, r.client = 0, nil, nil
		r.retryAt = c.now
		if r.renewals > 0 {
			r.retryAt += c.jitter(grown(retryMs, r.renewals, retryMaxMs))
		}
		r.renewals++
		c.requests.waitAgain(r)
	}
}

// readReply hears what was read, or that the node could not read.
func (c *core) readReply(m *messages.ReadReply) []effect {
	c.learn(m.Leader)
	r := c.requests.reads[m.Request]
	if r == nil {
		return c.proceed()
	}
	switch {
	case fateOf(m.Code) != settled || m.Code == messages.Code_SESSION_EXPIRED:
		c.refuse(r, explainReply(m.Code, m.Message, m.Leader))
	default:
		if r.read.GetConsistency() == messages.Consistency_LINEARIZABLE {
			c.useful(r.via) // a stale answer does not say that the node has its cluster
		}
		c.finish(r, &messages.Done{Read: m})
	}
	return c.proceed()
}

func (c *core) statusReply(m *messages.StatusReply) []effect {
	c.learn(m.Leader)
	r := c.requests.ofNode[m.Request]
	switch {
	case r == nil || r.kind != status:
	case m.Code == messages.Code_BUSY:
		c.refuse(r, explainReply(m.Code, "", m.Leader))
	default:
		c.finish(r, &messages.Done{Status: m})
	}
	return c.proceed()
}

// snapshotReply takes what a node says of its own snapshots. Any answer but BUSY is
// final: no other node knows more.
func (c *core) snapshotReply(m *messages.SnapshotReply) []effect {
	r := c.requests.ofNode[m.Request]
	switch {
	case r == nil || r.kind != snapshot:
	case m.Code == messages.Code_BUSY:
		c.refuse(r, explainReply(m.Code, m.Message, nil))
	default:
		c.finish(r, &messages.Done{Snapshot: m})
	}
	return c.proceed()
}

// redirectsMax is how often one request may be told of a leader that is not reached, before
// the node that tells it is taken to be cut off from the others.
const redirectsMax = 10

// clusterReply takes an answer about the cluster, or what became of a change that was asked
// for. Asking for the same change again does no harm.
func (c *core) clusterReply(m *messages.ClusterReply) []effect {
	c.learn(m.Leader)
	r := c.requests.ofNode[m.Request]
	if r == nil || r.kind != ofCluster {
		return c.proceed()
	}
	why := explainReply(m.Code, m.Message, m.Leader)
	why.Hint = m.Hint
	switch fate := fateOf(m.Code); {
	case fate == notTaken:
		r.live = max(0, r.live-1)
		if m.Code == messages.Code_REDIRECT && r.refusals < redirectsMax {
			c.wait(r, why)
		} else {
			c.refuse(r, why)
		}
	case fate == unsure:
		c.refuse(r, why)
	default:
		c.finish(r, &messages.Done{Cluster: m})
	}
	return c.proceed()
}

type fate int

const (
	settled  fate = iota // the answer that the asker gets
	notTaken             // surely not done by this sending: try again
	unsure               // perhaps done by this sending: try again, the number keeps it from happening twice
)

// fateOf says what a reply's code means for the sending that it answers.
func fateOf(code messages.Code) fate {
	switch code {
	case messages.Code_NO_LEADER, messages.Code_REDIRECT, messages.Code_BUSY, messages.Code_TIMED_OUT, messages.Code_UNREACHABLE:
		return notTaken
	case messages.Code_OUTCOME_UNKNOWN, messages.Code_DAMAGED, messages.Code_INTERNAL:
		return unsure
	}
	return settled
}

// expire answers a request whose deadline has passed.
func (c *core) expire(r *request) {
	d := r.failed(c.explainExpired(r))
	d.Ending = messages.Ending_LATE
	c.finish(r, d)
}

// failUnsent fails what was surely not done, since no node will take it.
func (c *core) failUnsent() {
	for _, r := range c.requests.all {
		if !r.done && r.live == 0 {
			c.fail(r, c.explainUnreachable())
		}
	}
}

func (c *core) fail(r *request, why *messages.Error) { c.finish(r, r.failed(why)) }

// finish gives the one answer. The number of a write is answered or abandoned
// with it.
func (c *core) finish(r *request, d *messages.Done) {
	if r.done {
		panic("a request is answered twice")
	}
	q := &c.requests
	d.Tag, d.Endpoint = r.tag, r.endpoint
	if d.Endpoint == "" {
		d.Endpoint = c.links.last
	}
	if r.number != 0 {
		d.RequestId = messages.RequestID(r.client, r.kind.numbering(), r.number)
	}
	c.unlink(r)
	c.dropNumber(r)
	r.done = true
	q.count--
	q.bytes -= r.size
	if r.forLeader() {
		q.forLeaderCount--
	}
	c.emit(answer{r.asker, d})
}

// dropNumber ends the wait for replies to r.
func (c *core) dropNumber(r *request) {
	q, s := &c.requests, &c.session
	switch {
	case r.number == 0:
	case r.kind == read:
		delete(q.reads, r.number)
	case r.kind.ofNode():
		delete(q.ofNode, r.number)
	default:
		delete(q.writes, r.number)
		for s.acked < s.next && q.writes[s.acked] == nil {
			s.acked++
		}
	}
}

// ofLog reports whether a reply is surely the log's outcome. At revision 0, before the
// first write, a refusal by the log looks like one by a node, but for a condition's.
func ofLog(m *messages.WriteReply) bool {
	return m.Code == messages.Code_OK || m.Revision > 0 || m.FailedCondition > 0
}
