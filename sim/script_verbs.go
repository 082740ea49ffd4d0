package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyval/actors"
	"keyval/messages"
)

const scriptNodesMax = 7

// verb is one word that a script knows.
type verb struct {
	name    string
	usage   string // its words
	about   string
	args    [2]int   // least and most words that are neither options nor flags; -1: any number
	options []string // words of the form name=value
	flags   []string
	early   bool // it needs no cluster
	do      func(*Script, words) *messages.Error
}

// words are what stands behind a verb.
type words struct {
	args    []string
	options map[string]string
	flags   map[string]bool
}

// verbs is every verb of a script. It is filled in init, since one of them reads it.
var verbs []verb

func init() {
	verbs = []verb{
		{name: "cluster", usage: "nodes=N [ttl=DURATION] [checkpoint=ENTRIES] [keep=ENTRIES] [chunk=BYTES] [audit=TICKS]",
			about:   "found a cluster and wait until it rests; ttl is that of clients' sessions, keep what logs keep behind a checkpoint, chunk the size of a snapshot's pieces",
			options: []string{"nodes", "ttl", "checkpoint", "keep", "chunk", "audit"}, early: true, do: (*Script).cluster},
		{name: "trace", usage: "on|off [ACTOR,...] [MESSAGE,...]", about: "show what is said, all or by these actors and in these messages; heartbeats and ticks only if named",
			args: [2]int{1, -1}, early: true, do: (*Script).trace},
		{name: "put", usage: "KEY VALUE [at=NODE] [nowait]", about: "write, through a client that knows all nodes, or only one (client c2 knows n2)",
			args: [2]int{2, 2}, options: []string{"at"}, flags: []string{"nowait"}, do: (*Script).put},
		{name: "get", usage: "KEY [at=NODE] [revision=N] [stale] [nowait]", about: "read; stale: what the node at hand has",
			args: [2]int{1, 1}, options: []string{"at", "revision"}, flags: []string{"stale", "nowait"}, do: (*Script).get},
		{name: "delete", usage: "KEY [at=NODE] [nowait]", about: "delete a key",
			args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: (*Script).delete},
		{name: "await", about: "wait for the answers to what was asked with nowait", do: func(s *Script, _ words) *messages.Error { return s.await() }},
		{name: "until", usage: "MESSAGE [to=MACHINE] [from=MACHINE]", about: "let time pass until an actor has taken such a message (Write, MsgAppResp, ...)",
			args: [2]int{1, 1}, options: []string{"to", "from"}, do: (*Script).waitFor},
		{name: "tick", usage: "N", about: "let N ticks of 50 ms pass", args: [2]int{1, 1}, do: (*Script).tick},
		{name: "stabilize", about: "let time pass until nothing more is said but heartbeats", do: (*Script).stabilize},
		{name: "leader", about: "who leads, as each node knows", do: (*Script).leaders},
		{name: "status", about: "what each node has", do: (*Script).status},
		{name: "crash", usage: "NODE", about: "kill the process: what it wrote stays", args: [2]int{1, 1}, do: ofNode(true, (*Script).crash)},
		{name: "power-cut", usage: "NODE", about: "cut the power: what was not synced is lost", args: [2]int{1, 1}, do: ofNode(true, (*Script).powerCut)},
		{name: "wipe", usage: "NODE", about: "empty the data directory of a node that is down", args: [2]int{1, 1}, do: ofNode(false, (*Script).wipe)},
		{name: "restart", usage: "NODE", about: "start a node that is down", args: [2]int{1, 1}, do: ofNode(false, (*Script).restart)},
		{name: "freeze", usage: "NODE", about: "let a process stand still", args: [2]int{1, 1}, do: ofNode(true, (*Script).freeze)},
		{name: "thaw", usage: "NODE", about: "let it go on", args: [2]int{1, 1}, do: ofNode(true, (*Script).thaw)},
		{name: "partition", usage: "MACHINES | MACHINES...", about: "let nothing through between the groups; clients are machines too (c, c2)",
			args: [2]int{3, -1}, do: (*Script).partition},
		{name: "heal", about: "end all partitions", do: (*Script).heal},
		{name: "panic", usage: "NODE ACTOR", about: "let the next message to an actor (gateway, session, ...) end in a panic",
			args: [2]int{2, 2}, do: (*Script).panicNext},
	}
	verbs = append(verbs, snapshotVerbs...)
	verbs = append(verbs, verb{name: "help", about: "list the verbs", early: true, do: func(s *Script, _ words) *messages.Error { s.out.WriteString(ScriptVerbs()); return nil }})
}

// ScriptVerbs lists what a script can say, a line a verb.
func ScriptVerbs() string {
	var b strings.Builder
	for _, v := range verbs {
		fmt.Fprintf(&b, "%s\n    %s\n", strings.TrimSpace(v.name+" "+v.usage), v.about)
	}
	return b.String()
}

