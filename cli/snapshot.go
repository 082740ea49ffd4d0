package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func newSnapshot(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "snapshot",
		Usage: "keep the whole state of the cluster in files",
		UsageText: `kvctl snapshot create
kvctl snapshot list
kvctl snapshot save snapshot-2026-11-24-020510 here.snapshot`,
		Subcommands: []*urfave.Command{newSnapshotCreate(sh), newSnapshotList(sh), newSnapshotShow(sh), newSnapshotSave(sh), newSnapshotDelete(sh)},
	}
}

func nodeFlag(usage string) urfave.Flag {
	return &urfave.StringFlag{Name: "node", Usage: usage}
}

func newSnapshotList(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "list",
		Usage: "list the snapshots that the nodes keep",
		Description: `Each node keeps snapshots of its own, in its data directory. Every endpoint is asked by
itself; which could not be asked is said on stderr. CREATED is in UTC.
Exits 0 if all endpoints answer, 9 if some do, 5 if none does.
With --json an array of objects: id, node, endpoint, index, term, revision,
compacted_revision, bytes, bytes_total (about what it will have, while writing),
created_at, members (id, raft_id, address), version, rows, hash, writing, error.`,
		UsageText: `kvctl snapshot list
kvctl snapshot list --server 127.0.0.1:7001 --json`,
		Action: sh.action(snapshotList),
	}
}

func newSnapshotShow(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "show",
		Usage:     "show one snapshot, and how far it is while it is written",
		ArgsUsage: "ID",
		Description: `Looks for it on every endpoint, or on --node alone. Exits 3 if none has it.
With --json an object with the fields of snapshot list.`,
		UsageText: `kvctl snapshot show snapshot-2026-01-31-235959
kvctl snapshot show snapshot-2026-01-31-235959 --node node1 --json`,
		Flags:  []urfave.Flag{nodeFlag("look on the node called `NAME` alone")},
		Action: sh.action(snapshotShow),
	}
}

func newSnapshotDelete(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "delete",
		Usage:     "delete a snapshot",
		ArgsUsage: "ID",
		Description: `Looks for it on every endpoint, or on --node alone, shows it and asks; without a
terminal it wants --yes. One that is being written cannot be deleted before its end. The
data of the cluster are not touched. With --json an object with the fields of snapshot
list, and deleted (with --dry-run dry_run).`,
		UsageText: `kvctl snapshot delete snapshot-2026-01-31-235959 --dry-run
kvctl snapshot delete snapshot-2026-01-31-235959 --yes`,
		Flags:  append([]urfave.Flag{nodeFlag("look on the node called `NAME` alone")}, dangerFlags()...),
		Action: sh.action(snapshotDelete),
	}
}

// snapshotJSON is one snapshot of one node.
type snapshotJSON struct {
	ID                string       `json:"id"`
	Node              string       `json:"node"`
	Endpoint          string       `json:"endpoint"`
	Index             uint64       `json:"index,string"`
	Term              uint64       `json:"term,string"`
	Revision          uint64       `json:"revision,string"`
	CompactedRevision uint64       `json:"compacted_revision,string"`
	Bytes             uint64       `json:"bytes"`
	BytesTotal        uint64       `json:"bytes_total"`
	CreatedAt         string       `json:"created_at"`
	Members           []memberJSON `json:"members"`
	Version           string       `json:"version"`
	Rows              uint64       `json:"rows,string"`
	Hash              string       `json:"hash"`
	Writing           bool         `json:"writing"`
	Error             string       `json:"error"`

	created time.Time
}

type memberJSON struct {
	ID      string `json:"id"`
	RaftID  uint64 `json:"raft_id,string"`
	Address string `json:"address"`
}

func snapshotRow(s *messages.SnapshotInfo, node, endpoint string) snapshotJSON {
	row := snapshotJSON{
		ID: s.Id, Node: node, Endpoint: endpoint, Index: s.Index, Term: s.Term, Revision: s.Revision, CompactedRevision: s.CompactedRevision,
		Bytes: s.Bytes, BytesTotal: s.BytesTotal, Members: []memberJSON{}, Version: s.Version, Rows: s.Rows,
		Hash: hex.EncodeToString(s.Hash), Writing: s.Writing, Error: s.Error,
	}
	if s.CreatedAtMs != 0 {
		row.created = time.UnixMilli(s.CreatedAtMs).UTC()
		row.CreatedAt = row.created.Format(time.RFC3339)
	}
	for _, m := range s.Members {
		row.Members = append(row.Members, memberJSON{m.Name, m.RaftId, m.Address})
	}
	return row
}

