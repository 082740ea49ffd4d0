package membershipactor

import (
	"bytes"
	"cmp"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/membershipactor/saga"
	"keyval/messages"
)

// The leader carries operations on, and answers those that ask for one once that is in the
// log. What is asked for is a record or a change of an address, so asking again does no
// harm: a request that outlives the lead of its node is sent on to the next leader.

// Bounds of what waits for the log here, in number and in ticks.
const (
	requestsMax  = 64
	requestTicks = 160
	// patienceTicks is for how long a request waits that may be allowed in a moment.
	patienceTicks = rules.ContactTicksMax + 10
)

// asker is the actor that asked, as its address and its name.
type asker struct{ address, actor string }

// act is what is to be done: a message for raft, or an answer.
type act struct {
	to      asker // of an answer; empty: raft
	message proto.Message
	of      *request // of an answer that is news
}

// request is one that waits for the log.
type request struct {
	from      asker
	asked     *messages.ClusterRequest // of redeem: nothing but its number
	redeem    *messages.InvitationAsk  // of who has a token and no keys; nil: asked is asked for
	sealed    []byte                   // of redeem: the answer
	final     bool                     // of redeem: the leader has decided
	stranger  bool                     // of redeem: he has no token
	read      uint64                   // the number of what raft was asked, to be sure that this node leads; 0: it was not
	readAgain uint64                   // tick at which it is asked again
	sure      bool                     // it has answered
	also      []*request               // the same, asked again: requestsMax at most
	until     uint64                   // tick at which it is answered, come what may

	reply    *messages.ClusterReply     // what is known of the answer
	record   *messages.ClusterOperation // that was proposed
	healing  *messages.Healing          // the same
	note     *messages.NoteBackup       // the same
	auth     *messages.Auth             // the same
	invites  *messages.WriteInvitations // the same
	target   messages.RaftID            // that is to lead
	proposed bool                       // something of it may be in the log
	again    uint64                     // tick at which it is proposed again
}

// changes is the part of a leader that changes members. Each method is one event, with what
// the rules look at; it knows no actor and no clock.
type changes struct {
	self  messages.RaftID
	now   uint64 // ticks
	seq   uint64 // of what was proposed, so that raft tells one from another
	reads uint64 // the number of what raft was asked last; they begin at that of the incarnation
	sagas saga.Sagas
	// waiting has at most requestsMax requests, in the order in which they came.
	waiting []*request
	acts    []act

	heals   string // what is to be said of a voter that is lost
	healsAt uint64 // tick at which a replace of it may be proposed again
}

// known is what a node knows when an event comes.
type known struct {
	rules.View
	leader *messages.Leader // nil: none is known
	node   string           // name of this node
}

// take is what is to be done by now.
func (c *changes) take() []act {
	acts := c.acts
	c.acts = nil
	return acts
}

// onRequest takes a request that changes something.
func (c *changes) onRequest(k known, from asker, m *messages.ClusterRequest) {
	r := &request{from: from, asked: m, until: c.now + requestTicks,
		reply: &messages.ClusterReply{Request: m.Request, Node: k.node, Leader: k.leader}}
	if !k.Leads() {
		c.answer(r, notLeading(k))
		return
	}
	c.takeUp(k, r)
}

// takeUp has a request wait until it is answered, unless that is at once.
func (c *changes) takeUp(k known, r *request) {
	for _, w := range c.waiting {
		if w.asks(r) && len(w.also) < requestsMax {
			w.also = append(w.also, r)
			return
		}
	}
	if c.step(k, r) {
		return
	}
	if len(c.waiting) >= requestsMax {
		c.answer(r, messages.Errorf(messages.Code_BUSY, "%d requests wait for the log already", len(c.waiting)).WithHint("ask again in a moment"))
		return
	}
	c.waiting = append(c.waiting, r)
}

// asks reports whether another request is this one, asked again since its answer takes long. It
// has the same answer, and does not wait beside this one: it could begin later what this one
// was refused.
func (r *request) asks(again *request) bool {
	if id := r.asked.GetBegin().GetOperation().GetId(); id != nil {
		return bytes.Equal(id, again.asked.GetBegin().GetOperation().GetId())
	}
	return r.from == again.from && r.asked.Request == again.asked.Request && proto.Equal(r.redeem, again.redeem)
}

