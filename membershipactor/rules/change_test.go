package rules

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/quorum"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

func incarnation(n byte) []byte { return bytes.Repeat([]byte{n}, messages.IncarnationSize) }

// member is node<id>, as all of these tests name it.
func member(id uint64, kind messages.MemberType) *messages.Member {
	return &messages.Member{RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("host:%d", 7000+id), Incarnation: incarnation(byte(id)), Type: kind}
}

// three is three voters and, as node 4, a learner.
func three() Configuration {
	return Configuration{
		Index: 7, NextRaftID: 6, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}},
		Members: []*messages.Member{member(1, 0), member(2, 0), member(3, 0), member(4, messages.MemberType_LEARNER)},
	}
}

func swapping() Configuration {
	c, _, err := three().Change(changes(promote(4), remove(1)), 7, nil)
	if err != nil {
		panic(err)
	}
	return c
}

func one() Configuration {
	return Configuration{Index: 7, NextRaftID: 3, ConfState: &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}},
		Members: []*messages.Member{member(1, 0), member(2, messages.MemberType_LEARNER)}}
}

func with(c Configuration, alter func(*Configuration)) Configuration {
	c.Members = slices.Clone(c.Members)
	for i, m := range c.Members {
		c.Members[i] = proto.Clone(m).(*messages.Member)
	}
	alter(&c)
	return c
}

func changes(list ...*messages.MemberChange) *messages.ChangeMembers {
	return &messages.ChangeMembers{Configuration: 7, Changes: list}
}

func add(id uint64, alter ...func(*messages.AddLearner)) *messages.MemberChange {
	m := &messages.AddLearner{RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("host:%d", 7000+id)}
	for _, f := range alter {
		f(m)
	}
	return &messages.MemberChange{Kind: &messages.MemberChange_AddLearner{AddLearner: m}}
}

func promote(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Promote{Promote: &messages.PromoteLearner{RaftId: id}}}
}

func remove(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Remove{Remove: &messages.RemoveMember{RaftId: id}}}
}

