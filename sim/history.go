package sim

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// history is what clients asked and were told, held against the true history.
//
// Every reply names its revision, so each operation is checked once, when it
// ends, in the time that it takes to look it up: its effect or its result is that
// of its revision, and revisions go with real time. An operation without an
// answer may have happened or not.
type history struct {
	fail    func(invariant, format string, args ...any)
	model   *model
	newest  uint64 // the highest revision that any ended operation has seen
	sawIt   *operation
	begins  uint64 // the revision of a restored cluster before any of it
	givenUp uint64 // the highest revision below which a client was told that history is gone
	all     []*operation
}

// operation is one thing that a client asked.
type operation struct {
	client    int
	submit    *messages.Submit
	floor     uint64     // newest, when it began
	sawIt     *operation // who had seen that; nil: nobody
	givenUp   uint64     // the same, when it began
	beganAt   time.Duration
	endedAt   time.Duration
	done      *messages.Done       // nil: not ended
	surelyNot bool                 // it was refused: it never happens
	then      func(*messages.Done) // goes on with what was answered; nil: nothing follows
	untrusted bool                 // it comes from a node whose data the world has altered
	expects   *expectation         // of a compare-and-set; nil: it is none
}

// expectation is what a compare-and-set of one key, and of nothing else, expects of it.
type expectation struct {
	key    string
	absent bool
	value  string
}

func (h *history) begin(client int, s *messages.Submit, now time.Duration) *operation {
	op := &operation{client: client, submit: s, floor: h.newest, sawIt: h.sawIt, givenUp: h.givenUp, beganAt: now}
	h.all = append(h.all, op)
	return op
}

func (h *history) end(op *operation, d *messages.Done, now time.Duration) {
	op.done, op.endedAt = d, now
	switch {
	case op.untrusted:
	case op.submit.Read != nil:
		if d.Read == nil {
			h.fail("an answer of the kind that was asked", "%s", op)
			return
		}
		h.endRead(op, d.Read)
	case op.submit.Snapshot != nil:
		if d.Snapshot == nil {
			h.fail("an answer of the kind that was asked", "%s", op)
		}
	case op.submit.Cluster != nil:
		h.endRaise(op, d.Cluster)
	case op.writes():
		if d.Write == nil {
			h.fail("an answer of the kind that was asked", "%s", op)
			return
		}
		h.endWrite(op, d.Write)
	}
}

// endRaise: the level that a raise is answered with is that of the log.
func (h *history) endRaise(op *operation, r *messages.ClusterReply) {
	switch want := op.submit.Cluster.GetLevelRaise().GetLevel(); {
	case r == nil:
		h.fail("an answer of the kind that was asked", "%s", op)
	case r.Level > h.model.level, r.Code == messages.Code_OK && r.Level < want:
		h.fail("raised levels are in the log", "%s: the log is at level %d", op, h.model.level)
	}
}

// writes reports whether the operation is a command.
func (op *operation) writes() bool { return len(op.submit.Operations)+len(op.submit.Otherwise) > 0 }

func (h *history) endWrite(op *operation, w *messages.WriteReply) {
	switch {
	case w.Code == messages.Code_OK, w.Code == messages.Code_CONFLICT && w.FailedCondition > 0:
	case w.Code == messages.Code_OUTCOME_UNKNOWN:
		return
	default:
		op.surelyNot = true
		return
	}
	e := h.model.effects[effectKey(op.done.RequestId)]
	switch {
	case e == nil:
		h.fail("acknowledged writes are in the log", "%s: the committed log does not execute it", op)
	case e.revision != w.Revision || e.deleted != w.Deleted || e.more != w.More || e.failed != w.FailedCondition || e.refused != (w.Code == messages.Code_CONFLICT):
		h.fail("acknowledged writes are in the log", "%s: the log says revision %d, %d deleted, more %v, condition %d failed, refused %v",
			op, e.revision, e.deleted, e.more, e.failed, e.refused)
	case w.Revision < op.floor, w.Revision == op.floor && e.changed: // without a revision of its own it is ordered as a read
		h.fail("linearizable", "%v, but %v", op.fact(), op.seenBefore())
	}
	carried, spared := op.submit.Operations, op.submit.Otherwise
	if w.FailedCondition > 0 {
		carried, spared = spared, carried
	}
	h.neverWritten(op, spared)
	for _, o := range carried {
		if given := o.GetCompact(); given != nil {
			h.givenUp = max(h.givenUp, given.Revision)
		}
		put := o.GetPut()
		if put == nil {
			continue
		}
		if at := h.model.written[string(put.Value)]; at != w.Revision {
			h.fail("acknowledged writes are in the log", "%s: its value is written at revision %d", op, at)
		}
	}
	h.sees(op, w.Revision)
}

