package storeactor

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/state/statetest"
)

func TestCheckpointPace(t *testing.T) {
	pace := func(change func(p *checkpointPace)) *checkpointPace {
		p := &checkpointPace{entriesMax: 10, bytesMax: 100, ticksMax: 5}
		change(p)
		return p
	}
	for _, test := range []struct {
		name string
		pace *checkpointPace
		due  bool
	}{
		{"nothing was applied", pace(func(p *checkpointPace) { p.ticked(99) }), false},
		{"all below", pace(func(p *checkpointPace) { p.applied(9, 99); p.ticked(4) }), false},
		{"entries", pace(func(p *checkpointPace) { p.applied(4, 0); p.applied(6, 0) }), true},
		{"bytes", pace(func(p *checkpointPace) { p.applied(1, 100) }), true},
		{"ticks", pace(func(p *checkpointPace) { p.ticked(5); p.applied(1, 1) }), true},
		{"the second of three, ticks", pace(func(p *checkpointPace) { p.stagger(2); p.ticked(2); p.applied(1, 1) }), true},
		{"too early for it", pace(func(p *checkpointPace) { p.stagger(2); p.ticked(1); p.applied(1, 1) }), false},
		{"the second of three, bytes", pace(func(p *checkpointPace) { p.stagger(2); p.applied(1, 34) }), true},
		{"the first of three", pace(func(p *checkpointPace) { p.stagger(1); p.applied(1, 66) }), false},
		{"it comes early once", pace(func(p *checkpointPace) { p.stagger(2); p.begin(7); p.written(7); p.ticked(4); p.applied(1, 99) }), false},
		{"one is being written", pace(func(p *checkpointPace) { p.begin(7); p.applied(99, 999) }), false},
		{"an answer of another", pace(func(p *checkpointPace) { p.begin(7); p.applied(99, 999); p.written(6) }), false},
		{"it was written", pace(func(p *checkpointPace) { p.begin(7); p.applied(99, 999); p.written(7) }), true},
		{"counted from its beginning", pace(func(p *checkpointPace) { p.applied(99, 999); p.begin(7); p.applied(1, 1); p.written(7) }), false},
	} {
		if got := test.pace.due(); got != test.due {
			t.Errorf("%s: due is %v", test.name, got)
		}
	}
}

// spawnCheckpoint spawns the actor under a parent that passes on to a probe.
func spawnCheckpoint(s *actortest.Stage, d *memoryDisk, log *actortest.Probe) (checkpoint *actor.PID, machine *actortest.Probe) {
	machine = s.Probe("machine-probe")
	spawned := make(chan *actor.PID, 1)
	s.Spawn("machine", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case *actor.Started:
				spawned <- ctx.Spawn(actor.PropsFromProducer(func() actor.Actor {
					return &checkpointActor{engine: d.engine, config: MachineConfig{Log: log.PID, Disk: d, Logger: slog.New(slog.DiscardHandler), Fatal: s.OnFatal}}
				}))
			case *messages.CheckpointWritten:
				ctx.Send(machine.PID, m)
			}
		})
	})
	return <-spawned, machine
}

// The commit is durable before the rows are synced and the checkpoint replaced;
// late answers to other questions change nothing.
func TestCheckpointIsWrittenBehindItsCommit(t *testing.T) {
	s, d := actortest.NewStage(t), newDisk()
	log := s.Probe("log")
	checkpoint, machine := spawnCheckpoint(s, d, log)
	s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 1})
	s.System.Root.Send(checkpoint, &messages.WriteCheckpoint{Checkpoint: statetest.First()})
	log.Expect("SyncCommit{index=1}")
	s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 9})
	later := statetest.First()
	later.Index = 9
	s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 1})
	d.expect(t, "checkpoint 1")
	machine.Expect("CheckpointWritten{index=1}")
	s.System.Root.Send(checkpoint, &messages.WriteCheckpoint{Checkpoint: later})
	log.Expect("SyncCommit{index=9}")
	s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 1})
	s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 9})
	d.expect(t, "checkpoint 9")
	machine.Expect("CheckpointWritten{index=9}")
}

func TestCheckpointFailures(t *testing.T) {
	lost := errors.New("the disk is gone")
	for _, test := range []struct {
		change func(*memoryDisk)
		reason string
	}{
		{func(d *memoryDisk) { d.engine.Err = lost }, "sync the user data: the disk is gone"},
		{func(d *memoryDisk) { d.checkpointErr = lost }, "write the checkpoint: the disk is gone"},
	} {
		s, d := actortest.NewStage(t), newDisk()
		test.change(d)
		log := s.Probe("log")
		checkpoint, machine := spawnCheckpoint(s, d, log)
		s.System.Root.Send(checkpoint, &messages.WriteCheckpoint{Checkpoint: statetest.First()})
		log.Expect("SyncCommit{index=1}")
		s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 1})
		if reason := (<-s.Fatal).Error(); reason != test.reason {
			t.Errorf("the reason is %q", reason)
		}
		s.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 1})
		s.Stop(checkpoint)
		machine.ExpectNoMore(s)
		if len(d.events) > 0 || len(s.Fatal) > 0 {
			t.Errorf("after the failure: %d events, %d failures", len(d.events), len(s.Fatal))
		}
	}
}
