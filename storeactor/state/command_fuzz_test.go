package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// FuzzCommand: a session checks a command with the generated code, the machine
// reads it by hand. They agree on every input, and what the session accepts the
// machine carries out, but for an opening that the log time refuses and a compaction
// of the future.
func FuzzCommand(f *testing.F) {
	for _, c := range seedCommands() {
		f.Add(statetest.Marshal(c))
		f.Add(append(statetest.Marshal(c), 0x98, 0x06, 1))          // an unknown field
		f.Add(append(statetest.Marshal(c), 0x2a, 0x02, 0x0a, 0x00)) // an operation more
	}
	f.Add([]byte{0xff})
	f.Add([]byte{0x28, 0x01})                                  // a known field of another type
	f.Add([]byte{0x2b, 0x2c})                                  // a group of a known number
	f.Add(bytes.Repeat([]byte{0x0b}, 100))                     // groups that do not end
	f.Add([]byte{0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00})    // a number longer than it need be
	f.Add([]byte{0x2a, 0x06, 0x0a, 0x01, 0x0a, 0x12, 0, 0x0a}) // lengths that cross
	f.Fuzz(func(t *testing.T, data []byte) {
		want, got, ok := compareCommand(t, data)
		if !ok || messages.CheckCommand(want) != nil {
			return
		}
		got.opens = false // whether it may open is the log time's decision
		if !got.valid(0) {
			t.Fatalf("the session accepts %s, the machine does not", messages.Line(want))
		}
	})
}

// FuzzEntry: whatever an entry holds, applying it does not panic, and two replicas
// make the same of it: the same error, or the same state, outcomes and rows.
func FuzzEntry(f *testing.F) {
	add := func(data []byte) { f.Add(data, uint8(0)) }
	add(nil)
	add([]byte{0xff})
	add(statetest.Marshal(&messages.Commands{Level: messages.Level + 1}))
	add(statetest.Marshal(&messages.Commands{LogTimeMs: 1<<64 - 1, Proposals: []*messages.Proposal{{Origin: 1}}}))
	all := &messages.Commands{Level: 1, LogTimeMs: 10}
	for _, c := range seedCommands() {
		all.Proposals = append(all.Proposals, &messages.Proposal{Origin: 1, Command: statetest.Marshal(c)})
		add(statetest.Entry(2, 1, c, c).GetData())
	}
	add(statetest.Marshal(all))
	f.Add(statetest.Marshal(all), uint8(7))
	changed := statetest.Change(2, 1, statetest.ChangeMembers(1, statetest.Add(4)))
	f.Add(changed.GetData(), uint8(raftpb.EntryConfChangeV2))
	f.Add(statetest.Marshal(&raftpb.ConfChangeV2{}), uint8(raftpb.EntryConfChangeV2))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		e := &raftpb.Entry{Index: new(uint64(2)), Term: new(uint64(1)), Data: data}
		e.Type = raftpb.EntryType(kind).Enum()
		one, two := applied(t, e), applied(t, e)
		if one != two {
			t.Fatalf("two replicas make different things of %x:\n%s\n%s", data, one, two)
		}
	})
}

// applied is all that is to be seen of a replica after one entry.
func applied(t *testing.T, e *raftpb.Entry) string {
	store := disktest.NewMemory()
	r := newReplica(t, statetest.First(), store, sessionBounds{sessions: 4, bytes: 2048, window: 8})
	err := r.state.Apply(r.batch, e)
	settled := fmt.Sprint(slices.Clone(r.batch.Settled))
	if flush := r.batch.Flush(); flush != nil {
		t.Fatal(flush)
	}
	return strings.Join([]string{fmt.Sprint(err), settled, store.Dump(), fmt.Sprintf("%x", encode(t, r.state.Checkpoint()))}, "\n")
}

