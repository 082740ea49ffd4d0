package state

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

const (
	equal    = messages.Comparison_EQUAL
	notEqual = messages.Comparison_NOT_EQUAL
	less     = messages.Comparison_LESS
	greater  = messages.Comparison_GREATER
)

func value(v string) any                                    { return &messages.Condition_Value{Value: []byte(v)} }
func version(n uint64) any                                  { return &messages.Condition_Version{Version: n} }
func created(n uint64) any                                  { return &messages.Condition_CreateRevision{CreateRevision: n} }
func modified(n uint64) any                                 { return &messages.Condition_ModRevision{ModRevision: n} }
func ifs(list ...*messages.Condition) []*messages.Condition { return list }

// conditional is a command of client 1.
func conditional(seq uint64, conditions []*messages.Condition, operations, otherwise []*messages.Operation) *messages.Command {
	return &messages.Command{Session: statetest.Client(1), Seq: seq, Open: statetest.Opens(1000, 1000),
		Conditions: conditions, Operations: operations, Otherwise: otherwise}
}

// Each condition is looked at twice: while the rows wait in the batch, and when they
// are in the store. There is a=one (created at 1, version 2, of revision 3), b=two (2, 1,
// 2), c that is gone, and nothing else.
func TestConditions(t *testing.T) {
	on := func(from, to string, c messages.Comparison, target any) []*messages.Condition {
		return ifs(statetest.IfRange(from, to, c, target))
	}
	for _, test := range []struct {
		name       string
		conditions []*messages.Condition
		holds      bool
	}{
		{"a value", on("a", "", equal, value("one")), true},
		{"another value", on("a", "", equal, value("two")), false},
		{"not another value", on("a", "", notEqual, value("two")), true},
		{"not this value", on("a", "", notEqual, value("one")), false},
		{"a smaller value", on("a", "", less, value("onf")), true},
		{"no smaller value", on("a", "", less, value("one")), false},
		{"a greater value", on("a", "", greater, value("on")), true},
		{"no greater value", on("a", "", greater, value("one")), false},
		{"the value of a key that is not there", on("x", "", equal, value("")), false},
		{"not the value of a key that is not there", on("x", "", notEqual, value("v")), false},
		{"the value of a key that is gone", on("c", "", greater, value("")), false},
		{"a version", on("a", "", equal, version(2)), true},
		{"another version", on("a", "", equal, version(1)), false},
		{"a lower version", on("a", "", less, version(2)), false},
		{"a higher version", on("a", "", greater, version(1)), true},
		{"the version of a key that is not there", on("x", "", equal, version(0)), true},
		{"the version of a key that is gone", on("c", "", equal, version(0)), true},
		{"a create revision", on("a", "", equal, created(1)), true},
		{"another create revision", on("a", "", equal, created(3)), false},
		{"no create revision", on("x", "", less, created(1)), true},
		{"a mod revision", on("a", "", equal, modified(3)), true},
		{"an older mod revision", on("a", "", equal, modified(1)), false},
		{"no mod revision", on("c", "", equal, modified(0)), true},
		{"a range", on("a", "c", greater, version(0)), true},
		{"a range of which one is not so", on("a", "c", equal, version(2)), false},
		{"a range without an end", on("b", "\x00", equal, version(1)), true},
		{"a range of one", on("b", "b\x00", equal, value("two")), true},
		{"values of a range", on("", "\x00", notEqual, value("three")), true},
		{"values of a range of which one is so", on("", "\x00", notEqual, value("two")), false},
		{"a range without a key is like a key that is not there", on("c", "z", equal, modified(0)), true},
		{"a range without a key has no version", on("c", "z", greater, version(0)), false},
		{"a range without a key has no value", on("c", "z", notEqual, value("v")), false},
		{"a range that is none", on("b", "a", equal, created(0)), true},
		{"all of several", ifs(statetest.IfRevision("a", 3), statetest.IfRevision("b", 2), statetest.IfRevision("c", 0)), true},
	} {
		for _, flushed := range []bool{false, true} {
			r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
			fill := statetest.Entry(2, 1,
				conditional(1, nil, statetest.Ops(statetest.Put("a", "zero"), statetest.Put("c", "x")), nil),
				conditional(2, nil, statetest.Ops(statetest.Put("b", "two"), statetest.Delete("c")), nil),
				conditional(3, nil, statetest.Ops(statetest.Put("a", "one")), nil))
			asked := statetest.Entry(3, 1, conditional(4, test.conditions, statetest.Ops(statetest.Put("k", "then")), statetest.Ops(statetest.Put("k", "else"))))
			var last Settled
			if flushed {
				r.apply(fill)
				last = r.apply(asked)[0]
			} else {
				last = r.apply(fill, asked)[3]
			}
			want, failed := "k=then", uint32(0)
			if !test.holds {
				want, failed = "k=else", 1
			}
			if last.outcome != (outcome{seq: 4, revision: 4, failed: failed}) || !strings.Contains(r.store.Live(t, 4), want) {
				t.Errorf("%s, in the store %t: %s, and there is %s", test.name, flushed, last.outcome, r.store.Live(t, 4))
			}
		}
	}
}

