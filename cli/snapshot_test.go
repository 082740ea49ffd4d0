package cli

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keyval/messages"
)

// library is a cluster whose nodes keep snapshots.
func library() run {
	r := run{cluster: newFake()}
	members := []*messages.Member{{RaftId: 1, Name: "node1", Address: "127.0.0.1:7001"}, {RaftId: 2, Name: "node2", Address: "127.0.0.1:7002"}}
	r.cluster.files = map[string][]*messages.SnapshotInfo{
		"127.0.0.1:7001": {
			{Id: "snapshot-2024-01-15-120000", Index: 10000, Term: 5, Revision: 9000, Bytes: 2_500_000, CreatedAtMs: 1705320000000, Members: members, Rows: 77, Hash: []byte{0xab}, Version: "test", CompactedRevision: 8000},
			{Id: "snapshot-2024-01-13-120000", Index: 6000, Term: 4, Bytes: 1_500_000, CreatedAtMs: 1705147200000, Members: members},
		},
		"127.0.0.1:7002": {
			{Id: "snapshot-2024-01-14-120000", Index: 8000, Term: 5, Bytes: 300_000, BytesTotal: 2_000_000, Writing: true, CreatedAtMs: 1705233600000, Members: members},
			{Id: "snapshot-2024-01-13-120000", Index: 6000, Term: 4, Bytes: 17, Error: "its trailer is missing"},
		},
	}
	return r
}

func TestSnapshotList(t *testing.T) {
	r := library()
	got := r.kvctl(t, "snapshot", "list")
	got.check(t, 0, `ID                          INDEX  TERM  SIZE                    CREATED           MEMBERS  NODE
--                          -----  ----  ----                    -------           -------  ----
snapshot-2024-01-15-120000  10000  5     2.5 MB                  2024-01-15 12:00  2        node1
snapshot-2024-01-14-120000  8000   5     300 kB of about 2.0 MB  2024-01-14 12:00  2        node2
snapshot-2024-01-13-120000  6000   4     1.5 MB                  2024-01-13 12:00  2        node1
snapshot-2024-01-13-120000  6000   4     17 B                    -                 0        node2

Total: 4 snapshots
`)
	want := "snapshot-2024-01-14-120000 of node2 is being written: 300 kB of about 2.0 MB\n" +
		"snapshot-2024-01-13-120000 of node2 is of no use: its trailer is missing\n"
	if got.stderr != want {
		t.Errorf("stderr %q", got.stderr)
	}
	r.kvctl(t, "snapshot", "list", "-o", "simple", "--server", "127.0.0.1:7001").check(t, 0,
		"snapshot-2024-01-15-120000\tnode1\t10000\t2500000\nsnapshot-2024-01-13-120000\tnode1\t6000\t1500000\n")
	r.kvctl(t, "snapshot", "list", "--server", "127.0.0.1:7003").check(t, 0, "Total: 0 snapshots\n")
	r.kvctl(t, "snapshot", "list", "--server", "127.0.0.1:7003", "--json").check(t, 0, "[]\n")

	r.cluster.down = []string{"127.0.0.1:7002"}
	some := r.kvctl(t, "snapshot", "list", "--json")
	var rows []map[string]any
	if err := json.Unmarshal([]byte(some.out), &rows); err != nil || some.code != 9 || len(rows) != 2 {
		t.Fatalf("%v: %+v", err, some)
	}
	wantRow := map[string]any{
		"id": "snapshot-2024-01-15-120000", "node": "node1", "endpoint": "127.0.0.1:7001", "index": "10000", "term": "5", "revision": "9000",
		"compacted_revision": "8000", "bytes": 2500000.0, "bytes_total": 0.0, "created_at": "2024-01-15T12:00:00Z", "version": "test", "rows": "77",
		"hash": "ab", "writing": false, "error": "", "members": []any{
			map[string]any{"id": "node1", "raft_id": "1", "address": "127.0.0.1:7001"},
			map[string]any{"id": "node2", "raft_id": "2", "address": "127.0.0.1:7002"},
		},
	}
	if diff := cmp.Diff(wantRow, rows[0]); diff != "" {
		t.Error(diff)
	}
	if some.stderr != `{"note":"127.0.0.1:7002 could not be asked: connection refused"}`+"\n" {
		t.Errorf("stderr %q", some.stderr)
	}
	r.cluster.down = strings.Split(defaultEndpoints, ",")
	r.kvctl(t, "snapshot", "list").check(t, 5, "")
}

