package raftactor

import (
	"log/slog"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"keyval/messages"
)

// TestRefusalsAreCounted by their code, over two actors that count with one meter.
func TestRefusalsAreCounted(t *testing.T) {
	meter := prometheus.NewRegistry()
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	defer system.Shutdown()
	refused := make(chan messages.Code)
	asker := system.Root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		if m, ok := ctx.Message().(*messages.ProposalRefused); ok {
			refused <- m.Code
		}
	}))
	for range 2 {
		raft := system.Root.Spawn(actor.PropsFromProducer(New(Config{
			Self: 1, Logger: slog.New(slog.DiscardHandler), Meter: meter, PID: func(a Asker) *actor.PID { return actor.NewPID(a.Address, a.Actor) },
		})))
		system.Root.RequestWithCustomSender(raft, &messages.Propose{Origin: 1, Seq: 1, Command: []byte("command")}, asker)
		if code := <-refused; code != messages.Code_NO_LEADER {
			t.Fatalf("refused with %v", code)
		}
	}
	if n := testutil.ToFloat64(newMeters(meter, nil).refused.WithLabelValues("NO_LEADER")); n != 2 {
		t.Errorf("%v refusals are counted, 2 were", n)
	}
}
