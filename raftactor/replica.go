// Package raftactor is consensus: one actor around raft's RawNode with
// asynchronous storage writes. Replica is the core, a state machine that takes
// events and yields effects; Raft is the actor that carries them.
package raftactor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/actors/fair"
	"keyval/messages"
	"keyval/mutant"
)

// Options tune a replica. Zero fields take the default.
type Options struct {
	// A follower that hears no leader campaigns after one to two times so many ticks;
	// default 20. With two busy cores at a load of 30, heartbeats that were sent every
	// 100 ms came up to 650 ms late, and with values of 100 KB a second: processes wait for
	// a core, nothing in them is in the way. A leader that dies or is not there at start
	// needs no timeout; see succession.
	ElectionTicks  int
	HeartbeatTicks int // default 2

	AppendsInFlightMax int    // own appends between log and raft before proposals wait; default 2
	ProposalBytesMax   uint64 // proposals that wait for the gate, in bytes; default 32 MiB; see fair.Queue.Room

	MaxSizePerMsg    uint64 // bytes of entries in one append message; default 1 MiB
	MaxInflightMsgs  int    // default 256
	MaxInflightBytes uint64 // default 64 MiB
	MaxUncommitted   uint64 // bytes, which a command that is small waits behind; default 8 MiB
	MaxCommitted     uint64 // bytes of entries being applied; default 4 MiB

	// What the log keeps that a checkpoint has made dispensable; see cutView.plan.
	LogEntriesMax  uint64 // for a follower that lacks them; default 256 Ki
	LogBytesMax    uint64 // the same in bytes of memory; default 64 MiB
	LogEntriesKeep uint64 // in any case, behind the checkpoint; default 10,000
	LogBytesKeep   uint64 // the same in bytes of memory; default 32 MiB
	PinnedBytesMax uint64 // behind a snapshot on its way, in bytes of memory; default 256 MiB

	NoPreVote bool // the simulator's swarm runs without it too
}

func (o Options) withDefaults() Options {
	o.ElectionTicks = cmp.Or(o.ElectionTicks, 20)
	o.HeartbeatTicks = cmp.Or(o.HeartbeatTicks, 2)
	o.AppendsInFlightMax = cmp.Or(o.AppendsInFlightMax, 2)
	o.ProposalBytesMax = cmp.Or(o.ProposalBytesMax, 32<<20)
	o.MaxSizePerMsg = cmp.Or(o.MaxSizePerMsg, 1<<20)
	o.MaxInflightMsgs = cmp.Or(o.MaxInflightMsgs, 256)
	o.MaxInflightBytes = cmp.Or(o.MaxInflightBytes, 64<<20)
	o.MaxUncommitted = cmp.Or(o.MaxUncommitted, 8<<20)
	o.MaxCommitted = cmp.Or(o.MaxCommitted, 4<<20)
	o.LogEntriesMax = cmp.Or(o.LogEntriesMax, 256<<10)
	o.LogBytesMax = cmp.Or(o.LogBytesMax, 64<<20)
	o.LogEntriesKeep = cmp.Or(o.LogEntriesKeep, 10_000)
	o.LogBytesKeep = cmp.Or(o.LogBytesKeep, 32<<20)
	o.PinnedBytesMax = cmp.Or(o.PinnedBytesMax, 256<<20)
	return o
}

// ReplicaConfig is what a replica is made of.
type ReplicaConfig struct {
	Self      messages.RaftID
	TickMS    uint64              // log time that one tick stands for
	Level     uint32              // the highest cluster level that is understood
	ReadNonce uint64              // random, of this incarnation
	LossNonce uint64              // the same, of questions after what was lost
	Suspicion *messages.Suspicion // what the directory holds; nil: nothing
	Logger    raft.Logger
	Options   Options
}

// Asker is the actor that waits for an answer: its logical address and its name.
type Asker struct{ Address, Actor string }

// Effect is what a replica wants done, in the order given.
type Effect interface{ effect() }

