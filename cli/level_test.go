package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyval/messages"
)

func TestLevelShow(t *testing.T) {
	r := run{cluster: newFake()}
	r.cluster.supports = map[string]uint32{"127.0.0.1:7001": 2, "127.0.0.1:7002": 2}
	r.kvctl(t, "cluster", "level").check(t, 0, `the cluster is at level 1
NAME   ENDPOINT        SUPPORTS  VERSION
node1  127.0.0.1:7001  1 to 2    test
node2  127.0.0.1:7002  1 to 2    test
node3  127.0.0.1:7003  1 to 1    test
`)
	r.kvctl(t, "cluster", "level", "-o", "simple").check(t, 0, "1\n")
	r.cluster.supports["127.0.0.1:7003"] = 3
	if got := r.kvctl(t, "cluster", "level"); got.stderr != "all members support level 2: /opt/kvctl cluster level raise\n" {
		t.Errorf("%q", got.stderr)
	}
	r.cluster.down = []string{"127.0.0.1:7003"}
	got := r.kvctl(t, "cluster", "level", "--json")
	want := map[string]any{"level": 1.0, "supported": 0.0, "newest": 2.0, "members": []any{
		map[string]any{"name": "node1", "endpoint": "127.0.0.1:7001", "level": 1.0, "level_min": 1.0, "level_max": 2.0, "version": "test", "error": ""},
		map[string]any{"name": "node2", "endpoint": "127.0.0.1:7002", "level": 1.0, "level_min": 1.0, "level_max": 2.0, "version": "test", "error": ""},
		map[string]any{"name": "node3", "endpoint": "127.0.0.1:7003", "level": 0.0, "level_min": 0.0, "level_max": 0.0, "version": "", "error": "connection refused"},
	}}
	if diff := cmp.Diff(want, fields(t, got.out)); diff != "" || got.code != 9 {
		t.Errorf("exit code %d: %s", got.code, diff)
	}
}

func TestLevelRaise(t *testing.T) {
	const raise = "cluster level raise"
	all := map[string]uint32{"127.0.0.1:7001": 2, "127.0.0.1:7002": 2, "127.0.0.1:7003": 2}
	for _, row := range []struct {
		line     string
		supports map[string]uint32
		down     string
		refuse   *messages.Error
		code     int
		out, err string // err: what stderr holds
	}{
		{raise, all, "", nil, exitUnsafe, "", "kvctl cluster level raise --yes"},
		{raise + " zero", all, "", nil, exitUsage, "", `"zero" is no level`},
		{raise + " 0", all, "", nil, exitUsage, "", `"0" is no level`},
		{raise + " 2 --yes", all, "", nil, exitOK, "the cluster's level is 2, it was 1\n", ""},
		{raise + " 1 --yes", all, "", nil, exitOK, "the cluster is at level 1 already\n", ""},
		{raise + " 2 --yes -o simple", all, "", nil, exitOK, "2\n", ""},
		{raise + " --yes", all, "", messages.Errorf(messages.Code_UNSAFE, "node3 does not answer"), exitUnsafe, "", "node3 does not answer"},
		{raise + " --yes", all, "", messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "who knows"), exitUnknown, "", "who knows"},
		{raise + " --dry-run -o simple", all, "", nil, exitOK, "2\n", ""},
		{raise + " --dry-run", map[string]uint32{"127.0.0.1:7001": 2, "127.0.0.1:7002": 2}, "", nil, exitUnsafe, "", "not be raised: node3 supports level 1 alone"},
		{raise + " --dry-run", all, "127.0.0.1:7003", nil, exitUnsafe, "", "not be raised: node3 does not answer"},
	} {
		r := run{cluster: newFake()}
		r.cluster.supports, r.cluster.refuse = row.supports, row.refuse
		if row.down != "" {
			r.cluster.down = []string{row.down}
		}
		got := r.kvctl(t, strings.Fields(row.line)...)
		if got.code != row.code || got.out != row.out || !strings.Contains(got.stderr, row.err) {
			t.Errorf("%s: exit code %d, %q, %q", row.line, got.code, got.out, got.stderr)
		}
	}
	r := run{cluster: newFake()}
	got := fields(t, r.kvctl(t, "cluster", "level", "raise", "2", "--yes", "--json").out)
	if got["level"] != 2.0 || got["level_before"] != 1.0 || got["raised"] != true || got["dry_run"] != false || got["request_id"] != fakeRequest || len(got["members"].([]any)) != 3 {
		t.Errorf("%v", got)
	}
}
