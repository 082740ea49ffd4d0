package client

import (
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/telemetry"
	"keyval/actors/transport"
	"keyval/messages"
)

// Times of a client that Config and Options leave out.
const (
	DefaultTickInterval = 50 * time.Millisecond
	DefaultSessionTTL   = time.Minute
	// OneShotSessionTTL is for programs that end after one request.
	OneShotSessionTTL = 30 * time.Second

	sessionTTLMax = 24 * time.Hour // nodes allow no more
)

// Config is what a client actor is made from.
type Config struct {
	// Endpoints are the nodes to ask, as host:port; one at least. The other members
	// are learned.
	Endpoints []string
	// Pinned asks the nodes at Endpoints and no others, but for the leader, when there
	// is something to change.
	Pinned bool
	// Impatient waits for no node that says that it does not serve yet.
	Impatient bool
	// Network is the transport seam. The client joins it when it starts, under
	// its system's address, which must be one of messages.ClientAddress.
	Network seam.Network
	// World is the other seams. Ticker, Rand, Fatal and Logger are used.
	World seam.World
	// TickInterval is the grain of all its times; 0: DefaultTickInterval.
	TickInterval time.Duration
	// SessionTTL is how long the cluster remembers an idle client, in log time:
	// while it does, no command runs twice. 0: DefaultSessionTTL; at most a day.
	SessionTTL time.Duration
	// Version is told to the nodes.
	Version string
}

func (c Config) withDefaults() Config {
	if c.TickInterval <= 0 {
		c.TickInterval = DefaultTickInterval
	}
	if c.SessionTTL <= 0 {
		c.SessionTTL = DefaultSessionTTL
	}
	c.SessionTTL = min(c.SessionTTL, sessionTTLMax)
	c.Endpoints = distinct(c.Endpoints)
	return c
}

func distinct(names []string) []string {
	var out []string
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// client is the actor around a core: it does what the core wants done, and
// decides nothing itself.
type client struct {
	config Config
	core   *core
	dialer seam.Dialer
	stop   func() // the ticker
	// elapsed counts the ticks that were not processed yet. A Tick is on its way
	// exactly while it is above 0, so there is never more than one.
	elapsed *atomic.Uint32
	// to is the actor of a node that was sent something last. Whatever the node, a
	// PID of another system resolves to the network's own process, which lasts.
	to *actor.PID
}

// New makes the producer of a client actor. It panics when the configuration
// names no endpoint, network or seams, which no environment can cause.
//
// Any actor of the same system may Request a *messages.Submit of it and is
// answered with one *messages.Done. Spawn it at the root of a system whose
// address is its own (one client actor a system), under a strategy that stops
// it when it fails: a client that failed cannot join its system's network again.
func New(cfg Config) actor.Producer {
	cfg = cfg.withDefaults()
	w := cfg.World
	if len(cfg.Endpoints) == 0 || cfg.Network == nil || w.Ticker == nil || w.Rand == nil || w.Fatal == nil || w.Logger == nil {
		panic("a client needs endpoints, a network, and the ticker, randomness, fatal and logger of its world")
	}
	return func() actor.Actor { return &client{config: cfg, elapsed: new(atomic.Uint32)} }
}

func (a *client) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.onStarted(ctx)
	case *actor.Stopping, *actor.Restarting:
		a.onStopping(ctx)
	case *messages.Submit:
		a.run(ctx, a.core.submit(askerOf(ctx), m))
	case *messages.Withdraw:
		a.run(ctx, a.core.withdraw(askerOf(ctx), m))
	case *messages.Tick:
		a.onTick(ctx)
	case *messages.LinkUp:
		a.run(ctx, a.core.linkUp(m))
	case *messages.LinkDown:
		if m.Code == messages.Code_BUSY {
			a.config.World.Logger.Warn("client: turned away; another node is tried", "endpoint", m.Endpoint, "reason", m.Message, "hint", m.Hint)
		}
		a.run(ctx, a.core.linkDown(m))
	case *messages.Attached:
		a.run(ctx, a.core.attached(m))
	case *messages.WriteReply:
		a.run(ctx, a.core.writeReply(m))
	case *messages.ReadReply:
		a.run(ctx, a.core.readReply(m))
	case *messages.StatusReply:
		a.run(ctx, a.core.statusReply(m))
	case *messages.SnapshotReply:
		a.run(ctx, a.core.snapshotReply(m))
	case *messages.ClusterReply:
		a.run(ctx, a.core.clusterReply(m))
	case *actor.DeadLetterResponse:
		// A link went while something was sent over it; its LinkDown follows.
	default:
		telemetry.Unexpected(ctx, a.config.World.Logger, a.config.World.Meter)
	}
}

