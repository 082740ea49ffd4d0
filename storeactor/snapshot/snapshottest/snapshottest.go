// Package snapshottest has states and rows for tests of snapshots.
package snapshottest

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/state/statetest"
)

// StateAt is a checkpoint at index 9 with a session.
func StateAt(revision, compacted uint64) *messages.Checkpoint {
	c := statetest.First()
	c.Index, c.Term, c.Revision, c.CompactedRevision, c.LogTimeMs, c.HistoryHash = 9, 3, revision, compacted, 77, 4711
	c.Sessions = []*messages.Session{{Client: statetest.Client(1), TtlMs: 1000, ActiveMs: 70, Outcomes: []*messages.Outcome{{Seq: 1, Revision: 2}}}}
	c.Auth = &messages.Auth{Version: 2, Users: []*messages.User{{Name: "root", Grants: []*messages.Grant{{Role: messages.UserRole_ADMIN}}}}}
	c.Invitations = &messages.Invitations{Version: 3, All: []*messages.Invitation{statetest.Invitation("n4")}}
	return c
}

// Row is a row with a value.
func Row(key string, revision uint64, value string) disk.Row {
	return disk.Row{Key: []byte(key), Revision: revision, Created: revision, Version: 1, Value: []byte(value)}.Summed()
}

// Gone is a row that is a deletion.
func Gone(key string, revision uint64) disk.Row {
	return disk.Row{Key: []byte(key), Revision: revision, Deleted: true}.Summed()
}

// SomeRows are rows of a snapshot at revision 9, compacted at 4.
func SomeRows() []disk.Row {
	return []disk.Row{
		Row("a", 9, "nine"), Row("a", 5, ""), Row("a", 4, "base"), Gone("b", 8), Row("b", 2, "two"), Row("c", 1, "one"), Row("d", 7, "seven"), Gone("d", 6),
	}
}

// RowsRead is what a reader answers: rows behind a cursor, about bytesMax of them.
func RowsRead(rows []disk.Row, ask *messages.ReadRows) *messages.RowsRead {
	r := &messages.RowsRead{Holder: ask.Holder, Sequence: ask.Sequence}
	chunk, size := &messages.SnapshotRows{}, 0
	for _, row := range rows {
		if after := ask.After; after != nil {
			if order := bytes.Compare(row.Key, after.Key); order < 0 || order == 0 && row.Revision >= after.Revision {
				continue
			}
		}
		if size >= int(ask.BytesMax) {
			r.More = true
			break
		}
		chunk.Rows = append(chunk.Rows, Message(row))
		size += len(row.Key) + len(row.Value) + 8
	}
	if n := len(chunk.Rows); n > 0 {
		last := chunk.Rows[n-1]
		r.Rows, r.Count, r.First, r.Last = statetest.Marshal(chunk), uint64(n), chunk.Rows[0].Key, &messages.RowCursor{Key: last.Key, Revision: last.Revision}
	}
	return r
}

// Message is a row as a snapshot has it.
func Message(r disk.Row) *messages.SnapshotRow {
	return &messages.SnapshotRow{
		Key: r.Key, Value: r.Value, Revision: r.Revision, Deleted: r.Deleted,
		CreateRevision: r.Created, Version: r.Version, Checksum: r.Sum,
	}
}

// T is a testing.TB or a rapid.T.
type T interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// source is a snapshot.Source, which this package does not import: its tests import this one.
type source interface {
	Ended() bool
	Next() *messages.SnapshotChunk
	ReadRows(holder string) *messages.ReadRows
	Take(*messages.RowsRead) (*messages.SnapshotChunk, error)
}

// Cut is all chunks of a source whose rows are these.
func Cut(t T, s source, rows []disk.Row) []*messages.SnapshotChunk {
	t.Helper()
	var chunks []*messages.SnapshotChunk
	for !s.Ended() {
		chunk := s.Next()
		if chunk == nil {
			ask := s.ReadRows("test")
			var err error
			if chunk, err = s.Take(RowsRead(rows, ask)); err != nil {
				t.Fatal(err)
			}
		}
		if chunk != nil {
			chunks = append(chunks, chunk)
		}
	}
	return chunks
}

// ReadAll is all rows of a snapshot.Reader.
func ReadAll(r interface{ Next() ([]disk.Row, error) }) ([]disk.Row, error) {
	var all []disk.Row
	for {
		rows, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, rows...)
	}
}

// BenchRows are rows of about 1 KiB each, in all so many bytes.
func BenchRows(total int) []disk.Row {
	var rows []disk.Row
	value := strings.Repeat("v", 1<<10)
	for i := range total >> 10 {
		rows = append(rows, Row(fmt.Sprintf("key-%08d", i), uint64(i+5), value))
	}
	return rows
}
