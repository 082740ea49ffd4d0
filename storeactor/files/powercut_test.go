//go:build linux

package files_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/files"
)

const (
	// powerCutsEnv asks for so many power cuts under TestPowerCutsLoseNothing. It
	// takes root.
	powerCutsEnv = "KEYVAL_POWERCUTS"
	powerSeedEnv = "KEYVAL_POWERCUTS_SEED"

	poweredEnv = "KEYVAL_TEST_POWERED" // the directory of the process that runs out of power
)

func init() {
	if dir := os.Getenv(poweredEnv); dir != "" {
		if err := runUntilCut(dir); err != nil {
			fmt.Println("failed", err)
		}
		os.Exit(1)
	}
}

// promises is what a process said was done: durable, all of it. Revisions are
// indexes, and the key of a revision is its last digit.
type promises struct{ log, base, checkpoint, installed, archived, deleted uint64 }

func (p *promises) fields() map[string]*uint64 {
	return map[string]*uint64{"log": &p.log, "base": &p.base, "checkpoint": &p.checkpoint, "installed": &p.installed, "archived": &p.archived, "deleted": &p.deleted}
}

// powered is the process: it does everything that a node does with its disk.
type powered struct {
	disk   disk.Disk
	log    disk.Log
	engine disk.Engine
	index  uint64 // of the last entry; the one before is committed
	last   uint64 // index of the last checkpoint
}

func runUntilCut(dir string) error {
	d, err := files.Open(dir, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	p := &powered{disk: d}
	if err := p.open(); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(p.index, 7))
	for {
		step := p.save
		switch n := random.IntN(400); {
		case n < 12:
			step = p.checkpoint
		case n < 20:
			step = p.cut
		case n < 23:
			step = p.install
		case n < 27:
			step = p.archive
		}
		if err := step(); err != nil {
			return err
		}
	}
}

func (p *powered) open() error {
	at, err := p.disk.Checkpoint()
	if err != nil {
		return err
	}
	var image *disk.LogImage
	if p.log, image, err = p.disk.OpenLog(); err != nil {
		return err
	}
	p.index, _ = image.Last()
	p.last = at.Index
	if p.engine, err = p.disk.OpenEngine(at); err != nil {
		return err
	}
	for _, e := range image.Entries { // replay
		if e.GetIndex() > at.Index {
			if err := p.write(e.GetIndex()); err != nil {
				return err
			}
		}
	}
	return nil
}

func poweredRow(revision uint64) disk.Row {
	return disktest.Whole(disk.Row{Key: fmt.Appendf(nil, "%d", revision%10), Value: bytes.Repeat(fmt.Appendf(nil, "%d,", revision), 1+int(revision%50)), Revision: revision})[0]
}

func poweredData(index uint64) []byte { return bytes.Repeat([]byte{byte(index)}, int(index*131%900)) }

func poweredState(commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(commit)}
}

func (p *powered) write(revision uint64) error {
	return p.engine.Write([]disk.Row{poweredRow(revision)})
}

func (p *powered) save() error {
	e := &raftpb.Entry{Term: new(uint64(2)), Index: new(p.index + 1), Type: raftpb.EntryNormal.Enum(), Data: poweredData(p.index + 1)}
	if err := p.log.Save(poweredState(p.index), []*raftpb.Entry{e}); err != nil {
		return err
	}
	p.index++
	fmt.Println("log", p.index)
	return p.write(p.index)
}

func poweredCheckpoint(index uint64) *messages.Checkpoint {
	return &messages.Checkpoint{ClusterId: []byte("fedcba9876543210"), Index: index, Term: min(index, 2), Revision: index,
		ConfState: &raftpb.ConfState{Voters: []uint64{1}}}
}

func (p *powered) checkpoint() error {
	if err := p.engine.Sync(); err != nil {
		return err
	}
	if err := p.log.Sync(); err != nil {
		return err
	}
	if p.index-1 <= p.last {
		return nil
	}
	if err := p.disk.WriteCheckpoint(poweredCheckpoint(p.index - 1)); err != nil {
		return err
	}
	p.last = p.index - 1
	fmt.Println("checkpoint", p.last)
	return nil
}

func (p *powered) cut() error {
	if p.last == 1 {
		return nil
	}
	if err := p.log.Cut(p.last, 2); err != nil {
		return err
	}
	fmt.Println("base", p.last)
	return nil
}

// install jumps ahead, as a follower that lagged.
func (p *powered) install() error {
	index := p.index + 100
	s, err := p.disk.Stage()
	if err != nil {
		return err
	}
	for key := range uint64(10) {
		newest := index - (index+10-key)%10
		if err := s.Write([]disk.Row{poweredRow(newest), poweredRow(newest - 10)}); err != nil {
			return err
		}
	}
	if err := s.Seal(poweredCheckpoint(index)); err != nil {
		return err
	}
	if index%3 == 0 { // raft had no use for it
		return s.Drop()
	}
	if err := p.log.Close(); err != nil {
		return err
	}
	if err := p.disk.Install(index, 2, poweredState(index)); err != nil {
		return err
	}
	fmt.Println("installed", index)
	if err := p.engine.Close(); err != nil {
		return err
	}
	return p.open()
}

