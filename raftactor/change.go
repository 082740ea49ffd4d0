package raftactor

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// A change of the configuration is an entry, and takes effect where it is applied. So for a
// while some replicas decide by the new configuration and others by the old one, and if two
// changes are not applied everywhere, by three. Two of those that are next to each other
// cannot make two leaders, since their quorums meet; of {1,2,3} and {1,2,3,4,5} they do not:
// 2 and 3 could elect one while 1, 4 and 5 go on under another.
//
// Hence the barrier: between two changes there is an entry that the leader proposed after it
// had applied the first. The append that brought it brought the commit of the first change
// too. So when the second is in force, a quorum of the configuration before it holds the
// barrier, and each of that quorum knows that the first is committed. Raft lets nobody
// campaign who has committed changes to apply, so none of them stands by the oldest
// configuration. Who does not hold the barrier may stand by it; then some voter of its quorum
// holds the barrier, has a longer log, and refuses.
//
// The second change is such an entry itself, since it is proposed once the first is applied.
// That an ordinary one has to be committed and applied before shows that the configuration
// between them can commit at all, before it is left for the next.
//
// A log may hold a change and not the commit that came with it: a crash took the rest of the
// write. See provenCommit.

// A voter whose removal is applied may be needed for one election more: those that are left
// elect by the configuration before, as long as none of them knows that the removal is
// committed. It may not stand itself, and its log may be the longest, by entries that the
// leader sent and never made durable. If it refused everybody for these nobody would lead any
// more. So it judges candidates by what it has applied, where its vote can be needed: if the
// change left a joint configuration, or the voters before were even in number. There it may.
// What else its log holds may be committed, but by a quorum of before or of behind; and each
// quorum of before is, without it, one of behind. So whoever is elected with its vote has also
// the votes of a quorum of behind, and one of these holds the entry and refuses a candidate
// that lacks it. With an odd number before that is not so: of {1,2,3}, 1 and 3 may have committed an
// entry that 2 lacks, and 3 must not elect 2. But there those that are left are a quorum of before
// without the vote of 3.

// changes is what this replica knows of the configuration and its changes.
type changes struct {
	conf     *raftpb.ConfState // in force; replaced, never modified
	last     uint64            // index of the last entry that was handed to the log
	ordinary uint64            // index of the last entry applied that was not a change
	// The end of the log, where the last change was applied by this leadership: an entry
	// behind it is a barrier. 0: it has applied none.
	above    uint64
	proposed uint64 // of this leadership: index of the change that was proposed last
	yields   bool   // the last change removed this replica, which votes by what it has applied
}

// yields reports whether whoever is not in a configuration votes by what it has applied; joint:
// that before was.
func yields(conf *raftpb.ConfState, joint bool) bool { return joint || len(conf.GetVoters())%2 == 1 }

// removedBefore reports whether a replica that starts, and is not in its configuration, votes by what it has
// applied. The change that removed it is the last that it can have applied.
func (r *Replica) removedBefore() bool {
	joint := false
	for _, e := range slices.Backward(r.tail.entries) {
		if e.GetIndex() <= r.applied && e.GetType() == raftpb.EntryConfChangeV2 {
			change := &raftpb.ConfChangeV2{}
			joint = proto.Unmarshal(e.GetData(), change) == nil && change.LeaveJoint()
			break
		}
	}
	return yields(r.changes.conf, joint)
}

// judged is a message as raft is to judge it. Raft holds a candidate's log against its own: so one
// that is as good as what is applied here is made as good as that, where this replica yields.
func (r *Replica) judged(m *raftpb.Message) *raftpb.Message {
	asks := m.GetType() == raftpb.MsgVote || m.GetType() == raftpb.MsgPreVote
	if !asks || !r.changes.yields || m.GetLogTerm() < r.appliedTerm || m.GetLogTerm() == r.appliedTerm && m.GetIndex() < r.applied {
		return m
	}
	r.ready() // so that term and end of the log are known
	m = proto.CloneOf(m)
	m.LogTerm, m.Index = proto.Uint64(max(m.GetLogTerm(), r.term)), proto.Uint64(max(m.GetIndex(), r.changes.last))
	return m
}

