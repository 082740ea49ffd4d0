package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// waitingForFounders begins what a node says of itself until its cluster is founded.
const waitingForFounders = "the other founders: "

// founder is the actor around the core founding. It runs as long as the node does: a
// founder that starts late still needs an answer.
type founder struct {
	wiring  *wiring
	core    *founding
	waiting string // what the log was told last
}

func newFounder(w *wiring, core *founding) actor.Producer {
	return func() actor.Actor { return &founder{wiring: w, core: core} }
}

func (a *founder) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.Tick:
		a.run(ctx, a.core.onTick(m.Elapsed))
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	case *messages.Initialised:
		a.run(ctx, a.core.onInitialised(m))
	case *messages.PeerRefused:
		a.run(ctx, a.core.onRefused(m.Peer))
	case *messages.FounderState: // the link has verified who sent it
		if ctx.Sender() != nil {
			a.run(ctx, a.core.onState(m.RaftId, m))
		}
	default:
		a.wiring.unexpected(ctx)
	}
}

func (a *founder) run(ctx actor.Context, effects []any) {
	for _, effect := range effects {
		switch e := effect.(type) {
		case tellFounder:
			if m, answers := ctx.Message().(*messages.FounderState); answers && m.RaftId == e.To {
				ctx.Request(ctx.Sender(), e.State) // the way it came, which may be no member's
				continue
			}
			ctx.Request(a.wiring.founderOf(e.To), e.State)
		case agreed:
			ctx.Request(ctx.Parent(), e.Agreed)
		case founded:
			ctx.Send(ctx.Parent(), e.Founded)
		case cannotFound:
			a.wiring.fatal(e.Error)
		}
	}
	if waiting := a.core.waitingFor(); waiting != a.waiting {
		a.waiting = waiting
		if waiting != "" {
			a.wiring.logger.Info("waiting for the other founders", "missing", waiting)
			ctx.Send(a.wiring.local(messages.ActorTransport), &messages.Identified{WaitingFor: waitingForFounders + waiting})
		}
	}
}
