package audit

import (
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/reading"
)

// auditors are the audits of a cluster, over rows of their own, with a network
// between them that loses nothing but what is silent.
type auditors struct {
	t         *testing.T
	cores     []*audit
	stores    []*disktest.Memory
	revision  []uint64 // that each has come to
	compacted uint64
	silent    map[int]bool
	states    map[int]string // hashes that are not as those of the others
	index     uint64         // that all have come to
	passed    map[int]bool   // who is beyond it
	lineages  map[int]*messages.Lineage
	vouched   []string
	log       []string
}

func newAuditors(t *testing.T, n int) *auditors {
	a := &auditors{t: t, silent: map[int]bool{}, states: map[int]string{}, lineages: map[int]*messages.Lineage{}, passed: map[int]bool{}, index: 40}
	var members []*messages.Member
	for i := range n {
		members = append(members, &messages.Member{RaftId: uint64(i + 1), Name: fmt.Sprintf("n%d", i+1)})
		a.stores = append(a.stores, disktest.NewMemory())
		a.revision = append(a.revision, 0)
	}
	for i := range n {
		core := newAudit(uint64(i+1), 4, uint64(i)<<32)
		core.onMembers(members)
		core.onLeader(1)
		a.cores = append(a.cores, core)
	}
	return a
}

// put writes a row at all but some.
func (a *auditors) put(revision uint64, key, value string, but ...int) {
	for i, s := range a.stores {
		a.revision[i] = revision
		skip := false
		for _, b := range but {
			skip = skip || b == i
		}
		if !skip {
			if err := s.Write([]disk.Row{{Key: []byte(key), Value: []byte(value), Revision: revision}}); err != nil {
				a.t.Fatal(err)
			}
		}
	}
}

// rot alters a row where it lies.
func (a *auditors) rot(at int, revision uint64, key, value string) {
	rows := a.stores[at].Rows[key]
	for i := range rows {
		if rows[i].Revision == revision {
			rows[i].Value = []byte(value)
		}
	}
}

func (a *auditors) run(ticks int) {
	for range ticks {
		for i, core := range a.cores {
			core.onTick(1)
			a.carry(i)
		}
	}
}

func (a *auditors) carry(at int) {
	a.cores[at].lineage = a.lineages[at]
	for _, effect := range a.cores[at].take() {
		switch e := effect.(type) {
		case readOwn:
			reply, _ := reading.Answer(a.stores[at], &messages.Read{Request: e.request, Revision: e.revision, Kind: &messages.Read_Digest{Digest: e.digest}}, a.revision[at], a.compacted)
			a.cores[at].onRead(reply)
			a.carry(at)
		case readState:
			read := &messages.StateRead{Request: e.request, Index: e.index}
			if e.index == 0 {
				a.cores[at].onState(&messages.StateRead{Request: e.request, Index: a.index})
				read.Index = a.index
			}
			a.carry(at)
			read.Hash = []byte("state" + a.states[at])
			if a.passed[at] && e.index > 0 {
				read.Code, read.Hash = messages.Code_COMPACTED, nil
			}
			a.cores[at].onState(read)
			a.carry(at)
		case askPeer:
			if to := int(e.peer - 1); !a.silent[to] && !a.silent[at] {
				a.cores[to].onAsk(uint64(at+1), e.ask)
				a.carry(to)
			}
		case answerPeer:
			a.cores[e.peer-1].onAnswer(uint64(at+1), e.answer)
			a.carry(int(e.peer - 1))
		case tell:
			if to := int(e.peer - 1); !a.silent[to] {
				a.cores[to].onVerdict(e.verdict)
				a.carry(to)
			}
		case vouch:
			a.vouched = append(a.vouched, strings.TrimSpace(fmt.Sprint(e.answer.Code, " ", e.answer.Message)))
		case confirmOwn:
			a.confirm(at, e.index)
		case confirmPeer:
			a.confirm(int(e.peer-1), e.index)
		case warn:
			a.log = append(a.log, fmt.Sprintf("n%d warns: %s", at+1, e.text))
		case condemn:
			a.log = append(a.log, fmt.Sprintf("n%d condemns itself: %s", at+1, e.reason))
			a.silent[at] = true
		}
	}
}

