package cli

import (
	"context"
	"fmt"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

func newSnapshotCreate(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "create",
		Usage: "write the state of now into a snapshot",
		Description: `The leader writes it, or the node of --node, into its data directory, beside all
other work. It is called snapshot-YYYY-MM-DD-HHMMSS after the time of now, in UTC.
It holds all data and their history as of one revision. A node writes one at a time.
Waits until it is whole, however long that takes; --wait=false does not, and says
how to follow. With --json an object with the fields of snapshot list.`,
		UsageText: `kvctl snapshot create
kvctl snapshot create --node node2 --wait=false --json`,
		Flags: []urfave.Flag{
			nodeFlag("have the node called `NAME` write it, instead of the leader"),
			waitFlag(),
			progressFlag(),
		},
		Action: sh.action(snapshotCreate),
	}
}

func waitFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "wait", Usage: "wait for the end; --wait=false says how to follow instead", Value: true}
}

// snapshotID is the name of a snapshot that is created now.
func snapshotID(now time.Time) string { return now.UTC().Format("snapshot-2006-01-02-150405") }

func snapshotCreate(c *Call) error {
	p, err := c.progress(true, true)
	if err != nil {
		return err
	}
	m, err := c.chosenMember()
	if err != nil {
		return err
	}
	store, err := c.storeAt(c, m.Endpoint)
	if err != nil {
		return err
	}
	defer store.Close()
	now, err := beginSnapshot(c, store)
	if err != nil {
		return err
	}
	id := snapshotID(now)
	follow := fmt.Sprintf("%s snapshot show %s --node %s%s", c.self(), id, m.Name, c.endpointFlags())
	if !c.flags.Bool("wait") {
		r, err := store.SnapshotShow(c, id)
		if err != nil {
			return err
		}
		s := snapshotRow(r.Snapshots[0], m.Name, m.Endpoint)
		if s.Writing {
			c.note("follow it: %s", follow)
		}
		return c.printCreated(s)
	}
	p.told = now
	w := &snapshotWatch{call: c, progress: p, id: id, node: m.Name, endpoint: m.Endpoint, follow: follow, began: now}
	s, err := w.run(c, store)
	p.end()
	if err != nil {
		return err
	}
	return c.printCreated(s)
}

// beginSnapshot has a node begin a snapshot whose name is the time of its creation,
// which it returns. If the node has one of the same second, the next second is taken.
func beginSnapshot(ctx context.Context, store Store) (time.Time, error) {
	for {
		now := time.Now()
		_, err := store.SnapshotCreate(ctx, snapshotID(now), now.UnixMilli())
		if messages.CodeOf(err) != messages.Code_CONFLICT {
			return now, err
		}
		taken, missing := store.SnapshotShow(ctx, snapshotID(now))
		if missing != nil || taken.Snapshots[0].Writing {
			return now, err // another is being written
		}
		if !passes(ctx, time.Until(now.Truncate(time.Second).Add(time.Second))) {
			return now, context.Cause(ctx)
		}
	}
}

func (c *Call) printCreated(s snapshotJSON) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{s.ID, s.Node}})
	case Table:
		verb := "created"
		if s.Writing {
			verb = "writing"
		}
		fmt.Fprintf(c.Stdout, "%s %s on %s: %s at index %d, revision %d\n", verb, s.ID, s.Node, s.sizeText(), s.Index, s.Revision)
	default:
		return c.printJSON(s)
	}
	return nil
}

// Times of following long work.
const (
	followEvery = 200 * time.Millisecond
	stallAfter  = 5 * time.Second // without anything new a stall is told
)

// snapshotWatch follows one snapshot until it is whole.
type snapshotWatch struct {
	call               *Call
	progress           *progress
	id, node, endpoint string
	follow             string // the command that follows it later
	began              time.Time

	pinned bool
	rate   rate
}

// snapshotEvent is one line of --progress json.
type snapshotEvent struct {
	Phase      string `json:"phase"` // pinned, writing, done
	ID         string `json:"id"`
	BytesDone  uint64 `json:"bytes_done"`
	BytesTotal uint64 `json:"bytes_total"`
	Rate       uint64 `json:"rate_bytes_per_s"`
	ETAMs      int64  `json:"eta_ms"`
	StalledMs  int64  `json:"stalled_ms"`
}

