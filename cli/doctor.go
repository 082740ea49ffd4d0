package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/cli/doctor"
)

func newDoctor(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:    "doctor",
		Aliases: []string{"explain"},
		Usage:   "say what is wrong with the cluster, what causes it and what to do",
		Description: `Asks all endpoints, and the members that they name, each by itself, and reads linearizably.
What it finds stands in order of urgency: down (the cluster does not do its work), danger
(one further fault would stop it, or data are at risk), warning, note.
A node has 2 seconds to answer, unless --timeout says otherwise.
--capture writes what was collected to a new file beside, for a report of a defect: what each node says
of itself, of the cluster and of its settings, the last lines of its log, and what was found. It holds
names and addresses, and no key and no value.
Exits 0 if there is nothing but notes, 9 if there is more, 5 if the cluster is down.
With --json an array of objects: urgency, what, cause, next.`,
		UsageText: `kvctl doctor
kvctl doctor --json
kvctl doctor --capture report.json`,
		Flags: []urfave.Flag{watchFlag(), &urfave.StringFlag{Name: "capture", TakesFile: true, Usage: "write what was collected to `FILE`, for a report"}},
		Action: sh.action(func(c *Call) error {
			file := c.flags.String("capture")
			if file != "" && c.flags.Bool("watch") {
				return c.usage("leave --watch out", "--capture and --watch exclude each other")
			}
			return c.watched(func() error {
				facts, err := c.facts()
				if err != nil {
					return err
				}
				found := doctor.Examine(facts)
				if file != "" {
					if err := c.capture(file, facts, found); err != nil {
						return err
					}
				}
				return c.printFindings(found, len(facts.Nodes))
			})
		}),
	}
}

// facts asks everybody.
func (c *Call) facts() (doctor.Facts, error) {
	endpoints, err := c.endpoints()
	if err != nil {
		return doctor.Facts{}, err
	}
	timeout, err := c.patience()
	if err != nil {
		return doctor.Facts{}, err
	}
	rows, others, err := c.askEverybody(endpoints, timeout, Store.StatusAndEvents)
	if err != nil {
		return doctor.Facts{}, err
	}
	f := doctor.Facts{Now: time.Now()}
	answers := 0
	for _, r := range rows {
		f.Nodes = append(f.Nodes, doctor.Node{Name: r.Name, Endpoint: r.Endpoint, Status: r.reply, Problem: r.problem, Asked: r.asked, Heard: r.heard})
		answers += min(1, len(r.members))
	}
	if answers > 0 {
		c.askCluster(&f, append(endpoints, others...), timeout)
	}
	return f, nil
}

// askEverybody asks the endpoints and the members that they name; others are where those are.
// It is an error if none of them may tell who asks anything.
func (c *Call) askEverybody(endpoints []string, timeout time.Duration, what aStatus) (rows []nodeJSON, others []string, err error) {
	rows = askAllFor(c, c.Shell, endpoints, timeout, what)
	for _, r := range rows {
		for _, m := range r.members {
			if !slices.Contains(endpoints, m.Address) && !slices.Contains(others, m.Address) {
				others = append(others, m.Address)
			}
		}
	}
	if len(others) > 0 {
		rows = append(rows, askAllFor(c, c.Shell, others, timeout, what)...)
		nameTheSilent(rows)
	}
	return rows, others, rowsDenied(rows)
}

// askCluster asks one of the endpoints about the cluster, and for a read.
func (c *Call) askCluster(f *doctor.Facts, endpoints []string, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(c, timeout)
	defer cancel()
	store, err := c.Connect(ctx, endpoints, timeout)
	if err != nil {
		f.Read = err
		return
	}
	defer store.Close()
	if a, err := (client.ClusterAPI{ClusterAsker: store}).Query(ctx); err == nil {
		f.Cluster = &a
	}
	began := time.Now()
	_, f.Read = store.Newest(ctx)
	f.Took = time.Since(began)
}

func (c *Call) printFindings(all []doctor.Finding, nodes int) error {
	switch c.Format {
	case Table:
		if len(all) == 0 {
			fmt.Fprintf(c.Stdout, "%s: %s asked, nothing found\n", c.paint(green, "well"), plural(uint64(nodes), "node"))
		}
		for _, f := range all {
			colour := red
			if f.Urgency > doctor.Danger {
				colour = amber
			}
			fmt.Fprintf(c.Stdout, "%s  %s\n", c.paint(colour, fmt.Sprintf("%-7s", f.Urgency)), f.What)
			if f.Cause != "" {
				fmt.Fprintf(c.Stdout, "%9s%s\n", "", f.Cause)
			}
			fmt.Fprintf(c.Stdout, "%9snext: %s\n", "", f.Next)
		}
	case Simple:
		var cells [][]string
		for _, f := range all {
			cells = append(cells, []string{f.Urgency.String(), f.What})
		}
		c.printSimple(cells)
	default:
		if err := printJSONList(c, all); err != nil {
			return err
		}
	}
	switch {
	case len(all) == 0 || all[0].Urgency == doctor.Note:
		return nil
	case all[0].Urgency == doctor.Down:
		return quiet(exitUnreachable)
	}
	return quiet(exitDegraded)
}
