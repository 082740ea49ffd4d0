package membershipactor

import (
	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/membershipactor/saga"
	"keyval/messages"
	"keyval/mutant"
)

// invite makes an invitation, or takes one back. That the asker may was decided where he came in.
func (c *changes) invite(k known, r *request, asked *messages.ChangeInvitation) (done bool, err *messages.Error) {
	sure := c.sure(r)
	next := auth.Uninvite(k.Invitations, asked.GetRemove())
	if asked.GetAdd() != nil {
		if next, err = auth.Invite(k.Invitations, asked.GetAdd(), r.asked.Principal, messages.RequestIDOfNode(r.from.address, r.asked.Request), k.NowMS); err != nil {
			return sure, err
		}
	}
	if next == nil || r.asked.DryRun {
		if i := auth.FindInvitation(k.Invitations, asked.GetAdd().GetId()); i != nil {
			r.reply.Invitations = auth.InvitationsTold(i)
		}
		return sure, nil
	}
	c.write(k, r, next)
	return false, nil
}

// strangersMax bounds those who wait here and have no token.
const strangersMax = requestsMax / 4

// sure reports whether all is applied here that anybody was told before a request came: raft has asked
// a quorum whether this node still leads. One that was deposed, and does not know it, would
// say what was so once: that an invitation is gone, or that it is there.
func (c *changes) sure(r *request) bool {
	if mutant.InvitationUnconfirmed {
		return true
	}
	if r.sure || r.read != 0 && c.now < r.readAgain {
		return r.sure
	}
	if r.read == 0 {
		c.reads++
		r.read = c.reads
	}
	r.readAgain = c.now + saga.RetryTicks
	c.toRaft(&messages.ReadIndex{Session: messages.ActorMembership, Read: &messages.Read{Request: r.read, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte{0}}}}})
	return false
}

// onRead takes the answer to that: what is read does not matter.
func (c *changes) onRead(m *messages.ReadReply) {
	for _, r := range c.waiting {
		if r.read == m.Request && (m.Code == messages.Code_OK || m.Code == messages.Code_NOT_FOUND) {
			r.sure = true
		}
	}
}

// strangers are those who wait and have no token.
func (c *changes) strangers() (n int) {
	for _, r := range c.waiting {
		if r.stranger {
			n++
		}
	}
	return n
}

// write has the log write the invitations: again in time, and at once if another was faster.
func (c *changes) write(k known, r *request, next *messages.WriteInvitations) {
	if r.invites == nil || k.Invitations.GetVersion() >= r.invites.Version {
		r.invites, r.again = next, c.now
	}
	if c.due(r) {
		c.propose(&messages.Operation{Kind: &messages.Operation_WriteInvitations{WriteInvitations: r.invites}})
	}
}

// onInvitationAsk takes what somebody asks who has a token, and no keys.
func (c *changes) onInvitationAsk(k known, from asker, m *messages.InvitationAsk) {
	r := &request{from: from, redeem: m, asked: &messages.ClusterRequest{Request: m.Request}, until: c.now + requestTicks,
		reply: &messages.ClusterReply{Request: m.Request, Node: k.node, Leader: k.leader}}
	c.takeUp(k, r)
}

// giveKeys gives the sealed keys of an invitation to its taker, once the log says who he is. A node
// that does not lead says who does, to nobody but who has the token.
func (c *changes) giveKeys(k known, r *request) (done bool, err *messages.Error) {
	sealed, next, err := auth.Redeem(k.Invitations, r.redeem, k.NowMS)
	r.stranger = err != nil && err.Code == messages.Code_NOT_FOUND
	switch {
	case r.stranger && (!k.Leads() || r.read == 0 && c.strangers() >= strangersMax):
		return true, err // the leader may know better, or is asked by too many to make sure
	case !k.Leads():
		return true, notLeading(k)
	case !k.Replication.GetSettled(): // what an earlier leader wrote may not be applied here yet, and strangers do not wait here
		return true, messages.Errorf(messages.Code_BUSY, "this node has just begun to lead").WithHint("ask again in a moment")
	case !c.sure(r) && next == nil:
		return false, nil
	case next != nil:
		c.write(k, r, next)
		return false, nil
	}
	r.sealed, r.final = sealed, true
	return true, err
}

// answer is what whoever asked is told.
func (r *request) answer() proto.Message {
	if r.redeem == nil {
		return r.reply
	}
	a := &messages.InvitationAnswer{Request: r.reply.Request, Code: r.reply.Code, Message: r.reply.Message, Hint: r.reply.Hint, Sealed: r.sealed, Final: r.final}
	if a.Code == messages.Code_REDIRECT {
		a.Leader = r.reply.Leader
	}
	return a
}

// by is who asks, for people.
func (r *request) by() string {
	switch {
	case r.redeem == nil:
		return r.asked.Principal
	case messages.CheckNodeName(r.redeem.Node) != nil:
		return "a token, from " + auth.HostText(r.redeem.Host)
	}
	return "a token of " + r.redeem.Node + ", from " + auth.HostText(r.redeem.Host)
}
