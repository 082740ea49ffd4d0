package state

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

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
	origin    uint64
	command   []byte
	principal []byte
}

// command is a messages.Command.
type command struct {
	session    []byte
	seq        uint64
	ackedBelow uint64
	opens      bool
	ttlMS      uint64 // of open
	beforeMS   uint64 // of open
	holder     []byte // of open
	operations []operation
	conditions []condition
	otherwise  []operation
}

// operation is a messages.Operation.
type operation struct {
	kind     messages.OperationNumber
	key      []byte // put, delete; from of a delete range
	to       []byte
	value    []byte // of one about members: the operation as it is in the log
	limit    uint32
	revision uint64 // of a compaction
}

// condition is a messages.Condition.
type condition struct {
	key, to    []byte
	comparison int32 // a messages.Comparison
	target     conditionTarget
	value      []byte // of targetValue
	number     uint64 // of the other targets
}

type conditionTarget int

const (
	targetUnknown conditionTarget = iota
	targetValue
	targetVersion
	targetCreated
	targetModified
)

// The kinds of operations are the numbers of their fields.
const (
	kindUnknown     messages.OperationNumber = 0
	kindPut                                  = messages.NumberPut
	kindDelete                               = messages.NumberDelete
	kindDeleteRange                          = messages.NumberDeleteRange
	kindCompact                              = messages.NumberCompact
	kindMembers     messages.OperationNumber = 33 // any of those about the members, the level and the users
)

// read replaces c by what data holds, and reports whether data is well formed.
func (c *commands) read(data []byte) bool {
	*c = commands{proposals: c.proposals[:0]}
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch f.Tag() {
		case messages.VarintField(1):
			c.level = uint32(f.Varint)
		case messages.VarintField(2):
			c.logTimeMS = f.Varint
		case messages.BytesField(3):
			var p proposal
			if !p.read(f.Bytes) {
				return false
			}
			c.proposals = append(c.proposals, p)
		}
	}
	return !f.Broken
}

func (p *proposal) read(data []byte) bool {
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch f.Tag() {
		case messages.VarintField(1):
			p.origin = f.Varint
		case messages.BytesField(2):
			p.command = f.Bytes
		case messages.BytesField(3):
			p.principal = f.Bytes
		}
	}
	return !f.Broken
}

func (c *command) read(data []byte) bool {
	*c = command{operations: c.operations[:0], conditions: c.conditions[:0], otherwise: c.otherwise[:0]}
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch f.Tag() {
		case messages.BytesField(1):
			c.session = f.Bytes
		case messages.VarintField(2):
			c.seq = f.Varint
		case messages.VarintField(3):
			c.ackedBelow = f.Varint
		case messages.BytesField(4):
			c.opens = true
			if !c.readOpen(f.Bytes) {
				return false
			}
		case messages.BytesField(5):
			var o operation
			if !o.read(f.Bytes) {
				return false
			}
			c.operations = append(c.operations, o)
		case messages.BytesField(6):
			var n condition
			if !n.read(f.Bytes) {
				return false
			}
			c.conditions = append(c.conditions, n)
		case messages.BytesField(7):
			var o operation
			if !o.read(f.Bytes) {
				return false
			}
			c.otherwise = append(c.otherwise, o)
		}
	}
	return !f.Broken
}

func (c *condition) read(data []byte) bool {
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch f.Tag() {
		case messages.BytesField(1):
			c.key = f.Bytes
		case messages.BytesField(2):
			c.to = f.Bytes
		case messages.VarintField(3):
			c.comparison = int32(f.Varint)
		case messages.BytesField(4): // the last one of a oneof counts
			c.target, c.value, c.number = targetValue, f.Bytes, 0
		case messages.VarintField(5):
			c.target, c.value, c.number = targetVersion, nil, f.Varint
		case messages.VarintField(6):
			c.target, c.value, c.number = targetCreated, nil, f.Varint
		case messages.VarintField(7):
			c.target, c.value, c.number = targetModified, nil, f.Varint
		}
	}
	return !f.Broken
}

func (c *command) readOpen(data []byte) bool {
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch f.Tag() {
		case messages.VarintField(1):
			c.ttlMS = f.Varint
		case messages.VarintField(2):
			c.beforeMS = f.Varint
		case messages.BytesField(3):
			c.holder = f.Bytes
		}
	}
	return !f.Broken
}

