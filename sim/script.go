package sim

import (
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/actors"
	"keyval/messages"
)

// Times of a script, simulated.
const (
	scriptSlice    = 10 * time.Millisecond   // how often a script looks whether it may go on
	scriptQuiet    = 1500 * time.Millisecond // without a message that matters: longer than any election timeout
	scriptPatience = 60 * time.Second        // for what a verb waits for
)

// Script plays one scenario, a verb a line, and says for each what the actors
// said to each other meanwhile. It is a run without chaos: what goes wrong is what
// the script says. All checkers look on, and actors take turns instead of being
// drawn, so that a change to one of them shuffles little else.
//
// One simulation a process: between NewScript and Close no other runs.
type Script struct {
	run    *run // nil: there is no cluster yet
	filter filter
	names  *names
	values map[string]bool // that were written
	filled int             // keys that were written by the way

	out       strings.Builder // what the verb being played has to say
	began     time.Duration   // when it began
	heardAt   time.Duration   // the last message that matters
	until     *wanted
	pending   []*operation
	operators map[*operation]string // what people call a pending operation
	jitter    io.Reader             // raft's own
	closed    bool
}

// wanted is the message that a script waits for.
type wanted struct {
	name, to, from string // to and from: a host; empty: any
	came           bool
}

// NewScript starts a scenario.
func NewScript() *Script {
	door.Lock()
	return &Script{
		filter: filter{on: true}, names: newNames(), values: map[string]bool{},
		operators: map[*operation]string{}, jitter: cryptorand.Reader,
	}
}

// Close ends the scenario.
func (s *Script) Close() {
	if !s.closed {
		s.closed = true
		cryptorand.Reader = s.jitter
		door.Unlock()
	}
}

// Do plays one line: a verb and its words. What it returns ends in a newline,
// unless it is empty. The error is an *messages.Error about the line, or the
// *Violation of an invariant.
func (s *Script) Do(line string) (string, error) {
	v, w, err := parseVerb(line)
	if err != nil {
		return "", err
	}
	if s.run == nil && !v.early {
		return "", messages.Errorf(messages.Code_INVALID, "%q needs a cluster", v.name).WithHint("begin with: cluster nodes=3")
	}
	s.out.Reset()
	if s.run != nil {
		s.began = s.run.world.clock.now
	}
	if refusal := v.do(s, w); refusal != nil {
		return s.out.String(), refusal
	}
	if s.run != nil && s.run.world.failure != nil {
		return s.out.String(), s.run.world.failure
	}
	return s.out.String(), nil
}

// Finish checks what can only be said at the end.
func (s *Script) Finish() error {
	if s.run == nil {
		return nil
	}
	s.run.history.close()
	if s.run.world.failure == nil {
		s.run.history.judge()
	}
	if s.run.world.failure != nil {
		return s.run.world.failure
	}
	return nil
}

// found makes the cluster and lets its processes start.
func (s *Script) found(nodes int, ttl time.Duration, options actors.Options) {
	cryptorand.Reader = patience{s}
	r := newRun(Options{Nodes: nodes})
	r.swarm.ttl, r.swarm.clients, r.clients = ttl, 0, nil
	r.swarm.options = options
	r.world.watch, r.world.queue.chance = onlooker{r}, nil
	r.world.ear = newEar(s.hear, s.note)
	s.run = r
	for _, m := range r.servers {
		s.start(m)
	}
}

func (s *Script) start(m *server) {
	m.start()
	if identity, err := m.disk.Identity(); err == nil {
		s.names.data(m.name(), identity.Incarnation)
	}
}

// patience is raft's source of jitter in a script. Where nobody leads, the node
// with the lowest name loses patience first: n1 wins the first election.
type patience struct{ script *Script }

func (p patience) Read(out []byte) (int, error) {
	var node byte
	if r := p.script.run; r != nil && r.world.ear.speaker != nil {
		node = byte(max(0, r.world.ear.speaker.host.node))
	}
	for i := range out {
		out[i] = node // below the 10 ticks that raft draws from
	}
	return len(out), nil
}

// onlooker watches as a run does, but what ends processes is the script's affair.
type onlooker struct{ *run }

func (o onlooker) died(h *host, _ string) {
	if h.node < 0 {
		return
	}
	s := o.servers[h.node]
	o.world.clock.after(0, nil, func() {
		if s.host == h {
			s.crash(false)
		}
	})
}

// hear takes a message right before its actor does.
func (s *Script) hear(m said) {
	body, ours := m.message.(proto.Message)
	if !ours || !strings.HasPrefix(string(body.ProtoReflect().Descriptor().FullName()), "keyval.") {
		return
	}
	name := nameOfMessage(body)
	switch {
	case name == "LinkUp", name == "LinkDown", name == "ClientGone" && hostOf(m.from) != hostOf(m.to):
		m.from = "" // whoever hung up, the network tells
	case name == "Done":
		s.run.world.ear.enough = true
	}
	s.names.learn(m.from, body)
	if s.until != nil && s.until.meets(name, m) {
		s.until.came = true
		s.run.world.ear.enough = true
	}
	if !noise[name] && !auditing(body, m) {
		s.heardAt = s.run.world.clock.now
	}
	if s.filter.passes(name, m) {
		s.say(fmt.Sprintf("%-13s -> %-13s %s", actorName(m.from), actorName(m.to), s.names.phrase(body)))
	}
}