func (a *auditors) confirm(at int, index uint64) {
	if a.lineages[at].GetIndex() == index {
		a.lineages[at] = nil
	}
}

// copied gives a node its state from others' snapshots.
func (a *auditors) copied(at int, from ...uint64) {
	a.lineages[at] = &messages.Lineage{From: from, Index: 30}
}

func TestAudit(t *testing.T) {
	tests := []struct {
		name  string
		nodes int
		given func(*auditors)
		want  []string // beginnings of what is said, once each or more; nothing else is
	}{
		{"equal members say nothing", 3, func(*auditors) {}, nil},
		{"a follower that differs looks again and ends", 3, func(a *auditors) { a.rot(2, 2, "b", "rotten") },
			[]string{"n1 warns: n3 holds other rows", "n3 condemns itself: this node holds other rows"}},
		{"a follower that lost a row", 3, func(a *auditors) { delete(a.stores[1].Rows, "b"); a.stores[1].Keys = []string{"a", "c"} },
			[]string{"n1 warns: n2 holds other rows", "n2 condemns itself"}},
		{"a leader that differs ends itself", 3, func(a *auditors) { a.rot(0, 2, "b", "rotten") }, []string{"n1 condemns itself"}},
		{"a row at the end of all keys that only one has", 3, func(a *auditors) { a.put(9, "zz", "only n2", 0, 2) },
			[]string{"n1 warns: n2 holds other rows", "n2 condemns itself"}},
		{"two that differ have no majority", 2, func(a *auditors) { a.rot(1, 2, "b", "rotten") }, []string{"n1 warns: the members hold different rows"}},
		{"all three differ", 3, func(a *auditors) { a.rot(1, 2, "b", "x"); a.rot(2, 2, "b", "y") }, []string{"n1 warns: the members hold different rows"}},
		{"two of three suffice", 3, func(a *auditors) { a.silent[1] = true }, nil},
		{"one of two others is away: no majority is against the leader", 3, func(a *auditors) { a.silent[1] = true; a.rot(2, 2, "b", "rotten") },
			[]string{"n1 warns: the members hold different rows"}},
		{"one that is not there yet has no voice", 3, func(a *auditors) { a.revision[2] = 1 }, nil},
		{"a leader that has come to nothing yet asks nothing", 3, func(a *auditors) { a.revision[0] = 0 }, nil},
		{"a follower that has come to nothing yet", 3, func(a *auditors) { a.revision[2] = 0 }, nil},
		{"what is compacted is not compared", 3, func(a *auditors) { a.compacted = 100; a.rot(2, 2, "b", "rotten") }, nil},
		{"a verdict of a revision that is compacted by now", 3, func(a *auditors) {
			for _, core := range a.cores {
				core.onLeader(0) // nobody walks
			}
			a.compacted = 3
			a.rot(2, 2, "b", "rotten")
			a.cores[2].onVerdict(&messages.AuditVerdict{Revision: 2})
		}, []string{"n3 condemns itself"}},
		{"another state beside the rows", 3, func(a *auditors) { a.states[1] = "!" },
			[]string{"n1 warns: n2 holds other state beside the rows at index 40 (members, sessions, configuration, level) than n1 and n3",
				"n2 condemns itself: this node holds other state beside the rows at index 40"}},
		{"another state where nothing was ever written", 3, func(a *auditors) { a.revision = []uint64{0, 0, 0}; a.states[1] = "!" },
			[]string{"n1 warns: n2 holds other state beside the rows at index 40", "n2 condemns itself"}},
		{"another state at the leader", 3, func(a *auditors) { a.states[0] = "!" }, []string{"n1 condemns itself: this node holds other state"}},
		{"three different states", 3, func(a *auditors) { a.states[0], a.states[1] = "!", "?" }, []string{"n1 warns: the members hold different state beside the rows at index 40"}},
		{"who is past the index has no voice", 3, func(a *auditors) { a.states[1] = "!"; a.passed[2] = true },
			[]string{"n1 warns: the members hold different state beside the rows"}},
		{"a copy of what rotted before is no second voice", 3, func(a *auditors) { a.rot(0, 2, "b", "x"); a.rot(1, 2, "b", "x"); a.copied(1, 1) },
			[]string{"n1 warns: the members hold different rows of all keys at revision 3, and no majority holds the same; what n2 holds is a copy of what n1 held"}},
		{"nor is the copy of a copy", 5, func(a *auditors) {
			for _, at := range []int{0, 1, 2} {
				a.rot(at, 2, "b", "x")
			}
			a.copied(1, 1)
			a.copied(2, 2, 1)
			a.silent[1] = true
		}, []string{"n1 warns: the members hold different rows"}},
		{"nor a copy of another state", 3, func(a *auditors) { a.states[0], a.states[1] = "!", "!"; a.copied(1, 1) },
			[]string{"n1 warns: the members hold different state"}},
		{"nor where the third has a copy of what the copy was before", 3, func(a *auditors) { a.states[0], a.states[1] = "!", "!"; a.copied(1, 1); a.copied(2, 2) },
			[]string{"n1 warns: the members hold different state"}},
		{"three lineages against one", 5, func(a *auditors) { a.rot(0, 2, "b", "x"); a.rot(1, 2, "b", "x"); a.copied(1, 1) },
			[]string{"n1 condemns itself"}},
		{"two lineages of three, and few members", 5, func(a *auditors) {
			for _, at := range []int{0, 1, 2} {
				a.rot(at, 2, "b", "x")
			}
			a.copied(1, 1)
			a.copied(2, 1)
		}, []string{"n1 warns: the members hold different rows"}},
		{"a copy that was confirmed is a voice", 3, func(a *auditors) {
			a.copied(1, 1)
			a.run(passTicks)
			if a.lineages[1] != nil {
				a.t.Error("nobody confirms n2")
			}
			a.rot(2, 2, "b", "x")
		}, []string{"n1 warns: n3 holds other rows", "n3 condemns itself"}},
		{"a leader confirms itself", 3, func(a *auditors) {
			a.copied(0, 2)
			a.run(passTicks)
			if a.lineages[0] != nil {
				a.t.Error("nobody confirms n1")
			}
		}, nil},
		{"a copy is not confirmed by what it was copied from", 3, func(a *auditors) {
			a.copied(1, 1)
			a.silent[2] = true
			a.run(2 * passTicks)
			if a.lineages[1] == nil {
				a.t.Error("n2 is confirmed")
			}
		}, nil},
		{"nor one that differs in the state alone", 3, func(a *auditors) {
			a.copied(1, 1)
			a.states[2] = "!"
			a.run(2 * passTicks)
			if a.lineages[1] == nil {
				a.t.Error("n2 is confirmed")
			}
		}, []string{"n1 warns: the members hold different state"}},
		{"a false verdict about the state", 3, func(a *auditors) { a.cores[2].onVerdict(&messages.AuditVerdict{State: true}) }, nil},
		{"a false verdict comes to nothing", 3, func(a *auditors) {
			a.cores[2].onVerdict(&messages.AuditVerdict{Revision: 3})
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := newAuditors(t, test.nodes)
			for i, key := range []string{"a", "b", "c"} {
				a.put(uint64(i+1), key, "value of "+key)
			}
			test.given(a)
			a.run(4 * passTicks)
			for _, said := range a.log {
				known := false
				for _, want := range test.want {
					known = known || strings.HasPrefix(said, want)
				}
				if !known {
					t.Errorf("unexpected: %s", said)
				}
			}
			for _, want := range test.want {
				if !strings.Contains("\n"+strings.Join(a.log, "\n"), "\n"+want) {
					t.Errorf("nobody says %q; said: %q", want, a.log)
				}
			}
		})
	}
}

