package raftactor

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"pgregory.net/rapid"

	"keyval/messages"
)

var small = Options{
	LogEntriesKeep: 3, LogBytesKeep: 1 << 10, LogEntriesMax: 12, LogBytesMax: 4 << 10, PinnedBytesMax: 8 << 10,
	MaxSizePerMsg: 256, MaxInflightMsgs: 4, MaxCommitted: 200,
}

// lagging makes a world whose host 3 lacks more than the log of the others holds.
func lagging(t *testing.T, seed uint64) *world {
	seeded(t, seed)
	w := newWorld(t, small, 1, 2, 3)
	w.put(10)
	w.run("a good start", w.equal)
	for l := w.elect(); l.id == 3; l = w.elect() {
		w.cutOff[3] = true
		w.run("another leader", func() bool { return w.leader() != nil })
		w.cutOff[3] = false
		w.run("all follow it", w.equal)
	}
	w.cutOff[3] = true
	w.put(30)
	w.checkpointNow(w.hosts[1], false)
	w.checkpointNow(w.hosts[2], false)
	w.drain()
	w.put(2)
	for _, id := range []uint64{1, 2} {
		if h := w.hosts[id]; h.base <= w.hosts[3].last() {
			t.Fatalf("the log of %d begins at %d, 3 has up to %d: no snapshot is needed", id, h.base, w.hosts[3].last())
		}
	}
	return w
}

func (w *world) checkpointAll() {
	for _, id := range w.ids {
		w.checkpointNow(w.hosts[id], false)
	}
	w.drain()
}

// shipOnly lets time pass until a snapshot is under way, and keeps it so.
func (w *world) shipOnly() {
	w.holdShipments = true
	w.run("a shipment", func() bool { return len(w.shipments) == 1 })
}

// deliverTo brings what is in the network to one host, and its answers back; what
// others say is kept.
func (w *world) deliverTo(id uint64) {
	for i := 0; i < len(w.network); {
		if m := w.network[i]; m.GetTo() == id || m.GetFrom() == id {
			w.deliver(i, false)
		} else {
			i++
		}
	}
}

func progress(r *Replica, peer uint64) (found tracker.Progress) {
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if id == peer {
			found = p
		}
	})
	return found
}

func TestAFollowerThatLacksWhatWasCutGetsASnapshot(t *testing.T) {
	w := lagging(t, 1)
	w.cutOff[3] = false
	w.run("catching up", w.equal)
	if w.installs != 1 {
		t.Fatalf("%d snapshots installed, one is enough", w.installs)
	}
	w.put(3)
	w.run("going on", w.equal)
	w.crash(w.hosts[3])
	w.start(w.hosts[3])
	w.run("coming back", w.equal)
}

// A snapshot whose leader fell while it was under way is taken in the name of the next.
func TestASnapshotOutlivesItsLeader(t *testing.T) {
	w := lagging(t, 2)
	w.cutOff[3] = false
	w.shipOnly()
	old := w.leader()
	w.cutOff[old.id] = true
	next := w.hosts[3-old.id]
	w.run("another leader", func() bool { return next.replica.leader == next.id })
	w.cutOff[old.id] = false
	w.run("the old one follows", func() bool { return old.replica.leader == next.id && w.leader() == next })
	if m := w.shipments[0].message; m.GetTerm() >= next.replica.term || m.GetFrom() == next.id {
		t.Fatalf("the shipment is of term %d from %d, the leader is %d of term %d", m.GetTerm(), m.GetFrom(), next.id, next.replica.term)
	}
	w.arrive(0, false)
	if w.hosts[3].replica.installing == nil {
		t.Fatal("it is not taken")
	}
	w.holdShipments = false
	w.run("catching up", w.equal)
	if w.installs != 1 {
		t.Fatalf("%d snapshots installed", w.installs)
	}
}

