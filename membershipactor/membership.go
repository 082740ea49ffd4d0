// Package membershipactor holds a node's view of its cluster: the members, as the machine
// applied them, and the leader, as raft announced it. Members are the founders; they do
// not change.
package membershipactor

import (
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// Config wires a membership actor.
type Config struct {
	Self                                       messages.RaftID
	Raft, Machine, Transport, Snapshots, Audit *actor.PID
	Logger                                     *slog.Logger
	Meter                                      prometheus.Registerer
}

// Membership is the actor that holds the view.
type Membership struct {
	cfg  Config
	view View
}

// New makes the producer of a node's membership actor.
func New(cfg Config) actor.Producer {
	return func() actor.Actor { return &Membership{cfg: cfg} }
}

func (a *Membership) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.cfg.Machine, &messages.Introduce{})
		ctx.Request(a.cfg.Raft, &messages.Introduce{})
	case *messages.MembersChanged:
		a.view = a.view.WithMembers(m)
		ctx.Send(a.cfg.Transport, m)
		ctx.Send(a.cfg.Audit, m)
	case *messages.LeaderChanged:
		a.view = a.view.WithLeader(m)
		ctx.Send(a.cfg.Audit, m)
	case *messages.Replication: // nobody asks for it yet
	case *messages.Introduce:
		ctx.Respond(a.view.MembersChanged())
		ctx.Respond(a.view.LeaderChanged())
	case *messages.StatusDraft:
		reply := proto.Clone(m.Reply).(*messages.StatusReply)
		a.view.Fill(reply, a.cfg.Self)
		ctx.RequestWithCustomSender(a.cfg.Snapshots, &messages.StatusDraft{Reply: reply}, ctx.Sender())
	default:
		telemetry.Unexpected(ctx, a.cfg.Logger, a.cfg.Meter)
	}
}
