package sim

import (
	"fmt"
	"strconv"
	"strings"

	"keyval/messages"
)

// sight is what a client saw of a key: what a condition expects of it. The zero sight
// is a key that is not there.
type sight struct{ item *messages.Item }

// look takes note of what a client is told of keys.
func (c *customer) look(op *operation, d *messages.Done) {
	switch {
	case op.submit.Read.GetGet() != nil && op.submit.Read.Revision == 0:
		key := string(op.submit.Read.GetGet().Key)
		switch d.Read.GetCode() {
		case messages.Code_OK:
			c.seen[key] = sight{d.Read.Items[0]}
		case messages.Code_NOT_FOUND:
			c.seen[key] = sight{}
		}
	case op.expects != nil: // it is another now, or nobody knows
		delete(c.seen, op.expects.key)
	}
}

// countersMax is how many counters there are. No range that is deleted reaches them:
// they sort before all other keys.
const countersMax = 2

func isCounter(key string) bool { return strings.HasPrefix(key, "count") }

// drawConditional makes a compare-and-set: of a counter, of a key that was seen, or one
// over more than a key.
func (c *customer) drawConditional() *messages.Submit {
	r := c.run
	switch n := r.load.IntN(10); {
	case n < 4:
		return c.drawCount()
	case n < 8:
		key := string(c.key())
		if seen, known := c.seen[key]; known {
			return c.compareAndSet(key, seen, c.drawBranch(key), c.drawBranch(key))
		}
		return get(key)
	}
	s := &messages.Submit{Operations: c.drawBranch(string(c.key())), Otherwise: c.drawBranch(string(c.key()))}
	if len(s.Operations)+len(s.Otherwise) == 0 {
		s.Operations = []*messages.Operation{c.put(c.key())}
	}
	for range 1 + r.load.IntN(3) {
		s.Conditions = append(s.Conditions, c.drawCondition())
	}
	return s
}

func get(key string) *messages.Submit {
	return &messages.Submit{Read: &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(key)}}}}
}

// drawCount counts one more, if the client knows where the counter is.
func (c *customer) drawCount() *messages.Submit {
	r := c.run
	key := fmt.Sprintf("count%d", r.load.IntN(countersMax))
	seen, known := c.seen[key]
	if !known {
		return get(key)
	}
	r.values++
	value := fmt.Appendf(nil, "%s/%d/=%d", c.name, r.values, countOf(seen.item.GetValue())+1)
	put := &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: value}}}
	return c.compareAndSet(key, seen, []*messages.Operation{put}, nil)
}

// countOf is what a counter is at; 0: it is not there.
func countOf(value []byte) uint64 {
	_, text, _ := strings.Cut(string(value), "=")
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// compareAndSet writes if the key is as it was seen. There are several ways to say so,
// which mean the same where no value is written twice.
func (c *customer) compareAndSet(key string, seen sight, operations, otherwise []*messages.Operation) *messages.Submit {
	is := func(n *messages.Condition) *messages.Condition {
		n.Key = []byte(key)
		return n
	}
	c.expects = &expectation{key: key, absent: seen.item == nil, value: string(seen.item.GetValue())}
	s := &messages.Submit{Operations: operations, Otherwise: otherwise}
	switch n := c.run.load.IntN(4); {
	case n == 0:
		s.Conditions = []*messages.Condition{
			is(&messages.Condition{Target: &messages.Condition_CreateRevision{CreateRevision: seen.item.GetCreateRevision()}}),
			is(&messages.Condition{Target: &messages.Condition_Version{Version: seen.item.GetVersion()}}),
		}
	case n == 1 && seen.item != nil:
		s.Conditions = []*messages.Condition{is(&messages.Condition{Target: &messages.Condition_Value{Value: seen.item.Value}})}
	case n == 2 && seen.item != nil: // nothing but the key is in the range
		s.Conditions = []*messages.Condition{is(&messages.Condition{
			To: append([]byte(key), 0), Target: &messages.Condition_ModRevision{ModRevision: seen.item.Revision},
		})}
	default:
		s.Conditions = []*messages.Condition{is(&messages.Condition{Target: &messages.Condition_ModRevision{ModRevision: seen.item.GetRevision()}})}
	}
	if len(s.Operations)+len(s.Otherwise) == 0 {
		s.Operations = []*messages.Operation{c.put([]byte(key))}
	}
	return s
}

// drawBranch is what to do with a key; sometimes nothing, and sometimes with others.
func (c *customer) drawBranch(key string) []*messages.Operation {
	switch c.run.load.IntN(6) {
	case 0:
		return nil
	case 1:
		return []*messages.Operation{{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(key)}}}}
	case 2:
		return []*messages.Operation{c.put([]byte(key)), c.put(c.key())}
	}
	return []*messages.Operation{c.put([]byte(key))}
}

// drawCondition is any condition, over a key or a range.
func (c *customer) drawCondition() *messages.Condition {
	load := c.run.load
	n := &messages.Condition{Key: c.key(), Comparison: messages.Comparison(load.IntN(4))}
	switch load.IntN(4) {
	case 0:
		n.To = c.key()
	case 1:
		n.To = []byte{0}
	}
	revision := load.Uint64N(c.run.history.newest + 2)
	switch load.IntN(4) {
	case 0:
		n.Target = &messages.Condition_Value{Value: fmt.Appendf(nil, "%s/%d/", c.name, load.Uint64N(c.run.values+1))}
	case 1:
		n.Target = &messages.Condition_Version{Version: load.Uint64N(4)}
	case 2:
		n.Target = &messages.Condition_CreateRevision{CreateRevision: revision}
	case 3:
		n.Target = &messages.Condition_ModRevision{ModRevision: revision}
	}
	return n
}

// counts: every counter went up one at a time. What was acknowledged is in the log, what
// was refused is not (see endWrite): so each counted once.
func (h *history) counts() {
	for _, key := range h.model.keys {
		if !isCounter(key) {
			continue
		}
		for i, v := range h.model.versions[key] {
			if n := countOf([]byte(v.value)); n != uint64(i)+1 || v.writes != n {
				h.fail("counters are exact", "version %d of %s, of revision %d, counts %d: %.40q", v.writes, key, v.revision, n, v.value)
				return
			}
		}
	}
}
