package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// restartsMax is how often one actor may be restarted before its failure is taken
// for what it is: a fault that restarting does not mend.
const restartsMax = 10

// supervision decides what a panic means. In consensus, log and machine it is a
// broken invariant, and ends the process before it can do harm. Every other actor
// starts anew with an empty memory and is introduced again.
//
// It counts and never looks at a clock.
type supervision struct{ wiring *wiring }

var _ actor.SupervisorStrategy = supervision{}

// HandleFailure is called in the turn of the actor that failed.
func (s supervision) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	rs.Fail()
	if endsProcess(child.Id) || rs.FailureCount() > restartsMax {
		s.wiring.fatal(fmt.Errorf("%s broke an invariant while it took %T: %v", child.Id, message, reason))
		return
	}
	s.wiring.logger.Error("an actor failed and starts anew", "actor", child.Id, "message", fmt.Sprintf("%T", message), "reason", reason)
	supervisor.RestartChildren(child)
	if hearsTicks(child.Id) {
		system.Root.Send(s.wiring.local(messages.ActorTicker), &messages.HearTicks{Names: []string{child.Id}})
	}
}

func hearsTicks(name string) bool {
	switch name {
	case messages.ActorGateway, messages.ActorFounding, messages.ActorSnapshots, messages.ActorAudit:
		return true
	}
	return false
}

func endsProcess(name string) bool {
	switch name {
	case messages.ActorNode, messages.ActorRaft, messages.ActorLog, messages.ActorMachine, messages.ActorTicker:
		return true
	}
	return false
}
