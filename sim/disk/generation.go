package disk

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// generation is a log and a state that belong together.
type generation struct {
	checkpoint *messages.Checkpoint // nil: there is no generation yet
	replaced   *messages.Checkpoint // may be there again after a power cut; nil: none may
	starts     *messages.Starts
	lineage    *messages.Lineage // of the state; nil: none
	log        log
	table      *table
}

func (g *generation) close() { g.log.open, g.table.open = false, false }

func (g *generation) powerCut(rng *rand.Rand) {
	if g.replaced != nil && rng.IntN(2) == 0 {
		g.checkpoint = g.replaced
	}
	g.replaced = nil
	g.log.powerCut(rng)
	g.table.powerCut(rng)
}

// Initialised is refused where somebody condemned the directory.
func (d *Disk) Initialised() (bool, error) {
	if d.condemned != "" {
		return false, messages.Errorf(messages.Code_DAMAGED, "the directory was condemned: %s", d.condemned).
			WithHint("put a new node in its place (kvctl cluster replace)")
	}
	if d.retired != "" {
		return false, messages.Errorf(messages.Code_REMOVED, "the directory is of no more use: %s", d.retired).
			WithHint("%s", disk.RetiredHint)
	}
	switch founded := d.founded(); {
	case founded && d.now.checkpoint == nil:
		return false, disk.Damaged("the directory belongs to cluster %x, and its data are gone", d.identity.ClusterId)
	case !founded && d.now.checkpoint != nil && d.now.log.used:
		return false, disk.Damaged("the identity is older than the data")
	}
	return d.now.checkpoint != nil, nil
}

func (d *Disk) founded() bool { return len(d.identity.GetClusterId()) > 0 }

// Found writes it to the identity.
func (d *Disk) Found(clusterID []byte, id messages.RaftID) error {
	if err := d.notInitialised(); err != nil {
		return err
	}
	if err := d.noRoom("the identity"); err != nil {
		return err
	}
	d.identity = proto.Clone(d.identity).(*messages.Identity)
	d.identity.ClusterId, d.identity.RaftId = clusterID, id
	return nil
}

// Start makes what counts durable, as the opening of a log does.
func (d *Disk) Start(mark uint64) (*messages.Starts, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	if err := d.noRoom("the starts"); err != nil {
		return nil, err
	}
	if err := disk.MeetStarts(d.now.starts, d.now.log.witness.Starts); err != nil {
		return nil, err
	}
	d.before = nil
	next := disk.NextStart(d.now.starts, mark)
	d.now.starts = proto.Clone(next).(*messages.Starts)
	d.now.starts.Witnessed = true
	d.now.log.count(next.Number)
	return next, nil
}

func (d *Disk) Heard() (*messages.StartsHeard, error) { return d.heard, nil }

func (d *Disk) Hear(heard *messages.StartsHeard) error {
	if err := d.noRoom("what was heard of other nodes"); err != nil {
		return err
	}
	d.heard = heard
	return nil
}

func (d *Disk) notInitialised() error {
	if d.now.checkpoint == nil {
		return messages.Errorf(messages.Code_NOT_FOUND, "the directory is not initialised")
	}
	return nil
}

// Checkpoint syncs what it reads, as the opening of a log does.
func (d *Disk) Checkpoint() (*messages.Checkpoint, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	d.now.replaced, d.before = nil, nil
	return proto.Clone(d.now.checkpoint).(*messages.Checkpoint), nil
}

func (d *Disk) WriteCheckpoint(c *messages.Checkpoint) error {
	if err := d.notInitialised(); err != nil {
		return err
	}
	g := d.now
	switch first := g.table.firstUnsynced(); {
	case d.left != nil && d.left.open:
		return messages.Errorf(messages.Code_CONFLICT, "a snapshot was installed: the state that is open is the one before")
	case c.Index < g.checkpoint.Index || c.Revision < g.checkpoint.Revision:
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint goes back from index %d to %d", g.checkpoint.Index, c.Index)
	case first != 0 && first <= c.Revision:
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint of revision %d comes before a sync of the state from revision %d on", c.Revision, first)
	case c.Index > g.log.witness.Commit:
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint of index %d comes before a synced commit: that is %d", c.Index, g.log.witness.Commit)
	}
	if err := d.noRoom("the checkpoint"); err != nil {
		return err
	}
	if err := d.crashes(CrashBeforeCheckpoint); err != nil {
		return err
	}
	was := g.checkpoint
	g.checkpoint = proto.Clone(c).(*messages.Checkpoint)
	if err := d.crashes(CrashInCheckpoint); err != nil {
		g.replaced = was
		return err
	}
	return d.crashes(CrashAfterCheckpoint)
}

// staging is a state that comes from elsewhere, as one process writes it.
type staging struct {
	disk    *Disk
	process uint64
	table   *table
	last    disk.Row // that was written
	lineage *messages.Lineage
	sealed  *messages.Checkpoint
	failed  error
}

