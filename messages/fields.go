package messages

import "google.golang.org/protobuf/encoding/protowire"

// Fields walks over the fields of a message in the order in which they stand,
// without making anything of them: what is applied a million times is read in place.
type Fields struct {
	Rest   []byte
	number protowire.Number
	kind   protowire.Type
	Varint uint64 // of a varint field, or of one of 32 bits
	Bytes  []byte // of a bytes field
	Broken bool   // rest does not begin with a field
}

// Next goes to the next field. It reports false at the end, and where rest is broken.
func (f *Fields) Next() bool {
	if len(f.Rest) == 0 {
		return false
	}
	number, kind, n := protowire.ConsumeTag(f.Rest)
	if n < 0 || number > protowire.MaxValidNumber {
		f.Broken = true
		return false
	}
	f.Rest, f.number, f.kind = f.Rest[n:], number, kind
	switch kind {
	case protowire.VarintType:
		f.Varint, n = protowire.ConsumeVarint(f.Rest)
	case protowire.BytesType:
		f.Bytes, n = protowire.ConsumeBytes(f.Rest)
	case protowire.Fixed32Type:
		var number uint32
		number, n = protowire.ConsumeFixed32(f.Rest)
		f.Varint = uint64(number)
	default:
		n = protowire.ConsumeFieldValue(number, kind, f.Rest)
	}
	if n < 0 {
		f.Broken = true
		return false
	}
	f.Rest = f.Rest[n:]
	return true
}

// Tag tells fields apart: one of an unexpected type is an unknown field.
func (f *Fields) Tag() uint64 { return protowire.EncodeTag(f.number, f.kind) }

// VarintField is the tag of a field of this number and type, as those that follow.
func VarintField(n protowire.Number) uint64 { return protowire.EncodeTag(n, protowire.VarintType) }

// BytesField is the tag of a field of this number and type.
func BytesField(n protowire.Number) uint64 { return protowire.EncodeTag(n, protowire.BytesType) }

// Fixed32Field is the tag of a field of this number and type.
func Fixed32Field(n protowire.Number) uint64 { return protowire.EncodeTag(n, protowire.Fixed32Type) }
