package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

const envLoginFile = "KVCTL_LOGIN_FILE"

func newLogin(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "login", Usage: "prove by a password who you are", ArgsUsage: "USER", UsageText: "kvctl login alice --cacert ca.crt",
		Description: `The answer is a token, which a node has signed. It is kept in a file that nobody else may read,
one for each authority (--login-file names another), and shown by the commands that come with
--cacert, or with a --certs-dir that holds ca.crt, and with no certificate. It is good until it
expires, until the password is changed, or until the user is removed. Passwords are given to
users by kvctl user passwd, and count once auth is enabled. With --json an object: user, expires,
file.`,
		Flags:  []urfave.Flag{passwordFileFlag(), &urfave.DurationFlag{Name: "ttl", Usage: "the token is good for `DURATION`, up to 720h, or until its node's certificate expires", DefaultText: transport.TokenLife.String()}},
		Action: sh.action(func(c *Call) error { return c.login(c.Args[0]) }),
	}
}

func (c *Call) login(user string) error {
	if err := messages.CheckNodeName(user); err != nil {
		return c.usage(err.Hint, "%s", err.Message)
	}
	ttl := c.flags.Duration("ttl")
	if c.flags.IsSet("ttl") && (ttl < transport.TokenLifeMin || ttl > transport.TokenLifeMax) {
		return c.usage("", "--ttl is %v at least and %v at most, not %v", transport.TokenLifeMin, transport.TokenLifeMax, ttl)
	}
	endpoints, err := c.endpoints()
	if err != nil {
		return err
	}
	timeout, err := c.timeout()
	if err != nil {
		return err
	}
	files, err := c.files(transport.UserKey)
	switch {
	case err != nil:
		return err
	case files.CA == "":
		return c.usage("name the cluster's authority: --cacert FILE, or --certs-dir DIR that holds ca.crt", "a password goes only where a node proves that it is one")
	}
	ring, err := keys.Load(keys.Files{CA: files.CA})
	if err != nil {
		return err
	}
	file, err := c.loginFile(files.CA)
	if err != nil {
		return err
	}
	password, err := c.password("Password of "+user+": ", false)
	if err != nil {
		return err
	}
	ctx, done := context.WithTimeout(c, timeout)
	defer done()
	r, err := c.Login(ctx, client.LoginOptions{Endpoints: endpoints, Keys: ring, User: user, Password: string(password), TTL: ttl, Version: version()})
	if err != nil {
		return err
	}
	if err := keys.WriteToken(file, r.Token); err != nil {
		return err
	}
	if c.Format.structured() {
		return c.printJSON(loginJSON{user, r.Expires.UTC(), file})
	}
	c.note("user %s is logged in until %s", user, r.Expires.UTC().Format(time.RFC3339))
	if files.Cert != "" {
		c.note("commands that are given the certificate %s show that, and not the token: give them --cacert %s alone", files.Cert, quoteWord(files.CA))
	}
	return nil
}

type loginJSON struct {
	User    string    `json:"user"`
	Expires time.Time `json:"expires"`
	File    string    `json:"file"`
}

func newLogout(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "logout", Usage: "forget the token of kvctl login", UsageText: "kvctl logout --cacert ca.crt",
		Description: `Removes its file. Copies of it are good until they expire: to end them, change the password
(kvctl user passwd). With --json an object: user, file.`,
		Action: sh.action(func(c *Call) error {
			files, err := c.files(transport.UserKey)
			if err != nil {
				return err
			}
			file, err := c.loginFile(files.CA)
			if err != nil {
				return err
			}
			token, _ := keys.ReadToken(file) // what is no token goes too
			was, _ := keys.Glance(token)
			switch err := os.Remove(file); {
			case errors.Is(err, fs.ErrNotExist):
				return messages.Errorf(messages.Code_NOT_FOUND, "nobody is logged in: there is no %s", file).WithHint("there is nothing to do; kvctl login keeps one file for each authority: name that of the cluster that is meant")
			case err != nil:
				return messages.Errorf(messages.Code_INVALID, "%v", err).WithHint("remove it yourself")
			}
			if c.Format.structured() {
				return c.printJSON(struct {
					User string `json:"user"`
					File string `json:"file"`
				}{was.User, file})
			}
			c.note("user %s is logged out", nameOr(was.User, "of "+file))
			return nil
		}),
	}
}

