package disk

import (
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// LogImage is what a log held when it was opened. Entries follow the base
// without a gap; all of it is durable.
type LogImage struct {
	BaseIndex, BaseTerm uint64
	HardState           *raftpb.HardState
	Entries             []*raftpb.Entry
}

// Log is a replica's durable Raft log. One caller at a time.
type Log interface {
	// Save appends entries, in place of those at and above the first one's index, and
	// the hard state, if not nil. A gap is refused as INTERNAL. On return all is durable
	// if there were entries or if term or vote changed; a commit alone waits for a Sync.
	Save(hs *raftpb.HardState, entries []*raftpb.Entry) error
	// Sync makes all that was saved durable, and the witness of it.
	Sync() error
	// Cut moves the base up to an entry that the log holds, or was opened at:
	// entries up to it may go, and their space comes back. Durable on return, without
	// harm to any later one: a crash leaves the old base or the new. At or below the
	// base it changes nothing; an entry that is not held, of another term or above
	// the saved commit is refused as INTERNAL.
	Cut(index, term uint64) error
	// Close syncs and lets go.
	Close() error
}

// Last is the index and term of the last entry, or of the base if there is none.
func (i *LogImage) Last() (index, term uint64) {
	if n := len(i.Entries); n > 0 {
		return i.Entries[n-1].GetIndex(), i.Entries[n-1].GetTerm()
	}
	return i.BaseIndex, i.BaseTerm
}

// Check reports DAMAGED for what no log that was written in order can hold:
// a gap, a term that goes back, a commit index beyond the end.
func (i *LogImage) Check() error {
	index, term := i.BaseIndex, i.BaseTerm
	for _, e := range i.Entries {
		switch {
		case e.GetIndex() != index+1:
			return Damaged("the log was altered: index %d follows index %d", e.GetIndex(), index)
		case e.GetTerm() < term:
			return Damaged("the log was altered: term goes back from %d to %d at index %d", term, e.GetTerm(), e.GetIndex())
		}
		if _, known := raftpb.EntryType_name[int32(e.GetType())]; !known {
			return Damaged("the log was altered: entry %d is of unknown type %d", e.GetIndex(), e.GetType())
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	if commit := i.HardState.GetCommit(); commit > index || commit < i.BaseIndex {
		return Damaged("the log is not whole: index %d is committed, and it holds (%d, %d]", commit, i.BaseIndex, index)
	}
	return nil
}

// RefuseGap keeps the log (base, last] one that can be read back: INTERNAL for
// entries that do not follow it, nor replace its end.
func RefuseGap(base, last uint64, entries []*raftpb.Entry) error {
	next := last + 1
	for i, e := range entries {
		if i == 0 && e.GetIndex() > base && e.GetIndex() <= next {
			next = e.GetIndex()
		}
		if e.GetIndex() != next {
			return messages.Errorf(messages.Code_INTERNAL, "the log (%d, %d] cannot take entry %d", base, last, e.GetIndex())
		}
		next++
	}
	return nil
}

// Damaged is DAMAGED, with the one thing to do about it.
func Damaged(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, format, args...).
		WithHint("this node must not vote; the other nodes serve on without it: %s", RebuildHint)
}
