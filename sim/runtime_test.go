package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// toy is a world with small actors in it.
type toy struct {
	*world
	hosts map[string]*host
	roots map[string]*actor.RootContext
}

func newToy(seed uint64) *toy {
	return &toy{world: newWorld(seed, nil, Filter{}), hosts: map[string]*host{}, roots: map[string]*actor.RootContext{}}
}

func (w *toy) host(name, address string) *host {
	h := &host{world: w.world, name: name, node: -1, pace: pace{rate: 1}, memory: &memory{}}
	w.hosts[name] = h
	_, w.roots[name] = h.NewSystem(address, nil)
	return h
}

func (w *toy) spawn(t *testing.T, host, name string, receive actor.ReceiveFunc) *actor.PID {
	t.Helper()
	pid, err := w.roots[host].SpawnNamed(actor.PropsFromFunc(receive), name)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestClockFiresInOrder(t *testing.T) {
	w := newToy(1)
	h := w.host("h", "h")
	var fired []string
	mark := func(name string) func() { return func() { fired = append(fired, fmt.Sprint(name, w.clock.now)) } }
	w.clock.after(3, nil, mark("c"))
	w.clock.after(1, nil, mark("a"))
	w.clock.after(3, nil, mark("d"))
	w.clock.after(2, h, mark("dead"))
	w.clock.after(9, nil, mark("late"))
	w.clock.after(1, nil, func() { w.clock.after(1, nil, mark("b")) })
	h.dead = true
	w.run(8)
	if want := []string{"a1ns", "b2ns", "c3ns", "d3ns"}; !slices.Equal(fired, want) {
		t.Errorf("fired %v, want %v", fired, want)
	}
	if w.clock.now != 8 {
		t.Errorf("the clock shows %v, want 8ns", w.clock.now)
	}
}

func TestTickerSkew(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(h *host)
		want  int
	}{
		{"fair", func(h *host) {}, 10},
		{"slow", func(h *host) { h.pace.rate = 2 }, 5},
		{"fast", func(h *host) { h.pace.rate = 0.5 }, 20},
		{"jumps ahead", func(h *host) { h.burst = 7 }, 17},
		{"frozen", func(h *host) { h.freeze() }, 0},
		{"dead", func(h *host) { h.dead = true }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newToy(1)
			h := w.host("h", "h")
			ticks := 0
			c.setup(h)
			h.Start(10*time.Millisecond, func() { ticks++ })
			w.run(100 * time.Millisecond)
			if ticks != c.want {
				t.Errorf("%d ticks in 100 ms, want %d", ticks, c.want)
			}
		})
	}
}

// TestMailboxOrder: what one actor sends another arrives in order, one message a
// step, and the queue mixes actors by the seed.
func TestMailboxOrder(t *testing.T) {
	play := func(seed uint64) []string {
		w := newToy(seed)
		w.host("h", "h")
		var got []string
		for _, name := range []string{"a", "b", "c"} {
			pid := w.spawn(t, "h", name, func(ctx actor.Context) {
				if m, ok := ctx.Message().(*messages.Tick); ok {
					got = append(got, fmt.Sprint(ctx.Self().Id, m.Elapsed))
				}
			})
			for i := range 5 {
				w.roots["h"].Send(pid, &messages.Tick{Elapsed: uint32(i)})
			}
		}
		w.run(1)
		return got
	}
	one := play(1)
	next := map[byte]byte{'a': '0', 'b': '0', 'c': '0'}
	for _, s := range one {
		if s[1] != next[s[0]] {
			t.Fatalf("%v: %s is out of order", one, s)
		}
		next[s[0]]++
	}
	if len(one) != 15 {
		t.Errorf("%d messages were received, want 15", len(one))
	}
	if again := play(1); !slices.Equal(one, again) {
		t.Errorf("the same seed gives %v, then %v", one, again)
	}
	if slices.Equal(one, play(2)) && slices.Equal(one, play(3)) {
		t.Error("three seeds give one order")
	}
}

func TestFreezeAndCrash(t *testing.T) {
	w := newToy(1)
	h := w.host("h", "h")
	got := 0
	pid := w.spawn(t, "h", "a", func(ctx actor.Context) {
		if _, ok := ctx.Message().(*messages.Tick); ok {
			got++
		}
	})
	w.run(1)
	h.freeze()
	w.roots["h"].Send(pid, &messages.Tick{})
	w.run(2)
	if got != 0 {
		t.Fatal("a frozen actor ran")
	}
	h.thaw()
	w.run(3)
	if got != 1 {
		t.Fatalf("after the thaw %d messages were received, want 1", got)
	}
	w.roots["h"].Send(pid, &messages.Tick{})
	w.kill(h, false)
	w.roots["h"].Send(pid, &messages.Tick{})
	w.run(4)
	if got != 1 {
		t.Error("a dead actor ran")
	}
}

