package rules

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/mutant"
)

// Verdict is what the leader says to a change that somebody asks for. A change that is
// allowed may still have to wait; it is held against Guard... again when it is carried out.
type Verdict struct {
	Err                      *messages.Error // nil: it is allowed
	Before, After, Meanwhile *messages.FaultBudget
	Warnings                 []string
	InTheWay                 *messages.ClusterOperation // that Err is about
	// Passes says of a refusal that it may well be otherwise in a moment: a node that was
	// stopped counts as in contact for a while, and a new leader does not know yet how far
	// the others are.
	Passes bool
}

func (d Verdict) refused(err *messages.Error) Verdict {
	d.Err = err
	return d
}

// CheckStale refuses what was decided upon another view than the one that is known here, by
// the index of its configuration and its term: CONFLICT upon an older one, BUSY upon one that
// this node has not come to yet. 0 in the request stands for any.
func CheckStale(m *messages.ClusterRequest, configuration, term uint64) *messages.Error {
	for _, part := range []struct {
		name        string
		seen, known uint64
	}{{"configuration", m.GetConfiguration(), configuration}, {"term", m.GetTerm(), term}} {
		switch {
		case part.seen > part.known:
			return messages.Errorf(messages.Code_BUSY, "this node has not come to %s %d yet, it is at %d", part.name, part.seen, part.known).
				WithHint("ask again in a moment")
		case part.seen != 0 && part.seen < part.known:
			return messages.Errorf(messages.Code_CONFLICT, "the view is stale: the %s is %d now, not %d", part.name, part.known, part.seen).
				WithHint("look at the members again, and decide anew")
		}
	}
	return nil
}

// Check says whether an operation may begin. op has its kind and the names and the address of
// its nodes.
func Check(v View, op *messages.ClusterOperation) Verdict {
	if err := v.able(); err != nil {
		return Verdict{Before: v.Budget(), Err: err}
	}
	switch op.GetKind() {
	case messages.OperationKind_ADD:
		return CheckAdd(v, op)
	case messages.OperationKind_PROMOTE:
		return CheckPromote(v, op)
	case messages.OperationKind_REMOVE:
		return CheckRemove(v, op)
	case messages.OperationKind_REPLACE:
		return CheckReplace(v, op)
	}
	return Verdict{Err: messages.Errorf(messages.Code_UNSUPPORTED, "an operation of a kind that this node does not know").
		WithHint("upgrade the nodes first")}
}

// able refuses everything while nothing can be committed.
func (v View) able() *messages.Error {
	switch {
	case !v.Leads():
		return messages.Errorf(messages.Code_NO_LEADER, "this node does not lead").WithHint("ask again in a moment: another node may")
	case !v.Budget().Available:
		return messages.Errorf(messages.Code_NO_LEADER, "%s", Words(v.Budget())).
			WithHint("start %s: that makes a quorum", WhoseReturn(v.ConfState, v.Members, v.Alive))
	}
	return nil
}

// free refuses an operation that another one stands in the way of.
func (v View) free(op *messages.ClusterOperation) (*messages.Error, *messages.ClusterOperation) {
	o := v.InTheWay(op)
	if o == nil || mutant.TwoSagas {
		return nil, nil
	}
	return messages.Errorf(messages.Code_CONFLICT, "operation %x is under way: %s", o.Id, Title(o)).
		WithHint("follow it: kvctl ops follow %x; or give it up: kvctl ops abort %x", o.Id, o.Id), o
}

// Title says what an operation is about: "replace node2 by node4".
func Title(o *messages.ClusterOperation) string {
	switch o.GetKind() {
	case messages.OperationKind_ADD:
		return "add " + o.NewNode
	case messages.OperationKind_PROMOTE:
		return "promote " + o.NewNode
	case messages.OperationKind_REMOVE:
		return "remove " + o.OldNode
	case messages.OperationKind_REPLACE:
		return fmt.Sprintf("replace %s by %s", o.OldNode, o.NewNode)
	}
	return "unknown"
}

// known finds the member of a name.
func (v View) known(name string) (*messages.Member, *messages.Error) {
	if m := v.Named(name); m != nil {
		return m, nil
	}
	err := messages.Errorf(messages.Code_NOT_FOUND, "no member is called %q", name)
	if v.WaitingNamed(name) != nil {
		err = messages.Errorf(messages.Code_NOT_FOUND, "%s waits to be added, and is no member", name)
	}
	var names []string
	for _, m := range v.Members {
		names = append(names, m.Name)
	}
	return nil, err.WithHint("the members are %s", And(names))
}

