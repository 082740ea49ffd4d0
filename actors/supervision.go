package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
)

// restartsMax is how often one actor may start anew without a quiet time of
// quietBeats between two failures. Beyond it, its failure is taken for what it is: a
// fault that restarting does not mend, and the process ends.
const (
	restartsMax = 10
	quietBeats  = 1_200 // of the ticker: a minute by default
)

// supervision decides what a panic means, as the table of actors says. Every parent
// has one of its own, which it uses in its own turn.
type supervision struct {
	wiring   *wiring
	failures map[string]failures // by the name of an actor that may start anew
}

// failures are those of one actor since it was quiet.
type failures struct {
	count int
	last  uint64 // the beat of the last one
}

// next is what is known after a failure at this beat.
func (f failures) next(beat uint64) failures {
	if beat-f.last >= quietBeats {
		f.count = 0
	}
	return failures{f.count + 1, beat}
}

var _ actor.SupervisorStrategy = (*supervision)(nil)

func newSupervision(w *wiring) *supervision {
	return &supervision{wiring: w, failures: map[string]failures{}}
}

// HandleFailure implements actor.SupervisorStrategy. The library's statistics are not
// used: they go by the wall clock.
func (s *supervision) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, message any) {
	spec := messages.ActorOf(child.Id)
	switch {
	case spec.OnPanic == messages.Stops:
		telemetry.Failed(s.wiring.logger, s.wiring.meter, child, "stops", reason, message)
		supervisor.StopChildren(child)
	case spec.OnPanic == messages.EndsProcess:
		s.wiring.fatal(fmt.Errorf("%s broke an invariant while it took %T: %v", child.Id, message, reason))
	case s.tooOften(child.Id):
		s.wiring.fatal(fmt.Errorf("%s failed %d times in short order, the last time while it took %T: %v", child.Id, restartsMax+1, message, reason))
	default:
		telemetry.Failed(s.wiring.logger, s.wiring.meter, child, "starts anew", reason, message)
		supervisor.RestartChildren(child)
		if spec.HearsTicks {
			system.Root.Send(s.wiring.local(messages.ActorTicker), &messages.HearTicks{Names: []string{child.Id}})
		}
	}
}

// tooOften counts a failure.
func (s *supervision) tooOften(name string) bool {
	f := s.failures[name].next(s.wiring.beats.Load())
	s.failures[name] = f
	return f.count > restartsMax
}
