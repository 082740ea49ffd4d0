package raftactor

import (
	"testing"

	"keyval/messages"
)

func TestReadsTakeAnAnswerToAnyContextOfTheBatch(t *testing.T) {
	read := &messages.ReadIndex{}
	for name, row := range map[string]struct {
		script func(q *reads) (context []byte)
		reads  int
	}{
		"the only context": {func(q *reads) []byte { q.add(read); q.add(read); return q.next() }, 2},
		"the first, after it was asked again": {func(q *reads) []byte {
			q.add(read)
			first := q.next()
			q.tick(1, 9)
			return first
		}, 1},
		"the last, after it was asked again": {func(q *reads) []byte {
			q.add(read)
			q.next()
			again, _ := q.tick(1, 9)
			return again
		}, 1},
		"one of the batch before": {func(q *reads) []byte {
			q.add(read)
			q.next()
			late, _ := q.tick(1, 9)
			q.confirmed(late)
			q.add(read)
			q.next()
			return late
		}, 0},
		"one of a batch that was given up": {func(q *reads) []byte {
			q.add(read)
			late := q.next()
			q.tick(1, 1)
			return late
		}, 0},
		"another node's": {func(q *reads) []byte {
			q.add(read)
			context := append([]byte{}, q.next()...)
			context[0]++
			return context
		}, 0},
		"garbage": {func(q *reads) []byte { q.add(read); q.next(); return []byte{1} }, 0},
	} {
		q := &reads{nonce: 7}
		context := row.script(q)
		if got := len(q.confirmed(context)); got != row.reads {
			t.Errorf("%s: %d reads confirmed, want %d", name, got, row.reads)
		}
	}
}

func TestReadsBatch(t *testing.T) {
	q := &reads{}
	if q.next() != nil {
		t.Fatal("an empty batch was started")
	}
	q.add(&messages.ReadIndex{})
	first := q.next()
	q.add(&messages.ReadIndex{})
	if q.next() != nil {
		t.Fatal("two batches are in flight")
	}
	if len(q.confirmed(first)) != 1 || q.next() == nil {
		t.Fatal("the second batch does not follow the first")
	}
	for range readsMax {
		q.add(&messages.ReadIndex{})
	}
	if q.add(&messages.ReadIndex{}) {
		t.Fatal("no bound")
	}
}
