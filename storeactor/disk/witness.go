package disk

// Witness is what a log is held against when it is opened: what was last synced
// to it. A log file cannot tell a torn end from a damaged one; the witness can,
// so that acknowledged entries are never taken for an end that was torn.
//
// It is overwritten after each synced save and itself synced only with Log.Sync.
// So after a power cut it may be older than the log, but never newer.
type Witness struct {
	Sequence            uint64 // of the writing; rises by one
	BaseIndex, BaseTerm uint64 // of the log; entries start behind it
	Index, Term         uint64 // the last entry that was synced, or the base
	HardTerm            uint64 // of the HardState that was synced
	Vote                uint64
	Commit              uint64
	Starts              uint64 // processes that were started on the generation
}

// Meet reports whether an opened log still holds all that the witness saw
// synced: nil, or DAMAGED with what is missing.
func (w Witness) Meet(image *LogImage) error {
	hs := image.HardState
	switch {
	case hs.GetTerm() < w.HardTerm:
		return Damaged("the log has lost its term: it holds term %d, and term %d was synced", hs.GetTerm(), w.HardTerm)
	case hs.GetTerm() == w.HardTerm && w.Vote != 0 && hs.GetVote() != w.Vote:
		return Damaged("the log has lost its vote in term %d: it holds a vote for %d, and one for %d was synced", w.HardTerm, hs.GetVote(), w.Vote)
	case hs.GetCommit() < w.Commit:
		return Damaged("the log has lost its commit index: it holds %d, and %d was synced", hs.GetCommit(), w.Commit)
	}
	return w.meetEntry(image)
}

// meetEntry: the last synced entry is there, or was replaced by a later leader's.
func (w Witness) meetEntry(image *LogImage) error {
	if w.Index <= image.BaseIndex {
		return nil
	}
	lastIndex, lastTerm := image.Last()
	if lastTerm > w.Term {
		return nil
	}
	if w.Index > lastIndex {
		return Damaged("the log has lost entries: it ends at index %d, and index %d was synced", lastIndex, w.Index)
	}
	if term := image.Entries[w.Index-image.BaseIndex-1].GetTerm(); term != w.Term {
		return Damaged("the log was altered: its entry %d is of term %d, and one of term %d was synced", w.Index, term, w.Term)
	}
	return nil
}
