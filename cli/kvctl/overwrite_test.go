//go:build linux

package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
)

// overwritesEnv is how many writes TestOverwrites makes. It is not run without.
const overwritesEnv = "KEYVAL_OVERWRITES"

const (
	overwrittenKeys  = 1000
	overwrittenBytes = 256 // of a value
)

// A thousand keys are written over and over: what a node's directory takes stays
// bounded, and so does what a node has to do when it starts after kill -9.
func TestOverwrites(t *testing.T) {
	writes, _ := strconv.ParseInt(os.Getenv(overwritesEnv), 10, 64)
	if writes <= 0 {
		t.Skipf("%s=1000000 is not set", overwritesEnv)
	}
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.tuning = p.listens, nil // what a user has who says nothing
	p.found()
	p.leader()

	var done atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	clients := make([]*client.Client, 8)
	for i := range clients {
		clients[i] = p.connect(p.endpoints...)
	}
	for id := range 256 {
		c := clients[id%len(clients)]
		random := rand.New(rand.NewPCG(1, uint64(id)))
		all.Go(func() {
			value := make([]byte, overwrittenBytes)
			for done.Add(1) <= writes && !t.Failed() {
				for i := range value {
					value[i] = byte(random.Uint32())
				}
				key := fmt.Appendf(nil, "over/%04d", random.IntN(overwrittenKeys))
				if _, err := c.Put(context.Background(), key, value); err != nil {
					t.Error(err)
				}
			}
		})
	}
	most := p.watchSizes(&done, writes, began)
	all.Wait()
	took := time.Since(began)
	t.Logf("%d writes in %v, %.0f/s; the largest directory took %d MB, of which the newest values are %.1f MB",
		writes, took.Round(time.Second), float64(writes)/took.Seconds(), most>>20, overwrittenKeys*overwrittenBytes/1e6)

	for i := range p.running {
		p.kill(i)
	}
	began = time.Now()
	for i := range p.running {
		p.start(i)
	}
	if _, err := p.connect(p.endpoints...).Get(context.Background(), []byte("over/0000")); err != nil {
		t.Error(err)
	}
	t.Logf("all nodes were killed and started: the first linearizable read was answered after %v", time.Since(began).Round(time.Millisecond))
	p.converge()
	if out, said, code := p.kvctl("verify"); code != 0 {
		t.Errorf("verify ends with %d: %s%s", code, out, said)
	}
	if _, said, code := p.kvctl("compact", "--yes", "--timeout", "1m"); code != 0 {
		t.Errorf("compact ends with %d: %s", code, said)
	}
	t.Logf("after kvctl compact: %s", p.sizes())
}

// watchSizes tells how large the directories are until all is written, and returns
// the most that one of them took.
func (p *processes) watchSizes(done *atomic.Int64, writes int64, began time.Time) (most int64) {
	p.t.Helper()
	const every = 5 * time.Second
	told := time.Now()
	for done.Load() < writes && !p.t.Failed() {
		time.Sleep(200 * time.Millisecond)
		for i := range p.listens {
			most = max(most, diskUse(p.data(i)))
		}
		if time.Since(told) >= every {
			told = time.Now()
			p.t.Logf("%3.0f s, %7d writes: %s", time.Since(began).Seconds(), done.Load(), p.sizes())
		}
	}
	return most
}

// sizes are what the nodes' directories take: in all, and their parts.
func (p *processes) sizes() string {
	var nodes []string
	for i := range p.listens {
		log, state := int64(0), int64(0)
		generations, _ := filepath.Glob(filepath.Join(p.data(i), "generation-*"))
		for _, g := range generations {
			log += diskUse(filepath.Join(g, "wal"))
			state += diskUse(filepath.Join(g, "state"))
		}
		nodes = append(nodes, fmt.Sprintf("n%d %d MB (log %d, state %d)", i+1, diskUse(p.data(i))>>20, log>>20, state>>20))
	}
	return strings.Join(nodes, ", ")
}

// diskUse is what the files below a directory take on the disk, in bytes. Files come
// and go meanwhile.
func diskUse(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes
}
