package files

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// What of a log stays behind a state that takes the place of its own.
func TestBehind(t *testing.T) {
	image := &disk.LogImage{BaseIndex: 10, BaseTerm: 2}
	for i, term := range []uint64{2, 2, 3} { // entries 11, 12, 13
		image.Entries = append(image.Entries, &raftpb.Entry{Index: new(uint64(11 + i)), Term: new(term)})
	}
	for _, test := range []struct {
		index, term uint64
		kept        int
	}{
		{10, 2, 3}, {11, 2, 2}, {12, 2, 1}, {13, 3, 0},
		{12, 3, 0}, // another entry was committed there
		{13, 4, 0}, {14, 3, 0}, {20, 7, 0},
	} {
		if kept := len(behind(image, test.index, test.term)); kept != test.kept {
			t.Errorf("behind index %d of term %d: %d entries, expected %d", test.index, test.term, kept, test.kept)
		}
	}
	s := &Salvage{Found: &Found{Image: image}}
	for at, want := range map[[2]uint64]messages.Code{{9, 2}: messages.Code_UNSAFE, {10, 1}: messages.Code_UNSAFE, {10, 2}: messages.Code_OK, {30, 9}: messages.Code_OK} {
		if err := s.Fits(at[0], at[1]); messages.CodeOf(err) != want {
			t.Errorf("at index %d of term %d: %v, expected %s", at[0], at[1], err, want)
		}
	}
}

// Term, vote and what was acknowledged are those of before, once another state stands
// below the log; also where the process is killed at any step.
func TestSalvageKeepsLogAndVote(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(dir, quiet, nil)
	check(err)
	check(d.WriteIdentity(disktest.Identity))
	check(disk.Initialise(d, disktest.First))
	check(d.Found(disktest.First.ClusterId, 1))
	_, err = d.Start(1)
	check(err)
	log, image, err := d.OpenLog()
	check(err)
	base, term := image.Last()
	hs := &raftpb.HardState{Term: new(term + 5), Vote: new(uint64(3)), Commit: new(base + 2)}
	var entries []*raftpb.Entry
	for i := range uint64(6) {
		entries = append(entries, &raftpb.Entry{Index: new(base + 1 + i), Term: new(term + 1), Data: []byte{byte(i)}})
	}
	check(log.Save(hs, entries))
	check(log.Close())
	check(d.Condemn("its rows are not the others'"))
	check(d.Close())
	check(os.RemoveAll(filepath.Join(dir, firstName, stateName)))

	s, err := OpenSalvage(dir, quiet)
	check(err)
	if _, err := OpenSalvage(dir, quiet); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Errorf("a second one: %v", err)
	}
	staging, err := s.Begin()
	check(err)
	at := disktest.First
	at = &messages.Checkpoint{Format: at.Format, ClusterId: at.ClusterId, Index: base + 4, Term: term + 1, ConfState: at.ConfState, Members: at.Members, Founders: at.Founders, Revision: at.Revision}
	check(staging.Seal(at))
	kept, err := s.Install(at.Index, at.Term)
	check(err)
	if kept != 2 {
		t.Errorf("%d entries are kept", kept)
	}
	aside, err := s.SetAside()
	check(err)
	check(s.Close())
	for _, name := range []string{condemnedName, firstName} {
		if _, err := os.Stat(filepath.Join(aside, name)); err != nil {
			t.Error(err)
		}
	}

	d, err = Open(dir, quiet, nil)
	check(err)
	defer d.Close()
	if ok, err := d.Initialised(); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	starts, err := d.Start(2)
	check(err)
	if starts.Number != 2 {
		t.Errorf("%d starts are counted", starts.Number)
	}
	log, image, err = d.OpenLog()
	check(err)
	defer log.Close()
	last, _ := image.Last()
	if image.BaseIndex != at.Index || last != base+6 || image.HardState.GetTerm() != term+5 || image.HardState.GetVote() != 3 || image.HardState.GetCommit() != at.Index {
		t.Errorf("the log is (%d, %d] with %v", image.BaseIndex, last, image.HardState)
	}
}
