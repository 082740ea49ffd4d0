//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// catchUpEnv is how much data TestCatchUp makes, such as 1GB. It is not run without.
const catchUpEnv = "KEYVAL_CATCHUP"

// A node that was away while the log went on without it is brought the state, and
// then holds what the others do.
func TestLateNodeCatchesUp(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.tuning = p.listens, slices.Concat(keepHistory, []string{"--log-level", "info"}) // the default
	p.found()
	late := (p.leader() + 1) % 3
	load := &loader{t: t, client: p.connect(p.endpoints...), size: 4096}
	load.fill(0, 300, "first")
	before := p.caughtUp(late, 30*time.Second).LastIndex
	p.kill(late)
	load.fill(100, 800, "second")
	term := p.cutBehind(before, load, late)
	load.fill(700, 900, "third")

	p.start(late)
	s := p.caughtUp(late, 30*time.Second)
	if s.LogFirstIndex <= before && s.Term == term { // another leader's log may be longer
		t.Errorf("its log begins at %d, and ended at %d: it needed no snapshot", s.LogFirstIndex, before)
	}
	load.fill(800, 1000, "fourth")
	p.same(1000)

	// It lives on with what it was brought.
	brought := p.killed(late)
	p.start(late)
	p.caughtUp(late, 30*time.Second)
	p.same(1000)

	// Either side has said so, to those who look at nothing but its log.
	others := p.killed((late+1)%3) + p.killed((late+2)%3)
	for said, want := range map[string]string{
		brought: "a snapshot was installed\" .* peer=n[1-3] bytes=",
		others:  fmt.Sprintf("a snapshot was sent to a follower\" .* peer=n%d .* bytes=.* took=", late+1),
	} {
		if !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("%s is not said:\n%s", want, said)
		}
	}
}

// killed is what a process said until it was killed.
func (p *processes) killed(i int) string {
	c := p.running[i]
	p.kill(i)
	return c.log.String()
}

// A cluster of much data under load: one node comes back when what it lacks is gone
// from the log. How fast it is brought the state, what that costs the others'
// writes, and memory; and that it comes to the same when either side is killed amid.
func TestCatchUp(t *testing.T) {
	size := sizeOf(t, catchUpEnv)
	if size == 0 {
		t.Skipf("%s=1GB is not set", catchUpEnv)
	}
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.tuning = p.listens, []string{"--history-revisions", "1000"}
	p.found()
	leader := p.leader()
	late := (leader + 1) % 3
	load := &loader{t: t, client: p.connect(p.endpoints...), size: 16 << 10}
	keys := size / load.size
	began := time.Now()
	load.fill(0, keys*7/10, "first")
	p.kill(late)
	load.fill(keys*7/10, keys, "second")
	t.Logf("%d keys of %d KiB written in %v; n%d missed the last %d MB",
		keys, load.size>>10, time.Since(began).Round(time.Second), late+1, keys*3/10*load.size/1_000_000)
	p.compact()

	memory := p.watchMemory()
	probe := startProbe(t, p.connect(p.endpoints[leader]))
	time.Sleep(10 * time.Second)
	probe.phase("while what was loaded settles")
	memory.phase("while what was loaded settles")
	time.Sleep(10 * time.Second)
	probe.phase("before")
	memory.phase("before")
	p.start(late)
	began = time.Now()
	way := p.follow(late)
	probe.phase("during")
	memory.phase("during")
	t.Logf("n%d caught up from n%d in %v: %s", late+1, leader+1, time.Since(began).Round(10*time.Millisecond), way)
	time.Sleep(10 * time.Second)
	probe.phase("after")
	memory.phase("after")
	p.same(keys)

	p.kill(late)
	load.fill(0, keys*3/10, "third")
	p.compact()
	p.start(late)
	p.awaitTransfer(late, size/5)
	p.kill(late)
	t.Logf("the receiver, n%d, was killed amid", late+1)
	p.start(late)
	p.awaitTransfer(late, size/5)
	sender := p.leader()
	p.kill(sender)
	t.Logf("the sender, n%d, was killed amid", sender+1)
	began = time.Now()
	p.caughtUp(late, 2*time.Minute)
	t.Logf("n%d caught up %v later", late+1, time.Since(began).Round(10*time.Millisecond))
	p.start(sender)
	p.caughtUp(sender, 2*time.Minute)
	probe.end()
	p.same(keys)
}

