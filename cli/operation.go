package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// operationText says what an operation is about, and what it does now.
func operationText(o *client.ReplaceNodeStatus) string {
	text := operationTitle(o) + ", " + phaseText(o.Phase)
	if o.Aborting && !o.Phase.Ended() {
		text = operationTitle(o) + ", being undone"
	}
	if o.WaitingFor != "" {
		text += "; waiting: " + o.WaitingFor
	}
	return text
}

func operationTitle(o *client.ReplaceNodeStatus) string {
	switch o.Kind {
	case "add":
		return fmt.Sprintf("add %s at %s", o.NewNodeID, o.NewAddress)
	case "promote":
		return "promote " + o.NewNodeID
	case "remove":
		return "remove " + o.OldNodeID
	}
	return fmt.Sprintf("replace %s by %s at %s", o.OldNodeID, o.NewNodeID, o.NewAddress)
}

func phaseText(p client.ReplacePhase) string {
	return [...]string{"adding as a learner", "catching up", "promoting", "removing", "complete", "failed"}[p]
}

// short is enough of an operation's id for people.
func short(id string) string { return id[:min(8, len(id))] }

// operationWatch follows an operation to its end.
type operationWatch struct {
	call     *Call
	progress *progress
	id       string
	aborted  bool // somebody gave it up: that it failed is success
	said     map[string]bool
	waited   string // the reason that was told last
	looked   string // the reason that was found at the last look
	unheard  time.Time
	phaseAt  time.Time // since when it is in this phase, as seen here
	moved    string    // what there is of progress
	movedAt  time.Time // since when
	stalled  time.Time // when the lack of it was told last
}

// stallEvery is how often a lack of progress is told, from stallAfter on.
const stallEvery = 10 * time.Second

// operationEvent is one line of --progress json.
type operationEvent struct {
	Phase      string                    `json:"phase"` // of the operation
	Operation  *client.ReplaceNodeStatus `json:"operation"`
	Learner    *client.LearnerStatus     `json:"learner_status"`
	WaitingFor string                    `json:"waiting_for"`
}