// provenCommit is the commit that a log proves, whatever its hard state says: a change is
// proposed once all changes before it are applied, so they are committed. entries are those
// above base.
func provenCommit(commit uint64, entries []*raftpb.Entry) uint64 {
	last := uint64(0)
	for _, e := range entries {
		if e.GetType() == raftpb.EntryNormal {
			continue
		}
		commit = max(commit, last)
		last = e.GetIndex()
	}
	return commit
}

// settled reports whether this replica leads and may propose a change: an entry of its own
// term is applied, and a barrier behind the last change.
func (r *Replica) settled() bool {
	return r.role == raft.StateLeader && r.appliedTerm == r.term && r.changes.ordinary > r.changes.above
}

// carryOut has raft take the configuration changes that the machine accepted. Raft and the
// machine come to the same configuration, or one of them is broken.
func (r *Replica) carryOut(verdicts []*messages.Verdict) {
	for _, v := range verdicts {
		if !v.GetAccepted() || v.GetIndex() <= r.installing.GetIndex() {
			continue // raft has the configuration of the snapshot, which is a later one
		}
		r.ready() // so that role and end of the log are known
		if r.carriedOutWrong(v) {
			continue
		}
		conf := r.node.ApplyConfChange(v.GetChange())
		if conf.Equivalent(v.GetConfState()) != nil {
			r.emit(Die{messages.Errorf(messages.Code_INTERNAL, "entry %d makes %s of the configuration here, and the machine says %s",
				v.GetIndex(), raft.DescribeConfState(conf), raft.DescribeConfState(v.GetConfState())).
				WithHint("this is a defect of the software; start the node again, it replays from its checkpoint")})
			return
		}
		r.tail.reconfigured(v.GetIndex())
		r.reconfigured(conf)
		if r.role == raft.StateLeader {
			r.changes.above = r.changes.last
		}
	}
}

// reconfigured takes another configuration. What was known of those that left is forgotten.
func (r *Replica) reconfigured(conf *raftpb.ConfState) {
	joint := len(r.changes.conf.GetVotersOutgoing()) > 0
	r.changes.conf = conf
	r.changes.yields = !r.isMember(r.cfg.Self) && yields(conf, joint)
	r.replicationDue = true
	maps.DeleteFunc(r.contact, func(id, _ uint64) bool { return !r.isMember(id) })
	maps.DeleteFunc(r.gone, func(id uint64, _ bool) bool { return !r.isMember(id) })
	maps.DeleteFunc(r.promised, func(id uint64, _ promise) bool { return !r.isMember(id) })
	for id, s := range r.shipments {
		if s.carried && !r.isMember(id) {
			delete(r.shipments, id)
		}
	}
}

func (r *Replica) isMember(id uint64) bool {
	c := r.changes.conf
	return slices.Contains(c.GetVoters(), id) || slices.Contains(c.GetVotersOutgoing(), id) || slices.Contains(c.GetLearners(), id)
}

// noteApplied remembers the last ordinary entry.
func (r *Replica) noteApplied(entries []*raftpb.Entry) {
	for _, e := range slices.Backward(entries) {
		if e.GetType() == raftpb.EntryNormal {
			r.changes.ordinary = e.GetIndex()
			return
		}
	}
}

// proposeBarrier proposes an empty entry behind a change, unless another is there already.
func (r *Replica) proposeBarrier() bool {
	if r.role != raft.StateLeader || r.changes.above == 0 || r.changes.last > r.changes.above {
		return false
	}
	return r.step(&raftpb.Entry{})
}

// step proposes one entry, and reports whether raft took it.
func (r *Replica) step(e *raftpb.Entry) bool {
	err := r.node.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: proto.Uint64(r.cfg.Self), Entries: []*raftpb.Entry{e}})
	if errors.Is(err, raft.ErrProposalDropped) {
		return false // leadership is on its way, or too much is uncommitted
	}
	if err != nil {
		panic(fmt.Sprintf("raft refuses a proposal: %v", err))
	}
	return true
}

