package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"keyval/messages"
)

// RecordedKind is what a recorded operation did.
type RecordedKind uint8

// The operations that are recorded.
const (
	RecordedPut RecordedKind = iota
	RecordedDelete
	RecordedGet
	RecordedScan
)

// Recorded is one operation of a client of real nodes, as the client saw it.
type Recorded struct {
	Client       int
	Began, Ended time.Duration // since the recording began; equal for both is no order
	Kind         RecordedKind
	Stale        bool          // of a read
	Deleted      bool          // of a delete: the key was there
	Code         messages.Code // OUTCOME_UNKNOWN: a write that may or may not have happened
	Key, To      string        // a scan reads all of [Key, To)
	Value        string        // of a put; no two puts have the same
	AsOf         uint64        // of a read: the revision asked for; 0: the newest
	Revision     uint64        // of the write, or at which it was read
	Items        []Version     // what was read
}

// Version is what became of a key at a revision.
type Version struct {
	Key, Value string
	Revision   uint64
	Deleted    bool
}

// violationsMax bounds what JudgeRecord says, in sentences.
const violationsMax = 20

// JudgeRecord holds what clients recorded against what the nodes still know of
// the past: every version of every key, up to the newest revision. It is the
// simulator's judgement, with that past in the place of the log. Each write of a
// record is a command of its own. Porcupine judges the sampled keys.
func JudgeRecord(record []Recorded, past []Version, newest uint64, sample []string) (violations []string) {
	j := &recordJudge{record: record, acknowledged: map[uint64]int{}}
	j.history = history{model: newModel(), fail: func(invariant, format string, args ...any) {
		if len(violations) < violationsMax {
			violations = append(violations, invariant+": "+fmt.Sprintf(format, args...))
		}
	}}
	j.remember(past, newest)
	j.attribute(past)
	j.replay()
	j.history.close()
	j.sample(sample)
	return violations
}

// recordJudge judges one record.
type recordJudge struct {
	history
	record       []Recorded
	acknowledged map[uint64]int // revision -> the write that was told it
}

// remember makes the past the model: no value and no revision is in it twice.
func (j *recordJudge) remember(past []Version, newest uint64) {
	slices.SortFunc(past, func(a, b Version) int { return cmp.Compare(a.Revision, b.Revision) })
	m := j.model
	m.revision = newest
	for i, v := range past {
		if i > 0 && past[i-1].Revision == v.Revision {
			j.fail("each command at most once", "revision %d wrote %q and %q", v.Revision, past[i-1].Key, v.Key)
		}
		if !v.Deleted {
			if at := m.written[v.Value]; at != 0 {
				j.fail("each command at most once", "value %q of %q is written at revision %d, and was at %d", v.Value, v.Key, v.Revision, at)
			}
			m.written[v.Value] = v.Revision
		}
		if m.versions[v.Key] == nil {
			m.keys = append(m.keys, v.Key)
		}
		m.versions[v.Key] = append(m.versions[v.Key], version{revision: v.Revision, value: v.Value, deleted: v.Deleted})
	}
	slices.Sort(m.keys)
}

// attribute finds the writer of every version: a put by its value, a deletion by
// its revision, or among the deletes whose outcome nobody knows.
func (j *recordJudge) attribute(past []Version) {
	putOf := map[string]string{}
	deletedAt := map[Version]bool{}
	unknown := map[string]int{}
	for _, r := range j.record {
		switch {
		case r.Kind == RecordedPut:
			putOf[r.Value] = r.Key
		case r.Kind == RecordedDelete && r.Code == messages.Code_OK && r.Deleted:
			deletedAt[Version{Key: r.Key, Revision: r.Revision}] = true
		case r.Kind == RecordedDelete && r.Code == messages.Code_OUTCOME_UNKNOWN:
			unknown[r.Key]++
		}
	}
	for _, v := range past {
		switch {
		case !v.Deleted:
			if key, put := putOf[v.Value]; !put || key != v.Key {
				j.fail("nothing comes from nowhere", "nobody put %q to %q, which revision %d holds", v.Value, v.Key, v.Revision)
			}
		case deletedAt[Version{Key: v.Key, Revision: v.Revision}]:
		default:
			if unknown[v.Key]--; unknown[v.Key] < 0 {
				j.fail("nothing comes from nowhere", "nobody deleted %q, which is gone at revision %d", v.Key, v.Revision)
			}
		}
	}
}

// replay lets the operations begin and end in the order in which they did.
func (j *recordJudge) replay() {
	type event struct {
		at   time.Duration
		ends bool
		of   int
	}
	var events []event
	for i, r := range j.record {
		events = append(events, event{r.Began, false, i}, event{r.Ended, true, i})
	}
	slices.SortFunc(events, func(a, b event) int {
		if c := cmp.Compare(a.at, b.at); c != 0 || a.ends == b.ends {
			return c
		}
		if b.ends {
			return -1 // what begins when another ends is beside it
		}
		return 1
	})
	running := map[int]*operation{}
	for _, e := range events {
		if !e.ends {
			submit, _ := j.record[e.of].messages(e.of)
			running[e.of] = &operation{client: j.record[e.of].Client, submit: submit, floor: j.newest, beganAt: e.at}
			continue
		}
		j.ended(e.of, running[e.of])
		delete(running, e.of)
	}
}