func seedCommands() []*messages.Command {
	return []*messages.Command{
		{},
		{Session: statetest.Client(1), Seq: 1, Operations: statetest.Ops(statetest.Put("k", "v"))},
		{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(1000, 500), Operations: statetest.Ops(statetest.Put("k", "v"), statetest.Delete("k"), statetest.DeleteRange("a", "z", 3))},
		{Session: statetest.Client(7), Seq: 1, Open: &messages.OpenSession{TtlMs: 1000, BeforeMs: 500, Holder: []byte("host")}, Operations: statetest.Ops(statetest.Put("k", "v"))},
		{Session: statetest.Client(8), Seq: 1, Open: &messages.OpenSession{TtlMs: 1000, BeforeMs: 500, Holder: make([]byte, messages.HolderSizeMax+1)}, Operations: statetest.Ops(statetest.Put("k", "v"))},
		{Session: statetest.Client(2), Seq: 9, AckedBelow: 9, Open: &messages.OpenSession{}, Operations: statetest.Ops(&messages.Operation{})},
		{Session: statetest.Client(3)[:3], Seq: 1<<64 - 1, AckedBelow: 1<<64 - 1, Open: statetest.Opens(1<<64-1, 1<<64-1)},
		{Session: statetest.Client(4), Seq: 1<<64 - 1, AckedBelow: 0, Open: statetest.Opens(1000, 500), Operations: statetest.Ops(statetest.DeleteRange("", "", 0))},
		{Session: statetest.Client(5), Seq: 1, Open: statetest.Opens(1000, 500), Operations: statetest.Ops(statetest.Put("k", "v"), statetest.Compact(1), statetest.Compact(2))},
		{Session: statetest.Client(6), Seq: 1, Open: statetest.Opens(1000, 500), Conditions: []*messages.Condition{statetest.IfRevision("k", 0)}, Operations: statetest.Ops(statetest.Put("k", "v"))},
		{Session: statetest.Client(6), Seq: 2, Open: statetest.Opens(1000, 500), Conditions: []*messages.Condition{
			statetest.If("k", messages.Comparison_LESS, &messages.Condition_Value{Value: []byte("v")}),
			statetest.IfRange("a", "z", messages.Comparison_GREATER, &messages.Condition_Version{Version: 1 << 40}),
			statetest.IfRange("a", "\x00", messages.Comparison_NOT_EQUAL, &messages.Condition_CreateRevision{CreateRevision: 1}),
		}, Otherwise: statetest.Ops(statetest.Put("k", "w"), statetest.Delete("l"))},
		{Session: statetest.Client(6), Seq: 3, Conditions: []*messages.Condition{{}}, Otherwise: statetest.Ops(statetest.Compact(1))},
		{Conditions: []*messages.Condition{statetest.IfRevision("k", 0)}, Operations: statetest.Ops(statetest.Compact(1))},
		{Operations: statetest.Ops(statetest.Compact(1))},
		{Operations: statetest.Ops(statetest.Compact(1<<64 - 1))},
		{Operations: statetest.Ops(statetest.Compact(1), statetest.Put("k", "v"))},
		{Operations: statetest.Ops(statetest.RaiseLevel(0, 1, 1, 2, 3))},
		{Operations: statetest.Ops(statetest.RaiseLevel(1, 2, 1, 2, 3))},
		{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(1000, 500), Operations: statetest.Ops(statetest.RaiseLevel(1, 2, 1, 2, 3))},
		{Operations: statetest.Ops(statetest.ChangeMembers(1, statetest.Add(4)))},
		{Operations: statetest.Ops(statetest.ChangeMembers(1), statetest.Compact(1))},
		{Operations: statetest.Ops(statetest.RecordOperation(1, 1, messages.OperationPhase_COMPLETE))},
		{Operations: statetest.Ops(statetest.BindIncarnation(2, 2))},
		{Operations: statetest.Ops(statetest.UpdateMember(1, 3, "host:9"))},
		{Session: statetest.Client(7), Seq: 1, Open: statetest.Opens(1000, 500), Operations: statetest.Ops(statetest.BindIncarnation(2, 2))},
	}
}
