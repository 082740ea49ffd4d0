package raftactor

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// world is replicas with logs, machines and snapshot actors of the simplest kind,
// and a network between them: queues, whose next element somebody chooses. What is
// in a queue when a host crashes is gone; what a log has taken is durable.
type world struct {
	t         fataler
	options   Options
	hosts     map[uint64]*host
	ids       []uint64
	network   []*raftpb.Message
	shipments []*testShipment
	truth     map[uint64]stateAt // by index: what every machine must have there
	members   map[uint64]rules.Configuration
	led       map[uint64]uint64 // by term
	cutOff    map[uint64]bool
	installs  int
	unused    int
	cuts      int
	seq       uint64

	holdShipments bool // they are under way as long as this is so
}

type fataler interface{ Fatalf(string, ...any) }

// stateAt is all state of a machine: a hash over all commands up to index.
type stateAt struct{ index, term, hash uint64 }

// host is one node: what is durable, and what a crash takes.
type host struct {
	id             uint64
	base, baseTerm uint64
	entries        []*raftpb.Entry
	hs             *raftpb.HardState
	checkpoint     stateAt

	replica *Replica // nil: it is down
	log     []any    // *raftpb.Message or CutLog
	applies []*raftpb.Message
	state   stateAt
	staging *testShipment
	told    *messages.Replication // the last
}

// testShipment is a snapshot that one host sends to another.
type testShipment struct {
	message *raftpb.Message
	state   stateAt
	sender  *Replica // its incarnation; nil: it is gone, nobody waits for the end
}

func newWorld(t fataler, options Options, ids ...uint64) *world {
	w := &world{t: t, options: options, hosts: map[uint64]*host{}, ids: ids, truth: map[uint64]stateAt{}, cutOff: map[uint64]bool{}, led: map[uint64]uint64{}}
	first := stateAt{index: 1, term: 1}
	w.truth[1], w.members = first, founded(ids)
	for _, id := range ids {
		h := &host{id: id, base: 1, baseTerm: 1, checkpoint: first, hs: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}}
		w.hosts[id] = h
		w.start(h)
	}
	return w
}

// seeded makes raft's jitter repeatable for the test.
func seeded(t interface{ Cleanup(func()) }, seed uint64) {
	old := rand.Reader
	rand.Reader = seededReader{mathrand.New(mathrand.NewPCG(seed, 1))}
	t.Cleanup(func() { rand.Reader = old })
}

type seededReader struct{ r *mathrand.Rand }

func (s seededReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s.r.Uint32())
	}
	return len(p), nil
}

var _ io.Reader = seededReader{}

func (w *world) start(h *host) {
	h.replica = NewReplica(ReplicaConfig{Self: h.id, TickMS: 50, ReadNonce: h.id, Logger: raftLogger{slog.New(slog.DiscardHandler)}, Options: w.options})
	h.state = h.checkpoint
	h.replica.OnLogOpened(&messages.LogOpened{
		BaseIndex: h.base, BaseTerm: h.baseTerm, HardState: proto.Clone(h.hs).(*raftpb.HardState), Entries: slices.Clone(h.entries)})
	w.openMachine(h)
	w.took(h)
}

func (w *world) openMachine(h *host) {
	h.replica.OnMachineOpened(&messages.MachineOpened{Index: h.state.index, Term: h.state.term, Revision: h.state.index, ConfState: w.members[h.state.index].ConfState})
}

func (w *world) crash(h *host) {
	for _, s := range w.shipments {
		if s.sender == h.replica {
			s.sender = nil
		}
	}
	h.replica, h.log, h.applies = nil, nil, nil
	w.dropStaging(h, true)
}

func (w *world) dropStaging(h *host, failed bool) {
	if s := h.staging; s != nil {
		h.staging = nil
		w.end(s, failed)
	}
}

