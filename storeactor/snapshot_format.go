package storeactor

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/state"
)

// SnapshotFormat is the format of snapshots that this software writes.
const SnapshotFormat = 1

// Bounds of a snapshot's chunks, in bytes.
const (
	// snapshotBodyMax bounds the body of a chunk. Rows are cut at snapshotChunkBytes
	// at the latest, and the row that crosses that is whole.
	snapshotBodyMax    = 2 << 20
	snapshotChunkBytes = 1 << 20
	// snapshotStateMax bounds the marshalled Checkpoint: its sessions are bounded far
	// below.
	snapshotStateMax = 256 << 20
)

var snapshotTable = crc32.MakeTable(crc32.Castagnoli)

// chunkChecksum is what SnapshotChunk.checksum has to be.
func chunkChecksum(c *messages.SnapshotChunk) uint32 {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], c.Sequence)
	binary.LittleEndian.PutUint32(head[8:], uint32(c.Kind))
	sum := crc32.Checksum(head[:], snapshotTable)
	for _, part := range [][]byte{c.First, c.Last, c.Body} {
		sum = crc32.Update(sum, snapshotTable, part)
	}
	return sum
}

// snapshotTally is what the trailer says of the chunks before it. The zero value is
// that of none.
type snapshotTally struct {
	chunks, rows, bytes uint64
	hash                hash.Hash // nil: nothing was hashed yet
}

func (t *snapshotTally) add(kind messages.ChunkKind, body []byte, rows uint64) {
	if t.hash == nil {
		t.hash = sha256.New()
	}
	var head [12]byte
	binary.LittleEndian.PutUint32(head[:], uint32(kind))
	binary.LittleEndian.PutUint64(head[4:], uint64(len(body)))
	t.hash.Write(head[:])
	t.hash.Write(body)
	t.chunks++
	t.rows += rows
	t.bytes += uint64(len(body))
}

func (t *snapshotTally) trailer() *messages.SnapshotTrailer {
	sum := sha256.Sum256(nil)
	last := sum[:]
	if t.hash != nil {
		last = t.hash.Sum(nil)
	}
	return &messages.SnapshotTrailer{Chunks: t.chunks, Rows: t.rows, Bytes: t.bytes, Hash: last}
}

// clone is a tally that goes its own way from here.
func (t snapshotTally) clone() snapshotTally {
	if t.hash != nil {
		h, err := t.hash.(hash.Cloner).Clone()
		if err != nil {
			panic("storeactor: a SHA-256 that cannot be cloned: " + err.Error())
		}
		t.hash = h
	}
	return t
}

// seal makes the next chunk.
func (t *snapshotTally) seal(kind messages.ChunkKind, first, last, body []byte, rows uint64) *messages.SnapshotChunk {
	c := &messages.SnapshotChunk{Sequence: t.chunks, Kind: kind, First: first, Last: last, Body: body}
	c.Checksum = chunkChecksum(c)
	t.add(kind, body, rows)
	return c
}

// snapshotHeader is the header of a snapshot of this state, but for what people are
// told.
func snapshotHeader(c *messages.Checkpoint, stateBytes int) *messages.SnapshotHeader {
	return &messages.SnapshotHeader{
		Format: SnapshotFormat, ClusterId: c.ClusterId, Index: c.Index, Term: c.Term,
		Revision: c.Revision, CompactedRevision: c.CompactedRevision, LogTimeMs: c.LogTimeMs, Level: c.Level,
		ConfState: c.ConfState, Members: c.Members, StateBytes: uint64(stateBytes),
	}
}

// marshalled is m in bytes, the same for the same m.
func marshalled(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("storeactor: a message of this node cannot be marshalled: " + err.Error()) // a string that is no UTF-8
	}
	return b
}

// snapshotSource cuts a pinned state into the chunks of a snapshot, one after the
// other. The rows come from outside: it says after which one to read on.
type snapshotSource struct {
	header  *messages.SnapshotHeader
	state   []byte // the marshalled Checkpoint; never modified
	cut     int    // how many of its bytes are in chunks already
	after   *messages.RowCursor
	rowsEnd bool // all rows are in chunks
	ended   bool // the trailer is out
	tally   snapshotTally
	sizeMax int // of a chunk's body, about, in bytes
}

// newSnapshotSource begins a snapshot of a state. about has what people are told:
// who made it, with which software, and when.
func newSnapshotSource(c *messages.Checkpoint, about *messages.SnapshotHeader, chunkBytes int) *snapshotSource {
	state := marshalled(c)
	header := snapshotHeader(c, len(state))
	header.CreatedAtMs, header.CreatedBy, header.Version = about.CreatedAtMs, about.CreatedBy, about.Version
	return &snapshotSource{header: header, state: state, sizeMax: chunkBytes}
}

