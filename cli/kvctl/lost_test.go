//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// put writes a key through kvctl.
func (p *processes) put(key, value string) {
	p.t.Helper()
	if out, said, code := p.kvctl("put", key, value, "--timeout", "15s"); code != 0 {
		p.t.Fatalf("put ends with %d: %s%s", code, out, said)
	}
}

// neverReads asks for a key for a while. It must not have this value.
func (p *processes) neverReads(key, value string) {
	p.t.Helper()
	for _, wait := range []string{"2s", "2s"} {
		if out, _, code := p.kvctl("get", key, "--timeout", wait); code == 0 && strings.Contains(out, value) {
			p.t.Fatalf("get %s ends with 0, and reads %s", key, out)
		}
	}
}

func (p *processes) reads(key, value string) {
	p.t.Helper()
	if out, said, code := p.kvctl("get", key, "--timeout", "15s"); code != 0 || !strings.Contains(out, value) {
		p.t.Fatalf("get %s ends with %d: %s%s, expected %s", key, code, out, said, value)
	}
}

// A member whose log and state are gone, and whose identity is not, must not found
// itself anew: with a member that was away it would be a majority that has forgotten.
func TestEmptiedMemberIsRefused(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	leader := p.leader()
	away, emptied := (leader+1)%3, (leader+2)%3
	p.put("key", "old")
	p.kill(away)
	p.put("key", "new")
	p.kill(leader)
	p.kill(emptied)
	for _, name := range []string{"CURRENT", "generation-1"} {
		if err := os.RemoveAll(filepath.Join(p.data(emptied), name)); err != nil {
			t.Fatal(err)
		}
	}
	p.start(away)
	if said := p.refused(emptied); !strings.Contains(said, "its data are gone") || !strings.Contains(said, "next:") {
		t.Errorf("the emptied node says:\n%s", said)
	}
	p.neverReads("key", "old")
	p.start(leader)
	p.reads("key", "new")
}

// A founder that is wiped before the cluster is founded starts anew, also when another
// has heard of it.
func TestWipedFounderFounds(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints = p.listens
	p.initial = "n1=" + p.listens[0] + ",n2=" + p.listens[1] + ",n3=" + p.listens[2]
	for _, i := range []int{0, 1} {
		p.start(i, p.first(i)...)
	}
	time.Sleep(time.Second) // each has told the other by then; no node says whom it has heard
	p.kill(0)
	if err := os.RemoveAll(p.data(0)); err != nil {
		t.Fatal(err)
	}
	p.start(2, p.first(2)...)
	time.Sleep(time.Second)
	p.start(0, p.first(0)...)
	p.put("key", "value")
	for i := range p.running {
		p.kill(i)
	}
}

// A directory that was put back to an older copy must not vote: it has acknowledged what
// it does not hold. One member alone knows better, and is away when the node is started
// again, and again. Nobody reads the past then, and it is not the member that is right which
// is condemned in the end.
func TestRolledBackMemberIsFenced(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	leader := p.leader()
	away, old := (leader+1)%3, (leader+2)%3
	p.put("key", "old")
	p.kill(old)
	if out, err := exec.Command("cp", "-a", p.data(old), p.data(old)+".bak").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.kill(away)
	p.start(old)
	p.caughtUp(old, 20*time.Second)
	p.put("key", "new")
	p.kill(old)
	if err := errors.Join(os.RemoveAll(p.data(old)), os.Rename(p.data(old)+".bak", p.data(old))); err != nil {
		t.Fatal(err)
	}
	p.start(old)
	p.marked(old, "SUSPECTED")
	p.kill(leader)
	p.start(away)
	for range 2 { // as a supervisor does
		p.kill(old)
		p.start(old)
		p.neverReads("key", "old")
	}
	if status := p.status(old); status.Role != "suspected" {
		t.Errorf("its role is %s", status.Role)
	}
	p.start(leader)
	p.reads("key", "new")
	p.condemned(old)
	p.put("key", "newer")
	p.reads("key", "newer")
	for _, i := range []int{leader, away} {
		for _, name := range []string{"SUSPECTED", "CONDEMNED"} {
			if _, err := os.Stat(filepath.Join(p.data(i), name)); err == nil {
				t.Errorf("n%d is %s", i+1, name)
			}
		}
	}
}

// marked waits for a file in a node's directory.
func (p *processes) marked(i int, name string) {
	p.t.Helper()
	for range 200 {
		if _, err := os.Stat(filepath.Join(p.data(i), name)); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Fatalf("n%d has no %s:\n%s", i+1, name, &p.running[i].log)
}

// condemned waits until a node ends itself, and lets a supervisor start it again.
func (p *processes) condemned(i int) {
	p.t.Helper()
	c := p.running[i]
	select {
	case <-c.ended:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("n%d lives on:\n%s", i+1, &c.log)
	}
	p.set(i, nil)
	for name, said := range map[string]string{"at first": c.log.String(), "when it is started again": p.refused(i)} {
		if !strings.Contains(said, "it was put back to an older copy") || !strings.Contains(said, "next: this node") {
			p.t.Errorf("%s n%d says:\n%s", name, i+1, said)
		}
	}
}

// A second process on a directory, or on a copy of it, touches nothing: the directory is
// locked though its file LOCK is gone, and a copy belongs to an address that is taken.
func TestSecondProcessTouchesNothing(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	p.leader()
	p.put("key", "value")
	if err := os.Remove(filepath.Join(p.data(0), "LOCK")); err != nil {
		t.Fatal(err)
	}
	second := &processes{t: t, dir: p.dir, running: make([]*process, 3)}
	if said := second.refused(0); !strings.Contains(said, "is in use by another process") {
		t.Errorf("on the same directory it says:\n%s", said)
	}
	copied := &processes{t: t, dir: t.TempDir(), running: make([]*process, 3)}
	if out, err := exec.Command("cp", "-a", p.data(0), copied.data(0)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before, err := os.ReadFile(filepath.Join(copied.data(0), "generation-1", "starts"))
	if err != nil {
		t.Fatal(err)
	}
	if said := copied.refused(0); !strings.Contains(said, "is in use") {
		t.Errorf("on a copy it says:\n%s", said)
	}
	if after, _ := os.ReadFile(filepath.Join(copied.data(0), "generation-1", "starts")); string(after) != string(before) {
		t.Errorf("it counted itself in the copy:\n%s", after)
	}
	p.put("key", "other")
	for i := range p.running {
		p.kill(i)
	}
	for i := range p.running {
		p.start(i)
	}
	p.reads("key", "other")
}
