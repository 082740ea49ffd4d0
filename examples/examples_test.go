//go:build linux

// Package examples has no code of its own: this test runs the programs below it
// against a cluster of real processes.
package examples

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExamples(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "../cli/kvctl", "./actors", "./facade").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	endpoints := startCluster(t, filepath.Join(bin, "kvctl"), 3)

	said := runExample(t, filepath.Join(bin, "facade"), "--endpoints", endpoints, "--timeout", "25s")
	for _, want := range []string{
		`(?m)^put fruit/apple at revision \d+$`, `(?m)^banana: 11 now, 12 at revision \d+$`, `(?m)^apple: deleted$`,
		`(?m)^the banana is a plantain since revision \d+$`, `(?m)^fruit/cherry = 400\nfruit/plantain = 11\n\z`,
	} {
		if !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("%q is not in what facade says:\n%s", want, said)
		}
	}

	said = runExample(t, filepath.Join(bin, "actors"), "--endpoints", endpoints, "--count", "50", "--timeout", "25s")
	lines := regexp.MustCompile(`(?m)^measurement/\d{6} = \d+\.\d degrees, revision \d+, read from 127\.0\.0\.1:\d+$`).FindAllString(said, -1)
	if len(lines) != 50 || strings.Count(said, "\n") != 50 {
		t.Errorf("actors says:\n%s", said)
	}

	// Nobody listens at port 1. Without a cluster both say what is wrong, and fail.
	for _, program := range []string{"facade", "actors"} {
		said, err := start(filepath.Join(bin, program), "--endpoints", "127.0.0.1:1", "--timeout", "500ms")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said, program+": ") {
			t.Errorf("%s without a cluster ends with %v:\n%s", program, err, said)
		}
	}
}

func runExample(t *testing.T, program string, args ...string) string {
	t.Helper()
	said, err := start(program, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, said)
	}
	return said
}

func start(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(out), err
}

// startCluster runs nodes until the test ends, and returns their endpoints. It does
// not wait for them: clients do.
func startCluster(t *testing.T, kvctl string, n int) string {
	t.Helper()
	dir, endpoints := t.TempDir(), freeAddresses(t, n)
	var initial []string
	for i, endpoint := range endpoints {
		initial = append(initial, fmt.Sprintf("n%d=%s", i+1, endpoint))
	}
	for i, endpoint := range endpoints {
		name := fmt.Sprintf("n%d", i+1)
		log := new(bytes.Buffer)
		node := exec.Command(kvctl, "serve", "--name", name, "--listen", endpoint, "--data", filepath.Join(dir, name),
			"--initial-cluster", strings.Join(initial, ","), "--log-level", "warn")
		node.Stderr = log
		node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = node.Process.Kill()
			_ = node.Wait()
			if t.Failed() {
				t.Logf("%s:\n%s", name, log)
			}
		})
	}
	return strings.Join(endpoints, ",")
}

// freeAddresses are loopback addresses that nobody listens at.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all are held until all are chosen
		addresses = append(addresses, l.Addr().String())
	}
	return addresses
}
