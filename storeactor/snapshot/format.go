// Package snapshot is the one format in which a state travels: to another node, and into
// a file. It reads nothing but what it is given.
package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// Format is the format of snapshots that this software writes.
const Format = 1

// Bounds of a snapshot's chunks, in bytes.
const (
	// BodyBytesMax bounds the body of a chunk. Rows are cut at ChunkBytesMax
	// at the latest, and the row that crosses that is whole.
	BodyBytesMax  = 2 << 20
	ChunkBytesMax = 1 << 20
	// stateBytesMax bounds the marshalled Checkpoint: its sessions are bounded far
	// below.
	stateBytesMax = 256 << 20
)

// A chunk whose rows are cut at the latest moment, behind the largest row, has room.
const _ = uint(BodyBytesMax - ChunkBytesMax - messages.KeySizeMax - messages.ValueSizeMax - 64)

// Checksum is what SnapshotChunk.checksum has to be.
func Checksum(c *messages.SnapshotChunk) uint32 {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:], c.Sequence)
	binary.LittleEndian.PutUint32(head[8:], uint32(c.Kind))
	sum := crc32.Checksum(head[:], disk.Castagnoli)
	for _, part := range [][]byte{c.First, c.Last, c.Body} {
		sum = crc32.Update(sum, disk.Castagnoli, part)
	}
	return sum
}

// tally is what the trailer says of the chunks before it. The zero value is
// that of none.
type tally struct {
	chunks, rows, bytes uint64
	hash                hash.Hash // nil: nothing was hashed yet
}

func (t *tally) add(kind messages.ChunkKind, body []byte, rows uint64) {
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

func (t *tally) trailer() *messages.SnapshotTrailer {
	sum := sha256.Sum256(nil)
	last := sum[:]
	if t.hash != nil {
		last = t.hash.Sum(nil)
	}
	return &messages.SnapshotTrailer{Chunks: t.chunks, Rows: t.rows, Bytes: t.bytes, Hash: last}
}

// clone is a tally that goes its own way from here.
func (t tally) clone() tally {
	if t.hash != nil {
		h, err := t.hash.(hash.Cloner).Clone()
		if err != nil {
			panic("snapshot: a SHA-256 that cannot be cloned: " + err.Error())
		}
		t.hash = h
	}
	return t
}

// seal makes the next chunk.
func (t *tally) seal(kind messages.ChunkKind, first, last, body []byte, rows uint64) *messages.SnapshotChunk {
	c := &messages.SnapshotChunk{Sequence: t.chunks, Kind: kind, First: first, Last: last, Body: body}
	c.Checksum = Checksum(c)
	t.add(kind, body, rows)
	return c
}

// headerOf is the header of a snapshot of this state, but for what people are
// told.
func headerOf(c *messages.Checkpoint, stateBytes int) *messages.SnapshotHeader {
	return &messages.SnapshotHeader{
		Format: Format, ClusterId: c.ClusterId, Index: c.Index, Term: c.Term,
		Revision: c.Revision, CompactedRevision: c.CompactedRevision, LogTimeMs: c.LogTimeMs, Level: c.Level,
		ConfState: c.ConfState, Members: c.Members, StateBytes: uint64(stateBytes),
	}
}

// marshalled is m in bytes, the same for the same m.
func marshalled(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("snapshot: a message of this node cannot be marshalled: " + err.Error()) // a string that is no UTF-8
	}
	return b
}
