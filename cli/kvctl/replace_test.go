//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// replaceCase is one fault in one phase of a replace.
type replaceCase struct {
	fault string // leader, new, kvctl, abort, old
	phase messages.OperationPhase
}

var replaceFaults = []string{"leader", "new", "kvctl", "abort", "old"}

var replacePhases = []messages.OperationPhase{messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION, messages.OperationPhase_REMOVE_OLD}

// replacing plays replaces on a cluster of three with a fourth place: whoever lost its
// membership is the new node of the next one, on an empty directory.
type replacing struct {
	*processes
	free int // the place whose node is no member
}

// TestReplaceUnderFaults: whatever dies in whatever phase, a replace ends complete or undone,
// leaves no learner behind, and costs no acknowledged write. KEYVAL_REPLACE=1 plays every
// fault in every phase, and KEYVAL_REPLACE=abort/PROMOTION that one.
func TestReplaceUnderFaults(t *testing.T) {
	t.Parallel()
	cases := []replaceCase{{"leader", messages.OperationPhase_CATCH_UP}} // make replace plays all
	if os.Getenv("KEYVAL_REPLACE") != "" {
		cases = nil
		for _, fault := range replaceFaults {
			for _, phase := range replacePhases {
				if only := os.Getenv("KEYVAL_REPLACE"); only != "1" && only != fmt.Sprint(fault, "/", phase) {
					continue
				}
				cases = append(cases, replaceCase{fault, phase})
			}
		}
	}
	p := &replacing{joinable(t, 4), 3}
	w := p.write(2)
	w.reach(t, 200)
	var table bytes.Buffer
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "FAULT\tIN PHASE\tFELL IN\tEND\tTOOK\tNO WRITE FOR")
	for _, c := range cases {
		w.longest.Store(0)
		began := time.Now()
		fell, end := p.play(c)
		w.reach(t, 20)
		fmt.Fprintf(rows, "%s\t%v\t%v\t%v\t%v\t%v\n", c.fault, c.phase, fell, end,
			time.Since(began).Round(10*time.Millisecond), time.Duration(w.longest.Load()).Round(time.Millisecond))
	}
	w.end()
	rows.Flush()
	t.Logf("%d writes acknowledged\n%s", w.count.Load(), &table)
	for i := range p.listens {
		if i != p.free {
			w.check(p.processes, p.listens[i])
		}
	}
}

// play replaces a follower by the node of the free place, with one fault.
func (p *replacing) play(c replaceCase) (fell, end messages.OperationPhase) {
	p.t.Helper()
	leader := p.leader()
	old := slices.IndexFunc([]int{0, 1, 2, 3}, func(i int) bool { return i != leader && i != p.free })
	fresh := p.free
	if c.fault != "leader" { // which would take the quorum along
		p.kill(old)
	}
	p.start(fresh, p.joins(fresh, p.members()...)...)
	o := &messages.ClusterOperation{Kind: messages.OperationKind_REPLACE, OldNode: name(old), NewNode: name(fresh), NewAddress: p.listens[fresh]}
	asker := p.connect(p.members()...)
	defer asker.Close()
	tool := exec.Command(binary, "cluster", "replace", o.OldNode, o.NewNode, o.NewAddress, "--yes", "--endpoints", strings.Join(p.members(), ","))
	if c.fault == "kvctl" {
		if err := tool.Start(); err != nil {
			p.t.Fatal(err)
		}
	} else {
		p.begin(o)
	}
	is := p.until(asker, o, func(is *messages.ClusterOperation) bool { return is.Phase >= c.phase })
	fell = is.Phase
	p.harm(c, asker, tool, is, leader, fresh, old)
	is = p.until(asker, o, func(is *messages.ClusterOperation) bool { return is.Phase >= messages.OperationPhase_COMPLETE })
	p.settle(c, is, fresh, old)
	return fell, is.Phase
}

func (p *replacing) harm(c replaceCase, asker *client.Client, tool *exec.Cmd, is *messages.ClusterOperation, leader, fresh, old int) {
	p.t.Helper()
	switch c.fault {
	case "leader":
		p.kill(leader)
		time.Sleep(200 * time.Millisecond)
		p.start(leader)
	case "new":
		p.kill(fresh)
		time.Sleep(200 * time.Millisecond)
		p.start(fresh, p.joins(fresh, p.members()...)...) // it may have been killed before it wrote who it is
	case "kvctl":
		tool.Process.Kill()
		tool.Wait()
		if _, said, code := p.kvctl("ops", "follow", hex.EncodeToString(is.Id)); code != 0 {
			p.t.Errorf("ops follow exits %d: %s", code, said)
		}
	case "abort":
		if _, err := asker.Cluster().Abort(context.Background(), is.Id); err != nil && messages.CodeOf(err) != messages.Code_CONFLICT {
			p.t.Errorf("abort: %v", err)
		}
	case "old":
		p.start(old)
	}
}

// settle checks what a replace leaves behind, and frees the place of who is no member.
func (p *replacing) settle(c replaceCase, is *messages.ClusterOperation, fresh, old int) {
	p.t.Helper()
	gone, stays := old, fresh
	if is.Phase == messages.OperationPhase_FAILED {
		gone, stays = fresh, old
		if c.fault != "abort" {
			p.t.Errorf("%s in %v: it failed: %s", c.fault, c.phase, is.Error)
		}
	}
	if p.running[stays] == nil {
		p.start(stays)
	}
	if r := p.running[gone]; r != nil { // it may have ended by itself meanwhile
		r.Process.Kill()
		<-r.ended
		p.set(gone, nil)
	}
	os.RemoveAll(p.data(gone))
	p.free = gone
	p.await("three voters and nobody else, and all in contact", func(v *messages.ClusterView) bool {
		well := len(v.Members) == 3
		for _, m := range v.Members {
			well = well && m.Member.Type == messages.MemberType_VOTER && (m.Role == "leader" || m.Role == "follower") && m.Member.Name != name(gone)
		}
		return well
	})
}

// members are the addresses of all but the free place.
func (p *replacing) members() (all []string) {
	for i, at := range p.listens {
		if i != p.free {
			all = append(all, at)
		}
	}
	return all
}

// until waits for a state of the replace of those two nodes that has not ended before, or
// that has the id of o.
func (p *replacing) until(asker *client.Client, o *messages.ClusterOperation, is func(*messages.ClusterOperation) bool) *messages.ClusterOperation {
	p.t.Helper()
	var last string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		a, err := asker.Cluster().Query(context.Background())
		if err != nil {
			last = err.Error()
			continue
		}
		last = messages.Line(a.View)
		for _, r := range a.View.Operations {
			mine := string(r.Id) == string(o.Id)
			if len(o.Id) == 0 && r.OldNode == o.OldNode && r.NewNode == o.NewNode && r.Phase < messages.OperationPhase_COMPLETE {
				o.Id, mine = r.Id, true
			}
			if mine && is(r) {
				return r
			}
		}
	}
	p.t.Fatalf("the replace does not go on: %s", last)
	return nil
}
