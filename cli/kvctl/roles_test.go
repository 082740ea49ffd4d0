package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// as goes on as another user, whose keys are made if there are none.
func (p *processes) as(user string) {
	p.t.Helper()
	who := transport.Principal{Kind: transport.UserKey, Name: user}
	ring, err := keys.Load(keys.FilesIn(p.authority.Of(who), transport.UserKey))
	if err != nil {
		p.cert("create-client", user)
		if ring, err = keys.Load(keys.FilesIn(p.authority.Of(who), transport.UserKey)); err != nil {
			p.t.Fatal(err)
		}
	}
	p.ring = ring
}

// runs wants a command to end with a code, and to say something.
func (p *processes) runs(code int, says string, args ...string) {
	p.t.Helper()
	out, said, got := p.kvctl(args...)
	if got != code || !strings.Contains(out+said, says) {
		p.t.Errorf("kvctl %v: exit code %d, and not %d with %q: %s%s", args, got, code, says, out, said)
	}
}

// newestUnder is the newest revision of keys with a prefix, read linearizably.
func newestUnder(t *testing.T, c *client.Client, prefix, end string) (newest uint64) {
	t.Helper()
	for item, err := range c.Scan(context.Background(), []byte(prefix), []byte(end), client.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		newest = max(newest, item.Revision)
	}
	return newest
}

// TestRevokedAmidWrites: a user whose role is taken has connections open to all nodes, and
// commands in flight through each. None takes effect once the revocation is answered, and all are
// answered for what they are.
func TestRevokedAmidWrites(t *testing.T) {
	p := secureCluster(t, 3, "--log-level", "info")
	p.leader()
	p.as("root")
	p.runs(0, "admin", "user", "add", "root", "--role", "admin")
	p.runs(0, "writer", "user", "add", "alice", "--role", "writer", "--prefix", "k/")
	p.as("alice")
	p.runs(6, "kvctl user add alice --role admin", "auth", "enable", "--yes")
	p.as("root")
	p.runs(0, "enabled", "auth", "enable", "--yes")
	p.runs(0, "", "put", "other", "root's")
	root := p.connect(p.endpoints...)
	p.as("alice")
	p.runs(4, "lacks the role operator for the cluster", "compact", "--yes")
	p.runs(4, "root: kvctl user grant alice", "put", "other", "v")
	p.runs(4, `lacks the role viewer for key "other"`, "get", "other")
	p.runs(4, "lacks the role operator", "snapshot", "list")
	p.runs(4, "lacks the role operator", "cluster", "transfer", "n1")
	p.runs(0, "n1", "status")

	var acked, denied, newestAcked atomic.Uint64
	stop, others := make(chan struct{}), make(chan error, 64)
	var load sync.WaitGroup
	for i := range 3 {
		c := p.connect(p.endpoints[i])
		for w := range 16 {
			load.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					r, err := c.Put(context.Background(), fmt.Appendf(nil, "k/%d/%d/%d", i, w, n), []byte("v"))
					switch messages.CodeOf(err) {
					case messages.Code_OK:
						acked.Add(1)
						for old := newestAcked.Load(); r.Revision > old && !newestAcked.CompareAndSwap(old, r.Revision); old = newestAcked.Load() {
						}
					case messages.Code_NOT_ALLOWED:
						if denied.Add(1) > 2000 { // as often as it takes to be sure
							return
						}
					default:
						others <- err
						return
					}
				}
			})
		}
	}
	for until := time.Now().Add(20 * time.Second); acked.Load() < 500; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) || len(others) > 0 {
			t.Fatalf("%d writes are acknowledged, %d writers have failed", acked.Load(), len(others))
		}
	}
	p.as("root")
	p.runs(0, "none", "user", "revoke", "alice", "writer", "--prefix", "k/")
	after := newestUnder(t, root, "k/", "k0")
	until := time.Now().Add(20 * time.Second)
	for denied.Load() < 500 && time.Now().Before(until) {
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	load.Wait()
	close(others)
	for err := range others {
		t.Error(err)
	}
	if newest := newestUnder(t, root, "k/", "k0"); newest != after || newestAcked.Load() > after || denied.Load() < 500 {
		t.Errorf("the newest write is of revision %d, and was %d when the role was taken; the newest acknowledged of %d is of %d; %d were denied",
			newest, after, acked.Load(), newestAcked.Load(), denied.Load())
	}
	t.Logf("%d writes acknowledged, %d denied", acked.Load(), denied.Load())
	p.as("alice")
	for _, asks := range []string{"status", "top --once", "doctor", "verify", "cluster health", "cluster level", "compact --yes"} {
		p.runs(4, "lacks the role viewer or any other", strings.Fields(asks)...)
	}
	p.as("root")
	p.runs(0, `"enabled":true`, "auth", "status", "-o", "jsonl")
	p.told()
}

