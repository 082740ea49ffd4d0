package raftactor

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// What the machines of a world make of changes of its members: by the rules, and all the same.

func founded(ids []uint64) map[uint64]rules.Configuration {
	c := rules.Configuration{Index: 1, ConfState: &raftpb.ConfState{Voters: ids}, NextRaftID: slices.Max(ids) + 1}
	for _, id := range ids {
		c.Members = append(c.Members, &messages.Member{RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("host:%d", id),
			Incarnation: bytes.Repeat([]byte{byte(id)}, messages.IncarnationSize)})
	}
	return map[uint64]rules.Configuration{0: {ConfState: &raftpb.ConfState{}}, 1: c}
}

// judge takes note of the members behind an entry, and says what the machine would.
func (w *world) judge(e *raftpb.Entry) *messages.Verdict {
	now := w.members[e.GetIndex()-1]
	if e.GetType() == raftpb.EntryNormal {
		w.members[e.GetIndex()] = now
		return nil
	}
	change, commands, command := &raftpb.ConfChangeV2{}, &messages.Commands{}, &messages.Command{}
	for _, err := range []error{
		proto.Unmarshal(e.GetData(), change), proto.Unmarshal(change.GetContext(), commands), proto.Unmarshal(commands.GetProposals()[0].GetCommand(), command),
	} {
		if err != nil {
			w.t.Fatalf("entry %d: %v", e.GetIndex(), err)
		}
	}
	verdict := &messages.Verdict{Index: e.GetIndex(), ConfState: now.ConfState}
	next, derived, err := now.Change(command.Operations[0].GetChangeMembers(), e.GetIndex(), nil)
	if err == nil {
		verdict.Accepted, verdict.Change, verdict.ConfState = true, derived, next.ConfState
		now = next
	}
	w.members[e.GetIndex()] = now
	return verdict
}

// checkMembers: raft decides by the configuration that is applied, and a term has one leader.
func (w *world) checkMembers(h *host) {
	r := h.replica
	if r.installing == nil {
		t := tracker.MakeProgressTracker(1, 0)
		t.Config = r.node.Status().Config
		if want := w.members[r.applied].ConfState; want.Equivalent(t.ConfState()) != nil {
			w.t.Fatalf("%d decides by %s, and by the entry %d that it has applied it is %s",
				h.id, raft.DescribeConfState(t.ConfState()), r.applied, raft.DescribeConfState(want))
		}
	}
	if s := r.node.BasicStatus(); s.RaftState == raft.StateLeader {
		if other, led := w.led[s.GetTerm()]; led && other != h.id {
			w.t.Fatalf("%d and %d lead in term %d", other, h.id, s.GetTerm())
		}
		w.led[s.GetTerm()] = h.id
	}
}

// change asks a host's replica for a change of the members as it knows them.
func (w *world) change(h *host, list ...*messages.MemberChange) {
	if h == nil || h.replica == nil {
		return
	}
	now := w.members[h.state.index]
	m := &messages.ChangeMembers{Configuration: now.Index, Changes: list}
	_, derived, err := now.Change(m, h.state.index+1, nil)
	if err != nil {
		return
	}
	command, failed := proto.Marshal(&messages.Command{Operations: []*messages.Operation{{Kind: &messages.Operation_ChangeMembers{ChangeMembers: m}}}})
	if failed != nil {
		w.t.Fatalf("%v", failed)
	}
	h.replica.OnProposeChange(&messages.ProposeChange{Command: command, Change: derived})
	w.took(h)
}

// changed has the leader change the members, and asks until it has.
func (w *world) changed(list ...*messages.MemberChange) {
	now := w.members[w.elect().state.index]
	w.run("a change of the members", func() bool {
		l := w.leader()
		if l == nil || w.members[l.state.index].Index == now.Index {
			w.change(l, list...)
			return false
		}
		return true
	})
}

func addOf(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_AddLearner{AddLearner: &messages.AddLearner{
		RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("host:%d", id), Incarnation: bytes.Repeat([]byte{byte(id)}, messages.IncarnationSize)}}}
}

func promoteOf(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Promote{Promote: &messages.PromoteLearner{RaftId: id}}}
}

func removeOf(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Remove{Remove: &messages.RemoveMember{RaftId: id}}}
}

// join starts a host that has nothing.
func (w *world) join(id uint64) *host {
	h := &host{id: id, hs: &raftpb.HardState{}}
	w.hosts[id] = h
	w.ids = append(slices.Clone(w.ids), id)
	w.start(h)
	return h
}

// caughtUp runs until a host has all that the leader has.
func (w *world) caughtUp(id uint64) {
	w.run(fmt.Sprintf("%d catches up", id), func() bool {
		l := w.leader()
		if l == nil {
			return false
		}
		w.checkpointNow(l, false)
		return w.hosts[id].state == l.state
	})
}

