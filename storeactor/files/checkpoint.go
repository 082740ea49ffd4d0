package files

import (
	"path/filepath"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

func (f *directory) Checkpoint() (*messages.Checkpoint, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	generation, err := f.current()
	if err != nil {
		return nil, err
	}
	checkpoint, _, err := readCheckpoint(filepath.Join(generation, checkpointName))
	return checkpoint, err
}

func (f *directory) WriteCheckpoint(c *messages.Checkpoint) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.checkpoint != nil {
		return f.checkpoint
	}
	generation, err := f.current()
	if err != nil {
		return err
	}
	if f.engine != nil && f.engineOf != generation {
		return messages.Errorf(messages.Code_CONFLICT, "a snapshot was installed: the checkpoint of index %d is of the state before it", c.Index)
	}
	path := filepath.Join(generation, checkpointName)
	last, seal, err := readCheckpoint(path)
	if err != nil {
		return err
	}
	if f.engine != nil {
		if seal, err = f.engine.SealFor(c.Revision); err != nil {
			return err
		}
	}
	if err := f.refuseUnsynced(generation, last, c); err != nil {
		return err
	}
	if err := writeCheckpoint(path, c, seal); err != nil {
		f.checkpoint = durable.Error("write the checkpoint", err)
	}
	return f.checkpoint
}

// refuseUnsynced holds a checkpoint against the log: replay must never start at
// an index that the log may not reach after a power cut.
func (f *directory) refuseUnsynced(generation string, durable, c *messages.Checkpoint) error {
	if c.Index < durable.Index || c.Revision < durable.Revision {
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint goes back from index %d to %d", durable.Index, c.Index)
	}
	var commit uint64
	if f.log != nil {
		commit = f.log.SyncedCommit()
	} else {
		w, found, err := wal.ReadWitness(generation)
		if err != nil {
			return err
		}
		if !found {
			return disk.Damaged("the log's witness in %s is missing", generation)
		}
		commit = w.Commit
	}
	if c.Index > commit {
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint of index %d comes before a synced commit: that is %d", c.Index, commit)
	}
	return nil
}
