package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors"
	"keyval/actors/client"
	"keyval/messages"
)

func newCompact(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "compact",
		Usage: "give up history, and the log that the cluster no longer needs",
		Description: `Reads below --revision are refused from then on, on every node and for ever; the
newest values stay. Each node then makes a checkpoint, cuts its log down to what
running followers still need, and gives the disk space back. A node that is down
meanwhile is brought the whole state when it comes back.
Says what was given up on each node, and exits 9 if one has not come to it yet: it will.
Below what was given up before nothing changes, and it says so.
With --json an object: revision (of the compaction), compacted_revision, newest_revision,
dry_run, already, request_id, and nodes: an array of name, endpoint, done, compacted_revision,
log_entries_before, log_entries_after, log_bytes_before, log_bytes_after, error.`,
		UsageText: `kvctl compact --dry-run
kvctl compact --yes
kvctl compact --revision 1000 --yes --json`,
		Flags: append([]urfave.Flag{
			&urfave.Uint64Flag{Name: "revision", Usage: "read as of `REVISION`, and refuse those before it", DefaultText: "the latest"},
			waitFlag(),
			progressFlag(),
		}, dangerFlags()...),
		Action: sh.action(compact),
	}
}

type compactJSON struct {
	Revision  uint64            `json:"revision,string"`           // the newest when it took effect
	Compacted uint64            `json:"compacted_revision,string"` // reads below it are refused
	Newest    uint64            `json:"newest_revision,string"`    // when it was asked for
	DryRun    bool              `json:"dry_run"`
	Already   bool              `json:"already"` // more was given up before: nothing has changed
	RequestID string            `json:"request_id"`
	Nodes     []compactNodeJSON `json:"nodes"`
}

type compactNodeJSON struct {
	Name             string `json:"name"`
	Endpoint         string `json:"endpoint"`
	Done             bool   `json:"done"`
	Compacted        uint64 `json:"compacted_revision,string"`
	LogEntriesBefore uint64 `json:"log_entries_before,string"`
	LogEntriesAfter  uint64 `json:"log_entries_after,string"`
	LogBytesBefore   uint64 `json:"log_bytes_before"`
	LogBytesAfter    uint64 `json:"log_bytes_after"`
	Error            string `json:"error"`
}

func compact(c *Call) error {
	revision := c.flags.Uint64("revision")
	if c.flags.IsSet("revision") && revision == 0 {
		return c.usage("", "--revision counts from 1")
	}
	if err := c.refuseUnasked("compacting"); err != nil {
		return err
	}
	p, err := c.progress(true, true)
	if err != nil {
		return err
	}
	patience, err := c.patience()
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		newest, err := store.Newest(ctx)
		if err != nil {
			return err
		}
		at := revision
		if at == 0 {
			at = newest
		}
		if at > newest || newest == 0 {
			return notYet(max(at, 1), newest)
		}
		members, err := c.roster(ctx, patience)
		if err != nil {
			return err
		}
		result := compactJSON{Compacted: at, Newest: newest, DryRun: c.flags.Bool("dry-run"), Nodes: nodesBefore(members)}
		if result.DryRun {
			return c.printCompactDryRun(result, members)
		}
		if kept := oldestKept(members); at < kept {
			return c.printAlready(result, kept)
		}
		if err := c.confirm(compactQuestion(at, newest, members), "nothing was given up"); err != nil {
			return err
		}
		done, err := store.Compact(ctx, at)
		switch {
		case err != nil:
			return err
		case done.Already: // by somebody else, just now
			return c.printAlready(result, at+1)
		}
		return c.followCompaction(ctx, p, result, done, members, patience)
	})
}

// printAlready says that reads below kept were refused before, so that nothing has changed.
func (c *Call) printAlready(r compactJSON, kept uint64) error {
	r.Already, r.Compacted, r.Revision = true, kept, r.Newest
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{strconv.FormatUint(kept, 10)}})
	case Table:
		fmt.Fprintf(c.Stdout, "Reads below revision %d are refused already: nothing has changed.\n", kept)
	default:
		return c.printJSON(r)
	}
	return nil
}

