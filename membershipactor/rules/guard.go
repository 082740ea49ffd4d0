package rules

import (
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// An operation that was allowed may take its step much later, when others are alive. So each
// step is held against the view of its own moment, and waits if that says so.

// Steady says why the leader cannot change the members now; Nothing: it can.
func (v View) Steady() Why {
	switch {
	case !v.Budget().Available:
		return Why{Kind: NoQuorum, Node: WhoseReturn(v.ConfState, v.Members, v.Alive)}
	case !v.Leads() || !v.settled():
		return Why{Kind: Unsettled}
	}
	return Why{}
}

// settled reports whether raft takes a change now, as far as it has said. What it said of
// another configuration is old: the machine told of the last change first, and raft would drop
// the next one, which would cost a second.
func (v View) settled() bool {
	said := v.Replication.GetConfState()
	return v.Replication.GetSettled() && (said == nil || said.Equivalent(v.ConfState) == nil)
}

// freshTicksMax is how long a learner may be silent when it becomes a voter, in ticks: two
// heartbeats and a tick.
const freshTicksMax = 5

// GuardVoters says why in may not join the voters, or out not leave them, in one step. 0
// stands for nobody.
func (v View) GuardVoters(in, out messages.RaftID) Why {
	if in != 0 {
		if why := v.Ready(in); why.Kind != Nothing {
			return why
		}
		// From now on it counts for quorums: who fell silent since it was ready may be gone.
		if m, p := v.Member(in), v.progress(in); p.GetSilentTicks() > freshTicksMax {
			return Why{Kind: Unreachable, Node: m.Name, Address: m.Address, Count: p.SilentTicks * v.TickMS}
		}
	}
	after := &raftpb.ConfState{Voters: v.swapped(v.target(), in, out)}
	if b := Budget(after, v.Members, v.Answers); !b.Available {
		return Why{Kind: TooFewAfter, Count: uint64(b.Alive), Total: uint64(b.Quorum), Node: WhoseReturn(after, v.Members, v.Answers)}
	}
	return Why{}
}

// GuardSwap says why a joint configuration, in which in takes the place of out, may not begin.
//
// While it lasts, only who has the log of a quorum of either half can win an election, and
// learners cannot vote for themselves: with the newest entries on in alone, nobody might. So
// in and a quorum of either half must be close before. Nor may it end with fewer voters in
// contact than it began with.
func (v View) GuardSwap(in, out messages.RaftID) Why {
	if why := v.GuardVoters(in, out); why.Kind != Nothing {
		return why
	}
	joint := &raftpb.ConfState{Voters: v.swapped(v.target(), in, out), VotersOutgoing: v.target()}
	if b := Budget(joint, v.Members, v.Close); !b.Available {
		return Why{Kind: Behind, Node: WhoseReturn(joint, v.Members, v.Close)}
	}
	return Why{}
}
