//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyval/storeactor/disk/disktest"
)

// Two of three nodes have little room: puts are refused with the reason, reads and deletes go on,
// and with room again puts do too. Nothing that was acknowledged is lost.
func TestRoomRunsLow(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints = p.listens
	p.tuning = slices.Concat(p.tuning, []string{"--room", "200MiB"})
	var ballast []string
	for i := range 2 {
		volume := p.data(i) + "-volume"
		disktest.NewMemoryVolume(t, volume, 1<<30)
		data := filepath.Join(volume, "data")
		if err := errors.Join(os.Mkdir(data, 0o700), os.Symlink(data, p.data(i))); err != nil {
			t.Fatal(err)
		}
		ballast = append(ballast, filepath.Join(volume, "ballast"))
	}
	t.Cleanup(func() { // before the volumes go
		for i := range p.running {
			p.kill(i)
		}
	})
	p.found()
	p.leader()
	run := func(args ...string) (string, int) {
		out, err, code := p.kvctl(append(args, "--timeout", "2s")...)
		return out + err, code
	}
	wait := func(what string, done func() bool) {
		t.Helper()
		for until := time.Now().Add(30 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	for _, key := range []string{"a", "b"} {
		if said, code := run("put", key, "of "+key); code != 0 {
			t.Fatal(said)
		}
	}
	for _, path := range ballast {
		if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 900<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A leader that has just begun to lead hears first who lacks room.
	wait("the one with room leads", func() bool { return p.status(2).Role == "leader" })
	wait("writes are refused", func() bool {
		return p.status(0).WritesRefused != "" && p.status(1).WritesRefused != "" && p.status(2).WritesRefused != ""
	})
	if said, code := run("put", "c", "of c"); code == 0 || !strings.Contains(said, "n1 has ") || !strings.Contains(said, "MB are needed") || !strings.Contains(said, "writes are refused") {
		t.Errorf("put exits with %d: %s", code, said)
	}
	if said, code := run("get", "a"); code != 0 || !strings.Contains(said, "of a") {
		t.Errorf("get exits with %d: %s", code, said)
	}
	if said, code := run("delete", "b"); code != 0 {
		t.Errorf("delete exits with %d: %s", code, said)
	}
	if said, code := run("snapshot", "create", "--node", "n1"); code != 4 || !strings.Contains(said, "and a snapshot must leave") {
		t.Errorf("snapshot create exits with %d: %s", code, said)
	}
	if said, code := run("backup", filepath.Join(p.dir, "b.kvb"), "--node", "n3"); code != 0 {
		t.Errorf("backup of the one with room exits with %d: %s", code, said)
	}
	if said, _ := run("cluster", "health"); !strings.Contains(said, "n1 has too little room") {
		t.Errorf("health: %s", said)
	}
	for _, path := range ballast {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	wait("puts go on", func() bool { _, code := run("put", "c", "of c"); return code == 0 })
	if said, code := run("get", "a"); code != 0 || !strings.Contains(said, "of a") {
		t.Errorf("get exits with %d: %s", code, said)
	}

	// With hardly any room a node does not even start, says how much it takes, and changes nothing.
	p.kill(0)
	if err := os.WriteFile(ballast[0], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fillUp(t, ballast[0], 10<<20)
	before := fingerprint(t, p.data(0)+"/generation-1")
	if said := p.refused(0); !strings.Contains(said, "MB free, and a start takes 64 MB") || !strings.Contains(said, "next: make room") {
		t.Errorf("n1 says %s", said)
	}
	if fingerprint(t, p.data(0)+"/generation-1") != before {
		t.Error("log or state have changed")
	}
	if err := os.Remove(ballast[0]); err != nil {
		t.Fatal(err)
	}
	p.start(0)
	wait("n1 is back", func() bool { s := p.status(0); return s != nil && s.Leader.GetRaftId() != 0 })
}

// fillUp makes a file so large that so many bytes are left.
func fillUp(t *testing.T, path string, left int64) {
	t.Helper()
	var room unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &room); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, int(int64(room.Bavail)*room.Bsize-left)), 0o600); err != nil {
		t.Fatal(err)
	}
}
