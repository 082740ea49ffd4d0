package messages

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Kind is what is true of all messages of one type that may cross links, as the
// .proto says where the type is declared. It is never modified.
type Kind struct {
	Number   uint32 // in an Envelope
	Name     string
	From, To Role
	Actor    string // who alone may receive it; with a dash at its end: any of that prefix; empty: any actor of a client
	Lane     Lane   // between nodes, unless transport.LaneOf says otherwise
	Size     Size
	Founding bool // it passes even before there is a cluster
	Joining  bool // with keys, a node's alone may send it as a client, and nothing else
	Nobody   bool // with keys, it is all that a client may send that has shown neither certificate nor token

	make protoreflect.MessageType
}

// What is not here cannot be sent or received.
var (
	kindsByType   = map[reflect.Type]*Kind{}
	kindsByNumber []*Kind // nil where there is none
)

func init() {
	for _, file := range []protoreflect.FileDescriptor{File_client_proto, File_peer_proto} {
		for i := range file.Messages().Len() {
			d := file.Messages().Get(i)
			if c := proto.GetExtension(d.Options(), E_Crosses).(*Crossing); c != nil {
				addKind(d, c)
			}
		}
	}
}

func addKind(d protoreflect.MessageDescriptor, c *Crossing) {
	message, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err)
	}
	k := &Kind{
		Number: c.Type, Name: string(d.Name()), From: c.From, To: c.To, Actor: c.Actor, Lane: c.Lane, Size: c.Size,
		Founding: c.Founding, Joining: c.Joining, Nobody: c.Nobody, make: message,
	}
	for uint32(len(kindsByNumber)) <= k.Number {
		kindsByNumber = append(kindsByNumber, nil)
	}
	if k.Number == 0 || kindsByNumber[k.Number] != nil {
		panic(fmt.Sprintf("messages: %s crosses links under the number %d, which it cannot have", k.Name, k.Number))
	}
	kindsByNumber[k.Number] = k
	kindsByType[reflect.TypeOf(message.Zero().Interface())] = k
}

// KindOf is the kind of a message; nil: it does not cross links.
func KindOf(m proto.Message) *Kind { return kindsByType[reflect.TypeOf(m)] }

// KindNumbered is the kind with a number; nil: there is none.
func KindNumbered(number uint32) *Kind {
	if uint64(number) >= uint64(len(kindsByNumber)) {
		return nil
	}
	return kindsByNumber[number]
}

// Seal marshals a message for a link. target and sender are actors, without
// addresses; an empty sender expects no answer.
func Seal(target, sender string, m proto.Message) (*Envelope, error) {
	kind := KindOf(m)
	if kind == nil {
		return nil, fmt.Errorf("%T does not cross links", m)
	}
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	return &Envelope{Type: kind.Number, Target: target, Sender: sender, Body: body}, nil
}

// Open is the inverse of Seal. It refuses unknown numbers and broken bodies.
func Open(e *Envelope) (proto.Message, error) {
	kind := KindNumbered(e.Type)
	if kind == nil {
		return nil, fmt.Errorf("unknown message type %d", e.Type)
	}
	m := kind.make.New().Interface()
	if err := proto.Unmarshal(e.Body, m); err != nil {
		return nil, fmt.Errorf("%s: %w", kind.Name, err)
	}
	return m, nil
}
