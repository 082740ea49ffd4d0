package grpc

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// outlet seals what the actors of a system send to another.
type outlet struct {
	system *actor.ActorSystem
	log    *Limited
}

// seal makes an item of a message that this side may send over a connection; it
// reports false, and tells the log, for one that it may not.
func (o *outlet) seal(to transport.Conn, target string, message any, sender *actor.PID) (item, bool) {
	m, ok := message.(proto.Message)
	if !ok {
		o.log.Warn("a message that does not cross links was dropped", "type", fmt.Sprintf("%T", message), "target", to.Address+"/"+target)
		return item{}, false
	}
	kind := messages.KindOf(m)
	if kind == nil {
		if _, dead := message.(*actor.DeadLetterResponse); !dead {
			o.log.Warn("a message that does not cross links was dropped", "type", fmt.Sprintf("%T", message), "target", to.Address+"/"+target)
		}
		return item{}, false
	}
	name := ""
	if sender != nil {
		if sender.Address != o.system.Address() {
			o.log.Warn("a message in the name of another system's actor was dropped", "sender", sender.Address+"/"+sender.Id)
			return item{}, false
		}
		name = sender.Id
	}
	size := proto.Size(m)
	if err := to.CheckOut(kind, target, name, m, size); err != nil {
		o.log.Warn("a message that the far side would refuse was dropped", "target", to.Address+"/"+target, "reason", err)
		return item{}, false
	}
	sealed, err := transport.Seal(kind.Number, target, name, m, size)
	if err != nil {
		o.log.Warn("a message was dropped", "reason", err)
		return item{}, false
	}
	return item{sealed: sealed, founding: kind.Founding, lane: transport.LaneOf(kind, m)}, true
}
