// Package disktest holds every storeactor.Disk to the same contract: the files
// of production and the simulator's twin.
package disktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"keyval/messages"
	"keyval/storeactor"
)

// Opener is one node's directory, seen from outside of its processes.
type Opener interface {
	// Open starts a process on the directory.
	Open() (storeactor.Disk, error)
	// Crash ends the process without closing anything. What it wrote stays in the
	// page cache.
	Crash()
}

// PowerCutter is an Opener that can also lose what was never synced.
type PowerCutter interface {
	Opener
	// PowerCut ends the process, and the page cache with it.
	PowerCut()
}

// clause is one part of the contract, held on an empty directory.
type clause struct {
	name string
	test func(t *testing.T, o Opener)
}

// Run holds the disks that empty makes, each in an empty directory, to the contract.
func Run(t *testing.T, empty func(t *testing.T) Opener) {
	for _, c := range slices.Concat(
		baseClauses,
		engineClauses,
		logClauses,
		generationClauses,
		archiveClauses,
	) {
		t.Run(c.name, func(t *testing.T) { c.test(t, empty(t)) })
	}
}

var baseClauses = []clause{
	{"an empty directory is not found", testEmpty},
	{"the identity is written once", testIdentity},
	{"the first generation is made once", testInitialise},
	{"a log reads back as it was saved", testLog},
	{"a commit alone waits for a sync", testCommitAlone},
	{"a log refuses a gap", testLogGap},
	{"handles are opened once and end with close", testHandles},
	{"a key has its newest version at a revision", testVersions},
	{"a scan keeps to its bounds", testScan},
	{"an engine reads like a model", testEngineModel},
	{"an engine refuses what it cannot hold", testRowBounds},
	{"a checkpoint replaces the one before", testCheckpoint},
	{"a checkpoint comes after what it stands on", testCheckpointOrder},
}

// node is a process on a directory, whose errors end the test.
type node struct {
	*testing.T
	opener Opener
	disk   storeactor.Disk
	log    storeactor.Log
	image  *storeactor.LogImage
	engine storeactor.Engine
}

var (
	identity = &messages.Identity{Format: 1, Incarnation: []byte("0123456789abcdef"), Name: "node1", Listen: "127.0.0.1:7001",
		Founders: []*messages.Founder{{RaftId: 1, Name: "node1", Address: "127.0.0.1:7001"}}}
	first = &messages.Checkpoint{Format: 1, ClusterId: []byte("fedcba9876543210"), Index: 1, Term: 1,
		ConfState: &raftpb.ConfState{Voters: []uint64{1}}, NextRaftId: 2}
)

// start makes a directory with its first generation and opens all of it.
func start(t *testing.T, o Opener) *node {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(identity))
	n.ok(n.disk.Initialise(first))
	n.openAll()
	return n
}

func (n *node) ok(err error) {
	n.Helper()
	if err != nil {
		n.Fatalf("unexpected error: %v", err)
	}
}

func (n *node) fails(code messages.Code, err error) {
	n.Helper()
	if messages.CodeOf(err) != code {
		n.Fatalf("got %v (%v), expected %v", messages.CodeOf(err), err, code)
	}
}

func (n *node) same(got, expected any) {
	n.Helper()
	if diff := cmp.Diff(expected, got, protocmp.Transform()); diff != "" {
		n.Fatalf("expected -, got +:\n%s", diff)
	}
}

func (n *node) open() {
	n.Helper()
	disk, err := n.opener.Open()
	n.ok(err)
	n.disk = disk
}

func (n *node) openAll() {
	n.Helper()
	var err error
	n.log, n.image, err = n.disk.OpenLog()
	n.ok(err)
	at, err := n.disk.Checkpoint()
	n.ok(err)
	n.engine, err = n.disk.OpenEngine(at)
	n.ok(err)
}

func (n *node) close() {
	n.Helper()
	n.ok(n.log.Close())
	n.ok(n.engine.Close())
	n.ok(n.disk.Close())
}