func parseVerb(line string) (verb, words, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return verb{}, words{}, messages.Errorf(messages.Code_INVALID, "a line without a verb")
	}
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == fields[0] })
	if i < 0 {
		return verb{}, words{}, messages.Errorf(messages.Code_INVALID, "unknown verb %q", fields[0]).WithHint("the verb help lists all")
	}
	v := verbs[i]
	w := words{options: map[string]string{}, flags: map[string]bool{}}
	for _, word := range fields[1:] {
		name, value, isOption := strings.Cut(word, "=")
		switch {
		case isOption && slices.Contains(v.options, name):
			w.options[name] = value
		case slices.Contains(v.flags, word):
			w.flags[word] = true
		default:
			w.args = append(w.args, word)
		}
	}
	if len(w.args) < v.args[0] || v.args[1] >= 0 && len(w.args) > v.args[1] {
		return verb{}, words{}, messages.Errorf(messages.Code_INVALID, "the verb is used as: %s", strings.TrimSpace(v.name+" "+v.usage))
	}
	return v, w, nil
}

// number is an option's value, or what holds without it.
func (w words) number(option string, without uint64) (uint64, *messages.Error) {
	text, given := w.options[option]
	if !given {
		return without, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, messages.Errorf(messages.Code_INVALID, "%s=%q is no number", option, text)
	}
	return n, nil
}

func (s *Script) cluster(w words) *messages.Error {
	nodes, refusal := w.number("nodes", 3)
	// Checkpoints come when a script orders them, not with time; audits too.
	options := actors.Options{TickInterval: 50 * time.Millisecond, CheckpointTicks: 1 << 30}
	numbers := map[string]uint64{"audit": 1 << 30}
	for _, name := range []string{"checkpoint", "keep", "chunk", "audit"} {
		n, bad := w.number(name, numbers[name])
		if refusal == nil {
			refusal = bad
		}
		numbers[name] = n
	}
	options.CheckpointEntries, options.SnapshotChunkBytes, options.AuditTicks = numbers["checkpoint"], int(numbers["chunk"]), uint32(numbers["audit"])
	options.Raft.LogEntriesKeep, options.Raft.LogEntriesMax = numbers["keep"], numbers["keep"]
	var ttl time.Duration
	if text, given := w.options["ttl"]; given {
		var err error
		if ttl, err = time.ParseDuration(text); err != nil || ttl <= 0 {
			return messages.Errorf(messages.Code_INVALID, "ttl=%q is no duration", text)
		}
	}
	switch {
	case s.run != nil:
		return messages.Errorf(messages.Code_CONFLICT, "there is a cluster already")
	case refusal != nil:
		return refusal
	case nodes < 1 || nodes > scriptNodesMax:
		return messages.Errorf(messages.Code_INVALID, "a scenario has 1 to %d nodes, not %d", scriptNodesMax, nodes)
	}
	s.found(int(nodes), ttl, options)
	return s.stabilize(words{})
}

func (s *Script) trace(w words) *messages.Error {
	if w.args[0] != "on" && w.args[0] != "off" {
		return messages.Errorf(messages.Code_INVALID, "trace is on or off, not %q", w.args[0])
	}
	f := filter{on: w.args[0] == "on"}
	for _, word := range strings.FieldsFunc(strings.Join(w.args[1:], ","), func(r rune) bool { return r == ',' }) {
		switch {
		case slices.Contains(kinds, word):
			f.actors = append(f.actors, word)
		case word[0] >= 'A' && word[0] <= 'Z':
			f.messages = append(f.messages, word)
		default:
			return messages.Errorf(messages.Code_INVALID, "%q is neither an actor nor a message", word).
				WithHint("actors are %s; messages begin with a capital", strings.Join(kinds, ", "))
		}
	}
	s.filter = f
	return nil
}

// clientAt is the client that a verb means.
func (s *Script) clientAt(w words) (*customer, *messages.Error) {
	at, given := w.options["at"]
	if given && s.machine(at) == nil {
		return nil, s.noNode(at)
	}
	return s.client(at), nil
}

func (s *Script) noNode(name string) *messages.Error {
	return messages.Errorf(messages.Code_INVALID, "there is no node %q", name).
		WithHint("nodes are n1 to %s", nameOf(len(s.run.machines)-1))
}

func (s *Script) put(w words) *messages.Error {
	key, value := w.args[0], w.args[1]
	if s.values[value] {
		return messages.Errorf(messages.Code_INVALID, "the value %q was written before", value).
			WithHint("every value is written once, so that what is read says which write it was")
	}
	c, refusal := s.clientAt(w)
	if refusal != nil {
		return refusal
	}
	s.values[value] = true
	return s.submit(c, "put "+key, writing(&messages.Operation{
		Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: []byte(value)}},
	}), !w.flags["nowait"])
}

func (s *Script) delete(w words) *messages.Error {
	c, refusal := s.clientAt(w)
	if refusal != nil {
		return refusal
	}
	return s.submit(c, "delete "+w.args[0], writing(&messages.Operation{
		Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(w.args[0])}},
	}), !w.flags["nowait"])
}

func (s *Script) get(w words) *messages.Error {
	c, refusal := s.clientAt(w)
	if refusal != nil {
		return refusal
	}
	revision, refusal := w.number("revision", 0)
	if refusal != nil {
		return refusal
	}
	read := &messages.Read{Revision: revision, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(w.args[0])}}}
	if w.flags["stale"] {
		read.Consistency = messages.Consistency_STALE
	}
	return s.submit(c, "get "+w.args[0], &messages.Submit{Read: read}, !w.flags["nowait"])
}

