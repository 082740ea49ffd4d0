package messages

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// Types numbers the messages that may cross a link. FROZEN: a number is never
// used again for another type. What is not here cannot be sent or received.
var types = []struct {
	number uint32
	make   func() proto.Message
}{
	{1, func() proto.Message { return new(Attach) }},
	{2, func() proto.Message { return new(Attached) }},
	{3, func() proto.Message { return new(Detach) }},
	{4, func() proto.Message { return new(Write) }},
	{5, func() proto.Message { return new(WriteReply) }},
	{6, func() proto.Message { return new(Read) }},
	{7, func() proto.Message { return new(ReadReply) }},
	{8, func() proto.Message { return new(StatusRequest) }},
	{9, func() proto.Message { return new(StatusReply) }},
	{10, func() proto.Message { return new(SnapshotRequest) }},
	{11, func() proto.Message { return new(SnapshotReply) }},
	{32, func() proto.Message { return new(RaftMessage) }},
	{33, func() proto.Message { return new(Propose) }},
	{34, func() proto.Message { return new(ProposalRefused) }},
	{35, func() proto.Message { return new(FounderState) }},
	{36, func() proto.Message { return new(SnapshotOffer) }},
	{37, func() proto.Message { return new(SnapshotPull) }},
	{38, func() proto.Message { return new(SnapshotPiece) }},
	{39, func() proto.Message { return new(SnapshotEnd) }},
	{40, func() proto.Message { return new(AuditAsk) }},
	{41, func() proto.Message { return new(AuditAnswer) }},
	{42, func() proto.Message { return new(AuditVerdict) }},
}

var (
	numberOf = map[reflect.Type]uint32{}
	makerOf  = map[uint32]func() proto.Message{}
)

func init() {
	for _, t := range types {
		numberOf[reflect.TypeOf(t.make())] = t.number
		makerOf[t.number] = t.make
	}
}

// TypeNumber is the number under which a message crosses a link.
func TypeNumber(m proto.Message) (uint32, bool) {
	n, ok := numberOf[reflect.TypeOf(m)]
	return n, ok
}

// Seal marshals a message for a link. target and sender are actors, without
// addresses; an empty sender expects no answer.
func Seal(target, sender string, m proto.Message) (*Envelope, error) {
	number, ok := TypeNumber(m)
	if !ok {
		return nil, fmt.Errorf("%T does not cross links", m)
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	return &Envelope{Type: number, Target: target, Sender: sender, Body: body}, nil
}

// Open is the inverse of Seal. It refuses unknown numbers and broken bodies.
func Open(e *Envelope) (proto.Message, error) {
	make, ok := makerOf[e.Type]
	if !ok {
		return nil, fmt.Errorf("unknown message type %d", e.Type)
	}
	m := make()
	if err := proto.Unmarshal(e.Body, m); err != nil {
		return nil, fmt.Errorf("message type %d: %w", e.Type, err)
	}
	return m, nil
}
