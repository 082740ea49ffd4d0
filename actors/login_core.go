package actors

import (
	"slices"
	"time"

	"keyval/actors/auth"
	"keyval/actors/transport"
	"keyval/messages"
)

// Bounds of logins. A comparison takes a third of a second of one processor, whoever asks for it.
const (
	loginsMax        = 8       // that wait, or are compared; more are told BUSY
	loginsOfHostMax  = 4       // of them, of one host
	loginPatienceMS  = 3_500   // who waits longer is told so: nobody may stay for more than 15 s, and a comparison may take 10
	restMaxMS        = 1_000   // between two comparisons
	comparisonMaxMS  = 10_000  // then the verifier is taken to have failed
	triesFree        = 5       // that may go wrong in a row before one has to wait
	hostWaitMS       = 1_000   // after the first one more; twice as long after each
	hostWaitMaxMS    = 60_000  // of the host that they come from
	userWaitMaxMS    = 4_000   // of the user: who tries his passwords from many hosts cannot keep him out
	triesForgottenMS = 600_000 // after the last one that went wrong
	triedMax         = 1_024   // users, and hosts, of whom it is known that something went wrong
)

// attempts are what went wrong lately, by whose it was. They bound how fast passwords can be tried.
type attempts struct {
	waitMaxMS uint64
	of        map[string]attempt
}

type attempt struct {
	failures int
	last     uint64 // ms of the node's time, of the last one
	until    uint64 // not before
}

func newAttempts(waitMaxMS uint64) attempts { return attempts{waitMaxMS, map[string]attempt{}} }

// wait is how long whoever this is has to wait, in ms; 0: he need not.
func (a attempts) wait(who string, now uint64) uint64 {
	if until := a.of[who].until; until > now {
		return until - now
	}
	return 0
}

// failed counts one that went wrong.
func (a attempts) failed(who string, now uint64) {
	t, known := a.of[who]
	if !known && len(a.of) >= triedMax {
		a.forgetOldest()
	}
	if now-t.last >= triesForgottenMS {
		t.failures = 0
	}
	t.failures, t.last = t.failures+1, now
	if more := t.failures - triesFree; more > 0 {
		t.until = now + min(hostWaitMS<<min(more-1, 16), a.waitMaxMS)
	}
	a.of[who] = t
}

func (a attempts) forgetOldest() {
	oldest := ""
	for who, t := range a.of {
		if o := a.of[oldest]; oldest == "" || t.last < o.last || t.last == o.last && who < oldest {
			oldest = who
		}
	}
	delete(a.of, oldest)
}

// loginAsk is a login that waits for its turn, or is compared.
type loginAsk struct {
	address, actor string // who asks
	m              *messages.LoginRequest
	at             uint64
	version        uint64 // of the password that it is compared with
	can            bool   // there is one
}

func (a *loginAsk) request() string { return messages.RequestIDOfNode(a.address, a.m.Request) }

// loginCore decides who gets a token. It knows no keys: its shell signs.
type loginCore struct {
	signs   bool // this node can
	tickMS  uint64
	now     uint64 // in ms
	cluster []byte
	auth    *messages.Auth // as applied here
	known   bool

	asks         []*loginAsk // in order; the first is being compared, if comparing says so
	number       uint64      // of the comparison
	since        uint64      // it began
	comparing    bool
	rests        uint64 // until then nothing is compared: as long as it took, so that it takes half a processor at most
	users, hosts attempts

	effects []any
}

func newLoginCore(signs bool, tickMS uint64) *loginCore {
	return &loginCore{signs: signs, tickMS: tickMS, users: newAttempts(userWaitMaxMS), hosts: newAttempts(hostWaitMaxMS)}
}

// What a loginCore wants done.
type (
	loginAnswer struct {
		ask   *loginAsk
		reply *messages.LoginReply
	}
	loginDenied  struct{ denied *messages.Denied }
	loginCompare struct{ m *messages.ComparePassword }
	// loginGrant: sign a token, and answer with it.
	loginGrant struct {
		ask     *loginAsk
		version uint64
		ttl     time.Duration
	}
)

func (c *loginCore) take() []any {
	out := c.effects
	c.effects = nil
	return out
}

func (c *loginCore) refuse(a *loginAsk, why *messages.Error) {
	c.effects = append(c.effects, loginAnswer{a, &messages.LoginReply{Request: a.m.Request, Code: why.Code, Message: why.Message, Hint: why.Hint}})
}

// onMembers hears who may log in.
func (c *loginCore) onMembers(m *messages.MembersChanged) {
	if m.NextRaftId > 0 {
		c.cluster, c.auth, c.known = m.ClusterId, m.Auth, true
	}
}

// onLogin is asked for a token.
func (c *loginCore) onLogin(a *loginAsk) {
	a.at = c.now
	why := c.check(a.m)
	ofHost := 0
	for _, other := range c.asks {
		if string(other.m.Host) == string(a.m.Host) {
			ofHost++
		}
	}
	if why == nil && (len(c.asks) >= loginsMax || ofHost >= loginsOfHostMax) {
		why = messages.Errorf(messages.Code_BUSY, "%d logins wait on this node already", len(c.asks)).WithHint("try again in a moment, or ask another node")
	}
	if why == nil {
		why = c.tooSoon(a)
	}
	if why != nil {
		c.refuse(a, why)
		return
	}
	c.asks = append(c.asks, a)
	c.proceed()
}

