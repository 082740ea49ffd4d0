package storeactor

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

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
}

// Meet reports whether an opened log still holds all that the witness saw
// synced: nil, or DAMAGED with what is missing.
func (w Witness) Meet(image *LogImage) error {
	hs := image.HardState
	switch {
	case hs.GetTerm() < w.HardTerm:
		return logDamaged("the log has lost its term: it holds term %d, and term %d was synced", hs.GetTerm(), w.HardTerm)
	case hs.GetTerm() == w.HardTerm && w.Vote != 0 && hs.GetVote() != w.Vote:
		return logDamaged("the log has lost its vote in term %d: it holds a vote for %d, and one for %d was synced", w.HardTerm, hs.GetVote(), w.Vote)
	case hs.GetCommit() < w.Commit:
		return logDamaged("the log has lost its commit index: it holds %d, and %d was synced", hs.GetCommit(), w.Commit)
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
		return logDamaged("the log has lost entries: it ends at index %d, and index %d was synced", lastIndex, w.Index)
	}
	if term := image.Entries[w.Index-image.BaseIndex-1].GetTerm(); term != w.Term {
		return logDamaged("the log was altered: its entry %d is of term %d, and one of term %d was synced", w.Index, term, w.Term)
	}
	return nil
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
			return logDamaged("the log was altered: index %d follows index %d", e.GetIndex(), index)
		case e.GetTerm() < term:
			return logDamaged("the log was altered: term goes back from %d to %d at index %d", term, e.GetTerm(), e.GetIndex())
		}
		if _, known := raftpb.EntryType_name[int32(e.GetType())]; !known {
			return logDamaged("the log was altered: entry %d is of unknown type %d", e.GetIndex(), e.GetType())
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	if commit := i.HardState.GetCommit(); commit > index || commit < i.BaseIndex {
		return logDamaged("the log is not whole: index %d is committed, and it holds (%d, %d]", commit, i.BaseIndex, index)
	}
	return nil
}

// logDamaged is DAMAGED, with the one thing to do about it.
func logDamaged(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, format, args...).
		WithHint("this node must not vote: keep its directory for inspection; the other nodes serve on without it")
}

// The witness file is two slots, each alone in its block, written in turn: a
// torn write harms one at most. A slot fits one sector. Little endian:
//
//	magic [8] | format uint32 | 8 fields uint64 | CRC32C of all before uint32
const (
	witnessMagic  = "KVWITNES"
	witnessFormat = 1
	witnessBlock  = 4096 // bytes
	witnessSlot   = 8 + 4 + 8*8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (w Witness) encode() []byte {
	b := make([]byte, 0, witnessSlot)
	b = append(b, witnessMagic...)
	b = binary.LittleEndian.AppendUint32(b, witnessFormat)
	for _, v := range []uint64{w.Sequence, w.BaseIndex, w.BaseTerm, w.Index, w.Term, w.HardTerm, w.Vote, w.Commit} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeWitness reads one slot. It reports false for one that was never written,
// torn or damaged.
func decodeWitness(b []byte) (w Witness, format uint32, ok bool) {
	if len(b) < witnessSlot || string(b[:8]) != witnessMagic {
		return w, 0, false
	}
	b = b[:witnessSlot]
	if crc32.Checksum(b[:witnessSlot-4], castagnoli) != binary.LittleEndian.Uint32(b[witnessSlot-4:]) {
		return w, 0, false
	}
	for i, field := range []*uint64{&w.Sequence, &w.BaseIndex, &w.BaseTerm, &w.Index, &w.Term, &w.HardTerm, &w.Vote, &w.Commit} {
		*field = binary.LittleEndian.Uint64(b[12+8*i:])
	}
	return w, binary.LittleEndian.Uint32(b[8:]), true
}

// witnessFile is a Witness on disk, open for overwriting.
type witnessFile struct {
	file *os.File
	last Witness
}

// createWitness writes the first witness of a new log, durably.
func createWitness(path string, first Witness) error {
	first.Sequence = 1
	blocks := make([]byte, 2*witnessBlock)
	copy(blocks[witnessBlock:], first.encode())
	return replaceFile(path, blocks)
}

// openWitness reads the newer of the two slots that are whole.
func openWitness(path string) (*witnessFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return nil, logDamaged("the log's witness %s is missing", path)
	}
	if err != nil {
		return nil, fileError("open the log's witness", err)
	}
	last, err := readWitness(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &witnessFile{file: f, last: last}, nil
}

func readWitness(f *os.File) (Witness, error) {
	var last Witness
	for slot := range int64(2) {
		b := make([]byte, witnessSlot)
		if _, err := f.ReadAt(b, slot*witnessBlock); err != nil && err != io.EOF {
			return last, fileError("read the log's witness", err)
		}
		w, format, ok := decodeWitness(b)
		if !ok {
			continue
		}
		if format > witnessFormat {
			return last, formatError(f.Name(), format, witnessFormat)
		}
		if w.Sequence > last.Sequence {
			last = w
		}
	}
	if last.Sequence == 0 {
		return last, logDamaged("the log's witness %s is damaged", f.Name())
	}
	return last, nil
}

// write overwrites the older slot; it is durable after a sync.
func (f *witnessFile) write(w Witness) error {
	w.Sequence = f.last.Sequence + 1
	if _, err := f.file.WriteAt(w.encode(), int64(w.Sequence%2)*witnessBlock); err != nil {
		return err
	}
	f.last = w
	return nil
}
