package snapshot

import (
	"bytes"
	"cmp"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/state"
)

// Check takes the chunks of a snapshot in order and finds whatever is not
// as the format says. After an error it is not used again.
type Check struct {
	Supports uint32 // the highest cluster level that is understood; 0: messages.Level

	header     *messages.SnapshotHeader  // once it came
	checkpoint *messages.Checkpoint      // once all of STATE came
	trailer    *messages.SnapshotTrailer // once it came: the snapshot is whole
	state      []byte                    // of STATE, so far
	tally      tally

	key       []byte     // of the last row
	revision  uint64     // of the last row
	compacted bool       // the last row was at or below the compacted revision: its key has no older one
	rows      []disk.Row // of the last chunk; its array is used again
}

// Header is the snapshot's header, once it came; else nil.
func (s *Check) Header() *messages.SnapshotHeader { return s.header }

// Checkpoint is all state but the rows, once it is whole; else nil.
func (s *Check) Checkpoint() *messages.Checkpoint { return s.checkpoint }

// Trailer is the snapshot's trailer, once it came and the snapshot is whole; else nil.
func (s *Check) Trailer() *messages.SnapshotTrailer { return s.trailer }

// Damaged is DAMAGED, with what is wrong.
func Damaged(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, "the snapshot is damaged: "+format, args...)
}

