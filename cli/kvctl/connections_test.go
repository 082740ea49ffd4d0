//go:build linux

package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyval/actors/client"
	"keyval/messages"
)

// TestConnectionsLeaveFilesAlone: connections that nobody uses, more than there are
// descriptors, cost neither files nor members theirs.
func TestConnectionsLeaveFilesAlone(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.files = p.listens, 512
	p.found()
	p.leader()
	w := p.write(8)
	w.reach(t, 200)
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for i := range 600 * len(p.listens) {
		c, err := net.Dial("tcp", p.listens[i%len(p.listens)])
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	w.reach(t, 2000)
	victim := p.leader()
	p.kill(victim)
	w.reach(t, 500)
	p.start(victim)
	w.reach(t, 500)
	w.end()
	for i := range p.listens {
		if v := p.vitals(i); v.descriptors > p.files*3/4 {
			t.Errorf("n%d has %d files open", i+1, v.descriptors)
		}
	}
	w.check(p, p.endpoints[victim])
}

// crowdEnv says how many files a node of TestCrowdedNode may open: with 10000 it takes
// 4,096 clients.
const crowdEnv = "KEYVAL_CROWD_FILES"

// TestCrowdedNode: a node that is full of idle clients still takes members: one that was
// restarted links to it, and the death of the leader leaves a majority. A client that is
// turned away hears so, and finds another node.
func TestCrowdedNode(t *testing.T) {
	files := 700
	if said := os.Getenv(crowdEnv); said != "" {
		var err error
		if files, err = strconv.Atoi(said); err != nil {
			t.Fatalf("%s=%s is no number of files", crowdEnv, said)
		}
	}
	if files > 8000 {
		var own unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil || own.Cur < uint64(files) {
			t.Skipf("this process may open %d files: %v", own.Cur, err)
		}
	}
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.files = p.listens, files
	p.found()
	leader := p.leader()
	crowded, restarted := (leader+1)%3, (leader+2)%3
	s := newSiege(t, p, crowded)
	defer s.cancel()
	r, held, full := random(1), 0, ""
	for full == "" {
		in, err := s.patiently()
		if err != nil {
			t.Fatal(err)
		}
		if _, err = in.hello(clientHello(r)); err == nil {
			err = in.attach(noise(r, messages.ClientIDSize))
		}
		if err != nil {
			full = err.Error()
			in.hang()
			break
		}
		held++
	}
	if !strings.Contains(full, "and takes no more") {
		t.Errorf("the client too many heard %q", full)
	}
	_, err := client.Connect(context.Background(), client.Options{Endpoints: p.endpoints[crowded : crowded+1], Timeout: time.Second})
	if messages.CodeOf(err) != messages.Code_BUSY {
		t.Errorf("who knows no other node heard %v, of code %v", err, messages.CodeOf(err))
	}
	c := p.connect(p.endpoints[crowded], p.endpoints[restarted], p.endpoints[leader])
	if _, err := c.Put(context.Background(), []byte("key"), []byte("value")); err != nil {
		t.Errorf("a client that knows other nodes: %v", err)
	}

	p.kill(restarted)
	p.start(restarted)
	p.follows(restarted)
	p.kill(leader)
	began := time.Now()
	if _, err := c.Put(context.Background(), []byte("key"), []byte("again")); err != nil {
		t.Errorf("after the leader's death: %v", err)
	}
	t.Logf("%d clients in all, then: %s; a write was acknowledged %v after the leader's death", held, full, time.Since(began))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v until a leader was there", took)
	}
}

// follows waits until node i follows a leader.
func (p *processes) follows(i int) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if s := p.status(i); s != nil && s.Leader != nil && s.Role == "follower" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("n%d follows nobody", i+1)
		}
	}
}

// TestTooFewDescriptors: a node that could not hold its files and its members does not
// start, says how many it needs, and touches nothing; with them it starts.
func TestTooFewDescriptors(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 1))
	p.endpoints = p.listens
	p.found()
	c := p.connect(p.endpoints...)
	if _, err := c.Put(context.Background(), []byte("key"), []byte("value")); err != nil {
		t.Fatal(err)
	}
	p.kill(0)
	for _, files := range []int{20, 64, 255} {
		p.files = files
		said := p.refused(0)
		for _, want := range []string{"this node needs 2", "its directory holds", "next: raise the limit of open files"} {
			if !strings.Contains(said, want) {
				t.Errorf("with %d files: want %q in\n%s", files, want, said)
			}
		}
	}
	p.files = 300
	p.start(0)
	if got, err := c.Get(context.Background(), []byte("key")); err != nil || string(got.Value) != "value" {
		t.Errorf("%v, %v", got, err)
	}
	if said := p.running[0].log.String(); !strings.Contains(said, "leaves few connections") {
		t.Errorf("it does not say that it takes few clients:\n%s", said)
	}
}

// TestAUserShutsNobodyOut: of the places for clients a user has half, from one machine or many:
// then he is told so, others come in, and what he has goes on.
func TestAUserShutsNobodyOut(t *testing.T) {
	p := secureCluster(t, 1)
	p.leader()
	p.kill(0)
	p.files = 300
	p.start(0)
	p.as("alice")
	first := p.connect(p.endpoints...)
	told := error(nil)
	for n := 0; told == nil && n < 300; n++ {
		c, err := client.Connect(context.Background(), client.Options{Keys: p.ring, Endpoints: p.endpoints, Pinned: true, Timeout: 10 * time.Second})
		if told = err; err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	if messages.CodeOf(told) != messages.Code_BUSY || !strings.Contains(told.Error(), "no user may have more") {
		t.Errorf("alice heard %v", told)
	}
	p.as("bob")
	for range 5 {
		if _, err := p.connect(p.endpoints...).Put(context.Background(), []byte("k"), []byte("bob's")); err != nil {
			t.Errorf("bob: %v", err)
		}
	}
	if got, err := first.Get(context.Background(), []byte("k")); err != nil || string(got.Value) != "bob's" {
		t.Errorf("alice reads %q, %v", got.Value, err)
	}
}
