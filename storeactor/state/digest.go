package state

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"keyval/messages"
)

// Digest is a hash of all replicated state but the rows. Replicas compare it at equal
// index: what they apply is equal by construction, and what they hold in memory or read
// from a checkpoint may still be altered. It does not depend on how a version encodes
// messages, but on numbers of fields and values alone. The format of the file is no state.
func Digest(c *messages.Checkpoint) [8]byte {
	d := digest{hash: xxhash.New()}
	d.message(c.ProtoReflect(), "format", "sessions")
	for _, s := range c.Sessions { // there may be many, each with many outcomes
		d.session(s)
	}
	return [8]byte(binary.BigEndian.AppendUint64(nil, d.hash.Sum64()))
}

type digest struct {
	hash *xxhash.Digest
	word [8]byte
}

func (d *digest) number(n uint64) {
	binary.LittleEndian.PutUint64(d.word[:], n)
	d.hash.Write(d.word[:])
}

func (d *digest) bytes(b []byte) {
	d.number(uint64(len(b)))
	d.hash.Write(b)
}

func (d *digest) flag(b bool) {
	n := uint64(0)
	if b {
		n = 1
	}
	d.number(n)
}

func (d *digest) session(s *messages.Session) {
	d.bytes(s.Client)
	d.bytes(s.Holder)
	for _, n := range [...]uint64{s.TtlMs, s.ActiveMs, s.AckedBelow, s.OpenBeforeMs, uint64(len(s.Outcomes))} {
		d.number(n)
	}
	for _, o := range s.Outcomes {
		for _, n := range [...]uint64{o.Seq, uint64(o.Code), o.Revision, o.Deleted, uint64(o.FailedCondition)} {
			d.number(n)
		}
		d.flag(o.More)
		d.flag(o.Unopened)
	}
}

// message takes the fields that are set, by their numbers, but for some.
func (d *digest) message(m protoreflect.Message, but ...protoreflect.Name) {
	var set []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(but, f.Name()) {
			set = append(set, f)
		}
		return true
	})
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	d.number(uint64(len(set)))
	for _, f := range set {
		d.number(uint64(f.Number()))
		if !f.IsList() {
			d.value(f, m.Get(f))
			continue
		}
		list := m.Get(f).List()
		d.number(uint64(list.Len()))
		for i := range list.Len() {
			d.value(f, list.Get(i))
		}
	}
}

func (d *digest) value(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		d.message(v.Message())
	case protoreflect.BytesKind:
		d.bytes(v.Bytes())
	case protoreflect.StringKind:
		d.bytes([]byte(v.String()))
	case protoreflect.BoolKind:
		d.flag(v.Bool())
	case protoreflect.EnumKind:
		d.number(uint64(v.Enum()))
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		d.number(uint64(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		d.number(v.Uint())
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		d.number(math.Float64bits(v.Float()))
	default:
		panic("state: a checkpoint with a field of kind " + f.Kind().String())
	}
}
