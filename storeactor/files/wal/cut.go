package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// segmentBytes is the size at which the log begins a new file, in bytes. Two are
// preallocated, and a cut frees whole ones: so the log takes up to three of them
// more than its entries.
const segmentBytes = 16 << 20

// The WAL package has one size for all logs of a process.
func init() { wal.SegmentSizeBytes = segmentBytes }

// Cut makes the base durable before anything goes: first its record in the log,
// which an open at the old base passes over, then the witness that names it. Only
// then, whatever a power cut takes, every later open begins at this base or above,
// and files below it are of no use to anybody.
func (l *Log) Cut(index, term uint64) error {
	if l.failed != nil {
		return l.failed
	}
	if index <= l.base {
		return nil
	}
	if held := l.terms.at(index); index > l.hardState.GetCommit() || index > l.index || held != term {
		return messages.Errorf(messages.Code_INTERNAL, "the log (%d, %d], committed up to %d, cannot be cut at index %d of term %d: it holds term %d there",
			l.base, l.index, l.hardState.GetCommit(), index, term, held)
	}
	// The WAL wants a configuration. Nobody reads it: that of a checkpoint counts.
	if err := l.wal.SaveSnapshot(&walpb.Snapshot{Index: new(index), Term: new(term), ConfState: &raftpb.ConfState{}}); err != nil {
		return l.fail("write the log's base", err)
	}
	l.step("base recorded")
	l.base, l.terms = index, l.terms.above(index)
	if err := l.testify(); err != nil {
		return err
	}
	l.step("base witnessed")
	if err := l.witness.file.Sync(); err != nil {
		return l.fail("sync the log's witness", err)
	}
	l.step("base durable")
	if err := l.wal.ReleaseLockTo(index); err != nil {
		return l.fail("let go of old parts of the log", err)
	}
	if err := dropSegments(l.dir, index, l.step); err != nil {
		return l.fail("remove old parts of the log", err)
	}
	return nil
}

// dropSegments removes the files before the one that an open at this base begins
// with, and what repairs kept of them. A crash between leaves files that the next
// call removes and no open reads.
func dropSegments(dir string, base uint64, step func(string)) error {
	names, err := segments(dir)
	if err != nil {
		return err
	}
	for _, name := range names[:firstSegment(names, base)] {
		err := os.Remove(filepath.Join(dir, name))
		if broken := os.Remove(filepath.Join(dir, name+".broken")); !os.IsNotExist(broken) {
			err = errors.Join(err, broken)
		}
		if err != nil {
			return err
		}
		step("segment removed")
	}
	return nil
}

// segments are the names of a log's files, in order.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		var sequence, index uint64
		if n, _ := fmt.Sscanf(e.Name(), "%016x-%016x.wal", &sequence, &index); n == 2 && segmentName(sequence, index) == e.Name() {
			names = append(names, e.Name())
		}
	}
	return names, nil // sorted: numbers of one width
}

func segmentName(sequence, index uint64) string {
	return fmt.Sprintf("%016x-%016x.wal", sequence, index)
}

// firstSegment is the place of the file that an open at this base begins with:
// the last one whose first index, which its name tells, is not above the base.
// Names may go back, where a later leader's entries replaced others.
func firstSegment(names []string, base uint64) int {
	for i, name := range slices.Backward(names) {
		var sequence, index uint64
		if fmt.Sscanf(name, "%016x-%016x.wal", &sequence, &index); index <= base {
			return i
		}
	}
	return 0
}

// dropUnfinished removes files that a crash left before they became part of the
// log: taken for new ones, they would leave old bytes behind the log's end.
func dropUnfinished(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// termRuns are the terms of a log's entries and of its base: each run begins
// where its term does.
type termRuns []termRun

type termRun struct{ index, term uint64 }

// runsOf are the terms of what a log held when it was opened.
func runsOf(image *disk.LogImage) termRuns {
	return termRuns{{image.BaseIndex, image.BaseTerm}}.with(image.Entries)
}

// with adds entries, in place of those at and above the first one's index.
func (r termRuns) with(entries []*raftpb.Entry) termRuns {
	if len(entries) == 0 {
		return r
	}
	for len(r) > 0 && r[len(r)-1].index >= entries[0].GetIndex() {
		r = r[:len(r)-1]
	}
	for _, e := range entries {
		if len(r) == 0 || r[len(r)-1].term != e.GetTerm() {
			r = append(r, termRun{e.GetIndex(), e.GetTerm()})
		}
	}
	return r
}

// at is the term of an index; 0 below the first one.
func (r termRuns) at(index uint64) uint64 {
	for _, run := range slices.Backward(r) {
		if run.index <= index {
			return run.term
		}
	}
	return 0
}

// above forgets what is below index, which becomes the first.
func (r termRuns) above(index uint64) termRuns {
	kept := termRuns{{index, r.at(index)}}
	for _, run := range r {
		if run.index > index {
			kept = append(kept, run)
		}
	}
	return kept
}
