package shipping

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/snapshot"
)

// Patience of a receiver, in ticks.
const (
	intakeAgainTicks = 20  // without a chunk: ask again; and how often a sender hears that this node lives
	intakeStillTicks = 40  // without a chunk: another sender may have its place
	intakeLostTicks  = 200 // without a chunk: give up
)

// A receiver that lives is heard several times before its sender gives it up, and asks
// again before another sender takes the place of its own.
const (
	_ = uint(shipPullTicks - 2*intakeAgainTicks)
	_ = uint(intakeStillTicks - intakeAgainTicks - 1)
	_ = uint(intakeLostTicks - intakeStillTicks - 1)
	_ = uint(intakeLostTicks - shipReadTicks*shipReadsMax) // a sender reads all that it may
)

// lineageMax bounds what is taken over of a sender's lineage, in members.
const lineageMax = 64

// incoming is what comes to this node: at most one snapshot at a time. It is a state
// machine: an event in, effects out.
//
// Invariant: once raft was told of a staging, it is neither dropped nor replaced until
// an answer comes, since the log may be installing it. There is no deadline, because
// there always is an answer: Installed from the log, or StagingUnused from raft.
type incoming struct {
	tickMS  uint64
	current *arrival // nil: nothing comes
}

// arrival is one snapshot on its way in.
type arrival struct {
	peer     messages.RaftID // 0: not known any more
	shipment uint64
	message  *raftpb.Message // the MsgSnap
	total    uint64          // bytes, about
	lineage  []uint64        // of the peer's state, behind the peer itself
	name     string          // of the peer

	received uint64   // chunks below are with the intake, or were
	taken    uint64   // chunks below are staged
	sizes    []uint64 // of the bodies of the chunks between taken and received, in bytes
	done     uint64   // bytes of what is staged
	ended    bool     // the trailer is among those received
	raftHas  bool     // it is whole, and raft was told

	age    uint32 // ticks since it was offered
	silent uint32 // ticks without a chunk while one could come
	worked uint32 // ticks since the intake got something to do
	pulled uint32 // ticks since the last pull
	speed  speed
}

func (a *arrival) index() uint64 { return a.message.GetSnapshot().GetMetadata().GetIndex() }

// busy reports whether it waits for this node and not for the peer.
func (a *arrival) busy() bool { return a.raftHas || a.taken < a.received }

func (a *arrival) pull(again bool) effect {
	a.pulled = 0
	return post{toPeer, a.peer, &messages.SnapshotPull{Shipment: a.shipment, Next: a.taken, Window: shipWindow, Again: again}}
}

func (i *incoming) onOffer(from messages.RaftID, m *messages.SnapshotOffer) []effect {
	c := i.current
	switch {
	case from == 0:
		return nil
	case c == nil:
		return i.accept(from, m)
	case c.peer == from && c.shipment == m.Shipment:
		return []effect{c.pull(false)}
	case c.raftHas:
		return []effect{endOf(from, m.Shipment, messages.Code_BUSY, "another snapshot is being installed")}
	case c.peer == from:
		return append(i.forget(), i.accept(from, m)...)
	case c.silent >= intakeStillTicks:
		out := []effect{endOf(c.peer, c.shipment, messages.Code_CONFLICT, "another snapshot took its place")}
		out = append(out, i.forget()...)
		return append(out, i.accept(from, m)...)
	}
	return []effect{endOf(from, m.Shipment, messages.Code_BUSY, "a snapshot from %s is coming in", c.name)}
}

func (i *incoming) accept(from messages.RaftID, m *messages.SnapshotOffer) []effect {
	i.current = &arrival{
		peer: from, shipment: m.Shipment, message: m.Message, total: m.Bytes, name: messages.MemberName(nil, from), speed: speed{tickMS: i.tickMS},
		lineage: append([]uint64{from}, m.Lineage[:min(len(m.Lineage), lineageMax)]...),
	}
	return []effect{
		note{"a snapshot comes in", false, []any{"peer", i.current.name, "index", i.current.index(), "bytes", m.Bytes}},
		i.current.pull(false),
	}
}

// forget drops what came so far.
func (i *incoming) forget() []effect {
	c := i.current
	i.current = nil
	if c.received == 0 {
		return nil // the intake got nothing, and what it has from before may be installed by now
	}
	return []effect{post{to: toIntake, message: &messages.DropStaging{}}}
}

// fail drops what came so far and tells the peer why.
func (i *incoming) fail(code messages.Code, format string, args ...any) []effect {
	c := i.current
	why := messages.Errorf(code, format, args...)
	return append([]effect{
		endOf(c.peer, c.shipment, code, "%s", why.Message),
		note{"a snapshot did not come in", true, []any{"peer", c.name, "index", c.index(), "code", code.String(), "reason", why.Message}},
	}, i.forget()...)
}

func (i *incoming) onPiece(from messages.RaftID, m *messages.SnapshotPiece) []effect {
	c := i.current
	if from == 0 {
		return nil
	}
	if c == nil || c.peer != from || c.shipment != m.Shipment {
		return []effect{endOf(from, m.Shipment, messages.Code_NOT_FOUND, "this shipment is not known")}
	}
	chunk := m.Chunk
	if c.ended || chunk == nil || chunk.Sequence != c.received || c.received >= c.taken+shipWindow {
		return nil
	}
	if c.received == 0 {
		header, err := c.begins(chunk)
		if err != nil {
			return i.fail(err.Code, "%s", err.Message)
		}
		c.name = messages.MemberName(header.Members, c.peer)
	}
	if !c.busy() {
		c.worked = 0
	}
	c.received++
	c.silent = 0
	c.ended = chunk.Kind == messages.ChunkKind_TRAILER
	c.sizes = append(c.sizes, uint64(len(chunk.Body)))
	staged := &messages.StageChunk{Shipment: c.shipment, Chunk: chunk}
	if chunk.Sequence == 0 {
		staged.Lineage = c.lineage
	}
	return []effect{post{to: toIntake, message: staged}}
}