// While nobody leads, a staged snapshot waits.
func TestAStagedSnapshotWaitsForALeader(t *testing.T) {
	w := lagging(t, 3)
	w.cutOff[3] = false
	w.shipOnly()
	w.cutOff[1], w.cutOff[2] = true, true
	three := w.hosts[3]
	w.run("nobody leads", func() bool { return three.replica.leader == 0 })
	three.replica.OnPeer(&raftpb.Message{Type: raftpb.MsgVote.Enum(), From: new(uint64(1)), To: new(uint64(3)), Term: new(three.replica.term + 5), Index: new(uint64(99)), LogTerm: new(uint64(9))})
	w.took(three)
	w.drain()
	w.cutOff[1], w.cutOff[2] = false, false
	w.arrive(0, false)
	if three.replica.staged == nil || w.installs+w.unused > 0 {
		t.Fatalf("staged %v, %d installed, %d unused", three.replica.staged != nil, w.installs, w.unused)
	}
	w.holdShipments = false
	w.run("catching up", w.equal)
	if w.installs != 1 {
		t.Fatalf("%d snapshots installed", w.installs)
	}
}

func TestAStaleSnapshotIsOfNoUse(t *testing.T) {
	w := lagging(t, 4)
	w.cutOff[3] = false
	w.run("catching up", w.equal)
	l, three := w.leader(), w.hosts[3]
	for name, state := range map[string]stateAt{"old": w.truth[l.base], "committed": three.state} {
		before := three.state
		three.staging = &testShipment{state: state, message: &raftpb.Message{From: new(l.id), To: new(uint64(3))}}
		m := snapshotOf(l.id, 3, l.replica.term, state.index, state.term)
		if err := three.replica.OnStaged(m); err != nil {
			t.Fatal(err)
		}
		w.took(three)
		if three.staging != nil || three.state != before {
			t.Errorf("%s: it is not refused", name)
		}
		w.drain()
	}
	if w.installs != 1 || w.unused != 2 {
		t.Fatalf("%d installed, %d unused", w.installs, w.unused)
	}
	w.put(1)
	w.run("going on", w.equal)
}

// What a follower keeps of a thorough cut goes when it has it.
func TestSpaceThatWasAskedForComesBackLater(t *testing.T) {
	seeded(t, 12)
	w := newWorld(t, small, 1, 2, 3)
	w.put(5)
	w.run("a good start", w.equal)
	l := w.leader()
	slow := w.hosts[l.id%3+1]
	for range 4 { // it is heard of, and has nothing of what comes
		w.propose(l)
		w.drainBut(slow)
	}
	w.checkpointNow(l, true)
	if l.replica.tail.base != slow.state.index || l.replica.tail.checkpoint() <= slow.state.index {
		t.Fatalf("the log begins at %d, the slow one is at %d: %s", l.replica.tail.base, slow.state.index, w.describe())
	}
	w.run("catching up", w.equal)
	for range 2 * cutTicks {
		w.tick(l)
		w.drain()
	}
	if base, checkpoint := l.replica.tail.base, l.replica.tail.checkpoint(); base != checkpoint {
		t.Fatalf("the log begins at %d, the checkpoint that was to make room is at %d", base, checkpoint)
	}
	l.replica.OnCheckpointed(&messages.Checkpointed{Index: 1, Term: 1, ConfState: w.members[1].ConfState}) // late: below the log
	w.took(l)
}

// Raft forgets once every election timeout whom it heard; a follower that answers is
// active all the time, and one that does not is not.
func TestWhoIsHeardIsActive(t *testing.T) {
	seeded(t, 13)
	w := newWorld(t, small, 1, 2, 3)
	l := w.elect()
	active := func() (n int) {
		for _, f := range l.replica.followers() {
			if f.active {
				n++
			}
		}
		return n
	}
	for range 50 {
		if w.tick(l); active() != 2 {
			t.Fatalf("%d of 2 are active", active())
		}
		w.drain()
	}
	w.cutOff[l.id%3+1] = true
	for range 3 * l.replica.cfg.Options.ElectionTicks {
		w.tick(l)
		w.drain()
	}
	if active() != 1 {
		t.Fatalf("%d are active, one is heard", active())
	}
}

