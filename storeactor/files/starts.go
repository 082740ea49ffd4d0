package files

import (
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/wal"
)

// Start counts in the generation, so that a log which was put back to an older copy
// has lost the starts that came after; and in the log's witness, so that a log which was put
// back alone does not fit.
func (f *directory) Start(mark uint64) (*messages.Starts, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	generation, err := f.currentSynced()
	if err != nil {
		return nil, err
	}
	before, err := readStarts(generation)
	if err != nil {
		return nil, err
	}
	last, _, err := wal.ReadWitness(generation)
	if err == nil {
		err = disk.MeetStarts(before, last.Starts)
	}
	if err != nil {
		return nil, err
	}
	path, next := filepath.Join(generation, startsName), disk.NextStart(before, mark)
	if err := replaceText(path, "starts", next); err != nil {
		return nil, err
	}
	if err := wal.Count(generation, next.Number); err != nil {
		return nil, err
	}
	f.starts = proto.Clone(next).(*messages.Starts)
	f.starts.Witnessed = true
	return next, replaceText(path, "starts", f.starts)
}

// readStarts is what was counted. A log that was used without a start has lost them.
func readStarts(generation string) (*messages.Starts, error) {
	starts := &messages.Starts{}
	found, err := readText(filepath.Join(generation, startsName), "starts", starts)
	if err != nil || found {
		return starts, err
	}
	last, _, err := wal.ReadWitness(generation)
	if err == nil && last.Sequence > 1 {
		err = disk.Damaged("%s is missing, and the log was in use", filepath.Join(generation, startsName))
	}
	return starts, err
}

func (f *directory) Heard() (*messages.StartsHeard, error) {
	heard := &messages.StartsHeard{}
	_, err := readText(f.path(heardName), "heard", heard)
	return heard, err
}

func (f *directory) Hear(heard *messages.StartsHeard) error {
	return replaceText(f.path(heardName), "heard", heard)
}
