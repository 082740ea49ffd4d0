package cli

import (
	"strings"
	"testing"

	"keyval/actors/client"
	"keyval/messages"
)

// Whose turn it is to be restarted, and what stands in the way.
func TestUpgradeStep(t *testing.T) {
	node := func(name, role, version string) member {
		return member{nodeJSON: nodeJSON{Name: name, Role: role, Version: version}, kind: messages.MemberType_VOTER}
	}
	three := func() []member {
		return []member{node("node1", "leader", "v1"), node("node2", "follower", "v1"), node("node3", "follower", "v1")}
	}
	for name, row := range map[string]struct {
		alter func([]member, *messages.ClusterReply)
		only  string
		next  string
		left  int
		want  string // of the obstacles; empty: none
	}{
		"a follower first": {nil, "", "node2", 3, ""},
		"then the next":    {func(m []member, _ *messages.ClusterReply) { m[1].Version = "v2" }, "", "node3", 2, ""},
		"the leader last":  {func(m []member, _ *messages.ClusterReply) { m[1].Version, m[2].Version = "v2", "v2" }, "", "node1", 1, ""},
		"done": {func(m []member, _ *messages.ClusterReply) {
			m[0].Version, m[1].Version, m[2].Version = "v2", "v2", "v2"
		}, "", "", 0, ""},
		"one that was asked for": {func(m []member, _ *messages.ClusterReply) { m[2].Version = "v2" }, "node3", "node3", 1, ""},
		"one is down": {func(m []member, _ *messages.ClusterReply) {
			m[2].problem = messages.Errorf(messages.Code_UNREACHABLE, "refused")
		}, "",
			"node2", 2, "node3 does not answer: refused"},
		"one lags": {func(m []member, _ *messages.ClusterReply) { m[2].LagEntries = 5000 }, "", "node2", 3, "node3 lacks 5000 entries"},
		"no loss is borne": {func(_ []member, r *messages.ClusterReply) {
			r.Before.Survives, r.Before.Stops, r.Before.Slack = nil, []string{"node1", "node2"}, 0
		}, "",
			"node2", 3, "without node2 writes would stop: budget 0"},
		"members change": {func(_ []member, r *messages.ClusterReply) {
			r.View.Operations = []*messages.ClusterOperation{{Id: make([]byte, 16), Kind: messages.OperationKind_REMOVE, OldNode: "node3", Phase: messages.OperationPhase_REMOVE_OLD}}
		}, "", "node2", 3, "an operation is under way: remove node3"},
	} {
		t.Run(name, func(t *testing.T) {
			all := three()
			reply := &messages.ClusterReply{Node: "node1", View: &messages.ClusterView{PulseKnown: true},
				Before: &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 3, Slack: 1, Available: true, Survives: []string{"node1", "node2", "node3"}}}
			for i, m := range all {
				reply.View.Members = append(reply.View.Members, &messages.MemberView{Role: m.Role, ContactKnown: true,
					Member: &messages.Member{RaftId: uint64(i + 1), Name: m.Name, Type: messages.MemberType_VOTER}})
			}
			if row.alter != nil {
				row.alter(all, reply)
			}
			s := upgradeStep(client.ClusterAnswer{ClusterReply: reply}, all, "v2", row.only)
			said := strings.Join(s.Obstacles, "; ")
			if s.Next != row.next || len(s.Left) != row.left || (said == "") != (row.want == "") || !strings.Contains(said, row.want) {
				t.Errorf("%+v", s)
			}
		})
	}
}
