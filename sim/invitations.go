package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// Nodes are invited, and strangers take what is kept for those: a client who is an operator makes
// invitations, lists and removes them, and a host without keys, on which several takers are, comes
// with their tokens to any node. What is sealed is of no meaning here: nobody opens it.

// inviter is the client who invites.
type inviter struct {
	*customer
	made []*invitation // asked for here, and in the cluster that was backed up
}

// invitation is one that was asked for, and what has become of it for those who look on.
type invitation struct {
	asked   *messages.NewInvitation
	proof   []byte
	foreign bool   // of the cluster that was backed up
	known   bool   // the inviter was told that it is there
	leaving bool   // he has asked to remove it
	removed bool   // and was told that it is gone
	taker   string // who was given what is sealed; empty: nobody
	dropped bool   // he was told that what was sealed is gone
}

const (
	inviterName  = "inviter"
	strangerName = "stranger"
	takersMax    = 3
	keptMax      = 5 // invitations, about
)

// What became of invitations.
const (
	cellInvited   = "invitation-made"
	cellUninvited = "invitation-removed"
	cellTaken     = "invitation-taken"
	cellTakenOnce = "invitation-kept-from-a-second-taker"
	cellRetaken   = "invitation-given-again"
	cellDropped   = "invitation-dropped"
	cellGone      = "invitation-gone-or-expired"
)

// drawInvitations draws how often something is done about invitations, in runs with roles.
func (s *swarm) drawInvitations(chance *rand.Rand) {
	if s.rights > 0 {
		s.invitations = pick(chance, 100*time.Millisecond, 300*time.Millisecond, 2*time.Second)
	}
}

// welcome has nodes invited, and strangers come, until the world is healed.
func (r *run) welcome() {
	if r.swarm.invitations == 0 {
		return
	}
	p := &inviter{customer: r.customer(inviterName)}
	if r.options.restored != nil {
		p.made = r.options.restored.invited
	}
	r.inviter = p
	p.start()
	r.regularly("invitations", 0, r.swarm.invitations, func() {
		if r.check.reference != nil && len(p.under) < 2 {
			r.by("invitations", p.act)
		}
	})
	r.stranger = newStranger(r)
	r.regularly(strangerName, 0, r.swarm.invitations, func() { r.by(strangerName, r.stranger.strike) })
}

// act is the next thing that the inviter does.
func (p *inviter) act() {
	chance := p.run.chaos
	there := slices.DeleteFunc(slices.Clone(p.made), func(i *invitation) bool { return !i.known || i.leaving })
	switch n := chance.IntN(8); {
	case n == 0:
		p.list()
	case len(there) >= keptMax, n < 3 && len(there) > 0: // they are part of each checkpoint that is compared
		p.remove(pick(chance, there...))
	default:
		p.invite()
	}
}

func (p *inviter) change(m *messages.ChangeInvitation) *operation {
	return p.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_Invitation{Invitation: m}}})
}

// invite makes one.
func (p *inviter) invite() {
	random := reader{p.run.chaos}
	some := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	i := &invitation{proof: some(32)}
	proof := sha256.Sum256(i.proof)
	ttl := pick[uint64](p.run.chaos, 1000, 3000, 10_000, 60_000)
	i.asked = &messages.NewInvitation{Id: some(messages.InvitationIDSize), Node: fmt.Sprintf("guest%d", len(p.made)), TtlMs: ttl, Proof: proof[:], Sealed: some(1 + p.run.chaos.IntN(64))}
	p.made = append(p.made, i)
	p.change(&messages.ChangeInvitation{Kind: &messages.ChangeInvitation_Add{Add: i.asked}}).then = func(d *messages.Done) {
		if d.Cluster.GetCode() == messages.Code_OK {
			i.known = true
			p.run.coverage[cellInvited]++
		}
	}
}

// remove takes one back.
func (p *inviter) remove(i *invitation) {
	i.leaving = true
	p.change(&messages.ChangeInvitation{Kind: &messages.ChangeInvitation_Remove{Remove: i.asked.Id}}).then = func(d *messages.Done) {
		if d.Cluster.GetCode() == messages.Code_OK {
			i.removed = true
			p.run.coverage[cellUninvited]++
		}
	}
}

// list asks some node which there are: it tells nothing that is of use to a thief.
func (p *inviter) list() {
	op := p.submit(&messages.Submit{Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_InvitationQuery{InvitationQuery: &messages.InvitationQuery{}}}})
	op.then = func(d *messages.Done) {
		for _, told := range d.Cluster.GetInvitations() {
			i := p.of(told.Id)
			if i == nil || i.foreign || told.Node != i.asked.Node || len(told.Proof)+len(told.Taker) > 0 || len(told.Sealed) > 1 {
				p.run.world.fail("invitations are told without their secrets", "%v", messages.Line(told))
			}
		}
	}
}

