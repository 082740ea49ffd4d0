package disktest

import (
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
)

var generationClauses = []clause{
	{"an empty directory takes a state from elsewhere", testStageEmpty},
	{"an empty directory stays empty until a state is installed", testStageGone},
	{"an installed snapshot is the state and the log", testInstall},
	{"a staging that is not installed leaves no trace", testStagingGone},
	{"an install is there whole after any end", testInstallEnds},
	{"an install that makes no sense is refused", testInstallRefused},
	{"a staging gives way to the next", testStagingReplaced},
	{"a staging takes many rows", testStagingLarge},
	{"a late checkpoint of the state before is refused", testLateCheckpoint},
	{"a condemned directory stays condemned", testCondemn},
	{"a retired directory stays retired", testRetire},
	{"a node that joins begins with nothing", testJoin},
	{"a suspicion outlives processes and installations, until it is lifted", testSuspect},
	{"a lineage counts with its state, until it is confirmed", testLineage},
}

// staged writes a state that comes from elsewhere: three rows of two keys.
func (n *node) staged(index, term, revision uint64) disk.Staging {
	n.Helper()
	s, err := n.disk.Stage()
	n.ok(err)
	n.ok(s.Write([]disk.Row{row("a", "new", revision), row("a", "old", revision-5)}))
	n.ok(s.Write([]disk.Row{deleted("b", revision-1), row("b", "gone", revision-2)}))
	n.ok(s.Write(nil))
	n.ok(s.Seal(stagedCheckpoint(index, term, revision)))
	return s
}

func stagedCheckpoint(index, term, revision uint64) *messages.Checkpoint {
	c := checkpoint(index, revision)
	c.Term = term
	return c
}

// isStaged holds all that is open against what staged wrote.
func (n *node) isStaged(index, term, revision uint64) {
	n.Helper()
	got, err := n.disk.Checkpoint()
	n.ok(err)
	n.same(got, stagedCheckpoint(index, term, revision))
	n.same([]uint64{n.image.BaseIndex, n.image.BaseTerm}, []uint64{index, term})
	n.same(scan(n, "", "", revision, false, 0), []string{fmt.Sprintf("a=new@%d", revision)})
	n.same(scan(n, "", "", revision-2, false, 0), []string{fmt.Sprintf("a=old@%d", revision-5), fmt.Sprintf("b=gone@%d", revision-2)})
}

// used is a directory with a history of its own.
func used(t *testing.T, o Opener) *node {
	n := start(t, o)
	n.ok(n.log.Save(HardState(2, 1, 9), entries(2, 2, 9)))
	n.ok(n.log.Sync())
	n.ok(n.engine.Write([]disk.Row{row("k", "mine", 5)}))
	n.ok(n.engine.Sync())
	n.ok(n.disk.WriteCheckpoint(checkpoint(6, 6)))
	return n
}

// isUsed holds all that is open against what used wrote.
func (n *node) isUsed() {
	n.Helper()
	got, err := n.disk.Checkpoint()
	n.ok(err)
	n.same(got, checkpoint(6, 6))
	n.holds(1, 1, HardState(2, 1, 9), entries(2, 2, 9))
	n.same(scan(n, "", "", 6, false, 0), []string{"k=mine@5"})
}

func testStageEmpty(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(Identity))
	n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 3, HardState(4, 2, 100)))
	n.staged(100, 3, 40)
	n.isEmpty()
	n.fails(messages.Code_NOT_FOUND, n.disk.Install(99, 3, HardState(4, 2, 100)))
	n.ok(n.disk.Install(100, 3, HardState(4, 2, 100)))
	n.ok(n.disk.Found(First.ClusterId, 0))
	n.openAll()
	for _, e := range endings {
		n.isStaged(100, 3, 40)
		n.holds(100, 3, HardState(4, 2, 100), nil)
		n.fails(messages.Code_CONFLICT, disk.Initialise(n.disk, First))
		n.ended(e)
	}
	n.isStaged(100, 3, 40)
	n.close()
}

func testStageGone(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	n.ok(n.disk.WriteIdentity(Identity))
	for _, e := range endings {
		n.staged(100, 3, 40)
		n.end(e)
		n.isEmpty()
		n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 3, HardState(4, 2, 100)))
	}
	n.ok(n.staged(100, 3, 40).Drop())
	n.isEmpty()
	n.ok(disk.Initialise(n.disk, First))
	n.openAll()
	n.holds(1, 1, HardState(1, 0, 1), nil)
	n.same(scan(n, "", "", 99, false, 0), []string(nil))
	n.close()
}

// isEmpty: there is no generation.
func (n *node) isEmpty() {
	n.Helper()
	is, err := n.disk.Initialised()
	n.ok(err)
	n.same(is, false)
	_, err = n.disk.Checkpoint()
	n.fails(messages.Code_NOT_FOUND, err)
}

