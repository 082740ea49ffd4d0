package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// secureCluster is a cluster of nodes with keys, made by the commands that people use.
func secureCluster(t *testing.T, n int, tuning ...string) *processes {
	t.Helper()
	p := newCluster(t, freeAddresses(t, n))
	p.tuning = tuning
	p.endpoints, p.authority = p.listens, keys.Authority{Dir: filepath.Join(p.dir, "certs")}
	p.cert("create-ca")
	for i := range n {
		p.cert("create-node", fmt.Sprintf("n%d", i+1), "127.0.0.1")
	}
	p.cert("create-client", "alice")
	var err error
	if p.ring, err = keys.Load(keys.FilesIn(p.authority.Of(transport.Principal{Kind: transport.UserKey, Name: "alice"}), transport.UserKey)); err != nil {
		t.Fatal(err)
	}
	p.found()
	return p
}

// cert runs kvctl cert.
func (p *processes) cert(args ...string) string {
	p.t.Helper()
	out, said, code := p.kvctl(append(append([]string{"cert"}, args...), "--dir", p.authority.Dir)...)
	if code != 0 {
		p.t.Fatalf("kvctl cert %v: %d: %s", args, code, said)
	}
	return out
}

// intrude comes to node i with a certificate, says hello and sends messages, and returns
// what it was told: a welcome, and why it was refused then or before.
func (p *processes) intrude(i int, own tls.Certificate, hello *messages.Hello, sent ...*messages.Envelope) (*messages.Welcome, string) {
	p.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }}
	c, err := grpc.NewClient("passthrough:///"+p.listens[i], grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := messages.NewLinkClient(c).Connect(ctx)
	if err == nil {
		err = s.Send(&messages.Frame{Kind: &messages.Frame_Hello{Hello: hello}})
	}
	if err != nil {
		return nil, err.Error()
	}
	var welcome *messages.Welcome
	for {
		f, err := s.Recv()
		switch {
		case err != nil:
			return welcome, err.Error()
		case f.GetRefusal() != nil:
			return welcome, f.GetRefusal().Message
		case f.GetWelcome() != nil:
			welcome = f.GetWelcome()
			if len(sent) == 0 {
				return welcome, ""
			}
			if err := s.Send(&messages.Frame{Kind: &messages.Frame_Parcel{Parcel: &messages.Parcel{Envelopes: sent}}}); err != nil {
				return welcome, err.Error()
			}
		}
	}
}

