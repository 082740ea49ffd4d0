package grpc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/actors/transport"
	"keyval/messages"
)

// login is what somebody sends who wants a token.
func login(t *testing.T, request uint64) *messages.Frame {
	t.Helper()
	e, err := messages.Seal(messages.ActorLogin, "asker", &messages.LoginRequest{Request: request, User: "alice", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return parcel([]*messages.Envelope{e})
}

// TestTheDoor: nobody comes in while nobody could log in; then he asks for one thing at a time, in
// a stranger's place, and not for long.
func TestTheDoor(t *testing.T) {
	const handshake = 2 * time.Second
	m := newMatrixWith(t, handshake)
	m.spawn(messages.ActorLogin, nil)
	without := proto.Clone(m.who).(*messages.Auth)
	auth.Find(without, nameOf(writer)).Password = nil
	disabled := proto.Clone(m.who).(*messages.Auth)
	disabled.Enabled = false
	for name, a := range map[string]*messages.Auth{"nobody has a password": without, "auth is disabled": disabled} {
		m.hub.SetAuth(a)
		for _, who := range []bearer{nobody, tokened} {
			if _, welcome := m.comes(t, who, messages.Lane_CONTROL); welcome {
				t.Errorf("while %s, %s comes in", name, who)
			}
		}
		if _, welcome := m.comes(t, viewer, messages.Lane_CONTROL); !welcome {
			t.Errorf("while %s, a user does not come in", name)
		}
	}
	m.hub.SetAuth(m.who)
	begun := time.Now()
	a, welcome := m.comes(t, nobody, messages.Lane_CONTROL)
	if !welcome {
		t.Fatal("the door is not open")
	}
	for request := range uint64(3) {
		a.say(login(t, request+1))
	}
	if h := receive(t, m.inbox, "a login"); h.message.(*messages.LoginRequest).Host == nil || !h.message.(*messages.LoginRequest).Secured {
		t.Errorf("the link does not say where it comes from: %v", h.message)
	}
	gate := m.hub.listener.(*gate)
	gate.mu.Lock()
	held := gate.held()
	gate.mu.Unlock()
	if held[transport.Stranger] == 0 {
		t.Errorf("nobody has the place of somebody: %v", held)
	}
	if _, err := a.Recv(); err == nil { // it is not answered, so it sends nothing more until it has to leave
		t.Error("nobody is answered")
	}
	if lasted := time.Since(begun); lasted < handshake/2 {
		t.Errorf("nobody was let go of after %v", lasted)
	}
	select {
	case h := <-m.inbox:
		t.Errorf("%v came while the one before it was not answered", h.message)
	default:
	}
}

// TestTokensEnd: a connection that stands by a token ends when the token does, or what it rests on.
func TestTokensEnd(t *testing.T) {
	m := newMatrix(t)
	changed := func(change func(*messages.Auth)) *messages.Auth {
		a := proto.Clone(m.who).(*messages.Auth)
		change(a)
		return a
	}
	members := func(ids ...messages.RaftID) (all []*messages.Member) {
		for _, id := range ids {
			all = append(all, &messages.Member{RaftId: id, Name: nodeLocal(id).Name, Incarnation: incarnation(id), Address: "127.0.0.1:1"})
		}
		return all
	}
	for name, c := range map[string]struct {
		ttl  time.Duration
		then func()
		says string
	}{
		"it expires": {2 * time.Second, func() {}, "expired"},
		"another password": {time.Hour, func() {
			m.hub.SetAuth(changed(func(a *messages.Auth) { auth.Find(a, nameOf(writer)).Password.Version++ }))
		}, "was changed"},
		"no password": {time.Hour, func() {
			m.hub.SetAuth(changed(func(a *messages.Auth) {
				auth.Find(a, nameOf(writer)).Password, auth.Find(a, nameOf(viewer)).Password = nil, &messages.Password{Version: 1}
			}))
		}, "was changed"},
		"auth disabled":         {time.Hour, func() { m.hub.SetAuth(changed(func(a *messages.Auth) { a.Enabled = false })) }, "while auth is enabled"},
		"the signer is removed": {time.Hour, func() { m.hub.SetPeers(members(1, 3), 5) }, "no member"},
	} {
		m.hub.SetAuth(m.who)
		m.hub.SetPeers(members(1, 2, 3), 5)
		m.tokens[tokened] = m.sign(1, c.ttl)
		a, welcome := m.comes(t, tokened, messages.Lane_CONTROL)
		if !welcome {
			t.Fatalf("%s: the token does not count at first", name)
		}
		c.then()
		if f, err := a.Recv(); err != nil || f.GetRefusal().GetCode() != messages.Code_UNREACHABLE || !strings.Contains(f.GetRefusal().Message, c.says) ||
			c.says != "while auth is enabled" && !strings.Contains(f.GetRefusal().Hint, "kvctl login") {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

// TestAsk: who cannot come as anybody asks one thing, and hears why if he is not let in.
func TestAsk(t *testing.T) {
	m := newMatrix(t)
	m.spawn(messages.ActorLogin, func(asked proto.Message) proto.Message {
		return &messages.LoginReply{Request: asked.(*messages.LoginRequest).Request, Token: "token"}
	})
	ask := func(n *Network, question proto.Message) (proto.Message, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return n.Ask(ctx, m.address(), clientLocal(9), question)
	}
	n := New(Options{Keys: m.stranger})
	question := &messages.LoginRequest{Request: 7, User: "alice", Password: "secret"}
	if r, err := ask(n, question); err != nil || r.(*messages.LoginReply).Request != 7 || r.(*messages.LoginReply).Token != "token" {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := ask(n, &messages.StatusRequest{Request: 1}); messages.CodeOf(err) != messages.Code_NOT_ALLOWED {
		t.Errorf("nobody asks how things are: %v, %v", r, err)
	}
	if r, err := ask(New(Options{}), question); err == nil {
		t.Errorf("without TLS: %v", r)
	}
	m.hub.SetAuth(nil)
	if r, err := ask(n, question); messages.CodeOf(err) != messages.Code_NOT_ALLOWED || !strings.Contains(err.Error(), "takes nobody without a certificate") {
		t.Errorf("through a door that is shut: %v, %v", r, err)
	}
	held := New(Options{Keys: m.stranger, Token: func() string { return m.tokens[tokened] }})
	if r, err := ask(held, question); messages.CodeOf(err) != messages.Code_STARTING { // it may be open again in a moment
		t.Errorf("with a token, through a door that is shut: %v, %v", r, err)
	}
}

// TestTheDoorForTheInvited: while a token to join with is open, nobody may come and ask with it, as
// his link says from where; and not a moment longer.
func TestTheDoorForTheInvited(t *testing.T) {
	m := newMatrix(t)
	m.spawn(messages.ActorMembership, func(asked proto.Message) proto.Message {
		return &messages.InvitationAnswer{Request: asked.(*messages.InvitationAsk).Request, Message: fmt.Sprint(asked.(*messages.InvitationAsk).Host)}
	})
	m.hub.SetAuth(nil)
	ask := func() (proto.Message, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return New(Options{Keys: m.stranger}).Ask(ctx, m.address(), clientLocal(9), &messages.InvitationAsk{Request: 7, Host: []byte("lies")})
	}
	shut := func() {
		t.Helper()
		if r, err := ask(); messages.CodeOf(err) != messages.Code_NOT_ALLOWED {
			t.Errorf("through a door that is shut: %v, %v", r, err)
		}
	}
	shut()
	m.hub.SetInvitedUntil(time.Now().Add(time.Hour).UnixMilli())
	if r, err := ask(); err != nil || r.(*messages.InvitationAnswer).Request != 7 || r.(*messages.InvitationAnswer).Message != "[127 0 0 1]" {
		t.Errorf("%v, %v", r, err)
	}
	if _, welcome := m.comes(t, tokened, messages.Lane_CONTROL); welcome {
		t.Error("a user comes by a token, and auth is not enabled")
	}
	m.hub.SetInvitedUntil(time.Now().UnixMilli())
	shut()
	m.hub.SetInvitedUntil(0)
	shut()
}
