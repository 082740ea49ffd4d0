package membershipactor

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
	"keyval/mutant"
)

// A node that is to be added asks all that it can reach to let it in, over and over,
// until one of them finds it among the members. Here stands who asks, and what becomes of
// it. The leader binds the directory of who asks to the member of that name: so one
// directory, and no copy of a name, is that member.

const (
	// waitingTicks is after how long a node is forgotten that does not ask any more: it
	// asks every few ticks.
	waitingTicks = 200
	// bindTicks is after how long a binding is proposed again that is not among the
	// members yet.
	bindTicks = 20
)

// waiting are the nodes that ask this one to be let in. Each method is one event.
//
// Invariant: no two of nodes have the same name, address and incarnation. They are
// waitingMax at most; of more the first ones count.
type waiting struct {
	nodes   []waitingNode
	told    map[string]bool             // what people were told, until the last of nodes is forgotten
	unbound map[messages.RaftID]unbound // the members without a directory
	now     uint64                      // ticks
	asks    uint64                      // how many there were
}

// unbound is what is known of a member without a directory.
type unbound struct {
	since uint64 // there were so many asks when it was seen first
	again uint64 // when a binding may be proposed, in ticks
}

type waitingNode struct {
	*messages.WaitingNode
	heardAt uint64
	ask     uint64 // the last one was of this number
	from    asker
	request uint64          // of the asker
	called  messages.RaftID // as this member it was told to ask again
}

// calling is an answer that goes to a node without its asking again.
type calling struct {
	to     asker
	answer *messages.JoinAnswer
}

func newWaiting() *waiting {
	return &waiting{told: map[string]bool{}, unbound: map[messages.RaftID]unbound{}}
}

// onAsk takes a JoinAsk. It returns the answer, and what people are to be told.
func (w *waiting) onAsk(from asker, m *messages.JoinAsk, members *messages.MembersChanged) (answer *messages.JoinAnswer, warnings []string) {
	node := m.GetNode()
	if err := checkWaiting(node); err != nil {
		return &messages.JoinAnswer{Request: m.GetRequest(), Code: err.Code, Message: err.Message, Hint: err.Hint}, nil
	}
	w.asks++
	answer = answerJoin(members, node)
	answer.Request = m.GetRequest()
	if answer.Code != messages.Code_BUSY {
		w.forget(node)
		return answer, nil
	}
	w.remember(node, from, m.GetRequest())
	return answer, w.doubts(node)
}

// checkWaiting: what a node says of itself is repeated to people and kept.
func checkWaiting(n *messages.WaitingNode) *messages.Error {
	switch {
	case n == nil || messages.CheckNodeName(n.Name) != nil:
		return messages.Errorf(messages.Code_INVALID, "a node that asks to join has no name")
	case messages.CheckMemberAddress(n.Address) != nil:
		return messages.Errorf(messages.Code_INVALID, "node %s, which asks to join, has no address", n.Name)
	case len(n.Incarnation) != messages.IncarnationSize:
		return messages.Errorf(messages.Code_INVALID, "an incarnation has %d bytes, this one %d", messages.IncarnationSize, len(n.Incarnation))
	}
	return nil
}

func (w *waiting) remember(n *messages.WaitingNode, from asker, request uint64) {
	is := waitingNode{WaitingNode: n, heardAt: w.now, ask: w.asks, from: from, request: request}
	for i, known := range w.nodes {
		if known.Name == n.Name && known.Address == n.Address && bytes.Equal(known.Incarnation, n.Incarnation) {
			is.called = known.called
			w.nodes[i] = is
			return
		}
	}
	w.nodes = slices.DeleteFunc(w.nodes, func(o waitingNode) bool {
		return o.Name == n.Name && o.Address == n.Address && w.now-o.heardAt > supersededTicks
	})
	if len(w.nodes) < waitingMax {
		w.nodes = append(w.nodes, is)
	}
}

