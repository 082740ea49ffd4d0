//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// done runs a command that must succeed, and returns what it prints.
func (p *processes) done(args ...string) string {
	p.t.Helper()
	out, stderr, code := p.kvctl(args...)
	if code != 0 {
		p.t.Fatalf("kvctl %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, stderr)
	}
	return out
}

// backedUp is what kvctl says of a backup, as JSON.
func (p *processes) backedUp(args ...string) map[string]any {
	p.t.Helper()
	var row map[string]any
	if err := json.Unmarshal([]byte(p.done(append(args, "--json")...)), &row); err != nil {
		p.t.Fatal(err)
	}
	return row
}

// Backups are made under load, from each node. Then all nodes are lost. The cluster that is
// made of the last backup has every key as of its revision, and goes on above that; a node
// of the old cluster is no member of it.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	p.leader()
	c := p.connect(p.endpoints...)
	for i := range 300 { // values of which some are no text
		if _, err := c.Put(t.Context(), fmt.Appendf(nil, "before/%03d", i), []byte{byte(i), 0xff, '\n'}); err != nil {
			t.Fatal(err)
		}
	}
	w := p.write(8)
	backups := filepath.Join(p.dir, "backups")
	if err := os.Mkdir(backups, 0o700); err != nil {
		t.Fatal(err)
	}
	var last map[string]any
	for i := range p.endpoints {
		w.reach(t, 200)
		var acknowledged []string
		w.acknowledged.Range(func(key, _ any) bool {
			acknowledged = append(acknowledged, key.(string))
			return true
		})
		path := filepath.Join(backups, fmt.Sprintf("backup-%d.kvb", i))
		last = p.backedUp("backup", path, "--node", fmt.Sprintf("n%d", i+1))
		if verified := p.backedUp("backup", "verify", path); verified["hash"] != last["hash"] || verified["keys"] != last["keys"] {
			t.Errorf("%v was written, %v is there", last, verified)
		}
		// What was acknowledged before is in it.
		keys := p.done("scan", "--revision", last["revision"].(string), "--keys-only", "-o", "simple")
		all := strings.Split(keys, "\n")
		for _, key := range acknowledged {
			if _, found := slices.BinarySearch(all, key); !found {
				t.Errorf("%s was acknowledged before the backup of n%d, and is not in it", key, i+1)
			}
		}
		if got := fmt.Sprint(len(all) - 1); got != last["keys"] {
			t.Errorf("the backup of n%d has %s keys, there were %s", i+1, last["keys"], got)
		}
	}
	w.reach(t, 200)
	w.end()
	revision := last["revision"].(string)
	want := p.done("scan", "--revision", revision, "-o", "jsonl")
	older := p.done("get", "before/007", "--revision", revision, "--raw")

	for i := range p.running {
		p.kill(i)
	}
	old := p.data(2) + ".old"
	if err := os.Rename(p.data(2), old); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := os.RemoveAll(p.data(i)); err != nil {
			t.Fatal(err)
		}
	}
	to := fmt.Sprintf("n1=%s,n2=%s,n3=%s", p.data(0), p.data(1), p.data(2))
	restored := p.backedUp("restore", backups, "--to", to, "--initial-cluster", p.initial, "--yes")
	if restored["path"] != filepath.Join(backups, "backup-2.kvb") || restored["new_cluster_id"] == restored["cluster_id"] || restored["hash"] != last["hash"] {
		t.Errorf("%v", restored)
	}
	if _, stderr, code := p.kvctl("restore", backups, "--to", to, "--initial-cluster", p.initial, "--yes"); code != 7 || !strings.Contains(stderr, "is not empty") {
		t.Errorf("a second restore: %d, %s", code, stderr)
	}
	p.start(0)
	p.start(1)

	// n3 comes back with what it had: it is of another cluster.
	if err := os.Rename(p.data(2), p.data(2)+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, p.data(2)); err != nil {
		t.Fatal(err)
	}
	p.start(2)
	p.leader()
	put, err := p.connect(p.endpoints[:2]...).Put(t.Context(), []byte("after"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := strconv.ParseUint(revision, 10, 64); put.Revision <= n+1_000_000 {
		t.Errorf("the first write got %d, the backup has %s", put.Revision, revision)
	}
	if s := p.status(2); s != nil && (s.Role == "leader" || s.Revision > 1_000_000 || s.Leader.GetRaftId() != 0) {
		t.Errorf("n3 of the old cluster says %v", s)
	}
	p.kill(2)
	if err := os.RemoveAll(p.data(2)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.data(2)+".new", p.data(2)); err != nil {
		t.Fatal(err)
	}
	p.start(2)
	p.caughtUp(2, 30*time.Second)
	p.done("delete", "after")

	if out := p.done("verify"); !strings.Contains(out, "3") {
		t.Errorf("%s", out)
	}
	if got := keysOf(t, p.done("scan", "--revision", revision, "-o", "jsonl")); got != keysOf(t, want) {
		t.Errorf("as of revision %s the keys differ", revision)
	}
	if got := keysOf(t, p.done("scan", "-o", "jsonl")); got != keysOf(t, want) {
		t.Error("the newest keys differ")
	}
	if got := p.done("get", "before/007", "--revision", revision, "--raw"); got != older {
		t.Errorf("%q, not %q", got, older)
	}
	drill := p.backedUp("backup", "drill", backups, "--nodes", "1")
	if drill["equal"] != true || drill["hash"] != last["hash"] {
		t.Errorf("%v", drill)
	}
}

// keysOf is a scan without what belongs to the scan itself.
func keysOf(t *testing.T, lines string) string {
	t.Helper()
	var all strings.Builder
	for line := range strings.Lines(lines) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		delete(row, "read_revision")
		delete(row, "request_id")
		b, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
		all.WriteByte('\n')
	}
	return all.String()
}
