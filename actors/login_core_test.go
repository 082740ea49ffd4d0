package actors

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

// loginTest is a loginCore of a cluster where alice has a password and bob has none.
type loginTest struct {
	*loginCore
	t    *testing.T
	said []string // what came of it, one word each
}

func newLoginTest(t *testing.T) *loginTest {
	c := &loginTest{loginCore: newLoginCore(true, 50), t: t}
	c.changes(func(*messages.Auth) {})
	return c
}

func (c *loginTest) changes(change func(*messages.Auth)) {
	a := &messages.Auth{Version: 3, Enabled: true, Users: []*messages.User{{Name: "alice", Password: &messages.Password{Hash: []byte("alice's"), Version: 2}}, {Name: "bob"}}}
	change(a)
	c.onMembers(&messages.MembersChanged{NextRaftId: 4, ClusterId: []byte("cluster"), Auth: a})
}

func (c *loginTest) logs(user, host string) {
	c.onLogin(&loginAsk{address: messages.ClientAddress(make([]byte, 16)), actor: "asker", m: &messages.LoginRequest{Request: 1, User: user, Password: "?", Host: []byte(host), Secured: true}})
	c.note()
}

func (c *loginTest) compared(fits bool) {
	c.onCompared(&messages.PasswordCompared{Number: c.number, Fits: fits})
	c.note()
}

func (c *loginTest) passes(ms int) {
	c.onTick(uint32(ms / 50))
	c.note()
}

func (c *loginTest) note() {
	for _, e := range c.take() {
		switch e := e.(type) {
		case loginAnswer:
			c.said = append(c.said, e.reply.Code.String())
		case loginCompare:
			c.said = append(c.said, "compare "+string(e.m.Hash[:min(7, len(e.m.Hash))]))
		case loginGrant:
			c.said = append(c.said, fmt.Sprintf("grant %s %d %v", e.ask.m.User, e.version, e.ttl))
		case loginDenied:
			c.said = append(c.said, "denied "+e.denied.Principal)
		}
	}
}

