package raftactor

import (
	"math"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"keyval/messages"
)

// even is a log (base, last] whose entries take 100 bytes each.
type even struct{ last uint64 }

func (e even) bytesAbove(index uint64) uint64 { return (e.last - min(index, e.last)) * 100 }

func TestHowFarALogIsCut(t *testing.T) {
	options := Options{
		LogEntriesKeep: 40, LogBytesKeep: 1 << 20, LogEntriesMax: 200, LogBytesMax: 1 << 20, PinnedBytesMax: 50_000,
	}
	leader := func(followers ...follower) cutView { return cutView{leads: true, followers: followers} }
	at := func(need uint64) follower { return follower{need: need, active: true} }
	for _, row := range []struct {
		name          string
		base, last    uint64
		applied       uint64
		checkpoint    uint64
		view          cutView
		change        func(*Options)
		to            uint64
		heldByOthers  bool
		alsoThorough  uint64 // up to where, if somebody asks for space
		thoroughHolds bool
	}{
		{name: "no checkpoint yet", base: 0, last: 500, applied: 500, to: 0, alsoThorough: 0},
		{name: "the checkpoint is the base", base: 100, last: 500, applied: 500, checkpoint: 100, to: 100, alsoThorough: 100},
		{name: "some entries stay behind the checkpoint", base: 100, last: 500, applied: 500, checkpoint: 400, to: 360, alsoThorough: 398},
		{name: "a checkpoint of three entries more is not worth it", base: 360, last: 503, applied: 503, checkpoint: 403, to: 360, alsoThorough: 401},
		{name: "a quarter of what is kept is", base: 360, last: 510, applied: 510, checkpoint: 410, to: 370, alsoThorough: 408},
		{name: "few entries with many bytes are", base: 360, last: 503, applied: 503, checkpoint: 403,
			change: func(o *Options) { o.LogBytesKeep = 1000 }, to: 393, alsoThorough: 403},
		{name: "the fewer of entries and bytes stay", base: 100, last: 500, applied: 500, checkpoint: 400,
			change: func(o *Options) { o.LogBytesKeep = 2000 }, to: 380, alsoThorough: 399},
		{name: "an entry beyond what is kept goes", base: 100, last: 500, applied: 500, checkpoint: 400,
			change: func(o *Options) { o.LogBytesKeep = 1 }, to: 400, alsoThorough: 400},
		{name: "a checkpoint above what is applied does not count", base: 100, last: 500, applied: 300, checkpoint: 400, to: 260, alsoThorough: 298},
		{name: "a checkpoint above the log does not count", base: 100, last: 300, applied: 400, checkpoint: 400, to: 260, alsoThorough: 298},

		{name: "a leader keeps nothing for those who may come, if asked", view: leader(), base: 100, last: 500, applied: 500, checkpoint: 400, to: 360, alsoThorough: 400},
		{name: "an active follower keeps what it lacks", view: leader(at(320), at(490)), base: 100, last: 500, applied: 500, checkpoint: 400,
			to: 320, heldByOthers: true, alsoThorough: 320, thoroughHolds: true},
		{name: "all of the log, if need be", view: leader(at(100)), base: 100, last: 250, applied: 250, checkpoint: 240,
			to: 100, heldByOthers: true, alsoThorough: 100, thoroughHolds: true},
		{name: "one that lacks too many entries", view: leader(at(299)), base: 100, last: 500, applied: 500, checkpoint: 400, to: 360, alsoThorough: 400},
		{name: "one that lacks as many as may be", view: leader(at(300)), base: 100, last: 500, applied: 500, checkpoint: 400,
			to: 300, heldByOthers: true, alsoThorough: 300, thoroughHolds: true},
		{name: "one that lacks too many bytes", view: leader(at(320)), base: 100, last: 500, applied: 500, checkpoint: 400,
			change: func(o *Options) { o.LogBytesMax = 17_999 }, to: 360, alsoThorough: 400},
		{name: "one that was not heard of", view: leader(follower{need: 320}), base: 100, last: 500, applied: 500, checkpoint: 400, to: 360, alsoThorough: 400},
		{name: "one that needs a snapshot anyway", view: leader(at(99)), base: 100, last: 250, applied: 250, checkpoint: 240, to: 200, alsoThorough: 240},
		{name: "one that is ahead of this disk", view: leader(at(501)), base: 100, last: 500, applied: 500, checkpoint: 500, to: 460, alsoThorough: 500},
		{name: "one that was brought a snapshot is waited for as for a pin", view: leader(follower{need: 120, active: true, carried: true}),
			base: 100, last: 500, applied: 500, checkpoint: 400, to: 120, heldByOthers: true, alsoThorough: 120, thoroughHolds: true},
		{name: "but no longer", view: leader(follower{need: 120, active: true, carried: true}),
			base: 100, last: 621, applied: 621, checkpoint: 400, to: 360, alsoThorough: 400},

		{name: "a pin", view: cutView{pins: []uint64{350, 130}}, base: 100, last: 500, applied: 500, checkpoint: 400,
			to: 130, heldByOthers: true, alsoThorough: 130, thoroughHolds: true},
		{name: "a pin at the base", view: cutView{pins: []uint64{100}}, base: 100, last: 500, applied: 500, checkpoint: 400,
			to: 100, heldByOthers: true, alsoThorough: 100, thoroughHolds: true},
		{name: "a pin that gave way", view: cutView{pins: []uint64{130}}, base: 100, last: 631, applied: 631, checkpoint: 400, to: 360, alsoThorough: 398},
		{name: "a pin whose entries went", view: cutView{pins: []uint64{99}}, base: 100, last: 500, applied: 500, checkpoint: 400, to: 360, alsoThorough: 398},
		{name: "what a pin leaves is not worth it", view: cutView{pins: []uint64{105}}, base: 100, last: 500, applied: 500, checkpoint: 400,
			to: 100, heldByOthers: true, alsoThorough: 105, thoroughHolds: true},
	} {
		o := options
		if row.change != nil {
			row.change(&o)
		}
		v := row.view
		v.base, v.last, v.applied, v.checkpoint, v.weigher = row.base, row.last, row.applied, row.checkpoint, even{row.last}
		if to, held := v.plan(o); to != row.to || held != row.heldByOthers {
			t.Errorf("%s: to %d, held %v; want %d, %v", row.name, to, held, row.to, row.heldByOthers)
		}
		v.thorough = true
		if to, held := v.plan(o); to != row.alsoThorough || held != row.thoroughHolds {
			t.Errorf("%s, thorough: to %d, held %v; want %d, %v", row.name, to, held, row.alsoThorough, row.thoroughHolds)
		}
	}
}

