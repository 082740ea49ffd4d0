//go:build linux

package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

// A spare takes the place of a voter that was killed, without anybody asking; nothing is done
// while two are missing.
func TestSparesHeal(t *testing.T) {
	t.Parallel()
	p := joinable(t, 4)
	w := p.write(2)
	w.reach(t, 100)
	p.start(3, p.joins(3)...)
	run := func(want string, args ...string) {
		t.Helper()
		if out, said, code := p.kvctl(args...); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("kvctl %v exits %d: %s%s", args, code, out, said)
		}
	}
	run("dry", "cluster", "spare", "add", "n4")
	run("on", "cluster", "autoreplace", "on", "--after", "2s", "--yes")
	p.await("n4 waits", func(v *messages.ClusterView) bool { return len(v.Waiting) == 1 && len(v.Healing.GetSpares()) == 1 })
	lost := (p.leader() + 1) % 3
	p.kill(lost)
	began := time.Now()
	name := []string{"n1", "n2", "n3"}[lost]
	p.await(name+" is replaced", func(v *messages.ClusterView) bool {
		return len(v.Members) == 3 && member(v, name) == nil && member(v, "n4").GetType() == messages.MemberType_VOTER && len(v.Healing.Spares) == 0
	})
	t.Logf("full budget %v after the kill, with --after 2s", time.Since(began).Round(10*time.Millisecond))
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("a voter that was silent for %v was replaced", took)
	}
	w.reach(t, 100)
	w.end()

	if out, _, _ := p.kvctl("ops", "ls"); !strings.Contains(out, "replace  "+name+" -> n4") {
		t.Errorf("ops ls does not show it:\n%s", out)
	}
	p.start(lost) // on its old directory: it is no member any more
	p.ends(lost)
	nothingWithoutTwo(t, p, lost, run)
}

// nothingWithoutTwo kills two voters of three that have a spare.
func nothingWithoutTwo(t *testing.T, p *processes, spare int, run func(want string, args ...string)) {
	t.Helper()
	os.RemoveAll(p.data(spare))
	p.start(spare, "--name", "n5", "--listen", p.listens[spare], "--join", p.listens[3])
	run("n5 (", "cluster", "spare", "add", "n5")
	p.await("n5 waits", func(v *messages.ClusterView) bool { return len(v.Waiting) == 1 })
	leader := p.leader()
	for i := range p.listens {
		if i != spare && i != leader {
			p.kill(i)
		}
	}
	time.Sleep(5 * time.Second)
	out, said, code := p.kvctl("ops", "ls", "-o", "simple")
	if code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("with two voters missing something is begun, or ops ls exits %d: %s%s", code, out, said)
	}
	for i := range p.listens {
		if p.running[i] == nil {
			p.start(i)
		}
	}
	p.await("all are back", func(v *messages.ClusterView) bool {
		return len(v.Members) == 3 && member(v, "n5") == nil && !slices.ContainsFunc(v.Members, func(m *messages.MemberView) bool { return m.Role != "leader" && m.Role != "follower" })
	})
}
