package files

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/files/wal"
)

// asideName is where a rebuild puts what it replaces; a number follows.
const asideName = "set-aside-"

// Found is what a directory of a node that does not run holds, read without changing
// anything. What could not be read is left out.
type Found struct {
	Dir        string
	Identity   *messages.Identity
	Generation string // its path
	Checkpoint *messages.Checkpoint
	Unread     error // why no node starts from checkpoint and rows; nil: none is seen without reading the rows
	Image      *disk.LogImage
	Written    time.Time // when its log was written last, by the clock of its machine
	Starts     *messages.Starts
	Suspicion  *messages.Suspicion
	Condemned  string // why, if it was
	Retired    string // how, if it was
}

// Inspect reads a directory, and keeps every node out of it meanwhile. What it returns
// beside an error is what it had found by then. CONFLICT: it is in use; NOT_FOUND: no node
// has used it; DAMAGED: identity, log, vote or the count of starts is not what was written.
func Inspect(dir string, logger *slog.Logger) (*Found, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, durable.Error("open the data directory", err)
	}
	lock, err := holdDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	f := &directory{dir: dir, lock: lock, logger: logger, step: func(string) {}}
	return f.inspect()
}

func (f *directory) inspect() (*Found, error) {
	found := &Found{Dir: f.dir}
	if err := refuseForeign(f.dir); err != nil {
		return found, err
	}
	var err error
	if found.Identity, err = f.Identity(); err != nil {
		return found, err
	}
	if len(found.Identity.ClusterId) == 0 {
		return found, messages.Errorf(messages.Code_NOT_FOUND, "%s belongs to no cluster yet", f.dir)
	}
	var condemned, retired, suspected error
	found.Condemned, _, condemned = f.givenUp(condemnedName)
	found.Retired, _, retired = f.givenUp(retiredName)
	found.Suspicion, suspected = f.Suspicion()
	if err := errors.Join(condemned, retired, suspected); err != nil {
		return found, err
	}
	if found.Generation, err = f.surely(); err != nil {
		return found, err
	}
	var seal badger.Seal
	if found.Checkpoint, seal, found.Unread = readCheckpoint(filepath.Join(found.Generation, checkpointName)); found.Unread == nil {
		found.Unread = seal.Check(filepath.Join(found.Generation, stateName))
	}
	if found.Checkpoint != nil && !bytes.Equal(found.Checkpoint.ClusterId, found.Identity.ClusterId) {
		found.Unread = disk.Damaged("the checkpoint of %s is of cluster %x, and its identity of cluster %x", f.dir, found.Checkpoint.ClusterId, found.Identity.ClusterId)
	}
	image, witness, err := wal.Read(found.Generation, wal.Metadata(found.Identity.ClusterId, found.Identity.Incarnation), f.logger)
	if err != nil {
		return found, err
	}
	if found.Starts, err = readStarts(found.Generation); err == nil {
		err = disk.MeetStarts(found.Starts, witness.Starts)
	}
	found.Image = image
	if info, gone := os.Stat(filepath.Join(found.Generation, wal.WitnessName)); gone == nil {
		found.Written = info.ModTime()
	}
	return found, err
}

// Started reports whether a node was started on it.
func (f *Found) Started() bool {
	if f.Generation == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(f.Generation, startsName))
	return !os.IsNotExist(err)
}

// surely is the generation that counts: as CURRENT says or, where that is lost, the only
// one there is.
func (f *directory) surely() (string, error) {
	generation, named := f.current()
	if named == nil {
		return generation, nil
	}
	names, err := f.generations()
	if err != nil {
		return "", err
	}
	if len(names) != 1 || messages.CodeOf(named) != messages.Code_DAMAGED {
		return "", named
	}
	last, found, err := wal.ReadWitness(f.path(names[0]))
	if err != nil || !found || last.Sequence <= 1 {
		return "", named
	}
	return f.path(names[0]), nil
}

// Sound is nil if log and vote hold all that the node acknowledged, as far as its
// directory tells: only then may another state stand below them.
func (f *Found) Sound() error {
	switch {
	case f.Retired != "":
		return messages.Errorf(messages.Code_REMOVED, "%s is of no more use: %s", f.Dir, f.Retired).WithHint("%s", disk.RetiredHint)
	case len(f.Suspicion.GetAccusations()) > 0:
		return disk.Damaged("the log of %s has lost what it acknowledged, as other members say", f.Dir)
	}
	return nil
}

// Salvage is a directory whose log, vote and starts are sound, and whose state is to be
// another member's. It has the directory's lock.
type Salvage struct {
	*Found
	files *directory
}

// OpenSalvage opens a directory for that. Errors are as of Inspect and Sound. Nothing is
// changed yet.
func OpenSalvage(dir string, logger *slog.Logger) (*Salvage, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, durable.Error("open the data directory", err)
	}
	lock, err := holdDirectory(dir)
	if err != nil {
		return nil, err
	}
	s := &Salvage{files: &directory{dir: dir, lock: lock, logger: logger, step: func(string) {}}}
	if s.Found, err = s.files.inspect(); err == nil {
		err = s.Sound()
	}
	if err != nil {
		lock.Close()
		return s, err
	}
	return s, nil
}