// What a command does by its conditions, and says of them.
func TestBranches(t *testing.T) {
	there, absent := statetest.IfRevision("a", 1), statetest.IfRevision("a", 0)
	put, other := statetest.Ops(statetest.Put("k", "then")), statetest.Ops(statetest.Put("k", "else"))
	for _, test := range []struct {
		name       string
		conditions []*messages.Condition
		then, or   []*messages.Operation
		outcome    string
		live       string // beside a
	}{
		{"all hold", ifs(there, there), put, other, "2:OK@2 deleted 0", "k=then@2"},
		{"all hold, and there is nothing to do", ifs(there), nil, other, "2:OK@1 deleted 0", ""},
		{"the first that does not hold is told", ifs(there, absent, absent), put, other, "2:OK@2 deleted 0 failed 2", "k=else@2"},
		{"otherwise nothing", ifs(absent), put, nil, "2:CONFLICT@1 deleted 0 failed 1", ""},
		{"otherwise what changes nothing", ifs(absent), put, statetest.Ops(statetest.Delete("k")), "2:OK@1 deleted 0 failed 1", ""},
		{"a compaction that is carried out", ifs(there), statetest.Ops(statetest.Compact(1)), statetest.Ops(statetest.Compact(9)), "2:OK@1 deleted 0", ""},
		{"a compaction of the future, otherwise", ifs(absent), put, statetest.Ops(statetest.Compact(9)), "2:INVALID@1 deleted 0", ""},
		{"conditions do not see the command's own writes", ifs(statetest.IfRevision("k", 0)), statetest.Ops(statetest.Put("k", "1"), statetest.Put("k", "2")), nil,
			"2:OK@2 deleted 0", "k=2@2"},
		{"an unknown target", ifs(&messages.Condition{Key: []byte("a")}), put, other, "2:INVALID@1 deleted 0", ""},
		{"an unknown comparison", ifs(statetest.If("a", 4, version(1))), put, other, "2:INVALID@1 deleted 0", ""},
		{"no key", ifs(statetest.If("", equal, version(1))), put, other, "2:INVALID@1 deleted 0", ""},
		{"a key too long", ifs(statetest.If(strings.Repeat("k", messages.KeySizeMax+1), equal, version(1))), put, other, "2:INVALID@1 deleted 0", ""},
		{"an end too long", ifs(statetest.IfRange("a", strings.Repeat("k", messages.KeySizeMax+1), equal, version(1))), put, other, "2:INVALID@1 deleted 0", ""},
		{"a value too long", ifs(statetest.If("a", equal, value(strings.Repeat("v", messages.ValueSizeMax+1)))), put, other, "2:INVALID@1 deleted 0", ""},
		{"as many conditions as may be", repeat(there, messages.ConditionsMax), put, other, "2:OK@2 deleted 0", "k=then@2"},
		{"too many conditions", repeat(there, messages.ConditionsMax+1), put, other, "2:INVALID@1 deleted 0", ""},
		{"an unknown operation that is not carried out", ifs(there), put, statetest.Ops(&messages.Operation{}), "2:UNSUPPORTED@1 deleted 0", ""},
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		command := conditional(2, test.conditions, test.then, test.or)
		r.apply(statetest.Entry(2, 1, conditional(1, nil, statetest.Ops(statetest.Put("a", "")), nil)))
		first := r.apply(statetest.Entry(3, 1, command))[0].outcome.String()
		r.apply(statetest.Entry(4, 1, conditional(3, nil, statetest.Ops(statetest.Put("a", "later")), nil)))
		again := r.apply(statetest.Entry(5, 1, command))[0].outcome.String()
		if first != test.outcome || again != test.outcome && !strings.Contains(first, "INVALID") && !strings.Contains(first, "UNSUPPORTED") {
			t.Errorf("%s: %s, and when it comes again %s", test.name, first, again)
		}
		if got := strings.TrimSpace(strings.TrimPrefix(r.store.Live(t, 2), "a=@1")); got != test.live && !strings.HasPrefix(got, "a=later") {
			t.Errorf("%s: there is %q", test.name, got)
		}
	}
}