// begun reports whether the operation that is asked for has its record: then it does not
// matter any more upon which members that was decided.
func (k known) begun(m *messages.ClusterRequest) bool {
	return m.GetBegin() != nil && k.Operation(m.GetBegin().GetOperation().GetId()) != nil
}

// notLeading says where to ask.
func notLeading(k known) *messages.Error {
	switch {
	case k.leader == nil:
		return messages.Errorf(messages.Code_NO_LEADER, "nobody leads just now").WithHint("ask again in a moment; kvctl cluster health says more")
	case k.leader.RaftId == k.Self:
		return messages.Errorf(messages.Code_BUSY, "this node has just begun to lead").WithHint("ask again in a moment")
	}
	return messages.Errorf(messages.Code_REDIRECT, "%s leads", k.leader.Name).WithHint("ask it, at %s", k.leader.Address)
}

// onTick lets time pass, and takes what has changed meanwhile.
func (c *changes) onTick(k known, elapsed uint64) {
	c.now += elapsed
	still := c.waiting[:0]
	for _, r := range c.waiting {
		if !c.step(k, r) {
			still = append(still, r)
		}
	}
	clear(c.waiting[len(still):])
	c.waiting = still
	var effects []saga.Effect
	c.sagas, effects = c.sagas.Step(k.View, elapsed)
	for _, e := range effects {
		c.carryOut(k, e)
	}
	c.heal(k)
}

// waits says why operations do not go on.
func (c *changes) waits(k known) (all []*messages.OperationWait) {
	for _, o := range k.Operations {
		if why := c.sagas.Why(o.Id); why.Kind != rules.Nothing {
			all = append(all, &messages.OperationWait{Id: o.Id, Why: why.String(), Hint: why.Hint(), Reason: messages.WaitReason(why.Kind)})
		}
	}
	return all
}

// carryOut has raft take a step of an operation.
func (c *changes) carryOut(k known, e saga.Effect) {
	switch e := e.(type) {
	case saga.Record:
		c.propose(&messages.Operation{Kind: &messages.Operation_RecordOperation{RecordOperation: &messages.RecordOperation{Operation: e.Operation}}})
	case saga.Transfer:
		c.toRaft(&messages.TransferLead{To: e.To})
	case saga.Change:
		_, change, err := k.Change(e.Members, k.Index+1, e.Members.GetRecord().GetOperation().GetId())
		if err == nil { // else the state has moved on, and so does the saga
			c.toRaft(&messages.ProposeChange{Change: change,
				Command: messages.NodeCommand(&messages.Operation{Kind: &messages.Operation_ChangeMembers{ChangeMembers: e.Members}})})
		}
	}
}

func (c *changes) toRaft(m proto.Message) { c.acts = append(c.acts, act{message: m}) }

func (c *changes) propose(o *messages.Operation) {
	c.seq++
	c.toRaft(&messages.Propose{Origin: c.self, Seq: c.seq, Command: messages.NodeCommand(o)})
}

// answer ends a request.
func (c *changes) answer(r *request, err *messages.Error) {
	if err != nil {
		r.reply.Code, r.reply.Message, r.reply.Hint = err.Code, err.Message, err.Hint
	}
	c.acts = append(c.acts, act{r.from, r.answer(), r})
	for _, again := range r.also {
		reply := proto.Clone(r.reply).(*messages.ClusterReply)
		reply.Request = again.asked.Request
		again.reply, again.sealed, again.final = reply, r.sealed, r.final
		c.acts = append(c.acts, act{to: again.from, message: again.answer()})
	}
}

