//go:build linux

package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// logged is a cluster of one node whose stderr is a pipe.
func logged(t *testing.T, flags ...string) (p *processes, log *os.File) {
	t.Helper()
	p = newCluster(t, freeAddresses(t, 1))
	p.endpoints, p.initial = p.listens, "n1="+p.listens[0]
	log, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	t.Cleanup(func() { log.Close() })
	c := &process{ended: make(chan struct{})}
	c.Cmd = exec.Command(binary, append(append([]string{"serve", "--data", p.data(0)}, p.first(0)...), flags...)...)
	c.Stderr = end
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.err = c.Wait(); close(c.ended) }()
	p.running[0] = c
	return p, log
}

// bench has the node write thousands of lines.
func (p *processes) bench(duration string) {
	p.t.Helper()
	if _, said, code := p.kvctl("bench", "--clients", "16", "--warmup", "0s", "--duration", duration); code != 0 {
		p.t.Fatalf("exit code %d: %s", code, said)
	}
}

// overflow has the node write more than its writer and the pipe behind it hold. What one client
// writes is three lines each.
func (p *processes) overflow() {
	p.t.Helper()
	for writes := 0; writes < 3000; {
		said, _, code := p.kvctl("bench", "--clients", "1", "--warmup", "0s", "--duration", "2s", "--json")
		var told struct {
			Writes struct {
				Count int `json:"count"`
			} `json:"writes"`
		}
		if err := json.Unmarshal([]byte(said), &told); err != nil || code != 0 || told.Writes.Count == 0 {
			p.t.Fatalf("exit code %d, %v: %s", code, err, said)
		}
		writes += told.Writes.Count
	}
}

// endsBySignal asks the node to end and wants it to, with exit code 0.
func (p *processes) endsBySignal() {
	p.t.Helper()
	c := p.running[0]
	p.signal(0, syscall.SIGTERM)
	select {
	case <-c.ended:
		if c.err != nil {
			p.t.Errorf("it ended with %v", c.err)
		}
		p.set(0, nil)
	case <-time.After(15 * time.Second):
		p.t.Error("SIGTERM did not end it")
	}
}

// TestNodeOutlivesTheReaderOfItsLog: the pipe behind stderr breaks.
func TestNodeOutlivesTheReaderOfItsLog(t *testing.T) {
	p, log := logged(t, "--log-level", "debug")
	if _, err := log.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	log.Close()
	p.bench("1s")
	p.endsBySignal()
}

// TestNodeDoesNotWaitForItsLog: nobody reads the pipe behind stderr, which is soon full.
// Later somebody does, and hears what was lost.
func TestNodeDoesNotWaitForItsLog(t *testing.T) {
	p, log := logged(t, "--log-level", "debug")
	p.overflow()
	said := make(chan string)
	go func() {
		all, _ := io.ReadAll(log)
		said <- string(all)
	}()
	p.bench("1s")
	p.endsBySignal()
	if text := <-said; !strings.Contains(text, "lines were lost here") {
		t.Errorf("it does not say that lines were lost: %d bytes", len(text))
	}
}

// TestDeafLogDoesNotHoldUpTheEnd: nobody ever reads, and the node ends all the same.
func TestDeafLogDoesNotHoldUpTheEnd(t *testing.T) {
	p, _ := logged(t, "--log-level", "debug")
	p.bench("1s")
	p.endsBySignal()
}

// TestLogFileTurns: a node turns its file when it is full, keeps as many as it was told to,
// and no other node may write to it.
func TestLogFileTurns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "logs", "n1.log")
	p, stderr := logged(t, "--log-level", "debug", "--log-format", "json", "--log-file", file, "--log-file-size", "1MiB", "--log-file-count", "2")
	turned := func() []string {
		found, err := filepath.Glob(strings.TrimSuffix(file, ".log") + "-*.log")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for deadline := time.Now().Add(2 * time.Minute); len(turned()) < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("the file was turned %d times in 2 minutes", len(turned()))
		}
		p.bench("1s")
	}
	oldest := turned()[0]
	for deadline := time.Now().Add(2 * time.Minute); ; p.bench("1s") {
		if _, err := os.Stat(oldest); err != nil && len(turned()) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v are there, and 2 were to be kept", turned())
		}
	}
	other := exec.Command(binary, "serve", "--data", t.TempDir(), "--name", "n2", "--listen", "127.0.0.1:1", "--initial-cluster", "n2=127.0.0.1:1", "--log-file", file)
	if said, err := other.CombinedOutput(); err == nil || !strings.Contains(string(said), "another process writes to "+file) {
		t.Errorf("another node that writes to the same file: %v, %s", err, said)
	}
	p.endsBySignal()
	for _, f := range append(turned(), file) {
		text, err := os.ReadFile(f)
		if err != nil || len(text) > 1<<20 {
			t.Errorf("%s: %d bytes, %v", f, len(text), err)
		}
		for line := range strings.Lines(string(text)) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%s: %q", f, line)
			}
		}
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `"msg":"the node stops"`) {
		t.Errorf("the last lines are missing: %v", err)
	}
	if said, err := io.ReadAll(stderr); err != nil || strings.Contains(string(said), "the node stops") {
		t.Errorf("stderr has lines of the log too: %s, %v", said, err)
	}
}