func testInstall(t *testing.T, o Opener) {
	n := used(t, o)
	s := n.staged(100, 3, 40)
	n.same(scan(n, "", "", 99, false, 0), []string{"k=mine@5"}) // nothing of it is seen yet
	n.ok(n.log.Close())
	n.ok(n.disk.Install(100, 3, HardState(4, 2, 100)))
	n.ok(s.Drop())                                              // too late: does nothing
	n.same(scan(n, "", "", 99, false, 0), []string{"k=mine@5"}) // an open engine reads on
	n.ok(n.engine.Close())
	n.openAll()
	n.isStaged(100, 3, 40)
	n.holds(100, 3, HardState(4, 2, 100), nil)

	n.ok(n.log.Save(HardState(4, 2, 101), entries(4, 101, 103)))
	n.ok(n.log.Sync())
	n.ok(n.engine.Write([]disk.Row{row("c", "later", 41)}))
	n.ok(n.engine.Sync())
	later := stagedCheckpoint(101, 4, 41)
	n.ok(n.disk.WriteCheckpoint(later))
	for _, e := range endings {
		n.ended(e)
		got, err := n.disk.Checkpoint()
		n.ok(err)
		n.same(got, later)
		n.holds(100, 3, HardState(4, 2, 101), entries(4, 101, 103))
		n.same(scan(n, "", "", 41, false, 0), []string{"a=new@40", "c=later@41"})
	}
	n.close()
}

func testStagingGone(t *testing.T, o Opener) {
	n := used(t, o)
	for _, e := range endings {
		s := n.staged(100, 3, 40)
		n.ok(s.Drop())
		n.ok(s.Drop())
		n.ok(n.log.Close())
		n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 3, HardState(3, 0, 100)))
		n.staged(100, 3, 40) // and is never installed
		n.ended(e)
		n.isUsed()

		s, err := n.disk.Stage() // and is never sealed
		n.ok(err)
		n.ok(s.Write([]disk.Row{row("a", "x", 7)}))
		n.ended(e)
		n.isUsed()
		n.ok(n.log.Close())
		n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 3, HardState(3, 0, 100))) // it ended with its process
		n.ended(crash)
	}
	n.isUsed()
	n.close()
}

func testInstallEnds(t *testing.T, o Opener) {
	n := used(t, o)
	index, revision := uint64(100), uint64(40)
	for range 2 {
		for _, e := range endings {
			n.staged(index, 3, revision)
			n.ok(n.log.Close())
			n.ok(n.disk.Install(index, 3, HardState(3, 1, index+7))) // the log holds nothing beyond index
			n.ended(e)
			n.isStaged(index, 3, revision)
			n.holds(index, 3, HardState(3, 1, index), nil)
			n.ok(n.log.Save(HardState(3, 1, index+1), entries(3, index+1, index+2)))
			n.ended(e)
			n.holds(index, 3, HardState(3, 1, index+1), entries(3, index+1, index+2))
			index, revision = index+50, revision+30
		}
	}
	n.close()
}

func testInstallRefused(t *testing.T, o Opener) {
	n := used(t, o)
	n.staged(100, 3, 40)
	n.fails(messages.Code_CONFLICT, n.disk.Install(100, 3, HardState(3, 0, 100))) // the log is open
	n.ok(n.log.Close())
	n.fails(messages.Code_NOT_FOUND, n.disk.Install(101, 3, HardState(3, 0, 101)))
	n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 4, HardState(4, 0, 100)))
	n.fails(messages.Code_INTERNAL, n.disk.Install(100, 3, HardState(3, 0, 99))) // what is installed is committed
	n.fails(messages.Code_INTERNAL, n.disk.Install(100, 3, HardState(2, 0, 100)))
	n.fails(messages.Code_INTERNAL, n.disk.Install(100, 3, nil))
	n.ok(n.disk.Install(100, 3, HardState(3, 0, 100)))
	n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 3, HardState(3, 0, 100))) // once
	n.ok(n.engine.Close())
	n.openAll()
	n.isStaged(100, 3, 40)
	n.close()
}

