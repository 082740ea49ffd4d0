package raftactor

import (
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// Config wires a Raft actor. The functions make PIDs anew for every use: a PID
// remembers the process it was resolved to.
type Config struct {
	Self      messages.RaftID
	TickMS    uint64
	Level     uint32 // the highest cluster level that is understood
	ReadNonce uint64
	LossNonce uint64
	Suspicion *messages.Suspicion // see ReplicaConfig
	Options   Options
	Logger    *slog.Logger
	Meter     prometheus.Registerer
	Fatal     func(error)
	Tracer    *telemetry.Tracer // nil: nobody traces
	Nanos     func() int64      // for how long something took; nil: nobody measures

	Log, Machine, Snapshots, Gateway, Membership *actor.PID

	Peer func(messages.RaftID) *actor.PID // a peer's raft actor
	PID  func(Asker) *actor.PID

	Inbox Inbox // of what peers send; nil: nobody counts
}

// Inbox counts what came from peers and waits in the actor's mailbox.
type Inbox interface {
	Took(peer messages.RaftID, m proto.Message) // m waits no longer
	Lost() uint64                               // how many were dropped, ever: too much waited
	Waits() int64                               // bytes of entries and commands that wait now
}

// Raft is the actor around a Replica: it takes messages as events, and once all
// that stood in its mailbox is taken, carries the effects.
type Raft struct {
	cfg      Config
	replica  *Replica
	meters   meters
	spans    spans
	led      AnnounceLeader // the last one that named a leader
	flushing bool           // a Flush to itself is under way
	lost     uint64         // messages that the inbox has dropped, as told last
}

// New makes the producer of a node's Raft actor.
func New(cfg Config) actor.Producer {
	return func() actor.Actor {
		return &Raft{cfg: cfg, meters: newMeters(cfg.Meter, cfg.Nanos), spans: spans{tracer: cfg.Tracer}, replica: NewReplica(ReplicaConfig{
			Self: cfg.Self, TickMS: cfg.TickMS, Level: cfg.Level, ReadNonce: cfg.ReadNonce, LossNonce: cfg.LossNonce, Suspicion: cfg.Suspicion,
			Logger: raftLogger{cfg.Logger}, Options: cfg.Options,
		})}
	}
}

func (a *Raft) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.Flush:
		a.flushing = false
		a.replica.Advance()
		a.run(ctx)
		a.meters.queued.Set(float64(a.replica.QueuedBytes()))
		return
	case *messages.LogOpened:
		a.replica.OnLogOpened(m)
	case *messages.MachineOpened:
		a.replica.OnMachineOpened(m)
	case *messages.Tick:
		a.replica.OnTick(m.Elapsed)
		a.countLost()
		ctx.Request(ctx.Sender(), &messages.Ticked{})
	case *messages.RaftMessage:
		a.onPeer(m)
	case *messages.PeerGone:
		a.replica.OnPeerGone(m.Peer)
	case *messages.PeerRefused, *messages.LossAsk, *messages.LossAnswer, *messages.SuspicionRecorded:
		a.onLoss(ctx, m)
	case *messages.Propose:
		if m.Origin != a.cfg.Self {
			a.took(m.Origin, m)
		}
		if a.replica.OnPropose(asker(ctx), m) {
			a.spans.proposed(m)
		}
	case *messages.ProposeChange:
		a.replica.OnProposeChange(m)
	case *messages.TransferLead:
		a.replica.OnTransferLead(m)
	case *messages.ReadIndex:
		a.spans.asked(m)
		a.replica.OnRead(m)
	case *messages.Appended:
		if entries := m.Message.GetEntries(); len(entries) > 0 {
			a.spans.appended(entries[len(entries)-1].GetIndex())
		}
		a.replica.OnAppended(m.Message)
	case *messages.Applied:
		a.spans.applied(m.Index)
		a.replica.OnApplied(m)
	case *messages.Checkpointed:
		a.replica.OnCheckpointed(m)
	case *messages.SnapshotShipped:
		a.replica.OnShipped(m)
	case *messages.StagedSnapshot:
		a.onStaged(m)
	case *messages.StatusDraft:
		a.onStatus(ctx, m)
		return
	case *messages.Introduce:
		ctx.Respond(a.replica.Leader())
		return
	default:
		telemetry.Unexpected(ctx, a.cfg.Logger, a.cfg.Meter)
		return
	}
	if !a.flushing {
		a.flushing = true
		ctx.Send(ctx.Self(), &messages.Flush{})
	}
}

func asker(ctx actor.Context) Asker {
	if s := ctx.Sender(); s != nil {
		return Asker{s.Address, s.Id}
	}
	return Asker{}
}

func (a *Raft) took(peer messages.RaftID, m proto.Message) {
	if a.cfg.Inbox != nil {
		a.cfg.Inbox.Took(peer, m)
	}
}

// countLost tells what the inbox holds, and has dropped since the last tick.
func (a *Raft) countLost() {
	if a.cfg.Inbox == nil {
		return
	}
	a.meters.inbox.Set(float64(a.cfg.Inbox.Waits()))
	if lost := a.cfg.Inbox.Lost(); lost > a.lost {
		a.cfg.Logger.Warn("raft: peers send faster than this node works; messages were dropped, and Raft sends them again", "messages", lost-a.lost)
		a.meters.lost.Add(float64(lost - a.lost))
		a.lost = lost
	}
}

