package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/transport"
	"keyval/messages"
)

func newStatus(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "status",
		Usage: "show every node: role, term, revision and lag",
		Description: `Asks every endpoint by itself, all at once. LAG is how many entries of the log
a node has yet to apply, counted from the newest commit seen; LEVEL the cluster's, as
applied there. Below the table stand the
snapshots that nodes are brought which lag behind all that the others' logs keep.
With --json also what the log keeps and below which revision reads are refused.
A node has 2 seconds to answer, unless --timeout says otherwise.
Exits 0 if all endpoints answer, 9 if some do, 5 if none does.`,
		UsageText: `kvctl status
kvctl status --watch
kvctl status --endpoints 127.0.0.1:7001,127.0.0.1:7002 --json`,
		Flags: []urfave.Flag{watchFlag()},
		Action: sh.action(func(c *Call) error {
			return c.watched(func() error {
				rows, err := c.status()
				if err != nil {
					return err
				}
				if !c.flags.Bool("watch") {
					c.banner("Status of %d nodes, each asked by itself", len(rows))
				}
				return c.printStatus(rows)
			})
		}),
	}
}

// nodeJSON is what one endpoint said of itself.
type nodeJSON struct {
	Name       string `json:"name"`
	Endpoint   string `json:"endpoint"`
	Role       string `json:"role"` // leader, follower, candidate, learner, starting, unreachable
	PID        int64  `json:"pid"`
	RaftID     uint64 `json:"raft_id,string"`
	Term       uint64 `json:"term,string"`
	Revision   uint64 `json:"revision,string"`
	Commit     uint64 `json:"commit,string"`
	Applied    uint64 `json:"applied,string"`
	LagEntries uint64 `json:"lag_entries,string"`
	Leader     string `json:"leader"` // whom it follows; empty: nobody
	Version    string `json:"version"`
	Level      uint32 `json:"level"`     // of the cluster, as applied there
	LevelMin   uint32 `json:"level_min"` // what its software supports
	LevelMax   uint32 `json:"level_max"`
	Error      string `json:"error"`

	LogFirstIndex     uint64         `json:"log_first_index,string"` // of the oldest entry that is kept
	LastIndex         uint64         `json:"last_index,string"`
	LogBytes          uint64         `json:"log_bytes"` // of the entries that are kept
	CheckpointIndex   uint64         `json:"checkpoint_index,string"`
	CompactedRevision uint64         `json:"compacted_revision,string"` // reads below it are refused
	Transfers         []transferJSON `json:"transfers"`                 // snapshots on their way to or from it
	RoomBytes         uint64         `json:"room_bytes"`                // free on its disk; 0: not known
	Lacks             string         `json:"lacks,omitempty"`           // what it has too little of
	WritesRefused     string         `json:"writes_refused,omitempty"`  // why writes that need room are refused
	Keys              *keysJSON      `json:"keys,omitempty"`            // what its links are secured with; none: nothing
	KeysIssue         string         `json:"keys_issue,omitempty"`      // what is wrong with that

	reply     *messages.StatusReply // nil: it did not answer
	members   []*messages.Member
	clusterID []byte
	problem   *messages.Error

	asked, heard time.Time // when it was asked, and had answered
}

// keysJSON is what a node's links are secured with.
type keysJSON struct {
	Certificate string    `json:"certificate"` // whom it names
	Expires     time.Time `json:"expires"`
	What        string    `json:"expires_first"` // what expires then
	Authorities []string  `json:"authorities"`   // that it trusts, by the start of their SHA-256
}

func keysTold(k *messages.Keys) *keysJSON {
	if k.GetCertificate() == "" {
		return nil
	}
	return &keysJSON{k.Certificate, time.UnixMilli(k.ExpiresMs).UTC(), k.ExpiresWhat, k.Authorities}
}

// logEntries is how many entries the node's log keeps.
func (r *nodeJSON) logEntries() uint64 {
	if r.LogFirstIndex == 0 || r.LastIndex < r.LogFirstIndex {
		return 0
	}
	return r.LastIndex - r.LogFirstIndex + 1
}

