package raftactor

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"keyval/messages"
)

// A peer may lack entries that the leader's log no longer holds. The leader then has
// a snapshot of the state shipped to it, and the peer takes that in.

// shipment is a snapshot on its way to a peer.
type shipment struct {
	index uint64
	open  int // of the ShipSnapshots to this peer, those that are not answered
	// carried: it has arrived. The entries behind it are kept until the peer has them:
	// otherwise it would need the next snapshot, and the next.
	carried bool
}

// leadershipMoved forgets what this leadership knew of followers and changes. What is on its
// way stays.
func (r *Replica) leadershipMoved() {
	r.changes.above, r.changes.proposed = 0, 0
	clear(r.contact)
	for peer, s := range r.shipments {
		if s.carried = false; s.open == 0 {
			delete(r.shipments, peer)
		}
	}
}

// ship has a MsgSnap brought to its receiver, and keeps the entries behind it.
func (r *Replica) ship(m *raftpb.Message) {
	s := r.shipments[m.GetTo()]
	if s == nil {
		s = &shipment{}
		r.shipments[m.GetTo()] = s
	}
	s.index, s.carried = m.GetSnapshot().GetMetadata().GetIndex(), false
	s.open++
	r.emit(ShipSnapshot{m})
}

// OnShipped takes the outcome of a shipment. Raft sends the peer nothing until it is
// told. Peer 0 means that the outcome of every shipment is unknown.
func (r *Replica) OnShipped(m *messages.SnapshotShipped) {
	for peer, s := range r.shipments {
		switch {
		case s.open == 0:
		case m.Peer == 0:
			s.open = 0
			r.shipped(peer, s, true)
		case m.Peer == peer:
			// If this replica lost the lead and leads again, it may have shipped twice; only
			// the last answer counts.
			if s.open--; s.open == 0 {
				r.shipped(peer, s, m.Failed)
			}
		}
	}
}

func (r *Replica) shipped(peer uint64, s *shipment, failed bool) {
	status := raft.SnapshotFinish
	if failed {
		status = raft.SnapshotFailure
		delete(r.shipments, peer)
	}
	s.carried = !failed
	r.node.ReportSnapshot(peer, status)
}

// OnStaged takes a snapshot that is here, whole and verified. The error says why
// raft has no use for it.
func (r *Replica) OnStaged(m *raftpb.Message) error {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	if r.node == nil || r.fence.fenced() && r.installing.GetIndex() != index {
		r.emit(StagingUnused{index})
		return nil
	}
	if r.installing != nil && r.installing.GetIndex() == index {
		return nil // it is being installed, so it is used
	}
	if err := r.validateStaged(m); err != nil {
		r.emit(StagingUnused{index})
		return err
	}
	r.staged = m
	return nil
}

// takeStaged steps the staged snapshot as if the present leader had sent it. That is
// safe in any term, since a snapshot holds committed entries only. While nobody leads
// the snapshot waits.
func (r *Replica) takeStaged() {
	if r.staged == nil {
		return
	}
	m, index := r.staged, r.staged.GetSnapshot().GetMetadata().GetIndex()
	switch {
	case r.installing != nil || r.leader == r.cfg.Self:
		r.staged = nil
		r.emit(StagingUnused{index})
		return
	case m.GetTerm() > r.term, m.GetTerm() == r.term && r.leader == 0:
	case r.leader == 0:
		return
	default:
		m = &raftpb.Message{Type: raftpb.MsgSnap.Enum(), To: m.To, From: new(r.leader), Term: new(r.term), Snapshot: m.GetSnapshot()}
	}
	r.staged = nil
	if err := r.node.Step(m); err != nil {
		panic(fmt.Sprintf("raft refuses a staged snapshot: %v", err))
	}
	r.ready()
	if r.installing.GetIndex() != index {
		r.emit(StagingUnused{index}) // raft had all of it in its log
	}
}

// installed takes the log's answer to an append with a snapshot. The log is empty
// behind the snapshot now, and the machine has opened the state already.
func (r *Replica) installed(s *raftpb.SnapshotMetadata) {
	if r.applied < s.GetIndex() {
		panic(fmt.Sprintf("the log starts anew at index %d, the machine is at %d", s.GetIndex(), r.applied))
	}
	r.tail.restore(s.GetIndex(), s.GetTerm())
	if r.installing.GetIndex() == s.GetIndex() {
		r.installing = nil
	}
	r.thorough = 0
}

// reopened takes the state that the machine has after an installed snapshot. The
// log's answer follows.
func (r *Replica) reopened(m *messages.MachineOpened) {
	if m.Index <= r.applied {
		panic(fmt.Sprintf("the machine opened a snapshot at index %d, %d is applied", m.Index, r.applied))
	}
	r.applied, r.appliedTerm, r.revision = m.Index, m.Term, m.Revision
	r.logTimeMS = max(r.logTimeMS, m.LogTimeMs)
	r.compacted, r.level = max(r.compacted, m.CompactedRevision), max(r.level, m.Level)
	r.tail.checkpointed(m.Index, m.Term, m.ConfState)
}

// validateStaged refuses a snapshot that RawNode would trust and then panic on. Its
// parties and numbers are held to the same rules as any peer's message.
func (r *Replica) validateStaged(m *raftpb.Message) error {
	s := m.GetSnapshot().GetMetadata()
	switch {
	case m.GetType() != raftpb.MsgSnap:
		return fmt.Errorf("%v is no snapshot", m.GetType())
	case len(m.GetEntries()) > 0 || len(m.GetSnapshot().GetData()) > 0:
		return fmt.Errorf("snapshot with entries or data")
	case s.GetIndex() == 0 || s.GetIndex() > indexMax:
		return fmt.Errorf("snapshot of index %d", s.GetIndex())
	case s.GetTerm() == 0 || s.GetTerm() > m.GetTerm():
		return fmt.Errorf("snapshot of term %d in a message of term %d", s.GetTerm(), m.GetTerm())
	}
	if err := r.validateParties(m); err != nil {
		return err
	}
	if err := r.validateNumbers(m); err != nil {
		return err
	}
	return validateConf(s.GetConfState())
}

// validateConf refuses a configuration that raft would not restore to the same.
func validateConf(conf *raftpb.ConfState) error {
	if len(conf.GetVoters()) == 0 {
		return fmt.Errorf("snapshot without voters")
	}
	t := tracker.MakeProgressTracker(1, 0)
	config, progress, err := confchange.Restore(confchange.Changer{Tracker: t, LastIndex: 1}, conf)
	if err != nil {
		return fmt.Errorf("snapshot with a configuration that cannot be: %w", err)
	}
	t.Config, t.Progress = config, progress
	if err := conf.Equivalent(t.ConfState()); err != nil {
		return fmt.Errorf("snapshot with a configuration that cannot be: %w", err)
	}
	return nil
}
