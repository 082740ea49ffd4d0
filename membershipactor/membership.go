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
	Name                                       string // of this node
	Address                                    string // where others reach it, as it was started
	TickMS                                     uint64
	Raft, Machine, Transport, Snapshots, Audit *actor.PID
	Node, Gateway                              *actor.PID
	Peer                                       func(messages.RaftID) *actor.PID // a peer's membership actor
	Logger                                     *slog.Logger
	Meter                                      prometheus.Registerer
}

// Membership is the actor that holds the view.
type Membership struct {
	cfg  Config
	view View
	door *door
}

// New makes the producer of a node's membership actor.
func New(cfg Config) actor.Producer {
	return func() actor.Actor { return &Membership{cfg: cfg, door: newDoor(cfg)} }
}

func (a *Membership) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.cfg.Machine, &messages.Introduce{})
		ctx.Request(a.cfg.Raft, &messages.Introduce{})
	case *messages.MembersChanged:
		a.view = a.view.WithMembers(m)
		a.door.onMembers(ctx, m)
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
	case *messages.JoinAsk:
		a.door.onAsk(ctx, m)
	case *messages.PeerRefused:
		a.door.onRefused(ctx, m)
	case *messages.Tick:
		a.door.onTick(ctx, m, a.view.Leader == a.cfg.Self)
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	default:
		telemetry.Unexpected(ctx, a.cfg.Logger, a.cfg.Meter)
	}
}
