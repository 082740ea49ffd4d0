package cli

import (
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// newMan is for packagers: the manual is made from the tree of commands.
func newMan(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name: "man", Usage: "print the manual page, for packages", Hidden: true,
		Description: "It is made from the tree of commands, for man(1).", UsageText: "kvctl man > kvctl.1",
		Action: sh.action(func(c *Call) error {
			page, err := c.app.ToManWithSection(1)
			if err != nil {
				return messages.Errorf(messages.Code_INTERNAL, "the manual page: %v", err)
			}
			_, err = fmt.Fprint(c.Stdout, page)
			return err
		}),
	}
}