// drainBut does all there is to do, but that one host's log writes nothing.
func (w *world) drainBut(slow *host) {
	for again := true; again; {
		again = false
		for _, id := range w.ids {
			for h := w.hosts[id]; h != slow && len(h.log)+len(h.applies) > 0; again = true {
				w.logStep(h)
				w.apply(h)
			}
		}
		for ; len(w.network) > 0; again = true {
			w.deliver(0, false)
		}
	}
}

// What fell short is asked for again, with the newest checkpoint; a sender that lost
// its memory ends all it had.
func TestAFailedShipmentIsRepeated(t *testing.T) {
	for name, fail := range map[string]func(w *world, l *host){
		"lost": func(w *world, _ *host) { w.arrive(0, true) },
		"forgotten": func(w *world, l *host) {
			w.shipments = nil
			l.replica.OnShipped(&messages.SnapshotShipped{Peer: 0, Failed: true})
			w.took(l)
		},
	} {
		w := lagging(t, 5)
		w.cutOff[3] = false
		w.shipOnly()
		l := w.leader()
		if got := progress(l.replica, 3).State; got != tracker.StateSnapshot {
			t.Fatalf("%s: the follower is in %v", name, got)
		}
		first := w.shipments[0].state.index
		fail(w, l)
		w.checkpointAll()
		w.run("another one", func() bool { return len(w.shipments) == 1 })
		if second := w.shipments[0].state.index; second <= first {
			t.Errorf("%s: the second snapshot is at %d, the first was at %d", name, second, first)
		}
		w.holdShipments = false
		w.run("catching up", w.equal)
	}
}

// A leader that lost its leadership and won it again ships to a peer to which it
// ships already: only the last answer counts.
func TestOnlyTheLastOfTwoShipmentsIsReported(t *testing.T) {
	w := lagging(t, 6)
	w.cutOff[3] = false
	w.shipOnly()
	w.put(2)
	l := w.leader()
	r := l.replica
	r.route(w.shipments[0].message)
	r.OnShipped(&messages.SnapshotShipped{Peer: 3, Failed: true})
	if got := progress(r, 3).State; got != tracker.StateSnapshot || len(r.cutView().pins) != 1 {
		t.Fatalf("the first answer ended both: %v, pins %v", got, r.cutView().pins)
	}
	r.OnShipped(&messages.SnapshotShipped{Peer: 3})
	if got := progress(r, 3).State; got != tracker.StateProbe || len(r.cutView().pins) != 0 {
		t.Fatalf("the last answer ended nothing: %v, pins %v", got, r.cutView().pins)
	}
	r.tail.checkpointed(r.applied, r.appliedTerm, w.members[1].ConfState) // what is carried is older now
	carried := 0
	for _, f := range r.followers() { // it has not spoken yet, but it has the snapshot
		if want := w.shipments[0].state.index; f.need < want || f.carried && f.need > want {
			t.Fatalf("%+v, the snapshot is at %d", f, want)
		} else if f.carried {
			carried++
		}
	}
	if carried != 1 {
		t.Fatalf("%d followers are waited for", carried)
	}
	r.OnShipped(&messages.SnapshotShipped{Peer: 3}) // what nobody waits for
}