func repeat(c *messages.Condition, n int) (list []*messages.Condition) {
	for range n {
		list = append(list, c)
	}
	return list
}

// What conditions look at is bounded, and the bound is the same on every replica.
func TestConditionsAreBounded(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	for i := range ConditionKeysMax / 100 {
		var puts []*messages.Operation
		for j := range 100 {
			puts = append(puts, statetest.Put(fmt.Sprintf("k%05d", i*100+j), ""))
		}
		r.do(puts)
	}
	big := strings.Repeat("v", messages.ValueSizeMax)
	for i := range ConditionBytesMax/messages.ValueSizeMax + 1 {
		r.do(statetest.Ops(statetest.Put(fmt.Sprintf("v%02d", i), big)))
	}
	revision := r.state.revision
	all := statetest.IfRange("k", "l", less, modified(1<<40))
	for _, test := range []struct {
		name       string
		conditions []*messages.Condition
		code       messages.Code
	}{
		{"as many keys as may be", ifs(all), messages.Code_OK},
		{"one more", ifs(all, statetest.IfRevision("k00000", 1)), messages.Code_INVALID},
		{"one more that is not there", ifs(all, statetest.IfRevision("x", 0)), messages.Code_INVALID},
		{"one more in a range without a key", ifs(all, statetest.IfRange("x", "y", equal, modified(0))), messages.Code_INVALID},
		{"one more in the range", ifs(statetest.IfRange("k", "v00\x00", less, modified(1<<40))), messages.Code_INVALID},
		{"one more, behind one that does not hold", ifs(statetest.IfRevision("x", 1), all), messages.Code_CONFLICT},
		{"only those up to the first that is not so", ifs(statetest.IfRange("", "\x00", equal, modified(1))), messages.Code_CONFLICT},
		{"many bytes", ifs(statetest.IfRange("v00", "v31", equal, version(1))), messages.Code_OK},
		{"too many bytes", ifs(statetest.IfRange("v00", "w", equal, version(1))), messages.Code_INVALID},
		{"the bytes of single keys do not count", ifs(statetest.IfRange("v00", "v31", equal, version(1)), statetest.If("v32", equal, value(big))), messages.Code_OK},
	} {
		r.seq++
		o := r.apply(statetest.Entry(r.state.index+1, 1, conditional(r.seq, test.conditions, statetest.Ops(statetest.Delete("x")), nil)))[0].outcome
		if o.code != test.code || o.revision != revision || (o.failed > 0) != (test.code == messages.Code_CONFLICT) {
			t.Errorf("%s: %s", test.name, o)
		}
	}
}

func TestConditionsThatCannotBeRead(t *testing.T) {
	for _, c := range []*messages.Condition{
		statetest.IfRevision("a", 1), statetest.If("a", equal, value("")), statetest.IfRange("a", "b", equal, value("")),
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		r.store.Err = errors.New("the disk is gone")
		err := r.state.Apply(r.batch, statetest.Entry(2, 1, conditional(1, ifs(c), nil, nil)))
		if !errors.Is(err, r.store.Err) {
			t.Errorf("%s gives %v", messages.Line(c), err)
		}
	}
}

// Clients that count by compare-and-set lose no count, in whatever parts entries are
// applied and whatever is forgotten between.
func TestCountersAreExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		counted, at, seq := 0, uint64(0), uint64(0)
		for range rapid.IntRange(1, 20).Draw(rt, "entries") {
			var list []*messages.Command
			for range rapid.IntRange(1, 5).Draw(rt, "clients") { // all saw the same, so one counts
				seq++
				list = append(list, conditional(seq, ifs(statetest.IfRevision("n", at)), statetest.Ops(statetest.Put("n", fmt.Sprint(counted+1))), nil))
			}
			won := 0
			for _, s := range r.apply(statetest.Entry(r.state.index+1, 1, list...)) {
				if s.outcome.code == messages.Code_OK {
					won++
					at = s.outcome.revision
				}
			}
			if won != 1 {
				rt.Fatalf("%d of %d counted", won, len(list))
			}
			counted++
		}
		if live := r.store.Live(t, r.state.revision); live != fmt.Sprintf("n=%d@%d", counted, at) {
			rt.Fatalf("%d counted, and there is %s", counted, live)
		}
	})
}

