package saga

import (
	"slices"
	"strings"
	"testing"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

const (
	kindAdd     = messages.OperationKind_ADD
	kindPromote = messages.OperationKind_PROMOTE
	kindRemove  = messages.OperationKind_REMOVE
	kindReplace = messages.OperationKind_REPLACE
)

func asked(kind messages.OperationKind, old, name, address string) *messages.ClusterOperation {
	return &messages.ClusterOperation{Id: make([]byte, 16), Kind: kind, OldNode: old, NewNode: name, NewAddress: address}
}

// What each kind of operation proposes in a quiet cluster of three, in which every node that
// is added does well.
func TestSteps(t *testing.T) {
	learner := func(w *world) {
		w.begin(asked(kindAdd, "", "node9", "h9:7000"))
		w.ops = nil
		for len(w.flight) > 0 {
			w.commit(0)
		}
		w.ops[0].StayLearner = true
		run(w, 4)
		w.ops = nil
	}
	for name, row := range map[string]struct {
		before func(*world)
		op     *messages.ClusterOperation
		want   string
	}{
		"add":                {nil, asked(kindAdd, "", "node4", "h4:7000"), "add -> CATCH_UP; record PROMOTION; promote -> COMPLETE"},
		"add a learner":      {nil, &messages.ClusterOperation{Id: make([]byte, 16), Kind: kindAdd, NewNode: "node4", NewAddress: "h4:7000", StayLearner: true}, "add -> COMPLETE"},
		"promote":            {learner, asked(kindPromote, "", "node9", ""), "promote -> COMPLETE"},
		"remove":             {nil, asked(kindRemove, "node2", "", ""), "remove -> COMPLETE"},
		"remove the leader":  {nil, asked(kindRemove, "node1", "", ""), "transfer to node2; remove -> COMPLETE"},
		"replace":            {nil, asked(kindReplace, "node2", "node4", "h4:7000"), "add -> CATCH_UP; record PROMOTION; promote remove -> REMOVE_OLD; leave joint -> COMPLETE"},
		"replace the leader": {nil, asked(kindReplace, "node1", "node4", "h4:7000"), "add -> CATCH_UP; record PROMOTION; promote remove -> REMOVE_OLD; transfer to node2; leave joint -> COMPLETE"},
		"replace a learner":  {learner, asked(kindReplace, "node9", "node4", "h4:7000"), "add -> CATCH_UP; record REMOVE_OLD; remove -> COMPLETE"},
		"an emptied node": {func(w *world) { w.kill(2) }, asked(kindReplace, "node2", "node2", "h2:7000"),
			"add -> CATCH_UP; record PROMOTION; promote remove -> REMOVE_OLD; leave joint -> COMPLETE"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(nil, 3)
			if row.before != nil {
				row.before(w)
			}
			if !w.begin(row.op) {
				t.Fatal(rules.Check(w.view(), row.op).Err)
			}
			w.commit(0)
			if got := strings.Join(run(w, 20), "; "); got != row.want {
				t.Errorf("%s\nwant %s", got, row.want)
			}
			if o := w.ops[0]; o.Phase != complete {
				t.Errorf("it ends as %s", messages.Line(o))
			}
		})
	}
}

// Abort in each phase of a replace, and what is left.
func TestAbort(t *testing.T) {
	for _, row := range []struct {
		steps   int
		phase   messages.OperationPhase
		want    string
		refused bool
	}{
		{0, addLearner, "record ADD_LEARNER; record FAILED", false},
		{1, catchUp, "record CATCH_UP; remove -> FAILED", false},
		{2, promotion, "record PROMOTION; remove -> FAILED", false},
		{3, removeOld, "leave joint -> COMPLETE", true},
		{4, complete, "", true},
	} {
		w := newWorld(nil, 3)
		w.begin(asked(kindReplace, "node2", "node4", "h4:7000"))
		w.commit(0)
		for w.ops[0].Phase < row.phase {
			run(w, 1)
		}
		effect, err := Abort(w.ops[0], w.view())
		if (err != nil) != row.refused || err != nil && (err.Code != messages.Code_CONFLICT || err.Hint == "") {
			t.Errorf("%v: %v", row.phase, err)
		}
		var said []string
		if effect != nil {
			said = append(said, speak(effect))
			w.propose(effect)
			w.commit(0)
			if again, err := Abort(w.ops[0], w.view()); again != nil || err != nil {
				t.Errorf("%v: given up twice: %v, %v", row.phase, again, err)
			}
		}
		if got := strings.Join(append(said, run(w, 5)...), "; "); got != row.want {
			t.Errorf("%v: %s, want %s", row.phase, got, row.want)
		}
		if o := w.ops[0]; !row.refused && (o.Phase != failed || o.Code != messages.Code_CONFLICT || o.Error == "" || len(w.c.Members) != 3) {
			t.Errorf("%v: %s with %d members", row.phase, messages.Line(o), len(w.c.Members))
		}
	}
}

