package disk

import (
	"keyval/messages"
	"keyval/storeactor/disk"
)

// CrashPoint is a place within an operation of a disk at which the process can
// be made to crash.
type CrashPoint int

// The places. What the operation did before its place is in the page cache: a crash
// leaves it, and a power cut takes what was not synced yet.
const (
	NoCrash               CrashPoint = iota
	CrashInSave                      // between the write of a Save and its sync
	CrashBeforeCut                   // all is synced; the log has its old base
	CrashAfterCut                    // it has the new one
	CrashBeforeSeal                  // nothing of the staging counts
	CrashAfterSeal                   // it is sealed, and nobody was told
	CrashBeforeInstall               // a sealed staging, and no log for it
	CrashBeforeCurrent               // the new generation is whole, and the old one counts
	CrashBeforeSync                  // the new one counts; a power cut may bring the old one back
	CrashAfterInstall                // it counts, and nobody was told
	CrashBeforeCheckpoint            // the old checkpoint counts
	CrashInCheckpoint                // the new one does; a power cut may bring the old one back
	CrashAfterCheckpoint             // it counts, and nobody was told
	crashPoints
)

// CrashPoints are all the places.
func CrashPoints() []CrashPoint {
	var all []CrashPoint
	for at := NoCrash + 1; at < crashPoints; at++ {
		all = append(all, at)
	}
	return all
}

func (p CrashPoint) String() string {
	return [...]string{"nowhere", "in-save", "before-cut", "after-cut", "before-seal", "after-seal", "before-install", "before-current",
		"before-sync", "after-install", "before-checkpoint", "in-checkpoint", "after-checkpoint"}[p]
}

// faults are the faults that were ordered and have not happened yet.
type faults struct {
	failSave, failSync, failCut, failStaging, failInstall, failArchive bool
	failStateSync                                                      bool
	crash                                                              CrashPoint
	failReads                                                          int  // of the state, how many
	full                                                               bool // outlasts the process
	scarce                                                             bool // so does this
	stateLost                                                          bool // so does this
}

// MendFaults takes back the faults that were ordered, and makes room. What is lost
// stays lost.
func (d *Disk) MendFaults() { d.faults = faults{stateLost: d.faults.stateLost} }

// CrashNext lets the process crash when it next comes to a place. Its handles are
// dead from there on. The world then calls Crash or PowerCut.
func (d *Disk) CrashNext(at CrashPoint) { d.faults.crash = at }

// crashes ends the process here if that was ordered.
func (d *Disk) crashes(at CrashPoint) error {
	if d.faults.crash != at {
		return nil
	}
	d.faults.crash, d.crashedAt = NoCrash, at
	d.process++
	d.cause = ErrCrashed.Message
	d.tell(true)
	return ErrCrashed
}

func (d *Disk) tell(crashed bool) {
	if d.watcher.Fault != nil {
		d.watcher.Fault(crashed)
	}
}

// strikes makes an error of a fault that meets the process now.
func (d *Disk) strikes(err *messages.Error) error {
	d.cause = err.Message
	d.tell(false)
	return err
}

// fails makes an error of an ordered fault that meets the process now.
func (d *Disk) fails(ordered *bool, what string) error {
	if !*ordered {
		return nil
	}
	*ordered = false
	return d.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot %s: a simulated fault", what))
}

// noRoom is what a full disk answers to whatever needs room on it.
func (d *Disk) noRoom(what string) error {
	if !d.faults.full {
		return nil
	}
	return d.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot write %s: no space left on device", what))
}

// Fill leaves no room on the disk, or makes room again.
func (d *Disk) Fill(full bool) { d.faults.full = full }

// Scarce leaves little room on the disk, or makes room again.
func (d *Disk) Scarce(scarce bool) { d.faults.scarce = scarce }

// Room is enough, unless it is scarce or gone.
func (d *Disk) Room() (disk.Room, error) {
	r := disk.Room{Bytes: 1 << 40, BytesAll: 1 << 41}
	switch {
	case d.faults.full:
		r.Bytes = 0
	case d.faults.scarce:
		r.Bytes = 1 << 20
	}
	return r, nil
}

// FailNextReads lets the next reads of the state fail, so many of them.
func (d *Disk) FailNextReads(n int) { d.faults.failReads = n }

func (d *Disk) readFails() error {
	if d.faults.failReads == 0 {
		return nil
	}
	d.faults.failReads--
	return d.strikes(messages.Errorf(messages.Code_INTERNAL, "cannot read the state: a simulated fault"))
}

// FailNextSave lets the next Save fail before it has written all; FailNextSync
// lets the next sync fail, also one within a Save or a Cut; FailNextCut the next
// Cut. The log is of no use then. The operating system takes what such a sync could not
// write for written: it is read, no later sync writes it nor what comes behind it, and it
// is gone with the power, unless it is written anew.
func (d *Disk) FailNextSave() { d.faults.failSave = true }
func (d *Disk) FailNextSync() { d.faults.failSync = true }
func (d *Disk) FailNextCut()  { d.faults.failCut = true }

// FailNextStateSync lets the next sync of the state fail. The operating system takes what
// it could not write for written: the next sync says nothing of it, reads find it, and it
// is gone with the power.
func (d *Disk) FailNextStateSync() { d.faults.failStateSync = true }

// FailNextStaging lets the next Stage, Write or Seal fail, and FailNextInstall the
// next Install; FailNextArchive the next Create, Write or Commit of a file.
func (d *Disk) FailNextStaging() { d.faults.failStaging = true }
func (d *Disk) FailNextInstall() { d.faults.failInstall = true }
func (d *Disk) FailNextArchive() { d.faults.failArchive = true }