// step goes on with a request, and reports whether it was answered.
func (c *changes) step(k known, r *request) bool {
	r.reply.Leader = k.leader
	done, err := false, (*messages.Error)(nil)
	switch {
	case r.redeem != nil:
		done, err = c.giveKeys(k, r)
	case r.asked.GetTransfer() != nil && r.proposed:
		done, err = c.transferred(k, r)
	case !k.Leads() && k.leader != nil:
		done, err = true, notLeading(k)
	case !k.Leads():
	case !r.proposed && !k.begun(r.asked) && rules.CheckStale(r.asked, k.Index, k.Replication.GetTerm()) != nil:
		done, err = true, rules.CheckStale(r.asked, k.Index, k.Replication.GetTerm())
	case r.asked.GetBegin() != nil:
		done, err = c.begin(k, r, r.asked.GetBegin().GetOperation())
	case r.asked.GetAbort() != nil:
		done, err = c.abort(k, r, r.asked.GetAbort().GetId())
	case r.asked.GetTransfer() != nil:
		done, err = c.transfer(k, r, r.asked.GetTransfer().GetTo())
	case r.asked.GetAddress() != nil:
		done, err = c.update(k, r, r.asked.GetAddress())
	case r.asked.GetHealing() != nil:
		done, err = c.setHealing(k, r, r.asked.GetHealing())
	case r.asked.GetBackup() != nil:
		done, err = c.noteBackup(k, r, r.asked.GetBackup())
	case r.asked.GetAuth() != nil:
		done, err = c.setAuth(k, r, r.asked.GetAuth())
	case r.asked.GetInvitation() != nil:
		done, err = c.invite(k, r, r.asked.GetInvitation())
	default:
		done, err = true, messages.Errorf(messages.Code_UNSUPPORTED, "this node does not know what is asked for").WithHint("upgrade the nodes first")
	}
	if !done && c.now >= r.until {
		done, err = true, c.expired(r)
	}
	if done {
		c.answer(r, err)
	}
	return done
}

// expired is the answer of a request whose time is over.
func (c *changes) expired(r *request) *messages.Error {
	switch id := cmp.Or(hex.EncodeToString(r.asked.GetBegin().GetOperation().GetId()), hex.EncodeToString(r.asked.GetAbort().GetId())); {
	case !r.proposed:
		return messages.Errorf(messages.Code_BUSY, "the leader could not write to the log in time; nothing has changed").WithHint("ask again")
	case id != "":
		return messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "operation %s is not in the log yet, and may come to be", id).WithHint("look for it: kvctl ops show %s", id)
	}
	return messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "it is not known whether that has happened").WithHint("kvctl cluster members shows what is")
}

// due reports whether something of a request is to be proposed now, or again.
func (c *changes) due(r *request) bool {
	if r.proposed && c.now < r.again {
		return false
	}
	r.proposed, r.again = true, c.now+saga.RetryTicks
	return true
}

// patient reports whether a request may wait for what passes.
func (c *changes) patient(r *request) bool {
	return !r.asked.DryRun && c.now+requestTicks < r.until+patienceTicks
}

// weigh puts into an answer what the rules said.
func weigh(r *request, d rules.Verdict) {
	r.reply.Before, r.reply.After, r.reply.Meanwhile, r.reply.Warnings = d.Before, d.After, d.Meanwhile, d.Warnings
	r.reply.Operation = d.InTheWay
}

// begin writes the first record of an operation. One whose record is there has begun.
func (c *changes) begin(k known, r *request, asked *messages.ClusterOperation) (done bool, err *messages.Error) {
	if len(asked.GetId()) != messages.OperationIDSize {
		return true, messages.Errorf(messages.Code_INVALID, "the id of an operation has %d bytes, this one %d", messages.OperationIDSize, len(asked.GetId()))
	}
	if o := k.Operation(asked.Id); o != nil {
		r.reply.Operation = o
		if !same(o, asked) {
			return true, messages.Errorf(messages.Code_CONFLICT, "operation %x is another one: %s", o.Id, rules.Title(o)).WithHint("choose another id")
		}
		return true, nil
	}
	if r.record != nil {
		if o := k.InTheWay(r.record); o != nil && rules.SameNode(o, r.record) { // it came before, so the state refuses this one
			r.reply.Operation = o
			return true, messages.Errorf(messages.Code_CONFLICT, "operation %x was faster: %s", o.Id, rules.Title(o)).WithHint("follow it: kvctl ops follow %x", o.Id)
		}
		if c.due(r) {
			c.carryOut(k, saga.Record{Operation: r.record})
		}
		return false, nil
	}
	asked = addressed(asked, k.View)
	if joins := asked.Kind == messages.OperationKind_ADD || asked.Kind == messages.OperationKind_REPLACE; joins && asked.NewAddress == "" {
		return true, messages.Errorf(messages.Code_NOT_FOUND, "no node, or more than one, waits to be added as %s, so it is not known where it is", asked.NewNode).
			WithHint("write its address behind the name, or start it: kvctl serve --join")
	}
	record := saga.Begin(asked, k.View)
	d := rules.Check(c.withProposed(k.View), record)
	weigh(r, d)
	switch {
	case d.Passes && c.patient(r):
		return false, nil
	case d.Err != nil:
		return true, d.Err
	case r.asked.DryRun:
		r.reply.Operation = record
		return true, nil
	case !k.Replication.GetSettled():
		return false, nil // what an earlier leader began may not be applied here yet
	}
	r.record = record
	c.due(r)
	c.carryOut(k, saga.Record{Operation: record})
	return false, nil
}