type (
	// SendPeer sends a message to a peer's replica; it may be lost.
	SendPeer struct{ Message *raftpb.Message }
	// AppendLog hands a MsgStorageAppend to the log, which answers with Appended.
	AppendLog struct{ Message *raftpb.Message }
	// ApplyEntries hands a MsgStorageApply to the machine, which answers with Applied.
	ApplyEntries struct{ Message *raftpb.Message }
	// CutLog lets the log drop the entries up to Index.
	CutLog struct{ Index, Term uint64 }
	// ShipSnapshot has a MsgSnap brought to its receiver. It is answered with OnShipped.
	ShipSnapshot struct{ Message *raftpb.Message }
	// StagingUnused says that raft has no use for the staged snapshot of this index.
	StagingUnused struct{ Index uint64 }
	// ReadAt releases reads that are linearizable once Index is applied.
	ReadAt struct {
		Index uint64
		Reads []*messages.ReadIndex
	}
	// RefuseReads sends reads back.
	RefuseReads struct {
		Reads []*messages.ReadIndex
		Code  messages.Code
	}
	// RefuseProposal sends a proposal back that was surely not proposed.
	RefuseProposal struct {
		To          Asker
		Refusal     *messages.ProposalRefused
		Traceparent *messages.Traceparent // the proposal's
	}
	// TracedLogged says where the proposal of a trace is in the log: Index is that of its
	// entry, or of a later one of the same proposal.
	TracedLogged struct {
		Traceparent *messages.Traceparent
		Index       uint64
	}
	// AskedReadIndex says that a batch of reads is to be confirmed now.
	AskedReadIndex struct{}
	// ElectionStarted says that this replica asks the others for their votes.
	ElectionStarted struct{}
	// AnnounceLeader tells the node who leads now, whether it may have lost data, and why the
	// leader before leads no more, as far as is known, for people.
	AnnounceLeader struct {
		Leader, Term uint64
		Fenced       bool
		Why          string
	}
	// AskLoss asks a member what it knows of a loss, AnswerLoss answers one; either may be lost.
	AskLoss struct {
		To  uint64
		Ask *messages.LossAsk
	}
	AnswerLoss struct {
		To     uint64
		Answer *messages.LossAnswer
	}
	// RecordSuspicion makes a suspicion durable, and is answered with OnSuspicionRecorded;
	// or it condemns the directory, and the process ends.
	RecordSuspicion struct {
		Suspicion *messages.Suspicion
		Condemned string
	}
	// Warn tells people what this node has to say about itself.
	Warn struct{ Text string }
	// TellReplication tells how replication goes. What it holds is never modified.
	TellReplication struct{ Replication *messages.Replication }
	// Die ends the process: an invariant is broken that only a human can mend.
	Die struct{ Reason error }
)

func (SendPeer) effect()        {}
func (AppendLog) effect()       {}
func (ApplyEntries) effect()    {}
func (CutLog) effect()          {}
func (ShipSnapshot) effect()    {}
func (StagingUnused) effect()   {}
func (ReadAt) effect()          {}
func (RefuseReads) effect()     {}
func (RefuseProposal) effect()  {}
func (TracedLogged) effect()    {}
func (AskedReadIndex) effect()  {}
func (ElectionStarted) effect() {}
func (AnnounceLeader) effect()  {}
func (TellReplication) effect() {}
func (AskLoss) effect()         {}
func (AnswerLoss) effect()      {}
func (RecordSuspicion) effect() {}
func (Warn) effect()            {}
func (Die) effect()             {}

// proposal is one command on its way into an entry.
type proposal struct {
	asker   Asker
	seq     uint64
	origin  uint64
	command []byte
	// principal is messages.Proposal's.
	principal string
	trace     *messages.Traceparent // nil: it is not traced
	of        *asked                // while it is under way
}

