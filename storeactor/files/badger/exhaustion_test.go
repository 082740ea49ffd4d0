//go:build linux

package badger

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// A file that cannot be made, written or synced takes nothing along: the engine says
// so and is of no use from then on, and whatever was synced is there when it is opened
// again. Without the mends of third_party/badger these tests fail: rows are gone, or
// the process hangs.

const (
	// exhaustionEnv asks for the tests on file systems that run out of something.
	exhaustionEnv = "KEYVAL_EXHAUSTION"

	exhaustedEnv = "KEYVAL_TEST_EXHAUSTED" // of the process that runs out of something: its directory, and how many descriptors a compaction finds; 0: enough
)

func init() {
	if what := os.Getenv(exhaustedEnv); what != "" {
		if err := runUntilExhausted(what); err != nil {
			fmt.Printf("failed %s %q\n", messages.CodeOf(err), err)
		}
		os.Exit(0)
	}
}

const (
	exhaustedRows = 12_000
	exhaustedSync = 640 // rows
)

// exhaustedRow: keys come in no order, so every compaction takes part of all.
func exhaustedRow(revision uint64) disk.Row {
	key := fmt.Appendf(nil, "%016x", xxhash.Sum64String(strconv.FormatUint(revision, 10)))
	return disk.Row{Key: key, Value: bytes.Repeat(fmt.Appendf(nil, "%08d", revision), 4000), Revision: revision, Created: revision, Version: 1}.Summed()
}

func holdsRow(e *Engine, revision uint64) (bool, error) {
	expected := exhaustedRow(revision)
	r, found, err := e.Get(expected.Key, exhaustedRows)
	return found && r.Revision == revision && bytes.Equal(r.Value, expected.Value), err
}

// runUntilExhausted writes, reads back and syncs until something fails. It says what
// is synced, with the seal, and what is missing.
func runUntilExhausted(what string) error {
	var dir string
	var descriptors uint64
	if _, err := fmt.Sscan(what, &dir, &descriptors); err != nil {
		return err
	}
	e, err := Open(dir, Seal{}, quiet)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 1))
	for revision := uint64(1); revision <= exhaustedRows; revision++ {
		if descriptors > 0 && e.flushed() >= tablesDue {
			if err := e.leaveDescriptors(descriptors); err != nil {
				return err
			}
			descriptors = 0
		}
		if err := e.Write([]disk.Row{exhaustedRow(revision)}); err != nil {
			return err
		}
		read := 1 + random.Uint64N(revision)
		if held, err := holdsRow(e, read); err != nil {
			return err
		} else if !held {
			fmt.Println("lost", read)
		}
		if revision%exhaustedSync > 0 {
			continue
		}
		if err := e.Sync(); err != nil {
			return err
		}
		seal, err := e.SealFor(revision)
		if err != nil {
			return err
		}
		fmt.Println("sealed", revision, hex.EncodeToString(seal.Encode()))
	}
	return nil
}

// flushed is how many tables the first level has.
func (e *Engine) flushed() int { return e.db.Levels()[0].NumTables }

// leaveDescriptors leaves this process so many descriptors beside those it has, until
// the engine fails over it.
func (e *Engine) leaveDescriptors(n uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	scarce := unix.Rlimit{Cur: uint64(len(open)) + n, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &scarce); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); e.usable() == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// exhausted is what became of the process.
type exhausted struct {
	sealed uint64 // revisions up to here were synced
	seal   Seal
	failed string // what ended it
}

// exhaust runs the process in a directory until it fails by itself.
func exhaust(t *testing.T, dir string, descriptors int) (x exhausted) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", exhaustedEnv, dir, descriptors))
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(2*time.Minute, func() { c.Process.Kill() })
	defer hung.Stop()
	lost := map[string]bool{}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		switch what, rest, _ := strings.Cut(lines.Text(), " "); what {
		case "sealed":
			var text string
			fmt.Sscan(rest, &x.sealed, &text)
			if x.seal, err = decodeHex(text); err != nil {
				t.Fatal(err)
			}
		case "lost":
			lost[rest] = true
		case "failed":
			x.failed = rest
		}
	}
	if err := c.Wait(); err != nil || x.failed == "" {
		t.Errorf("the process did not say what failed: %v: %.2000s", err, stderr.String())
	}
	if len(lost) > 0 {
		t.Errorf("while the process ran %d different rows were missing", len(lost))
	}
	t.Logf("%d rows were synced; then: %s", x.sealed, x.failed)
	return x
}

func decodeHex(text string) (Seal, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return Seal{}, err
	}
	return DecodeSeal(b)
}

