package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyval/messages"
)

// quietFor is how long strangers come while a peer is dead.
const quietFor = 12 * time.Second

// TestLogStaysSmall: at the default level a dead peer is told once, and once when it is back, with
// how long it was away; strangers who come all the time cost a bounded number of lines; and each
// node says why its leader went.
func TestLogStaysSmall(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.initial = p.listens, fmt.Sprintf("n1=%s,n2=%s,n3=%s", p.listens[0], p.listens[1], p.listens[2])
	for i := range 3 {
		p.start(i, append(p.first(i), "--log-level", "info")...)
	}
	leader := p.leader()
	dead, a, b := leader, (leader+1)%3, (leader+2)%3
	for i := range 3 {
		p.awaitLines(i, "this node serves", 1)
	}
	founding := strings.Count(p.running[a].log.String(), "\n")
	p.kill(dead)
	p.strangers(a, time.Now().Add(quietFor))
	p.awaitLines(a, "a peer is not reached", 1)
	said := p.running[a].log.String()
	t.Logf("%d lines of founding, then %d", founding, strings.Count(said, "\n")-founding)
	for message, most := range map[string]int{"": 60, "level=ERROR": 0, "level=WARN msg=\"a peer is not reached\"": 1, "a connection was refused": 30} {
		if n := strings.Count(said, message); message == "" && strings.Count(said, "\n")-founding > most || message != "" && n > most {
			t.Errorf("%q stands there %d times, at most %d are wanted:\n%s", message, n, most, said)
		}
	}
	name := fmt.Sprintf("n%d", dead+1)
	for i := range 3 {
		if i == dead {
			continue
		}
		if want := regexp.MustCompile(`"a leader is elected" node=n\d leader=n\d term=\d+ before=` + name + ` why="its process has ended`); !want.MatchString(p.running[i].log.String()) {
			t.Errorf("n%d does not say why %s went:\n%s", i+1, name, p.running[i].log.String())
		}
	}
	p.start(dead, "--log-level", "info")
	p.awaitLines(dead, "this node serves", 1)
	for _, i := range []int{a, b} {
		p.awaitLines(i, "a peer is back", 1)
		if back := regexp.MustCompile(`"a peer is back" node=n\d peer=` + name + ` .* away=1\d\.`); len(back.FindAllString(p.running[i].log.String(), -1)) != 1 {
			t.Errorf("n%d does not say once how long %s was away:\n%s", i+1, name, p.running[i].log.String())
		}
		if n := strings.Count(p.running[i].log.String(), "this node serves"); n != 1 {
			t.Errorf("n%d says %d times that it serves", i+1, n)
		}
	}
	p.signal(a, syscall.SIGTERM)
	<-p.running[a].ended
	if !strings.HasSuffix(strings.TrimSpace(p.running[a].log.String()), "msg=\"the node stops\" node="+fmt.Sprintf("n%d", a+1)) {
		t.Errorf("the log does not end with its end:\n%s", p.running[a].log.String())
	}
	p.set(a, nil)
}

// strangers come to node i until then: port scans, lines of text, browsers, TLS where there is
// none, and hellos of other clusters and of nodes that nobody knows.
func (p *processes) strangers(i int, until time.Time) {
	s := &siege{t: p.t, address: p.endpoints[i]}
	s.ctx, s.cancel = context.WithCancel(p.t.Context())
	defer s.cancel()
	for n := 0; time.Now().Before(until); n++ {
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
		if err != nil {
			p.t.Fatal(err)
		}
		if n%2 == 0 {
			_, _ = conn.Write([]byte("hallo\r\n\r\n"))
		}
		conn.Close()
		if n%10 == 0 {
			if c, err := net.DialTimeout("tcp", s.address, time.Second); err == nil {
				_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", s.address)
				_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				_, _ = c.Read(make([]byte, 1<<10))
				c.Close()
			}
			if c, err := tls.DialWithDialer(&net.Dialer{Timeout: 200 * time.Millisecond}, "tcp", s.address, &tls.Config{InsecureSkipVerify: true}); err == nil {
				c.Close()
			}
		}
		in, err := s.dial(s.address)
		if err != nil {
			continue
		}
		_, _ = in.hello(&messages.Hello{
			Protocol: messages.ProtocolVersion, Role: messages.Role_NODE, Address: messages.NodeAddress(uint64(n%5 + 1)), RaftId: uint64(n%5 + 1),
			ClusterId: []byte("another cluster's"), Incarnation: []byte("nobody's at all."), Version: "hostile",
		})
		in.hang()
	}
	p.t.Logf("strangers came %d times", s.connections.Load())
}

// awaitLines waits until node i has said something so often.
func (p *processes) awaitLines(i int, what string, times int) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); strings.Count(p.running[i].log.String(), what) < times; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("n%d does not say %q %d times:\n%s", i+1, what, times, p.running[i].log.String())
		}
	}
}