func pairIn(t *testing.T, dir string, kind transport.PrincipalKind) tls.Certificate {
	t.Helper()
	f := keys.FilesIn(dir, kind)
	c, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestForgersMeetAClosedDoor: a client that learns an incarnation and comes as the member, a
// forged heartbeat that counts on too much, and a forged append of a replica that nobody
// knows, by those who have no node's keys; and a removed member with its own.
func TestForgersMeetAClosedDoor(t *testing.T) {
	p := secureCluster(t, 3)
	leader := p.leader()
	c := p.connect(p.endpoints...)
	if _, err := c.Put(context.Background(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	other := keys.Authority{Dir: filepath.Join(t.TempDir(), "other")}
	if _, err := other.Create(); err != nil {
		t.Fatal(err)
	}
	n2 := transport.Principal{Kind: transport.NodeKey, Name: "n2"}
	foreign, _, err := other.Issue(n2, nil)
	if err != nil {
		t.Fatal(err)
	}
	alice := pairIn(t, p.authority.Of(p.ring.Principal()), transport.UserKey)
	target := (leader + 1) % 3
	self, from := messages.RaftID(target+1), messages.RaftID(leader+1)
	clientHello := &messages.Hello{Protocol: messages.ProtocolVersion, Role: messages.Role_CLIENT, Address: messages.ClientAddress(make([]byte, 16)), Version: "forged"}
	w, why := p.intrude(target, alice, clientHello)
	if w == nil || len(w.Incarnation) > 0 || w.Starts != nil {
		t.Fatalf("a client is welcomed with %v, %s", w, why)
	}
	status := p.status(target)
	as := func(id messages.RaftID, incarnation []byte) *messages.Hello {
		return &messages.Hello{Protocol: messages.ProtocolVersion, Role: messages.Role_NODE, ClusterId: w.ClusterId, RaftId: id, Incarnation: incarnation, To: self, Version: "forged",
			Name: fmt.Sprintf("n%d", id)}
	}
	term, far := status.Term+1, status.Commit+1_000_000
	heartbeat, _ := messages.Seal(messages.ActorRaft, "", &messages.RaftMessage{Message: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &self, Term: &term, Commit: &far}})
	ghost, index := uint64(99), status.LastIndex
	appended, _ := messages.Seal(messages.ActorRaft, "", &messages.RaftMessage{Message: &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: &ghost, To: &self, Term: &term, Index: &index, LogTerm: &status.Term, Commit: &far,
		Entries: []*raftpb.Entry{{Index: proto.Uint64(index + 1), Term: &term, Data: []byte("x")}},
	}})
	for name, own := range map[string]tls.Certificate{"nobody": {}, "a foreign authority": pairIn(t, foreign, transport.NodeKey), "a user": alice} {
		for what, attempt := range map[string]struct {
			hello *messages.Hello
			sent  *messages.Envelope
		}{
			"a heartbeat": {as(from, make([]byte, 16)), heartbeat},
			"an append":   {as(ghost, make([]byte, 16)), appended},
			"a client's":  {clientHello, heartbeat},
		} {
			if w, why := p.intrude(target, own, attempt.hello, attempt.sent); why == "" || w != nil && name != "a user" {
				t.Errorf("%s with the keys of %s: %v, %q", what, name, w, why)
			}
		}
	}
	if got := p.status(target); got == nil || got.Term != status.Term || got.Pid != status.Pid {
		t.Errorf("the node was %v, and is %v", status, got)
	}
	p.removedWithItsKeys(leader, target, as)
}

// removedWithItsKeys removes the node that is neither the leader nor the target, and comes to
// the target with its keys.
func (p *processes) removedWithItsKeys(leader, target int, as func(messages.RaftID, []byte) *messages.Hello) {
	p.t.Helper()
	gone := 3 - leader - target
	name := fmt.Sprintf("n%d", gone+1)
	own := pairIn(p.t, p.keyArgs(gone)[1], transport.NodeKey)
	if out, said, code := p.kvctl("cluster", "remove", name, "--yes"); code != 0 {
		p.t.Fatalf("%d: %s%s", code, out, said)
	}
	<-p.running[gone].ended
	p.set(gone, nil)
	for _, incarnation := range [][]byte{make([]byte, 16), []byte(strings.Repeat("x", 16))} {
		if w, why := p.intrude(target, own, as(messages.RaftID(gone+1), incarnation)); w != nil || !strings.Contains(why, "removed") {
			p.t.Errorf("the removed %s: %v, %q", name, w, why)
		}
	}
	if w, why := p.intrude(target, own, as(messages.RaftID(leader+1), make([]byte, 16))); w != nil || !strings.Contains(why, "cannot speak as") {
		p.t.Errorf("the removed %s as another: %v, %q", name, w, why)
	}
}

// TestNodesWithAnAuthorityOfTheirOwn: a cluster whose users' authority can make no node. One
// that is added by the nodes' authority is let in; forgers of the users' are not.
func TestNodesWithAnAuthorityOfTheirOwn(t *testing.T) {
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.authority, p.peers = p.listens, keys.Authority{Dir: filepath.Join(p.dir, "certs")}, keys.Authority{Dir: filepath.Join(p.dir, "peers")}
	for _, a := range []keys.Authority{p.authority, p.peers} {
		if _, err := a.Create(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"n1", "n2", "n3"} {
			if _, _, err := a.Issue(transport.Principal{Kind: transport.NodeKey, Name: name}, []string{"127.0.0.1"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.cert("create-client", "alice")
	var err error
	if p.ring, err = keys.Load(keys.FilesIn(p.authority.Of(transport.Principal{Kind: transport.UserKey, Name: "alice"}), transport.UserKey)); err != nil {
		t.Fatal(err)
	}
	p.found()
	leader := p.leader()
	if _, err := p.connect(p.endpoints...).Put(context.Background(), []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	target, other := (leader+1)%3, (leader+2)%3
	hello := &messages.Hello{
		Protocol: messages.ProtocolVersion, Role: messages.Role_NODE, ClusterId: p.status(target).ClusterId, RaftId: messages.RaftID(other + 1),
		Incarnation: make([]byte, 16), To: messages.RaftID(target + 1), Version: "forged", Name: fmt.Sprintf("n%d", other+1),
	}
	if w, why := p.intrude(target, pairIn(t, p.keyArgs(other)[1], transport.NodeKey), hello); w != nil || why == "" {
		t.Errorf("a node of the users' authority: %v, %q", w, why)
	}
	if out, said, code := p.kvctl("cluster", "health"); code != 0 {
		t.Errorf("%d: %s%s", code, out, said)
	}
}

// TestRotateUnderLoad: the authority and all certificates are replaced while writes go on. None
// fails, and no node is started anew.
func TestRotateUnderLoad(t *testing.T) {
	p := secureCluster(t, 3)
	p.leader()
	c := p.connect(p.endpoints...)
	stop, ended := make(chan struct{}), make(chan error, 1)
	writes := 0
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if _, err := c.Put(context.Background(), fmt.Appendf(nil, "k/%d", writes%100), []byte("v")); err != nil {
				ended <- fmt.Errorf("write %d: %w", writes, err)
				return
			}
			writes++
		}
	}()
	before := p.authorities()
	if len(before) != 1 {
		t.Fatal(before)
	}
	for _, step := range []struct {
		name    string
		trusted int
	}{{"both", 2}, {"leaves", 2}, {"new", 1}} {
		p.cert("rotate-ca", step.name)
		deadline := time.Now().Add(20 * time.Second)
		for now := p.authorities(); len(now) != step.trusted || step.name == "new" && now[0] == before[0]; now = p.authorities() {
			if time.Now().After(deadline) {
				t.Fatalf("after %s they trust %v", step.name, now)
			}
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(1500 * time.Millisecond) // clients look at their files once a second
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d writes meanwhile", writes)
	for i := range p.running {
		if _, err := os.Stat(filepath.Join(p.keyArgs(i)[1], "node.crt.old")); err != nil {
			t.Error(err)
		}
	}
	if out, said, code := p.kvctl("cluster", "health"); code != 0 {
		t.Errorf("%d: %s%s", code, out, said)
	}
}

// authorities are those that all nodes trust; none: they differ, or one does not answer.
func (p *processes) authorities() []string {
	var all []string
	for i := range p.running {
		s := p.status(i)
		if s == nil || i > 0 && strings.Join(s.Keys.GetAuthorities(), ",") != strings.Join(all, ",") {
			return nil
		}
		all = s.Keys.GetAuthorities()
	}
	return all
}

// TestNobodyListensOpenlyByAccident: beyond loopback there must be keys, or the word.
func TestNobodyListensOpenlyByAccident(t *testing.T) {
	p := newCluster(t, []string{strings.Replace(freeAddresses(t, 1)[0], "127.0.0.1", "0.0.0.0", 1)})
	p.endpoints = []string{strings.Replace(p.listens[0], "0.0.0.0", "127.0.0.1", 1)}
	p.initial = "n1=" + p.endpoints[0]
	if said := p.refused(0, p.first(0)...); !strings.Contains(said, "is open to the network") || !strings.Contains(said, "--insecure") {
		t.Error(said)
	}
	if _, err := os.Stat(filepath.Join(p.data(0), "identity")); err == nil {
		t.Error("something was recorded")
	}
	p.start(0, append(p.first(0), "--insecure")...)
	p.listens = p.endpoints
	p.leader()
	deadline := time.Now().Add(10 * time.Second)
	for out, _, _ := p.kvctl("cluster", "health"); !strings.Contains(out, "without keys"); out, _, _ = p.kvctl("cluster", "health") {
		if time.Now().After(deadline) {
			t.Fatal(out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
