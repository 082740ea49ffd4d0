package membershipactor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// TestSpansOfOperations: a leader has a span of each phase that it sees, and the root of an
// operation whose end it sees.
func TestSpansOfOperations(t *testing.T) {
	type look struct {
		leads bool
		phase messages.OperationPhase // PHASE_NONE: there is no operation
	}
	const (
		none, add, catchUp      = messages.OperationPhase_PHASE_NONE, messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_CATCH_UP
		promotion, done, failed = messages.OperationPhase_PROMOTION, messages.OperationPhase_COMPLETE, messages.OperationPhase_FAILED
	)
	for _, row := range []struct {
		name  string
		looks []look
		ended string
		open  int
		took  string // what is counted: phases and operations, with ms
	}{
		{"nothing is done", []look{{true, none}}, "", 0, ""},
		{"from its beginning to its end", []look{{true, none}, {true, add}, {true, add}, {true, catchUp}, {true, done}, {true, done}}, "add_learner catch_up add", 0, "add_learner 1000 catch_up 1000 complete 2500"},
		{"it fails", []look{{true, add}, {true, failed}}, "add_learner add UNSAFE", 0, "add_learner 1000 failed 1500"},
		{"somebody else leads", []look{{false, add}, {false, done}}, "", 0, ""},
		{"it leads no more", []look{{true, add}, {false, add}, {false, done}}, "add_learner/this node leads no more", 0, ""},
		{"it takes an operation on", []look{{false, catchUp}, {true, catchUp}, {true, promotion}, {true, done}}, "catch_up promotion add", 0, "catch_up 1000 promotion 1000 complete 2500"},
		{"it leads again", []look{{true, add}, {false, add}, {true, add}}, "add_learner/this node leads no more", 1, ""},
		{"what has ended before is not of this leader", []look{{true, done}}, "", 0, ""},
	} {
		recorder := tracetest.NewSpanRecorder()
		provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder), sdk.WithIDGenerator(telemetry.IDs{}))
		meter := prometheus.NewRegistry()
		s, changed, phase := newFollowing(meter, telemetry.NewTracer(provider)), int64(0), none
		for _, l := range row.looks {
			if l.phase != phase {
				phase, changed = l.phase, changed+1000
			}
			state := &messages.MembersChanged{}
			if l.phase != none {
				state.Operations = append(state.Operations, &messages.ClusterOperation{
					Id: []byte("0123456789abcdef"), Kind: messages.OperationKind_ADD, Phase: l.phase, Code: messages.Code_UNSAFE, StartedAtMs: 500, ChangedAtMs: changed,
				})
			}
			s.follow(l.leads, View{state: state})
		}
		var ended []string
		for _, span := range recorder.Ended() {
			text := span.Name()
			for _, e := range span.Events() {
				text += "/" + e.Name
			}
			for _, a := range span.Attributes() {
				if a.Key == "error.type" {
					text += " " + a.Value.AsString()
				}
			}
			if id := span.SpanContext().TraceID().String(); id != fmt.Sprintf("%x", "0123456789abcdef") {
				t.Errorf("%s: %s is of trace %s", row.name, text, id)
			}
			ended = append(ended, text)
		}
		if got := strings.Join(ended, " "); got != row.ended || len(s.open) != row.open {
			t.Errorf("%s: %q ended and %d are open, want %q and %d", row.name, got, len(s.open), row.ended, row.open)
		}
		if got := took(t, meter); got != row.took {
			t.Errorf("%s: counted is %q, want %q", row.name, got, row.took)
		}
		provider.Shutdown(t.Context())
	}
	untraced := newFollowing(nil, nil)
	view := View{state: &messages.MembersChanged{Operations: []*messages.ClusterOperation{{Id: []byte("0123456789abcdef"), Phase: add}}}}
	untraced.follow(true, view)
	if n := testing.AllocsPerRun(100, func() { untraced.follow(true, view) }); n > 0 || len(untraced.open) != 1 {
		t.Errorf("where nobody traces: %v allocations, %d are open", n, len(untraced.open))
	}
}

// took is what was counted: the phases, then the whole operations, each with its ms.
func took(t *testing.T, meter *prometheus.Registry) string {
	t.Helper()
	families, err := meter.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.Metric {
			if h := m.Histogram; h.GetSampleCount() > 0 {
				all = append(all, m.Label[1].GetValue(), fmt.Sprint(h.GetSampleSum()*1000))
			}
		}
	}
	return strings.Join(all, " ")
}
