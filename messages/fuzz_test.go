package messages

import (
	"bytes"
	"strings"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
)

// FuzzOpen: whatever bytes come under whatever number, Open refuses them or makes
// a message of that number, which says the same when it is sealed and opened again.
func FuzzOpen(f *testing.F) {
	f.Add(uint32(0), []byte{})
	f.Add(uint32(4711), []byte("x"))
	for number, kind := range kindsByNumber {
		if kind == nil {
			continue
		}
		f.Add(uint32(number), []byte{})
		f.Add(uint32(number), []byte{0x08, 0x01, 0x12, 0x03, 'a', 'b', 'c'})
		f.Add(uint32(number), []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
		f.Add(uint32(number), bytes.Repeat([]byte{0x0b}, 64)) // groups in groups
	}
	f.Fuzz(func(t *testing.T, number uint32, body []byte) {
		m, err := Open(&Envelope{Type: number, Target: "t", Body: body})
		if err != nil {
			return
		}
		Line(m)
		e, err := Seal("t", "s", m)
		if err != nil || e.Type != number {
			t.Fatalf("%s of number %d is sealed as %d: %v", Line(m), number, e.GetType(), err)
		}
		again, err := Open(e)
		if err != nil || !proto.Equal(m, again) {
			t.Fatalf("%s is opened again as %v: %v", Line(m), again, err)
		}
	})
}

// FuzzCheckCommand: what is accepted keeps every promise that is made of commands
// in the log, and is accepted in its shortest form too.
func FuzzCheckCommand(f *testing.F) {
	seed := func(c *Command) {
		data, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(append(data, 0x98, 0x06, 1)) // and a field that nobody knows
	}
	client := bytes.Repeat([]byte{7}, ClientIDSize)
	put := &Operation{Kind: &Operation_Put{Put: &Put{Key: []byte("k"), Value: []byte("v")}}}
	seed(&Command{})
	seed(&Command{Session: client, Seq: 1, Operations: []*Operation{put}})
	seed(&Command{Session: client, Seq: 9, AckedBelow: 9, Open: &OpenSession{TtlMs: 1, BeforeMs: 2}, Operations: []*Operation{
		put, {Kind: &Operation_Delete{Delete: &Delete{Key: []byte("k")}}},
		{Kind: &Operation_DeleteRange{DeleteRange: &DeleteRange{From: []byte("a"), To: []byte("b"), Limit: 3}}}, {},
	}})
	seed(&Command{Session: client, Seq: 2, Conditions: []*Condition{
		{Key: []byte("k"), Target: &Condition_ModRevision{ModRevision: 3}},
		{Key: []byte("a"), To: []byte{0}, Comparison: Comparison_LESS, Target: &Condition_Value{Value: []byte("v")}},
	}, Otherwise: []*Operation{put}})
	seed(&Command{Session: client, Seq: 2, Conditions: []*Condition{{Key: []byte("k")}, {}}, Operations: []*Operation{put}})
	seed(&Command{Session: client, Seq: 2, Otherwise: []*Operation{put}})
	seed(&Command{Session: client, Seq: 2, Operations: []*Operation{{Kind: &Operation_RaiseLevel{RaiseLevel: &RaiseLevel{To: 2}}}}})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &Command{}
		if err := proto.Unmarshal(data, c); err != nil {
			return
		}
		if err := CheckCommand(c); err != nil {
			refusals := []Code{Code_INVALID, Code_UNSUPPORTED, Code_NOT_ALLOWED}
			if !slices.Contains(refusals, err.Code) || err.Message == "" {
				t.Fatalf("%x is refused with %v: %q", data, err.Code, err.Message)
			}
			return
		}
		holdPromises(t, c)
		short, err := proto.Marshal(c)
		again := &Command{}
		if err != nil || proto.Unmarshal(short, again) != nil || CheckCommand(again) != nil {
			t.Fatalf("%s is accepted as %x and not as %x", Line(c), data, short)
		}
	})
}

func holdPromises(t *testing.T, c *Command) {
	if len(c.Session) != ClientIDSize || c.Seq == 0 || c.AckedBelow > c.Seq ||
		len(c.Operations)+len(c.Otherwise) == 0 || len(c.Operations) > OperationsMax || len(c.Otherwise) > OperationsMax ||
		len(c.Conditions) > ConditionsMax || len(c.Otherwise) > 0 && len(c.Conditions) == 0 {
		t.Fatalf("accepted: %s", Line(c))
	}
	key := func(b []byte) bool { return 0 < len(b) && len(b) <= KeySizeMax }
	for _, n := range c.Conditions {
		if n.Target == nil || len(n.To) == 0 && len(n.Key) == 0 || len(n.Key) > KeySizeMax || len(n.To) > KeySizeMax ||
			len(n.GetValue()) > ValueSizeMax || n.Comparison < 0 || n.Comparison > Comparison_GREATER || len(n.ProtoReflect().GetUnknown()) > 0 {
			t.Fatalf("accepted: %s", Line(n))
		}
	}
	for _, op := range append(c.Operations[:len(c.Operations):len(c.Operations)], c.Otherwise...) {
		good := false
		switch k := op.Kind.(type) {
		case *Operation_Put:
			good = key(k.Put.Key) && len(k.Put.Value) <= ValueSizeMax
		case *Operation_Delete:
			good = key(k.Delete.Key)
		case *Operation_DeleteRange:
			good = len(k.DeleteRange.From) <= KeySizeMax && len(k.DeleteRange.To) <= KeySizeMax
		case *Operation_Compact:
			good = k.Compact.Revision > 0
		}
		if !good || len(op.ProtoReflect().GetUnknown()) > 0 {
			t.Fatalf("accepted: %s", Line(op))
		}
	}
}

// FuzzAddresses: there is one spelling of an address, and nobody is a node and a
// client at once.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{"", "node/", "node/0", "node/1", "node/01", "node/+1", "node/18446744073709551615", "node/18446744073709551616",
		"client/", "client/" + strings.Repeat("0f", 16), "client/" + strings.Repeat("0F", 16), "client/" + strings.Repeat("0g", 16), "node/1/node/raft"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, node := ParseNodeAddress(s)
		if node && (id == 0 || NodeAddress(id) != s || IsClientAddress(s)) {
			t.Fatalf("%q is taken for node %d", s, id)
		}
		if other := PeerAt(s, 1); (other != 0) != (node && id != 1) {
			t.Fatalf("%q is taken for peer %d of node 1", s, other)
		}
		if IsClientAddress(s) && (len(s) != len("client/")+32 || s != strings.ToLower(s)) {
			t.Fatalf("%q is taken for a client's address", s)
		}
	})
}