// notYet is the error of a revision that nothing has been written at.
func notYet(revision, newest uint64) error {
	e := messages.Errorf(messages.Code_INVALID, "revision %d is in the future, the newest is %d", revision, newest)
	if newest == 0 {
		return e.WithHint("write something first")
	}
	return e.WithHint("leave --revision out for the newest, or name one up to %d", newest)
}

func compactQuestion(at, newest uint64, members []member) string {
	return fmt.Sprintf("Give up history? %s The newest revision is %d. The log has %s.",
		refusedText(oldestKept(members), at), newest, logsText(members))
}

// oldestKept is the highest revision below which any member refuses reads.
func oldestKept(members []member) uint64 {
	oldest := uint64(1)
	for _, m := range members {
		oldest = max(oldest, m.CompactedRevision)
	}
	return oldest
}

// refusedText says which reads a compaction at a revision would refuse.
func refusedText(kept, at uint64) string {
	if at <= kept {
		return fmt.Sprintf("Reads below revision %d are refused already: nothing more would be.", kept)
	}
	return fmt.Sprintf("Reads at revisions %d to %d would be refused for ever; those from %d on go on.", kept, at-1, at)
}

func logsText(members []member) string {
	var logs []string
	for _, m := range members {
		if m.problem == nil {
			logs = append(logs, fmt.Sprintf("%s (%s) on %s", countText(m.logEntries(), "entry", "entries"), bytesText(m.LogBytes), m.Name))
		}
	}
	return strings.Join(logs, ", ")
}

func nodesBefore(members []member) []compactNodeJSON {
	var nodes []compactNodeJSON
	for _, m := range members {
		nodes = append(nodes, compactNodeJSON{
			Name: m.Name, Endpoint: nameOr(m.Endpoint, m.address), Compacted: m.CompactedRevision, Error: m.Error,
			LogEntriesBefore: m.logEntries(), LogBytesBefore: m.LogBytes, LogEntriesAfter: m.logEntries(), LogBytesAfter: m.LogBytes,
		})
	}
	return nodes
}

func (c *Call) printCompactDryRun(r compactJSON, members []member) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{strconv.FormatUint(r.Compacted, 10)}})
	case Table:
		fmt.Fprintf(c.Stdout, "would compact at revision %d, of %d. %s\n", r.Compacted, r.Newest, refusedText(oldestKept(members), r.Compacted))
		c.compactTable(r.Nodes, false)
		fmt.Fprintln(c.Stdout, "The logs would keep what is younger than the checkpoints that are made then, and what\nfollowers that run still need.")
		for _, m := range members {
			if m.problem != nil {
				fmt.Fprintf(c.Stdout, "%s does not answer (%s): it would be brought the whole state when it comes back.\n", m.Name, m.Error)
			}
		}
	default:
		return c.printJSON(r)
	}
	return nil
}

// followCompaction waits until every member that answers has given up what it may,
// and tells what that was.
func (c *Call) followCompaction(ctx context.Context, p *progress, r compactJSON, done client.CompactResult, before []member, patience time.Duration) error {
	r.Revision, r.RequestID = done.Revision, done.RequestID
	stall, err := c.timeout()
	if err != nil {
		return err
	}
	w := &compactWatch{result: &r, before: before, stall: stall}
	p.told = time.Now()
	if c.flags.Bool("wait") {
		p.phase(compactEvent{Phase: "compacted"}, "✓ revision %d: reads below %d are refused", r.Revision, r.Compacted)
		w.run(ctx, c, p, patience)
	}
	p.end()
	return c.printCompacted(r)
}

// compactEvent is one line of --progress json.
type compactEvent struct {
	Phase string            `json:"phase"` // compacted, cutting
	Nodes []compactNodeJSON `json:"nodes,omitempty"`
}

// compactWatch follows a compaction on all members.
type compactWatch struct {
	result *compactJSON
	before []member
	stall  time.Duration // the longest wait for any of them to get on
	said   string
}

