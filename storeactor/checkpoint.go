package storeactor

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// checkpointActor makes checkpoints durable beside the machine, which never waits for it.
// Replay starts at a checkpoint, so all that it builds on is durable first: a HardState
// whose commit reaches it, then the rows, then the checkpoint itself. A child of the
// machine.
type checkpointActor struct {
	config MachineConfig
	engine disk.Engine

	writing *messages.Checkpoint // nil: none; the machine hands over one at a time
	failed  bool
}

func (c *checkpointActor) Receive(ctx actor.Context) {
	if c.failed {
		return
	}
	switch m := ctx.Message().(type) {
	case *messages.WriteCheckpoint:
		c.onWriteCheckpoint(ctx, m)
	case *messages.CommitSynced:
		c.onCommitSynced(ctx, m)
	default:
		telemetry.Unexpected(ctx, c.config.Logger, c.config.Meter)
	}
}

func (c *checkpointActor) onWriteCheckpoint(ctx actor.Context, m *messages.WriteCheckpoint) {
	if c.writing != nil {
		panic(fmt.Sprintf("checkpoint %d was begun while %d is being written", m.Checkpoint.Index, c.writing.Index))
	}
	c.writing = m.Checkpoint
	ctx.Request(c.config.Log, &messages.SyncCommit{Index: m.Checkpoint.Index})
}

func (c *checkpointActor) onCommitSynced(ctx actor.Context, m *messages.CommitSynced) {
	if c.writing == nil || c.writing.Index != m.Index {
		return // an answer to an earlier question
	}
	err := c.engine.Sync()
	if err != nil && mutant.StateSyncRetried { // the pages count as written by now
		err = c.engine.Sync()
	}
	if err != nil {
		c.fail(fmt.Errorf("sync the user data: %w", err))
		return
	}
	checkpoint := c.writing
	c.writing = nil
	switch err := c.config.Disk.WriteCheckpoint(checkpoint); {
	case messages.CodeOf(err) == messages.Code_CONFLICT:
		return // a snapshot was installed meanwhile: the machine is about to switch to it
	case err != nil:
		c.fail(fmt.Errorf("write the checkpoint: %w", err))
		return
	}
	ctx.Send(ctx.Parent(), &messages.CheckpointWritten{Index: m.Index})
}

func (c *checkpointActor) fail(reason error) {
	c.failed = true
	c.config.Fatal(reason)
}

// checkpointPace decides when a checkpoint is due: once something was applied, and one of
// the bounds is reached or it is forced. None is due while another is being written.
type checkpointPace struct {
	entriesMax uint64
	bytesMax   uint64 // of entries
	ticksMax   uint64

	entries, bytes, ticks uint64 // since the last one was begun
	forced                bool   // since the last one was begun
	writing               uint64 // the index of the one being written; 0: none
}

// stagger puts a replica's first checkpoint, and so those that follow, at another place of
// the log and of time than its neighbours': they would all wait for their disks at once.
func (p *checkpointPace) stagger(self messages.RaftID) {
	const shares = 3 // replicas of most clusters
	share := uint64(self) % shares
	p.bytes, p.ticks = p.bytesMax*share/shares, p.ticksMax*share/shares
}

func (p *checkpointPace) applied(entries, bytes uint64) {
	p.entries += entries
	p.bytes += bytes
}

func (p *checkpointPace) ticked(n uint64) { p.ticks += n }

// force makes one due as soon as none is being written.
func (p *checkpointPace) force() { p.forced = true }

func (p *checkpointPace) due() bool {
	return p.writing == 0 && p.entries > 0 &&
		(p.forced || p.entries >= p.entriesMax || p.bytes >= p.bytesMax || p.ticks >= p.ticksMax)
}

func (p *checkpointPace) begin(index uint64) {
	p.entries, p.bytes, p.ticks, p.forced, p.writing = 0, 0, 0, false, index
}

// written reports whether index is the one being written.
func (p *checkpointPace) written(index uint64) bool {
	if p.writing != index {
		return false
	}
	p.writing = 0
	return true
}
