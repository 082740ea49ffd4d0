package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// benchJSON is what a bench found.
type benchJSON struct {
	Clients     int     `json:"clients"`
	Connections int     `json:"connections"`
	DurationMS  float64 `json:"duration_ms"` // that was measured
	WarmupMS    float64 `json:"warmup_ms"`
	ValueBytes  int     `json:"value_bytes"`
	KeyBytes    int     `json:"key_bytes"`
	Keys        uint64  `json:"keys"`
	Prefix      string  `json:"prefix"`
	ReadRatio   float64 `json:"read_ratio"`
	Consistency string  `json:"consistency"`
	Rate        float64 `json:"rate_per_s"` // that was asked for; 0: as many as are answered

	Answers    float64           `json:"operations_per_s"`
	Writes     kindJSON          `json:"writes"`
	Reads      kindJSON          `json:"reads"`
	Missing    uint64            `json:"reads_of_missing_keys"`
	Errors     map[string]uint64 `json:"errors"`      // by code
	NotStarted uint64            `json:"not_started"` // with a rate: due, and never begun
	CPU        cpuJSON           `json:"cpu_us_per_operation"`
	Cleanup    string            `json:"cleanup"` // the command that deletes the keys
}

// kindJSON is one kind of operation. Latencies are in microseconds.
type kindJSON struct {
	Count       int64            `json:"count"` // that began in the measured time and succeeded
	Answers     uint64           `json:"answers"`
	Rate        float64          `json:"operations_per_s"`
	Mean        float64          `json:"mean_us"`
	Min         int64            `json:"min_us"`
	P50         int64            `json:"p50_us"`
	P90         int64            `json:"p90_us"`
	P99         int64            `json:"p99_us"`
	P999        int64            `json:"p99_9_us"`
	P9999       int64            `json:"p99_99_us"`
	Max         int64            `json:"max_us"`
	Percentiles []percentileJSON `json:"percentiles"`
}

type percentileJSON struct {
	Percentile float64 `json:"percentile"`
	Count      int64   `json:"count"`
	Latency    int64   `json:"us"`
}

// cpuJSON is CPU time an operation; null: it could not be measured.
type cpuJSON struct {
	Client        *float64 `json:"client"`
	Nodes         *float64 `json:"nodes"` // of all that were measured together
	NodesMeasured int      `json:"nodes_measured"`
	NodesAll      int      `json:"nodes_all"`
}

func (r benchJSON) answers() uint64 { return r.Writes.Answers + r.Reads.Answers }
func (r benchJSON) window() time.Duration {
	return time.Duration(r.DurationMS * float64(time.Millisecond))
}

