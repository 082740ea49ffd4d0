package storeactor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

// generationNumber is the number in the name of a generation; 0 for other names.
func generationNumber(name string) uint64 {
	var number uint64
	if n, _ := fmt.Sscanf(name, "generation-%d", &number); n != 1 || name != generationName(number) {
		return 0
	}
	return number
}

func generationName(number uint64) string {
	return fmt.Sprintf("generation-%d", number)
}

// current is the path of the generation that counts; NOT_FOUND if there is none.
func (f *files) current() (string, error) {
	text, err := os.ReadFile(f.path(currentName))
	if os.IsNotExist(err) {
		if err := f.refuseUsed(); err != nil {
			return "", err
		}
		return "", messages.Errorf(messages.Code_NOT_FOUND, "%s is not initialised", f.dir)
	}
	if err != nil {
		return "", durable.Error("read CURRENT", err)
	}
	name, _ := strings.CutSuffix(string(text), "\n")
	if generationNumber(name) == 0 {
		return "", disk.Damaged("%s names no generation: %q", f.path(currentName), name)
	}
	if info, err := os.Stat(f.path(name)); err != nil || !info.IsDir() {
		return "", disk.Damaged("%s names %s, which is missing", f.path(currentName), name)
	}
	return f.path(name), nil
}

// settled is current, for good: what a process renamed right before it crashed may
// be seen by the next one, and be taken back by a power cut.
func (f *files) settled() (string, error) {
	generation, err := f.current()
	if err != nil {
		return "", err
	}
	if err := errors.Join(durable.Sync(generation), durable.Sync(f.dir)); err != nil {
		return "", durable.Error("sync the data directory", err)
	}
	return generation, nil
}

// refuseUsed is DAMAGED if there is a generation that was in use, and no CURRENT
// to name it. A first one that was never opened is what a crash left of
// Initialise; a later one has followed another.
func (f *files) refuseUsed() error {
	names, err := f.generations()
	if err != nil {
		return err
	}
	var used []string // those with a log; others were staged, or broke off
	for _, name := range names {
		last, found, err := wal.ReadWitness(f.path(name))
		if !found && err == nil || name == firstName && err == nil && last.Sequence == 1 {
			continue
		}
		used = append(used, name)
	}
	switch missing := f.path(currentName); {
	case len(used) == 1:
		return disk.Damaged("%s is missing, and %s was in use", missing, used[0]).
			WithHint("if nothing else is missing, write the line %q to %s", used[0], missing)
	case len(used) > 1:
		return disk.Damaged("%s is missing, and %s were in use", missing, strings.Join(used, " and "))
	case len(names) > 1 || len(names) == 1 && names[0] != firstName:
		return disk.Damaged("%s is missing, and so is the generation that was in use", missing)
	}
	return nil
}

// generations are the names of all generations that are there, whole or not.
func (f *files) generations() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, durable.Error("read the data directory", err)
	}
	var names []string
	for _, e := range entries {
		if generationNumber(e.Name()) != 0 {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// removeStale removes generations that do not count: those before an installed
// one, unless an engine still reads there, and what a crash left of a staging. A
// condemned or damaged directory stays as it is. What cannot be removed now is
// removed another time.
func (f *files) removeStale() {
	generation, err := f.current()
	if err != nil || f.condemned() != nil {
		return
	}
	keep := []string{generation}
	if f.engine != nil && !f.engine.Closed() {
		keep = append(keep, f.engineOf)
	}
	if f.staging != nil {
		keep = append(keep, f.staging.path)
	}
	names, err := f.generations()
	for _, name := range names {
		if path := f.path(name); !slices.Contains(keep, path) {
			err = errors.Join(err, os.RemoveAll(path))
			f.step("stale generation removed")
		}
	}
	if err != nil {
		f.logger.Warn("a state that does not count any more cannot be removed", "error", err)
	}
}

func (f *files) Initialised() (bool, error) {
	if err := f.condemned(); err != nil {
		return false, err
	}
	_, err := f.current()
	if messages.CodeOf(err) == messages.Code_NOT_FOUND {
		return false, nil
	}
	return err == nil, err
}

func (f *files) Initialise(first *messages.Checkpoint) error {
	if err := f.condemned(); err != nil {
		return err
	}
	id, err := f.Identity()
	if err != nil {
		return err
	}
	switch _, err := f.current(); messages.CodeOf(err) {
	case messages.Code_NOT_FOUND:
	case messages.Code_OK:
		return messages.Errorf(messages.Code_CONFLICT, "%s is initialised already", f.dir)
	default:
		return err
	}
	generation := f.path(firstName)
	if err := os.RemoveAll(generation); err != nil {
		return durable.Error("remove a half-made generation", err)
	}
	if err := f.makeGeneration(generation, first, id); err != nil {
		return durable.Error("make the first generation", err)
	}
	if err := durable.Replace(f.path(currentName), []byte(firstName+"\n")); err != nil {
		return durable.Error("write CURRENT", err)
	}
	return nil
}

// makeGeneration writes a whole generation, durably.
func (f *files) makeGeneration(path string, first *messages.Checkpoint, id *messages.Identity) error {
	if err := durable.MakeDirectory(path); err != nil {
		return err
	}
	hs := &raftpb.HardState{Term: new(first.Term)}
	if err := wal.Create(path, first, hs, id, f.logger); err != nil {
		return err
	}
	if err := badger.Create(filepath.Join(path, stateName), f.logger); err != nil {
		return err
	}
	if err := writeCheckpoint(filepath.Join(path, checkpointName), first, badger.Seal{}); err != nil {
		return err
	}
	return errors.Join(durable.Sync(path), durable.Sync(f.dir))
}

// staging is the next generation in the making: state and checkpoint, no log.
type staging struct {
	files  *files
	path   string
	engine *badger.Staging
	sealed *messages.Checkpoint // nil before Seal; guarded by the mutex of files
}

func (f *files) Stage() (disk.Staging, error) {
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

// nextGeneration is where a state may be staged. The staging before counts no more.
func (f *files) nextGeneration() (path string, before *staging, err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	generation, err := f.current()
	if err != nil {
		return "", nil, err
	}
	before, f.staging = f.staging, nil
	return f.path(generationName(generationNumber(filepath.Base(generation)) + 1)), before, nil
}

func (s *staging) Write(rows []disk.Row) error {
	return s.engine.Write(rows)
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

func (f *files) Install(index, term uint64, hs *raftpb.HardState) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
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
	if err := wal.Create(s.path, s.sealed, hs, id, f.logger); err != nil {
		return durable.Error("make the log of an installed state", err)
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
	f.removeStale()
	return nil
}

const reasonMax = 4 << 10 // bytes of a reason that are kept

// Condemn keeps the first reason: what follows is often only its effect.
func (f *files) Condemn(reason string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.condemned() != nil {
		return nil
	}
	if err := durable.Replace(f.path(condemnedName), []byte(reason[:min(len(reason), reasonMax)]+"\n")); err != nil {
		return durable.Error("condemn the data directory", err)
	}
	return nil
}

// condemned is DAMAGED, with the reason, if the directory was condemned. The file
// alone condemns it, whatever it holds.
func (f *files) condemned() error {
	text, err := durable.ReadBounded(f.path(condemnedName), reasonMax)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return durable.Error("read why the data directory was condemned", err)
	}
	reason := strings.Map(func(r rune) rune {
		if r == '\n' || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(text)))
	return messages.Errorf(messages.Code_DAMAGED, "%s was condemned: %s", f.dir, reason).
		WithHint("this node must not serve again: put a new one in its place, and keep the directory for inspection")
}
