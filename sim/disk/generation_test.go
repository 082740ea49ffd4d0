package disk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// generationProcess is a process whose log reaches index 9, with rows at every
// revision up to 8, a checkpoint at index 5, and a sealed state of index 20.
func generationProcess(t *testing.T, seed uint64) *process {
	p := startProcess(t, seed, map[string]int{})
	var es []*raftpb.Entry
	for i := uint64(2); i < 10; i++ {
		es = append(es, &raftpb.Entry{Term: new(uint64(1)), Index: new(i)})
		p.ok(p.engine.Write(disktest.Whole(disk.Row{Key: []byte("k"), Value: fmt.Appendf(nil, "v%d", i-1), Revision: i - 1})))
	}
	p.ok(p.log.Save(&raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(9))}, es))
	p.ok(p.log.Sync())
	p.ok(p.engine.Sync())
	p.ok(p.disk.WriteCheckpoint(generationCheckpoint(5, 1)))
	return p
}

func generationCheckpoint(index, term uint64) *messages.Checkpoint {
	return &messages.Checkpoint{Index: index, Term: term, Revision: index - 1, ConfState: &raftpb.ConfState{Voters: []uint64{1}}}
}

func (p *process) stage(at *messages.Checkpoint) (disk.Staging, error) {
	s, err := p.disk.Stage()
	p.ok(err)
	p.ok(s.Write(disktest.Whole(disk.Row{Key: []byte("k"), Value: []byte("staged"), Revision: at.Revision})))
	return s, s.Seal(at)
}

// stands says what a directory holds when it is opened anew: base of the log,
// index of the checkpoint, and the newest value.
func (p *process) stands() string {
	p.Helper()
	l, image, err := p.disk.OpenLog()
	p.ok(err)
	at, err := p.disk.Checkpoint()
	p.ok(err)
	e, err := p.disk.OpenEngine(at)
	p.ok(err)
	row, _, err := e.Get([]byte("k"), 1000)
	p.ok(err)
	p.ok(l.Close())
	p.ok(e.Close())
	return fmt.Sprintf("base %d checkpoint %d %s", image.BaseIndex, at.Index, row.Value)
}

// TestEveryStepOfADisk: a crash anywhere leaves the old or the new, and a power cut
// either where the last step was not synced.
func TestEveryStepOfADisk(t *testing.T) {
	const before, cut, installed, checkpointed = "base 1 checkpoint 5 v8", "base 4 checkpoint 5 v8", "base 20 checkpoint 20 staged", "base 1 checkpoint 7 v8"
	cutLog := func(p *process) error { return p.log.Cut(4, 1) }
	install := func(p *process) error {
		_, err := p.stage(generationCheckpoint(20, 3))
		if err != nil {
			return err
		}
		p.ok(p.log.Close())
		return p.disk.Install(20, 3, &raftpb.HardState{Term: new(uint64(4)), Vote: new(uint64(2)), Commit: new(uint64(20))})
	}
	checkpoint := func(p *process) error { return p.disk.WriteCheckpoint(generationCheckpoint(7, 1)) }
	for _, c := range []struct {
		at           CrashPoint
		do           func(p *process) error
		crash, power []string
	}{
		{NoCrash, cutLog, []string{cut}, []string{cut}},
		{CrashBeforeCut, cutLog, []string{before}, []string{before}},
		{CrashAfterCut, cutLog, []string{cut}, []string{cut}},
		{NoCrash, install, []string{installed}, []string{installed}},
		{CrashBeforeSeal, install, []string{before}, []string{before}},
		{CrashAfterSeal, install, []string{before}, []string{before}},
		{CrashBeforeInstall, install, []string{before}, []string{before}},
		{CrashBeforeCurrent, install, []string{before}, []string{before}},
		{CrashBeforeSync, install, []string{installed}, []string{installed, before}},
		{CrashAfterInstall, install, []string{installed}, []string{installed}},
		{NoCrash, checkpoint, []string{checkpointed}, []string{checkpointed}},
		{CrashBeforeCheckpoint, checkpoint, []string{before}, []string{before}},
		{CrashInCheckpoint, checkpoint, []string{checkpointed}, []string{checkpointed, before}},
		{CrashAfterCheckpoint, checkpoint, []string{checkpointed}, []string{checkpointed}},
	} {
		for _, powerCut := range []bool{false, true} {
			seen, expected := map[string]bool{}, c.crash
			for seed := range uint64(30) {
				p := generationProcess(t, seed)
				told := false
				p.disk.Watch(Watcher{Fault: func(crashed bool) { told = crashed }})
				p.disk.CrashNext(c.at)
				if err := c.do(p); (c.at == NoCrash) != (err == nil) || err != nil && !errors.Is(err, ErrCrashed) || told != (err != nil) {
					t.Fatalf("%v: %v", c.at, err)
				}
				if powerCut {
					p.disk.PowerCut()
					expected = c.power
				} else {
					p.disk.Crash()
				}
				seen[p.stands()] = true
				p.disk.PowerCut() // all that was opened is synced
				if again := p.stands(); !seen[again] {
					t.Errorf("%v: it stood otherwise before: %s", c.at, again)
				}
			}
			if len(seen) != len(expected) || slices.ContainsFunc(expected, func(e string) bool { return !seen[e] }) {
				t.Errorf("%v, power cut %t: got %v, expected %v", c.at, powerCut, seen, expected)
			}
		}
	}
}

