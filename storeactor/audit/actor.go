package audit

import (
	"cmp"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/disk"
)

// Config is what an audit needs.
type Config struct {
	Self                messages.RaftID
	Machine, Membership *actor.PID
	Snapshots           *actor.PID                       // who is told whether the state may be shipped
	Peer                func(messages.RaftID) *actor.PID // a peer's audit
	Disk                disk.Disk
	Logger              *slog.Logger          // nil discards
	Meter               prometheus.Registerer // nil: nobody counts
	Fatal               func(reason error)
	Nonce               uint64 // random, of this process
	Ticks               uint32 // between two questions; 4
}

// New makes the actor that compares what the members hold. It is to be
// spawned as messages.ActorAudit.
func New(config Config) actor.Producer {
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	round := config.Nonce
	return func() actor.Actor {
		round += 1 << 32 // an actor that starts anew is another incarnation too
		return &auditActor{
			config: config, core: newAudit(config.Self, config.Ticks, round),
			questions: telemetry.Counter(config.Meter, "keyval_audit_questions_total",
				"Ranges of keys that this node has asked another member about, those asked again included."),
			rounds: telemetry.Counter(config.Meter, "keyval_audit_rounds_total",
				"Times that this node, as the leader, has compared all that the members hold, from the first key to the last."),
			differences: telemetry.Counter(config.Meter, "keyval_audit_differences_total",
				"Findings of this node that members hold different rows."),
		}
	}
}

// auditActor is the shell around an audit.
type auditActor struct {
	config                         Config
	core                           *audit
	ended                          bool
	counted                        uint64 // walks that are in rounds
	questions, rounds, differences prometheus.Counter
}

func (a *auditActor) Receive(ctx actor.Context) {
	if a.ended {
		return
	}
	switch m := ctx.Message().(type) {
	case *actor.Started:
		ctx.Request(a.config.Membership, &messages.Introduce{})
	case *messages.MembersChanged:
		a.core.onMembers(m.Members)
	case *messages.LeaderChanged:
		a.core.onLeader(m.Leader)
	case *messages.Tick:
		a.core.onTick(m.Elapsed)
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	case *messages.ReadReply:
		a.lineage()
		a.core.onRead(m)
	case *messages.ReadRefused:
		a.core.onRead(&messages.ReadReply{Request: m.Request, Code: m.Code})
	case *messages.StateRead:
		a.lineage()
		a.core.onState(m)
	case *messages.VouchState:
		a.core.onVouch(m)
	case *messages.AuditConfirmed:
		a.confirm(m.Index)
	case *messages.AuditAsk:
		if peer := messages.PeerAt(ctx.Sender().GetAddress(), a.config.Self); peer != 0 {
			a.core.onAsk(peer, m)
		}
	case *messages.AuditAnswer:
		if peer := messages.PeerAt(ctx.Sender().GetAddress(), a.config.Self); peer != 0 {
			a.core.onAnswer(peer, m)
		}
	case *messages.AuditVerdict:
		a.core.onVerdict(m)
	default:
		telemetry.Unexpected(ctx, a.config.Logger, a.config.Meter)
	}
	if !a.ended { // what was decided without a lineage is not said
		a.carry(ctx)
	}
}

func (a *auditActor) carry(ctx actor.Context) {
	a.rounds.Add(float64(a.core.walked - a.counted))
	a.counted = a.core.walked
	for _, effect := range a.core.take() {
		switch e := effect.(type) {
		case readOwn:
			ctx.Send(a.config.Machine, &messages.ReadAt{Reads: []*messages.ReadIndex{{
				Session: messages.ActorAudit,
				Read: &messages.Read{
					Request: e.request, Revision: e.revision, Consistency: messages.Consistency_STALE,
					Kind: &messages.Read_Digest{Digest: e.digest},
				},
			}}})
		case readState:
			ctx.Request(a.config.Machine, &messages.ReadState{Request: e.request, Index: e.index})
		case askPeer:
			a.questions.Inc()
			ctx.Request(a.config.Peer(e.peer), e.ask)
		case answerPeer:
			ctx.Request(a.config.Peer(e.peer), e.answer)
		case tell:
			ctx.Request(a.config.Peer(e.peer), e.verdict)
		case vouch:
			ctx.Send(a.config.Snapshots, e.answer)
		case confirmOwn:
			a.confirm(e.index)
		case confirmPeer:
			ctx.Request(a.config.Peer(e.peer), &messages.AuditConfirmed{Index: e.index})
		case warn:
			a.differences.Inc()
			a.config.Logger.Error("audit: "+e.text, "hint", "kvctl verify names the first key that differs; test the disk and the memory of who differs")
		case condemn:
			a.condemn(e.reason)
			return
		}
	}
}

// condemn takes the node out of service, also after a restart.
func (a *auditActor) condemn(reason string) {
	a.ended = true
	a.config.Fatal(disk.Condemn(a.config.Disk, reason))
}

// lineage reads from whom the state comes that was just read. It was written before the state
// counted, so a copy is never taken for a state of its own.
func (a *auditActor) lineage() {
	lineage, err := a.config.Disk.Lineage()
	if err != nil {
		a.ended = true
		a.config.Fatal(err)
	}
	a.core.lineage = lineage
}

func (a *auditActor) confirm(index uint64) {
	if err := a.config.Disk.Confirm(index); err != nil {
		a.ended = true
		a.config.Fatal(err)
	}
}
