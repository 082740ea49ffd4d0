package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
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
	"keyval/messages"
)

// What a besieged node may cost, and how well it has to serve meanwhile. The
// figures are wide, since all of it shares the test's machine: what they catch is
// growth by what strangers do.
const (
	idleKiBMax     = 160               // of memory, for one idle client's connection
	besiegedMax    = 1200 << 10        // KiB of memory at the worst moment
	afterMax       = 400 << 10         // KiB of memory more than before, once all have gone
	descriptorsMax = 16                // open files more than before, once all have gone: tables and segments
	goroutinesMax  = 256               // more than a node that nobody attacked; a leak is thousands
	writeP99Max    = 3 * time.Second   // of a well-behaved client meanwhile
	writeGapMax    = 6 * time.Second   // without any of its writes acknowledged
	siegeMax       = 60 * time.Second  // and a millisecond a random frame: it goes on that long
	settleMax      = 30 * time.Second  // until connections are counted out
	quietMax       = 120 * time.Second // until memory is given back to the system
)

// siegeFrames is how many random frames KEYVAL_HOSTILE says to send. Below 100,000
// each crafted frame comes once, else a thousand of them. A siege measures memory
// and delays for minutes, so it is asked for: make hostile.
func siegeFrames(t *testing.T) (random, crafted int64) {
	said := os.Getenv("KEYVAL_HOSTILE")
	if said == "" {
		t.Skip("a siege is asked for by KEYVAL_HOSTILE=frames; make hostile")
	}
	n, err := strconv.ParseInt(said, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("KEYVAL_HOSTILE=%s is no number of frames", said)
	}
	if n < 100_000 {
		return n, 1
	}
	return n, 1000
}

// TestHostileStrangers: a node under load is attacked with everything that can
// come out of a socket. It serves on, in the same process, and gives back what the
// attack cost.
func TestHostileStrangers(t *testing.T) {
	random, crafted := siegeFrames(t)
	p := startCluster(t, 3)
	leader := p.leader()
	v := p.volunteer(p.endpoints[leader])
	v.reach(t, 2000)
	before := p.vitals(leader)
	t.Logf("before: %v", before)

	s := newSiege(t, p, leader)
	idle := s.idlers(1000)
	costs := p.vitals(leader)
	perIdler := float64(costs.rss-before.rss) / 1000
	t.Logf("with 1,000 idle clients: %v: %.0f KiB for one", costs, perIdler)
	if perIdler > idleKiBMax {
		t.Errorf("an idle client costs %.0f KiB, %d are allowed", perIdler, idleKiBMax)
	}

	v.lap()
	began := time.Now()
	s.besiege(random, crafted)
	took := time.Since(began)
	p99, gap := v.lap()
	worst := p.vitals(leader)
	t.Logf("besieged for %v: %s", took.Round(time.Millisecond), s.tally())
	t.Logf("at the end of it: %v", worst)
	t.Logf("the well-behaved client: %d writes, p99 %v, longest gap %v", v.count.Load(), p99, gap)
	if p99 > writeP99Max || gap > writeGapMax {
		t.Errorf("writes took up to %v (p99), and none was acknowledged for %v", p99, gap)
	}
	if worst.peak > besiegedMax {
		t.Errorf("the node took %d KiB, %d are allowed", worst.peak, besiegedMax)
	}
	s.leave(idle)
	p.recovers(leader, before, v)
	v.end()
	p.cleanClient(leader, v)
	p.quiet(leader)
	p.sameGoroutines(leader)
}

