package client

import (
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Bounds and times of one client. Times are milliseconds of tick time.
const (
	requestsMax   = 8192     // submitted and unanswered, in number; beyond it BUSY
	bytesMax      = 64 << 20 // the same in bytes
	sessionWindow = 1024     // a seq stays below acked_below plus this

	deadlineDefaultMs = 10_000  // of a Submit that names none
	deadlineMaxMs     = 1 << 40 // some 34 years

	patienceMs    = 200  // of an answer, before a request is sent again; with jitter and one tick below 300
	patienceMaxMs = 1000 // after many silences
	patienceBytes = 8192 // for so many bytes that a link has unanswered, it is a millisecond longer
	retryMs       = 50   // after a refusal, doubled each time
	retryMaxMs    = 250

	dialMs      = 1000 // until an endpoint that does not answer the dial is given up
	attachMs    = 500  // until a node that does not answer Attach is given up
	redialMs    = 100  // after an endpoint failed, doubled each time
	redialMaxMs = 2000
	shunMs      = 1000 // a node left for its silence is not gone back to before

	missesMax   = 2 // silences or refusals of one request before its node is left
	renewalsMax = 3 // sessions that may expire under one command
)

// effect is what the core wants done. It is data; the shell does it.
type effect interface{ isEffect() }

type (
	// dial makes a link to host:port.
	dial struct{ endpoint string }
	// hang ends the link to host:port.
	hang struct{ endpoint string }
	// send sends message to an actor of a node; node is its logical address.
	send struct {
		node    string
		actor   string
		message proto.Message
	}
	// answer is the one answer to a Submit.
	answer struct {
		to   asker
		done *messages.Done
	}
)

func (dial) isEffect()   {}
func (hang) isEffect()   {}
func (send) isEffect()   {}
func (answer) isEffect() {}

// asker names the actor that submitted a request.
type asker struct{ address, id string }

// settings are what one client is made from.
type settings struct {
	endpoints    []string // host:port, not empty, each once
	pinned       bool     // no others are asked, but for the leader
	impatient    bool     // nodes that do not serve yet are not waited for
	sessionTTLMs uint64
	tickMs       uint64 // between two ticks
	seed         [32]byte
	address      []byte // what the address of the client's actor system is made of
}

// session is what the log knows this client by.
//
// Numbers go on from one session to the next, so that a late reply from an old
// session never meets a request of a new one.
type session struct {
	client []byte // ClientID
	epoch  uint64 // counts the sessions of this core; links remember theirs
	next   uint64 // the seq of the next command; each is given to one command only
	// acked is the lowest seq that is neither answered nor abandoned, next if there
	// is none. Commands carry it as acked_below, and the machine refuses all below
	// it: an abandoned command (its asker was told OUTCOME_UNKNOWN) therefore takes
	// effect before any later command that carries a higher acked_below, or never.
	// That is why an abandoned seq does not have to hold acked back.
	acked    uint64
	open     *messages.OpenSession // fixed with the session's first command
	opened   bool                  // an outcome has come from the log: commands need no open any more
	retiring bool                  // expired: it takes no new command, and goes when none is left
}

// core decides everything about one client, and does nothing. Each method is one
// event, changes the state and returns the effects; equal seeds and events give
// equal effects. It knows no actor, no clock and no network.
type core struct {
	settings
	now    uint64 // ms of tick time
	source *rand.ChaCha8
	random *rand.Rand
	closed bool

	session  session
	links    links
	requests requests

	effects []effect // of the event at hand
}

func newCore(s settings) *core {
	source := rand.NewChaCha8(s.seed)
	c := &core{settings: s, source: source, random: rand.New(source)}
	c.session = session{next: 1}
	c.renewSession()
	c.links = newLinks(s.endpoints, c.random.IntN(len(s.endpoints)), s.pinned)
	c.requests = newRequests()
	return c
}

// start dials the first endpoint, before there is anything to send.
func (c *core) start() []effect {
	c.dialAny()
	return c.proceed()
}

// submit takes a request. The asker gets one answer: now, or at the latest when
// its deadline has passed.
func (c *core) submit(from asker, m *messages.Submit) []effect {
	r, refusal := newRequest(from, m)
	if refusal == nil {
		refusal = c.admit(r)
	}
	if refusal != nil {
		d := r.failed(refusal)
		if c.closed {
			d.Ending = messages.Ending_CLOSED
		}
		c.emit(answer{from, d})
		return c.proceed()
	}
	c.requests.add(r, c.now+c.tickMs) // now is the last tick: the true time is up to one tick later
	return c.proceed()
}

// withdraw answers a request that its asker does not wait for any longer, and sends
// nothing more of it. It looks through all requests: withdrawing is rare, and a map by
// tag would cost every request.
func (c *core) withdraw(from asker, m *messages.Withdraw) []effect {
	i := slices.IndexFunc(c.requests.all, func(r *request) bool { return r.tag == m.Tag && r.asker == from && !r.done })
	switch {
	case i < 0: // it is answered
	case m.Late:
		c.expire(c.requests.all[i])
	default:
		r := c.requests.all[i]
		d := r.failed(explainWithdrawn(r))
		d.Ending = messages.Ending_WITHDRAWN
		c.finish(r, d)
	}
	return c.proceed()
}

func (c *core) admit(r *request) *messages.Error {
	switch q := &c.requests; {
	case c.closed:
		return messages.Errorf(messages.Code_INVALID, "the client was closed; nothing was sent")
	case q.count >= requestsMax || q.bytes+r.size > bytesMax:
		return messages.Errorf(messages.Code_BUSY, "%d requests with %d bytes wait in this client already; nothing was sent", q.count, q.bytes).
			WithHint("wait for answers before you send more")
	}
	return nil
}

// tick lets elapsed milliseconds pass.
func (c *core) tick(elapsed uint64) []effect {
	c.now += elapsed
	c.giveUpLinks()
	for _, r := range c.requests.all {
		switch {
		case r.done:
		case c.now >= r.deadline:
			c.expire(r)
		case r.via != nil && c.now-r.sentAt >= r.patience:
			c.silence(r)
		}
	}
	c.requests.compact()
	return c.proceed()
}

// close answers every request and hangs up. Later ones are refused.
func (c *core) close() []effect {
	c.closed = true
	for _, r := range c.requests.all {
		if !r.done {
			d := r.failed(explainClosed(r))
			d.Ending = messages.Ending_CLOSED
			c.finish(r, d)
		}
	}
	c.requests.compact()
	c.hangUp()
	return c.take()
}

// proceed ends every event: it goes where the client should be, and sends what
// can be sent from there.
func (c *core) proceed() []effect {
	if c.closed {
		return c.take()
	}
	if c.session.retiring && len(c.requests.writes) == 0 {
		c.renewSession()
	}
	c.steer()
	if c.allRefuse() {
		c.failUnsent()
	}
	c.sendOfNode()
	c.sendRequests()
	c.hangDrained()
	return c.take()
}

// renewSession starts a session under a new ClientID. No command of the old one
// is unanswered.
func (c *core) renewSession() {
	client := make([]byte, messages.ClientIDSize)
	_, _ = c.source.Read(client) // never fails
	s := &c.session
	c.session = session{client: client, epoch: s.epoch + 1, next: s.next, acked: s.next}
}

func (c *core) emit(e effect) { c.effects = append(c.effects, e) }

func (c *core) take() []effect {
	out := c.effects
	c.effects = nil
	return out
}

// reuse takes back a list of effects that were carried out, for those to come.
func (c *core) reuse(effects []effect) {
	clear(effects)
	c.effects = effects[:0]
}

// jitter is at least half of ms, and at most ms.
func (c *core) jitter(ms uint64) uint64 { return ms - c.random.Uint64N(ms/2+1) }

// grown doubles ms the given number of times, up to limit.
func grown(ms uint64, times int, limit uint64) uint64 {
	for ; times > 0 && ms < limit; times-- {
		ms *= 2
	}
	return min(ms, limit)
}
