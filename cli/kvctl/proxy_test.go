//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// condition is how one direction between two places is.
type condition int

const (
	fair condition = iota
	slow           // every piece comes late
	held           // nothing comes: it waits, as for a network that is away
	cut            // connections are reset, and new ones too
)

const (
	lateness   = 60 * time.Millisecond
	pieceBytes = 32 << 10
)

// way is a direction: from one place to another. Places are the nodes, from 0 on,
// and behind them the clients, as one.
type way struct{ from, to int }

// network stands between all nodes, and between them and their clients: each node
// has a listener here in front of its own. It knows who dials by the process that
// holds the other end, so it can part two nodes and leave the third alone.
type network struct {
	t       *testing.T
	nodes   int
	targets []string // where the nodes listen
	fronts  []net.Listener
	pidOf   func(node int) int // 0: it does not run
	running sync.WaitGroup

	mu      sync.Mutex
	ways    map[way]condition // fair if it is not there
	changed chan struct{}     // closed and replaced when ways changes
	wires   map[*wire]bool
	closed  bool
}

// wire is one connection: two sockets.
type wire struct {
	way         // of who dialled
	near, far   net.Conn
	gone        chan struct{}
	disconnects sync.Once
}

func (w *wire) close() {
	w.disconnects.Do(func() {
		close(w.gone)
		w.near.Close()
		w.far.Close()
	})
}

func newNetwork(t *testing.T, targets []string, pidOf func(int) int) *network {
	t.Helper()
	n := &network{
		t: t, nodes: len(targets), targets: targets, pidOf: pidOf,
		ways: map[way]condition{}, changed: make(chan struct{}), wires: map[*wire]bool{},
	}
	for to := range targets {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.fronts = append(n.fronts, l)
		n.running.Go(func() { n.serve(to, l) })
	}
	t.Cleanup(n.close)
	return n
}

// clients is the place of all clients.
func (n *network) clients() int { return n.nodes }

// addresses are where the nodes are reached.
func (n *network) addresses() (list []string) {
	for _, l := range n.fronts {
		list = append(list, l.Addr().String())
	}
	return list
}

func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	for w := range n.wires {
		w.close()
	}
	n.mu.Unlock()
	for _, l := range n.fronts {
		l.Close()
	}
	n.running.Wait()
}

// set puts ways into a condition; those that are cut lose their connections.
func (n *network) set(c condition, ways ...way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range ways {
		n.ways[w] = c
	}
	close(n.changed)
	n.changed = make(chan struct{})
	if c == cut {
		n.reset(ways)
	}
}

// drop resets the connections of ways, which stay as they are.
func (n *network) drop(ways ...way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reset(ways)
}

func (n *network) reset(ways []way) {
	for _, w := range ways {
		for c := range n.wires {
			if c.way == w || c.way == (way{w.to, w.from}) {
				c.close()
			}
		}
	}
}

// between are the ways between one place and the other nodes, and back.
func (n *network) between(place int) (ways []way) {
	for other := range n.nodes {
		if other != place {
			ways = append(ways, way{place, other}, way{other, place})
		}
	}
	return ways
}

func (n *network) serve(to int, l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		n.running.Go(func() { n.connect(to, near) })
	}
}

// connect carries one connection until it ends.
func (n *network) connect(to int, near net.Conn) {
	far, err := net.Dial("tcp", n.targets[to])
	if err != nil {
		near.Close()
		return
	}
	w := &wire{way: way{n.whoDials(near), to}, near: near, far: far, gone: make(chan struct{})}
	defer w.close()
	if !n.add(w) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { n.carry(w, w.way, near, far) })
	both.Go(func() { n.carry(w, way{w.to, w.from}, far, near) })
	both.Wait()
	n.mu.Lock()
	delete(n.wires, w)
	n.mu.Unlock()
}

func (n *network) add(w *wire) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.ways[w.way] == cut || n.ways[way{w.to, w.from}] == cut {
		return false
	}
	n.wires[w] = true
	return true
}

// carry moves bytes one way, in the condition of that way.
func (n *network) carry(w *wire, of way, from, to net.Conn) {
	defer w.close()
	piece := make([]byte, pieceBytes)
	for {
		size, err := from.Read(piece)
		if err != nil || !n.pass(w, of) {
			return
		}
		if _, err := to.Write(piece[:size]); err != nil {
			return
		}
	}
}

// pass waits until a piece may go on. It reports false when its connection ended.
func (n *network) pass(w *wire, of way) bool {
	for {
		n.mu.Lock()
		condition, changed := n.ways[of], n.changed
		n.mu.Unlock()
		switch condition {
		case fair:
			return true
		case cut:
			return false
		case slow:
			select {
			case <-w.gone:
				return false
			case <-time.After(lateness):
				return true
			}
		case held:
			select {
			case <-w.gone:
				return false
			case <-changed:
			}
		}
	}
}

// whoDials is the node whose process holds the other end of a connection, or the
// clients.
func (n *network) whoDials(near net.Conn) int {
	inode := inodeOf(near.RemoteAddr().(*net.TCPAddr).Port, near.LocalAddr().(*net.TCPAddr).Port)
	if inode == "" {
		return n.clients()
	}
	for node := range n.nodes {
		pid := n.pidOf(node)
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, f := range files {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name()))
			if link == "socket:["+inode+"]" {
				return node
			}
		}
	}
	return n.clients()
}

// inodeOf names the loopback socket with these ports of its own and of its peer.
func inodeOf(own, peer int) string {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer f.Close()
	ends := [2]string{fmt.Sprintf("0100007F:%04X", own), fmt.Sprintf("0100007F:%04X", peer)}
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 9 && fields[1] == ends[0] && fields[2] == ends[1] {
			return fields[9]
		}
	}
	return ""
}
