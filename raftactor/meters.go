package raftactor

import (
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// meters is what the Raft actor counts, from the effects that it carries.
type meters struct {
	leaders   prometheus.Counter
	elections prometheus.Counter
	refused   *prometheus.CounterVec // by code
	lost      prometheus.Counter
	queued    prometheus.Gauge // bytes
	inbox     prometheus.Gauge // bytes
	readIndex prometheus.Observer

	nanos func() int64
	asked int64 // when the batch of reads under way was asked for; 0: none is, or nobody measures
}

func newMeters(meter prometheus.Registerer, nanos func() int64) meters {
	m := meters{
		nanos: nanos,
		queued: telemetry.Gauge(meter, "keyval_proposals_queued_bytes",
			"Bytes of commands that wait on this node, if it leads, to be put into the log."),
		inbox: telemetry.Gauge(meter, "keyval_inbox_queued_bytes",
			"Bytes of entries and commands of other nodes that wait for raft; read each tick."),
		readIndex: telemetry.Histogram(meter, "keyval_read_index_seconds",
			"How long a batch of linearizable reads waited until its index was confirmed.", 0.0001, 17),
		leaders: telemetry.Counter(meter, "keyval_raft_leader_changes_total",
			"Leaderships, each of one replica in one term, that this node has heard of."),
		elections: telemetry.Counter(meter, "keyval_raft_elections_started_total",
			"Elections that this node has started: rounds of votes that it asked for."),
		refused: telemetry.CounterBy(meter, "keyval_raft_proposals_refused_total",
			"Proposals that this node has sent back, which were surely not proposed.", "code"),
		lost: telemetry.Counter(meter, "keyval_raft_messages_dropped_total",
			"Messages of other nodes that were dropped since too much of them waited for raft; they are sent again."),
	}
	for _, code := range []messages.Code{messages.Code_BUSY, messages.Code_NO_LEADER, messages.Code_TIMED_OUT} {
		m.refused.WithLabelValues(code.String()) // seen at 0 before it grows
	}
	return m
}

// readIndexAsked and readIndexConfirmed measure batches of reads: one is under way at a time.
func (m *meters) readIndexAsked() {
	if m.nanos != nil {
		m.asked = m.nanos()
	}
}

func (m *meters) readIndexConfirmed() {
	if m.asked != 0 {
		m.readIndex.Observe(float64(m.nanos()-m.asked) / 1e9)
		m.asked = 0
	}
}