// next is the next chunk, or nil if rows are to be read for it.
func (s *snapshotSource) next() *messages.SnapshotChunk {
	switch {
	case s.tally.chunks == 0:
		return s.tally.seal(messages.ChunkKind_HEADER, nil, nil, marshalled(s.header), 0)
	case s.cut < len(s.state):
		piece := s.state[s.cut:min(len(s.state), s.cut+s.sizeMax)]
		s.cut += len(piece)
		return s.tally.seal(messages.ChunkKind_STATE, nil, nil, piece, 0)
	case !s.rowsEnd:
		return nil
	}
	s.ended = true
	t := s.tally.trailer()
	return s.tally.seal(messages.ChunkKind_TRAILER, nil, nil, marshalled(t), 0)
}

// take is the chunk that holds the rows that were read, or nil if there were none
// left. An error is the reader's mistake.
func (s *snapshotSource) take(r *messages.RowsRead) (*messages.SnapshotChunk, error) {
	s.rowsEnd = !r.More
	switch {
	case r.Count == 0 && !r.More:
		return nil, nil
	case r.Count == 0 || r.Last == nil || len(r.Rows) > snapshotBodyMax:
		return nil, messages.Errorf(messages.Code_INTERNAL, "%d rows of %d bytes were read for one chunk", r.Count, len(r.Rows))
	}
	s.after = r.Last
	return s.tally.seal(messages.ChunkKind_ROWS, r.First, r.Last.Key, r.Rows, r.Count), nil
}

// clone is a source that goes its own way from here.
func (s *snapshotSource) clone() *snapshotSource {
	c := *s
	c.tally = s.tally.clone()
	return &c
}

// snapshotCheck takes the chunks of a snapshot in order and finds whatever is not
// as the format says. After an error it is not used again.
type snapshotCheck struct {
	header     *messages.SnapshotHeader  // once it came
	checkpoint *messages.Checkpoint      // once all of STATE came
	trailer    *messages.SnapshotTrailer // once it came: the snapshot is whole
	state      []byte                    // of STATE, so far
	tally      snapshotTally

	key       []byte     // of the last row
	revision  uint64     // of the last row
	compacted bool       // the last row was at or below the compacted revision: its key has no older one
	rows      []disk.Row // of the last chunk; its array is used again
}

func damagedSnapshot(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, "the snapshot is damaged: "+format, args...)
}

// take checks the next chunk and returns its rows, which are good until the next
// call and hold parts of the chunk. Errors: DAMAGED, UNSUPPORTED.
func (s *snapshotCheck) take(c *messages.SnapshotChunk) ([]disk.Row, error) {
	s.rows = s.rows[:0]
	switch {
	case c == nil:
		return nil, damagedSnapshot("a chunk is empty")
	case s.trailer != nil:
		return nil, damagedSnapshot("a chunk comes behind its end")
	case c.Sequence != s.tally.chunks:
		return nil, damagedSnapshot("chunk %d comes in place of chunk %d", c.Sequence, s.tally.chunks)
	case len(c.Body) > snapshotBodyMax || len(c.First) > messages.KeySizeMax || len(c.Last) > messages.KeySizeMax:
		return nil, damagedSnapshot("chunk %d has %d bytes, %d are allowed", c.Sequence, len(c.Body), snapshotBodyMax)
	case chunkChecksum(c) != c.Checksum || len(c.ProtoReflect().GetUnknown()) != 0:
		return nil, damagedSnapshot("the checksum of chunk %d does not fit", c.Sequence)
	case c.Kind != messages.ChunkKind_ROWS && len(c.First)+len(c.Last) != 0:
		return nil, damagedSnapshot("chunk %d has a range of keys and no rows", c.Sequence)
	case (c.Kind == messages.ChunkKind_HEADER) != (c.Sequence == 0):
		return nil, damagedSnapshot("chunk %d is a %s", c.Sequence, c.Kind)
	}
	var err error
	switch c.Kind {
	case messages.ChunkKind_HEADER:
		err = s.takeHeader(c.Body)
	case messages.ChunkKind_STATE:
		err = s.takeState(c.Body)
	case messages.ChunkKind_ROWS:
		err = s.takeRows(c)
	case messages.ChunkKind_TRAILER:
		err = s.takeTrailer(c.Body)
	default:
		err = messages.Errorf(messages.Code_UNSUPPORTED, "the snapshot has a chunk of kind %d, which this version does not know", c.Kind)
	}
	if err != nil {
		return nil, err
	}
	s.tally.add(c.Kind, c.Body, uint64(len(s.rows)))
	return s.rows, nil
}

func (s *snapshotCheck) takeHeader(body []byte) error {
	h := &messages.SnapshotHeader{}
	if err := proto.Unmarshal(body, h); err != nil {
		return damagedSnapshot("its header cannot be read: %v", err)
	}
	switch {
	case h.Format > SnapshotFormat || h.Level > messages.Level:
		return messages.Errorf(messages.Code_UNSUPPORTED, "the snapshot has format %d and level %d, newer than this version's %d and %d",
			h.Format, h.Level, SnapshotFormat, messages.Level).WithHint("use the version that wrote it, or a newer one")
	case h.Format == 0 || len(h.ClusterId) != messages.ClusterIDSize || h.Index == 0 || h.Term == 0 || h.CompactedRevision > h.Revision:
		return damagedSnapshot("its header contradicts itself")
	case h.StateBytes == 0 || h.StateBytes > snapshotStateMax:
		return damagedSnapshot("its state has %d bytes, %d are allowed", h.StateBytes, snapshotStateMax)
	}
	s.header = h
	return nil
}

