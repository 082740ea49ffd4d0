package auth

import (
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// OfRead is what a read needs.
func OfRead(m *messages.Read) Need {
	switch k := m.GetKind().(type) {
	case *messages.Read_Get:
		return Key(messages.UserRole_VIEWER, k.Get.GetKey())
	case *messages.Read_Scan:
		return Range(messages.UserRole_VIEWER, k.Scan.GetFrom(), k.Scan.GetTo())
	case *messages.Read_Digest:
		return Range(messages.UserRole_VIEWER, k.Digest.GetFrom(), k.Digest.GetTo())
	}
	return Whole(messages.UserRole_ADMIN) // of a kind that is not known here
}

// OfCommand is all that a client's command needs, whichever of its branches is carried out:
// an outcome that depends on a key tells of that key.
func OfCommand(c *messages.Command) (all []Need) {
	for _, n := range c.GetConditions() {
		all = append(all, OfCondition(n.Key, n.To))
	}
	for _, branch := range [][]*messages.Operation{c.GetOperations(), c.GetOtherwise()} {
		for _, o := range branch {
			switch k := o.GetKind().(type) {
			case *messages.Operation_DeleteRange:
				all = append(all, OfOperation(o.Number(), k.DeleteRange.GetFrom(), k.DeleteRange.GetTo()))
			case *messages.Operation_Put:
				all = append(all, OfOperation(o.Number(), k.Put.GetKey(), nil))
			case *messages.Operation_Delete:
				all = append(all, OfOperation(o.Number(), k.Delete.GetKey(), nil))
			default:
				all = append(all, OfOperation(o.Number(), nil, nil))
			}
		}
	}
	return all
}

// OfCondition is what a condition on a key needs, or on [key, to) where to is not empty. As in
// messages.Condition, the single byte 0 stands for no end.
func OfCondition(key, to []byte) Need {
	switch {
	case len(to) == 0:
		return Key(messages.UserRole_VIEWER, key)
	case len(to) == 1 && to[0] == 0:
		return Range(messages.UserRole_VIEWER, key, nil)
	}
	return Range(messages.UserRole_VIEWER, key, to)
}

// OfOperation is what an operation of a client needs. key is that of a put or a delete, and the
// first of a range, whose end is to.
func OfOperation(kind messages.OperationNumber, key, to []byte) Need {
	switch kind {
	case messages.NumberPut, messages.NumberDelete:
		return Key(messages.UserRole_WRITER, key)
	case messages.NumberDeleteRange:
		return Range(messages.UserRole_WRITER, key, to)
	case messages.NumberCompact:
		return Whole(messages.UserRole_OPERATOR)
	}
	return Whole(messages.UserRole_ADMIN)
}

// OfRequest is what a message needs that a client sends to a node. here: it is asked for at the door;
// not where the message needs nothing, or where what it needs is said where it is carried
// out, by then rights may be others: a command when it is applied, a read where it is read, and
// a change of users when it is decided.
func OfRequest(m proto.Message) (n Need, here bool) {
	switch m := m.(type) {
	case *messages.Attach, *messages.Detach, *messages.Write, *messages.Read, *messages.JoinAsk, *messages.InvitationAsk, *messages.LoginRequest:
		return Need{}, false
	case *messages.StatusRequest:
		return Whole(messages.UserRole_VIEWER), true
	case *messages.ClusterRequest:
		switch m.Kind.(type) {
		case *messages.ClusterRequest_Query:
			return Whole(messages.UserRole_VIEWER), true
		case *messages.ClusterRequest_Auth, *messages.ClusterRequest_AuthQuery:
			return Need{}, false
		}
	}
	return Whole(messages.UserRole_OPERATOR), true
}
