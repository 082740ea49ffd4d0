package membershipactor

import (
	"keyval/actors/telemetry"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// spans follow operations of members: of each phase that this node carries on as the leader
// one is open. Without a tracer nothing is ever in it.
type spans struct {
	tracer *telemetry.Tracer
	open   map[string]phaseSpan // by operation; rules.OperationsMax at most
}

type phaseSpan struct {
	phase messages.OperationPhase
	span  telemetry.Span
}

// follow takes what is known of the operations now. A node that leads no more leaves them to
// the next leader, whose spans stand beside its own.
func (s *spans) follow(leads bool, view View) {
	if s.tracer == nil {
		return
	}
	if !leads {
		for _, o := range s.open {
			o.span.Event("this node leads no more")
			o.span.End()
		}
		clear(s.open)
		return
	}
	for _, o := range view.state.GetOperations() {
		id := string(o.Id)
		was, open := s.open[id]
		switch {
		case open && was.phase == o.Phase, !open && rules.Ended(o):
			continue
		case open:
			was.span.End()
		}
		if !rules.Ended(o) {
			if s.open == nil {
				s.open = map[string]phaseSpan{}
			}
			s.open[id] = phaseSpan{o.Phase, s.tracer.BeginPhase(o)}
			continue
		}
		delete(s.open, id)
		s.tracer.Operation(o)
	}
}
