package storeactor

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/actors/auth"
	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
	"keyval/storeactor/state"
)

// MachineConfig is what the machine needs. Zero numbers mean their defaults.
type MachineConfig struct {
	Self                           messages.RaftID
	TickMS                         uint64 // 50
	Level                          uint32 // the highest cluster level that is understood; messages.Level
	Raft, Log, Gateway, Membership *actor.PID
	Disk                           disk.Disk
	Logger                         *slog.Logger          // nil discards
	Meter                          prometheus.Registerer // nil: nobody counts
	Fatal                          func(reason error)
	Tracer                         *telemetry.Tracer // nil: nobody traces
	Nanos                          func() int64      // for how long something took; nil: nobody measures

	Readers int // reader actors; 4

	// A checkpoint is written once something was applied and one of these is
	// reached: entries (50,000), bytes of entries (32 MiB), ticks (50).
	CheckpointEntries uint64
	CheckpointBytes   uint64
	CheckpointTicks   uint32

	// History is given up beyond so many revisions, or older than so much log time;
	// 0: no bound.
	HistoryRevisions uint64
	HistoryMS        uint64

	RoomBytes int64 // below so many free ones this node lacks room; 0: see room; below 0: it never does
}

func (c MachineConfig) withDefaults() MachineConfig {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.TickMS = cmp.Or(c.TickMS, 50)
	c.Level = cmp.Or(c.Level, messages.Level)
	c.Readers = cmp.Or(c.Readers, 4)
	c.CheckpointEntries = cmp.Or(c.CheckpointEntries, 50_000)
	c.CheckpointBytes = cmp.Or(c.CheckpointBytes, 32<<20)
	c.CheckpointTicks = cmp.Or(c.CheckpointTicks, 50)
	return c
}

// NewMachine makes the actor that applies what the group has agreed upon. It
// starts from the last checkpoint, says MachineOpened, and applies entries in
// order. It is to be spawned as messages.ActorMachine.
func NewMachine(config MachineConfig) actor.Producer {
	config = config.withDefaults()
	return func() actor.Actor {
		return &machineActor{config: config, meters: newMeters(config.Meter), desk: newDesk()}
	}
}

// machineActor is the only writer of the engine. It publishes a revision when all rows
// of it are written, so that a reader never sees a part of one.
type machineActor struct {
	config MachineConfig
	meters meters
	phase  phase

	state   *state.State
	engine  disk.Engine
	batch   *state.Batch         // empty between two messages
	durable *messages.Checkpoint // the last checkpoint that is durable
	writing *messages.Checkpoint // what the checkpoint actor is writing, or nil
	// thorough: a client gave up history since the last checkpoint was begun, so space
	// is to be reclaimed once the next one is durable. writingThorough says the same of
	// the checkpoint that is being written.
	thorough, writingThorough bool

	readers    []*actor.PID
	desk       desk
	turn       int // of the last reader that was given rows of a snapshot to read
	checkpoint *actor.PID
	reclaim    *actor.PID // nil: none is under way

	pace       checkpointPace
	retention  state.Retention
	pins       pins
	discarding discarding
	digests    digests
	room       room
	roomAge    uint32 // ticks since the last look

	waiting   waitingReads
	pinsAsked []pinAsked // while switching; at most pinsMax
	installed uint64     // index of the snapshot to switch to
}

// phase is where the machine is in its life.
type phase int

const (
	opening   phase = iota // it has not read its checkpoint yet
	serving                // state, engine and children belong together
	switching              // a snapshot was installed: the children of the old state are stopping
	over                   // it failed or stops: nothing more is done
)

func (m *machineActor) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.onStarted(ctx)
	case *actor.Stopping:
		m.phase = over
	case *actor.Stopped:
		m.closeEngine(ctx)
	case *actor.Terminated:
		m.onTerminated(ctx, msg)
	case *messages.Apply:
		m.onApply(ctx, msg)
	case *messages.Installed:
		m.onInstalled(ctx, msg)
	case *messages.CheckpointWritten:
		m.onCheckpointWritten(ctx, msg)
	case *messages.ReadAt:
		m.onReadAt(ctx, msg)
	case *messages.ReadsDone:
		m.desk.done(int(msg.Turn) - 1)
		m.giveTurns(ctx)
	case *messages.DropReads:
		m.desk.drop(msg.Client, msg.Session)
	case *messages.ReadReply:
		m.onReadReply(ctx, msg)
	case *messages.ReadRows:
		m.onReadRows(ctx, msg)
	case *messages.ReadState:
		m.onReadState(ctx, msg)
	case *messages.PinState:
		m.onPinState(ctx, msg)
	case *messages.UnpinState:
		m.onUnpinState(ctx, msg)
	case *messages.Tick:
		m.onTick(ctx, msg)
	case *messages.Introduce:
		m.onIntroduce(ctx)
	default:
		telemetry.Unexpected(ctx, m.config.Logger, m.config.Meter)
	}
}

