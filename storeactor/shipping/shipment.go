package shipping

import (
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/snapshot"
)

// Patience of a shipment, in ticks, and its credit, in chunks.
const (
	shipWindow      = 4   // chunks that are sent and not taken
	shipOfferTicks  = 10  // between two offers
	shipPullTicks   = 100 // without a pull: the peer is gone
	shipPinTicks    = 200 // without the machine's answer
	shipReadTicks   = 40  // after which rows are asked for again: a reader may have started anew
	shipReadsMax    = 5   // reads of one chunk
	shipHushedTicks = 10  // silence that is worth a word to people
	shipHoldTicks   = 20  // before raft hears of a refusal: it asks again at once
	shipVouchTicks  = 200 // for the audit: then the state is shipped as it is, since a quorum may wait for it
)

// shipmentConfig is what all shipments of a node have in common.
type shipmentConfig struct {
	tickMS     uint64
	rate       uint64 // bytes a second to one follower
	chunkBytes int
	about      *messages.SnapshotHeader // who makes it, for people
	audited    bool                     // another member's equal state is asked for before
	lineage    []uint64                 // of this node's state
}

type shipmentPhase int

const (
	shipPinning  shipmentPhase = iota // the machine is asked to keep the state
	shipVouching                      // the audit compares it with another member's
	shipOffering
	shipSending
	shipHeld  // it came to nothing, and raft hears it soon
	shipEnded // it was reported; nothing more is done
)

// shipment brings one snapshot to one peer, from raft's wish to the report to raft.
// It sends as many chunks as the peer gave credit for, and resumes at the first chunk
// that the peer lacks. It is a state machine: an event in, effects out.
type shipment struct {
	config  shipmentConfig
	number  uint64
	peer    messages.RaftID
	message *raftpb.Message // the MsgSnap
	holder  string          // of the pin, and of nothing else ever

	phase   shipmentPhase
	age     uint32 // ticks since raft wished it
	silent  uint32 // ticks since the one who is waited for was heard
	offered uint32 // ticks since the last offer
	name    string // of the peer
	total   uint64 // bytes, about
	reason  string // why it came to nothing

	source *snapshot.Source
	// marks are copies of source, one from before each chunk that is sent and not
	// taken. marks[0] makes chunk number acked once more.
	marks   []*snapshot.Source
	acked   uint64 // chunks below are taken
	limit   uint64 // chunks below may be sent
	reading bool   // rows were asked for
	waited  uint32 // ticks since they were
	reads   int    // how often, for this chunk
	tokens  int64  // bytes that may be sent now; below 0 after a chunk that was larger
	speed   speed
}

func newShipment(config shipmentConfig, number uint64, holder string, m *raftpb.Message) *shipment {
	return &shipment{
		config: config, number: number, holder: holder, message: m, peer: m.GetTo(),
		name: messages.MemberName(nil, m.GetTo()), speed: speed{tickMS: config.tickMS}, tokens: config.burst(),
	}
}

// perTick is the rate in bytes a tick; burst is what may be saved up.
func (c shipmentConfig) perTick() int64 { return max(1, int64(c.rate*c.tickMS/1000)) }
func (c shipmentConfig) burst() int64   { return 2 * c.perTick() }

func (s *shipment) index() uint64 { return s.message.GetSnapshot().GetMetadata().GetIndex() }

// position is the chunk that is sent next.
func (s *shipment) position() uint64 { return s.source.Position() }

func (s *shipment) start() []effect {
	return []effect{post{to: toMachine, message: &messages.PinState{Holder: s.holder, Index: s.index()}}}
}

func (s *shipment) onPinned(m *messages.StatePinned) []effect {
	switch {
	case s.phase != shipPinning || m.Holder != s.holder:
		return nil
	case m.Code != messages.Code_OK:
		return s.end(m.Code, "the state at index %d is no longer kept", s.index())
	case m.Checkpoint.GetIndex() != s.index():
		return s.end(messages.Code_INTERNAL, "the machine pinned the state at index %d in place of %d", m.Checkpoint.GetIndex(), s.index())
	}
	s.source = snapshot.NewSource(m.Checkpoint, s.config.about, s.config.chunkBytes)
	s.name = messages.MemberName(m.Checkpoint.Members, s.peer)
	s.total = m.Bytes + s.source.StateBytes()
	if !s.config.audited || mutant.ShippedUnasked {
		return s.begin()
	}
	s.phase, s.silent = shipVouching, 0
	return []effect{post{to: toAudit, message: &messages.VouchState{Holder: s.holder, Peer: s.peer}}}
}