// end tells the sender of a shipment, if it still is who it was.
func (w *world) end(s *testShipment, failed bool) {
	from := w.hosts[s.message.GetFrom()]
	if s.sender == nil || from.replica != s.sender {
		return
	}
	from.replica.OnShipped(&messages.SnapshotShipped{Peer: s.message.GetTo(), Failed: failed})
	w.took(from)
}

// took carries the effects of whatever a replica has taken.
func (w *world) took(h *host) {
	if h.replica == nil {
		return
	}
	h.replica.Advance()
	for _, e := range h.replica.Effects() {
		switch e := e.(type) {
		case SendPeer:
			w.network = append(w.network, e.Message)
		case AppendLog:
			h.log = append(h.log, e.Message)
		case CutLog:
			h.log = append(h.log, e)
		case ApplyEntries:
			h.applies = append(h.applies, e.Message)
		case ShipSnapshot:
			w.ship(h, e.Message)
		case StagingUnused:
			w.unused++
			if h.staging == nil || h.staging.state.index != e.Index {
				w.t.Fatalf("%d: staging %d is of no use, and there is none", h.id, e.Index)
			}
			w.dropStaging(h, false)
		case TellReplication:
			h.told = e.Replication
		case AskLoss:
			if to := w.hosts[e.To]; w.reaches(h, to) {
				to.replica.OnLossAsk(h.id, e.Ask)
				w.took(to)
			}
		case AnswerLoss:
			if to := w.hosts[e.To]; w.reaches(h, to) {
				to.replica.OnLossAnswer(h.id, e.Answer)
				w.took(to)
			}
		case RecordSuspicion:
			w.t.Fatalf("%d is suspected: %v%s", h.id, e.Suspicion, e.Condemned)
		case Die:
			w.t.Fatalf("%d died: %v", h.id, e.Reason)
		}
	}
	w.check(h)
}

func (w *world) reaches(from, to *host) bool {
	return to != nil && to.replica != nil && from.replica != nil && !w.cutOff[to.id] && !w.cutOff[from.id]
}

// check holds what must be so at any time.
func (w *world) check(h *host) {
	t := h.replica.tail
	switch {
	case h.replica.node == nil:
		return
	case t.base < h.base:
		w.t.Fatalf("%d: the tail begins at %d, the log at %d", h.id, t.base, h.base)
	case t.base > h.checkpoint.index:
		w.t.Fatalf("%d: the tail begins at %d, replay at %d", h.id, t.base, h.checkpoint.index)
	case h.replica.leader == h.id && t.base > h.state.index:
		w.t.Fatalf("%d: the tail begins at %d, %d is applied", h.id, t.base, h.state.index)
	}
	w.checkMembers(h)
}

func (w *world) ship(h *host, m *raftpb.Message) {
	s := &testShipment{message: proto.Clone(m).(*raftpb.Message), sender: h.replica, state: h.checkpoint}
	if index := m.GetSnapshot().GetMetadata().GetIndex(); index != h.checkpoint.index || m.GetSnapshot().GetMetadata().GetTerm() != h.checkpoint.term {
		w.t.Fatalf("%d ships a snapshot at %d, its checkpoint is at %d", h.id, index, h.checkpoint.index)
	}
	w.shipments = append(w.shipments, s)
}

// arrive brings shipment i to its receiver, or not.
func (w *world) arrive(i int, lost bool) {
	s := w.shipments[i]
	w.shipments = slices.Delete(w.shipments, i, i+1)
	to := w.hosts[s.message.GetTo()]
	if lost || to == nil || to.replica == nil || to.staging != nil || w.cutOff[to.id] || w.cutOff[s.message.GetFrom()] {
		w.end(s, true)
		return
	}
	to.staging = s
	if err := to.replica.OnStaged(proto.Clone(s.message).(*raftpb.Message)); err != nil {
		w.t.Fatalf("%d refuses a snapshot: %v", to.id, err)
	}
	w.took(to)
}

