package raftactor

import (
	"slices"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// tracedMax bounds the proposals, and the reads, whose spans are open, in number; those beyond it
// have none.
const tracedMax = 1024

// spans are those of the proposals and reads that are traced, while they are with this
// replica. Without a tracer nothing is ever in it.
type spans struct {
	tracer    *telemetry.Tracer
	proposals []*tracedProposal
	reads     map[*messages.ReadIndex]telemetry.Span
}

// tracedProposal is a command on its way through a leader: propose until it is in an entry,
// fsync while the own log writes that, quorum until it is committed, apply until the
// machine has answered.
type tracedProposal struct {
	of                            *messages.Traceparent
	index                         uint64 // 0: it is not in the log yet
	propose, fsync, quorum, apply telemetry.Span
}

// proposed begins with a command that waits for the gate now.
func (s *spans) proposed(m *messages.Propose) {
	if s.tracer == nil || m.Traceparent == nil || len(s.proposals) >= tracedMax {
		return
	}
	if span := s.tracer.Begin(m.Traceparent, "propose"); span.On() {
		s.proposals = append(s.proposals, &tracedProposal{of: m.Traceparent, propose: span})
	}
}

// logged: it is in the log, and goes to the disks.
func (s *spans) logged(e TracedLogged) {
	for _, p := range s.proposals {
		if p.of == e.Traceparent && p.index == 0 {
			p.index = e.Index
			p.propose.End()
			p.fsync, p.quorum = s.tracer.Begin(p.of, "fsync"), s.tracer.Begin(p.of, "quorum")
		}
	}
}

// appended: the own log has made durable what is up to index.
func (s *spans) appended(index uint64) {
	for _, p := range s.proposals {
		if p.index > 0 && p.index <= index {
			p.fsync.End()
			p.fsync = telemetry.Span{}
		}
	}
}

// committed: the machine is told to apply what is up to index.
func (s *spans) committed(index uint64) {
	for _, p := range s.proposals {
		if p.index > 0 && p.index <= index && !p.apply.On() {
			p.quorum.End()
			p.apply = s.tracer.Begin(p.of, "apply")
		}
	}
}

// applied ends those that are applied. An own disk that is slower than a quorum of the
// others' does not keep one.
func (s *spans) applied(index uint64) {
	s.drop(func(p *tracedProposal) bool { return p.index > 0 && p.index <= index }, "")
}

// refused ends one that was not proposed.
func (s *spans) refused(of *messages.Traceparent, code messages.Code) {
	s.drop(func(p *tracedProposal) bool { return p.of == of && p.index == 0 }, code.String())
}

// lost ends all: another leader decides what becomes of them.
func (s *spans) lost() {
	s.drop(func(*tracedProposal) bool { return true }, "this replica leads no more")
}

func (s *spans) drop(ended func(*tracedProposal) bool, event string) {
	if len(s.proposals) == 0 {
		return
	}
	s.proposals = slices.DeleteFunc(s.proposals, func(p *tracedProposal) bool {
		if !ended(p) {
			return false
		}
		for _, span := range []telemetry.Span{p.propose, p.fsync, p.quorum, p.apply} { // what has ended stays as it is
			if event != "" {
				span.Event(event)
			}
			span.End()
		}
		return true
	})
}

// asked begins with a read that waits for its index.
func (s *spans) asked(m *messages.ReadIndex) {
	if s.tracer == nil || m.Read.GetTraceparent() == nil || len(s.reads) >= tracedMax {
		return
	}
	if span := s.tracer.Begin(m.Read.Traceparent, "read_index"); span.On() {
		if s.reads == nil {
			s.reads = map[*messages.ReadIndex]telemetry.Span{}
		}
		s.reads[m] = span
	}
}

// confirmed ends reads that go on, or were refused.
func (s *spans) confirmed(reads []*messages.ReadIndex) {
	if len(s.reads) == 0 {
		return
	}
	for _, m := range reads {
		s.reads[m].End()
		delete(s.reads, m)
	}
}
