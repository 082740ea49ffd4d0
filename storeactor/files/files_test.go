package files

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
)

// makeFiles makes a founded directory that nobody has open.
func makeFiles(t *testing.T) string {
	t.Helper()
	dir := makeInitialised(t)
	d := mustOpen(t, dir)
	if err := errors.Join(d.Found(disktest.First.ClusterId, 0), d.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeInitialised makes one whose cluster is being founded.
func makeInitialised(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	d := mustOpen(t, dir)
	if err := errors.Join(d.WriteIdentity(disktest.Identity), disk.Initialise(d, disktest.First), d.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustOpen(t *testing.T, dir string) disk.Disk {
	t.Helper()
	d, err := Open(dir, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestDirectoriesThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(t *testing.T, dir string)
		expected messages.Code
		says     string
	}{
		{"whole", func(*testing.T, string) {}, messages.Code_OK, ""},
		{"of a newer format", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, identityName), "identity 1", "identity 2")
		}, messages.Code_UNSUPPORTED, "format 2"},
		{"with an altered identity", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, identityName), "node1", "node2")
		}, messages.Code_DAMAGED, "checksum"},
		{"with an identity cut short", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, identityName), "crc32c", "")
		}, messages.Code_DAMAGED, "checksum"},
		{"with an empty identity", func(t *testing.T, dir string) {
			disktest.WriteFile(t, filepath.Join(dir, identityName), "")
		}, messages.Code_DAMAGED, "not the identity"},
		{"with garbage for an identity", func(t *testing.T, dir string) {
			disktest.WriteFile(t, filepath.Join(dir, identityName), "\x00\x01\x02")
		}, messages.Code_DAMAGED, "not the identity"},
		{"without its identity", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, identityName))
		}, messages.Code_DAMAGED, "identity"},
	} {
		dir := makeFiles(t)
		c.change(t, dir)
		d, err := Open(dir, quiet, nil)
		if err == nil {
			d.Close()
		}
		if messages.CodeOf(err) != c.expected || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("a directory %s: %v, expected %v that says %q", c.name, err, c.expected, c.says)
		}
	}
}

func TestForeignDirectoryIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	disktest.WriteFile(t, filepath.Join(dir, "photo.jpg"), "a cat")
	_, err := Open(dir, quiet, nil)
	if messages.CodeOf(err) != messages.Code_CONFLICT || !strings.Contains(err.Error(), "photo.jpg") {
		t.Fatalf("got %v, expected CONFLICT", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("a foreign directory was written to: %v", entries)
	}
	_, err = Open(filepath.Join(dir, "photo.jpg"), quiet, nil)
	if err == nil {
		t.Fatal("a file was opened as a directory")
	}
}

func TestDirectoryIsOneProcess(t *testing.T) {
	dir := makeFiles(t)
	d := mustOpen(t, dir)
	_, err := Open(dir, quiet, nil) // flock counts open files, not processes
	if messages.CodeOf(err) != messages.Code_CONFLICT || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("got %v, expected CONFLICT that names process %d", err, os.Getpid())
	}
	removeAll(t, dir, lockName) // is what people do who think that it is left over
	if _, err := Open(dir, quiet, nil); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Fatalf("without the file LOCK: %v, expected CONFLICT", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir)
}