// sizeOf reads a size such as 300MB or 1GB from the environment; 0: it is not set.
func sizeOf(t *testing.T, name string) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	number, unit := 0, ""
	_, err := fmt.Sscanf(text, "%d%s", &number, &unit)
	factor := map[string]int{"MB": 1e6, "GB": 1e9}[unit]
	if err != nil || number < 1 || factor == 0 {
		t.Fatalf("%s=%q is no size such as 300MB or 1GB", name, text)
	}
	return number * factor
}

// loader writes numbered keys, many at once.
type loader struct {
	t      *testing.T
	client *client.Client
	size   int // of a value, in bytes
}

// fill writes the keys of [from, to). Their values cannot be compressed.
func (l *loader) fill(from, to int, what string) {
	l.t.Helper()
	const writers = 64
	var all sync.WaitGroup
	for id := range writers {
		all.Go(func() {
			random := rand.NewChaCha8([32]byte{byte(id), byte(from), byte(from >> 8), byte(from >> 16)})
			for i := from + id; i < to; i += writers {
				value := make([]byte, l.size)
				copy(value[copy(value, what):], " ")
				_, _ = random.Read(value[len(what)+1:])
				if _, err := l.client.Put(context.Background(), fmt.Appendf(nil, "load/%08d", i), value); err != nil {
					l.t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// compact gives up history and the log, while a node is down.
func (p *processes) compact() {
	p.t.Helper()
	if out, said, code := p.kvctl("compact", "--yes", "--timeout", "1m"); code != 9 {
		p.t.Fatalf("compact ends with %d: %s%s", code, out, said)
	} else {
		p.t.Log(strings.TrimSpace(out))
	}
}

// cutBehind compacts until the log of those that run begins behind an index. While the
// leader takes a follower that has just died for running, it keeps what that one needs.
// It returns that leader's term.
func (p *processes) cutBehind(index uint64, load *loader, late int) (term uint64) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		load.fill(700, 701, "another") // what is compacted already cuts nothing
		if out, said, code := p.kvctl("compact", "--yes"); code != 9 || !strings.Contains(said, fmt.Sprintf("n%d does not answer", late+1)) {
			p.t.Fatalf("compact ends with %d: %s%s", code, out, said)
		}
		if s := p.status(p.leader()); s != nil && s.LogFirstIndex > index+1 {
			return s.Term
		}
	}
	p.t.Fatalf("the log still begins at or below %d", index)
	return 0
}

// caughtUp waits until a node has applied what others had committed before, and
// returns what it says then.
func (p *processes) caughtUp(i int, within time.Duration) *messages.StatusReply {
	p.t.Helper()
	goal := uint64(0)
	for j := range p.listens {
		if s := p.status(j); s != nil {
			goal = max(goal, s.Commit)
		}
	}
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if s := p.status(i); s != nil && s.Applied >= goal {
			return s
		}
	}
	p.t.Fatalf("n%d has not applied %d after %v; it says %s", i+1, goal, within, messages.Line(p.status(i)))
	return nil
}

// transfer is what node i is being brought, according to itself.
func (p *processes) transfer(i int) *messages.Transfer {
	if s := p.status(i); s != nil {
		for _, t := range s.Transfers {
			if t.Incoming {
				return t
			}
		}
	}
	return nil
}

// awaitTransfer waits until node i was brought so many bytes.
func (p *processes) awaitTransfer(i, bytes int) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if t := p.transfer(i); t != nil && t.BytesDone >= uint64(bytes) {
			return
		}
	}
	p.t.Fatalf("n%d was not brought %d bytes within a minute", i+1, bytes)
}

// follow waits until node i has caught up, and says how its transfer went.
func (p *processes) follow(i int) string {
	p.t.Helper()
	var last *messages.Transfer
	var began, ended time.Time
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if t := p.transfer(i); t != nil {
			if last == nil {
				began = time.Now()
			}
			if last == nil || t.BytesDone > last.BytesDone {
				last, ended = t, time.Now()
			}
			continue
		}
		if s := p.status(i); last != nil && s != nil && s.Applied >= last.Index {
			p.caughtUp(i, time.Minute)
			took := ended.Sub(began).Seconds()
			return fmt.Sprintf("%d MB of about %d MB seen in %.1f s, %.0f MB/s", last.BytesDone/1e6, last.BytesTotal/1e6, took, float64(last.BytesDone)/1e6/took)
		}
	}
	p.t.Fatalf("n%d has not caught up within five minutes", i+1)
	return ""
}

