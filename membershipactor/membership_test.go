package membershipactor

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
)

// theatre is node 1's membership actor among probes. Its peers are told to one probe, and
// speak from where they are.
type theatre struct {
	*actortest.Stage
	actor                                                            *actor.PID
	producer                                                         actor.Producer
	raft, machine, transport, snapshots, audit, node, gateway, peers *actortest.Probe
	client, ticker                                                   *actortest.Probe
	log                                                              strings.Builder
}

func newTheatre(t *testing.T) *theatre {
	s := &theatre{Stage: actortest.NewStage(t)}
	s.raft, s.machine, s.transport, s.snapshots = s.Probe("raft"), s.Probe("machine"), s.Probe("transport"), s.Probe("snapshots")
	s.audit, s.node, s.gateway, s.peers = s.Probe("audit"), s.Probe("node"), s.Probe("gateway"), s.Probe("peers")
	s.client, s.ticker = s.Probe("client"), s.Probe("ticker")
	s.producer = New(Config{
		Self: 1, Name: "n1", Address: "h:elsewhere", Version: "v1", TickMS: 50, Level: 2, Nonce: 7,
		Raft: s.raft.PID, Machine: s.machine.PID, Transport: s.transport.PID, Snapshots: s.snapshots.PID, Audit: s.audit.PID,
		Node: s.node.PID, Gateway: s.gateway.PID, Meter: prometheus.NewRegistry(),
		Peer:     func(messages.RaftID) *actor.PID { return s.peers.PID },
		PeerRaft: func(messages.RaftID) *actor.PID { return s.raft.PID },
		Client:   func(string, string) *actor.PID { return s.client.PID },
		WallMS:   func() int64 { return 77 },
		Logger:   slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	s.actor = s.Spawn("membership", s.producer)
	return s
}

func (s *theatre) tell(m proto.Message) { s.ask(m, s.client.PID) }

// says has node 2 or 3 tell it something.
func (s *theatre) says(peer messages.RaftID, m proto.Message) {
	s.ask(m, actor.NewPID(messages.NodeAddress(peer), "membership"))
}

func (s *theatre) ask(m proto.Message, sender *actor.PID) {
	s.System.Root.RequestWithCustomSender(s.actor, m, sender)
}

// tick lets time pass, and returns when all before is done.
func (s *theatre) tick(n uint32) {
	s.T.Helper()
	s.ask(&messages.Tick{Elapsed: n}, s.ticker.PID)
	actortest.Take[*messages.Ticked](s.ticker)
}

// hears takes what a probe got, until that is a T.
func hears[T proto.Message](p *actortest.Probe) T {
	for {
		if m, is := (<-p.Got).(T); is {
			return m
		}
	}
}

// leads makes node 1 the leader of three at level 1.
func (s *theatre) leads() {
	m := threeMembers()
	m.Level, m.Operations = 1, nil
	s.tell(m)
	s.tell(&messages.LeaderChanged{Leader: 1, Term: 7})
	s.tell(&messages.Replication{Leader: 1, Term: 7, Settled: true, LastIndex: 9, Commit: 9, Progress: []*messages.Progress{
		{RaftId: 2, Match: 9, State: messages.ProgressState_REPLICATING}, {RaftId: 3, Match: 9, State: messages.ProgressState_REPLICATING},
	}})
}

// The actor hands on what it hears, and asks to be introduced when it starts.
func TestMembershipTellsTheOthers(t *testing.T) {
	s := newTheatre(t)
	hears[*messages.Introduce](s.machine)
	hears[*messages.Introduce](s.raft)
	s.tell(&messages.JoinAsk{Request: 1}) // it knows no members yet, so it does not answer
	s.leads()
	for _, p := range []*actortest.Probe{s.transport, s.audit} {
		if m := hears[*messages.MembersChanged](p); len(m.Members) != 3 {
			t.Errorf("%s: %s", p.PID.Id, messages.Line(m))
		}
	}
	hears[*messages.LeaderChanged](s.audit)
	s.tell(&messages.Introduce{})
	if m, l := hears[*messages.MembersChanged](s.client), hears[*messages.LeaderChanged](s.client); len(m.Members) != 3 || l.Leader != 1 || l.Term != 7 {
		t.Errorf("introduced with %s, %s", messages.Line(m), messages.Line(l))
	}
	s.tell(&messages.StatusDraft{Reply: &messages.StatusReply{}})
	if r := hears[*messages.StatusDraft](s.snapshots).Reply; r.Leader.GetName() != "n1" || len(r.Members) != 3 {
		t.Errorf("a status: %s", messages.Line(r))
	}
	s.tell(&messages.StatusReply{Transfers: []*messages.Transfer{{Peer: 3, BytesDone: 1, BytesTotal: 2}}})
	s.tell(&messages.ProposalRefused{})
	s.tell(&messages.Flush{}) // that is for nobody here
	s.tick(pulseTicks)
	hears[*messages.ClusterPulse](s.peers)
	hears[*messages.StatusDraft](s.snapshots) // how far is the snapshot?
	s.tell(&messages.LeaderChanged{Leader: 2, Term: 8})
	s.tick(pulseTicks)
	if m := hears[*messages.NodePulse](s.peers); m.Version != "v1" || m.Term != 8 {
		t.Errorf("a pulse: %s", messages.Line(m))
	}
	s.says(2, &messages.ClusterPulse{Term: 8, Commit: 11, Members: []*messages.MemberView{{Member: &messages.Member{RaftId: 3}, Role: roleLearner}}})
	s.tell(&messages.ClusterRequest{Request: 4, Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}})
	if r := hears[*messages.ClusterReply](s.client); r.Request != 4 || r.View.Commit != 11 {
		t.Errorf("a question: %s", messages.Line(r))
	}
	s.Stop(s.actor)
	if log := s.log.String(); !strings.Contains(log, "kvctl cluster update n1 h:elsewhere") {
		t.Errorf("nothing is said of the address: %s", log)
	}
}

// What is asked of a leader goes to raft, and the answer to the client.
func TestMembershipCarriesChangesOut(t *testing.T) {
	s := newTheatre(t)
	s.leads()
	s.tell(beginning(1, kindAdd, "", "n4", "h:4"))
	if m := hears[*messages.Propose](s.raft); m.Origin != 1 || len(m.Command) == 0 {
		t.Errorf("proposed: %s", messages.Line(m))
	}
	s.tick(requestTicks)
	if r := hears[*messages.ClusterReply](s.client); r.Code != messages.Code_OUTCOME_UNKNOWN || r.Request != 1 {
		t.Errorf("answered %s", messages.Line(r))
	}
	s.System.Root.Send(s.actor, beginning(2, kindAdd, "", "n4", "h:4")) // from nobody
	s.tell(transferring("n2"))
	if m := hears[*messages.TransferLead](s.raft); m.To != 2 {
		t.Errorf("to raft: %s", messages.Line(m))
	}
}

// The members are asked what they support before the level is raised.
func TestMembershipHasTheLevelRaised(t *testing.T) {
	s := newTheatre(t)
	s.leads()
	s.says(2, &messages.LevelAsk{Round: 3})
	if m := hears[*messages.LevelAnswer](s.peers); m.Round != 3 || m.Max != 2 {
		t.Errorf("it supports %s", messages.Line(m))
	}
	s.ask(&messages.LevelAsk{Round: 3}, s.client.PID) // from no member
	s.tell(&messages.ClusterRequest{Request: 5, Kind: &messages.ClusterRequest_LevelRaise{LevelRaise: &messages.LevelRaise{}}})
	round := hears[*messages.LevelAsk](s.peers).Round
	s.says(2, &messages.LevelAnswer{Round: round, Min: 1, Max: 2})
	s.says(3, &messages.LevelAnswer{Round: round, Min: 1, Max: 2})
	hears[*messages.Propose](s.raft)
	raised := threeMembers()
	raised.Level = 2
	s.tell(raised)
	if r := hears[*messages.ClusterReply](s.client); r.Code != messages.Code_OK || r.Level != 2 || r.LevelBefore != 1 {
		t.Errorf("answered %s", messages.Line(r))
	}
}

// Who waits is answered, and bound once it is a member; who was removed says so.
func TestMembershipAtTheDoor(t *testing.T) {
	s := newTheatre(t)
	s.leads()
	node := &messages.WaitingNode{Name: "n4", Address: "h:4", Incarnation: incarnation(7), LevelMin: 1, LevelMax: 1}
	s.tell(&messages.JoinAsk{Request: 6, Node: node})
	if a := hears[*messages.JoinAnswer](s.client); a.Code != messages.Code_BUSY || a.Request != 6 {
		t.Errorf("answered %s", messages.Line(a))
	}
	old := proto.Clone(node).(*messages.WaitingNode)
	old.Name, old.Address, old.Incarnation, old.LevelMin, old.LevelMax = "n5", "h:5", incarnation(8), 9, 9
	s.tell(&messages.JoinAsk{Node: old})
	hears[*messages.JoinAnswer](s.client)
	added := threeMembers()
	added.Level, added.NextRaftId = 1, 5
	added.Members = append(added.Members, &messages.Member{RaftId: 4, Name: "n4", Address: "h:4", Type: messages.MemberType_LEARNER})
	s.tell(added)
	s.tick(1)
	s.tell(&messages.JoinAsk{Node: node})
	s.tick(1)
	hears[*messages.Propose](s.raft)
	s.tell(&messages.LeaderChanged{Leader: 2, Term: 8})
	s.says(2, &messages.PeerRefused{Peer: 2})
	s.tick(probeTicks)
	for _, p := range []*actortest.Probe{s.transport, s.gateway, s.node} {
		if m := hears[*messages.Removed](p); !strings.Contains(m.Why, "n1 was removed") {
			t.Errorf("%s: %s", p.PID.Id, messages.Line(m))
		}
	}
	s.tell(&messages.JoinAsk{Node: node}) // it lets nobody in any more
	s.Stop(s.actor)
	if log := s.log.String(); !strings.Contains(log, "n5 at h:5 is not let in") {
		t.Errorf("nothing is said of n5: %s", log)
	}
}

// A leader without room hands the lead over, and writes are refused where no quorum has any.
func TestMembershipWatchesRoom(t *testing.T) {
	s := newTheatre(t)
	s.leads()
	m := threeMembers()
	m.ConfState.Voters, m.ConfState.Learners, m.Members[2].Type = []uint64{1, 2, 3}, nil, messages.MemberType_VOTER
	s.tell(m)
	s.says(2, &messages.NodePulse{Term: 7, RoomBytes: 1 << 30})
	s.says(3, &messages.NodePulse{Term: 7, RoomBytes: 1, Lacks: "1 byte left"})
	s.tell(&messages.RoomSeen{Bytes: 1, Lacks: "1 byte left"})
	s.tick(1)
	if to := hears[*messages.TransferLead](s.raft).To; to != 2 {
		t.Errorf("the lead goes to %d", to)
	}
	if why := hears[*messages.WritesRefused](s.gateway).Why; !strings.Contains(why, "n1 has 1 byte left; n3 has 1 byte left") {
		t.Errorf("refused: %s", why)
	}
	s.actor = s.Spawn("membership-again", s.producer) // in the place of one that failed, which the gateway has heard last
	s.tell(threeMembers())
	s.tick(1)
	if why := hears[*messages.WritesRefused](s.gateway).Why; why != "" {
		t.Errorf("still refused: %s", why)
	}
}
