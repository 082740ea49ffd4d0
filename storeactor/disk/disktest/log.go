package disktest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

var logClauses = []clause{
	{"a log reads back as it was saved", testLog},
	{"a commit alone waits for a sync", testCommitAlone},
	{"a log refuses a gap", testLogGap},
	{"a cut moves the base", testCut},
	{"a cut keeps what was saved before it", testCutKeeps},
	{"a cut that makes no sense is refused", testCutRefused},
	{"a log that is cut reads like a model", testCutModel},
}

// ending is how a process ends.
type ending int

const (
	inOrder ending = iota
	crash
	powerCut // a crash where the harness cannot take the page cache away
)

func (e ending) String() string {
	return []string{"in good order", "by a crash", "by a power cut"}[e]
}

// endings are all ways in which a process may end.
var endings = []ending{inOrder, crash, powerCut}

// end ends the process and starts another, with nothing open.
func (n *node) end(e ending) {
	n.Helper()
	cutter, can := n.opener.(PowerCutter)
	switch {
	case e == inOrder:
		n.close()
	case e == powerCut && can:
		cutter.PowerCut()
	default:
		n.opener.Crash()
	}
	n.open()
}

// ended is end, and opens all of it again.
func (n *node) ended(e ending) {
	n.Helper()
	n.end(e)
	n.openAll()
}

// holds compares what the log held when it was opened.
func (n *node) holds(baseIndex, baseTerm uint64, hs *raftpb.HardState, es []*raftpb.Entry) {
	n.Helper()
	n.same([]uint64{n.image.BaseIndex, n.image.BaseTerm}, []uint64{baseIndex, baseTerm})
	n.same(n.image.HardState, hs)
	if len(es) == 0 {
		n.same(len(n.image.Entries), 0)
		return
	}
	n.same(n.image.Entries, es)
}

func testCut(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(HardState(2, 1, 9), entries(2, 2, 9)))
	for _, s := range []struct {
		cut  uint64
		base uint64 // afterwards
		end  ending
	}{
		{5, 5, inOrder}, {6, 6, crash}, {7, 7, powerCut},
		{7, 7, crash}, {3, 7, powerCut}, {1, 7, inOrder}, // at or below the base: nothing changes
		{9, 9, crash}, // all of it
	} {
		n.ok(n.log.Cut(s.cut, 2))
		n.ended(s.end)
		n.holds(s.base, 2, HardState(2, 1, 9), entries(2, s.base+1, 9))
	}
	n.ok(n.log.Save(HardState(3, 2, 10), entries(3, 10, 12))) // behind an empty log
	n.ok(n.log.Cut(10, 3))
	n.ok(n.log.Save(HardState(4, 2, 10), entries(4, 11, 11))) // another leader's, in place of what is left
	n.ended(powerCut)
	n.holds(10, 3, HardState(4, 2, 10), entries(4, 11, 11))
	n.ok(n.log.Close())
	if n.log.Cut(11, 3) == nil {
		t.Fatal("a closed log can be cut")
	}
}

// testCutKeeps: a cut syncs what was saved before, and harms nothing behind it.
func testCutKeeps(t *testing.T, o Opener) {
	n := start(t, o)
	base := uint64(1)
	for _, e := range endings {
		n.ok(n.log.Save(HardState(2, 1, base), entries(2, base+1, base+20)))
		n.ok(n.log.Save(HardState(2, 1, base+15), nil)) // a commit alone: the cut takes it along
		n.ok(n.log.Cut(base+12, 2))
		n.ended(e)
		n.holds(base+12, 2, HardState(2, 1, base+15), entries(2, base+13, base+20))
		base += 12
	}
	n.ok(n.log.Cut(base+2, 2))
	n.ok(n.log.Save(HardState(4, 3, base+3), entries(4, base+5, base+5))) // another leader's
	n.ok(n.log.Save(HardState(4, 3, base+5), nil))
	n.ok(n.log.Sync())
	n.ended(powerCut)
	n.holds(base+2, 2, HardState(4, 3, base+5), append(entries(2, base+3, base+4), entries(4, base+5, base+5)...))
	n.close()
}

