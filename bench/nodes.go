package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
)

const (
	nodesMax = 3
	// stopMax is how long a node may take to stop before it is killed: its data
	// are thrown away anyway.
	stopMax = 5 * time.Second
)

// nodes is a running cluster. Its methods work on nil.
type nodes struct {
	endpoints []string // where clients reach them, in the order of processes
	certs     string   // the authority's directory; empty: there are no keys
	processes []*process
	unwatch   func() // nil: nobody watches
}

// process is a child. gone is closed when it has ended.
type process struct {
	command *exec.Cmd
	log     string
	gone    chan struct{}
}

// keyvalNodes starts three kvctl serve, with whoever watches them; nil: nobody does.
func keyvalNodes(kvctl string, watch watching) func(string, bool) (*nodes, error) {
	return func(data string, secure bool) (*nodes, error) {
		certs, err := makeKeys(data, secure)
		if err != nil {
			return nil, err
		}
		addresses, err := freeAddresses(nodesMax)
		if err != nil {
			return nil, err
		}
		var founders []string
		for i, a := range addresses {
			founders = append(founders, fmt.Sprintf("n%d=%s", i+1, a))
		}
		n := &nodes{endpoints: addresses, certs: certs}
		flags := make([][]string, nodesMax)
		if watch != nil {
			if n.unwatch, err = watch(flags); err != nil {
				return n, err
			}
		}
		for i, a := range addresses {
			name := fmt.Sprintf("n%d", i+1)
			args := []string{"serve", "--name", name, "--listen", a, "--log-level", "warn",
				"--data", filepath.Join(data, name), "--initial-cluster", strings.Join(founders, ",")}
			if secure {
				args = append(args, "--certs-dir", filepath.Join(certs, "nodes", name))
			}
			err := n.start(filepath.Join(data, name+".log"), kvctl, append(args, flags[i]...)...)
			if err != nil {
				return n, err
			}
		}
		return n, nil
	}
}

// etcdNodes starts three etcd, as they come, but for a quota that no measurement
// meets and a log that says what goes wrong only.
func etcdNodes(etcd string) func(string, bool) (*nodes, error) {
	return func(data string, secure bool) (*nodes, error) {
		certs, err := makeKeys(data, secure)
		if err != nil {
			return nil, err
		}
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		addresses, err := freeAddresses(2 * nodesMax)
		if err != nil {
			return nil, err
		}
		clients, peers := addresses[:nodesMax], addresses[nodesMax:]
		var founders []string
		for i, a := range peers {
			founders = append(founders, fmt.Sprintf("n%d=%s%s", i+1, scheme, a))
		}
		n := &nodes{endpoints: clients, certs: certs}
		for i := range clients {
			name, client, peer := fmt.Sprintf("n%d", i+1), scheme+clients[i], scheme+peers[i]
			args := []string{"--name", name, "--data-dir", filepath.Join(data, name),
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--initial-cluster", strings.Join(founders, ","), "--initial-cluster-state", "new",
				"--quota-backend-bytes", "8589934592", "--log-level", "error"}
			if secure {
				own := filepath.Join(certs, "nodes", name)
				for _, whose := range []string{"", "peer-"} {
					args = append(args, "--"+whose+"cert-file", filepath.Join(own, "node.crt"), "--"+whose+"key-file", filepath.Join(own, "node.key"),
						"--"+whose+"trusted-ca-file", filepath.Join(own, "ca.crt"), "--"+whose+"client-cert-auth")
				}
			}
			err := n.start(filepath.Join(data, name+".log"), etcd, args...)
			if err != nil {
				return n, err
			}
		}
		return n, nil
	}
}

// makeKeys makes an authority, and the keys of nodes and a client, for both systems.
func makeKeys(data string, secure bool) (string, error) {
	if !secure {
		return "", nil
	}
	a := keys.Authority{Dir: filepath.Join(data, "certs")}
	if _, err := a.Create(); err != nil {
		return "", err
	}
	all := []transport.Principal{{Kind: transport.UserKey, Name: "bench"}}
	for i := range nodesMax {
		all = append(all, transport.Principal{Kind: transport.NodeKey, Name: fmt.Sprintf("n%d", i+1)})
	}
	for _, p := range all {
		if _, _, err := a.Issue(p, []string{"127.0.0.1"}); err != nil {
			return "", err
		}
	}
	return a.Dir, nil
}

// start makes a child that ends with this process. The system tells a child of its
// parent's death when the thread that made it ends: so that thread is kept.
func (n *nodes) start(log, name string, args ...string) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	p := &process{command: exec.Command(name, args...), log: log, gone: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = f, f
	p.command.SysProcAttr = childAttributes()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer f.Close()
		err := p.command.Start()
		started <- err
		if err == nil {
			_ = p.command.Wait()
			close(p.gone)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	n.processes = append(n.processes, p)
	return nil
}

// childAttributes keep the terminal's signals from a child, and end it when its
// parent dies without a word.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

func (n *nodes) pids() []int {
	var all []int
	for _, p := range n.processes {
		all = append(all, p.command.Process.Pid)
	}
	return all
}

// end ends all nodes and waits until they are gone.
func (n *nodes) end() {
	if n == nil {
		return
	}
	for _, p := range n.processes {
		_ = p.command.Process.Signal(syscall.SIGTERM)
	}
	if n.unwatch != nil {
		defer n.unwatch()
	}
	patience := time.NewTimer(stopMax)
	defer patience.Stop()
	for _, p := range n.processes {
		select {
		case <-p.gone:
			continue
		case <-patience.C:
			patience.Reset(0)
		}
		_ = p.command.Process.Kill()
		<-p.gone
	}
}

// lastWords is what the nodes logged last, for an error.
func (n *nodes) lastWords() string {
	var b strings.Builder
	for _, p := range n.processes {
		text, _ := os.ReadFile(p.log)
		text = text[max(0, len(text)-2000):]
		if len(text) > 0 {
			fmt.Fprintf(&b, "\n--- %s:\n%s", filepath.Base(p.log), strings.TrimSpace(string(text)))
		}
	}
	return b.String()
}

// freeAddresses finds ports of loopback that nobody listens at.
func freeAddresses(n int) ([]string, error) {
	var found []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		found = append(found, l.Addr().String())
	}
	return found, nil
}
