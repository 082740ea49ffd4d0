package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyval/actors/client"
)

// fruit is a cluster with a few keys, at revisions 1 to 6.
func fruit(t *testing.T) run {
	t.Helper()
	r := run{cluster: newFake()}
	for _, row := range [][2]string{{"apple", "red"}, {"b/1", "one"}, {"b/2", "two\tlines\n"}, {"b/3", ""}, {"b0", `"q"`}, {"c", "\xff"}} {
		if got := r.kvctl(t, "put", row[0], "--", row[1]); got.code != 0 {
			t.Fatal(got.stderr)
		}
	}
	return r
}

func TestScanFormats(t *testing.T) {
	r := fruit(t)
	r.kvctl(t, "scan").check(t, 0, `KEY    REVISION    VALUE
apple  1           red
b/1    2           one
b/2    3           "two\tlines\n"
b/3    4
b0     5           "\"q\""
c      6           "\xff"
`)
	r.kvctl(t, "scan", "--keys-only", "b/").check(t, 0, "KEY  REVISION\nb/1  2\nb/2  3\nb/3  4\n")
	r.kvctl(t, "scan", "-o", "simple", "b").check(t, 0, "b/1\tone\nb/2\ttwo\\tlines\\n\nb/3\t\nb0\t\"q\"\n")
	r.kvctl(t, "scan", "-o", "simple", "b/", "--keys-only").check(t, 0, "b/1\nb/2\nb/3\n")
	r.kvctl(t, "scan", "--json", "none/").check(t, 0, "[]\n")
	r.kvctl(t, "scan", "none/").check(t, 0, "")
	lines := r.kvctl(t, "scan", "-o", "jsonl", "--from", "c")
	lines.check(t, 0, `{"key":"c","value_base64":"/w==","revision":"6","create_revision":"6","version":"1","read_revision":"6","request_id":"0badcafe-w1"}`+"\n")

	var rows []map[string]any
	got := r.kvctl(t, "scan", "--json", "--limit", "2")
	if err := json.Unmarshal([]byte(got.out), &rows); err != nil || got.stderr != "" {
		t.Fatalf("%v: %+v", err, got)
	}
	want := []map[string]any{
		{"key": "apple", "value": "red", "revision": "1", "create_revision": "1", "version": "1", "read_revision": "6", "request_id": fakeRequest},
		{"key": "b/1", "value": "one", "revision": "2", "create_revision": "2", "version": "1", "read_revision": "6", "request_id": fakeRequest},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	// A streamed array looks as a printed one does.
	var whole bytes.Buffer
	e := json.NewEncoder(&whole)
	e.SetIndent("", "  ")
	if err := e.Encode(json.RawMessage(got.out)); err != nil || whole.String() != got.out {
		t.Errorf("%v: %s", err, got.out)
	}
	if got := r.kvctl(t, "scan", "--json", "--keys-only", "apple"); strings.Contains(got.out, "value") {
		t.Error(got.out)
	}
}

func TestScanRanges(t *testing.T) {
	r := fruit(t)
	for _, test := range []struct{ line, want string }{
		{"", "apple b/1 b/2 b/3 b0 c"},
		{"b", "b/1 b/2 b/3 b0"},
		{"b/", "b/1 b/2 b/3"},
		{"--reverse --limit 2", "c b0"},
		{"b --from b/2", "b/2 b/3 b0"},
		{"b --to b/2", "b/1"},
		{"b --from a --to z", "b/1 b/2 b/3 b0"},
		{"--from b/3 --to c", "b/3 b0"},
		{"--to b/1", "apple"},
		{"--revision 2", "apple b/1"},
	} {
		got := r.kvctl(t, append([]string{"scan", "-o", "simple", "--keys-only"}, strings.Fields(test.line)...)...)
		got.check(t, 0, strings.Join(append(strings.Fields(test.want), ""), "\n"))
		count := r.kvctl(t, append([]string{"scan", "--count"}, strings.Fields(test.line)...)...)
		count.check(t, 0, fmt.Sprintln(len(strings.Fields(test.want))))
	}
	want := map[string]any{"count": "3", "read_revision": "6", "request_id": fakeRequest}
	if diff := cmp.Diff(want, fields(t, r.kvctl(t, "scan", "b/", "--count", "--json").out)); diff != "" {
		t.Error(diff)
	}
}

func TestScanOnATerminal(t *testing.T) {
	r := fruit(t)
	r.kvctl(t, "put", "long", strings.Repeat("ä", 150))
	whole := r.kvctl(t, "scan", "long")
	r.tty = true
	cut := r.kvctl(t, "scan", "long")
	if !strings.Contains(cut.out, strings.Repeat("ä", 100)+"... (300 bytes)\n") || cut.stderr != "1 key at revision 7\n" {
		t.Errorf("%+v", cut)
	}
	if !strings.Contains(whole.out, strings.Repeat("ä", 150)+"\n") || whole.stderr != "" {
		t.Errorf("%+v", whole)
	}
	if got := r.kvctl(t, "scan", "none"); got.stderr != "No keys\n" {
		t.Errorf("%+v", got)
	}
}

func TestBrokenScanSaysSo(t *testing.T) {
	r := fruit(t)
	r.cluster.breakAfter = 2
	broken := r.kvctl(t, "scan", "--json")
	if broken.code != 5 || fields(t, broken.stderr)["message"] != "the scan broke after 2 keys: the connection broke" {
		t.Errorf("%+v", broken)
	}
	if json.Valid([]byte(broken.out)) || !strings.HasSuffix(broken.out, "}\n") {
		t.Errorf("a broken array looks whole: %s", broken.out)
	}
	r.kvctl(t, "scan", "-o", "simple", "--keys-only").check(t, 5, "apple\nb/1\n")
	if got := r.kvctl(t, "scan"); got.code != 5 || strings.Count(got.out, "\n") != 3 {
		t.Errorf("%+v", got)
	}
}

// endless yields keys until nobody wants more.
func endless(read *int) func(func(client.Item, error) bool) {
	return func(yield func(client.Item, error) bool) {
		for ; yield(client.Item{Key: []byte("key"), Value: []byte("value")}, nil); *read++ {
		}
	}
}

// deaf takes a little output and then ends as a pipe does whose reader has gone.
type deaf struct {
	left int
	why  error
}

func (d *deaf) Write(p []byte) (int, error) {
	if d.left -= len(p); d.left < 0 {
		return 0, d.why
	}
	return len(p), nil
}

// TestScanStopsWithItsReader: no format goes on when its output has ended, and
// none keeps what it has printed.
func TestScanStopsWithItsReader(t *testing.T) {
	for _, format := range []Format{Table, JSON, JSONLines, Simple} {
		read := 0
		out := &sticky{w: &deaf{4 * rowBuffer, syscall.EPIPE}}
		c := &Call{Shell: &Shell{Stdout: out}, Format: format}
		if err := c.printScan(endless(&read), false); err != nil || out.failure() != nil {
			t.Errorf("%s: %v", format, err)
		}
		if out.err == nil || read > 6*rowBuffer {
			t.Errorf("%s: %d rows were read", format, read)
		}
	}
	out := &sticky{w: &deaf{0, errors.New("no space left")}}
	c := &Call{Shell: &Shell{Stdout: out}, Format: Simple}
	if err := c.printScan(endless(new(int)), false); err != nil || out.failure() == nil {
		t.Error("a full disk passes for success")
	}
}

func TestTableLooksAheadALittle(t *testing.T) {
	c := &Call{Shell: &Shell{Stdout: io.Discard}, Format: Table}
	w := c.rowWriter(false).(*tableRows)
	for range 3 {
		if err := w.write(client.Item{Key: []byte("k"), Value: make([]byte, tableAheadBytes/2)}); err != nil {
			t.Fatal(err)
		}
		if len(w.ahead) > 2 {
			t.Fatal("long values are held back")
		}
	}
	if w.width == 0 || w.ahead != nil {
		t.Fatalf("%d rows are still held back", len(w.ahead))
	}
}

func TestStaleReadsSayWhereTheyWereRead(t *testing.T) {
	r := fruit(t)
	if got := fields(t, r.kvctl(t, "get", "apple", "--consistency", "stale", "--json").out); got["read_revision"] != "6" {
		t.Errorf("%v", got)
	}
	if got := r.kvctl(t, "get", "apple", "--consistency", "stale"); got.stderr != "" {
		t.Errorf("%+v", got)
	}
	r.tty = true
	if got := r.kvctl(t, "get", "apple", "--consistency", "stale"); got.stderr != "Read from 127.0.0.1:7001 alone, at revision 6: later writes may be missing\n" {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "get", "apple"); got.stderr != "" {
		t.Errorf("%+v", got)
	}
}
