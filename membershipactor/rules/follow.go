package rules

import (
	"keyval/messages"
	"keyval/mutant"
)

// A learner is ready to be promoted when what it lacks would be sent in a moment, and that
// has been so for a while. A ratio of its index to the leader's says nothing: one per cent
// of a long log is hours. So each follower's pace is measured: entries a tick that it takes,
// and entries a tick that are added meanwhile.

const (
	// sampleTicks is how often the pace is measured, in ticks.
	sampleTicks = 4
	// catchUpTicksMax is the estimated time for what it lacks, in ticks, up to which a
	// follower is close.
	catchUpTicksMax = 6
	// lagEntriesSmall is a lag that needs no estimate as long as the follower takes
	// something: a single message holds more.
	lagEntriesSmall = 64
	// stuckTicksMax is how long a follower that lacks something may take nothing and
	// still be close, in ticks.
	stuckTicksMax = 10
	// slowTicksMin is how long it may take nothing before its disk is suspected, in ticks.
	slowTicksMin = 60
	// ReadyTicks is how long a learner is to be close before it is promoted, in ticks.
	ReadyTicks = 10
)

// Follow is how one member has followed the leader lately. Rates are entries a tick.
type Follow struct {
	Match, Last  uint64 // it has the log up to Match, of Last
	Rate, Growth float64
	Close        bool
	CloseTicks   uint64 // for so long it has been close
	StuckTicks   uint64 // for so long it has taken nothing that it lacks

	sampled     uint64 // ticks since the pace was measured
	match, last uint64 // then
}

// Following is the Follow of each member but the leader.
type Following map[messages.RaftID]Follow

// After is the state after another word of the leader's raft, which came elapsed ticks after
// the one before. Whoever the leader does not follow any more is forgotten.
func (f Following) After(r *messages.Replication, elapsed uint64) Following {
	next := make(Following, len(r.GetProgress()))
	for _, p := range r.GetProgress() {
		if before, known := f[p.RaftId]; known {
			next[p.RaftId] = before.after(p, r.LastIndex, elapsed)
		} else {
			next[p.RaftId] = Follow{match: p.Match, last: r.LastIndex}.after(p, r.LastIndex, 0)
		}
	}
	return next
}

func (f Follow) after(p *messages.Progress, last, elapsed uint64) Follow {
	took := p.Match > f.Match
	f.Match, f.Last = p.Match, max(last, p.Match)
	f.sampled += elapsed
	if f.sampled >= sampleTicks {
		f.Rate = mean(f.Rate, f.Match, f.match, f.sampled)
		f.Growth = mean(f.Growth, f.Last, f.last, f.sampled)
		f.match, f.last, f.sampled = f.Match, f.Last, 0
	}
	f.StuckTicks += elapsed
	if took || f.Lag() == 0 || p.State == messages.ProgressState_SNAPSHOT { // which takes its time, and tells its own progress
		f.StuckTicks = 0
	}
	f.Close = p.State == messages.ProgressState_REPLICATING && InContact(p) && f.near()
	f.CloseTicks += elapsed
	if !f.Close {
		f.CloseTicks = 0
	}
	return f
}

// mean is a rate after another sample, which counts as much as all before it.
func mean(rate float64, now, then, ticks uint64) float64 {
	if now < then {
		return 0 // another leader's log
	}
	return (rate + float64(now-then)/float64(ticks)) / 2
}

// Lag is what it lacks, in entries.
func (f Follow) Lag() uint64 { return f.Last - f.Match }

func (f Follow) near() bool {
	lag := f.Lag()
	return lag == 0 || f.StuckTicks <= stuckTicksMax && (lag <= lagEntriesSmall || float64(lag) <= catchUpTicksMax*f.Rate)
}

// ETATicks is when it will have caught up, in ticks; 0: it has, or nobody can say.
func (f Follow) ETATicks() uint64 {
	if pace := f.Rate - f.Growth; f.Lag() > 0 && pace > 0 {
		return uint64(float64(f.Lag())/pace) + 1
	}
	return 0
}

// Close reports whether a member would hold all of the log in a moment. The leader does.
func (v View) Close(id messages.RaftID) bool {
	return id == v.Self || v.Alive(id) && v.Following[id].Close
}

// Ready says why a learner cannot be promoted yet; Nothing: it can.
func (v View) Ready(id messages.RaftID) Why {
	m, p, f := v.Member(id), v.progress(id), v.Following[id]
	if m == nil || p == nil {
		return Why{Kind: Unsettled}
	}
	why := Why{Node: m.Name, Address: m.Address}
	lacks := func(k Kind) Why { why.Kind = k; return why }
	switch {
	case mutant.PromotedEarly:
	case len(m.Incarnation) == 0 && v.refused(m.Name, m.Address) != "":
		why.Other = v.refused(m.Name, m.Address)
		return lacks(Refused)
	case len(m.Incarnation) == 0:
		why.Endpoints = v.endpoints()
		return lacks(NotJoined)
	case !v.Alive(id):
		why.Count = p.SilentTicks * v.TickMS
		return lacks(Unreachable)
	case p.State == messages.ProgressState_SNAPSHOT:
		why.Count, why.Total = v.Shipments[id].Done, v.Shipments[id].Total
		return lacks(Snapshot)
	case f.StuckTicks > slowTicksMin:
		why.Count, why.Total = f.StuckTicks*v.TickMS, f.Lag()
		return lacks(Slow)
	case p.State != messages.ProgressState_REPLICATING || !f.Close:
		why.Count, why.Total = f.Lag(), f.ETATicks()*v.TickMS
		return lacks(Lag)
	case f.CloseTicks < ReadyTicks:
		why.Count, why.Total = f.CloseTicks*v.TickMS, ReadyTicks*v.TickMS
		return lacks(Steady)
	}
	return Why{}
}

// endpoints are addresses of members that a node can ask to be let in.
func (v View) endpoints() (addresses []string) {
	for _, m := range v.Members {
		if v.Votes(m.RaftId) && v.Alive(m.RaftId) {
			addresses = append(addresses, m.Address)
		}
	}
	return addresses
}
