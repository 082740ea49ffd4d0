package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyval/messages"
)

func TestCompact(t *testing.T) {
	r := fruit(t) // revision 6
	unasked := r.kvctl(t, "compact", "--revision", "4")
	if unasked.check(t, 6, ""); !strings.HasSuffix(unasked.stderr, "  next: /opt/kvctl compact --revision 4 --yes\n") {
		t.Errorf("%q", unasked.stderr)
	}
	dry := r.kvctl(t, "compact", "--revision", "4", "--dry-run")
	dry.check(t, 0, `would compact at revision 4, of 6. Reads at revisions 1 to 3 would be refused for ever; those from 4 on go on.
NODE   READS FROM  LOG ENTRIES  LOG SIZE
node1  1           101          2.5 MB
node2  1           102          2.5 MB
node3  1           103          2.5 MB
The logs would keep what is younger than the checkpoints that are made then, and what
followers that run still need.
`)
	if got := fields(t, r.kvctl(t, "compact", "--dry-run", "--json").out); got["dry_run"] != true || got["compacted_revision"] != "6" || len(got["nodes"].([]any)) != 3 {
		t.Errorf("%v", got)
	}
	done := r.kvctl(t, "compact", "--revision", "4", "--yes")
	done.check(t, 0, `history before revision 4 is given up, at revision 6 (request 0badcafe-w1)
NODE   READS FROM  LOG ENTRIES  LOG SIZE
node1  4           101 -> 2     2.5 MB -> 25 kB
node2  4           102 -> 3     2.5 MB -> 25 kB
node3  4           103 -> 4     2.5 MB -> 25 kB
A log keeps what came after its checkpoint and what followers that run still need; a follower's
up to 625 entries or 2.1 MB more, however often it is compacted: it may lead next, and bring others up.
`)
	if done.stderr != "✓ revision 6: reads below 4 are refused\n" {
		t.Errorf("%q", done.stderr)
	}
	old := r.kvctl(t, "get", "a", "--revision", "3")
	if old.check(t, 1, ""); !strings.HasPrefix(old.stderr, "kvctl: revision 3 is no longer kept, the oldest is 4\n") {
		t.Errorf("%q", old.stderr)
	}
	again := r.kvctl(t, "compact", "--revision", "2", "--dry-run")
	if !strings.Contains(again.out, "Reads below revision 4 are refused already: nothing more would be.") {
		t.Errorf("%q", again.out)
	}
	again = r.kvctl(t, "compact", "--revision", "2", "--yes")
	if again.check(t, 0, "Reads below revision 4 are refused already: nothing has changed.\n"); again.stderr != "" {
		t.Errorf("%q", again.stderr)
	}
	if got := fields(t, r.kvctl(t, "compact", "--revision", "2", "--yes", "--json").out); got["already"] != true || got["compacted_revision"] != "4" || got["request_id"] != "" {
		t.Errorf("%v", got)
	}
	future := r.kvctl(t, "compact", "--revision", "99", "--yes")
	if future.check(t, 2, ""); !strings.Contains(future.stderr, "revision 99 is in the future, the newest is 6") {
		t.Errorf("%q", future.stderr)
	}
}

func TestCompactAsks(t *testing.T) {
	r := fruit(t)
	r.inTTY, r.tty, r.stdin = true, true, strings.NewReader("no\n")
	got := r.kvctl(t, "compact")
	if got.check(t, 1, ""); !strings.HasPrefix(got.stderr, "Give up history? Reads at revisions 1 to 5 would be refused for ever; those from 6 on go on. The newest revision is 6. The log has 101 entries") {
		t.Errorf("%q", got.stderr)
	}
	if r.cluster.compacted != 0 {
		t.Error("it was compacted all the same")
	}
}

// TestCompactSaysWhoHasNot: a node that is down, and one that makes no checkpoint.
func TestCompactSaysWhoHasNot(t *testing.T) {
	r := fruit(t)
	r.cluster.down = []string{"127.0.0.1:7003"}
	dry := r.kvctl(t, "compact", "--dry-run")
	if dry.code != 0 || !strings.Contains(dry.out, "node3 does not answer (connection refused): it would be brought the whole state when it comes back.") {
		t.Errorf("%+v", dry)
	}
	r.cluster.slow = map[string]bool{"127.0.0.1:7002": true}
	got := r.kvctl(t, "compact", "--yes", "--timeout", "300ms", "--progress", "none", "--json")
	nodes := fields(t, got.out)["nodes"].([]any)
	want := []any{
		map[string]any{"name": "node1", "endpoint": "127.0.0.1:7001", "done": true, "compacted_revision": "6", "log_entries_before": "101",
			"log_entries_after": "2", "log_bytes_before": 2500000.0, "log_bytes_after": 25000.0, "error": ""},
		map[string]any{"name": "node2", "endpoint": "127.0.0.1:7002", "done": false, "compacted_revision": "6", "log_entries_before": "102",
			"log_entries_after": "102", "log_bytes_before": 2500000.0, "log_bytes_after": 2500000.0, "error": ""},
		map[string]any{"name": "node3", "endpoint": "127.0.0.1:7003", "done": false, "compacted_revision": "0", "log_entries_before": "0",
			"log_entries_after": "0", "log_bytes_before": 0.0, "log_bytes_after": 0.0, "error": "connection refused"},
	}
	if diff := cmp.Diff(want, nodes); diff != "" || got.code != 9 {
		t.Errorf("exit code %d: %s", got.code, diff)
	}
	if want := "node2 has not made its checkpoint yet, and will\nnode3 does not answer, and gives it up when it comes back: connection refused\n"; got.stderr != want {
		t.Errorf("%q", got.stderr)
	}
	unwaited := r.kvctl(t, "compact", "--yes", "--wait=false")
	if unwaited.code != 0 || strings.Contains(unwaited.out, "NODE") || !strings.Contains(unwaited.stderr, "follow it: /opt/kvctl status --json") {
		t.Errorf("%+v", unwaited)
	}
}

func TestCompactRefused(t *testing.T) {
	r := run{cluster: newFake()}
	r.kvctl(t, "compact", "--yes").check(t, 2, "") // nothing was written yet
	r.cluster.refuse = messages.Errorf(messages.Code_NO_LEADER, "no node leads")
	r.kvctl(t, "compact", "--yes").check(t, 5, "")
}
