// Command bench measures KeyVal beside etcd: three nodes of each on this machine,
// the same closed-loop load through each one's own Go client, in alternating
// rounds, so that what else the machine does hits both.
//
//	go run . --clients 1,64,256,1000 --duration 10s --rounds 3 --ops put,get
//	go run . --busy 4 --clients 256 --duration 3m --rounds 1
//
// The second is a siege: busy loops take the cores meanwhile.
//
// It builds both servers from source, in the module beside it and in its own, and
// ends every process that it started, also when it is interrupted. See
// docs/PERFORMANCE.md for what the figures mean.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings are what one run is made of.
type settings struct {
	Clients         []int         `json:"clients"`
	Ops             []string      `json:"ops"`
	Rounds          int           `json:"rounds"`
	Duration        time.Duration `json:"duration_ns"`
	Warmup          time.Duration `json:"warmup_ns"`
	ValueSize       int           `json:"value_size_bytes"`
	Keys            int           `json:"keys"`
	EtcdConnections int           `json:"etcd_connections"` // 0: by trial
	EtcdSpread      bool          `json:"etcd_spread"`
	Busy            int           `json:"busy_loops"`
	Cores           int           `json:"cores"` // 0: all
	TLS             bool          `json:"tls"`

	dir     string // where the data directories are made
	kvctl   string // a binary to use instead of building one
	against string // another checkout of KeyVal to measure in etcd's place
	only    string // the one system to measure
	watched string // how KeyVal is watched in etcd's place; empty: it is not
	json    bool
	profile string
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == loaderArg {
		if err := loaderMain(); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == busyArg {
		busyLoop()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, s)
	}
	if err != nil && err != flag.ErrHelp {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	var s settings
	var clients, ops string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&clients, "clients", "1,64,256,1000", "closed-loop clients, one measurement each")
	f.StringVar(&ops, "ops", "put", "put, get (linearizable), mixed (half each), or several of them")
	f.IntVar(&s.Rounds, "rounds", 3, "measurements of each kind and system, alternating")
	f.DurationVar(&s.Duration, "duration", 10*time.Second, "how long each measurement lasts")
	f.DurationVar(&s.Warmup, "warmup", 2*time.Second, "load before each measurement")
	f.IntVar(&s.ValueSize, "value-size", 256, "bytes of a value")
	f.IntVar(&s.Keys, "keys", 100_000, "keys that are written and read by chance")
	f.IntVar(&s.EtcdConnections, "etcd-connections", 0, "connections of the etcd client; 0: try several ways and take what serves it best")
	f.BoolVar(&s.EtcdSpread, "etcd-spread", false, "with --etcd-connections: to all nodes in turn, not to the leader alone")
	f.IntVar(&s.Busy, "busy", 0, "run `N` busy loops meanwhile, and tell what stopped for how long: leaders, answers, memory")
	f.IntVar(&s.Cores, "cores", 0, "nodes, clients and busy loops share `N` cores; 0: all, or two with --busy")
	f.BoolVar(&s.TLS, "tls", false, "all links are under mutual TLS, of both systems")
	f.StringVar(&s.dir, "dir", "", "make the data directories in `DIR`, on the disk to be measured; default: the system's temporary directory")
	f.StringVar(&s.kvctl, "kvctl", "", "measure this kvctl instead of building one")
	f.StringVar(&s.against, "against", "", "measure another checkout of KeyVal at `DIR` in etcd's place")
	f.StringVar(&s.only, "only", "", "measure keyval or etcd alone")
	f.StringVar(&s.watched, "watched", "", "measure KeyVal in etcd's place that is watched by `WHAT`: metrics (scraped each second), tracing (1 % of the requests) or traced (all)")
	f.BoolVar(&s.json, "json", false, "print everything as JSON")
	f.StringVar(&s.profile, "client-profile", "", "write CPU and allocation profiles of KeyVal's client to `DIR`")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	for _, c := range strings.Split(clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(c))
		if err != nil || n < 1 || n > 8192 {
			return s, fmt.Errorf("--clients: %q is no number from 1 to 8192", c)
		}
		s.Clients = append(s.Clients, n)
	}
	if !slices.Contains([]string{"", storeKeyVal, storeEtcd}, s.only) {
		return s, fmt.Errorf("--only: %q is neither keyval nor etcd", s.only)
	}
	if _, known := watches[s.watched]; s.watched != "" && !known {
		return s, fmt.Errorf("--watched: %q is none of metrics, tracing and traced", s.watched)
	}
	s.Ops = strings.Split(ops, ",")
	for _, o := range s.Ops {
		if !slices.Contains([]string{opPut, opGet, opMixed}, o) {
			return s, fmt.Errorf("--ops: %q is none of put, get and mixed", o)
		}
	}
	if s.Busy < 0 || s.Busy > busyMax || s.Cores < 0 {
		return s, fmt.Errorf("--busy is from 0 to %d, --cores not less than 0", busyMax)
	}
	if s.Busy > 0 && s.Cores == 0 {
		s.Cores = 2
	}
	if s.Rounds < 1 || s.Duration < time.Second || s.Warmup < 0 || s.ValueSize < 1 || s.ValueSize > 512<<10 || s.Keys < 1 {
		return s, fmt.Errorf("there must be at least 1 round of 1s, 1 key, and 1 to 524288 bytes of value")
	}
	return s, nil
}

