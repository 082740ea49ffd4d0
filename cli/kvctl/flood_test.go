//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyval/actors/client"
)

// What a flood may cost others. The clients that flood share the test's machine, so the
// bounds are wide: without fair shares a node was at it for minutes.
const (
	floodClients  = 20
	floodAtOnce   = 200                    // requests of one client
	floodTime     = 4 * time.Second        // that it lasts
	floodReadMax  = 3 * time.Second        // a read of somebody else meanwhile
	floodWriteMax = 6 * time.Second        // a write of somebody else meanwhile
	floodAfterMax = time.Second            // a read, once the clients are gone for a while
	floodCPUMax   = 500 * time.Millisecond // of the node then, within a second
)

// TestFloodOfScans: clients that scan without a pause hold up others little, and what they
// asked for ends with them.
func TestFloodOfScans(t *testing.T) {
	p := startCluster(t, 1)
	other := p.connect(p.endpoints...)
	load := &loader{t: t, client: other, size: 1 << 10}
	load.fill(0, 4000, "v")
	read := func() time.Duration {
		began := time.Now()
		if _, err := other.Get(context.Background(), []byte("load/00000007")); err != nil {
			t.Errorf("a read: %v", err)
		}
		return time.Since(began)
	}
	end := p.flood(func(ctx context.Context, c *client.Client) error {
		for _, err := range c.Scan(ctx, nil, nil, client.ScanOptions{PageSize: 1000}) {
			return err
		}
		return nil
	})
	worst := time.Duration(0)
	for until := time.Now().Add(floodTime); time.Now().Before(until); {
		worst = max(worst, read())
	}
	end()
	time.Sleep(2 * time.Second)
	before := p.cpu(0)
	time.Sleep(time.Second)
	cpu, after := p.cpu(0)-before, read()
	t.Logf("a read took up to %v meanwhile, %v after; then the node took %v of CPU in a second", worst, after, cpu)
	if worst > floodReadMax || after > floodAfterMax || cpu > floodCPUMax {
		t.Errorf("allowed are %v, %v, %v", floodReadMax, floodAfterMax, floodCPUMax)
	}
}

// TestFloodOfLargeWrites: clients that write what is large hold up small writes little.
func TestFloodOfLargeWrites(t *testing.T) {
	p := startCluster(t, 1)
	other := p.connect(p.endpoints...)
	value := make([]byte, 400<<10)
	end := p.flood(func(ctx context.Context, c *client.Client) error {
		_, err := c.Put(ctx, []byte("large"), value)
		return err
	})
	worst, count := time.Duration(0), 0
	for until := time.Now().Add(floodTime); time.Now().Before(until); count++ {
		began := time.Now()
		if _, err := other.Put(context.Background(), []byte("small"), []byte("v")); err != nil {
			t.Errorf("a write: %v", err)
		}
		worst = max(worst, time.Since(began))
	}
	v := p.vitals(0)
	end()
	t.Logf("%d small writes took up to %v; the node had %d MiB at most", count, worst, v.peak>>10)
	if worst > floodWriteMax {
		t.Errorf("allowed are %v", floodWriteMax)
	}
}

// ownMemoryMax is what a node may have in memory of its own, in bytes, whatever is written.
const ownMemoryMax = 600 << 20

// TestMemoryOfLargeValues: what waits in a node has bounds, and tables are not made in memory.
func TestMemoryOfLargeValues(t *testing.T) {
	for name, key := range map[string]func(i int) []byte{
		"of one key":   func(int) []byte { return []byte("large") }, // all its versions are one table
		"of many keys": func(i int) []byte { return fmt.Appendf(nil, "large%d", i) },
	} {
		t.Run(name, func(t *testing.T) {
			p := startCluster(t, 1)
			memory := p.watchMemory()
			c, value := p.connect(p.endpoints...), make([]byte, 500<<10)
			var done sync.WaitGroup
			for writer := range 16 {
				done.Go(func() {
					for i := range 70 {
						if _, err := c.Put(context.Background(), key(100*writer+i), value); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			done.Wait()
			memory.end()
			most := memory.most[0].own
			t.Logf("at most %d MB", most/1e6)
			if most > ownMemoryMax {
				t.Errorf("the node took %d bytes, %d are allowed", most, ownMemoryMax)
			}
		})
	}
}

// flood has clients do something all the time, until end is called.
func (p *processes) flood(what func(context.Context, *client.Client) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for range floodClients {
		c := p.connect(p.endpoints...)
		for range floodAtOnce {
			done.Go(func() {
				for ctx.Err() == nil {
					if what(ctx, c) != nil {
						select { // it was told to come later
						case <-ctx.Done():
						case <-time.After(10 * time.Millisecond):
						}
					}
				}
				c.Close()
			})
		}
	}
	return func() {
		cancel()
		done.Wait()
	}
}

// cpu is what node i has taken, in all.
func (p *processes) cpu(i int) time.Duration {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid(i)))
	if err != nil {
		p.t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	ticks := 0
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			p.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
