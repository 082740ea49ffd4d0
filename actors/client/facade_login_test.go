package client

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"
	"time"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// TestLoginGoesOnPastAShutDoor: a node that has just started takes nobody without a certificate yet,
// and others may know better. What it said is told if they are of no use.
func TestLoginGoesOnPastAShutDoor(t *testing.T) {
	a := keys.Authority{Dir: t.TempDir()}
	if _, err := a.Create(); err != nil {
		t.Fatal(err)
	}
	dir, _, err := a.Issue(transport.Principal{Kind: transport.NodeKey, Name: "n1"}, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	node, err := keys.Load(keys.FilesIn(dir, transport.NodeKey))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Load(keys.Files{CA: filepath.Join(a.Dir, "ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	shut, asked := serves(t, func(c net.Conn) {
		_ = tls.Server(c, node.Server(func() bool { return false })).Handshake()
	})
	other, askedToo := serves(t, func(net.Conn) {})
	ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
	defer done()
	for _, endpoints := range [][]string{{shut, other}, {other, shut}} {
		_, err = Login(ctx, LoginOptions{Endpoints: endpoints, Keys: ring, User: "alice", Password: "three words only"})
		if messages.CodeOf(err) != messages.Code_NOT_ALLOWED {
			t.Errorf("%v", err)
		}
		for name, c := range map[string]chan bool{"that is shut": asked, "behind it": askedToo} {
			select {
			case <-c:
			default:
				t.Errorf("the node %s was not asked", name)
			}
		}
	}
}

// serves takes connections, and closes each once it was handled.
func serves(t *testing.T, handle func(net.Conn)) (endpoint string, asked chan bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	asked = make(chan bool, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked <- true
			handle(c)
			_ = c.Close()
		}
	}()
	return l.Addr().String(), asked
}