func TestSnapshotShow(t *testing.T) {
	r := library()
	r.kvctl(t, "snapshot", "show", "snapshot-2024-01-15-120000").check(t, 0, `id          snapshot-2024-01-15-120000
node        node1 at 127.0.0.1:7001
state       whole
size        2.5 MB
created     2024-01-15T12:00:00Z
index       10000
term        5
revision    9000
reads from  revision 8000
rows        77
members     node1 at 127.0.0.1:7001, node2 at 127.0.0.1:7002
version     test
hash        ab
`)
	if got := fields(t, r.kvctl(t, "snapshot", "show", "snapshot-2024-01-14-120000", "--json").out); got["writing"] != true || got["node"] != "node2" {
		t.Errorf("%v", got)
	}
	const both = "snapshot-2024-01-13-120000"
	if got := r.kvctl(t, "snapshot", "show", both); got.code != 7 || !strings.Contains(got.stderr, "choose one with --node node1") {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "snapshot", "show", both, "--node", "node2"); got.code != 0 || !strings.Contains(got.out, "of no use: its trailer is missing") {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "snapshot", "show", both, "--node", "node9"); got.code != 3 || !strings.Contains(got.stderr, "the members are node1, node2, node3") {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "snapshot", "show", "snapshot-x"); got.code != 3 || !strings.Contains(got.stderr, "snapshot list shows what there is") {
		t.Errorf("%+v", got)
	}
	r.kvctl(t, "snapshot", "show", "../etc").check(t, 2, "")
	r.cluster.down = []string{"127.0.0.1:7001"}
	if got := r.kvctl(t, "snapshot", "show", "snapshot-2024-01-15-120000"); got.code != 3 || !strings.Contains(got.stderr, "not asked: 127.0.0.1:7001: connection refused") {
		t.Errorf("%+v", got)
	}
}

func TestSnapshotDelete(t *testing.T) {
	r := library()
	const id = "snapshot-2024-01-15-120000"
	what := id + " of node1 (2.5 MB, revision 9000, created 2024-01-15T12:00:00Z)"
	unasked := r.kvctl(t, "snapshot", "delete", id)
	if unasked.check(t, 6, ""); !strings.HasSuffix(unasked.stderr, "  next: /opt/kvctl snapshot delete --yes "+id+"\n") {
		t.Errorf("%q", unasked.stderr)
	}
	r.kvctl(t, "snapshot", "delete", id, "--dry-run").check(t, 0, "would delete "+what+"; the data of the cluster are not touched\n")
	if got := fields(t, r.kvctl(t, "snapshot", "delete", id, "--dry-run", "--json").out); got["dry_run"] != true || got["deleted"] != false {
		t.Errorf("%v", got)
	}
	asked := r
	asked.inTTY, asked.tty, asked.stdin = true, true, strings.NewReader("n\n")
	if got := asked.kvctl(t, "snapshot", "delete", id); got.code != 1 || got.stderr != "Delete "+what+"? [y/N] nothing was deleted\n" {
		t.Errorf("%+v", got)
	}
	r.kvctl(t, "snapshot", "delete", id, "--yes").check(t, 0, "deleted "+what+"; the data of the cluster are not touched\n")
	r.kvctl(t, "snapshot", "delete", id, "--yes").check(t, 3, "")
	if got := fields(t, r.kvctl(t, "snapshot", "delete", "snapshot-2024-01-14-120000", "--yes", "--json").out); got["deleted"] != true {
		t.Errorf("%v", got)
	}
}

