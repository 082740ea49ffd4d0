package storeactor

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

// A node's directory:
//
//	LOCK              held by flock while a process uses it; the process's pid
//	identity          whose directory this is, readable by people
//	CURRENT           the name of the generation that counts
//	generation-1/     log and state that belong together; each snapshot that is
//	                  installed makes the next one
//	  wal/            the log
//	  witness         what was last synced to it
//	  state/          the engine's rows (Badger)
//	  checkpoint      all other state, and what the engine had synced by then
//	snapshots/        snapshot files, by id
//	CONDEMNED         if it is there: never to be served again, and why
//
// Small files are replaced whole: temporary file, sync, rename, sync of the
// directory. CURRENT is written last, so a generation is there whole or not at all.
const (
	lockName       = "LOCK"
	identityName   = "identity"
	currentName    = "CURRENT"
	firstName      = "generation-1"
	stateName      = "state"
	checkpointName = "checkpoint"
	snapshotsName  = "snapshots"
	condemnedName  = "CONDEMNED"
)

const identityFormat = 1

// files is the Disk over a directory.
type files struct {
	dir    string
	lock   *os.File
	logger *slog.Logger
	step   func(string) // told what was just done; for tests, which look at the files then

	// mutex guards what is below: log, machine, checkpoint and intake each come
	// from their own goroutine.
	mutex      sync.Mutex
	log        *wal.Log       // the last one opened of the generation that counts, if any
	engine     *badger.Engine // the last one opened, if any
	engineOf   string         // the path of its generation
	staging    *staging       // neither dropped nor installed yet, or nil
	checkpoint error          // of a write that failed; nothing is written after it
}

// OpenFiles opens a node's directory, making it if it is not there, and keeps
// other processes out until Close. CONFLICT: it is in use, or it holds something
// else; UNSUPPORTED: a newer version wrote it; DAMAGED: its identity is not whole.
func OpenFiles(dir string, logger *slog.Logger) (disk.Disk, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, durable.Error("open the data directory", err)
	}
	if err := durable.MakeDirectory(dir); err != nil {
		return nil, durable.Error("make the data directory", err)
	}
	if err := refuseForeign(dir); err != nil {
		return nil, err
	}
	lock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	f := &files{dir: dir, lock: lock, logger: logger, step: func(string) {}}
	if _, err := f.Identity(); err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND {
		f.Close()
		return nil, err
	}
	f.removeStale()
	f.removeUncommitted()
	return f, nil
}

// refuseForeign keeps out of directories that hold something else, before
// anything is written to them.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return durable.Error("read the data directory", err)
	}
	ours := []string{lockName, identityName, identityName + durable.Temporary, "lost+found"}
	var foreign []string
	used := false
	for _, e := range entries {
		switch name := e.Name(); {
		case name == identityName:
			return nil
		case slices.Contains([]string{currentName, condemnedName, snapshotsName}, name) || generationNumber(name) != 0:
			used = true
		case !slices.Contains(ours, name):
			foreign = append(foreign, name)
		}
	}
	switch {
	case used:
		return disk.Damaged("the identity of %s is missing", dir)
	case len(foreign) > 0:
		return messages.Errorf(messages.Code_CONFLICT, "%s is not a node's directory: it holds %s", dir, strings.Join(foreign[:min(3, len(foreign))], ", ")).
			WithHint("name an empty directory, or one that a node has used")
	}
	return nil
}

// lockDirectory takes the lock, which ends with the process whatever happens.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, durable.Error("lock the data directory", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := make([]byte, 32)
		n, _ := f.ReadAt(holder, 0)
		f.Close()
		pid := strings.TrimSpace(string(holder[:n]))
		return nil, messages.Errorf(messages.Code_CONFLICT, "%s is in use by process %s", dir, pid).
			WithHint("stop that process first, or name another directory")
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, durable.Error("lock the data directory", err)
	}
	return f, nil
}

func (f *files) Close() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.removeStale()
	return f.lock.Close()
}

func (f *files) path(elements ...string) string {
	return filepath.Join(append([]string{f.dir}, elements...)...)
}

// The identity is text: a line with the format, the identity as JSON, a line
// with the CRC32C of all before.
const (
	identityHead = "keyval identity %d\n"
	identityTail = "crc32c %08x\n"
)

