package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// A snapshot file is this line, and then for each chunk its size as uint32, little
// endian, and the marshalled SnapshotChunk. The last chunk is the TRAILER, and
// nothing follows it.
const magic = "keyval snapshot 1\n"

const (
	// frameBytesMax bounds a marshalled chunk in a file, in bytes: body, range of
	// keys, and little else.
	frameBytesMax = BodyBytesMax + 2*messages.KeySizeMax + 1<<10
	// tailBytesMax bounds the last frame of a file, in bytes.
	tailBytesMax = 4 + 256
)

// appendFrame appends a chunk as it stands in a file.
func appendFrame(b []byte, c *messages.SnapshotChunk) []byte {
	size := proto.Size(c)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, c)
	if err != nil {
		panic("snapshot: a chunk cannot be marshalled: " + err.Error())
	}
	return b
}

// Writer writes the chunks of a snapshot to a file.
type Writer struct {
	to     io.Writer
	magic  string
	frame  []byte // used again
	chunks uint64
	bytes  uint64
}

// NewWriter makes a writer of one snapshot.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to, magic: magic} }

// Write writes the next chunk.
func (w *Writer) Write(c *messages.SnapshotChunk) error {
	if c.GetSequence() != w.chunks {
		return messages.Errorf(messages.Code_INTERNAL, "chunk %d was to be written in place of chunk %d", c.GetSequence(), w.chunks)
	}
	w.frame = w.frame[:0]
	if w.chunks == 0 {
		w.frame = append(w.frame, w.magic...)
	}
	w.frame = appendFrame(w.frame, c)
	n, err := w.to.Write(w.frame)
	w.bytes += uint64(n)
	w.chunks++
	return err
}

// Bytes is the size of the file so far.
func (w *Writer) Bytes() uint64 { return w.bytes }

// Reader reads a snapshot file and holds it against all that the format
// promises. Its errors are DAMAGED, UNSUPPORTED, or the file's own.
type Reader struct {
	from  io.Reader
	check Check
	frame []byte // of the last chunk
	last  *messages.SnapshotChunk
	at    Place // of the chunk that is read
}

// Place is where in a file something stands.
type Place struct {
	Chunk  uint64 // its number; one more than the last: behind the end
	Offset int64  // in bytes, where the chunk begins
}

func (p Place) String() string {
	return fmt.Sprintf("chunk %d, which begins at byte %d", p.Chunk, p.Offset)
}

// Walk reads a whole file. It calls begin once all but the rows is known, and each with
// every chunk and its rows, if it has some, which are good until it returns; their errors end
// the walk. The place is where it ended: of a damage, that of the chunk that is not as it was
// written. Errors are as of a Reader.
func Walk(from io.Reader, supports uint32, begin func(*messages.SnapshotHeader, *messages.Checkpoint) error,
	each func(*messages.SnapshotChunk, []disk.Row) error) (*messages.SnapshotTrailer, Place, error) {
	r := &Reader{from: from, check: Check{Supports: supports}}
	if err := readMagic(from); err != nil {
		return nil, r.at, err
	}
	r.at.Offset = int64(len(magic))
	for begun := false; ; {
		at := r.at
		found, err := r.Next()
		if err != nil && err != io.EOF {
			return nil, r.at, err
		}
		if !begun && r.check.checkpoint != nil {
			if begun, err = true, begin(r.check.header, r.check.checkpoint); err != nil {
				return nil, at, err
			}
		}
		if failed := each(r.last, found); failed != nil {
			return nil, at, failed
		}
		if err == io.EOF {
			return r.check.trailer, r.at, nil
		}
	}
}

