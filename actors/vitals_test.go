package actors

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// TestVitals: what a process counts is told by name, all of it and what is recent.
func TestVitals(t *testing.T) {
	meter := prometheus.NewRegistry()
	v := newVitals(meter, ServeOptions{HistoryRevisions: 7})
	sync := telemetry.Histogram(meter, "keyval_log_sync_seconds", "h", 0.001, 3) // bounds of 1, 2 and 4 ms
	requests := telemetry.HistogramBy(meter, "keyval_request_seconds", "h", 0.001, 3, "operation").WithLabelValues("write")
	telemetry.Gauge(meter, "keyval_proposals_queued_bytes", "h").Set(9)
	telemetry.Counter(meter, "keyval_other_total", "h").Inc()
	sync.Observe(0.0005)
	sync.Observe(0.003)
	sync.Observe(5)
	requests.Observe(0.0005)

	is := v.now()
	if v.now() != is {
		t.Error("it is read anew for each who asks")
	}
	timing := is.Timing("log_sync")
	if timing == nil || timing.FirstUs != 1000 || !equal(timing.Counts, 1, 1, 2, 3) || !equal(timing.Recent, 1, 1, 2, 3) {
		t.Errorf("log_sync is %v", timing)
	}
	if w := is.Timing("write"); messages.Events(w.GetCounts()) != 1 {
		t.Errorf("write is %v", w)
	}
	if len(is.Queued) != 1 || is.Queued[0].In != "proposals" || is.Queued[0].Bytes != 9 {
		t.Errorf("queued is %v", is.Queued)
	}
	if is.Settings[0] != "history_revisions=7" {
		t.Errorf("the settings are %q", is.Settings)
	}

	// As many samples later what was counted before them is not recent any more.
	for range samples {
		v.take()
	}
	sync.Observe(0.0015)
	v.toldAt = v.toldAt.Add(-freshFor)
	if timing = v.now().Timing("log_sync"); !equal(timing.Counts, 1, 2, 3, 4) || !equal(timing.Recent, 0, 1, 1, 1) {
		t.Errorf("later log_sync is %v", timing)
	}
}

func equal(is []uint64, want ...uint64) bool { return slices.Equal(is, want) }
