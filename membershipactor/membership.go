// Package membershipactor holds a node's view of its cluster: the members, as the machine
// applied them, and the leader, as raft announced it; and has the cluster's level raised.
// Members are the founders; they do not change.
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
	Level                                      uint32 // the highest cluster level that this node understands
	Nonce                                      uint64 // random, of this process
	Logger                                     *slog.Logger
	Meter                                      prometheus.Registerer

	Peer     func(messages.RaftID) *actor.PID // a peer's membership
	PeerRaft func(messages.RaftID) *actor.PID // a member's raft, here or on another node
	Client   func(address, name string) *actor.PID
}

// Membership is the actor that holds the view.
type Membership struct {
	cfg    Config
	view   View
	raises raises
}

// New makes the producer of a node's membership actor.
func New(cfg Config) actor.Producer {
	round := cfg.Nonce
	return func() actor.Actor {
		round += 1 << 32 // an actor that starts anew is another incarnation too
		return &Membership{cfg: cfg, raises: raises{self: cfg.Self, supports: cfg.Level, round: round}}
	}
}

func (a *Membership) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.cfg.Machine, &messages.Introduce{})
		ctx.Request(a.cfg.Raft, &messages.Introduce{})
	case *messages.MembersChanged:
		a.view = a.view.WithMembers(m)
		a.raises.onView(a.view)
		ctx.Send(a.cfg.Transport, m)
		ctx.Send(a.cfg.Audit, m)
	case *messages.LeaderChanged:
		a.view = a.view.WithLeader(m)
		a.raises.onView(a.view)
		ctx.Send(a.cfg.Audit, m)
	case *messages.Introduce:
		ctx.Respond(a.view.MembersChanged())
		ctx.Respond(a.view.LeaderChanged())
	case *messages.StatusDraft:
		reply := proto.Clone(m.Reply).(*messages.StatusReply)
		a.view.Fill(reply, a.cfg.Self)
		ctx.RequestWithCustomSender(a.cfg.Snapshots, &messages.StatusDraft{Reply: reply}, ctx.Sender())
	case *messages.ClusterRequest:
		if s := ctx.Sender(); s != nil {
			a.raises.onRequest(asker{s.Address, s.Id}, m)
		}
	case *messages.LevelAsk:
		if peer := a.peerOf(ctx); peer != 0 {
			ctx.Request(a.cfg.Peer(peer), &messages.LevelAnswer{Round: m.Round, Min: messages.LevelMin, Max: a.cfg.Level})
		}
	case *messages.LevelAnswer:
		a.raises.onAnswer(a.peerOf(ctx), m)
	case *messages.Tick:
		a.raises.onTick(m.Elapsed)
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	default:
		telemetry.Unexpected(ctx, a.cfg.Logger, a.cfg.Meter)
	}
	a.carry(ctx)
}

// peerOf is the node that sent the message; 0: it was none.
func (a *Membership) peerOf(ctx actor.Context) messages.RaftID {
	return messages.PeerAt(ctx.Sender().GetAddress(), a.cfg.Self)
}

func (a *Membership) carry(ctx actor.Context) {
	for _, effect := range a.raises.take() {
		switch e := effect.(type) {
		case askLevel:
			ctx.Request(a.cfg.Peer(e.peer), e.ask)
		case propose:
			ctx.Send(a.cfg.PeerRaft(e.leader), &messages.Propose{Origin: a.cfg.Self, Command: e.command})
		case answer:
			ctx.Send(a.cfg.Client(e.to.address, e.to.actor), e.reply)
		}
	}
}