// note takes what the world did to a host.
func (s *Script) note(name, text string) {
	if s.filter.on {
		s.say(fmt.Sprintf("%s: %s", name, s.names.inText(text)))
	}
}

func (s *Script) say(text string) {
	fmt.Fprintf(&s.out, "%5d ms  %s\n", (s.run.world.clock.now - s.began).Milliseconds(), text)
}

func (s *Script) answer(format string, args ...any) { fmt.Fprintf(&s.out, "= "+format+"\n", args...) }

// pass lets time go on until done, for as long as a script has patience.
func (s *Script) pass(done func() bool) bool {
	w := s.run.world
	for limit := w.clock.now + scriptPatience; !done(); {
		if w.failure != nil || w.clock.now >= limit {
			return false
		}
		w.ear.enough = false
		w.run(w.clock.now + scriptSlice)
	}
	return true
}

// quieten lets time go on until nothing that matters has been said for a while.
func (s *Script) quieten() bool {
	s.heardAt = s.run.world.clock.now
	return s.pass(func() bool { return s.run.world.clock.now-s.heardAt >= scriptQuiet })
}

func (w *wanted) meets(name string, m said) bool {
	return !w.came && name == w.name && (w.to == "" || hostOf(m.to) == w.to) && (w.from == "" || hostOf(m.from) == w.from)
}

func hostOf(speaker string) string {
	host, _, _ := strings.Cut(speaker, " ")
	return host
}

// noise is said all the time, and all the same; a script must ask to hear it.
var noise = map[string]bool{
	"Tick": true, "Ticked": true, "Flush": true, "HearTicks": true, "LogTimeAdvanced": true,
	"MsgHeartbeat": true, "MsgHeartbeatResp": true,
	"Submit": true, "Done": true, // the verb, and its answer
	"AuditAsk": true, "AuditAnswer": true,
}

// auditing reports whether a message is of the audits that go on for ever.
func auditing(body proto.Message, m said) bool {
	if at, is := body.(*messages.ReadAt); is {
		return len(at.Reads) > 0 && at.Reads[0].Session == messages.ActorAudit
	}
	return kindOf(m.to) == "audit" || kindOf(m.from) == "audit"
}

// filter is what a script wants to hear: of all actors or some, all messages but
// noise, or some.
type filter struct {
	on       bool
	actors   []string // kinds of actors, at either end; empty: all
	messages []string // empty: all but noise
}

func (f filter) passes(name string, m said) bool {
	switch {
	case !f.on,
		len(f.messages) == 0 && noise[name],
		len(f.messages) > 0 && !slices.Contains(f.messages, name):
		return false
	}
	return len(f.actors) == 0 || slices.Contains(f.actors, kindOf(m.from)) || slices.Contains(f.actors, kindOf(m.to))
}

// client is the client that knows only the node named, or all nodes for none.
// It starts when it is first named.
func (s *Script) client(at string) *customer {
	name := "c" + strings.TrimPrefix(at, "n")
	for _, c := range s.run.clients {
		if c.name == name {
			return c
		}
	}
	endpoints := s.run.endpoints()
	if at != "" {
		endpoints = []string{s.server(at).listen()}
	}
	c := &customer{run: s.run, number: len(s.run.clients), name: name}
	s.run.clients = append(s.run.clients, c)
	c.startWith(endpoints)
	return c
}

// server is the node of this name, or nil.
func (s *Script) server(name string) *server {
	for _, m := range s.run.servers {
		if m.name() == name {
			return m
		}
	}
	return nil
}

// submit asks the cluster for something, and waits for the answer unless it is
// not wanted yet.
func (s *Script) submit(c *customer, what string, submit *messages.Submit, wait bool) *messages.Error {
	c.submit(submit)
	op := c.run.history.lastOf(c.number)
	s.pending, s.operators[op] = append(s.pending, op), what
	if wait {
		return s.await()
	}
	return nil
}

// await waits for everything that was asked.
func (s *Script) await() *messages.Error {
	s.pass(func() bool {
		return !slices.ContainsFunc(s.pending, func(op *operation) bool { return op.done == nil })
	})
	for _, op := range s.pending {
		if op.done == nil {
			return messages.Errorf(messages.Code_TIMED_OUT, "no answer to %s within %v", s.operators[op], scriptPatience)
		}
		if what := s.operators[op]; what != "" || op.done.Write.GetCode() != messages.Code_OK {
			s.answer("%s: %s", what, s.names.phrase(op.done))
		}
	}
	s.pending = nil
	return nil
}
