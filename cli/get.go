package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
)

func newGet(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "get",
		Usage:     "print the value of a key",
		ArgsUsage: "KEY",
		Description: `The read is linearizable: it sees every write that was acknowledged before it.
With --consistency stale one node answers alone: it may miss the latest writes,
and needs no leader. A missing key exits 3.
What is not UTF-8 is printed in JSON as base64.`,
		UsageText: `kvctl get hello
kvctl get photo --raw > photo.jpg
kvctl get hello --revision 7
kvctl get hello --json`,
		Flags: append([]urfave.Flag{
			&urfave.BoolFlag{Name: "raw", Usage: "print the bytes alone, without a newline"},
		}, readFlags()...),
		Action: sh.action(get),
	}
}

func readFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.Uint64Flag{Name: "revision", Usage: "read as of `REVISION`", DefaultText: "the latest"},
		consistencyFlag(),
	}
}

func consistencyFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "consistency", Usage: "read at `LEVEL`: linearizable, or stale to ask one node alone", Value: "linearizable"}
}

// reading is how to read: as of a revision (0: the latest), and whether one node
// may answer alone.
func (c *Call) reading() (revision uint64, stale bool, err error) {
	if revision = c.flags.Uint64("revision"); c.flags.IsSet("revision") && revision == 0 {
		return 0, false, c.usage("", "--revision counts from 1")
	}
	stale, err = c.stale()
	return revision, stale, err
}

func (c *Call) stale() (bool, error) {
	switch level := c.flags.String("consistency"); level {
	case "linearizable":
		return false, nil
	case "stale":
		return true, nil
	default:
		return false, c.usage("", "--consistency %q is none of %s", level, strings.Join(choices["consistency"], ", "))
	}
}

// getJSON is one key in get's and scan's output.
type getJSON struct {
	Key            *string `json:"key,omitempty"`
	KeyBase64      *string `json:"key_base64,omitempty"`
	Value          *string `json:"value,omitempty"`
	ValueBase64    *string `json:"value_base64,omitempty"`
	Revision       uint64  `json:"revision,string"`        // of the key's last write
	CreateRevision uint64  `json:"create_revision,string"` // at which it came to be there
	Version        uint64  `json:"version,string"`         // writes since then with the last one
	ReadRevision   uint64  `json:"read_revision,string"`   // at which it was read
	RequestID      string  `json:"request_id"`
}

func get(c *Call) error {
	raw := c.flags.Bool("raw")
	if raw && c.Format.structured() {
		return c.usage("", "--raw and JSON exclude each other")
	}
	revision, stale, err := c.reading()
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		r, err := store.Get(ctx, []byte(c.Args[0]), revision, stale)
		if stale && r.ReadRevision > 0 {
			c.banner("Read from %s alone, at revision %d: later writes may be missing", r.Endpoint, r.ReadRevision)
		}
		if err != nil {
			return err
		}
		switch {
		case c.Format.structured():
			return c.printJSON(getRow(r))
		case raw:
			_, err = c.Stdout.Write(r.Value)
		case c.OutTTY && controls(r.Value):
			c.note("the value holds control characters, so it is shown quoted: --raw prints the bytes")
			_, err = fmt.Fprintf(c.Stdout, "%q\n", r.Value)
		default:
			_, err = fmt.Fprintf(c.Stdout, "%s\n", r.Value)
		}
		return err
	})
}

// controls reports whether a value could make a terminal do something else than show it.
// Lines and tabs are what texts are made of.
func controls(value []byte) bool {
	return !utf8.Valid(value) || bytes.ContainsFunc(value, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t'
	})
}

func getRow(r client.GetResult) getJSON {
	row := getJSON{
		Revision: r.Revision, CreateRevision: r.CreateRevision, Version: r.Version,
		ReadRevision: r.ReadRevision, RequestID: r.RequestID,
	}
	row.Key, row.KeyBase64 = text(r.Key)
	row.Value, row.ValueBase64 = text(r.Value)
	return row
}
