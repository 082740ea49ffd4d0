package cli

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"keyval/messages"
)

// member is a node of the cluster, where it is reached, and what it said of itself.
type member struct {
	nodeJSON
	address string // as the cluster knows it
	kind    messages.MemberType
}

// roster is all members of the cluster, by RaftID, each asked by itself: at the
// endpoint that was given for it, or else where the cluster knows it. One that is
// only starting is given the timeout to become a member again.
func (c *Call) roster(ctx context.Context, timeout time.Duration) ([]member, error) {
	for deadline := time.Now().Add(timeout); ; {
		all, err := c.rosterNow(ctx, timeout)
		starting := slices.ContainsFunc(all, func(m member) bool { return m.starting() })
		if err != nil || !starting || time.Now().After(deadline) {
			return withoutStarting(all), err
		}
		if !passes(ctx, followEvery) {
			return nil, context.Cause(ctx)
		}
	}
}

// starting reports whether a node answers, but has not opened its data yet.
func (r *nodeJSON) starting() bool { return r.problem == nil && len(r.clusterID) == 0 }

func withoutStarting(all []member) []member {
	for i := range all {
		if m := &all[i]; m.starting() {
			m.problem = messages.Errorf(messages.Code_UNREACHABLE, "it is starting").WithHint("try again in a moment")
			m.Role, m.Error = unreachable, m.problem.Message
		}
	}
	return all
}

func (c *Call) rosterNow(ctx context.Context, timeout time.Duration) ([]member, error) {
	endpoints, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	rows := askAll(ctx, c.Shell, endpoints, timeout)
	newest, err := newestView(rows)
	if err != nil {
		return nil, err
	}
	var all []member
	var elsewhere []string // addresses of members that no endpoint was
	for _, m := range newest.members {
		all = append(all, member{address: m.Address, kind: m.Type})
		all[len(all)-1].Name, all[len(all)-1].RaftID = m.Name, m.RaftId
		if rowOf(rows, m) == nil {
			elsewhere = append(elsewhere, m.Address)
		}
	}
	rows = append(rows, askAll(ctx, c.Shell, elsewhere, timeout)...)
	for i, m := range newest.members {
		if row := rowOf(rows, m); row != nil {
			all[i].nodeJSON = *row
			all[i].Name, all[i].RaftID = m.Name, m.RaftId
		}
	}
	slices.SortFunc(all, func(a, b member) int { return int(int64(a.RaftID) - int64(b.RaftID)) })
	return all, nil
}

// newestView is the answer that knows the newest members. Endpoints of several
// clusters are refused.
func newestView(rows []nodeJSON) (*nodeJSON, error) {
	var newest *nodeJSON
	for i := range rows {
		switch r := &rows[i]; {
		case r.problem != nil || r.starting():
		case newest == nil:
			newest = r
		case !bytes.Equal(r.clusterID, newest.clusterID):
			return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "%s and %s belong to different clusters", newest.Endpoint, r.Endpoint).
				WithHint("name endpoints of one cluster only")
		case r.Applied > newest.Applied:
			newest = r
		}
	}
	if newest == nil {
		return nil, nobodyAnswers(rows)
	}
	return newest, nil
}

func nobodyAnswers(rows []nodeJSON) error {
	if err := rowsDenied(rows); err != nil {
		return err
	}
	var reasons []string
	hint := "check the addresses, and that the nodes run"
	for _, r := range rows {
		why := r.Error
		if r.starting() {
			why = "it is starting"
		} else if r.problem.Hint != "" {
			hint = r.problem.Hint
		}
		reasons = append(reasons, r.Endpoint+": "+why)
	}
	return messages.Errorf(messages.Code_UNREACHABLE, "no endpoint answers: %s", strings.Join(reasons, "; ")).WithHint("%s", hint)
}

// rowOf is what a member said, or what is wrong at its address; nil: nobody asked it.
func rowOf(rows []nodeJSON, m *messages.Member) *nodeJSON {
	for i := range rows {
		if rows[i].problem == nil && rows[i].RaftID == m.RaftId {
			return &rows[i]
		}
	}
	for i := range rows {
		if (rows[i].problem != nil || rows[i].starting()) && rows[i].Endpoint == m.Address {
			return &rows[i]
		}
	}
	return nil
}

// namesOf is the members' names, for people.
func namesOf(all []member) string {
	var names []string
	for _, m := range all {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

// leaderOf is the member that leads, as the members say; nil: none does.
func leaderOf(all []member) *member {
	for i := range all {
		if all[i].problem == nil && all[i].Role == leading {
			return &all[i]
		}
	}
	return nil
}

// oneMember is the one of --node, or without it the leader.
func (c *Call) oneMember(all []member) (*member, error) {
	name := c.flags.String("node")
	if !c.flags.IsSet("node") {
		if leader := leaderOf(all); leader != nil {
			return leader, nil
		}
		none := messages.Errorf(messages.Code_NO_LEADER, "no node leads the cluster now")
		if what := troubleOf(all); what != nil {
			none.Message += ": " + what.Message
		}
		answer := slices.DeleteFunc(slices.Clone(all), func(m member) bool { return m.problem != nil })
		return nil, none.WithHint("choose one of %s with --node", namesOf(answer))
	}
	i := slices.IndexFunc(all, func(m member) bool { return m.Name == name })
	switch {
	case i < 0:
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "no member is called %q", name).WithHint("the members are %s", namesOf(all))
	case all[i].problem != nil:
		return nil, all[i].problem.At(all[i].Endpoint, "")
	}
	return &all[i], nil
}

// patience is the timeout of asking one node how it is: see statusTimeout.
func (c *Call) patience() (time.Duration, error) {
	if !c.timeoutGiven() {
		return statusTimeout, nil
	}
	return c.timeout()
}

// untilTimeout is ctx within --timeout, where one was chosen: what is waited for takes as long
// as it takes otherwise.
func (c *Call) untilTimeout(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if !c.timeoutGiven() {
		return ctx, func() {}, nil
	}
	limit, err := c.timeout()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, cancel, nil
}

// storeAt connects to one node.
func (c *Call) storeAt(ctx context.Context, endpoint string) (Store, error) {
	timeout, err := c.timeout()
	if err != nil {
		return nil, err
	}
	return c.ConnectTo(ctx, endpoint, timeout)
}