// No plan leaves the log, or passes what replay and machine need.
func TestNoCutGoesTooFar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := func(name string, most uint64) uint64 { return rapid.Uint64Range(0, most).Draw(t, name) }
		v := cutView{base: n("base", 100), applied: n("applied", 400), checkpoint: n("checkpoint", 400), leads: rapid.Bool().Draw(t, "leads"), thorough: rapid.Bool().Draw(t, "thorough")}
		v.last = v.base + n("entries", 300)
		v.weigher = even{v.last}
		for range n("followers", 3) {
			v.followers = append(v.followers, follower{need: n("need", 500), active: rapid.Bool().Draw(t, "active"), carried: rapid.Bool().Draw(t, "carried")})
		}
		for range n("pins", 2) {
			v.pins = append(v.pins, n("pin", 500))
		}
		to, _ := v.plan(Options{LogEntriesKeep: n("keep", 50), LogBytesKeep: n("bytes", 5000), LogEntriesMax: n("max", 100), LogBytesMax: n("bytes", 10_000), PinnedBytesMax: n("pinned", 20_000)})
		if to < v.base || to > max(v.base, min(v.checkpoint, v.applied, v.last)) {
			t.Fatalf("%+v is cut at %d", v, to)
		}
	})
}

// tailOf holds entries behind base, whose data grow: 1 byte, 2 bytes, and so on.
func tailOf(base uint64, n int) *tail {
	return newTail(&messages.LogOpened{BaseIndex: base, BaseTerm: 3, Entries: grown(base, n)}, nil)
}

func grown(base uint64, n int) (entries []*raftpb.Entry) {
	for i := range n {
		entries = append(entries, &raftpb.Entry{Index: new(base + 1 + uint64(i)), Term: new(uint64(4)), Data: make([]byte, i+1)})
	}
	return entries
}

