package storeactor

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// MachineConfig is what the machine needs. Zero numbers mean their defaults.
type MachineConfig struct {
	Self                           messages.RaftID
	Raft, Log, Gateway, Membership *actor.PID
	Disk                           Disk
	Fatal                          func(reason error)

	Readers int // reader actors; 4

	// A checkpoint is written once something was applied and one of these is
	// reached: entries (50,000), bytes of entries (64 MiB), ticks (50).
	CheckpointEntries uint64
	CheckpointBytes   uint64
	CheckpointTicks   uint32
}

func (c MachineConfig) withDefaults() MachineConfig {
	c.Readers = cmp.Or(c.Readers, 4)
	c.CheckpointEntries = cmp.Or(c.CheckpointEntries, 50_000)
	c.CheckpointBytes = cmp.Or(c.CheckpointBytes, 64<<20)
	c.CheckpointTicks = cmp.Or(c.CheckpointTicks, 50)
	return c
}

// NewMachine makes the actor that applies what the group has agreed upon. It
// starts from the last checkpoint, says MachineOpened, and applies entries in
// order. It is to be spawned as messages.ActorMachine.
func NewMachine(config MachineConfig) actor.Producer {
	return func() actor.Actor {
		c := config.withDefaults()
		return &machineActor{config: c, pace: checkpointPace{
			entriesMax: c.CheckpointEntries, bytesMax: c.CheckpointBytes, ticksMax: uint64(c.CheckpointTicks),
		}}
	}
}

// machineActor is the only writer of the engine. What it tells others was written
// before: a published revision is whole.
type machineActor struct {
	config MachineConfig
	state  *State
	engine Engine
	batch  *Batch // empty between two messages

	readers    []*actor.PID
	turn       int // of the next reader
	checkpoint *actor.PID
	pace       checkpointPace
	waiting    waitingReads

	failed bool // nothing more is done
}

func (m *machineActor) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		m.onStarted(ctx)
	case *actor.Stopped:
		m.onStopped(ctx)
	case *messages.Apply:
		m.onApply(ctx, msg)
	case *messages.ReadAt:
		m.onReadAt(ctx, msg)
	case *messages.Tick:
		m.onTick(ctx, msg)
	case *messages.CheckpointWritten:
		m.onCheckpointWritten(ctx, msg)
	case *messages.Introduce:
		m.onIntroduce(ctx)
	default:
		unexpected(ctx)
	}
}

func (m *machineActor) onStarted(ctx actor.Context) {
	if err := m.open(); err != nil {
		m.fail(err)
		return
	}
	if err := m.spawnChildren(ctx); err != nil {
		m.fail(err)
		return
	}
	ctx.Send(m.config.Raft, &messages.MachineOpened{
		Index:     m.state.index,
		Revision:  m.state.revision,
		LogTimeMs: m.state.logTimeMS,
		ConfState: m.state.conf,
	})
	m.tellMembers(ctx)
	ctx.Send(m.config.Gateway, &messages.LogTimeAdvanced{LogTimeMs: m.state.logTimeMS})
}

// onIntroduce tells an actor that starts anew what it missed.
func (m *machineActor) onIntroduce(ctx actor.Context) {
	if m.state == nil {
		return
	}
	ctx.Respond(m.members())
	if m.config.Gateway.Equal(ctx.Sender()) {
		ctx.Respond(&messages.LogTimeAdvanced{LogTimeMs: m.state.logTimeMS})
	}
}

func (m *machineActor) open() error {
	checkpoint, err := m.config.Disk.Checkpoint()
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	if m.state, err = FromCheckpoint(checkpoint); err != nil {
		return err
	}
	if m.engine, err = m.config.Disk.OpenEngine(checkpoint); err != nil {
		return fmt.Errorf("open the user data: %w", err)
	}
	m.batch = NewBatch(m.engine)
	return nil
}

func (m *machineActor) spawnChildren(ctx actor.Context) (err error) {
	m.checkpoint, err = ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor {
		return &checkpointActor{log: m.config.Log, disk: m.config.Disk, engine: m.engine, fatal: m.config.Fatal}
	}), childName(messages.ActorCheckpoint))
	if err != nil {
		return fmt.Errorf("spawn %s: %w", messages.ActorCheckpoint, err)
	}
	m.readers = make([]*actor.PID, m.config.Readers)
	for i := range m.readers {
		name := messages.ActorReaderPrefix + strconv.Itoa(i)
		m.readers[i], err = ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor {
			return &readerActor{view: m.engine, fatal: m.config.Fatal}
		}), childName(name))
		if err != nil {
			return fmt.Errorf("spawn %s: %w", name, err)
		}
	}
	return nil
}

// childName is the last part of the name of one of the machine's children.
func childName(name string) string { return strings.TrimPrefix(name, messages.ActorMachine+"/") }

// onStopped closes the engine once no child uses it any more.
func (m *machineActor) onStopped(ctx actor.Context) {
	if m.engine == nil {
		return
	}
	if err := m.engine.Close(); err != nil {
		ctx.Logger().Error("the user data did not close cleanly", "error", err)
	}
}

