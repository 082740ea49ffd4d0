// Package disktest holds every disk.Disk to the same contract: the files
// of production and the simulator's twin.
package disktest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// Opener is one node's directory, seen from outside of its processes.
type Opener interface {
	// Open starts a process on the directory.
	Open() (disk.Disk, error)
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
	{"a generation that was never used gives way", testFounding},
	{"starts are counted, also over an install", testStarts},
	{"what was heard of others is remembered", testHeard},
	{"handles are opened once and end with close", testHandles},
	{"a checkpoint replaces the one before", testCheckpoint},
	{"a checkpoint comes after what it stands on", testCheckpointOrder},
}

// node is a process on a directory, whose errors end the test.
type node struct {
	*testing.T
	opener Opener
	disk   disk.Disk
	log    disk.Log
	image  *disk.LogImage
	engine disk.Engine
}

// start makes a directory with its first generation and opens all of it.
func start(t *testing.T, o Opener) *node {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(Identity))
	n.ok(disk.Initialise(n.disk, First))
	n.ok(n.disk.Found(First.ClusterId, 0))
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

// close ends the process in good order, whatever of the disk is open.
func (n *node) close() {
	n.Helper()
	if n.log != nil {
		n.ok(n.log.Close())
		n.ok(n.engine.Close())
	}
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
	_, err = n.disk.OpenEngine(First)
	n.fails(messages.Code_NOT_FOUND, err)
	_, err = n.disk.Checkpoint()
	n.fails(messages.Code_NOT_FOUND, err)
	n.fails(messages.Code_NOT_FOUND, n.disk.WriteCheckpoint(First))
	n.fails(messages.Code_NOT_FOUND, disk.Initialise(n.disk, First))
	n.ok(n.disk.Close())
}

func testIdentity(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(&messages.Identity{Name: "mistyped"}))
	n.ok(n.disk.WriteIdentity(Identity)) // nothing is initialised: it is corrected
	o.Crash()
	n.open()
	got, err := n.disk.Identity()
	n.ok(err)
	n.same(got, Identity)
	n.ok(disk.Initialise(n.disk, First))
	n.fails(messages.Code_CONFLICT, n.disk.WriteIdentity(&messages.Identity{Name: "node2"}))
	n.ok(n.disk.Close())
}

func testInitialise(t *testing.T, o Opener) {
	n := start(t, o)
	for _, crash := range []bool{false, true, false} {
		is, err := n.disk.Initialised()
		n.ok(err)
		n.same(is, true)
		n.fails(messages.Code_CONFLICT, disk.Initialise(n.disk, First))
		got, err := n.disk.Checkpoint()
		n.ok(err)
		n.same(got, First)
		n.same(n.image.HardState, HardState(1, 0, 1))
		n.same([]uint64{n.image.BaseIndex, n.image.BaseTerm, uint64(len(n.image.Entries))}, []uint64{1, 1, 0})
		n.again(crash)
	}
	n.close()
}

func testFounding(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(Identity))
	n.fails(messages.Code_NOT_FOUND, n.disk.Found(First.ClusterId, 0))
	other := proto.Clone(First).(*messages.Checkpoint)
	other.ClusterId = []byte("another cluster.")
	for _, first := range []*messages.Checkpoint{other, First} {
		n.ok(disk.Initialise(n.disk, first))
		o.Crash()
		n.open()
		is, err := n.disk.Initialised()
		n.ok(err)
		n.same(is, true)
		got, err := n.disk.Checkpoint()
		n.ok(err)
		n.same(got, first)
	}
	n.ok(n.disk.Found(First.ClusterId, 0))
	n.ok(n.disk.Found(First.ClusterId, 0))
	n.fails(messages.Code_CONFLICT, disk.Initialise(n.disk, other))
	o.Crash()
	n.open()
	n.fails(messages.Code_CONFLICT, disk.Initialise(n.disk, other))
	id, err := n.disk.Identity()
	n.ok(err)
	n.same(id.ClusterId, First.ClusterId)
	n.openAll()
	n.close()
}

