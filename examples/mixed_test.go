//go:build linux

package examples

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// upgradeEnv has TestMixedVersions run: "next" upgrades from this software to the same with
// one level more; anything else is a revision of git to upgrade from, which must be there.
const upgradeEnv = "KEYVAL_UPGRADE"

// TestMixedVersions upgrades a loaded cluster node by node, so that two versions of different
// levels run side by side, and holds what operators rely on: no write fails; the level stays
// until all are upgraded, and cannot be raised before; then it is, under load; and from then
// on older software is let in neither as a new node nor on a member's directory.
func TestMixedVersions(t *testing.T) {
	from := os.Getenv(upgradeEnv)
	if from == "" {
		t.Skip("make upgrade runs it: it builds kvctl twice")
	}
	bin := t.TempDir()
	older, newer, installed := filepath.Join(bin, "older"), filepath.Join(bin, "newer"), filepath.Join(bin, "kvctl")
	if from == "next" {
		build(t, "..", older, "older")
	} else {
		build(t, checkedOut(t, from), older, "older")
	}
	build(t, "..", newer, "newer", "-overlay="+oneLevelMore(t))
	replaceFile(t, older, installed)

	environment, endpoints := devCluster(t, installed)
	m := &mixed{t: t, environment: append(environment, "KVCTL="+newer, "NEWER="+newer, "INSTALLED="+installed, "RAISED="+filepath.Join(bin, "raised"),
		`RESTART="$KVCTL" cluster level raise --yes >/dev/null 2>&1; echo $? >>"$RAISED"; cp "$NEWER" "$INSTALLED.new" && mv "$INSTALLED.new" "$INSTALLED" && "$KVCTL" dev stop "$NODE" && "$KVCTL" dev start "$NODE"`)}
	for deadline := time.Now().Add(20 * time.Second); m.code(newer, "put", "hello", "world") != 0 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	was := m.level(newer)
	if len(was.Members) != 3 || was.Newest != was.Level {
		t.Fatalf("before: %+v", was)
	}

	stop := load(t, endpoints)
	began := time.Now()
	said := m.run("./rolling-upgrade.sh")
	took := time.Since(began)
	if raised, err := os.ReadFile(m.value("RAISED")); err != nil || string(raised) != "0\n6\n6\n" { // at first there is no newer level
		t.Errorf("raising the level while older software runs ends with %q, want 6 while both run: %v", raised, err)
	}
	upgraded := m.level(newer)
	if upgraded.Level != was.Level || upgraded.Supported != was.Level+1 {
		t.Errorf("after the upgrade: %+v\n%s", upgraded, said)
	}
	m.run(newer, "cluster", "level", "raise", "--yes")
	if raised := m.level(newer); raised.Level != was.Level+1 {
		t.Errorf("raised: %+v", raised)
	}
	time.Sleep(500 * time.Millisecond)
	count, gap, err := stop()
	t.Logf("from level %d to %d on 3 nodes in %v: %d writes, none for %v at most", was.Level, was.Level+1, took.Round(100*time.Millisecond), count, gap.Round(time.Millisecond))
	if err != nil {
		t.Errorf("a write failed: %v\n%s", err, said)
	}
	m.run(newer, "verify")
	m.olderIsRefused(older, newer, endpoints[0], from == "next")
}

// mixed is a cluster of several versions.
type mixed struct {
	t           *testing.T
	environment []string
}

func (m *mixed) value(name string) string {
	for _, v := range m.environment {
		if value, is := strings.CutPrefix(v, name+"="); is {
			return value
		}
	}
	return ""
}

func (m *mixed) command(program string, args ...string) (out string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, program, args...)
	command.Env = m.environment
	text, err := command.CombinedOutput()
	if err != nil && command.ProcessState == nil {
		m.t.Fatalf("%s %v: %v", program, args, err)
	}
	return string(text), command.ProcessState.ExitCode()
}