// same has kvctl compare what all nodes hold, which must be so many loaded keys.
func (p *processes) same(keys int) {
	p.t.Helper()
	out, said, code := p.kvctl("verify", "--prefix", "load/")
	if code != 0 || !strings.Contains(out, fmt.Sprintf(" %d keys", keys)) {
		p.t.Fatalf("verify ends with %d, and %d keys were written: %s%s", code, keys, out, said)
	}
	p.t.Log(strings.TrimSpace(out))
}

// probe puts small values at an even pace, whatever the answers, and measures how
// long each takes from when it was due.
type probe struct {
	t    *testing.T
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	taken []time.Duration // in this phase
}

const (
	probeEvery   = 5 * time.Millisecond
	probeWaiting = 1000 // unanswered puts at most: beyond it the pace is lost, and the figure with it
)

func startProbe(t *testing.T, c *client.Client) *probe {
	w := &probe{t: t, stop: make(chan struct{})}
	t.Cleanup(w.end)
	w.done.Go(func() {
		pace := time.NewTicker(probeEvery)
		defer pace.Stop()
		places := make(chan struct{}, probeWaiting)
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			case due := <-pace.C:
				places <- struct{}{}
				w.done.Go(func() {
					_, err := c.Put(context.Background(), fmt.Appendf(nil, "probe/%d", i%1000), bytes.Repeat([]byte("p"), 1024))
					took := time.Since(due)
					w.mu.Lock()
					if err == nil {
						w.taken = append(w.taken, took)
					}
					w.mu.Unlock()
					<-places
				})
			}
		}
	})
	return w
}

// phase tells of what was measured since the last one.
func (w *probe) phase(name string) {
	w.mu.Lock()
	taken := w.taken
	w.taken = nil
	w.mu.Unlock()
	slices.Sort(taken)
	if len(taken) == 0 {
		w.t.Errorf("%s: no put was answered", name)
		return
	}
	at := func(part float64) time.Duration {
		return taken[min(len(taken)-1, int(part*float64(len(taken))))].Round(10 * time.Microsecond)
	}
	w.t.Logf("puts of 1 KiB every %v, %s: %d, p50 %v, p99 %v, max %v", probeEvery, name, len(taken), at(.5), at(.99), at(1))
}

func (w *probe) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.done.Wait()
}

// memory watches what processes have in use.
type memory struct {
	t    *testing.T
	pid  func(i int) int // of node i; 0: it does not run
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	most []resident // by node, in this phase
}

// resident is memory in use: what the process made itself, and the pages of files
// that it has mapped, which the system takes back when it needs them. In bytes.
type resident struct{ own, files uint64 }

func (p *processes) watchMemory() *memory {
	m := &memory{t: p.t, pid: p.pid, stop: make(chan struct{}), most: make([]resident, len(p.listens))}
	m.done.Go(func() {
		for pace := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-m.stop:
				pace.Stop()
				return
			case <-pace.C:
				m.look()
			}
		}
	})
	p.t.Cleanup(m.end)
	return m
}

func (m *memory) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.most {
		if pid := m.pid(i); pid != 0 {
			now := residentOf(pid)
			m.most[i] = resident{max(m.most[i].own, now.own), max(m.most[i].files, now.files)}
		}
	}
}

// phase tells of the most since the last one.
func (m *memory) phase(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var nodes []string
	for i, r := range m.most {
		nodes = append(nodes, fmt.Sprintf("n%d %d MB and %d MB of mapped files", i+1, r.own/1e6, r.files/1e6))
	}
	m.t.Logf("the most memory, %s: %s", name, strings.Join(nodes, ", "))
	clear(m.most)
}

func (m *memory) end() {
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	m.done.Wait()
}

// residentOf reads a process's memory; nothing of one that has ended.
func residentOf(pid int) (r resident) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "RssAnon: %d kB", &kib); n == 1 {
			r.own = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kib); n == 1 {
			r.files = kib << 10
		}
	}
	return r
}
