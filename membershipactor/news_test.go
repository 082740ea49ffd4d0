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
	moved := member(2, voter)
	moved.Address = "h:9"
	for name, row := range map[string]struct {
		before, after View
		want          []string
	}{
		"at the start":             {View{}, view(1, 2, member(1, voter)), []string{"a leader is elected leader=n1 term=2"}},
		"nothing new":              {view(1, 2, member(1, voter)), view(1, 2, member(1, voter)), nil},
		"another leads":            {view(1, 2, member(1, voter), member(2, voter)), view(2, 3, member(1, voter), member(2, voter)), []string{"a leader is elected leader=n2 term=3 before=n1"}},
		"a leader nobody knows":    {view(1, 2, member(1, voter)), view(7, 3, member(1, voter)), []string{"a leader is elected leader=raft id 7 term=3 before=n1"}},
		"the same, in a new term":  {view(1, 2, member(1, voter)), view(1, 3, member(1, voter)), []string{"a leader is elected leader=n1 term=3 before=n1"}},
		"the leader is lost":       {view(1, 2, member(1, voter)), view(0, 3, member(1, voter)), []string{"nobody leads term=3 before=n1"}},
		"still nobody leads":       {view(0, 2, member(1, voter)), view(0, 3, member(1, voter)), nil},
		"a learner comes":          {view(1, 2, member(1, voter)), view(1, 2, member(1, voter), member(2, learner)), []string{"a member is added member=n2 raft id=2 address=h:2 is=learner"}},
		"it votes":                 {view(1, 2, member(2, learner)), view(1, 2, member(2, voter)), []string{"a member changes member=n2 raft id=2 address=h:2 is=voter before=learner"}},
		"one leaves":               {view(1, 2, member(2, voter)), view(1, 2, member(2, leaves)), []string{"a member changes member=n2 raft id=2 address=h:2 is=voter that leaves before=voter"}},
		"one is gone":              {view(1, 2, member(1, voter), member(2, leaves)), view(1, 2, member(1, voter)), []string{"a member is removed member=n2 raft id=2 address=h:2 is=voter that leaves"}},
		"one is reached elsewhere": {view(1, 2, member(2, voter)), view(1, 2, moved), []string{"a member moves member=n2 raft id=2 address=h:9 is=voter before=h:2"}},
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
