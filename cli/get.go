package cli

import (
	"context"
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
)

func newGet(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "get",
		Usage:     "print the value of a key",
		ArgsUsage: "KEY",
		Description: `The read is linearizable: it sees every write that was acknowledged before it.
A missing key exits 3. What is not UTF-8 is printed in JSON as base64.`,
		UsageText: `kvctl get hello
kvctl get photo --raw > photo.jpg
kvctl get hello --json`,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "raw", Usage: "print the bytes alone, without a newline"},
			&urfave.Uint64Flag{Name: "revision", Usage: "read as of `REVISION`", DefaultText: "the latest"},
			&urfave.StringFlag{Name: "consistency", Usage: "read at `LEVEL`: linearizable, or stale to ask one node alone", Value: "linearizable"},
		},
		Action: sh.action(get),
	}
}

// getJSON is one key in get's and, later, scan's output.
type getJSON struct {
	Key          *string `json:"key,omitempty"`
	KeyBase64    *string `json:"key_base64,omitempty"`
	Value        *string `json:"value,omitempty"`
	ValueBase64  *string `json:"value_base64,omitempty"`
	Revision     uint64  `json:"revision,string"`      // of the key's last write
	ReadRevision uint64  `json:"read_revision,string"` // at which it was read
	RequestID    string  `json:"request_id"`
}

func get(c *Call) error {
	raw, consistency := c.flags.Bool("raw"), c.flags.String("consistency")
	switch {
	case raw && c.Format.structured():
		return c.usage("", "--raw and JSON exclude each other")
	case consistency != "linearizable" && consistency != "stale":
		return c.usage("", "--consistency %q is none of linearizable, stale", consistency)
	case c.flags.IsSet("revision") && c.flags.Uint64("revision") == 0:
		return c.usage("", "--revision counts from 1")
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		r, err := store.Get(ctx, []byte(c.Args[0]), c.flags.Uint64("revision"), consistency == "stale")
		if err != nil {
			return err
		}
		switch {
		case c.Format.structured():
			return c.printJSON(getRow(r))
		case raw:
			_, err = c.Stdout.Write(r.Value)
		default:
			_, err = fmt.Fprintf(c.Stdout, "%s\n", r.Value)
		}
		return err
	})
}

func getRow(r client.GetResult) getJSON {
	row := getJSON{Revision: r.Revision, ReadRevision: r.ReadRevision, RequestID: r.RequestID}
	row.Key, row.KeyBase64 = text(r.Key)
	row.Value, row.ValueBase64 = text(r.Value)
	return row
}
