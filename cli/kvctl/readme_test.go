package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadmeStartsSecurely runs the commands that the README shows, at ports that are free.
func TestReadmeStartsSecurely(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(name string) []string {
		_, after, _ := strings.Cut(string(text), "<!-- "+name+": run by a test -->\n```\n")
		block, _, ok := strings.Cut(after, "```")
		lines := strings.Split(strings.TrimSpace(block), "\n")
		if !ok || len(lines) != 3 {
			t.Fatalf("the README does it in %d commands: %q", len(lines), lines)
		}
		return lines
	}
	lines := block("secure start")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "kvctl")); err != nil {
		t.Fatal(err)
	}
	port, endpoints := freePorts(t, 3)
	shell := func(lines ...string) *exec.Cmd {
		c := exec.Command("bash", "-ec", strings.Join(lines, "\n"))
		c.Dir, c.Env = dir, append(os.Environ(), "KVCTL_ENDPOINTS="+endpoints)
		return c
	}
	first, _, _ := strings.Cut(lines[0], "#")
	dev := shell("exec " + strings.TrimSpace(first) + " --base-port " + strconv.Itoa(port))
	dev.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		_ = dev.Wait()
	}()
	ready := make(chan bool, 1)
	go func() {
		for said := bufio.NewScanner(out); said.Scan(); {
			if strings.Contains(said.Text(), "Ctrl-C ends all nodes") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("kvctl dev has ended")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("kvctl dev is not ready")
	}
	said, err := shell(lines[1], lines[2], "bin/kvctl get greeting").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(said), "hello\n") {
		t.Errorf("%v: %s", err, said)
	}
	if said, err := shell(lines[2] + " --timeout 2s").CombinedOutput(); err == nil {
		t.Errorf("without keys: %s", said)
	}
	said, err = shell(append([]string{lines[1]}, append(block("users"), "bin/kvctl cert create-client alice --dir ./secure/certs", "bin/kvctl get greeting")...)...).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(said), "hello\n") {
		t.Fatalf("%v: %s", err, said)
	}
	alice := "export KVCTL_CERTS_DIR=./secure/certs/users/alice"
	if said, err := shell(alice, "bin/kvctl put orders/1 tea").CombinedOutput(); err != nil {
		t.Errorf("alice: %v: %s", err, said)
	}
	if said, err := shell(alice, "bin/kvctl get greeting").CombinedOutput(); err == nil || dev.ProcessState != nil || !strings.Contains(string(said), "dev: kvctl user grant alice viewer") {
		t.Errorf("alice: %v: %s", err, said)
	}
}

// freePorts are n ports in a row that nobody listens at: the first, and the endpoints.
func freePorts(t *testing.T, n int) (first int, endpoints string) {
	t.Helper()
	for first = 20000 + rand.IntN(8000); first < 32000; first += n {
		var all []string
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				break
			}
			defer l.Close()
			all = append(all, l.Addr().String())
		}
		if len(all) == n {
			return first, strings.Join(all, ",")
		}
	}
	t.Fatal("no free ports")
	return 0, ""
}