func testStagingReplaced(t *testing.T, o Opener) {
	n := used(t, o)
	before, err := n.disk.Stage()
	n.ok(err)
	n.ok(before.Write([]disk.Row{row("x", "x", 3)}))
	sealed := n.staged(100, 3, 40) // takes the place of one that is open
	if before.Write([]disk.Row{row("y", "y", 3)}) == nil || before.Seal(stagedCheckpoint(90, 3, 30)) == nil {
		t.Fatal("a staging that gave way can be written")
	}
	n.ok(before.Drop())
	if sealed.Write([]disk.Row{row("y", "y", 3)}) == nil || sealed.Seal(stagedCheckpoint(100, 3, 40)) == nil {
		t.Fatal("a sealed staging can be written")
	}
	last := n.staged(200, 3, 80) // takes the place of one that is sealed
	n.ok(sealed.Drop())
	n.ok(n.log.Close())
	n.fails(messages.Code_NOT_FOUND, n.disk.Install(100, 3, HardState(3, 0, 100)))
	n.ok(n.disk.Install(200, 3, HardState(3, 0, 200)))
	third := n.staged(300, 3, 120) // while the engine of the first state is open
	n.same(scan(n, "", "", 6, false, 0), []string{"k=mine@5"})
	n.ok(last.Drop())
	n.ok(n.engine.Close())
	n.openAll()
	n.isStaged(200, 3, 80)
	n.ok(n.log.Close())
	n.ok(n.disk.Install(300, 3, HardState(3, 0, 300))) // opening left the staging alone
	n.ok(third.Drop())
	n.ended(crash)
	n.isStaged(300, 3, 120)
	n.close()
}

func testStagingLarge(t *testing.T, o Opener) {
	n := used(t, o)
	s, err := n.disk.Stage()
	n.ok(err)
	var expected []string
	for at := 0; at < 3000; {
		var rows []disk.Row
		for range 500 {
			key, value := fmt.Sprintf("key%05d", at), strings.Repeat("v", at%97)
			rows = append(rows, row(key, value, uint64(7000-at)), row(key, "before", uint64(3500-at)))
			expected = append(expected, fmt.Sprintf("%s=%s@%d", key, value, 7000-at))
			at++
		}
		n.ok(s.Write(rows))
	}
	n.ok(s.Seal(stagedCheckpoint(100, 3, 7000)))
	n.ok(n.log.Close())
	n.ok(n.disk.Install(100, 3, HardState(3, 0, 100)))
	n.ended(powerCut)
	n.same(scan(n, "", "", 7000, false, 0), expected)
	n.same(len(scan(n, "", "", 3500, false, 0)), 3000)
	n.close()
}

func testLateCheckpoint(t *testing.T, o Opener) {
	n := used(t, o)
	n.staged(100, 3, 40)
	n.ok(n.log.Close())
	n.ok(n.disk.Install(100, 3, HardState(3, 0, 100)))
	for _, late := range []*messages.Checkpoint{checkpoint(7, 7), checkpoint(100, 40)} {
		n.fails(messages.Code_CONFLICT, n.disk.WriteCheckpoint(late))
	}
	var err error
	n.log, n.image, err = n.disk.OpenLog() // the log is opened before the engine is
	n.ok(err)
	n.ok(n.log.Save(HardState(3, 0, 101), entries(3, 101, 101)))
	n.ok(n.log.Sync())
	n.fails(messages.Code_CONFLICT, n.disk.WriteCheckpoint(stagedCheckpoint(101, 3, 41)))
	n.ok(n.engine.Close())
	n.engine, err = n.disk.OpenEngine(stagedCheckpoint(100, 3, 40))
	n.ok(err)
	n.isStaged(100, 3, 40)
	n.ok(n.disk.WriteCheckpoint(stagedCheckpoint(101, 3, 41)))
	n.close()
}

func testRetire(t *testing.T, o Opener) {
	n := used(t, o)
	n.ok(n.disk.Retire("node1 was removed by operation 07"))
	n.ok(n.disk.Retire("node1 was removed by operation 08"))
	for _, e := range endings {
		is, err := n.disk.Initialised()
		n.same(is, false)
		n.fails(messages.Code_REMOVED, err)
		if !strings.Contains(err.Error(), "operation 07") {
			t.Fatalf("%v: how it was removed is gone", err)
		}
		n.fails(messages.Code_REMOVED, disk.Initialise(n.disk, First))
		if e == inOrder {
			n.close()
			n.open()
			continue
		}
		n.end(e)
	}
	n.ok(n.disk.Close())
}

