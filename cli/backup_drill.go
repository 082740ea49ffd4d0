package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
	"keyval/storeactor/backup"
)

func newBackupDrill(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "drill",
		Usage:     "recover from a backup for practice, and say how long it takes",
		ArgsUsage: "PATH",
		Description: `Restores the backup into a temporary directory, starts the nodes on free ports of
127.0.0.1, reads all keys from them, compares their number and hash with the backup, writes
one key, and removes all of it. No running cluster is touched. PATH is as for restore.
With --json an object: the fields of backup, nodes, restore_ms, start_ms, compare_ms,
recovery_ms (restore and start), keys_hash, equal.`,
		UsageText: `kvctl backup drill ./backups
kvctl backup drill nightly.kvb --nodes 1 --json`,
		Flags: []urfave.Flag{
			&urfave.IntFlag{Name: "nodes", Usage: "run `N` nodes", DefaultText: "3"},
			progressFlag(),
		},
		Action: sh.action(backupDrill),
	}
}

type drillJSON struct {
	backupJSON
	Nodes      int    `json:"nodes"`
	RestoreMs  int64  `json:"restore_ms"`
	StartMs    int64  `json:"start_ms"`
	CompareMs  int64  `json:"compare_ms"`
	RecoveryMs int64  `json:"recovery_ms"`
	KeysHash   string `json:"keys_hash"`
	Equal      bool   `json:"equal"`
}

// fillFrom makes the directories of a kvctl dev that is new from a backup. It is one person's, who
// need not be among the users, and mostly has no keys by which one could prove who he is.
func (c *Call) fillFrom(d *devCluster, path string) (*backup.Restored, error) {
	plan := backup.Plan{WithoutAuth: true, RevisionGap: revisionGap, Directories: map[string]string{}}
	for i, m := range d.Members {
		plan.Founders = append(plan.Founders, &messages.Founder{RaftId: uint64(i) + 1, Name: m.Name, Address: m.Address})
		plan.Directories[m.Name] = d.data(m)
	}
	return c.restoreFrom(path, plan)
}

func backupDrill(c *Call) error {
	d := &devCluster{Format: devRecordFormat, temporary: true}
	nodes := 3
	if c.flags.IsSet("nodes") {
		nodes = c.flags.Int("nodes")
	}
	if nodes < 1 || nodes > devNodesMax {
		return c.usage("", "--nodes must be from 1 to %d, not %d", devNodesMax, nodes)
	}
	addresses, err := freeLoopback(nodes)
	if err != nil {
		return err
	}
	for i, address := range addresses {
		d.Members = append(d.Members, devMember{Name: fmt.Sprintf("node%d", i+1), Address: address})
	}
	if err := d.create(); err != nil {
		return err
	}
	defer c.leave(d)
	if err := c.secure(d); err != nil { // its nodes listen on this machine, and have no keys
		return err
	}
	row := drillJSON{Nodes: nodes}
	began := time.Now()
	r, err := c.fillFrom(d, c.Args[0])
	if err != nil {
		return err
	}
	row.backupJSON = backupRow(c.Args[0], r.Contents, 0)
	row.RestoreMs = time.Since(began).Milliseconds()
	fleet := newFleet(c.Self, d)
	defer fleet.stop()
	for i := range d.Members {
		if err := fleet.start(i); err != nil {
			return err
		}
	}
	if _, err := c.awaitCluster(d, fleet); err != nil {
		return err
	}
	row.RecoveryMs = time.Since(began).Milliseconds()
	row.StartMs = row.RecoveryMs - row.RestoreMs
	found, err := c.compare(d, r)
	if err != nil {
		return err
	}
	row.TookMs = time.Since(began).Milliseconds()
	row.CompareMs = row.TookMs - row.RecoveryMs
	row.KeysHash, row.Equal = hex.EncodeToString(found.Sum()), bytes.Equal(found.Sum(), r.Live.Sum())
	return c.printDrill(row, found.Count)
}

// freeLoopback are addresses that nobody listens at now.
func freeLoopback(n int) (addresses []string, err error) {
	for range n {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, messages.Errorf(messages.Code_INTERNAL, "no free port: %v", err)
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// compare reads all keys that the cluster serves, and writes one.
func (c *Call) compare(d *devCluster, r *backup.Restored) (*backup.Tally, error) {
	store, err := c.Connect(c, d.endpoints(), defaultTimeout)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	found := &backup.Tally{}
	for item, err := range store.Scan(c, nil, nil, client.ScanOptions{}) {
		if err != nil {
			return nil, broken(err, fmt.Sprintf("the keys could not be read after %d: ", found.Count))
		}
		found.Add(item.Key, item.Value, item.Revision, item.CreateRevision, item.Version, false)
	}
	put, err := store.Put(c, []byte("drill"), nil)
	if err == nil && put.Revision <= r.Revision {
		err = messages.Errorf(messages.Code_INTERNAL, "a write got revision %d, and the cluster began at %d", put.Revision, r.Revision)
	}
	return found, err
}

func (c *Call) printDrill(row drillJSON, found uint64) error {
	ms := func(n int64) string { return timeText(time.Duration(n) * time.Millisecond) }
	var err error
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{row.Path, fmt.Sprint(row.Equal), fmt.Sprint(row.RecoveryMs)}})
	case Table:
		verdict := c.paint(green, "equal to the backup")
		if !row.Equal {
			verdict = c.paint(red, "NOT what the backup holds")
		}
		_, err = fmt.Fprintf(c.Stdout, "%s of %s read from %s: %s\nrestore %s + start %s = recovery in %s (%s); compared in %s\n",
			plural(found, "key"), plural(row.Keys, "key"), plural(uint64(row.Nodes), "node"), verdict,
			ms(row.RestoreMs), ms(row.StartMs), ms(row.RecoveryMs), bytesText(row.Bytes), ms(row.CompareMs))
	default:
		err = c.printJSON(row)
	}
	if err == nil && !row.Equal {
		err = quiet(exitFailure)
	}
	return err
}
