package script

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim"
	"keyval/sim/disk"
	"keyval/sim/phrase"
)

// Times of a script, simulated.
const (
	tick     = 50 * time.Millisecond   // of nodes
	slice    = 10 * time.Millisecond   // how often a script looks whether it may go on
	quiet    = 2500 * time.Millisecond // without a message that matters: longer than any election timeout
	patience = 60 * time.Second        // for what a verb waits for
)

// player plays one scenario, a verb a line, and says for each what the actors
// said to each other meanwhile.
type player struct {
	scene  *sim.Scene // nil: there is no cluster yet
	filter filter
	names  *phrase.Names
	values map[string]bool      // that were written
	copies map[string]disk.Copy // of data directories, by node
	filled int                  // keys that were written by the way

	operations uint64 // that were asked for

	out     strings.Builder // what the verb being played has to say
	began   time.Duration   // when it began
	heardAt time.Duration   // the last message that matters
	until   *wanted
	pending []pending
}

// pending is a request whose answer was not waited for yet.
type pending struct {
	sim.Request
	what string // as people call it; empty: only a refusal is worth saying
}

func newPlayer() *player {
	return &player{filter: filter{on: true}, names: phrase.New(), values: map[string]bool{}, copies: map[string]disk.Copy{}}
}

func (p *player) close() {
	if p.scene != nil {
		p.scene.Close()
	}
}

// do plays one line: a verb and its words. What it returns ends in a newline,
// unless it is empty. The error is a *messages.Error about the line, or the
// *sim.Violation of an invariant.
func (p *player) do(line string) (string, error) {
	v, w, err := parse(line)
	if err != nil {
		return "", err
	}
	if p.scene == nil && !v.early {
		return "", messages.Errorf(messages.Code_INVALID, "%q needs a cluster", v.name).WithHint("begin with: cluster nodes=3")
	}
	p.out.Reset()
	if p.scene != nil {
		p.began = p.scene.Now()
	}
	if refusal := v.do(p, w); refusal != nil {
		return p.out.String(), refusal
	}
	if p.violated() {
		return p.out.String(), p.scene.Violation()
	}
	return p.out.String(), nil
}

func (p *player) violated() bool { return p.scene != nil && p.scene.Violation() != nil }

// finish checks what can only be said at the end.
func (p *player) finish() error {
	if p.scene == nil {
		return nil
	}
	if violation := p.scene.Judge(); violation != nil {
		return violation
	}
	return nil
}

// found makes the cluster and lets its processes start.
func (p *player) found(c sim.SceneConfig) {
	c.Hear, c.Note = p.hear, p.note
	p.scene = sim.NewScene(c)
	for _, server := range p.scene.Servers() {
		p.start(server)
	}
}

func (p *player) start(server sim.Server) {
	incarnation, id := server.Start()
	p.names.Own(server.Name(), incarnation, id)
}

// hear takes a message right before its actor does.
func (p *player) hear(m sim.Said) {
	body, ours := m.Message.(proto.Message)
	if !ours || !strings.HasPrefix(string(body.ProtoReflect().Descriptor().FullName()), "keyval.") {
		return
	}
	name := phrase.NameOf(body)
	switch {
	case name == "LinkUp", name == "LinkDown", name == "PeerGone" && phrase.Kind(m.To) == "transport", name == "ClientGone" && phrase.Host(m.From) != phrase.Host(m.To):
		m.From = "" // whoever hung up, the network tells
	case name == "Done":
		p.scene.Pause()
	}
	p.names.Learn(m.From, body)
	if p.until != nil && p.until.meets(name, m) {
		p.until.came = true
		p.scene.Pause()
	}
	if !noise(name) && !auditing(body, m) {
		p.heardAt = p.scene.Now()
	}
	if p.filter.passes(name, m) {
		p.say(fmt.Sprintf("%-13s -> %-13s %s", phrase.Actor(m.From), phrase.Actor(m.To), p.names.Line(body)))
	}
}

// note takes what the world did to a host.
func (p *player) note(name, text string) {
	if p.filter.on {
		p.say(fmt.Sprintf("%s: %s", name, p.names.InText(text)))
	}
}

func (p *player) say(text string) {
	fmt.Fprintf(&p.out, "%5d ms  %s\n", (p.scene.Now() - p.began).Milliseconds(), text)
}

func (p *player) answer(format string, args ...any) { fmt.Fprintf(&p.out, "= "+format+"\n", args...) }

// pass lets time go on until done, for as long as a script has patience.
func (p *player) pass(done func() bool) bool {
	for limit := p.scene.Now() + patience; !done(); {
		if p.violated() || p.scene.Now() >= limit {
			return false
		}
		p.scene.Run(p.scene.Now() + slice)
	}
	return true
}

// quieten lets time go on until nothing that matters has been said for a while.
func (p *player) quieten() bool {
	p.heardAt = p.scene.Now()
	return p.pass(func() bool { return p.scene.Now()-p.heardAt >= quiet })
}

// server is the one of this name.
func (p *player) server(name string) (sim.Server, bool) {
	all := p.scene.Servers()
	i := slices.IndexFunc(all, func(s sim.Server) bool { return s.Name() == name })
	if i < 0 {
		return sim.Server{}, false
	}
	return all[i], true
}

func (p *player) noNode(name string) *messages.Error {
	return messages.Errorf(messages.Code_INVALID, "there is no node %q", name).
		WithHint("nodes are n1 to %s", phrase.Node(len(p.scene.Servers())-1))
}
