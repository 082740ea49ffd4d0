package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// A cluster that is well answers within milliseconds, and one that is not may come back:
// so a client waits, up to its timeout. Whoever looks at a terminal wants to know meanwhile
// what is wrong with the cluster, and need not wait where nobody is there to answer.

const (
	knockAfter = 300 * time.Millisecond // without an answer: is anybody there?
	tellAfter  = time.Second            // without an answer: what is wrong?
)

// withStore runs one operation on the cluster within --timeout.
func (c *Call) withStore(run func(context.Context, Store) error) error {
	endpoints, err := c.endpoints()
	if err != nil {
		return err
	}
	timeout, err := c.timeout()
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(c)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.attend(ctx, endpoints, end)
	}()
	err = c.runOn(ctx, endpoints, timeout, run)
	nobody := context.Cause(ctx)
	end(nil)
	<-watched
	switch {
	case err == nil || c.Err() != nil:
		return err
	case messages.CodeOf(err) == messages.Code_OUTCOME_UNKNOWN:
		return c.doubt(err)
	case !missed(err):
		return err
	}
	if problem, ok := errors.AsType[*messages.Error](nobody); ok {
		return problem
	}
	return c.blame(err)
}

// withAPI is withStore for what is asked of the cluster alone.
func (c *Call) withAPI(run func(context.Context, client.ClusterAPI) error) error {
	return c.withStore(func(ctx context.Context, store Store) error { return run(ctx, client.ClusterAPI{ClusterAsker: store}) })
}

func (c *Call) runOn(ctx context.Context, endpoints []string, timeout time.Duration, run func(context.Context, Store) error) error {
	store, err := c.Connect(ctx, endpoints, timeout)
	if err != nil {
		return err
	}
	defer store.Close()
	return run(ctx, store)
}

// missed reports whether an operation came to nothing since nobody could serve it.
func missed(err error) bool {
	if errors.Is(err, context.Canceled) {
		return true
	}
	switch messages.CodeOf(err) {
	case messages.Code_UNREACHABLE, messages.Code_NO_LEADER, messages.Code_TIMED_OUT:
		return true
	}
	return false
}

// attend ends an operation if nobody listens at any endpoint, and says to people what is
// wrong if it takes long.
func (c *Call) attend(ctx context.Context, endpoints []string, end context.CancelCauseFunc) {
	if !passes(ctx, knockAfter) {
		return
	}
	if nobody := c.deserted(ctx, endpoints); nobody != nil && ctx.Err() == nil {
		end(nobody)
		return
	}
	if c.Format.structured() || !passes(ctx, tellAfter-knockAfter) {
		return
	}
	if what := c.trouble(ctx); what != nil && ctx.Err() == nil {
		c.note("waiting: %s", what.Message)
	}
}

// passes reports whether ctx outlasts d.
func passes(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// deserted is an error if nobody listens at any endpoint. All are asked at once.
func (c *Call) deserted(ctx context.Context, endpoints []string) *messages.Error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	type knock struct {
		at  int
		err error
	}
	knocks := make(chan knock, len(endpoints))
	for i, e := range endpoints {
		go func() { knocks <- knock{i, c.Probe(ctx, e, statusTimeout)} }()
	}
	problems := make([]*messages.Error, len(endpoints))
	reasons := make([]string, len(endpoints))
	for range endpoints {
		k := <-knocks
		if k.err == nil {
			return nil
		}
		problems[k.at], _ = explain(k.err)
		reasons[k.at] = endpoints[k.at] + ": " + problems[k.at].Message
	}
	return messages.Errorf(messages.Code_UNREACHABLE, "nobody listens: %s", strings.Join(reasons, "; ")).
		At(problems[0].Endpoint, "").WithHint("start the node there with kvctl serve, or name other endpoints")
}

// blame says what is wrong with the cluster, where that is why an operation came to
// nothing.
func (c *Call) blame(err error) error {
	what := c.trouble(c)
	failed, ok := errors.AsType[*messages.Error](err)
	if what == nil || !ok {
		return err
	}
	what.Code = failed.Code
	return what.At(failed.Endpoint, failed.RequestID)
}

// doubt adds what is wrong with the cluster to an outcome that is unknown.
func (c *Call) doubt(err error) error {
	what := c.trouble(c)
	failed, ok := errors.AsType[*messages.Error](err)
	if what == nil || !ok {
		return err
	}
	told := *failed
	told.Message += "; " + what.Message
	told.Hint = what.Hint + "; then " + failed.Hint
	return &told
}

// trouble is what keeps the cluster from serving, as its nodes see it; nil if they do not
// know of anything, or say nothing at all: then the operation's own error names each.
func (c *Call) trouble(ctx context.Context) *messages.Error {
	all, err := c.rosterNow(ctx, statusTimeout)
	if err != nil {
		return nil
	}
	return troubleOf(all)
}

// troubleIn is the trouble that rows tell of, if every voter is among them.
func troubleIn(rows []nodeJSON) *messages.Error {
	view, err := newestView(rows)
	if err != nil {
		return nil
	}
	var all []member
	for _, m := range view.members {
		row := rowOf(rows, m)
		if row == nil {
			return nil
		}
		all = append(all, member{nodeJSON: *row, address: m.Address, kind: m.Type})
		all[len(all)-1].Name = m.Name
	}
	return troubleOf(all)
}

func troubleOf(all []member) *messages.Error {
	voters, answer, led := 0, 0, false
	var missing []string
	for _, m := range all {
		if m.kind != messages.MemberType_VOTER {
			continue
		}
		voters++
		if m.problem == nil && !m.starting() {
			answer++
			led = led || m.Role == leading || m.Leader != ""
		} else {
			missing = append(missing, fmt.Sprintf("%s (%s)", m.Name, m.address))
		}
	}
	switch needed := voters/2 + 1; {
	case answer < needed:
		return messages.Errorf(messages.Code_NO_LEADER, "%d of %d members answers, %d are needed: no writes and no linearizable reads", answer, voters, needed).
			WithHint("start %s; kvctl get --consistency stale reads what one node has", strings.Join(missing, " or "))
	case !led:
		return messages.Errorf(messages.Code_NO_LEADER, "%d of %d members answer, and none leads: an election is under way", answer, voters).
			WithHint("try again in a moment; kvctl status shows each node")
	}
	return nil
}