func (f *files) Identity() (*messages.Identity, error) {
	text, err := os.ReadFile(f.path(identityName))
	if os.IsNotExist(err) {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "%s has no identity yet", f.dir)
	}
	if err != nil {
		return nil, durable.Error("read the identity", err)
	}
	return decodeIdentity(f.path(identityName), text)
}

func decodeIdentity(path string, text []byte) (*messages.Identity, error) {
	var format, sum uint32
	if n, _ := fmt.Sscanf(string(text), identityHead, &format); n != 1 {
		return nil, disk.Damaged("%s is not the identity of a node", path)
	}
	if format > identityFormat {
		return nil, durable.FormatError(path, format, identityFormat)
	}
	body, tail := text, []byte(nil)
	if at := bytes.LastIndexByte(bytes.TrimRight(text, "\n"), '\n') + 1; at > 0 {
		body, tail = text[:at], text[at:]
	}
	if n, _ := fmt.Sscanf(string(tail), identityTail, &sum); n != 1 || sum != crc32.Checksum(body, durable.Castagnoli) {
		return nil, disk.Damaged("%s was altered: its checksum does not fit", path)
	}
	_, document, _ := bytes.Cut(body, []byte("\n"))
	id := &messages.Identity{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(document, id); err != nil {
		return nil, disk.Damaged("%s cannot be read: %v", path, err)
	}
	if id.Format > identityFormat {
		return nil, durable.FormatError(path, id.Format, identityFormat)
	}
	return id, nil
}

func (f *files) WriteIdentity(id *messages.Identity) error {
	if _, err := f.Identity(); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		return messages.Errorf(messages.Code_CONFLICT, "%s has an identity already", f.dir).
			WithHint("name an empty directory for a new node")
	}
	document, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(id)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "the identity cannot be written: %v", err)
	}
	text := fmt.Appendf(nil, identityHead+"%s\n", identityFormat, document)
	text = fmt.Appendf(text, identityTail, crc32.Checksum(text, durable.Castagnoli))
	if err := durable.Replace(f.path(identityName), text); err != nil {
		return durable.Error("write the identity", err)
	}
	return nil
}

func (f *files) OpenLog() (disk.Log, *disk.LogImage, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.log != nil && !f.log.Closed() {
		return nil, nil, messages.Errorf(messages.Code_CONFLICT, "the log of %s is open already", f.dir)
	}
	generation, err := f.settled()
	if err != nil {
		return nil, nil, err
	}
	id, err := f.Identity()
	if err != nil {
		return nil, nil, err
	}
	checkpoint, _, err := readCheckpoint(filepath.Join(generation, checkpointName))
	if err != nil {
		return nil, nil, err
	}
	log, image, err := wal.Open(generation, wal.Metadata(checkpoint.ClusterId, id.Incarnation), f.step, f.logger)
	if err != nil {
		return nil, nil, err
	}
	f.log = log
	return log, image, nil
}

func (f *files) OpenEngine(at *messages.Checkpoint) (disk.Engine, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.engine != nil && !f.engine.Closed() {
		return nil, messages.Errorf(messages.Code_CONFLICT, "the state of %s is open already", f.dir)
	}
	generation, err := f.settled()
	if err != nil {
		return nil, err
	}
	durable, seal, err := readCheckpoint(filepath.Join(generation, checkpointName))
	if err != nil {
		return nil, err
	}
	if at.GetRevision() > durable.Revision {
		return nil, messages.Errorf(messages.Code_INTERNAL, "the state cannot be opened at revision %d: the last checkpoint is of revision %d", at.GetRevision(), durable.Revision)
	}
	engine, err := badger.Open(filepath.Join(generation, stateName), seal, f.logger)
	if err != nil {
		return nil, err
	}
	f.engine, f.engineOf = engine, generation
	f.removeStale()
	return engine, nil
}

func (f *files) Checkpoint() (*messages.Checkpoint, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	generation, err := f.current()
	if err != nil {
		return nil, err
	}
	checkpoint, _, err := readCheckpoint(filepath.Join(generation, checkpointName))
	return checkpoint, err
}

func (f *files) WriteCheckpoint(c *messages.Checkpoint) error {
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
func (f *files) refuseUnsynced(generation string, durable, c *messages.Checkpoint) error {
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
