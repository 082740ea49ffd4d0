package storeactor

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// memoryDisk is a Disk in memory. It tells events what happens to it.
type memoryDisk struct {
	disk.Disk  // what is not overridden is not used
	image      *disk.LogImage
	checkpoint *messages.Checkpoint
	engine     *disktest.Memory
	events     chan string
	gate       chan struct{} // OpenLog waits for it, if not nil
	saveErr    error
	syncErr    error

	checkpointErr error
	closeErr      error // of the log
	installErr    error

	// staged is what Install finds, with its rows.
	staged       *messages.Checkpoint
	stagedEngine *disktest.Memory
	engineErr    error
}

func (d *memoryDisk) Condemn(reason string) error {
	d.events <- "condemned: " + reason
	return nil
}

func (d *memoryDisk) Suspect(s *messages.Suspicion) error {
	d.events <- fmt.Sprintf("suspected by %d", len(s.Accusations))
	return nil
}

func newDisk() *memoryDisk {
	return &memoryDisk{
		image:      &disk.LogImage{HardState: &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(uint64(1))}, BaseIndex: 1, BaseTerm: 1},
		checkpoint: statetest.First(),
		engine:     disktest.NewMemory(),
		events:     make(chan string, 100),
	}
}

func (d *memoryDisk) Identity() (*messages.Identity, error)     { return nil, nil }
func (d *memoryDisk) WriteIdentity(*messages.Identity) error    { return nil }
func (d *memoryDisk) Initialised() (bool, error)                { return true, nil }
func (d *memoryDisk) Found([]byte, messages.RaftID) error       { return nil }
func (d *memoryDisk) Move(string, string) error                 { return nil }
func (d *memoryDisk) Retire(string) error                       { return nil }
func (d *memoryDisk) Start(uint64) (*messages.Starts, error)    { return nil, nil }
func (d *memoryDisk) Heard() (*messages.StartsHeard, error)     { return nil, nil }
func (d *memoryDisk) Hear(*messages.StartsHeard) error          { return nil }
func (d *memoryDisk) Close() error                              { return nil }
func (d *memoryDisk) Checkpoint() (*messages.Checkpoint, error) { return d.checkpoint, nil }

func (d *memoryDisk) OpenEngine(*messages.Checkpoint) (disk.Engine, error) {
	if d.engineErr != nil {
		return nil, d.engineErr
	}
	return d.engine, nil
}

// Install makes what is staged the state that counts.
func (d *memoryDisk) Install(index, term uint64, hs *raftpb.HardState) error {
	if d.installErr != nil {
		return d.installErr
	}
	d.events <- fmt.Sprintf("install %d.%d with %s", index, term, describe(hs, nil))
	d.image = &disk.LogImage{BaseIndex: index, BaseTerm: term, HardState: hs}
	if d.staged != nil {
		d.checkpoint, d.engine = d.staged, d.stagedEngine
	}
	return nil
}

func (d *memoryDisk) OpenLog() (disk.Log, *disk.LogImage, error) {
	if d.gate != nil {
		<-d.gate
	}
	return (*memoryLog)(d), d.image, nil
}

func (d *memoryDisk) WriteCheckpoint(c *messages.Checkpoint) error {
	if d.checkpointErr != nil {
		return d.checkpointErr
	}
	d.events <- fmt.Sprintf("checkpoint %d", c.Index)
	return nil
}

type memoryLog memoryDisk

func (l *memoryLog) Cut(index, term uint64) error {
	l.events <- fmt.Sprintf("cut %d.%d", index, term)
	return l.saveErr
}

func (l *memoryLog) Save(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if l.saveErr != nil {
		return l.saveErr
	}
	l.events <- "save " + describe(hs, entries)
	return nil
}

func (l *memoryLog) Sync() error {
	l.events <- "sync"
	return l.syncErr
}

func (l *memoryLog) Close() error {
	l.events <- "close"
	return l.closeErr
}

// describe writes a hard state as term/vote/commit and entries as index.term.
func describe(hs *raftpb.HardState, entries []*raftpb.Entry) string {
	words := []string{"-"}
	if hs != nil {
		words[0] = fmt.Sprintf("%d/%d/%d", hs.GetTerm(), hs.GetVote(), hs.GetCommit())
	}
	for _, e := range entries {
		words = append(words, fmt.Sprintf("%d.%d", e.GetIndex(), e.GetTerm()))
	}
	return strings.Join(words, " ")
}

// Room is not known of memory.
func (d *memoryDisk) Room() (disk.Room, error) { return disk.Room{}, errors.ErrUnsupported }