func snapshotRows(r client.SnapshotsResult) []snapshotJSON {
	var rows []snapshotJSON
	for _, s := range r.Snapshots {
		rows = append(rows, snapshotRow(s, r.Node, r.Endpoint))
	}
	return rows
}

// createdText is when it was created, to the minute.
func (s *snapshotJSON) createdText() string {
	if s.created.IsZero() {
		return "-"
	}
	return s.created.Format("2006-01-02 15:04")
}

// sizeText is its size, or how far it is.
func (s *snapshotJSON) sizeText() string {
	if s.Writing && s.BytesTotal > 0 {
		return bytesText(s.Bytes) + " of about " + bytesText(max(s.Bytes, s.BytesTotal))
	}
	return bytesText(s.Bytes)
}

// snapshotView is what one endpoint keeps, or why that is not known.
type snapshotView struct {
	endpoint string
	rows     []snapshotJSON
	problem  *messages.Error
}

// askSnapshots asks every endpoint by itself for its snapshots, all at once.
func (c *Call) askSnapshots(ctx context.Context, endpoints []string, id string) []snapshotView {
	views := make([]snapshotView, len(endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range endpoints {
		asked.Go(func() {
			rows, err := c.snapshotsAt(ctx, endpoint, id)
			views[i] = snapshotView{endpoint: endpoint, rows: rows}
			if err != nil {
				views[i].problem, _ = explain(err)
			}
		})
	}
	asked.Wait()
	return views
}

func (c *Call) snapshotsAt(ctx context.Context, endpoint, id string) ([]snapshotJSON, error) {
	timeout, err := c.timeout()
	if err != nil {
		return nil, err
	}
	if err := c.Probe(ctx, endpoint, timeout); err != nil {
		return nil, err
	}
	store, err := c.storeAt(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if id == "" {
		r, err := store.Snapshots(ctx)
		return snapshotRows(r), err
	}
	r, err := store.SnapshotShow(ctx, id)
	if messages.CodeOf(err) == messages.Code_NOT_FOUND {
		err = nil
	}
	return snapshotRows(r), err
}

func snapshotList(c *Call) error {
	endpoints, err := c.endpoints()
	if err != nil {
		return err
	}
	views := c.askSnapshots(c, endpoints, "")
	if err := allDenied(views, func(v snapshotView) *messages.Error { return v.problem }); err != nil {
		return err
	}
	var rows []snapshotJSON
	failed := 0
	for _, v := range views {
		rows = append(rows, v.rows...)
		if v.problem != nil {
			failed++
			c.note("%s%s could not be asked: %s", c.warning(), v.endpoint, v.problem.Message)
		}
	}
	slices.SortStableFunc(rows, func(a, b snapshotJSON) int { return b.created.Compare(a.created) })
	switch {
	case failed == len(views):
		return quiet(exitUnreachable)
	case c.Format.structured():
		err = printJSONList(c, rows)
	case c.Format == Simple:
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{r.ID, r.Node, strconv.FormatUint(r.Index, 10), strconv.FormatUint(r.Bytes, 10)})
		}
		c.printSimple(cells)
	default:
		c.snapshotTable(rows)
	}
	if err == nil && failed > 0 {
		err = quiet(exitDegraded)
	}
	return err
}

func (c *Call) snapshotTable(rows []snapshotJSON) {
	header := []string{"ID", "INDEX", "TERM", "SIZE", "CREATED", "MEMBERS", "NODE"}
	var rule []string
	for _, h := range header {
		rule = append(rule, strings.Repeat("-", len(h)))
	}
	cells := [][]string{rule}
	for _, r := range rows {
		cells = append(cells, []string{r.ID, strconv.FormatUint(r.Index, 10), strconv.FormatUint(r.Term, 10), r.sizeText(),
			r.createdText(), strconv.Itoa(len(r.Members)), r.Node})
	}
	if len(rows) > 0 {
		c.printTable(header, cells)
		fmt.Fprintln(c.Stdout)
	}
	fmt.Fprintf(c.Stdout, "Total: %s\n", plural(uint64(len(rows)), "snapshot"))
	for _, r := range rows {
		switch {
		case r.Error != "":
			c.note("%s%s of %s is of no use: %s", c.warning(), r.ID, r.Node, r.Error)
		case r.Writing:
			c.note("%s of %s is being written: %s", r.ID, r.Node, r.sizeText())
		}
	}
}

// findSnapshot looks for a snapshot on --node, or on every endpoint.
func (c *Call) findSnapshot(id string) (snapshotJSON, error) {
	var none snapshotJSON
	if err := messages.CheckSnapshotID(id); err != nil {
		return none, c.usage(err.Hint, "%s", err.Message)
	}
	endpoints, err := c.endpoints()
	if err != nil {
		return none, err
	}
	if c.flags.IsSet("node") {
		m, err := c.chosenMember()
		if err != nil {
			return none, err
		}
		endpoints = []string{m.Endpoint}
	}
	var found []snapshotJSON
	var asked, silent []string
	for _, v := range c.askSnapshots(c, endpoints, id) {
		found = append(found, v.rows...)
		if v.problem != nil {
			silent = append(silent, v.endpoint+": "+v.problem.Message)
			continue
		}
		asked = append(asked, v.endpoint)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return none, messages.Errorf(messages.Code_CONFLICT, "%s and %s both keep a snapshot %s", found[0].Node, found[1].Node, id).
			WithHint("choose one with --node %s", found[0].Node)
	case len(asked) == 0:
		return none, messages.Errorf(messages.Code_UNREACHABLE, "no endpoint answers: %s", strings.Join(silent, "; ")).
			WithHint("check the addresses, and that the nodes run")
	case len(silent) > 0:
		return none, messages.Errorf(messages.Code_NOT_FOUND, "no node that could be asked has a snapshot %s; not asked: %s", id, strings.Join(silent, "; ")).
			WithHint("ask again when they run")
	}
	return none, messages.Errorf(messages.Code_NOT_FOUND, "no node has a snapshot %s; asked were %s", id, strings.Join(asked, ", ")).
		WithHint("%s snapshot list%s shows what there is", c.self(), c.endpointFlags())
}

// chosenMember is the one of --node, or the leader.
func (c *Call) chosenMember() (*member, error) {
	patience, err := c.patience()
	if err != nil {
		return nil, err
	}
	all, err := c.roster(c, patience)
	if err != nil {
		return nil, err
	}
	return c.oneMember(all)
}

func snapshotShow(c *Call) error {
	s, err := c.findSnapshot(c.Args[0])
	if err != nil {
		return err
	}
	return c.printSnapshot(s)
}

func (c *Call) printSnapshot(s snapshotJSON) error {
	if c.Format.structured() {
		return c.printJSON(s)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var members []string
	for _, m := range s.Members {
		members = append(members, m.ID+" at "+m.Address)
	}
	state := "whole"
	switch {
	case s.Error != "":
		state = "of no use: " + s.Error
	case s.Writing:
		state = "being written"
	}
	c.showPairs([][2]string{
		{"id", s.ID}, {"node", s.Node + " at " + s.Endpoint}, {"state", state}, {"size", s.sizeText()}, {"created", s.CreatedAt},
		{"index", number(s.Index)}, {"term", number(s.Term)}, {"revision", number(s.Revision)},
		{"reads from", "revision " + number(max(1, s.CompactedRevision))}, {"rows", number(s.Rows)}, {"members", strings.Join(members, ", ")},
		{"version", s.Version}, {"hash", s.Hash},
	})
	return nil
}

type snapshotDeletedJSON struct {
	snapshotJSON
	Deleted bool `json:"deleted"`
	DryRun  bool `json:"dry_run,omitempty"`
}

func snapshotDelete(c *Call) error {
	id := c.Args[0]
	if err := c.refuseUnasked("deleting a snapshot"); err != nil {
		return err
	}
	s, err := c.findSnapshot(id)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s of %s (%s, revision %d, created %s)", s.ID, s.Node, s.sizeText(), s.Revision, nameOr(s.CreatedAt, "at an unknown time"))
	if c.flags.Bool("dry-run") {
		return c.printDeleted(snapshotDeletedJSON{snapshotJSON: s, DryRun: true}, "would delete "+what)
	}
	if err := c.confirm("Delete "+what+"?", "nothing was deleted"); err != nil {
		return err
	}
	store, err := c.storeAt(c, s.Endpoint)
	if err != nil {
		return err
	}
	defer store.Close()
	if _, err := store.SnapshotDelete(c, id); err != nil {
		return err
	}
	return c.printDeleted(snapshotDeletedJSON{snapshotJSON: s, Deleted: true}, "deleted "+what)
}

func (c *Call) printDeleted(row snapshotDeletedJSON, text string) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{row.ID, row.Node}})
	case Table:
		fmt.Fprintln(c.Stdout, text+"; the data of the cluster are not touched")
	default:
		return c.printJSON(row)
	}
	return nil
}
