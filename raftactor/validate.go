package raftactor

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Bounds of what a peer may say. Terms and indexes rise by one, so one far beyond
// them is no news but an attempt to have no number left: after the last term
// nobody could ever campaign again.
const (
	termsAheadMax = 1 << 32
	indexMax      = 1 << 62
)

// validate refuses what RawNode would trust and then panic on. It is the last
// check of a peer's message: the link has proved who sent it. A snapshot is not
// among them: it comes staged, from this node.
func (r *Replica) validate(m *raftpb.Message) error {
	if err := r.validateParties(m); err != nil {
		return err
	}
	if err := r.validateNumbers(m); err != nil {
		return err
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		return validateEntries(m)
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		if len(m.GetEntries()) != 1 {
			return fmt.Errorf("%v with %d entries", m.GetType(), len(m.GetEntries()))
		}
	case raftpb.MsgHeartbeatResp:
		return r.beats.validate(m)
	case raftpb.MsgHeartbeat, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp,
		raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		if len(m.GetEntries()) != 0 {
			return fmt.Errorf("%v with entries", m.GetType())
		}
	default:
		return fmt.Errorf("%v does not come from peers", m.GetType())
	}
	return r.validateStranger(m)
}

// validateStranger refuses what only members may ask for. That is little, see unheard. Answers
// of strangers RawNode ignores.
func (r *Replica) validateStranger(m *raftpb.Message) error {
	switch m.GetType() {
	case raftpb.MsgTimeoutNow: // it makes this replica stand, leader or not
		if s := r.node.BasicStatus(); s.Lead != m.GetFrom() || s.GetTerm() != m.GetTerm() {
			return fmt.Errorf("%v of term %d from replica %d, which does not lead", m.GetType(), m.GetTerm(), m.GetFrom())
		}
	case raftpb.MsgReadIndex: // nobody has a newer configuration than the leader
		if r.role == raft.StateLeader && !r.isMember(m.GetFrom()) {
			return fmt.Errorf("%v from replica %d, which is no member", m.GetType(), m.GetFrom())
		}
	}
	return nil
}

// unheard reports whether a message is dropped since whoever sent it is no member and would
// unseat a leader that is heard. A leader that this replica's configuration does not hold may be
// one of a newer configuration, or one that was removed and brings that very news; a candidate
// likewise, and who refuses it a vote for that could keep a cluster from electing anybody. So
// strangers count, but where nobody leads: a leader that has lost its majority falls silent, or
// steps down, within an election timeout, and a stranger that has one goes on and is heard then.
func (r *Replica) unheard(m *raftpb.Message) bool {
	return m.GetTerm() > r.term && r.hearsLeader() && m.GetFrom() != r.leader && !r.isMember(m.GetFrom())
}

// usurps reports whether a message claims the lead of a term in which another is heard to lead: a
// term has one leader.
func (r *Replica) usurps(m *raftpb.Message) bool {
	leads := m.GetType() == raftpb.MsgHeartbeat || m.GetType() == raftpb.MsgApp
	return leads && m.GetTerm() == r.term && r.hearsLeader() && m.GetFrom() != r.leader
}

// hearsLeader reports whether this replica leads, or has heard who does within an election timeout.
func (r *Replica) hearsLeader() bool {
	return r.leader != raft.None && (r.leader == r.cfg.Self || r.ticks-r.heard <= uint64(r.cfg.Options.ElectionTicks))
}

// validateParties: who speaks to whom. Storage's messages never come from outside.
func (r *Replica) validateParties(m *raftpb.Message) error {
	if m.GetTo() != r.cfg.Self {
		return fmt.Errorf("%v is for replica %d, this is %d", m.GetType(), m.GetTo(), r.cfg.Self)
	}
	switch m.GetFrom() {
	case raft.None, r.cfg.Self, raft.LocalAppendThread, raft.LocalApplyThread:
		return fmt.Errorf("%v from replica %d", m.GetType(), m.GetFrom())
	}
	if len(m.GetResponses()) > 0 {
		return fmt.Errorf("%v with responses", m.GetType())
	}
	return nil
}

// validateNumbers: RawNode takes a message without a term for one of its own, and
// does not look at the term then. Only a ReadIndex travels without one.
func (r *Replica) validateNumbers(m *raftpb.Message) error {
	term := m.GetTerm()
	switch {
	case (term == 0) != (m.GetType() == raftpb.MsgReadIndex):
		return fmt.Errorf("%v of term %d", m.GetType(), term)
	case term > r.term && term-r.term > termsAheadMax:
		return fmt.Errorf("%v of term %d, this replica is in term %d", m.GetType(), term, r.term)
	case max(m.GetIndex(), m.GetCommit(), m.GetRejectHint()) > indexMax:
		return fmt.Errorf("%v with index %d, commit %d and hint %d", m.GetType(), m.GetIndex(), m.GetCommit(), m.GetRejectHint())
	}
	return nil
}

func validateEntries(m *raftpb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		index++
		if e.GetIndex() != index {
			return fmt.Errorf("append with entry %d where %d belongs", e.GetIndex(), index)
		}
		if e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("append of term %d with entry %d of term %d behind term %d", m.GetTerm(), index, e.GetTerm(), term)
		}
		term = e.GetTerm()
	}
	return nil
}

// beats is how far the heartbeats of this replica's leadership asked for reads to
// be confirmed. RawNode writes that position into a heartbeat's context, and takes
// the one that comes back as it is.
type beats struct {
	term     uint64
	position uint64
}

func (b *beats) sent(m *raftpb.Message) {
	if m.GetTerm() > b.term {
		*b = beats{term: m.GetTerm()}
	}
	if len(m.GetContext()) == 8 {
		b.position = max(b.position, binary.LittleEndian.Uint64(m.GetContext()))
	}
}

func (b *beats) validate(m *raftpb.Message) error {
	switch context := m.GetContext(); {
	case len(m.GetEntries()) != 0:
		return fmt.Errorf("%v with entries", m.GetType())
	case len(context) == 0 || m.GetTerm() < b.term:
	case len(context) != 8:
		return fmt.Errorf("%v with a context of %d bytes", m.GetType(), len(context))
	case binary.LittleEndian.Uint64(context) > b.position:
		return fmt.Errorf("%v that confirms more reads than were asked for", m.GetType())
	}
	return nil
}

// lostLog reports a leader that counts on entries this log does not have: a
// heartbeat's commit never passes what this replica acknowledged. A snapshot is
// acknowledged when it is installed, and the tail starts behind it by then.
func (r *Replica) lostLog(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgHeartbeat && m.GetTerm() >= r.term && m.GetCommit() > r.tail.last()
}
