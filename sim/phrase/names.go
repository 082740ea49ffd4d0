package phrase

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Names calls what is random in a scenario by names that mean something.
type Names struct {
	of       map[string]string          // by identity
	count    map[string]int             // identities of a kind, by whose they are
	replicas map[messages.RaftID]string // which node has a RaftID; it never is another's
}

// New knows nobody yet.
func New() *Names {
	return &Names{of: map[string]string{}, count: map[string]int{}, replicas: map[messages.RaftID]string{}}
}

// give names an identity after its owner: n1.1, and n1.2 after it was wiped.
func (n *Names) give(owner string, id []byte) {
	if _, known := n.of[string(id)]; !known && len(id) > 0 {
		n.count[owner]++
		n.of[string(id)] = fmt.Sprintf("%s.%d", owner, n.count[owner])
	}
}

// Own names the data that a server has now, and the replica that it is; 0: none yet.
func (n *Names) Own(server string, incarnation []byte, id messages.RaftID) {
	n.give(server, incarnation)
	if id != 0 {
		n.replicas[id] = server
	}
}

// Learn takes identities from the messages that bring them first.
func (n *Names) Learn(from string, m proto.Message) {
	switch m := m.(type) {
	case *messages.Attach:
		n.give(Host(from), m.Client)
	case *messages.Agreed:
		n.give("id", m.ClusterId)
	case *messages.MembersChanged:
		n.give("id", m.ClusterId)
		for _, member := range m.Members {
			n.replicas[member.RaftId] = member.Name
		}
	}
}

func (n *Names) id(id []byte) string {
	if name, known := n.of[string(id)]; known {
		return name
	}
	return fmt.Sprintf("%.4x", id)
}

// InText puts names in the place of identities that stand in a text as hex.
func (n *Names) InText(text string) string {
	for id, name := range n.of {
		text = strings.ReplaceAll(text, fmt.Sprintf("%x", id), name)
	}
	return text
}

// Node is what a machine of a simulated cluster, and the node on it, is called.
func Node(index int) string { return fmt.Sprintf("n%d", index+1) }

// Address is where its node listens.
func Address(index int) string { return fmt.Sprintf("10.0.0.%d:7001", index+1) }

// Replica is the node with this RaftID; 0 is nobody's.
func (n *Names) Replica(id messages.RaftID) string {
	if id == 0 {
		return "nobody"
	}
	if name, known := n.replicas[id]; known {
		return name
	}
	return fmt.Sprintf("replica %d", id)
}

// place is the node that listens at an address.
func place(endpoint string) string {
	var node, port int
	if _, err := fmt.Sscanf(endpoint, "10.0.0.%d:%d", &node, &port); err != nil {
		return endpoint
	}
	return Node(node - 1)
}
