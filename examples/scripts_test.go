//go:build linux

package examples

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
)

// devCluster runs kvctl dev until the test ends, and returns what the scripts find it by.
func devCluster(t *testing.T, kvctl string) (environment []string, endpoints []string) {
	t.Helper()
	dir := t.TempDir()
	port := freePorts(t, 4)
	dev := exec.Command(kvctl, "dev", "--base-port", fmt.Sprint(port))
	dev.Env = append(os.Environ(), "TMPDIR="+dir)
	dev.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		_ = dev.Wait()
	})
	for i := range 3 {
		endpoints = append(endpoints, fmt.Sprintf("127.0.0.1:%d", port+i))
	}
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // whom nobody listens to is told so at once
		conn, err := net.Dial("tcp", endpoints[0])
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(until) {
			t.Fatalf("kvctl dev does not listen: %v", err)
		}
	}
	return append(os.Environ(), "TMPDIR="+dir, "KVCTL="+kvctl, "KVCTL_ENDPOINTS="+strings.Join(endpoints, ",")), endpoints
}

// freePorts finds n ports in a row that nobody listens at.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 50 {
		var port int
		if _, err := fmt.Sscanf(freeAddresses(t, 1)[0], "127.0.0.1:%d", &port); err != nil {
			t.Fatal(err)
		}
		free := port+n < 65535
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+i))
			if free = free && err == nil; err == nil {
				defer l.Close()
			}
		}
		if free {
			return port
		}
	}
	t.Fatal("no ports are free")
	return 0
}

// load writes until it is stopped, and returns how often, the longest time without a write,
// and the writes that failed.
func load(t *testing.T, endpoints []string) (stop func() (int, time.Duration, error)) {
	t.Helper()
	c, err := client.Connect(context.Background(), client.Options{Endpoints: endpoints, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	var wait sync.WaitGroup
	var count int
	var longest time.Duration
	var failed error
	wait.Add(1)
	go func() {
		defer wait.Done()
		last := time.Now()
		for ; ; count++ {
			select {
			case <-end:
				return
			default:
			}
			if _, err := c.Put(context.Background(), fmt.Appendf(nil, "load/%d", count%1000), fmt.Append(nil, count)); err != nil {
				failed = errors.Join(failed, err)
			}
			now := time.Now()
			longest, last = max(longest, now.Sub(last)), now
		}
	}()
	return func() (int, time.Duration, error) {
		close(end)
		wait.Wait()
		c.Close()
		return count, longest, failed
	}
}

// TestTour plays the tour of docs/SESSION.txt: nobody's write fails, and each step ends as it
// stands there.
func TestTour(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../cli/kvctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	tour := exec.CommandContext(ctx, "./tour.sh")
	tour.Env = append(os.Environ(), "KVCTL="+filepath.Join(bin, "kvctl"), fmt.Sprint("PORT=", freePorts(t, 4)), "LOAD=5s")
	out, err := tour.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	recorded, err := os.ReadFile("../docs/SESSION.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"(exit code 9)", "plan to replace node2 by node4", "✓ node4 is a voter", "✓ node2 is removed", "healthy: 3 of 3 members",
		"node2 was removed from cluster", "node1, node3, node4 hold the same", "Errors: none",
	} {
		if !strings.Contains(string(out), want) || !strings.Contains(string(recorded), want) {
			t.Errorf("no %q in what it said\n%s\nor in docs/SESSION.txt", want, out)
		}
	}
}

// TestScripts runs the scripts on a loaded kvctl dev: all nodes are restarted, then one is
// killed and replaced, and no write fails.
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	kvctl := filepath.Join(bin, "kvctl")
	if out, err := exec.Command("go", "build", "-o", bin, "../cli/kvctl").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	environment, endpoints := devCluster(t, kvctl)
	run := func(program string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		command := exec.CommandContext(ctx, program, args...)
		command.Env = environment
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	run(kvctl, "put", "hello", "world")
	pids := func() []string {
		return regexp.MustCompile(`"pid": \d+`).FindAllString(run(kvctl, "status", "--json"), -1)
	}
	before := pids()
	stop := load(t, endpoints)
	said := run("./rolling-upgrade.sh")
	count, gap, err := stop()
	t.Logf("rolling-upgrade.sh: %d writes, none for %v at most", count, gap.Round(time.Millisecond))
	if err != nil {
		t.Errorf("a write failed: %v\n%s", err, said)
	}
	for _, pid := range pids() {
		if strings.Contains(strings.Join(before, " "), pid) {
			t.Errorf("%s was not restarted:\n%s", pid, said)
		}
	}

	run(kvctl, "dev", "add", "node4")
	address := regexp.MustCompile(`node4 waits to be added: .* (127\.0\.0\.1:\d+)`)
	var found []string
	for deadline := time.Now().Add(10 * time.Second); len(found) == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		found = address.FindStringSubmatch(run(kvctl, "cluster", "members"))
	}
	if len(found) == 0 {
		t.Fatal("node4 does not wait")
	}
	run(kvctl, "dev", "stop", "node2")
	stop = load(t, endpoints)
	said = run("./replace-node.sh", "node2", "node4", found[1])
	count, gap, err = stop()
	t.Logf("replace-node.sh: %d writes, none for %v at most", count, gap.Round(time.Millisecond))
	if err != nil || !strings.Contains(said, "✓ node2 is removed") || !strings.Contains(said, "hold the same") {
		t.Errorf("%v\n%s", err, said)
	}
}
