package storeactor

import (
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/shell"
)

// checkpointActor makes checkpoints durable beside the machine, which never waits
// for it: first a HardState whose commit reaches the checkpoint, then the rows,
// then the checkpoint itself. A child of the machine.
type checkpointActor struct {
	log    *actor.PID
	disk   disk.Disk
	engine disk.Engine
	logger *slog.Logger
	fatal  func(error)

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
		shell.Unexpected(ctx, c.logger)
	}
}

func (c *checkpointActor) onWriteCheckpoint(ctx actor.Context, m *messages.WriteCheckpoint) {
	if c.writing != nil {
		panic(fmt.Sprintf("checkpoint %d was begun while %d is being written", m.Checkpoint.Index, c.writing.Index))
	}
	c.writing = m.Checkpoint
	ctx.Request(c.log, &messages.SyncCommit{Index: m.Checkpoint.Index})
}

func (c *checkpointActor) onCommitSynced(ctx actor.Context, m *messages.CommitSynced) {
	if c.writing == nil || c.writing.Index != m.Index {
		return // an answer to an earlier question
	}
	if err := c.engine.Sync(); err != nil {
		c.fail(fmt.Errorf("sync the user data: %w", err))
		return
	}
	checkpoint := c.writing
	c.writing = nil
	switch err := c.disk.WriteCheckpoint(checkpoint); {
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
	c.fatal(reason)
}

// checkpointPace decides when a checkpoint is due: once something was applied and
// one of the bounds is reached, or at once if it is forced, and never while another
// is being written.
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
