package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// session is the actor of one attached client, around sessionCore. It stops when the
// client's connection ends. The replicated session, by which the machine recognises a
// command that is sent again, does not.
type session struct {
	wiring *wiring
	owner  string // the client's logical address; nobody else is heard
	core   *sessionCore
	spans  map[requestKey]telemetry.Span // of requests that are traced and pending; nil: none was yet

	// The PIDs that were used last. They may be kept, unlike others: they resolve to the
	// link to another system, or to this node's raft, and neither is replaced.
	leader, client *actor.PID
	leaderID       messages.RaftID
}

// requestKey is a request of a client: reads and writes are numbered apart.
type requestKey struct {
	read   bool
	number uint64
}

func newSession(w *wiring, owner string, client, holder []byte, m *messages.SessionLeader) actor.Producer {
	return func() actor.Actor {
		core := newSessionCore(w.self, client, holder, m.Leader, m.Level)
		core.onFenced(m.Fenced)
		core.refused = m.WritesRefused
		return &session{wiring: w, owner: owner, core: core}
	}
}

func (a *session) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.Write:
		if a.ofOwner(ctx) {
			a.core.now, a.core.trace = a.now(), a.begin(requestKey{false, m.Request}, m.Traceparent, aWrite)
			a.core.onWrite(ctx.Sender().Id, m)
		} else {
			ctx.Respond(&messages.WriteReply{Request: m.Request, Code: messages.Code_NOT_ALLOWED, Message: anothers})
		}
	case *messages.Read:
		if a.ofOwner(ctx) {
			a.core.now, a.core.trace = a.now(), a.begin(requestKey{true, m.Request}, m.Traceparent, readKind(m))
			a.core.onRead(ctx.Sender().Id, m)
		} else {
			ctx.Respond(&messages.ReadReply{Request: m.Request, Code: messages.Code_NOT_ALLOWED, Message: anothers})
		}
	case *messages.Detach:
		if a.ofOwner(ctx) {
			ctx.Stop(ctx.Self())
		}
	case *messages.Outcome:
		a.core.onOutcome(m)
	case *messages.ProposalRefused:
		a.core.onProposalRefused(m)
	case *messages.ReadReply:
		a.core.answerRead(m)
	case *messages.ReadRefused:
		a.core.onReadRefused(m)
	case *messages.SessionLeader:
		a.core.onLeader(m.Leader, m.Term, m.Level)
		a.core.onFenced(m.Fenced)
		a.core.refused = m.WritesRefused
	case *messages.Tick:
		a.core.onTick(int(m.Elapsed))
	case *actor.Stopping:
		a.core.end()
	default:
		a.wiring.unexpected(ctx)
	}
	a.run(ctx)
}

const anothers = "the session belongs to another client"

func (a *session) ofOwner(ctx actor.Context) bool {
	s := ctx.Sender()
	return s != nil && s.Address == a.owner
}

// begin begins the span of a request, if it is traced, and returns what others are to have
// their spans stand below. Where nobody traces that is the client's.
func (a *session) begin(key requestKey, client *messages.Traceparent, operation int) *messages.Traceparent {
	if a.wiring.tracer == nil {
		return client
	}
	if span, pending := a.spans[key]; pending {
		span.Event("asked again")
		return span.Parent()
	}
	span := a.wiring.tracer.BeginRequest(client, operationNames[operation])
	if span.On() {
		if a.spans == nil {
			a.spans = map[requestKey]telemetry.Span{}
		}
		a.spans[key] = span
	}
	return span.Parent()
}

// answer sends a reply to its client.
func (a *session) answer(ctx actor.Context, e answer) {
	key, code, why := requestKey{}, messages.Code_OK, ""
	switch m := e.Reply.(type) {
	case *messages.WriteReply:
		key, code, why = requestKey{false, m.Request}, m.Code, m.Message
	case *messages.ReadReply:
		key, code, why = requestKey{true, m.Request}, m.Code, m.Message
	}
	if code != messages.Code_OK {
		a.tellRefused(key, code, why)
	}
	if a.client == nil || a.client.Id != e.Actor {
		a.client = a.wiring.ofClient(a.owner, e.Actor)
	}
	span, traced := a.spans[key]
	if !traced {
		ctx.Send(a.client, e.Reply)
		a.count(e, nil)
		return
	}
	delete(a.spans, key) // the first answer is that of all who asked
	last := a.wiring.tracer.Begin(span.Parent(), "answer")
	ctx.Send(a.client, e.Reply)
	last.End()
	span.EndWith(code, why)
	a.count(e, span.Parent())
}

// now is for metrics; -1: nobody measures.
func (a *session) now() int64 {
	if a.wiring.nanos == nil {
		return -1
	}
	return a.wiring.nanos()
}

func (a *session) count(e answer, trace *messages.Traceparent) {
	took := int64(-1)
	if now := a.now(); now >= e.begun && e.begun >= 0 {
		took = now - e.begun
	}
	a.wiring.requests.count(e, took, trace)
}

func (a *session) run(ctx actor.Context) {
	effects := a.core.take()
	for _, effect := range effects {
		switch e := effect.(type) {
		case proposeTo:
			if a.leaderID != e.Leader {
				a.leaderID, a.leader = e.Leader, a.wiring.peer(messages.ActorRaft)(e.Leader)
			}
			ctx.Request(a.leader, e.Propose)
		case readIndex:
			ctx.Send(a.wiring.raft(), &messages.ReadIndex{Session: ctx.Self().Id, Client: a.owner, Read: e.Read})
		case readStale:
			ctx.Send(a.wiring.machine(), &messages.ReadAt{Reads: []*messages.ReadIndex{{Session: ctx.Self().Id, Client: a.owner, Read: e.Read}}})
		case dropReads:
			ctx.Send(a.wiring.machine(), &messages.DropReads{Client: a.owner, Session: ctx.Self().Id})
		case answer:
			a.answer(ctx, e)
		}
	}
	a.core.reuse(effects)
}

// tellRefused says which request came to nothing here, and why. Clients may ask as often as
// they like, so that is for those who look for it.
func (a *session) tellRefused(key requestKey, code messages.Code, why string) {
	kind := messages.RequestWrite
	if key.read {
		kind = messages.RequestRead
	}
	a.wiring.logger.Debug("a request was refused", "request", messages.RequestID(a.core.client, kind, key.number), "code", code.String(), "reason", why)
}
