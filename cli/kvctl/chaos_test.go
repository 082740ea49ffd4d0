//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/messages"
	"keyval/sim"
)

// How long, with which seed and with which faults TestChaos runs.
const (
	chaosEnv       = "KEYVAL_CHAOS"        // a duration; 12 s of faults if it is not set
	chaosSeedEnv   = "KEYVAL_CHAOS_SEED"   // a number; by chance if it is not set
	chaosFaultsEnv = "KEYVAL_CHAOS_FAULTS" // kinds, with commas; or kill-5s: kill -9 every 5 s and nothing else
)

// sampledKeys is how many hot keys porcupine judges.
const sampledKeys = 40

// Three processes, 64 writers, and everything that can happen to processes and
// networks: what clients saw is linearizable, nothing that was acknowledged is
// lost, nothing happens twice, and the nodes end as one.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes its time")
	}
	last, seed, kinds := chaosSettings(t)
	t.Logf("%s=%v %s=%d %s=%s", chaosEnv, last, chaosSeedEnv, seed, chaosFaultsEnv, strings.Join(kinds, ","))
	p := newCluster(t, freeAddresses(t, 3))
	net := newNetwork(t, p.listens, p.pid)
	p.endpoints = net.addresses()
	p.found()
	p.leader()

	w := startWorkload(t, seed, p.endpoints)
	n := &nemesis{processes: p, net: net, random: rand.New(rand.NewPCG(seed, 0)), kinds: kinds, done: map[string]int{}, lap: w.lap}
	w.reach(200)
	if until := time.Now().Add(last); kinds[0] == "kill-5s" {
		n.killEvery(5*time.Second, until)
	} else {
		n.rage(until, min(5*time.Second, max(time.Second, last/8)))
	}
	w.reach(500)
	w.lap() // before the writers end, one after the other
	record, worked := w.end(), w.now()

	newest := p.converge()
	began := time.Now()
	past := readPast(t, p.each(), newest, record)
	read := time.Since(began)
	violations := sim.JudgeRecord(record, past.found, newest, sampleOf(record))
	for _, v := range violations {
		t.Error(v)
	}
	t.Logf("faults: %s", n.deeds())
	t.Logf("operations: %s; in %v", tally(record, past.found), worked.Round(time.Second))
	t.Logf("the longest time without an acknowledged write: %v", w.longestGap.Round(time.Millisecond))
	t.Logf("judged against %d versions of %d keys, found by %d reads of the past in %v; judged in %v",
		len(past.found), len(past.hints), past.reads, read.Round(time.Millisecond), (time.Since(began) - read).Round(time.Millisecond))
}

func chaosSettings(t *testing.T) (last time.Duration, seed uint64, kinds []string) {
	t.Helper()
	last, seed, kinds = 12*time.Second, rand.Uint64N(1_000_000), faultKinds
	var err error
	if s := os.Getenv(chaosEnv); s != "" {
		if last, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv(chaosSeedEnv); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv(chaosFaultsEnv); s != "" {
		kinds = strings.Split(s, ",")
	}
	for _, k := range kinds {
		if !slices.Contains(faultKinds, k) && (k != "kill-5s" || len(kinds) > 1) {
			t.Fatalf("%s: there is no fault %q; there are %v, and kill-5s alone", chaosFaultsEnv, k, faultKinds)
		}
	}
	return last, seed, kinds
}

// pid is that of node i, 0 if it does not run.
func (p *processes) pid(i int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.running[i]; c != nil {
		return c.Process.Pid
	}
	return 0
}

// each connects to every node alone, without what stands between.
func (p *processes) each() (clients []*client.Client) {
	p.t.Helper()
	for _, e := range p.listens {
		clients = append(clients, p.connect(e))
	}
	return clients
}

// sampleOf are hot keys of all times of a record.
func sampleOf(record []sim.Recorded) []string {
	var keys []string
	seen := map[string]bool{}
	for _, r := range record {
		if strings.HasPrefix(r.Key, "hot/") && !seen[r.Key] {
			seen[r.Key] = true
			keys = append(keys, r.Key)
		}
	}
	slices.Sort(keys)
	if len(keys) <= sampledKeys {
		return keys
	}
	var sample []string
	for i := range sampledKeys {
		sample = append(sample, keys[i*len(keys)/sampledKeys])
	}
	return sample
}

// tally counts operations by what became of them.
func tally(record []sim.Recorded, past []sim.Version) string {
	written := map[string]bool{}
	for _, v := range past {
		written[v.Value] = !v.Deleted
	}
	writes, reads, unknown, happened, refused := 0, 0, 0, 0, 0
	var slowest time.Duration
	for _, r := range record {
		isWrite := r.Kind == sim.RecordedPut || r.Kind == sim.RecordedDelete
		switch {
		case r.Code == messages.Code_OUTCOME_UNKNOWN:
			unknown++
			if r.Kind == sim.RecordedPut && written[r.Value] {
				happened++
			}
		case isWrite && r.Code == messages.Code_OK:
			writes++
			slowest = max(slowest, r.Ended-r.Began)
		case isWrite:
			refused++
		case r.Code == messages.Code_OK || r.Code == messages.Code_NOT_FOUND:
			reads++
		}
	}
	return fmt.Sprintf("%d: %d writes acknowledged, the slowest after %v, %d of unknown outcome (of the puts among them %d happened), %d that surely did not happen; %d reads answered",
		len(record), writes, slowest.Round(time.Millisecond), unknown, happened, refused, reads)
}
