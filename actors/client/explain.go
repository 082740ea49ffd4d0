package client

import (
	"fmt"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/mutant"
)

const (
	hintUnknown       = "read the key before you try again"
	hintUnknownChange = "look at the members and the operations; asking for the same once more does no harm"
)

// explainExpired says why a request had no answer in time.
func (c *core) explainExpired(r *request) *messages.Error {
	switch {
	case r.live > 0 && !mutant.DeadlineDenies: // it may be done
		return explainUnknown(r, fmt.Sprintf("no answer within %d ms", r.limit))
	case r.last != nil:
		return c.explainLast(r)
	case c.links.current == nil && r.via == nil && (r.kind == write || r.endpoint == ""):
		return c.explainUnreachable()
	case c.links.current == nil && r.via == nil:
		why := c.explainUnreachable()
		why.Code, why.Message = messages.Code_TIMED_OUT, fmt.Sprintf("no answer within %d ms; %s", r.limit, why.Message)
		return why
	case r.kind == write:
		return messages.Errorf(messages.Code_TIMED_OUT, "the write was not sent within %d ms: others were before it", r.limit).
			WithHint("nothing was written; send less at once, or allow more time")
	}
	return messages.Errorf(messages.Code_TIMED_OUT, "no answer within %d ms", r.limit).
		WithHint("try again, or allow more time")
}

// explainLast reports the refusal that a request met last. It was surely not done.
func (c *core) explainLast(r *request) *messages.Error {
	why := *r.last
	if why.Code == messages.Code_REDIRECT {
		why.Code = messages.Code_NO_LEADER
	}
	why.Message = fmt.Sprintf("not done within %d ms: %s", r.limit, why.Message)
	if why.Hint == "" {
		why.Hint = "nothing was done; try again"
	}
	return &why
}

func explainUnknown(r *request, reason string) *messages.Error {
	if r.change {
		return messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "%s: the change may or may not have been begun", reason).WithHint(hintUnknownChange)
	}
	return messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "%s: the write may or may not have happened", reason).WithHint(hintUnknown)
}

func explainWithdrawn(r *request) *messages.Error {
	switch {
	case r.live > 0:
		return explainUnknown(r, "the wait was given up")
	case r.kind == write:
		return messages.Errorf(messages.Code_TIMED_OUT, "the write was given up before it was under way: nothing was written")
	}
	return messages.Errorf(messages.Code_TIMED_OUT, "the wait was given up")
}

func explainClosed(r *request) *messages.Error {
	if r.live > 0 {
		return explainUnknown(r, "the client was closed")
	}
	return messages.Errorf(messages.Code_INVALID, "the client was closed before the answer came")
}

// explainUnreachable names each endpoint and what is wrong with it.
func (c *core) explainUnreachable() *messages.Error {
	code, hint := messages.Code_UNREACHABLE, ""
	var reasons []string
	all := append([]*endpoint{}, c.links.places()...)
	for _, e := range c.links.learned {
		if !e.member {
			all = append(all, e)
		}
	}
	for _, e := range all {
		if e.note == nil {
			reasons = append(reasons, e.name+": no answer yet")
			continue
		}
		reason := e.note.Message
		if !strings.Contains(reason, e.name) {
			reason = e.name + ": " + reason
		}
		reasons = append(reasons, reason)
		if hint == "" {
			hint = e.note.Hint
		}
	}
	full := !slices.ContainsFunc(all, func(e *endpoint) bool { return e.note == nil || e.note.Code != messages.Code_BUSY })
	if full || c.allRefuse() || c.allStart() {
		code = c.links.places()[0].note.Code
	}
	if hint == "" {
		hint = "check the addresses, and that the nodes run"
	}
	if len(all) == 1 && code == messages.Code_STARTING {
		return all[0].note.WithHint("it serves by itself once that is there")
	}
	what := "no endpoint serves"
	if len(all) == 1 {
		what = "the endpoint does not serve"
	}
	return messages.Errorf(code, "%s: %s", what, strings.Join(reasons, "; ")).WithHint("%s", hint)
}

// allStart reports whether every endpoint is a node that does not serve yet.
func (c *core) allStart() bool {
	return !slices.ContainsFunc(c.links.endpoints, func(e *endpoint) bool { return e.note == nil || e.note.Code != messages.Code_STARTING })
}

func explainWaiting(m *messages.LinkUp) *messages.Error {
	waits := m.WaitingFor
	if waits == "" {
		waits = "waiting for an identity"
	}
	return messages.Errorf(messages.Code_STARTING, "node %s is up but does not serve yet: %s", m.Name, waits)
}

func explainAttached(m *messages.Attached) *messages.Error {
	if m.Code == messages.Code_OK {
		return messages.Errorf(messages.Code_INTERNAL, "the node gave no session actor")
	}
	return explainReply(m.Code, m.Message, m.Leader)
}

func explainDown(m *messages.LinkDown) *messages.Error {
	why := &messages.Error{Code: m.Code, Message: m.Message, Hint: m.Hint}
	if why.Code == messages.Code_OK {
		why.Code = messages.Code_UNREACHABLE
	}
	if why.Message == "" {
		why.Message = "the connection ended"
	}
	return why
}

func explainSilent(l *link, waited uint64) *messages.Error {
	return messages.Errorf(messages.Code_UNREACHABLE, "node %s is reached but does not answer (%d ms)", l.name, waited)
}

// explainReply puts a code into words where the node sent none.
func explainReply(code messages.Code, message string, leader *messages.Leader) *messages.Error {
	switch {
	case message != "":
	case code == messages.Code_NO_LEADER:
		message = "no node leads the cluster now"
	case code == messages.Code_REDIRECT && leader != nil && leader.Address != "":
		message = fmt.Sprintf("the leader %s at %s was not reached", leader.Name, leader.Address)
	default:
		message = wordsOf(code)
	}
	return messages.Errorf(code, "%s", message)
}

// wordsOf is what a code means, in a few words.
func wordsOf(code messages.Code) string {
	switch code {
	case messages.Code_NOT_FOUND:
		return "there is no such key"
	case messages.Code_BUSY:
		return "the node is busy"
	case messages.Code_CONFLICT:
		return "the condition does not hold; nothing was written"
	case messages.Code_SESSION_EXPIRED:
		return "the session expired; the command was not executed"
	case messages.Code_COMPACTED:
		return "the revision is older than the history that is kept"
	case messages.Code_REDIRECT:
		return "the node does not lead"
	case messages.Code_DAMAGED:
		return "the node's data is damaged"
	case messages.Code_OUTCOME_UNKNOWN:
		return "the write may or may not have happened"
	case messages.Code_TIMED_OUT:
		return "the node had no answer in time"
	case messages.Code_UNSUPPORTED:
		return "the node does not support this"
	}
	return "the node answers " + code.String()
}
