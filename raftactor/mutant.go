package raftactor

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
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

// carriedOutWrong reports whether a leader leaves a change as it is: it took effect before,
// or what left is still counted.
func (r *Replica) carriedOutWrong(v *messages.Verdict) bool {
	if r.role != raft.StateLeader {
		return false
	}
	removes := slices.ContainsFunc(v.GetChange().GetChanges(), func(c *raftpb.ConfChangeSingle) bool { return c.GetType() == raftpb.ConfChangeRemoveNode })
	return mutant.ChangeAtPropose && v.GetIndex() == r.changes.proposed || mutant.RemovedCounts && removes && len(v.GetChange().GetChanges()) == 1
}

// countHolders commits what a quorum has, of whatever term.
func (r *Replica) countHolders(m *raftpb.Message) *raftpb.Message {
	if m.GetType() != raftpb.MsgApp {
		return m
	}
	var matched []uint64
	r.node.WithProgress(func(_ uint64, _ raft.ProgressType, p tracker.Progress) { matched = append(matched, p.Match) })
	slices.Sort(matched)
	commit := matched[(len(matched)-1)/2]
	if commit <= m.GetCommit() {
		return m
	}
	m = proto.Clone(m).(*raftpb.Message)
	m.Commit = &commit
	return m
}
