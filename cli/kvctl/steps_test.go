//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

// A kill is one of three processes, in one step of one change.
type kill struct {
	change string // add, promote, remove, remove the leader, replace
	step   messages.OperationPhase
	victim string // the leader, the node that comes or goes, kvctl
}

func (k kill) String() string { return fmt.Sprintf("%s, %v, %s is killed", k.change, k.step, k.victim) }

// kills are all of them.
func kills() (all []kill) {
	for _, c := range []struct {
		change string
		steps  []messages.OperationPhase
	}{
		{"add", []messages.OperationPhase{messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION}},
		{"promote", []messages.OperationPhase{messages.OperationPhase_PROMOTION}},
		{"remove", []messages.OperationPhase{messages.OperationPhase_REMOVE_OLD}},
		{"remove the leader", []messages.OperationPhase{messages.OperationPhase_REMOVE_OLD}},
		{"replace", []messages.OperationPhase{messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION, messages.OperationPhase_REMOVE_OLD}},
	} {
		for _, step := range c.steps {
			for _, victim := range []string{"the leader", "the node", "kvctl"} {
				all = append(all, kill{c.change, step, victim})
			}
		}
	}
	return all
}

// TestKilledInEachStep: whoever dies amid a change, the cluster ends in a sound
// configuration, which all members tell alike, and no write fails.
func TestKilledInEachStep(t *testing.T) {
	t.Parallel()
	all, rounds := kills(), 3
	if sizeOf(t, membersEnv) == 0 {
		all, rounds = []kill{
			{"add", messages.OperationPhase_CATCH_UP, "the leader"},
			{"remove the leader", messages.OperationPhase_REMOVE_OLD, "kvctl"},
		}, 1
	}
	s := &steps{processes: joinable(t, 4), spare: 3}
	w := s.writeSteadily(2, 20*time.Millisecond, s.connect(s.listens...))
	for range rounds {
		for _, k := range all {
			s.run(k)
			w.reach(t, 5)
		}
	}
	w.end()
	w.checkBy(s.processes, s.connect(s.listens...), "the cluster")
}

// steps is a cluster of three, or of four for a while.
type steps struct {
	*processes
	spare int // the place of a node that is no member; -1: there is none
}

// place is that of a node's name; -1: it has none.
func (s *steps) place(of string) int {
	return slices.IndexFunc(s.listens, func(e string) bool { return name(slices.Index(s.listens, e)) == of })
}

// view is what the cluster knows; nil: nobody answers.
func (s *steps) view() *messages.ClusterView {
	c := s.connect(s.listens...)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a, _ := c.Cluster().Query(ctx)
	return a.GetView()
}

func leaderOf(v *messages.ClusterView) string {
	for _, m := range v.GetMembers() {
		if m.Member.RaftId == v.Leader {
			return m.Member.Name
		}
	}
	return ""
}

// run makes one change with one kill, and leaves three members behind.
func (s *steps) run(k kill) {
	s.t.Helper()
	began := time.Now()
	old, came := -1, -1
	switch k.change {
	case "add", "promote", "replace":
		if came = s.spare; came < 0 {
			s.settle()
			came = s.spare
		}
		s.start(came, s.joins(came, s.listens...)...)
	case "remove", "remove the leader":
		s.grow()
		old = s.leader()
		if k.change == "remove" {
			old = (old + 1) % len(s.listens)
		}
	}
	var args []string
	switch k.change {
	case "add":
		args = []string{"add", name(came), s.listens[came]}
	case "promote":
		s.must("add", name(came), s.listens[came], "--learner")
		s.await("the learner is ready", func(v *messages.ClusterView) bool {
			return slices.ContainsFunc(v.Members, func(m *messages.MemberView) bool { return m.Member.Name == name(came) && m.Ready })
		})
		args = []string{"promote", name(came)}
	case "replace":
		if old = s.leader(); k.victim == "the leader" { // another than the old one
			old = (old + 1) % len(s.listens)
			if old == came {
				old = (old + 1) % len(s.listens)
			}
		}
		args = []string{"replace", name(old), name(came), s.listens[came], "--yes"}
	default:
		args = []string{"remove", name(old), "--yes"}
	}
	seen := s.strike(k, args, max(came, old))
	s.settle()
	s.t.Logf("%v: seen in %s; sound after %v", k, seen, time.Since(began).Round(10*time.Millisecond))
}

