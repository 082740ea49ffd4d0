package phrase

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// phraseOfMembers are the messages about who comes and who goes; nil for any other.
func (n *Names) phraseOfMembers(m proto.Message) []string {
	words := []string{}
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch m := m.(type) {
	case *messages.JoinAsk:
		say("%s at %s with %s", m.Node.GetName(), place(m.Node.GetAddress()), n.id(m.Node.GetIncarnation()))
	case *messages.JoinAnswer:
		say("%s", m.Code)
		if m.Again {
			say("ask again")
		}
		if m.RaftId != 0 {
			say("replica=%d cluster=%s", m.RaftId, n.id(m.ClusterId))
		}
		words = append(words, because(m.Message, nil)...)
	case *messages.InvitationAsk:
		say("%s by %s", m.Node, n.id(m.Id))
		if m.Done {
			say("done")
		}
	case *messages.InvitationAnswer:
		say("%s", m.Code)
		if len(m.Sealed) > 0 {
			say("sealed=%d", len(m.Sealed))
		}
		words = append(words, because(m.Message, nil)...)
	case *messages.Joined:
		say("replica=%d cluster=%s", m.RaftId, n.id(m.ClusterId))
	case *messages.Removed:
		if m.Confirmed {
			say("confirmed")
		}
		say("%q", n.InText(m.Why))
	default:
		return nil
	}
	return words
}
