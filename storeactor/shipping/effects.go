package shipping

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// effect is what the cores of the snapshots actor want done, in the order
// given.
type effect interface{ effect() }

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
	// outdated ends the process: what comes is of newer software than this.
	outdated struct{ *messages.Error }
)

func (post) effect()     {}
func (note) effect()     {}
func (outdated) effect() {}

type postTo int

const (
	toMachine postTo = iota
	toRaft
	toIntake
	toArchive
	toAudit
	toPeer
)

func (t postTo) String() string {
	return [...]string{"machine", "raft", "intake", "archive", "audit", "peer"}[t]
}

// legibleMax bounds what one node tells another of a failure, in bytes.
const legibleMax = 1 << 10

// endOf tells a peer how a shipment ended.
func endOf(peer messages.RaftID, shipment uint64, code messages.Code, format string, args ...any) post {
	text := fmt.Sprintf(format, args...)
	return post{toPeer, peer, &messages.SnapshotEnd{Shipment: shipment, Code: code, Message: text[:min(len(text), legibleMax)]}}
}

// duration is a number of ticks, for people.
func duration(ticks uint32, tickMS uint64) string {
	if ms := uint64(ticks) * tickMS; ms < 1000 {
		return fmt.Sprintf("%d ms", ms)
	}
	return fmt.Sprintf("%d s", uint64(ticks)*tickMS/1000)
}