// Take checks the next chunk and returns its rows, which are good until the next
// call and hold parts of the chunk. Errors: DAMAGED, UNSUPPORTED.
func (s *Check) Take(c *messages.SnapshotChunk) ([]disk.Row, error) {
	s.rows = s.rows[:0]
	switch {
	case c == nil:
		return nil, Damaged("a chunk is empty")
	case s.trailer != nil:
		return nil, Damaged("a chunk comes behind its end")
	case c.Sequence != s.tally.chunks:
		return nil, Damaged("chunk %d comes in place of chunk %d", c.Sequence, s.tally.chunks)
	case len(c.Body) > BodyBytesMax || len(c.First) > messages.KeySizeMax || len(c.Last) > messages.KeySizeMax:
		return nil, Damaged("chunk %d has %d bytes, %d are allowed", c.Sequence, len(c.Body), BodyBytesMax)
	case Checksum(c) != c.Checksum || len(c.ProtoReflect().GetUnknown()) != 0:
		return nil, Damaged("the checksum of chunk %d does not fit", c.Sequence)
	case c.Kind != messages.ChunkKind_ROWS && len(c.First)+len(c.Last) != 0:
		return nil, Damaged("chunk %d has a range of keys and no rows", c.Sequence)
	case (c.Kind == messages.ChunkKind_HEADER) != (c.Sequence == 0):
		return nil, Damaged("chunk %d is a %s", c.Sequence, c.Kind)
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

func (s *Check) supports() uint32 { return cmp.Or(s.Supports, messages.Level) }

func (s *Check) takeHeader(body []byte) error {
	h := &messages.SnapshotHeader{}
	if err := proto.Unmarshal(body, h); err != nil {
		return Damaged("its header cannot be read: %v", err)
	}
	switch {
	case h.Format > Format || h.Level > s.supports():
		return messages.Errorf(messages.Code_UNSUPPORTED, "the snapshot has format %d and level %d, newer than this version's %d and %d",
			h.Format, h.Level, Format, s.supports()).WithHint("use the version that wrote it, or a newer one")
	case h.Format == 0 || len(h.ClusterId) != messages.ClusterIDSize || h.Index == 0 || h.Term == 0 || h.CompactedRevision > h.Revision:
		return Damaged("its header contradicts itself")
	case h.StateBytes == 0 || h.StateBytes > stateBytesMax:
		return Damaged("its state has %d bytes, %d are allowed", h.StateBytes, stateBytesMax)
	}
	s.header = h
	return nil
}

func (s *Check) takeState(piece []byte) error {
	if s.checkpoint != nil || len(piece) == 0 || uint64(len(s.state)+len(piece)) > s.header.StateBytes {
		return Damaged("its state has not the %d bytes that its header tells", s.header.StateBytes)
	}
	s.state = append(s.state, piece...)
	if uint64(len(s.state)) < s.header.StateBytes {
		return nil
	}
	c := &messages.Checkpoint{}
	if err := proto.Unmarshal(s.state, c); err != nil {
		return Damaged("its state cannot be read: %v", err)
	}
	told := proto.Clone(s.header).(*messages.SnapshotHeader)
	told.CreatedAtMs, told.CreatedBy, told.Version = 0, "", ""
	told.ProtoReflect().SetUnknown(nil) // fields may be added
	told.Format = Format
	if !proto.Equal(told, headerOf(c, len(s.state))) {
		return Damaged("its header contradicts its state")
	}
	if _, err := state.FromCheckpoint(c, s.supports()); err != nil {
		return err
	}
	s.checkpoint, s.state = c, nil
	return nil
}

func (s *Check) takeRows(c *messages.SnapshotChunk) error {
	if s.checkpoint == nil {
		return Damaged("rows come before its state is whole")
	}
	f := messages.Fields{Rest: c.Body}
	for f.Next() {
		if f.Tag() != messages.BytesField(1) {
			continue
		}
		var row disk.Row
		if !readRow(&row, f.Bytes) {
			return Damaged("a row of chunk %d cannot be read", c.Sequence)
		}
		if err := s.follows(&row); err != nil {
			return err
		}
		s.rows = append(s.rows, row)
	}
	switch n := len(s.rows); {
	case f.Broken || n == 0:
		return Damaged("the rows of chunk %d cannot be read", c.Sequence)
	case !bytes.Equal(c.First, s.rows[0].Key) || !bytes.Equal(c.Last, s.rows[n-1].Key):
		return Damaged("the rows of chunk %d are not those of its range", c.Sequence)
	}
	s.key = bytes.Clone(s.key) // the chunk may go
	return nil
}

// follows holds a row against the one before it and the bounds of the snapshot.
func (s *Check) follows(r *disk.Row) error {
	order := bytes.Compare(s.key, r.Key)
	old := r.Revision <= s.header.CompactedRevision
	switch {
	case len(r.Key) == 0 || len(r.Key) > messages.KeySizeMax || len(r.Value) > messages.ValueSizeMax || r.Deleted && len(r.Value) > 0:
		return Damaged("a row has a key of %d bytes and a value of %d", len(r.Key), len(r.Value))
	case r.Checksum() != r.Sum:
		return Damaged("the row of key %.60q at revision %d is not what was written", r.Key, r.Revision)
	case r.Deleted && (r.Created != 0 || r.Version != 0) || !r.Deleted && (r.Created == 0 || r.Created > r.Revision || r.Version == 0):
		return Damaged("a row of revision %d was created at %d and has version %d", r.Revision, r.Created, r.Version)
	case r.Revision == 0 || r.Revision > s.header.Revision:
		return Damaged("a row has revision %d, the snapshot has %d", r.Revision, s.header.Revision)
	case order > 0 || order == 0 && r.Revision >= s.revision:
		return Damaged("its rows are not in order")
	case old && (r.Deleted || order == 0 && s.compacted):
		return Damaged("it holds a row of revision %d that nobody can see, history starts at %d", r.Revision, s.header.CompactedRevision)
	}
	s.key, s.revision, s.compacted = r.Key, r.Revision, old
	return nil
}

func (s *Check) takeTrailer(body []byte) error {
	t := &messages.SnapshotTrailer{}
	if err := proto.Unmarshal(body, t); err != nil {
		return Damaged("its trailer cannot be read: %v", err)
	}
	want := s.tally.trailer()
	switch {
	case s.checkpoint == nil:
		return Damaged("it ends before its state is whole")
	case t.Chunks != want.Chunks || t.Rows != want.Rows || t.Bytes != want.Bytes:
		return Damaged("%d chunks with %d rows came, its trailer tells %d with %d", want.Chunks, want.Rows, t.Chunks, t.Rows)
	case !bytes.Equal(t.Hash, want.Hash):
		return Damaged("its hash is %x, its trailer tells %x", want.Hash, t.Hash)
	}
	s.trailer = t
	return nil
}
