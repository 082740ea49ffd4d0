// Package durable writes and syncs files so that a crash leaves the old or the new,
// and gives the errors of the operating system a code and a next step.
package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"keyval/messages"
)

// Temporary is the suffix of a file that is not whole yet.
const Temporary = ".tmp"

// Replace makes data the whole content of a file, durably and all at once.
func Replace(path string, data []byte) error {
	f, err := os.OpenFile(path+Temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+Temporary, path); err != nil {
		return err
	}
	return Sync(filepath.Dir(path))
}

// MakeDirectory makes a directory with its parents, and its entry durable.
func MakeDirectory(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return Sync(filepath.Dir(path))
}

// Sync makes a file or the entries of a directory durable.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Error gives an error of the operating system a code and a next step; one
// that has them already stays as it is.
func Error(what string, err error) error {
	var known *messages.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, fs.ErrPermission):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "cannot %s: %v", what, err).
			WithHint("give this user the directory, or run as the user who owns it")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return messages.Errorf(messages.Code_INTERNAL, "cannot %s: %v", what, err).WithHint("make room on the disk, or for more files (df, df -i), and start again")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return messages.Errorf(messages.Code_INTERNAL, "cannot %s: %v", what, err).WithHint("raise the limit of open files (ulimit -n) and start again")
	}
	return messages.Errorf(messages.Code_INTERNAL, "cannot %s: %v", what, err).WithHint("check the disk and start again")
}

// Refused reports whether the operating system refused something, which says nothing
// about what a file holds.
func Refused(err error) bool {
	return slices.ContainsFunc([]error{
		unix.EACCES, unix.EPERM, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EIO,
	}, func(refusal error) bool { return errors.Is(err, refusal) })
}

// FormatError is UNSUPPORTED for a file of a newer format than this version knows.
func FormatError(path string, found, known uint32) error {
	return messages.Errorf(messages.Code_UNSUPPORTED, "%s has format %d, and this version knows formats up to %d", path, found, known).
		WithHint("start this node with the newer version that wrote it")
}

// ReadBounded reads a file of at most max bytes; of a longer one, a part that no
// checksum fits.
func ReadBounded(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max))
}

// CheckRoom is why there is no room to do what: fewer bytes are free than need.
func CheckRoom(what, dir string, need uint64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return Error("ask how much room the disk has", err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < need {
		return Error(what, unix.ENOSPC)
	}
	return nil
}

// SyncDirectory makes a directory and all files in it durable.
func SyncDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, Sync(filepath.Join(dir, e.Name())))
	}
	if err := errors.Join(err, Sync(dir)); err != nil {
		return Error("sync the state", err)
	}
	return nil
}
