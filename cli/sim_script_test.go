package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scenario = `# Two nodes, one key.
cluster nodes=2
put color red
----
what a golden file holds is left out
`

func TestSimScript(t *testing.T) {
	var r run
	r.stdin = strings.NewReader(scenario)
	got := r.kvctl(t, "sim", "script", "-")
	for _, want := range []string{
		"# Two nodes, one key.\ncluster nodes=2\n", "Founded{", "\nput color red\n",
		"n1 raft       -> n2 raft       MsgApp{", "= put color: OK revision=1 by n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("%q is not in:\n%s", want, got.out)
		}
	}
	if got.code != 0 || got.stderr != "" || strings.Contains(got.out, "golden") {
		t.Errorf("exit %d, %s\n%s", got.code, got.stderr, got.out)
	}

	r.stdin = strings.NewReader(scenario)
	var rows []scriptJSON
	if err := json.Unmarshal([]byte(r.kvctl(t, "sim", "script", "-", "--json").out), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[1].Line != 3 || rows[1].Verb != "put color red" || len(rows[1].Said) < 10 {
		t.Errorf("%+v", rows)
	}
}

func TestSimScriptRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "scenario.txt")
	if err := os.WriteFile(path, []byte("trace off\ncluster nodes=3\ncrash n7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := run{}.kvctl(t, "sim", "script", path)
	if got.code != exitUsage || !strings.Contains(got.stderr, `line 3: there is no node "n7"`) || !strings.Contains(got.stderr, "nodes are n1 to n3") {
		t.Errorf("exit %d: %s", got.code, got.stderr)
	}
	if got.out != "trace off\ncluster nodes=3\ncrash n7\n" {
		t.Errorf("printed %q", got.out)
	}
	got = run{}.kvctl(t, "sim", "script", path+".not")
	if got.code != exitUsage || !strings.Contains(got.stderr, "no such file") {
		t.Errorf("exit %d: %s", got.code, got.stderr)
	}
}
