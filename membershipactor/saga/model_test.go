package saga

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// world is a cluster as far as sagas see it: a replicated state, proposals on their way to
// it, and machines that live, die, join and catch up. Nothing in it waits.
type world struct {
	t      *rapid.T
	c      rules.Configuration
	ops    []*messages.ClusterOperation
	leader messages.RaftID // 0: none
	term   uint64
	sagas  Sagas
	flight []Effect // proposed by this leader, in order, not committed

	alive, caught map[messages.RaftID]bool
	behind        map[messages.RaftID]bool // alive, and far behind
	nodes         int                      // named so far
	ended         map[string]string        // outcome of an operation, once it has one
	unsettled     bool
	seen          map[string]int // what it came to
}

func newWorld(t *rapid.T, voters int) *world {
	w := &world{t: t, c: rules.Configuration{Index: 1, ConfState: &raftpb.ConfState{}, NextRaftID: uint64(voters) + 1},
		alive: map[uint64]bool{}, caught: map[uint64]bool{}, behind: map[uint64]bool{}, ended: map[string]string{}, leader: 1, term: 1}
	for id := uint64(1); id <= uint64(voters); id++ {
		w.c.ConfState.Voters = append(w.c.ConfState.Voters, id)
		w.c.Members = append(w.c.Members, &messages.Member{RaftId: id, Name: nodeName(int(id)), Address: addressOf(int(id)), Incarnation: incarnationOf(id)})
		w.alive[id], w.caught[id] = true, true
	}
	w.nodes = voters
	return w
}

func nodeName(n int) string  { return fmt.Sprintf("node%d", n) }
func addressOf(n int) string { return fmt.Sprintf("h%d:7000", n) }

func incarnationOf(id uint64) []byte {
	b := make([]byte, messages.IncarnationSize)
	b[0] = byte(id)
	return b
}

func (w *world) isAlive(id messages.RaftID) bool { return w.alive[id] }

func (w *world) available() bool {
	return rules.Budget(w.c.ConfState, w.c.Members, w.isAlive).Available
}

// view is what the leader sees.
func (w *world) view() rules.View {
	v := rules.View{Configuration: w.c, Self: w.leader, Operations: w.ops, TickMS: 50, NowMS: 1, Following: rules.Following{},
		Replication: &messages.Replication{Leader: w.leader, Term: w.term, LastIndex: 100, Settled: !w.unsettled, ConfState: w.c.ConfState}}
	for _, m := range w.c.Members {
		if m.RaftId == w.leader {
			continue
		}
		p := &messages.Progress{RaftId: m.RaftId, Match: 100, State: messages.ProgressState_REPLICATING}
		f := rules.Follow{Match: 100, Last: 100, Close: true, CloseTicks: rules.ReadyTicks}
		switch {
		case !w.alive[m.RaftId]:
			p.SilentTicks, f = 1000, rules.Follow{Match: 1, Last: 100}
		case !w.caught[m.RaftId]:
			p.State, f = messages.ProgressState_SNAPSHOT, rules.Follow{Last: 100}
		case w.behind[m.RaftId]:
			f = rules.Follow{Match: 1, Last: 100}
		}
		v.Replication.Progress = append(v.Replication.Progress, p)
		v.Following[m.RaftId] = f
	}
	return v
}

// count notes an event for the operations that are under way.
func (w *world) count(event string) {
	for _, o := range w.ops {
		if !rules.Ended(o) && w.seen != nil {
			w.seen[fmt.Sprintf("%v in %v: %s", o.Kind, o.Phase, event)]++
		}
	}
}

func (w *world) happened(what string) {
	if w.seen != nil {
		w.seen[what]++
	}
}

// begin asks for an operation, as membership does.
func (w *world) begin(o *messages.ClusterOperation) bool {
	v := w.view()
	if d := rules.Check(v, o); d.Err != nil {
		return false
	}
	w.propose(Record{Begin(o, v)})
	return true
}

func (w *world) abort(o *messages.ClusterOperation) {
	if effect, err := Abort(o, w.view()); err == nil && effect != nil {
		w.propose(effect)
	}
}

// tick lets the sagas take a step.
func (w *world) tick(elapsed uint64) {
	if w.leader == 0 {
		return
	}
	v := w.view()
	var effects []Effect
	w.sagas, effects = w.sagas.Step(v, elapsed)
	for _, e := range effects {
		if to, ok := e.(Transfer); ok {
			w.transfer(to.To)
			return
		}
		w.judge(v, e)
		w.propose(e)
	}
}

func (w *world) propose(e Effect) {
	if len(w.flight) < 40 {
		w.flight = append(w.flight, e)
	}
}

