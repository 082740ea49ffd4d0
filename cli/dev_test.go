package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"keyval/messages"
)

// devTest makes this test's binary a kvctl whose nodes only listen: what is
// tested here is how kvctl dev keeps processes.
const (
	devTest        = "KEYVAL_DEV_TEST"
	devTestFailing = "KEYVAL_DEV_TEST_FAILING" // the address of a node that fails at once
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(devTest) == "":
		testscript.Main(m, map[string]func(){"kvctl": kvctlMain})
	case len(os.Args) > 1 && os.Args[1] == "serve":
		listenOnly(os.Args[slices.Index(os.Args, "--listen")+1])
	default:
		sh := NewShell()
		sh.ConnectTo = dialOnly
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(Run(ctx, *sh, os.Args))
	}
}

func kvctlMain() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(Run(ctx, *NewShell(), os.Args))
}

func listenOnly(address string) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	var l net.Listener
	err := errors.New("the test wants it so")
	if address != os.Getenv(devTestFailing) { // such a one must never be found listening
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		fmt.Println("cannot go on:", err)
		os.Exit(1)
	}
	fmt.Println("listening")
	<-asked
	l.Close()
}

// dialOnly is a Store whose status says whether somebody listens.
func dialOnly(_ context.Context, endpoint string, timeout time.Duration) (Store, error) {
	conn, err := net.DialTimeout("tcp", endpoint, timeout)
	if err != nil {
		return nil, messages.Errorf(messages.Code_UNREACHABLE, "%v", err)
	}
	conn.Close()
	fake := newFake()
	fake.leader = endpoint
	return &fakeStore{fake, endpoint}, nil
}

// freePorts finds ports in a row that nobody listens at, below those that the
// system gives out by itself.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		base := 20000 + rand.IntN(10000)
		free := true
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

// devProcessUnderTest is a kvctl dev of this test.
type devProcessUnderTest struct {
	command     *exec.Cmd
	out, stderr *lines
	base        int
	temporary   string // where its temporary directories go
}

// lines is the output of a process, a line at a time.
type lines struct {
	t    *testing.T
	name string
	ch   chan string
	seen []string
}

func follow(t *testing.T, name string, r io.Reader) *lines {
	l := &lines{t: t, name: name, ch: make(chan string, 1000)}
	go func() {
		defer close(l.ch)
		for s := bufio.NewScanner(r); s.Scan(); {
			l.ch <- s.Text()
		}
	}()
	return l
}

// await returns the first line that holds text.
func (l *lines) await(text string) string {
	l.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-l.ch:
			if !ok {
				l.t.Fatalf("%s ended without %q: %q", l.name, text, l.seen)
			}
			l.seen = append(l.seen, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-deadline:
			l.t.Fatalf("%s never said %q: %q", l.name, text, l.seen)
		}
	}
}

func startDev(t *testing.T, env string, argv ...string) *devProcessUnderTest {
	t.Helper()
	p := &devProcessUnderTest{base: freePorts(t, 3), temporary: t.TempDir()}
	if !slices.Contains(argv, "--base-port") {
		argv = append(argv, "--base-port", strconv.Itoa(p.base))
	}
	p.command = exec.Command(os.Args[0], append([]string{"dev"}, argv...)...)
	p.command.Env = append(os.Environ(), devTest+"=1", "TMPDIR="+p.temporary, env)
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.command.Process.Kill() })
	p.out, p.stderr = follow(t, "stdout", out), follow(t, "stderr", stderr)
	return p
}

// end waits for the process, with a bound, and returns its exit code.
func (p *devProcessUnderTest) end(t *testing.T) int {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() { _ = p.command.Process.Kill() })
	defer late.Stop()
	for range p.out.ch {
	}
	for line := range p.stderr.ch {
		p.stderr.seen = append(p.stderr.seen, line)
	}
	err := p.command.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// gone waits until a process is no more, with a bound.
func gone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
	}
	t.Errorf("process %d still runs", pid)
}

func pidIn(t *testing.T, line string) int {
	t.Helper()
	_, rest, _ := strings.Cut(line, "pid ")
	pid, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return pid
}

func TestDevLivesThroughADeathAndEnds(t *testing.T) {
	p := startDev(t, "")
	p.out.await("The cluster is ready.")
	var pids []int
	for i := range 3 {
		line := p.out.await(fmt.Sprintf("127.0.0.1:%d", p.base+i))
		pids = append(pids, pidIn(t, line))
	}
	directory := strings.Fields(p.out.await("removed on exit; keep it with --data"))[1]
	if !strings.HasPrefix(directory, p.temporary) {
		t.Errorf("directory %s is not in %s", directory, p.temporary)
	}
	p.out.await(fmt.Sprintf("export KVCTL_ENDPOINTS=127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", p.base, p.base+1, p.base+2))
	p.out.await(fmt.Sprintf("kill -9 %d; ", pids[0]))
	p.out.await("Ctrl-C")

	if err := syscall.Kill(pids[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.stderr.await(fmt.Sprintf("node2 (pid %d) ended: signal: killed", pids[1]))
	p.stderr.await(fmt.Sprintf("serve --data %s", filepath.Join(directory, "node2")))

	started := time.Now()
	if err := p.command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d: %q", code, p.stderr.seen)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("ending took %v", took)
	}
	for _, pid := range pids {
		gone(t, pid)
	}
	if _, err := os.Stat(directory); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", directory, err)
	}
}

