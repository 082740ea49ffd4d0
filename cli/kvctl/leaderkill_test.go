//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"keyval/actors/client"
)

// TestLeaderKill: the leader is killed, and a client that writes one value after the other
// goes on, mostly well before an election timeout has run out. KEYVAL_LEADERKILLS says how
// often: 30 on a quiet machine tell p50 and worst.
func TestLeaderKill(t *testing.T) {
	const electionTimeout = 500 * time.Millisecond // the shortest that raft draws
	kills := 3
	if said := os.Getenv("KEYVAL_LEADERKILLS"); said != "" {
		var err error
		if kills, err = strconv.Atoi(said); err != nil || kills < 1 {
			t.Fatalf("KEYVAL_LEADERKILLS=%s is no number of kills", said)
		}
	}
	p := startCluster(t, 3)
	p.leader()
	c := p.connect(p.endpoints...)
	var gaps []time.Duration
	for kill := range kills {
		victim := p.leader()
		p.busy(c, 300*time.Millisecond)
		began := time.Now()
		p.kill(victim)
		if _, err := c.Put(context.Background(), []byte("key"), []byte(fmt.Sprint(kill))); err != nil {
			t.Fatal(err)
		}
		gaps = append(gaps, time.Since(began))
		p.start(victim)
		p.follows(victim)
		p.busy(c, 1500*time.Millisecond)
	}
	slices.Sort(gaps)
	t.Logf("%d kills: p50 %v, worst %v; all: %v", kills, gaps[len(gaps)/2], gaps[len(gaps)-1], gaps)
	if half := gaps[len(gaps)/2]; half >= electionTimeout {
		t.Errorf("half of the kills took more than %v: the followers waited", half)
	}
}

// busy writes for a while.
func (p *processes) busy(c *client.Client, d time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := c.Put(context.Background(), []byte("key"), []byte("value")); err != nil {
			p.t.Fatal(err)
		}
	}
}
