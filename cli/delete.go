package cli

import (
	"context"
	"fmt"
	"strconv"

	urfave "github.com/urfave/cli/v2"
)

func newDelete(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "delete",
		Usage:       "delete a key",
		ArgsUsage:   "KEY",
		Description: "A missing key is no error: the output says whether there was one.",
		UsageText: `kvctl delete hello
kvctl delete hello --json`,
		Action: sh.action(remove),
	}
}

type deleteJSON struct {
	putJSON
	Deleted bool `json:"deleted"`
}

func remove(c *Call) error {
	key := []byte(c.Args[0])
	return c.withStore(func(ctx context.Context, store Store) error {
		r, err := store.Delete(ctx, key)
		if err != nil {
			return err
		}
		switch c.Format {
		case Simple:
			c.printSimple([][]string{{strconv.FormatBool(r.Deleted)}})
		case Table:
			outcome := "deleted " + shown(key)
			if !r.Deleted {
				outcome = shown(key) + " was not there"
			}
			fmt.Fprintf(c.Stdout, "%s at revision %d (request %s)\n", outcome, r.Revision, r.RequestID)
		default:
			row := deleteJSON{putJSON{Revision: r.Revision, RequestID: r.RequestID}, r.Deleted}
			row.Key, row.KeyBase64 = text(key)
			return c.printJSON(row)
		}
		return nil
	})
}
