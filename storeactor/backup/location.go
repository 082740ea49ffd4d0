package backup

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyval/messages"
	"keyval/storeactor/files/durable"
)

// Location is where backups stand beside one another: a directory, or the objects below a
// prefix.
type Location interface {
	// Path is how people write the backup of this name; of an empty one, the location.
	Path(name string) string
	// Names are those of the backups that Name has named, oldest first.
	Names(ctx context.Context) ([]string, error)
	// Open reads one, and says its size in bytes; 0: not known. What it returns may seek.
	// NOT_FOUND: it is not there.
	Open(ctx context.Context, name string) (io.ReadCloser, int64, error)
	// Create begins one of about so many bytes, 0: not known. CONFLICT: it is there.
	Create(ctx context.Context, name string, bytes uint64) (Upload, error)
	Remove(ctx context.Context, name string) error
}

// Upload is a backup that is being written. It has its name once it is whole and durable.
type Upload interface {
	io.Writer
	// Commit gives it its name. CONFLICT: that was taken meanwhile.
	Commit() error
	// Abort gives up what has no name yet. A second time, and after Commit, it does nothing.
	Abort() error
}

const s3Scheme = "s3://"

// Locate says where a path is, and which backup there it means: none, if it is a directory or
// a prefix.
func Locate(path string) (Location, string, error) {
	if strings.HasPrefix(path, s3Scheme) {
		return locateS3(path)
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return directory(path), "", nil
	case err == nil:
	case !os.IsNotExist(err):
		return nil, "", durable.Error("look for the backup", err)
	case os.IsPathSeparator(path[len(path)-1]):
		return nil, "", messages.Errorf(messages.Code_NOT_FOUND, "there is no directory %s", path).WithHint("make it first")
	}
	return directory(filepath.Dir(path)), filepath.Base(path), nil
}

// Find says which backup a path means: of a directory or a prefix, the newest that Name has
// named.
func Find(ctx context.Context, path string) (Location, string, error) {
	l, name, err := Locate(path)
	if err != nil || name != "" {
		return l, name, err
	}
	names, err := l.Names(ctx)
	if err != nil {
		return nil, "", err
	}
	if len(names) == 0 {
		return nil, "", messages.Errorf(messages.Code_NOT_FOUND, "%s holds no %s*%s", path, prefix, suffix).WithHint("name the file of the backup")
	}
	return l, names[len(names)-1], nil
}

// named reports whether Name has named it.
func named(name string) bool {
	return strings.HasPrefix(name, prefix) && strings.HasSuffix(name, suffix)
}

// directory is the Location of files.
type directory string

func (d directory) Path(name string) string { return filepath.Join(string(d), name) }

func (d directory) Names(context.Context) (names []string, err error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, durable.Error("look for backups", err)
	}
	for _, e := range entries { // by name, which is by time
		if named(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d directory) Open(_ context.Context, name string) (io.ReadCloser, int64, error) {
	file, err := os.Open(d.Path(name))
	switch {
	case os.IsNotExist(err):
		return nil, 0, messages.Errorf(messages.Code_NOT_FOUND, "there is no backup %s", d.Path(name))
	case err != nil:
		return nil, 0, messages.Errorf(messages.Code_NOT_ALLOWED, "the backup cannot be read: %v", err).WithHint("name a file that this user may read")
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return struct{ io.ReadCloser }{file}, 0, nil // a pipe does not seek
	}
	return file, info.Size(), nil
}

func (d directory) Create(_ context.Context, name string, _ uint64) (Upload, error) {
	path, err := Target(d.Path(name), time.Time{})
	if err != nil {
		return nil, err
	}
	return Create(path)
}

func (d directory) Remove(_ context.Context, name string) error {
	if err := os.Remove(d.Path(name)); err != nil {
		return durable.Error("remove the backup", err)
	}
	return durable.Sync(string(d))
}

// MadeAt is when Name has named a backup so; false: it has not.
func MadeAt(name string) (time.Time, bool) {
	at, err := time.Parse(nameLayout, name)
	return at, err == nil
}

// Prune removes all but the newest backups that Name has named, and returns the names of what
// is gone. What one that stays builds on stays too.
func Prune(ctx context.Context, l Location, keep int) (gone []string, err error) {
	names, err := l.Names(ctx)
	if err != nil || len(names) <= keep {
		return nil, err
	}
	needed := map[string]bool{}
	for i, name := range slices.Backward(names) {
		if i < len(names)-keep && !needed[name] {
			gone = append(gone, name)
			continue
		}
		g, err := GlanceAt(ctx, l, name)
		if err != nil {
			return nil, messages.Errorf(messages.CodeOf(err), "%s cannot be read, so nothing older is removed: %s", l.Path(name), messageOf(err)).WithHint("look at it, and remove it by hand")
		}
		if g.Base != nil {
			base, err := baseOf(ctx, l, name, g.Base)
			if err != nil {
				return nil, err
			}
			needed[base] = true
		}
	}
	slices.Reverse(gone)
	for i, name := range gone {
		if err := l.Remove(ctx, name); err != nil {
			return gone[:i], err
		}
	}
	return gone, nil
}