func (w *snapshotWatch) run(ctx context.Context, store Store) (snapshotJSON, error) {
	poll := time.NewTicker(followEvery)
	defer poll.Stop()
	for {
		r, err := store.SnapshotShow(ctx, w.id)
		if err != nil {
			return snapshotJSON{}, w.lost(ctx, err)
		}
		s := snapshotRow(r.Snapshots[0], w.node, w.endpoint)
		switch {
		case s.Error != "":
			return s, messages.Errorf(messages.Code_INTERNAL, "%s did not write %s: %s", w.node, w.id, s.Error).At(w.endpoint, "").
				WithHint("see to that, and create another, or have another node write it with --node")
		case !s.Writing:
			w.progress.phase(snapshotEvent{Phase: "done", ID: w.id, BytesDone: s.Bytes, BytesTotal: s.Bytes},
				"✓ written: %s in %s", bytesText(s.Bytes), timeText(time.Since(w.began)))
			return s, nil
		}
		w.tell(time.Now(), s)
		select {
		case <-poll.C:
		case <-ctx.Done():
			w.call.note("%s goes on with it: %s", w.node, w.follow)
			return s, context.Cause(ctx)
		}
	}
}

func (w *snapshotWatch) tell(now time.Time, s snapshotJSON) {
	if !w.pinned && s.Index > 0 {
		w.pinned = true
		w.progress.phase(snapshotEvent{Phase: "pinned", ID: w.id, BytesTotal: s.BytesTotal},
			"✓ the state at index %d, revision %d is held", s.Index, s.Revision)
	}
	w.rate.note(now, s.Bytes)
	if !w.progress.due(now) {
		return
	}
	left := w.rate.left(s.BytesTotal)
	stalled := w.rate.stalled(now)
	event := snapshotEvent{"writing", w.id, s.Bytes, s.BytesTotal, uint64(w.rate.perSecond), left.Milliseconds(), stalled.Milliseconds()}
	text := "writing: " + s.sizeText() + w.rate.text(now, s.BytesTotal, fmt.Sprintf(": %s is busy, or its disk is", w.node))
	w.progress.tell(now, event, "%s", text)
}

// lost says what is known of a snapshot whose node does not say any more.
func (w *snapshotWatch) lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return err
	case messages.CodeOf(err) == messages.Code_NOT_FOUND:
		return messages.Errorf(messages.Code_INTERNAL, "%s does not write %s any more: it was deleted, or the node was started anew", w.node, w.id).
			At(w.endpoint, "").WithHint("create another")
	}
	return messages.Errorf(messages.Code_TIMED_OUT, "%s was writing %s, and does not say how far it is: %s", w.node, w.id, err).
		At(w.endpoint, "").WithHint("%s", w.follow)
}

// rate is how fast something grows, over the last seconds.
type rate struct {
	perSecond float64
	marks     []rateMark // the last rateSpan
	moved     time.Time  // when it last grew
}

type rateMark struct {
	at   time.Time
	done uint64
}

const rateSpan = 5 * time.Second

func (r *rate) note(now time.Time, done uint64) {
	if n := len(r.marks); n == 0 || done != r.marks[n-1].done {
		r.moved = now
	}
	r.marks = append(r.marks, rateMark{now, done})
	for len(r.marks) > 2 && now.Sub(r.marks[0].at) > rateSpan {
		r.marks = r.marks[1:]
	}
	if first := r.marks[0]; done >= first.done && now.After(first.at) {
		r.perSecond = float64(done-first.done) / now.Sub(first.at).Seconds()
	}
}

// left is how long the rest takes; 0: not known.
func (r *rate) left(total uint64) time.Duration {
	done := r.marks[len(r.marks)-1].done
	if total <= done || r.perSecond <= 0 {
		return 0
	}
	return time.Duration(float64(total-done) / r.perSecond * float64(time.Second))
}

// text says how fast bytes come, and how long the rest takes, or for how long nothing has come
// and why.
func (r *rate) text(now time.Time, total uint64, why string) (text string) {
	if r.perSecond > 0 {
		text = ", " + bytesText(uint64(r.perSecond)) + "/s"
	}
	switch left, stalled := r.left(total), r.stalled(now); {
	case stalled >= stallAfter:
		text += "; nothing new for " + timeText(stalled) + why
	case left > 0:
		text += ", about " + timeText(left) + " left"
	}
	return text
}

// stalled is for how long nothing has come.
func (r *rate) stalled(now time.Time) time.Duration { return now.Sub(r.moved) }
