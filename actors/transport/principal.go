package transport

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Principal is who a certificate or a token names, which the network has verified. What somebody
// may do follows from it, never from the address that he has. The zero Principal is that of a
// connection without keys.
type Principal struct {
	Kind PrincipalKind
	Name string // of a node its NodeName, of a user his own
}

// PrincipalKind is how somebody is known.
type PrincipalKind int

const (
	Keyless PrincipalKind = iota // there is no certificate
	Unnamed                      // it is sound, and names neither a node nor a user
	NodeKey
	UserKey
	Nobody    // he has shown neither certificate nor token, and the door is open to those who log in
	TokenUser // a user, by a token
)

// The URIs that certificates name a principal by.
const (
	nodeURI = "keyval://node/"
	userURI = "keyval://user/"
)

// PrincipalOf is who a certificate names by its URIs of scheme keyval, or else, if it has
// none, by its common name: that is a user's. One that names two is nobody's.
func PrincipalOf(uris []string, commonName string) Principal {
	var found []string
	for _, u := range uris {
		if strings.HasPrefix(u, "keyval:") {
			found = append(found, u)
		}
	}
	p := Principal{Kind: UserKey, Name: commonName}
	if len(found) > 0 {
		p = Principal{Kind: Unnamed}
		if name, ok := strings.CutPrefix(found[0], nodeURI); ok {
			p = Principal{Kind: NodeKey, Name: name}
		} else if name, ok := strings.CutPrefix(found[0], userURI); ok {
			p = Principal{Kind: UserKey, Name: name}
		}
	}
	if len(found) > 1 || messages.CheckNodeName(p.Name) != nil {
		return Principal{Kind: Unnamed}
	}
	return p
}

// URI is what a certificate of this principal holds.
func (p Principal) URI() string {
	if p.Kind == NodeKey {
		return nodeURI + p.Name
	}
	return userURI + p.Name
}

// String is for people: node n1, user alice.
func (p Principal) String() string {
	switch p.Kind {
	case Keyless:
		return "nobody, for there are no keys"
	case NodeKey:
		return "node " + p.Name
	case UserKey, TokenUser:
		return "user " + p.Name
	case Nobody:
		return "nobody, for there is neither a certificate nor a token"
	}
	return "neither a node nor a user"
}

// admitPrincipal holds what a hello says against the certificate that it came with. A
// node that has no keys asks nobody for his.
func admitPrincipal(local Local, known Known, from Principal, hello *messages.Hello) *messages.Error {
	const made = "each node and each user needs a certificate of its own: kvctl cert create-node, kvctl cert create-client"
	switch {
	case local.Principal.Kind == Keyless:
		return nil
	case from.Kind == Keyless, from.Kind == Nobody && hello.Role == messages.Role_NODE:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "node %s takes no connection without a certificate", local.Name).
			WithHint("give one: --certs-dir DIR, or --cacert, --cert and --key; a user with a password may log in: kvctl login USER")
	case from.Kind == Unnamed:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate names neither a node nor a user").WithHint(made)
	case hello.Role != messages.Role_NODE:
		return nil
	case from.Kind != NodeKey:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s cannot speak as a node", from).WithHint(made)
	case from.Name != hello.Name:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s cannot speak as node %s", from, Legible(hello.Name)).WithHint(made)
	}
	return known.misnamed(hello.RaftId, from)
}

// welcomedBy holds a welcome against the certificate of whoever sent it.
func welcomedBy(local Local, known Known, from Principal, w *messages.Welcome) *messages.Error {
	const hint = "another process answers at this address: see what runs there"
	switch {
	case local.Principal.Kind == Keyless:
		return nil
	case from.Kind != NodeKey:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the answer came with a certificate of %s, not of a node", from).WithHint(hint)
	case from.Name != w.Name:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s cannot speak as node %s", from, Legible(w.Name)).WithHint(hint)
	case w.RaftId == 0:
		return nil
	}
	return known.misnamed(w.RaftId, from)
}

// misnamed says why a node's certificate is not that of a member; nil: it is, or the
// member is not known here.
func (k Known) misnamed(id messages.RaftID, from Principal) *messages.Error {
	if name, known := k.names[id]; known && from.Kind == NodeKey && name != from.Name {
		return messages.Errorf(messages.Code_NOT_ALLOWED, "raft id %d is node %s, and the certificate that of %s", id, name, from).
			WithHint("a certificate is good for the node that it names, and for no other")
	}
	return nil
}

// RefusesOf is Refuses, and whether the certificate is still that of the member.
func (k Known) RefusesOf(from Principal, hello *messages.Hello) *messages.Error {
	if why := k.misnamed(hello.RaftId, from); why != nil {
		return why
	}
	return k.Refuses(hello.RaftId, hello.Incarnation, hello.Starts)
}

// mayNot says why a principal that came in a role sends no message of a kind; nil: it may.
// A node that joins is a client until it is a member, and asks for that alone. This is
// where the rights of users belong.
func (p Principal) mayNot(role messages.Role, k *messages.Kind) *messages.Error {
	switch {
	case p.Kind == Keyless || role != messages.Role_CLIENT:
		return nil
	case p.Kind == Nobody && !k.Nobody:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "whoever has shown neither a certificate nor a token sends no %s", k.Name).
			WithHint("log in first: kvctl login USER; or give a certificate: --certs-dir DIR")
	case p.Kind == Nobody:
		return nil
	case p.Kind == NodeKey && !k.Joining:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s is no user's, and sends no %s as a client", p, k.Name).
			WithHint("use the certificate of a user: kvctl cert create-client USER")
	case p.Kind != NodeKey && k.Joining:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "%s cannot ask for a node to be let in", p).
			WithHint("start the node with a certificate of its own: kvctl cert create-node NAME HOST")
	}
	return nil
}

// contradiction says what is wrong with a message of this principal; empty: nothing is.
func (p Principal) contradiction(m proto.Message) string {
	if ask, ok := m.(*messages.JoinAsk); ok && p.Kind == NodeKey && ask.GetNode().GetName() != p.Name {
		return "a question of node " + Legible(ask.GetNode().GetName()) + " with the certificate of " + p.String()
	}
	return ""
}

// WarnBefore is how long before a certificate expires people are told.
const WarnBefore = 30 * 24 * time.Hour

// KeysIssue is what is wrong with what a node's links are secured with, or will be soon;
// empty: nothing. It is a clause whose subject is the node.
func KeysIssue(k *messages.Keys, now time.Time) string {
	left := time.UnixMilli(k.GetExpiresMs()).Sub(now)
	switch {
	case k.GetOpen():
		return "listens beyond its machine without keys (--insecure): whoever reaches it can read and delete everything"
	case k.GetProblem() != "":
		return "has new keys that it cannot use: " + k.Problem
	case k.GetExpiresMs() == 0 || left > WarnBefore:
		return ""
	case left <= 0:
		return fmt.Sprintf("has keys of which %s expired %v ago", k.ExpiresWhat, (-left).Round(time.Minute))
	}
	return fmt.Sprintf("has keys of which %s expires in %d days", k.ExpiresWhat, int(left.Hours()/24))
}