// onIntroduce tells an actor that starts anew what it missed.
func (m *machineActor) onIntroduce(ctx actor.Context) {
	if m.state == nil {
		return
	}
	ctx.Respond(m.members())
	if m.config.Gateway.Equal(ctx.Sender()) {
		ctx.Respond(&messages.LogTimeAdvanced{LogTimeMs: m.state.LogTimeMS()})
	}
}

func (m *machineActor) onApply(ctx actor.Context, msg *messages.Apply) {
	switch m.phase {
	case serving:
	case over:
		return
	default: // raft hands out nothing behind a snapshot before the log has answered
		m.fail(messages.Errorf(messages.Code_INTERNAL, "entries came while the snapshot at index %d is being opened", m.installed).
			WithHint(defectHint))
		return
	}
	logTime := m.state.LogTimeMS()
	begun := m.now()
	size, err := m.apply(msg.Message.GetEntries())
	if err != nil {
		m.fail(err)
		return
	}
	if m.config.Nanos != nil {
		m.meters.apply.Observe(float64(m.now()-begun) / 1e9)
	}
	m.tellOutcomes(ctx)
	ctx.Send(m.config.Raft, &messages.Applied{
		Message:           msg.Message,
		Index:             m.state.Index(),
		Revision:          m.state.Revision(),
		LogTimeMs:         m.state.LogTimeMS(),
		HistoryHash:       m.state.History(),
		CompactedRevision: m.state.Compacted(),
		Level:             m.state.Level(),
		Verdicts:          m.batch.Verdicts,
	})
	m.heed(m.batch.Verdicts)
	if m.batch.MembersChanged {
		m.tellMembers(ctx)
	}
	if m.state.LogTimeMS() != logTime {
		ctx.Send(m.config.Gateway, &messages.LogTimeAdvanced{LogTimeMs: m.state.LogTimeMS()})
	}
	if m.batch.Compaction != state.NoCompaction {
		m.tellGivenUp(m.batch.GivenUp)
		m.pace.force()
		m.thorough = m.thorough || m.batch.Compaction == state.ClientCompaction
	}
	m.batch.Clear()
	m.giveDigests(ctx)
	m.giveReleased(ctx)
	m.pace.applied(uint64(len(msg.Message.GetEntries())), size)
	m.meters.applied.Add(float64(len(msg.Message.GetEntries())))
	m.retention.Applied(size)
	m.checkpointIfDue(ctx)
}

// now is for metrics, and 0 where nobody measures.
func (m *machineActor) now() int64 {
	if m.config.Nanos == nil {
		return 0
	}
	return m.config.Nanos()
}

// tellGivenUp says who had history given up, and up to where.
func (m *machineActor) tellGivenUp(g state.GivenUp) {
	switch {
	case g.Below == 0:
	case g.Client == nil:
		m.config.Logger.Info("history is given up", "below", g.Below, "by", "retention")
	default:
		m.config.Logger.Info("history is given up", "below", g.Below, "request", messages.RequestID(g.Client, messages.RequestWrite, g.Seq))
	}
}

// heed has a checkpoint written behind a change of the configuration: a member that was
// added can use no snapshot of before.
func (m *machineActor) heed(verdicts []*messages.Verdict) {
	for _, v := range verdicts {
		if v.Accepted {
			m.pace.force()
			continue
		}
		m.config.Logger.Info("a change of the members came too late, or must not be", "index", v.Index, "reason", v.Refusal)
	}
}

