package transport

import (
	"bytes"
	"maps"
	"math"
	"strings"
	"unicode"

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
	// EnvelopesMax bounds a parcel, in envelopes.
	EnvelopesMax = 4096

	nameSizeMax  = 128      // of an actor, a node and a version, in bytes
	smallBodyMax = 4 << 10  // of a message without data, in bytes
	readBodyMax  = 64 << 10 // of a Read, in bytes: two keys and little else
	pieceBodyMax = 3 << 20  // of a SnapshotPiece, in bytes: a chunk with the two keys of its range
	foundingMax  = 64 << 10 // of a FounderState, in bytes
	wordsMax     = 512      // of a far side's words that are repeated to people, in bytes
)

// Known is what a node knows of the members: whom it may refuse. It never makes
// being known a condition, since a node that lags must hear leaders that it does
// not know yet. The zero Known knows nobody. A Known is never modified.
type Known struct {
	incarnations map[messages.RaftID][]byte // of members; empty: not known yet
	removed      map[messages.RaftID]bool   // were members once; RaftIDs are never reused
}

// With is what is known once these are the members. Whoever was a member and is
// none of them was removed. An empty list says nothing and changes nothing.
func (k Known) With(members []*messages.Member) Known {
	if len(members) == 0 {
		return k
	}
	next := Known{incarnations: map[messages.RaftID][]byte{}, removed: map[messages.RaftID]bool{}}
	maps.Copy(next.removed, k.removed)
	for id := range k.incarnations {
		next.removed[id] = true
	}
	for _, m := range members {
		next.incarnations[m.RaftId] = m.Incarnation
		delete(next.removed, m.RaftId)
	}
	return next
}

// Removed reports whether id was a member and is none any more.
func (k Known) Removed(id messages.RaftID) bool { return k.removed[id] }

// member reports whether a hello is that of a member, as far as that is known.
func (k Known) member(h *messages.Hello) bool {
	known := k.incarnations[h.RaftId]
	return h.Role == messages.Role_NODE && len(known) > 0 && bytes.Equal(known, h.Incarnation)
}

func (k Known) refuses(id messages.RaftID, incarnation []byte) *refusal {
	known := k.incarnations[id]
	switch {
	case k.removed[id]:
		return refuse(messages.Code_NOT_ALLOWED, "raft id %d was removed from this cluster", id).
			hint("stop that node: a removed identity never comes back")
	case len(known) > 0 && !bytes.Equal(known, incarnation):
		return refuse(messages.Code_NOT_ALLOWED, "raft id %d has another incarnation here (%x, not %x): a wiped node under its old name",
			id, short(known), short(incarnation)).
			hint("start it on its old data directory; the other nodes serve on without it")
	}
	return nil
}

// HelloTo is what local says when it dials the node with RaftID to, or with 0
// whoever answers.
func HelloTo(local Local, to messages.RaftID, lane messages.Lane) *messages.Hello {
	h := &messages.Hello{
		Protocol: messages.ProtocolVersion, Role: local.Role, Lane: lane,
		ClusterId: local.ClusterID, To: to, Version: local.Version,
	}
	if local.Role == messages.Role_NODE {
		h.RaftId, h.Incarnation = local.RaftID, local.Incarnation
	} else {
		h.Address = local.Address
	}
	return h
}

// Admit is a node's answer to a hello: a welcome or a refusal, never both.
func Admit(local Local, known Known, hello *messages.Hello) (*messages.Welcome, *messages.Refusal) {
	refusal := admitAnyone(local, hello)
	if refusal == nil {
		switch hello.Role {
		case messages.Role_NODE:
			refusal = admitNode(local, known, hello)
		case messages.Role_CLIENT:
			refusal = admitClient(local, hello)
		default:
			refusal = refuse(messages.Code_INVALID, "the hello names no role")
		}
	}
	if refusal != nil {
		return nil, refusal.Refusal
	}
	return &messages.Welcome{
		Protocol: messages.ProtocolVersion, ClusterId: local.ClusterID, RaftId: local.RaftID,
		Incarnation: local.Incarnation, Name: local.Name, Version: local.Version, WaitingFor: local.WaitingFor,
	}, nil
}

func admitAnyone(local Local, hello *messages.Hello) *refusal {
	switch {
	case hello == nil:
		return refuse(messages.Code_INVALID, "a connection starts with a hello")
	case hello.Protocol != messages.ProtocolVersion:
		return refuse(messages.Code_UNSUPPORTED, "node %s speaks protocol %d, not %d", local.Name, messages.ProtocolVersion, hello.Protocol).
			hint("use the same version of kvctl on both sides; this node runs %s", local.Version)
	case !validText(hello.Version):
		return refuse(messages.Code_INVALID, "the version of the hello is no version")
	case len(hello.ClusterId) != 0 && len(hello.ClusterId) != messages.ClusterIDSize:
		return refuse(messages.Code_INVALID, "a cluster id has %d bytes, this one %d", messages.ClusterIDSize, len(hello.ClusterId))
	case hello.To != 0 && hello.To != local.RaftID:
		return refuse(messages.Code_CONFLICT, "node %s has raft id %d, not %d", local.Name, local.RaftID, hello.To).
			hint("an address may be wrong or used twice: compare `kvctl status --json` of both")
	case otherCluster(local.ClusterID, hello.ClusterId):
		return refuseCluster(local.Name, local.ClusterID, hello.ClusterId)
	}
	return nil
}

