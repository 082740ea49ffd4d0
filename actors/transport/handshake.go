package transport

import (
	"bytes"
	"math"
	"strings"
	"unicode"

	"keyval/messages"
)

// HelloTo is the hello of a system to the node of this RaftID; 0: whoever answers.
func HelloTo(local Local, to messages.RaftID, lane messages.Lane) *messages.Hello {
	h := &messages.Hello{
		Protocol: messages.ProtocolVersion, Role: local.Role, Lane: lane,
		ClusterId: local.ClusterID, To: to, Version: local.Version,
	}
	if local.Role == messages.Role_NODE {
		h.RaftId, h.Incarnation, h.Starts, h.Name = local.RaftID, local.Incarnation, local.Starts, local.Name
	} else {
		h.Address, h.Token = local.Address, local.Token
	}
	return h
}

// Admit is a node's answer to a hello of from, as his certificate or AtDoor say: a welcome, or
// why there is none. Incarnations are for nodes alone: with another's one could come as it.
func Admit(local Local, known Known, from Principal, hello *messages.Hello) (*messages.Welcome, *messages.Error) {
	refusal := admitAnyone(local, hello)
	if refusal == nil {
		refusal = admitPrincipal(local, known, from, hello)
	}
	if refusal == nil {
		switch hello.Role {
		case messages.Role_NODE:
			refusal = admitNode(local, known, hello)
		case messages.Role_CLIENT:
			refusal = admitClient(local, hello)
		default:
			refusal = messages.Errorf(messages.Code_INVALID, "the hello names no role")
		}
	}
	if refusal != nil {
		return nil, refusal
	}
	welcome := &messages.Welcome{
		Protocol: messages.ProtocolVersion, ClusterId: local.ClusterID, RaftId: local.RaftID,
		Name: local.Name, Version: local.Version, WaitingFor: local.WaitingFor,
	}
	if hello.Role == messages.Role_NODE {
		welcome.Incarnation, welcome.Starts = local.Incarnation, local.Starts
	}
	return welcome, nil
}

func admitAnyone(local Local, hello *messages.Hello) *messages.Error {
	switch {
	case hello == nil:
		return messages.Errorf(messages.Code_INVALID, "a connection starts with a hello")
	case hello.Protocol != messages.ProtocolVersion:
		return messages.Errorf(messages.Code_UNSUPPORTED, "node %s speaks protocol %d, not %d", local.Name, messages.ProtocolVersion, hello.Protocol).
			WithHint("use the same version of kvctl on both sides; this node runs %s", local.Version)
	case !validText(hello.Version) || !validText(hello.Name):
		return messages.Errorf(messages.Code_INVALID, "the hello has an unreadable name or version")
	case len(hello.ClusterId) != 0 && len(hello.ClusterId) != messages.ClusterIDSize:
		return messages.Errorf(messages.Code_INVALID, "a cluster id has %d bytes, this one %d", messages.ClusterIDSize, len(hello.ClusterId))
	case hello.To != 0 && local.RaftID == 0:
		return messages.Errorf(messages.Code_BUSY, "node %s waits to be added, and has no raft id yet", local.Name)
	case hello.To != 0 && hello.To != local.RaftID:
		return messages.Errorf(messages.Code_CONFLICT, "node %s has raft id %d, not %d", local.Name, local.RaftID, hello.To).
			WithHint("an address may be wrong or used twice: compare `kvctl status --json` of both")
	case OtherCluster(local.ClusterID, hello.ClusterId):
		return refuseCluster(local.Name, local.ClusterID, hello.ClusterId)
	}
	return nil
}

func admitNode(local Local, known Known, hello *messages.Hello) *messages.Error {
	switch {
	case !isReplica(hello.RaftId):
		return messages.Errorf(messages.Code_INVALID, "%d is not the raft id of a node", hello.RaftId)
	case hello.RaftId == local.RaftID:
		return messages.Errorf(messages.Code_CONFLICT, "node %s has raft id %d itself", local.Name, local.RaftID).
			WithHint("two nodes run under one name, or a node dials its own address: compare `kvctl status --json` of both")
	case hello.To == 0:
		return messages.Errorf(messages.Code_INVALID, "the hello of a node names the node it means to reach")
	case len(hello.Incarnation) != messages.IncarnationSize:
		return messages.Errorf(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(hello.Incarnation))
	case hello.Address != "":
		return messages.Errorf(messages.Code_INVALID, "a node has no client address")
	case hello.Lane < messages.Lane_CONTROL || hello.Lane > messages.Lane_BULK:
		return messages.Errorf(messages.Code_INVALID, "there is no lane %d", hello.Lane)
	}
	if len(hello.ClusterId) == 0 {
		return nil // one of both is being founded: only FounderState passes, which says what is wrong
	}
	return known.Refuses(hello.RaftId, hello.Incarnation, hello.Starts)
}

