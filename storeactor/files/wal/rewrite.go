package wal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"keyval/storeactor/files/durable"
)

// rewriteChunk is how many bytes of a segment are written anew at a time.
const rewriteChunk = 256 << 10

// rewriteLast puts a synced copy in the place of the newest segment.
//
// Where a sync failed, the operating system may take the pages for written: the next
// process reads them, no later sync brings them to the disk, and they are gone with the
// power or as soon as memory is wanted. All that is written behind them would be gone
// with them, since records are chained. Which pages these are nobody says, so all are
// written; and to a new file, since ext4 goes on to take the blocks of the old one, which
// it had set aside and failed to fill, for empty. The segments before the newest one were
// synced before it had its name.
//
// A crash leaves the old file or the new, and they say the same.
func rewriteLast(dir string) error {
	const what = "write the end of the log anew"
	names, err := segments(dir)
	if err != nil {
		return durable.Error("read the log", err)
	}
	last := filepath.Join(dir, names[len(names)-1])
	err = copySynced(last, last+".tmp") // an open removes what a crash leaves of it
	if err == nil {
		err = os.Rename(last+".tmp", last)
	}
	if err == nil {
		err = durable.Sync(dir)
	}
	if err != nil {
		return durable.Error(what, errors.Join(err, removeIfThere(last+".tmp")))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !os.IsNotExist(err) {
		return err
	}
	return nil
}

// copySynced makes a durable copy of a file, by reading and writing: what copies within
// the file system may copy what the disk holds.
func copySynced(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyChunks(f, c), c.Sync(), c.Close())
}

// copyChunks leaves out runs of zeros, which a new file has anyway: a segment is mostly
// they, behind its end.
func copyChunks(from io.ReaderAt, to *os.File) error {
	chunk := make([]byte, rewriteChunk)
	for at := int64(0); ; {
		n, err := from.ReadAt(chunk, at)
		if err != nil && err != io.EOF {
			return err
		}
		if read := chunk[:n]; len(bytes.TrimLeft(read, "\x00")) > 0 {
			if _, err := to.WriteAt(read, at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF {
			return to.Truncate(at)
		}
	}
}
