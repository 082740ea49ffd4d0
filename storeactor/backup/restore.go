package backup

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
)

// Plan says which cluster is to be made of a backup.
type Plan struct {
	Founders    []*messages.Founder // names and addresses, with RaftIDs by the order of names
	Directories map[string]string   // by name of the founder: each has one
	Token       string              // empty: a random one
	WithoutAuth bool                // the new cluster has no users, and whoever reaches it may do everything
	RevisionGap uint64              // the new cluster's revisions begin so far above the backup's
	Random      io.Reader
	Told        func(bytes uint64) // of the backup, so far; nil: nobody
}

// Restored is what was made.
type Restored struct {
	*Contents
	ClusterID []byte
	Token     string
	Revision  uint64 // the new cluster's: the next write has a higher one
}

// Restore makes the data directories of a new cluster from a backup: all of them, or none.
//
// The cluster is new: its founders have fresh incarnations, so its id is another, and no
// node of the old one is taken for a member. Keys, values, history, users and the cluster's level
// are those of the backup; sessions, members and operations are not. What each directory
// holds in the end is read again and compared with the backup.
//
// All are made at once, because a founder's incarnation stands for its data: a second
// making of one directory would be a node that forgot what it acknowledged.
//
// Errors: CONFLICT for a directory that holds anything, DAMAGED and UNSUPPORTED as of Read.
func Restore(from io.Reader, p Plan) (*Restored, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	r := &restoration{plan: p, open: openFiles}
	result, err := r.all(from)
	if err == nil {
		return result, nil
	}
	if left := r.undo(); left != nil {
		err = errors.Join(err, left)
	}
	return nil, err
}

// RestoreTo is Restore where open has the disk of a directory, which is empty. What it leaves
// on them when it fails is not for use.
func RestoreTo(from io.Reader, p Plan, open func(dir string) (disk.Disk, error)) (*Restored, error) {
	if err := p.names(); err != nil {
		return nil, err
	}
	return (&restoration{plan: p, open: open}).all(from)
}

func openFiles(dir string) (disk.Disk, error) {
	return files.Open(dir, slog.New(slog.DiscardHandler), nil)
}

func (p *Plan) check() error {
	if err := p.names(); err != nil {
		return err
	}
	for _, f := range p.Founders {
		if err := CheckEmpty(p.Directories[f.Name]); err != nil {
			return err
		}
	}
	return nil
}

// names is nil if each founder has a directory of its own.
func (p *Plan) names() error {
	if len(p.Founders) == 0 || len(p.Directories) != len(p.Founders) {
		return messages.Errorf(messages.Code_INVALID, "%d directories are given for a cluster of %d nodes", len(p.Directories), len(p.Founders)).
			WithHint("give each node of the new cluster one: they are made together, and moved to their machines afterwards")
	}
	seen := map[string]string{}
	for _, f := range p.Founders {
		dir := p.Directories[f.Name]
		if dir == "" {
			return messages.Errorf(messages.Code_INVALID, "%s has no directory", f.Name)
		}
		absolute, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if other := seen[absolute]; other != "" {
			return messages.Errorf(messages.Code_INVALID, "%s and %s have the same directory, %s", other, f.Name, dir)
		}
		seen[absolute] = f.Name
	}
	return nil
}

// CheckEmpty refuses as CONFLICT a directory that holds anything. One that is not there is
// empty.
func CheckEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return messages.Errorf(messages.Code_INVALID, "%v", err).WithHint("name a directory that is empty or not there yet")
	case len(entries) == 0:
		return nil
	}
	return messages.Errorf(messages.Code_CONFLICT, "%s is not empty: it holds %s", dir, entries[0].Name()).
		WithHint("a restore writes over nothing: name a directory that is empty or not there yet")
}

// restoration is a Restore under way.
type restoration struct {
	plan  Plan
	open  func(dir string) (disk.Disk, error)
	disks []*target
	first *messages.Checkpoint // of the new cluster
}

// target is one directory in the making.
type target struct {
	founder *messages.Founder
	dir     string
	made    bool // the directory itself
	disk    disk.Disk
	staging disk.Staging
}

// all makes all directories, and lets go of the disks.
func (r *restoration) all(from io.Reader) (*Restored, error) {
	result, err := r.run(from)
	if closed := r.close(); err == nil {
		err = closed
	}
	return result, err
}

func (r *restoration) run(from io.Reader) (*Restored, error) {
	if err := r.found(); err != nil {
		return nil, err
	}
	contents, err := read(from, r.plan.Told, r.begin, r.write)
	if err != nil {
		return nil, err
	}
	for _, t := range r.disks {
		if err := r.install(t); err != nil {
			return nil, err
		}
		if err := r.prove(t, contents); err != nil {
			return nil, err
		}
	}
	return &Restored{Contents: contents, ClusterID: r.first.ClusterId, Token: r.plan.Token, Revision: r.first.Revision}, nil
}