// run asks the members until all that answer are done, or none makes progress.
func (w *compactWatch) run(ctx context.Context, c *Call, p *progress, patience time.Duration) {
	var endpoints []string
	for _, n := range w.result.Nodes {
		endpoints = append(endpoints, n.Endpoint)
	}
	poll := time.NewTicker(followEvery)
	defer poll.Stop()
	for moved := time.Now(); ; {
		waiting := w.look(askAll(ctx, c.Shell, endpoints, patience))
		now := time.Now()
		if said := strings.Join(waiting, ", "); said != w.said {
			w.said, moved = said, now
		}
		if len(waiting) == 0 || now.Sub(moved) >= w.stall {
			return
		}
		if p.due(now) {
			p.tell(now, compactEvent{"cutting", w.result.Nodes}, "waiting for the checkpoints of %s", w.said)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// look notes how far each member is and names those that answer and are not done.
// A member is done when it refuses what was given up, and has made a checkpoint
// since: the log is cut with it.
func (w *compactWatch) look(rows []nodeJSON) []string {
	var newest uint64 // commit before the compaction, as far as anybody knew
	for _, m := range w.before {
		newest = max(newest, m.Commit)
	}
	var waiting []string
	for i, row := range rows {
		n, before := &w.result.Nodes[i], &w.before[i]
		n.Error = row.Error
		if row.problem != nil {
			continue
		}
		n.Compacted, n.LogEntriesAfter, n.LogBytesAfter = row.CompactedRevision, row.logEntries(), row.LogBytes
		given := before.problem == nil && before.CompactedRevision >= w.result.Compacted
		n.Done = row.CompactedRevision >= w.result.Compacted && (given || row.CheckpointIndex > newest)
		if !n.Done {
			waiting = append(waiting, n.Name)
		}
	}
	return waiting
}

func (c *Call) printCompacted(r compactJSON) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{strconv.FormatUint(r.Compacted, 10)}})
	case Table:
		fmt.Fprintf(c.Stdout, "history before revision %d is given up, at revision %d (request %s)\n", r.Compacted, r.Revision, r.RequestID)
		if c.flags.Bool("wait") {
			c.compactTable(r.Nodes, true)
			c.sayWhatStays(r.Nodes)
		}
	default:
		if err := c.printJSON(r); err != nil {
			return err
		}
	}
	if !c.flags.Bool("wait") {
		c.note("the nodes cut their logs by and by; follow it: %s status --json%s", c.self(), c.endpointFlags())
		return nil
	}
	behind := false
	for _, n := range r.Nodes {
		switch {
		case n.Error != "":
			c.note("%s%s does not answer, and gives it up when it comes back: %s", c.warning(), n.Name, n.Error)
		case !n.Done:
			c.note("%s%s has not made its checkpoint yet, and will", c.warning(), n.Name)
		}
		behind = behind || !n.Done
	}
	if behind {
		return quiet(exitDegraded)
	}
	return nil
}

// sayWhatStays explains the entries that the logs keep all the same.
func (c *Call) sayWhatStays(nodes []compactNodeJSON) {
	if !slices.ContainsFunc(nodes, func(n compactNodeJSON) bool { return n.LogEntriesAfter > 0 }) {
		return
	}
	entries, bytes := actors.FollowersKeep()
	fmt.Fprintf(c.Stdout, "A log keeps what came after its checkpoint and what followers that run still need; a follower's\n"+
		"up to %d entries or %s more, however often it is compacted: it may lead next, and bring others up.\n", entries, bytesText(bytes))
}

// compactTable shows what each node keeps, and after a compaction what it kept before.
func (c *Call) compactTable(nodes []compactNodeJSON, after bool) {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var cells [][]string
	for _, n := range nodes {
		row := []string{n.Name, number(max(1, n.Compacted)), number(n.LogEntriesBefore), bytesText(n.LogBytesBefore)}
		if after {
			row[2] += " -> " + number(n.LogEntriesAfter)
			row[3] += " -> " + bytesText(n.LogBytesAfter)
		}
		if n.Error != "" {
			row = []string{n.Name, "-", "-", "-"}
		}
		cells = append(cells, row)
	}
	c.printTable([]string{"NODE", "READS FROM", "LOG ENTRIES", "LOG SIZE"}, cells)
}
