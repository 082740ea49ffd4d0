package cli

import (
	"context"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/messages"
)

func newUser(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "user",
		Usage: "say who may do what",
		Description: `A user is whom a certificate names (kvctl cert create-client USER), or who has logged in with a
password (kvctl user passwd USER, kvctl login USER). His roles count once auth
is enabled: kvctl auth enable. A viewer reads keys; a writer reads and writes them; both may be
bound to keys that begin with --prefix. An operator reads everything and runs the cluster. An
admin does everything, and says who may do what.`,
		UsageText: `kvctl user add alice --role writer --prefix orders/
kvctl user list`,
		Subcommands: []*urfave.Command{newUserAdd(sh), newUserList(sh), newUserShow(sh), newUserRemove(sh), newUserGrant(sh), newUserRevoke(sh), newUserPasswd(sh)},
	}
}

const userFields = "With --json an object: name, roles\n(an array of role, prefix), password (whether there is one)."

func keysOfRoleFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "prefix", Usage: "for the keys that begin with `PREFIX` alone"}
}

func newUserAdd(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "add", Usage: "add a user", ArgsUsage: "NAME", UsageText: "kvctl user add alice --role viewer",
		Description: "One who is there already keeps his roles. " + userFields,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "role", Usage: "give a role too: `viewer`, writer, operator or admin"}, keysOfRoleFlag(),
		},
		Action: sh.action(func(c *Call) error {
			changes := []*messages.ChangeAuth{{Kind: &messages.ChangeAuth_Add{Add: c.Args[0]}}}
			switch {
			case c.flags.IsSet("role"):
				g, err := c.grant(c.Args[0], c.flags.String("role"))
				if err != nil {
					return err
				}
				changes = append(changes, &messages.ChangeAuth{Kind: &messages.ChangeAuth_Grant{Grant: g}})
			case c.flags.IsSet("prefix"):
				return c.usage("", "--prefix is of a role: say --role too")
			}
			return c.changeUser(c.Args[0], changes...)
		}),
	}
}

func newUserGrant(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "grant", Usage: "give a user a role", ArgsUsage: "NAME ROLE", UsageText: "kvctl user grant alice writer --prefix orders/",
		Description: "A user may have several roles, with other prefixes. " + userFields,
		Flags:       []urfave.Flag{keysOfRoleFlag()},
		Action: sh.action(func(c *Call) error {
			g, err := c.grant(c.Args[0], c.Args[1])
			if err != nil {
				return err
			}
			return c.changeUser(c.Args[0], &messages.ChangeAuth{Kind: &messages.ChangeAuth_Grant{Grant: g}})
		}),
	}
}

func newUserRevoke(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "revoke", Usage: "take a role from a user", ArgsUsage: "NAME ROLE", UsageText: "kvctl user revoke alice writer --prefix orders/",
		Description: `From then on nothing takes effect that needs it, what is under way included. The prefix has to
be the one that was given with the role. ` + userFields,
		Flags: []urfave.Flag{keysOfRoleFlag()},
		Action: sh.action(func(c *Call) error {
			g, err := c.grant(c.Args[0], c.Args[1])
			if err != nil {
				return err
			}
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				change := &messages.ChangeAuth{Kind: &messages.ChangeAuth_Revoke{Revoke: g}}
				if err := api.ChangeAuth(ctx, change, true); err != nil { // who may not is told that, and not what others have
					return err
				}
				u, err := findUser(ctx, api, c.Args[0])
				if err != nil {
					return err
				}
				if !hasRole(u, g.Grant) {
					return messages.Errorf(messages.Code_NOT_FOUND, "user %s has no role %s", u.Name, auth.Words(g.Grant)).
						WithHint("he has %s", nameOr(rolesText(u), "none"))
				}
				if err := api.ChangeAuth(ctx, change, false); err != nil {
					return err
				}
				return c.showUser(ctx, api, u.Name)
			})
		}),
	}
}

func newUserRemove(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "remove a user, with all roles", ArgsUsage: "NAME", UsageText: "kvctl user remove alice --yes",
		Description: `From then on nothing takes effect that is his, what is under way included. His certificate stays
good for a connection, and for nothing else. With --json an object: name, removed.`,
		Flags: dangerFlags(),
		Action: sh.action(func(c *Call) error {
			if err := c.refuseUnasked("to remove a user"); err != nil {
				return err
			}
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				change, dry := &messages.ChangeAuth{Kind: &messages.ChangeAuth_Remove{Remove: c.Args[0]}}, c.flags.Bool("dry-run")
				if err := api.ChangeAuth(ctx, change, true); err != nil {
					return err
				}
				u, err := findUser(ctx, api, c.Args[0])
				if err != nil {
					return err
				}
				if !dry {
					if err := c.confirm("Remove user "+u.Name+", who has the roles "+nameOr(rolesText(u), "none")+"?", "nothing was changed"); err != nil {
						return err
					}
					if err := api.ChangeAuth(ctx, change, false); err != nil {
						return err
					}
				}
				if c.Format.structured() {
					return c.printJSON(struct {
						Name    string `json:"name"`
						Removed bool   `json:"removed"`
					}{u.Name, !dry})
				}
				if dry {
					c.note("would remove user %s", u.Name)
				} else {
					c.note("user %s is removed", u.Name)
				}
				return nil
			})
		}),
	}
}

