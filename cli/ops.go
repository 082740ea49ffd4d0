package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func newOps(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "ops",
		Usage: "look at changes of the cluster, follow them, give them up",
		Description: `Every change of the members is an operation, which the cluster carries on by itself. An ID
may be cut short, as long as one operation begins so.`,
		UsageText: `kvctl ops ls
kvctl ops follow 1f0c9a3b`,
		Subcommands: []*urfave.Command{newOpsList(sh), newOpsShow(sh), newOpsFollow(sh), newOpsAbort(sh)},
	}
}

func newOpsList(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "ls",
		Usage:       "list the operations, those that ended lately too",
		Description: "With --json an array of objects with the fields of ops show.",
		UsageText:   "kvctl ops ls",
		Flags:       []urfave.Flag{watchFlag()},
		Action: sh.clusterQuestion(func(c *Call, a client.ClusterAnswer) error {
			return c.printOperations(a.Operations(), true)
		}),
	}
}

func newOpsShow(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "show",
		Usage:     "show one operation",
		ArgsUsage: "ID",
		Description: `With --json an object: id, kind (add, promote, remove, replace), phase (add_learner, catch_up,
promote, remove_old, complete, failed), old_node_id, new_node_id, new_address, started_at,
learner_added, learner_caught_up, new_node_promoted, old_node_removed, stays_learner,
aborting, waiting_for, error.`,
		UsageText: "kvctl ops show 1f0c9a3b",
		Flags:     []urfave.Flag{watchFlag()},
		Action: sh.clusterQuestion(func(c *Call, a client.ClusterAnswer) error {
			o, err := a.FindOperation(c.Args[0])
			if err != nil {
				return err
			}
			return c.printOperations([]*client.ReplaceNodeStatus{o}, false)
		}),
	}
}

func newOpsFollow(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "follow",
		Usage:       "wait for the end of an operation, and tell how far it is",
		ArgsUsage:   "ID",
		Description: "Exits as the command that began it would: 0 when it is complete, else by why it failed.",
		UsageText:   "kvctl ops follow 1f0c9a3b",
		Flags:       []urfave.Flag{progressFlag()},
		Action: sh.action(func(c *Call) error {
			return c.withOperation(func(ctx context.Context, store Store, p *progress, o *client.ReplaceNodeStatus) error {
				return c.followAndPrint(ctx, store, p, o.ID, false)
			})
		}),
	}
}

func newOpsAbort(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "abort",
		Usage:     "give an operation up, and undo what was done of it",
		ArgsUsage: "ID",
		Description: `A replacement cannot be given up any more once the new node has the old one's vote: exit
code 7.`,
		UsageText: "kvctl ops abort 1f0c9a3b",
		Flags:     []urfave.Flag{waitFlag(), progressFlag()},
		Action: sh.action(func(c *Call) error {
			return c.withOperation(func(ctx context.Context, store Store, p *progress, o *client.ReplaceNodeStatus) error {
				id, err := hex.DecodeString(o.ID)
				if err != nil {
					return messages.Errorf(messages.Code_INTERNAL, "the node names an operation %q", o.ID)
				}
				if _, err := (client.ClusterAPI{ClusterAsker: store}).Abort(ctx, id); err != nil {
					return err
				}
				if !c.flags.Bool("wait") {
					c.note("it is being undone; follow it: %s ops follow %s%s", c.self(), short(o.ID), c.endpointFlags())
					return nil
				}
				return c.followAndPrint(ctx, store, p, o.ID, true)
			})
		}),
	}
}

// withOperation finds the operation that the argument names.
func (c *Call) withOperation(run func(context.Context, Store, *progress, *client.ReplaceNodeStatus) error) error {
	p, err := c.progress(true, true)
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		a, err := client.ClusterAPI{ClusterAsker: store}.Query(ctx)
		if err != nil {
			return err
		}
		o, err := a.FindOperation(c.Args[0])
		if err != nil {
			return err
		}
		return run(ctx, store, p, o)
	})
}

func (c *Call) followAndPrint(ctx context.Context, store Store, p *progress, id string, aborted bool) error {
	o, err := c.followOperation(ctx, store, p, id, aborted)
	if err != nil {
		return err
	}
	return c.printOperations([]*client.ReplaceNodeStatus{o}, false)
}

// printOperations shows operations: many as a table or an array.
func (c *Call) printOperations(all []*client.ReplaceNodeStatus, many bool) error {
	switch c.Format {
	case Table:
		if !many {
			return c.printOperation(all[0])
		}
		var cells [][]string
		for _, o := range all {
			about := nameOr(o.OldNodeID, "-")
			if o.NewNodeID != "" && o.OldNodeID != "" {
				about += " -> " + o.NewNodeID
			} else if o.NewNodeID != "" {
				about = o.NewNodeID
			}
			text := o.WaitingFor
			if o.Error != nil {
				text = o.Error.Error()
			}
			cells = append(cells, []string{short(o.ID), o.Kind, about, o.Phase.String(), o.StartedAt.Format("2006-01-02 15:04:05"), text})
		}
		c.printTable([]string{"ID", "KIND", "NODES", "PHASE", "STARTED", "WAITS FOR, OR FAILED FOR"}, cells)
	case Simple:
		var cells [][]string
		for _, o := range all {
			phase, _ := o.Phase.MarshalText()
			cells = append(cells, []string{o.ID, o.Kind, string(phase)})
		}
		c.printSimple(cells)
	default:
		if many {
			return printJSONList(c, all)
		}
		return c.printJSON(all[0])
	}
	return nil
}

func (c *Call) printOperation(o *client.ReplaceNodeStatus) error {
	rows := [][2]string{
		{"operation", o.ID}, {"change", operationTitle(o)}, {"phase", o.Phase.String()}, {"started", o.StartedAt.Format(time.RFC3339)},
	}
	if o.Aborting && !o.Phase.Ended() {
		rows = append(rows, [2]string{"given up", "what was done is being undone"})
	}
	if o.WaitingFor != "" {
		rows = append(rows, [2]string{"waiting for", o.WaitingFor})
	}
	if o.Hint != "" {
		rows = append(rows, [2]string{"next", o.Hint})
	}
	if o.Error != nil {
		rows = append(rows, [2]string{"error", fmt.Sprint(o.Error)})
	}
	c.printPairs(rows)
	return nil
}