// Replica is one member of the consensus group. Not safe for concurrent use.
//
// Invariants: what RawNode reads as stored is durable; an Appended is taken in
// the order of its AppendLog, an Applied in that of its ApplyEntries.
type Replica struct {
	cfg  ReplicaConfig
	tail *tail
	node *raft.RawNode // nil until both log and machine are open

	log     *messages.LogOpened
	machine *messages.MachineOpened

	leader, term uint64 // as announced last
	handedOver   bool   // the leader has, as a peer said since the last Advance
	role         raft.StateType
	commit       uint64

	queue   *fair.Queue[Asker, proposal] // waits for the gate; its cost is in bytes of commands
	next    []proposal                   // of these, what goes through it next: about proposalBytesMax
	under   underWay
	appends int // appends with entries that the log has not answered

	fence       *fence
	fenced      bool // as announced last
	reads       reads
	asks        asks
	beats       beats
	logTimeMS   uint64 // as last applied, plus the ticks of an own leadership
	appliedTerm uint64
	applied     uint64
	revision    uint64
	compacted   uint64 // reads below this revision are refused
	level       uint32 // of the cluster, as last applied
	changes     changes

	replicationDue bool

	succession succession               // of a leader that is gone
	shipments  map[uint64]*shipment     // by peer, at most one each
	staged     *raftpb.Message          // a snapshot that is here and waits to be stepped
	installing *raftpb.SnapshotMetadata // with the log; until it is answered the log is not cut
	thorough   uint64                   // up to here space was asked for; 0: nothing is left of it
	ticks      uint64
	heard      uint64             // the tick at which a leader was heard of last
	contact    map[uint64]uint64  // of a leader: the tick at which each follower was heard of last
	gone       map[uint64]bool    // peers whose process has died, and that were not heard of since
	promised   map[uint64]promise // of members: what they acknowledged to this replica, also when it leads no more

	effects []Effect
}

// NewReplica makes a replica that waits for LogOpened and MachineOpened.
func NewReplica(cfg ReplicaConfig) *Replica {
	cfg.Options = cfg.Options.withDefaults()
	return &Replica{
		cfg: cfg, reads: reads{nonce: cfg.ReadNonce}, asks: asks{}, queue: fair.New[Asker, proposal](turnBytes),
		under:     underWay{askers: map[Asker]*asked{}},
		shipments: map[uint64]*shipment{}, contact: map[uint64]uint64{}, gone: map[uint64]bool{}, promised: map[uint64]promise{}, fence: newFence(cfg.LossNonce, cfg.Suspicion),
	}
}

// Effects returns what the events since the last call want done, and forgets it.
func (r *Replica) Effects() []Effect {
	out := r.effects
	r.effects = nil
	return out
}

func (r *Replica) emit(e Effect) { r.effects = append(r.effects, e) }

// OnLogOpened and OnMachineOpened bring what the disk held. With both, the
// replica takes part.
func (r *Replica) OnLogOpened(m *messages.LogOpened) { r.log = m; r.open() }

// OnMachineOpened also comes when a snapshot was installed; see OnLogOpened.
func (r *Replica) OnMachineOpened(m *messages.MachineOpened) {
	if r.node != nil {
		r.reopened(m)
		return
	}
	r.machine = m
	r.open()
}

func (r *Replica) open() {
	if r.log == nil || r.machine == nil || r.node != nil {
		return
	}
	m := r.machine
	if m.Index < r.log.BaseIndex || m.Index > r.log.HardState.GetCommit() {
		r.emit(Die{apart("the checkpoint is at index %d, the log holds (%d, %d] committed", m.Index, r.log.BaseIndex, r.log.HardState.GetCommit())})
		return
	}
	r.tail = newTail(r.log, m.ConfState)
	term, err := r.tail.Term(m.Index)
	if err != nil || term != m.Term {
		r.emit(Die{apart("the checkpoint is at index %d of term %d, the log has term %d there", m.Index, m.Term, term)})
		return
	}
	r.tail.checkpointed(m.Index, term, m.ConfState)
	r.applied, r.appliedTerm, r.revision, r.logTimeMS, r.compacted, r.level = m.Index, term, m.Revision, m.LogTimeMs, m.CompactedRevision, m.Level
	node, err := raft.NewRawNode(r.raftConfig())
	if err != nil {
		panic(fmt.Sprintf("raft refuses its configuration: %v", err))
	}
	r.node, r.log = node, nil
	r.changes.conf, r.changes.last = m.ConfState, r.tail.last()
	r.changes.yields = !r.isMember(r.cfg.Self) && r.removedBefore()
	r.standInTurn(startTicks, raft.None)
	r.announce()
	r.fence.open(r.view())
	r.fenceMoved()
	r.Advance()
}

