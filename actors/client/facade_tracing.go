package client

import (
	"context"
	"net"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// traced is submit with a span. No key and no value stands in it.
func (c *Client) traced(ctx context.Context, operation string, m *messages.Submit) (*messages.Done, error) {
	ctx, span := c.tracer.Start(ctx, operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("db.system.name", telemetry.System), attribute.String("db.operation.name", operation)))
	defer span.End()
	if is := span.SpanContext(); is.IsValid() {
		id, own := is.TraceID(), is.SpanID()
		m.Traceparent = &messages.Traceparent{Trace: id[:], Span: own[:], Flags: uint32(is.TraceFlags())}
	}
	d, err := c.submit(ctx, m)
	if !span.IsRecording() {
		return d, err
	}
	if host, port, bad := net.SplitHostPort(d.GetEndpoint()); bad == nil {
		number, _ := strconv.Atoi(port)
		span.SetAttributes(attribute.String("server.address", host), attribute.Int("server.port", number))
	}
	if id := d.GetRequestId(); id != "" {
		span.SetAttributes(attribute.String("keyval.request", id))
	}
	if n := len(m.Operations) + len(m.Otherwise); n > 1 {
		span.SetAttributes(attribute.Int("db.operation.batch.size", n))
	}
	telemetry.Answered(span, messages.CodeOf(err), "")
	return d, err
}

// operationOf is what a request of keys asks for; empty: it is another.
func operationOf(m *messages.Submit) string {
	switch {
	case m.Read.GetGet() != nil:
		return "get"
	case m.Read.GetScan() != nil:
		return "scan"
	case m.Read.GetDigest() != nil:
		return "digest"
	case len(m.Operations)+len(m.Otherwise) == 0:
		return ""
	case len(m.Operations) != 1 || len(m.Otherwise) > 0:
		return "transaction"
	}
	switch m.Operations[0].Kind.(type) {
	case *messages.Operation_Put:
		return "put"
	case *messages.Operation_Delete:
		return "delete"
	case *messages.Operation_DeleteRange:
		return "delete_range"
	case *messages.Operation_Compact:
		return "compact"
	}
	return "transaction"
}
