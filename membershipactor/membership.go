// Package membershipactor holds a node's view of its cluster: the members, as the machine
// applied them, the leader, as raft announced it, and what the members say of themselves;
// and has the cluster's level raised.
package membershipactor

import (
	"log/slog"
	"slices"

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
	Version                                    string // of this node's software, for people
	TickMS                                     uint64
	Raft, Machine, Transport, Snapshots, Audit *actor.PID
	Node, Gateway                              *actor.PID
	Level                                      uint32                                // the highest cluster level that this node understands
	Nonce                                      uint64                                // random, of this process
	Peer                                       func(messages.RaftID) *actor.PID      // a peer's membership actor
	PeerRaft                                   func(messages.RaftID) *actor.PID      // a member's raft, here or on another node
	Client                                     func(address, name string) *actor.PID // an actor of a client
	WallMS                                     func() int64                          // wall time, for people
	Keys                                       func() *messages.Keys                 // what links are secured with, for people; nil: nobody knows
	Logger                                     *slog.Logger
	Meter                                      prometheus.Registerer
	Tracer                                     *telemetry.Tracer // nil: nobody traces
}

// Membership is the actor that holds the view.
type Membership struct {
	cfg          Config
	census       *census
	changes      *changes
	door         *door
	raises       raises
	following    following
	refused      *string // why writes that need room are refused, as the gateway was told by this actor or one before it
	refusedTicks uint64  // since it was told so
	ready        *bool   // it was said that this node serves, by this actor or one before it
}

// New makes the producer of a node's membership actor.
func New(cfg Config) actor.Producer {
	round, ready, refused := cfg.Nonce, new(bool), new(string)
	return func() actor.Actor {
		round += 1 << 32 // an actor that starts anew is another incarnation too
		return &Membership{
			cfg: cfg, census: newCensus(cfg.Self, cfg.TickMS, cfg.Version), changes: &changes{self: cfg.Self, reads: round}, door: newDoor(cfg), ready: ready, refused: refused,
			following: newFollowing(cfg.Meter, cfg.Tracer), raises: raises{self: cfg.Self, supports: cfg.Level, round: round},
		}
	}
}

func (a *Membership) Receive(ctx actor.Context) {
	before := a.census.view
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.cfg.Machine, &messages.Introduce{})
		ctx.Request(a.cfg.Raft, &messages.Introduce{})
	case *messages.MembersChanged:
		a.census.onMembers(m)
		a.door.onMembers(ctx, m)
		a.raises.onView(a.census.view)
		a.goOn(ctx, 0)
		ctx.Send(a.cfg.Transport, m)
		ctx.Send(a.cfg.Audit, m)
	case *messages.LeaderChanged:
		a.say(ctx, a.census.onLeader(m))
		a.raises.onView(a.census.view)
		a.goOn(ctx, 0)
		ctx.Send(a.cfg.Audit, m)
	case *messages.Introduce:
		ctx.Respond(a.census.view.MembersChanged())
		ctx.Respond(a.census.view.LeaderChanged())
	case *messages.StatusDraft:
		reply := proto.Clone(m.Reply).(*messages.StatusReply)
		a.census.view.Fill(reply, a.cfg.Self)
		reply.RoomBytes, reply.Lacks, reply.WritesRefused = a.census.room.GetBytes(), a.census.room.GetLacks(), *a.refused
		reply.Keys, reply.WallMs = a.census.keys, a.known().NowMS
		ctx.RequestWithCustomSender(a.cfg.Snapshots, &messages.StatusDraft{Reply: reply}, ctx.Sender())
	case *messages.JoinAsk:
		a.door.onAsk(ctx, m, a.census.leads(), a.census.everyoneWaiting())
	case *messages.InvitationAsk:
		a.onInvitationAsk(ctx, m)
	case *messages.ReadReply:
		a.changes.onRead(m)
		a.goOn(ctx, 0)
	case *messages.PeerRefused:
		a.door.onRefused(ctx, m)
	case *messages.LevelAsk:
		if peer := a.peerOf(ctx); peer != 0 {
			ctx.Request(a.cfg.Peer(peer), &messages.LevelAnswer{Round: m.Round, Min: messages.LevelMin, Max: a.cfg.Level})
		}
	case *messages.LevelAnswer:
		a.raises.onAnswer(a.peerOf(ctx), m)
	case *messages.RoomSeen:
		a.census.onRoom(m)
	case *messages.StatusReply:
		a.census.onTransfers(m.Transfers)
	case *messages.Replication:
		a.census.onReplication(m)
		a.goOn(ctx, 0)
	case *messages.ProposalRefused, *messages.ReadRefused: // it is proposed, or asked, again in time
	case *messages.NodePulse:
		a.census.onNodePulse(a.peerOf(ctx), m)
	case *messages.ClusterPulse:
		a.census.onClusterPulse(a.peerOf(ctx), m)
	case *messages.ClusterRequest:
		a.onRequest(ctx, m)
	case *messages.Tick:
		if a.cfg.Keys != nil {
			a.census.keys = a.cfg.Keys()
		}
		a.say(ctx, a.census.onTick(uint64(m.Elapsed)))
		a.door.onTick(ctx, m, a.census.leads(), a.census.everyoneWaiting())
		a.census.onWaiting(a.door.everyone())
		a.goOn(ctx, uint64(m.Elapsed))
		a.raises.onTick(m.Elapsed)
		a.watchRoom(ctx, uint64(m.Elapsed))
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	default:
		telemetry.Unexpected(ctx, a.cfg.Logger, a.cfg.Meter)
	}
	a.carry(ctx)
	a.following.follow(a.census.leads(), a.census.view)
	for _, n := range newsOf(before, a.census.view) {
		a.cfg.Logger.Info(n.text, n.words...)
	}
	if n, serves := servesNews(a.cfg.Self, a.census.view); serves && !*a.ready {
		*a.ready = true
		a.cfg.Logger.Info(n.text, n.words...)
	}
}

