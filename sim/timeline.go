package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim/phrase"
)

// Bounds of what a failed run tells.
const (
	momentsKept = 4096            // moments that are remembered
	momentsTold = 160             // lines of the timeline
	tellingSpan = 2 * time.Second // that it goes back, at most
	deedsKept   = 60              // what the world did last
)

// timeline is what happened last, on all hosts in one order.
type timeline struct {
	moments []moment // a ring of momentsKept
	count   int
	deeds   []string // what the world did, the last of it
	before  int      // deeds that were forgotten
}

// moment is one event. Messages are never modified once they are sent, so they are
// rendered only if the run fails.
type moment struct {
	at      time.Duration
	host    string
	actorID string // empty: the world did it
	sender  string // empty: it does not say
	message any
}

func (t *timeline) add(m moment) {
	if len(t.moments) < momentsKept {
		t.moments = append(t.moments, m)
	} else {
		t.moments[t.count%momentsKept] = m
	}
	t.count++
}

// did remembers what the world did.
func (t *timeline) did(now time.Duration, name, text string) {
	t.add(moment{at: now, host: name, message: text})
	if len(t.deeds) == deedsKept {
		t.deeds = slices.Delete(t.deeds, 0, 1)
		t.before++
	}
	t.deeds = append(t.deeds, fmt.Sprintf("%s %s: %s", stamp(now), name, text))
}

func stamp(at time.Duration) string { return fmt.Sprintf("%11.6f", at.Seconds()) }

// faults is what the world did, a line each.
func (t *timeline) faults() []string {
	if t.before == 0 {
		return t.deeds
	}
	return append([]string{fmt.Sprintf("(%d more before)", t.before)}, t.deeds...)
}

// lines renders what happened last, the oldest first. What is said all the time is
// left out.
func (t *timeline) lines(names *phrase.Names, now time.Duration) []string {
	var lines []string
	for i := t.count - 1; i >= max(0, t.count-momentsKept) && len(lines) < momentsTold; i-- {
		m := t.moments[i%momentsKept]
		if m.at < now-tellingSpan {
			break
		}
		if m.tells() {
			lines = append(lines, fmt.Sprintf("%s %.400s", stamp(m.at), m.line(names)))
		}
	}
	slices.Reverse(lines)
	return lines
}

// tells reports whether people want to read it: not what the library says to actors, nor
// what is said all the time.
func (m moment) tells() bool {
	body, ours := m.message.(proto.Message)
	return m.actorID == "" || ours && !phrase.Noise(phrase.NameOf(body))
}

func (m moment) line(names *phrase.Names) string {
	if m.actorID == "" {
		return fmt.Sprintf("%s * %v", m.host, m.message)
	}
	from := ""
	switch said := m.message.(type) {
	case *messages.RaftMessage:
		from = " <- " + names.Replica(messages.RaftID(said.Message.GetFrom()))
	default:
		if m.sender != "" {
			from = " <- " + phrase.Short(m.sender)
		}
	}
	return fmt.Sprintf("%s %s%s %s", m.host, phrase.Short(m.actorID), from, render(names, m.message))
}

// render is a message on one line.
func render(names *phrase.Names, message any) string {
	switch m := message.(type) {
	case string:
		return m
	case proto.Message:
		return names.Line(m)
	default:
		return fmt.Sprintf("%T", message)
	}
}