func (a *Raft) onPeer(m *messages.RaftMessage) {
	a.took(m.Message.GetFrom(), m)
	if err := a.replica.OnPeer(m.Message); err != nil {
		a.cfg.Logger.Warn("raft: refused a peer's message", "peer", m.Message.GetFrom(), "reason", err)
	}
}

func (a *Raft) onStaged(m *messages.StagedSnapshot) {
	if err := a.replica.OnStaged(m.Message); err != nil {
		a.cfg.Logger.Warn("raft: refused a staged snapshot", "peer", m.Message.GetFrom(), "reason", err)
	}
}

// onLoss takes what concerns data that this node, or another, may have lost.
func (a *Raft) onLoss(ctx actor.Context, message any) {
	from := messages.PeerAt(ctx.Sender().GetAddress(), a.cfg.Self)
	switch m := message.(type) {
	case *messages.PeerRefused:
		a.replica.OnPeerRefused(m)
	case *messages.SuspicionRecorded:
		a.replica.OnSuspicionRecorded()
	case *messages.LossAsk:
		if from != 0 {
			a.replica.OnLossAsk(from, m)
		}
	case *messages.LossAnswer:
		if from != 0 {
			a.replica.OnLossAnswer(from, m)
		}
	}
}

// onStatus ends the way of a StatusDraft: the gateway is its sender.
func (a *Raft) onStatus(ctx actor.Context, m *messages.StatusDraft) {
	reply := proto.Clone(m.Reply).(*messages.StatusReply)
	a.replica.FillStatus(reply)
	ctx.Respond(reply)
}

// onCommitted takes note of entries that go to the machine.
func (a *Raft) onCommitted(m *raftpb.Message) {
	if entries := m.GetEntries(); len(entries) > 0 {
		a.spans.committed(entries[len(entries)-1].GetIndex())
	}
}

func (a *Raft) run(ctx actor.Context) {
	for _, effect := range a.replica.Effects() {
		switch e := effect.(type) {
		case SendPeer:
			ctx.Send(a.cfg.Peer(e.Message.GetTo()), &messages.RaftMessage{Message: e.Message})
		case AppendLog:
			ctx.Request(a.cfg.Log, &messages.Append{Message: e.Message})
		case ApplyEntries:
			a.onCommitted(e.Message)
			ctx.Request(a.cfg.Machine, &messages.Apply{Message: e.Message})
		case CutLog:
			ctx.Send(a.cfg.Log, &messages.CutLog{Index: e.Index, Term: e.Term})
		case ShipSnapshot:
			ctx.Request(a.cfg.Snapshots, &messages.ShipSnapshot{Message: e.Message})
		case StagingUnused:
			ctx.Send(a.cfg.Snapshots, &messages.StagingUnused{Index: e.Index})
		case TracedLogged:
			a.spans.logged(e)
		case AskedReadIndex:
			a.meters.readIndexAsked()
		case ReadAt:
			a.meters.readIndexConfirmed()
			a.spans.confirmed(e.Reads)
			ctx.Send(a.cfg.Machine, &messages.ReadAt{Index: e.Index, Reads: e.Reads})
		case RefuseReads:
			a.spans.confirmed(e.Reads)
			for _, r := range e.Reads {
				ctx.Send(a.cfg.PID(Asker{Actor: r.Session}), &messages.ReadRefused{Request: r.Read.Request, Code: e.Code})
			}
		case RefuseProposal:
			a.meters.refused.WithLabelValues(e.Refusal.Code.String()).Inc()
			a.spans.refused(e.Traceparent, e.Refusal.Code)
			if e.To.Actor != "" {
				ctx.Send(a.cfg.PID(e.To), e.Refusal)
			}
		case ElectionStarted:
			a.meters.elections.Inc()
		case AskLoss:
			ctx.Request(a.cfg.Peer(e.To), e.Ask)
		case AnswerLoss:
			ctx.Request(a.cfg.Peer(e.To), e.Answer)
		case RecordSuspicion:
			ctx.Request(a.cfg.Log, &messages.RecordSuspicion{Suspicion: e.Suspicion, Condemned: e.Condemned})
		case Warn:
			a.cfg.Logger.Error("raft: " + e.Text)
		case AnnounceLeader:
			if e.Leader != a.cfg.Self {
				a.spans.lost()
			}
			if e.Leader != 0 && (e.Leader != a.led.Leader || e.Term != a.led.Term) {
				a.led = e
				a.meters.leaders.Inc()
			}
			ctx.Send(a.cfg.Gateway, &messages.LeaderChanged{Leader: e.Leader, Term: e.Term, Fenced: e.Fenced})
			ctx.Send(a.cfg.Membership, &messages.LeaderChanged{Leader: e.Leader, Term: e.Term, Fenced: e.Fenced, Why: e.Why})
		case TellReplication:
			ctx.Send(a.cfg.Membership, e.Replication)
		case Die:
			a.cfg.Fatal(e.Reason)
		}
	}
}
