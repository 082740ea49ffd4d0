package cli

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/storeactor/backup"
)

// revisionGap is how far a restored cluster's revisions begin above its backup's: what the
// old cluster wrote after the backup is meant by no revision of the new one.
const revisionGap = 1_000_000

func newRestore(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "restore",
		Usage:     "make the data directories of a new cluster from a backup",
		ArgsUsage: "PATH",
		Description: `PATH is as for backup verify. It makes a
directory for each node of --initial-cluster, all in one run: serve --data DIR starts each.
On several machines, move the directories there; never start one of them twice, and never
restore one of them by itself.
The cluster is a new one, with an id of its own: nodes of the old one cannot join it, and
clients open new sessions. Keys, values, history, users and the level are the backup's. Revisions go
on --revision-gap above the backup's, so that none means what the old cluster wrote later.
A directory that holds anything is refused. What was made is read again and compared with
the backup; if anything fails, nothing is left.
With --json an object: the fields of backup, new_cluster_id, new_revision, rows_hash,
directories (id, address, data).`,
		UsageText: `kvctl restore ./backups --to n1=./n1 --initial-cluster n1=127.0.0.1:7001 --yes
kvctl restore nightly.kvb --to n1=d1,n2=d2,n3=d3 --initial-cluster n1=10.0.0.1:7001,n2=10.0.0.2:7001,n3=10.0.0.3:7001`,
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "to", Usage: "make for each node the directory of `NAME=DIR,...`"},
			&urfave.StringFlag{Name: "initial-cluster", Usage: "the nodes of the new cluster are `NAME=HOST:PORT,...`"},
			&urfave.StringFlag{Name: "cluster-token", Usage: "keep clusters of the same names and addresses apart by `TOKEN`", DefaultText: "a random one"},
			&urfave.BoolFlag{Name: "without-auth", Usage: "leave users and roles out: whoever reaches the new cluster may do everything"},
			&urfave.Uint64Flag{Name: "revision-gap", Usage: "begin `N` above the backup's revision", DefaultText: fmt.Sprint(revisionGap)},
			progressFlag(),
		}, dangerFlags()...),
		Action: sh.action(restore),
	}
}

type restoredJSON struct {
	backupJSON
	NewClusterID string                  `json:"new_cluster_id"`
	NewRevision  uint64                  `json:"new_revision,string"`
	RowsHash     string                  `json:"rows_hash"`
	Directories  []restoredDirectoryJSON `json:"directories"`
	DryRun       bool                    `json:"dry_run,omitempty"`
}

type restoredDirectoryJSON struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Data    string `json:"data"`
}

func restore(c *Call) error {
	plan, err := c.restorePlan("restore " + quoteWord(c.Args[0]))
	if err != nil {
		return err
	}
	if err := c.refuseUnasked("a restore"); err != nil {
		return err
	}
	path := c.Args[0]
	question := "Make a new cluster from what is on stdin?"
	row := restoredJSON{DryRun: c.flags.Bool("dry-run")}
	if path != "-" {
		b, err := c.glance(path)
		if err != nil {
			return err
		}
		path = b.Path // the newest of a directory is this one from now on
		question = fmt.Sprintf("Make a new cluster of %s from %s (revision %d, %s, created %s)?",
			countText(uint64(len(plan.Founders)), "node", "nodes"), path, b.Revision, bytesText(b.Bytes), nameOr(b.CreatedAt, "at an unknown time"))
		row.backupJSON = backupJSON{Path: path, ClusterID: b.ClusterID, Revision: b.Revision, Index: b.Index, CreatedAt: b.CreatedAt, Rows: b.Rows, Bytes: b.Bytes, Hash: b.Hash}
		row.NewRevision = b.Revision + plan.RevisionGap
	}
	row.Directories = directories(plan)
	for _, d := range row.Directories {
		if err := backup.CheckEmpty(d.Data); err != nil {
			return err
		}
	}
	if row.DryRun {
		return c.printRestored(row)
	}
	if err := c.confirm(question, "nothing was made"); err != nil {
		return err
	}
	began := time.Now()
	r, err := c.restoreFrom(path, plan)
	if err != nil {
		return err
	}
	row.backupJSON = backupRow(path, r.Contents, time.Since(began))
	row.NewClusterID, row.NewRevision, row.RowsHash = hex.EncodeToString(r.ClusterID), r.Revision, hex.EncodeToString(r.Rows.Sum())
	return c.printRestored(row)
}

