package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyval/sim/disk"
)

// Report is what came of a run.
type Report struct {
	Seed        uint64
	Hash        string // SHA-256 of the trace, in hex; of two traces where the cluster was restored from a backup
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
	Replay      string            // the words behind kvctl that play this run again
	Faults      []string          // what the world did, the last of it
	Timeline    []string          // what happened last on all hosts, where the run failed or was ended early
}

func (r *run) report(wall time.Duration) *Report {
	report := &Report{
		Seed: r.options.Seed, Steps: r.world.steps, SimTime: r.world.clock.now, WallTime: wall,
		Swarm: r.swarm.String(), Nodes: r.swarm.nodes, Committed: r.check.last(), Asked: len(r.history.all), Installs: r.installs, Interrupted: r.interrupted,
		Violation: r.world.failure, Coverage: r.coverage, Replay: r.options.replay(), Faults: r.world.trace.last.faults(),
	}
	for _, op := range r.history.all {
		if op.certain() {
			report.Known++
		}
	}
	if r.world.over() {
		report.Timeline = r.world.trace.last.lines(r.world.trace.names, r.world.clock.now)
	}
	report.Hash = r.world.trace.sum()
	return report
}

// goesOn takes up what came of the cluster that was restored from a backup of the run.
func (r *Report) goesOn(next *Report) {
	both := sha256.Sum256([]byte(r.Hash + next.Hash))
	r.Hash, r.Steps, r.SimTime, r.WallTime = hex.EncodeToString(both[:]), r.Steps+next.Steps, r.SimTime+next.SimTime, next.WallTime
	r.Asked, r.Known, r.Installs, r.Interrupted = r.Asked+next.Asked, r.Known+next.Known, r.Installs+next.Installs, r.Interrupted+next.Interrupted
	for cell, n := range next.Coverage {
		r.Coverage[cell] += n
	}
	if r.Violation = next.Violation; r.Violation != nil {
		r.Violation.Detail = "in the cluster that was restored: " + r.Violation.Detail
		r.Swarm, r.Faults, r.Timeline = next.Swarm, next.Faults, next.Timeline
	}
}

func (o Options) replay() string {
	command := fmt.Sprintf("sim run --seed %d", o.Seed)
	if o.Nodes != 0 {
		command += fmt.Sprintf(" --nodes %d", o.Nodes)
	}
	if !o.Faults {
		command += " --faults off"
	}
	if len(o.Without) > 0 {
		command += " --without " + strings.Join(o.Without, ",")
	}
	if o.Duration != DefaultDuration {
		command += fmt.Sprintf(" --duration %v", o.Duration)
	}
	if o.Until != 0 {
		command += fmt.Sprintf(" --until %v", o.Until)
	}
	return command
}

// Tell is what a run that failed, or was ended early, tells. program is what kvctl is
// called.
func (r *Report) Tell(program string) string {
	var b strings.Builder
	replay := "play it again: " + program + " " + r.Replay + "\n"
	b.WriteString(replay)
	if v := r.Violation; v != nil {
		fmt.Fprintf(&b, "violated: %s, at %v of simulated time\n", v.Invariant, v.At)
		facts := v.Facts
		if len(facts) == 0 {
			facts = []string{v.Detail}
		}
		list(&b, facts)
	}
	fmt.Fprintf(&b, "swarm: %s\nwhat the world did:\n", r.Swarm)
	list(&b, r.Faults)
	b.WriteString("what happened last:\n")
	list(&b, r.Timeline)
	b.WriteString(replay)
	return b.String()
}

func list(b *strings.Builder, lines []string) {
	for _, line := range lines {
		b.WriteString("  " + line + "\n")
	}
}

// String is the report for people: one line if all went well.
func (r *Report) String() string {
	line := fmt.Sprintf("seed %d: %d steps, %v simulated in %v, index %d, %d snapshots, %d of %d operations certain, hash %.16s\n",
		r.Seed, r.Steps, r.SimTime.Round(time.Millisecond), r.WallTime.Round(time.Millisecond), r.Committed, r.Installs, r.Known, r.Asked, r.Hash)
	if r.Violation == nil {
		return line
	}
	return line + r.Tell("kvctl")
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
	for _, b := range allStepBlows() {
		cells = append(cells, b.String())
	}
	cells = append(cells, cellRotAudited, cellRotRead, cellParts, cellMoved, cellSuspected, cellCondemned, cellHeals, cellMends, cellRolls, cellRolled, cellBackup, cellIncrement, cellRestore,
		cellDenied, cellUnread, cellRightful, cellGiven, cellUntaken, cellUnstolen)
	for _, at := range disk.CrashPoints() {
		cells = append(cells, tornCell(at))
	}
	for _, a := range slices.Concat(fragile, core) {
		cells = append(cells, panicCell(a))
	}
	for a := range aims {
		for _, role := range roles {
			if a.meets(role) {
				cells = append(cells, a.crash()+" x "+role)
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
