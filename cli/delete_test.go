package cli

import (
	"context"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
)

func TestDeletePrefix(t *testing.T) {
	r := fruit(t)
	r.kvctl(t, "delete", "--prefix", "b/", "--dry-run").check(t, 0, "would delete every key that begins with \"b/\": 3 keys as of revision 6\n")
	r.kvctl(t, "delete", "--prefix", "b/", "--dry-run", "-o", "simple").check(t, 0, "3\n")
	want := map[string]any{"prefix": "b/", "dry_run": true, "keys": "3", "read_revision": "6", "request_id": fakeRequest}
	if diff := cmp.Diff(want, fields(t, r.kvctl(t, "delete", "--prefix", "b/", "--dry-run", "--yes", "--json").out)); diff != "" {
		t.Error(diff)
	}
	r.kvctl(t, "delete", "--prefix", "b/", "--yes").check(t, 0, "deleted 3 keys that begin with \"b/\" at revision 9 (request 0badcafe-w1)\n")
	want = map[string]any{"prefix_base64": "/w==", "deleted": false, "deleted_keys": "0", "revision": "0", "request_id": ""}
	if diff := cmp.Diff(want, fields(t, r.kvctl(t, "delete", "--prefix", "\xff", "--yes", "--json").out)); diff != "" {
		t.Error(diff)
	}
	r.kvctl(t, "delete", "--prefix=", "--all", "--yes", "-o", "simple").check(t, 0, "3\n")
	r.kvctl(t, "scan", "--count").check(t, 0, "0\n")
}

// TestDeletePrefixUnasked: without a terminal and without --yes nothing is even
// asked of the cluster, and the command to paste is the same one.
func TestDeletePrefixUnasked(t *testing.T) {
	r := fruit(t)
	r.cluster.down = []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"}
	for _, test := range []struct{ line, want string }{
		{"delete --prefix b/", "/opt/kvctl delete --prefix b/ --yes"},
		{"--json delete --prefix=b/", "/opt/kvctl delete --json --prefix=b/ --yes"},
		{"--prefix -x delete --server 127.0.0.1:7009 --timeout=1m", "/opt/kvctl delete --prefix -x --server 127.0.0.1:7009 --timeout=1m --yes"},
		{"delete --prefix=it's", `/opt/kvctl delete '--prefix=it'\''s' --yes`},
		{"delete --prefix -- --yes=false", "/opt/kvctl delete --prefix -- --yes=false --yes"},
		{"delete --all --prefix=", "/opt/kvctl delete --all --prefix= --yes"},
	} {
		got := r.kvctl(t, strings.Fields(test.line)...)
		got.check(t, 6, "")
		said := got.stderr
		if strings.Contains(test.line, "--json") {
			said = "  next: " + fields(t, got.stderr)["hint"].(string) + "\n"
		}
		if !strings.HasSuffix(said, "  next: "+test.want+"\n") {
			t.Errorf("%s: %s", test.line, got.stderr)
		}
	}
	r.cluster.down = nil
	r.kvctl(t, "scan", "--count").check(t, 0, "6\n")
}

func TestDeletePrefixAsks(t *testing.T) {
	r := fruit(t)
	r.inTTY, r.tty = true, true
	question := "Delete every key that begins with \"b/\": 3 keys as of revision 6? [y/N] "
	for _, answer := range []string{"", "\n", "n\n", "yesterday\n"} {
		r.stdin = strings.NewReader(answer)
		got := r.kvctl(t, "delete", "--prefix", "b/")
		if got.check(t, 1, ""); got.stderr != question+"nothing was deleted\n" {
			t.Errorf("%q: %q", answer, got.stderr)
		}
	}
	r.stdin = strings.NewReader("Yes\n")
	got := r.kvctl(t, "delete", "--prefix", "b/")
	if got.check(t, 0, "deleted 3 keys that begin with \"b/\" at revision 9 (request 0badcafe-w1)\n"); got.stderr != question {
		t.Errorf("%q", got.stderr)
	}
	if got := r.kvctl(t, "delete", "--prefix", "b/"); got.code != 0 || got.stderr != "" {
		t.Errorf("asked about nothing: %+v", got)
	}
	// Ctrl-C at the question.
	ctx, cancel := context.WithCancel(t.Context())
	stdin, typing := io.Pipe()
	defer typing.Close()
	var stderr strings.Builder
	c := &Call{Context: ctx, Shell: &Shell{Stdin: stdin, Stderr: &stderr}}
	c.flags = urfave.NewContext(nil, flag.NewFlagSet("", flag.ContinueOnError), nil)
	cancel()
	if err := c.confirm("Sure?", "nothing was done"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestDeletePrefixBreaks(t *testing.T) {
	r := fruit(t)
	r.cluster.breakAfter = 2
	got := r.kvctl(t, "delete", "--prefix", "b", "--yes", "--json")
	if got.check(t, 8, ""); fields(t, got.stderr)["message"] != "who knows; 2 keys were surely deleted" {
		t.Errorf("%s", got.stderr)
	}
}

// TestDeleteProgress: a line at most as often as it is due, with what is left.
func TestDeleteProgress(t *testing.T) {
	steps := func(yield func(client.DeleteRangeResult, error) bool) {
		for i := range uint64(4) {
			if !yield(client.DeleteRangeResult{Deleted: 10_000 * i}, nil) {
				return
			}
		}
	}
	var stderr strings.Builder
	c := &Call{Shell: &Shell{Stderr: &stderr}}
	p := &progress{c: c, style: "plain"}
	sum, err := p.follow(steps, 20_000)
	if err != nil || sum.Deleted != 30_000 {
		t.Fatalf("%+v, %v", sum, err)
	}
	lines := strings.Split(stderr.String(), "\n")
	for i, want := range []string{"deleted 0 keys, 0/s", "deleted 10000 of 20000 keys, ", "deleted 20000 of 20000 keys, ", "deleted 30000 keys, "} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d: %q", i, lines[i])
		}
	}
	stderr.Reset()
	p = &progress{c: c, style: "plain", every: time.Hour}
	if _, err := p.follow(steps, 0); err != nil || stderr.String() != "" {
		t.Errorf("%v: %q", err, stderr.String())
	}
	p = &progress{c: c, style: "json"}
	if _, err := p.follow(steps, 20_000); err != nil || fields(t, strings.Split(stderr.String(), "\n")[1])["deleted_keys"] != "10000" {
		t.Errorf("%v: %q", err, stderr.String())
	}
	stderr.Reset()
	p = &progress{c: c, style: "plain", rewrite: true}
	if _, err := p.follow(steps, 0); err != nil || strings.Contains(stderr.String(), "\n") || !strings.HasSuffix(stderr.String(), "\r\x1b[K") {
		t.Errorf("%v: %q", err, stderr.String())
	}
}