// TestMembersComeAndGo: a cluster whose founders are replaced one after the other, the leader
// among them, and that goes on.
func TestMembersComeAndGo(t *testing.T) {
	seeded(t, 1)
	w := newWorld(t, small, 1, 2, 3)
	w.put(5)
	for id := uint64(4); id <= 6; id++ {
		w.changed(addOf(id))
		w.join(id)
		w.put(3)
		w.caughtUp(id)
		if s := w.hosts[id].replica.roleName(); s != "learner" {
			t.Fatalf("%d is %s", id, s)
		}
		w.changed(promoteOf(id), removeOf(id-3))
		w.put(2) // while joint
		w.changed()
		w.put(2)
		w.run("all have it", w.equal)
	}
	if c := w.members[w.elect().state.index]; len(c.Members) != 3 || c.NextRaftID != 7 || c.Members[0].RaftId != 4 {
		t.Fatalf("%v", c)
	}
	for _, id := range []uint64{1, 2, 3} {
		if w.hosts[id].replica.role == raft.StateLeader {
			t.Errorf("%d leads still", id)
		}
	}
	if w.installs == 0 {
		t.Error("nobody got a snapshot")
	}
}

// removedInTheDark: a voter has applied its own removal, by an append whose entries the leader
// lost in a crash, as it lost the commit. Nobody else knows that the removal is committed. The
// change is one of its own, or leaves a joint configuration.
func removedInTheDark(t *testing.T, ids []uint64, joint bool) (w *world, removed *host) {
	seeded(t, 1)
	w = newWorld(t, Options{}, ids...)
	w.put(2)
	l := w.elect()
	for _, id := range ids {
		if id != l.id {
			removed = w.hosts[id]
		}
	}
	change := []*messages.MemberChange{removeOf(removed.id)}
	if next := uint64(len(ids) + 1); joint {
		w.changed(addOf(next))
		w.join(next)
		w.caughtUp(next)
		w.changed(promoteOf(next), removeOf(removed.id))
		change = nil
	}
	w.put(1)
	w.drain()
	w.change(l, change...)
	index := l.replica.changes.last
	for round := range 3 { // to the others and to the disks, back, and the commit out, to the removed one alone
		for n := len(w.network); n > 0; n-- {
			to := w.network[0].GetTo()
			w.deliver(0, round == 2 && to != removed.id && to != l.id)
		}
		for _, id := range w.ids {
			if h := w.hosts[id]; h.last() < index {
				w.logStep(h)
			}
		}
	}
	if !w.propose(l) || l.last() != index || l.state.index >= index {
		t.Fatalf("the leader has applied %d, and made %d durable; the change is %d", l.state.index, l.last(), index)
	}
	for i := 0; i < len(w.network); {
		if m := w.network[i]; m.GetTo() == removed.id {
			w.deliver(i, false)
		} else {
			i++
		}
	}
	for removed.last() == index {
		w.logStep(removed)
	}
	w.crash(l)
	w.network = nil
	w.apply(removed)
	if removed.state.index != index || removed.replica.isMember(removed.id) || removed.last() <= index {
		t.Fatalf("%d has applied %d, of a log up to %d; the change is %d", removed.id, removed.state.index, removed.last(), index)
	}
	w.start(l)
	return w, removed
}

// TestRemovedVoterLetsOthersLead: those that are left may need the vote of one that is removed
// and has the longest log; after a restart too.
func TestRemovedVoterLetsOthersLead(t *testing.T) {
	for _, c := range []struct {
		name           string
		founders       []uint64
		joint, restart bool
	}{
		{name: "of two", founders: []uint64{1, 2}},
		{name: "of two, started again", founders: []uint64{1, 2}, restart: true},
		{name: "of two, replaced", founders: []uint64{1, 2}, joint: true},
		{name: "of two, replaced and started again", founders: []uint64{1, 2}, joint: true, restart: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, removed := removedInTheDark(t, c.founders, c.joint)
			if c.restart {
				w.logStep(removed) // the commit
				w.checkpointNow(removed, false)
				w.crash(removed)
				w.start(removed)
				if removed.state.index != removed.checkpoint.index || removed.replica.isMember(removed.id) {
					t.Fatalf("%d starts from %d", removed.id, removed.state.index)
				}
			}
			if l := w.elect(); l == removed {
				t.Errorf("%d was removed and leads", l.id)
			}
			w.put(1)
		})
	}
}

// TestRemovedVoterElectsNobodyWhoLacksEntries: with an odd number of voters before its removal
// nobody needs it, and its acknowledgement may be what has committed an entry.
func TestRemovedVoterElectsNobodyWhoLacksEntries(t *testing.T) {
	w, removed := removedInTheDark(t, []uint64{1, 2, 3}, false)
	terms := len(w.led)
	for _, id := range w.ids {
		if h := w.hosts[id]; h != removed && h.last() < removed.last() {
			w.network = nil
			w.cutOff = map[uint64]bool{}
			for _, other := range w.ids {
				w.cutOff[other] = other != id && other != removed.id
			}
			for range 300 {
				for _, h := range w.hosts {
					w.tick(h)
				}
				w.drain()
			}
			if len(w.led) > terms {
				t.Fatalf("%d, with a log up to %d, was elected by %d, which has acknowledged %d", id, h.last(), removed.id, removed.last())
			}
		}
	}
}

