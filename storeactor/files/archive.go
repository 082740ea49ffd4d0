package files

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

const archiveSuffix = ".kvsnap"

// archive is the Archive over the directory snapshots/, which the first file makes.
// A file has its name from its commit on; before it has a temporary one.
type archive struct {
	dir string
}

func (f *directory) Archive() disk.Archive {
	return archive{dir: f.path(snapshotsName)}
}

// path is that of a file that is whole.
func (a archive) path(id string) (string, error) {
	if err := messages.CheckSnapshotID(id); err != nil {
		return "", err
	}
	return filepath.Join(a.dir, id+archiveSuffix), nil
}

// List passes over files that cannot be ours.
func (a archive) List() ([]disk.ArchiveFile, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, durable.Error("list the snapshots", err)
	}
	var found []disk.ArchiveFile
	for _, e := range entries {
		id, ours := strings.CutSuffix(e.Name(), archiveSuffix)
		if !ours || messages.CheckSnapshotID(id) != nil || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if os.IsNotExist(err) { // it was deleted meanwhile
			continue
		}
		if err != nil {
			return nil, durable.Error("list the snapshots", err)
		}
		found = append(found, disk.ArchiveFile{ID: id, Bytes: info.Size()})
	}
	slices.SortFunc(found, func(a, b disk.ArchiveFile) int { return strings.Compare(b.ID, a.ID) })
	return found, nil
}

func (a archive) Create(id string) (disk.ArchiveWriter, error) {
	path, err := a.path(id)
	if err != nil {
		return nil, err
	}
	if err := durable.MakeDirectory(a.dir); err != nil {
		return nil, durable.Error("make the directory of snapshots", err)
	}
	file, err := os.OpenFile(path+durable.Temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return nil, messages.Errorf(messages.Code_CONFLICT, "the snapshot %s is being written", id).WithHint("name another id, or wait")
	}
	if err != nil {
		return nil, durable.Error("write a snapshot", err)
	}
	w := &archiveWriter{file: file, path: path}
	// Whoever has the temporary name has the id: nobody can commit it meanwhile.
	if _, err := os.Stat(path); err != nil {
		return w, nil
	}
	if err := w.Abort(); err != nil {
		return nil, err
	}
	return nil, messages.Errorf(messages.Code_CONFLICT, "there is a snapshot %s", id).
		WithHint("name another id, or delete that one first")
}

func (a archive) Open(id string) (io.ReadCloser, error) {
	path, err := a.path(id)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, noSnapshot(id)
	}
	if err != nil {
		return nil, durable.Error("read a snapshot", err)
	}
	return file, nil
}

func (a archive) Delete(id string) error {
	path, err := a.path(id)
	if err != nil {
		return err
	}
	err = os.Remove(path)
	if os.IsNotExist(err) {
		return noSnapshot(id)
	}
	if err == nil {
		err = durable.Sync(a.dir)
	}
	if err != nil {
		return durable.Error("delete a snapshot", err)
	}
	return nil
}

func noSnapshot(id string) error {
	return messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s on this node", id).
		WithHint("list the snapshots of this node; another node may have it")
}

// archiveWriter is a file under its temporary name.
type archiveWriter struct {
	file   *os.File
	path   string // from the commit on
	closed bool   // committed or given up
	failed error  // the first one; only Abort is left then
}

func (w *archiveWriter) Write(p []byte) (int, error) {
	if err := w.refuse(); err != nil {
		return 0, err
	}
	n, err := w.file.Write(p)
	if err != nil {
		w.failed = durable.Error("write a snapshot", err)
	}
	return n, w.failed
}

func (w *archiveWriter) refuse() error {
	if w.closed {
		return messages.Errorf(messages.Code_INTERNAL, "the snapshot is written already")
	}
	return w.failed
}

func (w *archiveWriter) Commit() error {
	if err := w.refuse(); err != nil {
		return err
	}
	err := w.file.Sync()
	if err == nil {
		err = os.Rename(w.path+durable.Temporary, w.path)
	}
	if err != nil {
		w.failed = durable.Error("write a snapshot", err)
		return w.failed
	}
	w.closed = true
	if err := errors.Join(w.file.Close(), durable.Sync(filepath.Dir(w.path))); err != nil {
		return durable.Error("write a snapshot", err)
	}
	return nil
}

func (w *archiveWriter) Abort() error {
	if w.closed {
		return nil
	}
	w.closed = true
	if err := errors.Join(w.file.Close(), os.Remove(w.path+durable.Temporary)); err != nil {
		return durable.Error("give up a snapshot", err)
	}
	return nil
}

// removeUncommitted removes what a crash left of files that were not committed, and
// transient ones: whoever wanted those asked another process.
func (f *directory) removeUncommitted() {
	entries, err := os.ReadDir(f.path(snapshotsName))
	if os.IsNotExist(err) {
		return
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), archiveSuffix+durable.Temporary) || messages.IsTransient(e.Name()) {
			err = errors.Join(err, os.Remove(f.path(snapshotsName, e.Name())))
		}
	}
	if err != nil {
		f.logger.Warn("an unfinished snapshot cannot be removed", "reason", err)
	}
}
