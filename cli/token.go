package cli

import (
	"context"
	"encoding/hex"
	"net"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/messages"
)

func newClusterToken(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "token",
		Usage: "give a new machine a token that lets it fetch a node's keys, once",
		Description: `The keys are made where the authority is, and lie in the cluster, sealed with what stands in the
token and nowhere else. The token also says by which authority the cluster proves who it is: so
the new machine tells nobody else anything. Carry it there in a way that nobody else reads.`,
		UsageText: `kvctl cluster token create n4 10.0.0.4 --ttl 1h
kvctl cluster token list`,
		Subcommands: []*urfave.Command{newTokenCreate(sh), newTokenList(sh), newTokenRemove(sh)},
	}
}

const tokenFields = "With --json an object: id, node, by, expires, state (open, taken, used, expired), taken_at, taken_from"

func newTokenCreate(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "create", Usage: "make the keys of a node, and a token that fetches them", ArgsUsage: "NAME HOST...",
		UsageText: "kvctl cluster token create n4 10.0.0.4 --ttl 1h --dir ./certs",
		Description: `Runs where the authority is, by somebody with the role operator. The keys are those of cert
create-node: NAME is the node's --name, and a HOST what others dial. The token alone goes to standard
output, and the command for the new machine to standard error. Whoever reads the token first has the keys.
` + tokenFields + ",\ntoken, command.",
		Flags: []urfave.Flag{
			&urfave.DurationFlag{Name: "ttl", Usage: "the token is good for `TIME`, 1s to 168h", Value: time.Hour}, authorityFlag(),
		},
		Action: sh.action(tokenCreate),
	}
}

func tokenCreate(c *Call) error {
	ttl := c.flags.Duration("ttl")
	if ttl < time.Second || ttl > auth.InvitationTTLMaxMS*time.Millisecond {
		return c.usage("", "--ttl %v: from 1s to 168h are allowed", ttl)
	}
	if err := messages.CheckNodeName(c.Args[0]); err != nil {
		return c.usage(err.Hint, "%s", err.Message)
	}
	return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
		members, err := c.mayInvite(ctx, api)
		if err != nil {
			return err
		}
		token, sealed, cert, err := c.authority().Invite(c.Args[0], c.Args[1:])
		if err != nil {
			return err
		}
		i, err := api.Invite(ctx, &messages.NewInvitation{
			Id: token.ID[:], Node: c.Args[0], TtlMs: uint64(ttl.Milliseconds()), Proof: token.ProofHash(), Sealed: sealed,
		})
		if err != nil {
			return err
		}
		command := c.joinCommand(c.Args[0], c.Args[1], members)
		switch {
		case c.Format.structured():
			row := invitationOf(i, time.Now())
			row.Token, row.Command = token.Text(), command
			return c.printJSON(row)
		case c.Format == Simple:
			c.printSimple([][]string{{token.Text()}})
			return nil
		}
		c.printSimple([][]string{{token.Text()}})
		c.note("the token is good once, until %s; the keys that it fetches are good until %s", timeOf(i.ExpiresMs), cert.NotAfter.UTC().Format(time.DateOnly))
		c.note("next: on the new machine, with the token in the file TOKEN, which nobody else can read:")
		c.note("  %s", command)
		c.note("and then, here: %s cluster add %s %s", c.self(), c.Args[0], net.JoinHostPort(c.Args[1], "7001"))
		return nil
	})
}

// mayInvite asks who the members are, before anything is made: he who may not is refused here.
func (c *Call) mayInvite(ctx context.Context, api client.ClusterAPI) (members []string, err error) {
	ring, err := keysOf(ctx)
	switch {
	case err != nil:
		return nil, err
	case ring == nil:
		return nil, messages.Errorf(messages.Code_INVALID, "without keys a node needs none, and no token").
			WithHint("name keys of a user for the cluster: --certs-dir DIR; a node of a cluster without keys is started with kvctl serve --join alone")
	}
	trusted, err := c.authority().Trusts(ring)
	if err == nil && !trusted {
		err = messages.Errorf(messages.Code_INVALID, "the authority in %s is not the one that this cluster trusts", c.authority().Dir).
			WithHint("name the directory where ca.crt and ca.key of the cluster are: --dir DIR")
	}
	if err != nil {
		return nil, err
	}
	if _, err := api.Invitations(ctx); err != nil {
		return nil, err
	}
	a, err := api.Query(ctx)
	for _, m := range a.GetView().GetMembers() {
		members = append(members, m.Member.Address)
	}
	return members, err
}