// apart is DAMAGED for a log and a checkpoint that do not belong together.
func apart(format string, args ...any) *messages.Error {
	return messages.Errorf(messages.Code_DAMAGED, format+": they do not belong together", args...).
		WithHint("this node must not vote: keep its directory for inspection; the other nodes serve on without it")
}

func (r *Replica) raftConfig() *raft.Config {
	o := r.cfg.Options
	return &raft.Config{
		ID: r.cfg.Self, Storage: r.tail, Applied: r.machine.Index, Logger: r.cfg.Logger,
		ElectionTick: o.ElectionTicks, HeartbeatTick: o.HeartbeatTicks,
		PreVote: !o.NoPreVote, CheckQuorum: true, StepDownOnRemoval: true,
		AsyncStorageWrites: true, DisableProposalForwarding: true, ReadOnlyOption: raft.ReadOnlySafe,
		MaxSizePerMsg: o.MaxSizePerMsg, MaxInflightMsgs: o.MaxInflightMsgs, MaxInflightBytes: o.MaxInflightBytes,
		MaxUncommittedEntriesSize: o.MaxUncommitted, MaxCommittedSizePerReady: o.MaxCommitted,
	}
}

// OnTick advances raft's clock by one and log time by all that elapsed.
func (r *Replica) OnTick(elapsed uint32) {
	if r.node == nil {
		return
	}
	if r.fence.stage != takesPart {
		r.fence.tick(r.view())
		r.fenceMoved()
	}
	if r.fence.fenced() {
		return
	}
	if r.role == raft.StateLeader {
		r.logTimeMS += uint64(elapsed) * r.cfg.TickMS
	}
	r.sample()
	r.replicationDue = r.replicationDue || r.ticks%replicationTicks == 0
	r.asks.tick()
	r.node.Tick()
	r.succeed()
	r.seek()
	if r.ticks%cutTicks == 0 {
		r.cutLog()
	}
	again, givenUp := r.reads.tick(r.cfg.Options.HeartbeatTicks*2, r.cfg.Options.ElectionTicks*2)
	if again != nil && !r.answersFromThePast() {
		r.node.ReadIndex(again)
	}
	if givenUp != nil {
		r.emit(RefuseReads{givenUp, messages.Code_NO_LEADER})
	}
}

