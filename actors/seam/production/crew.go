package production

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// idleMax is how long a worker without work waits before it ends.
const idleMax = 300 * time.Millisecond

// crew runs the mailboxes of one actor system on goroutines that are used again.
// A mailbox that gets one message at a time would start a goroutine for each, and
// a fresh one must grow its stack anew: that took a fifth of a node's CPU.
//
// There are as many workers as mailboxes ran at once lately.
type crew struct{ work chan func() }

// schedule never blocks.
func (c *crew) schedule(run func()) {
	select {
	case c.work <- run:
	default:
		go c.labour(run)
	}
}

func (c *crew) labour(run func()) {
	idle := time.NewTimer(idleMax)
	defer idle.Stop()
	for {
		run()
		idle.Reset(idleMax)
		select {
		case run = <-c.work:
		case <-idle.C:
			return
		}
	}
}

// spawn gives every descendant a mailbox that this crew runs, and itself to pass on. It ends the
// chain itself: the library's own end, of a root context that was copied, forgets
// the copy's guardian.
func (c *crew) spawn(actor.SpawnFunc) actor.SpawnFunc {
	return func(system *actor.ActorSystem, id string, props *actor.Props, parent actor.SpawnerContext) (*actor.PID, error) {
		return actor.DefaultSpawner(system, id, props.Clone(actor.WithMailbox(c.mailbox), actor.WithSpawnMiddleware(c.spawn)), parent)
	}
}