// again ends the process, in good order or not, and starts another.
func (n *node) again(crash bool) {
	n.Helper()
	if crash {
		n.opener.Crash()
	} else {
		n.close()
	}
	n.open()
	n.openAll()
}

func testEmpty(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	_, err := n.disk.Identity()
	n.fails(messages.Code_NOT_FOUND, err)
	is, err := n.disk.Initialised()
	n.ok(err)
	n.same(is, false)
	_, _, err = n.disk.OpenLog()
	n.fails(messages.Code_NOT_FOUND, err)
	_, err = n.disk.OpenEngine(first)
	n.fails(messages.Code_NOT_FOUND, err)
	_, err = n.disk.Checkpoint()
	n.fails(messages.Code_NOT_FOUND, err)
	n.fails(messages.Code_NOT_FOUND, n.disk.WriteCheckpoint(first))
	n.fails(messages.Code_NOT_FOUND, n.disk.Initialise(first))
	n.ok(n.disk.Close())
}

func testIdentity(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(identity))
	n.fails(messages.Code_CONFLICT, n.disk.WriteIdentity(identity))
	o.Crash()
	n.open()
	got, err := n.disk.Identity()
	n.ok(err)
	n.same(got, identity)
	n.fails(messages.Code_CONFLICT, n.disk.WriteIdentity(&messages.Identity{Name: "node2"}))
	n.ok(n.disk.Close())
}

func testInitialise(t *testing.T, o Opener) {
	n := start(t, o)
	for _, crash := range []bool{false, true, false} {
		is, err := n.disk.Initialised()
		n.ok(err)
		n.same(is, true)
		n.fails(messages.Code_CONFLICT, n.disk.Initialise(first))
		got, err := n.disk.Checkpoint()
		n.ok(err)
		n.same(got, first)
		n.same(n.image.HardState, hardState(1, 0, 1))
		n.same([]uint64{n.image.BaseIndex, n.image.BaseTerm, uint64(len(n.image.Entries))}, []uint64{1, 1, 0})
		n.again(crash)
	}
	n.close()
}

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// entries are of these indexes and one term.
func entries(term, from, to uint64) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i := from; i <= to; i++ {
		es = append(es, &raftpb.Entry{Term: new(term), Index: new(i), Type: raftpb.EntryNormal.Enum(),
			Data: bytes.Repeat([]byte{byte(i)}, int(i*37%400))})
	}
	return es
}

func testLog(t *testing.T, o Opener) {
	n := start(t, o)
	var expected []*raftpb.Entry
	expectedState := hardState(1, 0, 1)
	for i, s := range []struct {
		hardState *raftpb.HardState
		entries   []*raftpb.Entry
	}{
		{hardState(2, 1, 1), nil},
		{nil, entries(2, 2, 10)},
		{hardState(2, 1, 5), entries(2, 11, 30)},
		{hardState(3, 0, 6), entries(3, 8, 9)}, // another leader's, shorter
		{hardState(3, 2, 6), nil},
		{nil, nil},
		{hardState(4, 4, 9), entries(4, 10, 60)},
		{nil, entries(4, 61, 62)},
		{hardState(5, 0, 62), entries(5, 63, 200)},
		{hardState(6, 3, 62), entries(6, 63, 63)},
	} {
		saved := cloneEntries(s.entries)
		n.ok(n.log.Save(s.hardState, s.entries))
		n.same(s.entries, saved)
		if s.hardState != nil {
			expectedState = s.hardState
		}
		if len(saved) > 0 {
			expected = append(expected[:saved[0].GetIndex()-2:saved[0].GetIndex()-2], saved...)
		}
		n.again(i%3 != 0)
		n.same(n.image.HardState, expectedState)
		n.same(n.image.Entries, expected)
	}
	n.close()
}

func cloneEntries(es []*raftpb.Entry) []*raftpb.Entry {
	var clones []*raftpb.Entry
	for _, e := range es {
		clones = append(clones, proto.Clone(e).(*raftpb.Entry))
	}
	return clones
}