func archiveID(n uint64) string   { return fmt.Sprintf("s-%010d", n) }
func archiveText(n uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%d,", n), 20000) }

// archive keeps the two newest files.
func (p *powered) archive() error {
	a, n := p.disk.Archive(), p.index
	w, err := a.Create(archiveID(n))
	if messages.CodeOf(err) == messages.Code_CONFLICT {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(archiveText(n)); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	fmt.Println("archived", n)
	found, err := a.List()
	if err != nil {
		return err
	}
	for _, f := range found[min(2, len(found)):] {
		if err := a.Delete(f.ID); err != nil {
			return err
		}
		var deleted uint64
		fmt.Sscanf(f.ID, "s-%d", &deleted)
		fmt.Println("deleted", deleted)
	}
	return nil
}

// TestPowerCutsLoseNothing cuts the power of a process that saves, checkpoints,
// cuts, installs and archives on a real file system: what it said is there.
func TestPowerCutsLoseNothing(t *testing.T) {
	cuts, _ := strconv.Atoi(os.Getenv(powerCutsEnv))
	if cuts == 0 {
		t.Skipf("%s is not set", powerCutsEnv)
	}
	seed := rand.Uint64N(1_000_000)
	if s, err := strconv.ParseUint(os.Getenv(powerSeedEnv), 10, 64); err == nil {
		seed = s
	}
	t.Logf("%s=%d %s=%d", powerCutsEnv, cuts, powerSeedEnv, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	mount := filepath.Join(t.TempDir(), "mount")
	volume := disktest.NewVolume(t, mount, seed)
	dir := filepath.Join(mount, "data")
	d, err := files.Open(dir, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := &messages.Identity{Format: 1, Incarnation: []byte("0123456789abcdef"), Name: "node1"}
	if err := errors.Join(d.WriteIdentity(id), disk.Initialise(d, poweredCheckpoint(1)), d.Found([]byte("fedcba9876543210"), 0), d.Close()); err != nil {
		t.Fatal(err)
	}
	said := promises{log: 1, base: 1, checkpoint: 1}
	seen := map[string]int{}
	for n := range cuts {
		lines, later := 1+random.IntN(900), 5*time.Millisecond
		if n%4 == 3 { // while it starts
			lines, later = 0, 60*time.Millisecond
		}
		lines = runUntilPowerCut(t, dir, volume, lines, time.Duration(random.Int64N(int64(later))), &said, seen)
		volume.Restore()
		said.hold(t, fmt.Sprintf("cut %d after %d lines", n+1, lines), dir)
	}
	t.Logf("%d power cuts; the process said %v; it stood at %+v at last", cuts, seen, said)
}

// runUntilPowerCut lets a process say so many lines and cuts its power a little
// later; it says how many were heard.
func runUntilPowerCut(t *testing.T, dir string, volume *disktest.Volume, lines int, later time.Duration, said *promises, seen map[string]int) (n int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), poweredEnv+"="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cut := make(chan struct{})
	cutSoon := func() {
		defer close(cut)
		defer c.Process.Kill()
		time.Sleep(later)
		volume.Cut()
	}
	if lines == 0 {
		go cutSoon()
	}
	for output := bufio.NewScanner(out); output.Scan(); {
		var what, rest string
		var index uint64
		fmt.Sscan(output.Text(), &what, &rest)
		field := said.fields()[what]
		if _, err := fmt.Sscan(rest, &index); err != nil || field == nil {
			if n >= lines { // it met the cut
				break
			}
			t.Fatalf("before the power was cut the process %s", output.Text())
		}
		*field = index
		seen[what]++
		if n++; n == lines {
			go cutSoon()
		}
	}
	io.Copy(io.Discard, out)
	c.Wait()
	<-cut
	return n
}

// hold holds a directory against what was said of it.
func (p *promises) hold(t *testing.T, name, dir string) {
	t.Helper()
	d, err := files.Open(dir, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer d.Close()
	at, err := d.Checkpoint()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	l, image, err := d.OpenLog()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer l.Close()
	last, _ := image.Last()
	if last < max(p.log, p.installed) || image.BaseIndex < max(p.base, p.installed) || at.Index < max(p.checkpoint, p.installed) || at.Index < image.BaseIndex || image.HardState.GetCommit() < at.Index {
		t.Fatalf("%s: the log is (%d, %d], committed up to %d, and the checkpoint of %d; %+v was said", name, image.BaseIndex, last, image.HardState.GetCommit(), at.Index, *p)
	}
	for _, e := range image.Entries {
		if !bytes.Equal(e.Data, poweredData(e.GetIndex())) {
			t.Fatalf("%s: entry %d has %d other bytes", name, e.GetIndex(), len(e.Data))
		}
	}
	e, err := d.OpenEngine(at)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer e.Close()
	for revision := max(2, at.Revision-min(at.Revision, 9)); revision <= at.Revision; revision++ {
		expected := poweredRow(revision)
		if r, found, err := e.Get(expected.Key, at.Revision); err != nil || !found || r.Revision != revision || !bytes.Equal(r.Value, expected.Value) {
			t.Fatalf("%s: revision %d of a checkpoint at %d: revision %d, %t, %v", name, revision, at.Revision, r.Revision, found, err)
		}
	}
	p.holdArchive(t, name, d.Archive())
}

func (p *promises) holdArchive(t *testing.T, name string, a disk.Archive) {
	t.Helper()
	found, err := a.List()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var newest uint64
	for _, f := range found {
		var n uint64
		fmt.Sscanf(f.ID, "s-%d", &n)
		newest = max(newest, n)
		r, err := a.Open(f.ID)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(text, archiveText(n)) || n <= p.deleted {
			t.Fatalf("%s: the file %s has %d bytes (%v); deleted up to %d", name, f.ID, len(text), err, p.deleted)
		}
	}
	if newest < p.archived {
		t.Fatalf("%s: the newest file is of %d, and %d was committed", name, newest, p.archived)
	}
}
