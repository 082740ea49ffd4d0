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

// sessionTicks is how many ticks a session is told of at once.
const sessionTicks = 8

// gateway is where clients enter a node. It spawns a session actor for each client that
// attaches, and hands it the outcomes of that client's commands.
type gateway struct {
	wiring    *wiring
	view      membershipactor.View
	fenced    bool   // see LeaderChanged
	refused   string // see WritesRefused
	logTimeMS uint64
	sessions  *attachments
	status    statusDesk
	next      *uint64 // the last session actor's number, kept over restarts: no name is used twice
	ticks     uint32
	denied    int    // refusals since the last tick of the sessions
	silent    int    // of them, and of those before, that nobody was told of
	removed   string // how this node was removed: it serves nobody any more; empty: it was not
}

func newGateway(w *wiring) actor.Producer {
	next := new(uint64)
	return func() actor.Actor { return &gateway{wiring: w, sessions: newAttachments(), next: next} }
}

func (a *gateway) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.wiring.machine(), &messages.Introduce{})
		ctx.Request(a.wiring.raft(), &messages.Introduce{})
	case *messages.Attach:
		a.onAttach(ctx, m)
	case *messages.Outcomes:
		for _, o := range m.Outcomes {
			if s, ok := a.sessions.of[clientKey(o.Client, o.Principal)]; ok {
				ctx.Send(a.wiring.local(s.actor), o.Outcome)
			}
		}
	case *messages.LogTimeAdvanced:
		a.logTimeMS = m.LogTimeMs
	case *messages.LeaderChanged:
		a.view, a.fenced = a.view.WithLeader(m), m.Fenced
		a.tellLeader(ctx)
	case *messages.WritesRefused:
		if a.refused != m.Why {
			a.refused = m.Why
			a.tellLeader(ctx)
		}
	case *messages.Removed:
		a.removed = m.Why
	case *messages.MembersChanged:
		a.onMembers(ctx, m)
	case *messages.ClientGone:
		a.onClientGone(ctx, m)
	case *messages.Denied:
		a.onDenied(m)
	case *messages.StatusRequest:
		a.onStatusRequest(ctx, m)
	case *messages.StatusReply:
		a.onStatusReply(ctx, m)
	case *messages.Tick:
		a.onTick(ctx, m)
	case *actor.Terminated:
		a.sessions.remove(m.Who.Id)
	default:
		a.wiring.unexpected(ctx)
	}
}

func (a *gateway) onAttach(ctx actor.Context, m *messages.Attach) {
	if ctx.Sender() == nil {
		return
	}
	if a.removed != "" {
		ctx.Respond(&messages.Attached{Request: m.Request, Code: messages.Code_REMOVED, Message: a.removed})
		return
	}
	client, owner := clientKey(m.Client, messages.UserOf(m.Holder)), ctx.Sender().Address
	if err := a.sessions.check(m.Client, owner, string(m.Holder)); err != nil {
		ctx.Respond(&messages.Attached{Request: m.Request, Code: err.Code, Message: err.Message})
		return
	}
	if old, ok := a.sessions.of[client]; ok {
		ctx.Stop(a.wiring.local(old.actor))
		a.sessions.remove(old.actor)
	}
	*a.next++
	pid, err := ctx.SpawnNamed(actor.PropsFromProducer(newSession(a.wiring, owner, m, a.sessionLeader())),
		messages.ActorOf(messages.ActorSessionPrefix).Own()+strconv.FormatUint(*a.next, 10))
	if err != nil {
		panic(fmt.Sprintf("gateway: session %d: %v", *a.next, err))
	}
	a.sessions.add(client, attachment{actor: pid.Id, owner: owner, asker: ctx.Sender().Id, holder: string(m.Holder)})
	ctx.Respond(&messages.Attached{
		Request: m.Request, Session: pid.Id, LogTimeMs: a.logTimeMS, Leader: a.view.LeaderRecord(),
		RequestsMax: sessionRequestsMax, BytesMax: sessionBytesMax, Members: a.view.ForClients(), Configuration: a.view.Configuration,
	})
}

// onMembers tells the sessions who leads, and the clients where they can go from now on.
// A client that attached while other members were there would not outlive those.
func (a *gateway) onMembers(ctx actor.Context, m *messages.MembersChanged) {
	before := a.view
	a.view = a.view.WithMembers(m)
	a.tellLeader(ctx)
	ctx.Send(a.wiring.local(messages.ActorLogin), m)
	if before.Configuration == a.view.Configuration && len(before.Members) > 0 {
		return
	}
	news := &messages.Attached{Leader: a.view.LeaderRecord(), Members: a.view.ForClients(), Configuration: a.view.Configuration}
	for _, session := range a.eachSession() {
		client := a.sessions.of[a.sessions.clientOf[session]]
		ctx.Send(a.wiring.ofClient(client.owner, client.asker), news)
	}
}