func TestHalfMadeGeneration(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(t *testing.T, dir string) // CURRENT is gone already
		expected messages.Code                  // of Initialised and Initialise
	}{
		{"whole but for CURRENT", func(*testing.T, string) {}, messages.Code_OK},
		{"without a checkpoint", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, firstName, checkpointName))
		}, messages.Code_OK},
		{"without state", func(t *testing.T, dir string) {
			os.RemoveAll(filepath.Join(dir, firstName, stateName))
		}, messages.Code_OK},
		{"without a witness", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, firstName, "witness"))
		}, messages.Code_OK},
		{"with half a CURRENT", func(t *testing.T, dir string) {
			disktest.WriteFile(t, filepath.Join(dir, currentName+durable.Temporary), "gener")
		}, messages.Code_OK},
		{"that was in use", func(t *testing.T, dir string) {
			disktest.WriteFile(t, filepath.Join(dir, currentName), firstName+"\n")
			d := mustOpen(t, dir)
			l, _, err := d.OpenLog()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.Close(), d.Close(), os.Remove(filepath.Join(dir, currentName))); err != nil {
				t.Fatal(err)
			}
		}, messages.Code_DAMAGED},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := makeInitialised(t)
			if err := os.Remove(filepath.Join(dir, currentName)); err != nil {
				t.Fatal(err)
			}
			c.change(t, dir)
			d := mustOpen(t, dir)
			is, err := d.Initialised()
			if is || messages.CodeOf(err) != c.expected {
				t.Fatalf("initialised %t, %v", is, err)
			}
			if err := disk.Initialise(d, disktest.First); messages.CodeOf(err) != c.expected {
				t.Fatalf("Initialise: %v", err)
			}
			if c.expected != messages.Code_OK {
				return
			}
			l, _, err := d.OpenLog()
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// useLog lets a process open the log, and end.
func useLog(t *testing.T, dir string) {
	t.Helper()
	d := mustOpen(t, dir)
	_, err := d.Start(1)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := d.OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each row takes something from a directory that took part in a cluster, or puts
// something old in its place. It must never pass for one that has not begun.
func TestDirectoriesThatLostSomething(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(t *testing.T, dir, founding string) // founding: a copy of the time before it took part
		says   string
	}{
		{"all but the identity is gone", func(t *testing.T, dir, _ string) {
			removeAll(t, dir, currentName, firstName)
		}, "its data are gone"},
		{"all but the identity and CURRENT is gone", func(t *testing.T, dir, _ string) {
			removeAll(t, dir, firstName)
		}, "which is missing"},
		{"CURRENT is gone", func(t *testing.T, dir, _ string) {
			removeAll(t, dir, currentName)
		}, "was in use"},
		{"the identity is gone", func(t *testing.T, dir, _ string) {
			removeAll(t, dir, identityName)
		}, "the identity of"},
		{"the identity is of the time of founding", func(t *testing.T, dir, founding string) {
			takeFrom(t, dir, founding, identityName)
		}, "older than the data"},
		{"the identity is of that time, and CURRENT is gone", func(t *testing.T, dir, founding string) {
			removeAll(t, dir, currentName)
			takeFrom(t, dir, founding, identityName)
		}, "was in use"},
		{"the identity is of that time, and the witness is gone", func(t *testing.T, dir, founding string) {
			removeAll(t, dir, firstName+"/witness")
			takeFrom(t, dir, founding, identityName)
		}, "older than the data"},
		{"the witness is of the time of founding", func(t *testing.T, dir, founding string) {
			takeFrom(t, dir, founding, identityName, firstName+"/witness")
			removeAll(t, dir, firstName+"/checkpoint")
		}, "log and starts are of different times"},
		{"the starts are gone", func(t *testing.T, dir, _ string) {
			removeAll(t, dir, firstName+"/"+startsName)
		}, "starts is missing, and the log was in use"},
		{"the log is of the time of founding", func(t *testing.T, dir, founding string) {
			for _, name := range []string{"wal", "state", "checkpoint", "witness"} {
				removeAll(t, dir, firstName+"/"+name)
				if err := os.Rename(filepath.Join(founding, firstName, name), filepath.Join(dir, firstName, name)); err != nil {
					t.Fatal(err)
				}
			}
		}, "log and starts are of different times"},
		{"the starts were altered", func(t *testing.T, dir, _ string) {
			rewrite(t, filepath.Join(dir, firstName, startsName), `"1"`, `"2"`)
		}, "checksum"},
		{"what was heard was altered", func(t *testing.T, dir, _ string) {
			disktest.WriteFile(t, filepath.Join(dir, heardName), "nothing")
		}, "not the heard of a node"},
	} {
		dir := makeInitialised(t)
		founding := filepath.Join(t.TempDir(), "founding")
		if err := disktest.CopyDirectory(dir, founding); err != nil {
			t.Fatal(err)
		}
		d := mustOpen(t, dir)
		if err := errors.Join(d.Found(disktest.First.ClusterId, 0), d.Close()); err != nil {
			t.Fatal(err)
		}
		useLog(t, dir)
		row.change(t, dir, founding)
		if err := begin(dir); messages.CodeOf(err) != messages.Code_DAMAGED || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, expected DAMAGED that says %q", row.name, err, row.says)
		}
	}
}

