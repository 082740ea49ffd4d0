package badger

// This file is KeyVal's; see PATCHES.md.

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/dgraph-io/badger/v4/y"
)

// NewVersion is an entry for WriteVersions. The version goes behind the key in place, if
// the key has room for 8 bytes more.
func NewVersion(key, value []byte, version uint64, deleted bool) Entry {
	e := Entry{Key: binary.BigEndian.AppendUint64(key, math.MaxUint64-version), Value: value, version: version}
	if deleted {
		e.meta = bitDelete
	}
	return e
}

// WriteVersions writes entries, at most one a key a version, and returns when all can be
// read. It is what a WriteBatch in managed mode does, without a map of them, without
// copies of their keys and without goroutines.
//
// What does not fit one request goes into several, in the order of the entries, so that no
// version of a key is in an older memtable than one that comes before it.
func (db *DB) WriteVersions(entries []Entry) error {
	if db.IsClosed() {
		return ErrDBClosed
	}
	var sent []*request
	var first error
	for len(entries) > 0 && first == nil {
		n := db.fitting(entries)
		part := make([]*Entry, n)
		for i := range part {
			part[i] = &entries[i]
		}
		entries = entries[n:]
		slices.SortFunc(part, func(a, b *Entry) int { return y.CompareKeys(a.Key, b.Key) })
		req, err := db.sendToWriteCh(part)
		if first = err; err == nil {
			sent = append(sent, req)
		}
	}
	for _, req := range sent {
		if err := req.Wait(); first == nil {
			first = err
		}
	}
	return first
}

// fitting is how many of the entries one request takes, at least 1.
func (db *DB) fitting(entries []Entry) int {
	size := int64(0)
	for i := range entries {
		size += entries[i].estimateSizeAndSetThreshold(db.valueThreshold())
		if i > 0 && (int64(i+1) >= db.opt.maxBatchCount || size >= db.opt.maxBatchSize) {
			return i
		}
	}
	return len(entries)
}
