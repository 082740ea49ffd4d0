package disk

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// Archive is the disk's place for snapshot files. One that is not committed is
// gone with its process.
func (d *Disk) Archive() disk.Archive { return archive{d} }

type archive struct{ disk *Disk }

func (a archive) List() ([]disk.ArchiveFile, error) {
	var files []disk.ArchiveFile
	for id, content := range a.disk.files {
		files = append(files, disk.ArchiveFile{ID: id, Bytes: int64(len(content))})
	}
	slices.SortFunc(files, func(a, b disk.ArchiveFile) int { return strings.Compare(b.ID, a.ID) })
	return files, nil
}

func (a archive) Create(id string) (disk.ArchiveWriter, error) {
	if err := messages.CheckSnapshotID(id); err != nil {
		return nil, err
	}
	if _, there := a.disk.files[id]; there || slices.Contains(a.disk.writing, id) {
		return nil, messages.Errorf(messages.Code_CONFLICT, "there is a snapshot %s already", id)
	}
	w := &archiveWriter{disk: a.disk, process: a.disk.process, id: id}
	if err := w.fails(); err != nil {
		return nil, err
	}
	a.disk.writing = append(a.disk.writing, id)
	return w, nil
}

// find is a file's content.
func (a archive) find(id string) ([]byte, error) {
	if err := messages.CheckSnapshotID(id); err != nil {
		return nil, err
	}
	content, there := a.disk.files[id]
	if !there {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s", id)
	}
	return content, nil
}

func (a archive) Open(id string) (io.ReadCloser, error) {
	content, err := a.find(id)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

func (a archive) Delete(id string) error {
	if _, err := a.find(id); err != nil {
		return err
	}
	delete(a.disk.files, id)
	return nil
}

// archiveWriter is a file that one process writes.
type archiveWriter struct {
	disk    *Disk
	process uint64
	id      string
	content bytes.Buffer
	over    bool
}

func (w *archiveWriter) fails() error {
	switch {
	case w.process != w.disk.process:
		return ErrCrashed
	case w.over:
		return messages.Errorf(messages.Code_INTERNAL, "snapshot %s is not being written any more", w.id)
	}
	if err := w.disk.noRoom("snapshot " + w.id); err != nil {
		return err
	}
	return w.disk.fails(&w.disk.faults.failArchive, "write snapshot "+w.id)
}

func (w *archiveWriter) Write(p []byte) (int, error) {
	if err := w.fails(); err != nil {
		return 0, err
	}
	return w.content.Write(p)
}

func (w *archiveWriter) Commit() error {
	if err := w.fails(); err != nil {
		return err
	}
	if w.disk.files == nil {
		w.disk.files = map[string][]byte{}
	}
	w.end()
	w.disk.files[w.id] = bytes.Clone(w.content.Bytes())
	return nil
}

func (w *archiveWriter) Abort() error {
	if w.process == w.disk.process && !w.over {
		w.end()
	}
	return nil
}

// end makes the id free, or the file's.
func (w *archiveWriter) end() {
	w.over = true
	w.disk.writing = slices.DeleteFunc(w.disk.writing, func(id string) bool { return id == w.id })
}
