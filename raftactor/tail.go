package raftactor

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// entryOverhead is what an entry takes in memory beside its data, in bytes.
const entryOverhead = 128

// tail is the part of the durable log that RawNode reads, held in memory:
// RawNode calls its Storage on the raft actor's own turn, so nothing here may
// wait for a disk.
//
// Invariants: entries[i] has index base+1+i. The tail holds what is durable and
// nothing else: it is extended when the log has answered, before RawNode hears of
// it. It is never cut above what is applied, nor above the last checkpoint.
type tail struct {
	hardState *raftpb.HardState
	confState *raftpb.ConfState
	base      uint64
	baseTerm  uint64
	entries   []*raftpb.Entry

	// ends[i] is how many bytes all entries up to entries[i] have taken since the tail
	// was made, and start is the same for base. So the size of any range of entries is
	// a difference.
	ends  []uint64
	start uint64

	// snapshot is the metadata of the last durable checkpoint, and never modified;
	// nil before there is one.
	snapshot *raftpb.Snapshot

	confIndex uint64 // of the last change of the configuration that was applied since the start
}

var _ raft.Storage = (*tail)(nil)

// newTail takes over a log as it was opened, and the checkpoint that replay starts from.
func newTail(log *messages.LogOpened, conf *raftpb.ConfState) *tail {
	hs := log.HardState
	if proven := provenCommit(hs.GetCommit(), log.Entries); proven > hs.GetCommit() {
		hs = &raftpb.HardState{Term: hs.Term, Vote: hs.Vote, Commit: &proven}
	}
	t := &tail{hardState: hs, confState: conf, base: log.BaseIndex, baseTerm: log.BaseTerm}
	t.extend(log.Entries)
	return t
}

// extend adds durable entries, replacing those at and above the first one's index.
func (t *tail) extend(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	if first <= t.base || first > t.last()+1 {
		panic(fmt.Sprintf("log tail (%d, %d] cannot take entries from %d on", t.base, t.last(), first))
	}
	if n := t.last() + 1 - first; n > 0 && mutant.TailKeepsOlder { // peers are sent what is replaced
		entries = entries[min(n, uint64(len(entries))):]
		first += n
		if len(entries) == 0 {
			return
		}
	}
	if keep := first - t.base - 1; keep < uint64(len(t.entries)) {
		// RawNode may still hold the old suffix, so it is not overwritten.
		t.entries, t.ends = slices.Clone(t.entries[:keep]), t.ends[:keep]
	}
	t.entries = append(t.entries, entries...)
	end := t.end(first - 1)
	for _, e := range entries {
		end += EntryBytes(e)
		t.ends = append(t.ends, end)
	}
}

// EntryBytes is what an entry takes of the bounds of a log, in bytes of memory.
func EntryBytes(e *raftpb.Entry) uint64 { return uint64(len(e.GetData())) + entryOverhead }

// cut forgets the entries up to index. The others are copied, so that the memory of
// the old arrays is freed.
func (t *tail) cut(index uint64) {
	if index <= t.base || index > t.last() {
		panic(fmt.Sprintf("log tail (%d, %d] cannot be cut at %d", t.base, t.last(), index))
	}
	n := index - t.base
	t.baseTerm, t.start = t.entries[n-1].GetTerm(), t.ends[n-1]
	t.base, t.entries, t.ends = index, slices.Clone(t.entries[n:]), slices.Clone(t.ends[n:])
}

// restore starts anew behind an installed snapshot: the log holds nothing else now.
func (t *tail) restore(index, term uint64) {
	if index <= t.base {
		panic(fmt.Sprintf("log tail (%d, %d] cannot start anew at %d", t.base, t.last(), index))
	}
	t.base, t.baseTerm = index, term
	t.entries, t.ends, t.start = nil, nil, 0
}

// checkpointed makes a durable checkpoint the snapshot that followers are given. An
// older one than the last is ignored.
func (t *tail) checkpointed(index, term uint64, conf *raftpb.ConfState) {
	if index > t.checkpoint() {
		t.snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: conf}}
	}
}

// reconfigured takes note of a change of the configuration that was applied.
func (t *tail) reconfigured(index uint64) { t.confIndex = index }

// checkpoint is the index of the last durable checkpoint, 0 before there is one.
func (t *tail) checkpoint() uint64 { return t.snapshot.GetMetadata().GetIndex() }

func (t *tail) last() uint64 { return t.base + uint64(len(t.entries)) }

// end is where the entry at index ends, in bytes; base <= index <= last.
func (t *tail) end(index uint64) uint64 {
	if index == t.base {
		return t.start
	}
	return t.ends[index-t.base-1]
}

// bytesAbove is what the entries above index take, in bytes of memory.
func (t *tail) bytesAbove(index uint64) uint64 {
	if index >= t.last() {
		return 0
	}
	return t.end(t.last()) - t.end(max(index, t.base))
}

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

// Snapshot is the last durable checkpoint. Raft asks for it when a follower needs
// entries below the base, and sees its metadata only. While the checkpoint is older than
// the configuration there is none: raft would send it to a member that was added since,
// which is not in it, refuses it, and would be sent the same again.
func (t *tail) Snapshot() (*raftpb.Snapshot, error) {
	if t.snapshot == nil || t.checkpoint() < max(t.base, t.confIndex) && !(mutant.SnapshotOld && t.checkpoint() >= t.base) {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return t.snapshot, nil
}
