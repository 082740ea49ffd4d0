package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keyval/actors/client"
	"keyval/messages"
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

// stalled is a node that never comes to the revision.
type stalled struct{ Store }

func (stalled) Digest(context.Context, []byte, []byte, int, uint64) (client.DigestResult, error) {
	return client.DigestResult{}, messages.Errorf(messages.Code_INVALID, "in the future")
}
func (stalled) Status(context.Context) (*messages.StatusReply, string, error) {
	return &messages.StatusReply{Revision: 3}, "", nil
}

func TestVerifyDoesNotWaitForWhoDoesNotGetOn(t *testing.T) {
	told := 0
	v := &verifier{revision: 9, patience: 10 * time.Millisecond, compared: func() {}, waiting: func(name string, at, of uint64) {
		if told++; name != "node1" || at != 3 || of != 9 {
			t.Errorf("%s is at %d of %d", name, at, of)
		}
	}}
	for _, name := range []string{"node1", "node2"} {
		r := &replica{store: &fakeStore{newFake(), "127.0.0.1:7001"}}
		if r.Name = name; name == "node1" {
			r.store = stalled{}
		}
		v.replicas = append(v.replicas, r)
	}
	if _, err := v.run(t.Context()); err != nil || told == 0 {
		t.Fatal(err)
	}
	if p := v.replicas[0].problem; p == nil || p.Message != "it is at revision 3 and does not get on to 9" {
		t.Errorf("%v", p)
	}
}

// TestVerifyFindsWhatIsThere: against a comparison of all keys one by one.
func TestVerifyFindsWhatIsThere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFake()
		f.revision, f.own = 1, map[string]map[string]client.GetResult{}
		endpoints := strings.Split(defaultEndpoints, ",")
		for i := range rapid.IntRange(0, 40).Draw(rt, "keys") {
			f.items[fmt.Sprintf("k%02d", i)] = client.GetResult{Value: []byte("v"), Revision: 1}
		}
		v := &verifier{revision: 1, compared: func() {}, waiting: func(string, uint64, uint64) {}}
		for i, e := range endpoints {
			f.own[e] = map[string]client.GetResult{}
			r := &replica{store: &fakeStore{f, e}}
			r.Name = fmt.Sprint("node", i+1)
			v.replicas = append(v.replicas, r)
		}
		first, before := "", uint64(0)
		for range rapid.IntRange(0, 3).Draw(rt, "differences") {
			key := fmt.Sprintf("k%02d", rapid.IntRange(0, 45).Draw(rt, "key"))
			own := f.own[rapid.SampledFrom(endpoints).Draw(rt, "node")]
			_, common := f.items[key]
			if rapid.Bool().Draw(rt, "missing") {
				if own[key] = (client.GetResult{}); !common {
					delete(own, key)
					continue
				}
			} else {
				own[key] = client.GetResult{Value: []byte("w"), Revision: 1}
			}
		}
		for i := range 46 {
			key := fmt.Sprintf("k%02d", i)
			holds := map[string]bool{}
			for _, e := range endpoints {
				item := (&fakeStore{f, e}).held()[key]
				holds[fmt.Sprint(item.Revision, string(item.Value))] = true
			}
			switch _, none := holds["0"]; {
			case first != "":
			case len(holds) > 1:
				first = key
			case !none:
				before++
			}
		}
		d, err := v.run(t.Context())
		switch {
		case err != nil:
			rt.Fatal(err)
		case d == nil && first != "" || d != nil && string(d.key) != first:
			rt.Fatalf("found %+v, but %q is the first", d, first)
		case d == nil && v.keys != uint64(len(f.items)):
			rt.Fatalf("compared %d of %d keys", v.keys, len(f.items))
		case d != nil && v.keys != before:
			rt.Fatalf("%d keys are alike before %q, not %d", before, first, v.keys)
		}
	})
}