func (s *Script) waitFor(w words) *messages.Error {
	s.until = &wanted{name: w.args[0], to: w.options["to"], from: w.options["from"]}
	s.pass(func() bool { return s.until.came })
	came := s.until.came
	s.until = nil
	if !came && s.run.world.failure == nil {
		return messages.Errorf(messages.Code_TIMED_OUT, "no %s within %v", w.args[0], scriptPatience)
	}
	return nil
}

func (s *Script) tick(w words) *messages.Error {
	n, err := strconv.ParseUint(w.args[0], 10, 16)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "%q is no number of ticks", w.args[0])
	}
	until := s.run.world.clock.now + time.Duration(n)*s.run.swarm.options.TickInterval
	s.pass(func() bool { return s.run.world.clock.now >= until })
	return nil
}

func (s *Script) stabilize(words) *messages.Error {
	if !s.quieten() && s.run.world.failure == nil {
		s.answer("it does not come to rest within %v", scriptPatience)
	}
	return nil
}

func (s *Script) leaders(words) *messages.Error {
	for _, m := range s.run.machines {
		if m.up() {
			s.answer("%s knows as leader: %s", m.name(), replicaName(m.leader))
		}
	}
	return nil
}

func (s *Script) status(words) *messages.Error {
	for _, m := range s.run.machines {
		if !m.up() {
			s.answer("%s down", m.name())
			continue
		}
		_, last, _ := m.disk.Durable()
		know := m.host.memory
		s.answer("%s %s term=%d durable=%d commit=%d applied=%d", m.name(), m.role(), know.term, last, know.commit, know.applied)
	}
	return nil
}

// ofNode is a verb about one node, which must be up or down.
func ofNode(up bool, do func(*Script, *machine)) func(*Script, words) *messages.Error {
	return func(s *Script, w words) *messages.Error {
		m := s.machine(w.args[0])
		switch {
		case m == nil:
			return s.noNode(w.args[0])
		case up && !m.up():
			return messages.Errorf(messages.Code_CONFLICT, "%s is down", m.name())
		case !up && m.up():
			return messages.Errorf(messages.Code_CONFLICT, "%s is up", m.name())
		}
		do(s, m)
		return nil
	}
}

func (s *Script) crash(m *machine) {
	s.run.world.note(m.host, "the process is killed")
	m.crash(false)
}

func (s *Script) powerCut(m *machine) {
	s.run.world.note(m.host, "the power is cut")
	m.crash(true)
}

func (s *Script) wipe(m *machine) {
	m.disk.LoseMedia()
	s.note(m.name(), "the data directory is empty")
}

func (s *Script) restart(m *machine) { s.start(m) }

func (s *Script) freeze(m *machine) {
	s.run.world.note(m.host, "the process stands still")
	s.run.world.net.freeze(m.host)
}

func (s *Script) thaw(m *machine) {
	s.run.world.note(m.host, "the process goes on")
	m.host.thaw()
}

// partition cuts every way between machines of different groups.
func (s *Script) partition(w words) *messages.Error {
	groups := [][]string{nil}
	for _, word := range w.args {
		if word == "|" {
			groups = append(groups, nil)
			continue
		}
		if s.machine(word) == nil && !s.isClient(word) {
			return messages.Errorf(messages.Code_INVALID, "there is no machine %q", word).
				WithHint("nodes are n1, n2, ...; the client c knows them all, c1 knows n1, c2 knows n2, ...")
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], word)
	}
	for i, group := range groups {
		for _, other := range groups[i+1:] {
			for _, a := range group {
				for _, b := range other {
					s.run.world.net.cut(a, b, true)
					s.run.world.net.cut(b, a, true)
				}
			}
		}
	}
	return nil
}

// isClient reports whether a client is named, which starts it.
func (s *Script) isClient(name string) bool {
	digits, is := strings.CutPrefix(name, "c")
	if at := "n" + digits; is && (digits == "" || s.machine(at) != nil) {
		s.client(strings.TrimSuffix(at, "n"))
		return true
	}
	return false
}

func (s *Script) heal(words) *messages.Error {
	s.run.world.net.mend(s.run.swarm.way)
	return nil
}

func (s *Script) panicNext(w words) *messages.Error {
	m := s.machine(w.args[0])
	if m == nil {
		return s.noNode(w.args[0])
	}
	if !m.up() {
		return messages.Errorf(messages.Code_CONFLICT, "%s is down", m.name())
	}
	name := strings.TrimPrefix(w.args[1], messages.ActorNode+"/")
	i := slices.IndexFunc(fragile, func(a *messages.Actor) bool { return a.Kind() == name })
	if i < 0 {
		return messages.Errorf(messages.Code_INVALID, "%q is no actor that may fail and start anew", w.args[1]).
			WithHint("%s are", strings.Join(kindsOf(fragile), ", "))
	}
	m.host.sabotage = fragile[i]
	return nil
}
