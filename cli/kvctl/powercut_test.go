//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"keyval/sim"
	"keyval/storeactor/disk/disktest"
)

// How many power cuts TestPowerCuts makes, and with which seed. It takes root.
const (
	powerCutsEnv = "KEYVAL_POWERCUTS"
	powerSeedEnv = "KEYVAL_POWERCUTS_SEED" // by chance if it is not set
)

// Three processes, each on a file system of its own whose power is cut, one at a
// time or all at one moment, under 64 writers: what clients saw is linearizable,
// nothing that was acknowledged is lost, and the nodes end as one.
func TestPowerCuts(t *testing.T) {
	cuts, _ := strconv.Atoi(os.Getenv(powerCutsEnv))
	if cuts == 0 {
		t.Skipf("%s is not set", powerCutsEnv)
	}
	seed := rand.Uint64N(1_000_000)
	if s, err := strconv.ParseUint(os.Getenv(powerSeedEnv), 10, 64); err == nil {
		seed = s
	}
	t.Logf("%s=%d %s=%d", powerCutsEnv, cuts, powerSeedEnv, seed)
	t.Setenv("KVCTL_HISTORY_REVISIONS", "0") // all of the past is judged
	t.Setenv("KVCTL_HISTORY_TIME", "0")
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints = p.listens
	mains := &mains{processes: p, random: rand.New(rand.NewPCG(seed, 1))}
	for i := range p.listens {
		mains.volumes = append(mains.volumes, disktest.NewVolume(t, p.data(i), seed+uint64(i)))
		t.Cleanup(func() { p.kill(i) }) // before the volume goes
	}
	p.found()
	p.leader()

	w := startWorkload(t, seed, p.endpoints)
	w.reach(200)
	for mains.cuts < cuts {
		mains.cut(w)
		w.reach(200)
	}
	w.lap()
	record := w.end()

	newest := p.converge()
	past := readPast(t, p.each(), newest, record)
	for _, v := range sim.JudgeRecord(record, past.found, newest, sampleOf(record)) {
		t.Error(v)
	}
	t.Logf("%d power cuts: %d of one node, %d of all at once; the longest time without an acknowledged write: %v", mains.cuts, mains.single, mains.all, w.longestGap.Round(time.Millisecond))
	t.Logf("operations: %s", tally(record, past.found))
	t.Logf("judged against %d versions of %d keys; %d snapshots were installed", len(past.found), len(past.hints), mains.installed())
}

// mains is what the nodes get their power from.
type mains struct {
	*processes
	volumes           []*disktest.Volume
	random            *rand.Rand
	cuts, single, all int
}

// cut cuts the power of one node, half of the time the leader, or of all; each
// counts. After a while in the dark they start again. One alone may find then that
// the log was cut beyond what it has, and that its power fails once more soon.
func (m *mains) cut(w *workload) {
	m.t.Helper()
	hit := []int{m.random.IntN(len(m.volumes))}
	kind := m.random.IntN(8)
	switch {
	case kind < 2:
		hit, m.all = m.random.Perm(len(m.volumes)), m.all+1
	case kind < 5:
		hit[0] = m.leader()
		fallthrough
	default:
		m.single++
	}
	m.wait(300 * time.Millisecond)
	m.dark(hit)
	if len(hit) == 1 && m.random.IntN(2) == 0 {
		w.reach(300)
		m.cutLogs()
	} else {
		m.wait(time.Second)
	}
	m.light(hit)
	if len(hit) == 1 && m.random.IntN(3) == 0 {
		m.wait(600 * time.Millisecond) // in the midst of its start, or of a snapshot
		m.dark(hit)
		m.light(hit)
	}
}

func (m *mains) wait(most time.Duration) {
	time.Sleep(time.Duration(m.random.Int64N(int64(most))))
}

// dark cuts the power of nodes at one moment.
func (m *mains) dark(hit []int) {
	m.t.Helper()
	for _, i := range hit {
		select {
		case <-m.running[i].ended:
			m.t.Fatalf("n%d ended by itself: %v\n%s", i+1, m.running[i].err, &m.running[i].log)
		default:
			m.volumes[i].Cut()
		}
	}
	for _, i := range hit { // it may end by itself now
		m.running[i].Process.Kill()
		<-m.running[i].ended
		m.set(i, nil)
		m.cuts++
	}
}

// light gives nodes their power back and starts them.
func (m *mains) light(hit []int) {
	m.t.Helper()
	for _, i := range hit {
		m.volumes[i].Restore()
		m.start(i)
	}
}

// cutLogs gives up history that nobody asks for, so that logs are cut as far as
// those who are there allow.
func (m *mains) cutLogs() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := m.connect(m.endpoints...)
	defer c.Close()
	if _, err := c.Compact(ctx, 1); err != nil {
		m.t.Errorf("compact: %v", err)
	}
}

// installed counts the snapshots that nodes installed: each made a new generation.
func (m *mains) installed() (n int) {
	m.t.Helper()
	for i := range m.volumes {
		current, err := os.ReadFile(filepath.Join(m.data(i), "CURRENT"))
		var generation int
		if _, scan := fmt.Sscanf(string(current), "generation-%d", &generation); err != nil || scan != nil {
			m.t.Fatalf("n%d: CURRENT is %q: %v", i+1, current, err)
		}
		n += generation - 1
	}
	return n
}
