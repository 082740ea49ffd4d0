package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// way is how etcd's clients reach its nodes.
type way struct {
	Connections int  `json:"connections"`
	Spread      bool `json:"spread"` // over all nodes; otherwise the leader serves all
}

func (w way) String() string {
	if w.Spread {
		return fmt.Sprintf("%d connections to all nodes", w.Connections)
	}
	return fmt.Sprintf("%d connections to the leader", w.Connections)
}

// choice is the way that served etcd best under one load, and what each way gave.
type choice struct {
	Op      string         `json:"op"`
	Clients int            `json:"clients"`
	Way     way            `json:"way"`
	Tried   map[string]int `json:"operations_per_second,omitempty"`
}

// ways are those worth a trial. KeyVal's client needs none: there is one way.
func ways(clients int) []way {
	if clients == 1 {
		return []way{{1, false}}
	}
	var all []way
	for _, w := range []way{{1, false}, {4, false}, {16, false}, {3, true}, {15, true}} {
		if w.Connections <= clients {
			all = append(all, w)
		}
	}
	return all
}

// trialTime is how long each way is tried, after half of it for warming up, and
// trialKeys how many keys there are then at most: they are all written before.
const (
	trialTime = 2 * time.Second
	trialKeys = 10_000
)

// chooseWay tries etcd's ways under a load, each on a fresh cluster, unless the
// settings name one.
func chooseWay(ctx context.Context, s settings, work string, sys system, op string, clients int) (choice, error) {
	c := choice{Op: op, Clients: clients}
	if s.EtcdConnections > 0 {
		c.Way = way{s.EtcdConnections, s.EtcdSpread}
		return c, nil
	}
	all := ways(clients)
	if c.Way = all[0]; len(all) == 1 {
		return c, nil
	}
	c.Tried = map[string]int{}
	best := 0.0
	s.Duration, s.Warmup, s.Keys = trialTime, trialTime/2, min(s.Keys, trialKeys)
	for _, w := range all {
		m, err := measure(ctx, s, work, sys, op, clients, w)
		if err != nil {
			return c, err
		}
		c.Tried[w.String()] = int(m.PerSecond)
		if m.PerSecond > best {
			best, c.Way = m.PerSecond, w
		}
	}
	fmt.Fprintf(os.Stderr, "etcd, %s, %d clients: %v serve it best: %v\n", op, clients, c.Way, c.Tried)
	return c, nil
}
