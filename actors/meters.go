package actors

import (
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// What clients ask for, as metrics name it.
const (
	aWrite = iota
	aGet
	aScan // or a digest
	operations
)

// requestMeters counts the requests of clients by what they asked for and how they were
// answered. All sessions of a node share it.
type requestMeters struct {
	answered [operations][]prometheus.Counter // by code
	took     [operations]prometheus.Observer
}

func newRequestMeters(meter prometheus.Registerer) *requestMeters {
	answered := telemetry.CounterBy(meter, "keyval_requests_total",
		"Requests of clients that this node has answered, by what was asked for and the code of the answer.", "operation", "code")
	took := telemetry.HistogramBy(meter, "keyval_request_seconds",
		"How long requests of clients took on this node, from their arrival to the answer.", 0.0001, 17, "operation")
	m := &requestMeters{}
	for operation, name := range [operations]string{"write", "get", "scan"} {
		m.took[operation] = took.WithLabelValues(name)
		for code := range messages.Code(len(messages.Code_name)) {
			m.answered[operation] = append(m.answered[operation], answered.WithLabelValues(name, code.String()))
		}
	}
	return m
}

// count takes an answer and how long it took, in ns; below 0: nobody knows.
func (m *requestMeters) count(e answer, ns int64) {
	operation, code := e.operation()
	if int(code) < len(m.answered[operation]) {
		m.answered[operation][code].Inc()
	}
	if ns >= 0 {
		m.took[operation].Observe(float64(ns) / 1e9)
	}
}

func (e answer) operation() (int, messages.Code) {
	switch r := e.Reply.(type) {
	case *messages.WriteReply:
		return aWrite, r.Code
	case *messages.ReadReply:
		if e.scans {
			return aScan, r.Code
		}
		return aGet, r.Code
	}
	return aGet, messages.Code_INTERNAL
}
