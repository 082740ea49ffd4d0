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

// readmeCommands are the commands, without comments, of a block that the README marks, and a
// directory with the binary where it says.
func readmeCommands(t *testing.T, name string, count int) (commands []string, dir string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "<!-- "+name+": run by a test -->\n```\n")
	block, _, ok := strings.Cut(after, "```")
	for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", "")) {
		command, _, _ := strings.Cut(line, "#")
		commands = append(commands, strings.TrimSpace(command))
	}
	if !ok || len(commands) != count {
		t.Fatalf("the README has %d commands of %q: %q", len(commands), name, commands)
	}
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "kvctl")); err != nil {
		t.Fatal(err)
	}
	return commands, dir
}

// TestReadmeByHand runs the commands that the README shows as they stand, beside what make run
// starts, in a network of their own.
func TestReadmeByHand(t *testing.T) {
	if out, err := exec.Command("unshare", "-rn", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("this machine lends no network: %v: %s", err, out)
	}
	t.Parallel()
	commands, dir := readmeCommands(t, "by hand", 5)
	var script strings.Builder
	fmt.Fprintln(&script, "ip link set lo up; trap 'kill $(jobs -p); wait' EXIT")
	fmt.Fprintln(&script, `await() { for i in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "in vain: $*"; tail -n 20 *.out; exit 1; }`)
	fmt.Fprintln(&script, "bin/kvctl dev >dev.out 2>&1 &\nawait bin/kvctl status --no-color")
	for i, command := range commands {
		if strings.Contains(command, " serve ") {
			fmt.Fprintf(&script, "%s >n%d.out 2>&1 & pid%d=$!\n", command, i+1, i+1)
		} else {
			fmt.Fprintf(&script, "%s || exit\n", command)
		}
	}
	fmt.Fprintln(&script, "kill $pid1; wait $pid1 || exit\nbin/kvctl serve --data ./n1 >n1.out 2>&1 &")
	fmt.Fprintln(&script, "await sh -c 'bin/kvctl status | grep -E \"^n1 .*(leader|follower)\"' && bin/kvctl get greeting && bin/kvctl status && unset KVCTL_ENDPOINTS && bin/kvctl get greeting")
	c := exec.Command("unshare", "-rn", "--kill-child", "bash", "-c", script.String())
	c.Dir, c.Env = dir, append(os.Environ(), "TMPDIR="+dir)
	c.WaitDelay = 10 * time.Second
	out, err := c.CombinedOutput()
	said := string(out)
	if exit, is := err.(*exec.ExitError); !is || exit.ExitCode() != 3 || strings.Count(said, "\nhello\n") != 1 {
		t.Errorf("%v:\n%s", err, said) // in the end greeting is not found in the other cluster
	}
	for _, want := range []string{"put \"greeting\"", "n1    127.0.0.1:7011", "n2    127.0.0.1:7012", "n3    127.0.0.1:7013"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
}

// TestReadmeStartsSecurely runs the commands that the README shows, at ports that are free.
func TestReadmeStartsSecurely(t *testing.T) {
	lines, dir := readmeCommands(t, "secure start", 3)
	port, endpoints := freePorts(t, 3)
	shell := func(lines ...string) *exec.Cmd {
		c := exec.Command("bash", "-ec", strings.Join(lines, "\n"))
		c.Dir, c.Env = dir, append(os.Environ(), "KVCTL_ENDPOINTS="+endpoints)
		return c
	}
	dev := shell("exec " + lines[0] + " --base-port " + strconv.Itoa(port))
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
