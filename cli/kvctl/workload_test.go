//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/messages"
	"keyval/sim"
)

const (
	writersCount = 64
	readersCount = 16
	clientsCount = 8 // connections: a handful of workers share one
	pinnedCount  = 9 // of the readers: each asks one node alone, whether it leads or is cut off

	// hotGroups share out the workers, so that a hot key has at most ten clients at
	// once: porcupine can judge it. A group goes to a fresh key every hotSpan, so
	// that each has a history of its own from beginning to end.
	hotGroups = 8
	hotSpan   = time.Second

	coldScan = 20 // keys
)

// workload is clients at work, and what they saw.
type workload struct {
	t       *testing.T
	clients []*client.Client
	began   time.Time
	stop    chan struct{}
	done    sync.WaitGroup
	records [][]sim.Recorded // one a worker; read when done

	newest       atomic.Uint64              // revision that anybody saw
	cold         [writersCount]atomic.Int64 // keys that a writer has begun
	acknowledged atomic.Int64
	lastAck      atomic.Int64  // since began, ns
	lapGap       atomic.Int64  // the longest between acknowledged writes since the last lap, ns
	longestGap   time.Duration // the longest of the laps
}

// worker is one goroutine of a workload.
type worker struct {
	*workload
	id, group int
	client    *client.Client
	random    *rand.Rand
	values    int
	record    []sim.Recorded
}

func startWorkload(t *testing.T, seed uint64, endpoints []string) *workload {
	t.Helper()
	w := &workload{t: t, began: time.Now(), stop: make(chan struct{}), records: make([][]sim.Recorded, writersCount+readersCount)}
	for range clientsCount {
		w.connect(client.Options{Endpoints: endpoints})
	}
	for _, e := range endpoints {
		w.connect(client.Options{Endpoints: []string{e}, Pinned: true, Timeout: time.Second})
	}
	for id := range w.records {
		one := &worker{
			workload: w, id: id, group: id % hotGroups, client: w.clients[(id/hotGroups+id)%clientsCount],
			random: rand.New(rand.NewPCG(seed, uint64(id))),
		}
		if id >= len(w.records)-pinnedCount {
			one.client = w.clients[clientsCount+id%len(endpoints)]
		}
		step := one.writes
		if id >= writersCount {
			step = one.reads
		}
		w.done.Go(func() {
			for !w.stopped() {
				step()
			}
			w.records[id] = one.record
		})
	}
	return w
}

func (w *workload) connect(o client.Options) {
	w.t.Helper()
	c, err := client.Connect(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	w.clients = append(w.clients, c)
}

func (w *workload) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// end stops the workers and returns what they recorded.
func (w *workload) end() []sim.Recorded {
	close(w.stop)
	w.done.Wait()
	return slices.Concat(w.records...)
}

// reach waits for so many more acknowledged writes.
func (w *workload) reach(more int64) {
	w.t.Helper()
	reach(w.t, &w.acknowledged, more, 30*time.Second)
}

func (w *workload) now() time.Duration { return time.Since(w.began) }

func hotKey(group int, slot time.Duration) string { return fmt.Sprintf("hot/%d/%05d", group, slot) }
func coldKey(writer, number int) string           { return fmt.Sprintf("cold/%02d/%07d", writer, number) }

func (w *worker) hotKey() string { return hotKey(w.group, w.now()/hotSpan) }

// writes makes one write: half of them to a key that others write too.
func (w *worker) writes() {
	begun := int(w.cold[w.id].Load())
	switch p := w.random.IntN(100); {
	case p < 42:
		w.put(w.hotKey())
	case p < 50:
		w.delete(w.hotKey())
	case p < 90 || begun == 0:
		w.cold[w.id].Add(1)
		w.put(coldKey(w.id, begun))
	case p < 95:
		w.put(coldKey(w.id, w.random.IntN(begun)))
	default:
		w.delete(coldKey(w.id, w.random.IntN(begun)))
	}
}

// reads makes one read, most of them linearizable.
func (w *worker) reads() {
	writer := w.random.IntN(writersCount)
	number := w.random.IntN(int(w.cold[writer].Load()) + 1)
	switch p := w.random.IntN(100); {
	case p < 50:
		w.get(w.hotKey(), 0, false)
	case p < 70:
		w.get(coldKey(writer, number), 0, false)
	case p < 80:
		w.get(w.hotKey(), 0, true)
	case p < 90:
		newest := w.newest.Load()
		w.get(w.hotKey(), newest-min(newest, w.random.Uint64N(1000)), p < 85)
	default:
		w.scan(coldKey(writer, number), coldKey(writer, number+coldScan))
	}
}

// context bounds an operation; some have little patience.
func (w *worker) context() (context.Context, context.CancelFunc) {
	if w.random.IntN(20) > 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), time.Duration(1+w.random.IntN(300))*time.Millisecond)
}

