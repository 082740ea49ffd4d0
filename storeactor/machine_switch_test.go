package storeactor

import (
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// staged is what the snapshot at index 20, term 4 and revision 30 brings: slow=new.
// What it gives up is below revision 25.
func (c *company) stage20() {
	checkpoint := statetest.First()
	checkpoint.Index, checkpoint.Term, checkpoint.Revision, checkpoint.LogTimeMs, checkpoint.CompactedRevision = 20, 4, 30, 500, 25
	checkpoint.ConfState = &raftpb.ConfState{Voters: []uint64{1, 2, 4}}
	c.disk.staged, c.disk.stagedEngine = checkpoint, disktest.NewMemory()
	if err := c.disk.stagedEngine.Write([]disk.Row{{Key: []byte("slow"), Value: []byte("new"), Revision: 28, Created: 20, Version: 3}}); err != nil {
		c.T.Fatal(err)
	}
}

// install does what the log does: the disk first, then the machine is told.
func (c *company) install() {
	c.T.Helper()
	if err := c.disk.Install(20, 4, nil); err != nil {
		c.T.Fatal(err)
	}
	c.disk.expect(c.T, "install 20.4 with -")
	c.send(&messages.Installed{Index: 20})
}

// switched takes what the machine says when it has switched.
func (c *company) switched() {
	c.T.Helper()
	c.raft.Expect("MachineOpened{index=20 revision=30 log_time_ms=500 conf_state=ConfState{voters=[1 2 4]} term=4 compacted_revision=25 level=1}")
	c.log.Expect("Switched{index=20}")
	for _, p := range []*actortest.Probe{c.membership, c.gateway} {
		if got := actortest.Take[*messages.MembersChanged](p); got.LogTimeMs != 500 {
			c.T.Errorf("%s is told of the members at log time %d", p.PID.Id, got.LogTimeMs)
		}
	}
	c.gateway.Expect("LogTimeAdvanced{log_time_ms=500}")
}

// hold lets a reader wait in the midst of a read of "slow" until release is called.
func (c *company) hold() (release func()) {
	release = c.disk.engine.HoldReads()
	entered := c.disk.engine.Entered
	c.send(asks(0, statetest.GetAt(0, "slow")))
	<-entered
	return release
}

const slowOld, slowNew = `ReadReply{request=7 revision=1 items=[Item{key="slow" value="old" revision=1 create_revision=1 version=1}]}`,
	`ReadReply{request=7 revision=30 items=[Item{key="slow" value="new" revision=28 create_revision=20 version=3}]}`

func writeSlow() *messages.Command {
	return &messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(1000, 1000), Operations: statetest.Ops(statetest.Put("slow", "old"))}
}

