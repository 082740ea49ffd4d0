package main

import (
	"bytes"
	"context"
	crypto "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The load comes from a process of its own, so that its CPU is its own and
// neither system's client pays for the other's garbage. It is this program with
// one argument; the job comes on its stdin and the result goes to its stdout.
const loaderArg = "load"

const (
	opPut   = "put"
	opGet   = "get"
	opMixed = "mixed"
)

// readyMax is how long a fresh cluster may take until it serves.
const readyMax = 30 * time.Second

// job is one measurement.
type job struct {
	Store     string
	Endpoints []string
	Pids      []int // of the nodes, in the order of the endpoints
	Busy      []int // pids of busy loops: with any it is a siege
	Op        string
	Clients   int
	Keys      int
	ValueSize int
	Warmup    time.Duration
	Duration  time.Duration
	Way       way // of etcd
	Profile   string
}

// result is what came of a job.
type result struct {
	Seconds    float64 `json:"seconds"`
	Operations int     `json:"operations"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	PerSecond  float64 `json:"operations_per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`

	// CPU microseconds per operation.
	CPU      float64 `json:"cpu_us"`
	Leader   float64 `json:"leader_cpu_us"`
	Follower float64 `json:"follower_cpu_us"` // of each
	Client   float64 `json:"client_cpu_us"`

	Others      float64 `json:"others_cores"` // cores that processes of others kept busy
	LeaderMoved bool    `json:"leader_moved"`
	Siege       *siege  `json:"siege,omitempty"` // only with busy loops
}

// runLoader runs a job in a process of its own.
func runLoader(ctx context.Context, binary string, j job) (result, error) {
	var r result
	in, err := json.Marshal(j)
	if err != nil {
		return r, err
	}
	c := exec.CommandContext(ctx, binary, loaderArg)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = stopMax
	c.SysProcAttr = childAttributes()
	c.Stdin, c.Stderr = bytes.NewReader(in), os.Stderr
	runtime.LockOSThread() // see nodes.start
	defer runtime.UnlockOSThread()
	out, err := c.Output()
	if ctx.Err() != nil {
		return r, errors.New("interrupted")
	}
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

func loaderMain() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		return err
	}
	r, err := load(ctx, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// workload is what all workers of a job share.
type workload struct {
	job
	store  store
	keys   []text
	values []text

	measuring atomic.Bool
	stopped   atomic.Bool
	stops     stops
	workers   []worker
}

// worker is one closed-loop client.
type worker struct {
	took  []time.Duration // of the operations that ended while it was measured
	fails int
	first error
	_     [64]byte // workers do not share cache lines
}

func load(ctx context.Context, j job) (result, error) {
	w := &workload{job: j, workers: make([]worker, j.Clients)}
	for i := range j.Keys {
		w.keys = append(w.keys, textOf(fmt.Sprintf("bench/%012d", i)))
	}
	for range 256 {
		value := make([]byte, j.ValueSize)
		_, _ = crypto.Read(value) // never fails
		w.values = append(w.values, textOf(string(value)))
	}
	if err := w.prepare(ctx); err != nil {
		return result{}, err
	}
	defer w.store.close()
	before, err := w.leader(ctx)
	if err != nil {
		return result{}, err
	}
	r, usage, err := w.measure(ctx)
	if err != nil {
		return r, err
	}
	after, err := w.leader(ctx)
	if err != nil {
		return r, err
	}
	r.LeaderMoved = after != before
	r.settle(usage, after)
	return r, nil
}

// prepare waits until the cluster serves, and writes every key if some are read.
func (w *workload) prepare(ctx context.Context) (err error) {
	until, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for {
		if w.store, err = open(ctx, w.job); err == nil {
			if err = w.try(until); err == nil {
				break
			}
			w.store.close()
		}
		select {
		case <-until.Done():
			return fmt.Errorf("the cluster does not serve: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if w.Op == opPut {
		return nil
	}
	var next atomic.Int64
	failed := make(chan error, 64)
	for i := range cap(failed) {
		go func() {
			for {
				n := int(next.Add(1) - 1)
				if n >= len(w.keys) {
					failed <- nil
					return
				}
				if err := w.store.put(ctx, i, w.keys[n], w.values[n%len(w.values)]); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	return err
}

func (w *workload) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return w.store.put(ctx, 0, w.keys[0], w.values[0])
}

// measure loads the cluster and takes the figures between warm-up and end.
func (w *workload) measure(ctx context.Context) (result, usage, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	for i := range w.workers {
		all.Go(func() { w.work(ctx, i) })
	}
	pause(ctx, w.Warmup)
	stopProfile := w.startProfile()
	before, err := readUsage(w.Pids, w.Busy)
	var seen *watch
	if len(w.Busy) > 0 && err == nil {
		seen, err = startWatch(ctx, w.job)
	}
	started := time.Now()
	w.stops.began = started
	w.measuring.Store(true)
	if err == nil {
		pause(ctx, w.Duration)
	}
	w.measuring.Store(false)
	w.stops.answered()
	elapsed := time.Since(started)
	found := seen.end()
	after, err2 := readUsage(w.Pids, w.Busy)
	stopProfile()
	interrupted := ctx.Err()
	w.stopped.Store(true)
	all.Wait()
	r := w.sum(elapsed)
	if found != nil {
		found.LongestStop = time.Duration(w.stops.longest.Load()).Seconds()
		r.Siege = found
	}
	return r, after.since(before), errors.Join(err, err2, interrupted)
}

// leader is where the leader is. Under siege there may be none for a moment.
func (w *workload) leader(ctx context.Context) (at int, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for {
		if at, err = w.store.leader(ctx); err == nil || len(w.Busy) == 0 || ctx.Err() != nil {
			return at, err
		}
		pause(ctx, lookEvery)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// work does one operation after the other.
func (w *workload) work(ctx context.Context, i int) {
	me := &w.workers[i]
	random := rand.New(rand.NewPCG(uint64(i), 1))
	for !w.stopped.Load() && ctx.Err() == nil {
		key := w.keys[random.IntN(len(w.keys))]
		read := w.Op == opGet || w.Op == opMixed && random.IntN(2) == 0
		started := time.Now()
		within, done := w.within(ctx)
		var err error
		if read {
			err = w.store.get(within, i, key)
		} else {
			err = w.store.put(within, i, key, w.values[random.IntN(len(w.values))])
		}
		took := time.Since(started)
		done()
		switch {
		case err != nil && ctx.Err() == nil:
			me.fails++
			me.first = err
			pause(ctx, 10*time.Millisecond)
		case err == nil && w.measuring.Load():
			me.took = append(me.took, took)
			w.stops.answered()
		}
	}
}

// within bounds an operation under siege: the clients' own bounds differ.
func (w *workload) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if len(w.Busy) == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, operationMax)
}

// sum puts the workers' figures together.
func (w *workload) sum(elapsed time.Duration) result {
	var took []time.Duration
	r := result{Seconds: elapsed.Seconds()}
	for i := range w.workers {
		took = append(took, w.workers[i].took...)
		r.Errors += w.workers[i].fails
		if r.FirstError == "" && w.workers[i].first != nil {
			r.FirstError = w.workers[i].first.Error()
		}
	}
	slices.Sort(took)
	at := func(share float64) float64 {
		if len(took) == 0 {
			return 0
		}
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	r.Operations, r.PerSecond = len(took), float64(len(took))/elapsed.Seconds()
	r.P50, r.P99, r.P999 = at(0.5), at(0.99), at(0.999)
	return r
}

// settle divides the CPU that was used by what was done with it.
func (r *result) settle(u usage, leader int) {
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(max(1, r.Operations)) }
	total := u.self
	for i, n := range u.nodes {
		total += n
		if i == leader {
			r.Leader = per(n)
		} else {
			r.Follower += per(n) / float64(len(u.nodes)-1)
		}
	}
	r.Client, r.CPU = per(u.self), per(total)
	r.Others = max(0, (u.machine-u.busy-total).Seconds()/r.Seconds)
}

// startProfile profiles the client of KeyVal, if that is wanted.
func (w *workload) startProfile() (stop func()) {
	if w.Profile == "" || w.Store != storeKeyVal {
		return func() {}
	}
	name := filepath.Join(w.Profile, fmt.Sprintf("client-%s-%d", w.Op, w.Clients))
	cpu, err := os.Create(name + ".cpu")
	if err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load: no profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		_ = cpu.Close()
		if f, err := os.Create(name + ".allocs"); err == nil {
			_ = pprof.Lookup("allocs").WriteTo(f, 0)
			_ = f.Close()
		}
	}
}
