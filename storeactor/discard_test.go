package storeactor

import (
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/state"
	"keyval/storeactor/state/statetest"
)

// writeCheckpoint lets the checkpoint at index become durable, and takes what the
// machine tells of it and of what was applied before.
func (c *company) writeCheckpoint(index uint64) *messages.Checkpointed {
	c.T.Helper()
	if got := actortest.Take[*messages.SyncCommit](c.log); got.Index != index {
		c.T.Fatalf("the checkpoint at index %d is written, not that at %d", got.Index, index)
	}
	c.System.Root.Send(actor.NewPID(c.System.Address(), messages.ActorCheckpoint), &messages.CommitSynced{Index: index})
	for m := range c.raft.Got {
		if done, ok := m.(*messages.Checkpointed); ok {
			if done.Index != index {
				c.T.Fatalf("raft is told %s", messages.Line(done))
			}
			<-c.disk.events
			return done
		}
	}
	return nil
}

// compactAsClient applies two puts at this index and a client's compaction of all before
// it at the next, and lets the checkpoint that follows become durable.
func (c *company) compactAsClient(index uint64) {
	c.T.Helper()
	c.apply(statetest.Entry(index, 1, write(2*index), write(2*index+1)), statetest.Entry(index+1, 1,
		&messages.Command{Session: statetest.Client(1), Seq: 2*index + 2, Operations: statetest.Ops(statetest.Compact(index))}))
	actortest.Take[*messages.Outcomes](c.gateway)
	if index == 2 {
		actortest.Take[*messages.LogTimeAdvanced](c.gateway)
	}
	if done := c.writeCheckpoint(index + 1); !done.Thorough || done.CompactedRevision != index {
		c.T.Fatalf("raft is told %s", messages.Line(done))
	}
}

// watch makes the engine tell of its discards and reclaims.
func (c *company) watch(reclaim func() error) (discarded chan uint64, reclaims chan struct{}) {
	reclaims = make(chan struct{}, 10)
	c.disk.engine.Discarded = make(chan uint64, 10)
	c.disk.engine.Reclaims = func() error {
		reclaims <- struct{}{}
		if reclaim != nil {
			return reclaim()
		}
		return nil
	}
	return c.disk.engine.Discarded, reclaims
}

// What a reader was given when history was still there it reads before that goes.
func TestDiscardsWaitForReaders(t *testing.T) {
	c := newCompany(t, nil).opened()
	discarded, reclaims := c.watch(nil)
	release := c.hold()                      // one of two readers, at revision 0
	c.send(asks(0, statetest.GetAt(0, "a"))) // the other one
	c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	c.compactAsClient(2)
	c.tick(questionTicks) // who has not answered is asked again, which does no harm
	for range 2 {
		c.send(&messages.ReadReply{Request: 1}) // of the one that has
	}
	c.passed()
	if len(discarded)+len(reclaims) > 0 {
		t.Error("history went under a reader")
	}
	c.send(asks(0, statetest.GetAt(1, "a")))
	c.session.Expect(`ReadReply{request=7 code=COMPACTED revision=1 message="revision 1 is no longer kept: history is readable from revision 2 on"}`)
	release()
	c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	if floor := <-discarded; floor != 2 {
		t.Errorf("%d was discarded", floor)
	}
	<-reclaims
	for range 3 {
		c.tick(questionTicks)
	}
	c.Stop(c.machine)
	if len(discarded)+len(reclaims) > 0 {
		t.Error("history went twice")
	}
}

// What a node gives up goes with the next checkpoint, which comes soon; nobody has
// asked for the space.
func TestNodesCompactionsAreNotThorough(t *testing.T) {
	c := newCompany(t, nil).opened()
	discarded, reclaims := c.watch(nil)
	c.apply(statetest.Entry(2, 1, write(1), write(2)), statetest.Entry(3, 1, &messages.Command{Operations: statetest.Ops(statetest.Compact(2))}))
	if done := c.writeCheckpoint(3); done.Thorough || done.CompactedRevision != 2 {
		t.Errorf("raft is told %s", messages.Line(done))
	}
	if floor := <-discarded; floor != 2 {
		t.Errorf("%d was discarded", floor)
	}
	c.tick(1)
	c.Stop(c.machine)
	if len(reclaims) > 0 {
		t.Error("it was reclaimed")
	}
	if got := actortest.Take[*messages.Outcomes](c.gateway); len(got.Outcomes) != 2 { // the puts', and none of a command that is nobody's
		t.Errorf("the gateway is told %s", messages.Line(got))
	}
	actortest.Take[*messages.LogTimeAdvanced](c.gateway)
	c.gateway.ExpectNoMore(c.Stage)
}