// Entries behind a snapshot stay while it is under way, and until its receiver has
// them: or it would need another one for ever.
func TestWhatASnapshotNeedsIsKept(t *testing.T) {
	w := lagging(t, 7)
	w.cutOff[3] = false
	w.shipOnly()
	l := w.leader()
	pinned := w.shipments[0].state.index
	for range 5 {
		w.put(5)
		w.checkpointNow(l, true)
		w.drain()
	}
	if l.replica.tail.base > pinned {
		t.Fatalf("the log begins at %d, the snapshot under way is at %d", l.replica.tail.base, pinned)
	}
	three := w.hosts[3]
	w.arrive(0, false)
	w.logStep(three)
	for len(three.log) > 0 && three.state.index < pinned {
		w.logStep(three)
	}
	for range 2 * cutTicks { // the leader has looked at its log since the answer came
		w.tick(l)
		w.deliverTo(3)
	}
	if base := l.replica.tail.base; base > three.state.index {
		t.Fatalf("the log begins at %d, the follower has up to %d", base, three.state.index)
	}
	w.holdShipments = false
	w.run("catching up", w.equal)
	if w.installs != 1 {
		t.Fatalf("%d snapshots installed", w.installs)
	}
	for range 3 * cutTicks {
		w.tick(l)
		w.drain()
	}
	if l.replica.tail.base <= pinned {
		t.Fatalf("the log still begins at %d", l.replica.tail.base)
	}
}

func TestPinsGiveWayBeyondTheirBound(t *testing.T) {
	w := lagging(t, 8)
	w.cutOff[3] = false
	w.shipOnly()
	pinned, l := w.shipments[0].state.index, w.leader()
	w.put(70)
	w.checkpointNow(l, false)
	if l.replica.tail.base <= pinned {
		t.Fatalf("the log begins at %d, and takes %d bytes behind the pin, %d are allowed",
			l.replica.tail.base, l.replica.tail.bytesAbove(pinned), small.PinnedBytesMax)
	}
	w.holdShipments = false
	w.run("catching up, with another one", w.equal)
}

// Checkpoints that do not keep up shut the gate, before memory is used up; the
// next one opens it.
func TestProposalsWaitForCheckpoints(t *testing.T) {
	seeded(t, 9)
	options := small
	options.LogBytesMax, options.ProposalBytesMax = 1<<10, 100
	w := newWorld(t, options, 1, 2, 3)
	l := w.elect()
	for range 100 {
		w.propose(l)
		w.drain()
	}
	tail := l.replica.tail
	if uncut := tail.bytesAbove(1); uncut <= uncutFactor<<10 || uncut > uncutFactor<<10+4*entryOverhead {
		t.Fatalf("%d bytes are not covered by a checkpoint", uncut)
	}
	refused := 0
	l.replica.OnPropose(Asker{}, &messages.Propose{Command: make([]byte, 99)})
	for _, e := range l.replica.Effects() {
		if r, ok := e.(RefuseProposal); ok && r.Refusal.Code == messages.Code_BUSY {
			refused++
		}
	}
	if refused != 1 {
		t.Fatal("a proposal beyond the bound is not refused as BUSY")
	}
	before := l.state.index
	w.checkpointAll()
	w.run("what waited", func() bool { return l.state.index > before && l.replica.queue.Cost() == 0 && len(l.replica.next) == 0 })
}

// A follower whose checkpoints do not keep up takes no more entries, and more again
// after the next one.
func TestAFollowerWithoutRoomTakesNoEntries(t *testing.T) {
	seeded(t, 10)
	options := small
	options.LogBytesMax = 1 << 10
	w := newWorld(t, options, 1, 2, 3)
	l := w.elect()
	follower := w.hosts[l.id%3+1]
	for range 100 {
		w.propose(l)
		w.drain()
		for id, h := range w.hosts {
			if id != follower.id {
				w.checkpointNow(h, false)
			}
		}
	}
	if got := follower.replica.tail.bytesAbove(1); got > uncutFactor<<10+4<<10 {
		t.Fatalf("the follower has %d bytes in memory", got)
	}
	if follower.state.index >= l.state.index {
		t.Fatal("the follower has it all: nothing was tried")
	}
	w.run("catching up", func() bool {
		w.checkpointNow(follower, false)
		return w.equal()
	})
}