// check says what is wrong with a login, whoever asks for it.
func (c *loginCore) check(m *messages.LoginRequest) *messages.Error {
	ttl := time.Duration(min(m.TtlMs, uint64(2*transport.TokenLifeMax/time.Millisecond))) * time.Millisecond
	switch {
	case !m.Secured:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "this node has no keys, and no password should come to it in clear").
			WithHint("start the nodes with keys: kvctl cert --help, kvctl serve --certs-dir")
	case !c.signs:
		return messages.Errorf(messages.Code_UNSUPPORTED, "this node gives no tokens")
	case !c.known:
		return messages.Errorf(messages.Code_BUSY, "the node is starting, and does not know yet who may log in").WithHint("try again in a moment")
	case !c.auth.GetEnabled():
		return messages.Errorf(messages.Code_NOT_ALLOWED, "nobody can log in while auth is not enabled").WithHint("kvctl auth enable, with a certificate")
	case messages.CheckNodeName(m.User) != nil:
		return messages.Errorf(messages.Code_INVALID, "%.80q cannot be a user", m.User)
	case m.TtlMs != 0 && (ttl < transport.TokenLifeMin || ttl > transport.TokenLifeMax):
		return messages.Errorf(messages.Code_INVALID, "a token is good for %v at least and %v at most", transport.TokenLifeMin, transport.TokenLifeMax)
	}
	return nil
}

// tooSoon says that this user, or host, has to wait, for too much went wrong; nil: he need not.
func (c *loginCore) tooSoon(a *loginAsk) *messages.Error {
	wait := max(c.users.wait(a.m.User, c.now), c.hosts.wait(string(a.m.Host), c.now))
	if wait == 0 {
		return nil
	}
	return messages.Errorf(messages.Code_BUSY, "too many logins went wrong lately").WithHint("try again in %d s", (wait+999)/1000)
}

// proceed begins the next comparison. Who waited for too long has left.
func (c *loginCore) proceed() {
	for !c.comparing && c.now >= c.rests && len(c.asks) > 0 {
		a := c.asks[0]
		why := c.tooSoon(a)
		if c.now-a.at >= loginPatienceMS {
			why = messages.Errorf(messages.Code_BUSY, "the login has waited for %d ms", c.now-a.at).WithHint("try again in a moment, or ask another node")
		}
		if why != nil {
			c.asks = c.asks[1:]
			c.refuse(a, why)
			continue
		}
		u := auth.Find(c.auth, a.m.User)
		hash, can := auth.Hash(u)
		a.version, a.can = u.GetPassword().GetVersion(), can
		c.number++
		c.since, c.comparing = c.now, true
		c.effects = append(c.effects, loginCompare{&messages.ComparePassword{Number: c.number, Hash: hash, Password: a.m.Password}})
	}
}

// onCompared ends a login. That there is no such user, that he has no password, and that it is
// another one, are told by the same words, after the same time.
func (c *loginCore) onCompared(m *messages.PasswordCompared) {
	if !c.comparing || m.Number != c.number {
		return // it took so long that it was given up
	}
	a := c.next()
	u := auth.Find(c.auth, a.m.User)
	if !m.Fits || !a.can || u.GetPassword().GetVersion() != a.version || !c.auth.GetEnabled() {
		c.users.failed(a.m.User, c.now)
		c.hosts.failed(string(a.m.Host), c.now)
		c.effects = append(c.effects, loginDenied{&messages.Denied{Principal: a.m.User, Request: a.request(), Why: "the login from " + auth.HostText(a.m.Host) + " went wrong"}})
		c.refuse(a, messages.Errorf(messages.Code_NOT_ALLOWED, "user %s cannot log in with this password", a.m.User).
			WithHint("see how both are spelt; an admin can set another: kvctl user passwd %s", a.m.User))
	} else {
		delete(c.users.of, a.m.User)
		ttl := transport.TokenLife
		if a.m.TtlMs != 0 {
			ttl = time.Duration(a.m.TtlMs) * time.Millisecond
		}
		c.effects = append(c.effects, loginGrant{a, a.version, ttl})
	}
	c.proceed()
}

func (c *loginCore) next() *loginAsk {
	a := c.asks[0]
	c.asks = slices.Delete(c.asks, 0, 1)
	c.comparing, c.rests = false, c.now+min(c.now-c.since, restMaxMS)
	return a
}

// onTick: time goes by, in which a verifier may have failed.
func (c *loginCore) onTick(elapsed uint32) {
	c.now += uint64(elapsed) * c.tickMS
	if c.comparing && c.now-c.since >= comparisonMaxMS {
		c.refuse(c.next(), messages.Errorf(messages.Code_BUSY, "the password could not be compared in time").WithHint("try again in a moment, or ask another node"))
	}
	c.proceed()
}
