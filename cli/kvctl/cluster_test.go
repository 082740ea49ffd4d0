//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// These tests run real processes over real sockets on real disks. Those that mostly wait, and
// measure nothing that another cluster on this machine could spoil, run in parallel.

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kvctl")
	if err == nil {
		binary = filepath.Join(dir, "kvctl")
		var out []byte
		build := exec.Command("go", "build", "-o", binary, ".")
		if os.Getenv("KEYVAL_MUTANT") != "" { // with go test -tags mutant, for the client library's
			build.Args = slices.Insert(build.Args, 2, "-tags", "mutant")
		}
		if out, err = build.CombinedOutput(); err != nil {
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
	listens   []string // where the nodes are
	endpoints []string // where others reach them: the same, or a proxy in front of it
	initial   string
	tuning    []string       // flags of every start
	authority keys.Authority // that nodes and clients have keys of; none: there are no keys
	peers     keys.Authority // of links between nodes, if that is another
	ring      *keys.Ring     // of clients
	files     int            // the limit of open files at every start; 0: that of this process
	mu        sync.Mutex     // guards the elements of running
	running   []*process     // nil: it does not run
}

// process is one node.
type process struct {
	*exec.Cmd
	log   said
	ended chan struct{} // closed after Wait
	err   error         // of Wait
}

// said is what a process says, while it says it.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func startCluster(t *testing.T, n int) *processes {
	t.Helper()
	p := newCluster(t, freeAddresses(t, n))
	p.endpoints = p.listens
	p.found()
	return p
}

// keepHistory are the flags of nodes whose past is read to its beginning.
var keepHistory = []string{"--history-revisions", "0", "--history-time", "0"}

// newCluster makes a cluster whose endpoints are not known yet, and which gives no
// history up.
func newCluster(t *testing.T, listens []string) *processes {
	t.Helper()
	p := &processes{t: t, dir: t.TempDir(), listens: listens, tuning: keepHistory, running: make([]*process, len(listens))}
	t.Cleanup(func() {
		for i, c := range p.running {
			p.kill(i)
			if c != nil && t.Failed() {
				t.Logf("n%d:\n%s", i+1, &c.log)
			}
		}
	})
	return p
}

// found starts all nodes for the first time.
func (p *processes) found() {
	p.t.Helper()
	var initial []string
	for i, e := range p.endpoints {
		initial = append(initial, fmt.Sprintf("n%d=%s", i+1, e))
	}
	p.initial = strings.Join(initial, ",")
	for i := range p.running {
		p.start(i, p.first(i)...)
	}
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
	return []string{"--name", fmt.Sprintf("n%d", i+1), "--listen", p.listens[i], "--advertise", p.endpoints[i], "--initial-cluster", p.initial}
}

// keyArgs are the flags by which node i comes with its keys.
func (p *processes) keyArgs(i int) []string {
	if p.authority.Dir == "" {
		return nil
	}
	node := transport.Principal{Kind: transport.NodeKey, Name: fmt.Sprintf("n%d", i+1)}
	args := []string{"--certs-dir", p.authority.Of(node)}
	if p.peers.Dir != "" {
		f := keys.FilesIn(p.peers.Of(node), node.Kind)
		args = append(args, "--peer-trusted-ca-file", f.CA, "--peer-cert-file", f.Cert, "--peer-key-file", f.Key)
	}
	return args
}

func (p *processes) start(i int, flags ...string) {
	p.t.Helper()
	c := &process{ended: make(chan struct{})}
	args := slices.Concat([]string{binary, "serve", "--data", p.data(i), "--log-level", "warn"}, p.tuning, p.keyArgs(i), flags)
	if p.files > 0 {
		args = slices.Concat([]string{"bash", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(p.files)}, args)
	}
	c.Cmd = exec.Command(args[0], args[1:]...)
	c.Stderr = &c.log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.set(i, c)
	go func() {
		c.err = c.Wait()
		close(c.ended)
	}()
}

// kill ends node i as kill -9 does. One that has ended by itself is an error.
func (p *processes) kill(i int) {
	c := p.running[i]
	if c == nil {
		return
	}
	select {
	case <-c.ended:
		p.t.Errorf("n%d ended by itself: %v\n%s", i+1, c.err, &c.log)
	default:
		c.Process.Kill()
		<-c.ended
	}
	p.set(i, nil)
}

func (p *processes) set(i int, c *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[i] = c
}

