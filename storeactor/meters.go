package storeactor

import (
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
)

// meters is what the machine counts.
type meters struct {
	applied    prometheus.Counter
	apply      prometheus.Histogram
	checkpoint prometheus.Histogram
	sessions   prometheus.Gauge
	reads      prometheus.Gauge
}

func newMeters(meter prometheus.Registerer) meters {
	return meters{
		applied: telemetry.Counter(meter, "keyval_machine_applied_entries_total",
			"Entries that this node has applied, replay after a start included."),
		apply: telemetry.Histogram(meter, "keyval_apply_seconds",
			"How long the machine took to apply committed entries that came to it together, their rows written.", 0.0001, 15),
		checkpoint: telemetry.Histogram(meter, "keyval_checkpoint_seconds",
			"How long checkpoints took to become durable, counted in ticks.", 0.05, 12),
		sessions: telemetry.Gauge(meter, "keyval_sessions",
			"Sessions of clients that the cluster remembers, so that no write is done twice; counted each tick."),
		reads: telemetry.Gauge(meter, "keyval_reads_queued",
			"What waits on this node to be read, counted in gets (a scan counts as several); counted each tick."),
	}
}

func appendedBytes(meter prometheus.Registerer) prometheus.Counter {
	return telemetry.Counter(meter, "keyval_log_appended_bytes_total", "Bytes of the entries that were written to the log.")
}
