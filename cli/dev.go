package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

const devNodesMax = 9

func newDev(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "dev",
		Usage: "run a whole cluster on this machine",
		Description: `Node i is node<i> at 127.0.0.1, port --base-port + i - 1; its data are in DIR/node<i>,
its log in DIR/node<i>.log. A node that dies is reported with the command that starts it
again; the others go on. SIGINT or SIGTERM ends them all.
With --data everything is kept: dev --data DIR resumes the same nodes and ports. One that was
removed from the cluster is left out. With --from it begins with the data of a backup, as
kvctl restore makes them.
With --secure all links are under TLS; the keys are in DIR/certs, as kvctl cert makes them.
--history-revisions, --history-time, --snapshot-rate and the flags of tracing are those of serve,
for all nodes.`,
		UsageText: `kvctl dev
kvctl dev --nodes 5 --data ./cluster --base-port 8001
kvctl dev --from ./backups
kvctl dev add node4`,
		Flags: append([]urfave.Flag{
			&urfave.IntFlag{Name: "nodes", Usage: "run `N` nodes", DefaultText: "3"},
			dataFlag(),
			&urfave.StringFlag{Name: "from", Usage: "begin with the data of the backup at `PATH`", TakesFile: true},
			&urfave.BoolFlag{Name: "secure", Usage: "give all nodes keys of their own, and say which flags clients need"},
			&urfave.IntFlag{Name: "base-port", Usage: "give the first node `PORT`, the next ones those behind it", DefaultText: "7001"},
			&urfave.BoolFlag{Name: "metrics", Usage: fmt.Sprintf("show each node's page, metrics and health checks, at its port + %d", pagePorts)},
			plainFlag(),
		}, append(tracingFlags(), tuningFlags()...)...),
		Action: sh.action(dev),
		Subcommands: []*urfave.Command{
			newDevVerb(sh, "add", "run one more node, which waits to be added", "[NAME]",
				"Asks the kvctl dev that runs in --data, or the only one that runs. Its port is the next free one."),
			newDevVerb(sh, "stop", "end one node of a kvctl dev that runs", "NAME", "It is asked to end, and killed if that takes longer than 4 seconds."),
			newDevVerb(sh, "start", "start a node again that was stopped or has died", "NAME", "With the data that it has."),
		},
	}
}

func dev(c *Call) error {
	c.outlast(textLog)
	cluster, err := c.planCluster()
	if err != nil {
		return err
	}
	if _, err := c.tuning(); err != nil {
		return err
	}
	if _, _, err := c.tracing(); err != nil {
		return err
	}
	cluster.tuning, cluster.metrics = append(c.tuningArgs(), c.tracingArgs()...), c.flags.Bool("metrics")
	if cluster.plain = c.flags.Bool("metrics-plain"); cluster.plain && !cluster.metrics {
		return c.usage("", "--metrics-plain has no meaning without --metrics")
	}
	for _, m := range cluster.leaveOut() {
		c.note("%s was removed from the cluster, and is left out; its directory is of no more use: %s", m.Name, cluster.data(m))
	}
	if len(cluster.Members) == 0 {
		return messages.Errorf(messages.Code_NOT_FOUND, "all nodes of %s were removed from their cluster", cluster.Directory).
			WithHint("begin a new cluster in another directory")
	}
	if err := cluster.checkPorts(); err != nil {
		return err
	}
	if err := cluster.create(); err != nil {
		return err
	}
	if err := c.secure(cluster); err != nil {
		c.leave(cluster)
		return err
	}
	if c.flags.IsSet("from") {
		if _, err := c.fillFrom(cluster, c.flags.String("from")); err != nil {
			c.leave(cluster)
			return err
		}
	}
	door, err := openDoor(cluster.Directory)
	if err != nil {
		return err
	}
	defer door.close()
	fleet := newFleet(c.Self, cluster)
	err = c.runCluster(cluster, fleet, door)
	fleet.stop()
	c.leave(cluster)
	if interrupted(c) {
		return nil
	}
	return err
}

func (c *Call) runCluster(cluster *devCluster, fleet *fleet, door *devDoor) error {
	for i := range cluster.Members {
		if err := fleet.start(i); err != nil {
			return err
		}
	}
	rows, err := c.awaitCluster(cluster, fleet)
	if err != nil {
		return err
	}
	if err := c.introduce(cluster, fleet, rows); err != nil {
		return err
	}
	c.watch(cluster, fleet, door)
	return nil
}

