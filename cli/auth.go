package cli

import (
	"context"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/messages"
)

func newAuth(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "auth",
		Usage: "have roles count, or see whether they do",
		Description: `Without it, whoever reaches the cluster may do everything; with it, what his roles allow: kvctl
user --help. Users are told apart by certificates (kvctl cert --help), or by the tokens of kvctl login.`,
		UsageText: `kvctl auth status
kvctl auth enable --yes`,
		Subcommands: []*urfave.Command{newAuthSwitch(sh, true), newAuthSwitch(sh, false), newAuthStatus(sh)},
	}
}

func newAuthSwitch(sh *Shell, on bool) *urfave.Command {
	name, usage := "enable", "have roles count from now on"
	description := `Refused unless who asks is an admin, and can give roles then. Whoever has no role may do nothing
from then on. With --json an object with the fields of auth status.`
	if !on {
		name, usage = "disable", "let everybody who reaches the cluster do everything again"
		description = "The users and their roles stay. With --json an object with the fields of auth status."
	}
	return &urfave.Command{
		Name: name, Usage: usage, Description: description, UsageText: "kvctl auth " + name + " --yes", Flags: dangerFlags(),
		Action: sh.action(func(c *Call) error {
			if err := c.refuseUnasked("to " + name + " auth"); err != nil {
				return err
			}
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				return c.switchAuth(ctx, api, on)
			})
		}),
	}
}

func (c *Call) switchAuth(ctx context.Context, api client.ClusterAPI, on bool) error {
	change := &messages.ChangeAuth{Kind: &messages.ChangeAuth_Enable{Enable: on}}
	if err := api.ChangeAuth(ctx, change, true); err != nil { // what would be refused is not asked about
		return err
	}
	info, err := api.GetAuth(ctx)
	if err != nil {
		return err
	}
	what, question := fmt.Sprintf("Who has no role may do nothing from then on; %s.", rolesFor(info.Auth)), "Enable auth?"
	if !on {
		what, question = "Everybody who reaches the cluster may do everything from then on.", "Disable auth?"
	}
	if c.flags.Bool("dry-run") {
		c.note("%s", what)
		return c.printAuth(info)
	}
	if info.Enabled != on {
		if err := c.confirm(what+" "+question, "nothing was changed"); err != nil {
			return err
		}
	}
	if err := api.ChangeAuth(ctx, change, false); err != nil {
		return err
	}
	if info, err = api.GetAuth(ctx); err != nil {
		return err
	}
	return c.printAuth(info)
}

// rolesFor says who has some.
func rolesFor(a *messages.Auth) string {
	var names []string
	for _, u := range a.GetUsers() {
		if len(u.Grants) > 0 {
			names = append(names, u.Name)
		}
	}
	const namesMax = 8
	if n := len(names); n > namesMax {
		return fmt.Sprintf("%d users have one", n)
	}
	return "those who have one are " + strings.Join(names, ", ")
}

func newAuthStatus(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "show whether roles count, and what you may do", UsageText: "kvctl auth status",
		Description: "With --json an object: enabled, version, principal (whom your certificate names), roles (yours, an\narray of role, prefix), users (their number, as far as you are told of them), admins (their names, likewise).",
		Action: sh.action(func(c *Call) error {
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				info, err := api.GetAuth(ctx)
				if err != nil {
					return err
				}
				return c.printAuth(info)
			})
		}),
	}
}

type authJSON struct {
	Enabled   bool       `json:"enabled"`
	Version   uint64     `json:"version,string"`
	Principal string     `json:"principal"`
	Roles     []roleJSON `json:"roles"`
	Users     int        `json:"users"`
	Admins    []string   `json:"admins"`
}

func (c *Call) printAuth(info client.AuthInfo) error {
	own := auth.Find(info.Auth, info.Principal)
	state := "enabled"
	if !info.Enabled {
		state = "disabled"
	}
	switch c.Format {
	case Table:
		if !info.Enabled {
			state += ": whoever reaches the cluster may do everything"
		}
		c.printPairs([][2]string{
			{"auth", state}, {"you are", nameOr(info.Principal, "nobody: you come without a certificate")}, {"your roles", nameOr(rolesText(own), "none")},
			{"admins", nameOr(strings.Join(auth.Admins(info.Auth), ", "), "none that you are told of")},
		})
	case Simple:
		c.printSimple([][]string{{state, info.Principal, rolesText(own)}})
	default:
		return c.printJSON(authJSON{info.Enabled, info.Version, info.Principal, rolesOf(own), len(info.Users), append([]string{}, auth.Admins(info.Auth)...)})
	}
	return nil
}
