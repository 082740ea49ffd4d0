//go:build linux

package main

import (
	"cmp"
	"strings"
	"testing"
	"time"
)

// membersEnv is how much data the tests of members make, such as 1GB; without it they are
// short.
const membersEnv = "KEYVAL_MEMBERS"

// orderlyGap is for how long no write may be acknowledged around a change that nobody dies
// of. It is mostly below 100 ms; the bound is for a machine that does much else.
const orderlyGap = 2 * time.Second

// lap is the longest time without an acknowledged write since the last lap.
func (w *writers) lap() time.Duration {
	return time.Duration(w.longest.Swap(0)).Round(time.Millisecond)
}

// changed runs a change of the cluster by kvctl, which must succeed, and tells how long it
// took and for how long no write was acknowledged meanwhile.
func (p *processes) changed(w *writers, args ...string) {
	p.t.Helper()
	w.lap()
	began := time.Now()
	out, said, code := p.kvctl(append(append([]string{"cluster"}, args...), "--timeout", "10m")...)
	if code != 0 {
		p.t.Fatalf("%v ends with %d: %s%s", args, code, out, said)
	}
	took := time.Since(began)
	time.Sleep(300 * time.Millisecond)
	gap := w.lap()
	p.t.Logf("cluster %s: %v, longest gap between writes %v", strings.Join(args, " "), took.Round(time.Millisecond), gap)
	if gap > orderlyGap {
		p.t.Errorf("no write was acknowledged for %v", gap)
	}
}

// enter starts node i, and adds it.
func (p *processes) enter(w *writers, i int, known string) {
	p.t.Helper()
	p.start(i, p.joins(i, known)...)
	p.changed(w, "add", name(i), p.listens[i])
}

// leave removes node i, whose process then ends.
func (p *processes) leave(w *writers, i int) {
	p.t.Helper()
	p.changed(w, "remove", name(i), "--yes")
	p.ends(i)
}

// TestGrowAndShrink: 3 to 5 to 3 members under load, the leader among the removed. No write
// fails.
func TestGrowAndShrink(t *testing.T) {
	size := cmp.Or(sizeOf(t, membersEnv), 4_000_000)
	p := joinable(t, 5)
	load := &loader{t: t, client: p.connect(p.endpoints[:3]...), size: 16 << 10}
	keys := size / load.size
	began := time.Now()
	load.fill(0, keys, "state")
	t.Logf("%d MB written in %v", size/1_000_000, time.Since(began).Round(time.Millisecond))

	w := p.writeSteadily(8, 5*time.Millisecond, load.client)
	p.enter(w, 3, p.listens[0])
	p.enter(w, 4, p.listens[1])
	leader := p.leader()
	t.Logf("n%d leads", leader+1)
	p.leave(w, leader)
	p.leave(w, p.leader())
	w.end()
	t.Logf("%d writes acknowledged, none failed", w.count.Load())
	p.same(keys)
	w.checkBy(p, load.client, "the client")
}

// TestEveryFounderIsReplaced, one after the other by adding and removing, while clients stay
// that know the founders alone: one that writes, and one that is silent meanwhile.
func TestEveryFounderIsReplaced(t *testing.T) {
	p := joinable(t, 6)
	founders := p.endpoints[:3]
	busy, idle := p.connect(founders...), p.connect(founders...)
	if _, err := idle.Put(t.Context(), []byte("idle"), []byte("before")); err != nil {
		t.Fatal(err)
	}
	w := p.writeSteadily(2, 20*time.Millisecond, busy)
	for i := range 3 {
		p.enter(w, i+3, p.listens[i])
		p.leave(w, i)
	}
	w.end()
	w.checkBy(p, busy, "the client that writes")
	if got, err := idle.Get(t.Context(), []byte("idle")); err != nil || string(got.Value) != "before" {
		t.Errorf("the client that was silent: %q, %v", got.Value, err)
	}
	w.check(p, p.listens[3])
}
