//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyval/messages"
)

// joinable makes a cluster of three, and places for others, so many nodes in all.
func joinable(t *testing.T, nodes int) *processes {
	p := newCluster(t, freeAddresses(t, nodes))
	p.endpoints = p.listens
	var initial []string
	for i, e := range p.endpoints[:3] {
		initial = append(initial, fmt.Sprintf("n%d=%s", i+1, e))
	}
	p.initial = strings.Join(initial, ",")
	for i := range 3 {
		p.start(i, p.first(i)...)
	}
	p.leader()
	return p
}

func name(i int) string { return fmt.Sprintf("n%d", i+1) }

// joins are the flags of a node that waits to be added, and knows those members, or else one.
func (p *processes) joins(i int, known ...string) []string {
	if len(known) == 0 {
		known = []string{p.listens[(i+1)%3]}
	}
	return []string{"--name", name(i), "--listen", p.listens[i], "--join", strings.Join(known, ",")}
}

// begin begins an operation.
func (p *processes) begin(o *messages.ClusterOperation) {
	p.t.Helper()
	c := p.connect(p.listens...)
	defer c.Close()
	if answer, err := c.Cluster().Begin(context.Background(), o, 0, 0); err != nil {
		p.t.Fatalf("%s: %v, %s", o.Kind, err, messages.Line(answer.ClusterReply))
	}
}

// operate begins an operation and waits for its end.
func (p *processes) operate(o *messages.ClusterOperation) {
	p.t.Helper()
	p.begin(o)
	p.await(o.Kind.String()+" is complete", func(v *messages.ClusterView) bool {
		for _, is := range v.Operations {
			if string(is.Id) == string(o.Id) {
				if is.Phase == messages.OperationPhase_FAILED {
					p.t.Fatalf("%s failed: %s", is.Kind, is.Error)
				}
				return is.Phase == messages.OperationPhase_COMPLETE
			}
		}
		return false
	})
}

// await waits until the members say so.
func (p *processes) await(what string, is func(*messages.ClusterView) bool) {
	p.t.Helper()
	c := p.connect(p.listens...)
	defer c.Close()
	var last *messages.ClusterView
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		answer, err := c.Cluster().Query(context.Background())
		if err != nil {
			continue
		}
		if last = answer.View; is(last) {
			return
		}
	}
	p.t.Fatalf("not after 30 s: %s; %s", what, messages.Line(last))
}

// member is the record of a name; nil: there is none.
func member(v *messages.ClusterView, name string) *messages.Member {
	for _, m := range v.Members {
		if m.Member.Name == name {
			return m.Member
		}
	}
	return nil
}

// saysHello waits until kvctl status of one node holds a text.
func (p *processes) saysHello(i int, text string) {
	p.t.Helper()
	var said string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		out, _ := exec.Command(binary, "status", "--timeout", "300ms", "--endpoints", p.listens[i]).CombinedOutput()
		if said = string(out); strings.Contains(said, text) {
			return
		}
	}
	p.t.Fatalf("n%d does not say %q: %s", i+1, text, said)
}

// isTold waits until node i has recorded its RaftID.
func (p *processes) isTold(i int) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if text, _ := os.ReadFile(filepath.Join(p.data(i), "identity")); strings.Contains(string(text), "raft") {
			return
		}
	}
	p.t.Fatalf("n%d is not told who it is", i+1)
}

// ends waits until node i has ended by itself, without an error, and returns what it said.
func (p *processes) ends(i int) string {
	p.t.Helper()
	c := p.running[i]
	select {
	case <-c.ended:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("n%d runs on:\n%s", i+1, &c.log)
	}
	if c.err != nil {
		p.t.Errorf("n%d ended with %v", i+1, c.err)
	}
	p.set(i, nil)
	return c.log.String()
}

// TestJoinAndLeave: a fourth node waits, is added and killed in each step of that; a
// founder is removed, learns it, and comes back as another replica.
func TestJoinAndLeave(t *testing.T) {
	t.Parallel()
	p := joinable(t, 4)
	w := p.write(4)
	w.reach(t, 200)

	p.start(3, p.joins(3)...)
	p.saysHello(3, "starting")
	p.saysHello(3, "waiting to be added: kvctl cluster add n4 "+p.listens[3])
	p.kill(3)
	p.start(3) // what it needs is recorded
	p.await("n4 waits", func(v *messages.ClusterView) bool { return len(v.Waiting) == 1 && v.Waiting[0].Name == "n4" })
	p.kill(3) // it is added while it is down
	p.begin(&messages.ClusterOperation{Kind: messages.OperationKind_ADD, NewNode: "n4", NewAddress: p.listens[3]})
	p.await("n4 is a learner", func(v *messages.ClusterView) bool { return member(v, "n4") != nil })
	p.start(3)
	p.isTold(3)
	p.kill(3) // it knows who it is, and has no data yet
	p.start(3)
	p.await("n4 votes", func(v *messages.ClusterView) bool {
		m := member(v, "n4")
		return m.GetType() == messages.MemberType_VOTER && m.RaftId == 4
	})
	p.kill(3)
	p.start(3)
	w.reach(t, 200)

	p.operate(&messages.ClusterOperation{Kind: messages.OperationKind_REMOVE, OldNode: "n2"})
	said := p.ends(1)
	for _, want := range []string{"n2 was removed from cluster ", "its directory is of no more use: remove " + p.data(1), "start with --join on an empty directory"} {
		if !strings.Contains(said, want) {
			t.Errorf("n2 does not say %q:\n%s", want, said)
		}
	}
	if said := p.refused(1); !strings.Contains(said, "is of no more use: n2 was removed from cluster") || !strings.Contains(said, "start with --join on an empty one") {
		t.Errorf("n2 starts again:\n%s", said)
	}
	w.reach(t, 200)
	os.RemoveAll(p.data(1))
	p.start(1, p.joins(1)...)
	p.operate(&messages.ClusterOperation{Kind: messages.OperationKind_ADD, NewNode: "n2", NewAddress: p.listens[1]})
	p.await("n2 is another replica", func(v *messages.ClusterView) bool { return member(v, "n2").GetRaftId() == 5 })
	w.reach(t, 200)
	w.end()
	w.check(p, p.listens[3])
	w.check(p, p.listens[1])
}

// TestJoinIsRefused where a member of that name has another directory.
func TestJoinIsRefused(t *testing.T) {
	t.Parallel()
	p := joinable(t, 4)
	p.kill(2)
	os.RemoveAll(p.data(2))
	said := p.refused(2, p.joins(2)...)
	if !strings.Contains(said, "n3 is a member already, with another data directory") || !strings.Contains(said, "kvctl cluster replace n3 n3") {
		t.Errorf("a wiped node under its old name says:\n%s", said)
	}
}

// TestStaleChangeIsRefused: a change may be bound to the members that were seen.
func TestStaleChangeIsRefused(t *testing.T) {
	t.Parallel()
	p := joinable(t, 4)
	api := p.connect(p.listens...).Cluster()
	seen, err := api.GetClusterInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := api.AddLearner(t.Context(), "n4", p.listens[3], seen.ConfigurationIndex, 0); err != nil {
		t.Fatal(err)
	}
	err = api.RemoveNode(t.Context(), "n4", seen.ConfigurationIndex, 0)
	if messages.CodeOf(err) != messages.Code_CONFLICT || !strings.Contains(err.Error(), "the view is stale: the configuration is ") {
		t.Errorf("%v", err)
	}
	if err := api.RemoveNode(t.Context(), "n4", 0, 0); err != nil {
		t.Error(err)
	}
}
