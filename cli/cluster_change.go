package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/actors/transport/grpc"
	"keyval/messages"
)

// clusterChange is one change of the cluster that a command asks for.
type clusterChange struct {
	title   string // "remove node2"
	request *messages.ClusterRequest
	// danger: it is asked for on a terminal, or --yes was given.
	danger bool
	plan   string // its id; empty: none was made before
	// end shows the cluster's state when there is no operation to follow; nil: there is one.
	end func(context.Context, client.ClusterAPI) error
}

// operationChange is a change by an operation, whose id is chosen here: however often it is
// sent, it is one.
func operationChange(title string, danger bool, o *messages.ClusterOperation) (clusterChange, error) {
	id, err := client.NewOperationID()
	o.Id = id
	return clusterChange{title: title, danger: danger, request: client.BeginRequest(o, 0, 0)}, err
}

// changeFlags are those of every change that is an operation.
func changeFlags(more ...urfave.Flag) []urfave.Flag {
	return append(append(more, waitFlag(), progressFlag()), dryRunFlag(), planningFlag())
}

func newClusterAdd(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "add",
		Usage:     "add a node: as a learner, and as a voter when it has caught up",
		ArgsUsage: "ID [ADDRESS...]",
		Description: `The node is started with kvctl serve --join, before or after: kvctl says what it waits for.
Several nodes are given as ID=ADDRESS each, and are added one after the other.
Ctrl-C leaves the operation running, and says how to follow it or give it up.
--plan shows the steps, with who may be lost in each, and an id; --plan ID carries that out, and
exits 7 if the members have changed by then.
With --json an object with the fields of ops show, for several nodes an array.`,
		UsageText: `kvctl cluster add node4 127.0.0.1:7004
kvctl cluster add node4=10.0.0.4:7001 node5=10.0.0.5:7001
kvctl cluster add node4 127.0.0.1:7004 --learner`,
		Flags:  changeFlags(&urfave.BoolFlag{Name: "learner", Usage: "leave it a learner, which holds everything and does not vote"}),
		Action: sh.planned(messages.OperationKind_ADD, clusterAdd),
	}
}

func clusterAdd(c *Call) error {
	nodes, err := c.newNodes()
	if err != nil {
		return err
	}
	if len(nodes) > 1 && c.flags.Bool(planFlag) {
		return c.usage("make one for the first node, carry it out, and make the next", "a plan is of one change: the members are others after each")
	}
	var changes []clusterChange
	for _, n := range nodes {
		change, err := operationChange(fmt.Sprintf("add %s at %s", n[0], n[1]), false, &messages.ClusterOperation{
			Kind: messages.OperationKind_ADD, NewNode: n[0], NewAddress: n[1], StayLearner: c.flags.Bool("learner"),
		})
		if err != nil {
			return err
		}
		changes = append(changes, change)
	}
	return c.runChanges(changes)
}

// newNodes reads ID ADDRESS, or ID=ADDRESS any number of times.
func (c *Call) newNodes() ([][2]string, error) {
	var nodes [][2]string
	if len(c.Args) == 2 && !strings.Contains(c.Args[0], "=") {
		nodes = [][2]string{{c.Args[0], c.Args[1]}}
	} else {
		for _, arg := range c.Args {
			name, address, ok := strings.Cut(arg, "=")
			if !ok {
				return nil, c.usage("write ID ADDRESS, or ID=ADDRESS for each of several nodes", "%q is no ID=ADDRESS", arg)
			}
			nodes = append(nodes, [2]string{name, address})
		}
	}
	for _, n := range nodes {
		if err := c.checkNode(n[0], n[1]); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

func (c *Call) checkNode(name, address string) error {
	if err := messages.CheckNodeName(name); err != nil {
		return c.usage(err.Hint, "%s", err.Message)
	}
	if err := grpc.CheckReachable(address); err != nil {
		return c.usage(err.Hint, "%s", err.Message)
	}
	return nil
}

func newClusterRemove(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "remove",
		Usage:     "remove a member",
		ArgsUsage: "ID",
		Description: `A leader hands the lead over first. The node learns that it was removed, and ends; its
directory can not come back as a member. What would leave no quorum is refused, with exit
code 6. --plan and --plan ID: as in cluster add.
With --json an object with the fields of ops show.`,
		UsageText: `kvctl cluster remove node2 --dry-run
kvctl cluster remove node2 --plan
kvctl cluster remove node2 --yes`,
		Flags: changeFlags(yesFlag()),
		Action: sh.planned(messages.OperationKind_REMOVE, func(c *Call) error {
			return c.runOperation("remove "+c.Args[0], true, &messages.ClusterOperation{Kind: messages.OperationKind_REMOVE, OldNode: c.Args[0]})
		}),
	}
}

func newClusterPromote(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "promote",
		Usage:     "make a learner a voter",
		ArgsUsage: "ID",
		Description: `A learner that has not caught up is refused, with exit code 6 and what it lacks.
--plan and --plan ID: as in cluster add.`,
		UsageText: "kvctl cluster promote node4",
		Flags:     changeFlags(),
		Action: sh.planned(messages.OperationKind_PROMOTE, func(c *Call) error {
			return c.runOperation("promote "+c.Args[0], false, &messages.ClusterOperation{Kind: messages.OperationKind_PROMOTE, NewNode: c.Args[0]})
		}),
	}
}