// NewReader reads up to the end of the state; the rows come with Next.
func NewReader(from io.Reader, supports uint32) (*Reader, error) {
	r := &Reader{from: from, check: Check{Supports: supports}}
	if err := readMagic(from); err != nil {
		return nil, err
	}
	r.at.Offset = int64(len(magic))
	for r.check.checkpoint == nil {
		if err := r.step(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Header is the snapshot's header.
func (r *Reader) Header() *messages.SnapshotHeader { return r.check.header }

// Checkpoint is all state but the rows.
func (r *Reader) Checkpoint() *messages.Checkpoint { return r.check.checkpoint }

// Trailer is the snapshot's trailer once Next said io.EOF; nil before.
func (r *Reader) Trailer() *messages.SnapshotTrailer { return r.check.trailer }

// Next reads the next rows, in order of keys and, within a key, of falling
// revisions. They are good until the next call. io.EOF: those were all, and the
// whole file is as it was written.
func (r *Reader) Next() ([]disk.Row, error) {
	if r.check.trailer == nil {
		if err := r.step(); err != nil {
			return nil, err
		}
	}
	if r.check.trailer == nil {
		return r.check.rows, nil
	}
	switch n, err := io.ReadFull(r.from, r.frame[:1]); {
	case n > 0:
		return nil, Damaged("something follows its end")
	case err != io.EOF:
		return nil, err
	}
	return nil, io.EOF
}

// step reads one chunk.
func (r *Reader) step() error {
	c, err := r.chunk()
	if err == nil {
		_, err = r.check.Take(c)
	}
	if err == nil {
		r.last = c
		r.at.Chunk++
		r.at.Offset += int64(4 + len(r.frame))
	}
	return err
}

func (r *Reader) chunk() (*messages.SnapshotChunk, error) {
	var err error
	if r.frame, err = readFrame(r.from, r.frame); err != nil {
		return nil, err
	}
	return openFrame(r.frame)
}

func readMagic(from io.Reader) error {
	found := make([]byte, len(magic))
	if _, err := io.ReadFull(from, found); err != nil && !short(err) {
		return err
	}
	if string(found) != magic {
		return Damaged("it does not begin as a snapshot does")
	}
	return nil
}

// readFrame reads the bytes of the next chunk into buffer, or into a larger
// one.
func readFrame(from io.Reader, buffer []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return buffer, cutShort(err)
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size == 0 || size > frameBytesMax {
		return buffer, Damaged("a chunk of %d bytes, %d are allowed", size, frameBytesMax)
	}
	if int(size) > cap(buffer) {
		buffer = make([]byte, size)
	}
	buffer = buffer[:size]
	_, err := io.ReadFull(from, buffer)
	return buffer, cutShort(err)
}

func openFrame(frame []byte) (*messages.SnapshotChunk, error) {
	c := &messages.SnapshotChunk{}
	if err := proto.Unmarshal(frame, c); err != nil {
		return nil, Damaged("a chunk cannot be read: %v", err)
	}
	return c, nil
}

func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// cutShort says what the end of a file in its midst means.
func cutShort(err error) error {
	if err != nil && short(err) {
		return Damaged("it is cut short")
	}
	return err
}

// Glance reads header and trailer of a file of so many bytes, and nothing
// between them where it can seek. supports: see Check.
func Glance(from io.Reader, size int64, supports uint32) (*messages.SnapshotHeader, *messages.SnapshotTrailer, error) {
	if err := readMagic(from); err != nil {
		return nil, nil, err
	}
	return glance(from, size, supports)
}

// glance is Glance behind the magic line.
func glance(from io.Reader, size int64, supports uint32) (*messages.SnapshotHeader, *messages.SnapshotTrailer, error) {
	r := &Reader{from: from, check: Check{Supports: supports}}
	if err := r.step(); err != nil {
		return nil, nil, err
	}
	if r.check.header == nil {
		return nil, nil, Damaged("it has no header")
	}
	tail, err := readTail(from, size)
	if err != nil {
		return r.check.header, nil, err
	}
	t := findTrailer(tail, false)
	if t == nil {
		return r.check.header, nil, Damaged("it has no end")
	}
	return r.check.header, t, nil
}

// readTail reads the last bytes of a file, at most tailBytesMax.
func readTail(from io.Reader, size int64) ([]byte, error) {
	if s, ok := from.(io.Seeker); ok {
		if _, err := s.Seek(max(0, size-tailBytesMax), io.SeekStart); err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(from, tailBytesMax))
	}
	var tail []byte
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		tail = append(tail, buffer[:n]...)
		tail = append(tail[:0], tail[max(0, len(tail)-tailBytesMax):]...)
		if errors.Is(err, io.EOF) {
			return tail, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// findTrailer looks for the last frame of a file in its last bytes: a size that fits
// what follows it, and a trailer with a checksum that fits. Of an increment it counts the
// chunks of another file. nil: there is none.
func findTrailer(tail []byte, increment bool) *messages.SnapshotTrailer {
	for i := len(tail) - 4; i >= 0; i-- {
		if binary.LittleEndian.Uint32(tail[i:]) != uint32(len(tail)-i-4) {
			continue
		}
		c, err := openFrame(tail[i+4:])
		if err != nil || c.Kind != messages.ChunkKind_TRAILER || c.Checksum != Checksum(c) {
			continue
		}
		t := &messages.SnapshotTrailer{}
		if proto.Unmarshal(c.Body, t) == nil && (increment || t.Chunks == c.Sequence) && !bytes.Equal(t.Hash, nil) {
			return t
		}
	}
	return nil
}
