package telemetry

import (
	"bytes"
	"context"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"keyval/messages"
)

// recorded is a tracer, by the SDK's own sampling of what has no parent, and what it made.
func recorded(t *testing.T, ratio float64) (*Tracer, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	p := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder), sdk.WithIDGenerator(IDs{}), sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(ratio))))
	t.Cleanup(func() { p.Shutdown(context.Background()) })
	return NewTracer(p), recorder
}

// TestWhoIsTraced: who has a parent is traced as that is, who has none as the node decides, and
// what is no parent counts as none.
func TestWhoIsTraced(t *testing.T) {
	whole := func(flags uint32) *messages.Traceparent {
		return &messages.Traceparent{Trace: bytes.Repeat([]byte{7}, 16), Span: bytes.Repeat([]byte{8}, 8), Flags: flags}
	}
	for _, row := range []struct {
		name           string
		parent         *messages.Traceparent
		ratio          float64
		request, stage bool
	}{
		{"recorded", whole(1), 0, true, true},
		{"recorded, by flags that are not known", whole(1<<20 | 1), 0, true, true},
		{"not recorded", whole(0), 1, false, false},
		{"none, and the node traces", nil, 1, true, false},
		{"none, and the node does not", nil, 0, false, false},
		{"half of one", &messages.Traceparent{Trace: bytes.Repeat([]byte{7}, 16), Flags: 1}, 1, true, false},
		{"too long", &messages.Traceparent{Trace: bytes.Repeat([]byte{7}, 17), Span: bytes.Repeat([]byte{8}, 8), Flags: 1}, 0, false, false},
		{"zeros", &messages.Traceparent{Trace: make([]byte, 16), Span: make([]byte, 8), Flags: 1}, 0, false, false},
	} {
		tracer, recorder := recorded(t, row.ratio)
		request, stage := tracer.BeginRequest(row.parent, "write"), tracer.Begin(row.parent, "fsync")
		if request.On() != row.request || stage.On() != row.stage {
			t.Errorf("%s: the request is traced: %v, a stage: %v", row.name, request.On(), stage.On())
		}
		if request.On() {
			below := tracer.Begin(request.Parent(), "propose")
			below.End()
			request.EndWith(messages.Code_BUSY, "too much")
			ended := recorder.Ended()
			if ended[0].Parent().SpanID() != ended[1].SpanContext().SpanID() || ended[0].SpanContext().TraceID() != ended[1].SpanContext().TraceID() {
				t.Errorf("%s: a stage does not stand below its request", row.name)
			}
			if set := attribute.NewSet(ended[1].Attributes()...); value(set, "db.response.status_code") != "BUSY" || value(set, "error.type") != "BUSY" ||
				value(set, "db.system.name") != "keyval" || value(set, "db.operation.name") != "write" {
				t.Errorf("%s: %v", row.name, ended[1].Attributes())
			}
		}
	}
}

func value(set attribute.Set, key attribute.Key) string {
	v, _ := set.Value(key)
	return v.AsString()
}

// choosing is a provider that begins no trace of a request by itself.
type choosing struct{ *sdk.TracerProvider }

func (choosing) Begins() bool { return false }

// TestChooser: it decides about requests without a parent, and about nothing else.
func TestChooser(t *testing.T) {
	p := sdk.NewTracerProvider()
	defer p.Shutdown(context.Background())
	tracer := NewTracer(choosing{p})
	if tracer.BeginRequest(nil, "write").On() {
		t.Error("a request is traced that was not chosen")
	}
	if !tracer.BeginRequest(OperationTrace([]byte("0123456789abcdef")), "write").On() {
		t.Error("a request is not traced whose client traces it")
	}
	if n := testing.AllocsPerRun(100, func() { tracer.BeginRequest(nil, "write") }); n > 0 {
		t.Errorf("%v allocations for one that is not traced", n)
	}
}

// TestTraceOfAnOperation: its phases, whoever makes them, stand below the root that the last
// leader makes, in the trace of its id.
func TestTraceOfAnOperation(t *testing.T) {
	o := &messages.ClusterOperation{Id: []byte("0123456789abcdef"), Kind: messages.OperationKind_REPLACE, Phase: messages.OperationPhase_CATCH_UP, StartedAtMs: 1000}
	first, before := recorded(t, 0)
	first.BeginPhase(o).End()
	tracer, recorder := recorded(t, 1)
	o.Phase, o.Code, o.Error = messages.OperationPhase_FAILED, messages.Code_UNSAFE, "no quorum"
	tracer.Operation(o)
	phase, root := before.Ended()[0], recorder.Ended()[0]
	if phase.Name() != "catch_up" || root.Name() != "replace" || root.StartTime().UnixMilli() != 1000 || root.Parent().IsValid() ||
		phase.Parent().SpanID() != root.SpanContext().SpanID() || root.SpanContext().TraceID() != phase.SpanContext().TraceID() {
		t.Errorf("%s of %v below %v; %s is %v", phase.Name(), phase.SpanContext(), phase.Parent().SpanID(), root.Name(), root.SpanContext())
	}
	tracer.Operation(&messages.ClusterOperation{Id: []byte("short")})
	if n := len(recorder.Ended()); n != 1 {
		t.Errorf("%d roots of one operation", n)
	}
}

// TestNobodyTraces: what is not traced costs no allocation, and nothing comes of it.
func TestNobodyTraces(t *testing.T) {
	var none *Tracer
	off := &messages.Traceparent{Trace: bytes.Repeat([]byte{7}, 16), Span: bytes.Repeat([]byte{8}, 8)}
	tracer, _ := recorded(t, 1)
	if n := testing.AllocsPerRun(100, func() {
		for _, span := range []Span{none.Begin(off, "propose"), none.BeginRequest(nil, "write"), tracer.Begin(off, "propose"), tracer.Begin(nil, "propose"), tracer.BeginRequest(off, "write")} {
			span.Event("nothing")
			span.EndWith(messages.Code_OK, "")
			span.End()
			if span.On() || span.Parent() != nil {
				t.Error("it is traced")
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRequest is what a put has done for its spans on a node, by who traces.
func BenchmarkRequest(b *testing.B) {
	p := sdk.NewTracerProvider(sdk.WithIDGenerator(IDs{}), sdk.WithSpanProcessor(sdk.NewBatchSpanProcessor(tracetest.NewNoopExporter())))
	defer p.Shutdown(context.Background())
	for _, row := range []struct {
		name   string
		tracer *Tracer
	}{{"nobody", nil}, {"not this one", NewTracer(choosing{p})}, {"this one", NewTracer(p)}} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				request := row.tracer.BeginRequest(nil, "write")
				for _, stage := range []string{"propose", "fsync", "quorum", "apply", "answer"} {
					row.tracer.Begin(request.Parent(), stage).End()
				}
				request.EndWith(messages.Code_OK, "")
			}
		})
	}
}