// A walk goes through all keys, range by range, and finds what differs anywhere.
func TestAuditWalksThroughAllKeys(t *testing.T) {
	a := newAuditors(t, 3)
	const keys = 3*questionRowsMax + 17
	for i := range keys {
		a.put(uint64(i+1), fmt.Sprintf("key-%06d", i), "value")
	}
	a.run(9)
	if a.cores[0].cursor == nil {
		t.Fatal("the walk does not go on")
	}
	a.run(4 * passTicks)
	if len(a.log) > 0 || a.cores[0].walked == 0 || a.cores[1].walked > 0 {
		t.Fatalf("equal members: %q; %d and %d walks are counted", a.log, a.cores[0].walked, a.cores[1].walked)
	}
	a.rot(1, keys-2, fmt.Sprintf("key-%06d", keys-3), "rotten")
	a.run(4 * passTicks)
	if !a.silent[1] || a.silent[0] || a.silent[2] {
		t.Fatalf("n2 alone is rotten, and: %q", a.log)
	}
}

// A verdict over more than one digest covers compares what this node's own covers:
// what there is behind it is no difference.
func TestAuditFalseVerdictOverAllKeys(t *testing.T) {
	a := newAuditors(t, 3)
	const keys = reading.DigestRowsMax + 17
	for i := range keys {
		a.put(uint64(i+1), fmt.Sprintf("key-%06d", i), "value")
	}
	a.cores[0].onLeader(0)
	a.cores[2].onVerdict(&messages.AuditVerdict{Revision: keys})
	a.carry(2)
	a.run(2 * giveUpTicks)
	if len(a.log) > 0 {
		t.Fatalf("equal members: %q", a.log)
	}
}

