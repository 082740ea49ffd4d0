package client

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyval/messages"
)

func TestDeletePrefixLeavesItsNeighbours(t *testing.T) {
	n, _ := fakes(t, 1)
	c := connected(t, n, Options{})
	for _, key := range []string{"a", "ab", "b", "b/1", "b/2", "b/3", "b/4", "b/\xff\xff", "b0", "c"} {
		mustPut(t, c, key, key)
	}
	r, err := c.DeletePrefix(t.Context(), []byte("b/"))
	if err != nil || r.Deleted != 5 || r.Revision != 12 || r.RequestID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	left := ""
	for item, err := range c.Scan(t.Context(), nil, nil, ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		left += string(item.Key) + " "
	}
	if left != "a ab b b0 c " {
		t.Fatalf("left are %q", left)
	}
	if r, err = c.DeletePrefix(t.Context(), nil); err != nil || r.Deleted != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestDeleteThatBreaksSaysWhatIsDone(t *testing.T) {
	for _, test := range []struct {
		name string
		stop func(*fakeNode, context.CancelFunc)
		code messages.Code
		says string
		is   error
	}{
		{"no answer", func(node *fakeNode, _ context.CancelFunc) { node.mute = true },
			messages.Code_OUTCOME_UNKNOWN, "may or may not have happened; 3 keys were surely deleted before it, up to 10000 more may be", nil},
		{"no leader", func(node *fakeNode, _ context.CancelFunc) {
			node.log.mu.Lock()
			defer node.log.mu.Unlock()
			node.log.leader = nil
		}, messages.Code_NO_LEADER, "3 keys were deleted before", nil},
		{"given up", func(_ *fakeNode, cancel context.CancelFunc) { cancel() },
			messages.Code_TIMED_OUT, "nothing was sent; 3 keys were deleted before", context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, nodes := fakes(t, 1)
			c := connected(t, n, Options{Endpoints: []string{"n1:1"}, Timeout: 300 * time.Millisecond})
			for _, key := range strings.Split("abcdefg", "") {
				mustPut(t, c, key, key)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var last DeleteRangeResult
			var broken error
			for sofar, err := range c.DeleteSteps(ctx, nil, nil) {
				if last, broken = sofar, err; err == nil {
					test.stop(nodes[0], cancel)
				}
			}
			failed(t, broken, test.code, test.says)
			if last.Deleted != 3 || test.is != nil && !errors.Is(broken, test.is) {
				t.Fatalf("%+v, %v", last, broken)
			}
		})
	}
}

func TestDeleteStepsEndWithTheirRange(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{})
	for _, key := range strings.Split("abcdefghij", "") {
		mustPut(t, c, key, key)
	}
	for range c.DeleteSteps(t.Context(), nil, nil) {
		break
	}
	if asked := nodes[0].log.asked; len(asked.GetScan().From) > 0 {
		t.Fatalf("nobody wanted to go on, and yet the node is asked %s", messages.Line(asked))
	}
	if r, err := c.Count(t.Context(), nil, nil, ScanOptions{}); err != nil || r.Count != 7 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := c.DeleteRange(t.Context(), nil, nil); err != nil || r.Deleted != 7 {
		t.Fatalf("the same call again: %+v, %v", r, err)
	}
	if from := nodes[0].log.asked.GetScan().From; string(from) != "g" {
		t.Fatalf("the last step goes over what was deleted before: it begins at %q", from)
	}
}

func TestCountAgreesWithScan(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{})
	for _, key := range strings.Split("abcdefg", "") {
		mustPut(t, c, key, key)
	}
	for _, tt := range []struct {
		from, to string
		o        ScanOptions
		want     uint64
	}{
		{"", "", ScanOptions{}, 7},
		{"", "", ScanOptions{PageSize: 2}, 7},
		{"b", "f", ScanOptions{PageSize: 3, Reverse: true}, 4},
		{"", "", ScanOptions{PageSize: 3, Limit: 4}, 4},
		{"x", "", ScanOptions{Revision: 5}, 0},
	} {
		got, err := c.Count(t.Context(), []byte(tt.from), []byte(tt.to), tt.o)
		want := CountResult{Count: tt.want, ReadRevision: 7, RequestID: got.RequestID}
		if tt.o.Revision != 0 {
			want.ReadRevision = tt.o.Revision
		}
		if err != nil || got != want || got.RequestID == "" {
			t.Errorf("[%s,%s) %+v: %+v, %v", tt.from, tt.to, tt.o, got, err)
		}
		if !nodes[0].log.asked.GetScan().KeysOnly {
			t.Error("values are asked for")
		}
	}
}

// A key is in the range of a prefix exactly if it begins with it.
func TestPrefixEnd(t *testing.T) {
	few := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xfe, 0xff}), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		prefix, key := few.Draw(t, "prefix"), few.Draw(t, "key")
		end := PrefixEnd(prefix)
		within := bytes.Compare(key, prefix) >= 0 && (len(end) == 0 || bytes.Compare(key, end) < 0)
		if within != bytes.HasPrefix(key, prefix) {
			t.Fatalf("%x in [%x, %x): %v", key, prefix, end, within)
		}
	})
}