// unusedBy refuses the name and the address of a new member that are those of another than
// the one it replaces.
func (v View) unusedBy(name, address string, replaced *messages.Member) *messages.Error {
	if err := messages.CheckNodeName(name); err != nil {
		return err
	}
	if err := messages.CheckMemberAddress(address); err != nil {
		return err
	}
	for _, m := range v.Members {
		if m == replaced {
			continue
		}
		switch {
		case m.Name == name && m.Type == messages.MemberType_LEARNER:
			return messages.Errorf(messages.Code_CONFLICT, "%s is a member already, at %s: a learner", name, m.Address).
				WithHint("make it a voter: kvctl cluster promote %s; or choose another name", name)
		case m.Name == name:
			return messages.Errorf(messages.Code_CONFLICT, "%s is a member already, at %s", name, m.Address).
				WithHint("choose another name; if its disk is empty now: kvctl cluster replace %s %s %s", name, name, address)
		case m.Address == address:
			return messages.Errorf(messages.Code_CONFLICT, "%s is the address of %s", address, m.Name).
				WithHint("choose another address, or remove %s first", m.Name)
		}
	}
	return nil
}

// room refuses another member where there are as many as may be.
func (v View) room() *messages.Error {
	if len(v.Members) >= messages.MembersMax {
		return messages.Errorf(messages.Code_BUSY, "there are %d members, as many as a cluster may have", len(v.Members)).
			WithHint("remove one first")
	}
	return nil
}

// fits refuses a new member whose software is known not to do.
func (v View) fits(name, address string) *messages.Error {
	if why := v.refused(name, address); why != "" {
		return messages.Errorf(messages.Code_UNSAFE, "%s is not let in: %s", name, why).
			WithHint("start it with the version that the members run: kvctl status")
	}
	return nil
}

// CheckAdd says whether a node may be added: new_node at new_address.
func CheckAdd(v View, op *messages.ClusterOperation) Verdict {
	d := Verdict{Before: v.Budget()}
	if err := v.unusedBy(op.NewNode, op.NewAddress, nil); err != nil {
		return d.refused(err)
	}
	if err := v.fits(op.NewNode, op.NewAddress); err != nil {
		return d.refused(err)
	}
	if err, o := v.free(op); err != nil {
		d.InTheWay = o
		return d.refused(err)
	}
	if err := v.room(); err != nil {
		return d.refused(err)
	}
	if op.StayLearner {
		d.After = d.Before
		return d
	}
	return v.voters(d, v.target(), &messages.Member{RaftId: v.NextRaftID, Name: op.NewNode, Address: op.NewAddress}, 0)
}

// CheckPromote says whether a learner may become a voter now: new_node.
func CheckPromote(v View, op *messages.ClusterOperation) Verdict {
	d := Verdict{Before: v.Budget()}
	m, err := v.known(op.NewNode)
	if err != nil {
		return d.refused(err)
	}
	if err, o := v.free(op); err != nil {
		d.InTheWay = o
		return d.refused(err)
	}
	if m.Type != messages.MemberType_LEARNER {
		return d.refused(messages.Errorf(messages.Code_CONFLICT, "%s is a voter already", m.Name).
			WithHint("kvctl cluster members shows who is a learner"))
	}
	if why := v.Ready(m.RaftId); why.Kind != Nothing {
		hint := why.Hint()
		if hint == "" {
			hint = "ask again when it has caught up: kvctl cluster member " + m.Name
		}
		d.Passes = why.Kind == Steady || why.Kind == Lag || why.Kind == Unsettled
		return d.refused(messages.Errorf(messages.Code_UNSAFE, "%s is not ready to be promoted: %v", m.Name, why).WithHint("%s", hint))
	}
	return v.voters(d, v.target(), m, 0)
}

// CheckRemove says whether a member may be removed: old_node.
func CheckRemove(v View, op *messages.ClusterOperation) Verdict {
	d := Verdict{Before: v.Budget()}
	m, err := v.known(op.OldNode)
	if err != nil {
		return d.refused(err)
	}
	if err, o := v.free(op); err != nil {
		d.InTheWay = o
		return d.refused(err)
	}
	if m.Type == messages.MemberType_LEARNER {
		d.After = d.Before
		return d
	}
	if len(v.target()) == 1 {
		return d.refused(messages.Errorf(messages.Code_UNSAFE, "%s is the last voter: without it there is no cluster", m.Name).
			WithHint("add another voter first: kvctl cluster add NAME HOST:PORT; or replace it: kvctl cluster replace %s NAME HOST:PORT", m.Name))
	}
	return v.voters(d, v.target(), nil, m.RaftId)
}

