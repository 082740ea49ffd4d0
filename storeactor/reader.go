package storeactor

import (
	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/reading"
	"keyval/storeactor/snapshot"
)

// readerActor answers reads at revisions that the machine has published, beside
// it: a long scan never holds up an apply. It keeps no state, so it may restart
// at any time; the session whose read was lost asks again. A child of the machine.
type readerActor struct {
	config MachineConfig
	view   snapshot.View
}

func (r *readerActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.ReadAt:
		r.onReadAt(ctx, m)
	case *messages.ReadRows:
		r.onReadRows(ctx, m)
	case *messages.HashState:
		r.onHashState(ctx, m)
	default:
		telemetry.Unexpected(ctx, r.config.Logger, r.config.Meter)
	}
}

func (r *readerActor) onReadAt(ctx actor.Context, m *messages.ReadAt) {
	for _, asked := range m.Reads {
		var span telemetry.Span
		if asked.Read.GetTraceparent() != nil {
			span = r.config.Tracer.Begin(asked.Read.Traceparent, "read")
		}
		reply, err := reading.Answer(r.view, asked.Read, m.Revision, m.Compacted)
		span.End()
		if err != nil {
			r.config.end(err)
			return
		}
		ctx.Send(sessionPID(ctx, asked.Session), reply)
	}
	if m.Turn > 0 {
		ctx.Send(ctx.Parent(), &messages.ReadsDone{Turn: m.Turn})
	}
}

func (r *readerActor) onReadRows(ctx actor.Context, m *messages.ReadRows) {
	rows, err := snapshot.ReadRows(r.view, m)
	if err != nil {
		r.config.end(err)
		return
	}
	ctx.Respond(rows)
}

// sessionPID is a session actor of this node.
func sessionPID(ctx actor.Context, session string) *actor.PID {
	return actor.NewPID(ctx.Self().Address, session)
}
