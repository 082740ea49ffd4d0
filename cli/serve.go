package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	urfave "github.com/urfave/cli/v2"

	"keyval/actors"
	"keyval/actors/transport"
	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

func newServe(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "serve",
		Usage: "run one node",
		Description: `The first start founds a cluster together with the other nodes of --initial-cluster
and waits until all of them are there; or, with --join, waits to be added to a cluster
that runs: it says which command lets it in. Everything is recorded in the data directory:
afterwards serve --data DIR is enough, and a flag that contradicts the record is refused.
A node may listen elsewhere later; where the others look for it the members say.
History is given up beyond --history-revisions or --history-time, whichever is reached
first; the leader's setting counts. What --log-level and the flags below it say is not
recorded.
With --certs-dir, or --cacert, --cert and --key, all links are under TLS, and whoever connects
has to prove who he is; without, a node listens on its own machine only, unless --insecure is
said. Changed files are loaded by themselves, or at SIGHUP. The same keys secure --metrics-listen:
its health checks need no certificate, the rest that of a user with any role. With
--peer-trusted-ca-file, --peer-cert-file and --peer-key-file nodes have an authority of their own
among themselves.
A new machine has no keys yet: with a token of kvctl cluster token create it fetches them from the
nodes of --join, puts them into --certs-dir, and goes on.
SIGINT or SIGTERM ends the node. Logs go to stderr or --log-file; the node does not wait for
whoever takes them, and says later how many lines were lost. A full file is renamed, with the
time in its name.`,
		UsageText: `kvctl serve --name n1 --listen 127.0.0.1:7001 --data ./n1 --initial-cluster n1=127.0.0.1:7001
kvctl serve --name n4 --listen 127.0.0.1:7004 --data ./n4 --join 127.0.0.1:7001,127.0.0.1:7002
kvctl serve --data ./n1`,
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "name", Usage: "call this node `NAME`"},
			&urfave.StringFlag{Name: "listen", Usage: "listen at `HOST:PORT`"},
			&urfave.StringFlag{Name: "advertise", Usage: "let others reach this node at `HOST:PORT`", DefaultText: "that of --listen"},
			dataFlag(),
			configFileFlag(),
			&urfave.StringFlag{Name: "initial-cluster", Usage: "found a cluster of `NAME=HOST:PORT,...`, this node among them"},
			&urfave.StringFlag{Name: "join", Usage: "wait to be added to the cluster of the nodes at `HOST:PORT,...`"},
			joinTokenFileFlag(),
			&urfave.BoolFlag{Name: "insecure", Usage: "listen beyond this machine without keys, where the whole network is trusted"},
			&urfave.StringFlag{Name: "cluster-token", Usage: "keep clusters of the same names and addresses apart by `TOKEN`"},
			&urfave.StringFlag{Name: "metrics-listen", Usage: "serve metrics, health checks and a page to look at, at `HOST:PORT`, by https:// if the node has keys; without a host, on loopback"},
			plainFlag(),
			&urfave.BoolFlag{Name: "profile", Usage: "serve profiles of the process at /debug/pprof of --metrics-listen"},
		}, slices.Concat(serveKeyFlags(), logFlags(), tracingFlags(), tuningFlags())...),
		Action: sh.action(serve),
	}
}

func dataFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "data", Usage: "keep everything in `DIR`", TakesFile: true}
}

// stopMax bounds how long a node may take to stop. Then the process ends all the
// same: no data are lost by that.
const stopMax = 4 * time.Second

// memoryMax is what a node's heap is kept below, in bytes, but for what is in use: the
// garbage of memtables and large values is collected before it comes to more. GOMEMLIMIT
// sets another.
const memoryMax = 512 << 20