func newClusterReplace(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "replace",
		Usage:     "have a new node take the place of an old one, which may be dead",
		ArgsUsage: "OLD NEW [ADDRESS]",
		Description: `The new node is added as a learner; when it has caught up, it gets the old one's vote and the
old one is removed, in one step. Until then it can be given up: kvctl ops abort; and if the new
node fails meanwhile, that, and another one. A node that waits to be added needs no ADDRESS. NEW
may be OLD's name: then the same machine begins anew on an empty directory.
--plan shows the steps, with who may be lost in each, and an id; --plan ID carries that out
without a question, and exits 7 if the members have changed by then.
With --json an object with the fields of ops show.`,
		UsageText: `kvctl cluster replace node2 node4 127.0.0.1:7004 --dry-run
kvctl cluster replace node2 node4 127.0.0.1:7004 --plan
kvctl cluster replace node2 node4 127.0.0.1:7004 --yes
kvctl cluster replace node2 node4 --yes`,
		Flags: changeFlags(yesFlag()),
		Action: sh.planned(messages.OperationKind_REPLACE, func(c *Call) error {
			title, address := fmt.Sprintf("replace %s by %s", c.Args[0], c.Args[1]), ""
			if len(c.Args) > 2 {
				address = c.Args[2]
				title += " at " + address
				if err := c.checkNode(c.Args[1], address); err != nil {
					return err
				}
			}
			return c.runOperation(title, true, &messages.ClusterOperation{
				Kind: messages.OperationKind_REPLACE, OldNode: c.Args[0], NewNode: c.Args[1], NewAddress: address,
			})
		}),
	}
}

func newClusterTransfer(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "transfer",
		Usage:       "hand the lead to another voter",
		ArgsUsage:   "[ID]",
		Description: "Without an ID the lead goes to the voter that is closest behind. Returns when that one leads.",
		UsageText: `kvctl cluster transfer node2
kvctl cluster transfer`,
		Flags: []urfave.Flag{dryRunFlag()},
		Action: sh.action(func(c *Call) error {
			to := strings.Join(c.Args, "")
			m := &messages.ClusterRequest{Kind: &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{To: to}}}
			return c.runChanges([]clusterChange{{title: "hand the lead to " + nameOr(to, "the best voter"), request: m,
				end: func(ctx context.Context, api client.ClusterAPI) error {
					if err := api.TransferLeadership(ctx, to, 0, 0); err != nil {
						return err
					}
					return c.endedWith(ctx, api, client.ClusterAnswer.LeaderMember, "%s leads now\n")
				}}})
		}),
	}
}

