package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/messages"
)

// joiner is the actor around the core joining, in a node that has no RaftID yet. It comes
// to the members as a client does.
type joiner struct {
	wiring  *wiring
	dialer  seam.Dialer
	core    *joining // outlives a restart, as the links do
	waiting string   // what others were told last
}

func newJoiner(w *wiring, dialer seam.Dialer, core *joining) actor.Producer {
	return func() actor.Actor { return &joiner{wiring: w, dialer: dialer, core: core} }
}

func (a *joiner) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.Tick:
		a.run(ctx, a.core.onTick(m.Elapsed))
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	case *messages.LinkUp:
		a.run(ctx, a.core.onUp(m))
	case *messages.LinkDown:
		a.run(ctx, a.core.onDown(m))
	case *messages.JoinAnswer:
		a.run(ctx, a.core.onAnswer(m))
	case *actor.Stopping:
		a.dialer.Close()
	default:
		a.wiring.unexpected(ctx)
	}
}

func (a *joiner) run(ctx actor.Context, effects []any) {
	for _, effect := range effects {
		switch e := effect.(type) {
		case dialMember:
			a.dialer.Dial(e.Endpoint)
		case hangUp:
			a.dialer.Hang(e.Endpoint)
		case askMember:
			ctx.Request(a.wiring.memberAt(e.Address), e.Ask)
		case joined:
			ctx.Send(ctx.Parent(), e.Joined)
		case cannotJoin:
			a.wiring.fatal(e.Error)
		}
	}
	if waiting := a.core.waitingFor(); waiting != a.waiting {
		a.waiting = waiting
		a.wiring.logger.Info(waiting)
		ctx.Send(a.wiring.local(messages.ActorTransport), &messages.Identified{WaitingFor: waiting})
	}
}
