//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// TestDoctorOfRealFaults: faults that no script can make, since they take another build, or keys and backups
// of another time. Each is mended before the next.
func TestDoctorOfRealFaults(t *testing.T) {
	p, data := devOfThree(t, "--metrics", "--secure")
	well := "^well: 3 nodes asked, nothing found"
	p.diagnosed(0, well)

	// A node of another version, whose clock is 90 s ahead.
	other := built(t, change{"actors/seam/production/production.go", "return time.Now().UnixMilli()", "return time.Now().UnixMilli() + 90_000"})
	control := func(verb, name string) {
		if out, err := exec.Command(binary, "dev", verb, name, "--data", data).CombinedOutput(); err != nil {
			t.Fatalf("dev %s %s: %v: %s", verb, name, err, out)
		}
	}
	control("stop", "node3")
	node := exec.Command(other, "serve", "--data", filepath.Join(data, "node3"), "--certs-dir", p.authority.Of(transport.Principal{Kind: transport.NodeKey, Name: "node3"}))
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = node.Process.Kill()
		_ = node.Wait()
	}
	t.Cleanup(end)
	p.diagnosed(9, `\Awarning +the clock of node3 is 1m30s ahead of that of node\d\n(.*\n){2}note +nodes run different versions\n +another on node3; `)
	end()
	control("start", "node3")
	p.diagnosed(0, well)

	// A certificate that is good for 25 days.
	second := transport.Principal{Kind: transport.NodeKey, Name: "node2"}
	issue := func(age time.Duration) {
		a := keys.Authority{Dir: p.authority.Dir, Now: func() time.Time { return time.Now().Add(-age) }}
		err := os.Rename(a.Of(second), fmt.Sprintf("%s.%d", a.Of(second), age))
		if _, _, wrong := a.Issue(second, []string{"127.0.0.1", "localhost"}); err != nil || wrong != nil {
			t.Fatal(err, wrong)
		}
	}
	issue(340 * 24 * time.Hour)
	p.diagnosed(9, `\Awarning +node2: .*certificate.*\n.*next: kvctl cert list`)
	issue(0)
	p.diagnosed(0, well)

	// A job that has made no backup for 5 hours.
	job := &messages.BackupJob{Name: "here:/backups", EveryMs: 3_600_000, VerifiedAtMs: time.Now().Add(-5 * time.Hour).UnixMilli()}
	if err := (client.ClusterAPI{ClusterAsker: p.connect(p.endpoints...)}).NoteBackup(context.Background(), &messages.NoteBackup{Job: job}); err != nil {
		t.Fatal(err)
	}
	p.diagnosed(9, `\Awarning +the backup to here:/backups is too old: one is to be made every 60 min; last verified backup 5 h ago`)
	p.done("backup", "forget", "here:/backups")
	p.diagnosed(0, well)
}

// diagnosed waits until kvctl doctor ends with a code and says what has a match.
func (p *processes) diagnosed(code int, pattern string) {
	p.t.Helper()
	wanted := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, said, is := p.kvctl("doctor")
		if is == code && wanted.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("after 30 s kvctl doctor ends with %d, and does not say %q:\n%s%s", is, pattern, out, said)
		}
	}
}

// change is a piece of a source that a build has otherwise.
type change struct{ file, is, becomes string }

// built is a kvctl of another version, from sources with changes. What it was made of stays as it is.
func built(t *testing.T, changes ...change) string {
	t.Helper()
	dir := t.TempDir()
	texts, overlay := map[string]string{}, []string{}
	for _, c := range changes {
		source, err := filepath.Abs(filepath.Join("../..", c.file))
		if err != nil {
			t.Fatal(err)
		}
		if texts[source] == "" {
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			texts[source] = string(text)
		}
		if strings.Count(texts[source], c.is) != 1 {
			t.Fatalf("%s is not as it was: there is no one place for a change of %q", source, c.is)
		}
		texts[source] = strings.Replace(texts[source], c.is, c.becomes, 1)
	}
	for source, text := range texts {
		copied := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay)))
		if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay = append(overlay, fmt.Sprintf("%q: %q", source, copied))
	}
	file, to := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "kvctl")
	if err := os.WriteFile(file, []byte(`{"Replace": {`+strings.Join(overlay, ", ")+`}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-overlay", file, "-ldflags", "-X keyval/cli.Version=another", "-o", to, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}
