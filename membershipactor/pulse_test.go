package membershipactor

import (
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// group is some censuses that hear each other at once.
type group map[messages.RaftID]*census

func newGroup(members *messages.MembersChanged, ids ...messages.RaftID) group {
	g := group{}
	for _, id := range ids {
		g[id] = newCensus(id, 50, fmt.Sprintf("v%d", id))
		g[id].onMembers(members)
	}
	return g
}

func (g group) lead(leader, term uint64) {
	g.each(func(c *census) []saying { return c.onLeader(&messages.LeaderChanged{Leader: leader, Term: term}) })
}

func (g group) tick(n int) {
	for range n {
		g.each(func(c *census) []saying { return c.onTick(1) })
	}
}

func (g group) each(event func(*census) []saying) {
	for _, id := range []messages.RaftID{1, 2, 3, 4} {
		if c := g[id]; c != nil {
			g.deliver(id, event(c))
		}
	}
}

func (g group) deliver(from messages.RaftID, all []saying) {
	for _, s := range all {
		to := g[s.to]
		switch m := s.message.(type) {
		case *messages.NodePulse:
			if to != nil {
				to.onNodePulse(from, m)
			}
		case *messages.ClusterPulse:
			if to != nil {
				to.onClusterPulse(from, m)
			}
		}
	}
}

// roles is what a node answers of its members' roles.
func (c *census) roles() []string {
	var roles []string
	for _, m := range c.reply(&messages.ClusterRequest{}).View.Members {
		roles = append(roles, m.Role)
	}
	return roles
}

func threeMembers() *messages.MembersChanged {
	return &messages.MembersChanged{ClusterId: []byte("c"), ConfigurationIndex: 5, NextRaftId: 4, Index: 9,
		ConfState:  &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}},
		Operations: []*messages.ClusterOperation{{Id: []byte("o"), Kind: messages.OperationKind_ADD}},
		Members: []*messages.Member{
			{RaftId: 1, Name: "n1", Address: "h:1", Incarnation: []byte("1")}, {RaftId: 2, Name: "n2", Address: "h:2", Incarnation: []byte("2")},
			{RaftId: 3, Name: "n3", Address: "h:3", Incarnation: []byte("3"), Type: messages.MemberType_LEARNER},
		}}
}

func wantRoles(t *testing.T, when string, c *census, want ...string) {
	t.Helper()
	if got := c.roles(); !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", when, got, want)
	}
}

func TestEveryNodeKnowsAllFromThePulses(t *testing.T) {
	g := newGroup(threeMembers(), 1, 2, 3)
	wantRoles(t, "before any leader", g[1], "follower", "unknown", "unknown")
	g.lead(1, 7)
	wantRoles(t, "at the leader, after the election", g[1], "leader", "follower", "learner")
	wantRoles(t, "before the first pulse", g[2], "leader", "follower", "unknown")
	g.tick(pulseTicks)
	for id, c := range g {
		wantRoles(t, fmt.Sprintf("at node %d", id), c, "leader", "follower", "learner")
	}
	v := g[3].reply(&messages.ClusterRequest{Request: 8}).View
	if v.Members[1].Version != "v2" || v.Members[1].Member.Name != "n2" || !v.PulseKnown || v.PulseAgeMs > pulseTicks*50 {
		t.Errorf("what node 3 knows of node 2: %s", messages.Line(v))
	}
	if v.Members[1].Member.Incarnation != nil {
		t.Error("a client is told an incarnation")
	}
	if len(v.Operations) != 1 || v.ConfigurationIndex != 5 || v.NextRaftId != 4 || v.Term != 7 || v.Leader != 1 {
		t.Errorf("the view: %s", messages.Line(v))
	}
}

func TestSilenceIsToldEverywhere(t *testing.T) {
	g := newGroup(threeMembers(), 1, 2, 3)
	g.lead(1, 7)
	g.tick(pulseTicks)
	delete(g, 2)
	g.tick(pulseTicks)
	wantRoles(t, "just in contact", g[1], "leader", "follower", "learner")
	g.tick(3 * pulseTicks)
	wantRoles(t, "at the leader", g[1], "leader", "unreachable", "learner")
	wantRoles(t, "at a follower", g[3], "leader", "unreachable", "learner")
	r := g[3].reply(&messages.ClusterRequest{})
	if v := r.View.Members[1]; !v.ContactKnown || v.SilentMs < rules.ContactTicksMax*50 {
		t.Errorf("of the silent one: %s", messages.Line(v))
	}
	if rules.Words(r.Before) != "no quorum: 1 of 2 voters is in contact, 2 are needed" {
		t.Errorf("the budget: %s", rules.Words(r.Before))
	}
	delete(g, 1)
	g.tick(freshTicks + pulseTicks)
	wantRoles(t, "after the leader fell silent", g[3], "unreachable", "unknown", "learner")
	if r := g[3].reply(&messages.ClusterRequest{}); r.View.PulseAgeMs < freshTicks*50 || r.View.PulseKnown || r.Before != nil {
		t.Errorf("after the leader fell silent: %s", messages.Line(r))
	}
	g.lead(3, 8)
	wantRoles(t, "in a new term nobody was heard yet", g[3], "unknown", "unknown", "leader")
	g.tick(rules.ContactTicksMax + 1)
	wantRoles(t, "who was never heard by a new leader", g[3], "unreachable", "unreachable", "leader")
}