// judge holds a change against the view that it was decided upon.
func (w *world) judge(v rules.View, e Effect) {
	c, ok := e.(Change)
	if ok && len(c.Members.Changes) == 0 && v.Member(v.Self).GetType() == messages.MemberType_OUTGOING {
		w.t.Fatalf("the leader leaves with the joint configuration")
	}
	if !ok || len(c.Members.Changes) == 0 || c.Members.Record == nil {
		return
	}
	next, _, err := v.Change(c.Members, v.Index+1, nil)
	if err != nil {
		w.t.Fatalf("a change is proposed that the state refuses: %v: %v", err, c)
	}
	if b := rules.Budget(next.ConfState, next.Members, v.Alive); !b.Available {
		w.t.Fatalf("after %v there is %s", c, rules.Words(b))
	}
	for _, one := range c.Members.Changes {
		if id := one.GetRemove().GetRaftId(); id == v.Self && len(c.Members.Changes) == 1 {
			w.t.Fatalf("the leader removes itself")
		}
		if id := one.GetPromote().GetRaftId(); id != 0 && (!w.alive[id] || !w.caught[id] || w.behind[id]) {
			w.t.Fatalf("%d is promoted before it has caught up", id)
		}
	}
	if len(next.ConfState.GetVotersOutgoing()) > 0 && w.living(next.ConfState.Voters) < w.living(next.ConfState.VotersOutgoing) {
		w.t.Fatalf("%v leaves fewer live voters", c)
	}
}

func (w *world) living(ids []uint64) (n int) {
	for _, id := range ids {
		if w.alive[id] {
			n++
		}
	}
	return n
}

// commit applies the i-th of the proposals, as machines do. lose drops it.
func (w *world) commit(i int) {
	e := w.flight[i]
	w.lose(i)
	switch e := e.(type) {
	case Record:
		w.write(w.ops, e.Operation)
	case Change:
		w.change(e.Members)
	}
	w.check()
}

func (w *world) lose(i int) { w.flight = slices.Delete(slices.Clone(w.flight), i, i+1) }

func (w *world) change(m *messages.ChangeMembers) {
	next, _, err := w.c.Change(m, w.c.Index+1, m.GetRecord().GetOperation().GetId())
	if err != nil {
		return
	}
	if m.Record != nil && !w.write(w.ops, m.Record.Operation) {
		return
	}
	if w.t == nil { // a table's: whoever is added does well
		defer w.nurse()
	}
	w.c = next
	if w.leader != 0 && w.c.Member(w.leader) == nil { // it was removed by a leader before it
		w.elect(0)
	}
}

// write is the compare-and-set of a record.
func (w *world) write(all []*messages.ClusterOperation, o *messages.ClusterOperation) bool {
	next, err := rules.Record(all, &messages.RecordOperation{Operation: o}, 1)
	if err == nil {
		w.ops = next
	}
	return err == nil
}

// check is what holds behind every entry.
func (w *world) check() {
	touched := map[string]string{}
	for _, o := range w.ops {
		if rules.Ended(o) {
			outcome := o.Phase.String()
			if was := w.ended[string(o.Id)]; was != "" && was != outcome {
				w.t.Fatalf("%s was %s and is %s", rules.Title(o), was, outcome)
			}
			w.ended[string(o.Id)] = outcome
			if o.Phase == failed && o.Reached >= promotion {
				w.t.Fatalf("%s went back behind the swap", rules.Title(o))
			}
			continue
		}
		if o.Aborting && o.Reached >= promotion {
			w.t.Fatalf("%s is given up behind the swap", rules.Title(o))
		}
		for _, name := range []string{o.OldNode, o.NewNode} {
			if name == "" {
				continue
			}
			if other := touched[name]; other != "" && other != string(o.Id) {
				w.t.Fatalf("two operations are about %s", name)
			}
			touched[name] = string(o.Id)
		}
	}
}

// crash ends the leader's process, or its lead. Of what it proposed a prefix is in the log;
// the next leader applies that before it does anything.
func (w *world) crash(kept int, next messages.RaftID) {
	w.leader = 0
	for range min(kept, len(w.flight)) {
		w.commit(0)
	}
	w.elect(next)
}

// elect makes the wanted voter lead, or another, if there is a quorum.
func (w *world) elect(want messages.RaftID) {
	w.leader, w.flight, w.sagas = 0, nil, Sagas{}
	if !w.available() {
		return
	}
	var can []messages.RaftID
	for _, m := range w.c.Members {
		if m.Type != messages.MemberType_LEARNER && w.alive[m.RaftId] && !w.behind[m.RaftId] {
			can = append(can, m.RaftId)
		}
	}
	if len(can) == 0 {
		return
	}
	w.leader = can[int(want)%len(can)]
	w.term++
	delete(w.behind, w.leader)
}

