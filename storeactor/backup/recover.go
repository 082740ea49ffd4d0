package backup

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
	"keyval/storeactor/files/durable"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/state"
)

// Recovery says which cluster is to be made of the directory of a node whose quorum is lost.
type Recovery struct {
	From    *files.Found
	Stage   string // a directory for what is under way; it goes in the end
	Plan    Plan
	Version string // of this software
	Now     time.Time
}

// Stages of a recovery, in Stage:
//
//	plan         what is recovered, and to where: another recovery is refused
//	copy/        the directory that it is made of, in which its log is applied to the end
//	state.kvb    the state at that end, a backup; from here on copy/ is of no use
//	restoring    the directories are being made: what is in them is of this recovery
const (
	planName      = "plan"
	copyName      = "copy"
	stateName     = "state.kvb"
	restoringName = "restoring"
)

// recoveryPlan is the file plan.
type recoveryPlan struct {
	From        string            `json:"from"`
	ClusterID   string            `json:"cluster_id"`
	LastIndex   uint64            `json:"last_index,string"`
	LastTerm    uint64            `json:"last_term,string"`
	Directories map[string]string `json:"directories"`
	Token       string            `json:"token"`
	RevisionGap uint64            `json:"revision_gap,string"`
}

// Recover makes the data directories of a new cluster of all that a node's log holds, also
// of entries of which it did not know that they were committed. The directory it is from is
// only read. One that was broken off goes on where it was, given the same plan; until the
// new directories are whole no node starts from them.
//
// Errors: CONFLICT for directories that hold anything else, or a stage of another
// recovery; DAMAGED where log or rows are not what was written.
func Recover(r Recovery) (*Restored, error) {
	if err := r.prepare(); err != nil {
		return nil, err
	}
	path := filepath.Join(r.Stage, stateName)
	if _, err := os.Stat(path); err != nil {
		if err := r.replay(path); err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(filepath.Join(r.Stage, copyName)); err != nil {
		return nil, durable.Error("remove the copy of the directory", err)
	}
	if err := r.clear(); err != nil {
		return nil, err
	}
	from, err := os.Open(path)
	if err != nil {
		return nil, durable.Error("read the recovered state", err)
	}
	defer from.Close()
	done, err := Restore(bufio.NewReaderSize(from, 1<<20), r.Plan)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(r.Stage); err != nil {
		return nil, durable.Error("remove what the recovery has staged", err)
	}
	return done, nil
}

// prepare writes the plan, or finds it written.
func (r *Recovery) prepare() error {
	if err := r.Plan.names(); err != nil {
		return err
	}
	index, term := r.From.Image.Last()
	plan := recoveryPlan{
		From: r.From.Dir, ClusterID: hex.EncodeToString(r.From.Identity.ClusterId), LastIndex: index, LastTerm: term,
		Directories: map[string]string{}, Token: r.Plan.Token, RevisionGap: r.Plan.RevisionGap,
	}
	for _, f := range r.Plan.Founders {
		dir, err := filepath.Abs(r.Plan.Directories[f.Name])
		if err != nil {
			return err
		}
		plan.Directories[f.Name+" at "+f.Address] = dir
	}
	path := filepath.Join(r.Stage, planName)
	text, err := os.ReadFile(path)
	if err == nil {
		var written recoveryPlan
		if json.Unmarshal(text, &written) != nil || !written.same(plan) {
			return messages.Errorf(messages.Code_CONFLICT, "%s holds another recovery: of %s, to %s", r.Stage, written.From, targets(written)).
				WithHint("finish that one, or remove %s and what it has made", r.Stage)
		}
		return nil
	}
	if !os.IsNotExist(err) {
		return durable.Error("read the recovery's plan", err)
	}
	for _, dir := range plan.Directories {
		if err := CheckEmpty(dir); err != nil {
			return err
		}
	}
	if err := CheckEmpty(r.Stage); err != nil {
		return err
	}
	text, err = json.MarshalIndent(plan, "", "  ")
	if err == nil {
		err = durable.MakeDirectory(r.Stage)
	}
	if err == nil {
		err = durable.Replace(path, append(text, '\n'))
	}
	if err != nil {
		return durable.Error("write the recovery's plan", err)
	}
	return nil
}

func (p recoveryPlan) same(other recoveryPlan) bool {
	equal := maps.Equal(p.Directories, other.Directories)
	p.Directories, other.Directories = nil, nil
	a, _ := json.Marshal(p)
	b, _ := json.Marshal(other)
	return equal && string(a) == string(b)
}

func targets(p recoveryPlan) string {
	for _, dir := range p.Directories {
		return filepath.Dir(dir)
	}
	return "nowhere"
}

// replay applies the log to its end in a copy of the directory, and writes the state that
// it comes to into a file.
func (r *Recovery) replay(path string) (failed error) {
	copied := filepath.Join(r.Stage, copyName)
	if err := os.RemoveAll(copied); err != nil {
		return durable.Error("remove an unfinished copy", err)
	}
	if err := r.From.CopyTo(copied); err != nil {
		return err
	}
	d, err := files.Open(copied, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, d.Close()) }()
	log, image, err := d.OpenLog()
	if err != nil {
		return err
	}
	defer log.Close()
	checkpoint, err := d.Checkpoint()
	if err != nil {
		return err
	}
	engine, err := d.OpenEngine(checkpoint)
	if err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, engine.Close()) }()
	s, err := state.FromCheckpoint(checkpoint, messages.Level)
	if err != nil {
		return err
	}
	b := state.NewBatch(engine)
	for _, e := range image.Entries {
		if e.GetIndex() <= checkpoint.Index {
			continue
		}
		if err := s.Apply(b, e); err != nil {
			return err
		}
		if err := b.Flush(); err != nil {
			return err
		}
		b.Clear()
	}
	return r.writeState(path, s.Checkpoint(), engine)
}

