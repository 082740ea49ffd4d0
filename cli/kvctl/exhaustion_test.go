//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyval/actors/client"
	"keyval/messages"
	"keyval/storeactor/disk/disktest"
)

// exhaustionEnv asks for TestExhaustion. It takes root.
const exhaustionEnv = "KEYVAL_EXHAUSTION"

// Three processes whose disks run out of files, of room or of life, or that run out of
// descriptors, all of them or one, while clients write and read. Whoever cannot go on
// says why and ends; nobody serves a wrong value meanwhile; and with room again every
// acknowledged write is there on every node.
func TestExhaustion(t *testing.T) {
	if os.Getenv(exhaustionEnv) == "" {
		t.Skipf("%s is not set", exhaustionEnv)
	}
	small := map[string]disktest.Small{
		"files":  {Bytes: 2 << 30, Files: 60},
		"room":   {Bytes: 600 << 20},
		"medium": {Bytes: 2 << 30, Medium: 600 << 20}, // I/O errors from there on
	}
	for _, run := range []struct {
		of  string
		all bool
	}{
		{"files", true}, {"files", false}, {"room", true}, {"room", false}, {"medium", true}, {"medium", false}, {"descriptors", false},
	} {
		name := "one node runs out of " + run.of
		if run.all {
			name = "all run out of " + run.of
		}
		t.Run(name, func(t *testing.T) {
			p := newCluster(t, freeAddresses(t, 3))
			p.endpoints = p.listens
			p.tuning = slices.Concat(p.tuning, []string{"--room", "0"}) // what is tried here is what happens without
			x := &exhaustion{processes: p, hit: []int{0}}
			if run.all {
				x.hit = []int{0, 1, 2}
			}
			if run.of != "descriptors" {
				for _, i := range x.hit {
					x.mount(i, small[run.of])
				}
			}
			t.Cleanup(func() { // before the volumes go
				for i := range x.running {
					x.stop(i)
				}
			})
			p.found()
			p.leader()
			x.run(run.of == "descriptors")
			x.recover()
		})
	}
}

// exhaustion is a cluster of which some nodes run out of something.
type exhaustion struct {
	*processes
	hit     []int // those nodes
	volumes []*disktest.SmallVolume

	acknowledged sync.Map // number of a key -> revision
	begun        atomic.Int64
	count        atomic.Int64
}

// How long to write at most, and how many keys, of 32 kB on average.
const (
	exhaustionSpan = 2 * time.Minute
	exhaustionKeys = 30_000
)

func exhaustedKey(number int64) []byte {
	return fmt.Appendf(nil, "%016x", uint64(number)*0x9e3779b97f4a7c15) // in no order
}

func exhaustedValue(number int64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%08d", number), 3000+int(number*37%2000))
}

// mount puts the directory of a node on a volume.
func (x *exhaustion) mount(i int, small disktest.Small) {
	x.t.Helper()
	mount := x.data(i) + "-volume"
	x.volumes = append(x.volumes, disktest.NewSmallVolume(x.t, mount, small))
	data := filepath.Join(mount, "data")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Symlink(data, x.data(i))); err != nil {
		x.t.Fatal(err)
	}
}

