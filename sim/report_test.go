package sim

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTell: a run that fails tells first and last how to play it again, and between
// that what was wrong, what was drawn, what the world did and what happened.
func TestTell(t *testing.T) {
	door.Lock()
	defer door.Unlock()
	r := newRun(Options{Seed: 7, Nodes: 3, Faults: true, Duration: DefaultDuration, Without: []string{"crash", "split"}})
	r.world.clock.after(4*time.Second, nil, func() {
		r.world.fail("one leader a term", "%v, and %v",
			fact{"n1", 4 * time.Second, "leads in term 5"}, fact{"n2", 3 * time.Second, "came to lead in term 5"})
	})
	r.play()
	told := r.report(0).Tell("kvctl")
	replay := "play it again: kvctl sim run --seed 7 --nodes 3 --without crash,split\n"
	if !strings.HasPrefix(told, replay) || !strings.HasSuffix(told, replay) {
		t.Errorf("it does not begin and end with %q:\n%s", replay, told)
	}
	rest := told
	for _, part := range []string{
		"violated: one leader a term, at 4s of simulated time\n",
		"     4.000000 n1: leads in term 5\n", "     3.000000 n2: came to lead in term 5\n",
		"swarm: 3 nodes", "what the world did:\n", "n1: process 1 starts\n", "what happened last:\n", " <- n", " MsgApp{term=",
	} {
		_, behind, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("it does not say %q, or not in this order:\n%s", part, told)
		}
		rest = behind
	}
	if lines := strings.Count(told, "\n"); lines > 300 {
		t.Errorf("it tells %d lines", lines)
	}
}

// TestWithout: what is left out is not drawn, and what is left draws the same.
func TestWithout(t *testing.T) {
	for seed := range uint64(20) {
		all := draw(stream(seed, "swarm"), Options{Faults: true})
		some := draw(stream(seed, "swarm"), Options{Faults: true, Without: []string{"crash", "crash-after-vote", "blow-after-cut"}})
		delete(all.rates, faultCrash)
		delete(all.aims, aimVote)
		delete(all.phases, phaseCut)
		if all.String() != some.String() {
			t.Errorf("seed %d: %s\nwant %s", seed, some, all)
		}
	}
	if names := FaultNames(); len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Errorf("two faults have one name: %v", names)
	}
}

// TestUntil: a run that is ended early is that run, up to there; a filter leaves out lines
// of the text and nothing else.
func TestUntil(t *testing.T) {
	var whole, part bytes.Buffer
	o := Options{Seed: 3, Nodes: 3, Faults: true, Duration: 4 * time.Second, Until: 3 * time.Second, Trace: &whole}
	all := Run(o)
	o.Trace, o.Only = &part, Filter{Hosts: []string{"n1"}, Actors: []string{"raft"}, Messages: []string{"MsgHeartbeat", "MsgApp"}}
	some := Run(o)
	if all.Hash != some.Hash || all.SimTime != o.Until || len(all.Timeline) == 0 {
		t.Errorf("%v simulated, a timeline of %d lines, hash %s and %s with a filter", all.SimTime, len(all.Timeline), all.Hash, some.Hash)
	}
	wanted := func(line string) bool {
		return strings.Contains(line, " * ") || strings.Contains(line, " n1 raft ") && (strings.Contains(line, " MsgHeartbeat{") || strings.Contains(line, " MsgApp{"))
	}
	var want []string
	for line := range strings.Lines(whole.String()) {
		if wanted(line) {
			want = append(want, line)
		}
	}
	if got := slices.Collect(strings.Lines(part.String())); !slices.Equal(got, want) || len(want) < 10 {
		t.Errorf("%d lines pass the filter, want %d", len(got), len(want))
	}
}