// testJoin: a generation without a configuration, which gives way until the node is told
// who it is, and then to its first snapshot.
func testJoin(t *testing.T, o Opener) {
	n := &node{T: t, opener: o}
	n.open()
	id := &messages.Identity{Format: 1, Incarnation: Identity.Incarnation, Name: "node7", Listen: "127.0.0.1:7007", Join: []string{"127.0.0.1:7001"}}
	n.ok(n.disk.WriteIdentity(id))
	nothing := &messages.Checkpoint{Format: 1, ClusterId: First.ClusterId}
	for range 2 {
		n.ok(disk.Initialise(n.disk, nothing))
		o.Crash()
		n.open()
		is, err := n.disk.Initialised()
		n.ok(err)
		n.same(is, true)
	}
	n.ok(n.disk.Found(First.ClusterId, 7))
	n.ok(n.disk.Move("127.0.0.1:7008", "10.0.0.7:7008"))
	o.Crash()
	n.open()
	n.fails(messages.Code_CONFLICT, disk.Initialise(n.disk, nothing))
	got, err := n.disk.Identity()
	n.ok(err)
	id.ClusterId, id.RaftId, id.Listen, id.Advertise = First.ClusterId, 7, "127.0.0.1:7008", "10.0.0.7:7008"
	n.same(got, id)
	_, err = n.disk.Start(1)
	n.ok(err)
	n.openAll()
	n.same([]uint64{n.image.BaseIndex, n.image.BaseTerm, uint64(len(n.image.Entries))}, []uint64{0, 0, 0})
	n.ok(n.log.Save(HardState(3, 2, 0), nil)) // it may vote before it has a state
	n.ok(n.log.Sync())
	n.again(true)
	n.same(n.image.HardState, HardState(3, 2, 0))
	n.staged(100, 3, 40)
	n.ok(n.log.Close())
	n.ok(n.disk.Install(100, 3, HardState(3, 2, 100)))
	n.ok(n.engine.Close())
	n.openAll()
	n.isStaged(100, 3, 40)
	n.close()
}

func testCondemn(t *testing.T, o Opener) {
	n := used(t, o)
	n.ok(n.disk.Condemn("key \"a\" differs from node 2\nand node 3"))
	n.ok(n.disk.Condemn("another reason"))
	for _, e := range endings {
		is, err := n.disk.Initialised()
		n.same(is, false)
		n.fails(messages.Code_DAMAGED, err)
		if !strings.Contains(err.Error(), "key \"a\" differs from node 2") {
			t.Fatalf("%v: the first reason is gone", err)
		}
		n.fails(messages.Code_DAMAGED, disk.Initialise(n.disk, First))
		got, err := n.disk.Identity() // it can still be told whose directory it is
		n.ok(err)
		n.same(got.Incarnation, Identity.Incarnation)
		if e == inOrder {
			n.close()
			n.open()
			continue
		}
		n.end(e)
	}
	n.ok(n.disk.Close())
}

func testSuspect(t *testing.T, o Opener) {
	n := start(t, o)
	holds := func(expected *messages.Suspicion) {
		t.Helper()
		found, err := n.disk.Suspicion()
		n.ok(err)
		n.same(found, expected)
	}
	holds(&messages.Suspicion{})
	n.ok(n.disk.Suspect(&messages.Suspicion{})) // nothing is lifted
	one := &messages.Suspicion{Accusations: []*messages.Accusation{{RaftId: 2, Term: 3, Acknowledged: 1 << 60, Last: 4}}}
	n.ok(n.disk.Suspect(one))
	two := &messages.Suspicion{Accusations: append(one.Accusations, &messages.Accusation{RaftId: 3, Last: 4})}
	n.ok(n.disk.Suspect(two))
	holds(two)
	o.Crash()
	if p, ok := o.(PowerCutter); ok {
		p.PowerCut()
	}
	n = &node{T: t, opener: o}
	n.open()
	holds(two)
	n.ok(n.disk.Suspect(&messages.Suspicion{}))
	o.Crash()
	n = &node{T: t, opener: o}
	n.open()
	holds(&messages.Suspicion{})
}

func testLineage(t *testing.T, o Opener) {
	n := start(t, o)
	holds := func(expected *messages.Lineage) {
		t.Helper()
		found, err := n.disk.Lineage()
		n.ok(err)
		n.same(found, expected)
	}
	again := func() {
		o.Crash()
		if p, ok := o.(PowerCutter); ok {
			p.PowerCut()
		}
		n = &node{T: t, opener: o}
		n.open()
		n.openAll()
	}
	holds(&messages.Lineage{})
	n.ok(n.disk.Confirm(0))
	of := func(index uint64) *messages.Lineage {
		return &messages.Lineage{From: []uint64{1 << 60, 2}, Index: index}
	}
	inherit := func(index uint64) {
		s, err := n.disk.Stage()
		n.ok(err)
		n.ok(s.Inherit(of(index)))
		n.ok(s.Seal(stagedCheckpoint(index, 3, index)))
	}
	inherit(100)
	holds(&messages.Lineage{}) // it is not installed
	again()
	holds(&messages.Lineage{})
	inherit(100)
	n.ok(n.log.Close())
	n.ok(n.disk.Install(100, 3, HardState(3, 0, 100)))
	holds(of(100))
	again()
	holds(of(100))
	n.ok(n.disk.Confirm(99)) // of another state
	holds(of(100))
	n.ok(n.disk.Confirm(100))
	holds(&messages.Lineage{})
	again()
	holds(&messages.Lineage{})
}
