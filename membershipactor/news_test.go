package membershipactor

import (
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
)

func TestNews(t *testing.T) {
	member := func(id uint64, kind messages.MemberType) *messages.Member {
		return &messages.Member{RaftId: id, Name: fmt.Sprintf("n%d", id), Address: fmt.Sprintf("h:%d", id), Type: kind}
	}
	const voter, learner, leaves = messages.MemberType_VOTER, messages.MemberType_LEARNER, messages.MemberType_OUTGOING
	view := func(leader, term uint64, members ...*messages.Member) View {
		return View{}.WithMembers(&messages.MembersChanged{Members: members}).WithLeader(&messages.LeaderChanged{Leader: leader, Term: term})
	}
	operates := func(v View, phase messages.OperationPhase) View {
		return v.WithMembers(&messages.MembersChanged{Members: v.Members, Operations: []*messages.ClusterOperation{{
			Id: []byte{0xab}, Kind: messages.OperationKind_REPLACE, OldNode: "n2", NewNode: "n4", Phase: phase, Code: messages.Code_UNSAFE, Error: "no quorum",
		}}})
	}
	alone := view(1, 2, member(1, voter))
	moved := member(2, voter)
	moved.Address = "h:9"
	for name, row := range map[string]struct {
		before, after View
		want          []string
	}{
		"at the start":  {View{}, view(1, 2, member(1, voter)), []string{"a leader is elected leader=n1 term=2"}},
		"nothing new":   {view(1, 2, member(1, voter)), view(1, 2, member(1, voter)), nil},
		"another leads": {view(1, 2, member(1, voter), member(2, voter)), view(1, 2, member(1, voter), member(2, voter)).WithLeader(&messages.LeaderChanged{Leader: 2, Term: 3}), []string{"a leader is elected leader=n2 term=3 before=n1"}},
		"it is known why": {view(1, 2, member(1, voter), member(2, voter)), view(1, 2, member(1, voter), member(2, voter)).
			WithLeader(&messages.LeaderChanged{Leader: 2, Term: 3, Why: "it rests"}), []string{"a leader is elected leader=n2 term=3 before=n1 why=it rests"}},
		"it was known before": {view(1, 2, member(1, voter), member(2, voter)).WithLeader(&messages.LeaderChanged{Term: 2, Why: "it rests"}),
			view(1, 2, member(1, voter), member(2, voter)).WithLeader(&messages.LeaderChanged{Term: 2, Why: "it rests"}).WithLeader(&messages.LeaderChanged{Leader: 2, Term: 3}),
			[]string{"a leader is elected leader=n2 term=3 before=n1 why=it rests"}},
		"nobody leads, and why": {view(1, 2, member(1, voter)), view(1, 2, member(1, voter)).WithLeader(&messages.LeaderChanged{Term: 2, Why: "it rests"}),
			[]string{"nobody leads term=2 before=n1 why=it rests"}},
		"a leader nobody knows":    {view(1, 2, member(1, voter)), view(1, 2, member(1, voter)).WithLeader(&messages.LeaderChanged{Leader: 7, Term: 3}), []string{"a leader is elected leader=raft id 7 term=3 before=n1"}},
		"the same, in a new term":  {view(1, 2, member(1, voter)), view(1, 2, member(1, voter)).WithLeader(&messages.LeaderChanged{Leader: 1, Term: 3}), []string{"a leader is elected leader=n1 term=3 before=n1"}},
		"the leader is lost":       {view(1, 2, member(1, voter)), view(1, 2, member(1, voter)).WithLeader(&messages.LeaderChanged{Term: 3}), []string{"nobody leads term=3 before=n1"}},
		"still nobody leads":       {view(0, 2, member(1, voter)), view(0, 3, member(1, voter)), nil},
		"a learner comes":          {view(1, 2, member(1, voter)), view(1, 2, member(1, voter), member(2, learner)), []string{"a member is added member=n2 raft_id=2 address=h:2 is=learner"}},
		"it votes":                 {view(1, 2, member(2, learner)), view(1, 2, member(2, voter)), []string{"a member changes member=n2 raft_id=2 address=h:2 is=voter before=learner"}},
		"one leaves":               {view(1, 2, member(2, voter)), view(1, 2, member(2, leaves)), []string{"a member changes member=n2 raft_id=2 address=h:2 is=voter that leaves before=voter"}},
		"one is gone":              {view(1, 2, member(1, voter), member(2, leaves)), view(1, 2, member(1, voter)), []string{"a member is removed member=n2 raft_id=2 address=h:2 is=voter that leaves"}},
		"one is reached elsewhere": {view(1, 2, member(2, voter)), view(1, 2, moved), []string{"a member moves member=n2 raft_id=2 address=h:9 is=voter before=h:2"}},
		"an operation begins": {alone, operates(alone, messages.OperationPhase_ADD_LEARNER),
			[]string{"an operation goes on operation=ab change=replace n2 by n4 phase=add_learner"}},
		"it goes on": {operates(alone, messages.OperationPhase_ADD_LEARNER), operates(alone, messages.OperationPhase_CATCH_UP),
			[]string{"an operation goes on operation=ab change=replace n2 by n4 phase=catch_up"}},
		"it is where it was": {operates(alone, messages.OperationPhase_CATCH_UP), operates(alone, messages.OperationPhase_CATCH_UP), nil},
		"it is complete": {operates(alone, messages.OperationPhase_REMOVE_OLD), operates(alone, messages.OperationPhase_COMPLETE),
			[]string{"an operation is complete operation=ab change=replace n2 by n4 phase=complete"}},
		"it fails": {operates(alone, messages.OperationPhase_CATCH_UP), operates(alone, messages.OperationPhase_FAILED),
			[]string{"an operation has failed operation=ab change=replace n2 by n4 phase=failed code=UNSAFE reason=no quorum"}},
	} {
		var got []string
		for _, n := range newsOf(row.before, row.after) {
			line := n.text
			for i := 0; i < len(n.words); i += 2 {
				line += fmt.Sprintf(" %v=%v", n.words[i], n.words[i+1])
			}
			got = append(got, line)
		}
		if strings.Join(got, "\n") != strings.Join(row.want, "\n") {
			t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(row.want, "\n"))
		}
	}
}

func TestServesOnceALeaderIsKnown(t *testing.T) {
	members := &messages.MembersChanged{ClusterId: []byte{0xab}, Level: 4, Members: []*messages.Member{{RaftId: 1, Name: "n1"}, {RaftId: 2, Name: "n2", Type: messages.MemberType_LEARNER}}}
	led := &messages.LeaderChanged{Leader: 1, Term: 2}
	for name, row := range map[string]struct {
		self messages.RaftID
		view View
		want string
	}{
		"at the start":      {2, View{}, ""},
		"nobody leads":      {2, View{}.WithMembers(members), ""},
		"nothing is here":   {2, View{}.WithLeader(led), ""},
		"it is not in it":   {3, View{}.WithMembers(members).WithLeader(led), ""},
		"it learns of both": {2, View{}.WithMembers(members).WithLeader(led), "this node serves [cluster ab is learner leader n1 members 2 level 4]"},
	} {
		said, serves := servesNews(row.self, row.view)
		if got := fmt.Sprintf("%s %v", said.text, said.words); serves != (row.want != "") || serves && got != row.want {
			t.Errorf("%s: %v %s, want %q", name, serves, got, row.want)
		}
	}
}
