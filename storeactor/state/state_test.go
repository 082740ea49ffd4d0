package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"keyval/membershipactor/rules"
	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// replica is a state with its store.
type replica struct {
	t      testing.TB
	state  *State
	store  *disktest.Memory
	batch  *Batch
	seq    uint64
	bounds sessionBounds
}

var wideBounds = sessionBounds{sessions: SessionsMax, bytes: SessionBytesMax, window: SessionWindow}

func newReplica(t testing.TB, from *messages.Checkpoint, store *disktest.Memory, bounds sessionBounds) *replica {
	t.Helper()
	state, err := restore(from, messages.Level, bounds)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{t: t, state: state, store: store, batch: NewBatch(store), bounds: bounds}
	r.batch.recent.keysMax = 2 // so that it forgets
	return r
}

// apply applies entries in one batch and returns what was settled.
func (r *replica) apply(entries ...*raftpb.Entry) []Settled {
	r.t.Helper()
	for _, e := range entries {
		if err := r.state.Apply(r.batch, e); err != nil {
			r.t.Fatal(err)
		}
	}
	settled := slices.Clone(r.batch.Settled)
	if err := r.batch.Flush(); err != nil {
		r.t.Fatal(err)
	}
	r.batch.Clear()
	return settled
}

// do applies commands of one client that is open throughout, in one entry.
func (r *replica) do(commands ...[]*messages.Operation) []string {
	r.t.Helper()
	var list []*messages.Command
	for _, operations := range commands {
		r.seq++
		list = append(list, &messages.Command{
			Session: statetest.Client(1), Seq: r.seq, AckedBelow: r.seq, Open: statetest.Opens(1000, 1000), Operations: operations})
	}
	var got []string
	for _, s := range r.apply(statetest.Entry(r.state.index+1, 1, list...)) {
		got = append(got, s.outcome.String())
	}
	return got
}

func (o outcome) String() string {
	more := ""
	if o.more {
		more = " more"
	}
	if o.failed > 0 {
		more += fmt.Sprintf(" failed %d", o.failed)
	}
	return fmt.Sprintf("%d:%s@%d deleted %d%s", o.seq, o.code, o.revision, o.deleted, more)
}

