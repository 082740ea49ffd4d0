package saga

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"keyval/messages"
)

func TestMain(m *testing.M) {
	for name, n := range map[string]string{"rapid.checks": "3000", "rapid.steps": "60", "rapid.nofailfile": "true", "rapid.shrinktime": "3s"} {
		if err := flag.Set(name, n); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// Whatever happens in whatever order, every operation ends in one way, nothing is left
// behind, and nothing unsafe is proposed meanwhile.
func TestSagasEndAndLeaveNothingBehind(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) { randomLife(t, seen) })
	if t.Failed() {
		return
	}
	phases := map[messages.OperationKind][]messages.OperationPhase{
		messages.OperationKind_ADD: {addLearner, catchUp, promotion}, messages.OperationKind_PROMOTE: {promotion},
		messages.OperationKind_REMOVE: {removeOld}, messages.OperationKind_REPLACE: {addLearner, catchUp, promotion, removeOld},
	}
	for kind, during := range phases {
		for _, outcome := range []messages.OperationPhase{complete, failed} {
			if cell := fmt.Sprintf("%v ends %v", kind, outcome); seen[cell] == 0 {
				t.Errorf("it never came to this: %s", cell)
			}
		}
		for _, phase := range during {
			for _, event := range []string{"crash", "kill", "abort", "lose", "fall behind"} {
				if cell := fmt.Sprintf("%v in %v: %s", kind, phase, event); seen[cell] == 0 {
					t.Errorf("it never came to this: %s", cell)
				}
			}
		}
	}
	for _, cell := range []string{"the lead was handed over", "an emptied node came back under its name", "a learner was replaced"} {
		if seen[cell] == 0 {
			t.Errorf("it never came to this: %s", cell)
		}
	}
	t.Log(seen)
}

func randomLife(t *rapid.T, seen map[string]int) {
	w := newWorld(t, rapid.IntRange(1, 5).Draw(t, "voters"))
	w.seen = seen
	member := func() messages.RaftID {
		return w.c.Members[rapid.IntRange(0, len(w.c.Members)-1).Draw(t, "member")].RaftId
	}
	asked := byte(0)
	goOn := func(*rapid.T) {
		w.tick(RetryTicks)
		if len(w.flight) > 0 && w.available() {
			w.commit(0)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"begin": func(t *rapid.T) {
			if w.leader == 0 || asked > 5 {
				t.Skip("nobody asks")
			}
			if w.begin(w.draw(t, asked)) {
				asked++
			}
		},
		"abort": func(t *rapid.T) {
			if len(w.ops) == 0 || w.leader == 0 || rapid.IntRange(0, 3).Draw(t, "patience") > 0 {
				t.Skip("nothing to abort")
			}
			w.count("abort")
			w.abort(w.ops[rapid.IntRange(0, len(w.ops)-1).Draw(t, "operation")])
		},
		"tick": func(t *rapid.T) { w.tick(rapid.Uint64Range(1, RetryTicks).Draw(t, "elapsed")) },
		"commit": func(t *rapid.T) {
			if len(w.flight) == 0 || !w.available() {
				t.Skip("nothing in flight")
			}
			w.commit(0)
		},
		"commit all": func(*rapid.T) {
			for len(w.flight) > 0 && w.available() {
				w.commit(0)
			}
		},
		"lose": func(t *rapid.T) {
			if len(w.flight) == 0 {
				t.Skip("nothing in flight")
			}
			w.count("lose")
			w.lose(rapid.IntRange(0, len(w.flight)-1).Draw(t, "proposal"))
		},
		"crash": func(t *rapid.T) {
			if w.leader != 0 {
				w.count("crash")
				w.crash(rapid.IntRange(0, 3).Draw(t, "kept"), member())
			}
		},
		"kill":  func(*rapid.T) { w.count("kill"); w.kill(member()) },
		"start": func(*rapid.T) { w.start(member()) },
		"start and join": func(*rapid.T) {
			id := member()
			w.join(id)
			w.alive[id], w.caught[id] = true, true
		},
		"fall behind": func(*rapid.T) {
			if id := member(); id != w.leader {
				w.count("fall behind")
				w.behind[id] = true
			}
		},
		"go on": goOn, "go further": goOn, "go on again": goOn,
		"learners do well": func(*rapid.T) { w.nurse() },
		"all do well": func(*rapid.T) {
			w.nurse()
			for _, m := range w.c.Members {
				w.start(m.RaftId)
			}
			w.unsettled = false
			clear(w.behind)
		},
		"catch up": func(*rapid.T) { delete(w.behind, member()) },
		"unsettle": func(t *rapid.T) { w.unsettled = rapid.Bool().Draw(t, "unsettled") },
		"":         func(*rapid.T) { w.check() },
	})
	w.heal()
}

// draw is an operation that somebody might ask for.
func (w *world) draw(t *rapid.T, n byte) *messages.ClusterOperation {
	o := &messages.ClusterOperation{Id: append(make([]byte, messages.OperationIDSize-1), n+1)}
	name := func() string {
		return w.c.Members[rapid.IntRange(0, len(w.c.Members)-1).Draw(t, "named")].Name
	}
	o.Kind = rapid.SampledFrom([]messages.OperationKind{
		messages.OperationKind_ADD, messages.OperationKind_PROMOTE, messages.OperationKind_REMOVE,
		messages.OperationKind_PROMOTE, messages.OperationKind_REPLACE, messages.OperationKind_REPLACE,
	}).Draw(t, "kind")
	switch o.Kind {
	case messages.OperationKind_PROMOTE:
		o.NewNode = name()
		for _, m := range w.c.Members {
			if m.Type == messages.MemberType_LEARNER && w.view().InTheWay(&messages.ClusterOperation{OldNode: m.Name}) == nil {
				o.NewNode = m.Name
			}
		}
		return o
	case messages.OperationKind_REMOVE:
		o.OldNode = name()
		return o
	case messages.OperationKind_REPLACE:
		o.OldNode = name()
	case messages.OperationKind_ADD:
		o.StayLearner = rapid.Bool().Draw(t, "stay")
	}
	w.nodes++
	o.NewNode, o.NewAddress = nodeName(w.nodes), addressOf(w.nodes)
	if o.OldNode != "" && rapid.Bool().Draw(t, "same name") {
		o.NewNode = o.OldNode
		if old := w.view().Named(o.OldNode); rapid.Bool().Draw(t, "same address") {
			o.NewAddress = old.Address
		}
	}
	return o
}

// run plays an operation in a quiet cluster, and returns what was proposed.
func run(w *world, steps int) (said []string) {
	for range steps {
		before := len(w.flight)
		leader := w.leader
		w.tick(1)
		for _, e := range w.flight[min(before, len(w.flight)):] {
			said = append(said, speak(e))
		}
		if w.leader != leader {
			said = append(said, "transfer to "+messages.MemberName(w.c.Members, w.leader))
		}
		for len(w.flight) > 0 {
			w.commit(0)
		}
	}
	return said
}

func speak(e Effect) string {
	switch e := e.(type) {
	case Record:
		return "record " + e.Operation.Phase.String()
	case Change:
		text := ""
		for _, c := range e.Members.Changes {
			switch {
			case c.GetAddLearner() != nil:
				text += "add "
			case c.GetPromote() != nil:
				text += "promote "
			case c.GetRemove() != nil:
				text += "remove "
			}
		}
		if text == "" {
			text = "leave joint "
		}
		return text + "-> " + e.Members.Record.GetOperation().GetPhase().String()
	}
	return "?"
}
