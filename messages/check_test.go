package messages

import (
	"bytes"
	"testing"
)

// What the nodes alone may ask for is known to a node, whichever of these it is.
func TestClientsDoNotChangeMembers(t *testing.T) {
	kinds := (&Operation{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	asked := 0
	for i := range kinds.Len() {
		op := &Operation{}
		if op.ProtoReflect().Mutable(kinds.Get(i)); !op.Number().AboutMembers() {
			continue
		}
		asked++
		c := &Command{Session: bytes.Repeat([]byte{7}, ClientIDSize), Seq: 1, Operations: []*Operation{op}}
		if err := CheckCommand(c); CodeOf(err) != Code_NOT_ALLOWED || err.Hint == "" {
			t.Errorf("%s: %v", kinds.Get(i).Name(), err)
		}
	}
	if asked != 9 {
		t.Errorf("%d kinds are about the members, the level or the users", asked)
	}
}

// TestNumbers: what is read without reflection is the number in the .proto.
func TestNumbers(t *testing.T) {
	kinds := new(Operation).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		o := new(Operation)
		m := o.ProtoReflect()
		m.Set(kinds.Get(i), m.NewField(kinds.Get(i)))
		if n := o.Number(); n != OperationNumber(kinds.Get(i).Number()) {
			t.Errorf("%s has number %d, not %d", kinds.Get(i).Name(), kinds.Get(i).Number(), n)
		}
	}
}