// What raft hears counts, if it says anything: a pulse goes other ways.
func TestSilenceIsRaftsWord(t *testing.T) {
	c := newCensus(1, 50, "v")
	c.onMembers(threeMembers())
	c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
	c.onNodePulse(2, &messages.NodePulse{Term: 7})
	c.onReplication(&messages.Replication{Leader: 1, Progress: []*messages.Progress{{RaftId: 2, SilentTicks: rules.ContactTicksMax + 1}, {RaftId: 3}}})
	wantRoles(t, "a pulse came, and raft hears nothing", c, "leader", "unreachable", "learner")
	if b := c.reply(&messages.ClusterRequest{}).Before; b.Available || b.Alive != 1 || b.Voters != 2 {
		t.Errorf("the budget: %s", messages.Line(b))
	}
}

// TestADeathIsKnownAtOnce: nobody waits for the silence of a process that has died.
func TestADeathIsKnownAtOnce(t *testing.T) {
	c := newCensus(1, 50, "v")
	c.onMembers(threeMembers())
	c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
	raft := func(gone bool) {
		c.onReplication(&messages.Replication{Leader: 1, Progress: []*messages.Progress{{RaftId: 2, SilentTicks: 1, Gone: gone}, {RaftId: 3}}})
	}
	raft(false)
	c.onTick(newsTicks)
	wantRoles(t, "all are there", c, "leader", "follower", "learner")
	for _, gone := range []bool{true, false} {
		raft(gone)
		wantRoles(t, "its process has died, or is heard again", c, "leader", map[bool]string{true: "unreachable", false: "follower"}[gone], "learner")
		if b := c.reply(&messages.ClusterRequest{}).Before; b.Available == gone {
			t.Errorf("the budget: %s", messages.Line(b))
		}
		if said := c.onTick(1); len(said) != 2 {
			t.Errorf("the others are told %v at the next tick", said)
		}
	}
}

func TestAPulseOfAnotherTermOrStrangerIsNoNews(t *testing.T) {
	c := newCensus(1, 50, "v")
	c.onMembers(threeMembers())
	c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
	c.onNodePulse(2, &messages.NodePulse{Term: 6, Version: "old"})
	c.onNodePulse(9, &messages.NodePulse{Term: 7, Version: "stranger"})
	c.onNodePulse(0, &messages.NodePulse{Term: 7, Version: "client"})
	if len(c.nodes) != 0 {
		t.Errorf("heard %v", c.nodes)
	}
	c.onClusterPulse(2, &messages.ClusterPulse{Term: 7})
	if c.pulse != nil {
		t.Error("a leader took another's pulse")
	}
	c.onNodePulse(2, &messages.NodePulse{Term: 7})
	fewer := threeMembers()
	fewer.Members = slices.Delete(slices.Clone(fewer.Members), 1, 2)
	c.onMembers(fewer)
	if len(c.nodes) != 0 || len(c.roles()) != 2 {
		t.Errorf("a removed member is remembered: %v", c.nodes)
	}
}

func TestWhatTheLeaderKnowsOfALearner(t *testing.T) {
	c := newCensus(1, 50, "v")
	c.onMembers(threeMembers())
	c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
	c.onNodePulse(3, &messages.NodePulse{Term: 7, Applied: 50})
	c.onNodePulse(2, &messages.NodePulse{Term: 7, Applied: 50})
	raft := func(last, match uint64, state messages.ProgressState) {
		c.onReplication(&messages.Replication{Leader: 1, Term: 7, Commit: last, LastIndex: last, Applied: last, Role: "leader", Progress: []*messages.Progress{
			{RaftId: 2, Match: last, State: messages.ProgressState_REPLICATING}, {RaftId: 3, Match: match, State: state},
		}})
	}
	look := func() *messages.MemberView { return c.reply(&messages.ClusterRequest{}).View.Members[2] }

	raft(10_000, 0, messages.ProgressState_PROBING)
	if v := look(); v.Ready || v.WaitingFor != "n3 lacks 10000 entries" {
		t.Errorf("probing: %s", messages.Line(v))
	}
	raft(10_000, 0, messages.ProgressState_SNAPSHOT)
	var asked bool
	for range pulseTicks {
		for _, s := range c.onTick(1) {
			asked = asked || s.to == 0
		}
	}
	if !asked {
		t.Error("the leader did not ask how far the snapshot is")
	}
	c.onTransfers([]*messages.Transfer{{Peer: 3, BytesDone: 40, BytesTotal: 100, EtaMs: 1234}, {Peer: 2, Incoming: true}})
	if v := look(); !v.SnapshotNeeded || v.SnapshotBytesDone != 40 || v.SnapshotBytesTotal != 100 || v.EtaMs != 1234 || v.WaitingFor != "n3 gets a snapshot, 40 % of it so far" {
		t.Errorf("a snapshot: %s", messages.Line(v))
	}
	c.onTransfers(nil)
	raft(10_000, 2_000, messages.ProgressState_REPLICATING)
	for i := range 10 { // 20 ticks are a second
		c.onTick(4)
		raft(10_000+uint64(i+1)*20, 2_000+uint64(i+1)*200, messages.ProgressState_REPLICATING)
	}
	if v := look(); v.Rate < 900 || v.Rate > 1000 || v.EtaMs == 0 || v.Ready || v.Applied != 50 {
		t.Errorf("catching up: %s", messages.Line(v))
	}
	for range 10 {
		c.onTick(4)
		raft(10_200, 10_200, messages.ProgressState_REPLICATING)
	}
	if v := look(); !v.Ready || v.WaitingFor != "" || v.EtaMs != 0 {
		t.Errorf("there: %s", messages.Line(v))
	}
	if v := c.reply(&messages.ClusterRequest{}).View.Members[1]; v.Ready || v.WaitingFor != "" {
		t.Errorf("a voter waits for nothing: %s", messages.Line(v))
	}
}

