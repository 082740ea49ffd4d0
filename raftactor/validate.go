package raftactor

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// validate refuses what RawNode would trust and then panic on. It is the last
// check of a peer's message: the link has proved who sent it.
func (r *Replica) validate(m *raftpb.Message) error {
	if m.GetTo() != r.cfg.Self {
		return fmt.Errorf("%v is for replica %d, this is %d", m.GetType(), m.GetTo(), r.cfg.Self)
	}
	if m.GetFrom() == 0 || m.GetFrom() == r.cfg.Self {
		return fmt.Errorf("%v from replica %d", m.GetType(), m.GetFrom())
	}
	if len(m.GetResponses()) > 0 {
		return fmt.Errorf("%v with responses", m.GetType())
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		return validateEntries(m)
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		if len(m.GetEntries()) != 1 {
			return fmt.Errorf("%v with %d entries", m.GetType(), len(m.GetEntries()))
		}
	case raftpb.MsgHeartbeat, raftpb.MsgAppResp, raftpb.MsgHeartbeatResp, raftpb.MsgVote, raftpb.MsgVoteResp,
		raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		if len(m.GetEntries()) != 0 {
			return fmt.Errorf("%v with entries", m.GetType())
		}
	default:
		return fmt.Errorf("%v does not come from peers", m.GetType())
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

// lostLog reports a leader that counts on entries this log does not have: a
// heartbeat's commit never passes what this replica acknowledged.
func (r *Replica) lostLog(m *raftpb.Message) error {
	if m.GetType() != raftpb.MsgHeartbeat || m.GetTerm() < r.term {
		return nil
	}
	if last := r.tail.last(); m.GetCommit() > last {
		return fmt.Errorf("the leader knows of acknowledged entries up to %d, this log ends at %d: acknowledged data was lost on this disk. "+
			"Do not start this node on this directory again; replace it", m.GetCommit(), last)
	}
	return nil
}