// A generation that another has followed is refused, and the later one is kept.
func TestOlderGenerationIsRefused(t *testing.T) {
	dir := makeFiles(t)
	useLog(t, dir)
	older := filepath.Join(t.TempDir(), "older")
	if err := disktest.CopyDirectory(dir, older); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, dir)
	installTest(t, d, 100)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	useLog(t, dir)
	if err := disktest.CopyDirectory(filepath.Join(older, firstName), filepath.Join(dir, firstName)); err != nil {
		t.Fatal(err)
	}
	disktest.WriteFile(t, filepath.Join(dir, currentName), firstName+"\n")
	err := begin(dir)
	var known *messages.Error
	if !errors.As(err, &known) || known.Code != messages.Code_DAMAGED || !strings.Contains(known.Message, "generation-2 was in use since") || !strings.Contains(known.Hint, "generation-2") {
		t.Fatalf("got %v", err)
	}
	if got := generationsIn(t, dir); got != "generation-1 generation-2" {
		t.Errorf("there are %s", got)
	}
	disktest.WriteFile(t, filepath.Join(dir, currentName), "generation-2\n")
	if err := begin(dir); err != nil {
		t.Errorf("with the later one: %v", err)
	}
}

// What the operating system refuses says nothing about the data: it is never damage.
func TestRefusalsOfTheSystemAreNoDamage(t *testing.T) {
	dir := makeFiles(t)
	useLog(t, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	whole := false
	for files := 8; files < 40 && !whole; files++ { // with fewer the runtime does not start
		c := exec.Command("bash", "-c", fmt.Sprintf("ulimit -n %d; exec %s", files, self))
		c.Env = append(os.Environ(), refusedEnvironment+"="+dir)
		out, err := c.CombinedOutput()
		whole = err == nil
		if !whole && (!strings.Contains(string(out), "too many open files") || strings.Contains(string(out), messages.Code_DAMAGED.String())) {
			t.Errorf("with %d files: %s (%v)", files, out, err)
		}
	}
	if !whole {
		t.Error("40 files are not enough to open a directory")
	}
}

// The test above runs this binary once more as a process with few files.
const refusedEnvironment = "KEYVAL_TEST_OPEN_WITH_FEW"

func init() {
	if dir := os.Getenv(refusedEnvironment); dir != "" {
		if err := begin(dir); err != nil {
			fmt.Println(messages.CodeOf(err), err)
			if known := (*messages.Error)(nil); errors.As(err, &known) {
				fmt.Println("next:", known.Hint)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// begin does what a process does with a directory: it founds one that is not
// initialised, and opens the other.
func begin(dir string) error {
	d, err := Open(dir, quiet, nil)
	if err != nil {
		return err
	}
	defer d.Close()
	is, err := d.Initialised()
	if err == nil && !is {
		err = disk.Initialise(d, disktest.First)
	}
	if err != nil {
		return err
	}
	if _, err := d.Start(2); err != nil {
		return err
	}
	if _, err := d.Heard(); err != nil {
		return err
	}
	l, _, err := d.OpenLog()
	if err != nil {
		return err
	}
	defer l.Close()
	at, err := d.Checkpoint()
	if err != nil {
		return err
	}
	e, err := d.OpenEngine(at)
	if err != nil {
		return err
	}
	return e.Close()
}

func removeAll(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// takeFrom puts files of another directory in the place of these.
func takeFrom(t *testing.T, dir, from string, names ...string) {
	t.Helper()
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		disktest.WriteFile(t, filepath.Join(dir, name), string(text))
	}
}

func TestCurrentIsHeldAgainstTheDirectory(t *testing.T) {
	for _, text := range []string{"", "generation-2\n", "generation-1/../..\n", "generation-01\n", "../generation-1\n", "\x00\n"} {
		dir := makeFiles(t)
		disktest.WriteFile(t, filepath.Join(dir, currentName), text)
		d := mustOpen(t, dir)
		if _, err := d.Initialised(); messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Errorf("CURRENT %q: %v, expected DAMAGED", text, err)
		}
		if err := disk.Initialise(d, disktest.First); messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Errorf("CURRENT %q: Initialise: %v, expected DAMAGED", text, err)
		}
	}
}

func TestCheckpointDamageIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), checkpointName)
	seal := badger.Seal{Markers: 7, Table: 3, MemTables: []badger.MemTable{{Name: "00001.mem", Nonce: "0011", Length: 20}, {Name: "00002.mem", Nonce: "-", Length: 4000}}}
	if err := writeCheckpoint(path, disktest.First, seal); err != nil {
		t.Fatal(err)
	}
	got, gotSeal, err := readCheckpoint(path)
	if err != nil || !proto.Equal(got, disktest.First) || fmt.Sprint(gotSeal) != fmt.Sprint(seal) {
		t.Fatalf("read %v, %v, %v", got, gotSeal, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, b []byte) {
		t.Helper()
		disktest.WriteFile(t, path, string(b))
		if _, _, err := readCheckpoint(path); messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Errorf("%s: %v, expected DAMAGED", name, err)
		}
	}
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= 4
		refused(fmt.Sprintf("byte %d flipped", at), b)
		refused(fmt.Sprintf("cut at %d", at), whole[:at])
	}
	refused("longer", append(bytes.Clone(whole), 0))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readCheckpoint(path); messages.CodeOf(err) != messages.Code_DAMAGED {
		t.Errorf("missing: %v, expected DAMAGED", err)
	}
}

