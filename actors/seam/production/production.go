// Package production is the production side of the seams: goroutines, the wall
// clock, the operating system's randomness, and the end of the process.
//
// Nothing here is used by the simulator.
package production

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
)

// World is the world as it is. A nil logger discards. A nil fatal writes the
// reason to the logger and ends the process with exit code 1; a crash-safe
// program needs no gentler end.
func World(logger *slog.Logger, fatal func(reason error)) seam.World {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if fatal == nil {
		fatal = func(reason error) {
			logger.Error("the process ends", "reason", reason)
			os.Exit(1)
		}
	}
	wall := func() int64 { return time.Now().UnixMilli() }
	begun := time.Now()
	nanos := func() int64 { return int64(time.Since(begun)) }
	return seam.World{Runtime: Runtime{}, Ticker: Ticker{}, Rand: rand.Reader, Fatal: fatal, Logger: logger, WallMS: wall, Nanos: nanos}
}

// Runtime runs actors on goroutines, with the actor library's own mailboxes.
type Runtime struct{}

var _ seam.Runtime = Runtime{}

// NewSystem implements seam.Runtime. The library's own news (systems started,
// dead letters) are of use to developers only and are logged one level down; of messages in them
// the type alone, for they may hold passwords, tokens and what clients write.
// One system costs about 4 ms and 3 MB.
func (Runtime) NewSystem(address string, logger *slog.Logger) (*actor.ActorSystem, *actor.RootContext) {
	quiet := slog.New(lowered{logger.Handler()})
	system := actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return quiet }),
		actor.WithDeadLetterThrottleInterval(1), // nanoseconds: the throttle's goroutine does not outlive its system
		actor.WithMetricProviders(nil),
	)
	system.ProcessRegistry.Address = address
	c := &crew{work: make(chan func())}
	return system, system.Root.WithSpawnMiddleware(c.spawn)
}

// lowered hands records on with Info turned into Debug, and messages into their types.
type lowered struct{ slog.Handler }

func (h lowered) lower(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

func (h lowered) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, h.lower(level))
}

func (h lowered) Handle(ctx context.Context, r slog.Record) error {
	typed := slog.NewRecord(r.Time, h.lower(r.Level), r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "message" {
			a.Value = slog.StringValue(fmt.Sprintf("%T", a.Value.Any()))
		}
		typed.AddAttrs(a)
		return true
	})
	return h.Handler.Handle(ctx, typed)
}

func (h lowered) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lowered{h.Handler.WithAttrs(attrs)}
}

func (h lowered) WithGroup(name string) slog.Handler { return lowered{h.Handler.WithGroup(name)} }

// Ticker is the wall clock.
type Ticker struct{}

var _ seam.Ticker = Ticker{}

// Start implements seam.Ticker. Ticks that tick has no time for are dropped. stop
// may be called more than once and from anywhere; one tick may be under way when
// it returns.
func (Ticker) Start(interval time.Duration, tick func()) (stop func()) {
	ticker := time.NewTicker(interval)
	ended := make(chan struct{})
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			select {
			case <-ended:
				return
			default:
				tick()
			}
		}
	}()
	var once sync.Once
	return func() { once.Do(func() { close(ended) }) }
}
