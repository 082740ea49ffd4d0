package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// An increment file is this line, and then chunks as in a snapshot file.
const incrementMagic = "keyval increment 1\n"

// LinksMax bounds how many increments may stand between a backup and one that is whole.
const LinksMax = 100

// LinkError is what is wrong with one file of several that make a snapshot together. Its
// message says which file, and where in it: no place in what they make adds to that.
type LinkError struct{ Problem *messages.Error }

func (e *LinkError) Error() string { return e.Problem.Error() }
func (e *LinkError) Unwrap() error { return e.Problem }

// linkError says of an error that it is of the file of this name; empty: of the one that is
// read.
func linkError(name string, place fmt.Stringer, err error) error {
	known := &messages.Error{Code: messages.CodeOf(err), Message: err.Error()}
	if said, ok := errors.AsType[*messages.Error](err); ok {
		known.Message, known.Hint = said.Message, said.Hint
	}
	if _, said := errors.AsType[*LinkError](err); said {
		place = nil // that of the file below is in the message
	}
	if known.Code == messages.Code_DAMAGED && place != nil {
		known.Message = fmt.Sprintf("%s (%s)", known.Message, place)
	}
	if name != "" {
		known.Message = name + ": " + known.Message
	}
	return &LinkError{known}
}

// IncrementWriter writes the increment from one snapshot to another, whose chunks it is given.
type IncrementWriter struct {
	to    *Writer
	tally tally
	about *messages.SnapshotBase
	base  *Reader
	rows  []disk.Row // of the base: those that were not passed yet
	ended bool       // the base has no more

	changes    messages.SnapshotChanges // of the next chunk
	size       int                      // of these, about, in bytes
	keep, drop uint64                   // steps that are not among them yet; one of them is 0
}

// NewIncrementWriter begins one. base is read from its begin; about says what it is.
func NewIncrementWriter(to io.Writer, base *Reader, about *messages.SnapshotBase) *IncrementWriter {
	return &IncrementWriter{to: &Writer{to: to, magic: incrementMagic}, base: base, about: about}
}

// Bytes is the size of the file so far.
func (w *IncrementWriter) Bytes() uint64 { return w.to.bytes }

// Take takes the next chunk of the other snapshot, as it was checked, with its rows. With the
// last one the base is read to its end: so it is whole. Errors: LinkError of the base; the
// file's.
func (w *IncrementWriter) Take(c *messages.SnapshotChunk, rows []disk.Row) error {
	switch c.Kind {
	case messages.ChunkKind_HEADER:
		if err := w.write(messages.ChunkKind_BASE, marshalled(w.about)); err != nil {
			return err
		}
		return w.write(c.Kind, c.Body)
	case messages.ChunkKind_ROWS:
		for i := range rows {
			if err := w.meet(&rows[i]); err != nil {
				return err
			}
		}
		w.steps()
		w.step(&messages.SnapshotChange{Kind: &messages.SnapshotChange_Cut{Cut: true}}, 4)
		if w.size >= ChunkBytesMax {
			return w.flush()
		}
		return nil
	case messages.ChunkKind_TRAILER:
		if err := w.flush(); err != nil {
			return err
		}
		if err := drain(w.base); err != nil {
			return linkError(w.about.Name, w.base.at, err)
		}
		if found := w.base.Trailer().Hash; !bytes.Equal(found, w.about.Hash) {
			return linkError(w.about.Name, nil, messages.Errorf(messages.Code_CONFLICT, "it became another file meanwhile, with hash %x", found))
		}
		return w.write(c.Kind, c.Body)
	default:
		return w.write(c.Kind, c.Body)
	}
}

