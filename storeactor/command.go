package storeactor

import "google.golang.org/protobuf/encoding/protowire"

// The log's commands are read in place: a replica applies every command of the
// cluster, and ten allocations for each of them would be its greatest cost. What
// is read here is what proto.Unmarshal would read (a test holds them together);
// the slices are those of the entry, which nobody modifies.

// commands is a messages.Commands.
type commands struct {
	level     uint32
	logTimeMS uint64
	proposals []proposal
}

// proposal is a messages.Proposal.
type proposal struct {
	origin  uint64
	command []byte
}

// command is a messages.Command.
type command struct {
	session    []byte
	seq        uint64
	ackedBelow uint64
	opens      bool
	ttlMS      uint64 // of open
	beforeMS   uint64 // of open
	operations []operation
}

// operation is a messages.Operation.
type operation struct {
	kind     operationKind
	key      []byte // put, delete; from of a delete range
	to       []byte
	value    []byte
	limit    uint32
	revision uint64 // of a compaction
}

type operationKind int

const (
	kindUnknown operationKind = iota
	kindPut
	kindDelete
	kindDeleteRange
	kindCompact
)

// read replaces c by what data holds, and reports whether data is well formed.
func (c *commands) read(data []byte) bool {
	*c = commands{proposals: c.proposals[:0]}
	f := fields{rest: data}
	for f.next() {
		switch f.tag() {
		case varintField(1):
			c.level = uint32(f.varint)
		case varintField(2):
			c.logTimeMS = f.varint
		case bytesField(3):
			var p proposal
			if !p.read(f.bytes) {
				return false
			}
			c.proposals = append(c.proposals, p)
		}
	}
	return !f.broken
}

func (p *proposal) read(data []byte) bool {
	f := fields{rest: data}
	for f.next() {
		switch f.tag() {
		case varintField(1):
			p.origin = f.varint
		case bytesField(2):
			p.command = f.bytes
		}
	}
	return !f.broken
}

func (c *command) read(data []byte) bool {
	*c = command{operations: c.operations[:0]}
	f := fields{rest: data}
	for f.next() {
		switch f.tag() {
		case bytesField(1):
			c.session = f.bytes
		case varintField(2):
			c.seq = f.varint
		case varintField(3):
			c.ackedBelow = f.varint
		case bytesField(4):
			c.opens = true
			if !c.readOpen(f.bytes) {
				return false
			}
		case bytesField(5):
			var o operation
			if !o.read(f.bytes) {
				return false
			}
			c.operations = append(c.operations, o)
		}
	}
	return !f.broken
}

func (c *command) readOpen(data []byte) bool {
	f := fields{rest: data}
	for f.next() {
		switch f.tag() {
		case varintField(1):
			c.ttlMS = f.varint
		case varintField(2):
			c.beforeMS = f.varint
		}
	}
	return !f.broken
}

func (o *operation) read(data []byte) bool {
	f := fields{rest: data}
	for f.next() {
		kind := kindUnknown
		switch f.tag() {
		case bytesField(1):
			kind = kindPut
		case bytesField(2):
			kind = kindDelete
		case bytesField(3):
			kind = kindDeleteRange
		case bytesField(32):
			kind = kindCompact
		default:
			continue
		}
		if o.kind != kind { // the last one of a oneof counts
			*o = operation{kind: kind}
		}
		if !o.readKind(f.bytes) {
			return false
		}
	}
	return !f.broken
}

func (o *operation) readKind(data []byte) bool {
	f := fields{rest: data}
	for f.next() {
		switch tag := f.tag(); {
		case tag == varintField(1) && o.kind == kindCompact:
			o.revision = f.varint
		case tag == bytesField(1) && o.kind != kindCompact:
			o.key = f.bytes
		case tag == bytesField(2) && o.kind == kindPut:
			o.value = f.bytes
		case tag == bytesField(2) && o.kind == kindDeleteRange:
			o.to = f.bytes
		case tag == varintField(3) && o.kind == kindDeleteRange:
			o.limit = uint32(f.varint)
		}
	}
	return !f.broken
}

// fields walks over a message's fields in the order in which they stand.
type fields struct {
	rest   []byte
	number protowire.Number
	kind   protowire.Type
	varint uint64 // of a varint field
	bytes  []byte // of a bytes field
	broken bool   // rest does not begin with a field
}

func (f *fields) next() bool {
	if len(f.rest) == 0 {
		return false
	}
	number, kind, n := protowire.ConsumeTag(f.rest)
	if n < 0 || number > protowire.MaxValidNumber {
		f.broken = true
		return false
	}
	f.rest, f.number, f.kind = f.rest[n:], number, kind
	switch kind {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(f.rest)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(f.rest)
	default:
		n = protowire.ConsumeFieldValue(number, kind, f.rest)
	}
	if n < 0 {
		f.broken = true
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// tag tells fields apart: one of an unexpected type is an unknown field.
func (f *fields) tag() uint64 { return protowire.EncodeTag(f.number, f.kind) }

func varintField(n protowire.Number) uint64 { return protowire.EncodeTag(n, protowire.VarintType) }
func bytesField(n protowire.Number) uint64  { return protowire.EncodeTag(n, protowire.BytesType) }
