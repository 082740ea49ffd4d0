//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
)

// exchangeEnv is how much state a cluster has whose dead node is replaced, such as 1GB.
const exchangeEnv = "KEYVAL_EXCHANGE"

// TestExchange is what an operator does when a machine has died: kvctl dev under write load,
// kill -9 of node2, one more node, and kvctl cluster replace to its end. It tells the time of
// each phase, and for how long no write was acknowledged; none may fail.
func TestExchange(t *testing.T) {
	size := sizeOf(t, exchangeEnv)
	if size == 0 {
		t.Skipf("%s=1GB is not set", exchangeEnv)
	}
	p, data := devOfThree(t)
	load := &loader{t: t, client: p.connect(p.endpoints...), size: 16 << 10}
	keys := size / load.size
	began := time.Now()
	load.fill(0, keys, "state")
	t.Logf("%d MB written in %v", size/1_000_000, time.Since(began).Round(time.Millisecond))

	w := p.writeSteadily(8, 5*time.Millisecond, load.client)
	time.Sleep(time.Second)
	t.Logf("three nodes under load: longest gap between writes %v", w.lap())
	p.killMember("node2")
	time.Sleep(2 * time.Second)
	t.Logf("kill -9 of node2: longest gap between writes %v", w.lap())

	out, err := exec.Command(binary, "dev", "add", "node4", "--data", data).CombinedOutput()
	address := regexp.MustCompile(`node4 runs at (\S+)`).FindSubmatch(out)
	if err != nil || len(address) == 0 {
		t.Fatalf("dev add: %v\n%s", err, out)
	}
	p.replaceDead(w, string(address[1]))
	w.end()
	t.Logf("node4 has %d MB in its directory; %d writes acknowledged, none failed", directorySize(t, filepath.Join(data, "node4"))/1_000_000, w.count.Load())
	p.endpoints = append(p.endpoints, string(address[1]))
	w.checkBy(p, load.client, "the client")
	if out, said, code := p.kvctl("verify"); code != 0 {
		t.Errorf("verify ends with %d: %s%s", code, out, said)
	}
}

// replaceDead replaces node2 by node4, which waits, and tells how that went.
func (p *processes) replaceDead(w *writers, address string) {
	p.t.Helper()
	w.lap()
	tool := exec.Command(binary, "cluster", "replace", "node2", "node4", address, "--yes", "--timeout", "30m", "--endpoints", strings.Join(p.endpoints, ","))
	var said bytes.Buffer
	tool.Stdout, tool.Stderr = &said, &said
	began := time.Now()
	if err := tool.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- tool.Wait() }()
	phases, shipped := p.phases(began)
	if err := <-ended; err != nil {
		p.t.Fatalf("cluster replace: %v\n%s", err, &said)
	}
	took := time.Since(began)
	time.Sleep(300 * time.Millisecond)
	gap := w.lap()
	p.t.Logf("cluster replace node2 node4: %v, a snapshot of about %d MB, longest gap between writes %v\n%s\nkvctl says\n%s",
		took.Round(time.Millisecond), shipped/1_000_000, gap, phases, &said)
	if gap > orderlyGap {
		p.t.Errorf("no write was acknowledged for %v", gap)
	}
}

// phases watches the last operation to its end: how long it was in each phase, and how many
// bytes, about, the snapshot has that the new node is sent.
func (p *processes) phases(began time.Time) (text string, shipped uint64) {
	p.t.Helper()
	c := p.connect(p.endpoints...)
	defer c.Close()
	var last *client.ReplaceNodeStatus
	since := began
	for deadline := began.Add(30 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		a, err := c.Cluster().Query(context.Background())
		if err != nil || len(a.Operations()) == 0 {
			continue
		}
		for _, m := range a.Members() {
			if m.LearnerStatus != nil {
				shipped = max(shipped, m.LearnerStatus.SnapshotBytesTotal)
			}
		}
		is := a.Operations()[len(a.Operations())-1]
		if last != nil && is.Phase == last.Phase {
			continue
		}
		now := time.Now()
		if last != nil {
			text += fmt.Sprintf("%-10v %v\n", last.Phase, now.Sub(since).Round(time.Millisecond))
		} else {
			text += fmt.Sprintf("%-10s %v\n", "begun", now.Sub(since).Round(time.Millisecond))
		}
		last, since = is, now
		if is.Phase.Ended() {
			return text + is.Phase.String(), shipped
		}
	}
	p.t.Fatalf("the replace has not ended after 30 min:\n%s", text)
	return "", 0
}

// killMember kills a member that says its process id.
func (p *processes) killMember(name string) {
	p.t.Helper()
	out, said, _ := p.kvctl("status", "--json")
	found := regexp.MustCompile(`"name": "` + name + `",[^}]*?"pid": (\d+)`).FindStringSubmatch(out)
	if found == nil {
		p.t.Fatalf("no pid of %s in\n%s%s", name, out, said)
	}
	pid, err := strconv.Atoi(found[1])
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// devOfThree runs kvctl dev until the test ends, and returns its data directory.
func devOfThree(t *testing.T, flags ...string) (p *processes, data string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "cluster")
	return devIn(t, data, flags...), data
}

// devIn is devOfThree with its data where they are wanted; with --secure it comes with keys.
func devIn(t *testing.T, data string, flags ...string) (p *processes) {
	t.Helper()
	base := freeRow(t, 4)
	dev := exec.Command(binary, append([]string{"dev", "--data", data, "--base-port", strconv.Itoa(base)}, flags...)...)
	dev.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	dev.Stdout, dev.Stderr = &log, &log
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	p = newCluster(t, nil)
	t.Cleanup(func() {
		_ = dev.Process.Signal(os.Interrupt)
		if err := dev.Wait(); err != nil {
			t.Errorf("kvctl dev: %v\n%s", err, &log)
		}
	})
	for i := range 3 {
		p.endpoints = append(p.endpoints, fmt.Sprintf("127.0.0.1:%d", base+i))
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if user := (transport.Principal{Kind: transport.UserKey, Name: "dev"}); p.ring == nil && slices.Contains(flags, "--secure") {
			p.authority = keys.Authority{Dir: filepath.Join(data, "certs")}
			p.ring, _ = keys.Load(keys.FilesIn(p.authority.Of(user), transport.UserKey))
		}
		if _, said, code := p.kvctl("cluster", "health", "--timeout", "1s"); code == 0 {
			return p
		} else if time.Now().After(deadline) {
			t.Fatalf("kvctl dev has no healthy cluster after 30 s: %s", said)
		}
	}
}

// freeRow is the first of n ports in a row that nobody listens at. They are not of those that
// the system gives away by itself.
func freeRow(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		base, free := 20_000+rand.IntN(10_000), true
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i))
			if err != nil {
				free = false
				break
			}
			l.Close()
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports in a row")
	return 0
}

// directorySize is how many bytes the files below a directory have.
func directorySize(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // files come and go
		}
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