func testCommitAlone(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(hardState(2, 1, 1), entries(2, 2, 9)))
	n.ok(n.log.Save(hardState(2, 1, 7), nil))
	n.again(true)
	if c := n.image.HardState.GetCommit(); c != 1 && c != 7 {
		t.Fatalf("commit is %d, neither the old nor the new", c)
	}
	n.same(n.image.HardState.GetVote(), uint64(1))
	n.ok(n.log.Save(hardState(2, 1, 8), nil))
	n.ok(n.log.Sync())
	n.again(true)
	n.same(n.image.HardState, hardState(2, 1, 8))
	n.ok(n.log.Save(hardState(2, 1, 9), nil))
	n.ok(n.log.Save(nil, entries(2, 10, 10))) // takes along what came before
	n.again(true)
	n.same(n.image.HardState, hardState(2, 1, 9))
	n.close()
}

func testLogGap(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(hardState(2, 1, 1), entries(2, 2, 5)))
	for _, bad := range [][]*raftpb.Entry{
		entries(2, 7, 8), // a gap behind the end
		entries(2, 1, 2), // the base itself
		append(entries(2, 6, 6), entries(2, 8, 8)...), // a gap within
		append(entries(2, 6, 6), entries(2, 6, 6)...), // the same twice
	} {
		n.fails(messages.Code_INTERNAL, n.log.Save(nil, bad))
	}
	n.ok(n.log.Save(nil, entries(2, 6, 6)))
	n.again(true)
	n.same(n.image.Entries, entries(2, 2, 6))
	n.close()
}

func testHandles(t *testing.T, o Opener) {
	n := start(t, o)
	_, _, err := n.disk.OpenLog()
	n.fails(messages.Code_CONFLICT, err)
	_, err = n.disk.OpenEngine(first)
	n.fails(messages.Code_CONFLICT, err)
	n.ok(n.log.Close())
	n.ok(n.engine.Close())
	if n.log.Save(hardState(2, 1, 1), nil) == nil || n.log.Sync() == nil {
		t.Fatal("a closed log can be used")
	}
	if n.engine.Write([]storeactor.Row{{Key: []byte("a"), Revision: 1}}) == nil || n.engine.Sync() == nil {
		t.Fatal("a closed engine can be written")
	}
	n.openAll() // in the same process
	n.close()
}

func row(key, value string, revision uint64) storeactor.Row {
	return storeactor.Row{Key: []byte(key), Value: []byte(value), Revision: revision}
}

func deleted(key string, revision uint64) storeactor.Row {
	return storeactor.Row{Key: []byte(key), Revision: revision, Deleted: true}
}

func testVersions(t *testing.T, o Opener) {
	n := start(t, o)
	rows := []storeactor.Row{
		row("a", "a1", 1), row("b", "", 2), row("a", "a3", 3), deleted("a", 5), row("a", "a7", 7),
		row("", "no key", 8), row("a\x00", "a0", 8), deleted("never", 9),
	}
	n.ok(n.engine.Write(rows[:4])) // several versions of a key in one write
	n.ok(n.engine.Write(rows[4:]))
	n.ok(n.engine.Write(nil))
	check := func() {
		t.Helper()
		for _, c := range []struct {
			key      string
			revision uint64
			value    string
			at       uint64 // 0: not found
		}{
			{"a", 0, "", 0}, {"a", 1, "a1", 1}, {"a", 2, "a1", 1}, {"a", 3, "a3", 3}, {"a", 4, "a3", 3},
			{"a", 5, "", 0}, {"a", 6, "", 0}, {"a", 7, "a7", 7}, {"a", 1 << 62, "a7", 7},
			{"b", 1, "", 0}, {"b", 2, "", 2}, {"b", 9, "", 2},
			{"", 7, "", 0}, {"", 8, "no key", 8}, {"a\x00", 9, "a0", 8}, {"never", 9, "", 0}, {"c", 9, "", 0},
		} {
			got, found, err := n.engine.Get([]byte(c.key), c.revision)
			n.ok(err)
			if found != (c.at != 0) || found && (string(got.Key) != c.key || string(got.Value) != c.value || got.Revision != c.at) {
				t.Errorf("%q at %d: got %q at %d (found %t), expected %q at %d", c.key, c.revision, got.Value, got.Revision, found, c.value, c.at)
			}
		}
	}
	check()
	n.again(true)
	n.ok(n.engine.Write(rows)) // replay writes what is there once more
	check()
	n.again(false)
	check()
	n.close()
}