// strike begins a change by kvctl, and kills in that step, or when it is over. It returns the
// phase that was seen then. Whoever was killed runs again.
func (s *steps) strike(k kill, args []string, node int) string {
	s.t.Helper()
	before := map[string]bool{}
	for _, o := range s.view().GetOperations() {
		before[string(o.Id)] = true
	}
	command := exec.Command(binary, append(append([]string{"cluster"}, args...), "--endpoints", strings.Join(s.listens, ","))...)
	if err := command.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	c := s.connect(s.listens...)
	defer c.Close()
	phase, leader := "no record", ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		a, err := c.Cluster().Query(context.Background())
		if err != nil {
			continue
		}
		leader = cmp.Or(leaderOf(a.View), leader)
		i := slices.IndexFunc(a.View.Operations, func(o *messages.ClusterOperation) bool { return !before[string(o.Id)] })
		if i < 0 {
			continue
		}
		if o := a.View.Operations[i]; o.Phase >= k.step {
			phase = o.Phase.String()
			break
		}
	}
	victim := node
	switch k.victim {
	case "kvctl":
		command.Process.Kill()
		<-ended
		return phase
	case "the leader":
		victim = s.place(leader)
	}
	if c := s.running[victim]; c != nil {
		c.Process.Kill() // it may have ended by itself, if it was to go
		<-c.ended
		s.set(victim, nil)
	}
	time.Sleep(200 * time.Millisecond)
	s.start(victim)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		command.Process.Kill()
		s.t.Errorf("%v: kvctl has not ended after 30 s", k)
		<-ended
	}
	return phase
}

func (s *steps) must(args ...string) {
	s.t.Helper()
	if out, said, code := s.kvctl(append([]string{"cluster"}, args...)...); code != 0 {
		s.t.Fatalf("%v ends with %d: %s%s", args, code, out, said)
	}
}

// grow makes the spare node a member too.
func (s *steps) grow() {
	s.t.Helper()
	i := s.spare
	s.start(i, s.joins(i, s.listens...)...)
	s.must("add", name(i), s.listens[i])
	s.spare = -1
}

// told is what cluster members --json says of a member that has to be the same everywhere.
type told struct {
	ID      string `json:"id"`
	RaftID  uint64 `json:"raft_id,string"`
	Address string `json:"address"`
	Type    string `json:"type"`
	Leads   bool   `json:"is_leader"`
}

// settle waits until all members tell the same, and nothing is under way. Then it removes a
// fourth member, and whoever is none is made the spare.
func (s *steps) settle() {
	s.t.Helper()
	members := s.sound()
	if len(members) == 4 {
		goes := members[3].ID // the newest
		s.must("remove", goes, "--yes")
		members = s.sound()
	}
	if len(members) != 3 {
		s.t.Fatalf("%v are left", members)
	}
	for i := range s.listens {
		if !slices.ContainsFunc(members, func(m told) bool { return m.ID == name(i) }) {
			s.departs(i)
			s.spare = i
		}
	}
}

// departs waits for the end of a node that is no member any more, or never was, and forgets it.
func (s *steps) departs(i int) {
	s.t.Helper()
	if c := s.running[i]; c != nil {
		if text, _ := os.ReadFile(s.data(i) + "/identity"); !strings.Contains(string(text), "raft") {
			s.kill(i) // it waits to be added
		} else {
			select {
			case <-c.ended:
			case <-time.After(20 * time.Second):
				s.t.Fatalf("%s was removed, and runs on:\n%s", name(i), &c.log)
			}
			if said := c.log.String(); !strings.Contains(said, "removed from cluster") {
				s.t.Errorf("%s ended with %v, and does not say that it was removed:\n%s", name(i), c.err, said)
			}
			s.set(i, nil)
		}
	}
	os.RemoveAll(s.data(i))
}

// sound waits until every member tells the same: three voters or four, one leader, nothing
// joint, nothing under way.
func (s *steps) sound() []told {
	s.t.Helper()
	last := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all := map[string][]told{}
		v := s.view()
		if v == nil || slices.ContainsFunc(v.Operations, func(o *messages.ClusterOperation) bool {
			return o.Phase != messages.OperationPhase_COMPLETE && o.Phase != messages.OperationPhase_FAILED
		}) {
			last = messages.Line(v)
			continue
		}
		for _, m := range v.Members {
			out, err := exec.Command(binary, "cluster", "members", "--json", "--endpoints", m.Member.Address, "--timeout", "1s").Output()
			var said []told
			if err == nil && json.Unmarshal(out, &said) == nil {
				all[fmt.Sprint(said)] = said
			} else {
				all[m.Member.Name+" does not answer"] = nil
			}
		}
		last = fmt.Sprint(all)
		for _, said := range all {
			leads := 0
			plain := !slices.ContainsFunc(said, func(m told) bool {
				if m.Leads {
					leads++
				}
				return m.Type != "voter" && m.Type != "learner"
			})
			if len(all) == 1 && plain && leads == 1 {
				return said
			}
		}
	}
	s.t.Fatalf("after 30 s the members do not tell one sound configuration: %s", last)
	return nil
}
