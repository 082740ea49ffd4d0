package raftactor

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// tail is the part of the durable log that RawNode reads, held in memory:
// RawNode calls its Storage on the raft actor's own turn, so nothing here may
// wait for a disk.
//
// Invariants: entries[i] has index base+1+i. The tail holds what is durable and
// nothing else: it is extended when the log has answered, before RawNode hears of
// it. It is never cut above what is applied.
type tail struct {
	hardState *raftpb.HardState
	confState *raftpb.ConfState
	base      uint64
	baseTerm  uint64
	entries   []*raftpb.Entry
}

var _ raft.Storage = (*tail)(nil)

// extend adds durable entries, replacing those at and above the first one's index.
func (t *tail) extend(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	if first <= t.base || first > t.last()+1 {
		panic(fmt.Sprintf("log tail (%d, %d] cannot take entries from %d on", t.base, t.last(), first))
	}
	if keep := first - t.base - 1; keep < uint64(len(t.entries)) {
		// RawNode may still hold the old suffix: it is left as it is.
		t.entries = slices.Clone(t.entries[:keep])
	}
	t.entries = append(t.entries, entries...)
}

func (t *tail) last() uint64 { return t.base + uint64(len(t.entries)) }

// InitialState is the HardState the log held and the ConfState of the checkpoint
// from which replay starts.
func (t *tail) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return t.hardState, t.confState, nil
}

func (t *tail) Entries(lo, hi, sizeMax uint64) ([]*raftpb.Entry, error) {
	if lo <= t.base {
		return nil, raft.ErrCompacted
	}
	if hi > t.last()+1 {
		return nil, raft.ErrUnavailable
	}
	found := t.entries[lo-t.base-1 : hi-t.base-1]
	size, n := uint64(0), 0
	for ; n < len(found); n++ {
		size += uint64(proto.Size(found[n]))
		if n > 0 && size > sizeMax {
			break
		}
	}
	return found[:n:n], nil
}

func (t *tail) Term(index uint64) (uint64, error) {
	switch {
	case index == t.base:
		return t.baseTerm, nil
	case index < t.base:
		return 0, raft.ErrCompacted
	case index > t.last():
		return 0, raft.ErrUnavailable
	}
	return t.entries[index-t.base-1].GetTerm(), nil
}

func (t *tail) LastIndex() (uint64, error)  { return t.last(), nil }
func (t *tail) FirstIndex() (uint64, error) { return t.base + 1, nil }

// Snapshot is asked for when a follower needs what lies below the base. The tail
// is not cut yet, so nobody does.
func (t *tail) Snapshot() (*raftpb.Snapshot, error) {
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}
