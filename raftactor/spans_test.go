package raftactor

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"keyval/actors/telemetry"
	"keyval/messages"
)

func traced() *messages.Traceparent {
	return &messages.Traceparent{Trace: []byte("0123456789abcdef"), Span: []byte("01234567"), Flags: 1}
}

// TestSpansOfAProposal: on a real leader a traced proposal is told of where it comes into the
// log, and its spans end one after the other, or together with what becomes of it.
func TestSpansOfAProposal(t *testing.T) {
	const all = "propose fsync quorum apply"
	for _, row := range []struct {
		name  string
		play  func(*spans, *messages.Traceparent)
		ended string // in order
	}{
		{"it is applied", func(s *spans, of *messages.Traceparent) {
			s.logged(TracedLogged{of, 7})
			s.appended(7)
			s.committed(7)
			s.applied(7)
		}, all},
		{"others' disks are faster", func(s *spans, of *messages.Traceparent) {
			s.logged(TracedLogged{of, 7})
			s.committed(9)
			s.appended(9)
			s.applied(9)
		}, "propose quorum fsync apply"},
		{"what is before it changes nothing", func(s *spans, of *messages.Traceparent) {
			s.appended(6)
			s.logged(TracedLogged{of, 7})
			s.appended(6)
			s.committed(6)
			s.applied(6)
		}, "propose"},
		{"it is refused", func(s *spans, of *messages.Traceparent) { s.refused(of, messages.Code_REDIRECT) }, "propose REDIRECT"},
		{"another is refused", func(s *spans, of *messages.Traceparent) { s.refused(traced(), messages.Code_REDIRECT) }, ""},
		{"the lead is lost", func(s *spans, of *messages.Traceparent) {
			s.logged(TracedLogged{of, 7})
			s.lost()
		}, "propose fsync this replica leads no more quorum this replica leads no more"},
	} {
		recorder := tracetest.NewSpanRecorder()
		provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
		s := &spans{tracer: telemetry.NewTracer(provider)}
		of := traced()
		s.proposed(&messages.Propose{Traceparent: of})
		row.play(s, of)
		var ended []string
		for _, span := range recorder.Ended() {
			ended = append(ended, span.Name())
			for _, e := range span.Events() {
				ended = append(ended, e.Name)
			}
		}
		if got := strings.Join(ended, " "); got != row.ended {
			t.Errorf("%s: %q ended, want %q", row.name, got, row.ended)
		}
		if open := len(s.proposals) > 0; open != (row.ended == "propose" || row.ended == "") {
			t.Errorf("%s: %d are open", row.name, len(s.proposals))
		}
		provider.Shutdown(context.Background())
	}
}

// TestTracedProposalIsToldOf where it comes into the log, before the log and the machine are.
func TestTracedProposalIsToldOf(t *testing.T) {
	g := newGroup(t, 1, 2, 3)
	leader := g.elect()
	g.seen = map[uint64][]Effect{}
	of := traced()
	if !g.replicas[leader].OnPropose(Asker{"node/9", "s"}, &messages.Propose{Origin: 9, Seq: 1, Command: []byte("command"), Traceparent: of}) {
		t.Fatal("it was not queued")
	}
	if g.replicas[leader].OnPropose(Asker{"node/9", "s"}, &messages.Propose{Origin: 9, Seq: 1, Command: []byte("command"), Traceparent: traced()}) {
		t.Error("it was queued a second time")
	}
	g.drain()
	at := func(is func(Effect) bool) int { return slices.IndexFunc(g.seen[leader], is) }
	last := func(m *raftpb.Message) uint64 { return m.GetEntries()[len(m.GetEntries())-1].GetIndex() }
	told := at(func(e Effect) bool { _, is := e.(TracedLogged); return is })
	if told < 0 || g.seen[leader][told].(TracedLogged).Traceparent != of {
		t.Fatalf("nobody is told of it: %v", g.seen[leader])
	}
	index := g.seen[leader][told].(TracedLogged).Index
	logged := at(func(e Effect) bool {
		a, is := e.(AppendLog)
		return is && len(a.Message.GetEntries()) > 0 && last(a.Message) == index
	})
	applied := at(func(e Effect) bool { a, is := e.(ApplyEntries); return is && last(a.Message) == index })
	if logged < told || applied < logged {
		t.Errorf("entry %d is told of at %d, logged at %d, applied at %d: %v", index, told, logged, applied, g.seen[leader])
	}
}

// TestUntracedProposalsCostNothing here, whether somebody traces others or nobody traces.
func TestUntracedProposalsCostNothing(t *testing.T) {
	provider := sdk.NewTracerProvider()
	defer provider.Shutdown(context.Background())
	untraced, off, read := &messages.Propose{}, &messages.Propose{Traceparent: traced()}, &messages.ReadIndex{Read: &messages.Read{}}
	reads := []*messages.ReadIndex{read}
	for _, s := range []*spans{{}, {tracer: telemetry.NewTracer(provider)}} {
		if s.tracer != nil {
			off.Traceparent.Flags = 0
		}
		if n := testing.AllocsPerRun(100, func() {
			s.proposed(untraced)
			s.proposed(off)
			s.appended(7)
			s.committed(7)
			s.applied(7)
			s.refused(nil, messages.Code_BUSY)
			s.lost()
			s.asked(read)
			s.confirmed(reads)
		}); n > 0 || len(s.proposals)+len(s.reads) > 0 {
			t.Errorf("%v allocations; %d proposals are traced", n, len(s.proposals))
		}
	}
}
