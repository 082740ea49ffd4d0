package grpc

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"pgregory.net/rapid"
)

// TestQueueKeepsOrderAndBounds holds the queue against a plain list.
func TestQueueKeepsOrderAndBounds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		limit := rapid.IntRange(100, 1000).Draw(r, "limit")
		evict := rapid.Bool().Draw(r, "evict")
		q := newQueue(limit, evict)
		var model []item
		held := func() (bytes int) {
			for _, it := range model {
				bytes += it.size()
			}
			return bytes
		}
		pushed, taken, lost := 0, 0, 0
		r.Repeat(map[string]func(*rapid.T){
			"push": func(r *rapid.T) {
				it := item{sealed: make([]byte, rapid.IntRange(0, 400).Draw(r, "size")), seq: uint64(pushed)}
				pushed++
				fits := it.size() <= limit && (evict || held()+it.size() <= limit)
				if got := q.push(it); got != fits {
					r.Fatalf("taken %v, want %v", got, fits)
				}
				if !fits {
					lost++
					return
				}
				for held()+it.size() > limit {
					model = model[1:]
					lost++
				}
				model = append(model, it)
			},
			"take": func(r *rapid.T) {
				bytesMax, itemsMax := rapid.IntRange(1, 1000).Draw(r, "bytes"), rapid.IntRange(1, 5).Draw(r, "items")
				got, bytes := q.take(nil, bytesMax, itemsMax), 0
				for i, it := range got {
					if it.seq != model[i].seq {
						r.Fatalf("item %d, want %d", it.seq, model[i].seq)
					}
					bytes += it.size()
				}
				if len(got) == 0 && len(model) > 0 || len(got) > itemsMax || len(got) > 1 && bytes > bytesMax {
					r.Fatalf("%d items of %d bytes were taken", len(got), bytes)
				}
				model = model[len(got):]
				taken += len(got)
			},
			"": func(r *rapid.T) {
				bytes, gone := q.sizes()
				if bytes != held() || bytes > limit || gone != lost || pushed != taken+lost+len(model) {
					r.Fatalf("%d bytes and %d lost, want %d and %d", bytes, gone, held(), lost)
				}
				if len(model) > 0 && len(q.ready) == 0 {
					r.Fatal("nobody is told that items wait")
				}
			},
		})
	})
}

func TestClosedQueueTakesNothing(t *testing.T) {
	q := newQueue(1000, false)
	asker := actor.NewPID("node/1", "session")
	q.push(item{asker: asker, seq: 4})
	if left := q.close(); len(left) != 1 || left[0].seq != 4 {
		t.Errorf("%v is left", left)
	}
	if q.push(item{}) || !q.isClosed() || len(q.take(nil, 1, 1)) != 0 {
		t.Error("it is open")
	}
}

func TestBoundHoldsForWhatComes(t *testing.T) {
	q := newQueue(10*itemOverhead, true)
	for i := range uint64(10) {
		q.push(item{seq: i})
	}
	q.bound(3 * itemOverhead)
	q.push(item{seq: 10})
	if got := q.take(nil, 1<<20, 100); len(got) != 3 || got[0].seq != 8 || got[2].seq != 10 {
		t.Errorf("%v", got)
	}
}

func TestNextDelay(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		before, stood time.Duration
		near          bool
		want          time.Duration
	}{
		{0, 0, false, 50 * ms}, {50 * ms, 0, false, 100 * ms}, {1600 * ms, 0, false, 2000 * ms}, {2000 * ms, 0, false, 2000 * ms},
		{0, 0, true, 50 * ms}, {100 * ms, 0, true, 200 * ms}, {2000 * ms, 0, true, 200 * ms},
		{2000 * ms, time.Second, false, 0}, {0, time.Hour, false, 0}, {0, 999 * ms, false, 50 * ms},
	} {
		if got := nextDelay(test.before, test.stood, test.near); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
