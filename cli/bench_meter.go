package cli

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"keyval/messages"
)

// latencyMax is the longest latency that is told apart, in microseconds: an hour.
const latencyMax = int64(time.Hour / time.Microsecond)

func newLatencies() *hdrhistogram.Histogram { return hdrhistogram.New(1, latencyMax, 3) }

// meter takes the outcomes of all clients. It measures from open to shut.
type meter struct {
	mu      sync.Mutex
	opened  time.Time                      // zero: not yet
	closed  time.Time                      // zero: not yet
	latency [kinds]*hdrhistogram.Histogram // of operations that began in the measured time, in microseconds
	answers [kinds]uint64                  // that came in the measured time
	missing uint64                         // reads of keys that were not there, among them
	errors  map[messages.Code]uint64       // of operations that began in the measured time
	sample  error                          // the last of these

	recent       *hdrhistogram.Histogram // since the last second
	recentErrors uint64
	told         time.Time // the last second's end
}

func newMeter() *meter {
	m := &meter{errors: map[messages.Code]uint64{}, recent: newLatencies()}
	for kind := range m.latency {
		m.latency[kind] = newLatencies()
	}
	return m
}

func (m *meter) open(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened, m.told = now, now
	m.recent.Reset()
	m.recentErrors = 0
}

func (m *meter) shut(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = now
}

// record takes one outcome: of an operation that began, or should have, at
// intended.
func (m *meter) record(kind int, intended, ended time.Time, err error) {
	micros := min(max(ended.Sub(intended).Microseconds(), 1), latencyMax)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened.IsZero() {
		return
	}
	within := m.closed.IsZero()
	measured := !intended.Before(m.opened) && (within || intended.Before(m.closed))
	if failed(err) {
		if measured {
			m.errors[messages.CodeOf(err)]++
			m.sample = err
		}
		m.recentErrors++
		return
	}
	if within {
		m.answers[kind]++
		if err != nil {
			m.missing++
		}
	}
	if measured {
		_ = m.latency[kind].RecordValue(micros) // it is within the bounds
	}
	_ = m.recent.RecordValue(micros)
}

// benchSecond is one line of progress.
type benchSecond struct {
	ElapsedMS int64   `json:"elapsed_ms"`
	Rate      float64 `json:"operations_per_s"`
	P50       int64   `json:"p50_us"`
	P99       int64   `json:"p99_us"`
	Errors    uint64  `json:"errors"`
}

// second is what came since the last one.
func (m *meter) second(now time.Time) benchSecond {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := benchSecond{
		ElapsedMS: now.Sub(m.opened).Milliseconds(), Errors: m.recentErrors,
		P50: m.recent.ValueAtQuantile(50), P99: m.recent.ValueAtQuantile(99),
	}
	if passed := now.Sub(m.told).Seconds(); passed > 0 {
		s.Rate = float64(m.recent.TotalCount()) / passed
	}
	m.recent.Reset()
	m.recentErrors, m.told = 0, now
	return s
}