func scan(n *node, from, to string, revision uint64, reverse bool, limit int) []string {
	n.Helper()
	var got []string
	n.ok(n.engine.Scan([]byte(from), []byte(to), revision, reverse, func(r storeactor.Row) bool {
		got = append(got, fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Revision))
		return len(got) != limit
	}))
	return got
}

func testScan(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.engine.Write([]storeactor.Row{
		row("a", "1", 1), row("b", "2", 2), row("b\x00", "3", 3), row("c", "4", 4), row("\xff\xff", "5", 5),
		deleted("b", 6), row("c", "7", 7), row("aa", "8", 8), row("b", "9", 9),
	}))
	for _, c := range []struct {
		from, to string
		revision uint64
		limit    int
		expected []string // forward
	}{
		{"", "", 5, 0, []string{"a=1@1", "b=2@2", "b\x00=3@3", "c=4@4", "\xff\xff=5@5"}},
		{"", "", 6, 0, []string{"a=1@1", "b\x00=3@3", "c=4@4", "\xff\xff=5@5"}},
		{"", "", 9, 0, []string{"a=1@1", "aa=8@8", "b=9@9", "b\x00=3@3", "c=7@7", "\xff\xff=5@5"}},
		{"b", "c", 9, 0, []string{"b=9@9", "b\x00=3@3"}},
		{"b", "b\x00", 9, 0, []string{"b=9@9"}},
		{"b", "b", 9, 0, nil},
		{"c", "b", 9, 0, nil},
		{"ab", "bb", 5, 0, []string{"b=2@2", "b\x00=3@3"}},
		{"d", "", 9, 0, []string{"\xff\xff=5@5"}},
		{"\xff\xff\xff", "", 9, 0, nil},
		{"", "a", 9, 0, nil},
		{"", "", 0, 0, nil},
		{"", "\xff\xff", 1, 0, []string{"a=1@1"}},
	} {
		name := fmt.Sprintf("[%q, %q) at %d", c.from, c.to, c.revision)
		if diff := cmp.Diff(c.expected, scan(n, c.from, c.to, c.revision, false, 0)); diff != "" {
			t.Errorf("%s: expected -, got +:\n%s", name, diff)
		}
		backward := slices.Clone(c.expected)
		slices.Reverse(backward)
		if diff := cmp.Diff(backward, scan(n, c.from, c.to, c.revision, true, 0)); diff != "" {
			t.Errorf("%s in reverse: expected -, got +:\n%s", name, diff)
		}
	}
	n.same(scan(n, "", "", 9, false, 2), []string{"a=1@1", "aa=8@8"})
	n.same(scan(n, "", "", 9, true, 2), []string{"\xff\xff=5@5", "c=7@7"})
	n.close()
}

// testEngineModel drives the engine and a plain list of rows side by side.
func testEngineModel(t *testing.T, o Opener) {
	n := start(t, o)
	rng := rand.New(rand.NewPCG(1, 2))
	var written []storeactor.Row
	var revision uint64
	key := func() string { return string(rune('a' + rng.IntN(6))) }
	for step := range 400 {
		var batch []storeactor.Row
		for range rng.IntN(4) {
			revision++
			for _, k := range []string{key(), key()}[rng.IntN(2):] {
				r := storeactor.Row{Key: []byte(k), Revision: revision, Deleted: rng.IntN(4) == 0}
				if !r.Deleted {
					r.Value = fmt.Appendf(nil, "%d-%d", step, rng.IntN(100))
				}
				if len(batch) == 0 || batch[len(batch)-1].Revision != revision || string(batch[len(batch)-1].Key) != k {
					batch = append(batch, r)
				}
			}
		}
		n.ok(n.engine.Write(batch))
		written = append(written, batch...)
		from, to, at := key(), key(), uint64(rng.IntN(int(revision)+2))
		reverse := rng.IntN(2) == 0
		n.same(scan(n, from, to, at, reverse, 0), scanModel(written, from, to, at, reverse))
		if step%97 == 96 {
			n.ok(n.engine.Sync())
			n.again(rng.IntN(2) == 0)
		}
	}
	n.close()
}

