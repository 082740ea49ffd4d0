package inside

import (
	"fmt"
	"strings"

	"keyval/messages"
)

// check is one thing that a node must be to serve, by a name that stays.
type check struct {
	name string
	fail string // empty: it holds
}

// lagMax is how many entries that are committed a node may have yet to apply and be ready.
const lagMax = 10_000

// alive: the node answers, or has said that it cannot yet. Whoever restarts what is not alive
// must not restart a node that waits for others.
func alive(f facts) []check {
	c := check{name: "answers"}
	if f.status == nil && !f.starts {
		c.fail = f.why.Error()
	}
	return []check{c}
}

// ready: the node can do what clients ask for. One whose cluster has no quorum is not.
func ready(f facts) []check {
	checks := []check{{name: "serving"}, {name: "member"}, {name: "leader"}, {name: "quorum"}, {name: "lag"}, {name: "room"}, {name: "certificates"}}
	fail := func(i int, format string, args ...any) {
		if checks[i].fail == "" {
			checks[i].fail = fmt.Sprintf(format, args...)
		}
	}
	if f.status == nil {
		for i := range checks {
			fail(i, "not known: %s", strings.TrimSuffix(f.why.Error(), "."))
		}
		return checks
	}
	s, before := f.status, f.cluster.Before
	if s.Code != messages.Code_OK {
		fail(0, "the node answers %s", s.Code)
	}
	if _, err := f.cluster.Member(s.Name); err != nil {
		fail(1, "%s is no member", s.Name)
	}
	if s.Leader.GetRaftId() == 0 {
		fail(2, "no leader is known")
	}
	switch {
	case before == nil:
		fail(3, "the leader has not said lately whom it is in contact with")
	case !before.Available:
		fail(3, "%d of %d voters are in contact, %d are needed", before.Alive, before.Voters, before.Quorum)
	}
	if s.Commit > s.Applied+lagMax {
		fail(4, "%d committed entries are not applied yet", s.Commit-s.Applied)
	}
	if s.Lacks != "" {
		fail(5, "too little room: %s", s.Lacks)
	}
	if k := s.GetKeys(); k.GetExpiresMs() > 0 && f.cluster.At.UnixMilli() >= k.ExpiresMs {
		fail(6, "%s has expired: nobody is let in, and no other node lets this one in", k.ExpiresWhat)
	}
	return checks
}

// without leaves checks out, by name, and names those that there are not.
func without(checks []check, excluded []string) (left []check, unknown []string) {
	names := map[string]bool{}
	for _, name := range excluded {
		names[name] = true
	}
	for _, c := range checks {
		if !names[c.name] {
			left = append(left, c)
		}
		delete(names, c.name)
	}
	for _, name := range excluded {
		if names[name] {
			unknown = append(unknown, name)
		}
	}
	return left, unknown
}