// TestDevKeepsWhatSomebodyUses: a node that was started again by hand outlives
// kvctl dev, and so does the directory it lives in.
func TestDevKeepsWhatSomebodyUses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says who listens where")
	}
	p := startDev(t, "", "--nodes", "2")
	pid := pidIn(t, p.out.await(fmt.Sprintf("127.0.0.1:%d", p.base)))
	p.out.await("Ctrl-C")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.stderr.await("start it again")
	byHand := exec.Command(os.Args[0], "serve", "--listen", fmt.Sprintf("127.0.0.1:%d", p.base))
	byHand.Env = append(os.Environ(), devTest+"=1")
	said, err := byHand.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := byHand.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = byHand.Process.Signal(syscall.SIGTERM)
		_ = byHand.Wait()
	}()
	follow(t, "node1", said).await("listening")
	_ = p.command.Process.Signal(syscall.SIGTERM)
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if text, want := strings.Join(p.stderr.seen, "\n"), fmt.Sprintf("node1 was started by hand and goes on (pid %d", byHand.Process.Pid); !strings.Contains(text, want) {
		t.Errorf("%q does not say %q", text, want)
	}
	if left, err := os.ReadDir(p.temporary); err != nil || len(left) != 1 {
		t.Errorf("the directory was not kept: %v, %v", left, err)
	}
}

func TestDevsNodesEndWithIt(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends children with their parent")
	}
	p := startDev(t, "", "--nodes", "2", "--json")
	var pids []int
	for range 2 {
		line := p.out.await(`"pid": `)
		pid, err := strconv.Atoi(strings.Trim(strings.Fields(line)[1], ","))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end(t)
	for _, pid := range pids {
		gone(t, pid)
	}
}

func TestDevResumes(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "cluster")
	first := startDev(t, "", "--nodes", "2", "--data", directory)
	first.out.await("Ctrl-C")
	_ = first.command.Process.Signal(syscall.SIGTERM)
	if code := first.end(t); code != 0 {
		t.Fatalf("exit code %d: %q", code, first.stderr.seen)
	}
	for _, name := range []string{"dev.json", "node1.log", "node2.log"} {
		if _, err := os.Stat(filepath.Join(directory, name)); err != nil {
			t.Error(err)
		}
	}
	base := strconv.Itoa(first.base)
	for _, contradicting := range [][]string{{"--nodes", "3"}, {"--base-port", strconv.Itoa(first.base + 10)}} {
		got := run{}.kvctl(t, append([]string{"dev", "--data", directory}, contradicting...)...)
		if got.check(t, 2, ""); !strings.Contains(got.stderr, "leave "+contradicting[0]+" out") {
			t.Errorf("%q: %s", contradicting, got.stderr)
		}
	}
	second := startDev(t, "", "--data", directory, "--base-port", base, "--nodes", "2")
	second.out.await("127.0.0.1:" + base)
	second.out.await("Ctrl-C")
	_ = second.command.Process.Signal(syscall.SIGTERM)
	second.end(t)

	if err := os.WriteFile(filepath.Join(directory, "dev.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := (run{}).kvctl(t, "dev", "--data", directory); got.code != 1 || !strings.Contains(got.stderr, "serve --data") {
		t.Errorf("%+v", got)
	}
}

func TestDevNamesTheOwnerOfABusyPort(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says who listens where")
	}
	base := freePorts(t, 3)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := run{}.kvctl(t, "dev", "--base-port", strconv.Itoa(base))
	got.check(t, 7, "")
	if want := fmt.Sprintf("127.0.0.1:%d, which node2 needs, cannot be used: in use by pid %d", base+1, os.Getpid()); !strings.Contains(got.stderr, want) {
		t.Errorf("%q does not say %q", got.stderr, want)
	}
}

func TestDevSaysWhyAStartFailed(t *testing.T) {
	base := freePorts(t, 3)
	p := startDev(t, fmt.Sprintf("%s=127.0.0.1:%d", devTestFailing, base+2), "--base-port", strconv.Itoa(base))
	if code := p.end(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	text := strings.Join(p.stderr.seen, "\n")
	for _, want := range []string{"node3 ended while the cluster was starting: exit status 1", "cannot go on"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	if left, err := os.ReadDir(p.temporary); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWaitingFor(t *testing.T) {
	down := messages.Errorf(messages.Code_UNREACHABLE, "no")
	two := &devCluster{Members: []devMember{{Name: "node1", Address: "a:1"}, {Name: "node2", Address: "a:2"}}}
	for _, test := range []struct {
		rows []nodeJSON
		want string
	}{
		{[]nodeJSON{{problem: down}, {problem: down}}, "node1, node2 to serve"},
		{[]nodeJSON{{Role: "leader"}, {problem: down}}, "node2 to serve"},
		{[]nodeJSON{{Role: "candidate"}, {Role: "follower"}}, "a leader that node1, node2 can follow"},
		{[]nodeJSON{{Role: "leader"}, {Role: "follower"}}, "a leader that node2 can follow"},
		{[]nodeJSON{{Role: "leader", Leader: "node1"}, {Role: "follower", Leader: "node1"}}, ""},
	} {
		if diff := cmp.Diff(test.want, waitingFor(two, test.rows)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestTriesOmitDefaultEndpoints(t *testing.T) {
	if got := tries("kvctl", strings.Split(defaultEndpoints, ","), 1)[1]; got != "kvctl get hello" {
		t.Error(got)
	}
	if got := tries("kvctl", []string{"127.0.0.1:7001"}, 1)[0]; got != "export KVCTL_ENDPOINTS=127.0.0.1:7001" {
		t.Error(got)
	}
}