func newWhoami(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "whoami", Usage: "show who you are, by what, and until when", UsageText: "kvctl whoami",
		Description: `Asks the cluster, so that it shows what counts there. With --json an object: user (empty: nobody),
by (certificate, token or nothing), expires, roles (an array of role, prefix), auth (whether roles
count).`,
		Action: sh.action(func(c *Call) error {
			return c.withAPI(func(ctx context.Context, api client.ClusterAPI) error {
				info, err := api.GetAuth(ctx)
				if err != nil {
					return err
				}
				ring, err := keysOf(ctx)
				if err != nil {
					return err
				}
				return c.printWho(info, ring)
			})
		}),
	}
}

type whoJSON struct {
	User    string     `json:"user"`
	By      string     `json:"by"`
	Expires *time.Time `json:"expires"`
	Roles   []roleJSON `json:"roles"`
	Auth    bool       `json:"auth"`
}

func (c *Call) printWho(info client.AuthInfo, ring *keys.Ring) error {
	who := whoJSON{User: info.Principal, By: "nothing", Roles: rolesOf(auth.Find(info.Auth, info.Principal)), Auth: info.Enabled}
	until := "-"
	if by, expires := ring.Shows(); by != "" {
		expires = expires.UTC()
		who.By, who.Expires, until = by, &expires, expires.Format(time.RFC3339)
	}
	roles := rolesText(auth.Find(info.Auth, info.Principal))
	switch c.Format {
	case Table:
		if !info.Enabled {
			roles = "do not count: auth is not enabled"
		}
		c.printPairs([][2]string{{"you are", nameOr(info.Principal, "nobody")}, {"by", who.By}, {"until", until}, {"your roles", nameOr(roles, "none")}})
	case Simple:
		c.printSimple([][]string{{info.Principal, who.By, until, rolesText(auth.Find(info.Auth, info.Principal))}})
	default:
		return c.printJSON(who)
	}
	return nil
}

// loginFile is where the token for the cluster of an authority is kept.
func (c *Call) loginFile(ca string) (string, error) {
	if file, _ := c.setting("login-file", envLoginFile, ""); file != "" {
		return file, nil
	}
	if ca == "" {
		return "", c.usage("", "name the cluster's authority, --cacert FILE or --certs-dir DIR, or the file: --login-file FILE")
	}
	trusted, err := os.ReadFile(ca)
	if err != nil {
		return "", messages.Errorf(messages.Code_INVALID, "keys: %v", err).WithHint("name a file that this user may read")
	}
	dir := c.Env("XDG_CONFIG_HOME")
	if home := c.Env("HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, ".config")
	}
	if dir == "" {
		return "", c.usage("name a file: --login-file FILE, or "+envLoginFile, "there is no home directory to keep a token in")
	}
	sum := sha256.Sum256(trusted)
	return filepath.Join(dir, binary, "login-"+hex.EncodeToString(sum[:6])), nil
}

// loggedIn adds the token to keys that have no certificate.
func (c *Call) loggedIn(files keys.Files) (*keys.Ring, error) {
	file, err := c.loginFile(files.CA)
	if err != nil {
		return nil, err
	}
	token, err := keys.ReadToken(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "there is no certificate of a user, and nobody is logged in").
			WithHint("%s login USER%s; or give the certificate of a user, which kvctl cert create-client USER makes", c.self(), c.keyArgs())
	}
	if err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "%s: %v", file, err).WithHint("%s login USER%s makes another", c.self(), c.keyArgs())
	}
	if is, err := keys.Glance(token); err == nil && !time.Now().Before(is.Expires) {
		return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "the token of user %s expired at %s", is.User, is.Expires.UTC().Format(time.RFC3339)).
			WithHint("%s login %s%s", c.self(), is.User, c.keyArgs())
	}
	files.Token = file
	return keys.Load(files)
}