// TestLogin: who gets a token, and what the others are told.
func TestLogin(t *testing.T) {
	const tries = "compare alice's, "
	for name, c := range map[string]struct {
		does func(*loginTest)
		want string
	}{
		"it fits":      {func(c *loginTest) { c.logs("alice", "1"); c.compared(true) }, tries + "grant alice 2 12h0m0s"},
		"it does not":  {func(c *loginTest) { c.logs("alice", "1"); c.compared(false) }, tries + "denied alice, NOT_ALLOWED"},
		"no such user": {func(c *loginTest) { c.logs("carol", "1"); c.compared(false) }, "compare $2a$12$, denied carol, NOT_ALLOWED"},
		"no password":  {func(c *loginTest) { c.logs("bob", "1"); c.compared(true) }, "compare $2a$12$, denied bob, NOT_ALLOWED"},
		"changed meantime": {func(c *loginTest) {
			c.logs("alice", "1")
			c.changes(func(a *messages.Auth) { a.Users[0].Password.Version = 4 })
			c.compared(true)
		}, tries + "denied alice, NOT_ALLOWED"},
		"removed meantime": {func(c *loginTest) {
			c.logs("alice", "1")
			c.changes(func(a *messages.Auth) { a.Users = a.Users[1:] })
			c.compared(true)
		}, tries + "denied alice, NOT_ALLOWED"},
		"auth is disabled meantime": {func(c *loginTest) {
			c.logs("alice", "1")
			c.changes(func(a *messages.Auth) { a.Enabled = false })
			c.compared(true)
		}, tries + "denied alice, NOT_ALLOWED"},
		"auth is disabled": {func(c *loginTest) { c.changes(func(a *messages.Auth) { a.Enabled = false }); c.logs("alice", "1") }, "NOT_ALLOWED"},
		"not known yet":    {func(c *loginTest) { c.known = false; c.logs("alice", "1") }, "BUSY"},
		"no tokens here":   {func(c *loginTest) { c.signs = false; c.logs("alice", "1") }, "UNSUPPORTED"},
		"no user":          {func(c *loginTest) { c.logs("a b", "1") }, "INVALID"},
		"one after the other": {func(c *loginTest) { c.logs("alice", "1"); c.logs("alice", "2"); c.compared(true); c.compared(false) },
			tries + "grant alice 2 12h0m0s, " + tries + "denied alice, NOT_ALLOWED"},
		"too many of one host": {func(c *loginTest) {
			for range loginsOfHostMax + 1 {
				c.logs("alice", "1")
			}
			c.logs("alice", "2")
		}, tries + "BUSY"},
		"too many": {func(c *loginTest) {
			for i := range loginsMax + 1 {
				c.logs("alice", fmt.Sprint(i))
			}
		}, tries + "BUSY"},
		"who waited has left": {func(c *loginTest) {
			c.logs("alice", "1")
			c.logs("alice", "2")
			c.passes(loginPatienceMS)
			c.compared(true)
			c.passes(restMaxMS)
		}, tries + "grant alice 2 12h0m0s, BUSY"},
		"it rests as long as it took": {func(c *loginTest) {
			c.logs("alice", "1")
			c.logs("alice", "2")
			c.passes(300)
			c.compared(true)
			c.passes(250)
			c.said = append(c.said, "not yet")
			c.passes(50)
		}, tries + "grant alice 2 12h0m0s, not yet, " + strings.TrimSuffix(tries, ", ")},
		"the verifier fails": {func(c *loginTest) {
			c.logs("alice", "1")
			c.passes(comparisonMaxMS)
			c.compared(true)
			c.passes(restMaxMS)
			c.logs("alice", "1")
			c.compared(true)
		},
			tries + "BUSY, " + tries + "grant alice 2 12h0m0s"},
		"a late answer": {func(c *loginTest) {
			c.logs("alice", "1")
			c.passes(comparisonMaxMS)
			c.passes(restMaxMS)
			c.logs("alice", "1")
			c.onCompared(&messages.PasswordCompared{Number: 1, Fits: true})
			c.note()
		}, tries + "BUSY, " + strings.TrimSuffix(tries, ", ")},
	} {
		core := newLoginTest(t)
		c.does(core)
		if got := strings.Join(core.said, ", "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	plain := newLoginTest(t)
	plain.onLogin(&loginAsk{m: &messages.LoginRequest{User: "alice"}})
	if plain.note(); plain.said[0] != "NOT_ALLOWED" {
		t.Errorf("without keys: %v", plain.said)
	}
	for ttl, want := range map[time.Duration]string{time.Millisecond: "INVALID", time.Second: "compare", 720 * time.Hour: "compare", 721 * time.Hour: "INVALID", 1 << 62: "INVALID"} {
		core := newLoginTest(t)
		core.onLogin(&loginAsk{m: &messages.LoginRequest{User: "alice", Secured: true, TtlMs: uint64(ttl.Milliseconds())}})
		if core.note(); !strings.HasPrefix(core.said[0], want) {
			t.Errorf("for %v: %v", ttl, core.said)
		}
	}
}

// TestTriesAreBounded: how many passwords somebody can try in an hour, from one host and from many,
// and that the user comes in between them.
func TestTriesAreBounded(t *testing.T) {
	try := func(c *loginTest, user, host string) (compared bool) {
		before := len(c.said)
		if c.logs(user, host); !c.comparing {
			return false
		}
		c.compared(false)
		return strings.HasPrefix(c.said[before], "compare")
	}
	const hour = 3_600_000
	for name, c := range map[string]struct {
		host, user func(i int) string
		max        int // passwords that were compared
	}{
		"of one user, from one host":   {func(int) string { return "1" }, func(int) string { return "alice" }, 75},
		"of many users, from one host": {func(int) string { return "1" }, func(i int) string { return fmt.Sprintf("u%d", i) }, 75},
		"of one user, from many hosts": {func(i int) string { return fmt.Sprint(i) }, func(int) string { return "alice" }, 910},
	} {
		core, tried := newLoginTest(t), 0
		for i := range hour / 250 { // as fast as they could be compared
			if try(core, c.user(i), c.host(i)) {
				tried++
			}
			core.passes(250)
		}
		if tried > c.max || tried < c.max/2 {
			t.Errorf("%s: %d in an hour, want %d at most", name, tried, c.max)
		}
		if len(core.users.of) > triedMax || len(core.hosts.of) > triedMax {
			t.Errorf("%s: %d users and %d hosts are remembered", name, len(core.users.of), len(core.hosts.of))
		}
		core.passes(userWaitMaxMS)
		if core.logs("alice", "her own"); !core.comparing {
			t.Errorf("%s: alice cannot log in from a host of her own", name)
		}
	}
}

// TestTimeIsForgiving: what went wrong long ago does not count, and a login that fits ends it for
// the user, but not for the host: who has an account of his own gains no tries by it.
func TestTimeIsForgiving(t *testing.T) {
	c := newLoginTest(t)
	for range triesFree {
		c.logs("alice", "1")
		c.compared(false)
	}
	c.passes(triesForgottenMS)
	c.said = nil
	for range triesFree + 1 {
		c.logs("alice", "1")
		c.compared(false)
	}
	if c.logs("alice", "1"); c.said[len(c.said)-1] != "BUSY" || c.users.wait("alice", c.now) != hostWaitMS {
		t.Errorf("%v, and alice waits %d ms", c.said, c.users.wait("alice", c.now))
	}
	c.passes(hostWaitMS)
	c.logs("alice", "1")
	if c.compared(true); c.users.wait("alice", c.now) != 0 || c.hosts.of["1"].failures != triesFree+1 {
		t.Errorf("a login that fits: %v, %v", c.users.of, c.hosts.of)
	}
}