func serve(c *Call) error {
	if err := c.fill(); err != nil {
		return err
	}
	format, err := c.logFormat()
	if err != nil {
		return err
	}
	c.outlast(format)
	options, err := c.serveOptions()
	if err != nil {
		return err
	}
	if options.Keys == nil && options.Insecure && options.Listen != "" && !grpc.Loopback(options.Listen) {
		c.note("warning: %s is open to the network, and links are neither encrypted nor authenticated", options.Listen)
	}
	if options.Keys != nil {
		c.reloadOnHangup(options.Keys)
	}
	page, err := c.openInside(options)
	if err != nil {
		return err
	}
	if page != nil {
		defer page.Close()
		options.Meter, options.Running = page.Registry, func(node actors.Inspector) { page.Running(node) }
	}
	traces, endTraces, err := c.openTracing(options.Logger)
	if err != nil {
		return err
	}
	defer endTraces()
	options.Traces = traces
	if c.Env("GOGC") == "" {
		// Most of a node's heap is memtables: large pieces that live briefly. This
		// saves a third of the memory, and no loss of throughput could be measured.
		debug.SetGCPercent(50)
	}
	if c.Env("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryMax)
	}
	ended := make(chan error, 1)
	go func() {
		err := actors.Serve(c, options)
		if err != nil && c.flags.String("log-file") != "" {
			options.Logger.Error("the node ends", "reason", err) // stderr, where it stands too, may be nobody's
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-c.Done():
	}
	notify(daemon.SdNotifyStopping)
	select {
	case err := <-ended:
		return err
	case <-time.After(stopMax):
		return messages.Errorf(messages.Code_INTERNAL, "the node did not stop within %v and was ended; no data are lost", stopMax)
	}
}

// reloadOnHangup loads keys again at SIGHUP. Changed files are noticed without it too; it
// loads them at once, and says what came of it.
func (c *Call) reloadOnHangup(ring *keys.Ring) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			if _, err := ring.Reload(true); err != nil {
				c.note("SIGHUP: new keys were not taken, and the old ones are used on: %v", err)
			} else {
				c.note("SIGHUP: the keys were loaded again: %s", ring.Principal())
			}
		}
	}()
}

// toSystemd also tells systemd, if it started this process: what a node announces it
// does once it listens. Whether its cluster is founded, or it is let into one, may take
// other machines, and is no part of starting it.
func toSystemd(announce func(string)) func(string) {
	return func(line string) {
		announce(line)
		notify(daemon.SdNotifyReady + "\nSTATUS=" + line)
	}
}

// notify is for people who look at the unit: a node serves without it.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

func (c *Call) serveOptions() (actors.ServeOptions, error) {
	o := actors.ServeOptions{
		DataDir: c.flags.String("data"), Name: c.flags.String("name"),
		Listen: c.flags.String("listen"), Advertise: c.flags.String("advertise"),
		Token: c.flags.String("cluster-token"), Version: version(),
		Announce: func(line string) { fmt.Fprintln(c.Stderr, line) },
	}
	if o.DataDir == "" {
		return o, c.usage("", "serve needs --data DIR")
	}
	var err error
	o.Insecure = c.flags.Bool("insecure")
	if err := c.fetchKeys(); err != nil {
		return o, err
	}
	if o.Keys, err = c.ring(transport.NodeKey); err != nil {
		return o, err
	}
	logger, kept, err := c.logger()
	if err != nil {
		return o, err
	}
	o.Logger, o.Events = logger, kept.newest
	if c.flags.String("log-format") == "json" {
		o.Announce = func(line string) { o.Logger.Info(line) }
	}
	o.Announce = toSystemd(o.Announce)
	if o.InitialCluster, err = c.founders(c.flags.String("initial-cluster")); err != nil {
		return o, err
	}
	if o.Join, err = c.joins(c.flags.String("join")); err != nil {
		return o, err
	}
	t, err := c.tuning()
	if err != nil {
		return o, err
	}
	o.HistoryRevisions, o.HistoryTime, o.SnapshotRate, o.RoomBytes = t.historyRevisions, t.historyTime, t.snapshotRate, t.roomBytes
	o.SnapshotsKeep = t.snapshotsKeep
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return o, err
	}
	if err := c.checkAddresses(o); err != nil {
		return o, err
	}
	fresh, err := isFresh(o.DataDir)
	if err != nil || !fresh {
		return o, err
	}
	return o, c.checkFirstStart(o)
}