// OnProposeChange proposes a change of the configuration. Where it cannot be proposed now it
// is dropped: whoever asks sees in the members what became of it, and asks again.
func (r *Replica) OnProposeChange(m *messages.ProposeChange) {
	if r.node == nil || r.fence.mute() {
		return
	}
	r.ready()
	pending := r.changes.proposed > r.applied
	if !r.settled() || pending || len(m.GetCommand()) == 0 || len(m.GetCommand()) > messages.CommandSizeMax {
		return
	}
	if joint := len(r.changes.conf.GetVotersOutgoing()) > 0; joint != m.GetChange().LeaveJoint() {
		return // raft would make an empty entry of it
	}
	p := proposal{origin: r.cfg.Self, command: m.GetCommand()}
	change := &raftpb.ConfChangeV2{Transition: m.GetChange().Transition, Changes: m.GetChange().GetChanges(),
		Context: encodeCommands([]proposal{p}, encodedSize(p), r.stamp())}
	data, err := proto.Marshal(change)
	if err != nil {
		panic(fmt.Sprintf("a configuration change cannot be marshalled: %v", err))
	}
	if r.step(&raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}) {
		r.ready()
		r.changes.proposed = r.changes.last
	}
	if mutant.ChangeAtPropose { // before it is committed, and wherever it is proposed
		r.node.ApplyConfChange(change)
	}
}

// A leader hands over to a voter that it heard of within so many heartbeats, and that lacks
// at most so many bytes: proposals wait until the other leads, or an election timeout has
// passed.
const (
	transferBeats    = 2
	transferBytesMax = 1 << 20
)

// OnTransferLead hands the lead to a voter that stays one, if it is close behind and was
// heard of lately. Else nothing happens; it is seen in Replication.
func (r *Replica) OnTransferLead(m *messages.TransferLead) {
	if r.node == nil || r.fence.mute() || r.role != raft.StateLeader || m.GetTo() == r.cfg.Self || !slices.Contains(r.changes.conf.GetVoters(), m.GetTo()) {
		return
	}
	near := false
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		heard, known := r.contact[id]
		near = near || id == m.GetTo() && p.State == tracker.StateReplicate && p.Match >= r.tail.base &&
			r.tail.bytesAbove(p.Match) <= transferBytesMax && known && r.ticks-heard <= uint64(transferBeats*r.cfg.Options.HeartbeatTicks)
	})
	if near {
		r.node.TransferLeader(m.GetTo())
		r.replicationDue = true
	}
}

// replicationTicks is how often it is told how replication goes, in ticks.
const replicationTicks = 4

// tellReplication tells how replication goes, if that is due.
func (r *Replica) tellReplication() {
	if !r.replicationDue {
		return
	}
	r.replicationDue = false
	m := &messages.Replication{
		Leader: r.leader, Term: r.term, Commit: r.commit, LastIndex: max(r.changes.last, r.tail.last()), Applied: r.applied,
		Role: r.roleName(), ConfState: r.changes.conf, Settled: r.settled(), TransferringTo: r.node.BasicStatus().LeadTransferee,
	}
	if r.role == raft.StateLeader {
		r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
			if id != r.cfg.Self {
				m.Progress = append(m.Progress, r.progress(id, p))
			}
		})
		slices.SortFunc(m.Progress, func(a, b *messages.Progress) int { return int(a.RaftId) - int(b.RaftId) })
	}
	r.emit(TellReplication{m})
}

func (r *Replica) progress(id uint64, p tracker.Progress) *messages.Progress {
	m := &messages.Progress{RaftId: id, Match: p.Match, SnapshotIndex: p.PendingSnapshot, Gone: r.gone[id]}
	switch p.State {
	case tracker.StateReplicate:
		m.State = messages.ProgressState_REPLICATING
	case tracker.StateSnapshot:
		m.State = messages.ProgressState_SNAPSHOT
	}
	if s := r.shipments[id]; s != nil && s.open > 0 {
		m.SnapshotIndex = s.index
	}
	if heard, known := r.contact[id]; known {
		m.SilentTicks = r.ticks - heard
	}
	return m
}
