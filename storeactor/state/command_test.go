package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/state/statetest"
)

// The reading in place must agree with the library on every input, well formed
// or not.
func TestCommandsAreReadAsProtobufReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := statetest.Marshal(drawCommands(t))
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			data = damage(t, data)
		}
		want := &messages.Commands{}
		err := proto.Unmarshal(data, want)
		var got commands
		if ok := got.read(data); ok != (err == nil) {
			t.Fatalf("read reports %v, the library %v, for %x", ok, err, data)
		}
		if err != nil {
			return
		}
		if got.level != want.Level || got.logTimeMS != want.LogTimeMs || len(got.proposals) != len(want.Proposals) {
			t.Fatalf("got %+v for %s", got, messages.Line(want))
		}
		for i, p := range got.proposals {
			if p.origin != want.Proposals[i].Origin || string(p.principal) != string(want.Proposals[i].Principal) || string(p.command) != string(want.Proposals[i].Command) {
				t.Fatalf("got proposal %+v for %s", p, messages.Line(want.Proposals[i]))
			}
			compareCommand(t, p.command)
		}
	})
}

// compareCommand holds read to what the library makes of the same bytes, and reports
// whether they are a command.
func compareCommand(t fatal, data []byte) (*messages.Command, command, bool) {
	want := &messages.Command{}
	err := proto.Unmarshal(data, want)
	var got command
	if ok := got.read(data); ok != (err == nil) {
		t.Fatalf("read reports %v, the library %v, for %x", ok, err, data)
	}
	if err != nil {
		return nil, got, false
	}
	if diff := cmp.Diff(fromProto(want), plain(got), cmp.AllowUnexported(command{}, operation{}, condition{})); diff != "" {
		t.Fatalf("%s of %x is read otherwise (-want +got):\n%s", messages.Line(want), data, diff)
	}
	return want, got, true
}

// fatal is what a test and a property have in common.
type fatal interface {
	Fatalf(format string, args ...any)
}

func fromProto(m *messages.Command) command {
	c := command{
		session: m.Session, seq: m.Seq, ackedBelow: m.AckedBelow,
		opens: m.Open != nil, ttlMS: m.Open.GetTtlMs(), beforeMS: m.Open.GetBeforeMs(), holder: m.Open.GetHolder(),
	}
	for _, n := range m.Conditions {
		got := condition{key: n.Key, to: n.To, comparison: int32(n.Comparison)}
		switch k := n.Target.(type) {
		case *messages.Condition_Value:
			got.target, got.value = targetValue, k.Value
		case *messages.Condition_Version:
			got.target, got.number = targetVersion, k.Version
		case *messages.Condition_CreateRevision:
			got.target, got.number = targetCreated, k.CreateRevision
		case *messages.Condition_ModRevision:
			got.target, got.number = targetModified, k.ModRevision
		}
		c.conditions = append(c.conditions, got)
	}
	c.operations, c.otherwise = operationsFrom(m.Operations), operationsFrom(m.Otherwise)
	return plain(c)
}

func operationsFrom(list []*messages.Operation) (operations []operation) {
	for _, o := range list {
		switch k := o.Kind.(type) {
		case *messages.Operation_Put:
			operations = append(operations, operation{kind: kindPut, key: k.Put.Key, value: k.Put.Value})
		case *messages.Operation_Delete:
			operations = append(operations, operation{kind: kindDelete, key: k.Delete.Key})
		case *messages.Operation_DeleteRange:
			operations = append(operations, operation{
				kind: kindDeleteRange, key: k.DeleteRange.From, to: k.DeleteRange.To, limit: k.DeleteRange.Limit})
		case *messages.Operation_Compact:
			operations = append(operations, operation{kind: kindCompact, revision: k.Compact.Revision})
		case *messages.Operation_RaiseLevel, *messages.Operation_ChangeMembers, *messages.Operation_RecordOperation, *messages.Operation_BindIncarnation, *messages.Operation_UpdateMember, *messages.Operation_SetHealing, *messages.Operation_NoteBackup, *messages.Operation_SetAuth, *messages.Operation_WriteInvitations:
			operations = append(operations, operation{kind: o.Number(), value: statetest.Marshal(o)})
		default:
			operations = append(operations, operation{})
		}
	}
	return operations
}

// plain makes empty slices nil.
func plain(c command) command {
	trim := func(b *[]byte) {
		if len(*b) == 0 {
			*b = nil
		}
	}
	trim(&c.session)
	for _, branch := range []*[]operation{&c.operations, &c.otherwise} {
		if len(*branch) == 0 {
			*branch = nil
		}
		for i := range *branch {
			o := &(*branch)[i]
			if o.aboutMembers() { // however it was put together
				o.value = statetest.Marshal(readMembers(o.value))
			}
			trim(&o.key)
			trim(&o.value)
			trim(&o.to)
		}
	}
	if len(c.conditions) == 0 {
		c.conditions = nil
	}
	for i := range c.conditions {
		n := &c.conditions[i]
		trim(&n.key)
		trim(&n.value)
		trim(&n.to)
	}
	return c
}