// apply carries out entries and writes their rows. It returns the entries' size.
func (m *machineActor) apply(entries []*raftpb.Entry) (size uint64, err error) {
	for _, e := range entries {
		if e.GetIndex() != m.state.Index()+1 {
			return 0, messages.Errorf(messages.Code_INTERNAL, "entry %d was to be applied behind entry %d", e.GetIndex(), m.state.Index()).
				WithHint(defectHint)
		}
		if err := m.state.Apply(m.batch, e); err != nil {
			return 0, fmt.Errorf("apply entry %d: %w", e.GetIndex(), err)
		}
		m.digests.passed(m.state, e)
		size += uint64(len(e.GetData()))
	}
	if err := m.batch.Flush(); err != nil {
		return 0, fmt.Errorf("write the user data: %w", err)
	}
	return size, nil
}

// tellOutcomes tells the gateway what became of the commands that came from here.
func (m *machineActor) tellOutcomes(ctx actor.Context) {
	own := 0
	for i := range m.batch.Settled {
		if m.awaits(&m.batch.Settled[i]) {
			own++
		}
	}
	if own == 0 {
		return
	}
	told := make([]messages.SessionOutcome, own)
	outcomes := make([]messages.Outcome, own)
	list := make([]*messages.SessionOutcome, own)
	next := 0
	for i := range m.batch.Settled {
		s := &m.batch.Settled[i]
		if !m.awaits(s) {
			continue
		}
		s.Fill(&outcomes[next])
		told[next].Client, told[next].Principal, told[next].Outcome = s.Client, s.Principal, &outcomes[next]
		list[next] = &told[next]
		next++
	}
	ctx.Send(m.config.Gateway, &messages.Outcomes{Outcomes: list})
}

// awaits reports whether a session of this node may wait for the outcome.
func (m *machineActor) awaits(s *state.Settled) bool {
	return s.Origin == m.config.Self && len(s.Client) == messages.ClientIDSize
}

func (m *machineActor) tellMembers(ctx actor.Context) {
	changed := m.members()
	ctx.Send(m.config.Membership, changed)
	ctx.Send(m.config.Gateway, changed)
}

func (m *machineActor) members() *messages.MembersChanged {
	c := m.state.Configuration()
	return &messages.MembersChanged{
		Members:            c.Members,
		ClusterId:          m.state.ClusterID(),
		LogTimeMs:          m.state.LogTimeMS(),
		NextRaftId:         c.NextRaftID,
		ConfigurationIndex: c.Index,
		ConfState:          c.ConfState,
		Operations:         m.state.Operations(),
		Healing:            m.state.Healing(),
		Backups:            m.state.Backups(),
		Auth:               m.state.Auth(),
		Invitations:        m.state.Invitations(),
		Index:              m.state.Index(),
		Level:              m.state.Level(),
		Settled:            m.settled(),
	}
}

// settled reports whether the configuration is durable here.
func (m *machineActor) settled() bool {
	return m.state.Configuration().Index <= m.durable.GetIndex() || mutant.RefusedEarly
}

func (m *machineActor) onReadAt(ctx actor.Context, msg *messages.ReadAt) {
	switch {
	case m.phase == over:
	case m.phase == serving && (msg.Index <= m.state.Index() || mutant.ReadUnapplied):
		m.queueReads(ctx, msg)
		m.giveTurns(ctx)
	case !m.waiting.add(msg):
		for _, read := range msg.Reads {
			refuseRead(ctx, read)
		}
	}
}

func refuseRead(ctx actor.Context, read *messages.ReadIndex) {
	ctx.Send(sessionPID(ctx, read.Session), &messages.ReadRefused{Request: read.Read.GetRequest(), Code: messages.Code_BUSY})
}

// queueReads queues reads whose index is applied.
func (m *machineActor) queueReads(ctx actor.Context, msg *messages.ReadAt) {
	for _, read := range msg.Reads {
		if !m.desk.add(read) {
			refuseRead(ctx, read)
		}
	}
}

// giveReleased gives out the reads whose index is applied by now.
func (m *machineActor) giveReleased(ctx actor.Context) {
	for _, reads := range m.waiting.release(m.state.Index()) {
		m.queueReads(ctx, reads)
	}
	m.giveTurns(ctx)
}

// giveTurns gives readers that have little to do the next reads, at this revision.
func (m *machineActor) giveTurns(ctx actor.Context) {
	if m.phase != serving {
		return
	}
	for reader, reads := m.desk.next(); len(reads) > 0; reader, reads = m.desk.next() {
		ctx.Send(m.readers[reader], &messages.ReadAt{
			Reads:     m.allowed(ctx, reads),
			Revision:  m.state.Revision(),
			Compacted: m.state.Compacted(),
			Turn:      uint32(reader) + 1,
		})
	}
}

