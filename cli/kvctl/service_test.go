package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSystemdIsTold: a unit of Type=notify is started when the node listens, also while it
// waits for other founders, and is told when it stops.
func TestSystemdIsTold(t *testing.T) {
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