func newUserList(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the users and their roles", UsageText: "kvctl user list",
		Description: "Who is no admin sees himself, once auth is enabled. With --json an array of objects with the fields\nof user show.",
		Action: sh.action(func(c *Call) error {
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				info, err := api.GetAuth(ctx)
				if err != nil {
					return err
				}
				return c.printUsers(info.Users)
			})
		}),
	}
}

func newUserShow(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "show", Usage: "show a user and his roles", ArgsUsage: "NAME", UsageText: "kvctl user show alice", Description: userFields,
		Action: sh.action(func(c *Call) error {
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				return c.showUser(ctx, api, c.Args[0])
			})
		}),
	}
}

// grant is a role of a user, as words and the prefix beside them say.
func (c *Call) grant(user, word string) (*messages.UserGrant, error) {
	role, err := auth.ParseRole(word)
	if err != nil {
		return nil, c.usage(err.Hint, "%s", err.Message)
	}
	g := &messages.Grant{Role: role}
	if prefix := c.flags.String("prefix"); prefix != "" {
		g.Prefix = []byte(prefix)
	}
	return &messages.UserGrant{User: user, Grant: g}, nil
}

// changeUser changes one, and shows what he may do then.
func (c *Call) changeUser(name string, changes ...*messages.ChangeAuth) error {
	if err := messages.CheckNodeName(name); err != nil {
		return c.usage(err.Hint, "%s", err.Message)
	}
	return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
		for _, change := range changes {
			if err := api.ChangeAuth(ctx, change, false); err != nil {
				return err
			}
		}
		return c.showUser(ctx, api, name)
	})
}

// findUser finds one: NOT_FOUND if he is not there, or who asks is not told of him.
func findUser(ctx context.Context, api client.ClusterAPI, name string) (*messages.User, error) {
	info, err := api.GetAuth(ctx)
	if err != nil {
		return nil, err
	}
	u := auth.Find(info.Auth, name)
	if u == nil {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no user %.80q, or %s may not see him", name, nameOr(info.Principal, "who comes without a certificate")).
			WithHint("kvctl user list shows all that can be seen")
	}
	return u, nil
}

func hasRole(u *messages.User, g *messages.Grant) bool {
	for _, has := range u.Grants {
		if has.Role == g.Role && string(has.Prefix) == string(g.Prefix) {
			return true
		}
	}
	return false
}

type userJSON struct {
	Name  string     `json:"name"`
	Roles []roleJSON `json:"roles"`
	// Password says whether he has one. Of what it is nobody is told anything.
	Password bool `json:"password"`
}

type roleJSON struct {
	Role         string  `json:"role"`
	Prefix       *string `json:"prefix,omitempty"` // empty: all keys
	PrefixBase64 *string `json:"prefix_base64,omitempty"`
}

func userOf(u *messages.User) userJSON {
	return userJSON{u.GetName(), rolesOf(u), u.GetPassword() != nil}
}

func rolesOf(u *messages.User) []roleJSON {
	roles := []roleJSON{}
	for _, g := range u.GetGrants() {
		r := roleJSON{Role: auth.RoleName(g.Role)}
		r.Prefix, r.PrefixBase64 = text(g.Prefix)
		roles = append(roles, r)
	}
	return roles
}

// rolesText is the roles of a user on one line; empty: he has none.
func rolesText(u *messages.User) string {
	var all []string
	for _, g := range u.GetGrants() {
		all = append(all, auth.Words(g))
	}
	return strings.Join(all, ", ")
}

func passwordText(u *messages.User) string {
	if u.GetPassword() == nil {
		return "none"
	}
	return "set"
}

func (c *Call) showUser(ctx context.Context, api client.ClusterAPI, name string) error {
	u, err := findUser(ctx, api, name)
	if err != nil {
		return err
	}
	switch c.Format {
	case Table:
		c.printPairs([][2]string{{"user", u.Name}, {"roles", nameOr(rolesText(u), "none: kvctl user grant "+u.Name+" ROLE")}, {"password", passwordText(u)}})
	case Simple:
		c.printSimple([][]string{{u.Name, rolesText(u), passwordText(u)}})
	default:
		return c.printJSON(userOf(u))
	}
	return nil
}

func (c *Call) printUsers(users []*messages.User) error {
	var cells [][]string
	all := []userJSON{}
	for _, u := range users {
		cells = append(cells, []string{u.Name, rolesText(u), passwordText(u)})
		all = append(all, userOf(u))
	}
	switch c.Format {
	case Table:
		c.printTable([]string{"USER", "ROLES", "PASSWORD"}, cells)
	case Simple:
		c.printSimple(cells)
	default:
		return printJSONList(c, all)
	}
	return nil
}
