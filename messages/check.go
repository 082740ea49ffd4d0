package messages

import (
	"encoding/binary"
	"hash/crc32"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// OperationsMax bounds the operations of one command, and those of its alternative, in
// number; ConditionsMax its conditions.
const (
	OperationsMax = 128
	ConditionsMax = 128
)

// CheckKey refuses what cannot be a key: empty, or above KeySizeMax bytes.
func CheckKey(key []byte) *Error {
	switch {
	case len(key) == 0:
		return Errorf(Code_INVALID, "the key is empty").WithHint("a key has 1 to %d bytes", KeySizeMax)
	case len(key) > KeySizeMax:
		return Errorf(Code_INVALID, "the key has %d bytes, %d are allowed", len(key), KeySizeMax)
	}
	return nil
}

// CheckValue refuses a value above ValueSizeMax bytes.
func CheckValue(value []byte) *Error {
	if len(value) > ValueSizeMax {
		return Errorf(Code_INVALID, "the value has %d bytes, %d are allowed", len(value), ValueSizeMax).
			WithHint("split it over several keys")
	}
	return nil
}

var snapshotID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// CheckSnapshotID refuses what cannot be the id of a snapshot, which also names a file.
func CheckSnapshotID(id string) *Error {
	if !snapshotID.MatchString(id) {
		return Errorf(Code_INVALID, "%.80q is not the id of a snapshot", id).
			WithHint("an id has up to 64 small letters, digits and hyphens, like snapshot-2026-01-31-235959")
	}
	return nil
}

// TransientPrefix begins the id of a snapshot that is for the client alone that asked
// for it; see SnapshotCreate.
const TransientPrefix = "transient-"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// PartChecksum is what SnapshotPart.checksum has to be.
func PartChecksum(p *SnapshotPart) uint32 {
	sum := crc32.Checksum(binary.LittleEndian.AppendUint64(nil, p.GetFrom()), castagnoli)
	return crc32.Update(sum, castagnoli, p.GetBody())
}

// IsTransient reports whether a snapshot's id is that of a transient one.
func IsTransient(id string) bool { return strings.HasPrefix(id, TransientPrefix) }

// NodeNameSizeMax bounds a NodeName, and the name of a user, in bytes.
const NodeNameSizeMax = 63

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckNodeName refuses what cannot be a NodeName.
func CheckNodeName(name string) *Error {
	if !nodeName.MatchString(name) {
		return Errorf(Code_INVALID, "the name %.80q is not made of letters, digits, '.', '_' and '-'", name).
			WithHint("a name has up to 63 of these, and begins with a letter or a digit")
	}
	return nil
}

// AddressSizeMax bounds the address of a member, in bytes: a name of DNS has up to 253.
const AddressSizeMax = 253 + len(":65535")

// CheckMemberAddress refuses what cannot be where a member is reached. Whether others can
// dial it is for package transport/grpc to say: this is the part that all replicas agree upon.
func CheckMemberAddress(address string) *Error {
	i := strings.LastIndexByte(address, ':')
	if len(address) <= AddressSizeMax && i > 0 && !strings.ContainsAny(address, " \t\r\n/,") {
		if port, err := strconv.ParseUint(address[i+1:], 10, 16); err == nil && port > 0 {
			return nil
		}
	}
	return Errorf(Code_INVALID, "%.80q is no HOST:PORT", address).WithHint("write HOST:PORT, such as 127.0.0.1:7001")
}

// CheckCommand holds a client's command against all that is promised of commands
// in the log: sizes, known fields only, operations that clients may ask for.
func CheckCommand(c *Command) *Error {
	switch {
	case len(c.Session) != ClientIDSize:
		return Errorf(Code_INVALID, "a ClientID has %d bytes, this one %d", ClientIDSize, len(c.Session))
	case c.Seq == 0:
		return Errorf(Code_INVALID, "commands are numbered from 1")
	case c.AckedBelow > c.Seq:
		return Errorf(Code_INVALID, "command %d is acknowledged below %d already", c.Seq, c.AckedBelow)
	case len(c.Operations)+len(c.Otherwise) == 0 || max(len(c.Operations), len(c.Otherwise)) > OperationsMax:
		return Errorf(Code_INVALID, "a command has 1 to %d operations, this one %d, or else %d", OperationsMax, len(c.Operations), len(c.Otherwise))
	case len(c.Otherwise) > 0 && len(c.Conditions) == 0:
		return Errorf(Code_INVALID, "a command without conditions has nothing to do otherwise")
	case len(c.Conditions) > ConditionsMax:
		return Errorf(Code_INVALID, "a command has up to %d conditions, this one %d", ConditionsMax, len(c.Conditions))
	case len(c.Open.GetHolder()) > HolderSizeMax:
		return Errorf(Code_INVALID, "a holder of sessions has up to %d bytes, this one %d", HolderSizeMax, len(c.Open.Holder))
	case unknown(c.ProtoReflect()) || c.Open != nil && unknown(c.Open.ProtoReflect()):
		return Errorf(Code_UNSUPPORTED, "the command has fields this node does not know").WithHint("upgrade the nodes first")
	}
	for _, condition := range c.Conditions {
		if err := checkCondition(condition); err != nil {
			return err
		}
	}
	for _, branch := range [][]*Operation{c.Operations, c.Otherwise} {
		for _, op := range branch {
			if err := checkOperation(op); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkCondition(c *Condition) *Error {
	if len(c.To) == 0 {
		if err := CheckKey(c.Key); err != nil {
			return err
		}
	}
	if len(c.Key) > KeySizeMax || len(c.To) > KeySizeMax {
		return Errorf(Code_INVALID, "the bounds of a range have up to %d bytes", KeySizeMax)
	}
	if _, known := Comparison_name[int32(c.Comparison)]; !known || c.Target == nil || unknown(c.ProtoReflect()) {
		return Errorf(Code_UNSUPPORTED, "the condition is of a kind this node does not know").WithHint("upgrade the nodes first")
	}
	return CheckValue(c.GetValue())
}

func checkOperation(op *Operation) *Error {
	var inner protoreflect.Message
	var err *Error
	switch k := op.Kind.(type) {
	case *Operation_Put:
		inner = k.Put.ProtoReflect()
		if err = CheckKey(k.Put.Key); err == nil {
			err = CheckValue(k.Put.Value)
		}
	case *Operation_Delete:
		inner = k.Delete.ProtoReflect()
		err = CheckKey(k.Delete.Key)
	case *Operation_DeleteRange:
		inner = k.DeleteRange.ProtoReflect()
		if len(k.DeleteRange.From) > KeySizeMax || len(k.DeleteRange.To) > KeySizeMax {
			err = Errorf(Code_INVALID, "the bounds of a range have up to %d bytes", KeySizeMax)
		}
	case *Operation_Compact:
		inner = k.Compact.ProtoReflect()
		if k.Compact.Revision == 0 {
			err = Errorf(Code_INVALID, "a compaction names a revision")
		}
	default:
		if op.Number().AboutMembers() {
			return Errorf(Code_NOT_ALLOWED, "members, level and users of a cluster are changed by its nodes alone").WithHint("ask them: kvctl cluster --help, kvctl user --help")
		}
		return Errorf(Code_UNSUPPORTED, "the operation is of a kind this node does not know").WithHint("upgrade the nodes first")
	}
	if err == nil && (unknown(op.ProtoReflect()) || unknown(inner)) {
		err = Errorf(Code_UNSUPPORTED, "the operation has fields this node does not know").WithHint("upgrade the nodes first")
	}
	return err
}

func unknown(m protoreflect.Message) bool { return len(m.GetUnknown()) > 0 }