func (d *Disk) Stage() (disk.Staging, error) {
	if d.staging != nil {
		d.staging.failed = messages.Errorf(messages.Code_INTERNAL, "another state is being staged")
		d.staging = nil
	}
	if err := d.stagingFails(); err != nil {
		return nil, err
	}
	d.staging = &staging{disk: d, process: d.process, table: &table{}}
	return d.staging, nil
}

func (d *Disk) stagingFails() error {
	if err := d.noRoom("the staged state"); err != nil {
		return err
	}
	return d.fails(&d.faults.failStaging, "stage a state")
}

// mayWrite is why nothing can be written now.
func (s *staging) mayWrite() error {
	switch {
	case s.process != s.disk.process:
		return ErrCrashed
	case s.failed != nil:
		return s.failed
	case s.sealed != nil:
		return messages.Errorf(messages.Code_INTERNAL, "the staged state is sealed")
	}
	s.failed = s.disk.stagingFails()
	return s.failed
}

func (s *staging) Inherit(l *messages.Lineage) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	s.lineage = proto.Clone(l).(*messages.Lineage)
	return nil
}

// Lineage is what the staging inherited that was installed.
func (d *Disk) Lineage() (*messages.Lineage, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	if d.now.lineage == nil {
		return &messages.Lineage{}, nil
	}
	return proto.Clone(d.now.lineage).(*messages.Lineage), nil
}

// Confirm ends it. To remove a file takes no room.
func (d *Disk) Confirm(index uint64) error {
	if err := d.notInitialised(); err != nil {
		return err
	}
	if d.now.lineage.GetIndex() == index {
		d.now.lineage = nil
	}
	return nil
}

func (s *staging) Write(rows []disk.Row) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	if err := disk.CheckRows(rows); err != nil {
		return err
	}
	for _, r := range rows {
		order := bytes.Compare(r.Key, s.last.Key)
		if s.last.Revision != 0 && (order < 0 || order == 0 && r.Revision >= s.last.Revision) {
			return messages.Errorf(messages.Code_INVALID, "a row of key %q and revision %d comes behind one of key %q and revision %d",
				r.Key, r.Revision, s.last.Key, s.last.Revision)
		}
		k := s.table.put(r)
		i, _ := k.find(r.Revision)
		k.versions[i].durable = true // once it is sealed; before, it is gone with the process
		s.last = disk.Row{Key: slices.Clone(r.Key), Revision: r.Revision}
	}
	return nil
}

func (s *staging) Seal(c *messages.Checkpoint) error {
	if err := s.mayWrite(); err != nil {
		return err
	}
	if err := s.disk.crashes(CrashBeforeSeal); err != nil {
		return err
	}
	s.sealed = proto.Clone(c).(*messages.Checkpoint)
	return s.disk.crashes(CrashAfterSeal)
}

func (s *staging) Drop() error {
	if s.process != s.disk.process {
		return ErrCrashed
	}
	if s.failed == nil {
		s.failed = messages.Errorf(messages.Code_INTERNAL, "the staged state was dropped")
	}
	if s.disk.staging == s {
		s.disk.staging = nil
	}
	return nil
}

// Install has the steps that the files have: a log beside the staged state, the
// switch of what counts, and the sync of that.
func (d *Disk) Install(index, term uint64, hs *raftpb.HardState) error {
	s := d.staging
	switch {
	case d.identity == nil:
		return messages.Errorf(messages.Code_NOT_FOUND, "the directory has no identity yet")
	case s == nil || s.process != d.process || s.sealed == nil || s.sealed.Index != index || s.sealed.Term != term:
		return messages.Errorf(messages.Code_NOT_FOUND, "no state of index %d and term %d is staged", index, term)
	case d.now.log.open:
		return messages.Errorf(messages.Code_CONFLICT, "the log is open")
	case hs.GetCommit() < index || hs.GetTerm() < term:
		return messages.Errorf(messages.Code_INTERNAL, "a state of index %d and term %d cannot be installed with a commit of %d in term %d",
			index, term, hs.GetCommit(), hs.GetTerm())
	}
	if err := d.noRoom("the log of the new state"); err != nil {
		return err
	}
	if err := d.fails(&d.faults.failInstall, "install the staged state"); err != nil {
		return err
	}
	if err := d.crashes(CrashBeforeInstall); err != nil {
		return err
	}
	if err := d.crashes(CrashBeforeCurrent); err != nil {
		return err
	}
	if d.now.table.open {
		d.left = d.now.table
	}
	hs = &raftpb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(index)} // the log ends there
	was := d.now
	d.now = &generation{checkpoint: s.sealed, starts: was.starts, lineage: s.lineage, log: newLog(index, term, hs), table: s.table}
	d.now.log.count(was.starts.GetNumber())
	d.staging, d.faults.stateLost = nil, false
	if d.watcher.Install != nil {
		d.watcher.Install()
	}
	if err := d.crashes(CrashBeforeSync); err != nil {
		d.before = was
		return err
	}
	return d.crashes(CrashAfterInstall)
}