func TestOperations(t *testing.T) {
	long := strings.Repeat("k", messages.KeySizeMax+1)
	for _, test := range []struct {
		name     string
		commands [][]*messages.Operation // in one entry, after a=0 b=0 c=0 at revision 1
		outcomes []string
		live     string
	}{
		{"a put", [][]*messages.Operation{statetest.Ops(statetest.Put("a", "1"))},
			[]string{"2:OK@2 deleted 0"}, "a=1@2 b=0@1 c=0@1"},
		{"an empty value is a value", [][]*messages.Operation{statetest.Ops(statetest.Put("a", ""))},
			[]string{"2:OK@2 deleted 0"}, "a=@2 b=0@1 c=0@1"},
		{"a delete", [][]*messages.Operation{statetest.Ops(statetest.Delete("a"))},
			[]string{"2:OK@2 deleted 1"}, "b=0@1 c=0@1"},
		{"a delete of what is not there", [][]*messages.Operation{statetest.Ops(statetest.Delete("x"))},
			[]string{"2:OK@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"a delete sees the batch", [][]*messages.Operation{statetest.Ops(statetest.Put("x", "1")), statetest.Ops(statetest.Delete("x")), statetest.Ops(statetest.Delete("x"))},
			[]string{"2:OK@2 deleted 0", "3:OK@3 deleted 1", "4:OK@3 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"nothing at all", [][]*messages.Operation{nil},
			[]string{"2:OK@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"a range", [][]*messages.Operation{statetest.Ops(statetest.DeleteRange("a", "c", 0))},
			[]string{"2:OK@2 deleted 2"}, "c=0@1"},
		{"a range without an end", [][]*messages.Operation{statetest.Ops(statetest.DeleteRange("b", "", 0))},
			[]string{"2:OK@2 deleted 2"}, "a=0@1"},
		{"a range stops at its limit", [][]*messages.Operation{statetest.Ops(statetest.DeleteRange("", "", 2)), statetest.Ops(statetest.DeleteRange("", "", 2))},
			[]string{"2:OK@2 deleted 2 more", "3:OK@3 deleted 1"}, ""},
		{"a limit that just suffices", [][]*messages.Operation{statetest.Ops(statetest.DeleteRange("", "", 3))},
			[]string{"2:OK@2 deleted 3"}, ""},
		{"a range that is none", [][]*messages.Operation{statetest.Ops(statetest.DeleteRange("c", "a", 0))},
			[]string{"2:OK@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"a range sees the batch", [][]*messages.Operation{
			statetest.Ops(statetest.Put("bb", "1")), statetest.Ops(statetest.Delete("a")), statetest.Ops(statetest.Put("b", "2")), statetest.Ops(statetest.Put("d", "3")), statetest.Ops(statetest.DeleteRange("a", "c", 2)), statetest.Ops(statetest.DeleteRange("a", "", 9))},
			[]string{"2:OK@2 deleted 0", "3:OK@3 deleted 1", "4:OK@4 deleted 0", "5:OK@5 deleted 0", "6:OK@6 deleted 2", "7:OK@7 deleted 2"}, ""},
		{"a range stops before what waits behind the store's", [][]*messages.Operation{
			statetest.Ops(statetest.Put("d", "1")), statetest.Ops(statetest.DeleteRange("a", "", 3))},
			[]string{"2:OK@2 deleted 0", "3:OK@3 deleted 3 more"}, "d=1@2"},
		{"operations see each other", [][]*messages.Operation{
			statetest.Ops(statetest.Put("x", "1"), statetest.Delete("x"), statetest.Put("x", "2"), statetest.Delete("a"), statetest.Put("a", "3"), statetest.DeleteRange("b", "d", 0), statetest.Put("c", "4"))},
			[]string{"2:OK@2 deleted 4"}, "a=3@2 c=4@2 x=2@2"},
		{"the ranges of a command share its bound", [][]*messages.Operation{statetest.Ops(statetest.DeleteRange("a", "b", 1), statetest.DeleteRange("b", "", 1))},
			[]string{"2:OK@2 deleted 2 more"}, "c=0@1"},
		{"no key", [][]*messages.Operation{statetest.Ops(statetest.Put("", "1"))},
			[]string{"2:INVALID@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"a key too long", [][]*messages.Operation{statetest.Ops(statetest.Put(long, "1")), statetest.Ops(statetest.Delete(long)), statetest.Ops(statetest.DeleteRange(long, "", 0)), statetest.Ops(statetest.DeleteRange("", long, 0))},
			[]string{"2:INVALID@1 deleted 0", "3:INVALID@1 deleted 0", "4:INVALID@1 deleted 0", "5:INVALID@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"a value too long", [][]*messages.Operation{statetest.Ops(statetest.Put("x", strings.Repeat("v", messages.ValueSizeMax+1)))},
			[]string{"2:INVALID@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"an unknown operation spoils its command", [][]*messages.Operation{statetest.Ops(statetest.Put("x", "1"), &messages.Operation{})},
			[]string{"2:UNSUPPORTED@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"the level is not a client's to raise", [][]*messages.Operation{statetest.Ops(statetest.RaiseLevel(1, 1, 1, 2, 3)), statetest.Ops(statetest.RaiseLevel(0, 1, 1, 2, 3))},
			[]string{"2:INVALID@1 deleted 0", "3:INVALID@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"too many operations", [][]*messages.Operation{slices.Repeat(statetest.Ops(statetest.Delete("a")), messages.OperationsMax+1)},
			[]string{"2:INVALID@1 deleted 0"}, "a=0@1 b=0@1 c=0@1"},
		{"as many operations as may be", [][]*messages.Operation{slices.Repeat(statetest.Ops(statetest.Delete("a")), messages.OperationsMax)},
			[]string{"2:OK@2 deleted 1"}, "b=0@1 c=0@1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
			r.do(statetest.Ops(statetest.Put("a", "0"), statetest.Put("b", "0"), statetest.Put("c", "0")))
			if diff := cmp.Diff(test.outcomes, r.do(test.commands...)); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if got := r.store.Live(t, r.state.revision); got != test.live {
				t.Errorf("there is %q, not %q", got, test.live)
			}
			if got := r.store.Live(t, 1); got != "a=0@1 b=0@1 c=0@1" {
				t.Errorf("history has changed: %q", got)
			}
		})
	}
}

// Compactions raise what is given up and never lower it, and ask nothing of the rows.
func TestCompactions(t *testing.T) {
	node := func(operations ...*messages.Operation) *messages.Command {
		return &messages.Command{Operations: operations}
	}
	of := func(seq uint64, operations ...*messages.Operation) *messages.Command {
		return &messages.Command{Session: statetest.Client(1), Seq: seq, Operations: operations}
	}
	for _, test := range []struct {
		name      string
		commands  []*messages.Command // in one entry, behind revision 3 with 2 given up
		outcomes  []string
		compacted uint64
		by        Compaction
	}{
		{"up to now", []*messages.Command{of(9, statetest.Compact(3))}, []string{"9:OK@3 deleted 0"}, 3, ClientCompaction},
		{"of the future", []*messages.Command{of(9, statetest.Compact(4))}, []string{"9:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"of the far future", []*messages.Command{of(9, statetest.Compact(1<<64-1))}, []string{"9:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"below what is given up", []*messages.Command{of(9, statetest.Compact(1))}, []string{"9:OK@3 deleted 0"}, 2, NoCompaction},
		{"of what is given up", []*messages.Command{of(9, statetest.Compact(2)), of(10, statetest.Compact(1))},
			[]string{"9:OK@3 deleted 0", "10:OK@3 deleted 0"}, 2, ClientCompaction},
		{"among others", []*messages.Command{of(9, statetest.Put("a", "1"), statetest.Compact(3), statetest.Delete("a"), statetest.Compact(2))}, []string{"9:OK@4 deleted 1"}, 3, ClientCompaction},
		{"up to its own revision, among others", []*messages.Command{of(9, statetest.Put("a", "1"), statetest.Compact(3), statetest.Compact(4))}, []string{"9:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"what was refused does not take effect later", []*messages.Command{of(9, statetest.Compact(4)), of(10, statetest.Put("a", "1")), of(9, statetest.Compact(4))},
			[]string{"9:INVALID@3 deleted 0", "10:OK@4 deleted 0", "9:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"what took effect is not refused later", []*messages.Command{of(9, statetest.Compact(3)), of(10, statetest.Put("a", "1")), of(9, statetest.Compact(3))},
			[]string{"9:OK@3 deleted 0", "10:OK@4 deleted 0", "9:OK@3 deleted 0"}, 3, ClientCompaction},
		{"of a node", []*messages.Command{node(statetest.Compact(3))}, []string{"0:OK@3 deleted 0"}, 3, NodeCompaction},
		{"of a node, again", []*messages.Command{node(statetest.Compact(3)), node(statetest.Compact(3)), node(statetest.Compact(2), statetest.Compact(1))},
			[]string{"0:OK@3 deleted 0", "0:OK@3 deleted 0", "0:OK@3 deleted 0"}, 3, NodeCompaction},
		{"of a node, of the future", []*messages.Command{node(statetest.Compact(4))}, []string{"0:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"of a node and a client", []*messages.Command{node(statetest.Compact(3)), of(9, statetest.Compact(3)), node(statetest.Compact(3))},
			[]string{"0:OK@3 deleted 0", "9:OK@3 deleted 0", "0:OK@3 deleted 0"}, 3, ClientCompaction},
		{"nobody's, with more than compactions", []*messages.Command{node(statetest.Compact(3), statetest.Put("a", "1")), node(statetest.Put("a", "1")), node()},
			[]string{"0:INVALID@3 deleted 0", "0:INVALID@3 deleted 0", "0:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"nobody's, with a number", []*messages.Command{{Seq: 1, Operations: statetest.Ops(statetest.Compact(3))}, {Seq: 1, AckedBelow: 1, Operations: statetest.Ops(statetest.Compact(3))}},
			[]string{"1:INVALID@3 deleted 0", "1:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"nobody's, that opens a session", []*messages.Command{{Open: statetest.Opens(9, 9), Operations: statetest.Ops(statetest.Compact(3))}}, []string{"0:INVALID@3 deleted 0"}, 2, NoCompaction},
		{"of a session that is not open", []*messages.Command{{Session: statetest.Client(2), Seq: 1, Operations: statetest.Ops(statetest.Compact(3))}},
			[]string{"1:SESSION_EXPIRED@3 deleted 0"}, 2, NoCompaction},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
			r.do(statetest.Ops(statetest.Put("k", "0")), statetest.Ops(statetest.Put("k", "1")), statetest.Ops(statetest.Put("k", "2")), statetest.Ops(statetest.Compact(2)))
			rows := r.store.Dump()
			if err := r.state.Apply(r.batch, statetest.Entry(3, 1, test.commands...)); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range r.batch.Settled {
				got = append(got, s.outcome.String())
			}
			if diff := cmp.Diff(test.outcomes, got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			if r.batch.Compaction != test.by {
				t.Errorf("the compaction is of %d, not of %d", r.batch.Compaction, test.by)
			}
			if gone := r.batch.GivenUp; (gone.Below > 2) != (test.compacted > 2) || (gone.Client != nil) != (gone.Below > 2 && test.by == ClientCompaction && test.commands[0].Session != nil) {
				t.Errorf("it is said that %+v", gone)
			}
			r.batch.Clear()
			if r.batch.Compaction != NoCompaction {
				t.Error("a batch that was cleared tells of a compaction")
			}
			if got := r.state.Checkpoint().CompactedRevision; got != test.compacted {
				t.Errorf("up to revision %d is given up, not up to %d", got, test.compacted)
			}
			if got := r.store.Dump(); got != rows {
				t.Errorf("the rows are\n%s", got)
			}
		})
	}
}

// A row says when its key came to be there and how often it was written since, whether
// the versions before it wait in the batch or are in the store.
func TestRowsCarryTheirPast(t *testing.T) {
	put, gone := statetest.Put("k", "v"), statetest.Delete("k")
	for _, test := range []struct {
		name     string
		commands [][]*messages.Operation
		want     string // the key's rows: revision, created, version
	}{
		{"writes", [][]*messages.Operation{statetest.Ops(put), statetest.Ops(put), statetest.Ops(put)}, "1:1.1 2:1.2 3:1.3"},
		{"a key that comes again begins anew", [][]*messages.Operation{statetest.Ops(put), statetest.Ops(put), statetest.Ops(gone), statetest.Ops(put), statetest.Ops(put)},
			"1:1.1 2:1.2 3:gone 4:4.1 5:4.2"},
		{"by a range too", [][]*messages.Operation{statetest.Ops(put), statetest.Ops(statetest.DeleteRange("a", "z", 0)), statetest.Ops(put)}, "1:1.1 2:gone 3:3.1"},
		{"other keys do not count", [][]*messages.Operation{statetest.Ops(statetest.Put("a", "")), statetest.Ops(put), statetest.Ops(statetest.Put("l", "")), statetest.Ops(put)}, "2:2.1 4:2.2"},
		{"each operation counts", [][]*messages.Operation{statetest.Ops(put), statetest.Ops(put, put), statetest.Ops(gone, put), statetest.Ops(put, gone, put, put)}, "1:1.1 2:1.3 3:3.1 4:4.2"},
		{"one that comes and goes", [][]*messages.Operation{statetest.Ops(put, gone), statetest.Ops(gone), statetest.Ops(put, statetest.DeleteRange("", "", 0))}, "1:gone 2:gone"},
	} {
		for _, together := range []bool{true, false} {
			r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
			if together {
				r.do(test.commands...)
			} else {
				for _, c := range test.commands {
					r.do(c)
					r.batch = NewBatch(r.store) // as after a restart
				}
			}
			var got []string
			for _, row := range r.store.Rows["k"] {
				if err := row.Check(); err != nil {
					t.Error(err)
				}
				past := fmt.Sprintf("%d.%d", row.Created, row.Version)
				if row.Deleted && past == "0.0" {
					past = "gone"
				}
				got = append(got, fmt.Sprintf("%d:%s", row.Revision, past))
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("%s, together %t: %q and not %q", test.name, together, got, test.want)
			}
		}
	}
}

// What is known without the store is what the store says, however little it may keep.
func TestRecentForgetsNoRowThatWaits(t *testing.T) {
	r := newRecent()
	r.keysMax = 3
	for i := range 10 {
		r.add(fmt.Appendf(nil, "%d", i)).version = uint64(i) + 1
	}
	for i := range 10 {
		if k := r.find(fmt.Appendf(nil, "%d", i)); k == nil || k.version != uint64(i)+1 {
			t.Fatalf("before a flush, of %d it knows %v", i, k)
		}
	}
	r.flushed()
	r.find([]byte("7"))
	r.add([]byte("a"))
	r.flushed() // too few are young
	r.add([]byte("b"))
	r.flushed()
	r.flushed()
	for key, known := range map[string]bool{"7": true, "a": true, "b": true, "1": false, "9": false} {
		if got := r.find([]byte(key)) != nil; got != known {
			t.Errorf("%s is known: %t", key, got)
		}
	}
	for i := range 2 * recentBytesMax / messages.KeySizeMax {
		r.keysMax = 1 << 20
		r.add(append(make([]byte, messages.KeySizeMax-8), fmt.Sprintf("%08d", i)...))
		r.flushed()
	}
	if n := len(r.young.known) + len(r.old.known); n > 2*recentBytesMax/messages.KeySizeMax+1 || n < recentBytesMax/messages.KeySizeMax {
		t.Errorf("it knows %d long keys", n)
	}
}

// A delete writes a tombstone only where there was something.
func TestDeletesWriteNoNeedlessRows(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	r.do(statetest.Ops(statetest.Put("a", "1")), statetest.Ops(statetest.Delete("b")), statetest.Ops(statetest.DeleteRange("b", "", 0)), statetest.Ops(statetest.Delete("a")), statetest.Ops(statetest.Delete("a")))
	want := disktest.NewMemory()
	if err := want.Write(disktest.Whole(disk.Row{Key: []byte("a"), Value: []byte("1"), Revision: 1}, disk.Row{Key: []byte("a"), Revision: 2, Deleted: true})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Dump(), r.store.Dump()); diff != "" {
		t.Errorf("the store (-want +got):\n%s", diff)
	}
}

// One command never deletes more than the bounds of a step, and says so.
func TestDeleteRangeSteps(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	for i := range 30 {
		var commands [][]*messages.Operation
		for j := range 500 {
			commands = append(commands, statetest.Ops(statetest.Put(fmt.Sprintf("k%05d", i*500+j), "")))
		}
		r.do(commands...)
	}
	want := []string{"15001:OK@15001 deleted 10000 more", "15002:OK@15002 deleted 5000"}
	if diff := cmp.Diff(want, r.do(statetest.Ops(statetest.DeleteRange("k", "l", 1<<31)), statetest.Ops(statetest.DeleteRange("k", "l", 0)))); diff != "" {
		t.Errorf("steps by number (-want +got):\n%s", diff)
	}
	for i := range 80 {
		r.do(statetest.Ops(statetest.Put(fmt.Sprintf("%016000d", i), "")))
	}
	want = []string{"15083:OK@15083 deleted 65 more", "15084:OK@15084 deleted 15"}
	if diff := cmp.Diff(want, r.do(statetest.Ops(statetest.DeleteRange("0", "1", 0)), statetest.Ops(statetest.DeleteRange("0", "1", 0)))); diff != "" {
		t.Errorf("steps by bytes (-want +got):\n%s", diff)
	}
}

// A batch that grows too great reaches the store in parts, with the same result.
func TestBatchSpills(t *testing.T) {
	value := strings.Repeat("v", messages.ValueSizeMax)
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	var commands [][]*messages.Operation
	for i := range 40 {
		commands = append(commands, statetest.Ops(statetest.Put(fmt.Sprintf("k%d", i%20), value)))
	}
	commands = append(commands, statetest.Ops(statetest.DeleteRange("", "", 0)))
	got := r.do(commands...)
	if last := got[len(got)-1]; last != "41:OK@41 deleted 20" {
		t.Errorf("the range after the puts: %s", last)
	}
	if r.store.Writes < 3 {
		t.Errorf("20 MiB of rows were held back and written at once (%d writes)", r.store.Writes)
	}
}

func TestEntries(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	before := r.state.history
	r.apply(&raftpb.Entry{Index: new(uint64(2)), Term: new(uint64(5))})
	if r.state.index != 2 || r.state.term != 5 || r.state.revision != 0 || r.state.history == before {
		t.Errorf("an empty entry leaves %+v", r.state)
	}
	// What cannot be read takes no revision, and log time never goes back.
	broken := &messages.Commands{Level: 1, LogTimeMs: 10, Proposals: []*messages.Proposal{{Origin: 3, Command: []byte{0xff}}, {Origin: 2}}}
	settled := r.apply(&raftpb.Entry{Index: new(uint64(3)), Term: new(uint64(5)), Data: statetest.Marshal(broken)}, statetest.Entry(4, 7))
	if r.state.logTimeMS != 10 || r.state.revision != 0 {
		t.Errorf("after broken commands: log time %d, revision %d", r.state.logTimeMS, r.state.revision)
	}
	var got []string
	for _, s := range settled {
		got = append(got, fmt.Sprintf("%d %s", s.Origin, s.outcome))
	}
	if diff := cmp.Diff([]string{"3 0:INVALID@0 deleted 0", "2 0:INVALID@0 deleted 0"}, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

func TestEntriesThatStopAReplica(t *testing.T) {
	unknown := raftpb.EntryType(9)
	for _, test := range []struct {
		name  string
		entry *raftpb.Entry
		code  messages.Code
	}{
		{"a newer level", &raftpb.Entry{Data: statetest.Marshal(&messages.Commands{Level: messages.Level + 1})}, messages.Code_UNSUPPORTED},
		{"an unknown type", &raftpb.Entry{Type: &unknown}, messages.Code_UNSUPPORTED},
		{"no commands", &raftpb.Entry{Data: []byte{0xff}}, messages.Code_DAMAGED},
		{"no configuration change", &raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte{0xff}}, messages.Code_DAMAGED},
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		test.entry.Index = new(uint64(2))
		if err := r.state.Apply(r.batch, test.entry); messages.CodeOf(err) != test.code {
			t.Errorf("%s gives %v", test.name, err)
		}
	}
}

func TestStoreErrorsStopApplying(t *testing.T) {
	for _, operation := range []*messages.Operation{statetest.Delete("a"), statetest.DeleteRange("a", "b", 0)} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		r.store.Err = errors.New("the disk is gone")
		command := &messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(10, 10), Operations: statetest.Ops(operation)}
		if err := r.state.Apply(r.batch, statetest.Entry(2, 1, command)); !errors.Is(err, r.store.Err) {
			t.Errorf("%s gives %v", messages.Line(operation), err)
		}
	}
}

func TestCheckpointsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*messages.Checkpoint)
		code   messages.Code
	}{
		{"a newer format", func(c *messages.Checkpoint) { c.Format++ }, messages.Code_UNSUPPORTED},
		{"a newer level", func(c *messages.Checkpoint) { c.Level = messages.Level + 1 }, messages.Code_UNSUPPORTED},
		{"a short ClientID", func(c *messages.Checkpoint) { c.Sessions = []*messages.Session{{Client: []byte{1}}} }, messages.Code_DAMAGED},
		{"a session twice", func(c *messages.Checkpoint) {
			c.Sessions = []*messages.Session{{Client: statetest.Client(1)}, {Client: statetest.Client(1)}}
		}, messages.Code_DAMAGED},
	} {
		c := statetest.First()
		test.change(c)
		if _, err := FromCheckpoint(c, messages.Level); messages.CodeOf(err) != test.code {
			t.Errorf("%s gives %v", test.name, err)
		}
	}
}

// narrowBounds are met within a few commands.
var narrowBounds = sessionBounds{sessions: 4, bytes: 4*sessionBytes + 6*outcomeBytes, window: 4}

// drawLog draws entries over few clients and keys, so that commands meet.
func drawLog(t *rapid.T) []*raftpb.Entry {
	var entries []*raftpb.Entry
	first := statetest.First()
	now, shadow := uint64(0), rules.Configuration{Index: 1, Members: first.Members, ConfState: first.ConfState, NextRaftID: first.NextRaftId}
	for i := range rapid.IntRange(1, 25).Draw(t, "entries") {
		index := uint64(i) + 2
		if rapid.IntRange(0, 9).Draw(t, "empty") == 0 {
			entries = append(entries, &raftpb.Entry{Index: &index, Term: new(uint64(1))})
			continue
		}
		now += rapid.SampledFrom([]uint64{0, 0, 1, 3, 20}).Draw(t, "time")
		if rapid.IntRange(0, 2).Draw(t, "members") == 0 {
			entries = append(entries, drawMembers(t, index, now, &shadow))
			continue
		}
		var list []*messages.Command
		for range rapid.IntRange(0, 5).Draw(t, "commands") {
			list = append(list, drawSessionCommand(t, now))
		}
		entries = append(entries, statetest.Entry(index, now, list...))
	}
	return entries
}

func drawSessionCommand(t *rapid.T, now uint64) *messages.Command {
	seq := rapid.Uint64Range(0, 9).Draw(t, "seq")
	c := &messages.Command{
		Session:    statetest.Client(rapid.ByteRange(1, 7).Draw(t, "client")),
		Seq:        seq,
		AckedBelow: rapid.Uint64Range(0, seq).Draw(t, "acked_below"),
	}
	if rapid.Bool().Draw(t, "open") {
		c.Open = statetest.Opens(rapid.Uint64Range(0, 20).Draw(t, "ttl"), now+rapid.Uint64Range(0, 22).Draw(t, "before")-min(now, 2))
	}
	for range rapid.IntRange(0, 3).Draw(t, "operations") {
		key := func() string { return rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "key") }
		c.Operations = append(c.Operations, rapid.SampledFrom([]*messages.Operation{
			statetest.Put(key(), fmt.Sprint(now)), statetest.Delete(key()), statetest.DeleteRange(key(), key(), rapid.Uint32Range(0, 3).Draw(t, "limit")),
			statetest.Compact(rapid.Uint64Range(0, 60).Draw(t, "revision")),
		}).Draw(t, "operation"))
	}
	if n := len(c.Operations); rapid.IntRange(0, 2).Draw(t, "conditional") == 0 {
		for range rapid.IntRange(1, 2).Draw(t, "conditions") {
			c.Conditions = append(c.Conditions, drawCondition(t))
		}
		at := rapid.IntRange(0, n).Draw(t, "otherwise")
		c.Operations, c.Otherwise = c.Operations[:at], c.Operations[at:]
	}
	if rapid.IntRange(0, 9).Draw(t, "of a node") == 0 {
		return &messages.Command{Operations: statetest.Ops(statetest.Compact(rapid.Uint64Range(0, 60).Draw(t, "revision")))}
	}
	return c
}

func drawCondition(t *rapid.T) *messages.Condition {
	key := func() string { return rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "key") }
	n := rapid.Uint64Range(0, 20).Draw(t, "number")
	target := rapid.SampledFrom([]any{value(fmt.Sprint(n)), version(n % 4), created(n), modified(n)}).Draw(t, "target")
	c := statetest.If(key(), messages.Comparison(rapid.IntRange(0, 3).Draw(t, "comparison")), target)
	if rapid.Bool().Draw(t, "ranged") {
		c.To = []byte(rapid.SampledFrom([]string{"c", "e", endOfKeys}).Draw(t, "to"))
	}
	return c
}

func encode(t testing.TB, c *messages.Checkpoint) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// applyInParts applies entries in batches of drawn sizes.
func (r *replica) applyInParts(t *rapid.T, entries []*raftpb.Entry) (settled []string) {
	for len(entries) > 0 {
		n := rapid.IntRange(1, len(entries)).Draw(t, "part")
		for _, s := range r.apply(entries[:n]...) {
			settled = append(settled, fmt.Sprintf("%x %s", s.Client, s.outcome))
		}
		entries = entries[n:]
	}
	return settled
}

// Replay from a checkpoint at any index equals straight apply: the same state,
// outcomes and rows, whatever later rows the store already holds, and whatever it has
// dropped of what the checkpoint gives up.
func TestReplayEqualsStraightApply(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := drawLog(rt)
		at := rapid.IntRange(0, len(entries)).Draw(rt, "checkpoint")
		straight := newReplica(t, statetest.First(), disktest.NewMemory(), narrowBounds)
		straight.applyInParts(rt, entries[:at])
		checkpoint := straight.state.Checkpoint()
		frozen := encode(t, checkpoint)
		want := straight.applyInParts(rt, entries[at:])

		if string(encode(t, checkpoint)) != string(frozen) {
			rt.Fatal("later entries have changed an earlier checkpoint")
		}
		survived := disktest.NewMemory() // the rows up to the checkpoint, and any later ones
		for key, rows := range straight.store.Rows {
			for _, row := range rows {
				if row.Revision <= checkpoint.Revision || rapid.Bool().Draw(rt, "survives") {
					survived.Rows[key] = append(survived.Rows[key], row)
				}
			}
			if len(survived.Rows[key]) > 0 {
				survived.Keys = append(survived.Keys, key)
			}
		}
		slices.Sort(survived.Keys)
		if rapid.Bool().Draw(rt, "discarded") {
			survived.Discard(checkpoint.CompactedRevision)
			straight.store.Discard(checkpoint.CompactedRevision) // so that they can be compared
		}
		replayed := newReplica(t, checkpoint, survived, narrowBounds)
		if diff := cmp.Diff(want, replayed.applyInParts(rt, entries[at:])); diff != "" {
			rt.Fatalf("outcomes (-straight +replayed):\n%s", diff)
		}
		if diff := cmp.Diff(straight.state.Checkpoint(), replayed.state.Checkpoint(), protocmp.Transform()); diff != "" {
			rt.Fatalf("states (-straight +replayed):\n%s", diff)
		}
		if string(encode(t, straight.state.Checkpoint())) != string(encode(t, replayed.state.Checkpoint())) {
			rt.Fatal("equal states have different checkpoints")
		}
		if diff := cmp.Diff(straight.store.Dump(), survived.Dump()); diff != "" {
			rt.Fatalf("rows (-straight +replayed):\n%s", diff)
		}
	})
}

func TestCheckpointRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), narrowBounds)
		r.applyInParts(rt, drawLog(rt))
		want := r.state.Checkpoint()
		read := &messages.Checkpoint{}
		if err := proto.Unmarshal(encode(t, want), read); err != nil {
			rt.Fatal(err)
		}
		again, err := restore(read, messages.Level, narrowBounds)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, again.Checkpoint(), protocmp.Transform()); diff != "" {
			rt.Fatalf("the checkpoint of a checkpoint (-want +got):\n%s", diff)
		}
	})
}

