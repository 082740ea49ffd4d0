package actors

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/seam/production"
	"keyval/messages"
)

// TestCountingAPutCostsNoAllocation: what an untraced put adds to the counters of its session.
func TestCountingAPutCostsNoAllocation(t *testing.T) {
	m, nanos := newRequestMeters(prometheus.NewRegistry()), production.World(nil, nil).Nanos
	e := answer{Reply: &messages.WriteReply{}}
	if n := testing.AllocsPerRun(1000, func() {
		begun := nanos()
		m.count(e, nanos()-begun, nil)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCountAPut is what counting and timing add to a put on the node that serves its client.
func BenchmarkCountAPut(b *testing.B) {
	m, nanos := newRequestMeters(prometheus.NewRegistry()), production.World(nil, nil).Nanos
	e := answer{Reply: &messages.WriteReply{}}
	b.ReportAllocs()
	for b.Loop() {
		begun := nanos()
		m.count(e, nanos()-begun, nil)
	}
}

// BenchmarkCountABatch is what they add to entries that come together, on each node: to the log, to the
// machine, and on the leader to raft. A batch is a put where there is one client.
func BenchmarkCountABatch(b *testing.B) {
	nanos := production.World(nil, nil).Nanos
	appended, applied := prometheus.NewCounter(prometheus.CounterOpts{Name: "a"}), prometheus.NewCounter(prometheus.CounterOpts{Name: "b"})
	queued := prometheus.NewGauge(prometheus.GaugeOpts{Name: "c"})
	of := func(name string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Buckets: prometheus.ExponentialBuckets(0.0001, 2, 17)})
	}
	apply, sync := of("d"), of("e")
	b.ReportAllocs()
	for b.Loop() {
		begun := nanos()
		appended.Add(256)
		sync.Observe(float64(nanos()-begun) / 1e9)
		begun = nanos()
		apply.Observe(float64(nanos()-begun) / 1e9)
		applied.Add(1)
		queued.Set(0)
	}
}