// allowed are the reads whose principals may do them, as of the revision at which they are
// about to be read, and the node's own. The others are refused.
func (m *machineActor) allowed(ctx actor.Context, reads []*messages.ReadIndex) []*messages.ReadIndex {
	if !m.state.Auth().GetEnabled() {
		return reads
	}
	return slices.DeleteFunc(reads, func(r *messages.ReadIndex) bool {
		if r.Client == "" {
			return false
		}
		why := auth.Missing(m.state.Auth(), r.Principal, auth.OfRead(r.Read))
		if why != nil {
			ctx.Send(sessionPID(ctx, r.Session), &messages.ReadReply{
				Request: r.Read.GetRequest(), Code: why.Code, Message: why.Message, Hint: why.Hint, Revision: m.state.Revision(),
			})
		}
		return why != nil
	})
}

func (m *machineActor) nextReader() *actor.PID {
	m.turn = (m.turn + 1) % len(m.readers)
	return m.readers[m.turn]
}

func (m *machineActor) onTick(ctx actor.Context, msg *messages.Tick) {
	if m.phase == serving {
		m.giveTurns(ctx) // a reader that failed has lost its turn
		m.pace.ticked(uint64(msg.Elapsed))
		m.checkpointIfDue(ctx)
		m.pins.ticked(uint64(msg.Elapsed))
		m.meters.sessions.Set(float64(m.state.Sessions()))
		m.meters.reads.Set(float64(m.desk.queue.Cost() + m.waiting.reads))
		m.digests.tick(m.state.Index())
		m.discardTicked(ctx, uint64(msg.Elapsed))
		m.retain(ctx, uint64(msg.Elapsed))
	}
	m.lookForRoom(ctx, msg.Elapsed)
	ctx.Request(ctx.Sender(), &messages.Ticked{})
}

// retain proposes a compaction if there is more history than is to be kept. Only the
// leader's raft takes it; the others drop it without a word.
func (m *machineActor) retain(ctx actor.Context, ticks uint64) {
	revision := m.retention.Ticked(ticks, m.state.Revision(), m.state.LogTimeMS(), m.state.Compacted())
	if revision > 0 && !mutant.HistoryNeverGoes {
		ctx.Send(m.config.Raft, &messages.Propose{Origin: m.config.Self, Command: state.CompactCommand(revision)})
	}
}

func (m *machineActor) checkpointIfDue(ctx actor.Context) {
	if !m.pace.due() {
		return
	}
	m.pace.begin(m.state.Index())
	m.writing, m.writingThorough = m.state.Checkpoint(), m.thorough
	m.thorough = false
	ctx.Send(m.checkpoint, &messages.WriteCheckpoint{Checkpoint: m.writing})
}

// onCheckpointWritten: the log may be cut up to here, and what the checkpoint gives
// up may be discarded.
func (m *machineActor) onCheckpointWritten(ctx actor.Context, msg *messages.CheckpointWritten) {
	if m.phase != serving || !m.pace.written(msg.Index) {
		return
	}
	settled := m.settled()
	m.durable, m.writing = m.writing, nil
	if !settled && m.settled() {
		m.tellMembers(ctx)
	}
	m.meters.checkpoint.Observe(float64(m.pace.ticks*m.config.TickMS) / 1000)
	ctx.Send(m.config.Raft, &messages.Checkpointed{
		Index:             m.durable.Index,
		Term:              m.durable.Term,
		ConfState:         m.durable.ConfState,
		CompactedRevision: m.durable.CompactedRevision,
		Thorough:          m.writingThorough,
	})
	m.discarding.reclaim = m.discarding.reclaim || m.writingThorough
	m.discard(ctx)
	m.checkpointIfDue(ctx)
}

// defectHint is the next step after a broken invariant.
const defectHint = "this is a defect of the software; start the node again, it replays from its checkpoint"

func (m *machineActor) fail(reason error) {
	m.phase = over
	m.config.end(reason)
}

// end ends the process. A row that is not what was written would end it again and
// again, as often as somebody reads it, and meanwhile the node might lead: so its
// directory is given up first, for good.
func (c MachineConfig) end(reason error) {
	if rot, is := errors.AsType[*disk.Rot](reason); is {
		if err := c.Disk.Condemn(rot.Error()); err != nil {
			reason = errors.Join(reason, err)
		}
	}
	c.Fatal(reason)
}