// The test below runs this binary once more as a process that saves and is killed.
const killedEnvironment = "KEYVAL_TEST_SAVE_TO"

func init() {
	if dir := os.Getenv(killedEnvironment); dir != "" {
		saveUntilKilled(dir)
	}
}

// Saves that are durable on return are measured, and a commit alone is not.
func TestSyncsOfTheLogAreMeasured(t *testing.T) {
	meter := prometheus.NewRegistry()
	d, err := Open(makeFiles(t), quiet, meter)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	log, _, err := d.OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	opened := actortest.Counted(t, meter, "keyval_log_sync_seconds")
	err = errors.Join(
		log.Save(disktest.HardState(2, 1, 1), disktest.Entries(1, 2)), // measured
		log.Save(disktest.HardState(2, 1, 2), nil),
		log.Sync(), // measured
	)
	if err != nil {
		t.Fatal(err)
	}
	if n := actortest.Counted(t, meter, "keyval_log_sync_seconds") - opened; n != 2 {
		t.Errorf("%d syncs of 2 are measured", n)
	}
}

// saveUntilKilled writes log and state and says which index is durable.
func saveUntilKilled(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	d, err := Open(dir, quiet, nil)
	fail(err)
	l, image, err := d.OpenLog()
	fail(err)
	at, err := d.Checkpoint()
	fail(err)
	e, err := d.OpenEngine(at)
	fail(err)
	index, _ := image.Last()
	for {
		index++
		es := disktest.Entries(index-1, 2)
		es[0].Data = bytes.Repeat([]byte{byte(index)}, int(index*131%900))
		fail(l.Save(disktest.HardState(2, 1, index-1), es))
		fail(e.Write(disktest.Whole(disk.Row{Key: fmt.Appendf(nil, "%d", index%10), Value: fmt.Appendf(nil, "%d", index), Revision: index})))
		if index%50 == 0 {
			fail(e.Sync())
			fail(l.Sync())
			fail(d.WriteCheckpoint(&messages.Checkpoint{ClusterId: disktest.First.ClusterId, Index: index - 1, Term: 2, Revision: index - 1}))
		}
		fmt.Println(index)
	}
}