func (w *worker) put(key string) {
	w.values++
	r := sim.Recorded{Kind: sim.RecordedPut, Key: key, Value: strconv.Itoa(w.id) + "." + strconv.Itoa(w.values)}
	w.measure(&r, func(ctx context.Context) error {
		put, err := w.client.Put(ctx, []byte(key), []byte(r.Value))
		r.Revision = put.Revision
		return err
	})
}

func (w *worker) delete(key string) {
	r := sim.Recorded{Kind: sim.RecordedDelete, Key: key}
	w.measure(&r, func(ctx context.Context) error {
		deleted, err := w.client.Delete(ctx, []byte(key))
		r.Revision, r.Deleted = deleted.Revision, deleted.Deleted
		return err
	})
}

func (w *worker) get(key string, asOf uint64, stale bool) {
	r := sim.Recorded{Kind: sim.RecordedGet, Key: key, AsOf: asOf, Stale: stale}
	options := []client.ReadOption{client.AtRevision(asOf)}
	if stale {
		options = append(options, client.Stale())
	}
	w.measure(&r, func(ctx context.Context) error {
		got, err := w.client.Get(ctx, []byte(key), options...)
		r.Revision = got.ReadRevision
		if err == nil {
			r.Items = []sim.Version{{Key: key, Value: string(got.Value), Revision: got.Revision}}
		}
		return err
	})
}

// scan reads a range. One that finds nothing does not say when, so it is no record.
func (w *worker) scan(from, to string) {
	r := sim.Recorded{Kind: sim.RecordedScan, Key: from, To: to}
	w.measure(&r, func(ctx context.Context) error {
		for item, err := range w.client.Scan(ctx, []byte(from), []byte(to), client.ScanOptions{PageSize: 1 + w.random.IntN(coldScan)}) {
			if err != nil {
				return err
			}
			r.Revision = item.ReadRevision
			r.Items = append(r.Items, sim.Version{Key: string(item.Key), Value: string(item.Value), Revision: item.Revision})
		}
		if len(r.Items) == 0 {
			return messages.Errorf(messages.Code_TIMED_OUT, "nothing was found")
		}
		return nil
	})
}

// measure does an operation and records it.
func (w *worker) measure(r *sim.Recorded, do func(context.Context) error) {
	ctx, cancel := w.context()
	defer cancel()
	r.Client, r.Began = w.id, w.now()
	err := do(ctx)
	r.Ended, r.Code = w.now(), messages.CodeOf(err)
	w.record = append(w.record, *r)
	switch r.Code {
	case messages.Code_OK:
		for seen := w.newest.Load(); r.Revision > seen && !w.newest.CompareAndSwap(seen, r.Revision); {
			seen = w.newest.Load()
		}
		if r.Kind == sim.RecordedPut || r.Kind == sim.RecordedDelete {
			w.acknowledge(r.Ended)
		}
	case messages.Code_NOT_FOUND, messages.Code_OUTCOME_UNKNOWN, messages.Code_TIMED_OUT:
	case messages.Code_NO_LEADER, messages.Code_UNREACHABLE, messages.Code_BUSY:
	case messages.Code_INVALID: // a stale read of a revision that the node has not come to
		if !r.Stale || r.AsOf == 0 {
			w.t.Errorf("%+v: %v", *r, err)
		}
	default:
		w.t.Errorf("%+v: %v", *r, err)
	}
}

// acknowledge notes the time since the acknowledgement before.
func (w *workload) acknowledge(at time.Duration) {
	w.acknowledged.Add(1)
	gap := int64(at) - w.lastAck.Swap(int64(at))
	for longest := w.lapGap.Load(); gap > longest && !w.lapGap.CompareAndSwap(longest, gap); {
		longest = w.lapGap.Load()
	}
}

// lap is the longest time without an acknowledged write since the last lap.
func (w *workload) lap() time.Duration {
	gap := time.Duration(w.lapGap.Swap(0))
	w.longestGap = max(w.longestGap, gap)
	return gap
}
