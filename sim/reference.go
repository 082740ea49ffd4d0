package sim

import (
	"bytes"
	"fmt"
	"io"
	"math"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim/disk"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/state"
)

// reference is a replica without faults: it applies every committed entry once, by the
// rules of production, to an engine that loses and forgets nothing. What a node has
// from a checkpoint or a snapshot must be what the reference has from replay.
type reference struct {
	state       *state.State // nil: nobody has said yet where history begins
	engine      *disk.Engine
	batch       *state.Batch
	checkpoints map[uint64]uint64 // index -> hash of the checkpoint as of it
	failed      error             // why it cannot go on
}

// newReference begins where history does, with these rows.
func newReference(first *messages.Checkpoint, rows []row) (*reference, error) {
	began, err := state.FromCheckpoint(first, math.MaxUint32)
	if err != nil {
		return nil, err
	}
	r := &reference{state: began, engine: disk.NewEngine(), checkpoints: map[uint64]uint64{}}
	r.batch = state.NewBatch(r.engine)
	r.checkpoints[first.Index] = hashOfCheckpoint(first)
	err = r.engine.Write(rows)
	r.engine.Sync()
	return r, err
}

func hashOfCheckpoint(c *messages.Checkpoint) uint64 {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("sim: a checkpoint cannot be marshalled: %v", err))
	}
	return xxhash.Sum64(b)
}

// apply takes the next committed entry.
func (r *reference) apply(e *raftpb.Entry) {
	if r.failed != nil {
		return
	}
	if r.failed = r.state.Apply(r.batch, e); r.failed == nil {
		r.failed = r.batch.Flush()
	}
	r.batch.Clear()
	r.engine.Sync()
	r.checkpoints[e.GetIndex()] = hashOfCheckpoint(r.state.Checkpoint())
}

// differs says how a checkpoint is not that of replay, or nothing.
func (r *reference) differs(c *messages.Checkpoint) string {
	if r.failed != nil {
		return fmt.Sprintf("the reference cannot apply the log: %v", r.failed)
	}
	switch hash, known := r.checkpoints[c.Index]; {
	case !known:
		return fmt.Sprintf("nobody has applied index %d", c.Index)
	case hash != hashOfCheckpoint(c):
		return fmt.Sprintf("the checkpoint of index %d is not that of replay: %s", c.Index, messages.Line(c))
	}
	return ""
}

// rowsDiffer says where rows are not those of a snapshot of this checkpoint, or nothing.
func (r *reference) rowsDiffer(c *messages.Checkpoint, rows []row) string {
	want := r.engine.SnapshotRows(c)
	for i := range max(len(rows), len(want)) {
		switch {
		case i == len(want):
			return fmt.Sprintf("as of index %d there is %s too much", c.Index, rowText(rows[i]))
		case i == len(rows):
			return fmt.Sprintf("as of index %d %s is missing", c.Index, rowText(want[i]))
		case !sameRow(rows[i], want[i]):
			return fmt.Sprintf("as of index %d there is %s in place of %s", c.Index, rowText(rows[i]), rowText(want[i]))
		}
	}
	return ""
}

func sameRow(a, b row) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Revision == b.Revision &&
		a.Created == b.Created && a.Version == b.Version && a.Deleted == b.Deleted && a.Sum == b.Sum
}

func rowText(r row) string {
	if r.Deleted {
		return fmt.Sprintf("the deletion of %q at revision %d", r.Key, r.Revision)
	}
	return fmt.Sprintf("%q at revision %d, created at %d, version %d, checksum %08x, with %.40q", r.Key, r.Revision, r.Created, r.Version, r.Sum, r.Value)
}

// fileDiffers says how a snapshot file is not the state of replay, or nothing.
func (r *reference) fileDiffers(content []byte) string {
	file, err := snapshot.NewReader(bytes.NewReader(content), math.MaxUint32)
	if err != nil {
		return err.Error()
	}
	var rows []row
	for {
		some, err := file.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err.Error()
		}
		for _, row := range some {
			row.Key, row.Value = bytes.Clone(row.Key), bytes.Clone(row.Value)
			rows = append(rows, row)
		}
	}
	if what := r.differs(file.Checkpoint()); what != "" {
		return what
	}
	return r.rowsDiffer(file.Checkpoint(), rows)
}