func TestKilledProcessLosesNothing(t *testing.T) {
	dir := makeFiles(t)
	for round := range 4 {
		said := runUntilKilled(t, dir, 60+round*77)
		d := mustOpen(t, dir)
		l, image, err := d.OpenLog()
		if err != nil {
			t.Fatal(err)
		}
		if last, _ := image.Last(); last < said || last > said+1 {
			t.Fatalf("the log ends at %d, and %d was the last to be said durable", last, said)
		}
		at, err := d.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		if at.Index < said/50*50-1 {
			t.Fatalf("the checkpoint is of %d after index %d", at.Index, said)
		}
		e, err := d.OpenEngine(at)
		if err != nil {
			t.Fatal(err)
		}
		for i := at.Revision - 9; i <= at.Revision; i++ {
			r, found, err := e.Get(fmt.Appendf(nil, "%d", i%10), at.Revision)
			if err != nil || !found || r.Revision != i || string(r.Value) != fmt.Sprint(i) {
				t.Fatalf("revision %d of a checkpoint at %d: %v, %t, %v", i, at.Revision, r, found, err)
			}
		}
		if err := errors.Join(l.Close(), e.Close(), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// runUntilKilled lets a process save this often and kills it in the midst of its
// work; it returns the last index the process said.
func runUntilKilled(t *testing.T, dir string, lines int) (said uint64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), killedEnvironment+"="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	output := bufio.NewScanner(out)
	for n := 0; output.Scan(); n++ {
		if _, err := fmt.Sscan(output.Text(), &said); err != nil {
			t.Fatalf("the process %s", output.Text())
		}
		if n == lines {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.Wait()
	return said
}

// rewrite replaces text in a file.
func rewrite(t *testing.T, path, old, new string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	disktest.WriteFile(t, path, strings.Replace(string(b), old, new, 1))
}

// What the directory takes is told by what it is for.
func TestSizesOfADirectory(t *testing.T) {
	dir, meter := makeFiles(t), prometheus.NewRegistry()
	d, err := Open(dir, quiet, meter)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	log, _, err := d.OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, snapshotsName), 0o700), os.WriteFile(filepath.Join(dir, snapshotsName, "1.kvs"), make([]byte, 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	bytes := map[string]float64{}
	for until := time.Now().Add(time.Minute); len(bytes) == 0 && time.Now().Before(until); { // a look may take its time
		families, err := meter.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				if f.GetName() == "keyval_data_bytes" {
					bytes[m.Label[0].GetValue()] = m.Gauge.GetValue()
				}
			}
		}
	}
	if bytes["log"] < 4096 || bytes["snapshots"] < 1<<20 || bytes["snapshots"] > 2<<20 || bytes["other"] == 0 || len(bytes) != 4 {
		t.Errorf("%v", bytes)
	}
	for path, part := range map[string]string{
		"/d/generation-1/wal/0.wal": "log", "/d/generation-12/state/000001.vlog": "rows", "/d/generation-1/checkpoint": "other",
		"/d/snapshots/a.kvs": "snapshots", "/d/identity": "other", "/d/set-aside-1/wal/0.wal": "other", "/d": "other",
	} {
		if got := partOf("/d", path); got != part {
			t.Errorf("%s is of %s, want %s", path, got, part)
		}
	}
}

// TestSizesOfADiskThatHangs: the metrics are read on the way of a status too, which a disk must not hold up.
func TestSizesOfADiskThatHangs(t *testing.T) {
	begun, goes := make(chan bool, 2), make(chan bool)
	s := &sizes{measure: func(string) map[string]uint64 { begun <- true; <-goes; return map[string]uint64{"log": 7} }}
	read := func() (n int) {
		all := make(chan prometheus.Metric, 8)
		s.Collect(all)
		return len(all)
	}
	if n := read() + read(); n != 0 || len(begun) != 1 {
		t.Errorf("%d are told, of %d looks", n, len(begun))
	}
	close(goes)
	for until := time.Now().Add(time.Minute); read() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("what was found in the end is not told")
		}
	}
}