// deliver takes message i from the network.
func (w *world) deliver(i int, lost bool) {
	m := w.network[i]
	w.network = slices.Delete(w.network, i, i+1)
	to := w.hosts[m.GetTo()]
	if lost || to == nil || to.replica == nil || w.cutOff[to.id] || w.cutOff[m.GetFrom()] {
		return
	}
	late := m.GetType() == raftpb.MsgTimeoutNow || m.GetType() == raftpb.MsgReadIndex
	if err := to.replica.OnPeer(proto.Clone(m).(*raftpb.Message)); err != nil && !late {
		w.t.Fatalf("%d refuses %v of %d: %v", to.id, m.GetType(), m.GetFrom(), err)
	}
	w.took(to)
}

// logStep lets the log do the next thing it was asked for.
func (w *world) logStep(h *host) {
	if h.replica == nil || len(h.log) == 0 {
		return
	}
	next := h.log[0]
	h.log = h.log[1:]
	switch m := next.(type) {
	case CutLog:
		w.cutHost(h, m)
	case *raftpb.Message:
		if m.GetSnapshot() != nil {
			w.install(h, m)
		}
		h.save(m)
		h.replica.OnAppended(m)
	}
	w.took(h)
}

func (h *host) last() uint64 { return h.base + uint64(len(h.entries)) }

func (h *host) save(m *raftpb.Message) {
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		h.hs = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	if len(m.GetEntries()) > 0 {
		h.entries = append(h.entries[:m.GetEntries()[0].GetIndex()-h.base-1:m.GetEntries()[0].GetIndex()-h.base-1], m.GetEntries()...)
	}
}

func (w *world) cutHost(h *host, m CutLog) {
	if m.Index <= h.base || m.Index > h.last() || m.Index > h.checkpoint.index {
		w.t.Fatalf("%d: cut at %d of a log (%d, %d] with a checkpoint at %d", h.id, m.Index, h.base, h.last(), h.checkpoint.index)
	}
	if term := h.entries[m.Index-h.base-1].GetTerm(); term != m.Term {
		w.t.Fatalf("%d: cut at %d with term %d, the entry has term %d", h.id, m.Index, m.Term, term)
	}
	w.cuts++
	h.entries = slices.Clone(h.entries[m.Index-h.base:])
	h.base, h.baseTerm = m.Index, m.Term
}

// install is what log and machine do together: what was asked before is done
// before, and the machine tells raft before the log does.
func (w *world) install(h *host, m *raftpb.Message) {
	s := m.GetSnapshot().GetMetadata()
	if h.staging == nil || h.staging.state.index != s.GetIndex() || h.staging.state.term != s.GetTerm() {
		w.t.Fatalf("%d installs a snapshot at %d that is not here", h.id, s.GetIndex())
	}
	for len(h.applies) > 0 {
		w.apply(h)
	}
	w.installs++
	h.base, h.baseTerm, h.entries = s.GetIndex(), s.GetTerm(), nil
	h.state, h.checkpoint = h.staging.state, h.staging.state
	h.hs = &raftpb.HardState{Term: h.hs.Term, Vote: h.hs.Vote, Commit: new(max(h.hs.GetCommit(), s.GetIndex()))}
	w.openMachine(h)
	w.dropStaging(h, false)
}

// apply lets the machine apply the next batch.
func (w *world) apply(h *host) {
	if h.replica == nil || len(h.applies) == 0 {
		return
	}
	m := h.applies[0]
	h.applies = h.applies[1:]
	var verdicts []*messages.Verdict
	for _, e := range m.GetEntries() {
		if e.GetIndex() != h.state.index+1 {
			w.t.Fatalf("%d applies %d after %d", h.id, e.GetIndex(), h.state.index)
		}
		hash := fnv.New64a()
		for _, n := range []uint64{h.state.hash, e.GetIndex(), e.GetTerm()} {
			hash.Write(binary.LittleEndian.AppendUint64(nil, n))
		}
		hash.Write(e.GetData())
		h.state = stateAt{e.GetIndex(), e.GetTerm(), hash.Sum64()}
		if known, ok := w.truth[h.state.index]; ok && known != h.state {
			w.t.Fatalf("%d has another state at %d than those before", h.id, h.state.index)
		}
		w.truth[h.state.index] = h.state
		if v := w.judge(e); v != nil {
			verdicts = append(verdicts, v)
		}
	}
	h.replica.OnApplied(&messages.Applied{Message: m, Index: h.state.index, Revision: h.state.index, Verdicts: verdicts})
	w.took(h)
}