// OnPeer takes a message of a peer. The error says why it was refused; it
// changed nothing then.
func (r *Replica) OnPeer(m *raftpb.Message) error {
	if r.node == nil {
		return nil
	}
	if err := r.validate(m); err != nil {
		return err
	}
	switch {
	case r.unheard(m):
		return nil // as if it were lost
	case r.usurps(m), r.lostLog(m) && m.GetTerm() == r.term && r.leader != 0 && r.leader != m.GetFrom():
		return fmt.Errorf("%v of term %d, in which replica %d leads", m.GetType(), m.GetTerm(), r.leader)
	case !r.lostLog(m):
	default:
		r.fence.accused(r.view(), m.GetFrom(), m.GetTerm(), m.GetCommit())
		r.fenceMoved()
	}
	if r.fence.mute() {
		return nil // as if it were lost
	}
	switch {
	case m.GetType() == raftpb.MsgApp && len(m.GetEntries()) > 0 && r.uncutFull():
		return nil // as if it were lost: the leader sends it again when there is room
	case m.GetType() == raftpb.MsgReadIndex && (!r.asks.admit(m.GetFrom()) || r.answersFromThePast()):
		return nil // as if it were lost: the peer asks again
	case mutant.LearnerRefuses && r.learns() && (m.GetType() == raftpb.MsgVote || m.GetType() == raftpb.MsgPreVote):
		return nil
	}
	if r.gone[m.GetFrom()] {
		delete(r.gone, m.GetFrom())
		r.replicationDue = true
	}
	r.handedOver = r.handedOver || handsOver(m)
	if _, follows := r.contact[m.GetFrom()]; follows {
		r.contact[m.GetFrom()] = r.ticks
	}
	// An error here means a message that is late or from a stranger: raft has no use for it.
	if err := r.node.Step(r.judged(m)); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
		return err
	}
	if leads := m.GetType() == raftpb.MsgHeartbeat || m.GetType() == raftpb.MsgApp; leads && m.GetTerm() >= r.term {
		r.heard = r.ticks
	}
	r.promisedBy(m)
	return nil
}

// OnPropose queues a command for the log, or refuses it at once. It reports whether it did.
func (r *Replica) OnPropose(asker Asker, m *messages.Propose) (queued bool) {
	p := proposal{asker: asker, seq: m.Seq, origin: m.Origin, command: m.Command, trace: m.Traceparent, principal: m.Principal}
	size := len(m.Command)
	switch {
	case r.node == nil || r.leader == 0 || r.fence.mute():
		r.refuse(p, messages.Code_NO_LEADER)
	case r.leader != r.cfg.Self:
		r.refuse(p, messages.Code_REDIRECT)
	case size == 0 || size > messages.CommandSizeMax || len(m.Principal) > messages.NodeNameSizeMax:
		r.refuse(p, messages.Code_INVALID)
	case r.has(p): // its session lost patience: the outcome will come
	case !r.queue.Room(asker, size, int(r.cfg.Options.ProposalBytesMax)):
		r.refuse(p, messages.Code_BUSY)
	default:
		r.under.begin(&p)
		r.queue.Push(asker, p, size)
		return true
	}
	return false
}

func (r *Replica) refuse(p proposal, code messages.Code) {
	r.emit(RefuseProposal{p.asker, &messages.ProposalRefused{Seq: p.seq, Code: code, Leader: r.leader, Term: r.term}, p.trace})
}

// OnRead queues a read for the next ReadIndex batch, or refuses it at once.
func (r *Replica) OnRead(m *messages.ReadIndex) {
	switch {
	case r.node == nil || r.leader == 0 || r.fence.mute():
		r.emit(RefuseReads{[]*messages.ReadIndex{m}, messages.Code_NO_LEADER})
	case !r.reads.add(m):
		r.emit(RefuseReads{[]*messages.ReadIndex{m}, messages.Code_BUSY})
	}
}

// OnAppended takes the log's answer. Its snapshot is installed and its entries are
// durable, so its responses may go out.
func (r *Replica) OnAppended(m *raftpb.Message) {
	if s := m.GetSnapshot(); s != nil {
		r.installed(s.GetMetadata())
	}
	r.tail.extend(m.GetEntries())
	if len(m.GetEntries()) > 0 {
		r.appends--
	}
	r.deliver(m.GetResponses())
}

// OnApplied takes the machine's answer. The machine answers what it was told to apply
// before it opens a snapshot, so applied never goes back.
func (r *Replica) OnApplied(m *messages.Applied) {
	entries := m.Message.GetEntries()
	if m.Index <= r.applied {
		panic(fmt.Sprintf("the machine applied up to index %d when %d was applied already", m.Index, r.applied))
	}
	settled := r.settled()
	r.applied, r.revision = m.Index, m.Revision
	r.compacted, r.level = max(r.compacted, m.CompactedRevision), max(r.level, m.Level)
	r.logTimeMS = max(r.logTimeMS, m.LogTimeMs)
	r.appliedTerm = entries[len(entries)-1].GetTerm()
	r.under.applied(m.Index)
	r.noteApplied(entries)
	r.carryOut(m.Verdicts)
	r.replicationDue = r.replicationDue || r.settled() != settled // the next change may wait for that
	r.deliver(m.Message.GetResponses())
}

