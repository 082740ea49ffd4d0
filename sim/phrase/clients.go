package phrase

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// phraseOfClients are the messages of clients and of founding.
func (n *Names) phraseOfClients(name string, m proto.Message) string {
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch m := m.(type) {
	case *messages.Attach:
		say("client=%s", n.id(m.Client))
	case *messages.WriteReply:
		say("#%d", m.Request)
		words = append(words, outcome(&messages.Outcome{Code: m.Code, Revision: m.Revision, Deleted: m.Deleted, More: m.More, Unopened: m.Unopened})...)
		words = append(words, because(m.Message, m.Leader)...)
	case *messages.ReadReply:
		say("#%d", m.Request)
		words = append(words, outcome(&messages.Outcome{Code: m.Code, Revision: m.Revision})...)
		for _, i := range m.Items {
			say("%s=%.60q of revision %d", i.Key, i.Value, i.Revision)
		}
		if m.Digest != nil {
			say("%s", digestText(m.Digest))
		}
		words = append(words, because(m.Message, m.Leader)...)
	case *messages.Attached:
		say("%s session=%s log_time_ms=%d", m.Code, sessionText(m.Session), m.LogTimeMs)
		words = append(words, because(m.Message, m.Leader)...)
	case *messages.SessionLeader:
		say("%s term=%d", n.Replica(m.Leader.GetRaftId()), m.Term)
		if m.Fenced {
			say("fenced")
		}
	case *messages.LeaderChanged:
		say("%s term=%d", n.Replica(m.Leader), m.Term)
		if m.Fenced {
			say("fenced")
		}
	case *messages.FounderState:
		if m.Answer {
			say("answer")
		}
		if m.Founded {
			say("founded")
		}
		if len(m.ClusterId) > 0 {
			say("cluster=%s", n.id(m.ClusterId))
		}
		words = append(words, n.founders(m.Founders)...)
	case *messages.Agreed:
		say("cluster=%s", n.id(m.ClusterId))
		words = append(words, n.founders(m.Founders)...)
	case *messages.Initialised:
		say("cluster=%s", n.id(m.ClusterId))
	case *messages.Founded:
		say("cluster=%s", n.id(m.ClusterId))
	case *messages.Identified:
		say("cluster=%s", n.id(m.ClusterId))
	case *messages.PeerStarted:
		say("%s start=%d", n.Replica(m.Start.GetRaftId()), m.Start.GetNumber())
	case *messages.MembersChanged:
		for _, member := range m.Members {
			say("%s", member.Name)
		}
		words = append(words, levelText(m.Level)...)
	case *messages.LinkUp:
		say("%s", m.Name)
	case *messages.LinkDown:
		say("%s %s %q", place(m.Endpoint), m.Code, m.Message)
	case *messages.ClientGone:
	case *messages.PeerGone:
		say("%s", n.Replica(m.Peer))
	case *messages.Done:
		return n.answer(m)
	default:
		for _, phrase := range []func(proto.Message) []string{n.phraseOfSnapshots, n.phraseOfLosses, n.phraseOfMembers} {
			if words = phrase(m); words != nil {
				break
			}
		}
		if words == nil {
			return messages.Line(m)
		}
	}
	return name + "{" + strings.Join(words, " ") + "}"
}

// founders are those whose incarnation is known, and ? for the others.
func (n *Names) founders(founders []*messages.Founder) []string {
	var words []string
	for _, f := range founders {
		if len(f.Incarnation) == 0 {
			words = append(words, f.Name+".?")
		} else {
			words = append(words, n.id(f.Incarnation))
		}
	}
	return words
}

// answer is what a client was told in the end.
func (n *Names) answer(d *messages.Done) string {
	var words []string
	switch {
	case d.Write != nil:
		words = outcome(&messages.Outcome{Code: d.Write.Code, Revision: d.Write.Revision, Deleted: d.Write.Deleted, FailedCondition: d.Write.FailedCondition})
		words = append(words, because(d.Write.Message, nil)...)
	case d.Read != nil:
		words = append(words, d.Read.Code.String())
		for _, i := range d.Read.Items {
			words = append(words, fmt.Sprintf("%q of revision %d,", i.Value, i.Revision))
		}
		if d.Read.Revision > 0 {
			words = append(words, fmt.Sprintf("read at revision %d", d.Read.Revision))
		}
		words = append(words, because(d.Read.Message, nil)...)
	case d.Snapshot != nil:
		words = snapshotAnswer(d.Snapshot)
	case d.Cluster != nil:
		words = []string{d.Cluster.Code.String()}
		if d.Cluster.Level > 0 {
			words = append(words, fmt.Sprintf("level=%d", d.Cluster.Level))
		}
		words = append(words, because(d.Cluster.Message, nil)...)
	}
	if d.Endpoint != "" {
		words = append(words, "by "+place(d.Endpoint))
	}
	return strings.Join(words, " ")
}
