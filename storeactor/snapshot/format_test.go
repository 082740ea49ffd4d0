package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/snapshot/snapshottest"
	"keyval/storeactor/state/statetest"
)

func fileOf(t snapshottest.T, chunks []*messages.SnapshotChunk) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, c := range chunks {
		if err := w.Write(c); err != nil {
			t.Fatal(err)
		}
	}
	if w.Bytes() != uint64(b.Len()) {
		t.Fatalf("%d bytes are told of %d", w.Bytes(), b.Len())
	}
	return b.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		revision := rapid.Uint64Range(0, 1<<40).Draw(t, "revision")
		compacted := rapid.Uint64Range(0, revision).Draw(t, "compacted")
		rows := drawRows(t, revision, compacted)
		state := snapshottest.StateAt(revision, compacted)
		chunks := chunksOf(t, state, rows, rapid.IntRange(1, 200).Draw(t, "chunk bytes"))
		file := fileOf(t, chunks)
		r, got, err := readSnapshot(iotest.OneByteReader(bytes.NewReader(file)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rows, got, cmp.Transformer("text", func(r disk.Row) string { return fmt.Sprintf("%q@%d=%q %v", r.Key, r.Revision, r.Value, r.Deleted) })); diff != "" {
			t.Fatalf("(-written +read)\n%s", diff)
		}
		if diff := cmp.Diff(state, r.Checkpoint(), protocmp.Transform()); diff != "" {
			t.Fatalf("(-written +read)\n%s", diff)
		}
		if r.Trailer().Rows != uint64(len(rows)) || r.Header().CreatedBy != "node1" {
			t.Fatalf("%v, %v", r.Header(), r.Trailer())
		}
		header, trailer, err := Glance(bytes.NewReader(file), int64(len(file)), messages.Level)
		if err != nil || !proto.Equal(header, r.Header()) || !proto.Equal(trailer, r.Trailer()) {
			t.Fatalf("at a glance: %v, %v, %v", header, trailer, err)
		}
	})
}

// drawRows draws rows as a snapshot holds them.
func drawRows(t *rapid.T, revision, compacted uint64) []disk.Row {
	var rows []disk.Row
	if revision == 0 {
		return nil
	}
	keys := rapid.SliceOfDistinct(rapid.SliceOfN(rapid.Byte(), 1, 5), func(k []byte) string { return string(k) }).Draw(t, "keys")
	slices.SortFunc(keys, bytes.Compare)
	for _, key := range keys {
		revisions := rapid.SliceOfNDistinct(rapid.Uint64Range(1, revision), 1, 4, rapid.ID).Draw(t, "revisions")
		slices.Sort(revisions)
		slices.Reverse(revisions)
		for _, n := range revisions {
			r := disk.Row{Key: key, Revision: n, Deleted: n > compacted && rapid.Bool().Draw(t, "deleted")}
			if !r.Deleted {
				r.Value = rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")
			}
			rows = append(rows, r)
			if n <= compacted {
				break
			}
		}
	}
	return disktest.Whole(rows...)
}

// The same state gives the same bytes, and a source that goes back gives them again.
func TestChunksAreCanonical(t *testing.T) {
	a, b := chunksOf(t, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 30), chunksOf(t, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 30)
	if !bytes.Equal(fileOf(t, a), fileOf(t, b)) {
		t.Error("the same state gives other bytes")
	}
	kinds := map[messages.ChunkKind]int{}
	for i, c := range a {
		kinds[c.Kind]++
		if c.Sequence != uint64(i) {
			t.Errorf("chunk %d has sequence %d", i, c.Sequence)
		}
	}
	if kinds[messages.ChunkKind_STATE] < 3 || kinds[messages.ChunkKind_ROWS] < 3 {
		t.Errorf("it is not cut: %v", kinds)
	}
	other := chunksOf(t, snapshottest.StateAt(9, 4), snapshottest.SomeRows()[:7], 30)
	if bytes.Equal(other[len(other)-1].Body, a[len(a)-1].Body) {
		t.Error("other rows have the same trailer")
	}
}

// A byte that is not as it was written is found, whichever it is, and so is a file
// that is cut short or too long.
func TestEveryFlippedByteIsFound(t *testing.T) {
	file := fileOf(t, chunksOf(t, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 40))
	if _, _, err := readSnapshot(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	for i := range file {
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[i] ^= 1 << bit
			if _, _, err := readSnapshot(bytes.NewReader(bad)); !refusedFile(err) {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	for n := range file {
		if _, _, err := readSnapshot(bytes.NewReader(file[:n])); messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Errorf("%d of %d bytes: %v", n, len(file), err)
		}
	}
	if _, _, err := readSnapshot(bytes.NewReader(append(bytes.Clone(file), 0))); messages.CodeOf(err) != messages.Code_DAMAGED {
		t.Errorf("a byte more: %v", err)
	}
	broken := errors.New("the disk broke")
	for _, n := range []int{3, 20, 40, len(file) / 2, len(file)} {
		_, _, err := readSnapshot(io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("a disk that breaks after %d bytes: %v", n, err)
		}
	}
}

func refusedFile(err error) bool {
	code := messages.CodeOf(err)
	return code == messages.Code_DAMAGED || code == messages.Code_UNSUPPORTED
}

// unsummed is a row that was changed behind the back of its checksum.
func unsummed(change func(*disk.Row)) disk.Row {
	r := snapshottest.Row("a", 5, "x")
	change(&r)
	return r
}

// summed is one whose checksum was made of the change.
func summed(change func(*disk.Row)) disk.Row {
	r := unsummed(change)
	r.Sum = r.Checksum()
	return r
}

// TestCheckRefuses alters one thing of a good snapshot at a time, and puts checksums,
// counts and hash right again: what is left is what only the rules find.
func TestCheckRefuses(t *testing.T) {
	state := func(change func(*messages.Checkpoint)) *messages.Checkpoint {
		c := snapshottest.StateAt(9, 4)
		change(c)
		return c
	}
	rows := func(r ...disk.Row) func(*draft) { return func(d *draft) { d.rows = r } }
	for name, test := range map[string]struct {
		change func(*draft)
		code   messages.Code
	}{
		"nothing":                       {func(*draft) {}, messages.Code_OK},
		"no rows":                       {rows(), messages.Code_OK},
		"history of deletions":          {rows(snapshottest.Gone("a", 9), snapshottest.Gone("a", 7), snapshottest.Row("a", 4, "")), messages.Code_OK},
		"newer format":                  {func(d *draft) { d.header.Format = 2 }, messages.Code_UNSUPPORTED},
		"newer level":                   {func(d *draft) { d.header.Level = messages.Level + 1 }, messages.Code_UNSUPPORTED},
		"no format":                     {func(d *draft) { d.header.Format = 0 }, messages.Code_DAMAGED},
		"another cluster":               {func(d *draft) { d.header.ClusterId = statetest.Client(9) }, messages.Code_DAMAGED},
		"no cluster":                    {func(d *draft) { d.header.ClusterId = nil }, messages.Code_DAMAGED},
		"another index":                 {func(d *draft) { d.header.Index = 8 }, messages.Code_DAMAGED},
		"no index":                      {func(d *draft) { d.header.Index = 0 }, messages.Code_DAMAGED},
		"another term":                  {func(d *draft) { d.header.Term = 2 }, messages.Code_DAMAGED},
		"another revision":              {func(d *draft) { d.header.Revision = 10 }, messages.Code_DAMAGED},
		"another compacted revision":    {func(d *draft) { d.header.CompactedRevision = 3 }, messages.Code_DAMAGED},
		"compacted in the future":       {func(d *draft) { d.header.CompactedRevision = 10 }, messages.Code_DAMAGED},
		"other members":                 {func(d *draft) { d.header.Members = d.header.Members[:2] }, messages.Code_DAMAGED},
		"another configuration":         {func(d *draft) { d.header.ConfState = nil }, messages.Code_DAMAGED},
		"another log time":              {func(d *draft) { d.header.LogTimeMs = 1 }, messages.Code_DAMAGED},
		"state of another size":         {func(d *draft) { d.header.StateBytes++ }, messages.Code_DAMAGED},
		"state too short":               {func(d *draft) { d.header.StateBytes-- }, messages.Code_DAMAGED},
		"no state":                      {func(d *draft) { d.header.StateBytes = 0 }, messages.Code_DAMAGED},
		"endless state":                 {func(d *draft) { d.header.StateBytes = stateBytesMax + 1 }, messages.Code_DAMAGED},
		"state that is none":            {func(d *draft) { d.state[0] = 0xff }, messages.Code_DAMAGED},
		"state that contradicts itself": {func(d *draft) { d.setState(state(func(c *messages.Checkpoint) { c.Sessions[0].Client = nil })) }, messages.Code_DAMAGED},
		"state with a session twice": {func(d *draft) {
			d.setState(state(func(c *messages.Checkpoint) { c.Sessions = append(c.Sessions, c.Sessions[0]) }))
		}, messages.Code_DAMAGED},
		"newer state":                     {func(d *draft) { d.setState(state(func(c *messages.Checkpoint) { c.Format++ })) }, messages.Code_UNSUPPORTED},
		"empty key":                       {rows(snapshottest.Row("", 5, "x")), messages.Code_DAMAGED},
		"long key":                        {rows(snapshottest.Row(string(make([]byte, messages.KeySizeMax+1)), 5, "x")), messages.Code_DAMAGED},
		"long value":                      {rows(snapshottest.Row("a", 5, string(make([]byte, messages.ValueSizeMax+1)))), messages.Code_DAMAGED},
		"longest key and value":           {rows(snapshottest.Row(string(make([]byte, messages.KeySizeMax)), 5, string(make([]byte, messages.ValueSizeMax)))), messages.Code_OK},
		"deletion with a value":           {rows(disktest.Whole(disk.Row{Key: []byte("a"), Revision: 5, Value: []byte("x"), Deleted: true})...), messages.Code_DAMAGED},
		"deletion with a version":         {rows(disktest.Whole(disk.Row{Key: []byte("a"), Revision: 5, Created: 5, Version: 1, Deleted: true})...), messages.Code_DAMAGED},
		"created in the future":           {rows(disktest.Whole(disk.Row{Key: []byte("a"), Revision: 5, Created: 6, Version: 1})...), messages.Code_DAMAGED},
		"never written":                   {rows(disktest.Whole(disk.Row{Key: []byte("a"), Revision: 5, Created: 5})...), messages.Code_DAMAGED},
		"never created":                   {rows(summed(func(r *disk.Row) { r.Created, r.Version = 0, 0 })), messages.Code_DAMAGED},
		"another value than was summed":   {rows(unsummed(func(r *disk.Row) { r.Value[0] ^= 1 })), messages.Code_DAMAGED},
		"another version than was summed": {rows(unsummed(func(r *disk.Row) { r.Version++ })), messages.Code_DAMAGED},
		"no checksum":                     {rows(unsummed(func(r *disk.Row) { r.Sum = 0 })), messages.Code_DAMAGED},
		"revision 0":                      {rows(snapshottest.Row("a", 0, "x")), messages.Code_DAMAGED},
		"revision in the future":          {rows(snapshottest.Row("a", 10, "x")), messages.Code_DAMAGED},
		"keys out of order":               {rows(snapshottest.Row("b", 5, "x"), snapshottest.Row("a", 5, "x")), messages.Code_DAMAGED},
		"revisions out of order":          {rows(snapshottest.Row("a", 5, "x"), snapshottest.Row("a", 6, "x")), messages.Code_DAMAGED},
		"row twice":                       {rows(snapshottest.Row("a", 5, "x"), snapshottest.Row("a", 5, "x")), messages.Code_DAMAGED},
		"two rows below history":          {rows(snapshottest.Row("a", 4, "x"), snapshottest.Row("a", 3, "x")), messages.Code_DAMAGED},
		"deletion below history":          {rows(snapshottest.Gone("a", 4)), messages.Code_DAMAGED},
		"one row below history of each":   {rows(snapshottest.Row("a", 4, "x"), snapshottest.Row("b", 3, "x")), messages.Code_OK},
		"chunk without rows":              {func(d *draft) { d.chunks = []rowsChunk{{}} }, messages.Code_DAMAGED},
		"wrong first": {func(d *draft) {
			d.chunks = []rowsChunk{{first: "b", last: "c", rows: []disk.Row{snapshottest.Row("a", 5, ""), snapshottest.Row("c", 5, "")}}}
		}, messages.Code_DAMAGED},
		"wrong last": {func(d *draft) {
			d.chunks = []rowsChunk{{first: "a", last: "b", rows: []disk.Row{snapshottest.Row("a", 5, ""), snapshottest.Row("c", 5, "")}}}
		}, messages.Code_DAMAGED},
		"chunks out of order": {func(d *draft) {
			d.chunks = []rowsChunk{{"b", "b", []disk.Row{snapshottest.Row("b", 5, "")}}, {"a", "a", []disk.Row{snapshottest.Row("a", 5, "")}}}
		}, messages.Code_DAMAGED},
		"key over two chunks": {func(d *draft) {
			d.chunks = []rowsChunk{{"a", "a", []disk.Row{snapshottest.Row("a", 5, "")}}, {"a", "a", []disk.Row{snapshottest.Row("a", 4, "")}}}
		}, messages.Code_OK},
		"key over two chunks, not falling": {func(d *draft) {
			d.chunks = []rowsChunk{{"a", "a", []disk.Row{snapshottest.Row("a", 5, "")}}, {"a", "a", []disk.Row{snapshottest.Row("a", 5, "")}}}
		}, messages.Code_DAMAGED},
		"below history over two chunks": {func(d *draft) {
			d.chunks = []rowsChunk{{"a", "a", []disk.Row{snapshottest.Row("a", 3, "")}}, {"a", "a", []disk.Row{snapshottest.Row("a", 2, "")}}}
		}, messages.Code_DAMAGED},
		"too few chunks told": {func(d *draft) { d.trailer = func(t *messages.SnapshotTrailer) { t.Chunks-- } }, messages.Code_DAMAGED},
		"too many rows told":  {func(d *draft) { d.trailer = func(t *messages.SnapshotTrailer) { t.Rows++ } }, messages.Code_DAMAGED},
		"other bytes told":    {func(d *draft) { d.trailer = func(t *messages.SnapshotTrailer) { t.Bytes++ } }, messages.Code_DAMAGED},
		"another hash told":   {func(d *draft) { d.trailer = func(t *messages.SnapshotTrailer) { t.Hash[3]++ } }, messages.Code_DAMAGED},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDraft(snapshottest.StateAt(9, 4), snapshottest.SomeRows())
			test.change(d)
			check := &Check{}
			var err error
			for _, c := range d.write() {
				if _, err = check.Take(c); err != nil {
					break
				}
			}
			if messages.CodeOf(err) != test.code || (err == nil) != (check.trailer != nil) {
				t.Errorf("%v, want %v", err, test.code)
			}
		})
	}
}

// draft is a snapshot that may be wrong.
type draft struct {
	header  *messages.SnapshotHeader
	state   []byte
	rows    []disk.Row
	chunks  []rowsChunk // in place of rows
	trailer func(*messages.SnapshotTrailer)
}

type rowsChunk struct {
	first, last string
	rows        []disk.Row
}

func newDraft(c *messages.Checkpoint, rows []disk.Row) *draft {
	d := &draft{rows: rows, trailer: func(*messages.SnapshotTrailer) {}}
	d.setState(c)
	return d
}

func (d *draft) setState(c *messages.Checkpoint) {
	d.state = marshalled(c)
	d.header = proto.Clone(headerOf(c, len(d.state))).(*messages.SnapshotHeader)
}

func (d *draft) write() []*messages.SnapshotChunk {
	var tally tally
	chunks := []*messages.SnapshotChunk{tally.seal(messages.ChunkKind_HEADER, nil, nil, statetest.Marshal(d.header), 0)}
	for piece := range slices.Chunk(d.state, 50) {
		chunks = append(chunks, tally.seal(messages.ChunkKind_STATE, nil, nil, piece, 0))
	}
	if d.chunks == nil && len(d.rows) > 0 {
		d.chunks = []rowsChunk{{string(d.rows[0].Key), string(d.rows[len(d.rows)-1].Key), d.rows}}
	}
	for _, c := range d.chunks {
		r := snapshottest.RowsRead(c.rows, &messages.ReadRows{BytesMax: 10 << 20})
		chunks = append(chunks, tally.seal(messages.ChunkKind_ROWS, []byte(c.first), []byte(c.last), r.Rows, r.Count))
	}
	t := tally.trailer()
	d.trailer(t)
	return append(chunks, tally.seal(messages.ChunkKind_TRAILER, nil, nil, statetest.Marshal(t), 0))
}

// TestCheckRefusesChunks alters the chunks of a good snapshot themselves.
func TestCheckRefusesChunks(t *testing.T) {
	right := func(c *messages.SnapshotChunk) *messages.SnapshotChunk {
		c.Checksum = Checksum(c)
		return c
	}
	good := func() []*messages.SnapshotChunk {
		return newDraft(snapshottest.StateAt(9, 4), snapshottest.SomeRows()).write()
	}
	n := len(good())
	for name, change := range map[string]func([]*messages.SnapshotChunk) []*messages.SnapshotChunk{
		"empty":        func([]*messages.SnapshotChunk) []*messages.SnapshotChunk { return []*messages.SnapshotChunk{nil} },
		"one left out": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk { return slices.Delete(c, 2, 3) },
		"one twice":    func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk { return slices.Insert(c, 2, c[1]) },
		"no header":    func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk { return c[1:] },
		"checksum":     func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk { c[1].Checksum++; return c },
		"first of a header": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[0].First = []byte("a")
			right(c[0])
			return c
		},
		"second header": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[1].Kind = messages.ChunkKind_HEADER
			right(c[1])
			return c
		},
		"state in place of it": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[0].Kind = messages.ChunkKind_STATE
			right(c[0])
			return c
		},
		"rows before the state": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[1].Kind = messages.ChunkKind_ROWS
			right(c[1])
			return c
		},
		"end before the state": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[1].Kind, c[1].Body = messages.ChunkKind_TRAILER, nil
			right(c[1])
			return c
		},
		"state after the state": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-2].Kind, c[n-2].First, c[n-2].Last = messages.ChunkKind_STATE, nil, nil
			right(c[n-2])
			return c
		},
		"empty piece of state": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk { c[1].Body = nil; right(c[1]); return c },
		"unknown kind": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-2].Kind, c[n-2].First, c[n-2].Last = 9, nil, nil
			right(c[n-2])
			return c
		},
		"no kind": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-2].Kind, c[n-2].First, c[n-2].Last = 0, nil, nil
			right(c[n-2])
			return c
		},
		"body too long": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-2].Body = make([]byte, BodyBytesMax+1)
			right(c[n-2])
			return c
		},
		"rows that are none": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-2].Body = []byte{0x0a, 0x05}
			right(c[n-2])
			return c
		},
		"a row that is none": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-2].Body = []byte{0x0a, 0x01, 0xff}
			right(c[n-2])
			return c
		},
		"header that is none": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[0].Body = []byte{0xff}
			right(c[0])
			return c
		},
		"trailer that is none": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			c[n-1].Body = []byte{0xff}
			right(c[n-1])
			return c
		},
		"something behind its end": func(c []*messages.SnapshotChunk) []*messages.SnapshotChunk {
			return append(c, right(&messages.SnapshotChunk{Sequence: uint64(n), Kind: messages.ChunkKind_TRAILER}))
		},
	} {
		check := &Check{}
		var err error
		for _, c := range change(good()) {
			if _, err = check.Take(c); err != nil {
				break
			}
		}
		if !refusedFile(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Rows are read in place as protobuf reads them.
func TestRowsAreReadAsProtobufReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &messages.SnapshotRow{
			Key: rapid.SliceOf(rapid.Byte()).Draw(t, "key"), Value: rapid.SliceOf(rapid.Byte()).Draw(t, "value"),
			Revision: rapid.Uint64().Draw(t, "revision"), Deleted: rapid.Bool().Draw(t, "deleted"),
		}
		var got disk.Row
		if !readRow(&got, statetest.Marshal(want)) || !bytes.Equal(got.Key, want.Key) || !bytes.Equal(got.Value, want.Value) ||
			got.Revision != want.Revision || got.Deleted != want.Deleted {
			t.Fatalf("%v became %v", want, got)
		}
	})
}

// FuzzSnapshotFile: whatever a file holds, reading it ends, in an error with a code or
// with what a writer would write; and a glance never brings it down.
func FuzzSnapshotFile(f *testing.F) {
	file := fileOf(f, chunksOf(f, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 40))
	f.Add(file)
	f.Add(file[:len(file)-1])
	f.Add(fileOf(f, chunksOf(f, snapshottest.StateAt(0, 0), nil, 1<<20)))
	f.Add([]byte(magic + "\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, glance := Glance(bytes.NewReader(b), int64(len(b)), messages.Level)
		if glance != nil && !refusedFile(glance) {
			t.Fatalf("at a glance: %v", glance)
		}
		r, rows, err := readSnapshot(bytes.NewReader(b))
		if err != nil {
			if !refusedFile(err) {
				t.Fatal(err)
			}
			return
		}
		if glance != nil || r.Trailer().Rows != uint64(len(rows)) {
			t.Fatalf("%d rows, at a glance %v", len(rows), glance)
		}
	})
}

// FuzzSnapshotChunks: whatever chunks come, each is taken or refused with a code, and
// what is taken keeps the bounds.
func FuzzSnapshotChunks(f *testing.F) {
	for _, c := range chunksOf(f, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 40) {
		f.Add(uint8(c.Kind), c.First, c.Last, c.Body, c.Checksum, true)
		f.Add(uint8(c.Kind), c.First, c.Last, c.Body, c.Checksum, false)
	}
	good := newDraft(snapshottest.StateAt(9, 4), snapshottest.SomeRows()).write()
	f.Fuzz(func(t *testing.T, kind uint8, first, last, body []byte, checksum uint32, right bool) {
		for n := range good { // in place of each chunk in turn
			check := &Check{}
			for _, c := range good[:n] {
				if _, err := check.Take(c); err != nil {
					t.Fatal(err)
				}
			}
			c := &messages.SnapshotChunk{Sequence: uint64(n), Kind: messages.ChunkKind(kind), First: first, Last: last, Body: body, Checksum: checksum}
			if right {
				c.Checksum = Checksum(c)
			}
			rows, err := check.Take(c)
			if err != nil && !refusedFile(err) {
				t.Fatal(err)
			}
			for _, r := range rows {
				if len(r.Key) == 0 || len(r.Key) > messages.KeySizeMax || len(r.Value) > messages.ValueSizeMax || r.Revision == 0 || r.Revision > 9 {
					t.Fatalf("a row of %d and %d bytes at revision %d", len(r.Key), len(r.Value), r.Revision)
				}
			}
		}
	})
}

// chunksOf cuts a state and its rows.
func chunksOf(t snapshottest.T, c *messages.Checkpoint, rows []disk.Row, chunkBytes int) []*messages.SnapshotChunk {
	about := &messages.SnapshotHeader{CreatedBy: "node1", Version: "test", CreatedAtMs: 5}
	return snapshottest.Cut(t, NewSource(c, about, chunkBytes), rows)
}

// readSnapshot reads a file to its end.
func readSnapshot(from io.Reader) (*Reader, []disk.Row, error) {
	r, err := NewReader(from, messages.Level)
	if err != nil {
		return nil, nil, err
	}
	rows, err := snapshottest.ReadAll(r)
	return r, rows, err
}
