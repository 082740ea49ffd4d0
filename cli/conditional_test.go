package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Conditions that hold write as without them; those that do not exit 7 and say what
// stands there.
func TestConditionalWrites(t *testing.T) {
	r := run{cluster: newFake()}
	none := r.kvctl(t, "put", "k", "v", "--if-revision", "7")
	none.check(t, 7, "")
	if want := "kvctl: nothing was written: there is no key \"k\" (as of revision 0), and revision 7 was asked for\n" +
		"  endpoint: 127.0.0.1:7001\n  request:  0badcafe-w1\n  next: --if-absent writes it\n"; none.stderr != want {
		t.Errorf("%q", none.stderr)
	}
	r.kvctl(t, "put", "other", "v").check(t, 0, "put \"other\" at revision 1 (request 0badcafe-w1)\n")
	r.kvctl(t, "put", "k", "one", "--if-absent").check(t, 0, "put \"k\" at revision 2 (request 0badcafe-w1)\n")
	r.kvctl(t, "put", "l", "one", "--if-revision", "0").check(t, 0, "put \"l\" at revision 3 (request 0badcafe-w1)\n")
	r.kvctl(t, "put", "--if-revision", "2", "k", "two").check(t, 0, "put \"k\" at revision 4 (request 0badcafe-w1)\n")
	late := r.kvctl(t, "put", "k", "three", "--if-revision=2")
	late.check(t, 7, "")
	if want := "kvctl: nothing was written: \"k\" is of revision 4 (as of revision 4), and not of revision 2\n" +
		"  endpoint: 127.0.0.1:7001\n  request:  0badcafe-w1\n  value:    two\n  next: if that may be overwritten: --if-revision 4\n"; late.stderr != want {
		t.Errorf("%q", late.stderr)
	}
	if there := r.kvctl(t, "put", "k", "three", "--if-absent"); there.code != 7 || !strings.Contains(there.stderr, `"k" is there, of revision 4 (as of revision 4)`+"\n") {
		t.Errorf("%d %q", there.code, there.stderr)
	}
	if there := r.kvctl(t, "delete", "k", "--if-revision", "0"); there.code != 7 || !strings.Contains(there.stderr, `"k" is there, of revision 4`) {
		t.Errorf("%d %q", there.code, there.stderr)
	}
	r.kvctl(t, "delete", "k", "--if-revision", "2").check(t, 7, "")
	r.kvctl(t, "get", "k").check(t, 0, "two\n")
	r.kvctl(t, "delete", "k", "--if-revision", "4").check(t, 0, "deleted \"k\" at revision 5 (request 0badcafe-w1)\n")
	r.kvctl(t, "delete", "k", "--if-revision", "0").check(t, 0, "\"k\" was not there at revision 5 (request 0badcafe-w1)\n")
	r.kvctl(t, "delete", "k", "--if-revision", "4").check(t, 7, "")
}

func TestConflictsAsJSON(t *testing.T) {
	r := run{cluster: newFake()}
	r.kvctl(t, "put", "k", "\xff").check(t, 0, "put \"k\" at revision 1 (request 0badcafe-w1)\n")
	for _, test := range []struct {
		line    []string
		current map[string]any
	}{
		{[]string{"put", "k", "v", "--if-absent"}, map[string]any{"key": "k", "value_base64": "/w==", "revision": "1", "create_revision": "1",
			"version": "1", "read_revision": "1", "request_id": fakeRequest}},
		{[]string{"delete", "x", "--if-revision", "9"}, map[string]any{"key": "x", "revision": "0", "create_revision": "0",
			"version": "0", "read_revision": "1", "request_id": fakeRequest}},
	} {
		got := r.kvctl(t, append(test.line, "--json")...)
		said := fields(t, got.stderr)
		if got.code != 7 || got.out != "" || said["code"] != "CONFLICT" || said["request_id"] != fakeRequest || said["hint"] == "" {
			t.Errorf("%q: %d %q %q", test.line, got.code, got.out, got.stderr)
		}
		if diff := cmp.Diff(test.current, said["current"]); diff != "" {
			t.Errorf("%q: %s", test.line, diff)
		}
	}
	if said := fields(t, r.kvctl(t, "get", "x", "--json").stderr); said["current"] != nil {
		t.Errorf("an error of another kind says %v", said)
	}
}

// What stood there may be given up meanwhile, or not be read at all: that is said.
func TestConflictsWhoseRevisionIsGone(t *testing.T) {
	r := run{cluster: newFake()}
	r.kvctl(t, "put", "k", "v").check(t, 0, "put \"k\" at revision 1 (request 0badcafe-w1)\n")
	r.cluster.compacted = 2
	got := r.kvctl(t, "put", "k", "w", "--if-absent")
	if got.code != 7 || !strings.Contains(got.stderr, "(now, at revision 1, for revision 1, at which the condition did not hold, is no longer kept)") {
		t.Errorf("%d %q", got.code, got.stderr)
	}
}

func TestConditionsThatCannotBe(t *testing.T) {
	for _, line := range []string{
		"put k v --if-revision 1 --if-absent", "put k v --if-revision -1", "put k v --if-revision x", "delete --prefix k --if-revision 1 --yes", "delete k --if-absent",
	} {
		if got := (run{}).kvctl(t, strings.Fields(line)...); got.code != 2 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
