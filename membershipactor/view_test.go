package membershipactor

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func TestView(t *testing.T) {
	members := &messages.MembersChanged{ClusterId: []byte("c"), Members: []*messages.Member{
		{RaftId: 1, Name: "n1", Address: "h:1"}, {RaftId: 2, Name: "n2", Address: "h:2"},
	}}
	leader := func(id, term uint64) *messages.LeaderChanged {
		return &messages.LeaderChanged{Leader: id, Term: term}
	}
	for name, row := range map[string]struct {
		view View
		want *messages.Leader
	}{
		"nothing known":                {View{}, nil},
		"a leader before its record":   {View{}.WithLeader(leader(2, 3)), nil},
		"the record follows":           {View{}.WithLeader(leader(2, 3)).WithMembers(members), &messages.Leader{RaftId: 2, Name: "n2", Address: "h:2", Term: 3}},
		"a leader that is no member":   {View{}.WithMembers(members).WithLeader(leader(7, 3)), nil},
		"the leader is lost":           {View{}.WithMembers(members).WithLeader(leader(2, 3)).WithLeader(leader(0, 4)), nil},
		"news of an older term":        {View{}.WithMembers(members).WithLeader(leader(2, 3)).WithLeader(leader(1, 2)), &messages.Leader{RaftId: 2, Name: "n2", Address: "h:2", Term: 3}},
		"another leader of a new term": {View{}.WithMembers(members).WithLeader(leader(2, 3)).WithLeader(leader(1, 4)), &messages.Leader{RaftId: 1, Name: "n1", Address: "h:1", Term: 4}},
	} {
		if got := row.view.LeaderRecord(); !proto.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
	s := &messages.StatusReply{}
	View{}.WithMembers(members).WithLeader(leader(1, 5)).Fill(s, 2)
	if s.Name != "n2" || s.Leader.GetName() != "n1" || len(s.Members) != 2 || string(s.ClusterId) != "c" {
		t.Errorf("status: %s", messages.Line(s))
	}
}
