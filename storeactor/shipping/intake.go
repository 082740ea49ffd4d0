package shipping

import (
	"bytes"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
)

// intakeActor stages what comes in: it holds every chunk against the format, writes
// the rows beside the state that counts, and seals them when the trailer fits. It
// waits for the disk so that nobody else has to. A child of snapshots.
type intakeActor struct {
	config Config

	shipment uint64
	lineage  []uint64        // of what comes
	check    *snapshot.Check // nil: nothing is begun, or it failed
	staging  disk.Staging    // nil: there is none
	sealed   bool            // the staging is raft's and the log's: only DropStaging drops it
}

func (i *intakeActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.StageChunk:
		i.onStageChunk(ctx, m)
	case *messages.DropStaging:
		i.drop()
	case *actor.Stopping, *actor.Restarting:
		if !i.sealed {
			i.drop()
		}
	default:
		telemetry.Unexpected(ctx, i.config.Logger, i.config.Meter)
	}
}

func (i *intakeActor) onStageChunk(ctx actor.Context, m *messages.StageChunk) {
	answer := &messages.ChunkStaged{Shipment: m.Shipment, Sequence: m.Chunk.GetSequence()}
	err := i.take(m)
	if err != nil {
		answer.Code, answer.Message = messages.CodeOf(err), err.Error()
		if !i.sealed { // else it came behind the end, and raft has the staging
			i.drop()
		}
	}
	answer.Sealed = err == nil && i.sealed
	ctx.Send(ctx.Parent(), answer)
}

func (i *intakeActor) take(m *messages.StageChunk) error {
	if m.Chunk.GetSequence() == 0 {
		if err := i.begin(m.Shipment); err != nil {
			return err
		}
		i.lineage = m.Lineage
	}
	if i.check == nil || i.shipment != m.Shipment {
		return messages.Errorf(messages.Code_NOT_FOUND, "shipment %d is not being staged", m.Shipment)
	}
	rows, err := i.check.Take(m.Chunk)
	if err != nil {
		return err
	}
	switch {
	case m.Chunk.Kind == messages.ChunkKind_HEADER:
		return i.sameCluster(i.check.Header())
	case len(rows) > 0:
		return i.staging.Write(rows)
	case i.check.Trailer() == nil:
		return nil
	}
	if err := i.staging.Inherit(&messages.Lineage{From: i.lineage, Index: i.check.Checkpoint().Index}); err != nil {
		return err
	}
	if err := i.staging.Seal(i.check.Checkpoint()); err != nil {
		return err
	}
	i.sealed, i.check = true, nil
	return nil
}

// begin starts another staging. A sealed one was left to raft and the log, which have
// installed or dropped it before another snapshot comes; so it is only forgotten.
func (i *intakeActor) begin(shipment uint64) error {
	if !i.sealed {
		i.drop()
	}
	i.shipment, i.check, i.sealed, i.staging = shipment, nil, false, nil
	staging, err := i.config.Disk.Stage()
	if err != nil {
		return err
	}
	i.staging, i.check = staging, &snapshot.Check{Supports: i.config.Level}
	return nil
}

// sameCluster refuses the state of another cluster.
func (i *intakeActor) sameCluster(h *messages.SnapshotHeader) error {
	own, err := i.config.Disk.Checkpoint()
	if err != nil {
		return err
	}
	if !bytes.Equal(own.ClusterId, h.ClusterId) {
		return messages.Errorf(messages.Code_CONFLICT, "the snapshot is of cluster %x, this node belongs to cluster %x", h.ClusterId, own.ClusterId)
	}
	return nil
}

func (i *intakeActor) drop() {
	if i.staging != nil {
		if err := i.staging.Drop(); err != nil {
			i.config.Logger.Warn("what came in of a snapshot was not dropped cleanly", "reason", err)
		}
	}
	i.check, i.staging, i.sealed = nil, nil, false
}
