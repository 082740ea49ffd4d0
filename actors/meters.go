package actors

import (
	"encoding/hex"

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

var operationNames = [operations]string{"write", "get", "scan"}

func readKind(m *messages.Read) int {
	if m.GetGet() == nil {
		return aScan
	}
	return aGet
}

// requestMeters counts the requests of clients by what they asked for and how they were
// answered. All sessions of a node share it.
type requestMeters struct {
	answered [operations][]prometheus.Counter // by code
	took     [operations]prometheus.Observer
	clients  prometheus.Gauge
}

func newRequestMeters(meter prometheus.Registerer) *requestMeters {
	answered := telemetry.CounterBy(meter, "keyval_requests_total",
		"Requests of clients that this node has answered, by what was asked for and the code of the answer.", "operation", "code")
	took := telemetry.HistogramBy(meter, "keyval_request_seconds",
		"How long requests of clients took on this node, from their arrival to the answer.", 0.0001, 17, "operation")
	m := &requestMeters{clients: telemetry.Gauge(meter, "keyval_clients", "Clients that are attached to this node; counted each tick.")}
	for operation, name := range operationNames {
		m.took[operation] = took.WithLabelValues(name)
		for code := range messages.Code(len(messages.Code_name)) {
			m.answered[operation] = append(m.answered[operation], answered.WithLabelValues(name, code.String()))
		}
	}
	return m
}

// count takes an answer and how long it took, in ns; below 0: nobody knows. A trace of it
// stands beside the time, so that whoever wonders about a slow one finds one.
func (m *requestMeters) count(e answer, ns int64, trace *messages.Traceparent) {
	operation, code := e.operation()
	if int(code) < len(m.answered[operation]) {
		m.answered[operation][code].Inc()
	}
	switch by, knows := m.took[operation].(prometheus.ExemplarObserver); {
	case ns < 0:
	case trace != nil && knows:
		by.ObserveWithExemplar(float64(ns)/1e9, prometheus.Labels{"trace_id": hex.EncodeToString(trace.Trace)})
	default:
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

// loginMeters counts logins by how they were answered.
func loginMeters(meter prometheus.Registerer) []prometheus.Counter {
	answered := telemetry.CounterBy(meter, "keyval_logins_total", "Logins that this node has answered, by the code of the answer: NOT_ALLOWED are passwords that did not fit.", "code")
	var all []prometheus.Counter
	for code := range messages.Code(len(messages.Code_name)) {
		all = append(all, answered.WithLabelValues(code.String()))
	}
	return all
}
