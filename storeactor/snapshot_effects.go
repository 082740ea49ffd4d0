package storeactor

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// snapshotEffect is what the cores of the snapshots actor want done, in the order
// given.
type snapshotEffect interface{ snapshotEffect() }

type (
	// post sends a message to an actor of this node, or to a peer's snapshots.
	post struct {
		to      postTo
		peer    messages.RaftID // of toPeer
		message proto.Message
	}
	// note tells the log of this node.
	note struct {
		text   string
		failed bool
		args   []any
	}
)

func (post) snapshotEffect() {}
func (note) snapshotEffect() {}

type postTo int

const (
	toMachine postTo = iota
	toRaft
	toIntake
	toArchive
	toPeer
)

func (t postTo) String() string {
	return [...]string{"machine", "raft", "intake", "archive", "peer"}[t]
}

// legibleMax bounds what one node tells another of a failure, in bytes.
const legibleMax = 1 << 10

// snapshotEnd tells a peer how a shipment ended.
func snapshotEnd(peer messages.RaftID, shipment uint64, code messages.Code, format string, args ...any) post {
	text := fmt.Sprintf(format, args...)
	return post{toPeer, peer, &messages.SnapshotEnd{Shipment: shipment, Code: code, Message: text[:min(len(text), legibleMax)]}}
}

// transferMeter tells how fast bytes went lately.
type transferMeter struct {
	tickMS uint64
	now    uint64          // ticks
	points []transferPoint // the oldest first, at most transferPoints, transferPace ticks apart
}

type transferPoint struct{ tick, bytes uint64 }

const (
	transferPoints = 8
	transferPace   = 5
)

// tick takes how many bytes there are by now.
func (m *transferMeter) tick(n uint32, bytes uint64) {
	m.now += uint64(n)
	if l := len(m.points); l > 0 && m.now-m.points[l-1].tick < transferPace {
		return
	}
	if len(m.points) == transferPoints {
		m.points = append(m.points[:0], m.points[1:]...)
	}
	m.points = append(m.points, transferPoint{m.now, bytes})
}

// rate is in bytes a second.
func (m *transferMeter) rate(bytes uint64) uint64 {
	if len(m.points) == 0 || m.points[0].tick == m.now || bytes < m.points[0].bytes {
		return 0
	}
	return (bytes - m.points[0].bytes) * 1000 / ((m.now - m.points[0].tick) * m.tickMS)
}

// fill adds rate and remaining time to a transfer whose bytes are known.
func (m *transferMeter) fill(t *messages.Transfer) {
	t.BytesTotal = max(t.BytesTotal, t.BytesDone)
	t.Rate = m.rate(t.BytesDone)
	if t.Rate > 0 {
		t.EtaMs = (t.BytesTotal - t.BytesDone) * 1000 / t.Rate
	}
}

// duration is a number of ticks, for people.
func duration(ticks uint32, tickMS uint64) string {
	if ms := uint64(ticks) * tickMS; ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%d s", uint64(ticks)*tickMS/1000)
}