// awaitCluster returns once every node answers and follows a leader. A node that
// ends before that is an error: a first start needs them all.
func (c *Call) awaitCluster(cluster *devCluster, fleet *fleet) ([]nodeJSON, error) {
	const pollEvery, askMax = 150 * time.Millisecond, 2 * time.Second
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	said := ""
	for {
		select {
		case <-c.Done():
			return nil, context.Cause(c)
		case gone := <-fleet.ended:
			if !cluster.wasRemoved(cluster.Members[gone.member]) {
				return nil, c.failedStart(cluster, gone)
			}
			c.reportEnd(cluster, gone)
		case <-poll.C:
		}
		rows := askAll(c, c.Shell, cluster.endpoints(), askMax)
		waiting := waitingFor(cluster, rows)
		if waiting == "" {
			return rows, nil
		}
		if waiting != said && !interrupted(c) {
			c.note("waiting for %s", waiting)
			said = waiting
		}
	}
}

// waitingFor is what keeps a cluster from serving; empty: nothing.
func waitingFor(cluster *devCluster, rows []nodeJSON) string {
	var silent, leaderless []string
	for i, r := range rows {
		if cluster.Members[i].Joins || cluster.wasRemoved(cluster.Members[i]) {
			continue // it may wait to be added, for ever, or has just learnt that it was removed
		}
		switch name := cluster.Members[i].Name; {
		case r.problem != nil:
			silent = append(silent, name)
		case r.Role != leading && r.Leader == "":
			leaderless = append(leaderless, name)
		}
	}
	switch {
	case len(silent) > 0:
		return strings.Join(silent, ", ") + " to serve"
	case len(leaderless) > 0:
		return "a leader that " + strings.Join(leaderless, ", ") + " can follow"
	}
	return ""
}

func (c *Call) failedStart(cluster *devCluster, gone departure) error {
	m := cluster.Members[gone.member]
	text := fmt.Sprintf("%s ended while the cluster was starting: %s", m.Name, gone.why)
	if tail := lastLines(cluster.log(m), 5); tail != "" {
		text += "\n  " + strings.ReplaceAll(tail, "\n", "\n  ")
	}
	e := messages.Errorf(messages.Code_INTERNAL, "%s", text)
	if !cluster.temporary {
		e = e.WithHint("read all of %s", cluster.log(m))
	}
	return e
}

// watch reports deaths until dev is asked to end.
func (c *Call) watch(cluster *devCluster, fleet *fleet, door *devDoor) {
	for {
		select {
		case <-c.Done():
			c.note("ending all nodes")
			return
		case a := <-door.asked:
			c.obey(cluster, fleet, a)
		case gone := <-fleet.ended:
			c.reportEnd(cluster, gone)
		}
	}
}

// reportEnd says that a node has ended, and what can be done about it.
func (c *Call) reportEnd(cluster *devCluster, gone departure) {
	m := cluster.Members[gone.member]
	if cluster.wasRemoved(m) {
		c.note("%s (pid %d) was removed from the cluster, and has ended; its directory is of no more use: %s", m.Name, gone.pid, cluster.data(m))
		return
	}
	c.note("%s%s (pid %d) ended: %s", c.warning(), m.Name, gone.pid, gone.why)
	again := slices.Concat([]string{"serve"}, quoteWords(cluster.tuning), []string{"--data", quoteWord(cluster.data(m))}, quoteWords(cluster.keyArgs(m)))
	c.note("  start it again: %s %s", c.self(), strings.Join(again, " "))
	c.note("  its log: %s", cluster.log(m))
}

func (c *Call) warning() string {
	if c.ErrTTY {
		return "⚠ "
	}
	return ""
}

// leave removes a temporary directory once all nodes have ended, unless a node
// that somebody started again by hand still lives in it.
func (c *Call) leave(cluster *devCluster) {
	if !cluster.temporary {
		return
	}
	for _, m := range cluster.Members {
		if owner := portOwner(m.port()); owner != "" {
			c.note("%s was started by hand and goes on (%s): %s is kept", m.Name, owner, cluster.Directory)
			return
		}
	}
	if err := os.RemoveAll(cluster.Directory); err != nil {
		c.note("%s could not be removed: %v", cluster.Directory, err)
	}
}

type devJSON struct {
	Directory string        `json:"directory"`
	Temporary bool          `json:"temporary"`
	Endpoints []string      `json:"endpoints"`
	CertsDir  string        `json:"certs_dir,omitempty"` // the keys of clients, of a secure cluster
	Nodes     []devNodeJSON `json:"nodes"`
}

type devNodeJSON struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	PID      int    `json:"pid"`
	Role     string `json:"role"`
	Data     string `json:"data"`
	Log      string `json:"log"`
	Page     string `json:"page,omitempty"` // with --metrics: where its page is, and its metrics at /metrics
}