// joinCommand is what starts the new node.
func (c *Call) joinCommand(name, host string, members []string) string {
	return strings.Join([]string{c.self(), "serve", "--name", name, "--listen", net.JoinHostPort(host, "7001"), "--data", "DATA",
		"--join", strings.Join(members, ","), "--certs-dir", "CERTS", "--" + joinTokenFlag, "TOKEN"}, " ")
}

type invitationJSON struct {
	ID        string     `json:"id"`
	Node      string     `json:"node"`
	By        string     `json:"by"`
	Expires   time.Time  `json:"expires"`
	State     string     `json:"state"`
	TakenAt   *time.Time `json:"taken_at,omitempty"`
	TakenFrom string     `json:"taken_from,omitempty"`
	Token     string     `json:"token,omitempty"`
	Command   string     `json:"command,omitempty"`
}

func timeOf(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func invitationOf(i *messages.Invitation, now time.Time) invitationJSON {
	row := invitationJSON{ID: hex.EncodeToString(i.Id), Node: i.Node, By: i.By, Expires: time.UnixMilli(i.ExpiresMs).UTC(), State: "open", TakenFrom: i.TakenFrom}
	if i.TakenAtMs != 0 {
		at := time.UnixMilli(i.TakenAtMs).UTC()
		row.TakenAt = &at
	}
	switch {
	case row.TakenAt != nil && len(i.Sealed) == 0:
		row.State = "used"
	case row.TakenAt != nil:
		row.State = "taken"
	case !now.Before(row.Expires):
		row.State = "expired"
	}
	return row
}

func newTokenList(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the tokens of nodes, and what became of each", UsageText: "kvctl cluster token list",
		Description: `A token is open until somebody has taken the keys; then taken, until he has said that he has them,
and used. What has expired stands there until another is made. With --json an array of objects with the fields of
token create, but for token and command.`,
		Action: sh.action(func(c *Call) error {
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				all, err := api.Invitations(ctx)
				if err != nil {
					return err
				}
				return c.printInvitations(all)
			})
		}),
	}
}

func (c *Call) printInvitations(all []*messages.Invitation) error {
	rows := []invitationJSON{}
	var cells [][]string
	for _, i := range all {
		row := invitationOf(i, time.Now())
		state := row.State
		if row.TakenAt != nil {
			state += " " + row.TakenAt.Format(time.RFC3339) + " from " + row.TakenFrom
		}
		rows = append(rows, row)
		cells = append(cells, []string{row.ID, row.Node, nameOr(row.By, "-"), row.Expires.Format(time.RFC3339), state})
	}
	switch c.Format {
	case Table:
		c.printTable([]string{"ID", "NODE", "BY", "EXPIRES", "STATE"}, cells)
	case Simple:
		c.printSimple(cells)
	default:
		return printJSONList(c, rows)
	}
	return nil
}

func newTokenRemove(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "take a token back", ArgsUsage: "ID", UsageText: "kvctl cluster token remove 5f1d6f0c7a1b4f0f9a34b1d2c3e4f506",
		Description: `Nobody fetches the keys from then on. Whoever has fetched them keeps them: the certificate is good until it
expires. The ID is that of token list, or as much of its beginning as no other has. With --json an object: id, node, removed.`,
		Action: sh.action(func(c *Call) error {
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				i, err := findInvitation(ctx, api, c.Args[0])
				if err == nil {
					err = api.Uninvite(ctx, i.Id)
				}
				if err != nil {
					return err
				}
				if c.Format.structured() {
					return c.printJSON(struct {
						ID      string `json:"id"`
						Node    string `json:"node"`
						Removed bool   `json:"removed"`
					}{hex.EncodeToString(i.Id), i.Node, true})
				}
				c.note("the token of %s is removed", i.Node)
				if i.TakenAtMs != 0 {
					c.note("%sits keys were fetched at %s from %s, and are good until they expire", c.warning(), timeOf(i.TakenAtMs), i.TakenFrom)
				}
				return nil
			})
		}),
	}
}

// findInvitation finds one by the beginning of its id: NOT_FOUND if there is none, CONFLICT if there are several.
func findInvitation(ctx context.Context, api client.ClusterAPI, id string) (found *messages.Invitation, err error) {
	all, err := api.Invitations(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if !strings.HasPrefix(hex.EncodeToString(i.Id), strings.ToLower(id)) || id == "" {
			continue
		}
		if found != nil {
			return nil, messages.Errorf(messages.Code_CONFLICT, "the ids of several tokens begin with %.40q", id).WithHint("write more of it: kvctl cluster token list")
		}
		found = i
	}
	if found == nil {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no token of id %.40q", id).WithHint("kvctl cluster token list shows all")
	}
	return found, nil
}