// Begin stages the state that is to come. From here on CURRENT is there again.
func (s *Salvage) Begin() (disk.Staging, error) {
	f := s.files
	if err := writeHolder(f.dir); err != nil {
		return nil, durable.Error("lock the data directory", err)
	}
	if _, err := f.current(); err != nil {
		if err := durable.Replace(f.path(currentName), []byte(filepath.Base(s.Generation)+"\n")); err != nil {
			return nil, durable.Error("write CURRENT", err)
		}
	}
	f.starts = proto.Clone(s.Starts).(*messages.Starts)
	f.starts.Witnessed = true // the new log's witness counts them all
	return f.Stage()
}

// Fits is nil if a state of this index and term may stand below the log: what the log
// holds above is kept.
func (s *Salvage) Fits(index, term uint64) error {
	if i := s.Image; index < i.BaseIndex || index == i.BaseIndex && term != i.BaseTerm {
		return messages.Errorf(messages.Code_UNSAFE, "the state at index %d of term %d is older than the log of %s, which begins behind index %d of term %d",
			index, term, s.Dir, i.BaseIndex, i.BaseTerm).WithHint("take it from a member that is not behind")
	}
	return nil
}

// Install makes the sealed state the one that counts, with the vote that was, and of the
// log what follows: none of it where the state is from beyond its end, or where the log
// has another entry at its place, behind which nothing was committed.
func (s *Salvage) Install(index, term uint64) (kept int, err error) {
	if err := s.Fits(index, term); err != nil {
		return 0, err
	}
	entries, own := behind(s.Image, index, term), s.Image.HardState
	hs := &raftpb.HardState{Term: new(own.GetTerm()), Vote: new(own.GetVote()), Commit: new(max(index, own.GetCommit()))}
	if own.GetTerm() < term { // it has not voted in this one
		hs.Term, hs.Vote = new(term), new(uint64(0))
	}
	s.files.mutex.Lock()
	defer s.files.mutex.Unlock()
	return len(entries), s.files.install(index, term, hs, entries)
}

// behind are the entries of a log that go on behind a state of this index and term.
func behind(i *disk.LogImage, index, term uint64) []*raftpb.Entry {
	last, _ := i.Last()
	switch {
	case index > last:
		return nil
	case index == i.BaseIndex:
		return i.Entries
	case i.Entries[index-i.BaseIndex-1].GetTerm() != term:
		return nil
	}
	return i.Entries[index-i.BaseIndex:]
}

// Prove opens what was installed as a node that starts does, and has it read.
func (s *Salvage) Prove(at *messages.Checkpoint, read func(disk.Engine) error) error {
	engine, err := s.files.OpenEngine(at)
	if err != nil {
		return err
	}
	return errors.Join(read(engine), engine.Close())
}

// SetAside moves what was replaced out of the way, and takes back that the directory is
// not to be served. It returns where that is now.
func (s *Salvage) SetAside() (string, error) {
	f := s.files
	aside, err := f.newAside()
	if err != nil {
		return "", err
	}
	names, err := f.generations()
	if err != nil {
		return "", err
	}
	current, err := f.current()
	if err != nil {
		return "", err
	}
	if _, unread := f.Heard(); messages.CodeOf(unread) == messages.Code_DAMAGED {
		names = append(names, heardName)
	}
	for _, name := range append(names, condemnedName) { // the last one: until then nothing is served
		if f.path(name) == current {
			continue
		}
		if err := os.Rename(f.path(name), filepath.Join(aside, name)); err != nil && !os.IsNotExist(err) {
			return "", durable.Error("set the damaged state aside", err)
		}
	}
	if err := errors.Join(durable.Sync(aside), durable.Sync(f.dir)); err != nil {
		return "", durable.Error("set the damaged state aside", err)
	}
	return aside, nil
}

func (f *directory) newAside() (string, error) {
	for n := 1; ; n++ {
		path := f.path(fmt.Sprint(asideName, n))
		switch err := os.Mkdir(path, 0o700); {
		case err == nil:
			return path, nil
		case !os.IsExist(err):
			return "", durable.Error("set the damaged state aside", err)
		}
	}
}

// Close lets go of the directory.
func (s *Salvage) Close() error { return s.files.lock.Close() }

// CopyTo copies what a node starts from, but for its snapshot files, to a directory that is
// not there yet. It keeps every node out of the original meanwhile.
func (f *Found) CopyTo(to string) error {
	lock, err := holdDirectory(f.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	err = copyTree(f.Dir, to, func(name string) bool {
		return name == lockName || name == snapshotsName || strings.HasPrefix(name, asideName)
	})
	if err != nil {
		return durable.Error("copy the data directory", err)
	}
	return nil
}

// copyTree copies files and directories, but for those in the first whose name is left out.
func copyTree(from, to string, leaves func(name string) bool) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case leaves != nil && leaves(e.Name()):
		case e.IsDir():
			err = errors.Join(err, copyTree(source, target, nil))
		default:
			err = errors.Join(err, copyFile(source, target))
		}
	}
	return err
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = target.ReadFrom(source)
	return errors.Join(err, target.Close())
}