// found gives the founders what makes them this cluster's.
func (r *restoration) found() error {
	random := func(n int) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r.plan.Random, b)
		return b, err
	}
	if r.plan.Token == "" {
		token, err := random(8)
		if err != nil {
			return fmt.Errorf("read randomness: %w", err)
		}
		r.plan.Token = "restored-" + hex.EncodeToString(token)
	}
	for i, f := range r.plan.Founders {
		f = proto.Clone(f).(*messages.Founder)
		var err error
		if f.Incarnation, err = random(messages.IncarnationSize); err != nil {
			return fmt.Errorf("read randomness: %w", err)
		}
		f.Level, r.plan.Founders[i] = messages.Level, f
	}
	return nil
}

// begin opens the directories, once the backup says what it is of.
func (r *restoration) begin(h *messages.SnapshotHeader, c *messages.Checkpoint) error {
	r.first = checkpointOf(c, r.plan)
	for _, f := range r.plan.Founders {
		t := &target{founder: f, dir: r.plan.Directories[f.Name]}
		_, missing := os.Stat(t.dir)
		t.made = os.IsNotExist(missing)
		d, err := r.open(t.dir)
		if err != nil {
			return err
		}
		t.disk = d
		r.disks = append(r.disks, t)
		if t.staging, err = d.Stage(); err != nil {
			return err
		}
	}
	return nil
}

func (r *restoration) write(rows []disk.Row) error {
	for _, t := range r.disks {
		if err := t.staging.Write(rows); err != nil {
			return err
		}
	}
	return nil
}

// checkpointOf is where the new cluster's history of commands begins, with the rows of the
// old one: the same bytes on each founder. Nobody is invited: whoever asks for a node of the old
// cluster does not come into this one by mistake.
func checkpointOf(c *messages.Checkpoint, p Plan) *messages.Checkpoint {
	first := &messages.Checkpoint{
		Format: disk.CheckpointFormat, ClusterId: messages.ClusterID(p.Token, p.Founders), Index: 1, Term: 1,
		Revision: c.Revision + p.RevisionGap, CompactedRevision: c.CompactedRevision, LogTimeMs: c.LogTimeMs, Level: c.Level,
		ConfState: &raftpb.ConfState{}, Founders: p.Founders, Token: p.Token,
		NextRaftId: uint64(len(p.Founders)) + 1, ConfigurationIndex: 1,
	}
	if !p.WithoutAuth {
		first.Auth = c.Auth
	}
	for _, f := range p.Founders {
		first.ConfState.Voters = append(first.ConfState.Voters, f.RaftId)
		first.Members = append(first.Members, &messages.Member{RaftId: f.RaftId, Name: f.Name, Address: f.Address, Incarnation: f.Incarnation})
	}
	return first
}

// install makes the directory one that serve starts from. The identity says from the
// beginning that the cluster is founded: a directory that breaks off before the end has
// lost its data, and can never found an empty cluster.
func (r *restoration) install(t *target) error {
	if err := t.staging.Seal(r.first); err != nil {
		return err
	}
	identity := &messages.Identity{
		Format: disk.IdentityFormat, Incarnation: t.founder.Incarnation, Name: t.founder.Name,
		Listen: t.founder.Address, Advertise: t.founder.Address, Token: r.plan.Token, ClusterId: r.first.ClusterId,
	}
	for _, f := range r.plan.Founders { // as --initial-cluster gives them
		identity.Founders = append(identity.Founders, &messages.Founder{RaftId: f.RaftId, Name: f.Name, Address: f.Address})
	}
	if err := t.disk.WriteIdentity(identity); err != nil {
		return err
	}
	hs := &raftpb.HardState{Term: new(r.first.Term), Vote: new(uint64(0)), Commit: new(r.first.Index)}
	return t.disk.Install(r.first.Index, r.first.Term, hs)
}

// prove reads what the directory holds, as a node that starts from it does.
func (r *restoration) prove(t *target, want *Contents) error {
	engine, err := t.disk.OpenEngine(r.first)
	if err != nil {
		return err
	}
	return errors.Join(sameRows(engine, r.first, t.dir, want), engine.Close())
}

// close lets go of all directories. What is staged and not installed goes.
func (r *restoration) close() (failed error) {
	for _, t := range r.disks {
		if t.staging != nil {
			failed = errors.Join(failed, t.staging.Drop())
		}
		failed = errors.Join(failed, t.disk.Close())
	}
	return failed
}

// undo removes what a restore that failed has made. The directories were empty.
func (r *restoration) undo() error {
	var failed error
	for _, t := range r.disks {
		entries, err := os.ReadDir(t.dir)
		for _, e := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(t.dir, e.Name())))
		}
		if t.made {
			err = errors.Join(err, os.Remove(t.dir))
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// messageOf is what an error says, without its code and hint.
func messageOf(err error) string {
	var known *messages.Error
	if errors.As(err, &known) {
		return known.Message
	}
	return err.Error()
}
