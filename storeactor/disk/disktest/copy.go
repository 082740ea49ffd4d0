package disktest

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// CopyDirectory copies a directory as it is at one moment: once more if files
// came or went meanwhile.
func CopyDirectory(from, to string) error {
	for {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		before, err := FileSizes(from)
		if err != nil {
			return err
		}
		copied := os.MkdirAll(to, 0o700)
		for _, name := range slices.Sorted(maps.Keys(before)) {
			if before[name] < 0 {
				copied = errors.Join(copied, os.MkdirAll(filepath.Join(to, name), 0o700))
			} else {
				copied = errors.Join(copied, copyFile(filepath.Join(from, name), filepath.Join(to, name)))
			}
		}
		after, err := FileSizes(from)
		if err != nil {
			return err
		}
		if maps.Equal(before, after) {
			return copied
		}
	}
}

// FileSizes is the sizes of files by path; -1 of a directory.
func FileSizes(dir string) (map[string]int64, error) {
	sizes := map[string]int64{}
	return sizes, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // it went away; the next listing differs
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		sizes[name] = -1
		if info, err := e.Info(); err == nil && !e.IsDir() {
			sizes[name] = info.Size()
		}
		return nil
	})
}

// copyFile copies a file with its holes.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, at-start)); err != nil {
			return err
		}
	}
	return nil
}
