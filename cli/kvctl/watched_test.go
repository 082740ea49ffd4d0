//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyval/actors/client"
)

// watchedEnv is for how many rounds TestCostOfBeingWatched measures each way.
const watchedEnv = "KEYVAL_WATCHED"

const (
	costRound   = 1500 * time.Millisecond
	costWarmUp  = 200 * time.Millisecond
	costRounds  = 10 // of one cluster each; then all are made anew
	costClients = 64
	costKeys    = 20_000
)

// uncounted are the changes by which a build counts and times nothing.
var uncounted = []change{
	{"actors/seam/production/production.go", "WallMS: wall, Nanos: nanos}", "WallMS: wall}"},
	{"actors/seam/production/production.go", "	nanos := func() int64 { return int64(time.Since(begun)) }\n", "	_ = begun\n"},
	{"actors/meters.go", "	operation, code := e.operation()\n", "	if ns < 1<<62 {\n		return\n	}\n	operation, code := e.operation()\n"},
	{"actors/telemetry/telemetry.go", "	return registered(meter, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))\n", "	return noCounter{registered(meter, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))}\n"},
	{"actors/telemetry/telemetry.go", "	return registered(meter, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))\n", "	return noGauge{registered(meter, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))}\n"},
	{"actors/telemetry/telemetry.go", "	return registered(meter, prometheus.NewHistogram(prometheus.HistogramOpts{\n		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, bounds),\n	}))\n",
		"	return noHistogram{registered(meter, prometheus.NewHistogram(prometheus.HistogramOpts{\n		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, bounds),\n	}))}\n"},
	{"actors/telemetry/telemetry.go", "func registered[", "type noCounter struct{ prometheus.Counter }\n\nfunc (noCounter) Inc()        {}\nfunc (noCounter) Add(float64) {}\n\n" +
		"type noGauge struct{ prometheus.Gauge }\n\nfunc (noGauge) Set(float64) {}\n\ntype noHistogram struct{ prometheus.Histogram }\n\nfunc (noHistogram) Observe(float64) {}\n\nfunc registered["},
}

// arm is a way to run a cluster, and what its puts have cost.
type arm struct {
	name    string
	binary  string // empty: this build
	flags   []string
	scraped bool

	p    *processes
	pids []int
	to   *client.Client
	cpu  []float64 // us a put, of all three nodes, by round
}