// onMembers answers those whose answer has changed, so that nobody waits for the next time
// they ask: who was added is to ask once more, and who was let in hears it. It forgets who was
// let in, whoever told it so. Otherwise a later member of that name would be bound to a
// directory that is gone.
func (w *waiting) onMembers(members *messages.MembersChanged) (calls []calling) {
	w.sees(members)
	for i, n := range w.nodes {
		answer := answerJoin(members, n.WaitingNode)
		answer.Request = n.request
		switch member := unboundFor(members, n.WaitingNode); {
		case answer.Code == messages.Code_OK:
			calls = append(calls, calling{n.from, answer})
		case answer.Code == messages.Code_BUSY && member != 0 && member != n.called:
			w.nodes[i].called, answer.Again = member, true
			calls = append(calls, calling{n.from, answer})
		}
	}
	w.nodes = slices.DeleteFunc(w.nodes, func(n waitingNode) bool { return wasLetIn(members.GetMembers(), n.WaitingNode) })
	return calls
}

// unboundFor is the member without a directory that a node may become; 0: there is none.
func unboundFor(members *messages.MembersChanged, n *messages.WaitingNode) messages.RaftID {
	for _, m := range members.GetMembers() {
		if len(m.Incarnation) == 0 && m.Name == n.Name && m.Address == n.Address {
			return m.RaftId
		}
	}
	return 0
}

// sees notes since when there are members without a directory.
func (w *waiting) sees(members *messages.MembersChanged) {
	still := map[messages.RaftID]unbound{}
	for _, m := range members.GetMembers() {
		if len(m.Incarnation) > 0 {
			continue
		}
		u, known := w.unbound[m.RaftId]
		if !known {
			u = unbound{since: w.asks, again: w.now}
		}
		still[m.RaftId] = u
	}
	w.unbound = still
}

func wasLetIn(members []*messages.Member, n *messages.WaitingNode) bool {
	return slices.ContainsFunc(members, func(m *messages.Member) bool {
		return m.Name == n.Name && m.Address == n.Address && bytes.Equal(m.Incarnation, n.Incarnation)
	})
}

// supersededTicks is after how long a silent node gives way to another that asks under its
// name and from its address, in ticks: only one process can be reached there.
const supersededTicks = 20

func (w *waiting) forget(n *messages.WaitingNode) {
	w.nodes = slices.DeleteFunc(w.nodes, func(o waitingNode) bool {
		return o.Name == n.Name && bytes.Equal(o.Incarnation, n.Incarnation)
	})
}

// doubts says, once, what cannot be right about a node and the others that wait: then
// nobody can tell which of them is to be added.
func (w *waiting) doubts(n *messages.WaitingNode) (warnings []string) {
	say := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !w.told[text] && len(w.told) < waitingMax {
			w.told[text] = true
			warnings = append(warnings, text)
		}
	}
	for _, o := range w.nodes {
		sameDirectory := bytes.Equal(o.Incarnation, n.Incarnation)
		switch {
		case sameDirectory && (o.Address != n.Address || o.Name != n.Name):
			say("one data directory runs as two processes, %s at %s and %s at %s: it was copied, and one of them has to be stopped", o.Name, o.Address, n.Name, n.Address)
		case !sameDirectory && o.Name == n.Name:
			say("two nodes wait to be added under the name %s, at %s and %s: neither is let in before one of them is stopped", n.Name, o.Address, n.Address)
		case o.Name != n.Name && o.Address == n.Address:
			say("two nodes wait to be added at one address, %s and %s at %s", o.Name, n.Name, n.Address)
		}
	}
	return warnings
}

// onTick forgets who asks no more. As leader it returns what is to be proposed; everyone
// is who waits, also as other members have heard.
func (w *waiting) onTick(elapsed uint64, leads bool, members *messages.MembersChanged, everyone []*messages.WaitingNode) []*messages.BindIncarnation {
	w.now += elapsed
	w.nodes = slices.DeleteFunc(w.nodes, func(n waitingNode) bool { return w.now-n.heardAt > waitingTicks })
	if len(w.nodes) == 0 {
		clear(w.told)
	}
	if !leads {
		return nil
	}
	return w.bindings(members, everyone)
}