// TestPanics: an injected panic restarts the actor and keeps its mailbox, any
// other fails the run.
func TestPanics(t *testing.T) {
	for _, injected := range []bool{true, false} {
		w := newToy(1)
		w.host("h", "h")
		got, starts := 0, 0
		pid := w.spawn(t, "h", "parent/a", func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case *actor.Started:
				starts++
			case *messages.Tick:
				if m.Elapsed == 1 && injected {
					panic(injectedPanic("test"))
				} else if m.Elapsed == 1 {
					panic("test")
				}
				got++
			}
		})
		w.roots["h"].Send(pid, &messages.Tick{Elapsed: 1})
		w.roots["h"].Send(pid, &messages.Tick{Elapsed: 2})
		w.run(1)
		if failed := w.failure != nil; failed == injected {
			t.Errorf("injected %v: the run failed: %v", injected, failed)
		}
		if injected && (got != 1 || starts != 2) {
			t.Errorf("%d messages and %d starts, want 1 and 2", got, starts)
		}
	}
}

// TestStandingStill: actors that keep each other busy do not stop time unnoticed.
func TestStandingStill(t *testing.T) {
	w := newToy(1)
	w.host("h", "h")
	w.still = 100
	pid := w.spawn(t, "h", "a", func(ctx actor.Context) {
		if _, ok := ctx.Message().(*messages.Tick); ok {
			ctx.Send(ctx.Self(), &messages.Tick{})
		}
	})
	w.roots["h"].Send(pid, &messages.Tick{})
	w.run(time.Second)
	if w.failure == nil || w.failure.Invariant != "time goes on" {
		t.Errorf("the run ended with %v", w.failure)
	}
}

func TestDelayedActor(t *testing.T) {
	w := newToy(1)
	h := w.host("h", "h")
	var at []time.Duration
	pid := w.spawn(t, "h", "slow", func(ctx actor.Context) {
		if _, ok := ctx.Message().(*messages.Tick); ok {
			at = append(at, w.clock.now)
		}
	})
	w.run(1)
	h.delay = func(_ string, m any) time.Duration { return 10 }
	w.roots["h"].Send(pid, &messages.Tick{})
	w.roots["h"].Send(pid, &messages.Tick{})
	w.run(100)
	if want := []time.Duration{11, 21}; !slices.Equal(at, want) {
		t.Errorf("received at %v, want %v", at, want)
	}
}

// wire is two nodes and a client in a toy world.
type wire struct {
	*toy
	hubs   map[string]seam.Hub
	dialer seam.Dialer
	got    map[string][]string // by host
}

const clientAddress = "client/00000000000000000000000000000001"

func newWire(t *testing.T, seed uint64) *wire {
	w := &wire{toy: newToy(seed), hubs: map[string]seam.Hub{}, got: map[string][]string{}}
	var members []*messages.Member
	for i := range 2 {
		members = append(members, &messages.Member{RaftId: idOf(i), Name: nameOf(i), Address: nameOf(i) + ":1", Incarnation: make([]byte, 16)})
	}
	for i, m := range members {
		h := w.host(m.Name, messages.NodeAddress(m.RaftId))
		h.node = i
		hear := func(ctx actor.Context) { w.hear(m.Name, ctx) }
		events := w.spawn(t, m.Name, "events", hear)
		w.spawn(t, m.Name, messages.ActorRaft, hear)
		w.spawn(t, m.Name, messages.ActorGateway, hear)
		hub, err := place{w.net, h}.Serve(h.system, m.Address, transport.Local{
			Role: messages.Role_NODE, ClusterID: make([]byte, 16), RaftID: idOf(i), Incarnation: m.Incarnation,
			Name: m.Name, Address: messages.NodeAddress(m.RaftId), Version: "test",
		}, events)
		if err != nil {
			t.Fatal(err)
		}
		hub.SetPeers(members, 0)
		hub.SetAuth(nil)
		w.hubs[m.Name] = hub
	}
	h := w.host("c1", clientAddress)
	events := w.spawn(t, "c1", "events", func(ctx actor.Context) { w.hear("c1", ctx) })
	dialer, err := place{w.net, h}.Join(h.system, transport.Local{Role: messages.Role_CLIENT, Address: clientAddress, Version: "test"}, events)
	if err != nil {
		t.Fatal(err)
	}
	w.dialer = dialer
	w.run(1)
	return w
}

