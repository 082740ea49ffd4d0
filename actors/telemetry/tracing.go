package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"keyval/messages"
)

// Scope is the name under which KeyVal makes spans.
const Scope = "keyval"

// System is the value of db.system.name.
const System = "keyval"

// Tracer makes spans for actors. It is the clock of what it makes: an actor says where a
// stage begins and ends, and never learns how long it took. A nil Tracer makes none, at the
// cost of a comparison.
type Tracer struct {
	tracer trace.Tracer
	begins func() bool // whether a request whose client does not say begins a trace; nil: the provider's sampler decides
}

// Chooser is a TracerProvider that says before a trace is begun for a request whether it is to be. A
// sampler is asked once there is a span, which costs more than most of a put's other steps.
type Chooser interface{ Begins() bool }

// NewTracer makes the tracer of a provider; nil: nobody traces.
func NewTracer(p trace.TracerProvider) *Tracer {
	if p == nil {
		return nil
	}
	t := &Tracer{tracer: p.Tracer(Scope)}
	if c, chooses := p.(Chooser); chooses {
		t.begins = c.Begins
	}
	return t
}

// Span is one stage of what is traced. The zero Span is of nothing, and nothing comes of
// what is done with it.
type Span struct {
	span   trace.Span
	parent *messages.Traceparent
}

// Begin begins a span below a parent that is recorded: the zero Span if it is not, or is
// not whole.
func (t *Tracer) Begin(parent *messages.Traceparent, name string, attributes ...attribute.KeyValue) Span {
	if t == nil {
		return Span{}
	}
	above, ok := spanContext(parent)
	if !ok || !above.IsSampled() {
		return Span{}
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), above)
	return t.begin(ctx, name, trace.WithAttributes(attributes...))
}

// BeginRequest begins the span of a request that has come to this node: below the client's, if
// it has one. If it has none, the provider's sampler decides whether it is traced.
func (t *Tracer) BeginRequest(parent *messages.Traceparent, operation string) Span {
	if t == nil {
		return Span{}
	}
	ctx := context.Background()
	above, ok := spanContext(parent)
	switch {
	case ok && !above.IsSampled(), !ok && t.begins != nil && !t.begins():
		return Span{}
	case ok:
		ctx = trace.ContextWithRemoteSpanContext(ctx, above)
	}
	return t.begin(ctx, "session", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("db.system.name", System), attribute.String("db.operation.name", operation)))
}

func (t *Tracer) begin(ctx context.Context, name string, options ...trace.SpanStartOption) Span {
	_, span := t.tracer.Start(ctx, name, options...)
	if !span.IsRecording() {
		return Span{}
	}
	is := span.SpanContext()
	id, own := is.TraceID(), is.SpanID()
	return Span{span, &messages.Traceparent{Trace: id[:], Span: own[:], Flags: uint32(is.TraceFlags())}}
}

func spanContext(m *messages.Traceparent) (trace.SpanContext, bool) {
	if len(m.GetTrace()) != 16 || len(m.GetSpan()) != 8 {
		return trace.SpanContext{}, false
	}
	is := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(m.Trace), SpanID: trace.SpanID(m.Span), TraceFlags: trace.TraceFlags(m.Flags) & trace.FlagsSampled, Remote: true,
	})
	return is, is.IsValid()
}

// On reports whether the span is one.
func (s Span) On() bool { return s.span != nil }

// Parent is what makes further spans stand below this one; nil: there is none.
func (s Span) Parent() *messages.Traceparent { return s.parent }

// Event notes what happened on the way.
func (s Span) Event(what string, attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.AddEvent(what, trace.WithAttributes(attributes...))
	}
}

// End ends a span that has come as far as it should.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// EndWith ends a span with the code of an answer.
func (s Span) EndWith(code messages.Code, why string) {
	if s.span != nil {
		Answered(s.span, code, why)
		s.span.End()
	}
}

// Answered says on a span how a request was answered.
func Answered(span trace.Span, code messages.Code, why string) {
	span.SetAttributes(attribute.String("db.response.status_code", code.String()))
	if code != messages.Code_OK {
		span.SetAttributes(attribute.String("error.type", code.String()))
		span.SetStatus(codes.Error, why)
	}
}
