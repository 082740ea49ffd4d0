package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// devCluster is what kvctl dev runs. It is recorded in DIR/dev.json, so that dev
// --data DIR resumes the same nodes at the same ports.
type devCluster struct {
	Format  int         `json:"format"`
	Members []devMember `json:"members"`
	Left    []devMember `json:"left,omitempty"` // they were removed from the cluster, and are not started any more
	Secure  bool        `json:"secure,omitempty"`

	Directory string `json:"-"` // absolute; of a temporary one known after create
	temporary bool
	resumed   bool     // it was recorded before
	tuning    []string // flags for every node
	metrics   bool     // each node shows itself at its page's address
	plain     bool     // and by http:// even if it is secure
}

type devMember struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Joins   bool   `json:"joins,omitempty"` // it is no founder: it waits to be added
}

const (
	devRecord       = "dev.json"
	devRecordFormat = 1
)

// retiredFile is in the directory of a node that was removed from its cluster.
const retiredFile = "RETIRED"

// wasRemoved reports whether a node knows that it is no member any more. Its directory is of
// no more use then, and it would not start.
func (d *devCluster) wasRemoved(m devMember) bool {
	_, err := os.Stat(filepath.Join(d.data(m), retiredFile))
	return err == nil
}

// leaveOut drops the members that were removed, and returns those that were not known for it.
func (d *devCluster) leaveOut() (removed []devMember) {
	d.Members = slices.DeleteFunc(d.Members, func(m devMember) bool {
		if !d.wasRemoved(m) {
			return false
		}
		removed = append(removed, m)
		return true
	})
	d.Left = append(d.Left, removed...)
	return removed
}

// everyone is all nodes that there ever were.
func (d *devCluster) everyone() []devMember { return slices.Concat(d.Members, d.Left) }

func (d *devCluster) data(m devMember) string { return filepath.Join(d.Directory, m.Name) }
func (d *devCluster) log(m devMember) string  { return filepath.Join(d.Directory, m.Name+".log") }

func (d *devCluster) endpoints() []string {
	var all []string
	for _, m := range d.Members {
		all = append(all, m.Address)
	}
	return all
}

// serveArgs starts one node, at the first time and at any later.
func (d *devCluster) serveArgs(m devMember) []string {
	var founders, others []string
	for _, f := range d.everyone() {
		if !f.Joins {
			founders = append(founders, f.Name+"="+f.Address)
		}
		if f != m && slices.Contains(d.Members, f) {
			others = append(others, f.Address)
		}
	}
	args := []string{"serve", "--name", m.Name, "--listen", m.Address, "--data", d.data(m), "--initial-cluster", strings.Join(founders, ",")}
	if m.Joins {
		args[len(args)-2], args[len(args)-1] = "--join", strings.Join(others, ",")
		if fresh, err := isFresh(d.data(m)); err == nil && !fresh {
			args = []string{"serve", "--data", d.data(m)} // the rest is recorded
		}
	}
	if d.metrics {
		args = append(args, "--metrics-listen", m.page())
		if d.plain {
			args = append(args, "--metrics-plain")
		}
	}
	return slices.Concat(args, d.tuning, d.keyArgs(m))
}

// devUser is whom kvctl dev makes keys for, of clients.
const devUser = "dev"

func (d *devCluster) authority() keys.Authority {
	return keys.Authority{Dir: filepath.Join(d.Directory, "certs")}
}

func (d *devCluster) clientKeys() string {
	return d.authority().Of(transport.Principal{Kind: transport.UserKey, Name: devUser})
}

// keyArgs are the flags by which a node comes with keys.
func (d *devCluster) keyArgs(m devMember) []string {
	if !d.Secure {
		return nil
	}
	return []string{"--certs-dir", d.authority().Of(transport.Principal{Kind: transport.NodeKey, Name: m.Name})}
}

// makeKeys makes those that are not there yet.
func (d *devCluster) makeKeys() error {
	a := d.authority()
	if !exists(a.Dir) {
		if _, err := a.Create(); err != nil {
			return err
		}
	}
	all := []transport.Principal{{Kind: transport.UserKey, Name: devUser}}
	for _, m := range d.Members {
		all = append(all, transport.Principal{Kind: transport.NodeKey, Name: m.Name})
	}
	for _, p := range all {
		if exists(a.Of(p)) {
			continue
		}
		if _, _, err := a.Issue(p, []string{"127.0.0.1", "localhost"}); err != nil {
			return err
		}
	}
	return nil
}

// secure has this process reach the cluster with its keys, or without any.
func (c *Call) secure(d *devCluster) error {
	var ring *keys.Ring
	if d.Secure {
		err := d.makeKeys()
		if err == nil {
			ring, err = keys.Load(keys.FilesIn(d.clientKeys(), transport.UserKey))
		}
		if err != nil {
			return err
		}
	}
	c.Context = withKeys(c.Context, func() (*keys.Ring, error) { return ring, nil })
	return nil
}