// A member that takes long to read is asked again, and reads once.
func TestAuditAskedAgainReadsOnce(t *testing.T) {
	core := newAudit(2, 4, 0)
	ask := func(round uint64) {
		core.onAsk(1, &messages.AuditAsk{Round: round, Revision: 5, Limit: 10})
	}
	ask(7)
	ask(7)
	reads := core.take()
	if len(reads) != 1 {
		t.Fatalf("%d reads for a question that came twice", len(reads))
	}
	core.onRead(&messages.ReadReply{Request: reads[0].(readOwn).request, Digest: &messages.RangeDigest{}})
	if said := core.take(); len(said) != 1 || said[0].(answerPeer).answer.Round != 7 {
		t.Fatalf("answered %v", said)
	}
	ask(8)
	ask(9) // the asker waits for this one only
	reads = core.take()
	for _, r := range reads {
		core.onRead(&messages.ReadReply{Request: r.(readOwn).request, Digest: &messages.RangeDigest{}})
	}
	if said := core.take(); len(reads) != 2 || len(said) != 1 || said[0].(answerPeer).answer.Round != 9 {
		t.Fatalf("%d reads, answered %v", len(reads), said)
	}
}

// A walk goes on where it was when a read of its own is lost.
func TestAuditWalkOutlivesALostRead(t *testing.T) {
	a := newAuditors(t, 3)
	for i := range 2*questionRowsMax + 17 {
		a.put(uint64(i+1), fmt.Sprintf("key-%06d", i), "value")
	}
	a.run(4)
	core := a.cores[0]
	at := string(core.cursor)
	if at == "" {
		t.Fatal("the walk does not go on")
	}
	for range giveUpTicks + 4 {
		core.onTick(1)
		core.take() // what is asked is lost
	}
	if string(core.cursor) != at {
		t.Fatalf("the walk was at %q, it is at %q", at, core.cursor)
	}
}

