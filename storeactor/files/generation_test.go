package files

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// stageTest seals a staging of one row.
func stageTest(t *testing.T, d disk.Disk, index, term uint64) disk.Staging {
	t.Helper()
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	c := proto.Clone(disktest.First).(*messages.Checkpoint)
	c.Index, c.Term, c.Revision = index, term, index
	err = errors.Join(s.Write(disktest.Whole(disk.Row{Key: []byte("k"), Value: fmt.Appendf(nil, "of %d", index), Revision: index})), s.Seal(c))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// installTest installs a staging over what is there.
func installTest(t *testing.T, d disk.Disk, index uint64) {
	t.Helper()
	stageTest(t, d, index, 2)
	if err := d.Install(index, 2, disktest.HardState(3, 1, index)); err != nil {
		t.Fatal(err)
	}
}

// standsAt opens all of a directory and says at which index its state stands. Log,
// checkpoint and rows must be of one state.
func standsAt(t *testing.T, name, dir string) uint64 {
	t.Helper()
	d := mustOpen(t, dir)
	at, err := d.Checkpoint()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	l, image, err := d.OpenLog()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	e, err := d.OpenEngine(at)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	r, found, err := e.Get([]byte("k"), at.Revision)
	if err != nil || image.BaseIndex != at.Index || found != (at.Index > 1) || found && string(r.Value) != fmt.Sprintf("of %d", at.Index) {
		t.Fatalf("%s: a log behind %d, a checkpoint of %d, and %q (%v)", name, image.BaseIndex, at.Index, r.Value, err)
	}
	if err := errors.Join(l.Close(), e.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	return at.Index
}

// generationsIn are the names of the generations in a directory.
func generationsIn(t *testing.T, dir string) string {
	t.Helper()
	names, err := (&directory{dir: dir}).generations()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// TestInstallIsWholeAtEveryStep looks at the directory after every step, as a
// killed process leaves it.
func TestInstallIsWholeAtEveryStep(t *testing.T) {
	dir := makeFiles(t)
	d := mustOpen(t, dir).(*directory)
	var steps []string
	look := func(step string) {
		t.Helper()
		steps = append(steps, step)
		left := filepath.Join(t.TempDir(), "data")
		if err := disktest.CopyDirectory(dir, left); err != nil {
			t.Fatal(err)
		}
		expected, generation := uint64(1), firstName
		if step == "switched" || step == "stale generation removed" || step == "installed" {
			expected, generation = 100, "generation-2"
		}
		if got := standsAt(t, step, left); got != expected {
			t.Errorf("%s: the state stands at %d, expected %d", step, got, expected)
		}
		if got := generationsIn(t, left); got != generation {
			t.Errorf("%s: opened, the directory holds %s, expected %s", step, got, generation)
		}
	}
	d.step = look
	s, err := d.Stage()
	if err != nil {
		t.Fatal(err)
	}
	look("staged")
	if err := s.Write(disktest.Whole(disk.Row{Key: []byte("k"), Value: []byte("of 90"), Revision: 90})); err != nil {
		t.Fatal(err)
	}
	look("written")
	stageTest(t, d, 100, 2)
	look("sealed")
	if err := d.Install(100, 2, disktest.HardState(3, 1, 100)); err != nil {
		t.Fatal(err)
	}
	look("installed")
	if got := strings.Join(steps, ", "); got != "staged, written, sealed, log made, log durable, switched, stale generation removed, installed" {
		t.Fatalf("the steps were %s", got)
	}
}

func TestOldGenerationGoesWithItsEngine(t *testing.T) {
	dir := makeFiles(t)
	d := mustOpen(t, dir)
	old, err := d.OpenEngine(disktest.First)
	if err != nil {
		t.Fatal(err)
	}
	installTest(t, d, 100)
	installTest(t, d, 200) // nobody opened the one between
	if got := generationsIn(t, dir); got != "generation-1 generation-3" {
		t.Fatalf("while the engine is open there are %s", got)
	}
	staged := stageTest(t, d, 300, 2)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	at, err := d.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.OpenEngine(at)
	if err != nil {
		t.Fatal(err)
	}
	if got := generationsIn(t, dir); got != "generation-3 generation-4" {
		t.Fatalf("after the next one is open there are %s", got)
	}
	if err := errors.Join(staged.Drop(), e.Close()); err != nil {
		t.Fatal(err)
	}
	stageTest(t, d, 400, 2) // and is forgotten
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := standsAt(t, "at last", dir); got != 200 {
		t.Fatalf("the state stands at %d", got)
	}
	if got := generationsIn(t, dir); got != "generation-3" {
		t.Fatalf("at last there are %s", got)
	}
}

// TestMissingCurrent: without CURRENT nobody knows what counts, unless nothing was
// in use. Whatever there is stays.
func TestMissingCurrent(t *testing.T) {
	for _, c := range []struct {
		name  string
		dir   func(t *testing.T) string
		says  string
		hints string
	}{
		{"an installed generation", func(t *testing.T) string {
			dir := makeFiles(t)
			d := mustOpen(t, dir)
			installTest(t, d, 100)
			d.Close()
			return dir
		}, "generation-2 was in use", `"generation-2"`},
		{"one that was staged beside one in use", func(t *testing.T) string {
			dir := makeFiles(t)
			standsAt(t, "first", dir)
			stageTest(t, mustOpen(t, dir), 100, 2)
			return dir
		}, "generation-1 was in use", `"generation-1"`},
		{"two that were in use", func(t *testing.T) string {
			dir := makeFiles(t)
			standsAt(t, "first", dir)
			d := mustOpen(t, dir)
			if _, err := d.OpenEngine(disktest.First); err != nil {
				t.Fatal(err)
			}
			installTest(t, d, 100)
			return dir
		}, "generation-1 and generation-2 were in use", "must not vote"},
		{"one that was staged, and nothing else", func(t *testing.T) string {
			dir := makeFiles(t)
			stageTest(t, mustOpen(t, dir), 100, 2)
			if err := os.RemoveAll(filepath.Join(dir, firstName)); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "so is the generation", "must not vote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := disktest.CopyDirectory(c.dir(t), dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, currentName)); err != nil {
				t.Fatal(err)
			}
			before := generationsIn(t, dir)
			d := mustOpen(t, dir)
			_, err := d.Initialised()
			var known *messages.Error
			if !errors.As(err, &known) || known.Code != messages.Code_DAMAGED || !strings.Contains(known.Message, c.says) || !strings.Contains(known.Hint, c.hints) {
				t.Fatalf("%v, expected DAMAGED that says %q and hints at %q", err, c.says, c.hints)
			}
			if err := disk.Initialise(d, disktest.First); messages.CodeOf(err) != messages.Code_DAMAGED {
				t.Fatalf("Initialise: %v", err)
			}
			if _, err := d.Stage(); messages.CodeOf(err) != messages.Code_DAMAGED {
				t.Fatalf("Stage: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if after := generationsIn(t, dir); after != before {
				t.Fatalf("there was %s, and now %s", before, after)
			}
		})
	}
}

func TestUsedDirectoryWithoutIdentity(t *testing.T) {
	for _, name := range []string{"generation-7/witness", currentName, condemnedName, "snapshots/a.kvsnap"} {
		dir := t.TempDir()
		disktest.WriteFile(t, filepath.Join(dir, name), "x")
		if _, err := Open(dir, quiet, nil); messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Errorf("a directory with %s: %v, expected DAMAGED", name, err)
		}
	}
	dir := t.TempDir()
	disktest.WriteFile(t, filepath.Join(dir, "generation-07"), "x")
	if _, err := Open(dir, quiet, nil); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Errorf("a directory with generation-07: %v, expected CONFLICT", err)
	}
}

// TestCondemnedDirectoryIsKept: nothing is tidied up where somebody will look.
func TestCondemnedDirectoryIsKept(t *testing.T) {
	dir := makeFiles(t)
	d := mustOpen(t, dir)
	stageTest(t, d, 100, 2)
	if err := d.Condemn(strings.Repeat("long ", 4000)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, dir)
	_, err := d.Initialised()
	if messages.CodeOf(err) != messages.Code_DAMAGED || len(err.Error()) > 2*reasonMax {
		t.Fatalf("a long reason: %v", err)
	}
	if got := generationsIn(t, dir); got != "generation-1 generation-2" {
		t.Fatalf("there are %s", got)
	}
}

func FuzzCondemnedFile(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("a reason\n"))
	f.Add([]byte("\xff\xfe\x00\x1b[2J"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		disktest.WriteFile(t, filepath.Join(dir, condemnedName), string(text))
		is, err := (&directory{dir: dir}).Initialised()
		disktest.Openly(t, err)
		if is || err == nil || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Fatalf("%q: %t, %v", text, is, err)
		}
	})
}