// restorePlan is what the flags say, or what they lack of those of this command.
func (c *Call) restorePlan(command string) (backup.Plan, error) {
	var missing []string
	for _, name := range []string{"to", "initial-cluster"} {
		if c.flags.String(name) == "" {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		return backup.Plan{}, c.usage(fmt.Sprintf("%s %s --to n1=./n1,n2=./n2,n3=./n3 --initial-cluster n1=HOST:PORT,n2=HOST:PORT,n3=HOST:PORT", c.self(), command),
			"%s needs %s: a directory and an address for each node of the new cluster", c.path[len(c.path)-1].Name, strings.Join(missing, " and "))
	}
	plan := backup.Plan{Token: c.flags.String("cluster-token"), WithoutAuth: c.flags.Bool("without-auth"), RevisionGap: revisionGap, Directories: map[string]string{}}
	if c.flags.IsSet("revision-gap") {
		plan.RevisionGap = c.flags.Uint64("revision-gap")
	}
	if plan.RevisionGap > 1<<40 {
		return plan, c.usage("", "--revision-gap %d is more than %d", plan.RevisionGap, uint64(1<<40))
	}
	var err error
	if plan.Founders, err = c.founders(c.flags.String("initial-cluster")); err != nil {
		return plan, err
	}
	for _, one := range strings.Split(c.flags.String("to"), ",") {
		name, dir, ok := strings.Cut(strings.TrimSpace(one), "=")
		if !ok || name == "" || dir == "" || plan.Directories[name] != "" {
			return plan, c.usage("write n1=DIR,n2=DIR,...", "--to: %q is no NAME=DIR, or names a node twice", one)
		}
		plan.Directories[name] = dir
	}
	for _, f := range plan.Founders {
		if err := messages.CheckNodeName(f.Name); err != nil {
			return plan, c.usage(err.Hint, "--initial-cluster: %s", err.Message)
		}
		if plan.Directories[f.Name] == "" {
			return plan, c.usage("all directories are made in one run: make them here, and move them to their machines",
				"--to has no directory for %s of --initial-cluster", f.Name)
		}
	}
	if len(plan.Directories) > len(plan.Founders) {
		return plan, c.usage("", "--to names a node that is not in --initial-cluster")
	}
	return plan, nil
}

// restoreFrom makes the directories of a plan from a file, or from stdin for -.
func (c *Call) restoreFrom(path string, plan backup.Plan) (*backup.Restored, error) {
	s, err := c.openBackup(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	p, err := c.progress(true, false)
	if err != nil {
		return nil, err
	}
	p.told = time.Now()
	plan.Random, plan.Told = rand.Reader, s.told(p)
	r, err := backup.Restore(bufio.NewReaderSize(&abandoned{s, c}, 1<<20), plan)
	p.end()
	if err != nil {
		return nil, broken(err, "nothing was restored: ")
	}
	return r, nil
}

// abandoned is a source that breaks when the call does.
type abandoned struct {
	*source
	call *Call
}

func (a *abandoned) Read(p []byte) (int, error) {
	if err := a.call.Err(); err != nil {
		return 0, err
	}
	return a.source.Read(p)
}

func directories(plan backup.Plan) []restoredDirectoryJSON {
	var all []restoredDirectoryJSON
	for _, f := range plan.Founders {
		all = append(all, restoredDirectoryJSON{f.Name, f.Address, plan.Directories[f.Name]})
	}
	return all
}

func (c *Call) printRestored(row restoredJSON) error {
	switch c.Format {
	case Simple:
		var cells [][]string
		for _, d := range row.Directories {
			cells = append(cells, []string{d.ID, d.Address, d.Data})
		}
		c.printSimple(cells)
		return nil
	case JSON, JSONLines:
		return c.printJSON(row)
	}
	if row.DryRun {
		fmt.Fprintf(c.Stdout, "would make from %s (revision %d) a new cluster at revision %d:\n", row.Path, row.Revision, row.NewRevision)
	} else {
		fmt.Fprintf(c.Stdout, "restored %s: %s, %s of revision %d, in %s; what was made was read again and is equal\n",
			row.Path, plural(row.Keys, "key"), plural(row.Rows, "row"), row.Revision, timeText(time.Duration(row.TookMs)*time.Millisecond))
		fmt.Fprintf(c.Stdout, "new cluster %s, from revision %d on\nrows hash   %s\n\nStart each node:\n", row.NewClusterID, row.NewRevision, row.RowsHash)
	}
	for _, d := range row.Directories {
		fmt.Fprintf(c.Stdout, "  %s serve --data %s   # %s at %s\n", c.self(), quoteWord(d.Data), d.ID, d.Address)
	}
	return nil
}
