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
}

func newMeters(meter prometheus.Registerer) meters {
	m := meters{
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
