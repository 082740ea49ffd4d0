package storeactor

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/state"
)

func (m *machineActor) onStarted(ctx actor.Context) {
	if err := m.open(ctx); err != nil {
		m.fail(err)
		return
	}
	m.tellOpened(ctx)
}

// open reads the last checkpoint and starts from it. Reads and pins that wait go on
// waiting; nothing else of the state before is kept.
func (m *machineActor) open(ctx actor.Context) error {
	checkpoint, err := m.config.Disk.Checkpoint()
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	if m.state, err = state.FromCheckpoint(checkpoint, m.config.Level); err != nil {
		return err
	}
	engine, err := m.config.Disk.OpenEngine(checkpoint)
	if err != nil {
		return fmt.Errorf("open the user data: %w", err)
	}
	c := m.config
	m.engine = engine
	m.durable, m.writing = checkpoint, nil
	m.thorough, m.writingThorough = false, false
	m.batch = state.NewBatch(m.engine)
	m.pace = checkpointPace{entriesMax: c.CheckpointEntries, bytesMax: c.CheckpointBytes, ticksMax: uint64(c.CheckpointTicks)}
	m.pace.stagger(c.Self)
	m.retention = state.Retention{Revisions: c.HistoryRevisions, TimeMS: c.HistoryMS}
	m.pins, m.digests = pins{}, digests{ticked: m.state.Index()}
	m.discarding = discarding{floor: checkpoint.CompactedRevision, first: m.discarding.first + uint64(len(m.discarding.waiting))}
	if m.discarding.floor > 0 {
		m.engine.Discard(m.discarding.floor) // nobody reads yet
	}
	if err := m.spawnChildren(ctx); err != nil {
		return err
	}
	m.phase = serving
	return nil
}

func (m *machineActor) tellOpened(ctx actor.Context) {
	ctx.Send(m.config.Raft, &messages.MachineOpened{
		Index:             m.state.Index(),
		Term:              m.state.Term(),
		Revision:          m.state.Revision(),
		LogTimeMs:         m.state.LogTimeMS(),
		ConfState:         m.state.ConfState(),
		CompactedRevision: m.state.Compacted(),
		Level:             m.state.Level(),
	})
	m.tellMembers(ctx)
	ctx.Send(m.config.Gateway, &messages.LogTimeAdvanced{LogTimeMs: m.state.LogTimeMS()})
}

func (m *machineActor) spawnChildren(ctx actor.Context) (err error) {
	m.checkpoint, err = ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor {
		return &checkpointActor{config: m.config, engine: m.engine}
	}), childName(messages.ActorCheckpoint))
	if err != nil {
		return fmt.Errorf("spawn %s: %w", messages.ActorCheckpoint, err)
	}
	m.readers = make([]*actor.PID, m.config.Readers)
	m.desk.open(len(m.readers))
	for i := range m.readers {
		name := messages.ActorReaderPrefix + strconv.Itoa(i)
		m.readers[i], err = ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor {
			return &readerActor{config: m.config, view: m.engine}
		}), childName(name))
		if err != nil {
			return fmt.Errorf("spawn %s: %w", name, err)
		}
	}
	return nil
}

// childName is the last part of the name of one of the machine's children.
func childName(name string) string { return strings.TrimPrefix(name, messages.ActorMachine+"/") }

// onInstalled begins the switch to the installed state by stopping the children. A
// poisoned reader first answers what is in its mailbox, from the old state: those reads
// were accepted at its revisions.
func (m *machineActor) onInstalled(ctx actor.Context, msg *messages.Installed) {
	switch m.phase {
	case serving:
	case over:
		return
	default: // the log holds everything until it hears Switched
		m.fail(messages.Errorf(messages.Code_INTERNAL, "a snapshot at index %d was installed while that at index %d is being opened",
			msg.Index, m.installed).WithHint(defectHint))
		return
	}
	m.phase, m.installed = switching, msg.Index
	for _, reader := range m.readers {
		ctx.Poison(reader)
	}
	ctx.Stop(m.checkpoint)
	if m.reclaim != nil {
		ctx.Stop(m.reclaim)
	}
}

// onTerminated hears that a reclaim is done or, in a switch, that a child of the old state
// is gone. A reclaim may take long: once only it is left, closing the engine ends it.
func (m *machineActor) onTerminated(ctx actor.Context, msg *actor.Terminated) {
	if m.reclaim != nil && m.reclaim.Equal(msg.Who) {
		m.reclaim = nil
	}
	if m.phase == serving {
		m.reclaimIfWanted(ctx)
		return
	}
	left := len(ctx.Children())
	if left == 0 || left == 1 && m.reclaim != nil {
		m.closeEngine(ctx)
	}
	if left == 0 && m.phase == switching {
		m.switchOver(ctx)
	}
}

// switchOver opens the state that was installed, tells everyone, and goes on with
// what waited. Raft hears of it before the log, which answers raft then.
func (m *machineActor) switchOver(ctx actor.Context) {
	if err := m.open(ctx); err != nil {
		m.fail(fmt.Errorf("switch to the snapshot at index %d: %w", m.installed, err))
		return
	}
	if m.state.Index() != m.installed {
		m.fail(messages.Errorf(messages.Code_INTERNAL, "the snapshot at index %d was installed, and the checkpoint is of index %d",
			m.installed, m.state.Index()).WithHint(defectHint))
		return
	}
	m.tellOpened(ctx)
	ctx.Send(m.config.Log, &messages.Switched{Index: m.installed})
	m.giveReleased(ctx)
	for _, asked := range m.pinsAsked {
		if asked.asker != nil {
			ctx.Send(asked.asker, m.pin(asked.message))
		}
	}
	m.pinsAsked = nil
}

// closeEngine closes the engine once no child uses it any more.
func (m *machineActor) closeEngine(ctx actor.Context) {
	if m.engine == nil {
		return
	}
	if err := m.engine.Close(); err != nil {
		m.config.Logger.Error("the user data did not close cleanly", "reason", err, "hint", "look at the disk; what was acknowledged is in the log")
	}
	m.engine = nil
}

// HandleFailure makes the machine the supervisor of its children. A reader that was to
// stop for a switch does not start anew.
func (m *machineActor) HandleFailure(_ *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	_ *actor.RestartStatistics, reason, message any) {
	switch policy := messages.ActorOf(child.Id).OnPanic; {
	case policy == messages.EndsProcess:
		supervisor.EscalateFailure(reason, message)
	case policy == messages.Restarts && m.phase == serving:
		telemetry.Failed(m.config.Logger, m.config.Meter, child, "starts anew", reason, message)
		if lost, ok := actor.UnwrapEnvelopeMessage(message).(*messages.ReadAt); ok && lost.Turn > 0 {
			m.desk.done(int(lost.Turn) - 1)
		}
		supervisor.RestartChildren(child)
	default:
		telemetry.Failed(m.config.Logger, m.config.Meter, child, "stops", reason, message)
		supervisor.StopChildren(child)
	}
}