func scanModel(written []storeactor.Row, from, to string, revision uint64, reverse bool) []string {
	newest := map[string]storeactor.Row{}
	for _, r := range written {
		if r.Revision <= revision && string(r.Key) >= from && string(r.Key) < to {
			newest[string(r.Key)] = r
		}
	}
	var lines []string
	for k, r := range newest {
		if !r.Deleted {
			lines = append(lines, fmt.Sprintf("%s=%s@%d", k, r.Value, r.Revision))
		}
	}
	slices.Sort(lines)
	if reverse {
		slices.Reverse(lines)
	}
	return lines
}

func testRowBounds(t *testing.T, o Opener) {
	n := start(t, o)
	long := storeactor.Row{Key: make([]byte, messages.KeySizeMax), Value: make([]byte, messages.ValueSizeMax), Revision: 1}
	n.ok(n.engine.Write([]storeactor.Row{long}))
	got, found, err := n.engine.Get(long.Key, 1)
	n.ok(err)
	n.same(found && bytes.Equal(got.Value, long.Value), true)
	for _, bad := range []storeactor.Row{
		{Key: []byte("a")}, // no revision
		{Key: make([]byte, 65000), Revision: 2},
		{Key: []byte("a"), Value: make([]byte, 1<<20), Revision: 2},
	} {
		n.fails(messages.Code_INVALID, n.engine.Write([]storeactor.Row{row("x", "x", 2), bad}))
	}
	n.same(scan(n, "x", "y", 9, false, 0), []string(nil))
	n.close()
}

func checkpoint(index, revision uint64) *messages.Checkpoint {
	c := proto.Clone(first).(*messages.Checkpoint)
	c.Index, c.Term, c.Revision = index, 2, revision
	c.Sessions = []*messages.Session{{Client: []byte("client"), TtlMs: revision}}
	return c
}

func testCheckpoint(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(hardState(2, 1, 9), entries(2, 2, 9)))
	n.ok(n.log.Sync())
	for i := uint64(2); i < 9; i++ {
		n.ok(n.engine.Write([]storeactor.Row{row("k", fmt.Sprint(i), i*10)}))
		n.ok(n.engine.Sync())
		expected := checkpoint(i, i*10+5) // commands without rows have revisions too
		n.ok(n.disk.WriteCheckpoint(expected))
		n.again(i%2 == 0)
		got, err := n.disk.Checkpoint()
		n.ok(err)
		n.same(got, expected)
		n.same(scan(n, "", "", got.Revision, false, 0), []string{fmt.Sprintf("k=%d@%d", i, i*10)})
	}
	n.close()
}

func testCheckpointOrder(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(hardState(2, 1, 1), entries(2, 2, 9)))
	n.ok(n.log.Save(hardState(2, 1, 5), nil)) // not synced
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(3, 3)))
	n.ok(n.log.Sync())
	n.ok(n.disk.WriteCheckpoint(checkpoint(3, 3)))
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(6, 6)))
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(2, 2)))

	n.ok(n.engine.Write([]storeactor.Row{row("k", "v", 4)})) // not synced
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(4, 4)))
	n.ok(n.engine.Sync())
	n.ok(n.engine.Write([]storeactor.Row{row("k", "w", 5)})) // above the checkpoint
	n.ok(n.disk.WriteCheckpoint(checkpoint(4, 4)))
	n.ok(n.engine.Close())
	_, err := n.disk.OpenEngine(checkpoint(9, 9))
	n.fails(messages.Code_INTERNAL, err)
	n.engine, err = n.disk.OpenEngine(checkpoint(4, 4))
	n.ok(err)
	n.close()
}
