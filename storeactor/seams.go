// Package storeactor keeps a node's state: the log actor (append, fsync), the
// machine (apply), its readers and checkpoints, and the seams behind which
// disks stand.
//
// Log order is the truth. The engine holds a rebuildable, unsynced,
// multi-version copy of user data only; all other state is in a Checkpoint and
// in memory, and replay from the last checkpoint gives the same result whatever
// part of the unsynced engine survived.
package storeactor

import (
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// Disk is one node's data directory, and the disk seam: files in production, a
// model with volatile and durable parts in the simulator. One conformance suite
// (storeactor/disktest) holds both.
//
// Errors are *messages.Error: NOT_FOUND where nothing was initialised, DAMAGED
// where data was lost or altered, UNSUPPORTED for a newer format, CONFLICT for a
// directory in use. After any failed write the disk must not be used again.
type Disk interface {
	// Identity reads whose directory this is; NOT_FOUND in an empty one.
	Identity() (*messages.Identity, error)
	// WriteIdentity makes the identity durable; once, in an empty directory.
	WriteIdentity(*messages.Identity) error

	// Initialise makes the first generation from the founders' checkpoint: a log
	// whose base is the checkpoint's index and term with a HardState of that
	// term and commit, an empty engine, the checkpoint. All of it or nothing:
	// CURRENT is switched last. CONFLICT if there is a generation already.
	Initialise(first *messages.Checkpoint) error
	// Initialised reports whether there is a generation.
	Initialised() (bool, error)

	// OpenLog reads the log, holds it against its witness, repairs a torn tail
	// beyond the witness only, and syncs what it read, all before it returns.
	// DAMAGED: the log has lost what was synced; the node must not vote.
	OpenLog() (Log, *LogImage, error)
	// OpenEngine opens the user data, which must reach the checkpoint's revision.
	OpenEngine(at *messages.Checkpoint) (Engine, error)
	// Checkpoint reads the last durable checkpoint.
	Checkpoint() (*messages.Checkpoint, error)
	// WriteCheckpoint replaces it, durably and all at once. The caller has synced
	// the engine up to the checkpoint's revision, and a HardState whose commit is
	// at or above its index; one that goes back, or comes before these, is refused
	// as INTERNAL.
	WriteCheckpoint(*messages.Checkpoint) error
	// Close releases the directory's lock. Log and engine are closed before.
	Close() error
}

// LogImage is what a log held when it was opened. Entries follow the base
// without a gap; all of it is durable.
type LogImage struct {
	BaseIndex, BaseTerm uint64
	HardState           *raftpb.HardState
	Entries             []*raftpb.Entry
}

// Log is a replica's durable Raft log. One caller at a time.
type Log interface {
	// Save appends entries (replacing those at and above the first one's index; a
	// gap is refused as INTERNAL) and the hard state, if not nil. On return it is durable if there were
	// entries or if term or vote changed; a commit alone waits for a Sync.
	Save(hs *raftpb.HardState, entries []*raftpb.Entry) error
	// Sync makes all that was saved durable, and the witness of it.
	Sync() error
	// Close syncs and lets go.
	Close() error
}

// Row is one version of a key: of 1 to 64,999 bytes, its value below 1 MiB, its
// revision above 0.
type Row struct {
	Key, Value []byte
	Revision   uint64
	Deleted    bool
}

// Engine is multi-version user data: at most one version of a key a revision.
// One writer; any number of readers beside it, at revisions already written.
type Engine interface {
	// Write adds versions; readable on return, durable after a Sync. It keeps
	// neither the slice, which the caller uses again, nor needs its bytes copied:
	// keys and values are parts of entries, which nobody modifies. Revisions
	// never go down from one call to the next, but for replay after a restart,
	// which writes what is there once more.
	Write(rows []Row) error
	// Get finds the newest version of key at or below revision. It reports false
	// if there is none or if that one is a deletion.
	Get(key []byte, revision uint64) (Row, bool, error)
	// Scan calls yield with the newest live version at or below revision of every
	// key of [from, to) in order, until it returns false. An empty to has no end;
	// reverse starts at the end. A Row's slices are the callee's until it returns.
	Scan(from, to []byte, revision uint64, reverse bool, yield func(Row) bool) error
	// Sync makes all rows written before the call durable. It may be called
	// beside a Write.
	Sync() error
	Close() error
}