// Who is to ship a state hears whether another member holds the same, and within how many
// ticks.
func TestVouching(t *testing.T) {
	for _, row := range []struct {
		name  string
		nodes int
		peer  uint64
		given func(*auditors)
		ticks int
		want  string
	}{
		{"nobody is there to ask", 2, 2, func(*auditors) {}, 0, "OK"},
		{"an equal member", 3, 2, func(*auditors) {}, 5, "OK"},
		{"an equal member, and nothing was ever written", 3, 2, func(a *auditors) { a.revision = []uint64{0, 0, 0} }, 5, "OK"},
		{"though the receiver cannot tell", 3, 2, func(a *auditors) { a.silent[1] = true }, 5, "OK"},
		{"though the receiver cannot tell, and has been asked", 3, 2, func(a *auditors) { a.silent[1] = true; a.run(4) }, 5, "OK"},
		{"one is dead, and waited for once", 4, 2, func(a *auditors) {
			a.silent[1], a.silent[3] = true, true
			for i := range 5 * questionRowsMax {
				a.put(uint64(i+4), fmt.Sprintf("key%06d", i), "v")
			}
		}, 2 * hasteTicks, "OK"},
		{"a walk not long ago", 3, 2, func(a *auditors) { a.run(passTicks) }, 0, "OK"},
		{"a walk long ago", 3, 2, func(a *auditors) {
			a.run(passTicks)
			a.silent[1], a.silent[2] = true, true
			a.run(vouchedTicks + 5*giveUpTicks)
		}, 3 * hasteTicks, "UNREACHABLE no other member of another lineage has answered"},
		{"nobody answers", 3, 2, func(a *auditors) { a.silent[1], a.silent[2] = true, true }, 3 * hasteTicks, "UNREACHABLE no other member of another lineage has answered"},
		{"only a copy of it answers", 3, 2, func(a *auditors) { a.silent[1] = true; a.copied(2, 1) }, 3 * hasteTicks, "UNREACHABLE no other member of another lineage has answered"},
		{"nobody answered a moment ago", 3, 2, func(a *auditors) {
			a.silent[1], a.silent[2] = true, true
			a.cores[0].onVouch(&messages.VouchState{Holder: "before", Peer: 2})
			a.run(3 * hasteTicks)
			a.vouched = nil
		}, 0, "UNREACHABLE no other member of another lineage has answered"},
		{"nobody answered a while ago", 3, 2, func(a *auditors) {
			a.silent[1], a.silent[2] = true, true
			a.cores[0].onVouch(&messages.VouchState{Holder: "before", Peer: 2})
			a.run(3*hasteTicks + aloneTicks)
			a.silent[2], a.vouched = false, nil
		}, 3 * hasteTicks, "OK"},
		{"one that differs", 3, 2, func(a *auditors) { a.silent[1] = true; a.rot(0, 2, "b", "x") }, 3 * hasteTicks,
			"CONFLICT the members hold different rows of all keys at revision 3"},
		{"one that differs, and without the receiver there is no quorum", 5, 2, func(a *auditors) {
			a.silent[1], a.silent[3], a.silent[4] = true, true, true
			a.rot(0, 2, "b", "x")
		}, 3 * hasteTicks, "UNREACHABLE no other member of another lineage has answered"},
		{"one that does not lead", 3, 2, func(a *auditors) {
			for _, core := range a.cores {
				core.onLeader(3)
			}
		}, 0, "UNREACHABLE this node does not lead, as its audit knows"},
	} {
		a := newAuditors(t, row.nodes)
		for i, key := range []string{"a", "b", "c"} {
			a.put(uint64(i+1), key, "value of "+key)
		}
		row.given(a)
		a.cores[0].onVouch(&messages.VouchState{Holder: "to", Peer: row.peer})
		a.carry(0)
		a.run(row.ticks)
		if len(a.vouched) != 1 || a.vouched[0] != row.want {
			t.Errorf("%s: %q, want %q once; said %q", row.name, a.vouched, row.want, a.log)
		}
	}
}
