package storeactor

import (
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
)

// meters is what the machine counts.
type meters struct {
	applied    prometheus.Counter
	checkpoint prometheus.Histogram
}

func newMeters(meter prometheus.Registerer) meters {
	return meters{
		applied: telemetry.Counter(meter, "keyval_machine_applied_entries_total",
			"Entries that this node has applied, replay after a start included."),
		checkpoint: telemetry.Histogram(meter, "keyval_checkpoint_seconds",
			"How long checkpoints took to become durable, counted in ticks.", 0.05, 12),
	}
}

func appendedBytes(meter prometheus.Registerer) prometheus.Counter {
	return telemetry.Counter(meter, "keyval_log_appended_bytes_total", "Bytes of the entries that were written to the log.")
}