func admitClient(local Local, hello *messages.Hello) *messages.Error {
	switch {
	case !messages.IsClientAddress(hello.Address):
		return messages.Errorf(messages.Code_INVALID, "%q is not a client's address", Legible(hello.Address))
	case len(hello.Token) > TokenSizeMax:
		return messages.Errorf(messages.Code_INVALID, "a token has no more than %d bytes, this one %d", TokenSizeMax, len(hello.Token))
	case hello.RaftId != 0 || len(hello.Incarnation) != 0 || hello.Name != "":
		return messages.Errorf(messages.Code_INVALID, "a client has neither raft id nor incarnation nor a node's name")
	case hello.Lane != messages.Lane_CONTROL:
		return messages.Errorf(messages.Code_INVALID, "a client has no lane %d", hello.Lane)
	case len(hello.ClusterId) != 0 && len(local.ClusterID) == 0:
		return refuseCluster(local.Name, local.ClusterID, hello.ClusterId)
	}
	return nil
}

// Welcomed is the dialling side's check of a welcome that came with a certificate of from.
// to is the RaftID it means to reach, 0: whoever answers.
func Welcomed(local Local, known Known, from Principal, to messages.RaftID, w *messages.Welcome) *messages.Error {
	var why *messages.Error
	switch {
	case w == nil:
		why = messages.Errorf(messages.Code_UNREACHABLE, "the node answered the hello with something else")
	case w.Protocol != messages.ProtocolVersion:
		why = messages.Errorf(messages.Code_UNSUPPORTED, "the node speaks protocol %d, not %d", w.Protocol, messages.ProtocolVersion).
			WithHint("use the same version of kvctl on both sides")
	case !isReplica(w.RaftId) && !(w.RaftId == 0 && w.WaitingFor != "" && local.Role == messages.Role_CLIENT):
		why = messages.Errorf(messages.Code_INVALID, "%d is not the raft id of a node", w.RaftId)
	case to != 0 && w.RaftId != to:
		why = messages.Errorf(messages.Code_CONFLICT, "raft id %d answered in place of %d", w.RaftId, to)
	case local.Role == messages.Role_NODE && w.RaftId == local.RaftID:
		why = messages.Errorf(messages.Code_CONFLICT, "the node answered under our own raft id %d", w.RaftId)
	case len(w.ClusterId) != 0 && len(w.ClusterId) != messages.ClusterIDSize:
		why = messages.Errorf(messages.Code_INVALID, "a cluster id has %d bytes, this one %d", messages.ClusterIDSize, len(w.ClusterId))
	case local.Role == messages.Role_NODE && len(w.Incarnation) != messages.IncarnationSize:
		why = messages.Errorf(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(w.Incarnation))
	case !validText(w.Name) || !validText(w.Version):
		why = messages.Errorf(messages.Code_INVALID, "the welcome has an unreadable name or version")
	case OtherCluster(local.ClusterID, w.ClusterId),
		local.Role == messages.Role_CLIENT && len(local.ClusterID) != 0 && len(w.ClusterId) == 0:
		why = refuseCluster(w.Name, w.ClusterId, local.ClusterID)
	case welcomedBy(local, known, from, w) != nil:
		why = welcomedBy(local, known, from, w)
	case len(w.ClusterId) == 0:
		// It is being founded: only FounderState passes, which says what is wrong.
	case local.Role == messages.Role_NODE:
		why = known.Refuses(w.RaftId, w.Incarnation, w.Starts)
	}
	return why
}

// OtherCluster reports whether two cluster ids exclude each other. An empty one is
// not known yet.
func OtherCluster(a, b []byte) bool { return len(a) != 0 && len(b) != 0 && !bytes.Equal(a, b) }

// isReplica excludes 0, which is nobody, and the ids that Raft uses for its own storage.
func isReplica(id messages.RaftID) bool { return id != 0 && id < math.MaxUint64-1 }

func validText(s string) bool {
	return len(s) <= nameSizeMax && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