// deliver sends the responses that were waiting for storage. Those to this replica
// are stepped.
func (r *Replica) deliver(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() != r.cfg.Self {
			if !r.fence.mute() {
				r.emit(SendPeer{m})
			}
			continue
		}
		// A leader that was removed has entries on their way to its log: they count no more.
		if err := r.node.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
			panic(fmt.Sprintf("raft refuses %v of its own storage: %v", m.GetType(), err))
		}
	}
}

// Advance proposes and reads what may go on, and turns everything that raft has
// ready into effects. Call it after a batch of events.
func (r *Replica) Advance() {
	if r.node == nil || r.fence.mute() {
		return
	}
	if r.fenced { // no more
		r.announce()
	}
	r.ready()
	r.takeStaged()
	for r.proposeBarrier() || r.propose() || r.askReads() {
		r.ready()
	}
	r.handedOver = false
	r.tellReplication()
}

// propose opens the gate. At most AppendsInFlightMax appends are with the log, and
// proposals that queue meanwhile share the next. The gate stays shut while
// checkpoints do not keep up.
func (r *Replica) propose() bool {
	if r.leader != r.cfg.Self || r.appends >= r.cfg.Options.AppendsInFlightMax || r.uncutFull() {
		return false
	}
	if r.takeNext(); len(r.next) == 0 {
		return false
	}
	entries := pack(r.next, r.stamp())
	err := r.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: proto.Uint64(r.cfg.Self), Entries: entries})
	if errors.Is(err, raft.ErrProposalDropped) {
		return false // too much is uncommitted, or leadership is on its way: they wait
	}
	if err != nil {
		panic(fmt.Sprintf("raft refuses a proposal: %v", err))
	}
	last := r.changes.last + uint64(len(entries)) // raft numbers copies of them, behind all that a Ready brought
	r.under.log(r.next, last)
	for _, p := range r.next {
		if p.trace != nil {
			r.emit(TracedLogged{p.trace, last})
		}
	}
	clear(r.next)
	r.next = r.next[:0]
	return true
}

// stamp is what the entries of now carry: the cluster's level, not this software's, which
// a replica of an older one might not understand.
func (r *Replica) stamp() stamp {
	s := stamp{level: r.level, logTimeMS: r.logTimeMS}
	if mutant.StampedOwn {
		s.level = r.cfg.Level
	}
	return s
}

// takeNext takes what goes through the gate next from those whose turn it is.
func (r *Replica) takeNext() {
	size := 0
	for _, p := range r.next { // raft had no room for these
		size += encodedSize(p)
	}
	for size < proposalBytesMax {
		p, ok := r.queue.Pop()
		if !ok {
			return
		}
		r.next = append(r.next, p)
		size += encodedSize(p)
	}
}

// uncutFull reports whether the committed entries above the last checkpoint, which no
// cut may take, fill the memory that they may have. This passes: the entries will be
// applied, and then a checkpoint is written.
func (r *Replica) uncutFull() bool {
	uncut := r.tail.bytesAbove(r.tail.checkpoint()) - r.tail.bytesAbove(max(r.commit, r.tail.checkpoint()))
	return uncut > uncutFactor*r.cfg.Options.LogBytesMax
}

// answersFromThePast reports whether this replica leads, and no entry of its own term is
// applied yet. Raft holds reads back until then, its own and those of peers, except where
// one voter decides alone: that one would answer with what it knows to be committed, which
// may be less than it has acknowledged before it was started again.
func (r *Replica) answersFromThePast() bool {
	s := r.node.BasicStatus() // it may lead since a moment ago
	return s.RaftState == raft.StateLeader && r.appliedTerm != s.GetTerm() && !mutant.ReadBeforeOwn
}