func (h *history) endRead(op *operation, r *messages.ReadReply) {
	asked := op.submit.Read
	if r.Code == messages.Code_COMPACTED {
		if asked.Revision == 0 || asked.Revision >= h.model.compacted {
			h.fail("what is kept is readable", "%s: history is given up below revision %d", op, h.model.compacted)
		}
		return
	}
	if r.Code != messages.Code_OK && r.Code != messages.Code_NOT_FOUND {
		return
	}
	switch {
	case r.Revision < op.givenUp && asked.Consistency == messages.Consistency_LINEARIZABLE:
		h.fail("what is given up is not read", "%s: before it began a client was told that nothing is kept below revision %d", op, op.givenUp)
	case asked.Revision != 0 && r.Revision != asked.Revision:
		h.fail("reads at the revision asked for", "%s", op)
	case r.Revision > h.model.revision:
		h.fail("reads what is committed", "%s: the log has come to revision %d", op, h.model.revision)
	case asked.Revision == 0 && asked.Consistency == messages.Consistency_LINEARIZABLE && r.Revision < op.floor:
		h.fail("linearizable", "%v, but %v", op.fact(), op.seenBefore())
	}
	items, more := h.model.read(asked, r.Revision)
	want := &messages.ReadReply{Items: items, More: more}
	if d := asked.GetDigest(); d != nil {
		want.Digest = h.model.digest(d, r.Revision)
	}
	got := &messages.ReadReply{Items: r.Items, More: r.More, Digest: r.Digest}
	if !proto.Equal(want, got) {
		h.fail("reads what was written", "%s: as of that revision it is %s", op, messages.Line(want))
	}
	if asked.Revision == 0 && asked.Consistency == messages.Consistency_LINEARIZABLE {
		h.sees(op, r.Revision)
	}
}

func (h *history) sees(op *operation, revision uint64) {
	if revision > h.newest {
		h.newest, h.sawIt = revision, op
	}
}

// fact is what a client was told.
func (op *operation) fact() fact {
	return fact{fmt.Sprintf("c%d", op.client+1), op.endedAt, "was told: " + op.String()}
}

// seenBefore is who had seen its floor when the operation began.
func (op *operation) seenBefore() fact {
	what := fmt.Sprintf("had seen revision %d before it began", op.floor)
	if op.sawIt == nil {
		return fact{"somebody", op.beganAt, what}
	}
	return fact{fmt.Sprintf("c%d", op.sawIt.client+1), op.sawIt.endedAt, what + ": " + op.sawIt.String()}
}

// close checks what can only be said at the end: what was refused never happened.
func (h *history) close() {
	for _, op := range h.all {
		if !op.surelyNot {
			continue
		}
		h.neverWritten(op, op.submit.Operations)
		h.neverWritten(op, op.submit.Otherwise)
		if e := h.model.effects[effectKey(op.done.RequestId)]; e != nil {
			h.fail("refused writes never happen", "%s: it is executed at revision %d", op, e.revision)
		}
	}
}

// neverWritten: no put of a branch that was not carried out is in the log.
func (h *history) neverWritten(op *operation, branch []*messages.Operation) {
	for _, o := range branch {
		if put := o.GetPut(); put != nil {
			if at, written := h.model.written[string(put.Value)]; written {
				h.fail("refused writes never happen", "%s: the value %.40q is written at revision %d", op, put.Value, at)
			}
		}
	}
}

// lastOf is a client's last operation.
func (h *history) lastOf(client int) *operation {
	for i := len(h.all) - 1; i >= 0; i-- {
		if h.all[i].client == client {
			return h.all[i]
		}
	}
	return nil
}

func (op *operation) String() string {
	text := fmt.Sprintf("client %d at %v: %s", op.client+1, op.beganAt, messages.Line(op.submit))
	if op.done != nil {
		text += fmt.Sprintf(" at %v: %s", op.endedAt, messages.Line(op.done))
	}
	return text
}