// run writes until those that are hit have ended by themselves, or a majority has.
func (x *exhaustion) run(descriptors bool) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), exhaustionSpan)
	defer cancel()
	var clients sync.WaitGroup
	for id := range 24 {
		clients.Go(func() { x.write(ctx) })
		if id < len(x.listens)*2 {
			clients.Go(func() { x.read(ctx, x.listens[id%len(x.listens)]) })
		}
	}
	if descriptors {
		for x.count.Load() < 3000 && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		x.leaveDescriptors(x.hit[0], 6)
	}
	ended := 0
	for goal := min(len(x.hit), 2); ended < goal && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) { // one alone writes nothing more
		ended = 0
		for _, i := range x.hit {
			select {
			case <-x.running[i].ended:
				ended++
			default:
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		x.t.Errorf("after %v and %d writes only %d nodes have ended", exhaustionSpan, x.count.Load(), ended)
	case len(x.hit) == 1: // the others go on
		goal := x.count.Load() + 50 // more than were under way
		for x.count.Load() < goal && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		if ctx.Err() != nil {
			x.t.Error("two nodes acknowledge nothing")
		}
	}
	cancel()
	clients.Wait()
	for _, i := range x.hit {
		said := x.stop(i)
		for _, sign := range []string{"panic:", "fault", "goroutine ", "damaged"} {
			if strings.Contains(said, sign) {
				x.t.Errorf("n%d ended with %q", i+1, sign)
			}
		}
		if _, last, ended := strings.Cut(said, "kvctl: "); ended {
			x.t.Logf("n%d: %s", i+1, last)
		}
	}
	x.t.Logf("%d of %d writes were acknowledged", x.count.Load(), x.begun.Load())
}

func (x *exhaustion) write(ctx context.Context) {
	c, err := client.Connect(ctx, client.Options{Endpoints: x.endpoints})
	if err != nil {
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		number := x.begun.Add(1)
		if number > exhaustionKeys {
			return
		}
		r, err := c.Put(ctx, exhaustedKey(number), exhaustedValue(number))
		if err == nil {
			x.acknowledged.Store(number, r.Revision)
			x.count.Add(1)
		}
	}
}

// read asks one node for what was acknowledged: it may not answer, but not falsely.
func (x *exhaustion) read(ctx context.Context, endpoint string) {
	c, err := client.Connect(ctx, client.Options{Endpoints: []string{endpoint}, Pinned: true, Timeout: time.Second})
	if err != nil {
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		number := 1 + rand.Int64N(max(1, x.begun.Load()))
		revision, ok := x.acknowledged.Load(number)
		if !ok {
			time.Sleep(time.Millisecond)
			continue
		}
		got, err := c.Get(ctx, exhaustedKey(number))
		switch code := messages.CodeOf(err); {
		case err == nil && got.Revision == revision && bytes.Equal(got.Value, exhaustedValue(number)):
		case err == nil, code == messages.Code_NOT_FOUND:
			x.t.Errorf("%s serves another value of key %d: revision %d, %d was acknowledged: %v", endpoint, number, got.Revision, revision, err)
			return
		}
	}
}

// leaveDescriptors leaves a node so many descriptors beside those it has.
func (x *exhaustion) leaveDescriptors(i int, n uint64) {
	x.t.Helper()
	pid := x.running[i].Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err == nil {
		most := uint64(len(open)) + n
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}, nil)
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

// stop ends a node that may have ended by itself, and returns what it said.
func (x *exhaustion) stop(i int) string {
	c := x.running[i]
	if c == nil {
		return ""
	}
	c.Process.Kill()
	<-c.ended
	x.set(i, nil)
	return c.log.String()
}

// recover makes room, starts all anew, and reads everything back from each node.
func (x *exhaustion) recover() {
	x.t.Helper()
	for i := range x.running {
		x.stop(i)
	}
	for _, v := range x.volumes {
		v.MakeRoom()
	}
	for i := range x.running {
		x.start(i)
	}
	x.leader()
	for i, endpoint := range x.endpoints {
		x.caughtUp(i, time.Minute)
		c := x.connect(endpoint)
		lost, first := 0, ""
		x.acknowledged.Range(func(number, revision any) bool {
			got, err := c.Get(context.Background(), exhaustedKey(number.(int64)))
			if err != nil || got.Revision != revision || !bytes.Equal(got.Value, exhaustedValue(number.(int64))) {
				if lost++; lost == 1 {
					first = fmt.Sprintf("key %d at revision %d, found at %d: %v", number, revision, got.Revision, err)
				}
			}
			return lost < 100 || messages.CodeOf(err) == messages.Code_NOT_FOUND
		})
		if lost > 0 {
			x.t.Errorf("n%d lacks %d of %d acknowledged writes; %s", i+1, lost, x.count.Load(), first)
		}
	}
}
