package state

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"keyval/messages"
	"keyval/storeactor/state/statetest"
)

// Whatever part of a checkpoint is another, its digest is: no field is forgotten, also of
// those to come. The format is that of the file.
func TestDigestCoversAllState(t *testing.T) {
	whole := statetest.First()
	alter(t, whole.ProtoReflect(), func(path string) {})
	was := Digest(whole)
	if was != Digest(proto.Clone(whole).(*messages.Checkpoint)) {
		t.Fatal("equal checkpoints have different digests")
	}
	seen := map[[8]byte]string{was: "nothing"}
	altered := 0
	alter(t, whole.ProtoReflect(), func(path string) {
		altered++
		d := Digest(whole)
		if before, known := seen[d]; known != (path == ".format") {
			t.Errorf("%s altered, the digest is that of %s", path, before)
		}
		seen[d] = path
	})
	if altered < 60 {
		t.Errorf("%d fields were altered", altered)
	}
}

// alter gives every field, however deep, another value, and tells of each.
func alter(t *testing.T, m protoreflect.Message, told func(path string)) {
	var into func(path string, m protoreflect.Message)
	into = func(path string, m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			at := path + "." + string(f.Name())
			switch {
			case f.IsList() && f.Message() != nil:
				list := m.Mutable(f).List()
				list.Append(list.NewElement())
				told(at)
				into(at, list.Get(0).Message())
			case f.IsList():
				list := m.Mutable(f).List()
				list.Append(other(t, f, list.NewElement()))
				told(at)
			case f.Message() != nil:
				into(at, m.Mutable(f).Message())
			default:
				m.Set(f, other(t, f, m.Get(f)))
				told(at)
			}
		}
	}
	into("", m)
}

func other(t *testing.T, f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch x := v.Interface().(type) {
	case bool:
		return protoreflect.ValueOfBool(!x)
	case string:
		return protoreflect.ValueOfString(x + "x")
	case []byte:
		return protoreflect.ValueOfBytes(append(append([]byte{}, x...), 'x'))
	case uint32:
		return protoreflect.ValueOfUint32(x + 1)
	case uint64:
		return protoreflect.ValueOfUint64(x + 1)
	case int32:
		return protoreflect.ValueOfInt32(x + 1)
	case int64:
		return protoreflect.ValueOfInt64(x + 1)
	case protoreflect.EnumNumber:
		return protoreflect.ValueOfEnum(x + 1)
	}
	t.Fatalf("%s is of a kind that this test does not know", f.FullName())
	return v
}
