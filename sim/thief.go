package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// thief is a user who knows the ClientIDs of others, and what they have asked, from the log. At
// one node after the other he attaches as one of them, writes under a number that was used and
// under one that was not, and so asks for what came of the first. He is never told, and nothing
// that he sends has an effect: a session is its user's. What the model of the log makes of his
// commands is computed anew in model.admit.
type thief struct {
	run    *run
	host   *host
	dialer seam.Dialer
	nodes  map[string]string // the logical address of the node at an endpoint, of links that are up
	booty  []byte            // the ClientID of whom he is at
	at     string            // the node that he has come to for it
	given  uint64            // numbers of his own for Attach
	stolen int               // values that he would have written
}

const (
	thiefName  = "thief"
	actorThief = "thief"
)

// What became of his tries: he has a session actor of his own, and is denied.
const (
	cellUntaken  = "theft-of-a-session"
	cellUnstolen = "theft-of-a-number"
)

// haunt lets the thief try at random times, until the world is healed.
func (r *run) haunt() {
	t := &thief{run: r, nodes: map[string]string{}}
	t.host = &host{world: r.world, name: thiefName, node: -1, pace: pace{rate: 1}}
	random := reader{stream(r.options.Seed, thiefName)}
	var id [messages.ClientIDSize]byte
	random.Read(id[:])
	seams := t.host.seams(random)
	system, root := seams.Runtime.NewSystem(messages.ClientAddress(id[:]), seams.Logger)
	if _, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return t }), actorThief); err != nil {
		panic(fmt.Sprintf("sim: spawn the thief: %v", err))
	}
	var err error
	local := transport.Local{Role: messages.Role_CLIENT, Address: system.Address(), Version: "simulated"}
	if t.dialer, err = (place{r.world.net, t.host}).Join(system, local, system.NewLocalPID(actorThief)); err != nil {
		panic(fmt.Sprintf("sim: the thief joins: %v", err))
	}
	r.thief = t
	r.regularly(thiefName, 0, r.swarm.rights, t.strike)
}

// strike goes to some node for some session.
func (t *thief) strike() {
	r := t.run
	endpoint := pick(r.chaos, r.endpoints()...)
	node, up := t.nodes[endpoint]
	if !up {
		t.dialer.Dial(endpoint)
		return
	}
	sessions := slices.Sorted(maps.Keys(r.check.model.sessions))
	if len(sessions) == 0 {
		return
	}
	t.given++
	t.at = node
	t.booty = []byte(pick(r.chaos, sessions...))
	t.ask(node, messages.ActorGateway, &messages.Attach{Client: t.booty, Request: t.given})
}

func (t *thief) ask(node, actorID string, m any) {
	t.host.system.Root.RequestWithCustomSender(actor.NewPID(node, actorID), m, t.host.system.NewLocalPID(actorThief))
}

func (t *thief) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.LinkUp:
		if m.RaftId > 0 {
			t.nodes[m.Endpoint] = messages.NodeAddress(m.RaftId)
		}
	case *messages.LinkDown:
		delete(t.nodes, m.Endpoint)
	case *messages.Attached:
		if m.Code == messages.Code_OK && m.Session != "" && m.Request == t.given {
			t.run.coverage[cellUntaken]++
			t.use(m.Session)
		}
	case *messages.WriteReply:
		switch m.Code {
		case messages.Code_OK:
			t.run.world.fail("a session is its user's", "a thief is told of request %d of session %x: %v", m.Request, t.booty, m)
		case messages.Code_NOT_ALLOWED:
			t.run.coverage[cellUnstolen]++
		}
	}
}

// use writes under two numbers of a session.
func (t *thief) use(session string) {
	s := t.run.check.model.sessions[string(t.booty)]
	if s == nil {
		return
	}
	var numbers []uint64
	if used := slices.Sorted(maps.Keys(s.done)); len(used) > 0 {
		numbers = append(numbers, used[len(used)-1])
	}
	numbers = append(numbers, s.ackedBelow+1+t.run.chaos.Uint64N(4))
	for _, n := range numbers {
		t.stolen++
		c := &messages.Command{Session: t.booty, Seq: n, AckedBelow: min(n, s.ackedBelow), Operations: []*messages.Operation{{Kind: &messages.Operation_Put{
			Put: &messages.Put{Key: []byte("k0"), Value: fmt.Appendf(nil, "stolen-%d", t.stolen)}}}}}
		command, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		if err != nil {
			panic(fmt.Sprintf("sim: marshal a command: %v", err))
		}
		t.ask(t.at, session, &messages.Write{Request: n, Command: command})
	}
}