func (p *inviter) of(id []byte) *invitation {
	if n := slices.IndexFunc(p.made, func(i *invitation) bool { return bytes.Equal(i.asked.Id, id) }); n >= 0 {
		return p.made[n]
	}
	return nil
}

// stranger is a host without keys. Its takers know every token.
type stranger struct {
	run    *run
	host   *host
	dialer seam.Dialer
	nodes  map[string]string // the logical address of the node at an endpoint, of links that are up
	asks   map[uint64]*redemption
	asked  uint64
}

// redemption is one question of a taker.
type redemption struct {
	of      *invitation
	node    string // that is asked: its logical address
	taker   string
	good    bool // it has the proof, and names the right node
	done    bool // he says that he has what was sealed
	at      time.Duration
	known   bool // as of then, of the invitation
	removed bool
	dropped bool
	his     bool // the log had said that he has taken it
}

func newStranger(r *run) *stranger {
	t := &stranger{run: r, nodes: map[string]string{}, asks: map[uint64]*redemption{}}
	t.host = &host{world: r.world, name: strangerName, node: -1, keyless: true, pace: pace{rate: 1}}
	random := reader{stream(r.options.Seed, strangerName)}
	var id [messages.ClientIDSize]byte
	random.Read(id[:])
	seams := t.host.seams(random)
	system, root := seams.Runtime.NewSystem(messages.ClientAddress(id[:]), seams.Logger)
	if _, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return t }), strangerName); err != nil {
		panic(fmt.Sprintf("sim: spawn the stranger: %v", err))
	}
	var err error
	local := transport.Local{Role: messages.Role_CLIENT, Address: system.Address(), Version: "simulated"}
	if t.dialer, err = (place{r.world.net, t.host}).Join(system, local, system.NewLocalPID(strangerName)); err != nil {
		panic(fmt.Sprintf("sim: the stranger joins: %v", err))
	}
	return t
}

// strike goes to one or two nodes with a token: those who come at once are mostly different takers.
func (t *stranger) strike() {
	chance := t.run.chaos
	if len(t.run.inviter.made) == 0 {
		return
	}
	recent := t.run.inviter.made[max(0, len(t.run.inviter.made)-6):]
	i := pick(chance, recent...)
	if chance.IntN(8) == 0 {
		i = pick(chance, t.run.inviter.made...)
	}
	for range 1 + chance.IntN(2) {
		endpoint := pick(chance, t.run.endpoints()...)
		taker := string(bytes.Repeat([]byte{byte(1 + chance.IntN(takersMax))}, messages.InvitationIDSize))
		if i.taker != "" && chance.IntN(2) == 0 {
			taker = i.taker
		}
		if chance.IntN(16) == 0 {
			t.dialer.Hang(endpoint)
		}
		t.ask(endpoint, i, taker)
	}
}

// ask asks a node, if there is a link to it; else there will be one.
func (t *stranger) ask(endpoint string, i *invitation, taker string) {
	node, up := t.nodes[endpoint]
	if !up {
		t.dialer.Dial(endpoint)
		return
	}
	chance, takes := t.run.chaos, sha256.Sum256([]byte(taker))
	log := t.run.check.model.invitations.of[string(i.asked.Id)]
	q := &redemption{of: i, node: node, taker: taker, good: true, at: t.run.world.clock.now, known: i.known, removed: i.removed, dropped: i.dropped,
		his: log != nil && log.taker == string(takes[:])}
	m := &messages.InvitationAsk{Id: i.asked.Id, Proof: i.proof, Taker: []byte(taker), Node: i.asked.Node}
	switch n := chance.IntN(24); {
	case n == 0:
		m.Proof, q.good = []byte("guessed"), false
	case n == 1:
		m.Node, q.good = "another", false
	case n < 6 && i.taker == taker:
		m.Done, q.done = true, true
	}
	t.asked++
	m.Request, t.asks[t.asked] = t.asked, q
	t.host.system.Root.RequestWithCustomSender(actor.NewPID(node, messages.ActorMembership), m, t.host.system.NewLocalPID(strangerName))
}

func (t *stranger) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.LinkUp:
		if m.RaftId > 0 {
			t.nodes[m.Endpoint] = messages.NodeAddress(m.RaftId)
		}
	case *messages.LinkDown:
		delete(t.nodes, m.Endpoint)
	case *messages.InvitationAnswer:
		q := t.asks[m.Request]
		delete(t.asks, m.Request)
		if q == nil {
			return
		}
		id, _ := messages.ParseNodeAddress(q.node)
		node, there := t.run.check.holder(id)
		if !there || t.run.servers[node].lost() {
			return // a node whose data the world has altered
		}
		t.judge(q, m, nameOf(node))
		if at := m.Leader.GetAddress(); at != "" && m.Code == messages.Code_REDIRECT {
			t.run.by(strangerName, func() { t.ask(at, q.of, q.taker) })
		}
	}
}