// bindings are those that the leader proposes: of members without a directory for which
// just one waits, that has asked this node since they were added. Whoever asked before may
// be gone: a node that was wiped is started again under its name and at its address, and
// what it was is remembered for a while.
func (w *waiting) bindings(members *messages.MembersChanged, everyone []*messages.WaitingNode) (propose []*messages.BindIncarnation) {
	w.sees(members)
	for _, m := range members.GetMembers() {
		u, is := w.unbound[m.RaftId]
		if !is {
			continue
		}
		if incarnation := fits(m, everyone); incarnation != nil && w.now >= u.again && w.askedSince(u.since, incarnation) {
			u.again = w.now + bindTicks
			w.unbound[m.RaftId] = u
			propose = append(propose, &messages.BindIncarnation{RaftId: m.RaftId, Incarnation: incarnation})
		}
	}
	return propose
}

// askedSince reports whether a directory has asked after so many asks.
func (w *waiting) askedSince(asks uint64, incarnation []byte) bool {
	return slices.ContainsFunc(w.nodes, func(n waitingNode) bool {
		return n.ask > asks && bytes.Equal(n.Incarnation, incarnation)
	})
}

// fits is the incarnation that waits for the place of a member; nil: none does, or
// several do.
func fits(m *messages.Member, everyone []*messages.WaitingNode) (incarnation []byte) {
	for _, n := range everyone {
		switch {
		case n.Name != m.Name || n.Address != m.Address || !rules.Waits(n):
		case incarnation != nil && !bytes.Equal(incarnation, n.Incarnation):
			return nil
		default:
			incarnation = n.Incarnation
		}
	}
	for _, n := range everyone {
		if n.Name == m.Name && !bytes.Equal(n.Incarnation, incarnation) || bytes.Equal(n.Incarnation, incarnation) && n.Address != m.Address {
			return nil
		}
	}
	return incarnation
}

// list is who waits, by name, with how long each has been silent.
func (w *waiting) list(tickMS uint64) (all []*messages.WaitingNode) {
	for _, n := range w.nodes {
		is := proto.Clone(n.WaitingNode).(*messages.WaitingNode)
		is.SilentMs = (w.now - n.heardAt) * tickMS
		all = append(all, is)
	}
	slices.SortFunc(all, compareWaiting)
	return all
}

func compareWaiting(a, b *messages.WaitingNode) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address), bytes.Compare(a.Incarnation, b.Incarnation))
}

// answerJoin is what a member tells a node that asks to join: OK with its RaftID, BUSY as
// long as it is to wait, or why it never will be let in.
func answerJoin(members *messages.MembersChanged, n *messages.WaitingNode) *messages.JoinAnswer {
	a := &messages.JoinAnswer{Code: messages.Code_BUSY, ClusterId: members.GetClusterId(), Members: members.GetMembers()}
	refuse := func(hint, format string, args ...any) *messages.JoinAnswer {
		a.Code, a.Message, a.Hint = messages.Code_NOT_ALLOWED, fmt.Sprintf(format, args...), hint
		return a
	}
	// A node that takes the place of one of its own name is a member beside that one.
	heir := slices.ContainsFunc(members.GetMembers(), func(m *messages.Member) bool {
		return m.Name == n.Name && (len(m.Incarnation) == 0 || bytes.Equal(m.Incarnation, n.Incarnation))
	})
	for _, m := range members.GetMembers() {
		mine := bytes.Equal(m.Incarnation, n.Incarnation) || mutant.UnboundAdmitted && len(m.Incarnation) == 0
		switch {
		case m.Name == n.Name && len(m.Incarnation) > 0 && !mine && heir:
		case m.Name == n.Name && mine && m.Address == n.Address:
			a.Code, a.RaftId = messages.Code_OK, m.RaftId
			return a
		case m.Name == n.Name && len(m.Incarnation) > 0 && !mine:
			return refuse(fmt.Sprintf("start %s on its own data directory; if that is lost: kvctl cluster replace %s %s %s, and then this again", n.Name, n.Name, n.Name, n.Address),
				"%s is a member already, with another data directory", n.Name)
		case m.Name == n.Name && m.Address != n.Address:
			a.Message = fmt.Sprintf("%s was added at %s, and this node is reached at %s", n.Name, m.Address, n.Address)
			a.Hint = fmt.Sprintf("say where it is: kvctl cluster update %s %s", n.Name, n.Address)
		case m.Name != n.Name && mine:
			return refuse("remove the directory, and start on an empty one", "this data directory is a copy of that of member %s", m.Name)
		}
	}
	return a
}