func (d *devCluster) told(m devMember, pid int, role string) devNodeJSON {
	n := devNodeJSON{Name: m.Name, Endpoint: m.Address, PID: pid, Role: role, Data: d.data(m), Log: d.log(m)}
	if d.metrics {
		n.Page = "http://" + m.page()
		if d.Secure && !d.plain {
			n.Page = "https://" + m.page()
		}
	}
	return n
}

// introduce says what runs where, and what to try.
func (c *Call) introduce(cluster *devCluster, fleet *fleet, rows []nodeJSON) error {
	intro := devJSON{cluster.Directory, cluster.temporary, cluster.endpoints(), "", nil}
	if cluster.Secure {
		intro.CertsDir = cluster.clientKeys()
	}
	for i, m := range cluster.Members {
		intro.Nodes = append(intro.Nodes, cluster.told(m, fleet.pid(i), rows[i].Role))
	}
	if c.Format.structured() {
		return c.printJSON(intro)
	}
	kept := "kept: kvctl dev --data resumes it"
	if cluster.temporary {
		kept = "removed on exit; keep it with --data DIR"
	}
	pad := func(label string) string { return fmt.Sprintf("%-10s", label) }
	fmt.Fprintf(c.Stdout, "The cluster is ready.\n\n")
	for i, n := range intro.Nodes {
		fmt.Fprintf(c.Stdout, "  %s%-*s  pid %-8d%s\n", pad(n.Name), widest(intro.Endpoints), n.Endpoint, n.PID, strings.TrimSpace(fmt.Sprintf("%-10s%s", rows[i].Role, n.Page)))
	}
	fmt.Fprintf(c.Stdout, "  %s%s (%s)\n", pad("data"), cluster.Directory, kept)
	if cluster.metrics {
		fmt.Fprintf(c.Stdout, "  %s/metrics at each of these pages\n", pad("metrics"))
	}
	if keys := cluster.clientKeys(); cluster.metrics && cluster.Secure && !cluster.plain {
		fmt.Fprintf(c.Stdout, "  %scurl --cacert %s --cert %s --key %s; for browsers --metrics-plain\n", pad("pages"),
			quoteWord(filepath.Join(keys, "ca.crt")), quoteWord(filepath.Join(keys, "client.crt")), quoteWord(filepath.Join(keys, "client.key")))
	}
	fmt.Fprintf(c.Stdout, "  %s%s\n\nTry in another terminal:\n", pad("logs"), filepath.Join(cluster.Directory, "node*.log"))
	if cluster.Secure {
		fmt.Fprintf(c.Stdout, "  export %s=%s   # or with each command: --certs-dir %[2]s\n", envCertsDir, quoteWord(cluster.clientKeys()))
	}
	for _, line := range tries(c.self(), cluster.endpoints(), victim(intro.Nodes)) {
		fmt.Fprintf(c.Stdout, "  %s\n", line)
	}
	_, err := fmt.Fprintf(c.Stdout, "\nCtrl-C ends all nodes.\n")
	return err
}

// tries are commands to paste. The default endpoints need not be said.
func tries(self string, endpoints []string, victim int) []string {
	var lines []string
	if all := strings.Join(endpoints, ","); all != defaultEndpoints {
		lines = append(lines, "export "+envEndpoints+"="+all)
	}
	return append(lines,
		self+" put hello world",
		self+" get hello",
		self+" status",
		fmt.Sprintf("kill -9 %d; %s status   # kill a node and watch", victim, self),
	)
}

// victim is the pid of the leader: its death shows most.
func victim(nodes []devNodeJSON) int {
	i := slices.IndexFunc(nodes, func(n devNodeJSON) bool { return n.Role == leading })
	return nodes[max(i, 0)].PID
}

func widest(words []string) int {
	width := 0
	for _, w := range words {
		width = max(width, len(w))
	}
	return width
}

// checkPorts names whoever holds a port that a node needs.
func (d *devCluster) checkPorts() error {
	for _, m := range d.Members {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", m.Address)
		if err == nil {
			l.Close()
			continue
		}
		owner := portOwner(m.port())
		if owner == "" {
			owner = err.Error()
		} else {
			owner = "in use by " + owner
		}
		e := messages.Errorf(messages.Code_CONFLICT, "%s, which %s needs, cannot be used: %s", m.Address, m.Name, owner)
		if d.resumed {
			return e.WithHint("end that process first: the cluster in %s keeps its ports", d.Directory)
		}
		return e.WithHint("end that process, or give another --base-port")
	}
	return nil
}

func (m devMember) port() int {
	_, port, _ := net.SplitHostPort(m.Address)
	n, _ := strconv.Atoi(port) // 0, which nobody owns, where it is no port
	return n
}