// pagePorts is how far the port of a node's page is behind that of the node.
const pagePorts = 2000

// page is where a node shows itself.
func (m devMember) page() string { return fmt.Sprintf("127.0.0.1:%d", m.port()+pagePorts) }

// planCluster is the cluster that the flags and the directory's record name.
func (c *Call) planCluster() (*devCluster, error) {
	nodes, basePort := 3, 7001
	if c.flags.IsSet("nodes") {
		nodes = c.flags.Int("nodes")
	}
	if c.flags.IsSet("base-port") {
		basePort = c.flags.Int("base-port")
	}
	switch {
	case nodes < 1 || nodes > devNodesMax:
		return nil, c.usage("", "--nodes must be from 1 to %d, not %d", devNodesMax, nodes)
	case basePort < 1 || basePort+nodes-1 > 65535:
		return nil, c.usage("", "--base-port %d leaves no ports from 1 to 65535 for %d nodes", basePort, nodes)
	case c.flags.Bool("metrics") && basePort+nodes-1+pagePorts > 65535:
		return nil, c.usage("", "--metrics needs the ports %d behind those of the nodes: give a lower --base-port", pagePorts)
	case c.flags.IsSet("data") && c.flags.String("data") == "":
		return nil, c.usage("", "--data names no directory")
	}
	d := &devCluster{Format: devRecordFormat, Secure: c.flags.Bool("secure")}
	for i := range nodes {
		d.Members = append(d.Members, devMember{Name: fmt.Sprintf("node%d", i+1), Address: fmt.Sprintf("127.0.0.1:%d", basePort+i)})
	}
	if c.flags.IsSet("data") {
		return c.resume(d)
	}
	d.temporary = true
	return d, nil
}

// resume takes what is recorded in --data, which flags may not contradict.
func (c *Call) resume(planned *devCluster) (*devCluster, error) {
	directory, err := filepath.Abs(c.flags.String("data"))
	if err != nil {
		return nil, err
	}
	planned.Directory = directory
	path := filepath.Join(directory, devRecord)
	record, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return planned, nil
	}
	if err == nil && c.flags.IsSet("from") {
		return nil, c.usage("leave --from out to resume it, or name another --data", "%s holds a cluster already", directory)
	}
	if err != nil {
		return nil, dataError(err)
	}
	recorded := &devCluster{Directory: directory, resumed: true}
	if err := json.Unmarshal(record, recorded); err != nil || len(recorded.Members) == 0 {
		return nil, messages.Errorf(messages.Code_DAMAGED, "%s does not say which nodes there are", path).
			WithHint("start the nodes one by one: kvctl serve --data %s", filepath.Join(directory, "node1"))
	}
	nodes, basePort := len(recorded.everyone()), recorded.Members[0].port()
	for _, m := range recorded.everyone() {
		basePort = min(basePort, m.port())
	}
	switch {
	case recorded.Format != devRecordFormat:
		return nil, messages.Errorf(messages.Code_UNSUPPORTED, "%s has format %d; this kvctl knows %d", path, recorded.Format, devRecordFormat).
			WithHint("resume it with the kvctl that made it, or name another directory")
	case c.flags.IsSet("nodes") && len(planned.Members) != nodes:
		return nil, c.usage("leave --nodes out", "%s holds a cluster of %d nodes, not %d", directory, nodes, len(planned.Members))
	case c.flags.IsSet("base-port") && planned.Members[0].port() != basePort:
		return nil, c.usage("leave --base-port out", "the cluster in %s begins at port %d, not %d", directory, basePort, planned.Members[0].port())
	}
	recorded.Secure = recorded.Secure || planned.Secure
	return recorded, nil
}

// create makes the directory and writes DIR/dev.json, all of it or nothing.
func (d *devCluster) create() error {
	var err error
	if d.temporary {
		d.Directory, err = os.MkdirTemp("", "kvctl-dev-")
	} else {
		err = os.MkdirAll(d.Directory, 0o755)
	}
	if err != nil {
		return dataError(err)
	}
	return d.record()
}

// dataError is what the system says of a directory that --data names.
func dataError(err error) error {
	return messages.Errorf(messages.Code_INVALID, "--data: %v", err).WithHint("name a directory that this user may read and write")
}

// record writes DIR/dev.json.
func (d *devCluster) record() error {
	record, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(d.Directory, devRecord)
	if err := os.WriteFile(path+".new", append(record, '\n'), 0o644); err != nil {
		return dataError(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return dataError(err)
	}
	return nil
}

// lastLines is the end of a log.
func lastLines(path string, lines int) string {
	const bytesMax = 4096
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, 2); err == nil {
		f.Seek(max(0, end-bytesMax), 0)
	}
	tail := make([]byte, bytesMax)
	n, _ := f.Read(tail)
	all := strings.Split(strings.TrimSpace(string(tail[:n])), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