func (w *wire) hear(host string, ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.StatusRequest:
		w.got[host] = append(w.got[host], fmt.Sprint("asked ", m.Request))
		ctx.Request(ctx.Sender(), &messages.StatusReply{Request: m.Request})
	case *messages.StatusReply:
		w.got[host] = append(w.got[host], fmt.Sprint("told ", m.Request, " by ", ctx.Sender().Address))
	case *messages.Propose:
		w.got[host] = append(w.got[host], fmt.Sprint("propose ", m.Seq))
	case *messages.LinkUp:
		w.got[host] = append(w.got[host], "up "+m.Endpoint)
	case *messages.LinkDown:
		w.got[host] = append(w.got[host], "down "+m.Endpoint)
	case *messages.PeerRefused:
		w.got[host] = append(w.got[host], fmt.Sprint("refused ", m.Code))
	case *messages.LossAsk:
		w.got[host] = append(w.got[host], "loss")
	case *messages.ClientGone:
		w.got[host] = append(w.got[host], "gone")
	}
}

func (w *wire) ask(request uint64) {
	w.roots["c1"].RequestWithCustomSender(actor.NewPID("node/1", messages.ActorGateway), &messages.StatusRequest{Request: request},
		w.hosts["c1"].system.NewLocalPID("events"))
}

func (w *wire) propose(seq uint64) {
	w.roots["n1"].Send(actor.NewPID("node/2", messages.ActorRaft), &messages.Propose{Origin: 1, Seq: seq})
}

func (w *wire) let(d time.Duration) { w.run(w.clock.now + d) }

func (w *wire) expect(t *testing.T, host string, want ...string) {
	t.Helper()
	if got := w.got[host]; !slices.Equal(got, want) {
		t.Errorf("%s heard %q, want %q", host, got, want)
	}
	w.got[host] = nil
}

// TestNodeThatIsNoPeerIsAnswered is the twin of the test of that name in
// actors/transport/grpc.
func TestNodeThatIsNoPeerIsAnswered(t *testing.T) {
	w := newWire(t, 1)
	w.hubs["n2"].SetPeers(nil, 0)
	answer := func() {
		w.roots["n2"].Send(actor.NewPID("node/1", messages.ActorRaft), &messages.Propose{Origin: 2, Seq: 2})
	}
	answer()
	w.let(time.Second)
	w.propose(1)
	w.let(time.Second)
	answer()
	w.let(time.Second)
	w.expect(t, "n2", "propose 1")
	w.expect(t, "n1", "propose 2")
}

func TestClientLink(t *testing.T) {
	w := newWire(t, 1)
	w.ask(1) // no link yet: lost
	w.dialer.Dial("n1:1")
	w.dialer.Dial("n1:1")
	w.let(time.Second)
	w.expect(t, "c1", "up n1:1")
	w.ask(2)
	w.ask(3)
	w.let(time.Second)
	w.expect(t, "n1", "asked 2", "asked 3")
	w.expect(t, "c1", "told 2 by node/1", "told 3 by node/1")
	w.ask(4)
	w.dialer.Hang("n1:1") // and what was under way is lost
	w.let(time.Second)
	w.expect(t, "c1", "down n1:1")
	w.expect(t, "n1", "gone")
	w.dialer.Dial("nowhere:1")
	w.let(time.Second)
	w.expect(t, "c1", "down nowhere:1")
}

func TestCutHoldsUpAndBreaks(t *testing.T) {
	w := newWire(t, 1)
	w.dialer.Dial("n1:1")
	w.let(time.Second)
	w.expect(t, "c1", "up n1:1")
	w.net.cut("c1", "n1", true)
	w.ask(1)
	w.ask(2)
	w.let(time.Second)
	w.expect(t, "n1")
	w.net.cut("c1", "n1", false)
	w.ask(3)
	w.let(time.Second)
	w.expect(t, "n1", "asked 1", "asked 2", "asked 3")
	w.got["c1"] = nil
	w.net.cut("n1", "c1", true)
	w.let(w.net.patience + time.Second)
	w.expect(t, "c1", "down n1:1")
	w.expect(t, "n1", "gone")
	w.dialer.Dial("n1:1")
	w.let(dialTimeout + time.Second)
	w.expect(t, "c1", "down n1:1")
}