func (r *Recovery) writeState(path string, c *messages.Checkpoint, engine disk.Engine) error {
	file, err := Create(path)
	if err != nil {
		return err
	}
	defer file.Abort()
	about := &messages.SnapshotHeader{CreatedAtMs: r.Now.UnixMilli(), CreatedBy: r.From.Identity.Name, Version: r.Version}
	source := snapshot.NewSource(c, about, snapshot.ChunkBytesMax)
	to := bufio.NewWriterSize(file, 1<<20)
	w := snapshot.NewWriter(to)
	for !source.Ended() {
		chunk := source.Next()
		if chunk == nil {
			rows, err := snapshot.ReadRows(engine, source.ReadRows(""))
			if err != nil {
				return err
			}
			if chunk, err = source.Take(rows); err != nil {
				return err
			}
		}
		if chunk == nil {
			continue
		}
		if err := w.Write(chunk); err != nil {
			return err
		}
	}
	if err := to.Flush(); err != nil {
		return err
	}
	return file.Commit()
}

// clear empties the directories if this recovery has begun to make them. One that a node
// has started from is a member, which must not forget.
func (r *Recovery) clear() error {
	mark := filepath.Join(r.Stage, restoringName)
	if _, err := os.Stat(mark); os.IsNotExist(err) {
		if err := durable.Replace(mark, nil); err != nil {
			return durable.Error("write how far the recovery is", err)
		}
		return nil
	}
	for _, dir := range r.Plan.Directories {
		found, err := files.Inspect(dir, slog.New(slog.DiscardHandler))
		if messages.CodeOf(err) == messages.Code_CONFLICT {
			return err
		}
		if found != nil && found.Started() {
			return messages.Errorf(messages.Code_CONFLICT, "a node was started on %s already: the recovery was done", dir).
				WithHint("start the others, if their directories are there, and remove %s", r.Stage)
		}
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		for _, e := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
		if err != nil {
			return durable.Error("empty a directory that this recovery has begun", err)
		}
	}
	return nil
}
