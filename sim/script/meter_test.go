package script

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEveryNodeHasAMeter: what nodes count in a scenario, each for itself.
func TestEveryNodeHasAMeter(t *testing.T) {
	p := newPlayer()
	defer p.close()
	for _, line := range []string{
		"trace off", "cluster nodes=3", "stabilize", "put k v at=n1", "panic n1 gateway", "tick 1", "panic n1 session", "put k w at=n1",
		"partition n3 | n1 n2 c", "tick 100", "heal", "stabilize",
	} {
		if _, err := p.do(line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	told := []string{ // what the scenario is about
		"keyval_actor_failures_total", "keyval_raft_elections_started_total", "keyval_raft_leader_changes_total", "keyval_machine_applied_entries_total",
	}
	var got []string
	for _, server := range p.scene.Servers() {
		families, err := server.Meter().Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if !slices.Contains(told, f.GetName()) {
				continue
			}
			for _, c := range f.Metric {
				if f.GetName() == "keyval_actor_failures_total" && c.Counter.GetValue() == 0 {
					continue // each actor has its row
				}
				var labels []string
				for _, l := range c.Label {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
				if len(labels) > 0 && c.Counter.GetValue() == 0 { // actors that have not failed are counted too
					continue
				}
				got = append(got, fmt.Sprintf("%s %s{%s} %v", server.Name(), f.GetName(), strings.Join(labels, ","), c.Counter.GetValue()))
			}
		}
	}
	slices.Sort(got)
	want := []string{
		"n1 keyval_actor_failures_total{actor=gateway} 1",
		"n1 keyval_actor_failures_total{actor=session} 1",
		"n1 keyval_machine_applied_entries_total{} 3",
		"n1 keyval_raft_elections_started_total{} 1",
		"n1 keyval_raft_leader_changes_total{} 1",
		"n2 keyval_machine_applied_entries_total{} 3",
		"n2 keyval_raft_elections_started_total{} 0",
		"n2 keyval_raft_leader_changes_total{} 1",
		"n3 keyval_machine_applied_entries_total{} 3",
		"n3 keyval_raft_elections_started_total{} 5", // in vain, while it was cut off
		"n3 keyval_raft_leader_changes_total{} 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
