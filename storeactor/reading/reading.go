// Package reading answers reads from what is there at a revision.
package reading

import (
	"bytes"
	"cmp"
	"fmt"

	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// What one node may put into one answer. Free to change.
const (
	// ScanRowsMax bounds the rows of one reply to a scan, and ScanBytesMax its
	// bytes; a single row always fits.
	ScanRowsMax  = 1000
	ScanBytesMax = 1 << 20
	itemBytes    = 16 // what an item takes beside its key and value

	// DigestRowsMax bounds the rows of one digest, and DigestBytesMax the bytes of
	// their keys and values; a single row always fits.
	DigestRowsMax  = 10_000
	DigestBytesMax = 16 << 20
)

// rowsOfGet is how many rows of a scan cost about as much as a get.
const rowsOfGet = 15

// Cost is what a read costs at most, counted in gets.
func Cost(r *messages.Read) int {
	rows := 0
	switch kind := r.GetKind().(type) {
	case *messages.Read_Scan:
		rows = rowsWanted(kind.Scan.GetLimit(), ScanRowsMax)
	case *messages.Read_Digest:
		rows = rowsWanted(kind.Digest.GetLimit(), DigestRowsMax)
	}
	return 1 + rows/rowsOfGet
}

// rowsWanted is a limit, of which 0 is none, within what one answer may have.
func rowsWanted[N uint32 | uint64](limit N, rowsMax int) int {
	if limit == 0 {
		return rowsMax
	}
	return int(min(limit, N(rowsMax)))
}

// Answer answers one read as of revision at most newest. A refusal is an answer; the
// error is the view's, and the reply says it too.
func Answer(view disk.View, r *messages.Read, newest, compacted uint64) (*messages.ReadReply, error) {
	reply := &messages.ReadReply{Request: r.GetRequest(), Revision: cmp.Or(r.GetRevision(), newest)}
	if err := fill(reply, view, r, newest, compacted); err != nil {
		reply.Items, reply.More, reply.Digest = nil, false, nil
		refuse(reply, messages.CodeOf(err), "%v", err)
		return reply, err
	}
	return reply, nil
}

func refuse(reply *messages.ReadReply, code messages.Code, format string, args ...any) {
	reply.Code, reply.Message = code, fmt.Sprintf(format, args...)
}

func fill(reply *messages.ReadReply, view disk.View, r *messages.Read, newest, compacted uint64) error {
	switch {
	case reply.Revision > newest:
		refuse(reply, messages.Code_INVALID, "revision %d is in the future, the newest is %d", reply.Revision, newest)
		return nil
	case reply.Revision < compacted && !mutant.ReadGivenUp:
		refuse(reply, messages.Code_COMPACTED, "revision %d is no longer kept: history is readable from revision %d on", reply.Revision, compacted)
		return nil
	}
	switch kind := r.GetKind().(type) {
	case *messages.Read_Get:
		return get(reply, view, kind.Get.GetKey())
	case *messages.Read_Scan:
		return scan(reply, view, kind.Scan)
	case *messages.Read_Digest:
		return digest(reply, view, kind.Digest)
	}
	refuse(reply, messages.Code_INVALID, "the read asks for nothing that this node knows")
	return nil
}

func get(reply *messages.ReadReply, view disk.View, key []byte) error {
	if len(key) == 0 || len(key) > messages.KeySizeMax {
		refuse(reply, messages.Code_INVALID, "a key has 1 to %d bytes, this one %d", messages.KeySizeMax, len(key))
		return nil
	}
	row, found, err := view.Get(key, reply.Revision)
	if err != nil {
		return err
	}
	if !found {
		reply.Code = messages.Code_NOT_FOUND
		return nil
	}
	reply.Items = []*messages.Item{{Key: key, Value: row.Value, Revision: row.Revision, CreateRevision: row.Created, Version: row.Version}}
	return nil
}

func scan(reply *messages.ReadReply, view disk.View, s *messages.Scan) error {
	if len(s.GetTo()) > 0 && bytes.Compare(s.GetFrom(), s.GetTo()) >= 0 {
		return nil
	}
	limit := rowsWanted(s.GetLimit(), ScanRowsMax)
	size := 0
	return view.Scan(s.GetFrom(), s.GetTo(), reply.Revision, s.GetReverse(), func(row disk.Row) bool {
		item := &messages.Item{Key: bytes.Clone(row.Key), Revision: row.Revision, CreateRevision: row.Created, Version: row.Version}
		if !s.GetKeysOnly() {
			item.Value = bytes.Clone(row.Value)
			if mutant.LentKept { // the engine writes over it
				item.Value = row.Value
			}
		}
		size += len(item.Key) + len(item.Value) + itemBytes
		if len(reply.Items) == limit || len(reply.Items) > 0 && size > ScanBytesMax {
			reply.More = true
			return false
		}
		reply.Items = append(reply.Items, item)
		return true
	})
}
