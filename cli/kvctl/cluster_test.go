package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
)

// These tests run real processes over real sockets on real disks.

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kvctl")
	if err == nil {
		binary = filepath.Join(dir, "kvctl")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// processes is a cluster of `kvctl serve`.
type processes struct {
	t         *testing.T
	dir       string
	endpoints []string
	initial   string
	running   []*exec.Cmd
	logs      []*bytes.Buffer
}

func startCluster(t *testing.T, n int) *processes {
	t.Helper()
	p := &processes{t: t, dir: t.TempDir(), endpoints: freeAddresses(t, n)}
	var initial []string
	for i, e := range p.endpoints {
		initial = append(initial, fmt.Sprintf("n%d=%s", i+1, e))
	}
	p.initial = strings.Join(initial, ",")
	p.running, p.logs = make([]*exec.Cmd, n), make([]*bytes.Buffer, n)
	for i := range n {
		p.start(i, p.first(i)...)
	}
	t.Cleanup(func() {
		for i := range p.running {
			p.kill(i)
		}
		if t.Failed() {
			for i, log := range p.logs {
				t.Logf("n%d:\n%s", i+1, log)
			}
		}
	})
	return p
}

// freeAddresses are loopback addresses that nobody listens at.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}

func (p *processes) data(i int) string { return filepath.Join(p.dir, fmt.Sprintf("n%d", i+1)) }

// first is what a first start of node i needs.
func (p *processes) first(i int) []string {
	return []string{"--name", fmt.Sprintf("n%d", i+1), "--listen", p.endpoints[i], "--initial-cluster", p.initial}
}

func (p *processes) start(i int, flags ...string) {
	p.t.Helper()
	p.logs[i] = &bytes.Buffer{}
	c := exec.Command(binary, append([]string{"serve", "--data", p.data(i), "--log-level", "warn"}, flags...)...)
	c.Stderr = p.logs[i]
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.running[i] = c
}

func (p *processes) kill(i int) {
	if c := p.running[i]; c != nil {
		c.Process.Kill()
		c.Wait()
		p.running[i] = nil
	}
}

// refused starts node i, which must end by itself, and returns what it says.
func (p *processes) refused(i int, flags ...string) string {
	p.t.Helper()
	p.start(i, flags...)
	ended := make(chan error, 1)
	go func() { ended <- p.running[i].Wait() }()
	select {
	case err := <-ended:
		p.running[i] = nil
		if err == nil {
			p.t.Errorf("n%d ended without an error", i+1)
		}
	case <-time.After(15 * time.Second):
		p.t.Errorf("n%d was not refused", i+1)
		p.running[i].Process.Kill()
		<-ended
		p.running[i] = nil
	}
	return p.logs[i].String()
}

func (p *processes) connect(endpoints ...string) *client.Client {
	p.t.Helper()
	c, err := client.Connect(context.Background(), client.Options{Endpoints: endpoints, Timeout: 20 * time.Second})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// leader waits until some node says that it leads.
func (p *processes) leader() int {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for i, e := range p.endpoints {
			if p.running[i] == nil {
				continue
			}
			c, err := client.Connect(context.Background(), client.Options{Endpoints: []string{e}, Timeout: time.Second})
			if err != nil {
				p.t.Fatal(err)
			}
			s, _, err := c.Status(context.Background())
			c.Close()
			if err == nil && s.Role == "leader" {
				return i
			}
		}
	}
	p.t.Fatal("nobody leads after 20 s")
	return 0
}

// writers put numbered keys until they are stopped.
type writers struct {
	acknowledged sync.Map // key -> revision
	count        atomic.Int64
	longest      atomic.Int64 // gap between two acknowledgements, ns
	last         atomic.Int64
	stop         chan struct{}
	done         sync.WaitGroup
}

func (p *processes) write(n int) *writers {
	w := &writers{stop: make(chan struct{})}
	w.last.Store(time.Now().UnixNano())
	c := p.connect(p.endpoints...)
	for id := range n {
		w.done.Add(1)
		go func() {
			defer w.done.Done()
			for i := 0; ; i++ {
				select {
				case <-w.stop:
					return
				default:
				}
				key := fmt.Sprintf("%d/%d", id, i)
				r, err := c.Put(context.Background(), []byte(key), []byte("value of "+key))
				if err != nil {
					p.t.Errorf("put %s: %v", key, err)
					return
				}
				w.acknowledged.Store(key, r.Revision)
				w.count.Add(1)
				now := time.Now().UnixNano()
				if gap := now - w.last.Swap(now); gap > w.longest.Load() {
					w.longest.Store(gap)
				}
			}
		}()
	}
	return w
}

func (w *writers) reach(t *testing.T, more int64) {
	t.Helper()
	goal := w.count.Load() + more
	for deadline := time.Now().Add(30 * time.Second); w.count.Load() < goal; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d writes within 30 s", more-(goal-w.count.Load()), more)
		}
	}
}