func (m *machineActor) onApply(ctx actor.Context, msg *messages.Apply) {
	if m.failed {
		return
	}
	logTime := m.state.logTimeMS
	size, err := m.apply(msg.Message.GetEntries())
	if err != nil {
		m.fail(err)
		return
	}
	m.tellOutcomes(ctx)
	ctx.Send(m.config.Raft, &messages.Applied{
		Message:     msg.Message,
		Index:       m.state.index,
		Revision:    m.state.revision,
		LogTimeMs:   m.state.logTimeMS,
		HistoryHash: m.state.history,
	})
	if m.batch.MembersChanged {
		m.tellMembers(ctx)
	}
	if m.state.logTimeMS != logTime {
		ctx.Send(m.config.Gateway, &messages.LogTimeAdvanced{LogTimeMs: m.state.logTimeMS})
	}
	m.batch.Clear()
	for _, reads := range m.waiting.release(m.state.index) {
		m.giveToReaders(ctx, reads)
	}
	m.pace.applied(uint64(len(msg.Message.GetEntries())), size)
	m.checkpointIfDue(ctx)
}

// apply carries out entries and writes their rows. It returns the entries' size.
func (m *machineActor) apply(entries []*raftpb.Entry) (size uint64, err error) {
	for _, e := range entries {
		if e.GetIndex() != m.state.index+1 {
			return 0, messages.Errorf(messages.Code_INTERNAL, "entry %d was to be applied behind entry %d", e.GetIndex(), m.state.index).
				WithHint("this is a defect of the software; start the node again, it replays from its checkpoint")
		}
		if err := m.state.Apply(m.batch, e); err != nil {
			return 0, fmt.Errorf("apply entry %d: %w", e.GetIndex(), err)
		}
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
		if m.batch.Settled[i].Origin == m.config.Self {
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
		if s.Origin != m.config.Self {
			continue
		}
		s.outcome.fill(&outcomes[next])
		told[next].Client, told[next].Outcome = s.client, &outcomes[next]
		list[next] = &told[next]
		next++
	}
	ctx.Send(m.config.Gateway, &messages.Outcomes{Outcomes: list})
}

func (m *machineActor) tellMembers(ctx actor.Context) {
	changed := m.members()
	ctx.Send(m.config.Membership, changed)
	ctx.Send(m.config.Gateway, changed)
}

func (m *machineActor) members() *messages.MembersChanged {
	return &messages.MembersChanged{
		Members:   slices.Clone(m.state.members),
		ClusterId: m.state.clusterID,
		LogTimeMs: m.state.logTimeMS,
	}
}

func (m *machineActor) onReadAt(ctx actor.Context, msg *messages.ReadAt) {
	switch {
	case m.failed:
	case msg.Index <= m.state.index:
		m.giveToReaders(ctx, msg)
	case !m.waiting.add(msg):
		for _, read := range msg.Reads {
			ctx.Send(sessionPID(ctx, read.Session), &messages.ReadRefused{
				Request: read.Read.GetRequest(),
				Code:    messages.Code_BUSY,
			})
		}
	}
}

// giveToReaders shares reads out among the readers in turn, at this revision.
func (m *machineActor) giveToReaders(ctx actor.Context, msg *messages.ReadAt) {
	for reads := range slices.Chunk(msg.Reads, readsPerTurn) {
		ctx.Send(m.readers[m.turn], &messages.ReadAt{
			Index:     msg.Index,
			Reads:     reads,
			Revision:  m.state.revision,
			Compacted: m.state.compacted,
		})
		m.turn = (m.turn + 1) % len(m.readers)
	}
}

func (m *machineActor) onTick(ctx actor.Context, msg *messages.Tick) {
	if !m.failed {
		m.pace.ticked(uint64(msg.Elapsed))
		m.checkpointIfDue(ctx)
	}
	ctx.Request(ctx.Sender(), &messages.Ticked{})
}

func (m *machineActor) checkpointIfDue(ctx actor.Context) {
	if !m.pace.due() {
		return
	}
	m.pace.begin(m.state.index)
	ctx.Send(m.checkpoint, &messages.WriteCheckpoint{Checkpoint: m.state.Checkpoint()})
}

func (m *machineActor) onCheckpointWritten(ctx actor.Context, msg *messages.CheckpointWritten) {
	if m.failed || !m.pace.written(msg.Index) {
		return
	}
	m.checkpointIfDue(ctx)
}

func (m *machineActor) fail(reason error) {
	m.failed = true
	m.config.Fatal(reason)
}

// HandleFailure makes the machine the supervisor of its children: a reader keeps
// nothing and restarts; a checkpoint that panicked met a broken invariant, which
// is the whole node's.
func (m *machineActor) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	statistics *actor.RestartStatistics, reason, message any) {
	strategy := escalate
	if slices.ContainsFunc(m.readers, child.Equal) {
		strategy = restart
	}
	strategy.HandleFailure(system, supervisor, child, statistics, reason, message)
}

var (
	restart  = actor.NewOneForOneStrategy(math.MaxInt, 0, func(any) actor.Directive { return actor.RestartDirective })
	escalate = actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.EscalateDirective })
)
