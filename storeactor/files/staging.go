package files

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

// staging is the next generation in the making: state and checkpoint, no log.
type staging struct {
	files  *directory
	path   string
	engine *badger.Staging
	sealed *messages.Checkpoint // nil before Seal; guarded by the mutex of files
}

func (f *directory) Stage() (disk.Staging, error) {
	path, before, err := f.nextGeneration()
	if err != nil {
		return nil, err
	}
	// From here on nothing can be installed, and so path stays the next one.
	if before != nil {
		if err := before.remove(); err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, durable.Error("remove an unfinished state", err)
	}
	if err := durable.MakeDirectory(path); err != nil {
		return nil, durable.Error("stage a state", err)
	}
	engine, err := badger.Stage(filepath.Join(path, stateName), f.logger)
	if err != nil {
		return nil, err
	}
	s := &staging{files: f, path: path, engine: engine}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.staging = s
	return s, nil
}

// nextGeneration is where a state may be staged: behind the one that counts, or in the
// first place. The staging before counts no more.
func (f *directory) nextGeneration() (path string, before *staging, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	path = f.path(firstName)
	switch generation, err := f.current(); messages.CodeOf(err) {
	case messages.Code_OK:
		path = f.path(generationName(generationNumber(filepath.Base(generation)) + 1))
	case messages.Code_NOT_FOUND:
	default:
		return "", nil, err
	}
	before, f.staging = f.staging, nil
	return path, before, nil
}

func (s *staging) Write(rows []disk.Row) error {
	return s.engine.Write(rows)
}

func (s *staging) Inherit(l *messages.Lineage) error {
	return replaceText(filepath.Join(s.path, lineageName), "lineage", l)
}

func (s *staging) Seal(c *messages.Checkpoint) error {
	seal, err := s.engine.Seal()
	if err != nil {
		return err
	}
	err = writeCheckpoint(filepath.Join(s.path, checkpointName), c, seal)
	if err := errors.Join(err, durable.Sync(s.path), durable.Sync(s.files.dir)); err != nil {
		return durable.Error("seal a staged state", err)
	}
	s.files.mutex.Lock()
	defer s.files.mutex.Unlock()
	s.sealed = proto.Clone(c).(*messages.Checkpoint)
	return nil
}

func (s *staging) Drop() error {
	s.files.mutex.Lock()
	ours := s.files.staging == s
	if ours {
		s.files.staging = nil
	}
	s.files.mutex.Unlock()
	if !ours { // it was installed, or is gone already
		return nil
	}
	return s.remove()
}

func (s *staging) remove() error {
	err := s.engine.Drop()
	if err := errors.Join(err, os.RemoveAll(s.path)); err != nil {
		return durable.Error("remove a staged state", err)
	}
	return nil
}

func (f *directory) Install(index, term uint64, hs *raftpb.HardState) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err := f.install(index, term, hs, nil); err != nil {
		return err
	}
	f.removeStale()
	return nil
}

// install is Install with entries behind the state. The generation before stays.
func (f *directory) install(index, term uint64, hs *raftpb.HardState, entries []*raftpb.Entry) error {
	id, err := f.Identity()
	if err != nil {
		return err
	}
	s := f.staging
	switch {
	case s == nil || s.sealed == nil || s.sealed.Index != index || s.sealed.Term != term:
		return messages.Errorf(messages.Code_NOT_FOUND, "no state of index %d and term %d is staged", index, term)
	case f.log != nil && !f.log.Closed():
		return messages.Errorf(messages.Code_CONFLICT, "the log of %s is open", f.dir)
	case hs.GetCommit() < index || hs.GetTerm() < term:
		return messages.Errorf(messages.Code_INTERNAL, "a state of index %d and term %d cannot be installed with commit %d in term %d", index, term, hs.GetCommit(), hs.GetTerm())
	}
	if err := wal.Create(s.path, s.sealed, hs, entries, id, f.starts.GetNumber(), f.logger); err != nil {
		return durable.Error("make the log of an installed state", err)
	}
	if f.starts != nil {
		if err := replaceText(filepath.Join(s.path, startsName), "starts", f.starts); err != nil {
			return err
		}
	}
	f.step("log made")
	if err := errors.Join(durable.Sync(s.path), durable.Sync(f.dir)); err != nil {
		return durable.Error("sync an installed state", err)
	}
	f.step("log durable")
	if err := durable.Replace(f.path(currentName), []byte(filepath.Base(s.path)+"\n")); err != nil {
		return durable.Error("write CURRENT", err)
	}
	f.step("switched")
	f.log, f.staging = nil, nil
	return nil
}