func TestChange(t *testing.T) {
	for name, row := range map[string]struct {
		from Configuration
		m    *messages.ChangeMembers
		want string // members, as describe has them
		raft string
	}{
		"a learner is added":             {three(), changes(add(5)), "1V 2V 3V 4L 5L next 6", "l5"},
		"a learner is promoted":          {three(), changes(promote(4)), "1V 2V 3V 4V next 6", "v4"},
		"a voter is removed":             {three(), changes(remove(3)), "1V 2V 4L next 6", "r3"},
		"a learner is removed":           {three(), changes(remove(4)), "1V 2V 3V next 6", "r4"},
		"one takes the place of another": {three(), changes(promote(4), remove(1)), "1O 2V 3V 4I next 6", "v4 r1 joint"},
		"in the other order":             {three(), changes(remove(1), promote(4)), "1O 2V 3V 4I next 6", "r1 v4 joint"},
		"the joint configuration ends":   {swapping(), changes(), "2V 3V 4V next 6", ""},
		"the only voter is replaced":     {one(), changes(promote(2), remove(1)), "1O 2I next 3", "v2 r1 joint"},
	} {
		if strings.HasPrefix(row.want, "1V 2V 3V 4L 5L") {
			row.from.NextRaftID = 5
		}
		before := describe(row.from)
		got, change, err := row.from.Change(row.m, 9, []byte("0123456789abcdef"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if describe(got) != row.want || got.Index != 9 || describeChange(change) != row.raft {
			t.Errorf("%s: %s by %q at %d, want %s by %q", name, describe(got), describeChange(change), got.Index, row.want, row.raft)
		}
		if describe(row.from) != before {
			t.Errorf("%s: the configuration before has become %s", name, describe(row.from))
		}
	}
}

func TestAddedMember(t *testing.T) {
	c := three()
	c.NextRaftID = 5
	got, _, err := c.Change(changes(add(5, func(m *messages.AddLearner) { m.AddedAtMs, m.Incarnation = 3, incarnation(9) })), 9, []byte("0123456789abcdef"))
	want := &messages.Member{RaftId: 5, Name: "node5", Address: "host:7005", AddedAtMs: 3, Incarnation: incarnation(9),
		Operation: []byte("0123456789abcdef"), Type: messages.MemberType_LEARNER}
	if err != nil || !proto.Equal(got.Member(5), want) {
		t.Errorf("%v, %v", got.Member(5), err)
	}
}

func TestRefusedChanges(t *testing.T) {
	five := func(alter func(*messages.AddLearner)) *messages.ChangeMembers { return changes(add(6, alter)) }
	stale := changes(remove(1))
	stale.Configuration = 6
	unbound := with(three(), func(c *Configuration) { c.Members[3].Incarnation = nil })
	full := with(three(), func(c *Configuration) {
		for id := uint64(5); len(c.Members) < messages.MembersMax; id++ {
			c.Members = append(c.Members, member(id, messages.MemberType_LEARNER))
			c.ConfState.Learners, c.NextRaftID = append(c.ConfState.Learners, id), id+1
		}
	})
	for name, row := range map[string]struct {
		from Configuration
		m    *messages.ChangeMembers
		code messages.Code
		says string
	}{
		"decided upon another configuration": {three(), stale, messages.Code_CONFLICT, "the configuration of index 7 is in force, and not that of index 6"},
		"while joint":                        {swapping(), changes(remove(2)), messages.Code_CONFLICT, "under way"},
		"a swap while joint":                 {swapping(), changes(promote(4), remove(2)), messages.Code_CONFLICT, "under way"},
		"nothing to leave":                   {three(), changes(), messages.Code_CONFLICT, "no joint configuration to leave"},
		"another id":                         {three(), changes(add(7)), messages.Code_CONFLICT, "the next member gets raft id 6, and not 7"},
		"an id once used":                    {three(), changes(add(5)), messages.Code_CONFLICT, "raft id 6, and not 5"},
		"no id":                              {three(), changes(add(0)), messages.Code_CONFLICT, "raft id 6, and not 0"},
		"a name in use":                      {three(), five(func(m *messages.AddLearner) { m.Name = "node4" }), messages.Code_CONFLICT, "node4 is a member already, at host:7004"},
		"an address in use":                  {three(), five(func(m *messages.AddLearner) { m.Address = "host:7002" }), messages.Code_CONFLICT, "host:7002 is the address of node2"},
		"a directory in use":                 {three(), five(func(m *messages.AddLearner) { m.Incarnation = incarnation(2) }), messages.Code_CONFLICT, "node2 has that data directory"},
		"a short incarnation":                {three(), five(func(m *messages.AddLearner) { m.Incarnation = []byte("x") }), messages.Code_INVALID, "an incarnation has 16 bytes, this one 1"},
		"no name":                            {three(), five(func(m *messages.AddLearner) { m.Name = "" }), messages.Code_INVALID, "is not made of letters"},
		"a name with a space":                {three(), five(func(m *messages.AddLearner) { m.Name = "node 6" }), messages.Code_INVALID, "is not made of letters"},
		"a long name":                        {three(), five(func(m *messages.AddLearner) { m.Name = strings.Repeat("n", 64) }), messages.Code_INVALID, "is not made of letters"},
		"no address":                         {three(), five(func(m *messages.AddLearner) { m.Address = "" }), messages.Code_INVALID, "is no HOST:PORT"},
		"no port":                            {three(), five(func(m *messages.AddLearner) { m.Address = "host" }), messages.Code_INVALID, "is no HOST:PORT"},
		"no host":                            {three(), five(func(m *messages.AddLearner) { m.Address = ":7006" }), messages.Code_INVALID, "is no HOST:PORT"},
		"port 0":                             {three(), five(func(m *messages.AddLearner) { m.Address = "host:0" }), messages.Code_INVALID, "is no HOST:PORT"},
		"a long address":                     {three(), five(func(m *messages.AddLearner) { m.Address = strings.Repeat("h", messages.AddressSizeMax) + ":1" }), messages.Code_INVALID, "is no HOST:PORT"},
		"too many members":                   {full, changes(add(full.NextRaftID)), messages.Code_BUSY, "there are 32 members"},
		"promote an unknown one":             {three(), changes(promote(9)), messages.Code_NOT_FOUND, "no member has raft id 9"},
		"promote a removed one":              {three(), changes(promote(5)), messages.Code_NOT_FOUND, "raft id 5 was removed"},
		"promote a voter":                    {three(), changes(promote(2)), messages.Code_CONFLICT, "node2 is a voter already"},
		"promote one never heard of":         {unbound, changes(promote(4)), messages.Code_UNSAFE, "node4 was never heard of"},
		"swap in one never heard of":         {unbound, changes(promote(4), remove(1)), messages.Code_UNSAFE, "node4 was never heard of"},
		"remove an unknown one":              {three(), changes(remove(9)), messages.Code_NOT_FOUND, "no member has raft id 9"},
		"remove a removed one":               {three(), changes(remove(5)), messages.Code_NOT_FOUND, "raft id 5 was removed"},
		"remove nobody":                      {three(), changes(remove(0)), messages.Code_NOT_FOUND, "no member has raft id 0"},
		"remove the last voter":              {one(), changes(remove(1)), messages.Code_UNSAFE, "nobody would be left to vote"},
		"three at once":                      {three(), changes(promote(4), remove(1), remove(2)), messages.Code_INVALID, "3 changes at once"},
		"two removals":                       {three(), changes(remove(1), remove(2)), messages.Code_INVALID, "the promotion of one member and the removal of another"},
		"two additions":                      {three(), changes(add(6), add(7)), messages.Code_INVALID, "the promotion of one member and the removal of another"},
		"addition and removal":               {three(), changes(add(6), remove(1)), messages.Code_INVALID, "the promotion of one member and the removal of another"},
		"one for itself":                     {three(), changes(promote(4), remove(4)), messages.Code_INVALID, "the same member"},
		"a learner's place":                  {with(three(), func(c *Configuration) { c.NextRaftID = 6 }), changes(promote(1), remove(4)), messages.Code_INVALID, "node4 does not vote"},
		"a kind of the future":               {three(), changes(&messages.MemberChange{}), messages.Code_INVALID, "a kind that this node does not know"},
		"a broken configuration": {with(three(), func(c *Configuration) { c.ConfState = &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{1}} }),
			changes(remove(1)), messages.Code_INVALID, "cannot be"},
	} {
		_, _, err := row.from.Change(row.m, 9, nil)
		if err == nil || err.Code != row.code || !strings.Contains(err.Message, row.says) {
			t.Errorf("%s: %v (%v), want %v: %s", name, err, messages.CodeOf(err), row.code, row.says)
		}
	}
	c := three()
	c.NextRaftID = 5
	if _, _, err := c.Change(changes(add(5)), 9, make([]byte, 17)); err == nil || err.Code != messages.Code_INVALID {
		t.Errorf("an operation's id of 17 bytes: %v", err)
	}
}

// TestOutgoingAddress: one that leaves still has its name, its address and its directory.
func TestOutgoingAddress(t *testing.T) {
	c := swapping()
	if err := c.unusedAddress("host:7001", 0); err == nil {
		t.Error("the address of an outgoing member is free")
	}
	if err := c.unusedName("node1", 0); err == nil {
		t.Error("the name of an outgoing member is free")
	}
	if _, err := c.Update(&messages.UpdateMember{RaftId: 2, Configuration: 7, Address: "host:7001"}, 9); err == nil || err.Code != messages.Code_CONFLICT {
		t.Errorf("another gets the address of an outgoing member: %v", err)
	}
}

func TestBind(t *testing.T) {
	unbound := with(three(), func(c *Configuration) { c.Members[3].Incarnation = nil })
	got, err := unbound.Bind(&messages.BindIncarnation{RaftId: 4, Incarnation: incarnation(8)})
	if err != nil || !bytes.Equal(got.Member(4).Incarnation, incarnation(8)) || got.Index != 7 || len(unbound.Member(4).Incarnation) != 0 {
		t.Errorf("%v, %v", describe(got), err)
	}
	for name, row := range map[string]struct {
		id          uint64
		incarnation []byte
		code        messages.Code
	}{
		"empty":               {4, nil, messages.Code_INVALID},
		"short":               {4, []byte("x"), messages.Code_INVALID},
		"bound already":       {1, incarnation(8), messages.Code_CONFLICT},
		"bound to that":       {1, incarnation(1), messages.Code_CONFLICT},
		"another's directory": {4, incarnation(1), messages.Code_CONFLICT},
		"removed":             {5, incarnation(8), messages.Code_NOT_FOUND},
		"unknown":             {9, incarnation(8), messages.Code_NOT_FOUND},
	} {
		if _, err := unbound.Bind(&messages.BindIncarnation{RaftId: row.id, Incarnation: row.incarnation}); messages.CodeOf(err) != row.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpdate(t *testing.T) {
	got, err := three().Update(&messages.UpdateMember{RaftId: 4, Configuration: 7, Address: "other:1"}, 9)
	if err != nil || got.Member(4).Address != "other:1" || got.Index != 9 || describe(got) != describe(three()) {
		t.Errorf("%s, %v", describe(got), err)
	}
	for name, row := range map[string]struct {
		m    *messages.UpdateMember
		code messages.Code
	}{
		"stale":           {&messages.UpdateMember{RaftId: 4, Configuration: 6, Address: "other:1"}, messages.Code_CONFLICT},
		"another's":       {&messages.UpdateMember{RaftId: 4, Configuration: 7, Address: "host:7001"}, messages.Code_CONFLICT},
		"its own already": {&messages.UpdateMember{RaftId: 4, Configuration: 7, Address: "host:7004"}, messages.Code_CONFLICT},
		"no address":      {&messages.UpdateMember{RaftId: 4, Configuration: 7, Address: "other"}, messages.Code_INVALID},
		"removed":         {&messages.UpdateMember{RaftId: 5, Configuration: 7, Address: "other:1"}, messages.Code_NOT_FOUND},
	} {
		if _, err := three().Update(row.m, 9); messages.CodeOf(err) != row.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestChangesOfAnyOrder: whatever is asked for, members and configuration tell the same,
// raft comes to the same configuration, and quorums of neighbours meet.
func TestChangesOfAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := rapid.Uint64Range(1, 4).Draw(t, "voters")
		c := Configuration{Index: 1, NextRaftID: voters + 1, ConfState: &raftpb.ConfState{}}
		for id := uint64(1); id <= voters; id++ {
			c.ConfState.Voters = append(c.ConfState.Voters, id)
			c.Members = append(c.Members, member(id, 0))
		}
		node, err := raft.NewRawNode(&raft.Config{ID: 1, Storage: storage{raft.NewMemoryStorage(), c.ConfState}, ElectionTick: 10, HeartbeatTick: 1,
			MaxInflightMsgs: 1, Logger: &raft.DefaultLogger{Logger: slog.NewLogLogger(slog.DiscardHandler, 0)}})
		if err != nil {
			t.Fatal(err)
		}
		for index := uint64(2); index < 40; index++ {
			m := drawChange(t, c)
			next, change, err := c.Change(m, index, nil)
			if err != nil {
				continue
			}
			if conf := node.ApplyConfChange(change); !proto.Equal(conf, next.ConfState) {
				t.Fatalf("raft makes %v of it, this %v", conf, next.ConfState)
			}
			if len(next.Members) < 8 {
				quorumsMeet(t, c.ConfState, next.ConfState)
			}
			sound(t, next)
			if next.NextRaftID < c.NextRaftID {
				t.Fatalf("the next id goes back from %d to %d", c.NextRaftID, next.NextRaftID)
			}
			c = next
		}
	})
}

type storage struct {
	*raft.MemoryStorage
	conf *raftpb.ConfState
}

func (s storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &raftpb.HardState{}, s.conf, nil
}

func drawChange(t *rapid.T, c Configuration) *messages.ChangeMembers {
	m := &messages.ChangeMembers{Configuration: c.Index}
	id := rapid.Uint64Range(0, c.NextRaftID+1)
	for range rapid.IntRange(0, 2).Draw(t, "changes") {
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			next := max(c.NextRaftID, 1)
			m.Changes = append(m.Changes, add(next, func(m *messages.AddLearner) { m.Incarnation = incarnation(byte(next)) }))
		case 1:
			m.Changes = append(m.Changes, promote(id.Draw(t, "promoted")))
		case 2:
			m.Changes = append(m.Changes, remove(id.Draw(t, "removed")))
		}
	}
	return m
}

// sound holds the invariants of a Configuration.
func sound(t *rapid.T, c Configuration) {
	t.Helper()
	conf := &raftpb.ConfState{AutoLeave: c.ConfState.AutoLeave}
	names := map[string]bool{}
	for i, m := range c.Members {
		switch m.Type {
		case messages.MemberType_VOTER:
			conf.Voters = append(conf.Voters, m.RaftId)
			if c.Joint() {
				conf.VotersOutgoing = append(conf.VotersOutgoing, m.RaftId)
			}
		case messages.MemberType_LEARNER:
			conf.Learners = append(conf.Learners, m.RaftId)
		case messages.MemberType_INCOMING:
			conf.Voters = append(conf.Voters, m.RaftId)
		case messages.MemberType_OUTGOING:
			conf.VotersOutgoing = append(conf.VotersOutgoing, m.RaftId)
		}
		if i > 0 && c.Members[i-1].RaftId >= m.RaftId || m.RaftId >= c.NextRaftID || names[m.Name] || names[m.Address] {
			t.Fatalf("%s", describe(c))
		}
		names[m.Name], names[m.Address] = true, true
	}
	if err := conf.Equivalent(c.ConfState); err != nil {
		t.Fatalf("%s: %v", describe(c), err)
	}
	if c.ConfState.GetAutoLeave() || len(c.ConfState.LearnersNext) > 0 || len(c.ConfState.Voters) == 0 {
		t.Fatalf("%v", c.ConfState)
	}
}

// quorumsMeet tries all sets of members: one that decides in both configurations together
// with its complement would be two clusters.
func quorumsMeet(t *rapid.T, a, b *raftpb.ConfState) {
	t.Helper()
	ids := map[uint64]bool{}
	for _, conf := range []*raftpb.ConfState{a, b} {
		for _, id := range slices.Concat(conf.Voters, conf.VotersOutgoing) {
			ids[id] = true
		}
	}
	var all []uint64
	for id := range ids {
		all = append(all, id)
	}
	for set := range 1 << len(all) {
		in, out := map[uint64]bool{}, map[uint64]bool{}
		for i, id := range all {
			in[id], out[id] = set>>i&1 == 1, set>>i&1 == 0
		}
		if decides(a, in) && decides(b, out) {
			t.Fatalf("%v decides in %v, and the others in %v", in, a, b)
		}
	}
}

func decides(conf *raftpb.ConfState, votes map[uint64]bool) bool {
	var joint quorum.JointConfig
	for i, half := range [][]uint64{conf.Voters, conf.VotersOutgoing} {
		joint[i] = quorum.MajorityConfig{}
		for _, id := range half {
			joint[i][id] = struct{}{}
		}
	}
	return joint.VoteResult(votes) == quorum.VoteWon
}

func describe(c Configuration) string {
	var words []string
	for _, m := range c.Members {
		words = append(words, fmt.Sprintf("%d%c", m.RaftId, m.Type.String()[0]))
	}
	return strings.Join(append(words, fmt.Sprintf("next %d", c.NextRaftID)), " ")
}

func describeChange(c *raftpb.ConfChangeV2) string {
	s := raftpb.ConfChangesToString(c.Changes)
	if auto, joint := c.EnterJoint(); joint {
		s += " joint"
		if auto {
			s += " left by itself"
		}
	}
	return s
}
