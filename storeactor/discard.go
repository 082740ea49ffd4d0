package storeactor

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
	"keyval/mutant"
)

// discarding frees the space of history that was given up. Somebody may still need it:
// replay after a crash, and readers. So it goes in four steps:
//
//  1. A checkpoint that knows of the compaction becomes durable. Replay starts there,
//     and reads above it only.
//  2. Every reader answers a question that stands behind the reads it has: those were
//     accepted while their revisions were kept.
//  3. The engine hears the floor: it may drop what only reads below could see.
//  4. If a client asked for space, a reclaim makes the engine drop it now.
type discarding struct {
	floor   uint64 // the engine was told
	reclaim bool   // wanted once all is discarded that may be

	next    uint64 // the floor that the readers' answers allow
	first   uint64 // number of the question to the first reader
	waiting []bool // by reader: its answer is missing
	left    int    // answers that are missing
	ticks   uint64 // since they were asked
}

// questionTicks is when a reader is asked again: one that failed has lost its question.
const questionTicks = 20

// discard begins to free what may go, or goes on to the reclaim if nothing may.
func (m *machineActor) discard(ctx actor.Context) {
	d := &m.discarding
	if m.phase != serving || d.left > 0 {
		return
	}
	if mutant.NothingDiscarded { // it takes space for ever
		return
	}
	floor := m.pins.floor(m.durable.CompactedRevision)
	if mutant.PinsIgnored { // a shipment reads what is not there
		floor = m.durable.CompactedRevision
	}
	if mutant.DiscardUncovered { // replay reads what is not there
		floor = m.state.Compacted()
	}
	if floor <= d.floor {
		m.reclaimIfWanted(ctx)
		return
	}
	if mutant.DiscardOvertakes { // a read that was let in misses rows
		d.floor = floor
		m.engine.Discard(floor)
		return
	}
	d.next, d.ticks = floor, 0
	d.first += uint64(len(d.waiting))
	d.waiting = slices.Repeat([]bool{true}, len(m.readers))
	d.left = len(d.waiting)
	m.askReaders(ctx)
}

// askReaders gives each reader that has not answered an empty read, which it comes to
// after all that it was given before.
func (m *machineActor) askReaders(ctx actor.Context) {
	for i, reader := range m.readers {
		if m.discarding.waiting[i] {
			ctx.Send(reader, &messages.ReadAt{Reads: []*messages.ReadIndex{
				{Session: ctx.Self().Id, Read: &messages.Read{Request: m.discarding.first + uint64(i)}},
			}})
		}
	}
}

// onReadReply counts the readers that have done what they were given before. They refuse
// later reads below the floor, since each comes with the compacted revision.
func (m *machineActor) onReadReply(ctx actor.Context, msg *messages.ReadReply) {
	d := &m.discarding
	i := msg.Request - d.first
	if m.phase != serving || d.left == 0 || i >= uint64(len(d.waiting)) || !d.waiting[i] {
		return // of a question before
	}
	d.waiting[i] = false
	if d.left--; d.left > 0 {
		return
	}
	d.floor = d.next
	m.engine.Discard(d.floor)
	m.discard(ctx) // there may be more by now
}

func (m *machineActor) discardTicked(ctx actor.Context, n uint64) {
	d := &m.discarding
	if d.left == 0 {
		m.discard(ctx)
		return
	}
	if d.ticks += n; d.ticks >= questionTicks {
		d.ticks = 0
		m.askReaders(ctx)
	}
}