// TestCostOfBeingWatched tells what counting, metrics that are read, and tracing cost of the nodes' CPU. Each
// way has a cluster; they take turns in short rounds, in an order by chance, and each round is compared with that of
// the cluster that is not watched. A second one of those says how much is chance.
func TestCostOfBeingWatched(t *testing.T) {
	rounds, _ := strconv.Atoi(os.Getenv(watchedEnv))
	if rounds == 0 {
		t.Skipf("%s=60 is not set", watchedEnv)
	}
	collects := startCollector(t)
	tracing := []string{"--tracing-endpoint", "http://" + collects.address, "--tracing-ratio"}
	arms := []*arm{
		{name: "nothing is counted", binary: built(t, uncounted...)},
		{name: "the same, once more", binary: ""},
		{name: "metrics are counted", flags: nil},
		{name: "metrics are counted, and read once a second", flags: []string{"--metrics"}, scraped: true},
		{name: "1 % is traced", flags: append(slices.Clone(tracing), "0.01")},
	}
	arms[1].binary = arms[0].binary
	began := time.Now()
	for len(arms[0].cpu) < rounds {
		t.Run(fmt.Sprintf("from round %d", len(arms[0].cpu)+1), func(t *testing.T) {
			for _, a := range arms {
				a.start(t)
			}
			for range min(costRounds, rounds-len(arms[0].cpu)) {
				for _, i := range rand.Perm(len(arms)) {
					arms[i].round(t)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("%d rounds of %v, %d clients, in %v; load of the machine at the end: %s", rounds, costRound, costClients, time.Since(began).Round(time.Second), strings.TrimSpace(string(load)))
	for _, a := range arms {
		low, middle, high := against(a.cpu, arms[0].cpu)
		t.Logf("| %s | %.1f us | %+.1f %% | %+.1f to %+.1f %% |", a.name, median(a.cpu), middle, low, high)
	}
}

func (a *arm) start(t *testing.T) {
	t.Helper()
	if a.binary != "" {
		usual := binary
		binary = a.binary
		defer func() { binary = usual }()
	}
	a.p = devIn(t, filepath.Join(t.TempDir(), "cluster"), a.flags...)
	c := &watched{processes: a.p, t: t}
	a.pids = nil
	for _, pid := range c.pids() {
		a.pids = append(a.pids, pid)
	}
	a.to = a.p.connect(a.p.endpoints...)
	if !a.scraped {
		return
	}
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	for i := range a.p.endpoints {
		go func() {
			for every := time.NewTicker(time.Second); ctx.Err() == nil; <-every.C {
				if answer, err := http.Get("http://" + c.page(i) + "/metrics"); err == nil {
					_, _ = io.Copy(io.Discard, answer.Body) // whether it came is not what is measured
					answer.Body.Close()
				}
			}
		}()
	}
}

// spent is the CPU time of the nodes so far, of all their threads, as the scheduler counts it.
func (a *arm) spent(t *testing.T) (ns int64) {
	t.Helper()
	for _, pid := range a.pids {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, file := range files {
			text, err := os.ReadFile(file)
			first, _, _ := strings.Cut(string(text), " ")
			if n, wrong := strconv.ParseInt(first, 10, 64); err == nil && wrong == nil {
				ns += n
			}
		}
	}
	return ns
}

// round puts for a while.
func (a *arm) round(t *testing.T) {
	t.Helper()
	var puts atomic.Int64
	var all sync.WaitGroup
	ctx, end := context.WithCancel(context.Background())
	value := make([]byte, 256)
	for range costClients {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := a.to.Put(ctx, fmt.Appendf(nil, "k/%08d", rand.IntN(costKeys)), value); err == nil {
					puts.Add(1)
				} else if ctx.Err() == nil {
					t.Errorf("put: %v", err)
					return
				}
			}
		})
	}
	time.Sleep(costWarmUp)
	before, from := a.spent(t), puts.Load()
	time.Sleep(costRound)
	took, done := a.spent(t)-before, puts.Load()-from
	end()
	all.Wait()
	if done == 0 {
		t.Fatalf("%s: no put came through", a.name)
	}
	a.cpu = append(a.cpu, float64(took)/1000/float64(done))
}

// TestCostOfARead tells what CPU a node spends on one reading of its metrics: what an idle cluster spends while they are
// read, less what it spends while they are not.
func TestCostOfARead(t *testing.T) {
	if os.Getenv(watchedEnv) == "" {
		t.Skipf("%s=60 is not set", watchedEnv)
	}
	const reads, span = 100, 2 * time.Second
	a := &arm{flags: []string{"--metrics"}}
	a.start(t)
	c := &watched{processes: a.p, t: t}
	read := func() {
		answer, err := http.Get("http://" + c.page(0) + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	var each []float64
	for range 15 {
		before := a.spent(t)
		time.Sleep(span)
		idle, from := a.spent(t)-before, a.spent(t)
		for range reads {
			read()
			time.Sleep(span / reads)
		}
		each = append(each, float64(a.spent(t)-from-idle)/reads/1e6)
	}
	slices.Sort(each)
	t.Logf("%.2f ms of CPU a reading of a node's metrics; between %.2f and %.2f in 13 of 15 tries", median(each), each[1], each[13])
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// against is by how many percent one is more than the other: the median of their rounds, and between what it lies in
// 95 of 100 draws of as many rounds, which are drawn by the clusters that they are of.
func against(one, other []float64) (low, middle, high float64) {
	var blocks [][]float64
	for i := range one {
		if i%costRounds == 0 {
			blocks = append(blocks, nil)
		}
		blocks[len(blocks)-1] = append(blocks[len(blocks)-1], 100*(one[i]/other[i]-1))
	}
	random := rand.New(rand.NewPCG(1, 2))
	var drawn []float64
	for range 2000 {
		var sample []float64
		for range blocks {
			block := blocks[random.IntN(len(blocks))]
			for range block {
				sample = append(sample, block[random.IntN(len(block))])
			}
		}
		drawn = append(drawn, median(sample))
	}
	slices.Sort(drawn)
	return drawn[len(drawn)/40], median(slices.Concat(blocks...)), drawn[len(drawn)-1-len(drawn)/40]
}

// TestAgainst: what differs by 3 % is told apart from what does not, whatever the noise of rounds is that both share.
func TestAgainst(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var base, same, more []float64
	for range 60 {
		noise := 50 + 30*random.Float64() // of the machine, in each round
		own := func() float64 { return 1 + 0.04*(random.Float64()-0.5) }
		base, same, more = append(base, noise*own()), append(same, noise*own()), append(more, 1.03*noise*own())
	}
	if low, middle, high := against(same, base); low > 0 || high < 0 || middle < -1 || middle > 1 {
		t.Errorf("the same: %.2f in %.2f to %.2f", middle, low, high)
	}
	if low, middle, high := against(more, base); low < 1 || high > 5 || middle < 2 || middle > 4 {
		t.Errorf("3 %% more: %.2f in %.2f to %.2f", middle, low, high)
	}
}
