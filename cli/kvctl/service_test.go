package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMistypedFoundersHurtNobody: a first start whose list names a node of a cluster that
// serves ends with both lists, whatever RaftID it claims, and the members' links stand. One
// whose address is taken records nothing.
func TestMistypedFoundersHurtNobody(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	if _, said, code := p.kvctl("put", "k", "v"); code != 0 {
		t.Fatal(said)
	}
	before, _, _ := p.kvctl("status", "--json")
	for _, name := range []string{"m", "x"} { // it claims RaftID 1, and 2
		address := freeAddresses(t, 1)[0]
		list := name + "=" + address + ",n1=" + p.listens[0]
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, binary, "serve", "--name", name, "--listen", address, "--data", filepath.Join(t.TempDir(), name), "--initial-cluster", list).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 || !strings.Contains(string(out), name+"="+address) || name == "x" && !strings.Contains(string(out), "n1="+p.listens[0]+",n2=") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if after, _, _ := p.kvctl("status", "--json"); regexp.MustCompile(`"term": "\d+"`).FindString(after) != regexp.MustCompile(`"term": "\d+"`).FindString(before) {
		t.Errorf("the members were disturbed:\n%s\n%s", before, after)
	}
	directory := filepath.Join(t.TempDir(), "y")
	first := func(address string) *exec.Cmd {
		return exec.Command(binary, "serve", "--name", "y", "--listen", address, "--data", directory, "--initial-cluster", "y="+address)
	}
	if out, err := first(p.listens[0]).CombinedOutput(); err == nil || !strings.Contains(string(out), "is in use") {
		t.Errorf("%v\n%s", err, out)
	}
	address := freeAddresses(t, 1)[0]
	corrected := first(address)
	if err := corrected.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address) // a contradiction would end it before it listens
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the corrected start does not listen: %v", err)
		}
	}
	if err := corrected.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := corrected.Wait(); err != nil {
		t.Errorf("the corrected start ended with %v", err)
	}
}

// TestSystemdIsTold: a unit of Type=notify is started when the node listens, also while it
// waits for other founders, and is told when it stops.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	p := newCluster(t, freeAddresses(t, 2))
	p.endpoints, p.initial = p.listens, "n1="+p.listens[0]+",n2="+p.listens[1]
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	node := exec.Command(binary, append([]string{"serve", "--data", p.data(0)}, p.first(0)...)...)
	node.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer node.Process.Kill()
	hears := func(state string) {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for text := make([]byte, 4096); ; {
			n, err := socket.Read(text)
			if err != nil {
				t.Fatalf("%s was not heard: %v", state, err)
			}
			if strings.Contains(string(text[:n]), state) {
				return
			}
		}
	}
	hears("READY=1")
	if err := node.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
	if err := node.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
