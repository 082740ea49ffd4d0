package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/sim"
)

const simNodesMax = 7

func newSim(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "sim",
		Usage: "run whole clusters in the deterministic simulator",
		UsageText: `kvctl sim run --seed 1 --seeds 100
printf 'cluster nodes=3\nput color red\n' | kvctl sim script -`,
		Subcommands: []*urfave.Command{{
			Name:  "run",
			Usage: "play seeds, and say what came of them",
			Description: `A seed decides everything: the cluster, what its clients do, what goes wrong and when.
The same seed and binary give the same trace, and so the same hash. The first seed that
violates an invariant ends the command, which exits 1. It prints the invariant and the facts
that contradict each other, what the run drew, what went wrong and when, what happened last,
and the command that plays the run again.`,
			UsageText: `kvctl sim run --seed 1
kvctl sim run --seed 100 --seeds 20 --nodes 5
kvctl sim run --seed 7 --without crash,split --until 4.5s
kvctl sim run --seed 7 --trace trace.txt --trace-hosts n1,n2 --trace-messages MsgApp,MsgVote`,
			Flags: []urfave.Flag{
				&urfave.Uint64Flag{Name: "seed", Usage: "play seed `N`", Value: 1},
				&urfave.Uint64Flag{Name: "seeds", Usage: "play `K` seeds in turn, from --seed on", Value: 1},
				&urfave.IntFlag{Name: "nodes", Usage: "run `N` nodes", DefaultText: "drawn from the seed"},
				&urfave.StringFlag{Name: "faults", Usage: "turn faults `on|off`", Value: "on"},
				&urfave.DurationFlag{Name: "duration", Usage: "load the cluster for `DURATION` of simulated time", Value: sim.DefaultDuration},
				&urfave.StringFlag{Name: "without", Usage: "leave out `FAULT,...`, though the seed has drawn them"},
				&urfave.DurationFlag{Name: "until", Usage: "end the run at `DURATION` of simulated time, and print what happened last"},
				&urfave.StringFlag{Name: "trace", Usage: "write the whole trace to `FILE`", TakesFile: true},
				&urfave.StringFlag{Name: "trace-hosts", Usage: "of it only lines of `HOST,...`, such as n1,c2"},
				&urfave.StringFlag{Name: "trace-actors", Usage: "of it only lines of `ACTOR,...`, such as raft,log,client"},
				&urfave.StringFlag{Name: "trace-messages", Usage: "of it only `MESSAGE,...`, such as MsgApp,Apply"},
			},
			Action: sh.action(simRun),
		}, newSimScript(sh)},
	}
}

// seedJSON is what came of one seed. Nothing in it differs from one run to the next.
type seedJSON struct {
	Seed        uint64   `json:"seed,string"`
	Hash        string   `json:"hash"`
	Steps       uint64   `json:"steps,string"`
	SimulatedMs int64    `json:"simulated_ms"`
	Nodes       int      `json:"nodes"`
	Committed   uint64   `json:"committed,string"`
	Invariant   string   `json:"invariant"` // the violated one; empty: none
	Detail      string   `json:"detail"`
	Facts       []string `json:"facts,omitempty"`
	ViolatedMs  int64    `json:"violated_ms"`
	Replay      string   `json:"replay"`
	Swarm       string   `json:"swarm"`
	Faults      []string `json:"faults,omitempty"`
	Timeline    []string `json:"timeline,omitempty"`

	told string // for people; empty: all went well
}

func simRun(c *Call) error {
	options, seeds, err := c.simOptions()
	if err != nil {
		return err
	}
	var rows []seedJSON // for JSON, which is one array at the end
	var outcome error
	for i := uint64(0); i < seeds && outcome == nil; i++ {
		options.Seed = c.flags.Uint64("seed") + i
		report, err := c.play(options)
		if err != nil {
			return err
		}
		row := c.seedRow(report)
		if row.Invariant != "" {
			outcome = quiet(exitFailure)
		}
		if c.Format == JSON {
			rows = append(rows, row)
		} else if err := c.printSeed(row); err != nil {
			return err
		}
	}
	if c.Format == JSON {
		if err := printJSONList(c, rows); err != nil {
			return err
		}
	}
	return outcome
}

