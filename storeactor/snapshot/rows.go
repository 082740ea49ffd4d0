package snapshot

import (
	"bytes"
	"cmp"

	"google.golang.org/protobuf/encoding/protowire"

	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// View is what a snapshot's rows are read from: the part of an Engine that is
// only read.
type View interface {
	disk.View
	Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error
}

// rowsBytesMax bounds the rows that are read at once, in bytes as they stand in a
// snapshot; a single row always fits.
const (
	rowsBytesMax = 4 << 20
	_            = uint(rowsBytesMax - ChunkBytesMax)
)

// ReadRows reads the next rows of a state as they stand in a snapshot. An error is
// the view's, and the answer says it too.
func ReadRows(view View, m *messages.ReadRows) (*messages.RowsRead, error) {
	answer := &messages.RowsRead{Holder: m.Holder, Sequence: m.Sequence}
	after := disk.Cursor{Key: m.GetAfter().GetKey(), Revision: m.GetAfter().GetRevision()}
	limit := min(cmp.Or(int(m.BytesMax), rowsBytesMax), rowsBytesMax)
	last := disk.Cursor{}
	floor := m.CompactedRevision
	if mutant.SnapshotNewest { // reads of the past differ where it was installed
		floor = m.Revision
	}
	err := view.Export(after, floor, m.Revision, func(row disk.Row) bool {
		size := rowSize(row)
		if answer.Count > 0 && len(answer.Rows)+protowire.SizeTag(1)+protowire.SizeBytes(size) > limit {
			answer.More = true
			return false
		}
		if answer.Count == 0 {
			answer.First = bytes.Clone(row.Key)
			answer.Rows = make([]byte, 0, limit)
		}
		answer.Rows = appendRow(answer.Rows, row, size)
		answer.Count++
		last.Key, last.Revision = append(last.Key[:0], row.Key...), row.Revision
		return true
	})
	if err != nil {
		return &messages.RowsRead{Holder: m.Holder, Sequence: m.Sequence, Code: messages.CodeOf(err), Message: err.Error()}, err
	}
	if answer.Count > 0 {
		answer.Last = &messages.RowCursor{Key: last.Key, Revision: last.Revision}
	}
	return answer, nil
}

// appendRow appends a SnapshotRow as a field of SnapshotRows, byte for byte
// as the library would: one message a row would be the greatest cost of a snapshot.
func appendRow(b []byte, row disk.Row, size int) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	if len(row.Key) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), row.Key)
	}
	if len(row.Value) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), row.Value)
	}
	if row.Revision > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), row.Revision)
	}
	if row.Deleted {
		b = protowire.AppendVarint(protowire.AppendTag(b, 4, protowire.VarintType), 1)
	}
	if row.Created > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 5, protowire.VarintType), row.Created)
	}
	if row.Version > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 6, protowire.VarintType), row.Version)
	}
	if row.Sum > 0 {
		b = protowire.AppendFixed32(protowire.AppendTag(b, 7, protowire.Fixed32Type), row.Sum)
	}
	return b
}

func rowSize(row disk.Row) (size int) {
	if n := len(row.Key); n > 0 {
		size += protowire.SizeTag(1) + protowire.SizeBytes(n)
	}
	if n := len(row.Value); n > 0 {
		size += protowire.SizeTag(2) + protowire.SizeBytes(n)
	}
	if row.Revision > 0 {
		size += protowire.SizeTag(3) + protowire.SizeVarint(row.Revision)
	}
	if row.Deleted {
		size += protowire.SizeTag(4) + 1
	}
	if row.Created > 0 {
		size += protowire.SizeTag(5) + protowire.SizeVarint(row.Created)
	}
	if row.Version > 0 {
		size += protowire.SizeTag(6) + protowire.SizeVarint(row.Version)
	}
	if row.Sum > 0 {
		size += protowire.SizeTag(7) + protowire.SizeFixed32()
	}
	return size
}

// readRow reads a messages.SnapshotRow in place.
func readRow(r *disk.Row, data []byte) bool {
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
		case messages.VarintField(5):
			r.Created = f.Varint
		case messages.VarintField(6):
			r.Version = f.Varint
		case messages.Fixed32Field(7):
			r.Sum = uint32(f.Varint)
		}
	}
	return !f.Broken
}
