package cli

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// kvctl dev is asked by another kvctl to run one more node, or to end or start one. Its
// directory has a file that says at which port of this machine it listens, and a secret that
// whoever asks must know: so only who may read the directory is heard.
const devControlFile = "dev.control"

// devControl is what the file holds.
type devControl struct {
	Address string `json:"address"`
	Secret  string `json:"secret"`
}

// devRequest is one line of JSON over the connection, and devReply the one answered.
type devRequest struct {
	Secret string `json:"secret"`
	Verb   string `json:"verb"` // add, stop, start
	Name   string `json:"name"`
}

type devReply struct {
	Node  devNodeJSON     `json:"node"`
	Error *messages.Error `json:"error"`
	All   []string        `json:"endpoints"` // of the cluster
}

// devAsked is a request that waits for its reply.
type devAsked struct {
	devRequest
	reply chan devReply
}

// devDoor takes requests while kvctl dev runs.
type devDoor struct {
	listener net.Listener
	path     string
	asked    chan devAsked
}

const devAskMax = 15 * time.Second // of one request

func openDoor(directory string) (*devDoor, error) {
	var secret [16]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "listen on loopback: %v", err)
	}
	d := &devDoor{listener: l, path: filepath.Join(directory, devControlFile), asked: make(chan devAsked)}
	text, err := json.Marshal(devControl{l.Addr().String(), hex.EncodeToString(secret[:])})
	if err == nil {
		err = os.WriteFile(d.path, append(text, '\n'), 0o600)
	}
	if err != nil {
		l.Close()
		return nil, messages.Errorf(messages.Code_INTERNAL, "%s: %v", d.path, err)
	}
	go d.serve(hex.EncodeToString(secret[:]))
	return d, nil
}

func (d *devDoor) serve(secret string) {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return // closed
		}
		go d.hear(conn, secret)
	}
}

func (d *devDoor) hear(conn net.Conn, secret string) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(devAskMax))
	const lineMax = 4096
	line, err := bufio.NewReaderSize(conn, lineMax).ReadSlice('\n')
	a := devAsked{reply: make(chan devReply, 1)}
	if err != nil || json.Unmarshal(line, &a.devRequest) != nil || a.Secret != secret {
		return
	}
	late := time.NewTimer(devAskMax)
	defer late.Stop()
	select {
	case d.asked <- a:
		_ = json.NewEncoder(conn).Encode(<-a.reply)
	case <-late.C: // kvctl dev is ending
	}
}

func (d *devDoor) close() {
	d.listener.Close()
	_ = os.Remove(d.path)
}

// obey does what another kvctl asks for.
func (c *Call) obey(cluster *devCluster, fleet *fleet, a devAsked) {
	i, err := -1, error(nil)
	switch a.Verb {
	case "add":
		i, err = cluster.add(a.Name)
		if err == nil {
			err = fleet.start(i)
		}
	case "stop", "start":
		if i = cluster.member(a.Name); i < 0 {
			err = messages.Errorf(messages.Code_NOT_FOUND, "kvctl dev runs no node called %q", a.Name).WithHint("it runs %s", strings.Join(cluster.names(), ", "))
		} else if fleet.runs(i) == (a.Verb == "start") {
			err = already(a.Name, fleet.runs(i))
		} else if a.Verb == "start" && cluster.wasRemoved(cluster.Members[i]) {
			err = messages.Errorf(messages.Code_REMOVED, "%s was removed from the cluster: its directory is of no more use", a.Name).WithHint("add another node: kvctl dev add")
		} else if a.Verb == "start" {
			err = fleet.start(i)
		} else {
			fleet.end(i)
		}
	default:
		err = messages.Errorf(messages.Code_INVALID, "kvctl dev knows no %q", a.Verb).WithHint("ask it with the kvctl that runs it")
	}
	if err != nil {
		problem, _ := explain(err)
		a.reply <- devReply{Error: problem}
		return
	}
	m := cluster.Members[i]
	c.note("%s: asked to %s it (pid %d)", m.Name, a.Verb, fleet.pid(i))
	a.reply <- devReply{Node: cluster.told(m, fleet.pid(i), ""), All: cluster.endpoints()}
}

// already is the error of a node that is as it was asked to be.
func already(name string, runs bool) error {
	if runs {
		return messages.Errorf(messages.Code_CONFLICT, "%s runs already", name).WithHint("to start it anew, first: kvctl dev stop %s", name)
	}
	return messages.Errorf(messages.Code_CONFLICT, "%s is stopped already", name).WithHint("start it again: kvctl dev start %s", name)
}