func drain(r *Reader) error {
	for {
		if _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (w *IncrementWriter) write(kind messages.ChunkKind, body []byte) error {
	return w.to.Write(w.tally.seal(kind, nil, nil, body, 0))
}

// meet goes on to a row of the other snapshot.
func (w *IncrementWriter) meet(row *disk.Row) error {
	for {
		was, err := w.head()
		if err != nil {
			return err
		}
		if was == nil || precedes(row, was) {
			break
		}
		w.rows = w.rows[1:]
		if same(was, row) {
			if w.drop > 0 {
				w.steps()
			}
			w.keep++
			return nil
		}
		if w.keep > 0 {
			w.steps()
		}
		w.drop++
	}
	w.steps()
	m := &messages.SnapshotRow{
		Key: row.Key, Value: row.Value, Revision: row.Revision, Deleted: row.Deleted,
		CreateRevision: row.Created, Version: row.Version, Checksum: row.Sum,
	}
	w.step(&messages.SnapshotChange{Kind: &messages.SnapshotChange_Row{Row: proto.Clone(m).(*messages.SnapshotRow)}}, rowSize(*row)+16)
	if w.size >= ChunkBytesMax {
		return w.flush()
	}
	return nil
}

// head is the next row of the base, or nil.
func (w *IncrementWriter) head() (*disk.Row, error) {
	for len(w.rows) == 0 && !w.ended {
		rows, err := w.base.Next()
		switch {
		case err == io.EOF:
			w.ended = true
		case err != nil:
			return nil, linkError(w.about.Name, w.base.at, err)
		}
		w.rows = rows
	}
	if len(w.rows) == 0 {
		return nil, nil
	}
	return &w.rows[0], nil
}

// precedes is the order of rows in a snapshot.
func precedes(a, b *disk.Row) bool {
	order := bytes.Compare(a.Key, b.Key)
	return order < 0 || order == 0 && a.Revision > b.Revision
}

func same(a, b *disk.Row) bool {
	return a.Revision == b.Revision && a.Sum == b.Sum && a.Created == b.Created && a.Version == b.Version && a.Deleted == b.Deleted &&
		bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

// steps takes the rows of the base that were counted among the changes.
func (w *IncrementWriter) steps() {
	if w.keep > 0 {
		w.step(&messages.SnapshotChange{Kind: &messages.SnapshotChange_Keep{Keep: w.keep}}, 14)
	}
	if w.drop > 0 {
		w.step(&messages.SnapshotChange{Kind: &messages.SnapshotChange_Drop{Drop: w.drop}}, 14)
	}
	w.keep, w.drop = 0, 0
}

func (w *IncrementWriter) step(c *messages.SnapshotChange, size int) {
	w.changes.Changes = append(w.changes.Changes, c)
	w.size += size
}

func (w *IncrementWriter) flush() error {
	w.steps()
	if len(w.changes.Changes) == 0 {
		return nil
	}
	body := marshalled(&w.changes)
	w.changes.Changes, w.size = nil, 0
	return w.write(messages.ChunkKind_CHANGES, body)
}

// incrementReader reads the chunks of an increment, each held against its checksum.
type incrementReader struct {
	from  io.Reader
	frame []byte
	at    Place // of the chunk that is read
}

func (r *incrementReader) next() (*messages.SnapshotChunk, error) {
	var err error
	if r.frame, err = readFrame(r.from, r.frame); err != nil {
		return nil, err
	}
	c, err := openFrame(r.frame)
	switch {
	case err != nil:
		return nil, err
	case c.Sequence != r.at.Chunk:
		return nil, Damaged("chunk %d comes in place of chunk %d", c.Sequence, r.at.Chunk)
	case len(c.Body) > BodyBytesMax || len(c.First)+len(c.Last) != 0:
		return nil, Damaged("chunk %d has %d bytes, %d are allowed", c.Sequence, len(c.Body), BodyBytesMax)
	case Checksum(c) != c.Checksum || len(c.ProtoReflect().GetUnknown()) != 0:
		return nil, Damaged("the checksum of chunk %d does not fit", c.Sequence)
	case (c.Kind == messages.ChunkKind_BASE) != (c.Sequence == 0) || (c.Kind == messages.ChunkKind_HEADER) != (c.Sequence == 1):
		return nil, Damaged("chunk %d is a %s", c.Sequence, c.Kind)
	}
	return c, nil
}

// passed goes on behind the chunk that was read.
func (r *incrementReader) passed() {
	r.at.Chunk++
	r.at.Offset += int64(4 + len(r.frame))
}

func (r *incrementReader) base() (*messages.SnapshotBase, error) {
	c, err := r.next()
	if err != nil {
		return nil, err
	}
	b := &messages.SnapshotBase{}
	if err := proto.Unmarshal(c.Body, b); err != nil || len(b.Hash) == 0 || b.Links == 0 || b.Links > LinksMax {
		return nil, Damaged("what it says of its base cannot be read")
	}
	r.passed()
	return b, nil
}

// Open reads what a file begins with. Of an increment that is its base, and of a snapshot
// nil; what reads on reads the whole file, behind its magic line. Errors are as of a Reader.
func Open(from io.Reader) (*messages.SnapshotBase, io.Reader, error) {
	line := make([]byte, len(magic))
	n, err := io.ReadFull(from, line)
	if err != nil && !short(err) {
		return nil, nil, err
	}
	whole := io.MultiReader(bytes.NewReader(line[:n]), from)
	if string(line[:n]) != incrementMagic[:len(magic)] {
		return nil, whole, nil
	}
	var begin bytes.Buffer
	r := &incrementReader{from: io.TeeReader(whole, &begin), at: Place{Offset: int64(len(incrementMagic))}}
	if _, err := io.CopyN(io.Discard, r.from, int64(len(incrementMagic))); err != nil {
		return nil, nil, linkError("", r.at, cutShort(err))
	}
	if begin.String() != incrementMagic {
		return nil, nil, Damaged("it does not begin as an increment does")
	}
	base, err := r.base()
	if err != nil {
		return nil, nil, linkError("", r.at, err)
	}
	return base, io.MultiReader(&begin, from), nil
}

// Glimpse is what a file says of itself at its begin and its end.
type Glimpse struct {
	Base    *messages.SnapshotBase // nil: it is no increment
	Header  *messages.SnapshotHeader
	Trailer *messages.SnapshotTrailer
}

// Look is Glance for snapshots and increments. Of an increment header and trailer are those of
// the snapshot that it leads to.
func Look(from io.Reader, size int64, supports uint32) (Glimpse, error) {
	line := make([]byte, len(magic), len(incrementMagic))
	if _, err := io.ReadFull(from, line); err != nil && !short(err) {
		return Glimpse{}, err
	}
	if string(line) == magic {
		h, t, err := glance(from, size, supports)
		return Glimpse{Header: h, Trailer: t}, err
	}
	line = line[:len(incrementMagic)]
	if _, err := io.ReadFull(from, line[len(magic):]); err != nil && !short(err) || string(line) != incrementMagic {
		return Glimpse{}, Damaged("it does not begin as a snapshot does")
	}
	r := &incrementReader{from: from}
	base, err := r.base()
	if err != nil {
		return Glimpse{}, err
	}
	c, err := r.next()
	if err != nil {
		return Glimpse{}, err
	}
	check := Check{Supports: supports}
	if err := check.takeHeader(c.Body); err != nil {
		return Glimpse{}, err
	}
	tail, err := readTail(from, size)
	if err != nil {
		return Glimpse{}, err
	}
	t := findTrailer(tail, true)
	if t == nil {
		return Glimpse{}, Damaged("it has no end")
	}
	return Glimpse{base, check.header, t}, nil
}

// Assembly is the snapshot that a base and an increment make together, as a file that is read.
// Its errors are LinkErrors, or the files' own.
type Assembly struct {
	increment incrementReader
	about     *messages.SnapshotBase
	base      *Reader
	rows      []disk.Row // of the base: those that were not passed yet
	full      tally      // of what it makes
	pending   []*messages.SnapshotChange

	body        []byte // of the chunk of rows that is made
	first, last []byte // its keys
	count       uint64 // its rows

	out []byte
	at  int   // in out
	err error // how it ends, once out is read
}

// Assemble begins one. increment is the file as Open returned it, base the file on which it
// builds, whole.
func Assemble(increment io.Reader, base io.Reader, supports uint32) (*Assembly, error) {
	a := &Assembly{increment: incrementReader{from: increment, at: Place{Offset: int64(len(incrementMagic))}}, out: []byte(magic)}
	line := make([]byte, len(incrementMagic))
	if _, err := io.ReadFull(increment, line); err != nil || string(line) != incrementMagic {
		return nil, Damaged("it does not begin as an increment does")
	}
	var err error
	if a.about, err = a.increment.base(); err != nil {
		return nil, linkError("", a.increment.at, err)
	}
	if a.base, err = NewReader(base, supports); err != nil {
		return nil, linkError(a.about.Name, Place{}, err)
	}
	return a, nil
}

func (a *Assembly) Read(p []byte) (int, error) {
	for a.at == len(a.out) {
		if a.err != nil {
			return 0, a.err
		}
		a.out, a.at = a.out[:0], 0
		if err := a.step(); err != nil {
			a.out, a.err = nil, err
		}
	}
	n := copy(p, a.out[a.at:])
	a.at += n
	return n, nil
}

// step makes a chunk at most.
func (a *Assembly) step() error {
	for len(a.pending) > 0 {
		change := a.pending[0]
		a.pending = a.pending[1:]
		if made, err := a.carryOut(change); made || err != nil {
			return err
		}
	}
	c, err := a.increment.next()
	if err == nil {
		err = a.take(c)
	}
	if _, known := errors.AsType[*LinkError](err); err != nil && !known {
		return linkError("", a.increment.at, err)
	}
	if err == nil {
		a.increment.passed()
	}
	return err
}

func (a *Assembly) take(c *messages.SnapshotChunk) error {
	switch c.Kind {
	case messages.ChunkKind_HEADER, messages.ChunkKind_STATE:
		a.emit(a.full.seal(c.Kind, nil, nil, c.Body, 0))
	case messages.ChunkKind_CHANGES:
		m := &messages.SnapshotChanges{}
		if err := proto.Unmarshal(c.Body, m); err != nil {
			return Damaged("the changes of chunk %d cannot be read: %v", c.Sequence, err)
		}
		a.pending = m.Changes
	case messages.ChunkKind_TRAILER:
		return a.end(c)
	default:
		return messages.Errorf(messages.Code_UNSUPPORTED, "the increment has a chunk of kind %d, which this version does not know", c.Kind)
	}
	return nil
}

func (a *Assembly) emit(c *messages.SnapshotChunk) { a.out = appendFrame(a.out, c) }

// carryOut goes one step on, and reports whether that made a chunk.
func (a *Assembly) carryOut(c *messages.SnapshotChange) (made bool, err error) {
	switch k := c.Kind.(type) {
	case *messages.SnapshotChange_Keep:
		return false, a.pass(k.Keep, true)
	case *messages.SnapshotChange_Drop:
		return false, a.pass(k.Drop, false)
	case *messages.SnapshotChange_Row:
		r := k.Row
		return false, a.add(disk.Row{
			Key: r.GetKey(), Value: r.GetValue(), Revision: r.GetRevision(), Deleted: r.GetDeleted(),
			Created: r.GetCreateRevision(), Version: r.GetVersion(), Sum: r.GetChecksum(),
		})
	case *messages.SnapshotChange_Cut:
		if a.count == 0 {
			return false, linkError("", a.increment.at, Damaged("a chunk without rows ends"))
		}
		a.emit(a.full.seal(messages.ChunkKind_ROWS, a.first, a.last, a.body, a.count))
		a.body, a.count = a.body[:0], 0
		return true, nil
	}
	return false, linkError("", a.increment.at, messages.Errorf(messages.Code_UNSUPPORTED, "the increment has a change that this version does not know"))
}

// pass goes over rows of the base.
func (a *Assembly) pass(n uint64, keep bool) error {
	for ; n > 0; n-- {
		for len(a.rows) == 0 {
			rows, err := a.base.Next()
			if err == io.EOF {
				return linkError("", a.increment.at, Damaged("it goes by more rows than its base %s has", a.about.Name))
			}
			if err != nil {
				return linkError(a.about.Name, a.base.at, err)
			}
			a.rows = rows
		}
		if keep {
			if err := a.add(a.rows[0]); err != nil {
				return err
			}
		}
		a.rows = a.rows[1:]
	}
	return nil
}

// add takes a row into the chunk that is made.
func (a *Assembly) add(row disk.Row) error {
	if a.count == 0 {
		a.first = append(a.first[:0], row.Key...)
	}
	a.last = append(a.last[:0], row.Key...)
	a.body = appendRow(a.body, row, rowSize(row))
	a.count++
	if len(a.body) > BodyBytesMax {
		return linkError("", a.increment.at, Damaged("a chunk of rows becomes larger than %d bytes", BodyBytesMax))
	}
	return nil
}

// end proves both links: the base is what the increment was made upon, and what they make is
// what it leads to.
func (a *Assembly) end(c *messages.SnapshotChunk) error {
	t := &messages.SnapshotTrailer{}
	if err := proto.Unmarshal(c.Body, t); err != nil || a.count > 0 {
		return Damaged("its end cannot be read")
	}
	if err := drain(a.base); err != nil {
		return linkError(a.about.Name, a.base.at, err)
	}
	if found := a.base.Trailer().Hash; !bytes.Equal(found, a.about.Hash) {
		return linkError("", nil, messages.Errorf(messages.Code_CONFLICT, "the chain is broken: it builds on %s of hash %x, and the one that is there has %x", a.about.Name, a.about.Hash, found))
	}
	if made := a.full.trailer(); t.Rows != made.Rows || !bytes.Equal(t.Hash, made.Hash) {
		return Damaged("with its base it makes %d rows with hash %x, its trailer tells %d with %x", made.Rows, made.Hash, t.Rows, t.Hash)
	}
	switch n, err := io.ReadFull(a.increment.from, make([]byte, 1)); {
	case n > 0:
		return Damaged("something follows its end")
	case err != io.EOF:
		return err
	}
	a.emit(a.full.seal(c.Kind, nil, nil, c.Body, 0))
	a.err = io.EOF
	return nil
}
