package transport

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/messages"
)

// User is the name that rights are looked up by; empty: nobody's, as of a connection without
// keys, and of a node that comes as a client.
func (p Principal) User() string {
	if p.Kind == UserKey || p.Kind == TokenUser {
		return p.Name
	}
	return ""
}

// Claim writes into a client's message whose it is, over what it says itself. host is where it
// comes from, up to messages.HolderSizeMax bytes.
func (c Conn) Claim(m proto.Message, host []byte) {
	switch m := m.(type) {
	case *messages.Attach:
		m.Holder, m.Principal = c.holder(host), c.Principal.User()
	case *messages.ClusterRequest:
		m.Principal = c.Principal.User()
	case *messages.InvitationAsk:
		m.Host = host
	case *messages.LoginRequest:
		m.Host, m.Secured = host, c.Principal.Kind != Keyless
	}
}

// holder is whose sessions a client's are counted with: the user's, from wherever he comes, or
// without keys those of the host.
func (c Conn) holder(host []byte) []byte {
	if user := c.Principal.User(); user != "" {
		return messages.HolderOf(user)
	}
	return host
}

// Rights are who may do what, as far as a node knows. The zero Rights know nothing yet.
type Rights struct {
	known bool
	door  bool // somebody may have to come without a certificate
	auth  *messages.Auth
}

// KnownRights are those that were applied.
func KnownRights(a *messages.Auth) Rights {
	return Rights{true, a.GetEnabled() && slices.ContainsFunc(a.Users, func(u *messages.User) bool { return u.Password != nil }), a}
}

// Refuse answers a request of a client that is refused at the door, and says who asked for
// what, for the log; nil: it is let in. What is decided where it is carried out is let in.
func (r Rights) Refuse(c Conn, m proto.Message) (reply proto.Message, denied *messages.Denied) {
	need, here := auth.OfRequest(m)
	if c.Role != messages.Role_CLIENT || !here {
		return nil, nil
	}
	why := r.Lack(c.Principal, need)
	switch {
	case why == nil:
		return nil, nil
	case why.Code == messages.Code_BUSY:
		return refusal(m, why), nil
	}
	return refusal(m, why), &messages.Denied{Principal: c.Principal.User(), Why: why.Message, Request: messages.RequestIDOfNode(c.Address, number(m))}
}

// Lack is what a principal lacks for a need; nil: nothing. BUSY: that is not known yet.
func (r Rights) Lack(p Principal, need auth.Need) *messages.Error {
	if !r.known && p.Kind != Keyless {
		return messages.Errorf(messages.Code_BUSY, "the node is starting, and does not know yet who may do what")
	}
	return auth.Missing(r.auth, p.User(), need)
}

// number is that of a request that names no session.
func number(m proto.Message) uint64 {
	if n, is := m.(interface{ GetRequest() uint64 }); is {
		return n.GetRequest()
	}
	return 0
}

func refusal(m proto.Message, why *messages.Error) proto.Message {
	switch m := m.(type) {
	case *messages.StatusRequest:
		return &messages.StatusReply{Request: m.Request, Code: why.Code, Message: why.Message, Hint: why.Hint}
	case *messages.ClusterRequest:
		return &messages.ClusterReply{Request: m.Request, Code: why.Code, Message: why.Message, Hint: why.Hint}
	case *messages.SnapshotRequest:
		return &messages.SnapshotReply{Request: m.Request, Code: why.Code, Message: why.Message, Hint: why.Hint}
	}
	panic("transport: nobody has said how a request is refused") // a test asks it for each that there is
}