func (s *shipment) begin() []effect {
	s.phase, s.silent = shipOffering, 0
	return s.offer()
}

// onVouched begins, unless another member holds something else. That nobody could tell does
// not hold it up: the receiver may be needed for a quorum.
func (s *shipment) onVouched(m *messages.StateVouched) []effect {
	switch {
	case s.phase != shipVouching || m.Holder != s.holder:
		return nil
	case m.Code == messages.Code_CONFLICT:
		return s.end(messages.Code_DAMAGED, "%s: stop the member whose data are wrong (kvctl verify compares them)", m.Message)
	case m.Code != messages.Code_OK:
		return s.unvouched(m.Message)
	}
	return s.begin()
}

func (s *shipment) unvouched(why string) []effect {
	return append([]effect{note{"a snapshot is sent that no other member has vouched for", true, []any{"peer", s.name, "index", s.index(), "reason", why}}}, s.begin()...)
}

func (s *shipment) offer() []effect {
	s.offered = 0
	return []effect{post{toPeer, s.peer, &messages.SnapshotOffer{Shipment: s.number, Message: s.message, Bytes: s.total, Lineage: s.config.lineage}}}
}

func (s *shipment) onPull(m *messages.SnapshotPull) []effect {
	if m.Shipment != s.number || s.phase != shipOffering && s.phase != shipSending || m.Next < s.acked || m.Next > s.position() {
		return nil
	}
	s.phase, s.silent = shipSending, 0
	s.marks = s.marks[m.Next-s.acked:]
	s.acked = m.Next
	s.limit = m.Next + uint64(min(m.Window, shipWindow))
	if m.Again && s.acked < s.position() {
		s.source, s.marks, s.reading = s.marks[0], nil, false
	}
	return s.advance()
}

// advance sends what may be sent now.
func (s *shipment) advance() (out []effect) {
	for s.phase == shipSending && !s.reading && !s.source.Ended() && s.position() < s.limit && s.tokens > 0 {
		before := s.source.Clone()
		chunk := s.source.Next()
		if chunk == nil {
			s.reads = 0
			return append(out, s.read())
		}
		out = append(out, s.send(before, chunk))
	}
	return out
}

func (s *shipment) read() effect {
	s.reading, s.waited = true, 0
	s.reads++
	return post{to: toMachine, message: s.source.ReadRows(s.holder)}
}

func (s *shipment) send(before *snapshot.Source, c *messages.SnapshotChunk) effect {
	s.marks = append(s.marks, before)
	s.tokens -= int64(len(c.Body))
	return post{toPeer, s.peer, &messages.SnapshotPiece{Shipment: s.number, Chunk: c}}
}

func (s *shipment) onRows(m *messages.RowsRead) []effect {
	if s.phase != shipSending || !s.reading || m.Holder != s.holder || m.Sequence != s.position() {
		return nil
	}
	s.reading = false
	if m.Code != messages.Code_OK {
		return s.fail(m.Code, "the rows cannot be read: %s", m.Message)
	}
	before := s.source.Clone()
	chunk, err := s.source.Take(m)
	if err != nil {
		return s.fail(messages.CodeOf(err), "%v", err)
	}
	var out []effect
	if chunk != nil {
		out = append(out, s.send(before, chunk))
	}
	return append(out, s.advance()...)
}

// onEnd hears from the peer how it ended.
func (s *shipment) onEnd(m *messages.SnapshotEnd) []effect {
	if m.Shipment != s.number || s.over() {
		return nil
	}
	return s.end(m.Code, "%s: %s", s.name, m.Message)
}