func (c *Call) simOptions() (sim.Options, uint64, error) {
	list := func(flag string) []string {
		return strings.FieldsFunc(c.flags.String(flag), func(r rune) bool { return r == ',' })
	}
	o := sim.Options{
		Nodes: c.flags.Int("nodes"), Faults: c.flags.String("faults") == "on", Duration: c.flags.Duration("duration"),
		Without: list("without"), Until: c.flags.Duration("until"),
		Only: sim.Filter{Hosts: list("trace-hosts"), Actors: list("trace-actors"), Messages: list("trace-messages")},
	}
	unknown := slices.DeleteFunc(slices.Clone(o.Without), func(name string) bool { return slices.Contains(sim.FaultNames(), name) })
	seeds := c.flags.Uint64("seeds")
	switch {
	case !slices.Contains(choices["faults"], c.flags.String("faults")):
		return o, 0, c.usage("", "--faults %q is none of on, off", c.flags.String("faults"))
	case c.flags.IsSet("nodes") && (o.Nodes < 1 || o.Nodes > simNodesMax):
		return o, 0, c.usage("", "--nodes must be from 1 to %d, not %d", simNodesMax, o.Nodes)
	case o.Duration <= 0:
		return o, 0, c.usage("", "--duration must be more than nothing, not %v", o.Duration)
	case len(unknown) > 0:
		return o, 0, c.usage("", "--without %q is none of %s", unknown[0], strings.Join(sim.FaultNames(), ", "))
	case o.Until < 0:
		return o, 0, c.usage("", "--until must not be less than nothing, not %v", o.Until)
	case seeds == 0:
		return o, 0, c.usage("", "--seeds counts from 1")
	case seeds > 1 && c.flags.IsSet("trace"):
		return o, 0, c.usage("give the one seed to --seed", "--trace takes one seed, not %d", seeds)
	}
	return o, seeds, nil
}

// play runs one seed, and leaves it when kvctl is asked to end.
func (c *Call) play(options sim.Options) (*sim.Report, error) {
	finish := func() error { return nil }
	if path := c.flags.String("trace"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			return nil, messages.Errorf(messages.Code_INVALID, "--trace: %v", err)
		}
		buffered := bufio.NewWriter(f)
		options.Trace = buffered
		finish = func() error { return finishFile(f, buffered) }
	}
	played := make(chan *sim.Report, 1)
	go func() { played <- sim.Run(options) }()
	select {
	case report := <-played:
		return report, finish()
	case <-c.Done():
		return nil, messages.Errorf(messages.Code_INTERNAL, "interrupted while playing seed %d", options.Seed)
	}
}

func finishFile(f io.Closer, buffered *bufio.Writer) error {
	err := buffered.Flush()
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return messages.Errorf(messages.Code_INTERNAL, "--trace: %v", err)
	}
	return nil
}

func (c *Call) seedRow(r *sim.Report) seedJSON {
	row := seedJSON{
		Seed: r.Seed, Hash: r.Hash, Steps: r.Steps, SimulatedMs: r.SimTime.Milliseconds(), Nodes: r.Nodes,
		Committed: r.Committed, Replay: c.self() + " " + r.Replay, Swarm: r.Swarm, Timeline: r.Timeline,
	}
	if v := r.Violation; v != nil {
		row.Invariant, row.Detail, row.Facts, row.ViolatedMs = v.Invariant, v.Detail, v.Facts, v.At.Milliseconds()
	}
	if len(r.Timeline) > 0 {
		row.Faults, row.told = r.Faults, r.Tell(c.self())
	}
	return row
}

func (c *Call) printSeed(r seedJSON) error {
	if c.Format == JSONLines {
		return c.printJSON(r)
	}
	outcome := "ok"
	if r.Invariant != "" {
		outcome = "violated"
	}
	if c.Format == Simple {
		c.printSimple([][]string{{fmt.Sprint(r.Seed), r.Hash, outcome}})
		return nil
	}
	fmt.Fprintf(c.Stdout, "seed %d  hash %s  %d nodes  %d steps  %v simulated  %s\n",
		r.Seed, r.Hash, r.Nodes, r.Steps, time.Duration(r.SimulatedMs)*time.Millisecond, outcome)
	_, err := io.WriteString(c.Stdout, r.told)
	return err
}