// checkFirstStart refuses a first start that lacks a flag. At a later one the node
// itself holds the flags against what its directory records.
func (c *Call) checkFirstStart(o actors.ServeOptions) error {
	var missing []string
	for _, f := range []struct{ name, value string }{
		{"--name", o.Name}, {"--listen", o.Listen}, {"--initial-cluster or --join", c.flags.String("initial-cluster") + c.flags.String("join")},
	} {
		if f.value == "" {
			missing = append(missing, f.name)
		}
	}
	if len(missing) > 0 {
		return c.usage("", "%s is new: the first start needs %s too", o.DataDir, strings.Join(missing, ", "))
	}
	if len(o.Join) > 0 {
		if len(o.InitialCluster) > 0 {
			return c.usage("leave one of both out", "--initial-cluster founds a cluster, --join waits to be added to one")
		}
		return nil
	}
	reached := nameOr(o.Advertise, o.Listen)
	own := slices.IndexFunc(o.InitialCluster, func(f *messages.Founder) bool { return f.Name == o.Name })
	switch {
	case own < 0:
		return c.usage(fmt.Sprintf("add %s=%s to it", o.Name, reached), "--initial-cluster does not hold this node, %s", o.Name)
	case o.InitialCluster[own].Address != reached:
		return c.usage("", "--initial-cluster says that %s is at %s, but it is at %s", o.Name, o.InitialCluster[own].Address, reached)
	}
	return nil
}

func (c *Call) checkAddresses(o actors.ServeOptions) error {
	if o.Listen != "" {
		if err := grpc.CheckAddress(o.Listen); err != nil {
			return c.usage(err.Hint, "--listen: %s", err.Message)
		}
		if grpc.Everywhere(o.Listen) && o.Advertise == "" {
			return c.usage("add --advertise HOST"+o.Listen[strings.LastIndexByte(o.Listen, ':'):]+" with an address that others reach",
				"--listen %s is no address that others could reach", o.Listen)
		}
	}
	if o.Advertise != "" {
		if err := grpc.CheckReachable(o.Advertise); err != nil {
			return c.usage(err.Hint, "--advertise: %s", err.Message)
		}
	}
	return nil
}

// joins reads HOST:PORT,...
func (c *Call) joins(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	var endpoints []string
	for _, one := range strings.Split(list, ",") {
		one = strings.TrimSpace(one)
		if err := grpc.CheckReachable(one); err != nil {
			return nil, c.usage(err.Hint, "--join: %s", err.Message)
		}
		if !slices.Contains(endpoints, one) {
			endpoints = append(endpoints, one)
		}
	}
	return endpoints, nil
}

// founders reads NAME=HOST:PORT,... RaftIDs are the places in the order of
// names, from 1.
func (c *Call) founders(list string) ([]*messages.Founder, error) {
	if list == "" {
		return nil, nil
	}
	var founders []*messages.Founder
	for _, one := range strings.Split(list, ",") {
		name, address, ok := strings.Cut(strings.TrimSpace(one), "=")
		if !ok || name == "" {
			return nil, c.usage("write n1=10.0.0.1:7001,n2=10.0.0.2:7001,...", "--initial-cluster: %q is no NAME=HOST:PORT", one)
		}
		if err := grpc.CheckReachable(address); err != nil {
			return nil, c.usage(err.Hint, "--initial-cluster: %s", err.Message)
		}
		for _, f := range founders {
			if f.Name == name || f.Address == address {
				return nil, c.usage("", "--initial-cluster: %s=%s and %s=%s cannot both be", f.Name, f.Address, name, address)
			}
		}
		founders = append(founders, &messages.Founder{Name: name, Address: address})
	}
	slices.SortFunc(founders, func(a, b *messages.Founder) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range founders {
		f.RaftId = uint64(i) + 1
	}
	return founders, nil
}

// isFresh reports whether there is nothing in a directory, or no directory.
func isFresh(directory string) (bool, error) {
	entries, err := os.ReadDir(directory)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, dataError(err)
	}
	return len(entries) == 0, nil
}

// interrupted reports whether ctx ended because somebody asked kvctl to stop.
func interrupted(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }
