package reading

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func digestAt(revision uint64, d *messages.Digest) *messages.Read {
	return &messages.Read{Request: 7, Revision: revision, Kind: &messages.Read_Digest{Digest: d}}
}

// hashOf is the hash of rows as client.proto says it.
func hashOf(rows ...disk.Row) []byte {
	var all []byte
	for _, r := range rows {
		all = binary.LittleEndian.AppendUint64(all, uint64(len(r.Key)))
		all = binary.LittleEndian.AppendUint64(all, uint64(len(r.Value)))
		all = binary.LittleEndian.AppendUint64(all, r.Revision)
		all = binary.LittleEndian.AppendUint64(all, r.Created)
		all = binary.LittleEndian.AppendUint64(all, r.Version)
		all = append(append(all, r.Key...), r.Value...)
	}
	return binary.BigEndian.AppendUint64(nil, xxhash.Sum64(all))
}

func TestDigest(t *testing.T) {
	row := func(key, value string, revision uint64) disk.Row {
		return disk.Row{Key: []byte(key), Value: []byte(value), Revision: revision, Created: (revision + 1) / 2, Version: revision}
	}
	a1, b2, c3, a4, a6 := row("a", "1", 1), row("b", "22", 2), row("c", "", 3), row("a", "444", 4), row("a", "6", 6)
	store := disktest.NewMemory()
	for _, r := range []disk.Row{a1, b2, c3, a4, {Key: []byte("b"), Revision: 5, Deleted: true}, a6} {
		if err := store.Write([]disk.Row{r}); err != nil {
			t.Fatal(err)
		}
	}
	const newest, compacted = 5, 2
	for _, test := range []struct {
		name string
		read *messages.Read
		want *messages.RangeDigest
	}{
		{"all that is live", digestAt(0, &messages.Digest{}), &messages.RangeDigest{Hash: hashOf(a4, c3), Rows: 2, Bytes: 5, Last: []byte("c")}},
		{"as of an older revision", digestAt(3, &messages.Digest{}), &messages.RangeDigest{Hash: hashOf(a1, b2, c3), Rows: 3, Bytes: 6, Last: []byte("c")}},
		{"a part", digestAt(3, &messages.Digest{From: []byte("b"), To: []byte("c")}),
			&messages.RangeDigest{Hash: hashOf(b2), Rows: 1, Bytes: 3, Last: []byte("b")}},
		{"nothing", digestAt(3, &messages.Digest{From: []byte("d")}), &messages.RangeDigest{Hash: hashOf()}},
		{"a range that is none", digestAt(3, &messages.Digest{From: []byte("c"), To: []byte("a")}), &messages.RangeDigest{Hash: hashOf()}},
		{"up to a limit", digestAt(3, &messages.Digest{Limit: 2}),
			&messages.RangeDigest{Hash: hashOf(a1, b2), Rows: 2, Bytes: 5, Last: []byte("b"), More: true}},
		{"a limit that suffices", digestAt(3, &messages.Digest{Limit: 3}),
			&messages.RangeDigest{Hash: hashOf(a1, b2, c3), Rows: 3, Bytes: 6, Last: []byte("c")}},
	} {
		reply, err := Answer(store, test.read, newest, compacted)
		want := &messages.ReadReply{Request: 7, Revision: max(test.read.Revision, 3), Digest: test.want}
		if test.read.Revision == 0 {
			want.Revision = newest
		}
		if got := messages.Line(reply); err != nil || got != messages.Line(want) {
			t.Errorf("%s gives\n\t%s, %v\nand not\n\t%s", test.name, got, err, messages.Line(want))
		}
	}
	for code, r := range map[messages.Code]*messages.Read{
		messages.Code_COMPACTED: digestAt(1, &messages.Digest{}), messages.Code_INVALID: digestAt(6, &messages.Digest{}),
	} {
		if reply, err := Answer(store, r, newest, compacted); err != nil || reply.Code != code || reply.Digest != nil {
			t.Errorf("at revision %d: %s, %v", r.Revision, messages.Line(reply), err)
		}
	}
	store.Err = messages.Errorf(messages.Code_DAMAGED, "a block is damaged")
	if reply, err := Answer(store, digestAt(0, &messages.Digest{}), newest, compacted); err == nil || reply.Code != messages.Code_DAMAGED || reply.Digest != nil {
		t.Errorf("a failed view gives %s, %v", messages.Line(reply), err)
	}
}

// Rows whose bytes follow each other alike have digests of their own.
func TestDigestsTellRowsApart(t *testing.T) {
	seen := map[string]int{}
	for i, rows := range [][]disk.Row{
		{{Key: []byte("ab"), Value: []byte("c"), Revision: 1}},
		{{Key: []byte("a"), Value: []byte("bc"), Revision: 1}},
		{{Key: []byte("ab"), Value: []byte("c"), Revision: 2}},
		{{Key: []byte("ab"), Value: []byte("c"), Revision: 2, Created: 1}},
		{{Key: []byte("ab"), Value: []byte("c"), Revision: 2, Version: 1}},
		{{Key: []byte("ab"), Revision: 1}, {Key: []byte("c"), Revision: 1}},
		{{Key: []byte("abc"), Revision: 1}},
		{},
	} {
		store := disktest.NewMemory()
		if err := store.Write(rows); err != nil {
			t.Fatal(err)
		}
		reply, err := Answer(store, digestAt(0, &messages.Digest{}), 9, 0)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[string(reply.Digest.Hash)]; taken {
			t.Errorf("the digests of %d and %d are the same", other, i)
		}
		seen[string(reply.Digest.Hash)] = i
	}
}

// A walk in steps of any kind covers the range and ends.
func TestDigestsAreBounded(t *testing.T) {
	store := disktest.NewMemory()
	var rows []disk.Row
	for i := range DigestRowsMax + 5 {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "k%06d", i), Revision: 1})
	}
	big := strings.Repeat("v", messages.ValueSizeMax)
	for i := range 35 {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "v%02d", i), Value: []byte(big), Revision: 1})
	}
	if err := store.Write(rows); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		from  string
		limit uint32
		steps []uint64 // rows
	}{
		{"k", 0, []uint64{DigestRowsMax, 5 + 31, 4}},
		{"k", 1 << 31, []uint64{DigestRowsMax, 5 + 31, 4}},
		{"v", 20, []uint64{20, 15}},
	} {
		var got []uint64
		for from := []byte(test.from); ; {
			reply, err := Answer(store, digestAt(0, &messages.Digest{From: from, Limit: test.limit}), 1, 0)
			if err != nil || reply.Code != messages.Code_OK || len(got) > len(test.steps) {
				t.Fatalf("%s, %v", messages.Line(reply), err)
			}
			got = append(got, reply.Digest.Rows)
			if !reply.Digest.More {
				break
			}
			from = append(slices.Clone(reply.Digest.Last), 0)
		}
		if !slices.Equal(got, test.steps) {
			t.Errorf("from %q by %d: %v rows, not %v", test.from, test.limit, got, test.steps)
		}
	}
}