// followOperation waits for the end of an operation and tells how far it is. That it failed
// is an error.
func (c *Call) followOperation(ctx context.Context, store Store, p *progress, id string, aborted bool) (*client.ReplaceNodeStatus, error) {
	ctx, cancel, err := c.untilTimeout(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	w := &operationWatch{call: c, progress: p, id: id, aborted: aborted, said: map[string]bool{}, unheard: time.Now(), phaseAt: time.Now()}
	o, err := w.run(ctx, client.ClusterAPI{ClusterAsker: store})
	p.end()
	return o, err
}

// unheardMax is how long an operation that is known may not be found: the node that answers
// lags.
const unheardMax = 5 * time.Second

func (w *operationWatch) run(ctx context.Context, api client.ClusterAPI) (*client.ReplaceNodeStatus, error) {
	poll := time.NewTicker(followEvery)
	defer poll.Stop()
	for {
		a, err := api.Query(ctx)
		var o *client.ReplaceNodeStatus
		if err == nil {
			o, err = a.FindOperation(w.id)
		}
		now := time.Now()
		switch code := messages.CodeOf(err); {
		case err == nil:
			w.unheard = now
			w.tell(now, o, a)
			if o.Phase.Ended() {
				return o, w.outcome(o)
			}
		case ctx.Err() != nil:
		case code == messages.Code_INVALID || code == messages.Code_NOT_FOUND && now.Sub(w.unheard) > unheardMax:
			return nil, err
		case code != messages.Code_NOT_FOUND:
			w.wait(nil, "no node answers: kvctl goes on asking", "")
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return o, w.left(ctx)
		}
	}
}

func (w *operationWatch) outcome(o *client.ReplaceNodeStatus) error {
	if o.Phase != client.ReplacePhaseFailed || w.aborted {
		return nil
	}
	e := messages.Errorf(messages.CodeOf(o.Error), "%s failed, and nothing of it is left behind: %v", operationTitle(o), o.Error)
	return e.WithHint("%s cluster members%s", w.call.self(), w.call.endpointFlags())
}

// left is the end of the wait before that of the operation.
func (w *operationWatch) left(ctx context.Context) error {
	c := w.call
	w.progress.end()
	follow := fmt.Sprintf("%s ops follow %s%s", c.self(), short(w.id), c.endpointFlags())
	abort := fmt.Sprintf("%s ops abort %s%s", c.self(), short(w.id), c.endpointFlags())
	if c.Err() != nil {
		c.note("it goes on without kvctl\n  follow it: %s\n  give it up: %s", follow, abort)
		return context.Cause(ctx)
	}
	why := ""
	if w.waited != "" {
		why = ": " + w.waited
	}
	return messages.Errorf(messages.Code_TIMED_OUT, "operation %s is still under way%s", short(w.id), why).WithHint("%s; or give it up: %s", follow, abort)
}

// tell tells what is done since it was told last, each once, and what is being done.
func (w *operationWatch) tell(now time.Time, o *client.ReplaceNodeStatus, a client.ClusterAnswer) {
	event := operationEvent{Operation: o, WaitingFor: o.WaitingFor}
	text, _ := o.Phase.MarshalText()
	event.Phase = string(text)
	if m, err := a.Member(o.NewNodeID); err == nil {
		event.Learner = m.LearnerStatus
	}
	done := func(is bool, format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if is && !w.said[line] {
			w.said[line] = true
			w.waited = ""
			w.progress.phase(event, "✓ %s%s", line, w.took(now))
		}
	}
	failed := o.Phase == client.ReplacePhaseFailed
	done(o.LearnerAdded, "%s at %s is a learner", o.NewNodeID, o.NewAddress)
	done(o.LearnerCaughtUp, "%s has caught up", o.NewNodeID)
	done(o.NewNodePromoted && (o.Kind != "replace" || event.Learner == nil), "%s is a voter", o.NewNodeID) // one that replaces a learner stays one
	done(o.OldNodeRemoved, "%s is removed", o.OldNodeID)
	done(o.Aborting && !w.aborted && !failed, "it was given up: what was done is being undone")
	switch {
	case failed && w.aborted:
		done(true, "it is undone: nothing is left behind")
	case failed:
		w.progress.phase(event, "✗ %s: %v", operationTitle(o), o.Error)
	case o.Phase.Ended():
	case o.WaitingFor != "" && o.Hint == "" && reasonOf(w.looked) != reasonOf(o.WaitingFor): // it may be gone at the next look
	case o.WaitingFor != "" && (o.Phase != client.ReplacePhaseCatchUp || o.Hint != ""):
		w.wait(event, o.WaitingFor, o.Hint)
	case w.progress.due(now):
		doing := phaseText(o.Phase)
		if o.Phase == client.ReplacePhaseCatchUp && event.Learner != nil {
			doing += ": " + catchUpText(event.Learner)
		}
		w.progress.tell(now, event, "… %s", cmp.Or(doing, event.Phase))
	}
	w.looked = o.WaitingFor
	w.stall(now, o, event, a)
}

// took is how long a phase took, if that is known here.
func (w *operationWatch) took(now time.Time) string {
	since := now.Sub(w.phaseAt)
	w.phaseAt = now
	if since < followEvery {
		return ""
	}
	return fmt.Sprintf(" (%v)", since.Round(10*time.Millisecond))
}

// stall says that nothing has gone on for long, why, and who may be lost meanwhile.
func (w *operationWatch) stall(now time.Time, o *client.ReplaceNodeStatus, event operationEvent, a client.ClusterAnswer) {
	moved := event.Phase
	if l := event.Learner; l != nil {
		moved = fmt.Sprint(event.Phase, l.SnapshotBytesDone, l.MatchIndex)
	}
	if moved != w.moved || w.movedAt.IsZero() {
		w.moved, w.movedAt = moved, now
	}
	if o.Phase.Ended() || now.Sub(w.movedAt) < stallAfter || now.Sub(w.stalled) < stallEvery {
		return
	}
	w.stalled = now
	why := o.WaitingFor
	if why == "" && event.Learner != nil {
		why = event.Learner.WaitingFor
	}
	w.progress.phase(event, "⚠ no progress for %v: %s; now: %s", now.Sub(w.movedAt).Round(time.Second),
		cmp.Or(why, "the leader does not say why"), client.BudgetText(a.Before))
}

// reasonOf is a reason without its numbers.
func reasonOf(why string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '.' {
			return -1
		}
		return r
	}, strings.ReplaceAll(strings.ReplaceAll(why, "ms", ""), "s", ""))
}

// wait tells why it waits, when that changes.
func (w *operationWatch) wait(event any, why, hint string) {
	same := reasonOf(w.waited) == reasonOf(why) // only numbers are others
	if w.waited == why || same && !w.progress.rewrite {
		return
	}
	w.waited = why
	switch {
	case w.progress.style == "json":
		w.progress.tell(time.Now(), event, "")
	case same:
		w.progress.tell(time.Now(), event, "… waiting: %s", why)
	case w.progress.style != "none":
		w.progress.phase(event, "… waiting: %s", why)
		if hint != "" && !w.said[hint] {
			w.said[hint] = true
			w.call.note("  %s", hint)
		}
	}
}
