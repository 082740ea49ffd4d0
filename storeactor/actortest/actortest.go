// Package actortest has an actor system for tests, and actors that hand over what they get.
package actortest

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Stage is an actor system with probes: actors that hand what they get to the test.
type Stage struct {
	T      *testing.T
	System *actor.ActorSystem
	Fatal  chan error
}

// NewStage makes one whose actors nobody stops.
func NewStage(t *testing.T) *Stage {
	return &Stage{T: t, System: actor.NewActorSystem(), Fatal: make(chan error, 10)}
}

// OnFatal is a Fatal for actors.
func (s *Stage) OnFatal(reason error) { s.Fatal <- reason }

// Spawn starts an actor.
func (s *Stage) Spawn(name string, producer actor.Producer) *actor.PID {
	s.T.Helper()
	pid, err := s.System.Root.SpawnNamed(actor.PropsFromProducer(producer), name)
	if err != nil {
		s.T.Fatal(err)
	}
	return pid
}

// Stop ends an actor and waits until it is gone.
func (s *Stage) Stop(pid *actor.PID) {
	if err := s.System.Root.StopFuture(pid).Wait(); err != nil {
		s.T.Error(err)
	}
}

// Probe is an actor that passes on every message.
type Probe struct {
	t   *testing.T
	PID *actor.PID
	Got chan proto.Message
}

// Probe starts a probe.
func (s *Stage) Probe(name string) *Probe {
	p := &Probe{t: s.T, Got: make(chan proto.Message, 1000)}
	p.PID = s.Spawn(name, func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if m, ok := ctx.Message().(proto.Message); ok {
				p.Got <- m
			}
		})
	})
	return p
}

// Expect takes the next message, which must be rendered as line.
func (p *Probe) Expect(line string) {
	p.t.Helper()
	if got := messages.Line(<-p.Got); got != line {
		p.t.Fatalf("%s got\n\t%s\nand not\n\t%s", p.PID.Id, got, line)
	}
}

// ExpectNoMore holds once all who could have sent something are stopped.
func (p *Probe) ExpectNoMore(s *Stage) {
	p.t.Helper()
	s.System.Root.Send(p.PID, &messages.Flush{})
	p.Expect("Flush{}")
}

// Take takes the next message, which must be a T.
func Take[T proto.Message](p *Probe) T {
	p.t.Helper()
	var m proto.Message
	select {
	case m = <-p.Got:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s got nothing for a minute", p.PID.Id)
	}
	typed, ok := m.(T)
	if !ok {
		p.t.Fatalf("%s got %s", p.PID.Id, messages.Line(m))
	}
	return typed
}

// Counted is the value of a counter, of all its labels together, or how often a
// histogram was told something; 0 if nobody has made it.
func Counted(t *testing.T, meter prometheus.Gatherer, name string) int {
	t.Helper()
	families, err := meter.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum int
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name {
				sum += int(m.GetCounter().GetValue()) + int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}
