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
}

// register is one key, for porcupine: the last value written, or its absence.
var register = porcupine.Model{
	Init: func() any { return touch{absent: true} },
	Step: func(state, input, output any) (bool, any) {
		in := input.(touch)
		if in.write {
			return true, touch{absent: in.absent, value: in.value}
		}
		is, saw := state.(touch), output.(touch)
		return is.absent == saw.absent && is.value == saw.value, state
	},
	Equal: func(a, b any) bool { return a.(touch) == b.(touch) },
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
// without a certain outcome stays open for ever, and is left out if nobody saw its
// value. It reports false if a range was deleted up to a limit: what happens to one
// key cannot tell whether the limit was reached before it.
func (h *history) seenOf(key string) (operations []porcupine.Operation, clear bool) {
	seen := h.valuesRead(key)
	until := time.Duration(math.MaxInt64)
	for _, op := range h.all {
		if op.submit.Operations == nil && !op.readsNow(key) || op.surelyNot {
			continue
		}
		t, touches, clear := op.touches(key)
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
		} else if !t.write || !t.absent && !seen[t.value] {
			continue
		}
		operations = append(operations, porcupine.Operation{ClientId: len(operations), Input: t, Output: t, Call: int64(op.beganAt), Return: end})
	}
	return closed(operations, until), true
}

// closed cuts a history at an instant. Writes that had not ended by then stay open;
// reads are left out.
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

func (h *history) valuesRead(key string) map[string]bool {
	seen := map[string]bool{}
	for _, op := range h.all {
		if op.submit.Read == nil || op.done == nil {
			continue
		}
		for _, item := range op.done.Read.GetItems() {
			if string(item.Key) == key {
				seen[string(item.Value)] = true
			}
		}
	}
	return seen
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
	case op.submit.Operations != nil:
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
func (op *operation) touches(key string) (t touch, touches, clear bool) {
	if op.submit.Read != nil {
		if items := op.done.Read.GetItems(); len(items) > 0 {
			return touch{value: string(items[0].Value)}, true, true
		}
		return touch{absent: true}, true, true
	}
	t = touch{write: true}
	for _, o := range op.submit.Operations {
		ranged := o.GetDeleteRange()
		switch {
		case string(o.GetPut().GetKey()) == key:
			t.absent, t.value, touches = false, string(o.GetPut().Value), true
		case string(o.GetDelete().GetKey()) == key:
			t.absent, t.value, touches = true, "", true
		case ranged != nil && string(ranged.From) <= key && (len(ranged.To) == 0 || key < string(ranged.To)):
			if ranged.Limit != 0 {
				return t, false, false
			}
			t.absent, t.value, touches = true, "", true
		}
	}
	return t, touches, true
}
