// Package seam holds the interfaces behind which the world stands for actors:
// the run queue, time and randomness. (The network is seam.Network, disks
// are disk.Disk.) Production and the simulator each bring their own; the
// actors in between are the same.
package seam

import (
	"io"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"keyval/messages"
)

// Runtime makes actor systems and decides when their actors run.
type Runtime interface {
	// NewSystem makes an actor system with this logical address ("node/1") and
	// the context that its root actors are spawned from. Every descendant runs
	// where the Runtime says: mailboxes and dispatchers are the Runtime's.
	NewSystem(address string, logger *slog.Logger) (*actor.ActorSystem, *actor.RootContext)
}

// Ticker is the only source of time.
type Ticker interface {
	// Start calls tick once every interval until stop is called. tick must not block.
	Start(interval time.Duration, tick func()) (stop func())
}

// World is the seams that are not disk or network.
type World struct {
	Runtime Runtime
	Ticker  Ticker
	Rand    io.Reader
	// Fatal ends the process (the simulated node) with a reason for people. It
	// returns only in the simulator; the caller does nothing more.
	Fatal  func(reason error)
	Logger *slog.Logger
	Meter  prometheus.Registerer // where actors register what they count; nil: nobody counts
	// WallMS is the wall time, in ms since 1970, for people to read. Nothing is decided
	// by it. nil: nobody knows it.
	WallMS func() int64
	// Keys is what the node's links are secured with, for people. nil: nobody knows it.
	Keys func() *messages.Keys
	// Sign gives a user of a cluster a token, until which time it says. password is the version of
	// his. The error is a *messages.Error. nil: this node gives none.
	Sign func(user string, cluster []byte, password uint64, ttl time.Duration) (token string, expires time.Time, err error)
	// Nanos is a clock that never goes back, in ns since any time, for how long something
	// took in metrics. Nothing is decided by it. nil: nobody measures.
	Nanos func() int64
	// Vitals is how the process does, for people. nil: nobody measures.
	Vitals func() *messages.Vitals
	// Events is what the log said lately, the newest last, for people. nil: nobody keeps it.
	Events func() []*messages.Event
	// Traces is where spans of requests and operations go. nil: nobody traces.
	Traces trace.TracerProvider
}