// TestCraftedAttacks: each attack that somebody thought of, one after the other, without keys and
// with those of a user. The node and its cluster go on as if nothing had been.
func TestCraftedAttacks(t *testing.T) {
	for name, begin := range map[string]func(*testing.T) *processes{
		"without keys":       func(t *testing.T) *processes { return startCluster(t, 3) },
		"with a user's keys": func(t *testing.T) *processes { return secureCluster(t, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			p := begin(t)
			target := (p.leader() + 1) % 3
			c := p.connect(p.endpoints...)
			if _, err := c.Put(context.Background(), []byte("k"), []byte("v")); err != nil {
				t.Fatal(err)
			}
			before := p.status(target)
			s := newSiege(t, p, target)
			ctx, stop := context.WithTimeout(s.ctx, 3*time.Second)
			defer stop()
			s.running.Go(func() { s.bareSockets(ctx, random(1)) })
			s.running.Go(func() { s.drip(ctx) })
			s.running.Wait()
			s.craft(1)
			s.cancel()
			t.Log(s.tally())
			for key, want := range map[string]string{"k": "v", hijacked: ""} {
				if got, err := c.Get(context.Background(), []byte(key)); err != nil && want != "" || string(got.Value) != want {
					t.Errorf("%s is %q, %v", key, got.Value, err)
				}
			}
			if _, err := c.Put(context.Background(), []byte("k"), []byte("w")); err != nil {
				t.Error(err)
			}
			if after := p.status(target); after == nil || after.Pid != before.Pid || len(after.Members) != len(before.Members) || after.Term > before.Term+1 {
				t.Errorf("the node was %v, and is %v", before, after)
			}
		})
	}
}

// recovers waits until the node has given back what the attack cost.
func (p *processes) recovers(i int, before vitals, v *volunteer) {
	p.t.Helper()
	var now vitals
	for deadline := time.Now().Add(settleMax); ; time.Sleep(100 * time.Millisecond) {
		if now = p.vitals(i); now.descriptors <= before.descriptors+descriptorsMax {
			break
		}
		if time.Now().After(deadline) {
			p.t.Errorf("%d files are open after %v, before there were %d", now.descriptors, settleMax, before.descriptors)
			break
		}
	}
	v.reach(p.t, 1000)
	for deadline := time.Now().Add(quietMax); ; time.Sleep(time.Second) {
		if now = p.vitals(i); now.rss <= before.rss+afterMax {
			break
		}
		if time.Now().After(deadline) {
			p.t.Errorf("the node keeps %d KiB, before it was %d", now.rss, before.rss)
			break
		}
	}
	p.t.Logf("after: %v", now)
}

// quiet tells, of a long run, what is left when nobody asks for anything, beside the
// nodes that nobody attacked: they hold the same log and the same rows.
func (p *processes) quiet(attacked int) {
	if os.Getenv("KEYVAL_HOSTILE") == "" {
		return
	}
	for _, after := range []time.Duration{0, 30 * time.Second, quietMax} {
		time.Sleep(after)
		for i := range p.running {
			p.t.Logf("quiet for another %v, n%d (attacked: %v): %v", after, i+1, i == attacked, p.vitals(i))
		}
	}
}

// cleanClient attaches anew and reads what was acknowledged meanwhile.
func (p *processes) cleanClient(i int, v *volunteer) {
	p.t.Helper()
	c := p.connect(p.endpoints[i])
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.Put(ctx, []byte("after"), []byte("all")); err != nil {
		p.t.Errorf("a clean client's put: %v", err)
	}
	for id := range v.last {
		key := fmt.Sprintf("v/%d", id)
		got, err := c.Get(ctx, []byte(key))
		if err != nil || string(got.Value) != strconv.FormatInt(v.last[id].Load(), 10) {
			p.t.Errorf("%s is %q, %d was acknowledged: %v", key, got.Value, v.last[id].Load(), err)
		}
	}
	if got, err := c.Get(ctx, []byte(hijacked)); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		p.t.Errorf("a stranger wrote in another's name: %q, %v", got.Value, err)
	}
}

