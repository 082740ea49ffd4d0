package messages

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// The cluster's level is part of the replicated state. A cluster of several versions
// stays at a level that all of them understand, so that replicas which apply the same
// entries come to the same state; see Operation_RaiseLevel.
const (
	// Level is the newest cluster level this software understands, and LevelMin the
	// oldest. A level is given once: to what is new since the last release.
	Level    = 1
	LevelMin = 1
)

// LevelsText is a range of levels, for people.
func LevelsText(low, high uint32) string {
	if low == high {
		return fmt.Sprintf("level %d alone", low)
	}
	return fmt.Sprintf("levels %d to %d", low, high)
}

// OperationNumber is the number of an operation in Operation.kind.
type OperationNumber uint32

// What clients ask for.
const (
	NumberPut         OperationNumber = 1
	NumberDelete      OperationNumber = 2
	NumberDeleteRange OperationNumber = 3
	NumberCompact     OperationNumber = 32
)

// aboutMembers is the first of the kinds about the members, the level or the users.
const aboutMembers OperationNumber = 33

// operationLevels is from which level on each kind of operation may be proposed, and
// has an effect. What does not stand here has none at any level. A new field in an old
// kind needs a new kind: a replica of an older version would not see the field.
var operationLevels = map[OperationNumber]uint32{
	1:  1, // put
	2:  1, // delete
	3:  1, // delete_range
	32: 1, // compact
	33: 1, // raise_level
	34: 1, // change_members
	35: 1, // record_operation
	36: 1, // bind_incarnation
	37: 1, // update_member
	38: 1, // set_healing
	39: 1, // note_backup
	40: 1, // set_auth
	42: 1, // write_invitations
}

// AdmittedAt reports whether an operation of this kind has an effect in a cluster of
// this level. It is part of what the log means: all replicas decide the same.
func (k OperationNumber) AdmittedAt(level uint32) bool {
	from, known := operationLevels[k]
	return known && from <= level
}

// AboutMembers reports whether this is a kind about the members, the level or the users: the nodes alone
// propose such commands, and each has one operation.
func (k OperationNumber) AboutMembers() bool { return k >= aboutMembers }

// Number is the operation's kind; 0: it has none that is known.
func (o *Operation) Number() OperationNumber {
	switch o.GetKind().(type) { // of each write; reflection takes a fiftieth of a leader's time for them
	case *Operation_Put:
		return NumberPut
	case *Operation_Delete:
		return NumberDelete
	}
	m := o.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); f != nil {
		return OperationNumber(f.Number())
	}
	return 0
}

// CheckLevel refuses a command that the cluster's level does not admit yet: older
// replicas could not apply it.
func CheckLevel(c *Command, level uint32) *Error {
	for _, branch := range [][]*Operation{c.Operations, c.Otherwise} {
		for _, o := range branch {
			if k := o.Number(); !k.AdmittedAt(level) {
				return Errorf(Code_UNSUPPORTED, "the command needs cluster level %d, the cluster is at %d", operationLevels[k], level).
					WithHint("upgrade all nodes, then: kvctl cluster level raise")
			}
		}
	}
	return nil
}

// NodeCommand is the command of the nodes themselves that consists of this operation. It
// has no session: it does no harm twice, and nobody waits for its outcome.
func NodeCommand(o *Operation) []byte {
	data, err := proto.Marshal(&Command{Operations: []*Operation{o}})
	if err != nil {
		panic(err) // its strings were checked before
	}
	return data
}
