package phrase

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// phraseOfLosses are the messages about data that a node may have lost; nil for any other.
func (n *Names) phraseOfLosses(m proto.Message) []string {
	words := []string{}
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch m := m.(type) {
	case *messages.PeerRefused:
		say("by %s: %s", n.Replica(m.Peer), m.Code)
	case *messages.LossAsk, *messages.SuspicionRecorded:
	case *messages.LossAnswer:
		say("%s term=%d", n.Replica(m.Leader), m.Term)
		if m.Acknowledged > 0 {
			say("acknowledged=%d", m.Acknowledged)
		}
		if m.LedAcknowledged > 0 && m.LedTerm != m.Term {
			say("acknowledged=%d in term=%d", m.LedAcknowledged, m.LedTerm)
		}
		if m.Settled {
			say("settled")
		}
		for i, f := range m.Followers {
			if i == 0 {
				say("followed by")
			}
			say("%s", n.Replica(f))
		}
	case *messages.RecordSuspicion:
		if m.Condemned != "" {
			say("condemned: %s", m.Condemned)
		} else if len(m.Suspicion.GetAccusations()) == 0 {
			say("none")
		}
		for _, a := range m.Suspicion.GetAccusations() {
			if a.Term == 0 {
				say("by %s: an older copy", n.Replica(a.RaftId))
			} else {
				say("by %s: acknowledged=%d in term %d, and the log ends at %d", n.Replica(a.RaftId), a.Acknowledged, a.Term, a.Last)
			}
		}
	default:
		return nil
	}
	return words
}
