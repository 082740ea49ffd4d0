package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// clientsAConnection is how many clients share a connection unless told otherwise.
const clientsAConnection = 256

func newBench(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "bench",
		Usage: "measure how fast a cluster answers",
		Description: `Clients run side by side, each with one operation at a time, on keys chosen evenly
at random; values are random bytes. With reads, all keys are written first.
After a warm-up it measures for --duration. The throughput counts the answers that
came within that time; the latencies are those of the operations that began in it,
the slowest included: it waits for them. Failed operations are counted by code and
have no latency. Latencies are kept in an HdrHistogram, three digits exact.

Without --rate each client begins when its last operation has ended, and so begins
less while the cluster is slow. With --rate operations begin on a schedule, and
each one's latency counts from when it should have begun, though no client was free
("coordinated omission"): that is what users of a busy system feel.

CPU per operation is user and system time within the measured time, divided by the
answers: of this process, and of the nodes that run on this machine.
The keys that it writes begin with --prefix, and stay.`,
		UsageText: `kvctl bench
kvctl bench --clients 1000 --duration 30s --value-size 256
kvctl bench --read-ratio 0.9 --consistency stale --json
kvctl bench --rate 5000 --clients 500`,
		Flags: []urfave.Flag{
			&urfave.IntFlag{Name: "clients", Usage: "`N` operations at a time", Value: 64},
			&urfave.IntFlag{Name: "connections", Usage: "share `N` connections among the clients", DefaultText: fmt.Sprintf("one for %d clients", clientsAConnection)},
			&urfave.DurationFlag{Name: "duration", Usage: "measure for `DURATION`", Value: 10 * time.Second},
			&urfave.DurationFlag{Name: "warmup", Usage: "run for `DURATION` before measuring", Value: time.Second},
			&urfave.IntFlag{Name: "value-size", Usage: "write values of `BYTES`", Value: 256},
			&urfave.IntFlag{Name: "key-size", Usage: "write keys of `BYTES`, --prefix included", DefaultText: strconv.Itoa(keySizeDefault) + ", or what they need"},
			&urfave.Uint64Flag{Name: "keys", Usage: "work on `N` keys", Value: 10_000},
			&urfave.Float64Flag{Name: "read-ratio", Usage: "make `RATIO` of the operations reads, from 0 to 1", DefaultText: "0"},
			consistencyFlag(),
			&urfave.Float64Flag{Name: "rate", Usage: "begin `N` operations a second in all", DefaultText: "as many as are answered"},
			&urfave.BoolFlag{Name: "fill", Usage: "write every key once before; reads do, unless --fill=false"},
			&urfave.StringFlag{Name: "prefix", Usage: "the keys that begin with `PREFIX`", Value: "bench/"},
			progressFlag(),
		},
		Action: sh.action(bench),
	}
}

// benchPlan is what a bench does.
type benchPlan struct {
	clients, connections int
	duration, warmup     time.Duration
	valueSize, keySize   int // bytes
	keys                 uint64
	readRatio            float64
	rate                 float64 // operations a second; 0: as many as are answered
	prefix               string
	stale, fill          bool
}

const (
	clientsMax     = 100_000
	keySizeDefault = 16
)

