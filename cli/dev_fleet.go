package cli

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"keyval/messages"
)

// fleet is the child processes of kvctl dev. One goroutine calls its methods.
type fleet struct {
	self    string
	cluster *devCluster
	nodes   []*devProcess // by member; nil before its start
	ended   chan departure
}

// devProcess is one node. gone is closed when it has ended.
type devProcess struct {
	command *exec.Cmd
	gone    chan struct{}
	asked   atomic.Bool // somebody asked for its end
}

// departure is the end of one node.
type departure struct {
	member int
	pid    int
	why    string
}

func newFleet(self string, cluster *devCluster) *fleet {
	members := len(cluster.Members)
	return &fleet{self: self, cluster: cluster, nodes: make([]*devProcess, members), ended: make(chan departure, members+devNodesMax)}
}

// start runs a node as a child. Its thread lives as long as the child does: the
// system tells a child of its parent's death when the thread that made it ends,
// and the Go runtime ends threads as it likes unless they are locked.
func (f *fleet) start(member int) error {
	m := f.cluster.Members[member]
	log, err := os.OpenFile(f.cluster.log(m), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return messages.Errorf(messages.Code_INTERNAL, "the log of %s: %v", m.Name, err)
	}
	p := &devProcess{command: exec.Command(f.self, f.cluster.serveArgs(m)...), gone: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = log, log
	p.command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KVCTL_") })
	bindToParent(p.command)
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer log.Close()
		err := p.command.Start()
		started <- err
		if err != nil {
			return
		}
		f.await(member, p)
	}()
	if err := <-started; err != nil {
		return messages.Errorf(messages.Code_INTERNAL, "starting %s: %v", m.Name, err)
	}
	for len(f.nodes) <= member {
		f.nodes = append(f.nodes, nil)
	}
	f.nodes[member] = p
	return nil
}

func (f *fleet) await(member int, p *devProcess) {
	why := "exit code 0"
	if err := p.command.Wait(); err != nil {
		why = err.Error()
	}
	close(p.gone)
	if p.asked.Load() {
		return
	}
	f.ended <- departure{member, p.command.Process.Pid, why}
}

func (f *fleet) pid(member int) int { return f.nodes[member].command.Process.Pid }

// stop ends all nodes: asked first, and made to when they take too long.
func (f *fleet) stop() {
	f.signal(syscall.SIGTERM)
	late := time.AfterFunc(stopMax, func() { f.signal(syscall.SIGKILL) })
	defer late.Stop()
	for _, p := range f.nodes {
		if p != nil {
			<-p.gone
		}
	}
}

// signal reaches those that still run; Process.Signal itself refuses others.
func (f *fleet) signal(s syscall.Signal) {
	for _, p := range f.nodes {
		if p != nil {
			_ = p.command.Process.Signal(s)
		}
	}
}
