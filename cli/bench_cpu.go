package cli

import (
	"net"
	"strconv"
	"time"
)

// localNodes are the nodes of a cluster, and the processes among them that run on
// this machine.
type localNodes struct {
	pids []int
	all  int
}

// localNodes asks every node that is known for its process, and finds those that
// listen here.
func (c *Call) localNodes() localNodes {
	rows, err := c.status()
	if err != nil {
		return localNodes{}
	}
	asked, others := map[string]bool{}, []string{}
	for _, r := range rows {
		asked[r.Endpoint] = true
	}
	for _, r := range rows {
		for _, m := range r.members {
			if !asked[m.Address] {
				asked[m.Address] = true
				others = append(others, m.Address)
			}
		}
	}
	rows = append(rows, askAll(c, c.Shell, others, statusTimeout)...)
	var found localNodes
	seen := map[uint64]bool{}
	for _, r := range rows {
		found.all = max(found.all, len(r.members))
		if r.problem != nil || seen[r.RaftID] {
			continue
		}
		seen[r.RaftID] = true
		if _, port, err := net.SplitHostPort(r.Endpoint); err == nil {
			if n, err := strconv.Atoi(port); err == nil && listens(int(r.PID), n) {
				found.pids = append(found.pids, int(r.PID))
			}
		}
	}
	found.all = max(found.all, len(seen))
	return found
}

// cpuSpent is CPU time, or a reading of it.
type cpuSpent struct {
	client      time.Duration
	clientKnown bool
	nodes       time.Duration
	nodesKnown  int // how many of the nodes are in nodes
	nodesAll    int
	pids        map[int]time.Duration
}

func readCPU(nodes localNodes) cpuSpent {
	r := cpuSpent{pids: map[int]time.Duration{}, nodesAll: nodes.all}
	r.client, r.clientKnown = ownCPU()
	for _, pid := range nodes.pids {
		if spent, ok := processCPU(pid); ok {
			r.pids[pid] = spent
		}
	}
	return r
}

// since is what was spent from one reading to the next. A node that ended on the
// way is not among those that are known.
func (r cpuSpent) since(before cpuSpent) cpuSpent {
	spent := cpuSpent{client: r.client - before.client, clientKnown: r.clientKnown && before.clientKnown, nodesAll: r.nodesAll}
	for pid, now := range r.pids {
		if then, ok := before.pids[pid]; ok && now >= then {
			spent.nodes += now - then
			spent.nodesKnown++
		}
	}
	return spent
}