// TestStagingAndInstallRefuse: what cannot be done leaves all as it was.
func TestStagingAndInstallRefuse(t *testing.T) {
	hs := func(commit uint64) *raftpb.HardState { return &raftpb.HardState{Term: new(uint64(4)), Commit: &commit} }
	for _, c := range []struct {
		name     string
		do       func(p *process) error
		expected messages.Code
	}{
		{"nothing is staged", func(p *process) error { return p.disk.Install(20, 3, hs(20)) }, messages.Code_NOT_FOUND},
		{"another index is sealed", func(p *process) error {
			p.stage(generationCheckpoint(20, 3))
			return p.disk.Install(21, 3, hs(21))
		}, messages.Code_NOT_FOUND},
		{"it was dropped", func(p *process) error {
			s, _ := p.stage(generationCheckpoint(20, 3))
			p.ok(s.Drop())
			return p.disk.Install(20, 3, hs(20))
		}, messages.Code_NOT_FOUND},
		{"another was begun", func(p *process) error {
			p.stage(generationCheckpoint(20, 3))
			p.disk.Stage()
			return p.disk.Install(20, 3, hs(20))
		}, messages.Code_NOT_FOUND},
		{"the log is open", func(p *process) error {
			p.stage(generationCheckpoint(20, 3))
			return p.disk.Install(20, 3, hs(20))
		}, messages.Code_CONFLICT},
		{"the commit is below", func(p *process) error {
			p.stage(generationCheckpoint(20, 3))
			p.ok(p.log.Close())
			return p.disk.Install(20, 3, hs(19))
		}, messages.Code_INTERNAL},
		{"the installation fails", func(p *process) error {
			p.stage(generationCheckpoint(20, 3))
			p.ok(p.log.Close())
			p.disk.FailNextInstall()
			return p.disk.Install(20, 3, hs(20))
		}, messages.Code_INTERNAL},
		{"the disk is full", func(p *process) error { p.disk.Fill(true); _, err := p.disk.Stage(); return err }, messages.Code_INTERNAL},
		{"the staging fails", func(p *process) error { p.disk.FailNextStaging(); _, err := p.disk.Stage(); return err }, messages.Code_INTERNAL},
		{"a sealed state is written", func(p *process) error {
			s, _ := p.stage(generationCheckpoint(20, 3))
			return s.Write([]disk.Row{{Key: []byte("l"), Revision: 1}})
		}, messages.Code_INTERNAL},
		{"rows out of order", func(p *process) error {
			s, err := p.disk.Stage()
			p.ok(err)
			return s.Write([]disk.Row{{Key: []byte("l"), Revision: 1}, {Key: []byte("l"), Revision: 2}})
		}, messages.Code_INVALID},
		{"a cut behind the end", func(p *process) error { return p.log.Cut(10, 1) }, messages.Code_INTERNAL},
		{"a cut of another term", func(p *process) error { return p.log.Cut(4, 2) }, messages.Code_INTERNAL},
		{"a cut that fails", func(p *process) error { p.disk.FailNextCut(); return p.log.Cut(4, 1) }, messages.Code_INTERNAL},
		{"a file that fails", func(p *process) error { p.disk.FailNextArchive(); _, err := p.disk.Archive().Create("a"); return err }, messages.Code_INTERNAL},
	} {
		p := generationProcess(t, 1)
		if err := c.do(p); messages.CodeOf(err) != c.expected {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.expected)
		}
		p.disk.Fill(false)
		p.disk.Crash()
		if got := p.stands(); got != "base 1 checkpoint 5 v8" {
			t.Errorf("%s: the directory has changed: %s", c.name, got)
		}
	}
}

