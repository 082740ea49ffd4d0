package grpc

import (
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// detachesMax bounds the Detach messages of one connection beyond its Attach
// messages, in number.
const detachesMax = 256

// inlet delivers what comes in on one connection to the actors of a system.
type inlet struct {
	system *actor.ActorSystem
	conn   transport.Conn
	absent *atomic.Int64 // counts messages to actors that are not there
	from   *actor.PID    // who sent the last message

	detaches int  // more than there were attaches, at most detachesMax
	refused  bool // the far side refused to go on

	window *window          // bounds what a client has unanswered; nil: nothing does
	host   []byte           // of a client: the network it comes from
	inbox  *transport.Inbox // bounds what a node hands to the raft actor; nil: nothing does
	guest  *guest           // what it came in on; nil: this side dialled

	// rights are who may do what, and denied is told who was refused; nil: nobody is asked.
	rights *atomic.Pointer[transport.Rights]
	denied func(any)
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
		i.refused = true
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
	if i.conn.Role == messages.Role_CLIENT && i.rights != nil {
		i.conn.Claim(m, i.host)
		if reply, denied := i.rights.Load().Refuse(i.conn, m); reply != nil {
			i.system.Root.Send(i.sender(e.Sender), reply)
			if denied != nil {
				i.denied(denied)
			}
			return nil
		}
	}
	if i.conn.Role == messages.Role_NODE && !i.inbox.Enter(i.conn.RaftID, m) {
		i.refuse(e, m)
		return nil
	}
	pid := i.system.NewLocalPID(e.Target)
	if e.Sender == "" {
		target.SendUserMessage(pid, m)
	} else {
		target.SendUserMessage(pid, &actor.MessageEnvelope{Message: m, Sender: i.sender(e.Sender)})
	}
	return nil
}

// refuse tells whoever proposes that this was surely not proposed. Other messages are
// dropped: Raft sends them again.
func (i *inlet) refuse(e *messages.Envelope, m proto.Message) {
	if p, ok := m.(*messages.Propose); ok && e.Sender != "" {
		i.system.Root.Send(i.sender(e.Sender), &messages.ProposalRefused{Seq: p.Seq, Code: messages.Code_BUSY})
	}
}

// sender is the PID of an actor of the far side, mostly the last one's again. It
// may be shared: a PID of another system resolves to the hub or dialer, which lasts.
func (i *inlet) sender(name string) *actor.PID {
	if i.from == nil || i.from.Id != name {
		i.from = actor.NewPID(i.conn.Address, name)
	}
	return i.from
}

// count waits for room in the window of a client. The window counts requests against
// replies, so every request must name who is to be answered.
func (i *inlet) count(e *messages.Envelope, m proto.Message) error {
	if i.window == nil {
		return nil
	}
	switch m.(type) {
	case *messages.Attach:
		i.detaches--
	case *messages.Detach: // has no answer to be counted: one is allowed for each Attach here, and a few for those made elsewhere
		if i.detaches++; i.detaches > detachesMax {
			return messages.Errorf(messages.Code_NOT_ALLOWED, "%d sessions more are detached than were attached", i.detaches)
		}
		return nil
	}
	switch {
	case e.Sender == "":
		return messages.Errorf(messages.Code_INVALID, "a request names the actor that is to be answered")
	case !i.window.enter(len(e.Body)):
		return messages.Errorf(messages.Code_BUSY, "%d requests or %d bytes are unanswered", windowRequestsMax, windowBytesMax)
	}
	return nil
}
