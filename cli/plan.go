package cli

import (
	"context"
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

const planFlag = "plan"

func planningFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: planFlag, Usage: "show the steps and the id of a plan, and change nothing; with that id: carry it out"}
}

// planned is the action of a command that changes members, or that carries a plan of such a
// change out.
func (sh *Shell) planned(kind messages.OperationKind, change func(*Call) error) urfave.ActionFunc {
	return sh.action(func(c *Call) error {
		if c.flags.Bool(planFlag) && len(c.Args) == 1 && client.IsPlan(c.Args[0]) {
			return c.carryOut(kind, c.Args[0])
		}
		return change(c)
	})
}

// carryOut does what a plan says, without a question: whoever has its id has seen it.
func (c *Call) carryOut(kind messages.OperationKind, id string) error {
	m, _, err := client.ParsePlan(id)
	if err != nil {
		problem, _ := explain(err)
		return c.usage(problem.Hint, "%s", problem.Message)
	}
	o := m.GetBegin().Operation
	title := operationTitle(client.OperationStatus(o))
	if o.Kind != kind {
		return c.usage(fmt.Sprintf("%s cluster %s --plan %s%s", c.self(), client.OperationStatus(o).Kind, id, c.endpointFlags()), "it is a plan to %s", title)
	}
	return c.runChanges([]clusterChange{{title: title, plan: id, request: m}})
}

// planJSON is a plan.
type planJSON struct {
	Plan          string         `json:"plan"`
	Configuration uint64         `json:"configuration_index,string"`
	Change        string         `json:"change"`
	Before        *budgetJSON    `json:"before"`
	Steps         []planStepJSON `json:"steps"`
	Warnings      []string       `json:"warnings"`
}

type planStepJSON struct {
	Phase  client.ReplacePhase `json:"phase"`
	Text   string              `json:"text"`
	Budget *budgetJSON         `json:"fault_budget"`
}

// printPlan shows what a change would do, step by step, and how to have it done.
func (c *Call) printPlan(ctx context.Context, api client.ClusterAPI, change clusterChange) error {
	p, a, err := api.Plan(ctx, change.request.GetBegin().Operation)
	if err != nil {
		for _, line := range budgetLines(a) {
			c.note("  %s", line)
		}
		return c.changeRefused(err, a, "")
	}
	switch c.Format {
	case Table:
		c.planTable(p, change.title)
	case Simple:
		c.printSimple([][]string{{p.ID}})
	default:
		row := planJSON{p.ID, p.ConfigurationIndex, change.title, budgetOf(p.Before), []planStepJSON{}, append([]string{}, p.Warnings...)}
		for _, s := range p.Steps {
			row.Steps = append(row.Steps, planStepJSON{s.Phase, s.Text, budgetOf(s.Budget)})
		}
		return c.printJSON(row)
	}
	return nil
}

func (c *Call) planTable(p *client.ChangePlan, title string) {
	fmt.Fprintf(c.Stdout, "plan to %s, for configuration %d\n", title, p.ConfigurationIndex)
	fmt.Fprintf(c.Stdout, "  now            %s\n", client.BudgetText(p.Before))
	for i, s := range p.Steps {
		fmt.Fprintf(c.Stdout, "  %d. %-11s %s\n  %14s %s\n", i+1, s.Phase, s.Text, "", client.BudgetText(s.Budget))
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(c.Stdout, "  warning: %s\n", w)
	}
	fmt.Fprintf(c.Stdout, "carry it out, unless the members have changed by then:\n  %s %s --plan %s%s\n", c.self(), join(c.path), p.ID, c.endpointFlags())
}
