// Package disk is the seam behind which a node's disk stands: its log, its rows,
// its checkpoints and snapshot files. Package files is the real one, the simulator
// has a model of it, and package disktest holds both to one contract.
package disk

import (
	"hash/crc32"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// Formats of what a disk keeps, as this software writes them and the newest that
// it reads.
const (
	IdentityFormat   = 1
	CheckpointFormat = 1
)

// RebuildHint is the next step where a directory does not hold what its node wrote.
const RebuildHint = "kvctl rebuild --data DIR gives it the state of another member if its log is sound, and else says what takes its place"

// RetiredHint is the next step where a directory is of a node that was removed.
const RetiredHint = "remove the directory; to come back start with --join on an empty one"

// Disk is one node's data directory, and the disk seam: files in production, a
// model with volatile and durable parts in the simulator. One conformance suite
// (storeactor/disk/disktest) holds both.
//
// Errors are *messages.Error: NOT_FOUND where nothing was initialised, DAMAGED
// where data was lost or altered, UNSUPPORTED for a newer format, CONFLICT for a
// directory in use. After any failed write the disk must not be used again.
type Disk interface {
	// Identity reads whose directory this is; NOT_FOUND in an empty one.
	Identity() (*messages.Identity, error)
	// WriteIdentity makes the identity durable, until the directory is initialised; then
	// CONFLICT. Another one, with an incarnation of its own, is as good as an emptied directory.
	WriteIdentity(*messages.Identity) error

	// Initialised reports whether there is a generation. DAMAGED: there is none, and
	// the directory is founded; or there is one that was used, and it is not.
	Initialised() (bool, error)
	// Found makes durable, in the identity, that the node takes part in this cluster
	// from now on: a directory that is founded and has no generation has lost it. id is
	// what a node was given that joined; 0: a founder's, which the identity implies.
	// NOT_FOUND if it is not initialised.
	Found(clusterID []byte, id messages.RaftID) error
	// Move makes durable, in the identity, where the node listens from now on, and where
	// others reach it. NOT_FOUND if there is no identity.
	Move(listen, advertise string) error

	// Start counts a process, of this random mark, among those that were started on
	// the generation that counts: durably, before the process says anything to others.
	Start(mark uint64) (*messages.Starts, error)
	// Heard is what Hear recorded last; nothing at first.
	Heard() (*messages.StartsHeard, error)
	// Hear makes durable which starts of other nodes this one has heard of.
	Hear(*messages.StartsHeard) error

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

	// Stage begins a state that comes from elsewhere, beside the one that counts if
	// there is one. What an earlier one left, sealed or not, is gone.
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
	// Retire makes durable that the node was removed from its cluster, and how: from then
	// on Initialised is refused as REMOVED with that. The first one stays.
	Retire(how string) error
	// Suspect makes durable what speaks for a loss of data in this directory, in place of
	// what did before; without accusations, that nothing does.
	Suspect(*messages.Suspicion) error
	// Suspicion is what Suspect recorded last; one without accusations at first.
	Suspicion() (*messages.Suspicion, error)
	// Lineage is from whom the state that counts was installed; nobody's at first.
	Lineage() (*messages.Lineage, error)
	// Confirm makes durable that the state installed at this index has no lineage any
	// more. Where another state counts by now it changes nothing.
	Confirm(index uint64) error
	// Room is how much room there is left.
	Room() (Room, error)
	// Archive is the place of snapshot files.
	Archive() Archive

	// Close releases the directory's lock. Log and engine are closed before.
	Close() error
}

// Initialise makes the first generation of a directory, from the founders' checkpoint or,
// where a node joins, from one of index 0, which has no configuration: no rows, and a log
// that ends at the checkpoint with a HardState of its term. All of
// it or nothing. It takes the place of a generation that was never used. CONFLICT once
// the directory is founded.
func Initialise(d Disk, first *messages.Checkpoint) error {
	if _, err := d.Initialised(); err != nil {
		return err
	}
	switch id, err := d.Identity(); {
	case err != nil:
		return err
	case len(id.ClusterId) > 0:
		return messages.Errorf(messages.Code_CONFLICT, "the directory is founded already")
	}
	staging, err := d.Stage()
	if err != nil {
		return err
	}
	if err := staging.Seal(first); err != nil {
		return err
	}
	hs := &raftpb.HardState{Term: new(first.Term), Vote: new(uint64(0)), Commit: new(first.Index)}
	return d.Install(first.Index, first.Term, hs)
}

// Condemn takes a node out of service, also after a restart. It returns what the process
// says when it ends.
func Condemn(d Disk, reason string) error {
	if failed := d.Condemn(reason); failed != nil {
		return messages.Errorf(messages.Code_DAMAGED, "%s; and this cannot be recorded in its directory: %v", reason, failed).
			WithHint("do not start this node on its directory again; the other nodes serve on without it")
	}
	return messages.Errorf(messages.Code_DAMAGED, "%s", reason).
		WithHint("this node serves no more, and the others serve on without it; test its disk and memory, and then: %s", RebuildHint)
}

// Staging is a state on its way in, of one writer.
type Staging interface {
	// Write adds rows, in order of keys and, within a key, of falling revisions.
	Write(rows []Row) error
	// Inherit says from whom the state comes; it counts with the state. Before Seal.
	Inherit(*messages.Lineage) error
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

// Castagnoli is the table of the CRC32C that ends what a disk keeps, and every chunk of
// a snapshot.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)
