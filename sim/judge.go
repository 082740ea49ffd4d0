package sim

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"keyval/messages"
)

// Bounds of the independent judge: its work may grow exponentially.
const (
	judgedKeysMax       = 3
	judgedOperationsMax = 400              // a key; the first ones are judged
	judgeTimeout        = 20 * time.Second // of wall time, a key
)

// touch is an operation as one key sees it.
type touch struct {
	write  bool
	absent bool // deletes it, or read that it is not there
	value  string
	set    *compareAndSet // then the rest is what the key is, or was read to be
}

// compareAndSet does to a key what it says for the key being as expected, or else.
type compareAndSet struct {
	expects         touch
	then, otherwise *touch // nil: nothing
	known           bool   // whether the expectation was met
	met             bool
}

// register is one key, for porcupine: the last value written, or its absence.
var register = porcupine.Model{
	Init: func() any { return touch{absent: true} },
	Step: func(state, input, output any) (bool, any) {
		is, in := state.(touch), input.(touch)
		switch {
		case in.set != nil:
			return in.set.step(is)
		case in.write:
			return true, touch{absent: in.absent, value: in.value}
		}
		saw := output.(touch)
		return is.absent == saw.absent && is.value == saw.value, state
	},
	Equal: func(a, b any) bool { return a.(touch) == b.(touch) },
}

func (s *compareAndSet) step(is touch) (bool, any) {
	met := is.absent == s.expects.absent && is.value == s.expects.value
	done := s.otherwise
	if met {
		done = s.then
	}
	if done != nil {
		return !s.known || met == s.met, touch{absent: done.absent, value: done.value}
	}
	return !s.known || met == s.met, is
}

// judge asks porcupine, which knows nothing of revisions or logs, whether what
// clients saw of some keys is linearizable.
func (h *history) judge() {
	judged := 0
	for _, key := range h.model.keys {
		if judged == judgedKeysMax {
			return
		}
		operations, clear := h.seenOf(key)
		if !clear || len(operations) == 0 {
			continue
		}
		judged++
		if result := porcupine.CheckOperationsTimeout(register, operations, judgeTimeout); result != porcupine.Ok {
			h.fail("linearizable", "porcupine says %q of what clients saw of key %q, in %d operations", result, key, len(operations))
		}
	}
}

// seenOf is what clients did to one key and saw of it, up to the bound. A write
// without a certain outcome stays open for ever; if nobody saw its value it may as
// well not have been. It reports false where a range was deleted up to a limit:
// one key cannot tell whether it was reached.
func (h *history) seenOf(key string) (operations []porcupine.Operation, clear bool) {
	seen := h.noticed(key)
	if v, live := h.model.get(key, h.begins); live { // written before anybody here asked
		operations = append(operations, porcupine.Operation{Input: touch{write: true, value: v.value}, Call: -2, Return: -1})
	}
	until := time.Duration(math.MaxInt64)
	for _, op := range h.all {
		if !op.writes() && !op.readsNow(key) || op.surelyNot {
			continue
		}
		t, touches, clear := op.touches(key, seen)
		if !clear {
			return nil, false
		}
		if !touches {
			continue
		}
		if len(operations) == judgedOperationsMax {
			until = op.beganAt
			break
		}
		end := int64(math.MaxInt64)
		if op.certain() {
			end = int64(op.endedAt)
		} else if !t.write || !t.shows(seen) {
			continue
		}
		operations = append(operations, porcupine.Operation{ClientId: len(operations), Input: t, Output: t, Call: int64(op.beganAt), Return: end})
	}
	return closed(operations, until), true
}

// shows reports whether somebody may have noticed a write: one that nobody has may as
// well not have been.
func (t touch) shows(seen sights) bool {
	if t.set == nil {
		return t.absent || seen.noticed(t.value)
	}
	return t.set.then != nil && t.set.then.shows(seen) || t.set.otherwise != nil && t.set.otherwise.shows(seen)
}

// closed cuts a history at an instant: what was not over by then is open if it
// writes, and left out if it reads.
func closed(operations []porcupine.Operation, until time.Duration) []porcupine.Operation {
	kept := operations[:0]
	for _, o := range operations {
		if o.Return >= int64(until) {
			if !o.Input.(touch).write {
				continue
			}
			o.Return = math.MaxInt64
		}
		kept = append(kept, o)
	}
	return kept
}