func drawCommands(t *rapid.T) *messages.Commands {
	all := &messages.Commands{
		Level:     rapid.Uint32Range(0, 2).Draw(t, "level"),
		LogTimeMs: rapid.Uint64().Draw(t, "log time"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "proposals") {
		all.Proposals = append(all.Proposals, &messages.Proposal{
			Origin:    rapid.Uint64().Draw(t, "origin"),
			Principal: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "principal"),
			Command:   damageSometimes(t, statetest.Marshal(drawCommand(t))),
		})
	}
	return all
}

func drawCommand(t *rapid.T) *messages.Command {
	c := &messages.Command{
		Session:    rapid.SliceOfN(rapid.Byte(), 0, 17).Draw(t, "session"),
		Seq:        rapid.Uint64().Draw(t, "seq"),
		AckedBelow: rapid.Uint64().Draw(t, "acked_below"),
	}
	if rapid.Bool().Draw(t, "open") {
		c.Open = statetest.Opens(rapid.Uint64().Draw(t, "ttl"), rapid.Uint64().Draw(t, "before"))
	}
	for range rapid.IntRange(0, 3).Draw(t, "conditions") {
		n := &messages.Condition{
			Key:        rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "key"),
			To:         rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "to"),
			Comparison: messages.Comparison(rapid.Int32Range(-1, 5).Draw(t, "comparison")),
		}
		number := rapid.Uint64().Draw(t, "number")
		switch rapid.IntRange(0, 4).Draw(t, "target") {
		case 0:
			n.Target = &messages.Condition_Value{Value: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "value")}
		case 1:
			n.Target = &messages.Condition_Version{Version: number}
		case 2:
			n.Target = &messages.Condition_CreateRevision{CreateRevision: number}
		case 3:
			n.Target = &messages.Condition_ModRevision{ModRevision: number}
		}
		c.Conditions = append(c.Conditions, n)
	}
	for range rapid.IntRange(0, 3).Draw(t, "operations") {
		key, other := rapid.StringN(0, 5, 8).Draw(t, "key"), rapid.StringN(0, 5, 8).Draw(t, "value")
		c.Operations = append(c.Operations, rapid.SampledFrom([]*messages.Operation{
			statetest.Put(key, other), statetest.Delete(key), statetest.DeleteRange(key, other, rapid.Uint32().Draw(t, "limit")),
			statetest.Compact(rapid.Uint64().Draw(t, "revision")), {},
			statetest.RaiseLevel(rapid.Uint32().Draw(t, "from"), rapid.Uint32().Draw(t, "to"), rapid.SliceOfN(rapid.Uint64(), 0, 3).Draw(t, "members")...),
		}).Draw(t, "operation"))
	}
	if n := len(c.Operations); n > 0 {
		at := rapid.IntRange(0, n).Draw(t, "otherwise")
		c.Operations, c.Otherwise = c.Operations[:at], c.Operations[at:]
	}
	return c
}

func damageSometimes(t *rapid.T, data []byte) []byte {
	if rapid.IntRange(0, 2).Draw(t, "damage") == 0 {
		return damage(t, data)
	}
	return data
}

// damage changes, removes, adds or repeats bytes.
func damage(t *rapid.T, data []byte) []byte {
	at := rapid.IntRange(0, len(data)).Draw(t, "at")
	end := rapid.IntRange(at, min(len(data), at+8)).Draw(t, "end")
	put := rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "put")
	if rapid.Bool().Draw(t, "repeat") {
		put = append(put, data[:at]...)
	}
	out := append([]byte{}, data[:at]...)
	out = append(out, put...)
	return append(out, data[end:]...)
}

// Where a oneof is given twice the last member counts, and members of one kind
// are merged.
func TestRepeatedMembersAreMerged(t *testing.T) {
	data := append(statetest.Marshal(statetest.Put("a", "1")), statetest.Marshal(&messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Value: []byte("2")}}})...)
	var o operation
	if !o.read(data) || o.kind != kindPut || string(o.key) != "a" || string(o.value) != "2" {
		t.Errorf("two puts are read as %+v", o)
	}
	o = operation{}
	if data = append(data, statetest.Marshal(statetest.Delete("b"))...); !o.read(data) || o.kind != kindDelete || string(o.key) != "b" || o.value != nil {
		t.Errorf("a put and a delete are read as %+v", o)
	}
	o = operation{}
	if data = append(data, statetest.Marshal(statetest.Compact(7))...); !o.read(data) || o.kind != kindCompact || o.revision != 7 || o.key != nil {
		t.Errorf("a put, a delete and a compaction are read as %+v", o)
	}
	o = operation{} // a field of another type is unknown, and means nothing
	data = append(statetest.Marshal(statetest.Compact(7)), 0x82, 0x02, 0x03, 0x0a, 0x01, 'k')
	if !o.read(data) || o.kind != kindCompact || o.revision != 7 || o.key != nil {
		t.Errorf("a compaction with a key is read as %+v", o)
	}
}