// begins holds the first chunk against the MsgSnap that was offered: raft and the log go
// by the MsgSnap, and must not install anything else.
func (a *arrival) begins(c *messages.SnapshotChunk) (*messages.SnapshotHeader, *messages.Error) {
	h, at := &messages.SnapshotHeader{}, a.message.GetSnapshot().GetMetadata()
	switch {
	case c.Kind != messages.ChunkKind_HEADER || c.Checksum != snapshot.Checksum(c) || proto.Unmarshal(c.Body, h) != nil:
		return nil, snapshot.Damaged("it does not begin with a header")
	case h.Index != at.GetIndex() || h.Term != at.GetTerm():
		return nil, messages.Errorf(messages.Code_INVALID, "index %d of term %d was offered, and index %d of term %d comes",
			at.GetIndex(), at.GetTerm(), h.Index, h.Term)
	case h.ConfState.Equivalent(at.GetConfState()) != nil:
		return nil, messages.Errorf(messages.Code_INVALID, "the members at index %d are not those that were offered", h.Index)
	}
	return h, nil
}

// onStaged hears that the intake has staged a chunk, or could not.
func (i *incoming) onStaged(m *messages.ChunkStaged) []effect {
	c := i.current
	switch {
	case c == nil || c.raftHas || c.shipment != m.Shipment:
		return nil
	case m.Code == messages.Code_UNSUPPORTED: // no other one would be understood either
		why := messages.Errorf(m.Code, "%s brings a newer state: %s: this node is too old and stops", c.name, m.Message).
			WithHint("start a newer version on this data directory; nothing of it is lost")
		return append(i.fail(m.Code, "%s", m.Message), outdated{why})
	case m.Code != messages.Code_OK:
		return i.fail(m.Code, "%s", m.Message)
	case m.Sequence != c.taken || c.taken == c.received:
		return i.fail(messages.Code_INTERNAL, "chunk %d was staged in place of chunk %d", m.Sequence, c.taken)
	}
	c.taken++
	c.worked = 0
	c.done += c.sizes[0]
	c.sizes = c.sizes[1:]
	if !m.Sealed {
		return []effect{c.pull(false)}
	}
	c.raftHas = true
	return []effect{
		post{to: toRaft, message: &messages.StagedSnapshot{Message: c.message}},
		c.pull(false),
	}
}

// onEnd hears that the sender gave it up.
func (i *incoming) onEnd(from messages.RaftID, m *messages.SnapshotEnd) []effect {
	c := i.current
	if c == nil || c.peer != from || c.shipment != m.Shipment || c.raftHas {
		return nil
	}
	return append([]effect{
		note{"a snapshot did not come in", true, []any{"peer", c.name, "index", c.index(), "code", m.Code.String(), "reason", m.Message}},
	}, i.forget()...)
}

// onInstalled hears that the staging is the state that counts. The intake must not drop
// it any more.
func (i *incoming) onInstalled(m *messages.Installed) []effect {
	return i.conclude("a snapshot was installed", m.Index)
}

func (i *incoming) onUnused(m *messages.StagingUnused) []effect {
	if i.current == nil || !i.current.raftHas {
		return nil
	}
	return append(i.conclude("a snapshot came in and is not needed", m.Index),
		post{to: toIntake, message: &messages.DropStaging{}})
}

// conclude ends what raft was told of: it is the state that counts, or of no use.
func (i *incoming) conclude(text string, index uint64) []effect {
	c := i.current
	if c == nil || !c.raftHas {
		return nil
	}
	i.current = nil
	told := note{text, false, []any{"index", index}}
	if c.peer == 0 {
		return []effect{told}
	}
	told.args = append(told.args, "peer", c.name, "bytes", c.done, "took", duration(c.age, i.tickMS))
	return []effect{told, endOf(c.peer, c.shipment, messages.Code_OK, "")}
}

func (i *incoming) tick(n uint32) []effect {
	c := i.current
	if c == nil || c.peer == 0 {
		return nil
	}
	c.age += n
	c.pulled += n
	c.worked += n
	c.speed.tick(n, c.done)
	if !c.busy() {
		if c.silent += n; c.silent >= intakeLostTicks {
			return i.fail(messages.Code_TIMED_OUT, "%s has sent nothing for %s", c.name, duration(c.silent, i.tickMS))
		}
	}
	if c.pulled < intakeAgainTicks {
		return nil
	}
	return []effect{c.pull(!c.busy())}
}

// transfer is how it stands, for people; nil: nothing comes.
func (i *incoming) transfer() *messages.Transfer {
	c := i.current
	if c == nil || c.peer == 0 {
		return nil
	}
	t := &messages.Transfer{Peer: c.peer, Incoming: true, Index: c.index(), BytesDone: c.done, BytesTotal: c.total}
	switch {
	case c.raftHas:
		t.WaitingFor = "this node is to install it"
	case c.busy() && c.worked >= shipHushedTicks:
		t.WaitingFor = "the disk of this node"
	case !c.busy() && c.silent >= shipHushedTicks:
		t.WaitingFor = c.name + " has sent nothing for " + duration(c.silent, i.tickMS)
	}
	c.speed.fill(t)
	return t
}