func (w *writers) end() {
	close(w.stop)
	w.done.Wait()
}

// check reads everything that was acknowledged back, from one node alone.
func (w *writers) check(p *processes, endpoint string) {
	p.t.Helper()
	c := p.connect(endpoint)
	w.acknowledged.Range(func(key, revision any) bool {
		got, err := c.Get(context.Background(), []byte(key.(string)))
		if err != nil || string(got.Value) != "value of "+key.(string) || got.Revision != revision.(uint64) {
			p.t.Errorf("%s was acknowledged at revision %d; %s has %q at %d: %v", key, revision, endpoint, got.Value, got.Revision, err)
		}
		return !p.t.Failed()
	})
}

// The death of the leader's process costs no acknowledged write and less than two
// seconds; the node that comes back catches up; so does a whole cluster.
func TestKilledProcesses(t *testing.T) {
	p := startCluster(t, 3)
	p.leader()
	w := p.write(16)
	w.reach(t, 500)
	leader := p.leader()
	p.kill(leader)
	w.reach(t, 500)
	p.start(leader)
	w.reach(t, 500)
	w.end()
	if gap := time.Duration(w.longest.Load()); gap > 2*time.Second {
		t.Errorf("no write was acknowledged for %v", gap)
	}
	t.Logf("%d writes acknowledged, the longest gap was %v", w.count.Load(), time.Duration(w.longest.Load()))
	w.check(p, p.endpoints[leader])

	for i := range p.running {
		p.kill(i)
	}
	for i := range p.running {
		p.start(i)
	}
	for _, e := range p.endpoints {
		w.check(p, e)
	}
}

// What does not belong is refused, with a reason and a next step.
func TestRefusedStarts(t *testing.T) {
	p := startCluster(t, 3)
	p.leader()
	expect := func(what, said, want string) {
		t.Helper()
		if !strings.Contains(said, want) || !strings.Contains(said, "next:") {
			t.Errorf("%s: want %q and a next step in:\n%s", what, want, said)
		}
	}

	other := &processes{t: t, dir: p.dir, endpoints: p.endpoints, initial: p.initial, running: make([]*exec.Cmd, 3), logs: make([]*bytes.Buffer, 3)}
	expect("a second process on one directory", other.refused(0), "is in use by process")

	p.kill(0)
	expect("a contradicting flag", p.refused(0, "--name", "n9"), "--name says")

	old := p.data(0) + ".old"
	if err := os.Rename(p.data(0), old); err != nil {
		t.Fatal(err)
	}
	expect("an empty directory under a taken name", p.refused(0, p.first(0)...), "this directory is empty, but n1 is a member already")
	expect("another initial cluster", func() string {
		os.RemoveAll(p.data(0))
		return p.refused(0, "--name", "n1", "--listen", p.endpoints[0], "--initial-cluster", strings.Replace(p.initial, "n3=", "n4=", 1))
	}(), "lists other founders")
	os.RemoveAll(p.data(0))
	if err := os.Rename(old, p.data(0)); err != nil {
		t.Fatal(err)
	}
	p.start(0)

	if err := os.WriteFile(filepath.Join(p.dir, "stranger"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(binary, "serve", "--data", p.dir, "--name", "x", "--listen", p.endpoints[0], "--initial-cluster", "x="+p.endpoints[0])
	out, _ := c.CombinedOutput()
	expect("a directory of something else", string(out), "is not a node's directory")
}
