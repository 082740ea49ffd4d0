package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func newClusterSpare(sh *Shell) *urfave.Command {
	verb := func(name, usage, description string, asked func(string) *messages.ChangeHealing) *urfave.Command {
		return &urfave.Command{
			Name: name, Usage: usage, ArgsUsage: "NAME", Description: description,
			UsageText: "kvctl cluster spare " + name + " node4",
			Action: sh.action(func(c *Call) error {
				if err := messages.CheckNodeName(c.Args[0]); err != nil {
					return c.usage(err.Hint, "%s", err.Message)
				}
				return c.changeHealing(asked(c.Args[0]))
			}),
		}
	}
	return &urfave.Command{
		Name:  "spare",
		Usage: "say which nodes that wait may take the place of a lost one",
		Description: `A spare runs, started with kvctl serve --join, and waits to be added. What is done with it
says cluster autoreplace. It is no spare any more once it is a member.`,
		UsageText: `kvctl cluster spare add node4
kvctl cluster spare remove node4`,
		Subcommands: []*urfave.Command{
			verb("add", "make a node that waits a spare", "The node need not run yet. With --json an object with the fields of cluster autoreplace.",
				func(name string) *messages.ChangeHealing { return &messages.ChangeHealing{AddSpare: name} }),
			verb("remove", "let a node be a spare no more", "The node goes on waiting. With --json an object with the fields of cluster autoreplace.",
				func(name string) *messages.ChangeHealing { return &messages.ChangeHealing{RemoveSpare: name} }),
		},
	}
}

var healingModes = map[string]messages.HealingMode{
	"off": messages.HealingMode_HEALING_OFF, "dry": messages.HealingMode_HEALING_DRY, "on": messages.HealingMode_HEALING_ON,
}

func newClusterAutoreplace(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "autoreplace",
		Usage:     "have the cluster replace a voter that is lost by a spare",
		ArgsUsage: "[on|dry|off]",
		Description: `Without an argument it shows what is set, and what it says now. A voter that has been out of
contact for --after counts as lost. With on the leader replaces it by a spare that waits: one at
a time, with a quorum, and never while more than one voter is missing; it is an operation like
any other: kvctl ops ls. With dry, which is so from the first spare on, cluster health only says
what would be done. A replace that fails or is aborted is not tried again for the same voter.
With --json an object: mode, after_ms, spares (an array of name, address, waits), says.`,
		UsageText: `kvctl cluster autoreplace
kvctl cluster autoreplace on --after 10m --yes
kvctl cluster autoreplace off`,
		Flags: []urfave.Flag{
			&urfave.DurationFlag{Name: "after", Usage: "a voter is lost when it has been out of contact for `TIME`, 1s to 168h; 10m where nothing is said"},
			yesFlag(),
		},
		Action: sh.action(autoreplace),
	}
}

func autoreplace(c *Call) error {
	m := &messages.ChangeHealing{}
	if c.flags.IsSet("after") {
		after := c.flags.Duration("after")
		if after < time.Second || after > 168*time.Hour {
			return c.usage("", "--after %v: from 1s to 168h are allowed", after)
		}
		m.AfterMs = uint64(after.Milliseconds())
	}
	if len(c.Args) == 0 {
		if m.AfterMs > 0 {
			return c.changeHealing(m)
		}
		return c.withAPI(c.showHealing)
	}
	mode, known := healingModes[c.Args[0]]
	if !known {
		return c.usage("", "%q is none of on, dry, off", c.Args[0])
	}
	m.Mode = &mode
	if mode == messages.HealingMode_HEALING_ON {
		if err := c.refuseUnasked("to have lost voters replaced without asking"); err != nil {
			return err
		}
		if err := c.confirm("Have lost voters replaced without asking?", "nothing was changed"); err != nil {
			return err
		}
	}
	return c.changeHealing(m)
}

func (c *Call) changeHealing(m *messages.ChangeHealing) error {
	return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
		if err := api.ChangeHealing(ctx, m); err != nil {
			return err
		}
		return c.showHealing(ctx, api)
	})
}

type healingJSON struct {
	Mode    string      `json:"mode"`
	AfterMs uint64      `json:"after_ms"`
	Spares  []spareJSON `json:"spares"`
	Says    string      `json:"says"`
}

type spareJSON struct {
	Name    string `json:"name"`
	Address string `json:"address"` // empty: it does not wait
	Waits   bool   `json:"waits"`
}

// healingOf is what a node knows of it.
func healingOf(a client.ClusterAnswer) healingJSON {
	h := a.GetView().GetHealing()
	out := healingJSON{Mode: "off", AfterMs: h.GetAfterMs(), Spares: []spareJSON{}, Says: a.GetView().GetHealingSays()}
	for name, mode := range healingModes {
		if mode == h.GetMode() {
			out.Mode = name
		}
	}
	for _, name := range h.GetSpares() {
		s := spareJSON{Name: name}
		for _, w := range a.GetView().GetWaiting() {
			if w.Name == name && w.Refused == "" {
				s.Address, s.Waits = w.Address, true
			}
		}
		out.Spares = append(out.Spares, s)
	}
	return out
}

func (c *Call) showHealing(ctx context.Context, api client.ClusterAPI) error {
	a, err := api.Query(ctx)
	if err != nil {
		return err
	}
	h := healingOf(a)
	if c.Format.structured() {
		return c.printJSON(h)
	}
	if c.Format == Simple {
		c.printSimple([][]string{{h.Mode, (time.Duration(h.AfterMs) * time.Millisecond).String()}})
		return nil
	}
	var spares []string
	for _, s := range h.Spares {
		where := "does not wait: start it with kvctl serve --join"
		if s.Waits {
			where = "waits at " + s.Address
		}
		spares = append(spares, fmt.Sprintf("%s (%s)", s.Name, where))
	}
	rows := [][2]string{{"autoreplace", map[string]string{
		"off": "off", "dry": "dry: it only says what it would do", "on": "on: a lost voter is replaced by a spare"}[h.Mode]}}
	if h.AfterMs > 0 {
		rows = append(rows, [2]string{"after", (time.Duration(h.AfterMs) * time.Millisecond).String() + " out of contact"})
	}
	rows = append(rows, [2]string{"spares", nameOr(strings.Join(spares, ", "), "none: kvctl cluster spare add NAME")})
	if h.Says != "" {
		rows = append(rows, [2]string{"now", h.Says})
	}
	c.printPairs(rows)
	return nil
}