// A compaction that comes while a checkpoint is written has the next one.
func TestCompactionsBehindACheckpoint(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.CheckpointEntries = 1 }).opened()
	discarded, reclaims := c.watch(nil)
	c.apply(statetest.Entry(2, 1, write(1), write(2)))
	c.apply(statetest.Entry(3, 1, &messages.Command{Session: statetest.Client(1), Seq: 3, Operations: statetest.Ops(statetest.Compact(2))}))
	c.passed()
	if done := c.writeCheckpoint(2); done.Thorough || done.CompactedRevision != 0 {
		t.Errorf("raft is told %s", messages.Line(done))
	}
	c.passed()
	if len(discarded) > 0 {
		t.Error("history went before a checkpoint knew of it")
	}
	if done := c.writeCheckpoint(3); !done.Thorough || done.CompactedRevision != 2 {
		t.Errorf("raft is told %s", messages.Line(done))
	}
	if floor := <-discarded; floor != 2 {
		t.Errorf("%d was discarded", floor)
	}
	<-reclaims
	c.apply(statetest.Entry(4, 1, write(4)))
	if done := c.writeCheckpoint(4); done.Thorough {
		t.Error("nobody has asked for space again")
	}
	c.Stop(c.machine)
}

// While one reclaim is under way no other begins; who asked meanwhile has the next.
func TestReclaimsFollowEachOther(t *testing.T) {
	c := newCompany(t, nil).opened()
	proceed := make(chan struct{})
	discarded, reclaims := c.watch(func() error { <-proceed; return nil })
	c.compactAsClient(2)
	<-reclaims
	c.compactAsClient(4)
	for _, want := range []uint64{2, 4} {
		if floor := <-discarded; floor != want {
			t.Errorf("%d was discarded", floor)
		}
	}
	c.passed()
	if len(reclaims) > 0 {
		t.Error("two reclaims are under way at once")
	}
	close(proceed)
	<-reclaims
	c.Stop(c.machine)
	if len(reclaims) > 0 {
		t.Error("a third reclaim, which nobody asked for")
	}
}

// A pin delays a reclaim, which would free little under it.
func TestReclaimsWaitForPins(t *testing.T) {
	c := newCompany(t, nil).opened()
	discarded, reclaims := c.watch(nil)
	c.ask(c.session, &messages.PinState{Holder: "file"})
	actortest.Take[*messages.StatePinned](c.session)
	c.compactAsClient(2)
	c.tick(pinTicksMax - 1)
	if len(discarded)+len(reclaims) > 0 {
		t.Error("history went under a pin")
	}
	c.tick(1) // the holder has come to nothing
	if floor := <-discarded; floor != 2 {
		t.Errorf("%d was discarded", floor)
	}
	<-reclaims
	c.Stop(c.machine)
}

func TestReclaimsThatFail(t *testing.T) {
	for _, test := range []struct {
		name  string
		fails func() error
		fatal bool
	}{
		{"an error", func() error { return errors.New("no space to merge tables in") }, false},
		{"a panic", func() error { panic("a table is gone") }, false},
		{"damage", func() error { return messages.Errorf(messages.Code_DAMAGED, "a block is damaged") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCompany(t, nil).opened()
			_, reclaims := c.watch(test.fails)
			c.compactAsClient(2)
			<-reclaims
			if test.fatal {
				if reason := <-c.Fatal; messages.CodeOf(reason) != messages.Code_DAMAGED {
					t.Errorf("the reason is %v", reason)
				}
			} else {
				c.compactAsClient(4) // it is asked again, and tried again
				<-reclaims
			}
			c.Stop(c.machine)
			if len(c.Fatal) > 0 {
				t.Errorf("it ended with %v", <-c.Fatal)
			}
		})
	}
}

// What a checkpoint gave up may go as soon as it is opened.
func TestMachineDiscardsWhenItOpens(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) {
		d := config.Disk.(*memoryDisk)
		d.checkpoint.Revision, d.checkpoint.CompactedRevision = 9, 5
		d.engine.Discarded = make(chan uint64, 10)
	}).opened()
	if floor := <-c.disk.engine.Discarded; floor != 5 {
		t.Errorf("%d was discarded", floor)
	}
	c.tick(questionTicks)
	c.Stop(c.machine)
	if len(c.disk.engine.Discarded) > 0 {
		t.Error("it was discarded twice")
	}
}

// The machine asks its own raft to give up history, again and again until it is so.
func TestMachineRetainsHistory(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.HistoryRevisions, config.HistoryMS = 2, 1000 }).opened()
	apply := func(index, now uint64) {
		c.apply(statetest.Entry(index, now, write(index)))
		actortest.Take[*messages.Applied](c.raft)
	}
	asked := func(revision uint64) {
		t.Helper()
		if got := actortest.Take[*messages.Propose](c.raft); got.Origin != 1 || got.Seq != 0 || string(got.Command) != string(state.CompactCommand(revision)) {
			t.Errorf("it proposes %s", messages.Line(got))
		}
	}
	apply(2, 1)
	apply(3, 1)
	c.tick(1)
	apply(4, 1)
	c.tick(1)
	asked(1)
	c.tick(19)
	c.tick(1)
	asked(1)
	c.apply(statetest.Entry(5, 1, &messages.Command{Operations: statetest.Ops(statetest.Compact(1))}))
	if got := actortest.Take[*messages.Applied](c.raft); got.CompactedRevision != 1 || got.Revision != 3 {
		t.Errorf("raft is told %s", messages.Line(got))
	}
	c.writeCheckpoint(5)
	apply(6, 1001) // revision 3 was current at 1, and so many revisions are kept
	c.tick(20)
	asked(2)
	c.Stop(c.machine)
	c.raft.ExpectNoMore(c.Stage)
}
