package raftactor

import (
	"fmt"

	"keyval/messages"
)

// A leader that is silent may be slow, or cut off from one follower only: followers wait
// for an election timeout before they stand, and refuse their votes to whoever asks
// earlier. A leader whose process is gone will not be heard of again, and its followers
// are told so by their own connections. They need not wait: each forgets the leader, which
// lets it vote, and stands in its turn, the voter with the lowest RaftID first, since
// several that stand at once split the votes. Pre-vote keeps it harmless where a follower
// was told wrongly: the others still hear the leader, and refuse.

// successionTicks is how long a voter waits for the one that stands before it, in ticks: an
// election takes two round trips and two fsyncs.
const successionTicks = 2

// succession is the wait for this replica's turn to stand.
type succession struct {
	in    int    // ticks until it stands; 0: it does not wait
	round int    // ticks in which each voter has its turn
	term  uint64 // as of the last tick: a new one means that another has stood
}

// OnPeerGone takes the news that a peer's process has died.
func (r *Replica) OnPeerGone(peer messages.RaftID) {
	if r.node == nil || r.leader != peer || peer == r.cfg.Self {
		return
	}
	if err := r.node.ForgetLeader(); err != nil {
		panic(fmt.Sprintf("raft does not forget a leader: %v", err))
	}
	voters := r.node.Status().Config.Voters.IDs()
	if _, votes := voters[r.cfg.Self]; !votes {
		return
	}
	before := 0
	for id := range voters {
		if id < r.cfg.Self && id != peer {
			before++
		}
	}
	r.succession = succession{in: 1 + before*successionTicks, round: len(voters) * successionTicks, term: r.term}
}

// succeed lets a tick pass. While nobody leads this replica stands again and again, a round
// after the last time or after another has stood.
func (r *Replica) succeed() {
	s := &r.succession
	switch {
	case s.in == 0:
	case r.leader != 0:
		s.in = 0
	case s.term != r.term:
		s.in, s.term = s.round, r.term
	case s.in > 1:
		s.in--
	default:
		s.in = s.round
		if err := r.node.Campaign(); err != nil {
			panic(fmt.Sprintf("raft does not stand for election: %v", err))
		}
	}
}