func admitNode(local Local, known Known, hello *messages.Hello) *refusal {
	switch {
	case !isReplica(hello.RaftId):
		return refuse(messages.Code_INVALID, "%d is not the raft id of a node", hello.RaftId)
	case hello.RaftId == local.RaftID:
		return refuse(messages.Code_CONFLICT, "node %s has raft id %d itself", local.Name, local.RaftID).
			hint("two nodes run under one name, or a node dials its own address: compare `kvctl status --json` of both")
	case hello.To == 0:
		return refuse(messages.Code_INVALID, "the hello of a node names the node it means to reach")
	case len(hello.Incarnation) != messages.IncarnationSize:
		return refuse(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(hello.Incarnation))
	case hello.Address != "":
		return refuse(messages.Code_INVALID, "a node has no client address")
	case hello.Lane < messages.Lane_CONTROL || hello.Lane > messages.Lane_BULK:
		return refuse(messages.Code_INVALID, "there is no lane %d", hello.Lane)
	}
	if len(hello.ClusterId) == 0 {
		return nil // it founds, and may only hear from founding why it cannot
	}
	return known.refuses(hello.RaftId, hello.Incarnation)
}

func admitClient(local Local, hello *messages.Hello) *refusal {
	switch {
	case !messages.IsClientAddress(hello.Address):
		return refuse(messages.Code_INVALID, "%q is not a client's address", legible(hello.Address))
	case hello.RaftId != 0 || len(hello.Incarnation) != 0:
		return refuse(messages.Code_INVALID, "a client has neither raft id nor incarnation")
	case hello.Lane != messages.Lane_CONTROL:
		return refuse(messages.Code_INVALID, "a client has no lane %d", hello.Lane)
	case len(hello.ClusterId) != 0 && len(local.ClusterID) == 0:
		return refuse(messages.Code_CONFLICT, "node %s belongs to no cluster yet, and cluster %x is wanted", local.Name, hello.ClusterId).
			hint("wait until it is founded, or use the endpoints of that cluster")
	}
	return nil
}

// Welcomed is the dialling side's check of a welcome. to is the RaftID it means
// to reach, 0: whoever answers.
func Welcomed(local Local, known Known, to messages.RaftID, w *messages.Welcome) *messages.Refusal {
	var r *refusal
	switch {
	case w == nil:
		r = refuse(messages.Code_UNREACHABLE, "the node answered the hello with something else")
	case w.Protocol != messages.ProtocolVersion:
		r = refuse(messages.Code_UNSUPPORTED, "the node speaks protocol %d, not %d", w.Protocol, messages.ProtocolVersion).
			hint("use the same version of kvctl on both sides")
	case !isReplica(w.RaftId):
		r = refuse(messages.Code_INVALID, "%d is not the raft id of a node", w.RaftId)
	case to != 0 && w.RaftId != to:
		r = refuse(messages.Code_CONFLICT, "raft id %d answered in place of %d", w.RaftId, to)
	case local.Role == messages.Role_NODE && w.RaftId == local.RaftID:
		r = refuse(messages.Code_CONFLICT, "the node answered under our own raft id %d", w.RaftId)
	case len(w.ClusterId) != 0 && len(w.ClusterId) != messages.ClusterIDSize:
		r = refuse(messages.Code_INVALID, "a cluster id has %d bytes, this one %d", messages.ClusterIDSize, len(w.ClusterId))
	case len(w.Incarnation) != messages.IncarnationSize:
		r = refuse(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(w.Incarnation))
	case !validText(w.Name) || !validText(w.Version):
		r = refuse(messages.Code_INVALID, "the welcome has an unreadable name or version")
	case otherCluster(local.ClusterID, w.ClusterId),
		local.Role == messages.Role_CLIENT && len(local.ClusterID) != 0 && len(w.ClusterId) == 0:
		r = refuseCluster(w.Name, w.ClusterId, local.ClusterID)
	case len(w.ClusterId) == 0:
		// It founds: only founding speaks with it, and tells it why it cannot.
	default:
		r = known.refuses(w.RaftId, w.Incarnation)
	}
	if r == nil {
		return nil
	}
	return r.Refusal
}

