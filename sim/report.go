package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is what came of a run.
type Report struct {
	Seed        uint64
	Hash        string // SHA-256 of the trace, in hex
	Steps       uint64 // messages that actors were given
	SimTime     time.Duration
	WallTime    time.Duration // the only field that two runs of a seed do not share
	Swarm       string        // what the run drew
	Nodes       int
	Committed   uint64 // the last committed index
	Asked       int    // operations of clients
	Known       int    // of those, the ones that were answered for certain
	Installs    int    // snapshots that were installed
	Interrupted int    // crashes of nodes that sent or received one
	Violation   *Violation
	Coverage    map[string]uint64 // "fault x role" -> how often
	Replay      string            // the command that plays this run again
	// Recent are the last events of each machine, by name; of a failed run only.
	Recent map[string][]string
}

func (r *run) report(wall time.Duration) *Report {
	report := &Report{
		Seed: r.options.Seed, Steps: r.world.steps, SimTime: r.world.clock.now, WallTime: wall,
		Swarm: r.swarm.String(), Nodes: r.swarm.nodes, Committed: r.check.last(), Asked: len(r.history.all), Installs: r.installs, Interrupted: r.interrupted,
		Violation: r.world.failure, Coverage: r.coverage, Replay: r.options.replay(),
	}
	for _, op := range r.history.all {
		if op.certain() {
			report.Known++
		}
	}
	if r.world.failure != nil {
		report.Recent = map[string][]string{}
		for _, m := range r.machines {
			report.Recent[m.name()] = m.recent.lines()
		}
		for _, c := range r.clients {
			report.Recent[c.name] = c.recent.lines()
		}
	}
	report.Hash = r.world.trace.sum()
	return report
}

func (o Options) replay() string {
	command := fmt.Sprintf("kvctl sim run --seed %d", o.Seed)
	if o.Nodes != 0 {
		command += fmt.Sprintf(" --nodes %d", o.Nodes)
	}
	if !o.Faults {
		command += " --faults off"
	}
	if o.Duration != DefaultDuration {
		command += fmt.Sprintf(" --duration %v", o.Duration)
	}
	return command
}

// String is the report for people: one line if all went well.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d steps, %v simulated in %v, index %d, %d snapshots, %d of %d operations certain, hash %.16s\n",
		r.Seed, r.Steps, r.SimTime.Round(time.Millisecond), r.WallTime.Round(time.Millisecond), r.Committed, r.Installs, r.Known, r.Asked, r.Hash)
	if r.Violation == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "  %v\n  swarm: %s\n  replay: %s\n", r.Violation, r.Swarm, r.Replay)
	names := make([]string, 0, len(r.Recent))
	for name := range r.Recent {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "  last events of %s:\n", name)
		for _, line := range r.Recent[name] {
			fmt.Fprintf(&b, "    %.400s\n", line)
		}
	}
	return b.String()
}

// roles of a node that is up.
var roles = []string{"leader", "follower", "candidate"}

// Cells lists every combination of a fault and a role that runs can meet, and every
// actor that can be made to panic.
func Cells() []string {
	var cells []string
	for f := range faults {
		for _, role := range roles {
			if f != faultDeposed || role == "leader" {
				cells = append(cells, f.String()+" x "+role)
			}
		}
	}
	for p := range phases {
		for b := range blows {
			cells = append(cells, phaseCell(p, b))
		}
	}
	cells = append(cells, cellRotAudited, cellRotRead)
	for at := CrashInSave; at < crashPoints; at++ {
		cells = append(cells, tornCell(at))
	}
	for _, name := range slices.Concat(fragile, core) {
		cells = append(cells, panicCell(name))
	}
	for a := range aims {
		for _, role := range roles {
			if a.meets(role) {
				cells = append(cells, "crash-after-"+a.String()+" x "+role)
			}
		}
	}
	return cells
}

// meets reports whether the moment can come in a role: leaders neither vote nor
// acknowledge, and whoever was elected leads.
func (a aim) meets(role string) bool {
	switch a {
	case aimVote, aimAck:
		return role != "leader"
	case aimElected:
		return role == "leader"
	}
	return true
}
