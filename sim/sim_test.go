package sim

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyval/messages"
	"keyval/storeactor/backup"
)

// hashEnv asks this test binary for the hash of one seed, and nothing else.
const hashEnv = "KEYVAL_SIM_HASH_OF"

func TestMain(m *testing.M) {
	if seed, err := strconv.ParseUint(os.Getenv(hashEnv), 10, 64); err == nil {
		os.Stdout.WriteString(Run(Options{Seed: seed, Faults: true, Duration: 5 * time.Second}).Hash)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSameSeedSameTrace: in one process, in another, on one processor and with a
// trace being written.
func TestSameSeedSameTrace(t *testing.T) {
	hashes := map[string]uint64{}
	for seed := range uint64(6) {
		options := Options{Seed: seed, Faults: true, Duration: 5 * time.Second}
		first := Run(options)
		if first.Steps < 100 {
			t.Errorf("seed %d took %d steps only", seed, first.Steps)
		}
		var text bytes.Buffer
		options.Trace = &text
		if again := Run(options); again.Hash != first.Hash || again.Steps != first.Steps {
			t.Errorf("seed %d: hash %s in %d steps, then %s in %d", seed, first.Hash, first.Steps, again.Hash, again.Steps)
		}
		if lines := uint64(strings.Count(text.String(), "\n")); lines < first.Steps {
			t.Errorf("seed %d: a trace of %d lines for %d steps", seed, lines, first.Steps)
		}
		for _, processors := range []string{"1", "4"} {
			if other := hashElsewhere(t, seed, processors); other != first.Hash {
				t.Errorf("seed %d: hash %s here, %s in a process with GOMAXPROCS=%s", seed, first.Hash, other, processors)
			}
		}
		if twin, met := hashes[first.Hash]; met {
			t.Errorf("seeds %d and %d have the same trace", twin, seed)
		}
		hashes[first.Hash] = seed
	}
}

func hashElsewhere(t *testing.T, seed uint64, processors string) string {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), hashEnv+"="+strconv.FormatUint(seed, 10), "GOMAXPROCS="+processors)
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestFairWorld: where nothing goes wrong, every operation succeeds.
func TestFairWorld(t *testing.T) {
	for nodes := 1; nodes <= 7; nodes += 2 {
		r := Run(Options{Seed: uint64(nodes), Nodes: nodes, Duration: 3 * time.Second})
		if r.Violation != nil || r.Nodes != nodes || r.Asked == 0 || r.Known != r.Asked {
			t.Errorf("%d nodes:\n%s", nodes, r)
		}
	}
}

// TestSwarm plays seeds with faults: KEYVAL_SEEDS of them (60; 10 with -short),
// from KEYVAL_SEED on.
func TestSwarm(t *testing.T) {
	count, first := uint64(60), uint64(1)
	if testing.Short() {
		count = 10
	}
	number(t, "KEYVAL_SEEDS", &count)
	number(t, "KEYVAL_SEED", &first)
	coverage := map[string]uint64{}
	var steps, asked, known uint64
	var simulated time.Duration
	installing, installs, interrupted := 0, 0, 0
	for seed := first; seed < first+count; seed++ {
		r := Run(Options{Seed: seed, Faults: true})
		if r.Violation != nil {
			t.Errorf("%s", r)
		}
		for cell, n := range r.Coverage {
			coverage[cell] += n
		}
		steps, asked, known = steps+r.Steps, asked+uint64(r.Asked), known+uint64(r.Known)
		simulated += r.SimTime
		installs, interrupted = installs+r.Installs, interrupted+r.Interrupted
		if r.Installs > 0 {
			installing++
		}
	}
	missed := slices.DeleteFunc(Cells(), func(cell string) bool { return coverage[cell] > 0 })
	t.Logf("%d seeds, %v simulated, %d steps, %d of %d operations certain; %d snapshots installed in %d of the runs, %d crashes amid one; cells never hit: %v",
		count, simulated.Round(time.Second), steps, known, asked, installs, installing, interrupted, missed)
	t.Logf("%d backups were made, %d of them increments, and %d clusters were restored from one", coverage[cellBackup], coverage[cellIncrement], coverage[cellRestore])
	t.Logf("what fell upon steps of operations:\n%s", blowTable(coverage))
	if count >= 50 && uint64(installing)*3 < count {
		t.Errorf("%d of %d runs installed a snapshot: followers hardly ever need one", installing, count)
	}
	if known*2 < asked {
		t.Errorf("%d of %d operations were certain: the swarm does nothing but break", known, asked)
	}
	if count >= 1000 && len(missed) > 0 {
		t.Errorf("%d seeds never hit %v", count, missed)
	}
}

// TestRevocations plays only seeds in which roles are given and taken while clients write and
// read, and a thief is after their sessions: KEYVAL_SEEDS of them (10), from KEYVAL_SEED on.
func TestRevocations(t *testing.T) {
	count, seed := uint64(10), uint64(1)
	number(t, "KEYVAL_SEEDS", &count)
	number(t, "KEYVAL_SEED", &seed)
	coverage, first, steps := map[string]uint64{}, seed, uint64(0)
	for played := uint64(0); played < count; seed++ {
		o, s := Options{Seed: seed, Faults: true}, swarm{}
		if s.drawRights(stream(seed, "who may"), o); s.rights == 0 {
			continue
		}
		played++
		r := Run(o)
		if r.Violation != nil {
			t.Errorf("%s", r)
		}
		steps += r.Steps
		for cell, n := range r.Coverage {
			coverage[cell] += n
		}
	}
	t.Logf("%d seeds of %d to %d, %d steps: %d changes of rights; of writes %d had a role and %d were denied in the log, %d reads were denied; a thief attached %d times and was denied %d writes",
		count, first, seed-1, steps, coverage[cellGiven], coverage[cellRightful], coverage[cellDenied], coverage[cellUnread], coverage[cellUntaken], coverage[cellUnstolen])
	t.Logf("%d nodes were invited and %d invitations removed; strangers took %d, %d of them again and again, and dropped %d; a second taker came %d times, and %d came for what was gone or over",
		coverage[cellInvited], coverage[cellUninvited], coverage[cellTaken], coverage[cellRetaken], coverage[cellDropped], coverage[cellTakenOnce], coverage[cellGone])
	t.Logf("tokens: %d let in, %d expired, %d of a password that was changed, %d of a removed member, %d of no use otherwise",
		coverage[cellTokenGood], coverage[cellTokenExpired], coverage[cellTokenPassword], coverage[cellTokenMember], coverage[cellTokenElse])
	for _, cell := range []string{cellGiven, cellRightful, cellDenied, cellUnread, cellUntaken, cellUnstolen,
		cellInvited, cellUninvited, cellTaken, cellTakenOnce, cellRetaken, cellDropped, cellGone,
		cellTokenGood, cellTokenExpired, cellTokenPassword, cellTokenElse} {
		if coverage[cell] == 0 {
			t.Errorf("nothing of %s", cell)
		}
	}
}

// A restored cluster is held against the history of the one that was backed up: if that had another
// value, the checkers see it.
func TestARestoredClusterIsComparedWithTheOldOne(t *testing.T) {
	door.Lock()
	defer door.Unlock()
	for seed, seen := uint64(1), 0; seen < 3; seed++ {
		if seed > 200 {
			t.Fatalf("%d of 200 seeds have a backup with keys", seen)
		}
		undo := quicken(seed)
		r := newRun(Options{Seed: seed, Faults: true, Duration: 3 * time.Second})
		r.play()
		if from := r.survivor(); from != nil && len(from.before.keys) > 0 {
			o := r.options.next(from)
			o.Faults, o.Duration = false, 50*time.Millisecond
			sound := newRun(o)
			if sound.play(); sound.world.failure != nil {
				t.Errorf("seed %d: %v", seed, sound.world.failure)
			}
			c, err := backup.Read(bytes.NewReader(from.content), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, all := range from.before.versions {
				for i := range all {
					all[i].value += "altered"
				}
			}
			if other := newRun(o); c.Keys > 2 { // clients may write over some at once
				seen++
				if other.play(); other.world.failure == nil {
					t.Errorf("seed %d: nobody sees that values differ", seed)
				}
			}
		}
		undo()
	}
}

// blowTable is a line for each step of an operation: how often it came, and how often each harm
// fell upon it.
func blowTable(coverage map[string]uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s %6s", "", "steps")
	for h := range harms {
		fmt.Fprintf(&b, " %14s", h)
	}
	for kind := messages.OperationKind_ADD; kind <= messages.OperationKind_REPLACE; kind++ {
		for _, phase := range stepsOf[kind] {
			step := fmt.Sprintf("%s %s", kind, phase)
			fmt.Fprintf(&b, "\n%-22s %6d", step, coverage[step])
			for h := range harms {
				if n := coverage[stepBlow{kind, phase, h}.String()]; h.meets(kind, phase) {
					fmt.Fprintf(&b, " %14d", n)
				} else {
					fmt.Fprintf(&b, " %14s", "")
				}
			}
		}
	}
	return b.String()
}

// BenchmarkLightLoad is simulated time by wall time, with three nodes, 10 operations
// a second, and faults.
func BenchmarkLightLoad(b *testing.B) {
	var simulated, wall time.Duration
	var steps uint64
	busy := cpuTime()
	for seed := uint64(1); b.Loop(); seed++ {
		r := Run(Options{Seed: seed, Nodes: 3, Faults: true, Rate: 10, Duration: 5 * time.Minute})
		if r.Violation != nil {
			b.Fatal(r)
		}
		simulated, wall, steps = simulated+r.SimTime, wall+r.WallTime, steps+r.Steps
	}
	b.ReportMetric(simulated.Seconds()/wall.Seconds(), "simulated-h/h")
	b.ReportMetric(float64(steps)/simulated.Seconds(), "steps/simulated-s")
	b.ReportMetric(float64(steps)/wall.Seconds(), "steps/s")
	b.ReportMetric(simulated.Seconds()/(cpuTime()-busy).Seconds(), "simulated-h/cpu-h")
}

// cpuTime is what this process has used, of all processors.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func number(t *testing.T, name string, n *uint64) {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, text)
	}
	*n = v
}