// Conn is what a connection has proved about its far side: all that the guard
// needs to judge an envelope that comes from there.
type Conn struct {
	Role     messages.Role   // of the far side
	Address  string          // logical, of the far side
	RaftID   messages.RaftID // of the far side, if it is a node
	To       messages.Role   // of this side
	Local    messages.RaftID // of this side, if it is a node
	Lane     messages.Lane
	Founding bool // between nodes of which one knows no cluster yet
}

// Accepted is the connection that an admitted hello makes.
func Accepted(local Local, hello *messages.Hello) Conn {
	c := Conn{Role: hello.Role, Address: hello.Address, To: local.Role, Local: local.RaftID, Lane: hello.Lane}
	if hello.Role == messages.Role_NODE {
		c.RaftID, c.Address = hello.RaftId, messages.NodeAddress(hello.RaftId)
		c.Founding = len(hello.ClusterId) == 0 || len(local.ClusterID) == 0
	}
	return c
}

// Reached is the connection that an accepted welcome makes.
func Reached(local Local, lane messages.Lane, w *messages.Welcome) Conn {
	c := Conn{Role: messages.Role_NODE, RaftID: w.RaftId, Address: messages.NodeAddress(w.RaftId), To: local.Role, Lane: lane}
	if local.Role == messages.Role_NODE {
		c.Local = local.RaftID
		c.Founding = len(w.ClusterId) == 0 || len(local.ClusterID) == 0
	}
	return c
}

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
	{messages.Role_NODE, messages.Role_NODE, &messages.SnapshotPiece{}, is(messages.ActorSnapshots), pieceBodyMax},
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

// Check holds an envelope from the far side against what that side may send to
// which actor, without opening it. The error is a *messages.Error; the
// connection must end then.
func (c Conn) Check(e *messages.Envelope) error {
	return c.check(e.GetType(), e.GetTarget(), e.GetSender(), len(e.GetBody()), false)
}

// Open is Check and messages.Open, and holds what the message says about its
// sender against what the connection has proved.
func (c Conn) Open(e *messages.Envelope) (proto.Message, error) {
	if err := c.Check(e); err != nil {
		return nil, err
	}
	m, err := messages.Open(e)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "%s sent a broken message: %v", c.Address, err)
	}
	if what := contradiction(c.RaftID, c.Local, m); what != "" {
		return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "%s sent %s", c.Address, what)
	}
	return m, nil
}

// check judges an envelope on its way in or, with out, the same one on its way
// to the far side.
func (c Conn) check(number uint32, target, sender string, size int, out bool) error {
	p := passage{from: c.Role, to: c.To, number: number}
	if out {
		p.from, p.to = p.to, p.from
	}
	r, ok := ruleOf[p]
	switch {
	case !ok:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "a %s sends no message of type %d to a %s", p.from, number, p.to)
	case !isActorName(target) || sender != "" && !isActorName(sender):
		return messages.Errorf(messages.Code_INVALID, "an actor's name is empty, too long or unprintable")
	case !r.target(target):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "a %s sends no %s to actor %s", p.from, r.message.ProtoReflect().Descriptor().Name(), target)
	case size > r.sizeMax:
		return messages.Errorf(messages.Code_INVALID, "a %s of %d bytes, %d are allowed", r.message.ProtoReflect().Descriptor().Name(), size, r.sizeMax)
	case c.Founding && !isFounding(r.message):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "only founders speak before there is a cluster")
	}
	return nil
}

func isFounding(m proto.Message) bool {
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

// refusal is a Refusal that is being worded.
type refusal struct{ *messages.Refusal }

func refuse(code messages.Code, format string, args ...any) *refusal {
	return &refusal{&messages.Refusal{Code: code, Message: messages.Errorf(code, format, args...).Message}}
}

func (r *refusal) hint(format string, args ...any) *refusal {
	r.Hint = messages.Errorf(r.Code, format, args...).Message
	return r
}

func otherCluster(a, b []byte) bool { return len(a) != 0 && len(b) != 0 && !bytes.Equal(a, b) }

func refuseCluster(node string, its, wanted []byte) *refusal {
	if len(its) == 0 {
		return refuse(messages.Code_CONFLICT, "node %s belongs to no cluster yet, and cluster %x is wanted", node, wanted).
			hint("wait until it is founded, or use the endpoints of that cluster")
	}
	return refuse(messages.Code_CONFLICT, "node %s belongs to cluster %x, not to cluster %x", node, its, wanted).
		hint("check the endpoints; a node that is to change clusters needs an empty data directory")
}

// isReplica leaves out none and the ids by which Raft calls its own storage.
func isReplica(id messages.RaftID) bool { return id != 0 && id < math.MaxUint64-1 }

// isActorName takes printable ASCII without spaces.
func isActorName(s string) bool {
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= nameSizeMax
}

func validText(s string) bool {
	return len(s) <= nameSizeMax && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func short(id []byte) []byte { return id[:min(4, len(id))] }

// legible is what people are shown of a far side's words: a bounded line without
// controls.
func legible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), wordsMax)], ""))
}