func TestStaleRequests(t *testing.T) {
	c := newCensus(2, 50, "v")
	c.onMembers(threeMembers())
	c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
	for _, row := range []struct {
		configuration, term uint64
		want                messages.Code
	}{
		{0, 0, messages.Code_OK}, {5, 7, messages.Code_OK}, {4, 0, messages.Code_CONFLICT}, {5, 6, messages.Code_CONFLICT},
		{6, 0, messages.Code_BUSY}, {0, 8, messages.Code_BUSY}, {4, 8, messages.Code_CONFLICT},
	} {
		if r := c.reply(&messages.ClusterRequest{Configuration: row.configuration, Term: row.term}); r.Code != row.want {
			t.Errorf("configuration %d, term %d: %v, want %v", row.configuration, row.term, r.Code, row.want)
		}
	}
	if r := c.reply(&messages.ClusterRequest{Request: 3, Configuration: 1}); r.Code != messages.Code_CONFLICT || r.Node != "n2" || r.View != nil || r.Request != 3 {
		t.Errorf("a stale question: %s", messages.Line(r))
	}
}

func TestWhoWaitsIsKnownEverywhere(t *testing.T) {
	g := newGroup(threeMembers(), 1, 2, 3)
	g.lead(1, 7)
	g[2].onWaiting([]*messages.WaitingNode{{Name: "n4", Address: "h:4", SilentMs: 10}})
	g[3].onWaiting([]*messages.WaitingNode{{Name: "n4", Address: "h:4", SilentMs: 700}, {Name: "n0", Address: "h:0"}})
	g.tick(2 * pulseTicks)
	for id, c := range g {
		var names []string
		for _, w := range c.reply(&messages.ClusterRequest{}).View.Waiting {
			names = append(names, w.Name)
		}
		if !slices.Equal(names, []string{"n0", "n4"}) {
			t.Errorf("node %d knows that %q wait", id, names)
		}
	}
	g[2].onWaiting(nil)
	g[3].onWaiting(nil)
	g.tick(3 * pulseTicks)
	for id, c := range g {
		if w := c.reply(&messages.ClusterRequest{}).View.Waiting; len(w) > 0 {
			t.Errorf("node %d still knows %v", id, w)
		}
	}
}

func TestWhyOperationsWaitIsKnownEverywhere(t *testing.T) {
	g := newGroup(threeMembers(), 1, 2, 3)
	g.lead(1, 7)
	g[1].onWaits([]*messages.OperationWait{{Id: []byte("o"), Why: "n4 has not joined yet"}}, "")
	g.tick(pulseTicks)
	for id, c := range g {
		if w := c.reply(&messages.ClusterRequest{}).View.Waits; len(w) != 1 || w[0].Why != "n4 has not joined yet" {
			t.Errorf("node %d knows %v", id, w)
		}
	}
}

// TestWhatWasAnsweredStays: an answer is shared by those who ask, and a pulse by the peers.
func TestWhatWasAnsweredStays(t *testing.T) {
	g := newGroup(threeMembers(), 1, 2, 3)
	g.lead(1, 7)
	g.tick(pulseTicks)
	said := g[2].reply(&messages.ClusterRequest{}).View
	copied := proto.Clone(said)
	g.tick(3 * freshTicks)
	g[2].reply(&messages.ClusterRequest{})
	if !proto.Equal(said, copied) {
		t.Error("an answer changed after it was given")
	}
}

func BenchmarkQuery(b *testing.B) {
	g := newGroup(threeMembers(), 1, 2, 3)
	g.lead(1, 7)
	g.tick(pulseTicks)
	for name, c := range map[string]*census{"leader": g[1], "follower": g[2]} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c.answer = nil // as after an event
				c.reply(&messages.ClusterRequest{})
			}
		})
	}
}
