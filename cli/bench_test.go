package cli

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyval/messages"
)

// quickBench is a bench of the fake that lasts a moment.
func quickBench(t *testing.T, r run, argv ...string) (benchJSON, outcome) {
	t.Helper()
	got := r.kvctl(t, append([]string{"bench", "--json", "--duration", "60ms", "--warmup", "5ms", "--clients", "4", "--keys", "50"}, argv...)...)
	var result benchJSON
	if err := json.Unmarshal([]byte(got.out), &result); err != nil && got.out != "" {
		t.Fatalf("%v: %s", err, got.out)
	}
	return result, got
}

func TestBenchWritesUnderItsPrefix(t *testing.T) {
	r := run{cluster: newFake()}
	result, got := quickBench(t, r, "--value-size", "100", "--key-size", "20", "--prefix", "b/", "--connections", "3")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	if result.Writes.Count == 0 || result.Reads.Count != 0 || result.Connections != 3 || len(result.Errors) != 0 {
		t.Errorf("%s", got.out)
	}
	if result.Cleanup != "/opt/kvctl delete --prefix b/" {
		t.Errorf("cleanup %q", result.Cleanup)
	}
	if r.cluster.connections.Load() < 3 {
		t.Errorf("%d connections", r.cluster.connections.Load())
	}
	for key, item := range r.cluster.items {
		if len(key) != 20 || !strings.HasPrefix(key, "b/000") || len(item.Value) != 100 {
			t.Fatalf("%q has %d bytes", key, len(item.Value))
		}
	}
	if n := len(r.cluster.items); n == 0 || n > 50 {
		t.Errorf("%d keys", n)
	}
}

func TestBenchReadsWhatItWroteBefore(t *testing.T) {
	r := run{cluster: newFake()}
	result, got := quickBench(t, r, "--read-ratio", "1", "--consistency", "stale")
	if got.code != 0 || result.Writes.Count != 0 || result.Reads.Count == 0 || result.Missing != 0 || len(r.cluster.items) != 50 {
		t.Errorf("%d keys: %s%s", len(r.cluster.items), got.out, got.stderr)
	}
	r = run{cluster: newFake()}
	result, got = quickBench(t, r, "--read-ratio", "1", "--fill=false")
	if result.Missing != result.Reads.Answers || result.Missing == 0 || len(r.cluster.items) != 0 || result.Cleanup != "" {
		t.Errorf("%s%s", got.out, got.stderr)
	}
	both, got := quickBench(t, r, "--read-ratio", "0.5")
	if both.Writes.Count == 0 || both.Reads.Count == 0 {
		t.Errorf("%s", got.out)
	}
}

func TestBenchForPeople(t *testing.T) {
	r := run{cluster: newFake()}
	got := r.kvctl(t, "bench", "--duration", "50ms", "--warmup", "0s", "--clients", "2")
	for _, want := range []string{
		"2 clients over 1 connection, ", " of warm-up, as fast as it goes\n10000 keys of 16 B, values of 256 B, 0% reads (linearizable)\n",
		"P99.9", "\nwrites ", "\nErrors: none\nCPU per operation: client ", ", nodes not known", "\nLatency of writes:\n  up to ",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in %s", want, got.out)
		}
	}
	if got.code != 0 || got.stderr != "The keys stay. To delete them: /opt/kvctl delete --prefix bench/\n" {
		t.Errorf("%+v", got)
	}
	simple := r.kvctl(t, "bench", "--duration", "20ms", "-o", "simple", "--progress", "none")
	if fields := strings.Split(simple.out, "\t"); len(fields) != 7 || fields[0] != "writes" {
		t.Errorf("%q", simple.out)
	}
}

func TestBenchOfACrippledCluster(t *testing.T) {
	r := run{cluster: newFake()}
	r.cluster.down = strings.Split(defaultEndpoints, ",")
	if _, got := quickBench(t, r); got.code != 5 || got.out != "" {
		t.Errorf("%+v", got)
	}
	// Some fail: they are counted. All fail: that is an error.
	r = run{cluster: newFake()}
	var puts atomic.Int64
	r.cluster.onPut = func() *messages.Error {
		if puts.Add(1)%2 == 0 {
			return messages.Errorf(messages.Code_BUSY, "busy")
		}
		return nil
	}
	if result, got := quickBench(t, r); got.code != 0 || result.Errors["BUSY"] == 0 || result.Writes.Count == 0 {
		t.Errorf("%s%s", got.out, got.stderr)
	}
	r.cluster.onPut = func() *messages.Error { return messages.Errorf(messages.Code_NO_LEADER, "nobody leads") }
	_, got := quickBench(t, r)
	if got.check(t, 5, ""); fields(t, got.stderr)["message"] != "no operation succeeded: nobody leads" {
		t.Errorf("%s", got.stderr)
	}
	if _, got := quickBench(t, r, "--fill"); got.code != 5 || got.out != "" {
		t.Errorf("%+v", got)
	}
}