func TestStagedSnapshotsAreValidated(t *testing.T) {
	good := func() *raftpb.Message { return snapshotOf(2, 1, 7, 90, 6) }
	conf := func(c *raftpb.ConfState) func(*raftpb.Message) {
		return func(m *raftpb.Message) { m.Snapshot.Metadata.ConfState = c }
	}
	for name, row := range map[string]struct {
		change func(*raftpb.Message)
		want   string
	}{
		"another type":   {func(m *raftpb.Message) { m.Type = raftpb.MsgApp.Enum() }, "is no snapshot"},
		"another's":      {func(m *raftpb.Message) { m.To = new(uint64(3)) }, "is for replica 3"},
		"its own":        {func(m *raftpb.Message) { m.From = new(uint64(1)) }, "from replica 1"},
		"storage's":      {func(m *raftpb.Message) { m.From = new(uint64(raft.LocalApplyThread)) }, "from replica"},
		"entries":        {func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{{}} }, "entries or data"},
		"data":           {func(m *raftpb.Message) { m.Snapshot.Data = []byte{1} }, "entries or data"},
		"responses":      {func(m *raftpb.Message) { m.Responses = []*raftpb.Message{{}} }, "with responses"},
		"no snapshot":    {func(m *raftpb.Message) { m.Snapshot = nil }, "of index 0"},
		"far index":      {func(m *raftpb.Message) { m.Snapshot.Metadata.Index = new(uint64(indexMax + 1)) }, "of index"},
		"no term":        {func(m *raftpb.Message) { m.Term = nil }, "in a message of term 0"},
		"far term":       {func(m *raftpb.Message) { m.Term = new(uint64(1) << 60) }, "of term"},
		"term to come":   {func(m *raftpb.Message) { m.Snapshot.Metadata.Term = new(uint64(8)) }, "of term 8 in a message of term 7"},
		"no entry term":  {func(m *raftpb.Message) { m.Snapshot.Metadata.Term = nil }, "of term 0"},
		"no conf":        {conf(nil), "without voters"},
		"empty conf":     {conf(&raftpb.ConfState{Learners: []uint64{1}}), "without voters"},
		"voter twice":    {conf(&raftpb.ConfState{Voters: []uint64{1, 1, 2}}), "cannot be"},
		"voter learns":   {conf(&raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{2}}), "cannot be"},
		"voter 0":        {conf(&raftpb.ConfState{Voters: []uint64{0, 1}}), "cannot be"},
		"learns later":   {conf(&raftpb.ConfState{Voters: []uint64{1}, LearnersNext: []uint64{2}}), "cannot be"},
		"not its member": {conf(&raftpb.ConfState{Voters: []uint64{2, 3}}), ""},
		"joint":          {conf(&raftpb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{2, 3}, LearnersNext: []uint64{3}}), ""},
		"good":           {func(*raftpb.Message) {}, ""},
	} {
		s := newScript(nil)
		m := good()
		row.change(m)
		err := s.replica.OnStaged(m)
		s.replica.Advance()
		unused := 0
		for _, e := range s.replica.Effects() {
			if _, ok := e.(StagingUnused); ok {
				unused++
			}
		}
		installs := name == "good" || name == "joint"
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
		if (unused == 1) == installs || (s.replica.installing != nil) != installs {
			t.Errorf("%s: %d times unused, installing %v", name, unused, s.replica.installing)
		}
	}
}

// Appends and applies that were under way when a snapshot came are answered before it.
func TestASnapshotOvertakesNothing(t *testing.T) {
	w := lagging(t, 11)
	w.cutOff[3] = false
	three := w.hosts[3]
	w.shipOnly()
	w.arrive(0, false)
	if three.replica.installing == nil {
		t.Fatal("nothing is being installed")
	}
	l := w.leader()
	beat := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(l.id), To: new(uint64(3)), Term: new(l.replica.term), Commit: new(three.last())}
	for range 3 {
		if err := three.replica.OnPeer(beat); err != nil {
			t.Fatal(err)
		}
		w.took(three)
	}
	w.checkpointNow(three, true)
	if three.state.index < 10 || three.replica.tail.base != 1 || len(three.log) != 1 {
		t.Fatal("the log was cut under the snapshot")
	}
	w.holdShipments = false
	w.run("catching up", w.equal)
	beat.Commit, beat.Term = new(three.state.index), new(w.leader().replica.term)
	beat.From = new(w.leader().id)
	if err := three.replica.OnPeer(beat); err != nil {
		t.Fatal(err)
	}
	w.took(three) // a Die would end the test: all of it is here
	s := &messages.StatusReply{}
	three.replica.FillStatus(s)
	if s.LogFirstIndex != three.base+1 || s.CheckpointIndex != three.checkpoint.index || s.LogBytes == 0 && s.LastIndex > three.base || s.Role != "follower" {
		t.Fatalf("status: %v", s)
	}
}