// Nothing that a checkpoint can hold is lost on the way through a State.
func TestCheckpointsAreCarriedWhole(t *testing.T) {
	c := statetest.First()
	c.Index, c.Term, c.Revision, c.LogTimeMs, c.CompactedRevision, c.HistoryHash = 2, 3, 4, 5, 6, 7
	c.Sessions = []*messages.Session{{Client: statetest.Client(1), TtlMs: 1, ActiveMs: 4, AckedBelow: 3, OpenBeforeMs: 5, Outcomes: []*messages.Outcome{
		{Seq: 3, Code: messages.Code_OK, Revision: 3, Deleted: 9, More: true, FailedCondition: 7}, {Seq: 5, Code: messages.Code_OK, Revision: 4},
	}}}
	c.ConfigurationIndex, c.Operations = 1, []*messages.ClusterOperation{{Id: make([]byte, 16), Version: 1, Kind: messages.OperationKind_ADD}}
	c.Healing = &messages.Healing{Version: 2, Spares: []string{"node4"}}
	c.Backups = []*messages.BackupJob{{Name: "s3://b", Version: 3}}
	c.Auth = &messages.Auth{Version: 4, Enabled: true, Users: []*messages.User{{Name: "root", Grants: []*messages.Grant{{Role: messages.UserRole_ADMIN}}}}}
	c.Invitations = &messages.Invitations{Version: 5, All: []*messages.Invitation{statetest.Invitation("n4")}}
	fields := c.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !c.ProtoReflect().Has(fields.Get(i)) {
			t.Errorf("%s is not set, so nothing is known of it", fields.Get(i).Name())
		}
	}
	s, err := FromCheckpoint(c, messages.Level)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, s.Checkpoint(), protocmp.Transform()); diff != "" {
		t.Errorf("the checkpoint of a checkpoint (-want +got):\n%s", diff)
	}
}