func testStarts(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	_, err := n.disk.Start(1)
	n.fails(messages.Code_NOT_FOUND, err)
	n.ok(n.disk.WriteIdentity(Identity))
	n.ok(disk.Initialise(n.disk, First))
	n.ok(n.disk.Found(First.ClusterId, 0))
	var expected []uint64
	begin := func(mark uint64) {
		expected = append(expected, mark)
		starts, err := n.disk.Start(mark)
		n.ok(err)
		n.same(starts, &messages.Starts{Number: uint64(len(expected)), Marks: expected})
		n.openAll()
	}
	begin(7)
	for i, e := range endings {
		n.end(e)
		begin(uint64(10 + i))
		n.staged(uint64(100+i), 3, uint64(40+10*i))
		n.ok(n.log.Close())
		n.ok(n.disk.Install(uint64(100+i), 3, HardState(3, 1, uint64(100+i))))
		n.ok(n.engine.Close())
		n.openAll()
	}
	n.close()
}

func testHeard(t *testing.T, o Opener) {
	n := start(t, o)
	heard, err := n.disk.Heard()
	n.ok(err)
	n.same(len(heard.GetHeard()), 0)
	for i, e := range endings {
		expected := &messages.StartsHeard{Heard: []*messages.Start{{RaftId: 2, Incarnation: []byte("i"), Number: uint64(i), Mark: 9}}}
		n.ok(n.disk.Hear(expected))
		n.ended(e)
		heard, err = n.disk.Heard()
		n.ok(err)
		n.same(heard, expected)
	}
	n.close()
}

func testHandles(t *testing.T, o Opener) {
	n := start(t, o)
	_, _, err := n.disk.OpenLog()
	n.fails(messages.Code_CONFLICT, err)
	_, err = n.disk.OpenEngine(First)
	n.fails(messages.Code_CONFLICT, err)
	n.ok(n.log.Close())
	n.ok(n.engine.Close())
	if n.log.Save(HardState(2, 1, 1), nil) == nil || n.log.Sync() == nil {
		t.Fatal("a closed log can be used")
	}
	if n.engine.Write([]disk.Row{{Key: []byte("a"), Revision: 1}}) == nil || n.engine.Sync() == nil {
		t.Fatal("a closed engine can be written")
	}
	n.openAll() // in the same process
	n.close()
}

func checkpoint(index, revision uint64) *messages.Checkpoint {
	c := proto.Clone(First).(*messages.Checkpoint)
	c.Index, c.Term, c.Revision = index, 2, revision
	c.Sessions = []*messages.Session{{Client: []byte("client"), TtlMs: revision}}
	return c
}

func testCheckpoint(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(HardState(2, 1, 9), entries(2, 2, 9)))
	n.ok(n.log.Sync())
	for i := uint64(2); i < 9; i++ {
		n.ok(n.engine.Write([]disk.Row{row("k", fmt.Sprint(i), i*10)}))
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
	n.ok(n.log.Save(HardState(2, 1, 1), entries(2, 2, 9)))
	n.ok(n.log.Save(HardState(2, 1, 5), nil)) // not synced
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(3, 3)))
	n.ok(n.log.Sync())
	n.ok(n.disk.WriteCheckpoint(checkpoint(3, 3)))
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(6, 6)))
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(2, 2)))

	n.ok(n.engine.Write([]disk.Row{row("k", "v", 4)})) // not synced
	n.fails(messages.Code_INTERNAL, n.disk.WriteCheckpoint(checkpoint(4, 4)))
	n.ok(n.engine.Sync())
	n.ok(n.engine.Write([]disk.Row{row("k", "w", 5)})) // above the checkpoint
	n.ok(n.disk.WriteCheckpoint(checkpoint(4, 4)))
	n.ok(n.engine.Close())
	_, err := n.disk.OpenEngine(checkpoint(9, 9))
	n.fails(messages.Code_INTERNAL, err)
	n.engine, err = n.disk.OpenEngine(checkpoint(4, 4))
	n.ok(err)
	n.close()
}