// The readers finish what they have with the state before, which is closed then; who
// comes meanwhile waits or is refused; and everyone hears of the new state, raft
// before the log.
func TestMachineSwitches(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.Readers = 1 }).opened()
	c.stage20()
	old := c.disk.engine
	c.apply(statetest.Entry(2, 1, writeSlow()))
	actortest.Take[*messages.Applied](c.raft)
	actortest.Take[*messages.Outcomes](c.gateway)
	actortest.Take[*messages.LogTimeAdvanced](c.gateway)
	snapshots := c.Probe(messages.ActorSnapshots)
	c.ask(snapshots, &messages.PinState{Holder: "old"})
	if got := actortest.Take[*messages.StatePinned](snapshots); got.Code != messages.Code_OK {
		t.Errorf("the old state is not pinned: %s", got.Code)
	}
	release := c.hold()
	for range 2 { // one more in the reader's mailbox, and one that waits for a turn
		c.send(asks(2, statetest.GetAt(0, "slow")))
	}
	c.install()
	c.send(asks(15, statetest.GetAt(0, "slow"))) // waits for an index that the snapshot has
	c.send(asks(0, statetest.GetAt(0, "slow")))  // stale, and of no state now
	c.send(asks(21, statetest.GetAt(0, "slow"))) // waits on
	c.ask(snapshots, &messages.ReadRows{Holder: "to-2", Sequence: 3, Revision: 1})
	snapshots.Expect(`RowsRead{holder="to-2" sequence=3 code=BUSY message="the node is opening another state"}`)
	c.ask(snapshots, &messages.PinState{Holder: "to-2", Index: 1})
	c.ask(snapshots, &messages.PinState{Holder: "gone", Index: 20})
	c.ask(snapshots, &messages.UnpinState{Holder: "gone"})
	c.ask(snapshots, &messages.PinState{Holder: "to-3", Index: 20})
	c.ask(snapshots, &messages.PinState{Holder: "file"})
	c.ask(c.membership, &messages.Introduce{})
	actortest.Take[*messages.MembersChanged](c.membership)
	c.passed()
	if old.IsClosed() {
		t.Error("the engine was closed under its readers")
	}
	if len(c.raft.Got)+len(c.log.Got)+len(c.session.Got) > 0 {
		t.Error("somebody was told before the readers were done")
	}
	release()
	for range 2 {
		c.session.Expect(slowOld)
	}
	c.switched()
	for range 3 {
		c.session.Expect(slowNew)
	}
	snapshots.Expect(`StatePinned{holder="to-2" code=COMPACTED}`)
	for _, holder := range []string{"to-3", "file"} {
		if got := actortest.Take[*messages.StatePinned](snapshots); got.Holder != holder || got.Code != messages.Code_OK || got.Checkpoint.Index != 20 {
			t.Errorf("%s was to be pinned: %s", holder, messages.Line(got))
		}
	}
	c.ask(snapshots, &messages.ReadRows{Holder: "old", Revision: 1, CompactedRevision: 0})
	if got := actortest.Take[*messages.RowsRead](snapshots); got.Code != messages.Code_COMPACTED {
		t.Errorf("the rows of the old state are read from the new one: %s", messages.Line(got))
	}
	if !old.IsClosed() || c.disk.engine.IsClosed() {
		t.Error("the engine of the state before is open, or that of this one closed")
	}

	// Everything goes on where the snapshot ends, with the children under their names.
	c.apply(statetest.Entry(21, 600, &messages.Command{Session: statetest.Client(2), Seq: 1, Open: statetest.Opens(1000, 1000), Operations: statetest.Ops(statetest.Put("b", "1"))}))
	if got := actortest.Take[*messages.Applied](c.raft); got.Index != 21 || got.Revision != 31 || got.CompactedRevision != 25 {
		t.Errorf("raft is told %s", messages.Line(got))
	}
	c.session.Expect(`ReadReply{request=7 revision=31 items=[Item{key="slow" value="new" revision=28 create_revision=20 version=3}]}`)
	c.System.Root.Send(actor.NewPID(c.System.Address(), messages.ActorReaderPrefix+"0"), asks(0, statetest.GetAt(0, "x")))
	c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	c.Stop(c.machine)
	if !c.disk.engine.IsClosed() {
		t.Error("the engine was left open")
	}
	for _, p := range []*actortest.Probe{c.raft, c.log, c.session, snapshots} {
		p.ExpectNoMore(c.Stage)
	}
}

// Raft hears of the new state before the log, which lets raft go on.
func TestRaftHearsOfASwitchFirst(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.Log = config.Raft }).opened()
	c.stage20()
	c.install()
	actortest.Take[*messages.MachineOpened](c.raft)
	c.raft.Expect("Switched{index=20}")
	c.Stop(c.machine)
}

// A checkpoint of the state before does not count any more, wherever it was when
// the snapshot came; those of the new state are written as ever.
func TestLateCheckpointsOfAStateBefore(t *testing.T) {
	nothing := func(*company, *actor.PID) {}
	for _, test := range []struct {
		name          string
		before, while func(c *company, checkpoint *actor.PID) // the machine hears of the snapshot; it switches
	}{
		{"it was not written", nothing, nothing},
		{"it was written, and the machine hears of it while it switches", nothing, func(c *company, _ *actor.PID) {
			c.send(&messages.CheckpointWritten{Index: 2})
		}},
		{"the disk refuses it", func(c *company, checkpoint *actor.PID) {
			c.disk.checkpointErr = messages.Errorf(messages.Code_CONFLICT, "a snapshot was installed")
			c.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 2})
		}, nothing},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCompany(t, func(config *MachineConfig) { config.CheckpointEntries, config.Readers = 1, 1 }).opened()
			c.stage20()
			c.apply(statetest.Entry(2, 1, writeSlow()))
			actortest.Take[*messages.Applied](c.raft)
			actortest.Take[*messages.Outcomes](c.gateway)
			actortest.Take[*messages.LogTimeAdvanced](c.gateway)
			c.log.Expect("SyncCommit{index=2}")
			release := c.hold()
			checkpoint := actor.NewPID(c.System.Address(), messages.ActorCheckpoint)
			test.before(c, checkpoint)
			c.install()
			test.while(c, checkpoint)
			c.passed()
			release()
			c.session.Expect(slowOld)
			c.switched()
			c.send(&messages.CheckpointWritten{Index: 2}) // the latest that it can come
			c.passed()
			c.disk.checkpointErr = nil
			c.apply(&raftpb.Entry{Index: new(uint64(21)), Term: new(uint64(4))})
			actortest.Take[*messages.Applied](c.raft)
			c.log.Expect("SyncCommit{index=21}")
			c.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 2}) // an answer to the one before
			c.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 21})
			c.disk.expect(t, "checkpoint 21")
			c.raft.Expect("Checkpointed{index=21 term=4 conf_state=ConfState{voters=[1 2 4]} compacted_revision=25}")
			c.Stop(c.machine)
			c.raft.ExpectNoMore(c.Stage)
			if len(c.Fatal) > 0 {
				t.Errorf("it ended with %v", <-c.Fatal)
			}
		})
	}
}