// The history hash tells histories apart that differ in one thing.
func TestHistoryHash(t *testing.T) {
	history := func(operation *messages.Operation, seq, index uint64) uint64 {
		first := statetest.First()
		first.Index = index
		r := newReplica(t, first, disktest.NewMemory(), wideBounds)
		r.apply(statetest.Entry(index+1, 1, &messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(9, 9), Operations: statetest.Ops(statetest.Put("a", "0"))},
			&messages.Command{Session: statetest.Client(1), Seq: 2, Operations: statetest.Ops(statetest.Put("a", "1"))}))
		r.apply(statetest.Entry(index+2, 1, &messages.Command{Session: statetest.Client(1), Seq: seq, Operations: statetest.Ops(operation)}))
		return r.state.history
	}
	seen := map[uint64]string{}
	for _, h := range []struct {
		name string
		hash uint64
	}{
		{"put b=1", history(statetest.Put("b", "1"), 3, 1)},
		{"put b=2", history(statetest.Put("b", "2"), 3, 1)},
		{"put b1=''", history(statetest.Put("b1", ""), 3, 1)},
		{"delete a", history(statetest.Delete("a"), 3, 1)},
		{"put a=''", history(statetest.Put("a", ""), 3, 1)},
		{"a repeat", history(statetest.Put("b", "1"), 1, 1)},
		{"refused", history(statetest.Put("b", "1"), 0, 1)},
		{"compact 1", history(statetest.Compact(1), 3, 1)},
		{"compact 2", history(statetest.Compact(2), 3, 1)},
		{"delete x", history(statetest.Delete("x"), 3, 1)},
		{"another index", history(statetest.Put("b", "1"), 3, 2)},
	} {
		if other, taken := seen[h.hash]; taken {
			t.Errorf("%s and %s have the same hash", h.name, other)
		}
		seen[h.hash] = h.name
	}
	if first, again := history(statetest.Put("b", "1"), 3, 1), history(statetest.Put("b", "1"), 3, 1); first != again {
		t.Error("the same history has two hashes")
	}
}