func testCutRefused(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(HardState(3, 1, 7), append(entries(2, 2, 5), entries(3, 6, 9)...)))
	for _, c := range []struct{ index, term uint64 }{
		{10, 3}, // beyond the end
		{8, 3},  // not committed
		{6, 2},  // of another term
		{5, 3},
		{7, 4},
	} {
		n.fails(messages.Code_INTERNAL, n.log.Cut(c.index, c.term))
	}
	n.ok(n.log.Cut(6, 3))
	n.fails(messages.Code_INTERNAL, n.log.Save(nil, entries(3, 6, 7))) // the base itself
	n.fails(messages.Code_INTERNAL, n.log.Save(nil, entries(3, 5, 9)))
	n.ok(n.log.Save(nil, entries(3, 10, 10)))
	n.ended(crash)
	n.holds(6, 3, HardState(3, 1, 7), entries(3, 7, 10))
	n.close()
}

// testCutModel drives the log and a list of entries side by side.
func testCutModel(t *testing.T, o Opener) {
	n := start(t, o)
	rng := rand.New(rand.NewPCG(3, 4))
	base, term, commit := uint64(1), uint64(1), uint64(1)
	baseTerm := uint64(1)
	var model []*raftpb.Entry
	hs := HardState(1, 0, 1)
	for range 150 {
		last := base + uint64(len(model))
		switch rng.IntN(6) {
		case 0: // a new leader, which may replace what is not committed
			term++
			from := commit + 1 + rng.Uint64N(last-commit+1)
			es := entries(term, from, from+rng.Uint64N(4))
			hs = HardState(term, 1+rng.Uint64N(3), commit)
			n.ok(n.log.Save(hs, es))
			model = append(model[:from-base-1:from-base-1], es...)
		case 1, 2, 3: // more entries, and a commit
			commit += rng.Uint64N(last - commit + 1)
			es := entries(term, last+1, last+1+rng.Uint64N(12))
			hs = HardState(term, hs.GetVote(), commit)
			n.ok(n.log.Save(hs, es))
			model = append(model, es...)
		case 4:
			to := base + rng.Uint64N(commit-base+1)
			if to > base {
				baseTerm = model[to-base-1].GetTerm()
				model, base = model[to-base:], to
			}
			n.ok(n.log.Cut(to, baseTerm))
		case 5:
			n.ended(endings[rng.IntN(len(endings))])
			n.holds(base, baseTerm, hs, model)
		}
	}
	if base < 50 {
		t.Fatalf("the log was only cut up to %d", base)
	}
	n.close()
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
	expectedState := HardState(1, 0, 1)
	for i, s := range []struct {
		hardState *raftpb.HardState
		entries   []*raftpb.Entry
	}{
		{HardState(2, 1, 1), nil},
		{nil, entries(2, 2, 10)},
		{HardState(2, 1, 5), entries(2, 11, 30)},
		{HardState(3, 0, 6), entries(3, 8, 9)}, // another leader's, shorter
		{HardState(3, 2, 6), nil},
		{nil, nil},
		{HardState(4, 4, 9), entries(4, 10, 60)},
		{nil, entries(4, 61, 62)},
		{HardState(5, 0, 62), entries(5, 63, 200)},
		{HardState(6, 3, 62), entries(6, 63, 63)},
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
	n.ok(n.log.Save(HardState(2, 1, 1), entries(2, 2, 9)))
	n.ok(n.log.Save(HardState(2, 1, 7), nil))
	n.again(true)
	if c := n.image.HardState.GetCommit(); c != 1 && c != 7 {
		t.Fatalf("commit is %d, neither the old nor the new", c)
	}
	n.same(n.image.HardState.GetVote(), uint64(1))
	n.ok(n.log.Save(HardState(2, 1, 8), nil))
	n.ok(n.log.Sync())
	n.again(true)
	n.same(n.image.HardState, HardState(2, 1, 8))
	n.ok(n.log.Save(HardState(2, 1, 9), nil))
	n.ok(n.log.Save(nil, entries(2, 10, 10))) // takes along what came before
	n.again(true)
	n.same(n.image.HardState, HardState(2, 1, 9))
	n.close()
}

func testLogGap(t *testing.T, o Opener) {
	n := start(t, o)
	n.ok(n.log.Save(HardState(2, 1, 1), entries(2, 2, 5)))
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
