package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

// someBackup is a backup of 200 keys.
func someBackup(t *testing.T) []byte {
	t.Helper()
	var rows []disk.Row
	for i := range uint64(200) {
		rows = append(rows, snapshottest.Row(fmt.Sprintf("key-%03d", i), i+1, strings.Repeat("v", 100)))
	}
	var b bytes.Buffer
	w := snapshot.NewWriter(&b)
	about := &messages.SnapshotHeader{CreatedAtMs: 1705320000000, CreatedBy: "node1", Version: "test"}
	for _, chunk := range snapshottest.Cut(t, snapshot.NewSource(snapshottest.StateAt(200, 0), about, 3000), rows) {
		if err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// giving is a cluster whose nodes give this file as their backup.
func giving(file []byte) run {
	r := run{cluster: newFake()}
	r.cluster.contents = map[string][]byte{"": file}
	return r
}

func TestBackupIsWritten(t *testing.T) {
	file, dir := someBackup(t), t.TempDir()
	r := giving(file)
	path := filepath.Join(dir, "b.kvb")
	got := r.kvctl(t, "backup", path, "--json")
	row := fields(t, got.out)
	if got.code != 0 || row["path"] != path || row["keys"] != "200" || row["revision"] != "200" || row["node"] != "node1" || row["endpoint"] != "127.0.0.1:7001" || row["created_at"] != "2024-01-15T12:00:00Z" {
		t.Fatalf("%+v", got)
	}
	if there, err := os.ReadFile(path); err != nil || !bytes.Equal(there, file) {
		t.Errorf("%d bytes, %v", len(there), err)
	}
	if left := r.cluster.files["127.0.0.1:7001"]; len(left) != 0 {
		t.Errorf("the node keeps %v", left)
	}
	if got := r.kvctl(t, "backup", path); got.code != 7 || !strings.Contains(got.stderr, "is there already") {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "backup", dir); got.code != 0 || !strings.Contains(got.out, "wrote "+filepath.Join(dir, "backup-")) {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "backup", "-"); got.code != 0 || got.out != string(file) || !strings.Contains(got.stderr, "wrote -: revision 200, 200 keys") {
		t.Errorf("%d, %s", got.code, got.stderr)
	}
	tty := giving(file)
	tty.tty = true
	tty.kvctl(t, "backup", "-").check(t, 2, "")
	r.kvctl(t, "backup").check(t, 2, "")
	r.kvctl(t, "backup", "a", "b").check(t, 2, "")
	r.kvctl(t, "backup", filepath.Join(dir, "none")+"/").check(t, 3, "")
	if names := namesIn(t, dir); len(names) != 2 {
		t.Errorf("%v", names)
	}
}

// A node that read at a revision and writes down an older one was started anew in between.
func TestBackupIsNotOlderThanWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	r := giving(someBackup(t))
	r.cluster.revision = 201
	got := r.kvctl(t, "backup", filepath.Join(dir, "b.kvb"))
	if got.code != 1 || !strings.Contains(got.stderr, "wrote down revision 200, and had read at revision 201") || len(namesIn(t, dir)) != 0 {
		t.Errorf("%+v, %v", got, namesIn(t, dir))
	}
	if got := r.kvctl(t, "backup", dir, "--consistency", "stale"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// What does not come whole leaves nothing under its name.
func TestBrokenBackupLeavesNothing(t *testing.T) {
	file, dir := someBackup(t), t.TempDir()
	bad := bytes.Clone(file)
	bad[9000] ^= 1
	for name, content := range map[string][]byte{"altered": bad, "cut short": file[:9000]} {
		got := giving(content).kvctl(t, "backup", filepath.Join(dir, "b.kvb"))
		if got.code != 1 || got.out != "" || !strings.Contains(got.stderr, "nothing was left") || !strings.Contains(got.stderr, "(chunk ") || len(namesIn(t, dir)) != 0 {
			t.Errorf("%s: %+v, %v", name, got, namesIn(t, dir))
		}
	}
	r := giving(file)
	r.cluster.refuse = messages.Errorf(messages.Code_NO_LEADER, "nobody leads")
	if got := r.kvctl(t, "backup", filepath.Join(dir, "b.kvb")); got.code != 5 || !strings.Contains(got.stderr, "--consistency stale") {
		t.Errorf("%+v", got)
	}
	r.cluster.down = strings.Split(defaultEndpoints, ",")
	r.kvctl(t, "backup", filepath.Join(dir, "b.kvb")).check(t, 5, "")
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSnapshotSave(t *testing.T) {
	r, file := library(), someBackup(t)
	const id = "snapshot-2024-01-15-120000"
	r.cluster.contents = map[string][]byte{id: file}
	path := filepath.Join(t.TempDir(), "s.kvb")
	if got := r.kvctl(t, "snapshot", "save", id, path, "-o", "simple"); got.code != 0 || !strings.HasPrefix(got.out, path+"\t200\t") {
		t.Errorf("%+v", got)
	}
	r.kvctl(t, "snapshot", "save", "snapshot-x", path+"2").check(t, 3, "")
}

func TestBackupIsVerifiedAndShown(t *testing.T) {
	file, dir := someBackup(t), t.TempDir()
	for _, name := range []string{"backup-2026-01-01-000000.kvb", "backup-2026-01-02-000000.kvb", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newest := filepath.Join(dir, "backup-2026-01-02-000000.kvb")
	var r run
	if row := fields(t, r.kvctl(t, "backup", "verify", dir, "--json").out); row["path"] != newest || row["keys"] != "200" || row["rows"] != "200" {
		t.Errorf("%v", row)
	}
	if got := r.kvctl(t, "backup", "show", dir); got.code != 0 || !strings.Contains(got.out, "revision    200\n") || !strings.Contains(got.out, "created     2024-01-15T12:00:00Z\n") {
		t.Errorf("%+v", got)
	}
	if row := fields(t, r.kvctl(t, "backup", "show", newest, "--json").out); row["revision"] != "200" || row["bytes"] != float64(len(file)) || row["rows"] != "200" {
		t.Errorf("%v", row)
	}
	stdin := run{stdin: bytes.NewReader(file)}
	if got := stdin.kvctl(t, "backup", "verify", "-"); got.code != 0 || !strings.HasPrefix(got.out, "verified -: revision 200") {
		t.Errorf("%+v", got)
	}
	file[5000] ^= 4
	if err := os.WriteFile(newest, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.kvctl(t, "backup", "verify", dir); got.code != 1 || !strings.Contains(got.stderr, newest) || !strings.Contains(got.stderr, "which begins at byte ") {
		t.Errorf("%+v", got)
	}
	r.kvctl(t, "backup", "verify", t.TempDir()).check(t, 3, "")
	r.kvctl(t, "backup", "verify", filepath.Join(dir, "none")).check(t, 3, "")
}

func TestRestoreAsksAndRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b.kvb")
	if err := os.WriteFile(path, someBackup(t), 0o600); err != nil {
		t.Fatal(err)
	}
	to := fmt.Sprintf("n1=%s/n1,n2=%s/n2", dir, dir)
	const cluster = "n1=127.0.0.1:7101,n2=127.0.0.1:7102"
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "restore needs --to and --initial-cluster"},
		{[]string{"--to", to}, 2, "restore needs --initial-cluster"},
		{[]string{"--to", "n1=" + dir + "/n1", "--initial-cluster", cluster, "--yes"}, 2, "--to has no directory for n2"},
		{[]string{"--to", to + ",n3=x", "--initial-cluster", cluster, "--yes"}, 2, "names a node that is not in"},
		{[]string{"--to", "n1", "--initial-cluster", cluster, "--yes"}, 2, "is no NAME=DIR"},
		{[]string{"--to", to, "--initial-cluster", cluster}, 6, "--yes"},
		{[]string{"--to", fmt.Sprintf("n1=%s/n1,n2=%s", dir, dir), "--initial-cluster", cluster, "--yes"}, 7, "is not empty"},
	} {
		if got := (run{}).kvctl(t, append([]string{"restore", path}, test.args...)...); got.code != test.code || got.out != "" || !strings.Contains(got.stderr, test.says) {
			t.Errorf("%q: %+v", test.args, got)
		}
	}
	dry := run{}.kvctl(t, "restore", path, "--to", to, "--initial-cluster", cluster, "--dry-run")
	if dry.code != 0 || !strings.Contains(dry.out, "(revision 200) a new cluster at revision 1000200:") {
		t.Errorf("%+v", dry)
	}
	no := run{inTTY: true, tty: true, stdin: strings.NewReader("n\n")}.kvctl(t, "restore", path, "--to", to, "--initial-cluster", cluster)
	if no.code != 1 || !strings.Contains(no.stderr, "Make a new cluster of 2 nodes from "+path+" (revision 200") {
		t.Errorf("%+v", no)
	}
	if names := namesIn(t, dir); len(names) != 1 {
		t.Fatalf("%v", names)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := run{stdin: file}.kvctl(t, "restore", "-", "--to", to, "--initial-cluster", cluster, "--yes", "--revision-gap", "5", "--json")
	row := fields(t, got.out)
	if got.code != 0 || row["new_revision"] != "205" || row["keys"] != "200" || len(row["directories"].([]any)) != 2 {
		t.Errorf("%+v", got)
	}
}
