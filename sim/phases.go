package sim

import (
	"fmt"
	"time"
)

// play goes through the phases of a run, until one fails.
func (r *run) play() {
	r.world.trace.note(0, "world", "swarm: "+r.swarm.String())
	for _, s := range r.servers {
		r.world.clock.after(upTo(r.chaos, 500*time.Millisecond), nil, s.start)
	}
	for _, c := range r.clients {
		c.start()
		c.work()
	}
	r.employ()
	r.appoint()
	r.welcome()
	r.bear()
	r.safeguard()
	if r.chaos.IntN(4) > 0 {
		r.warmUp()
	}
	r.storm()
	r.heal()
	r.progress()
	r.openUp()
	r.mendItself()
	r.settle()
	r.converge()
	r.finish()
	r.backUp()
}

// warmUp lets the cluster be founded in peace.
func (r *run) warmUp() {
	limit := r.world.clock.now + 30*time.Second
	for !r.world.over() && r.check.last() == 0 {
		if r.world.clock.now >= limit {
			r.world.fail("a cluster is founded", "nothing was committed after %v without faults", limit)
			return
		}
		r.world.run(r.world.clock.now + 100*time.Millisecond)
	}
}

// storm is the stretch of chaos.
func (r *run) storm() {
	r.note("chaos begins")
	r.weather()
	for f := range faults {
		r.plan(f)
	}
	r.world.run(r.world.clock.now + r.options.Duration)
}

// heal ends all faults, but may leave a minority of the nodes down.
func (r *run) heal() {
	if r.world.over() {
		return
	}
	for _, s := range r.servers {
		if s.aged && !s.disk.Suspected() { // nobody who knows has told it, and may be there to
			r.giveUp(s)
		} else if s.fenced && !s.aged { // whose heartbeat it doubts may never be back, and it be needed
			s.crash(false)
		}
	}
	founded := r.check.last() > 0 // before, every founder is needed
	for _, s := range r.servers {
		away := func(o *server) bool { return o == s || o.lost() || r.leftDown[o.node] }
		if r.options.Faults && founded && !s.lost() && r.suffices(away) && r.chaos.IntN(4) == 0 {
			r.leftDown[s.node] = true
		}
	}
	r.healed, r.healedAt = true, r.world.clock.now
	r.fuses = nil
	if r.thief != nil {
		r.world.kill(r.thief.host, false)
	}
	if r.stranger != nil {
		r.world.kill(r.stranger.host, false)
		r.world.kill(r.bearer.host, false)
	}
	r.note("healed, but for %v", r.leftDown)
	r.world.net.mend(r.swarm.calm())
	for _, s := range r.servers {
		s.mend()
	}
	if r.keeper != nil { // which asks a node alone that may stay down
		r.restartClient(r.keeper.customer)
	}
}

// progress: a healed quorum commits within ten election timeouts, once its links
// are there again.
func (r *run) progress() {
	last, limit := r.check.last(), 10*r.swarm.electionTimeout()+dialTimeout+backoffMax+r.shipping()
	until := r.world.clock.now + limit
	for !r.world.over() && r.check.last() == last {
		if r.world.clock.now >= until {
			r.world.fail("liveness", "nothing was committed in %v after the world was healed", limit)
			return
		}
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
}

// shipping is how long snapshots may hold up what needs the nodes that lack them:
// another one may be under way, and as long as nobody knows that it stands still.
func (r *run) shipping() time.Duration {
	base, bytes := uint64(0), 0
	for _, s := range r.servers {
		if s.up() {
			base, bytes = max(base, s.disk.Base()), max(bytes, s.disk.Bytes())
		}
	}
	for _, s := range r.servers {
		if _, last := r.check.durable(s.node); s.up() && last < base {
			return (standsStillTicks+vouchTicks)*r.swarm.options.TickInterval + 2*r.swarm.bringing(bytes)
		}
	}
	return 0
}

// standsStillTicks is when a receiver gives up a snapshot of which nothing comes.
const standsStillTicks = 200

// vouchTicks is how long a sender waits for another member to vouch for its state.
const vouchTicks = 200

// converge: clients fall silent, every operation ends, and every live member comes
// to the same state.
func (r *run) converge() {
	r.quiet = true
	limit := r.world.clock.now + deadlineMS*time.Millisecond + 20*r.swarm.electionTimeout() + r.shipping() + r.auditing()
	for !r.world.over() && !r.converged() {
		if r.world.clock.now >= limit {
			if r.split = r.undecided(); !r.split {
				r.world.fail("convergence", "%s", r.outstanding())
			}
			return
		}
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
}

// auditTicks is how long an audit takes at most to find a value that was written wrong:
// it walks again 200 ticks after the last walk, and waits 60 for who does not answer,
// as the node does that is told and looks again.
const auditTicks = 200 + 5*60

// auditing is how long a wrong value may stay: the audit finds one node after the other.
func (r *run) auditing() (long time.Duration) {
	for _, s := range r.servers {
		if s.up() && r.rotShows(s) {
			long += auditTicks * r.swarm.options.TickInterval
		}
	}
	return long
}

func (r *run) converged() bool { return r.outstanding() == "" }

// outstanding says what is still to come, or nothing.
func (r *run) outstanding() string {
	for _, c := range r.clients {
		for _, op := range c.under {
			return "no answer to " + op.String()
		}
	}
	for _, s := range r.servers {
		if !s.isMember() {
			continue
		}
		if s.up() && !s.aged && s.host.memory.applied < r.check.last() {
			return fmt.Sprintf("%s has applied up to index %d of %d", s.name(), s.host.memory.applied, r.check.last())
		}
		if what := r.unfinished(s); what != "" {
			return what
		}
	}
	return ""
}

// unfinished says what a node should have come to an end with.
func (r *run) unfinished(s *server) string {
	switch {
	case !s.up():
	case s.aged: // it is mute, and may be so for ever if the one who knew is not there
	case s.disk.Staging():
		return s.name() + " keeps a state that nobody installs"
	case len(s.disk.Writing()) > 0:
		return fmt.Sprintf("%s still writes the files %v", s.name(), s.disk.Writing())
	case s.shipping > 0:
		return fmt.Sprintf("%s still ships %d snapshots", s.name(), s.shipping)
	case r.rotShows(s):
		return fmt.Sprintf("%s serves the altered value of %q, or state", s.name(), s.rot.key)
	case s.disk.Floor() < s.disk.LastCheckpoint().GetCompactedRevision(): // its readers have time to answer
		return fmt.Sprintf("%s may discard rows below revision %d, its checkpoint gives up what is below %d",
			s.name(), s.disk.Floor(), s.disk.LastCheckpoint().GetCompactedRevision())
	}
	return ""
}
