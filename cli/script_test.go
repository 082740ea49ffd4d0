package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs kvctl as a user does, with real processes, disks and sockets.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			examples, err := filepath.Abs("../examples")
			if err != nil {
				return err
			}
			env.Setenv("EXAMPLES", examples)
			env.Values[clusterKey{}] = &scriptCluster{t: t}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "slowable" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return slowable(), nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":        exits,
			"until":        until,
			"cluster":      clusterUp,
			"dev-says":     devSays,
			"resume":       resumeCluster,
			"kill-node":    killNode,
			"freeze-node":  signalNode(syscall.SIGSTOP),
			"thaw-node":    signalNode(syscall.SIGCONT),
			"restart-node": restartNode,
			"free-ports":   freeAddressesOf,
			"serve":        serveNode,
			"slow-fsync":   slowFsync,
		},
	})
}

// exits CODE COMMAND... runs a command that must end with exactly this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if code := codeOf(ts, args[1:]); code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

func codeOf(ts *testscript.TestScript, command []string) string {
	err := ts.Exec(command[0], command[1:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strconv.Itoa(exit.ExitCode())
	}
	ts.Check(err)
	return "0"
}

// until CODE REGEX COMMAND... runs a command again and again, until it ends with this code and
// what it prints has a match.
func until(ts *testscript.TestScript, _ bool, args []string) {
	wanted, code := regexp.MustCompile("(?m)"+args[1]), ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if code = codeOf(ts, args[2:]); code == args[0] && wanted.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("after 20 s it ends with %s, want %s and %q", code, args[0], args[1])
}

type clusterKey struct{}

// scriptCluster is the kvctl dev that one script runs against.
type scriptCluster struct {
	t       *testing.T
	command *exec.Cmd
	stderr  *lines
	pids    map[string]int
}

// clusterUp N starts a cluster of N nodes, whose end is the script's.
func clusterUp(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(clusterKey{}).(*scriptCluster)
	nodes, err := strconv.Atoi(args[0])
	ts.Check(err)
	base := freePorts(c.t, nodes)
	var endpoints []string
	for i := range nodes {
		endpoints = append(endpoints, fmt.Sprintf("127.0.0.1:%d", base+i))
	}
	stdout := c.run(ts, "--nodes", args[0], "--base-port", strconv.Itoa(base))
	ts.Defer(func() { c.end(ts) })
	c.pids = map[string]int{}
	for i, e := range endpoints {
		c.pids[fmt.Sprintf("node%d", i+1)] = pidIn(c.t, stdout.await(e))
	}
	stdout.await("Ctrl-C")
	ts.Setenv("KVCTL_ENDPOINTS", strings.Join(endpoints, ","))
}

// run starts kvctl dev, and returns its standard output.
func (c *scriptCluster) run(ts *testscript.TestScript, flags ...string) *lines {
	kvctl, err := exec.LookPath("kvctl")
	ts.Check(err)
	c.command = exec.Command(kvctl, append([]string{"dev", "--data", ts.MkAbs("cluster")}, flags...)...)
	out, err := c.command.StdoutPipe()
	ts.Check(err)
	stderr, err := c.command.StderrPipe()
	ts.Check(err)
	ts.Check(c.command.Start())
	c.stderr = follow(c.t, "kvctl dev's stderr", stderr)
	return follow(c.t, "kvctl dev", out)
}

// devSays TEXT waits until kvctl dev says it.
func devSays(ts *testscript.TestScript, _ bool, args []string) {
	ts.Value(clusterKey{}).(*scriptCluster).stderr.await(args[0])
}

// resumeCluster ends the cluster and starts it again on its directory.
func resumeCluster(ts *testscript.TestScript, _ bool, _ []string) {
	c := ts.Value(clusterKey{}).(*scriptCluster)
	c.end(ts)
	c.run(ts).await("Ctrl-C")
}

// end asks the cluster to end, which must take no more than 5 seconds.
func (c *scriptCluster) end(ts *testscript.TestScript) {
	started := time.Now()
	late := time.AfterFunc(30*time.Second, func() { _ = c.command.Process.Kill() })
	defer late.Stop()
	ts.Check(c.command.Process.Signal(syscall.SIGINT))
	if err := c.command.Wait(); err != nil || time.Since(started) > 5*time.Second {
		c.t.Errorf("kvctl dev ended after %v: %v", time.Since(started), err)
	}
}

// freeAddressesOf N sets ADDRESS1 and so on to addresses that nobody listens at.
func freeAddressesOf(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	base := freePorts(ts.Value(clusterKey{}).(*scriptCluster).t, n)
	for i := range n {
		ts.Setenv(fmt.Sprintf("ADDRESS%d", i+1), fmt.Sprintf("127.0.0.1:%d", base+i))
	}
}

// serveNode FLAGS... runs a node until the script ends.
func serveNode(ts *testscript.TestScript, _ bool, args []string) {
	kvctl, err := exec.LookPath("kvctl")
	ts.Check(err)
	node := exec.Command(kvctl, append([]string{"serve"}, args...)...)
	node.Dir = ts.Getenv("WORK")
	ts.Check(node.Start())
	ts.Defer(func() {
		_ = node.Process.Kill()
		_ = node.Wait() // it was killed
	})
}

// slowing delays every fsync of a process by so many microseconds, while it runs.
func slowing(pid int, microseconds string) *exec.Cmd {
	return exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync",
		"-e", "inject=fdatasync,fsync:delay_exit="+microseconds, "-p", strconv.Itoa(pid))
}