// judge holds an answer against what the log says, and what was answered before.
func (t *stranger) judge(q *redemption, m *messages.InvitationAnswer, node string) {
	i, log := q.of, t.run.check.model.invitations.of[string(q.of.asked.Id)]
	say := func(invariant, why string) {
		t.run.world.fail(invariant, "%s answers %s, who asked at %v for %s with taker %x: %s; by the log %+v", node, messages.Line(m), q.at, i.asked.Node, q.taker[:1], why, log)
	}
	switch code := m.Code; {
	case len(m.Sealed) > 0:
		t.given(q, m, say)
	case code == messages.Code_OK && !q.done:
		say("an invitation is given whole", "there is nothing in it")
	case code == messages.Code_OK:
		i.dropped = true
		t.run.coverage[cellDropped]++
	case !m.Final, code == messages.Code_BUSY, code == messages.Code_OUTCOME_UNKNOWN, !q.good:
	case log == nil, log.until() <= t.run.wallMS():
		t.run.coverage[cellGone]++
	case q.done: // he has not taken it
	case q.his && log.sealed:
		say("a taker gets again what he has taken", "it is his, and still there")
	case q.known && log.taker == "":
		say("who comes first is let in", "nobody has taken it, and it is there")
	default:
		t.run.coverage[cellTakenOnce]++
	}
}

// given: what is sealed is given to one taker only, and not behind its end.
func (t *stranger) given(q *redemption, m *messages.InvitationAnswer, say func(invariant, why string)) {
	i, takes := q.of, sha256.Sum256([]byte(q.taker))
	log := t.run.check.model.invitations.ever[string(i.asked.Id)]
	switch {
	case i.foreign:
		say("a restored cluster has no invitations", "it is of the cluster that was backed up")
	case !q.good:
		say("who has no token gets nothing", "the proof or the node was wrong")
	case !bytes.Equal(m.Sealed, i.asked.Sealed):
		say("an invitation is given whole", "it is not what was sealed")
	case i.taker != "" && i.taker != q.taker:
		say("an invitation has one taker", fmt.Sprintf("it was given to %x", i.taker[:1]))
	case log == nil || log.taker != string(takes[:]):
		say("an invitation has one taker", "the log does not say that he has taken it")
	case q.removed:
		say("a removed invitation is not given", "the inviter was told before that it is gone")
	case q.dropped:
		say("a dropped invitation is not given", "its taker was told before that it is gone")
	case q.at.Milliseconds() >= log.until():
		say("an expired invitation is not given", fmt.Sprintf("it was over at %d ms", log.until()))
	case i.taker == "":
		t.run.coverage[cellTaken]++
	default:
		t.run.coverage[cellRetaken]++
	}
	i.taker = q.taker
}

func (r *run) wallMS() int64 { return r.world.clock.now.Milliseconds() }

// modelInvitations are the invitations by the log.
type modelInvitations struct {
	version uint64
	of      map[string]*modelInvitation // by id
	ever    map[string]*modelInvitation // of those that were removed too
}

// modelInvitation is one of them.
type modelInvitation struct {
	expires, takenAt int64  // in ms
	taker            string // a hash; empty: nobody
	sealed           bool   // it holds what is sealed
}

// until is when it is given no more, in ms: its taker may ask again for a minute at least.
func (i *modelInvitation) until() int64 {
	if i.taker == "" {
		return i.expires
	}
	return max(i.expires, i.takenAt+60_000)
}

// write takes what an entry makes of them. It says what must not be.
func (m *modelInvitations) write(w *messages.WriteInvitations) error {
	if w.Version != m.version+1 {
		return nil
	}
	p := w.Put
	was := m.of[string(p.GetId())]
	if p != nil && was == nil && len(m.of)-len(w.Remove) >= 64 {
		return nil
	}
	m.version++
	for _, id := range w.Remove {
		delete(m.of, string(id))
	}
	if p == nil {
		return nil
	}
	switch {
	case was == nil && len(p.Taker) > 0:
		return fmt.Errorf("invitation %x is taken and not there: %s", p.Id, messages.Line(p))
	case was != nil && was.taker != "" && was.taker != string(p.Taker):
		return fmt.Errorf("invitation %x is taken by %x, and was by %x", p.Id, p.Taker, was.taker)
	case was != nil && was.taker == "" && p.TakenAtMs >= p.ExpiresMs:
		return fmt.Errorf("invitation %x is taken though it is over: %s", p.Id, messages.Line(p))
	}
	i := &modelInvitation{expires: p.ExpiresMs, takenAt: p.TakenAtMs, taker: string(p.Taker), sealed: len(p.Sealed) > 0}
	m.of[string(p.Id)], m.ever[string(p.Id)] = i, i
	return nil
}
