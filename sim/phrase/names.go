package phrase

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Names calls what is random in a scenario by names that mean something.
type Names struct {
	of    map[string]string // by identity
	count map[string]int    // identities of a kind, by whose they are
}

// New knows nobody yet.
func New() *Names { return &Names{of: map[string]string{}, count: map[string]int{}} }

// give names an identity after its owner: n1.1, and n1.2 after it was wiped.
func (n *Names) give(owner string, id []byte) {
	if _, known := n.of[string(id)]; !known && len(id) > 0 {
		n.count[owner]++
		n.of[string(id)] = fmt.Sprintf("%s.%d", owner, n.count[owner])
	}
}

// Own names the data that a server has now.
func (n *Names) Own(server string, incarnation []byte) { n.give(server, incarnation) }

// Learn takes identities from the messages that bring them first.
func (n *Names) Learn(from string, m proto.Message) {
	switch m := m.(type) {
	case *messages.Attach:
		n.give(Host(from), m.Client)
	case *messages.Agreed:
		n.give("id", m.ClusterId)
	case *messages.MembersChanged:
		n.give("id", m.ClusterId)
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

// Node is what a node of a simulated cluster is called.
func Node(index int) string { return fmt.Sprintf("n%d", index+1) }

// Address is where it listens.
func Address(index int) string { return fmt.Sprintf("10.0.0.%d:7001", index+1) }

// Replica is the node with this identity; 0 is nobody's.
func Replica(id messages.RaftID) string {
	if id == 0 {
		return "nobody"
	}
	return Node(int(id) - 1)
}

// place is the node that listens at an address.
func place(endpoint string) string {
	var node, port int
	if _, err := fmt.Sscanf(endpoint, "10.0.0.%d:%d", &node, &port); err != nil {
		return endpoint
	}
	return Node(node - 1)
}