// signal sends node i a signal.
func (p *processes) signal(i int, s syscall.Signal) {
	p.t.Helper()
	if err := p.running[i].Process.Signal(s); err != nil {
		p.t.Errorf("n%d: %v: %v\n%s", i+1, s, err, &p.running[i].log)
	}
}

// refused starts node i, which must end by itself, and returns what it says.
func (p *processes) refused(i int, flags ...string) string {
	p.t.Helper()
	p.start(i, flags...)
	c := p.running[i]
	select {
	case <-c.ended:
		if c.err == nil {
			p.t.Errorf("n%d ended without an error", i+1)
		}
	case <-time.After(15 * time.Second):
		p.t.Errorf("n%d was not refused", i+1)
		c.Process.Kill()
		<-c.ended
	}
	p.set(i, nil)
	return c.log.String()
}

func (p *processes) connect(endpoints ...string) *client.Client {
	p.t.Helper()
	c, err := client.Connect(context.Background(), client.Options{Keys: p.ring, Endpoints: endpoints, Pinned: len(endpoints) == 1, Timeout: 20 * time.Second})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// command is a kvctl that asks the cluster.
func (p *processes) command(args ...string) *exec.Cmd {
	args = append(args, "--endpoints", strings.Join(p.endpoints, ","))
	if p.ring != nil {
		args = append(args, "--certs-dir", p.authority.Of(p.ring.Principal()))
	}
	c := exec.Command(binary, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// kvctl runs a command on the cluster, and returns its output and exit code.
func (p *processes) kvctl(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	c := p.command(args...)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil && c.ProcessState == nil {
		p.t.Fatal(err)
	}
	return out.String(), said.String(), c.ProcessState.ExitCode()
}

// status is what node i says of itself; nil: it does not answer.
func (p *processes) status(i int) *messages.StatusReply {
	p.t.Helper()
	c, err := client.Connect(context.Background(), client.Options{Keys: p.ring, Endpoints: []string{p.listens[i]}, Pinned: true, Timeout: time.Second})
	if err != nil {
		return nil
	}
	defer c.Close()
	s, _, err := c.Status(context.Background())
	if err != nil {
		return nil
	}
	return s
}

// leader waits until some node says that it leads.
func (p *processes) leader() int {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for i := range p.listens {
			if p.running[i] == nil {
				continue
			}
			if s := p.status(i); s != nil && s.Role == "leader" {
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

func (p *processes) write(n int) *writers { return p.writeSteadily(n, 0, p.connect(p.endpoints...)) }

// writeSteadily has so many writers wait for so long after each put.
func (p *processes) writeSteadily(n int, pause time.Duration, c *client.Client) *writers {
	w := &writers{stop: make(chan struct{})}
	w.last.Store(time.Now().UnixNano())
	for id := range n {
		w.done.Add(1)
		go func() {
			defer w.done.Done()
			for i := 0; ; i++ {
				select {
				case <-w.stop:
					return
				case <-time.After(pause):
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
	reach(t, &w.count, more, 30*time.Second)
}

// reach waits for so many more writes.
func reach(t *testing.T, count *atomic.Int64, more int64, within time.Duration) {
	t.Helper()
	begun := count.Load()
	for deadline := time.Now().Add(within); count.Load() < begun+more; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d writes within %v", count.Load()-begun, more, within)
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
	w.checkBy(p, p.connect(endpoint), endpoint)
}

func (w *writers) checkBy(p *processes, c *client.Client, endpoint string) {
	p.t.Helper()
	const readers = 64
	var reading sync.WaitGroup
	places := make(chan struct{}, readers)
	w.acknowledged.Range(func(key, revision any) bool {
		places <- struct{}{}
		reading.Go(func() {
			defer func() { <-places }()
			got, err := c.Get(context.Background(), []byte(key.(string)))
			if err != nil || string(got.Value) != "value of "+key.(string) || got.Revision != revision.(uint64) {
				p.t.Errorf("%s was acknowledged at revision %d; %s has %q at %d: %v", key, revision, endpoint, got.Value, got.Revision, err)
			}
		})
		return !p.t.Failed()
	})
	reading.Wait()
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
	t.Parallel()
	p := startCluster(t, 3)
	p.leader()
	expect := func(what, said, want string) {
		t.Helper()
		if !strings.Contains(said, want) || !strings.Contains(said, "next:") {
			t.Errorf("%s: want %q and a next step in:\n%s", what, want, said)
		}
	}

	other := &processes{t: t, dir: p.dir, listens: p.listens, endpoints: p.endpoints, initial: p.initial, running: make([]*process, 3)}
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
	}(), "belongs to cluster")
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