func TestSnapshotCreate(t *testing.T) {
	r := run{cluster: newFake()}
	r.kvctl(t, "put", "k", "v")
	looks := 0
	r.cluster.written = func(f *messages.SnapshotInfo) {
		if f.Bytes += 1_250_000; looks == 2 {
			f.Writing = false
		}
		looks++
	}
	got := r.kvctl(t, "snapshot", "create")
	if got.code != 0 || !regexp.MustCompile(`^created snapshot-\d{4}-\d\d-\d\d-\d{6} on node1: 3.8 MB at index 99, revision 1\n$`).MatchString(got.out) {
		t.Errorf("%+v", got)
	}
	if want := `(?s)^✓ the state at index 99, revision 1 is held\n✓ written: 3.8 MB in \d+ ms\n$`; !regexp.MustCompile(want).MatchString(got.stderr) {
		t.Errorf("%q", got.stderr)
	}

	r.cluster.written = nil
	elsewhere := r.kvctl(t, "snapshot", "create", "--node", "node2", "--wait=false", "--json")
	made := fields(t, elsewhere.out)
	if elsewhere.code != 0 || made["node"] != "node2" || made["writing"] != true || len(r.cluster.files["127.0.0.1:7002"]) != 1 {
		t.Errorf("%+v", elsewhere)
	}
	if want := `{"note":"follow it: /opt/kvctl snapshot show ` + made["id"].(string) + ` --node node2"}` + "\n"; elsewhere.stderr != want {
		t.Errorf("%q", elsewhere.stderr)
	}

	// Two within a second: the later one is called after the next second.
	r.cluster.written = func(f *messages.SnapshotInfo) { f.Writing = false }
	for range 2 {
		r.kvctl(t, "snapshot", "create", "--node", "node3", "-o", "simple")
	}
	if made := r.cluster.files["127.0.0.1:7003"]; len(made) != 2 || made[0].Id == made[1].Id {
		t.Errorf("%v", made)
	}

	r.cluster.files = nil
	r.cluster.written = func(f *messages.SnapshotInfo) { f.Error = "no space left on device" }
	if got := r.kvctl(t, "snapshot", "create", "--progress", "none"); got.code != 1 || !strings.HasPrefix(got.stderr, "kvctl: node1 did not write snapshot-") {
		t.Errorf("%+v", got)
	}
	r.cluster.written = func(f *messages.SnapshotInfo) { f.Id = "gone" }
	if got := r.kvctl(t, "snapshot", "create", "--progress", "none", "--node", "node3"); got.code != 1 || !strings.Contains(got.stderr, "was deleted, or the node was started anew") {
		t.Errorf("%+v", got)
	}
	r.cluster.refuse = messages.Errorf(messages.Code_CONFLICT, "another snapshot is being written")
	r.kvctl(t, "snapshot", "create").check(t, 7, "")
	r.cluster.refuse, r.cluster.leader = nil, ""
	if got := r.kvctl(t, "snapshot", "create"); got.code != 5 || !strings.Contains(got.stderr, "choose one of node1, node2, node3 with --node") {
		t.Errorf("%+v", got)
	}
}

// TestSnapshotCreateInterrupted: Ctrl-C ends the wait, and not the work.
func TestSnapshotCreateInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var stderr strings.Builder
	c := &Call{Shell: &Shell{Stderr: &stderr}}
	w := &snapshotWatch{call: c, progress: &progress{c: c, style: "none"}, id: "s", node: "node1", follow: "kvctl snapshot show s", began: time.Now()}
	f := newFake()
	f.files = map[string][]*messages.SnapshotInfo{"127.0.0.1:7001": {{Id: "s", Writing: true}}}
	f.written = func(*messages.SnapshotInfo) { cancel() }
	if _, err := w.run(ctx, &fakeStore{f, "127.0.0.1:7001"}); err == nil || stderr.String() != "node1 goes on with it: kvctl snapshot show s\n" {
		t.Errorf("%v: %q", err, stderr.String())
	}
}

func TestRate(t *testing.T) {
	var r rate
	start := time.Now()
	for i := range 20 {
		r.note(start.Add(time.Duration(i)*time.Second), uint64(min(i, 9))*1000)
		switch i {
		case 0:
			if r.perSecond != 0 || r.left(9000) != 0 {
				t.Errorf("%+v", r)
			}
		case 6:
			if r.perSecond != 1000 || r.left(9000) != 3*time.Second || r.left(0) != 0 {
				t.Errorf("%+v", r)
			}
		case 19:
			if r.perSecond != 0 || r.left(20_000) != 0 || r.stalled(start.Add(19*time.Second)) != 10*time.Second {
				t.Errorf("%+v", r)
			}
		}
	}
}