func TestALearnerSaysSo(t *testing.T) {
	r := newScript(nil).replica
	if err := r.OnStaged(snapshotOf(2, 1, 7, 90, 6, 1)); err != nil {
		t.Fatal(err)
	}
	r.Advance()
	s := &messages.StatusReply{}
	if r.FillStatus(s); s.Role != "learner" {
		t.Fatalf("its role is %s", s.Role)
	}
}

// Whatever is cut, shipped, lost and crashed in whatever order: machines apply in
// order, or start from the state that others had there; and when the faults end, all
// have it all.
func TestStateOutlivesTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { wander(t, rapid.IntRange(200, 2000).Draw(t, "steps")) })
}

func wander(t *rapid.T, steps int) {
	seeded(t, rapid.Uint64().Draw(t, "seed"))
	w := newWorld(t, small, 1, 2, 3)
	for range steps {
		h := w.hosts[rapid.SampledFrom(w.ids).Draw(t, "host")]
		switch what := rapid.IntRange(0, 99).Draw(t, "what"); {
		case what < 20:
			for range rapid.IntRange(1, 15).Draw(t, "ticks") {
				w.tick(h)
			}
		case what < 50 && len(w.network) > 0:
			for n := rapid.IntRange(1, 12).Draw(t, "messages"); n > 0 && len(w.network) > 0; n-- {
				w.deliver(rapid.IntRange(0, min(3, len(w.network)-1)).Draw(t, "which"), rapid.IntRange(0, 9).Draw(t, "luck") == 0)
			}
		case what < 58:
			w.logStep(h)
		case what < 66:
			w.apply(h)
		case what < 74:
			for range rapid.IntRange(1, 8).Draw(t, "commands") {
				w.propose(h)
			}
		case what < 82:
			w.checkpointNow(h, rapid.Bool().Draw(t, "thorough"))
		case what < 86 && len(w.shipments) > 0:
			w.arrive(rapid.IntRange(0, len(w.shipments)-1).Draw(t, "shipment"), rapid.IntRange(0, 4).Draw(t, "luck") == 0)
		case what < 89 && h.replica != nil:
			w.crash(h)
		case what < 93 && h.replica == nil:
			w.start(h)
		case what < 96:
			w.cutOff[h.id] = !w.cutOff[h.id]
		case what < 99:
			w.drain()
		default:
			w.put5(t)
		}
	}
	clear(w.cutOff)
	for _, id := range w.ids {
		if w.hosts[id].replica == nil {
			w.start(w.hosts[id])
		}
	}
	w.run("after the faults", w.equal)
	w.put(1)
	w.run("after the faults, a command", w.equal)
}

// put5 is a good time for a majority, in which the log of the others grows.
func (w *world) put5(t *rapid.T) {
	up := 0
	for _, id := range w.ids {
		if w.hosts[id].replica != nil && !w.cutOff[id] {
			up++
		}
	}
	if up >= 2 {
		w.put(5)
		w.checkpointAll()
	}
}

func snapshotOf(from, to, term, index, indexTerm uint64, learners ...uint64) *raftpb.Message {
	voters := []uint64{1, 2, 3}[len(learners):]
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: &from, To: &to, Term: &term, Snapshot: &raftpb.Snapshot{
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &indexTerm, ConfState: &raftpb.ConfState{Voters: voters, Learners: learners}}}}
}