// TestMembersChangeUnderFaults: whatever is lost, crashed and cut off, there is one history,
// one leader a term, and in the end the members that are left go on.
func TestMembersChangeUnderFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { churn(t, rapid.IntRange(200, 1500).Draw(t, "steps")) })
}

const hostsMax = 9

func churn(t *rapid.T, steps int) {
	seeded(t, rapid.Uint64().Draw(t, "seed"))
	w := newWorld(t, small, []uint64{1, 2, 3, 4, 5}[:rapid.IntRange(1, 5).Draw(t, "founders")]...)
	for range steps {
		h := w.hosts[rapid.SampledFrom(w.ids).Draw(t, "host")]
		switch what := rapid.IntRange(0, 99).Draw(t, "what"); {
		case what < 18:
			for range rapid.IntRange(1, 15).Draw(t, "ticks") {
				w.tick(h)
			}
		case what < 48 && len(w.network) > 0:
			for n := rapid.IntRange(1, 12).Draw(t, "messages"); n > 0 && len(w.network) > 0; n-- {
				w.deliver(rapid.IntRange(0, min(5, len(w.network)-1)).Draw(t, "which"), rapid.IntRange(0, 9).Draw(t, "luck") == 0)
			}
		case what < 55:
			w.logStep(h)
		case what < 62:
			w.apply(h)
		case what < 66:
			w.propose(h)
		case what < 69:
			w.checkpointNow(h, rapid.Bool().Draw(t, "thorough"))
		case what < 73 && len(w.shipments) > 0:
			w.arrive(rapid.IntRange(0, len(w.shipments)-1).Draw(t, "shipment"), rapid.IntRange(0, 4).Draw(t, "luck") == 0)
		case what < 76 && h.replica != nil:
			if rapid.Bool().Draw(t, "torn") {
				h.tear()
			}
			w.crash(h)
		case what < 80 && h.replica == nil:
			w.start(h)
		case what < 82:
			w.cutOff[h.id] = !w.cutOff[h.id]
		case what < 85:
			w.drain()
		case what < 96:
			w.anyChange(t, h)
		case what < 97 && h.replica != nil:
			h.replica.OnTransferLead(&messages.TransferLead{To: rapid.SampledFrom(w.ids).Draw(t, "to")})
			w.took(h)
		default:
			w.goodTime(t)
		}
	}
	w.healed()
}

// tear writes the entries of the append that is next, and not the hard state behind them.
func (h *host) tear() {
	if len(h.log) == 0 {
		return
	}
	if m, is := h.log[0].(*raftpb.Message); is && m.GetSnapshot() == nil {
		h.save(&raftpb.Message{Entries: m.GetEntries()})
	}
}

// anyChange asks whoever leads, or thinks so, for a change that the rules allow.
func (w *world) anyChange(t *rapid.T, h *host) {
	if l := w.leader(); l != nil && rapid.IntRange(0, 4).Draw(t, "asks") > 0 {
		h = l
	}
	if h.replica == nil {
		return
	}
	c := w.members[h.state.index]
	id := rapid.Uint64Range(1, max(c.NextRaftID, 1))
	switch rapid.IntRange(0, 3).Draw(t, "change") {
	case 0:
		if c.NextRaftID <= hostsMax {
			w.change(h, addOf(c.NextRaftID))
		}
	case 1:
		w.change(h, promoteOf(id.Draw(t, "promoted")))
	case 2:
		w.change(h, removeOf(id.Draw(t, "removed")))
	case 3:
		if c.Joint() {
			w.change(h)
		} else {
			w.change(h, promoteOf(id.Draw(t, "promoted")), removeOf(id.Draw(t, "removed")))
		}
	}
	if _, exists := w.hosts[c.NextRaftID]; !exists && c.NextRaftID <= hostsMax && c.NextRaftID > 1 {
		w.join(c.NextRaftID)
	}
}

// goodTime is some ticks in which nothing is lost.
func (w *world) goodTime(t *rapid.T) {
	for range rapid.IntRange(1, 60).Draw(t, "good ticks") {
		for _, id := range w.ids {
			w.tick(w.hosts[id])
			w.drain()
		}
	}
}

// healed ends all faults, and wants the members that are left to go on.
func (w *world) healed() {
	clear(w.cutOff)
	for id := uint64(1); id <= hostsMax; id++ {
		if h := w.hosts[id]; h == nil {
			w.join(id)
		} else if h.replica == nil {
			w.start(h)
		}
	}
	w.run("after the faults, simple again", func() bool {
		w.checkpointMembers()
		l := w.leader()
		if l == nil {
			return false
		}
		if w.members[l.state.index].Joint() {
			w.change(l)
			return false
		}
		return w.equal()
	})
	w.put(1)
	w.run("after the faults, a command", func() bool {
		w.checkpointMembers()
		return w.equal()
	})
}

// checkpointMembers writes the checkpoints that machines write behind a change that they
// apply or replay.
func (w *world) checkpointMembers() {
	for _, id := range w.ids {
		if h := w.hosts[id]; h.checkpoint.index < w.members[h.state.index].Index {
			w.checkpointNow(h, false)
		}
	}
}
