package production

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTickerTicksUntilItIsStopped(t *testing.T) {
	ticks := make(chan struct{})
	stop := Ticker{}.Start(time.Millisecond, func() {
		select {
		case ticks <- struct{}{}:
		default:
		}
	})
	for range 3 {
		<-ticks
	}
	stop()
	stop()
}

func TestSystemHasItsLogicalAddressAndRunsActors(t *testing.T) {
	system, root := World(nil, nil).Runtime.NewSystem("node/1", slog.New(slog.DiscardHandler))
	defer system.Shutdown()
	heard := make(chan string, 1)
	pid := root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		if m, ok := ctx.Message().(string); ok {
			heard <- ctx.Self().Address + " " + m
		}
	}))
	root.Send(pid, "hello")
	if got := <-heard; got != "node/1 hello" {
		t.Fatalf("got %q", got)
	}
	if err := root.StopFuture(pid).Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestDeadLettersAreNotCopiedIntoTheLog: a message that nobody takes may hold a password, a token or
// what a client wrote. Its type is what a developer needs.
func TestDeadLettersAreNotCopiedIntoTheLog(t *testing.T) {
	var out bytes.Buffer
	system, root := World(nil, nil).Runtime.NewSystem("node/1", slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer system.Shutdown()
	type login struct{ user, password string }
	root.Send(actor.NewPID("node/1", "nobody"), &login{"alice", "three words only"})
	if text := out.String(); strings.Contains(text, "three words only") || !strings.Contains(text, "message=*production.login") || !strings.Contains(text, "nobody") {
		t.Errorf("%s", text)
	}
}

func TestNewsOfTheActorLibraryAreForDevelopers(t *testing.T) {
	for level, want := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false} {
		var out bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
		system, _ := World(logger, nil).Runtime.NewSystem("node/1", logger.With("node", "n1"))
		system.Shutdown()
		if got := strings.Contains(out.String(), "level=DEBUG msg=\"actor system started\""); got != want {
			t.Errorf("at %s: %q", level, out.String())
		}
		system.Logger().With("a", 1).WithGroup("g").Error("trouble", "b", 2)
		if !strings.Contains(out.String(), "level=ERROR msg=trouble node=n1 a=1 g.b=2") {
			t.Errorf("at %s: %q", level, out.String())
		}
	}
}

func TestWorldIsWhole(t *testing.T) {
	var told error
	w := World(nil, func(reason error) { told = reason })
	if w.Logger == nil || w.Runtime == nil || w.Ticker == nil {
		t.Fatalf("%+v", w)
	}
	var some [16]byte
	if n, err := w.Rand.Read(some[:]); n != 16 || err != nil || some == [16]byte{} {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	reason := errors.New("broken")
	if w.Fatal(reason); told != reason {
		t.Fatalf("told %v", told)
	}
}