func (w *world) transfer(to messages.RaftID) {
	if !w.alive[to] || w.behind[to] {
		w.t.Fatalf("the lead is handed to %d, which cannot take it", to)
	}
	w.happened("the lead was handed over")
	for len(w.flight) > 0 {
		w.commit(0)
	}
	w.sagas, w.leader = Sagas{}, to
	w.term++
}

// kill and start are of a machine. What a learner lacks it gets once it lives.
func (w *world) kill(id messages.RaftID) {
	w.alive[id] = false
	if id == w.leader || !w.available() {
		w.crash(0, 0)
	}
}

func (w *world) start(id messages.RaftID) {
	w.alive[id] = true
	if w.leader == 0 {
		w.elect(id)
	}
}

// join has a new member heard for the first time, and catch up.
func (w *world) join(id messages.RaftID) {
	m := w.c.Member(id)
	if m == nil || len(m.Incarnation) > 0 {
		return
	}
	next, err := w.c.Bind(&messages.BindIncarnation{RaftId: id, Incarnation: incarnationOf(id)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.c = next
}

// nurse has all learners join, live and catch up.
func (w *world) nurse() {
	for _, m := range w.c.Members {
		if m.Type == messages.MemberType_LEARNER {
			w.join(m.RaftId)
			w.alive[m.RaftId], w.caught[m.RaftId] = true, true
			delete(w.behind, m.RaftId)
		}
	}
}

// heal has everybody live, everything arrive, and the sagas go on until nothing changes.
func (w *world) heal() {
	w.unsettled = false
	for range 60 {
		for _, m := range w.c.Members {
			w.join(m.RaftId)
			w.alive[m.RaftId], w.caught[m.RaftId] = true, true
		}
		clear(w.behind)
		if w.leader == 0 || w.c.Member(w.leader) == nil {
			w.elect(0)
		}
		w.tick(RetryTicks)
		for len(w.flight) > 0 {
			w.commit(0)
		}
	}
	if w.c.Joint() {
		w.t.Fatalf("the configuration stays joint: %v", w.c.ConfState)
	}
	stay := map[messages.RaftID]bool{}
	for _, o := range w.ops {
		if !rules.Ended(o) {
			w.t.Fatalf("%s does not end: %s, why: %v", rules.Title(o), messages.Line(o), w.sagas.Why(o.Id))
		}
		w.outcome(o, stay)
		w.happened(fmt.Sprintf("%v ends %v", o.Kind, o.Phase))
	}
	for _, m := range w.c.Members {
		if m.Type == messages.MemberType_LEARNER && !stay[m.RaftId] {
			w.t.Fatalf("%s with raft id %d is left behind as a learner: %v", m.Name, m.RaftId, describe(w.ops))
		}
	}
}

// outcome holds the members against how an operation ended. stay collects learners that are
// meant to stay.
func (w *world) outcome(o *messages.ClusterOperation, stay map[messages.RaftID]bool) {
	removedLater := func(id messages.RaftID) bool {
		return slices.ContainsFunc(w.ops, func(other *messages.ClusterOperation) bool { return other.OldRaftId == id && other.Phase == complete })
	}
	member := w.c.Member(o.NewRaftId)
	adds := o.Kind == messages.OperationKind_ADD || o.Kind == messages.OperationKind_REPLACE
	switch {
	case o.Phase == failed && adds && member != nil:
		w.t.Fatalf("%s failed, and its learner is a member", rules.Title(o))
	case o.Phase == failed:
		return
	case o.NewNode != "" && member == nil && !removedLater(o.NewRaftId):
		w.t.Fatalf("%s is complete, and %s is no member", rules.Title(o), o.NewNode)
	case o.OldNode != "" && w.c.Member(o.OldRaftId) != nil:
		w.t.Fatalf("%s is complete, and %s is a member", rules.Title(o), o.OldNode)
	}
	if o.NewNode == o.OldNode {
		w.happened("an emptied node came back under its name")
	}
	if o.StayLearner || o.Kind == messages.OperationKind_REPLACE && o.Reached == removeOld && member.GetType() == messages.MemberType_LEARNER {
		stay[o.NewRaftId] = true
		if !o.StayLearner {
			w.happened("a learner was replaced")
		}
	}
}

func describe(ops []*messages.ClusterOperation) (lines []string) {
	for _, o := range ops {
		lines = append(lines, messages.Line(proto.Clone(o)))
	}
	return lines
}