// askReads asks for the index of the next batch, unless answersFromThePast; here role and
// term are known.
func (r *Replica) askReads() bool {
	if r.leader == 0 || (r.leader == r.cfg.Self && r.appliedTerm != r.term && !mutant.ReadBeforeOwn) {
		return false
	}
	context := r.reads.next()
	if context == nil {
		return false
	}
	if mutant.ReadUnconfirmed && r.leader == r.cfg.Self { // others may lead long since
		r.emit(ReadAt{r.commit, r.reads.finish()})
		return true
	}
	r.node.ReadIndex(context)
	r.emit(AskedReadIndex{})
	return true
}

// ready turns raft's Readys into effects.
func (r *Replica) ready() {
	for r.node.HasReady() {
		rd := r.node.Ready()
		for _, m := range r.askDurably(rd.Messages) {
			r.route(m)
		}
		for _, s := range rd.ReadStates {
			if batch := r.reads.confirmed(s.RequestCtx); batch != nil {
				r.emit(ReadAt{s.Index, batch})
			}
		}
		if r.campaigns(rd.Messages) {
			r.emit(ElectionStarted{})
		}
		r.announce()
	}
}

// askDurably has votes asked for once the own term and vote are durable: raft asks at once, and
// counts on its own vote only then. But others alone may be a quorum. If they elected this
// replica, and it crashed before its log has the term, they would elect it in the same term
// again, and other entries would stand at the same index and term.
func (r *Replica) askDurably(sent []*raftpb.Message) (left []*raftpb.Message) {
	if mutant.AskedEarly {
		return sent
	}
	var asks []*raftpb.Message
	for _, m := range sent { // the append is the last of them
		switch {
		case m.GetType() == raftpb.MsgVote:
			asks = append(asks, m)
			continue
		case m.GetTo() == raft.LocalAppendThread && len(asks) > 0:
			m.Responses, asks = append(asks, m.GetResponses()...), nil
		}
		left = append(left, m)
	}
	return append(left, asks...)
}

func (r *Replica) route(m *raftpb.Message) {
	switch m.GetTo() {
	case raft.LocalAppendThread:
		if s := m.GetSnapshot(); s != nil {
			r.installing = s.GetMetadata()
			r.changes.last = s.GetMetadata().GetIndex()
			r.reconfigured(s.GetMetadata().GetConfState())
		}
		if n := len(m.GetEntries()); n > 0 {
			r.appends++
			r.changes.last = m.GetEntries()[n-1].GetIndex()
		}
		if mutant.AckBeforeFsync { // a crash may take what is promised here
			r.sendEarly(m.GetResponses())
		}
		r.emit(AppendLog{m})
	case raft.LocalApplyThread:
		r.emit(ApplyEntries{m})
	default:
		snapshot := m.GetType() == raftpb.MsgSnap
		switch {
		case r.fence.mute() && snapshot: // raft sends that peer nothing until it is told
			r.node.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
			return
		case r.fence.mute(): // as if it were lost
			return
		case snapshot:
			r.ship(m)
			return
		}
		if m.GetType() == raftpb.MsgHeartbeat {
			r.beats.sent(m)
		}
		if mutant.CommitByCount { // a newer leader may replace them
			m = r.countHolders(m)
		}
		r.emit(SendPeer{m})
		if mutant.AckBeforeQuorum { // it may never arrive
			r.countSent(m)
		}
	}
}

// campaigns reports whether an election began: this replica stands where it did not
// before, or asks again since the round before came to nothing. Pre-votes that lead to
// votes are one election. A group of one asks nobody.
func (r *Replica) campaigns(sent []*raftpb.Message) bool {
	if !stands(r.node.BasicStatus().RaftState) {
		return false
	}
	asks := raftpb.MsgPreVote
	if r.cfg.Options.NoPreVote {
		asks = raftpb.MsgVote
	}
	return !stands(r.role) || slices.ContainsFunc(sent, func(m *raftpb.Message) bool { return m.GetType() == asks })
}