// The table of what takes a revision, and which one is answered. Revision 1 is a=1 b=1,
// and client 2's session has expired.
func TestRevisions(t *testing.T) {
	seqOf := uint64(0)
	of := func(operations ...*messages.Operation) *messages.Command {
		seqOf++
		return conditional(seqOf, nil, operations, nil)
	}
	cas := func(revision uint64, or ...*messages.Operation) *messages.Command {
		seqOf++
		return conditional(seqOf, ifs(statetest.IfRevision("a", revision)), statetest.Ops(statetest.Put("a", "cas")), or)
	}
	first := of(statetest.Put("a", "1"), statetest.Put("b", "1"))
	again := of(statetest.Put("again", ""))
	expired := &messages.Command{Session: statetest.Client(2), Seq: 1, Operations: statetest.Ops(statetest.Put("a", "late"))}
	busy := conditional(1<<20, nil, statetest.Ops(statetest.Put("a", "")), nil)
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	for _, row := range []struct {
		name     string
		command  *messages.Command
		takes    bool
		code     messages.Code
		answered uint64
	}{
		{"nothing was written yet: a refused condition", cas(7), false, messages.Code_CONFLICT, 0},
		{"nothing was written yet: a delete", of(statetest.Delete("a")), false, messages.Code_OK, 0},
		{"two puts in one command", first, true, messages.Code_OK, 1},
		{"a put", of(statetest.Put("a", "2")), true, messages.Code_OK, 2},
		{"a put of the same value", of(statetest.Put("a", "2")), true, messages.Code_OK, 3},
		{"a delete of nothing", of(statetest.Delete("x")), false, messages.Code_OK, 3},
		{"a delete", of(statetest.Delete("b")), true, messages.Code_OK, 4},
		{"a range without a key", of(statetest.DeleteRange("x", "z", 0)), false, messages.Code_OK, 4},
		{"a range", of(statetest.DeleteRange("a", "z", 0)), true, messages.Code_OK, 5},
		{"a put and a delete of it", of(statetest.Put("y", ""), statetest.Delete("y")), true, messages.Code_OK, 6},
		{"a condition that holds", cas(0), true, messages.Code_OK, 7},
		{"a refused condition", cas(1), false, messages.Code_CONFLICT, 7},
		{"a refused condition, and otherwise a change", cas(1, statetest.Put("b", "2")), true, messages.Code_OK, 8},
		{"a refused condition, and otherwise no change", cas(1, statetest.Delete("x")), false, messages.Code_OK, 8},
		{"a compaction", of(statetest.Compact(5)), false, messages.Code_OK, 8},
		{"a compaction of the future", of(statetest.Compact(9)), false, messages.Code_INVALID, 8},
		{"a node's compaction", &messages.Command{Operations: statetest.Ops(statetest.Compact(6))}, false, messages.Code_OK, 8},
		{"what is not valid", of(statetest.Put("", "")), false, messages.Code_INVALID, 8},
		{"an expired session", expired, false, messages.Code_SESSION_EXPIRED, 8},
		{"a number beyond the window", busy, false, messages.Code_BUSY, 8},
		{"a put, once more", again, true, messages.Code_OK, 9},
		{"another", of(statetest.Put("b", "3")), true, messages.Code_OK, 10},
		{"a retry", again, false, messages.Code_OK, 9},
		{"a retry of the first", first, false, messages.Code_OK, 1},
	} {
		before := r.state.revision
		o := r.apply(statetest.Entry(r.state.index+1, 1, row.command))[0].outcome
		takes := r.state.revision != before
		if takes != row.takes || o.code != row.code || o.revision != row.answered || takes && o.revision != before+1 {
			t.Errorf("%s: %s, from %d to %d", row.name, o, before, r.state.revision)
		}
	}
}