func (s *snapshotCheck) takeState(piece []byte) error {
	if s.checkpoint != nil || len(piece) == 0 || uint64(len(s.state)+len(piece)) > s.header.StateBytes {
		return damagedSnapshot("its state has not the %d bytes that its header tells", s.header.StateBytes)
	}
	s.state = append(s.state, piece...)
	if uint64(len(s.state)) < s.header.StateBytes {
		return nil
	}
	c := &messages.Checkpoint{}
	if err := proto.Unmarshal(s.state, c); err != nil {
		return damagedSnapshot("its state cannot be read: %v", err)
	}
	told := proto.Clone(s.header).(*messages.SnapshotHeader)
	told.CreatedAtMs, told.CreatedBy, told.Version = 0, "", ""
	told.ProtoReflect().SetUnknown(nil) // fields may be added
	told.Format = SnapshotFormat
	if !proto.Equal(told, snapshotHeader(c, len(s.state))) {
		return damagedSnapshot("its header contradicts its state")
	}
	if _, err := state.FromCheckpoint(c); err != nil {
		return err
	}
	s.checkpoint, s.state = c, nil
	return nil
}

func (s *snapshotCheck) takeRows(c *messages.SnapshotChunk) error {
	if s.checkpoint == nil {
		return damagedSnapshot("rows come before its state is whole")
	}
	f := messages.Fields{Rest: c.Body}
	for f.Next() {
		if f.Tag() != messages.BytesField(1) {
			continue
		}
		var row disk.Row
		if !readSnapshotRow(&row, f.Bytes) {
			return damagedSnapshot("a row of chunk %d cannot be read", c.Sequence)
		}
		if err := s.follows(&row); err != nil {
			return err
		}
		s.rows = append(s.rows, row)
	}
	switch n := len(s.rows); {
	case f.Broken || n == 0:
		return damagedSnapshot("the rows of chunk %d cannot be read", c.Sequence)
	case !bytes.Equal(c.First, s.rows[0].Key) || !bytes.Equal(c.Last, s.rows[n-1].Key):
		return damagedSnapshot("the rows of chunk %d are not those of its range", c.Sequence)
	}
	s.key = bytes.Clone(s.key) // the chunk may go
	return nil
}

// follows holds a row against the one before it and the bounds of the snapshot.
func (s *snapshotCheck) follows(r *disk.Row) error {
	order := bytes.Compare(s.key, r.Key)
	old := r.Revision <= s.header.CompactedRevision
	switch {
	case len(r.Key) == 0 || len(r.Key) > messages.KeySizeMax || len(r.Value) > messages.ValueSizeMax || r.Deleted && len(r.Value) > 0:
		return damagedSnapshot("a row has a key of %d bytes and a value of %d", len(r.Key), len(r.Value))
	case r.Revision == 0 || r.Revision > s.header.Revision:
		return damagedSnapshot("a row has revision %d, the snapshot has %d", r.Revision, s.header.Revision)
	case order > 0 || order == 0 && r.Revision >= s.revision:
		return damagedSnapshot("its rows are not in order")
	case old && (r.Deleted || order == 0 && s.compacted):
		return damagedSnapshot("it holds a row of revision %d that nobody can see, history starts at %d", r.Revision, s.header.CompactedRevision)
	}
	s.key, s.revision, s.compacted = r.Key, r.Revision, old
	return nil
}

func (s *snapshotCheck) takeTrailer(body []byte) error {
	t := &messages.SnapshotTrailer{}
	if err := proto.Unmarshal(body, t); err != nil {
		return damagedSnapshot("its trailer cannot be read: %v", err)
	}
	want := s.tally.trailer()
	switch {
	case s.checkpoint == nil:
		return damagedSnapshot("it ends before its state is whole")
	case t.Chunks != want.Chunks || t.Rows != want.Rows || t.Bytes != want.Bytes:
		return damagedSnapshot("%d chunks with %d rows came, its trailer tells %d with %d", want.Chunks, want.Rows, t.Chunks, t.Rows)
	case !bytes.Equal(t.Hash, want.Hash):
		return damagedSnapshot("its hash is %x, its trailer tells %x", want.Hash, t.Hash)
	}
	s.trailer = t
	return nil
}

// readSnapshotRow reads a messages.SnapshotRow in place.
func readSnapshotRow(r *disk.Row, data []byte) bool {
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch f.Tag() {
		case messages.BytesField(1):
			r.Key = f.Bytes
		case messages.BytesField(2):
			r.Value = f.Bytes
		case messages.VarintField(3):
			r.Revision = f.Varint
		case messages.VarintField(4):
			r.Deleted = f.Varint != 0
		}
	}
	return !f.Broken
}
