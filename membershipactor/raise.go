package membershipactor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/mutant"
)

// Patience of a raise, in ticks.
const (
	askAgainTicks     = 6   // a member that has not answered is asked again
	askGiveUpTicks    = 24  // a member that has not answered by then is not heard; the client still waits
	proposeAgainTicks = 20  // what was proposed may be lost
	giveUpTicks       = 160 // nobody knows what became of it
)

// A member is asked several times before it counts as one that is not heard.
const _ = uint(askGiveUpTicks - 3*askAgainTicks)

// effect is what a raise wants done.
type effect interface{ effect() }

type (
	// askLevel asks a member what it supports.
	askLevel struct {
		peer messages.RaftID
		ask  *messages.LevelAsk
	}
	// propose hands a command of this node to the raft of the leader.
	propose struct {
		leader  messages.RaftID
		command []byte
	}
	// answer answers a client.
	answer struct {
		to       asker
		reply    *messages.ClusterReply
		change   string // what it asked for, for people
		by       string // who asked, likewise
		proposed bool   // it came as far as the log
	}
)

func (askLevel) effect() {}
func (propose) effect()  {}
func (answer) effect()   {}

// raises has the cluster's level raised. The danger is a member whose software does not
// understand the new level: it would stop, and with enough of them so would the cluster.
// So every member is asked first, and must answer now. Any node may do this, since the
// command takes effect only if level and members still are those that were asked about.
//
// Invariants: at most one raise is under way. Nothing was proposed before all members
// answered for the process that runs now.
type raises struct {
	self     messages.RaftID
	supports uint32 // the highest level that this node understands
	round    uint64 // answers to another one are late
	view     View
	current  *raise

	effects []effect
}

// raise is one request on its way.
type raise struct {
	asker   asker
	request uint64
	by      string // the user who asked; empty: there are no keys
	asked   int    // times; each is answered, since the link counts answers
	want    uint32 // 0: the newest that any member supports
	before  uint32 // the level when it was asked for
	voices  []voice
	command *messages.RaiseLevel // nil: not all have answered
	told    messages.RaftID      // the leader that has it; 0: it was never proposed
	age     uint32               // ticks since the members were asked, or since it was ready to be proposed
}

// voice is what a member said.
type voice struct {
	member   *messages.Member
	answered bool
	min, max uint32
}

func (r *raises) emit(e effect) { r.effects = append(r.effects, e) }

func (r *raises) take() []effect {
	out := r.effects
	r.effects = nil
	return out
}

// onRequest takes what a client asks for. One that comes again is the same.
func (r *raises) onRequest(from asker, m *messages.ClusterRequest) {
	c, want := r.current, m.GetLevelRaise()
	switch {
	case c != nil && c.asker == from && c.request == m.Request:
		c.asked++
	case want == nil:
		r.refuse(from, m.Request, messages.Errorf(messages.Code_UNSUPPORTED, "the request is of a kind this node does not know").WithHint("upgrade the nodes first"))
	case c != nil, r.view.Level == 0:
		r.refuse(from, m.Request, messages.Errorf(messages.Code_BUSY, "this node is starting, or has the level raised for somebody else"))
	case want.Level != 0 && want.Level < r.view.Level:
		r.refuse(from, m.Request, messages.Errorf(messages.Code_INVALID, "the cluster is at level %d, which never goes back to %d", r.view.Level, want.Level))
	default:
		r.begin(&raise{asker: from, request: m.Request, by: m.Principal, asked: 1, want: want.Level, before: r.view.Level})
	}
}

func (r *raises) begin(c *raise) {
	r.round++
	r.current = c
	for _, m := range r.view.Members {
		v := voice{member: m}
		if m.RaftId == r.self || mutant.RaisedUnasked {
			v.answered, v.min, v.max = true, messages.LevelMin, r.supports
		}
		c.voices = append(c.voices, v)
	}
	r.ask()
	r.decide()
}

func (r *raises) ask() {
	for _, v := range r.current.voices {
		if !v.answered {
			r.emit(askLevel{v.member.RaftId, &messages.LevelAsk{Round: r.round}})
		}
	}
}

// onAnswer takes what a member supports.
func (r *raises) onAnswer(from messages.RaftID, m *messages.LevelAnswer) {
	c := r.current
	if c == nil || c.command != nil || m.Round != r.round {
		return
	}
	for i := range c.voices {
		if v := &c.voices[i]; v.member.RaftId == from {
			v.answered, v.min, v.max = true, m.Min, m.Max
		}
	}
	r.decide()
}