// told: the change, who asked for it, and the denials are in the logs; few of them.
func (p *processes) told() {
	p.t.Helper()
	changes, denials := 0, 0
	for i := range p.running {
		c := p.running[i]
		p.kill(i)
		for line := range strings.Lines(c.log.String()) {
			if strings.Contains(line, "a change was asked for") && strings.Contains(line, "take the role writer on") && strings.Contains(line, "by=root") && strings.Contains(line, "request=") {
				changes++
			}
			if strings.Contains(line, "a request was denied") && strings.Contains(line, "principal=alice") && strings.Contains(line, "request=") {
				denials++
			}
		}
		if !strings.Contains(c.log.String(), "who may do what has changed") {
			p.t.Errorf("n%d does not tell that rights have changed", i+1)
		}
	}
	if changes != 1 || denials == 0 || denials > 500 {
		p.t.Errorf("%d changes and %d denials are told", changes, denials)
	}
}

// TestRightsOutliveAll: users are part of the state, and there after all nodes were killed.
func TestRightsOutliveAll(t *testing.T) {
	p := secureCluster(t, 3)
	p.leader()
	p.as("root")
	p.runs(0, "admin", "user", "add", "root", "--role", "admin")
	p.runs(0, "enabled", "auth", "enable", "--yes")
	for i := range p.running {
		p.kill(i)
	}
	for i := range p.running {
		p.start(i)
	}
	p.leader()
	p.runs(0, "enabled", "auth", "status")
	p.as("bob")
	p.runs(4, "user bob lacks", "put", "k", "v")
	p.runs(4, "user bob lacks", "user", "add", "bob", "--role", "admin")
	p.as("root")
	p.runs(0, "disabled", "auth", "disable", "--yes")
	p.as("bob")
	p.runs(0, "", "put", "k", "v")
}

// comes is a connection of whose keys these are, that has said hello to node i.
func (p *processes) comes(i int, own tls.Certificate, seed uint64) *intruder {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.t.Cleanup(cancel)
	s := &siege{t: p.t, address: p.listens[i], ctx: ctx, cancel: cancel, keys: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}}}
	in, err := s.dial(s.address)
	if err == nil {
		_, err = in.hello(clientHello(random(seed)))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return in
}

// TestSessionsOfAUserAreHisOwn: who knows another user's ClientID neither takes his session over
// nor keeps him from a node, nor uses up its numbers; and is told nothing of what came of them.
func TestSessionsOfAUserAreHisOwn(t *testing.T) {
	p := secureCluster(t, 3)
	leader := p.leader()
	pair := func(user string) tls.Certificate {
		p.as(user)
		return pairIn(t, p.authority.Of(p.ring.Principal()), transport.UserKey)
	}
	alice, bob := p.comes(leader, pair("alice"), 1), p.comes(leader, pair("bob"), 2)
	id := noise(random(3), messages.ClientIDSize)
	if err := alice.attach(id); err != nil {
		t.Fatal(err)
	}
	put := func(in *intruder, seq uint64, value string, want messages.Code) {
		t.Helper()
		c := &messages.Command{Session: id, Seq: seq, Open: &messages.OpenSession{TtlMs: 60_000, BeforeMs: in.logTimeMS + 50_000},
			Operations: []*messages.Operation{{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("k"), Value: []byte(value)}}}}}
		if code, err := in.ask(c); err != nil || code != want {
			t.Errorf("number %d: %v, %v; want %v", seq, code, err, want)
		}
	}
	put(alice, 1, "hers", messages.Code_OK)
	if err := bob.attach(id); err != nil || bob.session == alice.session {
		t.Errorf("he attaches beside her: %v", err)
	}
	for _, seq := range []uint64{1, 2} {
		put(bob, seq, "his", messages.Code_NOT_ALLOWED)
	}
	put(alice, 2, "hers", messages.Code_OK)
	elsewhere := p.comes((leader+1)%3, pair("bob"), 4)
	if err := elsewhere.attach(id); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{1, 3} { // one that she had, and one that she will have
		put(elsewhere, seq, "his", messages.Code_NOT_ALLOWED)
	}
	moved := p.comes((leader+1)%3, pair("alice"), 5) // where he has been before her
	if err := moved.attach(id); err != nil {
		t.Fatal(err)
	}
	put(moved, 3, "hers still", messages.Code_OK)
	p.as("alice")
	p.runs(0, "hers still", "get", "k")
}
