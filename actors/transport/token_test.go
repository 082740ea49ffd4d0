package transport

import (
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

// TestClaims: what a token says counts as long as all of it is so.
func TestClaims(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	here := keyed(nodeLocal(1))
	knows := Known{}.With([]*messages.Member{{RaftId: 1, Name: "node1"}, {RaftId: 2, Name: "node2"}}, 4)
	users := func() *messages.Auth {
		return &messages.Auth{Version: 9, Enabled: true, Users: []*messages.User{
			{Name: "alice", Password: &messages.Password{Version: 7}}, {Name: "bob"},
		}}
	}
	good := Claims{User: "alice", Cluster: here.ClusterID, Node: "node2", Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour), Password: 7}
	for name, c := range map[string]struct {
		alter   func(c *Claims, l *Local, r *Rights)
		refused string // empty: it is good
	}{
		"good":                       {nil, ""},
		"just given, by another":     {func(c *Claims, _ *Local, _ *Rights) { c.Issued = now.Add(tokenSkew) }, ""},
		"expired":                    {func(c *Claims, _ *Local, _ *Rights) { c.Expires = now }, "expired at"},
		"given in the future":        {func(c *Claims, _ *Local, _ *Rights) { c.Issued = now.Add(tokenSkew + 1) }, "clocks"},
		"good for ever":              {func(c *Claims, _ *Local, _ *Rights) { c.Expires = c.Issued.Add(TokenLifeMax + 1) }, "no node gives"},
		"another cluster":            {func(c *Claims, _ *Local, _ *Rights) { c.Cluster = clusterB }, "and this is cluster"},
		"removed member":             {func(c *Claims, _ *Local, _ *Rights) { c.Node = "node3" }, "no member"},
		"removed user":               {func(c *Claims, _ *Local, _ *Rights) { c.User = "carol" }, "no user carol any more"},
		"password changed":           {func(c *Claims, _ *Local, _ *Rights) { c.Password = 6 }, "was changed"},
		"a node that lags":           {func(c *Claims, _ *Local, _ *Rights) { c.Password = 10 }, "has not applied"},
		"a user it has yet to hear":  {func(c *Claims, _ *Local, _ *Rights) { c.User, c.Password = "carol", 10 }, "has not applied"},
		"password taken away":        {func(c *Claims, _ *Local, _ *Rights) { c.User, c.Password = "bob", 0 }, "was changed"},
		"auth disabled":              {func(_ *Claims, _ *Local, r *Rights) { a := users(); a.Enabled = false; *r = KnownRights(a) }, "only while auth is enabled"},
		"a node that starts":         {func(_ *Claims, _ *Local, r *Rights) { *r = Rights{} }, "is starting"},
		"a node without a cluster":   {func(_ *Claims, l *Local, _ *Rights) { l.ClusterID = nil }, "is starting"},
		"nobody has a password left": {func(_ *Claims, _ *Local, r *Rights) { a := users(); a.Users[0].Password = nil; *r = KnownRights(a) }, "was changed"},
	} {
		claims, local, rights := good, here, KnownRights(users())
		if c.alter != nil {
			c.alter(&claims, &local, &rights)
		}
		p, why := AtDoor(local, knows, rights, &claims, now)
		if (why == nil) != (c.refused == "") || why != nil && (!strings.Contains(why.Message, c.refused) || p != Principal{}) {
			t.Errorf("%s: %v, %v", name, p, why)
		}
		if why == nil && p != (Principal{TokenUser, "alice"}) {
			t.Errorf("%s: it is %v", name, p)
		}
	}
	if p, why := AtDoor(here, knows, KnownRights(users()), nil, now); why != nil || p.Kind != Nobody {
		t.Errorf("without a token: %v, %v", p, why)
	}
}

// TestDoor: it is open while somebody could log in.
func TestDoor(t *testing.T) {
	with := &messages.User{Name: "alice", Password: &messages.Password{Version: 1}}
	for name, c := range map[string]struct {
		rights Rights
		open   bool
	}{
		"not known":             {Rights{}, false},
		"never written":         {KnownRights(nil), false},
		"not enabled":           {KnownRights(&messages.Auth{Users: []*messages.User{with}}), false},
		"nobody has a password": {KnownRights(&messages.Auth{Enabled: true, Users: []*messages.User{{Name: "bob"}}}), false},
		"somebody has":          {KnownRights(&messages.Auth{Enabled: true, Users: []*messages.User{with, {Name: "bob"}}}), true},
	} {
		if c.rights.DoorOpen() != c.open {
			t.Errorf("%s: %v", name, !c.open)
		}
	}
}