// TestTheOldStateIsReadUntilItIsClosed: and nothing of it counts.
func TestTheOldStateIsReadUntilItIsClosed(t *testing.T) {
	p := generationProcess(t, 1)
	p.stage(generationCheckpoint(20, 3))
	p.ok(p.log.Close())
	p.ok(p.disk.Install(20, 3, &raftpb.HardState{Term: new(uint64(4)), Commit: new(uint64(20))}))
	p.ok(p.engine.Write(disktest.Whole(disk.Row{Key: []byte("k"), Value: []byte("late"), Revision: 9})))
	if row, _, err := p.engine.Get([]byte("k"), 9); err != nil || string(row.Value) != "late" {
		t.Fatalf("got %q, %v", row.Value, err)
	}
	if err := p.disk.WriteCheckpoint(generationCheckpoint(21, 3)); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Fatalf("got %v, expected a conflict", err)
	}
	p.ok(p.engine.Close())
	if got := p.stands(); got != "base 20 checkpoint 20 staged" {
		t.Fatal(got)
	}
}

// asOf is what a key holds at a revision, of all that was written to it.
func asOf(past []disk.Row, revision uint64) (value []byte, live bool) {
	for _, row := range past {
		if row.Revision <= revision {
			value, live = row.Value, !row.Deleted
		}
	}
	return value, live
}

// TestDiscardTakesWhatNobodySees: any subset, and never what a reader at the floor
// or above sees.
func TestDiscardTakesWhatNobodySees(t *testing.T) {
	gone, hidden := map[string]bool{}, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 5))
		p := startProcess(t, seed, map[string]int{})
		past := map[string][]disk.Row{}
		for revision := uint64(1); revision < 40; revision++ {
			key, row := string(rune('a'+rng.IntN(3))), disk.Row{Value: fmt.Append(nil, revision), Revision: revision, Deleted: rng.IntN(3) == 0}
			past[key] = append(past[key], row)
			row.Key = []byte(key)
			p.ok(p.engine.Write(disktest.Whole(row)))
		}
		p.ok(p.engine.Sync())
		p.engine.Discard(20)
		for range 10 {
			p.ok(p.engine.Sync())
		}
		before := p.engine.Size()
		if seed%2 == 0 {
			p.ok(p.engine.Reclaim())
		}
		hidden += int(before - p.engine.Size())
		for at := uint64(20); at < 40; at++ {
			for _, key := range []string{"a", "b", "c"} {
				want, live := asOf(past[key], at)
				if row, found, err := p.engine.Get([]byte(key), at); err != nil || found != live || live && !bytes.Equal(row.Value, want) {
					t.Fatalf("seed %d: %s at %d: got %q (%t), expected %q (%t)", seed, key, at, row.Value, found, want, live)
				}
			}
		}
		row, found, _ := p.engine.Get([]byte("a"), 10)
		gone[fmt.Sprint(found, bytes.Equal(row.Value, past["a"][0].Value))] = true
	}
	if len(gone) < 2 || hidden == 0 {
		t.Errorf("discarding never differs: %v, %d bytes were reclaimed", gone, hidden)
	}
}