func (a *client) onStarted(ctx actor.Context) {
	cfg, system := a.config, ctx.ActorSystem()
	s := settings{address: messages.ClientIDOf(ctx.Self().Address), endpoints: cfg.Endpoints, pinned: cfg.Pinned, impatient: cfg.Impatient, sessionTTLMs: uint64(cfg.SessionTTL.Milliseconds()), tickMs: uint64(cfg.TickInterval.Milliseconds())}
	if _, err := io.ReadFull(cfg.World.Rand, s.seed[:]); err != nil {
		cfg.World.Fatal(fmt.Errorf("client: read randomness: %w", err))
		ctx.Stop(ctx.Self())
		return
	}
	a.core = newCore(s)
	self := ctx.Self()
	local := transport.Local{Role: messages.Role_CLIENT, Address: system.Address(), Version: cfg.Version}
	dialer, err := cfg.Network.Join(system, local, actor.NewPID(self.Address, self.Id))
	if err != nil {
		cfg.World.Fatal(fmt.Errorf("client: join the network: %w", err))
		ctx.Stop(ctx.Self())
		return
	}
	a.dialer = dialer
	a.stop = cfg.World.Ticker.Start(cfg.TickInterval, a.tickOf(system, actor.NewPID(self.Address, self.Id)))
	a.run(ctx, a.core.start())
}

// tickOf makes what the ticker calls: at most one unprocessed Tick.
func (a *client) tickOf(system *actor.ActorSystem, self *actor.PID) func() {
	elapsed := a.elapsed
	return func() {
		if elapsed.Add(1) == 1 {
			system.Root.Send(self, &messages.Tick{Elapsed: 1})
		}
	}
}

// onTick takes all ticks since the last; more may have passed than the Tick says.
func (a *client) onTick(ctx actor.Context) {
	ticks := uint64(a.elapsed.Swap(0))
	a.run(ctx, a.core.tick(ticks*uint64(a.config.TickInterval.Milliseconds())))
}

func askerOf(ctx actor.Context) asker {
	if s := ctx.Sender(); s != nil {
		return asker{s.Address, s.Id}
	}
	return asker{}
}

// onStopping answers everybody who still waits, and leaves the network.
func (a *client) onStopping(ctx actor.Context) {
	if a.stop != nil {
		a.stop()
		a.stop = nil
	}
	if a.dialer != nil {
		a.run(ctx, a.core.close())
		a.dialer.Close()
		a.dialer = nil
	}
}

// run does what the core wants done.
func (a *client) run(ctx actor.Context, effects []effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case dial:
			a.dialer.Dial(e.endpoint)
		case hang:
			a.dialer.Hang(e.endpoint)
		case send:
			if a.to == nil || a.to.Id != e.actor || a.to.Address != e.node {
				a.to = actor.NewPID(e.node, e.actor)
			}
			ctx.Request(a.to, e.message)
		case answer:
			if e.to.id != "" {
				ctx.Send(actor.NewPID(e.to.address, e.to.id), e.done)
			}
		}
	}
	a.core.reuse(effects)
}
