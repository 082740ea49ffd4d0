package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func newScan(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "scan",
		Usage:     "print the keys that begin with a prefix, in order",
		ArgsUsage: "[PREFIX]",
		Description: `Without PREFIX all keys are printed. All of a scan is read at one revision, however
long it takes, and printed while it is read: its size does not matter.
In the table what is not printable is quoted, and a long value is cut on a terminal.
-o simple prints KEY, a tab and VALUE, with \\ \t \n \r for the bytes that would
break its lines. A scan that breaks says after how many keys, and does not exit 0;
-o json leaves its array open then.`,
		UsageText: `kvctl scan
kvctl scan user/ --limit 10 --reverse
kvctl scan --from a --to c --keys-only
kvctl scan user/ --count
kvctl scan -o jsonl > all.jsonl`,
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "from", Usage: "begin at `KEY`"},
			&urfave.StringFlag{Name: "to", Usage: "end before `KEY`"},
			&urfave.Uint64Flag{Name: "limit", Usage: "print at most `N` keys", DefaultText: "no limit"},
			&urfave.BoolFlag{Name: "keys-only", Usage: "print no values"},
			&urfave.BoolFlag{Name: "count", Usage: "print only how many keys there are"},
			&urfave.BoolFlag{Name: "reverse", Usage: "print from the end to the start"},
		}, readFlags()...),
		Action: sh.action(scan),
	}
}

func scan(c *Call) error {
	from, to, err := c.bounds()
	if err != nil {
		return err
	}
	o := client.ScanOptions{Reverse: c.flags.Bool("reverse"), KeysOnly: c.flags.Bool("keys-only")}
	if o.Revision, o.Stale, err = c.reading(); err != nil {
		return err
	}
	limit := c.flags.Uint64("limit")
	if c.flags.IsSet("limit") && limit == 0 || limit > math.MaxInt {
		return c.usage("", "--limit counts from 1")
	}
	o.Limit = int(limit)
	return c.withStore(func(ctx context.Context, store Store) error {
		if c.flags.Bool("count") {
			return c.printCount(store.Count(ctx, from, to, o))
		}
		return c.printScan(store.Scan(ctx, from, to, o), o.KeysOnly)
	})
}

// bounds is the range that PREFIX, --from and --to leave, each narrowing it.
func (c *Call) bounds() (from, to []byte, err error) {
	first, end := c.flags.String("from"), c.flags.String("to")
	if c.flags.IsSet("to") && first >= end {
		return nil, nil, c.usage("", "--from %s does not come before --to %s", shown([]byte(first)), shown([]byte(end)))
	}
	if len(c.Args) > 0 {
		from = []byte(c.Args[0])
		to = client.PrefixEnd(from)
	}
	if bytes.Compare([]byte(first), from) > 0 {
		from = []byte(first)
	}
	if end != "" && (len(to) == 0 || end < string(to)) {
		to = []byte(end)
	}
	return from, to, nil
}

type countJSON struct {
	Count        uint64 `json:"count,string"`
	ReadRevision uint64 `json:"read_revision,string"`
	RequestID    string `json:"request_id"`
}

func (c *Call) printCount(r client.CountResult, err error) error {
	if err != nil {
		return err
	}
	if c.Format.structured() {
		return c.printJSON(countJSON(r))
	}
	fmt.Fprintln(c.Stdout, strconv.FormatUint(r.Count, 10))
	c.banner("Counted at revision %d", r.ReadRevision)
	return nil
}

// printScan prints rows while they come. It keeps none.
func (c *Call) printScan(items iter.Seq2[client.Item, error], keysOnly bool) error {
	rows := c.rowWriter(keysOnly)
	printed, revision := uint64(0), uint64(0)
	for item, err := range items {
		if err != nil {
			rows.interrupt()
			if printed == 0 {
				return err
			}
			return broken(err, fmt.Sprintf("the scan broke after %s: ", plural(printed, "key")))
		}
		if rows.write(item) != nil {
			return nil // nobody reads on, or the disk is full: Run tells the two apart
		}
		printed, revision = printed+1, item.ReadRevision
	}
	rows.end()
	switch {
	case printed > 0:
		c.banner("%s at revision %d", plural(printed, "key"), revision)
	default:
		c.banner("No keys")
	}
	return nil
}

// broken is an error with what it broke before its message.
func broken(err error, what string) error {
	var problem *messages.Error
	if !errors.As(err, &problem) {
		return err
	}
	told := *problem
	told.Message = what + problem.Message
	return &told
}
