package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

func newTop(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "top",
		Usage: "show live what every node does: rates, latencies, lag and queues",
		Description: `Asks all endpoints, and the members that they name, once a second; each tells what it has
counted, so that no other listener is needed. A row says of the second that has passed: requests
that clients had answered there, how long half of them and 99 of 100 took on the node, how long its
log took to be durable, and what waits. Times are between bounds that double, so they are
near, not exact. LAG is that of kvctl status.
With --json an object each time, or once with --once: seconds, leader, writes and reads a second in all, and nodes.
Exits as kvctl status does, with --once.`,
		UsageText: `kvctl top
kvctl top --once --json`,
		Flags: []urfave.Flag{&urfave.BoolFlag{Name: "once", Usage: "show one second, and end"}},
		Action: sh.action(func(c *Call) error {
			endpoints, err := c.endpoints()
			if err != nil {
				return err
			}
			timeout, err := c.patience()
			if err != nil {
				return err
			}
			look := func() (glance, error) {
				rows, _, err := c.askEverybody(endpoints, timeout, Store.Status)
				return glance{rows, time.Now()}, err
			}
			before, err := look()
			if err != nil {
				return err
			}
			if !passes(c, watchEvery) {
				return c.Err()
			}
			show := func() error {
				now, err := look()
				if err != nil {
					return err
				}
				t := topOf(before, now)
				before = now
				return c.printTop(t, now)
			}
			if c.flags.Bool("once") {
				return show()
			}
			return c.live(show)
		}),
	}
}

// glance is what all nodes said at one time.
type glance struct {
	rows []nodeJSON
	at   time.Time
}

// topJSON is what a cluster did between two readings.
type topJSON struct {
	Seconds float64       `json:"seconds"`
	Leader  string        `json:"leader"` // empty: nobody knows one
	Writes  float64       `json:"writes_per_s"`
	Reads   float64       `json:"reads_per_s"`
	Nodes   []topNodeJSON `json:"nodes"`
}

type topNodeJSON struct {
	Name       string            `json:"name"`
	Endpoint   string            `json:"endpoint"`
	Role       string            `json:"role"`
	Writes     float64           `json:"writes_per_s"`
	Reads      float64           `json:"reads_per_s"`
	Write      timesJSON         `json:"write"` // from a request's coming to its answer, on the node
	Read       timesJSON         `json:"read"`
	Sync       timesJSON         `json:"log_sync"`
	Apply      timesJSON         `json:"apply"`
	ReadIndex  timesJSON         `json:"read_index"`
	LagEntries uint64            `json:"lag_entries,string"`
	Queued     map[string]uint64 `json:"queued_bytes"`
	Measures   bool              `json:"measures"` // false: it says nothing of all this
	Error      string            `json:"error"`
}

// timesJSON is how often something was done, and how long it took. 0: it was not done.
type timesJSON struct {
	Count uint64 `json:"count,string"`
	P50   int64  `json:"p50_us"`
	P99   int64  `json:"p99_us"`
}

func (t timesJSON) cells() (p50, p99 string) { return timeCell(t.P50), timeCell(t.P99) }

func timeCell(us int64) string {
	switch d := time.Duration(us) * time.Microsecond; {
	case us == 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", us)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(us)/1000)
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", us/1000)
	default:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
}

// topOf is what was done between two readings. A node that had not answered before, or was started
// anew since, is taken to have begun then.
func topOf(before, now glance) topJSON {
	t := topJSON{Seconds: now.at.Sub(before.at).Seconds(), Nodes: []topNodeJSON{}}
	for _, r := range now.rows {
		n := topNodeJSON{Name: r.Name, Endpoint: r.Endpoint, Role: r.Role, LagEntries: r.LagEntries, Error: r.Error, Queued: map[string]uint64{}}
		if r.Role == leading {
			t.Leader = r.Name
		}
		if v := r.reply.GetVitals(); v != nil {
			n.measure(earlier(before.rows, r), v)
			n.Writes, n.Reads = float64(n.Write.Count)/t.Seconds, float64(n.Read.Count)/t.Seconds
			t.Writes, t.Reads = t.Writes+n.Writes, t.Reads+n.Reads
		}
		t.Nodes = append(t.Nodes, n)
	}
	slices.SortFunc(t.Nodes, func(a, b topNodeJSON) int { return strings.Compare(a.Name+a.Endpoint, b.Name+b.Endpoint) })
	return t
}

// earlier is what the same process said before; nil: it was not there.
func earlier(rows []nodeJSON, r nodeJSON) *messages.Vitals {
	at := slices.IndexFunc(rows, func(o nodeJSON) bool { return o.Endpoint == r.Endpoint })
	if at < 0 || rows[at].reply.GetVitals().GetUpMs() > r.reply.GetVitals().GetUpMs() {
		return nil
	}
	return rows[at].reply.GetVitals()
}

func (n *topNodeJSON) measure(before, now *messages.Vitals) {
	n.Measures = true
	of := func(names ...string) timesJSON {
		var counts []uint64
		var like *messages.Timing
		for _, name := range names {
			t := now.Timing(name)
			for i, count := range messages.Since(before.Timing(name).GetCounts(), t.GetCounts()) {
				if i == len(counts) {
					counts = append(counts, 0)
				}
				counts[i] += count
			}
			like = t
		}
		return timesJSON{messages.Events(counts), like.Quantile(counts, 0.5).Microseconds(), like.Quantile(counts, 0.99).Microseconds()}
	}
	n.Write, n.Read, n.Sync, n.Apply, n.ReadIndex = of("write"), of("get", "scan"), of("log_sync"), of("apply"), of("read_index")
	for _, q := range now.Queued {
		n.Queued[q.In] = q.Bytes
	}
}

func (c *Call) printTop(t topJSON, now glance) error {
	switch c.Format {
	case Table:
		c.topTable(t, now.at)
	case Simple:
		var cells [][]string
		for _, n := range t.Nodes {
			cells = append(cells, []string{nameOr(n.Name, "-"), n.Role, fmt.Sprintf("%.0f", n.Writes), fmt.Sprintf("%.0f", n.Reads)})
		}
		c.printSimple(cells)
	default:
		if err := c.printJSON(t); err != nil {
			return err
		}
	}
	return statusCode(now.rows)
}

func (c *Call) topTable(t topJSON, at time.Time) {
	fmt.Fprintf(c.Stdout, "%s  %.0f writes/s  %.0f reads/s  leader %s\n\n", at.Format(time.TimeOnly), t.Writes, t.Reads, nameOr(t.Leader, c.paint(red, "nobody")))
	var cells [][]string
	for _, n := range t.Nodes {
		role := c.roleCell(n.Role, n.Error)
		if !n.Measures {
			cells = append(cells, append([]string{nameOr(n.Name, n.Endpoint), role}, slices.Repeat([]string{"-"}, len(topHeader)-2)...))
			continue
		}
		waits := uint64(0)
		for _, bytes := range n.Queued {
			waits += bytes
		}
		write50, write99 := n.Write.cells()
		read50, read99 := n.Read.cells()
		_, sync99 := n.Sync.cells()
		cells = append(cells, []string{nameOr(n.Name, n.Endpoint), role, fmt.Sprintf("%.0f", n.Writes), write50, write99,
			fmt.Sprintf("%.0f", n.Reads), read50, read99, sync99, fmt.Sprint(n.LagEntries), humanize.Bytes(waits)})
	}
	c.printTable(topHeader, cells)
}

var topHeader = []string{"NODE", "ROLE", "WRITES/S", "P50", "P99", "READS/S", "P50", "P99", "FSYNC P99", "LAG", "QUEUED"}
