package actors

import (
	"log/slog"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/telemetry"
	"keyval/actors/transport"
	"keyval/messages"
	"keyval/raftactor"
)

// wiring is what the actors of a node need to find each other. PIDs are made here and
// nowhere else in a node, and anew for every use: a PID caches the process that it was
// resolved to, and that may be gone by the next use.
type wiring struct {
	self    messages.RaftID
	address string // this node's logical address
	version string
	level   uint32 // the highest cluster level that this node understands
	pid     int64  // of the process, for people
	logger  *slog.Logger
	meter   prometheus.Registerer // nil: nobody counts
	fatal   func(error)
	nanos   func() int64 // nil: nobody measures
	tracer  *telemetry.Tracer
	vitals  func() *messages.Vitals  // nil: nobody measures
	events  func() []*messages.Event // nil: nobody keeps them

	requests *requestMeters

	inbox *transport.Inbox // of the raft actor

	beats atomic.Uint64 // of the ticker: the time that supervision goes by
}

// local is the PID of an actor of this node.
func (w *wiring) local(name string) *actor.PID { return actor.NewPID(w.address, name) }

func (w *wiring) raft() *actor.PID       { return w.local(messages.ActorRaft) }
func (w *wiring) machine() *actor.PID    { return w.local(messages.ActorMachine) }
func (w *wiring) membership() *actor.PID { return w.local(messages.ActorMembership) }

// peer finds the actor of that name of a member, here or on another node.
func (w *wiring) peer(name string) func(messages.RaftID) *actor.PID {
	return func(id messages.RaftID) *actor.PID { return actor.NewPID(messages.NodeAddress(id), name) }
}

// founderOf is the founding actor of another founder.
func (w *wiring) founderOf(id messages.RaftID) *actor.PID {
	return actor.NewPID(messages.NodeAddress(id), messages.ActorFounding)
}

// memberAt is the membership actor of the node with this logical address.
func (w *wiring) memberAt(address string) *actor.PID {
	return actor.NewPID(address, messages.ActorMembership)
}

// of is the PID of whoever asked; without an address it is one of this node.
func (w *wiring) of(a raftactor.Asker) *actor.PID {
	if a.Address == "" {
		return w.local(a.Actor)
	}
	return actor.NewPID(a.Address, a.Actor)
}

// unexpected reports the message that an actor of the assembly has no handler for.
func (w *wiring) unexpected(ctx actor.Context) { telemetry.Unexpected(ctx, w.logger, w.meter) }

// ofClient is an actor of a client's system.
func (w *wiring) ofClient(address, name string) *actor.PID { return actor.NewPID(address, name) }
