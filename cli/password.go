package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/messages"
)

func passwordFileFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "password-file", TakesFile: true, Usage: "the password is the first line of `FILE`; - for stdin; without it you are asked"}
}

func newUserPasswd(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "passwd", Usage: "give a user a password, or another", ArgsUsage: "NAME", UsageText: "kvctl user passwd alice",
		Description: fmt.Sprintf(`With it he can log in where he has no certificate: kvctl login NAME. It has %d to %d bytes, is hashed
here, and never leaves this process. The tokens that he got with another one, and the connections
that stand by them, end within a second. An admin may do this for everybody, and each user for himself. `+userFields, auth.PasswordSizeMin, auth.PasswordSizeMax),
		Flags: []urfave.Flag{passwordFileFlag(), &urfave.BoolFlag{Name: "remove", Usage: "take it away: certificates alone say who he is then"}},
		Action: sh.action(func(c *Call) error {
			change := &messages.ChangePassword{User: c.Args[0]}
			if c.flags.Bool("remove") {
				if c.flags.IsSet("password-file") {
					return c.usage("", "--remove and --password-file exclude each other")
				}
				return c.changeUser(c.Args[0], &messages.ChangeAuth{Kind: &messages.ChangeAuth_Password{Password: change}})
			}
			var err error
			if change.Hash, err = c.hashOfNew(c.Args[0]); err != nil {
				return err
			}
			return c.changeUser(c.Args[0], &messages.ChangeAuth{Kind: &messages.ChangeAuth_Password{Password: change}})
		}),
	}
}

// hashOfNew asks for a password that somebody is to have. Whether that is allowed the cluster says
// first, so that nobody thinks of one in vain.
func (c *Call) hashOfNew(user string) ([]byte, error) {
	if err := messages.CheckNodeName(user); err != nil {
		return nil, c.usage(err.Hint, "%s", err.Message)
	}
	probe := &messages.ChangeAuth{Kind: &messages.ChangeAuth_Password{Password: &messages.ChangePassword{User: user}}}
	if err := c.withAPI(func(ctx context.Context, api client.ClusterAPI) error { return api.ChangeAuth(ctx, probe, true) }); err != nil {
		return nil, err
	}
	password, err := c.password("New password of "+user+": ", true)
	if err != nil {
		return nil, err
	}
	if err := auth.CheckPassword(password); err != nil {
		return nil, c.usage(err.Hint, "%s", err.Message)
	}
	hash, err := bcrypt.GenerateFromPassword(password, auth.HashCost)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "hash the password: %v", err).WithHint("try again; nothing was changed")
	}
	return hash, nil
}

// passwordFileMax bounds what is read of a file, in bytes: one that is longer is none.
const passwordFileMax = 4 << 10

// password is what --password-file holds, or else what somebody types: twice if it is new.
func (c *Call) password(prompt string, twice bool) ([]byte, error) {
	name, source := c.flags.String("password-file"), "--password-file"
	switch {
	case name != "":
		in := c.Stdin
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return nil, messages.Errorf(messages.Code_INVALID, "%s: %v", source, err).WithHint("name a file that this user may read")
			}
			defer f.Close()
			in = f
		}
		text, err := io.ReadAll(io.LimitReader(in, passwordFileMax))
		if err != nil {
			return nil, messages.Errorf(messages.Code_INVALID, "%s: %v", source, err).WithHint("name a file that can be read")
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 || len(line) > auth.PasswordSizeMax {
			return nil, c.usage("its first line is the password", "%s holds none: its first line has %d bytes, and a password %d at most", source, len(line), auth.PasswordSizeMax)
		}
		return line, nil
	case !c.InTTY || !c.ErrTTY:
		return nil, c.usage("give it in a file, or on stdin: --password-file -", "without a terminal nobody can be asked for a password")
	}
	first, err := c.typed(prompt)
	if err != nil || !twice {
		return first, err
	}
	again, err := c.typed("Once more: ")
	if err == nil && !bytes.Equal(first, again) {
		return nil, c.usage("nothing was changed; try again", "the two passwords differ")
	}
	return first, err
}

// typed asks on the terminal, which shows nothing of what is typed.
func (c *Call) typed(prompt string) ([]byte, error) {
	file, is := c.Stdin.(*os.File)
	if !is {
		return nil, c.usage("", "without a terminal nobody can be asked for a password")
	}
	fd := int(file.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "the terminal: %v", err).WithHint("give the password in a file, or on stdin: --password-file -")
	}
	fmt.Fprint(c.Stderr, prompt)
	type said struct {
		line []byte
		err  error
	}
	done := make(chan said, 1)
	go func() { // a read from a terminal cannot be interrupted otherwise
		line, err := term.ReadPassword(fd)
		done <- said{line, err}
	}()
	select {
	case s := <-done:
		c.note("")
		if s.err != nil || len(s.line) == 0 {
			return nil, c.usage("", "no password was typed")
		}
		return s.line, nil
	case <-c.Done():
		_ = term.Restore(fd, before)
		c.note("")
		return nil, c.Err()
	}
}
