package telemetry

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"keyval/messages"
)

// An operation of members outlives the leaders that carry it on, and its record is all that
// they share. So its trace is found from its id, which is as long as a trace's: each leader
// makes spans of the phases that it saw, below a root whose number each of them knows, and
// the leader that sees the end makes that root.

// OperationTrace is what the spans of an operation stand below; nil if its id is none.
func OperationTrace(id []byte) *messages.Traceparent {
	if len(id) != messages.OperationIDSize {
		return nil
	}
	return &messages.Traceparent{Trace: id, Span: id[8:], Flags: 1}
}

// BeginPhase begins the span of a phase of an operation.
func (t *Tracer) BeginPhase(o *messages.ClusterOperation) Span {
	return t.Begin(OperationTrace(o.Id), strings.ToLower(o.Phase.String()))
}

// Operation makes the root of an operation that has ended. It began when its record says.
func (t *Tracer) Operation(o *messages.ClusterOperation) {
	is, ok := spanContext(OperationTrace(o.Id))
	if t == nil || !ok {
		return
	}
	span := t.begin(context.WithValue(context.Background(), rootKey{}, is), strings.ToLower(o.Kind.String()), trace.WithNewRoot(),
		trace.WithTimestamp(time.UnixMilli(o.StartedAtMs)), trace.WithAttributes(
			attribute.String("keyval.operation.id", fmt.Sprintf("%x", o.Id)),
			attribute.String("keyval.member.old", o.OldNode), attribute.String("keyval.member.new", o.NewNode)))
	if o.Phase == messages.OperationPhase_FAILED {
		span.EndWith(o.Code, o.Error)
		return
	}
	span.End()
}

// rootKey is where a context says which root a span is.
type rootKey struct{}

// IDs numbers spans, as a TracerProvider of OpenTelemetry's SDK has it done: at random, but for
// roots of operations.
type IDs struct{}

// NewIDs numbers a root.
func (IDs) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	if is, ok := ctx.Value(rootKey{}).(trace.SpanContext); ok {
		return is.TraceID(), is.SpanID()
	}
	for !id.IsValid() {
		binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id, newSpanID()
}

// NewSpanID numbers a span of a trace.
func (IDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.LittleEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
