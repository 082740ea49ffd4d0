package raftactor

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// A leader that is silent may be slow, or cut off from one follower only: followers wait
// for an election timeout before they stand, and refuse their votes to whoever asks
// earlier. A leader whose process is gone will not be heard of again, and its followers
// are told so by their own connections. They need not wait: each forgets the leader, which
// lets it vote, and stands in its turn, the voter with the lowest RaftID first, since
// several that stand at once split the votes. So it is where nobody is heard after a start,
// as when all nodes start together. Pre-vote keeps it harmless where a follower was told
// wrongly or hears the leader a moment later: the others hear it, and refuse.

// successionTicks is how long a voter waits for the one that stands before it, in ticks: an
// election takes two round trips and two fsyncs. Where that is too short several stand in
// each other's way. So when another has stood, or this one in vain, the next turns are
// twice as long, until they are as long as an election timeout, and raft's own takes over.
const successionTicks = 2

// startTicks is how long a replica that starts waits for a leader's first word, in ticks:
// some heartbeats, and the time to connect.
const startTicks = 5

// succession is the wait for this replica's turn to stand.
type succession struct {
	in     int    // ticks until it stands; 0: it does not wait
	before int    // voters whose turn is before this one's
	turn   int    // of each voter, in ticks
	term   uint64 // another term means that another has stood
}

// OnPeerGone takes the news that a peer's process has died.
func (r *Replica) OnPeerGone(peer messages.RaftID) {
	if r.node == nil || peer == r.cfg.Self || !r.isMember(peer) {
		return
	}
	r.gone[peer] = true // whoever leads, now or next, need not wait for its silence
	if r.replicationDue = true; r.leader != peer {
		r.ready()
		return
	}
	if err := r.node.ForgetLeader(); err != nil {
		panic(fmt.Sprintf("raft does not forget a leader: %v", err))
	}
	r.standInTurn(1, peer)
}

// standInTurn has this replica stand after so many ticks, and the turns of the voters before
// it. The one without whom it goes has none.
func (r *Replica) standInTurn(ticks int, without uint64) {
	voters := r.node.Status().Config.Voters.IDs()
	if _, votes := voters[r.cfg.Self]; !votes || r.cfg.Options.NoPreVote {
		return
	}
	s := succession{turn: successionTicks, term: r.node.BasicStatus().GetTerm()}
	for id := range voters {
		if id < r.cfg.Self && id != without {
			s.before++
		}
	}
	s.in = ticks + s.before*s.turn
	r.succession = s
}

// succeed lets a tick pass.
func (r *Replica) succeed() {
	s := &r.succession
	if s.in == 0 {
		return
	}
	s.in--
	switch term := r.node.BasicStatus().GetTerm(); {
	case r.leader != 0:
		s.in = 0
	case s.term != term:
		s.term = term
		s.again(r.cfg.Options.ElectionTicks)
	case s.in == 0:
		s.again(r.cfg.Options.ElectionTicks)
		if err := r.node.Campaign(); err != nil {
			panic(fmt.Sprintf("raft does not stand for election: %v", err))
		}
	}
}

// again waits for the next turn, unless turns have become too long.
func (s *succession) again(turnMax int) {
	s.in = 0
	if s.turn *= 2; s.turn <= turnMax {
		s.in = (s.before + 1) * s.turn
	}
}

// campaignTransfer is what raft writes into votes that are asked for at the leader's wish.
const campaignTransfer = "CampaignTransfer"

// handsOver reports whether a message says that the leader has handed the lead over.
func handsOver(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgTimeoutNow || m.GetType() == raftpb.MsgVote && string(m.GetContext()) == campaignTransfer
}

// whyGone says why the leader that was announced last leads no more, as far as this replica
// knows, for people. Empty: it leads on, or there was none.
func (r *Replica) whyGone(now raft.BasicStatus) string {
	silence := time.Duration(uint64(r.cfg.Options.ElectionTicks)*r.cfg.TickMS) * time.Millisecond
	later := now.GetTerm() > r.term
	switch {
	case r.leader == raft.None || now.Lead == r.leader && !later:
		return ""
	case r.handedOver:
		return "it handed the lead over"
	case !r.isMember(r.leader):
		return "it is no member any more"
	case r.gone[r.leader]:
		return "its process has ended: its port refuses"
	case r.leader == r.cfg.Self && !later:
		return fmt.Sprintf("it heard too few voters for %v", silence)
	case r.leader == r.cfg.Self:
		return "others had elected another, or stood: it heard of a later term"
	case now.Lead == raft.None: // without such a silence a follower neither stands nor votes
		return fmt.Sprintf("no heartbeat came for %v or longer", silence)
	}
	return "others had elected another, unheard by this node"
}
