// Package disk simulates a disk: the seam of storeactor/disk in memory, with a page
// cache that outlives the process and media that outlive the power. Chance decides
// what a crash or a power cut takes; faults are ordered beforehand.
package disk

import (
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// ErrCrashed is what the handles of a process that has crashed answer.
var ErrCrashed = messages.Errorf(messages.Code_INTERNAL, "the simulated process has crashed")

// Disk is a node's data directory. It is used by one goroutine, and the same seed
// and calls give the same disk.
//
// After Close, Crash or PowerCut the same Disk stands for the directory as the
// next process opens it.
type Disk struct {
	rng       *rand.Rand
	process   uint64 // counts processes; handles of earlier ones are dead
	identity  *messages.Identity
	now       *generation // the one that counts; without a checkpoint: not initialised
	before    *generation // that one may count again after a power cut; nil: none may
	left      *table      // of the generation before, open when another was installed
	staging   *staging    // what is being staged, or was sealed; nil: nothing
	heard     *messages.StartsHeard
	condemned string // why the directory is never to be served again; empty: it may be
	retired   string // how the node was removed from its cluster; empty: it was not
	suspicion *messages.Suspicion
	files     map[string][]byte // of the archive, by id
	writing   []string          // ids of files that are not committed yet
	faults    faults
	watcher   Watcher
	crashedAt CrashPoint // last
	cause     string     // what the process was told by the last of them
}

// Watcher is told what happens on a disk. Its functions may be nil.
type Watcher struct {
	Fault   func(crashed bool) // a fault meets the process
	Discard func(floor uint64) // rows below may go from now on
	Install func()             // another state counts from now on
}

// New makes an empty directory. rng decides what a crash takes.
func New(rng *rand.Rand) *Disk {
	return &Disk{rng: rng, now: &generation{table: &table{}}}
}

// Crash ends the process. What it wrote stays in the page cache, but for what
// it had not handed over yet, and perhaps what a sync failed to write.
func (d *Disk) Crash() {
	d.endProcess()
	d.now.log.dropBuffered(d.rng)
	if d.now.log.clean > 0 && d.rng.IntN(4) == 0 {
		d.now.log.evict(d.rng)
	}
}

// PowerCut ends the process and loses what was never synced. Of the log's saves any
// prefix stays, and the last of them may be torn; of the engine's batches any subset
// stays; of the witness, the checkpoint and the generation, the old or the new.
func (d *Disk) PowerCut() {
	d.endProcess()
	if d.before != nil && d.rng.IntN(2) == 0 {
		d.now = d.before
	}
	d.before = nil
	d.now.powerCut(d.rng)
}

// LoseMedia ends the process and leaves an empty directory.
func (d *Disk) LoseMedia() {
	d.endProcess()
	process, watcher := d.process, d.watcher
	*d = *New(d.rng)
	d.process, d.watcher = process, watcher
}

// LoseTail ends the process and takes the last n entries off the media, though
// they were synced: what a damaged log file looks like.
func (d *Disk) LoseTail(n int) {
	d.endProcess()
	l := &d.now.log
	l.powerCut(d.rng)
	l.durable.entries = l.durable.entries[:max(0, len(l.durable.entries)-n)]
	l.cached = l.durable.clone()
}

// LoseState ends the process and takes the engine's rows off the media, though
// they were synced.
func (d *Disk) LoseState() {
	d.endProcess()
	d.now.table = &table{}
	d.faults.stateLost = true
}

// Rot alters a synced value of the state behind the back of the process. It names
// the version; false: there is none. If the wrong value was written, its checksum fits.
func (d *Disk) Rot(written bool) (key string, revision uint64, ok bool) {
	return d.now.table.decay(d.rng, written)
}

// AlterState alters the checkpoints of a disk that no process uses, in what nobody but
// people reads: when the members were added. They are well formed, with checksums that fit.
// No two disks are altered alike.
func (d *Disk) AlterState() {
	late := 1 + d.rng.Int64N(1<<40)
	for _, c := range []**messages.Checkpoint{&d.now.checkpoint, &d.now.replaced} {
		if *c == nil {
			continue
		}
		*c = proto.Clone(*c).(*messages.Checkpoint)
		for _, m := range (*c).Members {
			m.AddedAtMs += late
		}
	}
}

// endProcess drops what ends with the process: a state that was staged and not
// installed, files that were not committed, and faults that were ordered.
func (d *Disk) endProcess() {
	d.process++
	d.now.close()
	if d.before != nil {
		d.before.close()
	}
	d.left = nil
	d.staging, d.writing = nil, nil
	d.faults = faults{full: d.faults.full, scarce: d.faults.scarce, stateLost: d.faults.stateLost}
}

// Watch tells what happens from now on.
func (d *Disk) Watch(w Watcher) { d.watcher = w }

func (d *Disk) Identity() (*messages.Identity, error) {
	if d.identity == nil {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "the directory has no identity yet")
	}
	return proto.Clone(d.identity).(*messages.Identity), nil
}

func (d *Disk) WriteIdentity(id *messages.Identity) error {
	if initialised, unfit := d.Initialised(); d.identity != nil && (initialised || unfit != nil) {
		return messages.Errorf(messages.Code_CONFLICT, "the directory has an identity already")
	}
	if err := d.noRoom("the identity"); err != nil {
		return err
	}
	d.identity = proto.Clone(id).(*messages.Identity)
	return nil
}

// Condemn makes durable that the directory is not to be served again.
func (d *Disk) Condemn(reason string) error {
	if reason == "" {
		return messages.Errorf(messages.Code_INTERNAL, "a directory is not condemned without a reason")
	}
	if d.condemned == "" {
		d.condemned = reason
	}
	return nil
}

// Move writes it to the identity.
func (d *Disk) Move(listen, advertise string) error {
	id, err := d.Identity()
	if err == nil {
		err = d.noRoom("the identity")
	}
	if err != nil {
		return err
	}
	id.Listen, id.Advertise = listen, advertise
	d.identity = id
	return nil
}

// Retire makes durable that the node was removed.
func (d *Disk) Retire(how string) error {
	if err := d.noRoom("how it was removed"); err != nil {
		return err
	}
	if d.retired == "" {
		d.retired = how
	}
	return nil
}

// Retired is how the node was removed; empty: it was not.
func (d *Disk) Retired() string { return d.retired }

// Condemned is why the directory is not to be served again; empty: it may be.
func (d *Disk) Condemned() string { return d.condemned }

// Suspect makes durable what speaks for a loss of data.
func (d *Disk) Suspect(s *messages.Suspicion) error {
	if err := d.noRoom("the suspicion"); err != nil {
		return err
	}
	d.suspicion = proto.Clone(s).(*messages.Suspicion)
	return nil
}

// Suspicion is what was recorded last.
func (d *Disk) Suspicion() (*messages.Suspicion, error) {
	if d.suspicion == nil {
		return &messages.Suspicion{}, nil
	}
	return proto.Clone(d.suspicion).(*messages.Suspicion), nil
}

// Close ends the process in good order; its handles are closed before.
func (d *Disk) Close() error {
	d.endProcess()
	return nil
}
