package storeactor

import (
	"testing"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/state"
	"keyval/storeactor/state/statetest"
)

// The index of a comparison is ahead of what is applied while entries come, and the present
// one where none do: nobody waits for what never comes.
func TestDigestsAhead(t *testing.T) {
	for _, row := range []struct{ ticked, pace, applied, want uint64 }{
		{100, 0, 100, 100}, {100, 7, 100, 114}, {100, 0, 103, 109}, {100, 50, 110, 210}, {0, 0, 1, 3},
	} {
		d := digests{ticked: row.ticked, pace: row.pace}
		if got := d.ahead(row.applied); got != row.want {
			t.Errorf("at %d, %d before and %d a tick: %d, want %d", row.applied, row.ticked, row.pace, got, row.want)
		}
	}
	d := digests{ticked: 10}
	d.tick(25)
	if d.pace != 15 || d.ticked != 25 {
		t.Errorf("%+v", d)
	}
}

// A machine hashes its state as of the index that is asked for: the present, one to come,
// and never one that is passed.
func TestMachineHashesItsState(t *testing.T) {
	c := newCompany(t, nil)
	audit := c.Probe(messages.ActorAudit)
	ask := func(request, index uint64) {
		c.System.Root.RequestWithCustomSender(c.machine, &messages.ReadState{Request: request, Index: index}, audit.PID)
	}
	read := func() *messages.StateRead { return actortest.Take[*messages.StateRead](audit) }
	ask(1, 1)
	if m := read(); m.Request != 1 || m.Code != messages.Code_OK || m.Index != 1 || len(m.Hash) != 8 {
		t.Errorf("of now: %v", m)
	}
	ask(2, 0)
	if m := read(); m.Index != 1 || len(m.Hash) != 0 {
		t.Errorf("the index is to be chosen: %v", m)
	}
	if m := read(); m.Index != 1 || len(m.Hash) != 8 {
		t.Errorf("chosen: %v", m)
	}
	ask(3, 2)
	c.apply(statetest.Entry(2, 20), statetest.Entry(3, 30))
	replay, err := state.FromCheckpoint(statetest.First(), messages.Level)
	if err != nil {
		t.Fatal(err)
	}
	if err := replay.Apply(state.NewBatch(nil), statetest.Entry(2, 20)); err != nil {
		t.Fatal(err)
	}
	want := state.Digest(replay.Checkpoint())
	if m := read(); m.Request != 3 || m.Index != 2 || string(m.Hash) != string(want[:]) {
		t.Errorf("of the index to come: %v, want %x", m, want)
	}
	ask(4, 2)
	if m := read(); m.Code != messages.Code_COMPACTED {
		t.Errorf("of one that is passed: %v", m)
	}
	c.Stop(c.machine)
}
