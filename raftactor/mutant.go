package raftactor

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// What the faults of package mutant do here. Nothing calls it without the tag.

// sendEarly lets out what waits for the log.
func (r *Replica) sendEarly(responses []*raftpb.Message) {
	for _, m := range responses {
		if to := m.GetTo(); to != r.cfg.Self && to != raft.LocalApplyThread {
			r.emit(SendPeer{m})
		}
	}
}

// countSent takes an append that was sent for one that was acknowledged.
func (r *Replica) countSent(m *raftpb.Message) {
	if m.GetType() != raftpb.MsgApp {
		return
	}
	last := m.GetIndex() + uint64(len(m.GetEntries()))
	r.node.Step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(m.GetTo()), To: new(m.GetFrom()), Term: new(m.GetTerm()), Index: &last})
}