func newClusterUpdate(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "update",
		Usage:       "say where a member is reached from now on",
		ArgsUsage:   "ID ADDRESS",
		Description: "The node itself is started with the same address: kvctl serve --data DIR --advertise ADDRESS.",
		UsageText:   "kvctl cluster update node2 10.0.0.22:7001",
		Flags:       []urfave.Flag{dryRunFlag()},
		Action: sh.action(func(c *Call) error {
			name, address := c.Args[0], c.Args[1]
			if err := c.checkNode(name, address); err != nil {
				return err
			}
			m := &messages.ClusterRequest{Kind: &messages.ClusterRequest_Address{Address: &messages.ChangeAddress{Name: name, Address: address}}}
			return c.runChanges([]clusterChange{{title: fmt.Sprintf("reach %s at %s", name, address), request: m,
				end: func(ctx context.Context, api client.ClusterAPI) error {
					if _, err := api.AskCluster(ctx, m); err != nil {
						return err
					}
					return c.endedWith(ctx, api, func(a client.ClusterAnswer) (*client.MemberInfo, error) { return a.Member(name) }, "%s is reached at "+address+"\n")
				}}})
		}),
	}
}

// endedWith shows the member that a change was about.
func (c *Call) endedWith(ctx context.Context, api client.ClusterAPI, which func(client.ClusterAnswer) (*client.MemberInfo, error), format string) error {
	a, err := api.Query(ctx)
	if err != nil {
		return err
	}
	m, err := which(a)
	if err != nil {
		return err
	}
	if c.Format == Table {
		_, err := fmt.Fprintf(c.Stdout, format, m.ID)
		return err
	}
	return c.showMember(m, a)
}

func (c *Call) runOperation(title string, danger bool, o *messages.ClusterOperation) error {
	change, err := operationChange(title, danger, o)
	if err != nil {
		return err
	}
	return c.runChanges([]clusterChange{change})
}

// runChanges asks for changes, one after the other.
func (c *Call) runChanges(changes []clusterChange) error {
	var p *progress
	var err error
	if changes[0].end == nil {
		if p, err = c.progress(true, true); err != nil {
			return err
		}
	}
	if changes[0].danger && !c.flags.Bool(planFlag) {
		if err := c.refuseUnasked("to " + changes[0].title); err != nil {
			return err
		}
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		var done []*client.ReplaceNodeStatus
		for _, change := range changes {
			o, err := c.runChange(ctx, store, p, change)
			if o != nil {
				done = append(done, o)
			}
			if err != nil {
				return err
			}
		}
		if len(done) == 0 {
			return nil
		}
		return c.printOperations(done, len(changes) > 1)
	})
}

// runChange asks for one change and follows it to its end. It returns no operation if there
// is none to show.
func (c *Call) runChange(ctx context.Context, store Store, p *progress, change clusterChange) (*client.ReplaceNodeStatus, error) {
	api := client.ClusterAPI{ClusterAsker: store}
	switch {
	case change.plan != "":
		if _, err := api.CheckPlan(ctx, change.plan); err != nil {
			return nil, err
		}
	case c.flags.Bool(planFlag):
		return nil, c.printPlan(ctx, api, change)
	}
	if c.flags.Bool("dry-run") {
		return nil, c.dryRun(ctx, api, change)
	}
	if change.danger && !c.flags.Bool("yes") {
		if err := c.confirmChange(ctx, api, change); err != nil {
			return nil, err
		}
	}
	if change.end != nil {
		return nil, change.end(ctx, api)
	}
	id := hex.EncodeToString(change.request.GetBegin().Operation.Id)
	a, err := api.AskCluster(ctx, change.request)
	if err != nil {
		return nil, c.changeRefused(err, a, id)
	}
	for _, w := range a.Warnings {
		c.note("%swarning: %s", c.warning(), w)
	}
	begun := change.request.GetBegin().Operation
	if a.ClusterReply.Operation != nil {
		begun = a.ClusterReply.Operation
	}
	if !c.flags.Bool("wait") {
		c.note("it is under way; follow it: %s ops follow %s%s", c.self(), short(id), c.endpointFlags())
		return client.OperationStatus(begun), nil
	}
	return c.followOperation(ctx, store, p, id, false)
}