func (c *Call) benchPlan() (benchPlan, error) {
	f := c.flags
	p := benchPlan{
		clients: f.Int("clients"), connections: f.Int("connections"), duration: f.Duration("duration"), warmup: f.Duration("warmup"),
		valueSize: f.Int("value-size"), keySize: f.Int("key-size"), keys: f.Uint64("keys"), readRatio: f.Float64("read-ratio"),
		rate: f.Float64("rate"), prefix: f.String("prefix"), fill: f.Bool("fill"),
	}
	var err error
	if p.stale, err = c.stale(); err != nil {
		return p, err
	}
	if !f.IsSet("connections") {
		p.connections = (p.clients + clientsAConnection - 1) / clientsAConnection
	}
	if !f.IsSet("fill") {
		p.fill = p.readRatio > 0
	}
	needed := len(p.prefix) + len(strconv.FormatUint(max(p.keys, 1)-1, 10))
	if !f.IsSet("key-size") {
		p.keySize = max(keySizeDefault, needed)
	}
	switch {
	case p.clients < 1 || p.clients > clientsMax:
		err = c.usage("", "--clients is from 1 to %d", clientsMax)
	case p.connections < 1 || p.connections > p.clients:
		err = c.usage("", "--connections is from 1 to the number of clients, %d", p.clients)
	case p.duration < time.Millisecond || p.warmup < 0:
		err = c.usage("", "--duration is at least 1ms, --warmup not less than nothing")
	case p.valueSize < 0 || p.valueSize > messages.ValueSizeMax:
		err = c.usage("", "--value-size is from 0 to %d", messages.ValueSizeMax)
	case p.keys == 0:
		err = c.usage("", "--keys counts from 1")
	case p.prefix == "":
		err = c.usage("", "--prefix is empty: nobody could tell the keys of the bench from others")
	case p.keySize < needed || p.keySize > messages.KeySizeMax:
		err = c.usage("", "--key-size is from %d to %d: the prefix, and the digits of %d keys", needed, messages.KeySizeMax, p.keys)
	case !(p.readRatio >= 0 && p.readRatio <= 1):
		err = c.usage("", "--read-ratio is from 0 to 1")
	case f.IsSet("rate") && !(p.rate > 0 && p.rate <= math.MaxInt32):
		err = c.usage("", "--rate is more than 0")
	}
	return p, err
}

// key is the i-th key: the prefix and a number, as long as all others.
func (p benchPlan) key(i uint64) []byte {
	digits := strconv.FormatUint(i, 10)
	return []byte(p.prefix + strings.Repeat("0", p.keySize-len(p.prefix)-len(digits)) + digits)
}

func bench(c *Call) error {
	plan, err := c.benchPlan()
	if err != nil {
		return err
	}
	told, err := c.progress(false, false)
	if err != nil {
		return err
	}
	stores, err := c.connections(plan)
	if err != nil {
		return err
	}
	defer closeAll(stores)
	nodes := c.localNodes()
	l := newLoad(plan, stores)
	if plan.fill {
		line, err := c.progress(true, false)
		if err == nil {
			err = l.fill(c, line)
		}
		if err != nil {
			return err
		}
	}
	spent := l.run(c, nodes, told)
	result := l.meter.result(plan, spent)
	result.Cleanup = c.cleanup(plan)
	if result.answers() == 0 && l.meter.sample != nil {
		return broken(l.meter.sample, "no operation succeeded: ")
	}
	if err := c.printBench(plan, result, l.meter); err != nil {
		return err
	}
	if c.Err() != nil {
		c.note("interrupted after %v", result.window().Round(time.Millisecond))
		return quiet(exitFailure)
	}
	return nil
}

// connections makes the connections and waits until each is answered.
func (c *Call) connections(plan benchPlan) ([]Store, error) {
	endpoints, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	timeout, err := c.timeout()
	if err != nil {
		return nil, err
	}
	stores, errs := make([]Store, plan.connections), make([]error, plan.connections)
	var made sync.WaitGroup
	for i := range stores {
		made.Go(func() { stores[i], errs[i] = c.knock(endpoints, timeout, plan) })
	}
	made.Wait()
	for _, err := range errs {
		if err != nil {
			closeAll(stores)
			return nil, err
		}
	}
	return stores, nil
}

func (c *Call) knock(endpoints []string, timeout time.Duration, plan benchPlan) (Store, error) {
	store, err := c.Connect(c, endpoints, timeout)
	if err != nil {
		return nil, err
	}
	if _, err = store.Get(c, plan.key(0), 0, plan.stale); err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND {
		store.Close()
		return nil, err
	}
	return store, nil
}

func closeAll(stores []Store) {
	for _, s := range stores {
		if s != nil {
			s.Close()
		}
	}
}

// cleanup is the command that deletes what a bench has written; empty: nothing.
func (c *Call) cleanup(plan benchPlan) string {
	if plan.readRatio == 1 && !plan.fill {
		return ""
	}
	return c.self() + " delete --prefix " + quoteWord(plan.prefix) + c.endpointFlags()
}