// sameGoroutines compares the attacked node's goroutines with another's. Asking
// for them ends both processes.
func (p *processes) sameGoroutines(attacked int) {
	p.t.Helper()
	counts := make([]int, len(p.running))
	time.Sleep(time.Second) // the goroutines that ran actors end when they are idle for a while
	for i, c := range p.running {
		select {
		case <-c.ended:
			p.t.Fatalf("n%d ended by itself: %v\n%s", i+1, c.err, &c.log)
		default:
		}
		p.signal(i, syscall.SIGQUIT)
		<-c.ended
		said := c.log.String()
		counts[i] = strings.Count(said, "\ngoroutine ")
		c.log.text.Truncate(strings.Index(said, "SIGQUIT"))
		p.set(i, nil)
	}
	p.t.Logf("goroutines: %v, n%d was attacked", counts, attacked+1)
	if others := slices.Min(counts); others == 0 || counts[attacked] > others+goroutinesMax {
		p.t.Errorf("the attacked node has %d goroutines, another %d", counts[attacked], others)
	}
}

// vitals are what the system says of a process.
type vitals struct {
	pid         int
	rss, peak   int // KiB
	descriptors int
	threads     int
}

func (v vitals) String() string {
	return fmt.Sprintf("pid %d, RSS %.1f MiB (peak %.1f), %d files, %d threads", v.pid, float64(v.rss)/1024, float64(v.peak)/1024, v.descriptors, v.threads)
}

// vitals fails the test if node i is not the process any more that was started.
func (p *processes) vitals(i int) vitals {
	p.t.Helper()
	v := vitals{pid: p.running[i].Process.Pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.pid))
	if err != nil {
		p.t.Fatalf("n%d is gone: %v\n%s", i+1, err, &p.running[i].log)
	}
	for line := range strings.Lines(string(text)) {
		for name, field := range map[string]*int{"VmRSS:": &v.rss, "VmHWM:": &v.peak, "Threads:": &v.threads} {
			if value, ok := strings.CutPrefix(line, name); ok {
				*field, _ = strconv.Atoi(strings.Fields(value)[0])
			}
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.pid))
	if err != nil || v.rss == 0 {
		p.t.Fatalf("n%d: %v, %+v", i+1, err, v)
	}
	v.descriptors = len(files)
	return v
}

// volunteer is a well-behaved client that writes all the time.
type volunteer struct {
	count atomic.Int64
	last  [8]atomic.Int64 // what each of its keys was acknowledged to hold
	stop  chan struct{}
	done  sync.WaitGroup

	mu    sync.Mutex
	took  []time.Duration // since the last lap
	acked time.Time
	gap   time.Duration
}

func (p *processes) volunteer(endpoint string) *volunteer {
	v := &volunteer{stop: make(chan struct{}), acked: time.Now()}
	c := p.connect(endpoint)
	for id := range v.last {
		v.done.Go(func() { v.write(p.t, c, id) })
	}
	return v
}

func (v *volunteer) write(t *testing.T, c *client.Client, id int) {
	for n := int64(1); ; n++ {
		select {
		case <-v.stop:
			return
		default:
		}
		began := time.Now()
		if _, err := c.Put(context.Background(), fmt.Appendf(nil, "v/%d", id), strconv.AppendInt(nil, n, 10)); err != nil {
			t.Errorf("a well-behaved client's put: %v", err)
			return
		}
		v.last[id].Store(n)
		v.count.Add(1)
		v.mu.Lock()
		now := time.Now()
		v.took = append(v.took, now.Sub(began))
		v.gap, v.acked = max(v.gap, now.Sub(v.acked)), now
		v.mu.Unlock()
	}
}

// lap is how writes went since the last lap.
func (v *volunteer) lap() (p99, gap time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	gap = max(v.gap, time.Since(v.acked))
	if len(v.took) > 0 {
		slices.Sort(v.took)
		p99 = v.took[len(v.took)*99/100]
	}
	v.took, v.gap = nil, 0
	return p99, gap
}

func (v *volunteer) reach(t *testing.T, more int64) {
	t.Helper()
	reach(t, &v.count, more, 60*time.Second)
}

func (v *volunteer) end() {
	close(v.stop)
	v.done.Wait()
}

