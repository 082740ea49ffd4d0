package storeactor

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/state/statetest"
)

func TestPins(t *testing.T) {
	var p pins
	expect := func(what string, limit, want uint64) {
		t.Helper()
		if got := p.floor(limit); got != want {
			t.Errorf("%s: up to %d of %d may go, not up to %d", what, got, limit, want)
		}
	}
	expect("no pins", 9, 9)
	p.add("a", 5)
	p.add("b", 7)
	expect("the lowest counts", 9, 5)
	expect("never more than asked for", 3, 3)
	p.add("a", 8)
	expect("a later one of a name takes its place", 9, 7)
	p.remove("b")
	p.remove("c")
	expect("one is gone", 9, 8)
	for _, test := range []struct {
		holder    string
		compacted uint64
		there     bool
	}{{"a", 8, true}, {"a", 9, true}, {"a", 7, false}, {"b", 7, false}} {
		if got := p.use(test.holder, test.compacted); got != test.there {
			t.Errorf("what %s reads above %d is there: %v", test.holder, test.compacted, got)
		}
	}
	p.add("b", 2)
	p.ticked(pinTicksMax - 1)
	p.use("a", 8)
	p.ticked(1)
	expect("who does not read goes", 9, 8)
	p.ticked(pinTicksMax - 1)
	expect("nobody is left", 9, 9)

	for i := range pinsMax {
		if !p.add(fmt.Sprint(i), 1) {
			t.Fatalf("there was room for pin %d", i)
		}
	}
	if p.add("one more", 1) || !p.add("0", 2) {
		t.Error("one more found room, or one that is there did not")
	}
}

// sessions and rows of a pinned state are those of its checkpoint, whatever is
// applied and given up meanwhile.
func TestMachineKeepsWhatIsPinned(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.CheckpointEntries = 2 }).opened()
	c.disk.engine.Discarded = make(chan uint64, 10)
	snapshots := c.Probe(messages.ActorSnapshots)
	c.apply(statetest.Entry(2, 1, write(1)), statetest.Entry(3, 1, write(2)))
	c.writeCheckpoint(3)
	c.ask(snapshots, &messages.PinState{Holder: "to-2", Index: 2})
	snapshots.Expect(`StatePinned{holder="to-2" code=COMPACTED}`)
	c.ask(snapshots, &messages.PinState{Holder: "to-2", Index: 3})
	pinned := actortest.Take[*messages.StatePinned](snapshots)
	if pinned.Code != messages.Code_OK || pinned.Bytes != 1000 || pinned.Checkpoint.Revision != 2 || pinned.Checkpoint.Index != 3 {
		t.Fatalf("pinned is %s", messages.Line(pinned))
	}
	frozen := string(statetest.Marshal(pinned.Checkpoint))

	c.apply(statetest.Entry(4, 1, write(3)), statetest.Entry(5, 1, &messages.Command{Operations: statetest.Ops(statetest.Compact(3))}))
	c.ask(snapshots, &messages.PinState{Holder: "file"})
	if now := actortest.Take[*messages.StatePinned](snapshots).Checkpoint; now.Index != 5 || now.Revision != 3 || now.CompactedRevision != 3 {
		t.Errorf("the state of now is %s", messages.Line(now))
	}
	c.writeCheckpoint(5)
	c.ask(snapshots, &messages.PinState{Holder: "to-3", Index: 3})
	snapshots.Expect(`StatePinned{holder="to-3" code=COMPACTED}`)
	rows := func(holder string, revision, compacted uint64) *messages.RowsRead {
		c.ask(snapshots, &messages.ReadRows{Holder: holder, Sequence: 4, Revision: revision, CompactedRevision: compacted, BytesMax: 1 << 20})
		return actortest.Take[*messages.RowsRead](snapshots)
	}
	got := &messages.SnapshotRows{}
	if err := proto.Unmarshal(rows("to-2", 2, 0).Rows, got); err != nil {
		t.Fatal(err)
	}
	for _, row := range got.Rows {
		row.Checksum = 0
	}
	want := `SnapshotRows{rows=[SnapshotRow{key="a" value="2" revision=2 create_revision=1 version=2} ` +
		`SnapshotRow{key="a" value="1" revision=1 create_revision=1 version=1}]}`
	if messages.Line(got) != want {
		t.Errorf("the pinned rows are %s", messages.Line(got))
	}
	if string(statetest.Marshal(pinned.Checkpoint)) != frozen {
		t.Error("a checkpoint has changed after it was handed out")
	}
	if read := rows("file", 3, 3); read.Code != messages.Code_OK || read.Count != 1 {
		t.Errorf("the state of now has %s", messages.Line(read))
	}
	for _, read := range []*messages.RowsRead{rows("file", 4, 2), rows("to-3", 4, 3), rows("file", 5, 3)} {
		if read.Code != messages.Code_COMPACTED {
			t.Errorf("what nobody keeps is answered with %s", messages.Line(read))
		}
	}
	if len(c.disk.engine.Discarded) > 0 {
		t.Fatalf("%d was discarded under a pin", <-c.disk.engine.Discarded)
	}
	c.ask(snapshots, &messages.UnpinState{Holder: "to-2"})
	if floor := <-c.disk.engine.Discarded; floor != 3 {
		t.Errorf("%d was discarded", floor)
	}
	if read := rows("to-2", 2, 0); read.Code != messages.Code_COMPACTED {
		t.Errorf("what was given back is answered with %s", messages.Line(read))
	}
	for i := range pinsMax {
		c.ask(snapshots, &messages.PinState{Holder: fmt.Sprint(i)})
		if got := actortest.Take[*messages.StatePinned](snapshots); (got.Code == messages.Code_OK) != (i < pinsMax-1) {
			t.Fatalf("pin %d beside one: %s", i, got.Code)
		}
	}
	c.Stop(c.machine)
	snapshots.ExpectNoMore(c.Stage)
}
