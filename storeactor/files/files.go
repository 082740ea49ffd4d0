// Package files is the disk of a real node: a directory with its log, its rows, its
// checkpoint and its snapshot files.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

// A node's directory:
//
//	LOCK              the pid of the process that uses the directory, which holds it
//	                  by flock on the directory itself
//	identity          whose directory this is, readable by people
//	CURRENT           the name of the generation that counts
//	generation-1/     log and state that belong together; each snapshot that is
//	                  installed makes the next one
//	  wal/            the log
//	  witness         what was last synced to it
//	  state/          the engine's rows (Badger)
//	  checkpoint      all other state, and what the engine had synced by then
//	  starts          the processes that were started on it
//	  lineage         if it is there: from which members' snapshots the state comes
//	heard             the last starts of the other nodes that this one has heard of
//	snapshots/        snapshot files, by id
//	SUSPECTED         if it is there: what speaks for a loss of data in this directory
//	CONDEMNED         if it is there: never to be served again, and why
//	RETIRED           if it is there: the node was removed from its cluster, and how
//	set-aside-1/      what a rebuild has replaced; no node reads it
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
	retiredName    = "RETIRED"
	suspectedName  = "SUSPECTED"
	lineageName    = "lineage"
	startsName     = "starts"
	heardName      = "heard"
)

// directory is the Disk over a directory.
type directory struct {
	dir    string
	lock   *os.File
	logger *slog.Logger
	synced prometheus.Observer // of the log, in seconds
	step   func(string)        // told what was just done; for tests, which look at the files then

	// mutex guards what is below: log, machine, checkpoint and intake each come
	// from their own goroutine.
	mutex      sync.Mutex
	log        *wal.Log         // the last one opened of the generation that counts, if any
	engine     *badger.Engine   // the last one opened, if any
	engineOf   string           // the path of its generation
	staging    *staging         // neither dropped nor installed yet, or nil
	starts     *messages.Starts // of the generation that counts; nil: this process has not said anything
	checkpoint error            // of a write that failed; nothing is written after it
}

// Open opens a node's directory, making it if it is not there, and keeps
// other processes out until Close. A nil meter counts for nobody. CONFLICT: it is in use, or it holds something
// else; UNSUPPORTED: a newer version wrote it; DAMAGED: its identity is not whole.
func Open(dir string, logger *slog.Logger, meter prometheus.Registerer) (disk.Disk, error) {
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
	f := &directory{dir: dir, lock: lock, logger: logger, step: func(string) {}}
	f.synced = telemetry.Histogram(meter, "keyval_log_sync_seconds",
		"How long the log took to make durable what was saved.", 0.0005, 15)
	if meter != nil {
		_ = meter.Register(&sizes{dir: dir, measure: sizesOf}) // a process that opens it again looks at the same
	}
	if _, err := f.Identity(); err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND {
		f.Close()
		return nil, err
	}
	f.removeStale()
	f.removeUncommitted()
	return f, nil
}

// Count is how many files a node opens of a directory, at most: those of its log and
// its rows. One that is not there has none.
func Count(dir string) (files int, err error) {
	generations, err := filepath.Glob(filepath.Join(dir, "generation-*"))
	for _, generation := range generations {
		walk := filepath.WalkDir(generation, func(_ string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files++
			}
			return err
		})
		if err == nil && walk != nil {
			err = durable.Error("look into the data directory", walk)
		}
	}
	return files, err
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
		case slices.Contains([]string{currentName, condemnedName, retiredName, suspectedName, snapshotsName, heardName}, name) || generationNumber(name) != 0:
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

// lockDirectory takes the lock, and says in the directory who has it.
func lockDirectory(dir string) (*os.File, error) {
	f, err := holdDirectory(dir)
	if err != nil {
		return nil, err
	}
	if err := writeHolder(dir); err != nil {
		f.Close()
		return nil, durable.Error("lock the data directory", err)
	}
	return f, nil
}

func writeHolder(dir string) error {
	return os.WriteFile(filepath.Join(dir, lockName), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600)
}

// holdDirectory takes the lock, which ends with the process whatever happens, and writes
// nothing. It is on the directory itself: a file in it could be removed, and the next one
// locked beside it.
func holdDirectory(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if os.IsNotExist(err) {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no directory %s", dir).WithHint("name the data directory of a node")
	}
	if err != nil {
		return nil, durable.Error("lock the data directory", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		text, _ := durable.ReadBounded(filepath.Join(dir, lockName), 32)
		holder := "another process" // its file is gone, and its lock is not
		if pid := strings.TrimSpace(string(text)); pid != "" {
			holder = "process " + pid
		}
		return nil, messages.Errorf(messages.Code_CONFLICT, "%s is in use by %s", dir, holder).
			WithHint("stop that process first, or name another directory")
	}
	return nil, durable.Error("lock the data directory", err)
}

func (f *directory) Close() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.removeStale()
	return f.lock.Close()
}

func (f *directory) path(elements ...string) string {
	return filepath.Join(append([]string{f.dir}, elements...)...)
}

func (f *directory) OpenLog() (disk.Log, *disk.LogImage, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.log != nil && !f.log.Closed() {
		return nil, nil, messages.Errorf(messages.Code_CONFLICT, "the log of %s is open already", f.dir)
	}
	generation, err := f.currentSynced()
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
	log, image, err := wal.Open(generation, wal.Metadata(checkpoint.ClusterId, id.Incarnation), f.step, f.synced, f.logger)
	if err != nil {
		return nil, nil, err
	}
	f.log = log
	return log, image, nil
}

func (f *directory) OpenEngine(at *messages.Checkpoint) (disk.Engine, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.engine != nil && !f.engine.Closed() {
		return nil, messages.Errorf(messages.Code_CONFLICT, "the state of %s is open already", f.dir)
	}
	generation, err := f.currentSynced()
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