func TestATailWeighsWhatItHolds(t *testing.T) {
	tail := tailOf(10, 4) // 1+2+3+4 bytes
	expect := func(what string, index, entries, data uint64) {
		t.Helper()
		if got := tail.bytesAbove(index); got != entries*entryOverhead+data {
			t.Errorf("%s: above %d there are %d bytes, want %d entries with %d", what, index, got, entries, data)
		}
	}
	expect("opened", 10, 4, 10)
	expect("opened", 12, 2, 7)
	expect("opened", 14, 0, 0)
	expect("opened", 99, 0, 0)
	expect("opened", 3, 4, 10)
	tail.extend([]*raftpb.Entry{{Index: new(uint64(13)), Term: new(uint64(5)), Data: make([]byte, 100)}})
	expect("replaced", 10, 3, 103)
	expect("replaced", 12, 1, 100)
	tail.cut(12)
	expect("cut", 12, 1, 100)
	expect("cut", 1, 1, 100)
	tail.extend(grown(13, 2))
	expect("extended", 12, 3, 103)
	tail.cut(15)
	expect("empty", 15, 0, 0)
	tail.restore(40, 6)
	expect("restored", 40, 0, 0)
	tail.extend(grown(40, 2))
	expect("restored", 40, 2, 3)
}

func TestATailIsCutAndRestored(t *testing.T) {
	tail := tailOf(10, 4)
	old := tail.entries
	held, err := tail.Entries(11, 15, math.MaxUint64)
	if err != nil || len(held) != 4 {
		t.Fatal(held, err)
	}
	tail.cut(12)
	if &tail.entries[0] == &old[2] || cap(tail.entries) > 4 {
		t.Error("the old array is still held")
	}
	if held[0].GetIndex() != 11 || len(held) != 4 {
		t.Error("what RawNode holds has changed")
	}
	for index, want := range map[uint64]error{11: raft.ErrCompacted, 12: nil, 13: nil, 14: nil, 15: raft.ErrUnavailable} {
		if term, err := tail.Term(index); err != want || err == nil && term != 4 {
			t.Errorf("term at %d: %d, %v", index, term, err)
		}
	}
	if _, err := tail.Entries(12, 14, 1); err != raft.ErrCompacted {
		t.Errorf("entries that were cut: %v", err)
	}
	if first, _ := tail.FirstIndex(); first != 13 {
		t.Errorf("the first index is %d", first)
	}
	tail.restore(20, 9)
	if term, err := tail.Term(20); term != 9 || err != nil || tail.last() != 20 {
		t.Errorf("restored: term %d, %v, last %d", term, err, tail.last())
	}
	for name, do := range map[string]func(){
		"cut below the base": func() { tailOf(10, 4).cut(10) }, "cut above the end": func() { tailOf(10, 4).cut(15) },
		"restore below the base": func() { tailOf(10, 4).restore(10, 4) },
		"a gap":                  func() { tailOf(10, 4).extend(grown(20, 1)) }, "below the base": func() { tailOf(10, 4).extend(grown(9, 1)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			do()
		}()
	}
}

func TestTheSnapshotIsTheLastCheckpoint(t *testing.T) {
	tail := tailOf(10, 4)
	if _, err := tail.Snapshot(); err != raft.ErrSnapshotTemporarilyUnavailable {
		t.Errorf("without a checkpoint: %v", err)
	}
	conf := &raftpb.ConfState{Voters: []uint64{1}}
	tail.checkpointed(12, 4, conf)
	tail.checkpointed(11, 4, conf) // late
	tail.cut(12)
	s, err := tail.Snapshot()
	if err != nil || s.GetMetadata().GetIndex() != 12 || s.GetMetadata().GetTerm() != 4 || len(s.GetMetadata().GetConfState().GetVoters()) != 1 || s.GetData() != nil {
		t.Errorf("%v, %v", s, err)
	}
	tail.restore(20, 5) // its checkpoint comes before; if it did not, nothing below the base would be shipped
	if _, err := tail.Snapshot(); err != raft.ErrSnapshotTemporarilyUnavailable {
		t.Errorf("below the base: %v", err)
	}
}
