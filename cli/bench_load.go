package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"keyval/messages"
)

// load is the clients of a bench.
type load struct {
	plan   benchPlan
	stores []Store
	meter  *meter
	noise  []byte // values are slices of it; never changed, since a store may hold on to them
	begun  time.Time
	due    atomic.Int64 // with a rate: the number of the next operation on the schedule
}

// noiseSize is how many bytes there are to begin a value at.
const noiseSize = 1 << 20

func newLoad(plan benchPlan, stores []Store) *load {
	l := &load{plan: plan, stores: stores, meter: newMeter(), noise: make([]byte, noiseSize+plan.valueSize)}
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	_, _ = rand.NewChaCha8(seed).Read(l.noise) // it never fails
	return l
}

// value is random bytes.
func (l *load) value(random *rand.Rand) []byte {
	at := random.IntN(noiseSize)
	return l.noise[at : at+l.plan.valueSize : at+l.plan.valueSize]
}

// each runs work once for every client, and waits for all.
func (l *load) each(work func(store Store, random *rand.Rand)) {
	var clients sync.WaitGroup
	for i := range l.plan.clients {
		clients.Go(func() { work(l.stores[i%len(l.stores)], rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))) })
	}
	clients.Wait()
}

// fill writes every key once.
func (l *load) fill(ctx context.Context, told *progress) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, written atomic.Uint64
	ended := make(chan struct{})
	started := time.Now()
	go func() {
		defer close(ended)
		l.each(func(store Store, random *rand.Rand) {
			for i := next.Add(1) - 1; i < l.plan.keys && ctx.Err() == nil; i = next.Add(1) - 1 {
				if _, err := store.Put(ctx, l.plan.key(i), l.value(random)); err != nil {
					cancel(err)
					return
				}
				written.Add(1)
			}
		})
	}()
	beat := time.NewTicker(told.every)
	defer beat.Stop()
	for {
		select {
		case <-ended:
			told.end()
			err := context.Cause(ctx)
			if now := time.Now(); err == nil {
				f := fillingAt(l.plan.keys, l.plan.keys, now.Sub(started))
				told.phase(f, "✓ %d keys are written (%s)", f.Keys, timeText(now.Sub(started)))
			}
			return err
		case now := <-beat.C:
			f := fillingAt(written.Load(), l.plan.keys, now.Sub(started))
			told.tell(now, f, "%s", f)
		}
	}
}

// filling is how far the keys are that are written before a measurement.
type filling struct {
	Filled uint64  `json:"filled_keys"`
	Keys   uint64  `json:"keys"`
	Rate   float64 `json:"rate_keys_per_s"`
	ETAMs  int64   `json:"eta_ms"` // 0: not known
}

func fillingAt(filled, keys uint64, after time.Duration) filling {
	f := filling{Filled: filled, Keys: keys}
	if after > 0 && filled > 0 {
		f.Rate = float64(filled) / after.Seconds()
		f.ETAMs = int64(float64(keys-filled) / f.Rate * 1000)
	}
	return f
}

func (f filling) String() string {
	text := fmt.Sprintf("filling: %d of %d keys, %.0f/s", f.Filled, f.Keys, f.Rate)
	if f.ETAMs > 0 {
		text += ", about " + timeText(time.Duration(f.ETAMs)*time.Millisecond) + " left"
	}
	return text
}

// run lets the clients work, and measures after the warm-up. It returns the CPU
// time that was spent while it measured. When ctx ends it measures no more, and
// waits for what is under way.
func (l *load) run(ctx context.Context, nodes localNodes, told *progress) cpuSpent {
	running, stop := context.WithCancel(ctx)
	defer stop()
	var before cpuSpent
	measure := func() {
		before = readCPU(nodes)
		l.meter.open(time.Now())
	}
	if l.plan.warmup == 0 {
		measure()
	}
	l.begun = time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.each(func(store Store, random *rand.Rand) { l.client(running, store, random) })
	}()
	if l.plan.warmup > 0 {
		passes(ctx, l.plan.warmup)
		measure()
	}
	l.watch(ctx, told)
	l.meter.shut(time.Now())
	spent := readCPU(nodes).since(before)
	stop()
	<-ended
	return spent
}

// watch passes the measured time, and tells of each second.
func (l *load) watch(ctx context.Context, told *progress) {
	over := time.NewTimer(l.plan.duration)
	defer over.Stop()
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		select {
		case <-over.C:
			return
		case <-ctx.Done():
			return
		case now := <-beat.C:
			s := l.meter.second(now)
			told.tell(now, s, "%4.0fs  %8.0f ops/s  p50 %8s  p99 %8s  errors %d", float64(s.ElapsedMS)/1000, s.Rate, inUnits(s.P50), inUnits(s.P99), s.Errors)
		}
	}
}

// client does one operation after the other. At the end it waits for the one under way:
// without the slowest the result would look better than it is.
func (l *load) client(running context.Context, store Store, random *rand.Rand) {
	ctx := context.WithoutCancel(running)
	for {
		intended, ok := l.turn(running)
		if !ok {
			return
		}
		kind, key := writing, l.plan.key(random.Uint64N(l.plan.keys))
		var err error
		if random.Float64() < l.plan.readRatio {
			kind = reading
			_, err = store.Get(ctx, key, 0, l.plan.stale)
		} else {
			_, err = store.Put(ctx, key, l.value(random))
		}
		l.meter.record(kind, intended, time.Now(), err)
	}
}

// turn waits until the next operation is due, and returns when that was: now, or with a
// rate the operation's place on the schedule, which may be long past.
func (l *load) turn(running context.Context) (intended time.Time, ok bool) {
	if l.plan.rate <= 0 {
		return time.Now(), running.Err() == nil
	}
	n := l.due.Add(1) - 1
	intended = l.begun.Add(time.Duration(float64(n) / l.plan.rate * float64(time.Second)))
	if early := time.Until(intended); early > 0 {
		passes(running, early)
	}
	return intended, running.Err() == nil
}

// Kinds of operation.
const (
	writing = iota
	reading
	kinds
)

// failed reports whether an operation's error is one: a key that is not there is
// an answer.
func failed(err error) bool {
	return err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND
}