// Roles that commands look at.
const (
	leading     = "leader"
	unreachable = "unreachable"
)

// statusTimeout is the default of --timeout here. A node that is well answers within
// milliseconds, and one that is not must not delay what the others say.
const statusTimeout = 2 * time.Second

func (c *Call) status() ([]nodeJSON, error) {
	endpoints, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	timeout, err := c.patience()
	if err != nil {
		return nil, err
	}
	rows := askAll(c, c.Shell, endpoints, timeout)
	return rows, rowsDenied(rows)
}

func rowsDenied(rows []nodeJSON) error {
	return allDenied(rows, func(r nodeJSON) *messages.Error { return r.problem })
}

// allDenied is why nobody was told anything, where each node said that it is not allowed. nil: one
// did not.
func allDenied[T any](rows []T, problem func(T) *messages.Error) error {
	for _, r := range rows {
		if p := problem(r); p == nil || p.Code != messages.Code_NOT_ALLOWED {
			return nil
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return problem(rows[0])
}

// askAll asks every endpoint by itself, all at once, and returns a row each.
func askAll(ctx context.Context, sh *Shell, endpoints []string, timeout time.Duration) []nodeJSON {
	return askAllFor(ctx, sh, endpoints, timeout, Store.Status)
}

// aStatus is one of a store's methods that ask for a status.
type aStatus func(Store, context.Context) (*messages.StatusReply, string, error)

func askAllFor(ctx context.Context, sh *Shell, endpoints []string, timeout time.Duration, what aStatus) []nodeJSON {
	rows := make([]nodeJSON, len(endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range endpoints {
		asked.Go(func() { rows[i] = ask(ctx, sh, endpoint, timeout, what) })
	}
	asked.Wait()
	var newest uint64
	for _, r := range rows {
		newest = max(newest, r.Commit)
	}
	for i := range rows {
		if rows[i].problem == nil {
			rows[i].LagEntries = newest - min(newest, rows[i].Applied)
		}
	}
	nameTheSilent(rows)
	return rows
}

// nameTheSilent gives members that do not answer the name and id that the others know them by.
func nameTheSilent(rows []nodeJSON) {
	view, err := newestView(rows)
	if err != nil {
		return // nobody answers, or not one cluster
	}
	for i := range rows {
		r := &rows[i]
		at := slices.IndexFunc(view.members, func(m *messages.Member) bool { return m.Address == r.Endpoint })
		if r.problem != nil && at >= 0 {
			r.Name, r.RaftID = view.members[at].Name, view.members[at].RaftId
		}
	}
}

func ask(ctx context.Context, sh *Shell, endpoint string, timeout time.Duration, what aStatus) nodeJSON {
	failed := func(err error) nodeJSON {
		problem, _ := explain(err)
		role := unreachable
		if problem.Code == messages.Code_STARTING {
			role = "starting"
		}
		return nodeJSON{Endpoint: endpoint, Role: role, Error: problem.Message, Transfers: []transferJSON{}, problem: problem}
	}
	if err := sh.Probe(ctx, endpoint, timeout); err != nil {
		return failed(err)
	}
	store, err := sh.ConnectTo(ctx, endpoint, timeout)
	if err != nil {
		return failed(err)
	}
	defer store.Close()
	asked := time.Now()
	s, answered, err := what(store, ctx)
	heard := time.Now()
	if err != nil {
		return failed(err)
	}
	if answered != endpoint { // a client goes on to other nodes that it hears of
		return failed(messages.Errorf(messages.Code_UNREACHABLE, "%s answered in its place", answered))
	}
	return nodeJSON{
		Name: s.Name, Endpoint: endpoint, Role: s.Role, PID: s.Pid, RaftID: s.RaftId, Term: s.Term,
		Revision: s.Revision, Commit: s.Commit, Applied: s.Applied, Leader: s.Leader.GetName(), Version: s.Version,
		Level: s.Level, LevelMin: s.LevelMin, LevelMax: s.LevelMax,
		LogFirstIndex: s.LogFirstIndex, LastIndex: s.LastIndex, LogBytes: s.LogBytes, CheckpointIndex: s.CheckpointIndex,
		CompactedRevision: s.CompactedRevision, Transfers: transfersOf(s), RoomBytes: s.RoomBytes, Lacks: s.Lacks, WritesRefused: s.WritesRefused,
		Keys: keysTold(s.Keys), KeysIssue: transport.KeysIssue(s.Keys, time.Now()), reply: s, members: s.Members, clusterID: s.ClusterId, asked: asked, heard: heard,
	}
}

func (c *Call) printStatus(rows []nodeJSON) error {
	switch c.Format {
	case Table:
		c.statusTable(rows)
	case Simple:
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{nameOr(r.Name, "-"), r.Endpoint, r.Role})
		}
		c.printSimple(cells)
	default:
		if err := printJSONList(c, rows); err != nil {
			return err
		}
	}
	return statusCode(rows)
}

// statusCode is nil if all endpoints answered.
func statusCode(rows []nodeJSON) error {
	answered := 0
	for _, r := range rows {
		if r.problem == nil {
			answered++
		}
	}
	switch answered {
	case len(rows):
		return nil
	case 0:
		return quiet(exitUnreachable)
	}
	return quiet(exitDegraded)
}

// roleCell is a role in a table. problem is why the node did not answer; empty: it did.
func (c *Call) roleCell(role, problem string) string {
	switch {
	case problem != "":
		return c.paint(red, role)
	case role == leading:
		return c.paint(green, role)
	}
	return role
}

func (c *Call) statusTable(rows []nodeJSON) {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var cells [][]string
	for _, r := range rows {
		if r.problem != nil {
			cells = append(cells, []string{nameOr(r.Name, "-"), r.Endpoint, c.roleCell(r.Role, r.Error), "-", "-", "-", "-", "-", "-", "-"})
			continue
		}
		cells = append(cells, []string{nameOr(r.Name, "-"), r.Endpoint, c.roleCell(r.Role, ""), strconv.FormatInt(r.PID, 10),
			number(r.Term), number(r.Revision), number(r.Applied), number(r.LagEntries), number(uint64(r.Level)), r.Version})
	}
	c.printTable([]string{"NAME", "ENDPOINT", "ROLE", "PID", "TERM", "REVISION", "APPLIED", "LAG", "LEVEL", "VERSION"}, cells)
	for _, r := range rows {
		if r.Lacks != "" {
			fmt.Fprintf(c.Stdout, "%s has too little room: %s\n", r.Name, r.Lacks)
		}
	}
	for _, line := range keyLines(rows) {
		fmt.Fprintln(c.Stdout, line)
	}
	if at := slices.IndexFunc(rows, func(r nodeJSON) bool { return r.WritesRefused != "" }); at >= 0 {
		fmt.Fprintln(c.Stdout, rows[at].WritesRefused)
	}
	for _, line := range transferLines(rows) {
		fmt.Fprintln(c.Stdout, line)
	}
	var hints []string // each once
	trouble := troubleIn(rows)
	if trouble != nil {
		hints = append(hints, trouble.Hint)
	}
	for _, r := range rows {
		if r.problem == nil {
			continue
		}
		c.note("%s: %s", strings.TrimSpace(r.Name+" "+r.Endpoint), r.Error)
		if h := r.problem.Hint; h != "" && trouble == nil && !slices.Contains(hints, h) {
			hints = append(hints, h)
		}
	}
	if trouble != nil {
		c.note("%s", trouble.Message)
	}
	for _, h := range hints {
		c.note("  next: %s", h)
	}
}

// keyLines say until when the nodes' keys are good, and what is wrong with them.
func keyLines(rows []nodeJSON) []string {
	var good, lines []string
	for _, r := range rows {
		if r.Keys != nil && r.KeysIssue == "" {
			good = append(good, r.Name+" until "+r.Keys.Expires.Format(time.DateOnly))
		}
		if r.KeysIssue != "" {
			lines = append(lines, r.Name+" "+r.KeysIssue)
		}
	}
	if len(good) > 0 {
		lines = append([]string{"Keys: " + strings.Join(good, ", ")}, lines...)
	}
	return lines
}

func nameOr(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return name
}
