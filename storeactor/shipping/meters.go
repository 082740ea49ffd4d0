package shipping

import (
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// meters is what the snapshots actor counts, from the effects that it carries out.
type meters struct {
	sent, received, installed prometheus.Counter
}

func newMeters(meter prometheus.Registerer) meters {
	return meters{
		sent: telemetry.Counter(meter, "keyval_snapshot_sent_bytes_total",
			"Bytes of snapshots that were sent to other nodes, those sent again included."),
		received: telemetry.Counter(meter, "keyval_snapshot_received_bytes_total",
			"Bytes of snapshots that came from other nodes and were taken."),
		installed: telemetry.Counter(meter, "keyval_snapshots_installed_total",
			"Snapshots from other nodes that became the state of this one."),
	}
}

func (c meters) count(m proto.Message) {
	switch m := m.(type) {
	case *messages.SnapshotPiece:
		c.sent.Add(float64(len(m.Chunk.GetBody())))
	case *messages.StageChunk:
		c.received.Add(float64(len(m.Chunk.GetBody())))
	}
}
