package backup

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"keyval/messages"
	"keyval/storeactor/files/durable"
)

const (
	prefix = "backup-"
	suffix = ".kvb"

	nameLayout = prefix + "2006-01-02-150405" + suffix // as package time has it
)

// Name is that of a backup that is made now.
func Name(now time.Time) string { return now.UTC().Format(nameLayout) }

// Target is the file that a backup to a path becomes: in a directory, one named after the
// time. CONFLICT if it is there.
func Target(path string, now time.Time) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return Target(filepath.Join(path, Name(now)), now)
	case err == nil:
		return "", messages.Errorf(messages.Code_CONFLICT, "%s is there already", path).WithHint("name another file, or a directory")
	case !os.IsNotExist(err):
		return "", durable.Error("write the backup", err)
	case os.IsPathSeparator(path[len(path)-1]):
		return "", messages.Errorf(messages.Code_NOT_FOUND, "there is no directory %s", path).WithHint("make it first")
	}
	return path, nil
}

// File is a backup that is being written. It has its name once it is whole and durable.
type File struct {
	file *os.File
	path string
	over bool
}

// Create begins one, beside its name.
func Create(path string) (*File, error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+durable.Temporary)
	if err != nil {
		return nil, durable.Error("write the backup", err)
	}
	return &File{file: file, path: path}, nil
}

func (f *File) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	if err != nil {
		err = durable.Error("write the backup", err)
	}
	return n, err
}

// Commit makes it durable, and gives it its name. CONFLICT: that was taken meanwhile.
func (f *File) Commit() error {
	if err := f.file.Sync(); err != nil {
		return durable.Error("write the backup", err)
	}
	err := os.Link(f.file.Name(), f.path) // unlike a rename, it replaces nothing
	switch {
	case os.IsExist(err):
		return messages.Errorf(messages.Code_CONFLICT, "%s is there by now", f.path).WithHint("name another file")
	case err != nil: // a file system without links
		err = os.Rename(f.file.Name(), f.path)
		f.over = err == nil
	}
	if err := errors.Join(err, f.Abort(), durable.Sync(filepath.Dir(f.path))); err != nil {
		return durable.Error("write the backup", err)
	}
	return nil
}

// Abort gives up what has no name yet. A second time, and after Commit, it does nothing.
func (f *File) Abort() error {
	err := f.file.Close()
	if f.over || errors.Is(err, os.ErrClosed) {
		return nil
	}
	f.over = true
	return errors.Join(err, os.Remove(f.file.Name()))
}
