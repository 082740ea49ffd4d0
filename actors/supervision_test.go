package actors

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/seam/production"
	"keyval/messages"
	"keyval/storeactor/actortest"
)

// ward is a supervisor that only notes what it was told to do.
type ward struct {
	actor.Supervisor
	restarted, stopped int
}

func (w *ward) RestartChildren(...*actor.PID) { w.restarted++ }
func (w *ward) StopChildren(...*actor.PID)    { w.stopped++ }

// TestSupervision lets an actor fail at some beats of the ticker.
func TestSupervision(t *testing.T) {
	times := func(n int, from, step uint64) (beats []uint64) {
		for i := range n {
			beats = append(beats, from+uint64(i)*step)
		}
		return beats
	}
	for name, row := range map[string]struct {
		actor              string
		beats              []uint64
		restarted, stopped int
		ended              int
	}{
		"consensus ends the process":             {messages.ActorRaft, times(1, 5, 0), 0, 0, 1},
		"a session stops, however often":         {messages.ActorSessionPrefix + "1", times(50, 5, 0), 0, 50, 0},
		"a gateway starts anew":                  {messages.ActorGateway, times(restartsMax, 5, 0), restartsMax, 0, 0},
		"once too often":                         {messages.ActorGateway, times(restartsMax+1, 5, 0), restartsMax, 0, 1},
		"slowly, but never quiet":                {messages.ActorGateway, times(restartsMax+1, 5, quietBeats-1), restartsMax, 0, 1},
		"now and then, for ever":                 {messages.ActorGateway, times(100, 5, quietBeats), 100, 0, 0},
		"a long quiet time forgives what failed": {messages.ActorGateway, append(times(restartsMax, 5, 1), times(restartsMax, 5+2*quietBeats, 1)...), 2 * restartsMax, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			ended := 0
			meter := prometheus.NewRegistry()
			w := &wiring{address: "node/1", meter: meter, logger: slog.New(slog.DiscardHandler), fatal: func(error) { ended++ }}
			system, _ := production.World(nil, nil).Runtime.NewSystem(w.address, w.logger)
			defer system.Shutdown()
			s, over := newSupervision(w), &ward{}
			for _, beat := range row.beats {
				w.beats.Store(beat)
				s.HandleFailure(system, over, w.local(row.actor), nil, errors.New("it broke"), &messages.Flush{})
			}
			if n := actortest.Counted(t, meter, "keyval_actor_failures_total"); n != row.restarted+row.stopped {
				t.Errorf("%d failures are counted, the node has survived %d", n, row.restarted+row.stopped)
			}
			if over.restarted != row.restarted || over.stopped != row.stopped || ended != row.ended {
				t.Errorf("%d times restarted, %d stopped, %d times the process ended; want %d, %d, %d",
					over.restarted, over.stopped, ended, row.restarted, row.stopped, row.ended)
			}
		})
	}
}
