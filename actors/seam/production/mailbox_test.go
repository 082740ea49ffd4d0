package production

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// TestSentToBeforeItIsThere: an actor's name is known before the actor is, and what is sent
// to it then comes once it has started.
func TestSentToBeforeItIsThere(t *testing.T) {
	system, root := Runtime{}.NewSystem("node/1", slog.New(slog.DiscardHandler))
	got := make(chan any, 2)
	props := actor.PropsFromFunc(func(ctx actor.Context) { got <- ctx.Message() },
		actor.WithOnInit(func(ctx actor.Context) { system.Root.Send(ctx.Self(), "early") }))
	if _, err := root.SpawnNamed(props, "late"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []any{&actor.Started{}, "early"} {
		select {
		case m := <-got:
			if _, starts := want.(*actor.Started); starts {
				if _, ok := m.(*actor.Started); !ok {
					t.Fatalf("first comes %T", m)
				}
			} else if m != want {
				t.Fatalf("then comes %v", m)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v does not come", want)
		}
	}
}

// TestManySendToWhoIsSpawned, at once and from everywhere: nothing is lost, and nothing hangs.
func TestManySendToWhoIsSpawned(t *testing.T) {
	const senders, each, actors = 8, 50, 100
	system, root := Runtime{}.NewSystem("node/1", slog.New(slog.DiscardHandler))
	for range actors {
		var sending, taken sync.WaitGroup
		taken.Add(senders * each)
		props := actor.PropsFromFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(int); ok {
				taken.Done()
			}
		}, actor.WithOnInit(func(ctx actor.Context) {
			self := ctx.Self()
			for range senders {
				sending.Go(func() {
					for i := range each {
						system.Root.Send(self, i)
					}
				})
			}
		}))
		pid := root.Spawn(props)
		sending.Wait()
		all := make(chan struct{})
		go func() { taken.Wait(); close(all) }()
		select {
		case <-all:
		case <-time.After(10 * time.Second):
			t.Fatal("messages are lost, or the actor hangs")
		}
		root.Stop(pid)
	}
}