// siege is an attack under way.
type siege struct {
	t       *testing.T
	address string      // of the node under attack
	keys    *tls.Config // of who attacks; nil: there are none
	node    uint64      // its RaftID
	cluster []byte      // as anybody is told
	peers   []lawful    // the other nodes' proofs, as anybody is told
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	frames, connections, crafted, garbage, sessions, lorises atomic.Int64
}

// lawful is what a node proves who it is with.
type lawful struct {
	id          uint64
	incarnation []byte
	starts      *messages.Starts
}

func newSiege(t *testing.T, p *processes, target int) *siege {
	s := &siege{t: t, address: p.endpoints[target]}
	if p.ring != nil {
		s.keys = &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pairIn(t, p.authority.Of(p.ring.Principal()), transport.UserKey)}}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	t.Cleanup(s.cancel)
	node := p.running[target]
	go func() {
		select {
		case <-node.ended:
			t.Errorf("the node ended: %v", node.err)
			s.cancel()
		case <-s.ctx.Done():
		}
	}()
	for i, e := range p.endpoints {
		in, err := s.dial(e)
		if err != nil {
			t.Fatal(err)
		}
		w, err := in.hello(clientHello(random(uint64(i))))
		if err != nil {
			t.Fatal(err)
		}
		in.hang()
		if i == target {
			s.node, s.cluster = w.RaftId, w.ClusterId
		} else {
			s.peers = append(s.peers, s.proofs(e, w))
		}
	}
	return s
}

// proofs are a node's, as it tells them nodes alone: without keys anybody may say that he
// is one that nobody knows yet. With keys they have to be made up.
func (s *siege) proofs(endpoint string, w *messages.Welcome) lawful {
	if s.keys != nil {
		return lawful{id: w.RaftId, incarnation: make([]byte, messages.IncarnationSize)}
	}
	in, err := s.dial(endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	defer in.hang()
	told, err := in.hello(&messages.Hello{Protocol: messages.ProtocolVersion, Role: messages.Role_NODE, ClusterId: w.ClusterId, RaftId: 1 << 20, Incarnation: make([]byte, messages.IncarnationSize), To: w.RaftId, Version: "hostile"})
	if err != nil || len(w.Incarnation) > 0 {
		s.t.Fatalf("%v; a client was told %x", err, w.Incarnation)
	}
	return lawful{w.RaftId, told.Incarnation, told.Starts}
}

func (s *siege) tally() string {
	return fmt.Sprintf("%d random and %d crafted frames over %d connections, %d times garbage on bare sockets, %d attaches, %d sockets held by drips",
		s.frames.Load(), s.crafted.Load(), s.connections.Load(), s.garbage.Load(), s.sessions.Load(), s.lorises.Load())
}

// besiege attacks in all ways at once for ten seconds, and then goes on without
// the floods until all frames are sent.
func (s *siege) besiege(frames, crafted int64) {
	ctx, stop := context.WithCancel(s.ctx)
	floods, ebb := context.WithTimeout(ctx, 10*time.Second)
	defer ebb()
	for i := range 8 {
		s.running.Go(func() { s.frozen(floods, random(100+uint64(i))) })
	}
	s.running.Go(func() { s.attachMany(floods, random(400)) })
	s.running.Go(func() { s.askOnly(floods, random(500)) })
	for i := range 4 {
		s.running.Go(func() { s.bareSockets(ctx, random(200+uint64(i))) })
	}
	s.running.Go(func() { s.drip(ctx) })
	s.running.Go(func() { s.churn(ctx, random(300)) })

	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() { s.atRandom(ctx, random(600+uint64(i)), (frames+3)/4) })
	}
	work.Go(func() { s.craft(crafted) })
	late := time.AfterFunc(siegeMax+time.Duration(frames)*time.Millisecond, func() {
		s.t.Errorf("the siege takes too long: %s", s.tally())
		s.cancel()
	})
	defer late.Stop()
	<-floods.Done()
	work.Wait()
	stop()
	s.running.Wait()
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }
