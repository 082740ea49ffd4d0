// Package backup reads backups, which are snapshot files, and makes the data directories
// of a new cluster from one.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
)

// Contents is what a backup holds, once all of it was read and found whole.
type Contents struct {
	Header  *messages.SnapshotHeader
	Trailer *messages.SnapshotTrailer
	Keys    uint64 // that are there as of its revision
	Bytes   uint64 // of the file
	Rows    Tally  // all rows, with their history
	Live    Tally  // of each key the newest row, but for deletions
}

// Tally counts rows and hashes them. The zero value is that of none.
type Tally struct {
	Count uint64
	hash  hash.Hash
	head  []byte // used again
}

// Add takes the next row.
func (t *Tally) Add(key, value []byte, revision, created, version uint64, deleted bool) {
	if t.hash == nil {
		t.hash = sha256.New()
	}
	t.Count++
	t.head = t.head[:0]
	for _, n := range []uint64{uint64(len(key)), uint64(len(value)), revision, created, version} {
		t.head = binary.LittleEndian.AppendUint64(t.head, n)
	}
	if deleted {
		t.head = append(t.head, 1)
	} else {
		t.head = append(t.head, 0)
	}
	t.hash.Write(t.head)
	t.hash.Write(key)
	t.hash.Write(value)
}

func (t *Tally) row(r disk.Row) { t.Add(r.Key, r.Value, r.Revision, r.Created, r.Version, r.Deleted) }

// Sum is the SHA-256 over the rows so far, each as sizes of key and value, revision,
// create_revision, version (8 bytes each, little endian), deleted (1 byte), key, value.
func (t *Tally) Sum() []byte {
	if t.hash == nil {
		sum := sha256.Sum256(nil)
		return sum[:]
	}
	return t.hash.Sum(nil)
}

// counter counts what is read through it.
type counter struct {
	from io.Reader
	read uint64
	told func(uint64) // nil: nobody
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.read += uint64(n)
	if c.told != nil {
		c.told(c.read)
	}
	return n, err
}

// Read reads a backup to its end, holds every byte against the format's checksums, and
// tells the bytes read so far. DAMAGED: it is not what was written, and the message says
// which chunk it is, and at which byte; UNSUPPORTED: newer software wrote it.
func Read(from io.Reader, told func(bytes uint64)) (*Contents, error) {
	return read(from, told, func(*messages.SnapshotHeader, *messages.Checkpoint) error { return nil }, func([]disk.Row) error { return nil })
}

func read(from io.Reader, told func(uint64), begin func(*messages.SnapshotHeader, *messages.Checkpoint) error, rows func([]disk.Row) error) (*Contents, error) {
	return walk(from, told, begin, func(_ *messages.SnapshotChunk, found []disk.Row) error {
		if len(found) == 0 { // a chunk of something else, which may come before begin
			return nil
		}
		return rows(found)
	})
}

func walk(from io.Reader, told func(uint64), begin func(*messages.SnapshotHeader, *messages.Checkpoint) error, each func(*messages.SnapshotChunk, []disk.Row) error) (*Contents, error) {
	c := &Contents{}
	in := &counter{from: from, told: told}
	var last []byte // key of the last row
	trailer, place, err := snapshot.Walk(in, messages.Level, func(h *messages.SnapshotHeader, state *messages.Checkpoint) error {
		c.Header = h
		return begin(h, state)
	}, func(chunk *messages.SnapshotChunk, found []disk.Row) error {
		for _, r := range found {
			c.Rows.row(r)
			if c.Rows.Count > 1 && bytes.Equal(last, r.Key) {
				continue
			}
			last = append(last[:0], r.Key...)
			if !r.Deleted {
				c.Live.row(r)
			}
		}
		return each(chunk, found)
	})
	if _, linked := errors.AsType[*snapshot.LinkError](err); messages.CodeOf(err) == messages.Code_DAMAGED {
		if linked { // it says its place itself
			err = messages.Errorf(messages.Code_DAMAGED, "%s", messageOf(err))
		} else {
			err = messages.Errorf(messages.Code_DAMAGED, "%s (%s)", messageOf(err), place)
		}
		return c, err.(*messages.Error).WithHint("use another backup: this one is not what was written")
	}
	if err != nil {
		return c, err
	}
	c.Trailer, c.Bytes, c.Keys = trailer, in.read, c.Live.Count
	return c, nil
}

// Glance reads what a backup of so many bytes says of itself, at its begin and its end; a
// size of 0 is not known. Errors are as of Read.
func Glance(from io.Reader, size int64) (snapshot.Glimpse, int64, error) {
	in := from
	counted := &counter{from: from}
	if _, seeks := from.(io.Seeker); !seeks || size == 0 {
		in = counted // it is read whole
	}
	g, err := snapshot.Look(in, size, messages.Level)
	if in == counted {
		size = int64(counted.read)
	}
	return g, size, err
}