func (a *gateway) onClientGone(ctx actor.Context, m *messages.ClientGone) {
	for _, session := range slices.Clone(a.sessions.byOwner[m.Address]) {
		ctx.Stop(a.wiring.local(session))
		a.sessions.remove(session)
	}
}

// deniedMax bounds the refusals that are told between two ticks of the sessions: whoever is
// refused may ask as often as he likes.
const deniedMax = 8

// onDenied tells who was refused what. How many were kept silent the next one says.
func (a *gateway) onDenied(m *messages.Denied) {
	if a.denied++; a.denied > deniedMax {
		a.silent++
		return
	}
	words := []any{"principal", m.Principal, "request", m.Request, "reason", m.Why}
	if a.silent > 0 {
		words = append(words, "kept_silent", a.silent)
		a.silent = 0
	}
	a.wiring.logger.Warn("a request was denied", words...)
}

func (a *gateway) onStatusRequest(ctx actor.Context, m *messages.StatusRequest) {
	if ctx.Sender() == nil {
		return
	}
	send, busy := a.status.ask(statusAsker{ctx.Sender().Address, ctx.Sender().Id, m.Request, m.Events})
	if busy {
		ctx.Respond(&messages.StatusReply{Request: m.Request, Code: messages.Code_BUSY})
	}
	if send {
		a.askStatus(ctx)
	}
}

// askStatus sends a draft through membership and snapshots to raft. Each adds what it
// knows, and raft answers with the StatusReply.
func (a *gateway) askStatus(ctx actor.Context) {
	reply := &messages.StatusReply{Pid: a.wiring.pid, Version: a.wiring.version, LevelMin: messages.LevelMin, LevelMax: a.wiring.level}
	if a.wiring.vitals != nil {
		reply.Vitals = a.wiring.vitals()
	}
	ctx.Request(a.wiring.membership(), &messages.StatusDraft{Reply: reply})
}

func (a *gateway) onStatusReply(ctx actor.Context, m *messages.StatusReply) {
	whom, send := a.status.answered()
	for _, who := range whom {
		reply := statusFor(m, who.request)
		if who.events && a.wiring.events != nil {
			reply.Events = a.wiring.events()
		}
		ctx.Send(a.wiring.ofClient(who.address, who.actor), reply)
	}
	if send {
		a.askStatus(ctx)
	}
}

// statusFor copies a status for one request. Members and transfers are shared by the
// copies, since a message is never modified.
func statusFor(m *messages.StatusReply, request uint64) *messages.StatusReply {
	return &messages.StatusReply{
		Request: request, Code: m.Code, Revision: m.Revision, Name: m.Name, RaftId: m.RaftId, Role: m.Role, Term: m.Term,
		Commit: m.Commit, Applied: m.Applied, LastIndex: m.LastIndex, Pid: m.Pid, Version: m.Version, ClusterId: m.ClusterId,
		Leader: m.Leader, Members: m.Members, LogFirstIndex: m.LogFirstIndex, LogBytes: m.LogBytes,
		CheckpointIndex: m.CheckpointIndex, CompactedRevision: m.CompactedRevision, Transfers: m.Transfers,
		Level: m.Level, LevelMin: m.LevelMin, LevelMax: m.LevelMax, RoomBytes: m.RoomBytes, Lacks: m.Lacks, WritesRefused: m.WritesRefused, Keys: m.Keys, Vitals: m.Vitals,
		Message: m.Message, Hint: m.Hint, Events: m.Events, WallMs: m.WallMs,
	}
}

// eachSession lists the session actors in order: a map's own order differs from run to
// run, and the simulator's runs must not.
func (a *gateway) eachSession() []string { return slices.Sorted(maps.Keys(a.sessions.clientOf)) }

func (a *gateway) tellLeader(ctx actor.Context) {
	for _, session := range a.eachSession() {
		ctx.Send(a.wiring.local(session), a.sessionLeader())
	}
}

func (a *gateway) sessionLeader() *messages.SessionLeader {
	return &messages.SessionLeader{Leader: a.view.LeaderRecord(), Term: a.view.Term, Fenced: a.fenced, Level: a.view.Level, WritesRefused: a.refused, Auth: a.view.MembersChanged().Auth}
}

func (a *gateway) onTick(ctx actor.Context, m *messages.Tick) {
	ctx.Request(ctx.Sender(), &messages.Ticked{})
	a.wiring.requests.clients.Set(float64(len(a.sessions.of)))
	if a.status.tick(int(m.Elapsed)) {
		a.askStatus(ctx)
	}
	if a.ticks += m.Elapsed; a.ticks < sessionTicks {
		return
	}
	for _, session := range a.eachSession() {
		ctx.Send(a.wiring.local(session), &messages.Tick{Elapsed: a.ticks})
	}
	a.ticks, a.denied = 0, 0
}