func (m *mixed) code(program string, args ...string) int {
	_, code := m.command(program, args...)
	return code
}

func (m *mixed) run(program string, args ...string) string {
	m.t.Helper()
	out, code := m.command(program, args...)
	if code != 0 {
		m.t.Fatalf("%s %v ends with %d:\n%s", program, args, code, out)
	}
	return out
}

// levels is what kvctl cluster level says.
type levels struct {
	Level, Supported, Newest uint32
	Members                  []struct{ Name, Version string }
}

func (m *mixed) level(kvctl string) (l levels) {
	m.t.Helper()
	if err := json.Unmarshal([]byte(m.run(kvctl, "cluster", "level", "--json")), &l); err != nil {
		m.t.Fatal(err)
	}
	return l
}

// olderIsRefused: at the door, when it is added, and on a member's directory. Software that
// does not say its levels at the door yet is only tried on a directory.
func (m *mixed) olderIsRefused(older, newer, member string, says bool) {
	m.t.Helper()
	if says {
		dir, address := m.t.TempDir(), freeAddresses(m.t, 1)[0]
		out, code := m.command(older, "serve", "--join", member, "--name", "node9", "--listen", address, "--data", filepath.Join(dir, "node9"))
		if code != 4 || !strings.Contains(out, "node9 is not let in: its software supports level") {
			m.t.Errorf("an older node that joins ends with %d:\n%s", code, out)
		}
		out, code = m.command(newer, "cluster", "add", "node9", address, "--timeout", "5s")
		if code != 6 || !strings.Contains(out, "node9 is not let in: its software supports level") {
			m.t.Errorf("adding it ends with %d:\n%s", code, out)
		}
	}
	m.run(newer, "dev", "stop", "node3")
	out, code := m.command(older, "serve", "--data", m.nodeData("node3"))
	if code == 0 || !strings.Contains(out, "level") {
		m.t.Errorf("older software on a member's directory ends with %d:\n%s", code, out)
	}
	m.t.Logf("older software on a member's directory: %s", strings.TrimSpace(lastLines(out, 3)))
	m.run(newer, "dev", "start", "node3")
	for deadline := time.Now().Add(20 * time.Second); m.code(newer, "cluster", "health") != 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatal("node3 does not come back on its directory with newer software")
		}
	}
	m.run(newer, "verify")
}

// nodeData is where kvctl dev keeps the data of a node.
func (m *mixed) nodeData(name string) string {
	found, err := filepath.Glob(filepath.Join(m.value("TMPDIR"), "*", name))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("the data of %s: %v, %v", name, found, err)
	}
	return found[0]
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// build makes a kvctl from a tree.
func build(t *testing.T, tree, to, version string, flags ...string) {
	t.Helper()
	args := append(append([]string{"build"}, flags...), "-ldflags", "-X keyval/cli.Version="+version, "-o", to, "./cli/kvctl")
	command := exec.Command("go", args...)
	command.Dir = tree
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", version, err, out)
	}
}

// oneLevelMore is an overlay for go build, with which the software supports one level more.
func oneLevelMore(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../messages/level.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^\tLevel( +)= (\d+)$`)
	found := declared.FindSubmatch(source)
	if found == nil {
		t.Fatal("messages/level.go does not declare Level as it did")
	}
	var level int
	if _, err := fmt.Sscan(string(found[2]), &level); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "level.go"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{
		changed: declared.ReplaceAll(source, fmt.Appendf(nil, "\tLevel${1}= %d", level+1)), overlay: text,
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}

// checkedOut is the tree of a revision.
func checkedOut(t *testing.T, revision string) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("sh", "-c", `git -C .. archive "$0" | tar -x -C "$1"`, revision, dir).CombinedOutput()
	if _, missing := os.Stat(filepath.Join(dir, "go.mod")); err != nil || missing != nil {
		t.Fatalf("revision %s: %v\n%s", revision, err, out)
	}
	return dir
}

// replaceFile installs a program at a path.
func replaceFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
}