// slowable reports whether this machine has strace, and lets it at a process that it did not
// start.
func slowable() bool {
	idle := exec.Command("sleep", "60")
	if idle.Start() != nil {
		return false
	}
	slow := slowing(idle.Process.Pid, "1")
	started := slow.Start() == nil
	time.Sleep(300 * time.Millisecond) // by then one that is not allowed to has ended
	if started {
		_ = slow.Process.Signal(syscall.SIGINT)
		started = slow.Wait() == nil || slow.ProcessState.ExitCode() == -1 || slow.ProcessState.ExitCode() > 1
	}
	_ = idle.Process.Kill()
	_ = idle.Wait()
	return started
}

// slowFsync leader|follower MICROSECONDS makes the disk of such a node slow from now on: every
// fsync of it returns so much later.
func slowFsync(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(clusterKey{}).(*scriptCluster)
	ts.Check(ts.Exec("kvctl", "cluster", "leader", "--json"))
	leader := regexp.MustCompile(`"id": "(node\d)"`).FindStringSubmatch(ts.ReadFile("stdout"))
	if leader == nil {
		ts.Fatalf("nobody leads: %s", ts.ReadFile("stdout"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.pids)) {
		if (name == leader[1]) != (args[0] == "leader") {
			continue
		}
		slow := slowing(c.pids[name], args[1])
		ts.Check(slow.Start())
		ts.Defer(func() {
			_ = slow.Process.Signal(syscall.SIGINT) // so that it lets go of the node
			_ = slow.Wait()
		})
		return
	}
}

// killNode N ends a node as a crash would.
func killNode(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(clusterKey{}).(*scriptCluster)
	ts.Check(syscall.Kill(c.pids["node"+args[0]], syscall.SIGKILL))
	c.stderr.await("node" + args[0] + " (pid")
}

// freeze-node N and thaw-node N: the process of a founder stands still, and goes on.
func signalNode(signal syscall.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		c := ts.Value(clusterKey{}).(*scriptCluster)
		ts.Check(syscall.Kill(c.pids["node"+args[0]], signal))
	}
}

// restartNode N starts a node with the very command that kvctl dev said, and
// waits until all answer.
func restartNode(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value(clusterKey{}).(*scriptCluster)
	_, said, _ := strings.Cut(c.stderr.await("start it again: "), "again: ")
	if !strings.HasSuffix(said, "serve --data "+filepath.Join(ts.MkAbs("cluster"), "node"+args[0])) {
		ts.Fatalf("kvctl dev said %q", said)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	node := exec.CommandContext(ctx, "sh", "-c", "exec "+said)
	ts.Check(node.Start())
	ts.Defer(func() {
		defer cancel()
		ts.Check(node.Process.Signal(syscall.SIGTERM))
		if err := node.Wait(); err != nil {
			c.t.Errorf("the node that was started by hand ended: %v", err)
		}
	})
	for ctx.Err() == nil {
		if ts.Exec("kvctl", "status") == nil {
			return
		}
	}
	ts.Fatalf("node%s did not come back", args[0])
}
