package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// standingStillMax bounds the steps of one instant. Time does not go on while actors
// keep each other busy.
const standingStillMax = 5_000_000

// world is everything outside of the actors, for one run.
type world struct {
	seed    uint64
	chance  *rand.Rand // of tickers and of costs
	queue   *queue
	clock   *clock
	net     *network
	trace   *trace
	steps   uint64
	still   int      // how many steps an instant may have; standingStillMax
	instant struct { // how many steps the current instant has seen
		at    time.Duration
		steps int
	}
	cost    time.Duration // a step takes up to this
	watch   watcher
	stepped func() // between two steps; may be nil
	ear     *ear   // of a scene; nil: nobody listens
	failure *Violation
	end     time.Duration // nothing goes on from here; 0: for ever
}

// over reports that the world stands still for good.
func (w *world) over() bool { return w.failure != nil || w.end > 0 && w.clock.now >= w.end }

// watcher is told what happens in a world.
type watcher interface {
	// received: the actor is about to be given the message.
	received(h *host, actorID string, message any)
	// departs: a node sends a message to another node.
	departs(h *host, to messages.RaftID, body proto.Message)
	// died: a process ended itself, or one of its actors panicked.
	died(h *host, why string)
	// injected: an actor of this name is made to panic.
	injected(h *host, into *messages.Actor)
	// counted: a fault met a host.
	counted(h *host, fault string)
}

// stream is an independent source of chance for one purpose.
func stream(seed uint64, purpose string) *rand.Rand {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	copy(key[8:], purpose)
	return rand.New(rand.NewChaCha8(key))
}

// reader is a source of chance as an io.Reader.
type reader struct{ chance *rand.Rand }

func (r reader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.chance.Uint32())
	}
	return len(p), nil
}

func newWorld(seed uint64, text io.Writer, only Filter) *world {
	w := &world{
		seed:   seed,
		still:  standingStillMax,
		chance: stream(seed, "world"),
		queue:  &queue{chance: stream(seed, "queue")},
		clock:  &clock{},
		trace:  newTrace(text, only),
	}
	w.net = &network{
		world: w, chance: stream(seed, "network"), ways: map[[2]string]*way{},
		fair: quality{latency: time.Millisecond}, patience: 4 * time.Second,
	}
	return w
}

// run lets the world go on until an instant, or until a run has failed.
func (w *world) run(until time.Duration) {
	if w.end > 0 {
		until = min(until, w.end)
	}
	for w.failure == nil && !w.ear.heardEnough() {
		next, planned := w.clock.next()
		if next > w.clock.now || !planned {
			if m := w.queue.pop(); m != nil {
				w.step(m)
				continue
			}
		}
		if !planned || next > until {
			w.clock.now = max(w.clock.now, until)
			return
		}
		w.clock.fire()
	}
}

// step runs one message of a mailbox.
func (w *world) step(m *mailbox) {
	w.steps++
	if w.instant.steps++; w.instant.at != w.clock.now {
		w.instant.at, w.instant.steps = w.clock.now, 0
	} else if w.instant.steps > w.still {
		w.fail("time goes on", "%s of %s and others do not come to rest", m.id, m.host.name)
	}
	w.ear.turn(m)
	m.step()
	w.ear.turn(nil)
	if w.stepped != nil {
		w.stepped()
	}
	if w.cost > 0 {
		w.clock.now += time.Duration(w.chance.Int64N(int64(w.cost)))
	}
}

// observe sees every message right before its actor does.
func (w *world) observe(h *host, actorID string, message any, sender *actor.PID, system bool) {
	from := ""
	if sender != nil {
		from = sender.Id
	}
	w.trace.message(w.clock.now, h, actorID, from, message)
	w.ear.received(h, actorID, message)
	if attach, is := message.(*messages.Attach); is && sender != nil {
		w.trace.names.Own(w.net.nameAt(sender.Address), attach.Client, 0)
	}
	if w.watch != nil {
		w.watch.received(h, actorID, message)
	}
	if _, starts := message.(*actor.Started); (starts || !system) && h.sabotaged(actorID) {
		into := h.sabotage
		h.sabotage = nil
		if w.watch != nil {
			w.watch.injected(h, into)
		}
		panic(injectedPanic(injectedCause + w.trace.name(message)))
	}
}

func (w *world) departs(h *host, to messages.RaftID, body proto.Message) {
	if w.watch != nil {
		w.watch.departs(h, to, body)
	}
}

// note records what the world did to a host.
func (w *world) note(h *host, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.did(h.name, text)
	w.ear.noted(h.name, text)
}

// did remembers what the world did, to a host or to "world".
func (w *world) did(name, text string) {
	w.trace.note(w.clock.now, name, text)
	w.trace.last.did(w.clock.now, name, text)
}

// met counts a fault that met a host.
func (w *world) met(h *host, fault string) {
	if w.watch != nil {
		w.watch.counted(h, fault)
	}
}

// panicked ends the run: no actor panics unless the world makes it.
func (w *world) panicked(h *host, actorID string, reason any, stack []byte) {
	if injected, ok := reason.(injectedPanic); ok {
		w.note(h, "%s panics as planned: %s", actorID, string(injected))
		return
	}
	w.fail("no panic", "%s of %s panicked: %v\n%s", actorID, h.name, reason, stack)
}

// injectedPanic is a panic that the world caused.
type injectedPanic string

const injectedCause = "injected on a "

// fatal is seam.World's Fatal for a host: the process is dead from here on.
func (h *host) fatal(reason error) {
	if h.dead {
		return
	}
	h.world.note(h, "the process ends itself: %v", reason)
	h.world.kill(h, false)
	if h.world.watch != nil {
		h.world.watch.died(h, reason.Error())
	}
}

// kill ends a host. silently: its server goes with it, so that nobody resets
// its connections.
func (w *world) kill(h *host, silently bool) {
	if h.dead {
		return
	}
	h.dead = true
	h.parked = nil
	w.net.lose(h, silently)
}

// Violation is the first invariant that a run broke.
type Violation struct {
	Invariant string
	Detail    string
	Facts     []string      // those that contradict each other, with who saw them
	At        time.Duration // of simulated time
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%s is violated at %v: %s", v.Invariant, v.At, v.Detail)
}

// fact is what somebody said or had.
type fact struct {
	who  string
	at   time.Duration
	what string
}

func (f fact) String() string { return f.who + " " + f.what }

// fail ends the run. The facts among args are those that contradict each other.
func (w *world) fail(invariant, format string, args ...any) {
	if w.failure != nil {
		return
	}
	w.failure = &Violation{Invariant: invariant, Detail: fmt.Sprintf(format, args...), At: w.clock.now}
	for _, arg := range args {
		if f, is := arg.(fact); is {
			w.failure.Facts = append(w.failure.Facts, fmt.Sprintf("%s %s: %s", stamp(f.at), f.who, f.what))
		}
	}
	w.trace.note(w.clock.now, "world", w.failure.Error())
}