// CheckReplace says whether a new node may take the place of a member: old_node, new_node,
// new_address. The names may be the same: then the old member's disk is taken for lost.
func CheckReplace(v View, op *messages.ClusterOperation) Verdict {
	d := Verdict{Before: v.Budget()}
	old, err := v.known(op.OldNode)
	if err != nil {
		return d.refused(err)
	}
	if err := v.unusedBy(op.NewNode, op.NewAddress, old); err != nil {
		return d.refused(err)
	}
	if err := v.fits(op.NewNode, op.NewAddress); err != nil {
		return d.refused(err)
	}
	if err, o := v.free(op); err != nil {
		d.InTheWay = o
		return d.refused(err)
	}
	if err := v.room(); err != nil {
		return d.refused(err)
	}
	if old.Address == op.NewAddress && v.Alive(old.RaftId) {
		d.Passes = true
		return d.refused(messages.Errorf(messages.Code_CONFLICT, "%s answers at %s itself", old.Name, old.Address).
			WithHint("stop it first, or let the new node listen elsewhere"))
	}
	if old.Type == messages.MemberType_LEARNER {
		d.After = d.Before
		return d
	}
	next := &messages.Member{RaftId: v.NextRaftID, Name: op.NewNode, Address: op.NewAddress}
	d = v.voters(d, v.target(), next, old.RaftId)
	joint := &raftpb.ConfState{Voters: v.swapped(v.target(), next.RaftId, old.RaftId), VotersOutgoing: v.target()}
	d.Meanwhile = smaller(d.Meanwhile, Budget(joint, append(slices.Clone(v.Members), next), v.aliveWith(next.RaftId)))
	return d
}

// target are the voters that there are when the change under way, if there is one, has ended.
func (v View) target() []messages.RaftID { return v.ConfState.GetVoters() }

func (v View) swapped(voters []messages.RaftID, in, out messages.RaftID) []messages.RaftID {
	voters = slices.DeleteFunc(slices.Clone(voters), func(id messages.RaftID) bool { return id == out })
	if in != 0 {
		voters = append(voters, in)
	}
	return voters
}

// aliveWith takes a node that is to be promoted for one in contact: it is promoted no sooner.
func (v View) aliveWith(in messages.RaftID) func(messages.RaftID) bool {
	return func(id messages.RaftID) bool { return id == in || v.Alive(id) }
}

// voters completes a verdict: what is left when in has joined the voters and out has left
// them. in is nil, or out 0, where nobody does.
func (v View) voters(d Verdict, voters []messages.RaftID, in *messages.Member, out messages.RaftID) Verdict {
	members := slices.Clone(v.Members)
	if in != nil && v.Member(in.RaftId) == nil {
		members = append(members, in)
	}
	after := &raftpb.ConfState{Voters: v.swapped(voters, in.GetRaftId(), out)}
	alive := v.aliveWith(in.GetRaftId())
	d.After = Budget(after, members, alive)
	d.Warnings = warnings(voters, after.Voters, members)
	if !d.After.Available {
		back := WhoseReturn(after, members, alive)
		return d.refused(messages.Errorf(messages.Code_UNSAFE, "afterwards there would be %s", Words(d.After)).
			WithHint("start %s first, or replace what is lost: kvctl cluster replace OLD NEW HOST:PORT", back))
	}
	return d
}

// warnings are about a set of voters that is allowed and not wise.
func warnings(before, after []messages.RaftID, members []*messages.Member) (texts []string) {
	switch n := len(after); {
	case len(before) == 1 && n == 2:
		texts = append(texts, "two voters stop when either is lost: that is less than one voter survives; add a third")
	case n%2 == 0 && n != len(before):
		texts = append(texts, fmt.Sprintf("%d voters survive no more losses than %d", n, n-1))
	}
	hosts := map[string][]string{}
	var order []string
	for _, m := range members {
		host := m.Address[:max(0, strings.LastIndexByte(m.Address, ':'))]
		if !slices.Contains(after, m.RaftId) || loopback(host) {
			continue
		}
		if hosts[host] == nil {
			order = append(order, host)
		}
		hosts[host] = append(hosts[host], m.Name)
	}
	for _, host := range order {
		if len(hosts[host]) > 1 {
			texts = append(texts, fmt.Sprintf("%s are on one host, %s: they are lost together", And(hosts[host]), host))
		}
	}
	return texts
}