// hold: whatever was synced is there when the engine is opened again.
func (x exhausted) hold(t *testing.T, dir string) {
	t.Helper()
	e, err := Open(dir, x.seal, quiet)
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for revision := uint64(1); revision <= x.sealed; revision++ {
		held, err := holdsRow(e, revision)
		if err != nil {
			t.Fatal(err)
		}
		if !held {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d rows that were synced are gone", lost, x.sealed)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func makeExhausted(t *testing.T, dir string) string {
	t.Helper()
	dir = filepath.Join(dir, "state")
	if err := create(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNoDescriptorsTakeNothingAlong(t *testing.T) {
	dir := makeExhausted(t, t.TempDir())
	x := exhaust(t, dir, 4)
	if !strings.Contains(x.failed, "too many open files") {
		t.Errorf("the engine failed otherwise: %s", x.failed)
	}
	x.hold(t, dir)
}

// One table of a compaction cannot be made, since there is something of its name;
// the error passes, and all other tables can.
func TestATableThatCannotBeMadeTakesNothingAlong(t *testing.T) {
	for _, ahead := range []int{1, 4} { // tables of the compaction
		t.Run(strconv.Itoa(ahead), func(t *testing.T) {
			failsOver(t, "file exists", func(e *Engine) error {
				newest := uint64(0)
				for _, t := range e.db.Tables() {
					newest = max(newest, t.ID)
				}
				for id := newest + uint64(ahead); ; id++ { // one may be in the making
					f, err := os.OpenFile(table.NewFilename(id, e.dir), os.O_CREATE|os.O_EXCL, 0o600)
					if !errors.Is(err, os.ErrExist) {
						return errors.Join(err, f.Close())
					}
				}
			})
		})
	}
}

// The MANIFEST takes nothing more: its descriptor leads to a device that is always full.
func TestAManifestThatCannotBeWrittenTakesNothingAlong(t *testing.T) {
	failsOver(t, "no space left on device", func(e *Engine) error {
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer full.Close()
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		for _, d := range open {
			name, _ := os.Readlink("/proc/self/fd/" + d.Name()) // it may be gone
			fd, err := strconv.Atoi(d.Name())
			if err == nil && name == filepath.Join(e.dir, badger.ManifestFilename) {
				return unix.Dup3(int(full.Fd()), fd, unix.O_CLOEXEC)
			}
		}
		return fmt.Errorf("no descriptor of the MANIFEST")
	})
}

// failsOver has a compaction meet an obstacle: the engine fails over it, with these
// words, and nothing is lost.
func failsOver(t *testing.T, words string, obstruct func(*Engine) error) {
	t.Helper()
	dir := makeExhausted(t, t.TempDir())
	e, err := Open(dir, Seal{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	written := uint64(0)
	write := func(tables int) {
		for e.flushed() < tables {
			written++
			if err := e.Write([]disk.Row{exhaustedRow(written)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(tablesDue - 1)
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	x := exhausted{sealed: written}
	if x.seal, err = e.SealFor(x.sealed); err != nil {
		t.Fatal(err)
	}
	write(tablesDue)
	if err := obstruct(e); err != nil {
		t.Fatal(err)
	}
	x.failed = readUntilFailed(t, e, written)
	if !strings.Contains(x.failed, words) {
		t.Errorf("the engine failed otherwise: %s", x.failed)
	}
	for _, refused := range []struct {
		what string
		err  error
	}{
		{"write", e.Write([]disk.Row{exhaustedRow(written + 1)})}, {"sync", e.Sync()}, {"close", e.Close()},
	} {
		if refused.err == nil {
			t.Errorf("a %s behind the failure makes no error", refused.what)
		}
	}
	x.hold(t, dir)
}

// readUntilFailed reads all rows again and again: a failure is no row that is missing.
func readUntilFailed(t *testing.T, e *Engine, revisions uint64) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		lost := 0
		for revision := uint64(1); revision <= revisions; revision++ {
			held, err := holdsRow(e, revision)
			if err != nil {
				t.Log(err)
				return err.Error()
			}
			if !held {
				lost++
			}
		}
		if lost > 0 {
			t.Fatalf("%d of %d rows are missing", lost, revisions)
		}
	}
	t.Fatal("the engine goes on")
	return ""
}

// A memtable's file goes when its rows are in a table, whoever reads them still: if it
// outlived a crash, rows would come back that a compaction had dropped meanwhile,
// together with the deletion that hid them.
func TestNoMemTableOutlivesItsTable(t *testing.T) {
	dir := makeExhausted(t, t.TempDir())
	e, err := Open(dir, Seal{}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Write([]disk.Row{exhaustedRow(1)}); err != nil {
		t.Fatal(err)
	}
	first := e.memTables()
	err = e.Scan(nil, nil, 1, false, func(disk.Row) bool {
		for revision := uint64(2); e.flushed() == 0; revision++ {
			if err := e.Write([]disk.Row{exhaustedRow(revision)}); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(10 * time.Second); exists(first[0]); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is there still", first[0])
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Real file systems, of few files and of little room.
func TestFullFileSystemsTakeNothingAlong(t *testing.T) {
	if os.Getenv(exhaustionEnv) == "" {
		t.Skipf("%s is not set", exhaustionEnv)
	}
	for name, small := range map[string]disktest.Small{
		"inodes":              {Bytes: 2 << 30, Files: 60},
		"room":                {Bytes: 400 << 20},
		"a medium that fails": {Bytes: 2 << 30, Medium: 600 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			mount := filepath.Join(t.TempDir(), "mount")
			v := disktest.NewSmallVolume(t, mount, small)
			dir := makeExhausted(t, mount)
			x := exhaust(t, dir, 0)
			v.MakeRoom()
			x.hold(t, dir)
		})
	}
}
