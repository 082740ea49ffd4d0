package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// measurement is one system under one load, once.
type measurement struct {
	System      string  `json:"system"`
	Op          string  `json:"op"`
	Clients     int     `json:"clients"`
	Round       int     `json:"round"`
	LoadAverage float64 `json:"load_average"` // before it began
	result
}

func (m measurement) String() string {
	line := fmt.Sprintf("%-6s %-5s %4d clients, round %d: %7.0f/s, p50 %.2f ms, p99 %.2f ms, CPU %.0f us (leader %.0f, followers %.0f each, client %.0f), others %.2f cores",
		m.System, m.Op, m.Clients, m.Round, m.PerSecond, m.P50, m.P99, m.CPU, m.Leader, m.Follower, m.Client, m.Others)
	if m.Errors > 0 {
		line += fmt.Sprintf(", %d ERRORS, as %s", m.Errors, m.FirstError)
	}
	if s := m.Siege; s != nil {
		line += fmt.Sprintf(", longest stop %.2f s, no leader for %.2f s, %d elections, %.0f MB a node", s.LongestStop, s.Leaderless, s.Elections, s.Node)
	}
	if m.LeaderMoved {
		line += ", THE LEADER CHANGED"
	}
	return line
}

// comparison is both systems under one load: the ratio of the first to the
// second, in each round.
type comparison struct {
	Op         string    `json:"op"`
	Clients    int       `json:"clients"`
	Throughput []float64 `json:"throughput_ratio,omitempty"` // above 1: the first does more
	P50        []float64 `json:"p50_ratio,omitempty"`        // below 1: the first is faster
	P99        []float64 `json:"p99_ratio,omitempty"`
	CPU        []float64 `json:"cpu_ratio,omitempty"` // below 1: the first needs less
}

type report struct {
	Machine      machine       `json:"machine"`
	Settings     settings      `json:"settings"`
	Systems      []string      `json:"systems"`
	EtcdWays     []choice      `json:"etcd_ways,omitempty"`
	Measurements []measurement `json:"measurements"`
	Comparisons  []comparison  `json:"comparisons"`
}

// of is the measurements of a system under a load, by round.
func (r *report) of(system, op string, clients int) []measurement {
	var found []measurement
	for _, m := range r.Measurements {
		if m.System == system && m.Op == op && m.Clients == clients {
			found = append(found, m)
		}
	}
	return found
}

func (r *report) compare() {
	for _, op := range r.Settings.Ops {
		for _, clients := range r.Settings.Clients {
			c := comparison{Op: op, Clients: clients}
			if len(r.of(r.Systems[0], op, clients)) == 0 {
				continue // it was interrupted before
			}
			if len(r.Systems) == 1 {
				r.Comparisons = append(r.Comparisons, c)
				continue
			}
			b := r.of(r.Systems[1], op, clients)
			for i, a := range r.of(r.Systems[0], op, clients) {
				c.Throughput = append(c.Throughput, ratio(a.PerSecond, b[i].PerSecond))
				c.P50 = append(c.P50, ratio(a.P50, b[i].P50))
				c.P99 = append(c.P99, ratio(a.P99, b[i].P99))
				c.CPU = append(c.CPU, ratio(a.CPU, b[i].CPU))
			}
			r.Comparisons = append(r.Comparisons, c)
		}
	}
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// print writes two tables: the medians of the rounds, and the ratios round by round.
func (r *report) print(to io.Writer) error {
	s := r.Settings
	fmt.Fprintf(to, "%v\n%d rounds of %v each after %v, values of %d bytes, %d keys, 3 nodes, loopback, fsync on\n",
		r.Machine, s.Rounds, s.Duration, s.Warmup, s.ValueSize, s.Keys)
	var others []float64
	errors := 0
	for _, m := range r.Measurements {
		others = append(others, m.Others)
		errors += m.Errors
	}
	fmt.Fprintf(to, "processes of others kept %.2f cores busy (median), %.2f at most; errors: %d\n\n", median(others), slices.Max(others), errors)

	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "op\tclients\tsystem\top/s\tp50 ms\tp99 ms\tCPU us/op\tleader\teach follower\tclient\t")
	for _, c := range r.Comparisons {
		for _, name := range r.Systems {
			of := r.of(name, c.Op, c.Clients)
			mid := func(what func(measurement) float64) float64 {
				var all []float64
				for _, m := range of {
					all = append(all, what(m))
				}
				return median(all)
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%.0f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", c.Op, c.Clients, name,
				mid(func(m measurement) float64 { return m.PerSecond }), mid(func(m measurement) float64 { return m.P50 }),
				mid(func(m measurement) float64 { return m.P99 }), mid(func(m measurement) float64 { return m.CPU }),
				mid(func(m measurement) float64 { return m.Leader }), mid(func(m measurement) float64 { return m.Follower }),
				mid(func(m measurement) float64 { return m.Client }))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range r.EtcdWays {
		fmt.Fprintf(to, "etcd's clients, %s, %d: %v\n", c.Op, c.Clients, c.Way)
	}
	if r.Settings.Busy > 0 {
		if err := r.printSieges(to); err != nil {
			return err
		}
	}
	if len(r.Systems) == 1 {
		return nil
	}
	fmt.Fprintf(to, "\n%s / %s, each round\n", r.Systems[0], r.Systems[1])
	t = tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "op\tclients\tthroughput\tp50\tp99\tCPU per operation")
	for _, c := range r.Comparisons {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", c.Op, c.Clients, spread(c.Throughput), spread(c.P50), spread(c.P99), spread(c.CPU))
	}
	return t.Flush()
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// spread is the median and all rounds behind it.
func spread(all []float64) string {
	each := make([]string, len(all))
	for i, x := range all {
		each[i] = fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.2f (%s)", median(all), strings.Join(each, " "))
}
