// Package shell is what the actors of the store have in common around their cores.
package shell

import (
	"fmt"
	"log/slog"
	"math"

	"github.com/asynkron/protoactor-go/actor"
)

// Unexpected reports a message that an actor has no handler for. Messages of an
// actor's life need none.
func Unexpected(ctx actor.Context, logger *slog.Logger) {
	switch ctx.Message().(type) {
	case actor.AutoReceiveMessage, actor.SystemMessage:
	default:
		logger.Error("unexpected message", "actor", ctx.Self().Id, "type", fmt.Sprintf("%T", ctx.Message()))
	}
}

// What becomes of a child that fails.
var (
	Restart  = actor.NewOneForOneStrategy(math.MaxInt, 0, func(any) actor.Directive { return actor.RestartDirective })
	Stop     = actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.StopDirective })
	Escalate = actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.EscalateDirective })
)