// ended judges one operation. Only what was refused is kept, for the end.
func (j *recordJudge) ended(i int, op *operation) {
	r := &j.record[i]
	_, done := r.messages(i)
	isWrite := r.Kind == RecordedPut || r.Kind == RecordedDelete
	switch {
	case isWrite && r.Code == messages.Code_OK:
		if r.changed() {
			if other, told := j.acknowledged[r.Revision]; told {
				j.fail("each change has a revision of its own", "%+v and %+v", *r, j.record[other])
			}
			j.acknowledged[r.Revision] = i
		}
		if e := j.effectOf(r); e != nil {
			j.model.effects[effectKey(done.RequestId)] = e
			defer delete(j.model.effects, effectKey(done.RequestId))
		}
	case r.Kind == RecordedPut && r.Code == messages.Code_OUTCOME_UNKNOWN:
		if at := j.model.written[r.Value]; at != 0 && at <= op.floor {
			j.fail("linearizable", "%+v took effect at revision %d, but %d had been seen before it began", *r, at, op.floor)
		}
	}
	j.end(op, done, r.Ended)
	if op.surelyNot {
		j.all = append(j.all, op)
	}
}

// effectOf is what the past says of an acknowledged write; nil: it is not there.
func (j *recordJudge) effectOf(r *Recorded) *effect {
	if r.Kind == RecordedPut {
		if at := j.model.written[r.Value]; at != 0 {
			return &effect{revision: at, changed: true}
		}
		return nil
	}
	if _, is := j.model.get(r.Key, r.Revision); is {
		return nil
	}
	if !r.Deleted { // it saw what another command left at this revision
		return &effect{revision: r.Revision}
	}
	if _, was := j.model.get(r.Key, r.Revision-1); !was {
		return nil
	}
	return &effect{revision: r.Revision, changed: true, deleted: 1}
}

// changed reports whether the write, which was acknowledged, changed a row.
func (r *Recorded) changed() bool { return r.Kind == RecordedPut || r.Deleted }

// sample has porcupine judge keys, each with its own puts, deletes and gets.
func (j *recordJudge) sample(keys []string) {
	of := map[string]*history{}
	for _, key := range keys {
		of[key] = &history{model: j.model}
	}
	for i, r := range j.record {
		h := of[r.Key]
		if h == nil || r.Kind == RecordedScan {
			continue
		}
		op := &operation{client: r.Client, beganAt: r.Began, endedAt: r.Ended}
		op.submit, op.done = r.messages(i)
		op.surelyNot = op.done.Write != nil && r.Code != messages.Code_OK && r.Code != messages.Code_OUTCOME_UNKNOWN
		h.all = append(h.all, op)
	}
	for _, key := range keys {
		h := of[key]
		slices.SortStableFunc(h.all, func(a, b *operation) int { return cmp.Compare(a.beganAt, b.beganAt) })
		operations, _ := h.seenOf(key)
		if result := porcupine.CheckOperationsTimeout(register, operations, judgeTimeout); result != porcupine.Ok {
			j.fail("linearizable", "porcupine says %q of what clients saw of key %q, in %d operations", result, key, len(operations))
		}
	}
}

// messages are the operation as a client's actor would have asked it, and the answer.
func (r *Recorded) messages(number int) (*messages.Submit, *messages.Done) {
	done := &messages.Done{RequestId: fmt.Sprintf("recorded-%d", number)}
	var o messages.Operation
	switch r.Kind {
	case RecordedPut:
		o.Kind = &messages.Operation_Put{Put: &messages.Put{Key: []byte(r.Key), Value: []byte(r.Value)}}
	case RecordedDelete:
		o.Kind = &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(r.Key)}}
	default:
		read := &messages.Read{Revision: r.AsOf, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(r.Key)}}}
		if r.Kind == RecordedScan {
			read.Kind = &messages.Read_Scan{Scan: &messages.Scan{From: []byte(r.Key), To: []byte(r.To)}}
		}
		if r.Stale {
			read.Consistency = messages.Consistency_STALE
		}
		done.Read = &messages.ReadReply{Code: r.Code, Revision: r.Revision}
		for _, v := range r.Items {
			done.Read.Items = append(done.Read.Items, &messages.Item{Key: []byte(v.Key), Value: []byte(v.Value), Revision: v.Revision})
		}
		return &messages.Submit{Read: read}, done
	}
	done.Write = &messages.WriteReply{Code: r.Code, Revision: r.Revision}
	if r.Deleted {
		done.Write.Deleted = 1
	}
	return &messages.Submit{Operations: []*messages.Operation{&o}}, done
}
