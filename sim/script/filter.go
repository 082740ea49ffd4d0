package script

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim"
	"keyval/sim/phrase"
)

// filter is what a script wants to hear: of all actors or some, all messages but
// noise, or some.
type filter struct {
	on       bool
	actors   []string // kinds of actors, at either end; empty: all
	messages []string // empty: all but noise
}

func (f filter) passes(name string, m sim.Said) bool {
	switch {
	case !f.on,
		len(f.messages) == 0 && noise[name],
		len(f.messages) > 0 && !slices.Contains(f.messages, name):
		return false
	}
	return len(f.actors) == 0 || slices.Contains(f.actors, phrase.Kind(m.From)) || slices.Contains(f.actors, phrase.Kind(m.To))
}

// noise is said all the time, and all the same; a script must ask to hear it.
var noise = map[string]bool{
	"Tick": true, "Ticked": true, "Flush": true, "HearTicks": true, "LogTimeAdvanced": true,
	"MsgHeartbeat": true, "MsgHeartbeatResp": true,
	"Submit": true, "Done": true, // the verb, and its answer
	"AuditAsk": true, "AuditAnswer": true, "ReadsDone": true,
}

// auditing reports whether a message is of the audits that go on for ever.
func auditing(body proto.Message, m sim.Said) bool {
	if at, is := body.(*messages.ReadAt); is {
		return len(at.Reads) > 0 && at.Reads[0].Session == messages.ActorAudit
	}
	return phrase.Kind(m.To) == "audit" || phrase.Kind(m.From) == "audit"
}

// wanted is the message that a script waits for.
type wanted struct {
	name, to, from string // to and from: a host; empty: any
	came           bool
}

func (w *wanted) meets(name string, m sim.Said) bool {
	return !w.came && name == w.name && (w.to == "" || phrase.Host(m.To) == w.to) && (w.from == "" || phrase.Host(m.From) == w.from)
}