// TestBenchTimesFromTheSchedule: a store that stands still for a moment delays all
// that was due meanwhile, and with a rate all of it shows.
func TestBenchTimesFromTheSchedule(t *testing.T) {
	const stall = 100 * time.Millisecond
	bench := func(argv ...string) benchJSON {
		r := run{cluster: newFake()}
		var begun atomic.Int64
		r.cluster.onPut = func() *messages.Error {
			if begun.Add(1) == 10 {
				time.Sleep(stall) // the stall itself: nothing waits for it
			}
			return nil
		}
		result, got := quickBench(t, r, append([]string{"--clients", "1", "--warmup", "0s", "--duration", "400ms"}, argv...)...)
		if got.code != 0 {
			t.Fatal(got.stderr)
		}
		return result
	}
	late := int64(stall/time.Microsecond) / 4
	if p90 := bench("--rate", "1000").Writes.P90; p90 < late {
		t.Errorf("with a rate p90 is %d us: the stall hides", p90)
	}
	if free := bench().Writes; free.Max < 4*late || free.P50 >= late {
		t.Errorf("without a rate p50 is %d us and max %d us", free.P50, free.Max)
	}
	if left := bench("--rate", "1000000000").NotStarted; left == 0 {
		t.Error("nobody can keep up with a billion a second")
	}
}

func TestBenchPlans(t *testing.T) {
	for _, line := range []string{
		"--clients 0", "--clients 100001", "--connections 0", "--clients 2 --connections 3", "--duration 0s", "--warmup -1s", "--value-size -1",
		"--value-size 524289", "--keys 0", "--prefix=", "--key-size 9", "--key-size 16385", "--read-ratio 1.1", "--read-ratio -0.1",
		"--read-ratio NaN", "--rate 0", "--rate -1", "--rate NaN", "--consistency x", "--progress x", "k",
	} {
		got := run{}.kvctl(t, append([]string{"bench"}, strings.Fields(line)...)...)
		if got.check(t, 2, ""); !strings.Contains(got.stderr, "\n  usage: kvctl bench [flags]\n") {
			t.Errorf("%s: %s", line, got.stderr)
		}
	}
	plan := benchPlan{prefix: "bench/", keySize: 10, keys: 10_000}
	if first, last := string(plan.key(0)), string(plan.key(9999)); first != "bench/0000" || last != "bench/9999" {
		t.Errorf("keys from %q to %q", first, last)
	}
}

// TestMeterWindow: latencies are of what began in the measured time, throughput is
// of what was answered in it.
func TestMeterWindow(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	m := newMeter()
	busy := messages.Errorf(messages.Code_BUSY, "busy")
	m.record(writing, at(0), at(90), nil)
	m.record(writing, at(0), at(90), busy)
	m.open(at(100))
	m.record(writing, at(95), at(105), nil)                                             // began before
	m.record(writing, at(95), at(105), busy)                                            // began before
	m.record(writing, at(110), at(150), nil)                                            // within
	m.record(reading, at(120), at(121), messages.Errorf(messages.Code_NOT_FOUND, "no")) // within, and an answer
	m.record(reading, at(120), at(130), busy)                                           // within
	if s := m.second(at(150)); s.Rate != 60 || s.Errors != 2 || s.ElapsedMS != 50 || s.P99 < 39_900 {
		t.Errorf("%+v", s)
	}
	m.shut(at(200))
	m.record(writing, at(190), at(1190), nil) // the slowest: answered after
	m.record(writing, at(205), at(206), nil)  // began after
	m.record(writing, at(205), at(206), busy) // began after
	r := m.result(benchPlan{rate: 100}, cpuSpent{client: 6 * time.Millisecond, clientKnown: true, nodes: 30 * time.Millisecond, nodesKnown: 2, nodesAll: 3})
	if r.Writes.Count != 2 || r.Writes.Answers != 2 || r.Reads.Count != 1 || r.Reads.Answers != 1 || r.Missing != 1 {
		t.Errorf("%+v", r)
	}
	if math.Abs(float64(r.Writes.Max)-1_000_000) > 1000 || math.Abs(r.Answers-30) > 1e-6 || r.NotStarted != 6 {
		t.Errorf("max %d us, %f a second, %d not started", r.Writes.Max, r.Answers, r.NotStarted)
	}
	if diff := cmp.Diff(map[string]uint64{"BUSY": 1}, r.Errors); diff != "" {
		t.Error(diff)
	}
	if *r.CPU.Client != 2000 || r.CPU.words() != "client 2000 us, nodes 10000 us (only 2 of 3 were measured, on this machine)" {
		t.Errorf("%s", r.CPU.words())
	}
	if n := len(r.Writes.Percentiles); n == 0 || r.Writes.Percentiles[n-1].Count != 2 {
		t.Errorf("%+v", r.Writes.Percentiles)
	}
}