// decide proposes the raise once all members have answered, or refuses it.
func (r *raises) decide() {
	c, newest := r.current, r.view.Level
	for _, v := range c.voices {
		if !v.answered {
			return
		}
		newest = max(newest, v.max)
	}
	c.want = cmp.Or(c.want, newest)
	switch against := c.against(); {
	case c.want == r.view.Level:
		r.end(nil)
	case len(against) > 0:
		r.end(c.unsafe(against))
	default:
		c.command = &messages.RaiseLevel{From: r.view.Level, To: c.want, Members: messages.RaftIDs(r.view.Members)}
		c.age = 0
		r.propose()
	}
}

// against names the members that do not support what is wanted, or were not heard.
func (c *raise) against() []string {
	var names []string
	for _, v := range c.voices {
		name := messages.MemberName([]*messages.Member{v.member}, v.member.RaftId)
		switch {
		case !v.answered:
			names = append(names, name+" does not answer")
		case c.want != 0 && (c.want < v.min || c.want > v.max):
			names = append(names, fmt.Sprintf("%s supports %s", name, messages.LevelsText(v.min, v.max)))
		}
	}
	return names
}

func (c *raise) unsafe(against []string) *messages.Error {
	to := ""
	if c.want != 0 {
		to = fmt.Sprintf(" to %d", c.want)
	}
	return messages.Errorf(messages.Code_UNSAFE, "the cluster's level is not raised%s: %s", to, strings.Join(against, ", ")).
		WithHint("a node that does not understand the level would stop: upgrade or start it, then raise again")
}

func (r *raises) propose() {
	c := r.current
	if r.view.Leader == 0 {
		return
	}
	c.told = r.view.Leader
	r.emit(propose{c.told, messages.NodeCommand(&messages.Operation{Kind: &messages.Operation_RaiseLevel{RaiseLevel: c.command}})})
}

// onView hears of members, level and leader.
func (r *raises) onView(v View) {
	before := r.view
	r.view = v
	c := r.current
	if c == nil {
		return
	}
	switch {
	case c.command != nil && v.Level >= c.want:
		r.end(nil)
	case v.Level != c.before || !slices.Equal(messages.RaftIDs(v.Members), messages.RaftIDs(before.Members)):
		r.end(messages.Errorf(messages.Code_CONFLICT, "level or members of the cluster changed meanwhile; the level is %d", v.Level).WithHint("raise again"))
	case c.command != nil && v.Leader != 0 && v.Leader != c.told:
		r.propose()
	}
}

func (r *raises) onTick(elapsed uint32) {
	c := r.current
	if c == nil {
		return
	}
	c.age += elapsed
	switch {
	case c.command == nil && c.age >= askGiveUpTicks:
		r.end(c.unsafe(c.against()))
	case c.command == nil && messages.Crossed(c.age, elapsed, askAgainTicks):
		r.ask()
	case c.command != nil && c.age >= giveUpTicks && c.told == 0:
		r.end(messages.Errorf(messages.Code_NO_LEADER, "nobody leads; nothing was proposed").WithHint("raise again when kvctl status shows a leader"))
	case c.command != nil && c.age >= giveUpTicks:
		r.end(messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "the raise was proposed, and is not applied here yet").
			WithHint("kvctl cluster level shows it; to raise again does no harm"))
	case c.command != nil && messages.Crossed(c.age, elapsed, proposeAgainTicks):
		r.propose()
	}
}

// end answers the client. A nil error: the level is what was wanted.
func (r *raises) end(why *messages.Error) {
	c := r.current
	r.current = nil
	for range c.asked {
		r.reply(c, why)
	}
}

func (r *raises) refuse(to asker, request uint64, why *messages.Error) {
	r.reply(&raise{asker: to, request: request, before: r.view.Level}, why)
}

func (r *raises) reply(to *raise, why *messages.Error) {
	reply := &messages.ClusterReply{Request: to.request, Level: r.view.Level, LevelBefore: to.before}
	if why != nil {
		reply.Code, reply.Message, reply.Hint = why.Code, why.Message, why.Hint
	}
	change := "raise the cluster's level"
	if to.want != 0 {
		change += fmt.Sprintf(" to %d", to.want)
	}
	r.emit(answer{to.asker, reply, change, to.by, to.told != 0})
}
