package grpc

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// stream is one end of a gRPC stream.
type stream interface {
	SendMsg(any) error
	RecvMsg(any) error
}

// writeQueue sends what comes into q, as much at a time as there is, until the
// stream breaks or stop is closed. What may not pass goes to reject.
func writeQueue(s stream, q *queue, stop <-chan struct{}, founding bool, reject func(item)) error {
	var batch []item
	for {
		select {
		case <-stop:
			return nil
		case <-q.ready:
		}
		batch = q.take(batch[:0], parcelSizeMax, transport.EnvelopesMax)
		if founding {
			batch = foundersOnly(batch, reject)
		}
		if len(batch) > 0 {
			if err := s.SendMsg(&outgoing{sealed: batch}); err != nil {
				return err
			}
		}
		clear(batch)
		q.sent()
	}
}

func foundersOnly(batch []item, reject func(item)) []item {
	kept := batch[:0]
	for _, it := range batch {
		if it.founding {
			kept = append(kept, it)
		} else {
			reject(it)
		}
	}
	return kept
}

// detachesMax bounds the Detach messages of one connection beyond its Attach
// messages, in number.
const detachesMax = 256

// inlet delivers what comes in on one connection to the actors of a system.
type inlet struct {
	system *actor.ActorSystem
	conn   transport.Conn
	absent *atomic.Int64 // counts messages to actors that are not there
	from   *actor.PID    // who sent the last message

	detaches int // more than there were attaches, at most detachesMax

	window *window         // bounds what a client has unanswered; nil: nothing does
	ended  <-chan struct{} // with window: closed when the connection has to end
	guest  *guest          // what it came in on; nil: this side dialled
}

// read delivers until the stream ends. The error is a *messages.Error if the far
// side sent what it may not send or refused to go on, and the stream's own
// otherwise. It never panics.
func (i *inlet) read(s stream) (err error) {
	in := &incoming{}
	defer in.free()
	defer func() {
		if r := recover(); r != nil {
			err = messages.Errorf(messages.Code_INTERNAL, "receiving from %s: %v", i.conn.Address, r)
		}
	}()
	for {
		if err := s.RecvMsg(in); err != nil {
			return err
		}
		if in.Control != nil {
			return i.control(in.Control)
		}
		i.guest.consumed()
		for _, e := range in.Envelopes {
			if err := i.deliver(e); err != nil {
				return err
			}
		}
		in.free()
	}
}

func (i *inlet) control(f *messages.Frame) error {
	if r := f.GetRefusal(); r != nil {
		return transport.Refused(i.conn.Address, r)
	}
	return messages.Errorf(messages.Code_INVALID, "%s sent a second hello", i.conn.Address)
}

func (i *inlet) deliver(e *messages.Envelope) error {
	m, err := i.conn.Open(e)
	if err != nil {
		return err
	}
	target, ok := i.system.ProcessRegistry.GetLocal(e.Target)
	if !ok {
		i.absent.Add(1)
		return nil
	}
	if err := i.count(e, m); err != nil {
		return err
	}
	pid := i.system.NewLocalPID(e.Target)
	if e.Sender == "" {
		target.SendUserMessage(pid, m)
	} else {
		target.SendUserMessage(pid, &actor.MessageEnvelope{Message: m, Sender: i.sender(e.Sender)})
	}
	return nil
}

// sender is the PID of an actor of the far side, mostly the last one's again. It
// may be shared: a PID of another system resolves to the hub or dialer, which lasts.
func (i *inlet) sender(name string) *actor.PID {
	if i.from == nil || i.from.Id != name {
		i.from = actor.NewPID(i.conn.Address, name)
	}
	return i.from
}

// count waits for room in the window of a client, which counts requests against
// replies: each names who is to be answered.
func (i *inlet) count(e *messages.Envelope, m proto.Message) error {
	if i.window == nil {
		return nil
	}
	switch m.(type) {
	case *messages.Attach:
		i.detaches--
	case *messages.Detach: // has no answer: there is one for an attach, and a few for those over other connections
		if i.detaches++; i.detaches > detachesMax {
			return messages.Errorf(messages.Code_NOT_ALLOWED, "%d sessions more are detached than were attached", i.detaches)
		}
		return nil
	}
	switch {
	case e.Sender == "":
		return messages.Errorf(messages.Code_INVALID, "a request names the actor that is to be answered")
	case !i.window.enter(len(e.Body), i.ended):
		return messages.Errorf(messages.Code_BUSY, "%d requests or %d bytes are unanswered", windowRequestsMax, windowBytesMax)
	}
	return nil
}

// outlet seals what the actors of a system send to another.
type outlet struct {
	system *actor.ActorSystem
	log    *limited
}

// seal makes an item of a message that this side may send over a connection; it
// reports false, and tells the log, for one that it may not.
func (o *outlet) seal(to transport.Conn, target string, message any, sender *actor.PID) (item, bool) {
	m, ok := message.(proto.Message)
	if !ok {
		o.log.warn("a message that does not cross links was dropped", "type", fmt.Sprintf("%T", message), "target", to.Address+"/"+target)
		return item{}, false
	}
	number, ok := messages.TypeNumber(m)
	if !ok {
		if _, dead := message.(*actor.DeadLetterResponse); !dead {
			o.log.warn("a message that does not cross links was dropped", "type", fmt.Sprintf("%T", message), "target", to.Address+"/"+target)
		}
		return item{}, false
	}
	name := ""
	if sender != nil {
		if sender.Address != o.system.Address() {
			o.log.warn("a message in the name of another system's actor was dropped", "sender", sender.Address+"/"+sender.Id)
			return item{}, false
		}
		name = sender.Id
	}
	size := proto.Size(m)
	if err := to.CheckOut(number, target, name, m, size); err != nil {
		o.log.warn("a message that the far side would refuse was dropped", "target", to.Address+"/"+target, "reason", err)
		return item{}, false
	}
	sealed, err := transport.Seal(number, target, name, m, size)
	if err != nil {
		o.log.warn("a message was dropped", "reason", err)
		return item{}, false
	}
	return item{sealed: sealed, founding: transport.IsFounding(m), lane: transport.LaneOf(m)}, true
}

// limited logs at most one line an interval, and how many it kept to itself.
type limited struct {
	logger *slog.Logger
	next   atomic.Int64 // Unix nanoseconds before which nothing is said
	kept   atomic.Int64
}

const logInterval = time.Second

func (l *limited) warn(message string, args ...any) {
	now, next := time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(logInterval)) {
		l.kept.Add(1)
		return
	}
	if kept := l.kept.Swap(0); kept > 0 {
		args = append(args, "kept_silent", kept)
	}
	l.logger.Log(context.Background(), slog.LevelWarn, "transport: "+message, args...)
}
