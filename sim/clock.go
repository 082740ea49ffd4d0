package sim

import (
	"math"
	"time"
)

// clock is virtual time: a heap of events. It moves only when the world says so.
type clock struct {
	now    time.Duration // since the world began
	serial uint64        // orders events of one instant as they were planned
	heap   []event
}

// event is something that happens at an instant, unless its host is dead by then.
type event struct {
	at     time.Duration
	serial uint64
	host   *host // nil: the world's own
	run    func()
}

func (e event) before(o event) bool {
	return e.at < o.at || e.at == o.at && e.serial < o.serial
}

// after plans run for an instant delay from now. A host's event dies with it.
func (c *clock) after(delay time.Duration, h *host, run func()) {
	c.serial++
	c.heap = append(c.heap, event{at: c.now + max(delay, 0), serial: c.serial, host: h, run: run})
	for i := len(c.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !c.heap[i].before(c.heap[parent]) {
			return
		}
		c.heap[i], c.heap[parent] = c.heap[parent], c.heap[i]
		i = parent
	}
}

// next is the instant of the first event; false if nothing is planned.
func (c *clock) next() (time.Duration, bool) {
	if len(c.heap) == 0 {
		return math.MaxInt64, false
	}
	return c.heap[0].at, true
}

// fire runs the first event. The clock never goes back.
func (c *clock) fire() {
	e := c.pop()
	c.now = max(c.now, e.at)
	if e.host == nil || !e.host.dead {
		e.run()
	}
}

func (c *clock) pop() event {
	first, last := c.heap[0], len(c.heap)-1
	c.heap[0] = c.heap[last]
	c.heap[last] = event{}
	c.heap = c.heap[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if c.heap[child].before(c.heap[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		c.heap[i], c.heap[least] = c.heap[least], c.heap[i]
		i = least
	}
}

// pace is how a host's ticker differs from the world's clock.
type pace struct {
	rate   float64       // 1.02: its ticks come 2 % too slowly
	jitter time.Duration // each tick is late by up to this
}

// Start implements seam.Ticker. A frozen host misses its ticks; a burst, set by
// the world's faults, is a clock that jumps ahead.
func (h *host) Start(interval time.Duration, tick func()) (stop func()) {
	stopped := false
	var beat func()
	beat = func() {
		if stopped {
			return
		}
		if !h.frozen {
			for range 1 + h.burst {
				tick()
			}
			h.burst = 0
		}
		h.world.clock.after(h.beat(interval), h, beat)
	}
	h.world.clock.after(h.beat(interval), h, beat)
	return func() { stopped = true }
}

func (h *host) beat(interval time.Duration) time.Duration {
	beat := time.Duration(float64(interval) * h.pace.rate)
	if h.pace.jitter > 0 {
		beat += time.Duration(h.world.chance.Int64N(int64(h.pace.jitter)))
	}
	return max(beat, time.Microsecond)
}