// A reader that fails while it is to stop does not hold up the switch.
func TestReadersThatFailWhileTheMachineSwitches(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.Readers = 1 }).opened()
	c.stage20()
	c.disk.engine.Panics = "bad"
	release := c.hold()
	c.send(asks(0, statetest.GetAt(0, "bad")))
	c.install()
	c.passed()
	release()
	c.switched()
	c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	c.send(asks(0, statetest.GetAt(0, "slow")))
	c.session.Expect(slowNew)
	c.Stop(c.machine)
}

// A reclaim does not hold up a switch, or the end of the node: the engine is closed,
// which ends it, as soon as nobody else uses it.
func TestReclaimsEndWithTheState(t *testing.T) {
	for _, switches := range []bool{true, false} {
		c := newCompany(t, func(config *MachineConfig) { config.Readers = 1 }).opened()
		c.stage20()
		old := c.disk.engine
		_, reclaims := c.watch(func() error { <-old.Closing; return errors.New("the state is closed") })
		c.compactAsClient(2)
		<-reclaims
		release := c.hold()
		stopped := func() { c.Stop(c.machine) }
		if switches {
			c.install()
			c.passed()
		} else {
			future := c.System.Root.StopFuture(c.machine)
			stopped = func() {
				if err := future.Wait(); err != nil {
					t.Error(err)
				}
			}
		}
		if old.IsClosed() {
			t.Error("the engine was closed under a reader")
		}
		release()
		if switches {
			c.switched()
			c.disk.engine.Reclaims = func() error { t.Error("there is nothing to reclaim"); return nil }
			c.tick(1)
		}
		stopped()
		c.raft.ExpectNoMore(c.Stage)
		if !old.IsClosed() || len(c.Fatal) > 0 {
			t.Errorf("closed: %v, failures: %d", old.IsClosed(), len(c.Fatal))
		}
	}
}

func TestSwitchesThatFail(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*company) // before the machine is told
		then   any            // while it switches
		reason string
	}{
		{"another index", func(c *company) { c.disk.staged.Index = 19 }, nil,
			"the snapshot at index 20 was installed, and the checkpoint is of index 19"},
		{"no engine", func(c *company) { c.disk.engineErr = errors.New("the disk is gone") }, nil,
			"switch to the snapshot at index 20: open the user data: the disk is gone"},
		{"a newer checkpoint", func(c *company) { c.disk.staged.Level = messages.Level + 1 }, nil,
			"switch to the snapshot at index 20: the checkpoint has format 1 and level 2, newer than this version's 1 and 1"},
		{"entries too early", func(*company) {}, &messages.Apply{Message: &raftpb.Message{Entries: []*raftpb.Entry{statetest.Entry(2, 1)}}},
			"entries came while the snapshot at index 20 is being opened"},
		{"another snapshot too early", func(*company) {}, &messages.Installed{Index: 21},
			"a snapshot at index 21 was installed while that at index 20 is being opened"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCompany(t, func(config *MachineConfig) { config.Readers = 1 }).opened()
			c.stage20()
			test.change(c)
			release := c.hold()
			c.install()
			if test.then != nil {
				c.send(test.then)
				c.passed()
			}
			release()
			if reason := (<-c.Fatal).Error(); reason != test.reason {
				t.Errorf("the reason is %q", reason)
			}
			c.send(asks(0, statetest.GetAt(0, "slow")))
			c.ask(c.session, &messages.PinState{Holder: "file"})
			c.Stop(c.machine)
			c.session.Expect("ReadReply{request=7 code=NOT_FOUND}") // of the state before
			for _, p := range []*actortest.Probe{c.raft, c.log, c.session} {
				p.ExpectNoMore(c.Stage)
			}
		})
	}
}

// A node that stops while it switches opens nothing any more.
func TestMachineStopsWhileItSwitches(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.Readers = 1 }).opened()
	c.stage20()
	old := c.disk.engine
	release := c.hold()
	c.install()
	c.passed()
	stopped := c.System.Root.StopFuture(c.machine)
	release()
	if err := stopped.Wait(); err != nil {
		t.Fatal(err)
	}
	c.raft.ExpectNoMore(c.Stage)
	c.log.ExpectNoMore(c.Stage)
	if !old.IsClosed() || len(c.Fatal) > 0 {
		t.Errorf("closed: %v, failures: %d", old.IsClosed(), len(c.Fatal))
	}
}