// changeRefused adds to an error what the answer says beside it.
func (c *Call) changeRefused(err error, a client.ClusterAnswer, id string) error {
	problem, _ := explain(err)
	told := *problem
	if o := a.GetOperation(); o != nil && hex.EncodeToString(o.Id) != id {
		text := operationText(client.OperationStatus(o))
		if title := strings.TrimSuffix(operationTitle(client.OperationStatus(o)), " at "+o.NewAddress); strings.HasSuffix(told.Message, title) {
			text = strings.TrimPrefix(strings.TrimPrefix(text, title), " ") // it is said already
		} else {
			text = ": " + text
		}
		told.Message += strings.ReplaceAll(" "+text, " :", ":")
	}
	if told.Code == messages.Code_OUTCOME_UNKNOWN {
		told.Hint = fmt.Sprintf("see whether it was begun: %s ops follow %s%s", c.self(), short(id), c.endpointFlags())
	}
	return &told
}

// changeDryRunJSON is what a change would do.
type changeDryRunJSON struct {
	DryRun    bool        `json:"dry_run"`
	Change    string      `json:"change"`
	Before    *budgetJSON `json:"before"`
	After     *budgetJSON `json:"after"`
	Meanwhile *budgetJSON `json:"meanwhile"` // null: no other configurations on the way
	Warnings  []string    `json:"warnings"`
}

type budgetJSON struct {
	Voters    uint32   `json:"voters"`
	Quorum    uint32   `json:"quorum"`
	Alive     uint32   `json:"alive"`
	Slack     uint32   `json:"slack"`
	Available bool     `json:"available"`
	Survives  []string `json:"survives"`
	Stops     []string `json:"stops"`
	Text      string   `json:"text"`
}

func budgetOf(b *messages.FaultBudget) *budgetJSON {
	if b == nil {
		return nil
	}
	return &budgetJSON{b.Voters, b.Quorum, b.Alive, b.Slack, b.Available, append([]string{}, b.Survives...), append([]string{}, b.Stops...), client.BudgetText(b)}
}

// budgetLines say who may be lost now, and after a change.
func budgetLines(a client.ClusterAnswer) []string {
	var lines []string
	for _, row := range []struct {
		when   string
		budget *messages.FaultBudget
	}{{"now", a.GetBefore()}, {"meanwhile", a.GetMeanwhile()}, {"then", a.GetAfter()}} {
		if row.budget != nil {
			lines = append(lines, fmt.Sprintf("%-11s%s", row.when+":", client.BudgetText(row.budget)))
		}
	}
	for _, w := range a.GetWarnings() {
		lines = append(lines, "warning:   "+w)
	}
	return lines
}

// askDryRun asks what a change would do.
func askDryRun(ctx context.Context, api client.ClusterAPI, change clusterChange) (client.ClusterAnswer, error) {
	return api.AskCluster(ctx, &messages.ClusterRequest{Kind: change.request.Kind, Configuration: change.request.Configuration, DryRun: true})
}

func (c *Call) dryRun(ctx context.Context, api client.ClusterAPI, change clusterChange) error {
	a, err := askDryRun(ctx, api, change)
	if err != nil {
		for _, line := range budgetLines(a) {
			c.note("  %s", line)
		}
		return c.changeRefused(err, a, "")
	}
	switch c.Format {
	case Table:
		fmt.Fprintf(c.Stdout, "would %s\n", change.title)
		for _, line := range budgetLines(a) {
			fmt.Fprintf(c.Stdout, "  %s\n", line)
		}
		return nil
	case Simple:
		c.printSimple([][]string{{change.title}})
		return nil
	}
	return c.printJSON(changeDryRunJSON{true, change.title, budgetOf(a.GetBefore()), budgetOf(a.GetAfter()), budgetOf(a.GetMeanwhile()), append([]string{}, a.GetWarnings()...)})
}

// confirmChange shows what a change would do and asks. The change is bound to what was shown.
func (c *Call) confirmChange(ctx context.Context, api client.ClusterAPI, change clusterChange) error {
	seen, err := api.Query(ctx)
	if err != nil {
		return err
	}
	a, err := askDryRun(ctx, api, change)
	if err != nil {
		return c.changeRefused(err, a, "")
	}
	for _, line := range budgetLines(a) {
		c.note("%s", line)
	}
	change.request.Configuration = seen.GetView().GetConfigurationIndex()
	return c.confirm(titled(change.title)+"?", "nothing was changed")
}
