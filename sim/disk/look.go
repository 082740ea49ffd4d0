package disk

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// The world looks at a disk in ways that no process can. What it is shown is not
// copied, and is not to be modified.

// Durable is what a power cut now would surely leave of the log.
func (d *Disk) Durable() (hardState *raftpb.HardState, lastIndex, lastTerm uint64) {
	lastIndex, lastTerm = d.now.log.durable.last()
	return d.now.log.durable.hardState, lastIndex, lastTerm
}

// Entry is the term of a durable entry, or of the base.
func (d *Disk) Entry(index uint64) (term uint64, ok bool) {
	return d.now.log.durable.term(index)
}

// Base is the index of the log's base.
func (d *Disk) Base() uint64 { return d.now.log.durable.baseIndex }

// Witnessed is the last index that the witness vouches for.
func (d *Disk) Witnessed() uint64 { return d.now.log.witness.Index }

// LastCheckpoint is the one that counts; nil: the directory is not initialised.
func (d *Disk) LastCheckpoint() *messages.Checkpoint { return d.now.checkpoint }

// SnapshotRows are the rows of a snapshot of the last checkpoint.
func (d *Disk) SnapshotRows() []disk.Row { return d.now.table.canonical(d.now.checkpoint) }

// LiveRows are the rows that are read at a revision, synced or not.
func (d *Disk) LiveRows(revision uint64) []disk.Row {
	var rows []disk.Row
	for _, k := range d.now.table.keys {
		if row, live := k.newest(revision); live {
			rows = append(rows, row)
		}
	}
	return rows
}

// Altered reports whether a version is there, and is not what was written.
func (d *Disk) Altered(key string, revision uint64) bool { return d.now.table.altered(key, revision) }

// Inherited reports whether a version is there that was altered on another disk, as it is
// there, and takes it for altered here too.
func (d *Disk) Inherited(from *Disk, key string, revision uint64) bool {
	here, there := d.now.table.version(key, revision), from.now.table.version(key, revision)
	if here == nil || there == nil || !there.altered || !sameRow(here.row, there.row) {
		return false
	}
	here.altered = true
	return true
}

// Floor is the revision below which rows may go by now.
func (d *Disk) Floor() uint64 { return d.now.table.floor }

// Staging reports whether there is a state that was staged and not installed.
func (d *Disk) Staging() bool { return d.staging != nil }

// Files are the ids of the snapshot files, in order; Writing, of those that are
// not committed.
func (d *Disk) Files() []string   { return slices.Sorted(maps.Keys(d.files)) }
func (d *Disk) Writing() []string { return d.writing }

// File is the content of a snapshot file.
func (d *Disk) File(id string) []byte { return d.files[id] }

// Started is how many processes were started on what counts, and HeardOf the last start
// of another node that was heard; 0: none.
func (d *Disk) Started() uint64 { return d.now.starts.GetNumber() }
func (d *Disk) HeardOf(id messages.RaftID) uint64 {
	for _, s := range d.heard.GetHeard() {
		if s.RaftId == id {
			return s.Number
		}
	}
	return 0
}

// Suspected reports whether something speaks for a loss of data.
func (d *Disk) Suspected() bool { return len(d.suspicion.GetAccusations()) > 0 }

// LastFault is what the process was told by the fault that met it last, and where
// the last crash was.
func (d *Disk) LastFault() (cause string, crash CrashPoint) { return d.cause, d.crashedAt }

// Bytes is about what the disk holds, in bytes.
func (d *Disk) Bytes() int {
	n := d.now.table.bytes
	for _, e := range d.now.log.cached.entries {
		n += len(e.GetData()) + 16
	}
	if d.now.checkpoint != nil {
		n += proto.Size(d.now.checkpoint)
	}
	if d.staging != nil {
		n += d.staging.table.bytes
	}
	for _, file := range d.files {
		n += len(file)
	}
	return n
}
