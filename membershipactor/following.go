package membershipactor

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// following keeps account of the operations of members: of each phase that this node carries on as
// the leader one is open. Its span ends with it, and how long it took is counted.
type following struct {
	tracer *telemetry.Tracer // nil: nobody traces
	phases *prometheus.HistogramVec
	whole  *prometheus.HistogramVec
	open   map[string]openPhase // by operation; rules.OperationsMax at most
}

type openPhase struct {
	phase messages.OperationPhase
	since int64 // when it began, by the operation's record, in ms since 1970
	span  telemetry.Span
}

// ofKind are the phases that an operation of a kind goes through, but for the last.
var ofKind = map[messages.OperationKind][]messages.OperationPhase{
	messages.OperationKind_ADD:     {messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION},
	messages.OperationKind_PROMOTE: {messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION},
	messages.OperationKind_REMOVE:  {messages.OperationPhase_REMOVE_OLD},
	messages.OperationKind_REPLACE: {messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION, messages.OperationPhase_REMOVE_OLD},
}

func newFollowing(meter prometheus.Registerer, tracer *telemetry.Tracer) following {
	f := following{
		tracer: tracer, open: map[string]openPhase{},
		phases: telemetry.HistogramBy(meter, "keyval_operation_phase_seconds",
			"How long phases of operations of members took whose end this node saw as the leader, by the times in their records.", 0.01, 20, "kind", "phase"),
		whole: telemetry.HistogramBy(meter, "keyval_operation_seconds",
			"How long operations of members took from beginning to end, counted by the node that led then.", 0.01, 20, "kind", "result"),
	}
	for kind, phases := range ofKind { // seen at 0 before they grow
		for _, phase := range phases {
			f.phases.WithLabelValues(word(kind), word(phase))
		}
		for _, result := range []messages.OperationPhase{messages.OperationPhase_COMPLETE, messages.OperationPhase_FAILED} {
			f.whole.WithLabelValues(word(kind), word(result))
		}
	}
	return f
}

func word(v interface{ String() string }) string { return strings.ToLower(v.String()) }

// follow takes what is known of the operations now. A node that leads no more leaves them to
// the next leader, whose spans stand beside its own; what that counts of a phase began where its
// record says, whoever led then.
func (f *following) follow(leads bool, view View) {
	if !leads {
		for _, o := range f.open {
			o.span.Event("this node leads no more")
			o.span.End()
		}
		clear(f.open)
		return
	}
	for _, o := range view.state.GetOperations() {
		was, open := f.open[string(o.Id)]
		switch {
		case open && was.phase == o.Phase, !open && rules.Ended(o):
			continue
		case open:
			was.span.End()
			f.phases.WithLabelValues(word(o.Kind), word(was.phase)).Observe(seconds(was.since, o.ChangedAtMs))
		}
		if !rules.Ended(o) {
			f.open[string(o.Id)] = openPhase{o.Phase, o.ChangedAtMs, f.tracer.BeginPhase(o)}
			continue
		}
		delete(f.open, string(o.Id))
		f.whole.WithLabelValues(word(o.Kind), word(o.Phase)).Observe(seconds(o.StartedAtMs, o.ChangedAtMs))
		f.tracer.Operation(o)
	}
}

// seconds is the time between two times of leaders, whose clocks may differ.
func seconds(from, to int64) float64 { return float64(max(0, to-from)) / 1000 }
