package raftactor

import (
	"encoding/binary"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

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

// TestPeersReadsAreBounded: a peer floods a leader that cannot confirm a read, since nobody
// answers it. What RawNode keeps until the leader steps down is bounded.
func TestPeersReadsAreBounded(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	peer := leader%3 + 1
	for id := range g.replicas {
		g.cut[id] = id != leader
	}
	r := g.replicas[leader]
	kept := func() (beats int) { // raft sends a heartbeat to each peer for every read that it keeps
		before := len(g.seen[leader])
		for n := range uint64(10 * asksMax) {
			m := &raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), From: &peer, To: &leader, Entries: []*raftpb.Entry{{Data: binary.BigEndian.AppendUint64(nil, n)}}}
			if err := r.OnPeer(m); err != nil {
				t.Fatal(err)
			}
		}
		g.drain()
		for _, e := range g.seen[leader][before:] {
			if s, ok := e.(SendPeer); ok && s.Message.GetTo() == peer && s.Message.GetType() == raftpb.MsgHeartbeat {
				beats++
			}
		}
		return beats
	}
	if n := kept(); n == 0 || n > asksMax {
		t.Errorf("%d reads were taken, at most %d may be", n, asksMax)
	}
	if n := kept(); n != 0 {
		t.Errorf("%d more were taken in the same tick", n)
	}
	r.OnTick(1)
	if kept() == 0 {
		t.Error("none was taken in the next tick")
	}
}