func (s *shipment) tick(n uint32) []effect {
	s.age += n
	s.silent += n
	s.waited += n
	s.offered += n
	s.tokens = min(s.config.burst(), s.tokens+int64(min(n, 1000))*s.config.perTick())
	switch {
	case s.phase == shipEnded || s.phase == shipHeld && s.silent < shipHoldTicks:
		return nil
	case s.phase == shipHeld:
		return s.report(true)
	case s.phase == shipPinning && s.silent >= shipPinTicks:
		return s.end(messages.Code_TIMED_OUT, "the state at index %d was not pinned", s.index())
	case s.phase == shipVouching && s.silent >= shipVouchTicks:
		return s.unvouched("the audit takes longer than " + duration(s.silent, s.config.tickMS))
	case s.phase == shipPinning || s.phase == shipVouching:
		return nil
	case s.silent >= shipPullTicks:
		return s.fail(messages.Code_TIMED_OUT, "%s was not heard for %s", s.name, duration(s.silent, s.config.tickMS))
	case s.phase == shipOffering && s.offered >= shipOfferTicks:
		return s.offer()
	case s.phase == shipOffering:
		return nil
	}
	s.speed.tick(n, s.done())
	switch {
	case s.reading && s.waited >= shipReadTicks && s.reads >= shipReadsMax:
		return s.fail(messages.Code_TIMED_OUT, "the rows were not read")
	case s.reading && s.waited >= shipReadTicks:
		return []effect{s.read()}
	}
	return s.advance()
}

// over reports whether it is whole or came to nothing.
func (s *shipment) over() bool { return s.phase == shipHeld || s.phase == shipEnded }

// fail ends it from this side, and says so to the peer.
func (s *shipment) fail(code messages.Code, format string, args ...any) []effect {
	if s.phase == shipHeld {
		return s.report(true)
	}
	return append([]effect{endOf(s.peer, s.number, code, format, args...)}, s.end(code, format, args...)...)
}

// end unpins the state and reports to raft. Raft tries again at once: so where the next
// attempt would fail for the same reason, the report waits for shipHoldTicks.
func (s *shipment) end(code messages.Code, format string, args ...any) []effect {
	s.reading, s.marks, s.silent = false, nil, 0
	out := []effect{post{to: toMachine, message: &messages.UnpinState{Holder: s.holder}}}
	if code == messages.Code_OK {
		out = append(out, note{"a snapshot was sent to a follower", false,
			[]any{"peer", s.name, "index", s.index(), "bytes", s.done(), "took", duration(s.age, s.config.tickMS)}})
		return append(out, s.report(false)...)
	}
	s.reason = messages.Errorf(code, format, args...).Message
	out = append(out, note{"a snapshot was not sent to a follower", true,
		[]any{"peer", s.name, "index", s.index(), "code", code.String(), "reason", s.reason}})
	switch code {
	case messages.Code_COMPACTED, messages.Code_CONFLICT, messages.Code_TIMED_OUT:
		return append(out, s.report(true)...)
	}
	s.phase = shipHeld
	return out
}

// report is made once.
func (s *shipment) report(failed bool) []effect {
	s.phase = shipEnded
	return []effect{post{to: toRaft, message: &messages.SnapshotShipped{Peer: s.peer, Failed: failed}}}
}

// done is what the peer has taken, in bytes.
func (s *shipment) done() uint64 {
	switch {
	case s.source == nil:
		return 0
	case len(s.marks) > 0:
		return s.marks[0].Bytes()
	}
	return s.source.Bytes()
}

// transfer is how it stands, for people.
func (s *shipment) transfer() *messages.Transfer {
	t := &messages.Transfer{Peer: s.peer, Index: s.index(), BytesDone: s.done(), BytesTotal: s.total, WaitingFor: s.waitingFor()}
	s.speed.fill(t)
	return t
}

func (s *shipment) waitingFor() string {
	since := duration(s.silent, s.config.tickMS)
	switch {
	case s.over():
		return "another attempt: " + s.reason
	case s.phase == shipPinning:
		return "the machine of this node"
	case s.phase == shipVouching:
		return "another member is to vouch for the state of this node"
	case s.phase == shipOffering:
		return s.name + " has not answered the offer for " + since
	case s.reading && s.waited >= shipHushedTicks:
		return "the disk of this node"
	case s.reading:
		return ""
	case s.source.Ended() && s.acked == s.position():
		return s.name + " is to install it"
	case s.silent >= shipHushedTicks && (s.source.Ended() || s.position() >= s.limit):
		return s.name + " has taken nothing for " + since
	case s.tokens <= 0:
		return "the rate limit"
	}
	return ""
}
