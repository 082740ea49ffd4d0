//go:build linux

package main

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"keyval/sim"
	"keyval/storeactor/disktest"
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
		mains.cut()
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
	t.Logf("judged against %d versions of %d keys", len(past.found), len(past.hints))
}

// mains is what the nodes get their power from.
type mains struct {
	*processes
	volumes           []*disktest.Volume
	random            *rand.Rand
	cuts, single, all int
}

// cut cuts the power of one node, half of the time the leader, or of all; each
// counts. After a while in the dark they start again.
func (m *mains) cut() {
	m.t.Helper()
	hit := []int{m.random.IntN(len(m.volumes))}
	switch m.random.IntN(4) {
	case 0:
		hit, m.all = m.random.Perm(len(m.volumes)), m.all+1
	case 1, 2:
		hit[0] = m.leader()
		fallthrough
	default:
		m.single++
	}
	time.Sleep(time.Duration(m.random.Int64N(int64(300 * time.Millisecond))))
	for _, i := range hit {
		select {
		case <-m.running[i].ended:
			m.t.Fatalf("n%d ended by itself: %v\n%s", i+1, m.running[i].err, &m.running[i].log)
		default:
			m.volumes[i].Cut()
		}
	}
	for _, i := range hit {
		m.unplug(i)
		m.volumes[i].Restore()
		m.cuts++
	}
	time.Sleep(time.Duration(m.random.Int64N(int64(time.Second))))
	for _, i := range hit {
		m.start(i)
	}
}

// unplug ends a node whose power was cut. It may have ended by itself meanwhile.
func (p *processes) unplug(i int) {
	c := p.running[i]
	c.Process.Kill()
	<-c.ended
	p.set(i, nil)
}