// discard is a store that keeps nothing.
type discard struct{}

func (discard) Write([]disk.Row) error                     { return nil }
func (discard) Get([]byte, uint64) (disk.Row, bool, error) { return disk.Row{}, false, nil }
func (discard) Scan(_, _ []byte, _ uint64, _ bool, _ func(disk.Row) bool) error {
	return nil
}

// BenchmarkApply applies puts of 256 bytes of 64 sessions, 64 commands an entry.
func BenchmarkApply(b *testing.B) {
	const clients, packed = 64, 64
	state, err := FromCheckpoint(statetest.First(), messages.Level)
	if err != nil {
		b.Fatal(err)
	}
	batch := NewBatch(discard{})
	value := strings.Repeat("v", 256)
	var entries []*raftpb.Entry
	for i := range (b.N + packed - 1) / packed {
		var list []*messages.Command
		for n := range clients {
			c := &messages.Command{Session: statetest.Client(byte(n)), Seq: uint64(i) + 1, AckedBelow: uint64(i) + 1,
				Operations: statetest.Ops(statetest.Put(fmt.Sprintf("key-%08d", (i*packed+n)%100_000), value))}
			if i == 0 {
				c.Open = statetest.Opens(1000, 1)
			}
			list = append(list, c)
		}
		entries = append(entries, statetest.Entry(uint64(i)+2, 1, list...))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range entries {
		if err := state.Apply(batch, e); err != nil {
			b.Fatal(err)
		}
		if err := batch.Flush(); err != nil {
			b.Fatal(err)
		}
		batch.Clear()
	}
	if state.sessions.kept != clients {
		b.Fatalf("%d outcomes are kept", state.sessions.kept)
	}
}

// The table of recent keys is one, whatever their hashes are.
func TestGenerationsAreTables(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, want := newGeneration(), map[string]uint64{}
		hashes := rapid.SampledFrom([]uint32{1, 3, 1 << 20, 1<<32 - 1}).Draw(t, "hashes")
		for i := range uint64(rapid.IntRange(1, placesMin).Draw(t, "keys")) {
			key := fmt.Sprint(i)
			g.add(uint32(i)*2654435761%hashes, []byte(key), known{version: i + 1})
			want[key] = i + 1
		}
		for key, version := range want {
			i := version - 1
			if k := g.find(uint32(i)*2654435761%hashes, []byte(key)); k == nil || k.version != version {
				t.Fatalf("of %s it knows %v", key, k)
			}
			if k := g.find(uint32(i)*2654435761%hashes, []byte("no"+key)); k != nil {
				t.Fatalf("it knows %v of a key that is not there", k)
			}
		}
		g.clear()
		if g.find(0, []byte("0")) != nil {
			t.Fatal("it is not empty")
		}
	})
}