// add makes one more member of the cluster that waits to be added to it. It has a free port
// behind those of the others.
func (d *devCluster) add(name string) (int, error) {
	if name == "" {
		for n := len(d.everyone()) + 1; name == "" || d.member(name) >= 0; n++ {
			name = fmt.Sprintf("node%d", n)
		}
	}
	if err := messages.CheckNodeName(name); err != nil {
		return 0, err
	}
	if d.member(name) >= 0 {
		return 0, messages.Errorf(messages.Code_CONFLICT, "there is a node %s already", name).WithHint("start it: kvctl dev start %s; or choose another name", name)
	}
	if fresh, err := isFresh(filepath.Join(d.Directory, name)); err == nil && !fresh {
		return 0, messages.Errorf(messages.Code_CONFLICT, "%s is not empty", filepath.Join(d.Directory, name)).WithHint("remove that directory, or choose another name")
	}
	port := 0
	for _, m := range d.everyone() {
		port = max(port, m.port())
	}
	for tried := 0; tried < 100; tried++ {
		port++
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		l.Close()
		d.Members = append(d.Members, devMember{Name: name, Address: address, Joins: true})
		if d.Secure {
			if err := d.makeKeys(); err != nil {
				return 0, err
			}
		}
		return len(d.Members) - 1, d.record()
	}
	return 0, messages.Errorf(messages.Code_CONFLICT, "no port up to %d is free", port).WithHint("end whatever listens there, or run the cluster elsewhere: kvctl dev --base-port PORT")
}

// member is the place of the member of this name; -1: there is none.
func (d *devCluster) member(name string) int {
	for i, m := range d.Members {
		if m.Name == name {
			return i
		}
	}
	return -1
}

func (d *devCluster) names() []string {
	var all []string
	for _, m := range d.Members {
		all = append(all, m.Name)
	}
	return all
}

func newDevVerb(sh *Shell, verb, usage, arguments, description string) *urfave.Command {
	return &urfave.Command{
		Name: verb, Usage: usage, ArgsUsage: arguments, Description: description,
		UsageText: "kvctl dev " + verb + " node4",
		Flags:     []urfave.Flag{dataFlag()},
		Action:    sh.action(func(c *Call) error { return c.askDev(verb) }),
	}
}

// askDev asks the kvctl dev that runs in --data, or the only one that runs.
func (c *Call) askDev(verb string) error {
	name := ""
	if len(c.Args) > 0 {
		name = c.Args[0]
	}
	conn, control, err := c.findDev()
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(devAskMax))
	var r devReply
	err = json.NewEncoder(conn).Encode(devRequest{control.Secret, verb, name})
	if err == nil {
		err = json.NewDecoder(conn).Decode(&r)
	}
	switch {
	case err != nil:
		return messages.Errorf(messages.Code_UNREACHABLE, "kvctl dev does not answer: %v", err).
			WithHint("see what became of it: %s status", c.self())
	case r.Error != nil:
		return r.Error
	}
	if c.Format.structured() {
		return c.printJSON(r.Node)
	}
	if c.Format == Simple {
		c.printSimple([][]string{{r.Node.Name, r.Node.Endpoint, fmt.Sprint(r.Node.PID)}})
		return nil
	}
	flags := ""
	if all := strings.Join(r.All, ","); !strings.HasPrefix(all, defaultEndpoints) {
		flags = " --endpoints " + strings.Join(r.All[:max(1, len(r.All)-1)], ",")
	}
	switch verb {
	case "add":
		fmt.Fprintf(c.Stdout, "%s runs at %s (pid %d) and waits to be added:\n  %s cluster add %s %s%s\n", r.Node.Name, r.Node.Endpoint, r.Node.PID, c.self(), r.Node.Name, r.Node.Endpoint, flags)
	case "start":
		fmt.Fprintf(c.Stdout, "%s runs again at %s (pid %d)\n", r.Node.Name, r.Node.Endpoint, r.Node.PID)
	default:
		fmt.Fprintf(c.Stdout, "%s is stopped; start it again: %s dev start %s\n", r.Node.Name, c.self(), r.Node.Name)
	}
	return nil
}

// findDev connects to the kvctl dev of --data, or without it to the only one there is.
func (c *Call) findDev() (net.Conn, *devControl, error) {
	directories := []string{c.flags.String("data")}
	if !c.flags.IsSet("data") {
		directories, _ = filepath.Glob(filepath.Join(os.TempDir(), "kvctl-dev-*"))
	}
	var found net.Conn
	var whose *devControl
	for _, directory := range directories {
		text, err := os.ReadFile(filepath.Join(directory, devControlFile))
		control := new(devControl)
		if err != nil || json.Unmarshal(text, control) != nil {
			continue
		}
		conn, err := net.DialTimeout("tcp", control.Address, time.Second)
		if err != nil {
			continue
		}
		if found != nil {
			found.Close()
			conn.Close()
			return nil, nil, messages.Errorf(messages.Code_INVALID, "several kvctl dev run on this machine").WithHint("name the directory of one with --data DIR")
		}
		found, whose = conn, control
	}
	if found == nil {
		return nil, nil, messages.Errorf(messages.Code_UNREACHABLE, "no kvctl dev runs in %s", strings.Join(append(directories, "a directory of its own")[:max(1, len(directories))], ", ")).
			WithHint("start one: %s dev; or name its directory with --data DIR", c.self())
	}
	return found, whose, nil
}

// runs reports whether a node runs.
func (f *fleet) runs(member int) bool {
	if member >= len(f.nodes) || f.nodes[member] == nil {
		return false
	}
	select {
	case <-f.nodes[member].gone:
		return false
	default:
		return true
	}
}

// end stops one node and waits for its end, which nobody need be told of.
func (f *fleet) end(member int) {
	p := f.nodes[member]
	p.asked.Store(true)
	_ = p.command.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(stopMax, func() { _ = p.command.Process.Kill() })
	defer late.Stop()
	<-p.gone
}