// sights are what clients may have noticed of a key's writes.
type sights struct {
	values map[string]bool // that were read
	// compared: there were compare-and-sets, which notice any value by its not being
	// what they expect.
	compared bool
}

func (s sights) noticed(value string) bool { return s.compared || s.values[value] }

func (h *history) noticed(key string) sights {
	s := sights{values: map[string]bool{}}
	for _, op := range h.all {
		s.compared = s.compared || op.expects != nil && op.expects.key == key
		if op.submit.Read == nil || op.done == nil {
			continue
		}
		for _, item := range op.done.Read.GetItems() {
			if string(item.Key) == key {
				s.values[string(item.Value)] = true
			}
		}
	}
	return s
}

// certain reports that the client knows what became of the operation.
func (op *operation) certain() bool {
	if op.done == nil || op.untrusted {
		return false
	}
	switch {
	case op.submit.Read != nil:
		code := op.done.Read.GetCode()
		return code == messages.Code_OK || code == messages.Code_NOT_FOUND || code == messages.Code_COMPACTED
	case op.writes():
		return op.done.Write.GetCode() != messages.Code_OUTCOME_UNKNOWN
	}
	return true
}

// readsNow reports a certain, linearizable get of the latest value of key.
func (op *operation) readsNow(key string) bool {
	r := op.submit.Read
	return r.GetGet() != nil && string(r.GetGet().Key) == key && r.Revision == 0 &&
		r.Consistency == messages.Consistency_LINEARIZABLE && op.certain()
}

// touches is what an operation does to a key, or saw of it. It reports whether
// the operation has to do with the key, and whether that is clear.
func (op *operation) touches(key string, seen sights) (t touch, touches, clear bool) {
	switch {
	case op.submit.Read != nil:
		if items := op.done.Read.GetItems(); len(items) > 0 {
			return touch{value: string(items[0].Value)}, true, true
		}
		return touch{absent: true}, true, true
	case op.expects != nil && op.expects.key == key:
		return op.compares(key)
	}
	then, thenClear := leaves(op.submit.Operations, key)
	otherwise, otherwiseClear := leaves(op.submit.Otherwise, key)
	carried, clear := then, thenClear
	switch {
	case len(op.submit.Conditions) == 0:
	case op.certain() && op.done.Write.FailedCondition > 0:
		carried, clear = otherwise, otherwiseClear
	case op.certain():
	case then == nil && otherwise == nil:
		clear = thenClear && otherwiseClear
	default: // one of both happened, or none: the one whose value was seen
		if then == nil || !then.absent && !seen.values[then.value] {
			carried = otherwise
		}
		gone := then != nil && then.absent || otherwise != nil && otherwise.absent
		clear = thenClear && otherwiseClear && !gone && !seen.compared
	}
	if carried == nil {
		return touch{}, false, clear
	}
	return *carried, true, clear
}

// compares is a compare-and-set of a key, as that key sees it.
func (op *operation) compares(key string) (t touch, touches, clear bool) {
	set := &compareAndSet{expects: touch{absent: op.expects.absent, value: op.expects.value}}
	var thenClear, otherwiseClear bool
	set.then, thenClear = leaves(op.submit.Operations, key)
	set.otherwise, otherwiseClear = leaves(op.submit.Otherwise, key)
	if set.known = op.certain(); set.known {
		set.met = op.done.Write.FailedCondition == 0
	}
	return touch{write: true, set: set}, true, thenClear && otherwiseClear
}

// leaves is what operations leave of a key; nil: they have nothing to do with it. It
// reports whether that is clear.
func leaves(operations []*messages.Operation, key string) (left *touch, clear bool) {
	for _, o := range operations {
		ranged := o.GetDeleteRange()
		switch {
		case string(o.GetPut().GetKey()) == key:
			left = &touch{write: true, value: string(o.GetPut().Value)}
		case string(o.GetDelete().GetKey()) == key:
			left = &touch{write: true, absent: true}
		case ranged != nil && string(ranged.From) <= key && (len(ranged.To) == 0 || key < string(ranged.To)):
			if ranged.Limit != 0 {
				return nil, false
			}
			left = &touch{write: true, absent: true}
		}
	}
	return left, true
}
