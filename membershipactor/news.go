package membershipactor

import (
	"fmt"
	"slices"
	"time"

	"keyval/actors/auth"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// news is what an operator asks for the next morning: who led, and who belonged to the
// cluster. words are keys and values.
type news struct {
	text  string
	words []any
}

// newsOf is what differs between two views. What was known at the start is no news.
func newsOf(before, after View) (all []news) {
	tell := func(text string, words ...any) { all = append(all, news{text, words}) }
	var went []any
	if after.Before != 0 {
		went = []any{"before", before.nameOf(after.Before)}
	}
	if after.Why != "" {
		went = append(went, "why", after.Why)
	}
	switch moved := before.Leader != after.Leader || before.Term != after.Term; {
	case moved && after.Leader != 0:
		tell("a leader is elected", append([]any{"leader", after.nameOf(after.Leader), "term", after.Term}, went...)...)
	case moved && before.Leader != 0:
		tell("nobody leads", append([]any{"term", after.Term}, went...)...)
	}
	if before.state == nil {
		return all
	}
	if before.Level != after.Level {
		tell("the level of the cluster is raised", "level", after.Level, "before", before.Level)
	}
	if was, is := before.state.Auth, after.state.Auth; was.GetVersion() != is.GetVersion() {
		tell("who may do what has changed", "version", is.GetVersion(), "enabled", is.GetEnabled(), "users", len(is.GetUsers()),
			"by", is.GetBy(), "request", is.GetRequest())
	}
	all = append(all, newsOfInvitations(before.state.Invitations, after.state.Invitations)...)
	for _, m := range after.Members {
		was, known := before.Member(m.RaftId)
		switch {
		case !known:
			tell("a member is added", words(m)...)
		case was.Type != m.Type:
			tell("a member changes", append(words(m), "before", kindOf(was))...)
		case was.Address != m.Address:
			tell("a member moves", append(words(m), "before", was.Address)...)
		}
	}
	if before.state != after.state {
		for _, o := range after.state.GetOperations() {
			at := slices.IndexFunc(before.state.GetOperations(), func(was *messages.ClusterOperation) bool { return string(was.Id) == string(o.Id) })
			if at < 0 || before.state.Operations[at].Phase != o.Phase {
				all = append(all, operationNews(o))
			}
		}
	}
	for _, m := range before.Members {
		if _, stays := after.Member(m.RaftId); !stays {
			tell("a member is removed", words(m)...)
		}
	}
	return all
}

// operationNews is said of each phase that an operation of members comes to.
func operationNews(o *messages.ClusterOperation) news {
	n := news{"an operation goes on", []any{"operation", fmt.Sprintf("%x", o.Id), "change", rules.Title(o), "phase", word(o.Phase)}}
	if o.Phase == messages.OperationPhase_FAILED {
		n.text, n.words = "an operation has failed", append(n.words, "code", o.Code.String(), "reason", o.Error)
	} else if rules.Ended(o) {
		n.text = "an operation is complete"
	}
	return n
}

// newsOfInvitations is what became of nodes that were given a token to come with.
func newsOfInvitations(before, after *messages.Invitations) (all []news) {
	tell := func(text string, i *messages.Invitation, words ...any) {
		all = append(all, news{text, append([]any{"invitation", fmt.Sprintf("%x", i.Id), "member", i.Node}, words...)})
	}
	if before.GetVersion() == after.GetVersion() {
		return nil
	}
	for _, i := range after.GetAll() {
		switch was := auth.FindInvitation(before, i.Id); {
		case was == nil:
			tell("a node is invited", i, "expires", time.UnixMilli(i.ExpiresMs).UTC().Format(time.RFC3339), "by", i.By, "request", i.Request)
		case len(was.Taker) == 0 && len(i.Taker) > 0:
			tell("the keys of an invited node are given away", i, "address", i.TakenFrom)
		}
	}
	for _, i := range before.GetAll() {
		if auth.FindInvitation(after, i.Id) == nil {
			tell("an invitation is removed", i, "used", len(i.Taker) > 0)
		}
	}
	return all
}

// servesNews is said once: from then on this node, a member, serves clients, since it knows
// who leads.
func servesNews(self messages.RaftID, v View) (said news, serves bool) {
	m, member := v.Member(self)
	if !member || v.Leader == 0 || len(v.ClusterID) == 0 {
		return news{}, false
	}
	return news{"this node serves", []any{"cluster", fmt.Sprintf("%x", v.ClusterID), "is", kindOf(m), "leader", v.nameOf(v.Leader), "members", len(v.Members), "level", v.Level}}, true
}

func words(m *messages.Member) []any {
	return []any{"member", m.Name, "raft_id", m.RaftId, "address", m.Address, "is", kindOf(m)}
}

// kindOf is a member's type for people.
func kindOf(m *messages.Member) string {
	return [...]string{
		messages.MemberType_VOTER: "voter", messages.MemberType_LEARNER: "learner",
		messages.MemberType_INCOMING: "voter that comes", messages.MemberType_OUTGOING: "voter that leaves",
	}[m.Type]
}

// titleOf is what a request asks for, for people.
func titleOf(r *request) string {
	switch m := r.asked; {
	case m.GetBegin() != nil && r.record != nil:
		return fmt.Sprintf("%s (operation %x)", rules.Title(r.record), r.record.Id)
	case m.GetBegin() != nil:
		return rules.Title(m.GetBegin().GetOperation())
	case m.GetAbort() != nil:
		return fmt.Sprintf("abort operation %x", m.GetAbort().GetId())
	case m.GetTransfer() != nil:
		return "transfer the lead"
	case m.GetAddress() != nil:
		return fmt.Sprintf("address of %s: %s", m.GetAddress().GetName(), m.GetAddress().GetAddress())
	case m.GetHealing() != nil:
		return "automatic replacement"
	case m.GetBackup() != nil:
		return fmt.Sprintf("record of backup job %q", m.GetBackup().GetJob().GetName())
	case m.GetAuth() != nil:
		return auth.Title(m.GetAuth())
	case m.GetInvitation().GetAdd() != nil:
		return fmt.Sprintf("invite node %.80q by invitation %x", m.GetInvitation().GetAdd().GetNode(), m.GetInvitation().GetAdd().GetId())
	case m.GetInvitation() != nil:
		return fmt.Sprintf("remove invitation %x", m.GetInvitation().GetRemove())
	case r.redeem != nil:
		return fmt.Sprintf("give the keys of %.80q away by invitation %x", r.redeem.Node, r.redeem.Id)
	}
	return "unknown"
}

// nameOf is a member's name, or what stands for it where it is not known.
func (v View) nameOf(id messages.RaftID) string {
	if m, known := v.Member(id); known {
		return m.Name
	}
	return fmt.Sprintf("raft id %d", id)
}
