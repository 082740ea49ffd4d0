package transport

import (
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Bounds of what one envelope or one parcel may hold.
const (
	// BodySizeMax bounds the body of an envelope between nodes and of one to a
	// client, in bytes. Entries and read replies stay below it.
	BodySizeMax = 4 << 20
	// CommandBodySizeMax bounds the body of an envelope that carries a command, in
	// bytes: the largest command and the fields around it.
	CommandBodySizeMax = messages.CommandSizeMax + 1<<10
	// PieceBodySizeMax bounds the body of a SnapshotPiece, in bytes: a chunk with the
	// two keys of its range.
	PieceBodySizeMax = 3 << 20
	// EnvelopesMax bounds a parcel, in envelopes.
	EnvelopesMax = 4096

	nameSizeMax  = 128      // of an actor, a node and a version, in bytes
	smallBodyMax = 4 << 10  // of a message without data, in bytes
	readBodyMax  = 64 << 10 // of a Read, in bytes: two keys and little else
	foundingMax  = 64 << 10 // of a FounderState, in bytes
)

// rule says who may send a type to which actor.
type rule struct {
	from, to messages.Role
	message  proto.Message
	target   func(actor string) bool
	sizeMax  int // of the body, in bytes
}

var rules = []rule{
	{messages.Role_NODE, messages.Role_NODE, &messages.RaftMessage{}, is(messages.ActorRaft), BodySizeMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.Propose{}, is(messages.ActorRaft), CommandBodySizeMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.ProposalRefused{}, isSession, smallBodyMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.FounderState{}, is(messages.ActorFounding), foundingMax},

	{messages.Role_NODE, messages.Role_NODE, &messages.SnapshotOffer{}, is(messages.ActorSnapshots), readBodyMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.SnapshotPull{}, is(messages.ActorSnapshots), smallBodyMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.SnapshotPiece{}, is(messages.ActorSnapshots), PieceBodySizeMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.SnapshotEnd{}, is(messages.ActorSnapshots), smallBodyMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.AuditAsk{}, is(messages.ActorAudit), readBodyMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.AuditAnswer{}, is(messages.ActorAudit), readBodyMax},
	{messages.Role_NODE, messages.Role_NODE, &messages.AuditVerdict{}, is(messages.ActorAudit), readBodyMax},

	{messages.Role_CLIENT, messages.Role_NODE, &messages.Attach{}, is(messages.ActorGateway), smallBodyMax},
	{messages.Role_CLIENT, messages.Role_NODE, &messages.StatusRequest{}, is(messages.ActorGateway), smallBodyMax},
	{messages.Role_CLIENT, messages.Role_NODE, &messages.Write{}, isSession, CommandBodySizeMax},
	{messages.Role_CLIENT, messages.Role_NODE, &messages.Read{}, isSession, readBodyMax},
	{messages.Role_CLIENT, messages.Role_NODE, &messages.Detach{}, isSession, smallBodyMax},
	{messages.Role_CLIENT, messages.Role_NODE, &messages.SnapshotRequest{}, is(messages.ActorSnapshots), smallBodyMax},

	{messages.Role_NODE, messages.Role_CLIENT, &messages.Attached{}, isActor, readBodyMax},
	{messages.Role_NODE, messages.Role_CLIENT, &messages.WriteReply{}, isActor, readBodyMax},
	{messages.Role_NODE, messages.Role_CLIENT, &messages.ReadReply{}, isActor, BodySizeMax},
	{messages.Role_NODE, messages.Role_CLIENT, &messages.StatusReply{}, isActor, BodySizeMax},
	{messages.Role_NODE, messages.Role_CLIENT, &messages.SnapshotReply{}, isActor, BodySizeMax},
}

type passage struct {
	from, to messages.Role
	number   uint32
}

var ruleOf = func() map[passage]rule {
	m := map[passage]rule{}
	for _, r := range rules {
		number, ok := messages.TypeNumber(r.message)
		if !ok {
			panic("transport: a rule for a message that does not cross links")
		}
		m[passage{r.from, r.to, number}] = r
	}
	return m
}()

func is(name string) func(string) bool { return func(actor string) bool { return actor == name } }

func isSession(actor string) bool {
	id, ok := strings.CutPrefix(actor, messages.ActorSessionPrefix)
	return ok && id != "" && !strings.Contains(id, "/")
}

// isActor keeps the processes of the actor library itself out of reach.
func isActor(actor string) bool { return actor != "eventstream" && actor != "deadletter" }

// IsFounding reports whether a message may pass before there is a cluster.
func IsFounding(m proto.Message) bool {
	_, ok := m.(*messages.FounderState)
	return ok
}

// crosses lists the Raft messages that one replica sends another as they are. The
// others are of a replica and its own storage, or ask it to act; a MsgSnap comes
// with what it speaks of, in a SnapshotOffer.
var crosses = map[raftpb.MessageType]bool{
	raftpb.MsgApp: true, raftpb.MsgAppResp: true,
	raftpb.MsgVote: true, raftpb.MsgVoteResp: true,
	raftpb.MsgPreVote: true, raftpb.MsgPreVoteResp: true,
	raftpb.MsgHeartbeat: true, raftpb.MsgHeartbeatResp: true,
	raftpb.MsgReadIndex: true, raftpb.MsgReadIndexResp: true,
	raftpb.MsgTransferLeader: true, raftpb.MsgTimeoutNow: true,
}

// contradiction says where a message claims other than that replica from sends
// it to replica to, or is none that may be sent; empty: nowhere.
func contradiction(from, to messages.RaftID, m proto.Message) string {
	switch m := m.(type) {
	case *messages.RaftMessage:
		r := m.Message
		switch {
		case r == nil:
			return "an empty Raft message"
		case r.GetFrom() != from || r.GetTo() != to:
			return "a Raft message in another's name or for another"
		case !crosses[r.GetType()]:
			return "a Raft message of a type that stays inside a node: " + r.GetType().String()
		case len(r.GetResponses()) != 0:
			return "a Raft message with answers for its receiver's storage"
		}
	case *messages.Propose:
		if m.Origin != from {
			return "a proposal in another's name"
		}
	case *messages.FounderState:
		if m.RaftId != from {
			return "a founder's state in another's name"
		}
	case *messages.SnapshotOffer:
		return offerContradiction(from, to, m.Message)
	case *messages.SnapshotPiece:
		if m.Chunk == nil {
			return "a piece of a snapshot without a chunk"
		}
	}
	return ""
}

// offerContradiction is contradiction for the MsgSnap of an offer, which goes on to
// the receiver's raft: it has nothing but the snapshot's place in the log.
func offerContradiction(from, to messages.RaftID, r *raftpb.Message) string {
	at := r.GetSnapshot().GetMetadata()
	switch {
	case r == nil || r.GetType() != raftpb.MsgSnap:
		return "an offer of a snapshot without a MsgSnap"
	case r.GetFrom() != from || r.GetTo() != to:
		return "an offer of a snapshot in another's name or for another"
	case at.GetIndex() == 0 || at.GetTerm() == 0 || at.GetConfState() == nil:
		return "an offer of a snapshot without its place in the log"
	case len(r.GetSnapshot().GetData()) != 0 || len(r.GetEntries()) != 0 || len(r.GetContext()) != 0:
		return "an offer of a snapshot with data"
	case len(r.GetResponses()) != 0:
		return "an offer of a snapshot with answers for its receiver's storage"
	}
	return ""
}

// LaneOf is the lane on which a node sends a message to another. All that speaks of
// one snapshot takes one lane, so that it comes in order.
func LaneOf(m proto.Message) messages.Lane {
	switch m := m.(type) {
	case *messages.Propose:
		return messages.Lane_APPEND
	case *messages.RaftMessage:
		if m.GetMessage().GetType() == raftpb.MsgApp && len(m.Message.Entries) > 0 {
			return messages.Lane_APPEND
		}
	case *messages.SnapshotOffer, *messages.SnapshotPull, *messages.SnapshotPiece, *messages.SnapshotEnd,
		*messages.AuditAsk, *messages.AuditAnswer, *messages.AuditVerdict:
		return messages.Lane_BULK
	}
	return messages.Lane_CONTROL
}

// isActorName takes printable ASCII without spaces.
func isActorName(s string) bool {
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= nameSizeMax
}
