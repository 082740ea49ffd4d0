package snapshot

import (
	"keyval/messages"
)

// Source cuts a pinned state into the chunks of a snapshot, one after the
// other. The rows come from outside: it says after which one to read on.
type Source struct {
	header  *messages.SnapshotHeader
	state   []byte // the marshalled Checkpoint; never modified
	cut     int    // how many of its bytes are in chunks already
	after   *messages.RowCursor
	rowsEnd bool // all rows are in chunks
	ended   bool // the trailer is out
	tally   tally
	sizeMax int // of a chunk's body, about, in bytes
}

// NewSource begins a snapshot of a state. about has what people are told:
// who made it, with which software, and when.
func NewSource(c *messages.Checkpoint, about *messages.SnapshotHeader, chunkBytes int) *Source {
	state := marshalled(c)
	header := headerOf(c, len(state))
	header.CreatedAtMs, header.CreatedBy, header.Version = about.CreatedAtMs, about.CreatedBy, about.Version
	return &Source{header: header, state: state, sizeMax: chunkBytes}
}

// Header is what the snapshot begins with.
func (s *Source) Header() *messages.SnapshotHeader { return s.header }

// StateBytes is the size of the state without its rows.
func (s *Source) StateBytes() uint64 { return uint64(len(s.state)) }

// Ended reports whether the trailer is out.
func (s *Source) Ended() bool { return s.ended }

// Position is the number of the next chunk.
func (s *Source) Position() uint64 { return s.tally.chunks }

// Bytes are in the chunks so far.
func (s *Source) Bytes() uint64 { return s.tally.bytes }

// Rows are in the chunks so far.
func (s *Source) Rows() uint64 { return s.tally.rows }

// ReadRows asks for the rows of the next chunk, of a state that holder has pinned.
func (s *Source) ReadRows(holder string) *messages.ReadRows {
	return &messages.ReadRows{
		Holder: holder, Sequence: s.tally.chunks, Revision: s.header.Revision, CompactedRevision: s.header.CompactedRevision,
		After: s.after, BytesMax: uint32(s.sizeMax),
	}
}

// Next is the next chunk, or nil if rows are to be read for it.
func (s *Source) Next() *messages.SnapshotChunk {
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

// Take is the chunk that holds the rows that were read, or nil if there were none
// left. An error is the reader's mistake.
func (s *Source) Take(r *messages.RowsRead) (*messages.SnapshotChunk, error) {
	s.rowsEnd = !r.More
	switch {
	case r.Count == 0 && !r.More:
		return nil, nil
	case r.Count == 0 || r.Last == nil || len(r.Rows) > BodyBytesMax:
		return nil, messages.Errorf(messages.Code_INTERNAL, "%d rows of %d bytes were read for one chunk", r.Count, len(r.Rows))
	}
	s.after = r.Last
	return s.tally.seal(messages.ChunkKind_ROWS, r.First, r.Last.Key, r.Rows, r.Count), nil
}

// Clone is a source that goes its own way from here.
func (s *Source) Clone() *Source {
	c := *s
	c.tally = s.tally.clone()
	return &c
}
