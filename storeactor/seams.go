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
	"io"

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
	// as INTERNAL. CONFLICT: a snapshot was installed and the engine that is open
	// is of the state before; nothing was written.
	WriteCheckpoint(*messages.Checkpoint) error

	// Stage begins a state that comes from elsewhere, beside the one that counts.
	// What an earlier one left, sealed or not, is gone.
	Stage() (Staging, error)
	// Install makes the sealed staging the generation that counts, together with a
	// new log whose base is the staged checkpoint's index and term and whose term
	// and vote are those of hs: all of it or nothing, durable on return. hs has a
	// commit at or above that index, and the log one at it, since it is empty. The
	// log is closed before (CONFLICT); an engine that is open still reads what it
	// was opened on until it is closed. NOT_FOUND if nothing of this index and term
	// was sealed by this process.
	Install(index, term uint64, hs *raftpb.HardState) error
	// Condemn makes durable that this directory is never to be served again, and
	// why: from then on Initialised is refused as DAMAGED with that reason. Of
	// several reasons the first one stays.
	Condemn(reason string) error
	// Archive is the place of snapshot files.
	Archive() Archive

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
	// Cut moves the base up to an entry that the log holds, or was opened at:
	// entries up to it may go, and their space comes back. conf is a configuration
	// as of that index. Durable on return, without harm to any later one: a crash
	// leaves the old base or the new. At or below the base it changes nothing; an
	// entry that is not held, of another term or above the saved commit is refused
	// as INTERNAL.
	Cut(index, term uint64, conf *raftpb.ConfState) error
	// Close syncs and lets go.
	Close() error
}

// Staging is a state on its way in, of one writer.
type Staging interface {
	// Write adds rows, in order of keys and, within a key, of falling revisions.
	Write(rows []Row) error
	// Seal makes the rows and the checkpoint they belong to durable. Nothing is
	// written afterwards.
	Seal(*messages.Checkpoint) error
	// Drop lets go and gives the space back, unless it was installed.
	Drop() error
}

// Archive keeps snapshot files, each under an id that CheckSnapshotID allows.
type Archive interface {
	// List names the files that are whole and how large they are.
	List() ([]ArchiveFile, error)
	// Create begins a file; CONFLICT if there is one of this id. It is not listed
	// before Commit.
	Create(id string) (ArchiveWriter, error)
	// Open reads a file; NOT_FOUND if there is none.
	Open(id string) (io.ReadCloser, error)
	// Delete removes a file; NOT_FOUND if there is none.
	Delete(id string) error
}

// ArchiveFile is a file of an Archive.
type ArchiveFile struct {
	ID    string
	Bytes int64
}

// ArchiveWriter is a file that is being written.
type ArchiveWriter interface {
	io.Writer
	// Commit makes it durable, and then visible.
	Commit() error
	// Abort gives it up. After Commit it does nothing.
	Abort() error
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
	// Export calls yield with the rows of a snapshot: of every key the versions
	// above floor up to revision, and the newest at or below floor unless that is a
	// deletion; in order of keys and, within a key, of falling revisions. It begins
	// behind the version that after names, which need not be there any more. A Row's
	// slices are the callee's until yield returns.
	Export(after Cursor, floor, revision uint64, yield func(Row) bool) error
	// Sync makes all rows written before the call durable. It may be called
	// beside a Write.
	Sync() error
	// Discard says that nobody will read below floor any more, now or after a
	// restart: versions that only such reads could see may go at any time. A floor
	// below an earlier one changes nothing. It is not kept over a restart.
	Discard(floor uint64)
	// Reclaim gives back the space of what was discarded. It takes long, beside
	// everything else; Close ends it.
	Reclaim() error
	// Size is about how many bytes of disk the rows take.
	Size() int64
	Close() error
}

// Cursor is a place behind one version of a key; the zero Cursor is the start.
type Cursor struct {
	Key      []byte
	Revision uint64
}
