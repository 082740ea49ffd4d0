package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyval/messages"
)

// shelf is a replica that holds these values, all written at revision 1, and gives
// four keys a digest.
type shelf map[string]string

func (s shelf) rows(from, to []byte) []Item {
	var rows []Item
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if key >= string(from) && (len(to) == 0 || key < string(to)) {
			rows = append(rows, Item{Key: []byte(key), Value: []byte(s[key]), Revision: 1})
		}
	}
	return rows
}

func (s shelf) Digest(_ context.Context, from, to []byte, limit int, revision uint64) (DigestResult, error) {
	d := &messages.RangeDigest{}
	hash := sha256.New()
	for i, row := range s.rows(from, to) {
		if d.More = i == min(4, limit); d.More {
			break
		}
		fmt.Fprintf(hash, "%q %q ", row.Key, row.Value)
		d.Rows, d.Bytes, d.Last = d.Rows+1, d.Bytes+uint64(len(row.Key)+len(row.Value)), row.Key
	}
	d.Hash = hash.Sum(nil)
	return DigestResult{RangeDigest: d, Revision: revision}, nil
}

func (s shelf) Scan(_ context.Context, from, to []byte, o ScanOptions) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		rows := s.rows(from, to)
		for _, row := range rows[:min(len(rows), o.Limit)] {
			if !yield(row, nil) {
				return
			}
		}
	}
}

func (s shelf) Status(context.Context) (*messages.StatusReply, string, error) {
	return &messages.StatusReply{Revision: 1}, "", nil
}

// stalled is a replica that never comes to the revision.
type stalled struct{ shelf }

func (stalled) Digest(context.Context, []byte, []byte, int, uint64) (DigestResult, error) {
	return DigestResult{}, messages.Errorf(messages.Code_INVALID, "in the future")
}

func (stalled) Status(context.Context) (*messages.StatusReply, string, error) {
	return &messages.StatusReply{Revision: 3}, "", nil
}

func verification(holders ...Holder) *Verification {
	v := &Verification{Revision: 1, Compared: func() {}, Waiting: func(string, uint64, uint64) {}}
	for i, h := range holders {
		v.Replicas = append(v.Replicas, &Replica{Name: fmt.Sprint("node", i+1), Holder: h})
	}
	return v
}

func TestVerificationDoesNotWaitForWhoDoesNotGetOn(t *testing.T) {
	told := 0
	v := verification(stalled{}, shelf{})
	v.Revision, v.Patience = 9, 10*time.Millisecond
	v.Waiting = func(name string, at, of uint64) {
		if told++; name != "node1" || at != 3 || of != 9 {
			t.Errorf("%s is at %d of %d", name, at, of)
		}
	}
	if _, err := v.Run(t.Context()); err != nil || told == 0 {
		t.Fatal(err)
	}
	if p := v.Replicas[0].Problem; p == nil || p.Error() != "it is at revision 3 and does not get on to 9" {
		t.Errorf("%v", p)
	}
}

// A verification finds what a comparison of all keys one by one finds.
func TestVerificationFindsWhatIsThere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		common := shelf{}
		for i := range rapid.IntRange(0, 40).Draw(rt, "keys") {
			common[fmt.Sprintf("k%02d", i)] = "v"
		}
		shelves := []shelf{maps.Clone(common), maps.Clone(common), maps.Clone(common)}
		for range rapid.IntRange(0, 3).Draw(rt, "differences") {
			key, s := fmt.Sprintf("k%02d", rapid.IntRange(0, 45).Draw(rt, "key")), rapid.SampledFrom(shelves).Draw(rt, "node")
			if rapid.Bool().Draw(rt, "missing") {
				delete(s, key)
			} else {
				s[key] = "w"
			}
		}
		first, before := "", uint64(0)
		for i := range 46 {
			key := fmt.Sprintf("k%02d", i)
			holds := map[string]bool{}
			for _, s := range shelves {
				holds[s[key]] = true
			}
			switch {
			case first != "":
			case len(holds) > 1:
				first = key
			case !holds[""]:
				before++
			}
		}
		v := verification(shelves[0], shelves[1], shelves[2])
		d, err := v.Run(t.Context())
		switch {
		case err != nil:
			rt.Fatal(err)
		case d == nil && first != "" || d != nil && string(d.Key) != first:
			rt.Fatalf("found %+v, but %q is the first", d, first)
		case v.Keys != before:
			rt.Fatalf("%d keys are alike before %q, not %d", before, first, v.Keys)
		}
	})
}