// withProposed counts operations whose first record is on its way to the log among those
// that are under way.
func (c *changes) withProposed(v rules.View) rules.View {
	all := append([]*messages.ClusterOperation(nil), v.Operations...)
	for _, r := range c.waiting {
		if r.record != nil {
			all = append(all, r.record)
		}
	}
	v.Operations = all
	return v
}

// addressed is what is asked for, with the address of a node that waits to be added where
// none is given.
func addressed(asked *messages.ClusterOperation, v rules.View) *messages.ClusterOperation {
	if w := v.WaitingNamed(asked.NewNode); asked.NewAddress == "" && w != nil {
		asked = proto.Clone(asked).(*messages.ClusterOperation)
		asked.NewAddress = w.Address
	}
	return asked
}

// same reports whether a record is of the operation that is asked for.
func same(o, asked *messages.ClusterOperation) bool {
	return o.Kind == asked.Kind && o.OldNode == asked.OldNode && o.NewNode == asked.NewNode && o.StayLearner == asked.StayLearner &&
		(asked.NewAddress == "" || o.NewAddress == asked.NewAddress)
}

// abort gives an operation up.
func (c *changes) abort(k known, r *request, id []byte) (done bool, err *messages.Error) {
	o := k.Operation(id)
	if o == nil {
		return true, messages.Errorf(messages.Code_NOT_FOUND, "there is no operation %x, or it ended long ago", id).WithHint("kvctl ops ls lists them")
	}
	r.reply.Operation = o
	effect, err := saga.Abort(o, k.View)
	if err != nil || effect == nil || r.asked.DryRun {
		return true, err
	}
	if r.record.GetVersion() != o.Version+1 { // the first time, or another step was faster
		r.again = c.now
	}
	if c.due(r) {
		r.record = effect.(saga.Record).Operation
		c.carryOut(k, effect)
	}
	return false, nil
}

// transfer hands the lead over.
func (c *changes) transfer(k known, r *request, name string) (done bool, err *messages.Error) {
	to, passes, err := rules.CheckTransfer(k.View, name)
	r.reply.Before = k.Budget()
	if passes && c.patient(r) {
		return false, nil
	}
	if err != nil || to == 0 || r.asked.DryRun {
		r.reply.Message = messages.MemberName(k.Members, cmp.Or(to, k.Self))
		return true, err
	}
	r.target = to
	c.due(r)
	c.toRaft(&messages.TransferLead{To: to})
	return false, nil
}

// transferred waits until another leads.
func (c *changes) transferred(k known, r *request) (done bool, err *messages.Error) {
	switch {
	case k.leader == nil:
		return false, nil
	case k.leader.RaftId == r.target:
		r.reply.Message = k.leader.Name
		return true, nil
	case k.leader.RaftId != k.Self:
		return true, messages.Errorf(messages.Code_CONFLICT, "%s leads now, and not %s", k.leader.Name, messages.MemberName(k.Members, r.target)).
			WithHint("ask again, if that matters")
	}
	if k.Leads() && k.Replication.GetTransferringTo() == 0 && c.due(r) {
		c.toRaft(&messages.TransferLead{To: r.target})
	}
	return false, nil
}

// update changes where a member is reached.
func (c *changes) update(k known, r *request, asked *messages.ChangeAddress) (done bool, err *messages.Error) {
	if m := k.Named(asked.Name); m != nil && m.Address == asked.Address {
		return true, nil
	}
	m, d := rules.CheckUpdate(c.withProposed(k.View), asked.Name, asked.Address)
	weigh(r, d)
	if d.Err != nil || r.asked.DryRun {
		return true, d.Err
	}
	if c.due(r) {
		c.propose(&messages.Operation{Kind: &messages.Operation_UpdateMember{UpdateMember: &messages.UpdateMember{
			RaftId: m.RaftId, Configuration: k.Index, Address: asked.Address,
		}}})
	}
	return false, nil
}