// checkpointNow makes the machine's state durable, if the log holds a commit for it.
func (w *world) checkpointNow(h *host, thorough bool) {
	if h.replica == nil || h.state.index > h.hs.GetCommit() || h.state.index > h.last() {
		return
	}
	h.checkpoint = h.state
	h.replica.OnCheckpointed(&messages.Checkpointed{Index: h.state.index, Term: h.state.term, ConfState: w.members[h.state.index].ConfState, Thorough: thorough})
	w.took(h)
}

func (w *world) tick(h *host) {
	if h.replica != nil {
		h.replica.OnTick(1)
		w.took(h)
	}
}

func (w *world) propose(h *host) bool {
	if h.replica == nil || h.replica.leader != h.id {
		return false
	}
	w.seq++
	h.replica.OnPropose(Asker{}, &messages.Propose{Origin: 9, Seq: w.seq, Command: fmt.Append(nil, "command ", w.seq)})
	w.took(h)
	return true
}

// drain does all there is to do without any time passing.
func (w *world) drain() {
	rounds := 0
	for again := true; again; {
		if rounds++; rounds > 1000 {
			w.t.Fatalf("it does not come to rest: %s", w.describe())
		}
		again = false
		for _, id := range w.ids {
			for h := w.hosts[id]; len(h.log)+len(h.applies) > 0; again = true {
				w.logStep(h)
				w.apply(h)
			}
		}
		for ; len(w.network) > 0; again = true {
			w.deliver(0, false)
		}
		for n := len(w.shipments); n > 0 && len(w.shipments) > 0 && !w.holdShipments; again = true {
			w.arrive(0, false)
			n--
		}
	}
}

// run lets time pass until done, with everything answered at once.
func (w *world) run(what string, done func() bool) {
	for range 600 {
		if w.drain(); done() {
			return
		}
		for _, id := range w.ids {
			w.tick(w.hosts[id])
			w.drain()
		}
	}
	w.t.Fatalf("%s: not within 600 ticks; %s", what, w.describe())
}

func (w *world) describe() (s string) {
	for _, id := range w.ids {
		h := w.hosts[id]
		if h.replica == nil {
			s += fmt.Sprintf("%d is down; ", id)
			continue
		}
		r := h.replica
		s += fmt.Sprintf("%d: leader %d term %d tail (%d, %d] checkpoint %d applied %d installing %v staged %v shipments %d; ",
			id, r.leader, r.term, r.tail.base, r.tail.last(), h.checkpoint.index, h.state.index, r.installing, r.staged != nil, len(r.shipments))
	}
	return s
}

// leader is the host that the others, if they are to be heard, follow.
func (w *world) leader() *host {
	for _, id := range w.ids {
		if h := w.hosts[id]; h.replica != nil && !w.cutOff[id] && h.replica.leader == id && h.replica.appliedTerm == h.replica.term {
			return h
		}
	}
	return nil
}

func (w *world) elect() *host {
	w.run("an election", func() bool { return w.leader() != nil })
	return w.leader()
}

// put has the leader apply n more commands.
func (w *world) put(n int) {
	for range n {
		h := w.elect()
		before := h.state.index
		w.propose(h)
		w.run("a command", func() bool { return h.state.index > before })
	}
}

// equal reports whether every host that is up and not cut off has all there is.
func (w *world) equal() bool {
	l := w.leader()
	if l == nil {
		return false
	}
	for _, m := range w.members[l.state.index].Members {
		if h := w.hosts[m.RaftId]; h != nil && h.replica != nil && !w.cutOff[m.RaftId] && h.state != l.state {
			return false
		}
	}
	return true
}