func (o *operation) read(data []byte) bool {
	f, ofMembers := messages.Fields{Rest: data}, false
	for f.Next() {
		kind := kindUnknown
		switch f.Tag() {
		case messages.BytesField(1):
			kind = kindPut
		case messages.BytesField(2):
			kind = kindDelete
		case messages.BytesField(3):
			kind = kindDeleteRange
		case messages.BytesField(32):
			kind = kindCompact
		case messages.BytesField(33), messages.BytesField(34), messages.BytesField(35), messages.BytesField(36), messages.BytesField(37), messages.BytesField(38), messages.BytesField(39), messages.BytesField(40), messages.BytesField(42):
			*o, ofMembers = operation{kind: kindMembers, value: data}, true
			continue
		default:
			continue
		}
		if o.kind != kind { // the last one of a oneof counts
			*o = operation{kind: kind}
		}
		if !o.readKind(f.Bytes) {
			return false
		}
	}
	if f.Broken || !ofMembers {
		return !f.Broken
	}
	m := readMembers(data)
	if o.kind == kindMembers {
		o.kind = m.Number()
	}
	return m != nil
}

// aboutMembers reports whether this is an operation about the members or the level.
func (o *operation) aboutMembers() bool { return o.kind.AboutMembers() }

// readMembers reads an operation about members by the generated code, since it is rare;
// nil: it is not well formed.
func readMembers(data []byte) *messages.Operation {
	m := &messages.Operation{}
	if proto.Unmarshal(data, m) != nil {
		return nil
	}
	return m
}

func (o *operation) readKind(data []byte) bool {
	f := messages.Fields{Rest: data}
	for f.Next() {
		switch tag := f.Tag(); {
		case tag == messages.VarintField(1) && o.kind == kindCompact:
			o.revision = f.Varint
		case tag == messages.BytesField(1) && o.kind != kindCompact:
			o.key = f.Bytes
		case tag == messages.BytesField(2) && o.kind == kindPut:
			o.value = f.Bytes
		case tag == messages.BytesField(2) && o.kind == kindDeleteRange:
			o.to = f.Bytes
		case tag == messages.VarintField(3) && o.kind == kindDeleteRange:
			o.limit = uint32(f.Varint)
		}
	}
	return !f.Broken
}

// admitted reports whether the cluster's level allows all operations of the command. What
// it does not allow older replicas do not know, and they refuse it for the same reason.
func (c *command) admitted(level uint32) bool {
	refused := func(o operation) bool { return !o.kind.AdmittedAt(level) }
	return !slices.ContainsFunc(c.operations, refused) && !slices.ContainsFunc(c.otherwise, refused)
}

// valid reports whether a command may be carried out at all, at log time now.
func (c *command) valid(now uint64) bool {
	if max(len(c.operations), len(c.otherwise)) > messages.OperationsMax || len(c.conditions) > messages.ConditionsMax {
		return false
	}
	if !c.ofClient() && !c.ofNode() && !c.ofMembers() {
		return false
	}
	if c.opens && (len(c.holder) > messages.HolderSizeMax || c.ttlMS == 0 || c.ttlMS > SessionTTLMaxMS || c.beforeMS > now && c.beforeMS-now > min(c.ttlMS, messages.SessionOpenMaxMS)) {
		return false
	}
	for i := range c.conditions {
		if !c.conditions[i].valid() {
			return false
		}
	}
	for _, branch := range [...][]operation{c.operations, c.otherwise} {
		for i := range branch {
			if !branch[i].valid() && !c.ofMembers() {
				return false
			}
		}
	}
	return true
}

// ofClient reports whether a client's session is named, with a number.
func (c *command) ofClient() bool {
	return len(c.session) == messages.ClientIDSize && c.seq > 0 && c.ackedBelow <= c.seq
}

// ofNode reports whether this is a command of the nodes themselves: nobody's, and
// nothing but compactions, which do no harm twice.
func (c *command) ofNode() bool {
	return c.ofNobody() && len(c.operations) > 0 && !slices.ContainsFunc(c.operations, func(o operation) bool { return o.kind != kindCompact })
}

// ofMembers reports whether this is a command about the members or the level: nobody's, and one
// operation, which is conditioned on what it was decided upon.
func (c *command) ofMembers() bool {
	return len(c.operations) == 1 && c.operations[0].aboutMembers() && c.ofNobody()
}

func (c *command) ofNobody() bool {
	return len(c.session) == 0 && c.seq == 0 && c.ackedBelow == 0 && !c.opens && len(c.conditions) == 0 && len(c.otherwise) == 0
}

func (c *condition) valid() bool {
	if len(c.to) == 0 && len(c.key) == 0 || len(c.key) > messages.KeySizeMax || len(c.to) > messages.KeySizeMax {
		return false
	}
	known := 0 <= c.comparison && c.comparison <= int32(messages.Comparison_GREATER)
	return known && c.target != targetUnknown && len(c.value) <= messages.ValueSizeMax
}

func (o *operation) valid() bool {
	switch o.kind {
	case kindPut:
		return 0 < len(o.key) && len(o.key) <= messages.KeySizeMax && len(o.value) <= messages.ValueSizeMax
	case kindDelete:
		return 0 < len(o.key) && len(o.key) <= messages.KeySizeMax
	case kindDeleteRange:
		return len(o.key) <= messages.KeySizeMax && len(o.to) <= messages.KeySizeMax
	case kindCompact:
		return true
	}
	return false
}
