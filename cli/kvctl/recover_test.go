//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node that has condemned itself for its rows, and one whose rows are gone, take the state
// of another member by one command; the log and the vote stay. Where the log is damaged the
// command changes nothing, and says how to put a new node in its place.
func TestRebuild(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	altered := (p.leader() + 1) % 3
	load := &loader{t: t, client: p.connect(p.endpoints...), size: 100}
	load.fill(0, 500, "true")
	p.done("compact", "--yes")
	p.same(500)
	data := p.data(altered)
	running, said, code := p.kvctl("rebuild", "--data", data, "--yes")
	if code != 7 || !strings.Contains(said, "is in use by process") {
		t.Errorf("a node that runs: %d, %s%s", code, running, said)
	}
	p.kill(altered)
	alter(t, data, "load/00000123", false)
	p.start(altered)
	select {
	case <-p.running[altered].ended:
		p.set(altered, nil)
	case <-time.After(30 * time.Second):
		t.Fatal("the altered node runs on")
	}
	load.fill(500, 600, "true")
	if out := p.done("rebuild", "--data", data, "--dry-run"); !strings.Contains(out, "would rebuild") {
		t.Errorf("%s", out)
	}
	p.refused(altered) // still
	if _, said, code := p.kvctl("rebuild", "--data", data); code != 6 || !strings.Contains(said, "--yes") {
		t.Errorf("unasked: %d, %s", code, said)
	}
	out := p.done("rebuild", "--data", data, "--yes")
	for _, want := range []string{"rebuilt " + data, "what was made was read again and is equal", "set-aside-1", "serve --data"} {
		if !strings.Contains(out, want) {
			t.Errorf("rebuild does not say %q:\n%s", want, out)
		}
	}
	for _, kept := range []string{"CONDEMNED", "generation-1"} {
		if _, err := os.Stat(filepath.Join(data, "set-aside-1", kept)); err != nil {
			t.Error(err)
		}
	}
	p.start(altered)
	load.fill(600, 700, "true")
	p.caughtUp(altered, 30*time.Second)
	p.same(700)

	// All of its rows are gone, and it has acknowledged more meanwhile.
	p.kill(altered)
	states, err := filepath.Glob(filepath.Join(data, "generation-*", "state"))
	if err != nil || len(states) != 1 {
		t.Fatal(states, err)
	}
	if err := os.RemoveAll(states[0]); err != nil {
		t.Fatal(err)
	}
	p.refused(altered)
	p.done("rebuild", "--data", data, "--yes")
	p.start(altered)
	p.caughtUp(altered, 30*time.Second)
	p.same(700)

	// The log has lost what it acknowledged.
	p.kill(altered)
	logs, err := filepath.Glob(filepath.Join(data, "generation-*", "wal"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	if err := os.RemoveAll(logs[0]); err != nil {
		t.Fatal(err)
	}
	_, said, code = p.kvctl("rebuild", "--data", data, "--yes")
	if want := fmt.Sprintf("cluster replace n%d n%d %s", altered+1, altered+1, p.listens[altered]); code != 1 || !strings.Contains(said, want) || !strings.Contains(said, "nothing was changed") {
		t.Errorf("without a log: %d, %s", code, said)
	}
	p.reads("load/00000699", "true")
}

// Two of three directories are lost. What is left says what it knows; a recovery makes a new
// cluster of it, with all that its log held, and nothing of the old one joins it.
func TestClusterRecover(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	leader := p.leader()
	left, short := (leader+1)%3, (leader+2)%3
	p.put("old", "1")
	p.caughtUp(short, 20*time.Second)
	p.kill(short)
	load := &loader{t: t, client: p.connect(p.listens[leader], p.listens[left]), size: 100}
	load.fill(0, 300, "kept")
	p.put("new", "2")
	p.caughtUp(left, 20*time.Second)

	refused := func(code int, want string, args ...string) {
		t.Helper()
		out, said, got := p.kvctl(append([]string{"cluster", "recover"}, args...)...)
		if got != code || !strings.Contains(said, want) || !strings.Contains(said, "next: ") {
			t.Errorf("recover %v ends with %d, expected %d and %q: %s%s", args, got, code, want, out, said)
		}
	}
	made := t.TempDir()
	dir := func(i int) string { return filepath.Join(made, fmt.Sprintf("n%d", i+1)) }
	addresses := freeAddresses(t, 3)
	to := []string{"--to", fmt.Sprintf("n1=%s,n2=%s,n3=%s", dir(0), dir(1), dir(2)),
		"--initial-cluster", fmt.Sprintf("n1=%s,n2=%s,n3=%s", addresses[0], addresses[1], addresses[2]), "--yes"}
	with := func(args ...string) []string { return append(args, to...) }

	refused(2, "give either --inspect or --from DIR", p.data(left))
	refused(7, "is in use by process", "--inspect", p.data(left))
	p.kill(left)
	refused(6, "a quorum of the cluster is there (n", with("--from", p.data(left))...)
	p.kill(leader)
	refused(6, "a quorum of the cluster is there: nothing is lost", with("--from", p.data(left), p.data(short))...)
	if out := p.done("cluster", "recover", "--inspect", p.data(left), p.data(short)); !strings.Contains(out, "Nothing is lost") {
		t.Errorf("%s", out)
	}
	if err := os.RemoveAll(p.data(short)); err != nil {
		t.Fatal(err)
	}
	p.start(leader) // without a quorum
	p.saysHello(leader, name(leader))
	refused(6, "a quorum of the cluster is there", with("--from", p.data(left))...)
	p.kill(leader)
	lost := filepath.Join(made, "lost")
	if err := os.Rename(p.data(leader), lost); err != nil {
		t.Fatal(err)
	}

	refused(3, "there is no directory", "--inspect", p.data(short))
	before := fingerprint(t, p.data(left))
	out := p.done("cluster", "recover", "--inspect", p.data(left))
	for _, want := range []string{"The best log is that of " + p.data(left), "Surely there: all that was acknowledged up to entry ", "May be missing: what ", "Cannot be known: ", "--accept-loss"} {
		if !strings.Contains(out, want) {
			t.Errorf("inspect does not say %q:\n%s", want, out)
		}
	}
	refused(6, "would be given up", with("--from", p.data(left))...)
	refused(2, "recover needs --to and --initial-cluster", "--from", p.data(left))
	if out := p.done(append([]string{"cluster", "recover"}, with("--from", p.data(left), "--accept-loss", "--dry-run")...)...); !strings.Contains(out, "would make a new cluster") {
		t.Errorf("%s", out)
	}

	// One that was broken off goes on, and another is not mixed with it.
	stage := dir(0) + ".recovery"
	if err := os.WriteFile(dir(1), nil, 0o600); err != nil { // a file in the way
		t.Fatal(err)
	}
	if out, said, code := p.kvctl(append([]string{"cluster", "recover"}, with("--from", p.data(left), "--accept-loss")...)...); code == 0 {
		t.Errorf("over a file: %s%s", out, said)
	}
	if err := os.Remove(dir(1)); err != nil {
		t.Fatal(err)
	}
	out = p.done(append([]string{"cluster", "recover"}, with("--from", p.data(left), "--accept-loss")...)...)
	for _, want := range []string{"recovered " + p.data(left), "given up: what ", "new cluster ", "can join this one"} {
		if !strings.Contains(out, want) {
			t.Errorf("recover does not say %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(stage); !os.IsNotExist(err) {
		t.Errorf("the stage is left: %v", err)
	}
	if after := fingerprint(t, p.data(left)); after != before {
		t.Error("the directory that was recovered has changed")
	}
	refused(7, "is not empty", with("--from", p.data(left), "--accept-loss")...)

	// The new cluster has all of it, and the old node that comes back joins nothing.
	q := newCluster(t, addresses)
	q.endpoints, q.dir = addresses, made
	for i := range 3 {
		q.start(i)
	}
	q.leader()
	q.reads("old", "1")
	q.reads("new", "2")
	q.same(300)
	if out := q.done("put", "after", "x", "--json"); !strings.Contains(out, `"revision": "1000`) {
		t.Errorf("%s", out)
	}
	p.start(left)
	time.Sleep(time.Second)
	if s := p.status(left); s != nil && s.Leader.GetRaftId() != 0 {
		t.Errorf("what is left of the old cluster says %v", s)
	}
	q.same(300)
}

// fingerprint is of all that is in a directory.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %x %v\n", path, sum(b), info.ModTime())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func sum(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }
