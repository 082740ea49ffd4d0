package transport

import (
	"strings"
	"testing"

	"keyval/messages"
)

// TestRightsAtTheDoor: what a client sends is let in or answered, whatever it is; before a node
// knows who may do what, those with a certificate are told that it is starting.
func TestRightsAtTheDoor(t *testing.T) {
	alice := Conn{Role: messages.Role_CLIENT, Address: messages.ClientAddress(make([]byte, 16)), Principal: Principal{UserKey, "alice"}}
	keyless := Conn{Role: messages.Role_CLIENT, Address: alice.Address}
	nobody := KnownRights(&messages.Auth{Enabled: true})
	for number := range uint32(1 << 10) {
		k := messages.KindNumbered(number)
		if k == nil || k.From != messages.Role_CLIENT {
			continue
		}
		m, err := messages.Open(&messages.Envelope{Type: number})
		if err != nil {
			t.Fatal(err)
		}
		later := map[string]bool{"Attach": true, "Detach": true, "Write": true, "Read": true, "JoinAsk": true, "InvitationAsk": true, "LoginRequest": true}[k.Name]
		for name, c := range map[string]struct {
			rights Rights
			conn   Conn
			code   messages.Code
			told   bool
		}{
			"not known yet":            {Rights{}, alice, messages.Code_BUSY, false},
			"not known yet, and open":  {Rights{}, keyless, messages.Code_OK, false},
			"not enabled":              {KnownRights(nil), alice, messages.Code_OK, false},
			"without a role":           {nobody, alice, messages.Code_NOT_ALLOWED, true},
			"without a certificate":    {nobody, keyless, messages.Code_NOT_ALLOWED, true},
			"a node that is no client": {nobody, Conn{Role: messages.Role_NODE}, messages.Code_OK, false},
		} {
			if later {
				c.code, c.told = messages.Code_OK, false
			}
			reply, denied := c.rights.Refuse(c.conn, m)
			code := messages.Code_OK
			if r, is := reply.(interface{ GetCode() messages.Code }); is {
				code = r.GetCode()
			}
			if code != c.code || (denied != nil) != c.told {
				t.Errorf("%s, %s: %v, %v", k.Name, name, reply, denied)
			}
		}
	}
}

// TestClaim: a client is whom the link knows, whatever it says.
func TestClaim(t *testing.T) {
	c := Conn{Role: messages.Role_CLIENT, Principal: Principal{UserKey, "alice"}}
	attach, ask := &messages.Attach{Principal: "root", Holder: []byte("x")}, &messages.ClusterRequest{Principal: "root"}
	c.Claim(attach, []byte("host"))
	c.Claim(ask, nil)
	if attach.Principal != "alice" || string(attach.Holder) != "\xffalice" || ask.Principal != "alice" {
		t.Error(attach, ask)
	}
	longest := Conn{Role: messages.Role_CLIENT, Principal: Principal{UserKey, strings.Repeat("u", messages.NodeNameSizeMax)}}
	if longest.Claim(attach, nil); len(attach.Holder) > messages.HolderSizeMax {
		t.Errorf("a holder of %d bytes", len(attach.Holder))
	}
	keyless := Conn{Role: messages.Role_CLIENT}
	if keyless.Claim(attach, []byte("host")); attach.Principal != "" || string(attach.Holder) != "host" {
		t.Error(attach)
	}
	login := &messages.LoginRequest{User: "root", Secured: true, Host: []byte("x")}
	if keyless.Claim(login, []byte("host")); login.Secured || string(login.Host) != "host" {
		t.Error(login)
	}
	(Conn{Role: messages.Role_CLIENT, Principal: Principal{Kind: Nobody}}).Claim(login, []byte("host"))
	(Conn{Role: messages.Role_CLIENT, Principal: Principal{TokenUser, "alice"}}).Claim(ask, nil)
	if !login.Secured || ask.Principal != "alice" {
		t.Error(login, ask)
	}
	c.Principal = Principal{NodeKey, "root"}
	if c.Claim(ask, nil); ask.Principal != "" {
		t.Errorf("a node comes as user %s", ask.Principal)
	}
}

// TestWritesCostNothingAtTheDoor: what is decided later is let in without an allocation.
func TestWritesCostNothingAtTheDoor(t *testing.T) {
	c := Conn{Role: messages.Role_CLIENT, Principal: Principal{UserKey, "alice"}}
	rights, write := KnownRights(&messages.Auth{Enabled: true}), &messages.Write{Request: 1}
	if n := testing.AllocsPerRun(100, func() {
		c.Claim(write, nil)
		if reply, _ := rights.Refuse(c, write); reply != nil {
			t.Fatal(reply)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
