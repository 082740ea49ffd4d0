package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// restartsMax is how often one actor may be restarted before its failure is taken
// for what it is: a fault that restarting does not mend.
const restartsMax = 10

// supervision decides what a panic means, as the table of actors says.
//
// It counts and never looks at a clock.
type supervision struct{ wiring *wiring }

var _ actor.SupervisorStrategy = supervision{}

// HandleFailure is called in the turn of the actor that failed.
func (s supervision) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	spec := messages.ActorOf(child.Id)
	log := s.wiring.logger.With("actor", child.Id, "message", fmt.Sprintf("%T", message), "reason", reason)
	if spec.OnPanic == messages.Stops {
		log.Error("an actor failed and stops")
		supervisor.StopChildren(child)
		return
	}
	rs.Fail()
	if spec.OnPanic == messages.EndsProcess || rs.FailureCount() > restartsMax {
		s.wiring.fatal(fmt.Errorf("%s broke an invariant while it took %T: %v", child.Id, message, reason))
		return
	}
	log.Error("an actor failed and starts anew")
	supervisor.RestartChildren(child)
	if spec.HearsTicks {
		system.Root.Send(s.wiring.local(messages.ActorTicker), &messages.HearTicks{Names: []string{child.Id}})
	}
}
