package sim

import (
	"testing"
	"time"

	"keyval/messages"
)

// TestRollingRestarts: where nothing else goes wrong, all nodes of a loaded cluster are restarted
// one by one, and every operation of a client succeeds.
func TestRollingRestarts(t *testing.T) {
	door.Lock()
	defer door.Unlock()
	for nodes := 3; nodes <= 5; nodes += 2 {
		undo := quicken(1)
		r := newRun(Options{Seed: uint64(nodes), Nodes: nodes, Duration: 20 * time.Second})
		r.swarm.hasty, r.swarm.idlers = 0, 0
		for _, s := range r.servers {
			r.world.clock.after(0, nil, s.start)
		}
		for _, c := range r.clients {
			c.start()
			c.work()
		}
		r.hire()
		r.warmUp()
		r.roll()
		for limit := r.world.clock.now + time.Minute; r.rolls != nil && r.world.clock.now < limit; {
			r.world.run(r.world.clock.now + 100*time.Millisecond)
		}
		r.heal()
		r.progress()
		r.settle()
		r.converge()
		r.finish()
		undo()
		if r.world.failure != nil || r.coverage[cellRolled] != 1 || r.coverage[cellRolls] != uint64(nodes) {
			t.Errorf("%d nodes: %v; %d restarts, all: %d", nodes, r.world.failure, r.coverage[cellRolls], r.coverage[cellRolled])
		}
		slowest := time.Duration(0)
		for _, op := range r.history.all {
			if op.submit.Cluster != nil || r.clients[op.client].probes != nil {
				continue
			}
			if !op.certain() || op.done.Write.GetCode() == messages.Code_NO_LEADER {
				t.Errorf("%d nodes: %s", nodes, op)
			}
			slowest = max(slowest, op.endedAt-op.beganAt)
		}
		t.Logf("%d nodes, %d operations, the slowest took %v", nodes, len(r.history.all), slowest)
	}
}
