package actors

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/membershipactor"
	"keyval/messages"
)

// sessionsMax bounds the attached clients of a node, in number.
const sessionsMax = 16 << 10

// sessionTicks is how often sessions are told the time.
const sessionTicks = 8

// gateway is the clients' door: it gives each a session actor and brings it what
// became of its commands.
//
// Invariant: sessions holds the newest session actor of each ClientID, and owner
// the address that attached it.
type gateway struct {
	wiring    *wiring
	view      membershipactor.View
	logTimeMS uint64
	sessions  map[string]attachedClient // by ClientID
	clientOf  map[string]string         // ClientID by session actor
	next      uint64
	ticks     uint32
}

type attachedClient struct {
	actor string // the session's
	owner string // the client's address
}

func newGateway(w *wiring) actor.Producer {
	return func() actor.Actor {
		return &gateway{wiring: w, sessions: map[string]attachedClient{}, clientOf: map[string]string{}}
	}
}

// Receive takes one message.
func (a *gateway) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.wiring.machine(), &messages.Introduce{})
		ctx.Request(a.wiring.raft(), &messages.Introduce{})
	case *messages.Attach:
		a.onAttach(ctx, m)
	case *messages.Outcomes:
		for _, o := range m.Outcomes {
			if s, ok := a.sessions[string(o.Client)]; ok {
				ctx.Send(a.wiring.local(s.actor), o.Outcome)
			}
		}
	case *messages.LogTimeAdvanced:
		a.logTimeMS = m.LogTimeMs
	case *messages.LeaderChanged:
		a.view = a.view.WithLeader(m)
		a.tellLeader(ctx)
	case *messages.MembersChanged:
		a.view = a.view.WithMembers(m)
		a.tellLeader(ctx)
	case *messages.ClientGone:
		a.onClientGone(ctx, m)
	case *messages.StatusRequest:
		ctx.RequestWithCustomSender(a.wiring.membership(), &messages.StatusDraft{Reply: &messages.StatusReply{
			Request: m.Request, Pid: a.wiring.pid, Version: a.wiring.version,
		}}, ctx.Sender())
	case *messages.Tick:
		a.onTick(ctx, m)
	case *actor.Terminated:
		a.onSessionEnded(m.Who.Id)
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		a.wiring.logger.Warn("gateway: unexpected message", "type", fmt.Sprintf("%T", m))
	}
}

func (a *gateway) onAttach(ctx actor.Context, m *messages.Attach) {
	if ctx.Sender() == nil {
		return
	}
	if len(m.Client) != messages.ClientIDSize {
		ctx.Respond(&messages.Attached{Code: messages.Code_INVALID,
			Message: fmt.Sprintf("a ClientID has %d bytes, this one %d", messages.ClientIDSize, len(m.Client))})
		return
	}
	if len(a.sessions) >= sessionsMax {
		ctx.Respond(&messages.Attached{Code: messages.Code_BUSY,
			Message: fmt.Sprintf("this node serves %d clients already", sessionsMax)})
		return
	}
	client, owner := string(m.Client), ctx.Sender().Address
	if old, ok := a.sessions[client]; ok {
		ctx.Stop(a.wiring.local(old.actor))
		a.onSessionEnded(old.actor)
	}
	a.next++
	pid, err := ctx.SpawnNamed(actor.PropsFromProducer(newSession(a.wiring, owner, m.Client, a.view.LeaderRecord())),
		"session-"+strconv.FormatUint(a.next, 10))
	if err != nil {
		panic(fmt.Sprintf("gateway: session %d: %v", a.next, err))
	}
	a.sessions[client] = attachedClient{actor: pid.Id, owner: owner}
	a.clientOf[pid.Id] = client
	ctx.Respond(&messages.Attached{
		Session: pid.Id, LogTimeMs: a.logTimeMS, Leader: a.view.LeaderRecord(),
		RequestsMax: sessionRequestsMax, BytesMax: sessionBytesMax,
	})
}

// onSessionEnded forgets a session actor, unless its client has a newer one.
func (a *gateway) onSessionEnded(session string) {
	client, ok := a.clientOf[session]
	if !ok {
		return
	}
	delete(a.clientOf, session)
	if a.sessions[client].actor == session {
		delete(a.sessions, client)
	}
}

func (a *gateway) onClientGone(ctx actor.Context, m *messages.ClientGone) {
	for _, session := range slices.Sorted(maps.Keys(a.clientOf)) {
		if a.sessions[a.clientOf[session]].owner == m.Address {
			ctx.Stop(a.wiring.local(session))
			a.onSessionEnded(session)
		}
	}
}

func (a *gateway) tellLeader(ctx actor.Context) {
	for _, session := range slices.Sorted(maps.Keys(a.clientOf)) {
		ctx.Send(a.wiring.local(session), &messages.SessionLeader{Leader: a.view.LeaderRecord(), Term: a.view.Term})
	}
}

func (a *gateway) onTick(ctx actor.Context, m *messages.Tick) {
	ctx.Request(ctx.Sender(), &messages.Ticked{})
	if a.ticks += m.Elapsed; a.ticks < sessionTicks {
		return
	}
	for _, session := range slices.Sorted(maps.Keys(a.clientOf)) {
		ctx.Send(a.wiring.local(session), &messages.Tick{Elapsed: a.ticks})
	}
	a.ticks = 0
}