func (a *Membership) carry(ctx actor.Context) {
	for _, effect := range a.raises.take() {
		switch e := effect.(type) {
		case askLevel:
			ctx.Request(a.cfg.Peer(e.peer), e.ask)
		case propose:
			ctx.Send(a.cfg.PeerRaft(e.leader), &messages.Propose{Origin: a.cfg.Self, Command: e.command})
		case answer:
			a.tellAnswer(e.to, e.reply, e.change, e.by, e.proposed)
			ctx.Send(a.cfg.Client(e.to.address, e.to.actor), e.reply)
		}
	}
}

// peerOf is the node that sent the message; 0: it came from this one, or from a client.
func (a *Membership) peerOf(ctx actor.Context) messages.RaftID {
	return messages.PeerAt(ctx.Sender().GetAddress(), a.cfg.Self)
}

// onRequest answers a question at once, and what changes something once that is in the log.
func (a *Membership) onRequest(ctx actor.Context, m *messages.ClusterRequest) {
	switch from := ctx.Sender(); {
	case from == nil:
	case m.GetQuery() != nil:
		ctx.Respond(a.census.reply(m))
	case m.GetAuthQuery() != nil:
		ctx.Respond(a.census.replyAuth(m))
	case m.GetInvitationQuery() != nil:
		ctx.Respond(a.census.replyInvitations(m))
	case m.GetLevelRaise() != nil: // any node has it raised
		a.raises.onRequest(asker{from.Address, from.Id}, m)
	default:
		a.changes.onRequest(a.known(), asker{from.Address, from.Id}, m)
		a.carryOut(ctx)
	}
}

func (a *Membership) onInvitationAsk(ctx actor.Context, m *messages.InvitationAsk) {
	if from := ctx.Sender(); from != nil {
		a.changes.onInvitationAsk(a.known(), asker{from.Address, from.Id}, m)
		a.carryOut(ctx)
	}
}

// known is what this node knows of its cluster now.
func (a *Membership) known() known {
	k := known{View: a.census.rulesView(), leader: a.census.view.LeaderRecord()}
	if a.cfg.WallMS != nil {
		k.NowMS = a.cfg.WallMS()
	}
	if self, ok := a.census.view.Member(a.cfg.Self); ok {
		k.node = self.Name
	}
	return k
}

// goOn has operations and requests go on after an event.
func (a *Membership) goOn(ctx actor.Context, elapsed uint64) {
	k := a.known()
	a.changes.onTick(k, elapsed)
	a.census.onWaits(a.changes.waits(k), a.changes.heals)
	a.carryOut(ctx)
}

func (a *Membership) carryOut(ctx actor.Context) {
	for _, act := range a.changes.take() {
		if act.to == (asker{}) {
			ctx.Request(a.cfg.Raft, act.message)
		} else {
			if act.of != nil {
				a.tellAnswer(act.of.from, act.of.reply, titleOf(act.of), act.of.by(), act.of.proposed)
				a.tellDenied(ctx, act.of)
			}
			ctx.Send(a.cfg.Client(act.to.address, act.to.actor), act.message)
		}
	}
}

// tellAnswer says what became of a request for a change. One that never came as far as the
// log is no news: a client may ask as often as it likes.
func (a *Membership) tellAnswer(to asker, reply *messages.ClusterReply, change, by string, proposed bool) {
	tell := a.cfg.Logger.Debug
	if proposed {
		tell = a.cfg.Logger.Info
	}
	words := []any{"request", messages.RequestIDOfNode(to.address, reply.Request), "change", change, "by", by}
	if reply.Code != messages.Code_OK {
		words = append(words, "code", reply.Code.String(), "reason", reply.Message)
	}
	tell("a change was asked for", words...)
}

// tellDenied has the gateway tell who was denied a change, or came with a token that is of no use.
func (a *Membership) tellDenied(ctx actor.Context, r *request) {
	useless := r.redeem != nil && slices.Contains([]messages.Code{messages.Code_NOT_FOUND, messages.Code_CONFLICT, messages.Code_INVALID}, r.reply.Code)
	if useless || r.reply.Code == messages.Code_NOT_ALLOWED {
		ctx.Send(a.cfg.Gateway, &messages.Denied{Principal: r.by(), Why: r.reply.Message, Request: messages.RequestIDOfNode(r.from.address, r.asked.Request)})
	}
}

func (a *Membership) say(ctx actor.Context, all []saying) {
	for _, s := range all {
		switch {
		case s.to == 0:
			ctx.Request(a.cfg.Snapshots, s.message)
		default:
			ctx.Request(a.cfg.Peer(s.to), s.message)
		}
	}
}

// watchRoom tells the gateway whether writes are refused, again after a while: it may have
// started anew.
func (a *Membership) watchRoom(ctx actor.Context, elapsed uint64) {
	if to := a.census.heir(elapsed); to != 0 {
		a.cfg.Logger.Warn("this node has little room left, and hands the lead over", "lacks", a.census.room.GetLacks(), "peer", to, "hint", "make room on this disk")
		ctx.Request(a.cfg.Raft, &messages.TransferLead{To: to})
	}
	a.refusedTicks += elapsed
	if why := a.census.refusal(); why != *a.refused || why != "" && a.refusedTicks >= pulseTicks {
		*a.refused, a.refusedTicks = why, 0
		ctx.Send(a.cfg.Gateway, &messages.WritesRefused{Why: why})
	}
}