func TestCrashResetsAndPowerCutDoesNot(t *testing.T) {
	for _, silently := range []bool{false, true} {
		w := newWire(t, 1)
		w.dialer.Dial("n1:1")
		w.let(time.Second)
		w.got["c1"] = nil
		w.kill(w.hosts["n1"], silently)
		w.let(time.Second)
		if silently {
			w.expect(t, "c1")
			w.let(w.net.patience)
		}
		w.expect(t, "c1", "down n1:1")
	}
}

func TestPeerFaults(t *testing.T) {
	const sent = 1000
	for _, c := range []struct {
		name     string
		quality  quality
		lo, hi   int
		ordered  bool
		repeated bool
	}{
		{"fair", quality{latency: 1000}, sent, sent, true, false},
		{"jitter", quality{latency: 1000, jitter: 5000}, sent, sent, true, false},
		{"drop", quality{latency: 1000, drop: 0.5}, sent / 3, sent * 2 / 3, true, false},
		{"duplicate", quality{latency: 1000, duplicate: 0.5}, sent * 5 / 4, sent * 7 / 4, true, true},
		{"overtake", quality{latency: 1000, jitter: 5000, overtake: 0.5}, sent, sent, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, 1)
			w.propose(0)
			w.let(time.Second) // the link is up
			w.got["n2"] = nil
			w.net.wayOf("n1", "n2").quality = c.quality
			for i := range sent {
				w.propose(uint64(i))
				w.let(100)
			}
			w.let(time.Second)
			got, seen, ordered, repeated := w.got["n2"], map[string]bool{}, true, false
			last := -1
			for _, s := range got {
				var n int
				fmt.Sscanf(s, "propose %d", &n)
				repeated = repeated || seen[s]
				seen[s], ordered, last = true, ordered && n >= last, n
			}
			if len(got) < c.lo || len(got) > c.hi || ordered != c.ordered || repeated != c.repeated {
				t.Errorf("%d of %d arrived, ordered %v, repeated %v", len(got), sent, ordered, repeated)
			}
		})
	}
}

func TestPeerLinkComesBack(t *testing.T) {
	w := newWire(t, 1)
	w.net.cut("n1", "n2", true)
	w.propose(1)
	w.let(dialTimeout + time.Second)
	w.net.cut("n1", "n2", false)
	w.let(backoffMax)
	w.propose(2)
	w.let(time.Second)
	w.expect(t, "n2", "propose 2")
}

// TestGuardStands: what the guard of production refuses ends the connection here
// too.
func TestGuardStands(t *testing.T) {
	w := newWire(t, 1)
	w.dialer.Dial("n1:1")
	w.let(time.Second)
	w.got["c1"] = nil
	w.roots["c1"].Send(actor.NewPID("node/1", messages.ActorRaft), &messages.Propose{Origin: 1})
	w.let(time.Second)
	w.expect(t, "n1", "gone")
	w.expect(t, "c1", "down n1:1")
}

// TestMachinesSpeakForThemselves: simulated connections have principals, as real ones have. A
// node on another's machine is not let in, nor a client that says it is a node.
func TestMachinesSpeakForThemselves(t *testing.T) {
	impostor := transport.Local{
		Role: messages.Role_NODE, ClusterID: make([]byte, 16), RaftID: idOf(0), Incarnation: make([]byte, 16),
		Name: nameOf(0), Address: messages.NodeAddress(idOf(0)), Version: "test",
	}
	for name, node := range map[string]int{"x1": -1, "x2": 2} {
		w := newWire(t, 1)
		h := w.host(name, impostor.Address)
		h.node = node
		events := w.spawn(t, name, "events", func(ctx actor.Context) { w.hear(name, ctx) })
		hub, err := place{w.net, h}.Serve(h.system, name+":1", impostor, events)
		if err != nil {
			t.Fatal(err)
		}
		hub.SetPeers([]*messages.Member{{RaftId: idOf(1), Name: nameOf(1), Address: nameOf(1) + ":1", Incarnation: make([]byte, 16)}}, 0)
		h.system.Root.Send(actor.NewPID(messages.NodeAddress(idOf(1)), messages.ActorRaft), &messages.LossAsk{Nonce: 1})
		w.run(2 * time.Second)
		if heard := w.got[name]; !slices.ContainsFunc(heard, func(s string) bool { return strings.Contains(s, "refused NOT_ALLOWED") }) {
			t.Errorf("%s heard %q", name, heard)
		}
		if slices.Contains(w.got[nameOf(1)], "loss") {
			t.Errorf("n2 heard %s", name)
		}
	}
}