func stands(role raft.StateType) bool {
	return role == raft.StateCandidate || role == raft.StatePreCandidate
}

// announce tells of a new leader or term, and sends back what was queued under
// the old one.
func (r *Replica) announce() {
	s := r.node.BasicStatus()
	r.replicationDue = r.replicationDue || s.RaftState != r.role
	r.role, r.commit = s.RaftState, s.GetCommit()
	fenced := r.fence.fenced()
	if s.Lead == r.leader && s.GetTerm() == r.term && fenced == r.fenced {
		return
	}
	r.replicationDue = true
	lost := r.leader == r.cfg.Self && s.Lead != r.cfg.Self
	why := r.whyGone(s)
	if s.Lead != r.leader || s.GetTerm() != r.term {
		r.leadershipMoved()
	}
	r.leader, r.term, r.fenced = s.Lead, s.GetTerm(), fenced
	if fenced {
		r.emit(AnnounceLeader{Term: r.term, Fenced: true, Why: why})
		return // all that waited was sent back before
	}
	r.emit(AnnounceLeader{Leader: r.leader, Term: r.term, Why: why})
	if !lost {
		return
	}
	code := messages.Code_REDIRECT
	if r.leader == 0 {
		code = messages.Code_NO_LEADER
	}
	r.refuseQueued(code)
}

// refuseQueued sends back what waits to be proposed.
func (r *Replica) refuseQueued(code messages.Code) {
	for _, p := range r.next {
		r.refuse(p, code)
	}
	r.next = nil
	for p, ok := r.queue.Pop(); ok; p, ok = r.queue.Pop() {
		r.refuse(p, code)
	}
	r.under.clear()
}

// QueuedBytes is what waits for the gate, in bytes of commands.
func (r *Replica) QueuedBytes() int { return r.queue.Cost() }

// Leader is what was announced last.
func (r *Replica) Leader() *messages.LeaderChanged {
	if r.fenced {
		return &messages.LeaderChanged{Term: r.term, Fenced: true}
	}
	return &messages.LeaderChanged{Leader: r.leader, Term: r.term}
}

// FillStatus adds what a replica knows of itself.
func (r *Replica) FillStatus(s *messages.StatusReply) {
	s.RaftId, s.Term, s.Commit, s.Applied, s.Revision = r.cfg.Self, r.term, r.commit, r.applied, r.revision
	if r.tail != nil {
		s.LogFirstIndex, s.LastIndex = r.tail.base+1, r.tail.last()
		s.LogBytes, s.CheckpointIndex = r.tail.bytesAbove(r.tail.base), r.tail.checkpoint()
	}
	s.CompactedRevision, s.Level = r.compacted, r.level
	s.Role = r.roleName()
}

func (r *Replica) roleName() string {
	switch {
	case r.node == nil:
		return "starting"
	case r.fence.fenced():
		return "suspected"
	case r.role == raft.StateLeader:
		return "leader"
	case stands(r.role):
		return "candidate"
	case r.learns():
		return "learner"
	}
	return "follower"
}

// seek has a learner that hears of no leader ask the voters that it knows, once in an election
// timeout. It may vote by now without knowing it, and have moved: then they reach it over the
// connections that it makes alone, and without its vote there may never be a leader.
func (r *Replica) seek() {
	if r.leader != raft.None || !r.learns() || r.ticks%uint64(r.cfg.Options.ElectionTicks) != 0 {
		return
	}
	for _, id := range r.changes.conf.GetVoters() {
		r.emit(AskLoss{id, &messages.LossAsk{Nonce: r.fence.nonce}})
	}
}

func (r *Replica) learns() bool { return slices.Contains(r.changes.conf.GetLearners(), r.cfg.Self) }
