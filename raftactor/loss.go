package raftactor

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"keyval/messages"
)

// What a replica does for its fence, and for those of others. While it is mute it stands
// still: nothing of a peer comes in, nothing goes out, and RawNode hears no ticks. What log
// and machine have in hand they finish.

func (r *Replica) view() view {
	v := view{self: r.cfg.Self, term: r.term, last: r.tail.last()}
	voters := r.node.Status().Config.Voters
	v.voters = slices.Sorted(maps.Keys(voters.IDs()))
	for i, half := range voters {
		v.halves[i] = slices.Sorted(maps.Keys(half))
	}
	return v
}

// fenceMoved carries what the fence wants, and takes back what waits here once this node
// may have lost data.
func (r *Replica) fenceMoved() {
	r.effects = append(r.effects, r.fence.take()...)
	if !r.fence.fenced() || r.fenced {
		return
	}
	r.fenced = true
	r.emit(AnnounceLeader{Term: r.term, Fenced: true})
	if reads := append(r.reads.finish(), r.reads.filling...); len(reads) > 0 {
		r.emit(RefuseReads{reads, messages.Code_NO_LEADER})
	}
	r.reads.filling = nil
	r.refuseQueued(messages.Code_NO_LEADER)
	if r.staged != nil {
		r.emit(StagingUnused{r.staged.GetSnapshot().GetMetadata().GetIndex()})
		r.staged = nil
	}
}

// OnPeerRefused takes the news that a peer which this node has dialled lets it in no more.
func (r *Replica) OnPeerRefused(m *messages.PeerRefused) {
	if m.Code != messages.Code_DAMAGED {
		return
	}
	if r.node == nil { // it is told when this replica opens
		r.fence.refused[m.Peer] = true
		return
	}
	r.fence.refusedBy(r.view(), m.Peer)
	r.fenceMoved()
}

// OnLossAnswer takes what a member says to this replica's question.
func (r *Replica) OnLossAnswer(from messages.RaftID, m *messages.LossAnswer) {
	if r.node != nil {
		r.fence.answered(r.view(), from, m)
		r.fenceMoved()
	}
}

// OnSuspicionRecorded takes the log's answer: what was recorded is durable.
func (r *Replica) OnSuspicionRecorded() {
	r.fence.recorded(r.view())
	r.fenceMoved()
}

// promise is what a member acknowledged: the entries of the leader of a term, up to an index.
type promise struct{ term, index uint64 }

// promisedBy remembers what a member acknowledges to this replica as the leader of a term.
// That term's leader alone may have changed the member's log until the member is in a later
// one. So the promise holds for a log of up to this term, whoever leads now.
func (r *Replica) promisedBy(m *raftpb.Message) {
	id := m.GetFrom()
	if m.GetType() != raftpb.MsgAppResp || m.GetReject() || r.leader != r.cfg.Self || m.GetTerm() != r.term || !r.isMember(id) {
		return
	}
	if p := r.promised[id]; p.term != m.GetTerm() || p.index < m.GetIndex() {
		r.promised[id] = promise{m.GetTerm(), m.GetIndex()}
	}
}

// OnLossAsk answers a member. A replica that may have lost data itself has no voice.
func (r *Replica) OnLossAsk(from messages.RaftID, m *messages.LossAsk) {
	if r.node == nil || r.fence.fenced() {
		return
	}
	s := r.node.BasicStatus()
	led := r.promised[from]
	answer := &messages.LossAnswer{Nonce: m.Nonce, Term: s.GetTerm(), Leader: s.Lead, LedTerm: led.term, LedAcknowledged: led.index}
	if s.RaftState == raft.StateLeader {
		r.answerLeading(from, answer)
	}
	r.emit(AnswerLoss{from, answer})
}

func (r *Replica) answerLeading(asker uint64, answer *messages.LossAnswer) {
	term, err := r.tail.Term(r.node.BasicStatus().GetCommit())
	answer.Settled = err == nil && term == answer.Term
	voters := r.node.Status().Config.Voters.IDs()
	r.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		_, votes := voters[id]
		switch {
		case id == asker:
			answer.Acknowledged = p.Match
		case votes && id != r.cfg.Self && r.active(id, p):
			answer.Followers = append(answer.Followers, id)
		}
	})
	slices.Sort(answer.Followers)
}
