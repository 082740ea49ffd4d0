//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyval/actors/client"
	"keyval/storeactor/disk/disktest"
)

// The disk of a follower, of the leader, of all three nodes of a cluster under load first
// runs low, then is full to the last byte; the nodes on it are started anew meanwhile, and
// later there is room again. The cluster gives the alarm, reads go on, and so do writes where a
// majority has room; no node crashes, and nothing that was acknowledged is lost.
func TestFullDisk(t *testing.T) {
	if os.Getenv(exhaustionEnv) == "" {
		t.Skipf("%s is not set", exhaustionEnv)
	}
	for _, whose := range []string{"a follower", "the leader", "all"} {
		t.Run(whose, func(t *testing.T) {
			p := newCluster(t, freeAddresses(t, 3))
			p.endpoints = p.listens
			p.tuning = slices.Concat(p.tuning, []string{"--room", "200MiB"})
			f := &fullDisk{exhaustion: &exhaustion{processes: p}}
			for i := range p.listens {
				f.mount(i, disktest.Small{Bytes: 1200 << 20})
			}
			t.Cleanup(func() { // before the volumes go
				for i := range f.running {
					f.stop(i)
				}
			})
			p.found()
			leader := p.leader()
			switch whose {
			case "a follower":
				f.hit = []int{(leader + 1) % 3}
			case "the leader":
				f.hit = []int{leader}
			default:
				f.hit = []int{0, 1, 2}
			}
			f.play()
			f.recover()
		})
	}
}

type fullDisk struct {
	*exhaustion
	ballast []string
}

func (f *fullDisk) play() {
	t := f.t
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for id := range 4 {
		clients.Go(func() { f.write(ctx) })
		if id < len(f.listens) {
			clients.Go(func() { f.read(ctx, f.listens[id]) })
		}
	}
	reach(t, &f.count, 200, 30*time.Second)

	began := time.Now()
	for _, i := range f.hit {
		f.leave(i, 120<<20)
	}
	f.until("the alarm is given", func() bool {
		return !slices.ContainsFunc(f.hit, func(i int) bool { s := f.status(i); return s == nil || s.Lacks == "" })
	})
	all := len(f.hit) == 3
	if all {
		f.until("writes are refused", func() bool { s := f.status(0); return s != nil && s.WritesRefused != "" })
	} else {
		f.until("who has room leads", func() bool { s := f.status(f.hit[0]); return s != nil && s.Role != "leader" })
		reach(t, &f.count, 100, 30*time.Second)
	}
	t.Logf("the alarm was given and heeded within %.1f s", time.Since(began).Seconds())
	health, _, _ := f.kvctl("cluster", "health", "--timeout", "5s")
	if want := fmt.Sprintf("n%d has too little room", f.hit[0]+1); !strings.Contains(health, want) {
		t.Errorf("health does not say %q: %s", want, health)
	}
	f.readable()

	for _, i := range f.hit {
		f.leave(i, 0)
	}
	time.Sleep(5 * time.Second) // of load on a full disk
	if !all {                   // else nobody may be able to go on
		reach(t, &f.count, 100, 30*time.Second)
	}
	for range 2 { // as a supervisor does
		for _, i := range f.hit {
			t.Logf("n%d, started on a full disk: %s", i+1, f.restart(i))
		}
	}
	if !all {
		reach(t, &f.count, 100, 30*time.Second)
	}

	began = time.Now()
	for _, path := range f.ballast {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for i := range f.running {
		if c := f.running[i]; c == nil || ended(c) {
			f.set(i, nil)
			f.start(i)
		}
	}
	f.until("no alarm is left", func() bool {
		for i := range f.listens {
			if s := f.status(i); s == nil || s.Lacks != "" || s.WritesRefused != "" || s.Leader.GetRaftId() == 0 {
				return false
			}
		}
		return true
	})
	reach(t, &f.count, 100, 30*time.Second)
	t.Logf("with room again writes went on within %.1f s; %d writes were acknowledged in all", time.Since(began).Seconds(), f.count.Load())
}

// leave fills the disk of a node up to so many bytes.
func (f *fullDisk) leave(i int, left int64) {
	f.t.Helper()
	volume := f.data(i) + "-volume"
	for try := 0; ; try++ {
		var room unix.Statfs_t
		if err := unix.Statfs(volume, &room); err != nil {
			f.t.Fatal(err)
		}
		take := int64(room.Bavail)*room.Bsize - left
		if take < room.Bsize || try == 20 {
			return
		}
		path := fmt.Sprintf("%s/full-%d", volume, len(f.ballast))
		f.ballast = append(f.ballast, path)
		file, err := os.Create(path)
		if err == nil {
			err = unix.Fallocate(int(file.Fd()), 0, 0, take)
			for errors.Is(err, unix.ENOSPC) && take > room.Bsize { // the node takes some too
				take /= 2
				err = unix.Fallocate(int(file.Fd()), 0, 0, take)
			}
			file.Close()
		}
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			f.t.Fatal(err)
		}
	}
}

// readable reads what was acknowledged through a node that runs.
func (f *fullDisk) readable() {
	f.t.Helper()
	c, err := client.Connect(context.Background(), client.Options{Endpoints: f.endpoints})
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	read := 0
	f.acknowledged.Range(func(number, revision any) bool {
		got, err := c.Get(context.Background(), exhaustedKey(number.(int64)))
		if err != nil || got.Revision != revision {
			f.t.Errorf("key %d of revision %d is read at %d: %v", number, revision, got.Revision, err)
		}
		read++
		return read < 100 && !f.t.Failed()
	})
}

// restart starts a node anew, which may not be able to for want of room: then it says so.
func (f *fullDisk) restart(i int) string {
	f.t.Helper()
	before := f.stop(i)
	f.start(i)
	c := f.running[i]
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if s := f.status(i); s != nil && s.Applied > 0 {
			return "it serves" + f.sound(before)
		}
		if ended(c) {
			f.set(i, nil)
			_, said, _ := strings.Cut(c.log.String(), "kvctl: ")
			if !strings.Contains(said, "a start takes 64 MB") || strings.Contains(said, "no space left") {
				f.t.Errorf("n%d does not say that it needs room: %s", i+1, &c.log)
			}
			return "it ends: " + strings.TrimSpace(said) + f.sound(before+c.log.String())
		}
	}
	f.t.Errorf("n%d neither serves nor ends: %s", i+1, &c.log)
	return ""
}

// sound looks for signs of a crash in what a node said.
func (f *fullDisk) sound(said string) string {
	for _, sign := range []string{"panic:", "fault", "goroutine ", "damaged"} {
		if strings.Contains(said, sign) {
			f.t.Errorf("a node said %q:\n%s", sign, said)
		}
	}
	return ""
}

func ended(c *process) bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func (f *fullDisk) until(what string, done func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within 40 s: %s", what)
		}
	}
}
