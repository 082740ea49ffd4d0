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

	nameSizeMax = 128 // of an actor, a node and a version, in bytes
)

// bodySizeMax bounds the body of an envelope by its kind's Size, in bytes.
var bodySizeMax = [...]int{
	messages.Size_SMALL:   4 << 10,
	messages.Size_MEDIUM:  64 << 10,
	messages.Size_COMMAND: CommandBodySizeMax,
	messages.Size_CHUNK:   PieceBodySizeMax,
	messages.Size_LARGE:   BodySizeMax,
}

// reaches reports whether a message of this kind may go to an actor of that name.
func reaches(k *messages.Kind, actor string) bool {
	switch {
	case k.Actor == "": // of a client; the processes of the actor library itself are out of reach
		return actor != "eventstream" && actor != "deadletter"
	case strings.HasSuffix(k.Actor, "-"):
		id, ok := strings.CutPrefix(actor, k.Actor)
		return ok && id != "" && !strings.Contains(id, "/")
	}
	return actor == k.Actor
}

// crosses lists the Raft messages that one replica sends another as they are. The
// others are between a replica and its own storage, or ask it to act. A MsgSnap
// travels in a SnapshotOffer, since it is of no use without the snapshot.
var crosses = map[raftpb.MessageType]bool{
	raftpb.MsgApp: true, raftpb.MsgAppResp: true,
	raftpb.MsgVote: true, raftpb.MsgVoteResp: true,
	raftpb.MsgPreVote: true, raftpb.MsgPreVoteResp: true,
	raftpb.MsgHeartbeat: true, raftpb.MsgHeartbeatResp: true,
	raftpb.MsgReadIndex: true, raftpb.MsgReadIndexResp: true,
	raftpb.MsgTransferLeader: true, raftpb.MsgTimeoutNow: true,
}

// contradiction says what is wrong with a message from replica from to replica to:
// it names another sender or receiver, or may not be sent at all. Empty: nothing is.
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

// offerContradiction is contradiction for the MsgSnap of an offer. The receiver hands
// it to its raft, so it must hold the snapshot's place in the log and nothing else.
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

// LaneOf is the lane on which a node sends a message of kind k to another: that of
// its kind, but for an append: it may be large, and must not hold up votes and
// heartbeats. Appends without entries go the same way: one that overtook the entries
// before it would be rejected, and the leader would take the follower for one that lost
// them, and send one append at a time.
func LaneOf(k *messages.Kind, m proto.Message) messages.Lane {
	if r, ok := m.(*messages.RaftMessage); ok && r.GetMessage().GetType() == raftpb.MsgApp {
		return messages.Lane_APPEND
	}
	return k.Lane
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