func TestLatencyBars(t *testing.T) {
	h := newLatencies()
	for _, micros := range []int64{3, 5, 6, 40, 1_900_000} {
		if err := h.RecordValue(micros); err != nil {
			t.Fatal(err)
		}
	}
	bars := latencyBars(h)
	total := 0.0
	for _, b := range bars {
		total += b.share
	}
	if len(bars) != 18 || bars[0] != (latencyBar{5, 0.4}) || bars[1] != (latencyBar{10, 0.2}) || bars[17] != (latencyBar{2_000_000, 0.2}) || math.Abs(total-1) > 1e-9 {
		t.Errorf("%d bars, in all %f: %+v", len(bars), total, bars)
	}
}

func TestErrorWords(t *testing.T) {
	if got := errorWords(map[string]uint64{"BUSY": 3, "NO_LEADER": 7, "A": 3}); got != "7 NO_LEADER, 3 A, 3 BUSY" {
		t.Error(got)
	}
}

func TestInUnits(t *testing.T) {
	for micros, want := range map[int64]string{0: "0us", 999: "999us", 1000: "1ms", 1234: "1.23ms", 63_200: "63.2ms", 1_200_000: "1.2s", 3_600_000_000: "3600s"} {
		if got := inUnits(micros); got != want {
			t.Errorf("%d: %s, want %s", micros, got, want)
		}
	}
}

func TestCPUOfProcesses(t *testing.T) {
	if spent, ok := statCPU("42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20"); !ok || spent != 2*time.Second {
		t.Errorf("%v, %v", spent, ok)
	}
	for _, line := range []string{"", "42 (x) S 1", "42 (x) S 1 2 3 4 5 6 7 8 9 10 a b c d"} {
		if _, ok := statCPU(line); ok {
			t.Errorf("%q is understood", line)
		}
	}
	if _, ok := processCPU(os.Getpid()); !ok {
		t.Error("this process has no CPU time")
	}
	if spent, ok := ownCPU(); !ok || spent <= 0 {
		t.Errorf("%v, %v", spent, ok)
	}
	if listens(os.Getpid(), 1) {
		t.Error("this process listens at port 1")
	}
	before := cpuSpent{pids: map[int]time.Duration{1: time.Second, 2: time.Second}, nodesAll: 2}
	after := cpuSpent{pids: map[int]time.Duration{1: 3 * time.Second, 3: time.Second}, nodesAll: 2}
	if spent := after.since(before); spent.nodes != 2*time.Second || spent.nodesKnown != 1 || spent.nodesAll != 2 {
		t.Errorf("%+v", spent)
	}
}

// TestFillSaysHowFarItIs: one line, written over, with the time that is left.
func TestFillSaysHowFarItIs(t *testing.T) {
	for _, row := range []struct {
		filled, keys uint64
		after        time.Duration
		want         string
	}{
		{0, 1000, time.Second, "filling: 0 of 1000 keys, 0/s"},
		{250, 1000, time.Second, "filling: 250 of 1000 keys, 250/s, about 3 s left"},
		{1000, 600_000, 2 * time.Second, "filling: 1000 of 600000 keys, 500/s, about 19 min 58 s left"},
		{1000, 1000, 2 * time.Second, "filling: 1000 of 1000 keys, 500/s"},
	} {
		if got := fillingAt(row.filled, row.keys, row.after).String(); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
	slow := newFake()
	slow.onPut = func() *messages.Error { time.Sleep(time.Millisecond); return nil }
	got := run{cluster: slow, tty: true}.kvctl(t, "bench", "--fill", "--clients", "1", "--keys", "400", "--duration", "50ms", "--warmup", "0s")
	if got.code != 0 || !strings.Contains(got.stderr, "\rfilling: ") || strings.Contains(got.stderr, "left\n") || !strings.Contains(got.stderr, "✓ 400 keys are written (") {
		t.Errorf("%+v", got)
	}
}
