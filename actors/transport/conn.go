package transport

import (
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Conn is what a connection has proved about its far side: all that the guard
// needs to judge an envelope that comes from there.
type Conn struct {
	Role     messages.Role   // of the far side
	Address  string          // logical, of the far side
	RaftID   messages.RaftID // of the far side, if it is a node
	To       messages.Role   // of this side
	Local    messages.RaftID // of this side, if it is a node
	Lane     messages.Lane
	Founding bool // between nodes of which one knows no cluster yet

	// Principal is who the far side's certificate names: of clients, who asks.
	Principal Principal
}

// Accepted is the connection that an admitted hello makes.
func Accepted(local Local, from Principal, hello *messages.Hello) Conn {
	c := Conn{Principal: from, Role: hello.Role, Address: hello.Address, To: local.Role, Local: local.RaftID, Lane: hello.Lane}
	if hello.Role == messages.Role_NODE {
		c.RaftID, c.Address = hello.RaftId, messages.NodeAddress(hello.RaftId)
		c.Founding = len(hello.ClusterId) == 0 || len(local.ClusterID) == 0
		if len(hello.ClusterId) == 0 && len(local.ClusterID) > 0 {
			c.Address = messages.FounderAddress(hello.RaftId)
		}
	}
	return c
}

// Reached is the connection that an accepted welcome makes.
func Reached(local Local, from Principal, lane messages.Lane, w *messages.Welcome) Conn {
	c := Conn{Principal: from, Role: messages.Role_NODE, RaftID: w.RaftId, Address: messages.NodeAddress(w.RaftId), To: local.Role, Lane: lane}
	if local.Role == messages.Role_NODE {
		c.Local = local.RaftID
		c.Founding = len(w.ClusterId) == 0 || len(local.ClusterID) == 0
	}
	return c
}

// Check holds an envelope from the far side against what that side may send to
// which actor, without opening it. The error is a *messages.Error; the
// connection must end then.
func (c Conn) Check(e *messages.Envelope) error {
	k := messages.KindNumbered(e.GetType())
	if err := c.check(c.Role, c.To, e.GetType(), k, e.GetTarget(), e.GetSender(), len(e.GetBody())); err != nil {
		return err
	}
	if why := c.Principal.mayNot(c.Role, k); why != nil {
		return why
	}
	return nil
}

// Open is Check and messages.Open, and holds what the message says about its
// sender against what the connection has proved.
func (c Conn) Open(e *messages.Envelope) (proto.Message, error) {
	if err := c.Check(e); err != nil {
		return nil, err
	}
	m, err := messages.Open(e)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "%s sent a broken message: %v", c.Address, err)
	}
	what := contradiction(c.RaftID, c.Local, m)
	if what == "" {
		what = c.Principal.contradiction(m)
	}
	if what != "" {
		return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "%s sent %s", c.Address, what)
	}
	return m, nil
}

// CheckOut does for a message of kind k that is about to be sent what the far side's
// Open will do, so that a mistake of ours is reported here and does not cost the
// connection.
func (c Conn) CheckOut(k *messages.Kind, target, sender string, m proto.Message, size int) error {
	if err := c.check(c.To, c.Role, k.Number, k, target, sender, size); err != nil {
		return err
	}
	if what := contradiction(c.Local, c.RaftID, m); what != "" {
		return messages.Errorf(messages.Code_INTERNAL, "to %s: %s", c.Address, what)
	}
	return nil
}

// check judges an envelope on its way from one role to another. k is nil where no
// message has its number.
func (c Conn) check(from, to messages.Role, number uint32, k *messages.Kind, target, sender string, size int) error {
	switch {
	case k == nil || k.From != from || k.To != to:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "a %s sends no message of type %d to a %s", from, number, to)
	case !isActorName(target) || sender != "" && !isActorName(sender):
		return messages.Errorf(messages.Code_INVALID, "an actor's name is empty, too long or unprintable")
	case !reaches(k, target):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "a %s sends no %s to actor %s", from, k.Name, target)
	case size > bodySizeMax[k.Size]:
		return messages.Errorf(messages.Code_INVALID, "a %s of %d bytes, %d are allowed", k.Name, size, bodySizeMax[k.Size])
	case c.Founding && !k.Founding:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "only founders speak before there is a cluster")
	}
	return nil
}
