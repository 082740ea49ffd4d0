package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
)

func newDelete(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "delete",
		Usage:     "delete a key, or all that begin with a prefix",
		ArgsUsage: "[KEY]",
		Description: `A missing key is no error: the output says whether there was one.
With --if-revision the key is deleted only while its last write is of that revision; else
it exits 7 and says what stands there, as put does. 0 deletes nothing, and exits 7 if there
is such a key.
--prefix deletes in steps of up to 10000 keys, each of them all or nothing. It says
how many keys that is and asks; without a terminal it wants --yes. When it breaks
it says how many keys are surely deleted, and the same command goes on.`,
		UsageText: `kvctl delete hello
kvctl delete hello --if-revision 7
kvctl delete --prefix user/ --dry-run
kvctl delete --prefix user/ --yes`,
		Flags: append([]urfave.Flag{
			ifRevisionFlag(),
			&urfave.StringFlag{Name: "prefix", Usage: "the keys that begin with `PREFIX`"},
			&urfave.BoolFlag{Name: "all", Usage: "every key of the cluster: --prefix '' needs it"},
			progressFlag(),
		}, dangerFlags()...),
		Action: sh.action(remove),
	}
}

type deleteJSON struct {
	putJSON
	Deleted bool `json:"deleted"`
}

func remove(c *Call) error {
	ranged := c.flags.IsSet("prefix")
	switch {
	case ranged && len(c.Args) > 0:
		return c.usage("", "KEY and --prefix exclude each other")
	case ranged && c.flags.IsSet("if-revision"):
		return c.usage("", "--if-revision goes with KEY")
	case ranged && c.flags.String("prefix") == "" && !c.flags.Bool("all"):
		return c.usage("add --all if every key of the cluster is meant", "the prefix is empty")
	case ranged:
		return removePrefix(c)
	case c.flags.Bool("all"):
		return c.usage("to delete every key of the cluster: --prefix '' --all", "--all goes with an empty --prefix")
	case len(c.Args) == 0:
		return c.usage("", "delete needs KEY or --prefix PREFIX")
	case c.flags.Bool("dry-run"):
		return c.usage("", "--dry-run goes with --prefix")
	}
	return removeKey(c)
}

func removeKey(c *Call) error {
	key := []byte(c.Args[0])
	condition, err := c.condition()
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		r, err := store.Delete(ctx, key, condition.options()...)
		if err != nil {
			return condition.conflict(ctx, store, key, r.Revision, err)
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

func removePrefix(c *Call) error {
	prefix := []byte(c.flags.String("prefix"))
	if err := c.refuseUnasked("deleting " + allOf(prefix)); err != nil {
		return err
	}
	p, err := c.progress(true, true)
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		total := uint64(0) // unknown
		if c.flags.Bool("dry-run") || !c.flags.Bool("yes") {
			counted, err := store.Count(ctx, prefix, client.PrefixEnd(prefix), client.ScanOptions{})
			switch {
			case err != nil:
				return err
			case c.flags.Bool("dry-run"):
				return c.printDryRun(prefix, counted)
			case counted.Count == 0:
				return c.printRemoved(prefix, client.DeleteRangeResult{Revision: counted.ReadRevision, RequestID: counted.RequestID})
			}
			if err := c.confirm(fmt.Sprintf("Delete %s: %s as of revision %d?", allOf(prefix), plural(counted.Count, "key"), counted.ReadRevision),
				"nothing was deleted"); err != nil {
				return err
			}
			total = counted.Count
		}
		sum, err := p.follow(store.DeleteSteps(ctx, prefix, client.PrefixEnd(prefix)), total)
		if err != nil {
			return err
		}
		return c.printRemoved(prefix, sum)
	})
}

// allOf names the keys of a prefix.
func allOf(prefix []byte) string {
	if len(prefix) == 0 {
		return "every key of the cluster"
	}
	return "every key that begins with " + shown(prefix)
}

// follow tells of the steps of a deletion until its end.
func (p *progress) follow(steps func(func(client.DeleteRangeResult, error) bool), total uint64) (client.DeleteRangeResult, error) {
	var sum client.DeleteRangeResult
	started := time.Now()
	p.told = started
	defer p.end()
	for sofar, err := range steps {
		if err != nil {
			return sofar, err
		}
		sum = sofar
		now := time.Now()
		if !p.due(now) {
			continue
		}
		passed := now.Sub(started)
		rate := float64(sum.Deleted) / passed.Seconds()
		event := struct {
			Deleted uint64  `json:"deleted_keys,string"`
			Total   uint64  `json:"total_keys,string,omitempty"`
			Rate    float64 `json:"keys_per_s"`
		}{sum.Deleted, total, rate}
		if total < sum.Deleted || sum.Deleted == 0 {
			p.tell(now, event, "deleted %s, %.0f/s", plural(sum.Deleted, "key"), rate)
			continue
		}
		left := time.Duration(float64(total-sum.Deleted) / rate * float64(time.Second)).Round(time.Second)
		p.tell(now, event, "deleted %d of %s, %.0f/s, %v left", sum.Deleted, plural(total, "key"), rate, left)
	}
	return sum, nil
}

type dryRunJSON struct {
	Prefix       *string `json:"prefix,omitempty"`
	PrefixBase64 *string `json:"prefix_base64,omitempty"`
	DryRun       bool    `json:"dry_run"`
	Keys         uint64  `json:"keys,string"`
	ReadRevision uint64  `json:"read_revision,string"`
	RequestID    string  `json:"request_id"`
}

func (c *Call) printDryRun(prefix []byte, counted client.CountResult) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{strconv.FormatUint(counted.Count, 10)}})
	case Table:
		fmt.Fprintf(c.Stdout, "would delete %s: %s as of revision %d\n", allOf(prefix), plural(counted.Count, "key"), counted.ReadRevision)
	default:
		row := dryRunJSON{DryRun: true, Keys: counted.Count, ReadRevision: counted.ReadRevision, RequestID: counted.RequestID}
		row.Prefix, row.PrefixBase64 = text(prefix)
		return c.printJSON(row)
	}
	return nil
}

type deletePrefixJSON struct {
	Prefix       *string `json:"prefix,omitempty"`
	PrefixBase64 *string `json:"prefix_base64,omitempty"`
	Deleted      bool    `json:"deleted"`
	DeletedKeys  uint64  `json:"deleted_keys,string"`
	Revision     uint64  `json:"revision,string"`
	RequestID    string  `json:"request_id"`
}

func (c *Call) printRemoved(prefix []byte, r client.DeleteRangeResult) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{strconv.FormatUint(r.Deleted, 10)}})
	case Table:
		which := ""
		if len(prefix) > 0 {
			which = " that begin with " + shown(prefix)
		}
		fmt.Fprintf(c.Stdout, "deleted %s%s at revision %d (request %s)\n", plural(r.Deleted, "key"), which, r.Revision, r.RequestID)
	default:
		row := deletePrefixJSON{Deleted: r.Deleted > 0, DeletedKeys: r.Deleted, Revision: r.Revision, RequestID: r.RequestID}
		row.Prefix, row.PrefixBase64 = text(prefix)
		return c.printJSON(row)
	}
	return nil
}