// Why an operation waits is told, in each place where it may.
func TestWhyItWaits(t *testing.T) {
	until := func(w *world, phase messages.OperationPhase) {
		for w.ops[0].Phase < phase {
			run(w, 1)
		}
	}
	for name, row := range map[string]struct {
		op    *messages.ClusterOperation
		phase messages.OperationPhase
		alter func(*world)
		says  string
	}{
		"no quorum":         {asked(kindRemove, "node1", "", ""), removeOld, func(w *world) { w.alive[2], w.alive[3] = false, false }, "the return of node2 or node3 would make one"},
		"a new leader":      {asked(kindRemove, "node1", "", ""), removeOld, func(w *world) { w.unsettled = true }, "has not applied an entry"},
		"not joined":        {asked(kindAdd, "", "node4", "h4:7000"), catchUp, func(w *world) { w.c.Member(4).Incarnation = nil }, "node4 has not joined yet"},
		"out of contact":    {asked(kindAdd, "", "node4", "h4:7000"), catchUp, func(w *world) { w.alive[4] = false }, "node4 at h4:7000 is out of contact since 50s"},
		"a snapshot":        {asked(kindAdd, "", "node4", "h4:7000"), catchUp, func(w *world) { w.caught[4] = false }, "node4 gets a snapshot"},
		"it fell behind":    {asked(kindAdd, "", "node4", "h4:7000"), promotion, func(w *world) { w.behind[4] = true }, "node4 lacks 99 entries"},
		"others are behind": {asked(kindReplace, "node2", "node4", "h4:7000"), promotion, func(w *world) { w.behind[2], w.behind[3] = true, true }, "node3 or node2 has to catch up first"},
		"too few are left":  {asked(kindRemove, "node2", "", ""), removeOld, func(w *world) { w.alive[3] = false }, "the return of node3 would help"},
		"nobody to lead":    {asked(kindRemove, "node1", "", ""), removeOld, func(w *world) { w.behind[2], w.behind[3] = true, true }, "node1 leads, and no other voter"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(nil, 3)
			if !w.begin(row.op) {
				t.Fatal(rules.Check(w.view(), row.op).Err)
			}
			w.commit(0)
			until(w, row.phase)
			row.alter(w)
			w.tick(RetryTicks)
			if why := w.sagas.Why(row.op.Id); !strings.Contains(why.String(), row.says) {
				t.Errorf("%v", why)
			}
			if len(w.flight) > 0 {
				t.Errorf("it goes on: %v", speak(w.flight[0]))
			}
		})
	}
}

// A step that the state does not show is proposed again, and not before.
func TestLostProposalsAreMadeAgain(t *testing.T) {
	w := newWorld(nil, 3)
	w.begin(asked(kindRemove, "node2", "", ""))
	w.commit(0)
	for tick := range 3 * RetryTicks {
		w.tick(1)
		if got, want := len(w.flight), tick/RetryTicks+1; got != want {
			t.Fatalf("tick %d: %d proposals, want %d", tick, got, want)
		}
		if why := w.sagas.Why(w.ops[0].Id); (why.Kind == rules.Writing) != (tick >= RetryTicks) {
			t.Fatalf("tick %d: it waits since %v", tick, why)
		}
	}
	for len(w.flight) > 0 { // all of them arrive
		w.commit(0)
	}
	if len(w.c.Members) != 2 || w.ops[0].Version != 2 {
		t.Errorf("%d members, %s", len(w.c.Members), messages.Line(w.ops[0]))
	}
}

// One operation at a time changes the configuration; the others say which one they wait for.
func TestOneChangeAtATime(t *testing.T) {
	w := newWorld(nil, 5)
	for i, name := range []string{"node4", "node5"} {
		op := asked(kindRemove, name, "", "")
		op.Id[0] = byte(i)
		w.begin(op)
	}
	w.commit(0)
	w.commit(0)
	w.tick(1)
	if len(w.flight) != 1 || w.sagas.Why(w.ops[1].Id).Other != strings.Repeat("00", 16) {
		t.Errorf("%d proposals, the second waits because %v", len(w.flight), w.sagas.Why(w.ops[1].Id))
	}
	w.tick(1)
	if len(w.flight) != 1 {
		t.Errorf("%d proposals", len(w.flight))
	}
	w.commit(0)
	if got := run(w, 3); !slices.Equal(got, []string{"remove -> COMPLETE"}) || len(w.c.Members) != 3 {
		t.Errorf("%v, %d members", got, len(w.c.Members))
	}
}

// A leader leaves a joint configuration that no operation is about.
func TestOrphanedJointConfigurationsEnd(t *testing.T) {
	w := newWorld(nil, 3)
	w.begin(asked(kindReplace, "node2", "node4", "h4:7000"))
	w.commit(0)
	for w.ops[0].Phase < removeOld {
		run(w, 1)
	}
	w.ops = nil
	if got := run(w, 2); !slices.Equal(got, []string{"leave joint -> PHASE_NONE"}) || w.c.Joint() {
		t.Errorf("%v, %v", got, w.c.ConfState)
	}
}

// What cannot come true any more ends.
func TestWhatCannotBeEnds(t *testing.T) {
	w := newWorld(nil, 3)
	w.begin(asked(kindAdd, "", "node4", "h4:7000"))
	w.commit(0)
	w.c.Members[2].Address = "h4:7000" // somebody was faster
	if got := strings.Join(run(w, 3), "; "); got != "record ADD_LEARNER; record FAILED" {
		t.Error(got)
	}
	if o := w.ops[0]; o.Code != messages.Code_CONFLICT || !strings.Contains(o.Error, "h4:7000 is the address of node3") {
		t.Error(messages.Line(o))
	}
	w = newWorld(nil, 3)
	w.begin(asked(kindReplace, "node2", "node4", "h4:7000"))
	w.commit(0)
	run(w, 1)
	w.c.Members = slices.DeleteFunc(w.c.Members, func(m *messages.Member) bool { return m.RaftId == 4 })
	w.c.ConfState.Learners = nil
	if got := strings.Join(run(w, 3), "; "); got != "record CATCH_UP; record FAILED" {
		t.Error(got)
	}
}