// result sums up. The clients must have ended.
func (m *meter) result(plan benchPlan, spent cpuSpent) benchJSON {
	window := m.closed.Sub(m.opened)
	r := benchJSON{
		Clients: plan.clients, Connections: plan.connections, DurationMS: inMillis(window), WarmupMS: inMillis(plan.warmup),
		ValueBytes: plan.valueSize, KeyBytes: plan.keySize, Keys: plan.keys, Prefix: plan.prefix, ReadRatio: plan.readRatio,
		Consistency: "linearizable", Rate: plan.rate,
		Writes: kindOf(m.latency[writing], m.answers[writing], window), Reads: kindOf(m.latency[reading], m.answers[reading], window),
		Missing: m.missing, Errors: map[string]uint64{},
		CPU: cpuJSON{NodesMeasured: spent.nodesKnown, NodesAll: spent.nodesAll},
	}
	if plan.stale {
		r.Consistency = "stale"
	}
	begun := uint64(r.Writes.Count + r.Reads.Count)
	for code, n := range m.errors {
		r.Errors[code.String()] = n
		begun += n
	}
	if due := uint64(plan.rate * window.Seconds()); due > begun+1 { // the window's ends may cut one
		r.NotStarted = due - begun
	}
	r.Answers = r.Writes.Rate + r.Reads.Rate
	each := func(d time.Duration) *float64 {
		micros := float64(d.Microseconds()) / float64(r.answers())
		return &micros
	}
	if spent.clientKnown && r.answers() > 0 {
		r.CPU.Client = each(spent.client)
	}
	if spent.nodesKnown > 0 && r.answers() > 0 {
		r.CPU.Nodes = each(spent.nodes)
	}
	return r
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func kindOf(h *hdrhistogram.Histogram, answers uint64, window time.Duration) kindJSON {
	k := kindJSON{
		Count: h.TotalCount(), Answers: answers, Rate: float64(answers) / max(window.Seconds(), 1e-9), Percentiles: []percentileJSON{},
	}
	if k.Count == 0 {
		return k
	}
	k.Mean, k.Min, k.Max = h.Mean(), h.Min(), h.Max()
	k.P50, k.P90, k.P99 = h.ValueAtQuantile(50), h.ValueAtQuantile(90), h.ValueAtQuantile(99)
	k.P999, k.P9999 = h.ValueAtQuantile(99.9), h.ValueAtQuantile(99.99)
	for _, b := range h.CumulativeDistribution() {
		k.Percentiles = append(k.Percentiles, percentileJSON{b.Quantile, b.Count, b.ValueAt})
	}
	return k
}

func (c *Call) printBench(plan benchPlan, r benchJSON, m *meter) error {
	switch c.Format {
	case Simple:
		c.printSimple(benchCells(r, func(n int64) string { return strconv.FormatInt(n, 10) }))
	case Table:
		c.benchTable(plan, r, m)
	default:
		return c.printJSON(r)
	}
	return nil
}

// benchCells is a row for each kind of operation that there was.
func benchCells(r benchJSON, latency func(int64) string) [][]string {
	var cells [][]string
	for _, k := range []struct {
		name string
		kindJSON
	}{{"writes", r.Writes}, {"reads", r.Reads}} {
		if k.Count > 0 || k.Answers > 0 {
			cells = append(cells, []string{k.name, strconv.FormatInt(k.Count, 10), fmt.Sprintf("%.0f", k.Rate),
				latency(k.P50), latency(k.P99), latency(k.P999), latency(k.Max)})
		}
	}
	return cells
}

func (c *Call) benchTable(plan benchPlan, r benchJSON, m *meter) {
	line := func(format string, args ...any) { fmt.Fprintf(c.Stdout, format+"\n", args...) }
	how := "as fast as it goes"
	if plan.rate > 0 {
		how = fmt.Sprintf("%g operations a second, timed from when they were due", plan.rate)
	}
	line("%s over %s, %v after %v of warm-up, %s", plural(uint64(plan.clients), "client"), plural(uint64(plan.connections), "connection"),
		r.window().Round(time.Millisecond), plan.warmup, how)
	line("%d keys of %d B, values of %d B, %g%% reads (%s)\n", plan.keys, plan.keySize, plan.valueSize, plan.readRatio*100, r.Consistency)
	c.printTable([]string{"", "COUNT", "OPS/S", "P50", "P99", "P99.9", "MAX"}, benchCells(r, inUnits))
	line("\nErrors: %s", errorWords(r.Errors))
	if r.Missing > 0 {
		line("Reads of keys that were not there: %d", r.Missing)
	}
	if r.NotStarted > 0 {
		line("The cluster did not keep up: %d operations were due and never began", r.NotStarted)
	}
	line("CPU per operation: %s", r.CPU.words())
	for kind, name := range []string{"writes", "reads"} {
		if h := m.latency[kind]; h.TotalCount() > 0 {
			line("\nLatency of %s:", name)
			for _, b := range latencyBars(h) {
				line("%s", strings.TrimRight(fmt.Sprintf("  up to %6s  %6.2f%%  %s", inUnits(b.upTo), b.share*100, strings.Repeat("#", int(b.share*barWidth+0.5))), " "))
			}
		}
	}
	if r.Cleanup != "" {
		c.note("The keys stay. To delete them: %s", r.Cleanup)
	}
}

func errorWords(errors map[string]uint64) string {
	if len(errors) == 0 {
		return "none"
	}
	codes := slices.SortedFunc(maps.Keys(errors), func(a, b string) int {
		return cmp.Or(cmp.Compare(errors[b], errors[a]), cmp.Compare(a, b))
	})
	for i, code := range codes {
		codes[i] = fmt.Sprintf("%d %s", errors[code], code)
	}
	return strings.Join(codes, ", ")
}

func (c cpuJSON) words() string {
	client, nodes := "client not known", "nodes not known (none was found on this machine)"
	if c.Client != nil {
		client = fmt.Sprintf("client %.0f us", *c.Client)
	}
	switch {
	case c.Nodes == nil:
	case c.NodesMeasured < c.NodesAll:
		nodes = fmt.Sprintf("nodes %.0f us (only %d of %d were measured, on this machine)", *c.Nodes, c.NodesMeasured, c.NodesAll)
	default:
		nodes = fmt.Sprintf("nodes %.0f us (%s together)", *c.Nodes, plural(uint64(c.NodesAll), "node"))
	}
	return client + ", " + nodes
}

const barWidth = 60 // columns of all operations

// latencyBar is the share of operations that took longer than the bar before.
type latencyBar struct {
	upTo  int64 // microseconds
	share float64
}

// latencyBars sorts latencies into bars of 1, 2, 5, 10, ... from the first that is
// not empty to the last.
func latencyBars(h *hdrhistogram.Histogram) []latencyBar {
	var bars []latencyBar
	upTo, steps := int64(1), 0
	next := func() {
		upTo = upTo * []int64{2, 5, 2}[steps%3] / []int64{1, 2, 1}[steps%3]
		steps++
	}
	counts := int64(0)
	shut := func() {
		if counts > 0 || len(bars) > 0 {
			bars = append(bars, latencyBar{upTo, float64(counts) / float64(h.TotalCount())})
		}
		counts = 0
		next()
	}
	for _, b := range h.Distribution() {
		if b.Count == 0 {
			continue
		}
		for b.From > upTo {
			shut()
		}
		counts += b.Count
	}
	shut()
	return bars
}

// inUnits is microseconds for people, three digits exact.
func inUnits(micros int64) string {
	switch {
	case micros < 1000:
		return fmt.Sprintf("%dus", micros)
	case micros < 1_000_000:
		return fmt.Sprintf("%.3gms", float64(micros)/1e3)
	case micros < 1_000_000_000:
		return fmt.Sprintf("%.3gs", float64(micros)/1e6)
	}
	return fmt.Sprintf("%ds", micros/1_000_000)
}