// run measures everything and prints it.
func run(ctx context.Context, s settings) error {
	if err := confine(s.Cores); err != nil {
		return err
	}
	work, err := os.MkdirTemp(s.dir, "keyval-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	fmt.Fprintln(os.Stderr, "building")
	systems, err := build(ctx, s, work)
	if err != nil {
		return err
	}
	r := report{Settings: s}
	for _, sys := range systems {
		r.Systems = append(r.Systems, sys.name)
	}
	if r.Machine, err = lookAtMachine(work); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, r.Machine)
	failed := r.measureAll(ctx, s, work, systems)
	if len(r.Measurements) == 0 {
		return failed
	}
	r.compare()
	if s.json {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return errors.Join(out.Encode(r), failed)
	}
	return errors.Join(r.print(os.Stdout), failed)
}

// measureAll goes on until the end or the first failure. What was measured until
// then in all rounds is good.
func (r *report) measureAll(ctx context.Context, s settings, work string, systems []system) error {
	for _, op := range s.Ops {
		for _, clients := range s.Clients {
			if err := r.measureLoad(ctx, s, work, systems, op, clients); err != nil {
				return fmt.Errorf("%s, %d clients: %w", op, clients, err)
			}
		}
	}
	return nil
}

// measureLoad measures all systems under one load, in alternating rounds.
func (r *report) measureLoad(ctx context.Context, s settings, work string, systems []system, op string, clients int) error {
	var chosen choice
	var all []measurement
	for _, sys := range systems {
		if sys.store == storeEtcd {
			var err error
			if chosen, err = chooseWay(ctx, s, work, sys, op, clients); err != nil {
				return fmt.Errorf("%s: %w", sys.name, err)
			}
		}
	}
	for round := range s.Rounds {
		for _, sys := range systems {
			m, err := measure(ctx, s, work, sys, op, clients, chosen.Way)
			if err != nil {
				return fmt.Errorf("%s: %w", sys.name, err)
			}
			m.Round = round + 1
			fmt.Fprintln(os.Stderr, m)
			all = append(all, m)
		}
	}
	r.Measurements = append(r.Measurements, all...)
	if chosen.Way.Connections > 0 {
		r.EtcdWays = append(r.EtcdWays, chosen)
	}
	return nil
}

// measure starts a fresh cluster, loads it and ends it.
func measure(ctx context.Context, s settings, work string, sys system, op string, clients int, etcd way) (m measurement, err error) {
	data, err := os.MkdirTemp(work, "data-")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(data)
	load := loadAverage()
	nodes, err := sys.start(data, s.TLS)
	defer nodes.end()
	if err != nil {
		return m, err
	}
	loops, err := startLoops(s.Busy, data)
	defer loops.end()
	if err != nil {
		return m, err
	}
	j := job{
		Store: sys.store, Endpoints: nodes.endpoints, Op: op, Clients: clients, Keys: s.Keys, ValueSize: s.ValueSize,
		Warmup: s.Warmup, Duration: s.Duration, Way: etcd, Profile: s.profile,
		Pids: nodes.pids(), Busy: loops.pids(),
	}
	if s.TLS {
		j.Certs = filepath.Join(nodes.certs, "users", "bench")
	}
	result, err := runLoader(ctx, sys.loader, j)
	if err != nil {
		return m, fmt.Errorf("%w%s", err, nodes.lastWords())
	}
	return measurement{System: sys.name, Op: op, Clients: clients, LoadAverage: load, result: result}, nil
}
