package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keyval/actors/client"
)

func TestVerifyEqual(t *testing.T) {
	r := fruit(t)
	got := r.kvctl(t, "verify")
	if !strings.HasPrefix(got.out, "node1, node2, node3 hold the same at revision 6: 6 keys, ") || got.code != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	r.kvctl(t, "verify", "-o", "simple", "--prefix", "b/").check(t, 0, "equal\t3\n")
	want := map[string]any{
		"equal": true, "revision": "5", "last_revision": "5", "keys": "5", "difference": nil, "members": []any{
			map[string]any{"name": "node1", "endpoint": "127.0.0.1:7001", "asked": true, "error": ""},
			map[string]any{"name": "node2", "endpoint": "127.0.0.1:7002", "asked": true, "error": ""},
			map[string]any{"name": "node3", "endpoint": "127.0.0.1:7003", "asked": true, "error": ""},
		},
	}
	found := fields(t, r.kvctl(t, "verify", "--revision", "5", "--json").out)
	delete(found, "bytes")
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
	if got := r.kvctl(t, "verify", "--server", "127.0.0.1:7002", "-o", "simple"); got.out != "equal\t6\n" {
		t.Errorf("members that no endpoint names are not asked: %+v", got)
	}
	if got := r.kvctl(t, "verify", "--revision", "7"); got.code != 2 || !strings.Contains(got.stderr, "revision 7 is in the future, the newest is 6") {
		t.Errorf("%+v", got)
	}
}

func TestVerifyNamesTheFirstKeyThatDiffers(t *testing.T) {
	r := fruit(t)
	r.cluster.own = map[string]map[string]client.GetResult{
		"127.0.0.1:7002": {"b/2": {Value: []byte("rotten"), Revision: 4}, "c": {}},
		"127.0.0.1:7003": {"b/2": {}},
	}
	got := r.kvctl(t, "verify")
	if got.code != 1 || !strings.HasPrefix(got.out, "DIFFERENT: at revision 6 the members do not hold the same. The first key that differs is \"b/2\":\n\nMEMBER  WRITTEN AT  BYTES  SHA-256           VALUE\n") {
		t.Fatalf("%+v", got)
	}
	if !strings.Contains(got.out, "node2   4           6      ") || !strings.Contains(got.out, "\"rotten\"\n") || !strings.Contains(got.out, "node3   -           -      -                 it is not there\n") {
		t.Errorf("%s", got.out)
	}
	asJSON := r.kvctl(t, "verify", "--json")
	found := fields(t, asJSON.out)
	d := found["difference"].(map[string]any)
	if asJSON.code != 1 || found["equal"] != false || d["key"] != "b/2" || d["revision"] != "6" {
		t.Errorf("%+v", asJSON)
	}
	want := map[string]any{"name": "node2", "present": true, "revision": "4", "bytes": 6.0, "value": "rotten", "sha256": valueHash([]byte("rotten"))}
	if diff := cmp.Diff(want, d["members"].([]any)[1]); diff != "" {
		t.Error(diff)
	}
	r.kvctl(t, "verify", "--prefix", "a", "-o", "simple").check(t, 0, "equal\t1\n")
	r.kvctl(t, "verify", "-o", "simple").check(t, 1, "different\t2\n")
}

func TestVerifySaysWhoCouldNotBeAsked(t *testing.T) {
	r := fruit(t)
	r.cluster.down = []string{"127.0.0.1:7003"}
	got := r.kvctl(t, "verify")
	if got.code != 9 || !strings.HasPrefix(got.out, "node1, node2 hold the same") || got.stderr != "node3 could not be asked: connection refused\n" {
		t.Errorf("%+v", got)
	}
	r.cluster.own = map[string]map[string]client.GetResult{"127.0.0.1:7002": {"apple": {}}}
	if got := r.kvctl(t, "verify"); got.code != 1 || !strings.Contains(got.stderr, "node3 could not be asked") {
		t.Errorf("%+v", got)
	}
	r.cluster.down = append(r.cluster.down, "127.0.0.1:7002")
	if got := r.kvctl(t, "verify"); got.code != 9 || got.out != "fewer than two members could be asked: nothing was compared\n" {
		t.Errorf("%+v", got)
	}
	r.cluster.down = append(r.cluster.down, "127.0.0.1:7001")
	r.kvctl(t, "verify").check(t, 5, "")
}

func TestVerifyWaitsForWhoIsBehind(t *testing.T) {
	r := fruit(t)
	r.cluster.starting = map[string]int{"127.0.0.1:7002": 2}
	r.kvctl(t, "verify", "-o", "simple").check(t, 0, "equal\t6\n")
	r.cluster.starting = map[string]int{"127.0.0.1:7002": 1000}
	if got := r.kvctl(t, "verify", "--timeout", "250ms"); got.code != 9 || got.stderr != "node2 could not be asked: it is starting\n" {
		t.Errorf("%+v", got)
	}
	if got := r.kvctl(t, "verify", "--server", "127.0.0.1:7002", "--timeout", "250ms"); got.code != 5 || !strings.Contains(got.stderr, "127.0.0.1:7002: it is starting") {
		t.Errorf("%+v", got)
	}
	r.cluster.starting = nil
	r.cluster.behind = map[string]int{"127.0.0.1:7003": 3}
	r.kvctl(t, "verify", "-o", "simple").check(t, 0, "equal\t6\n")
	r.cluster.behind = map[string]int{"127.0.0.1:7003": 1000} // it says that it is there, and then that it is not
	r.kvctl(t, "verify", "-o", "simple").check(t, 9, "incomplete\t6\n")
}

func TestVerifyGoesOnWhenItsRevisionIsGivenUp(t *testing.T) {
	r := fruit(t)
	r.cluster.compactIn = 5 // in the second range
	got := r.kvctl(t, "verify")
	if got.code != 0 || !strings.HasPrefix(got.out, "node1, node2, node3 hold the same at revisions 6 to 7: 6 keys") {
		t.Errorf("%+v", got)
	}
	r = fruit(t)
	r.cluster.compactIn = 5
	fixed := r.kvctl(t, "verify", "--revision", "6")
	if fixed.check(t, 1, ""); !strings.HasPrefix(fixed.stderr, "kvctl: the comparison broke after 4 keys: revision 6 is no longer kept, the oldest is 7\n") {
		t.Errorf("%q", fixed.stderr)
	}
}