// loopback reports whether a host is this machine in its own eyes: a cluster to try things
// out, where all is on one host.
func loopback(host string) bool {
	return host == "localhost" || host == "[::1]" || strings.HasPrefix(host, "127.")
}

// CheckTransfer says who is to lead: the voter of that name, or the best one. 0 and no error:
// it leads already. passes: as in Verdict.
func CheckTransfer(v View, name string) (to messages.RaftID, passes bool, err *messages.Error) {
	if err := v.able(); err != nil {
		return 0, false, err
	}
	if id := v.Replication.GetTransferringTo(); id != 0 {
		return 0, true, messages.Errorf(messages.Code_BUSY, "the lead goes to %s just now", messages.MemberName(v.Members, id)).WithHint("ask again in a moment")
	}
	if name == "" {
		to, why := v.BestLeader(v.Self)
		if why.Kind != Nothing {
			return 0, true, messages.Errorf(messages.Code_UNSAFE, "%v", why).WithHint("wait until another voter has caught up, or start one")
		}
		return to, false, nil
	}
	m, err := v.known(name)
	if err != nil {
		return 0, false, err
	}
	f := v.Following[m.RaftId]
	switch {
	case m.RaftId == v.Self:
		return 0, false, nil
	case m.Type == messages.MemberType_LEARNER:
		return 0, false, messages.Errorf(messages.Code_UNSAFE, "%s is a learner: it cannot lead", name).WithHint("promote it first: kvctl cluster promote %s", name)
	case m.Type == messages.MemberType_OUTGOING:
		return 0, false, messages.Errorf(messages.Code_UNSAFE, "%s leaves the cluster", name).WithHint("choose another voter")
	case !v.Alive(m.RaftId):
		return 0, false, messages.Errorf(messages.Code_UNSAFE, "%s is out of contact: nobody would lead for a while", name).WithHint("start it first, or choose another voter")
	case !f.Close:
		return 0, true, messages.Errorf(messages.Code_UNSAFE, "%s lacks %d entries: nobody would lead until it has them", name, f.Lag()).
			WithHint("wait until it has caught up, or choose another voter")
	}
	return m.RaftId, false, nil
}

// BestLeader is the voter that is closest behind, but for this node and those that are not to
// lead. One that an operation is to remove comes last.
func (v View) BestLeader(except ...messages.RaftID) (messages.RaftID, Why) {
	var best messages.RaftID
	leaves := func(id messages.RaftID) bool {
		return slices.ContainsFunc(v.Operations, func(o *messages.ClusterOperation) bool { return !Ended(o) && o.OldRaftId == id })
	}
	for _, m := range v.Members {
		if m.Type != messages.MemberType_VOTER && m.Type != messages.MemberType_INCOMING ||
			slices.Contains(except, m.RaftId) || m.RaftId == v.Self || !v.Close(m.RaftId) {
			continue
		}
		switch {
		case best == 0, leaves(best) && !leaves(m.RaftId),
			leaves(best) == leaves(m.RaftId) && v.Following[m.RaftId].Match > v.Following[best].Match:
			best = m.RaftId
		}
	}
	if best == 0 {
		return 0, Why{Kind: NobodyToLead, Node: messages.MemberName(v.Members, v.Self)}
	}
	return best, Why{}
}

// CheckUpdate says whether a member may be reached elsewhere from now on.
func CheckUpdate(v View, name, address string) (*messages.Member, Verdict) {
	d := Verdict{Before: v.Budget()}
	if err := v.able(); err != nil {
		return nil, d.refused(err)
	}
	m, err := v.known(name)
	if err == nil {
		err = messages.CheckMemberAddress(address)
	}
	if err != nil {
		return nil, d.refused(err)
	}
	if err, o := v.free(&messages.ClusterOperation{OldNode: name, NewAddress: address}); err != nil {
		d.InTheWay = o
		return nil, d.refused(err)
	}
	for _, other := range v.Members {
		if other != m && other.Address == address {
			return nil, d.refused(messages.Errorf(messages.Code_CONFLICT, "%s is the address of %s", address, other.Name).
				WithHint("choose another address, or remove %s first", other.Name))
		}
	}
	d.After = d.Before
	moved := slices.Clone(v.Members)
	for i, other := range moved {
		if other == m {
			moved[i] = &messages.Member{RaftId: m.RaftId, Name: m.Name, Address: address}
		}
	}
	d.Warnings = warnings(v.target(), v.target(), moved)
	return m, d
}
