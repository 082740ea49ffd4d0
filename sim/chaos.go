package sim

import (
	"fmt"
	"slices"
	"time"

	"keyval/messages"
	"keyval/sim/disk"
)

// fault is a kind of thing that goes wrong.
type fault int

const (
	faultCrash      fault = iota // a process ends; what it wrote stays
	faultPowerCut                // a server goes; what was not synced is lost
	faultTornSave                // a crash or power cut between a write and its sync
	faultTornStep                // a crash within a cut, a seal, an installation or a checkpoint
	faultSnapshot                // a step of a snapshot fails, or a cut
	faultSaveFails               // a write to the log fails: the process must end itself
	faultSyncFails               // a sync of the log fails: the process must end itself
	faultReadFails               // the state cannot be read: the read, or the process, fails
	faultFull                    // a disk is full: the process must end itself, until there is room
	faultDamage                  // synced data are lost: the node must notice and stay away
	faultStorm                   // every node is crashed, some more than once
	faultOneWay                  // nothing gets from one node to another
	faultPair                    // nothing gets through between two nodes
	faultIsolate                 // a node reaches nobody
	faultSplit                   // two halves
	faultAlone                   // a node and the clients lose each other
	faultDeposed                 // a slow leader loses the other nodes and some clients, who go on with another
	faultOrphan                  // a leader and one slow follower are cut off, and the follower comes back alone
	faultFreeze                  // a process stands still
	faultSlow                    // a disk is slow
	faultLossy                   // messages are lost, repeated, overtaken and late
	faultClockJump               // a node's clock leaps ahead
	faultClockDrift              // a node's clock runs at another rate
	faultHangUp                  // connections break
	faultPanic                   // an actor that may fail does, and starts anew
	faultCorePanic               // an actor that may not fail does: the process must end itself
	faultClient                  // a client's process ends
	faultStateSync               // a sync of the state fails, and what it was to sync is lost with the power
	faultWipe                    // a disk is emptied: the node must stay away
	faultLag                     // followers stay away until a snapshot is all that helps
	faultRot                     // a value is altered on a disk: who reads it must notice
	faultMiswrite                // another value was written, with its checksum: the others must notice
	faultMisstate                // so was another checkpoint
	faultRolledBack              // a disk is put back to an older copy: the node must be told, and never take part again
	faultForged                  // a heartbeat counts on what is not there: nobody may be suspected for one message
	faultScarce                  // a disk has little room left: writes are refused while a quorum needs it
	faults
)

func (f fault) String() string {
	return [...]string{"crash", "power-cut", "torn-save", "torn-step", "snapshot-fails", "save-fails", "sync-fails", "read-fails", "full", "damage", "storm",
		"one-way", "pair", "isolate", "split", "alone", "deposed", "orphan", "freeze", "slow", "lossy", "clock-jump", "clock-drift", "hang-up",
		"panic", "core-panic", "client", "state-sync-fails", "wipe", "lag", "rot", "miswrite", "misstate", "rolled-back", "forged", "scarce"}[f]
}

// aim is a moment right after which a crash hurts most.
type aim int

const (
	aimVote       aim = iota // a vote was granted
	aimAck                   // an append was acknowledged
	aimElected               // a node came to lead
	aimCheckpoint            // a checkpoint was written
	aimCommit                // an entry was committed
	aimAppend                // the log was handed entries
	aims
)

func (a aim) String() string {
	return [...]string{"vote", "ack", "elected", "checkpoint", "commit", "append"}[a]
}

// crash is what the crash after such a moment is called.
func (a aim) crash() string { return "crash-after-" + a.String() }

// often is how likely a crash may follow at most: some moments are rare.
func (a aim) often() float64 {
	return [...]float64{aimVote: 0.5, aimAck: 0.02, aimElected: 0.5, aimCheckpoint: 0.3, aimCommit: 0.02, aimAppend: 0.02}[a]
}

// weather lets storms and calms take turns: a cluster that is only ever hit does
// nothing that could go wrong.
func (r *run) weather() {
	r.striking = !r.striking
	r.world.clock.after(r.lasting()+time.Second, nil, r.weather)
}

// strikes reports whether faults strike now.
func (r *run) strikes() bool { return r.striking && !r.held }

// plan draws the next fault of each kind.
func (r *run) plan(f fault) {
	rate, on := r.swarm.rates[f]
	if !on {
		return
	}
	r.by(f.String(), func() {
		r.world.clock.after(time.Duration(r.chaos.ExpFloat64()*float64(rate)), nil, func() {
			if r.healed {
				return
			}
			if r.strikes() {
				r.by(f.String(), func() { r.strike(f) })
			}
			r.plan(f)
		})
	})
}

// by lets a kind of fault draw from a source of its own: what is left out takes nothing
// from the others.
func (r *run) by(kind string, do func()) {
	chance := r.chances[kind]
	if chance == nil {
		chance = stream(r.options.Seed, kind)
		r.chances[kind] = chance
	}
	was := r.chaos
	r.chaos = chance
	do()
	r.chaos = was
}

// lasting is how long a passing fault lasts.
func (r *run) lasting() time.Duration {
	return 20*time.Millisecond + time.Duration(r.chaos.ExpFloat64()*float64(pick(r.chaos, 200*time.Millisecond, time.Second, 3*time.Second)))
}

// victim is a node; leaders more often than their share.
func (r *run) victim() *server {
	if r.chaos.IntN(3) == 0 {
		for _, s := range r.servers {
			if s.role() == "leader" {
				return s
			}
		}
	}
	return r.servers[r.chaos.IntN(len(r.servers))]
}

func (r *run) strike(f fault) {
	s := r.victim()
	if f == faultDeposed {
		r.depose(s)
		return
	}
	r.count(f.String(), s)
	r.note("%s strikes at %s, a %s", f, s.name(), s.role())
	switch f {
	case faultCrash, faultPowerCut:
		r.crash(s, f == faultPowerCut)
	case faultStorm:
		for _, s := range r.servers {
			r.crash(s, r.chaos.IntN(2) == 0)
		}
	case faultTornStep:
		r.tear(s)
	case faultSnapshot:
		r.failSnapshot(s)
	case faultLag:
		r.lag(s)
	case faultRot, faultMiswrite:
		r.decay(s, f == faultMiswrite)
	case faultMisstate:
		r.misstate(s)
	case faultTornSave, faultSaveFails, faultSyncFails, faultStateSync, faultReadFails, faultFull:
		r.order(f, s)
	case faultDamage:
		r.damage(s)
	case faultWipe:
		r.wipe(s)
	case faultRolledBack:
		r.rollBack(s)
	case faultForged:
		r.forge(s)
	case faultScarce:
		s.disk.Scarce(true)
		r.later(func() { s.disk.Scarce(false) })
	case faultOneWay, faultPair, faultIsolate, faultSplit, faultAlone:
		r.partition(f, s)
	case faultOrphan:
		r.orphan()
	case faultFreeze:
		r.freeze(s)
	case faultSlow:
		r.slowness[s.node] = upTo(r.chaos, pick[time.Duration](r.chaos, 1, 10)*r.swarm.electionTimeout()/4)
		r.later(func() { r.slowness[s.node] = 0 })
	case faultLossy:
		r.lossy()
	case faultClockJump:
		if s.up() {
			s.host.burst = 1 + r.chaos.IntN(3*r.swarm.options.Raft.ElectionTicks)
		}
	case faultClockDrift:
		s.pace = pace{rate: 0.5 + r.chaos.Float64()}
		if s.up() {
			s.host.pace = s.pace
		}
	case faultHangUp:
		r.hangUp(s, nil)
	case faultPanic:
		into := pick(r.chaos, fragile...)
		if s.disk.Staging() && r.chaos.IntN(2) == 0 {
			into = messages.ActorOf(messages.ActorIntake)
		}
		r.inject(s, into)
	case faultCorePanic:
		r.inject(s, pick(r.chaos, core...))
	case faultClient:
		r.restartClient(r.clients[r.chaos.IntN(len(r.clients))])
	}
}

// later undoes a passing fault, at the latest when the world is healed.
func (r *run) later(undo func()) { r.after(r.lasting(), undo) }

func (r *run) after(lasting time.Duration, undo func()) {
	r.world.clock.after(lasting, nil, func() {
		if !r.healed {
			undo()
		}
	})
}

func (r *run) crash(s *server, powerCut bool) {
	if !s.up() {
		return
	}
	if s.inSnapshot() {
		r.interrupted++
	}
	what := "the process is killed"
	if powerCut {
		what = "the power is cut"
	}
	r.world.note(s.host, "%s", what)
	s.crash(powerCut)
	s.restartLater()
}

// order lets the disk fail under the running process.
func (r *run) order(f fault, s *server) {
	if !s.up() {
		return
	}
	r.world.note(s.host, "a fault of the disk is ordered: %v", f)
	switch f {
	case faultTornSave:
		s.disk.CrashNext(disk.CrashInSave)
	case faultSaveFails:
		s.disk.FailNextSave()
	case faultSyncFails:
		s.disk.FailNextSync()
	case faultStateSync:
		s.disk.FailNextStateSync()
	case faultReadFails:
		s.disk.FailNextReads(1 + r.chaos.IntN(3))
	case faultFull:
		s.disk.Fill(true)
		r.later(func() { s.disk.Fill(false) })
	}
}

func (r *run) freeze(s *server) {
	if !s.up() || s.host.frozen {
		return
	}
	h := s.host
	r.world.note(h, "the process stands still")
	r.world.net.freeze(h)
	r.later(h.thaw)
}

// partition draws the ways that one of these faults cuts.
func (r *run) partition(f fault, s *server) {
	var cuts [][2]string
	both := func(a, b string) { cuts = append(cuts, [2]string{a, b}, [2]string{b, a}) }
	other := r.servers[r.chaos.IntN(len(r.servers))]
	switch f {
	case faultOneWay:
		cuts = append(cuts, [2]string{s.name(), other.name()})
	case faultPair:
		both(s.name(), other.name())
	case faultIsolate:
		for _, name := range r.names() {
			both(s.name(), name)
		}
	case faultSplit:
		var sides [2][]string
		for _, name := range r.names() {
			i := r.chaos.IntN(2)
			sides[i] = append(sides[i], name)
		}
		for _, a := range sides[0] {
			for _, b := range sides[1] {
				both(a, b)
			}
		}
	case faultAlone:
		for _, c := range r.clients {
			both(s.name(), c.name)
		}
	}
	r.sever(f, cuts, r.lasting())
}

// sever cuts ways, and opens them again after a while.
func (r *run) sever(f fault, cuts [][2]string, lasting time.Duration) {
	r.note("%s: cut %v", f, cuts)
	for _, c := range cuts {
		if c[0] != c[1] {
			r.world.net.cut(c[0], c[1], true)
		}
	}
	r.after(lasting, func() {
		r.note("%s is over", f)
		for _, c := range cuts {
			r.world.net.cut(c[0], c[1], false)
		}
	})
}

// depose aims at a leader that does not know that it is one no more: its time
// passes slowly, it has lost the other nodes and every second client, who go on with
// another leader, and the rest of the clients still come to it.
func (r *run) depose(s *server) {
	if s.role() != "leader" {
		return
	}
	r.count(faultDeposed.String(), s)
	var cuts [][2]string
	both := func(name string) { cuts = append(cuts, [2]string{s.name(), name}, [2]string{name, s.name()}) }
	for _, o := range r.servers {
		both(o.name())
	}
	first := r.chaos.IntN(2)
	for i, c := range r.clients {
		if i%2 == first {
			both(c.name)
			r.hangUp(s, c.host)
		}
	}
	h, lasting := s.host, r.swarm.electionTimeout()+upTo(r.chaos, 3*r.swarm.electionTimeout())
	h.pace.rate = 1 + 3*r.chaos.Float64()
	r.after(lasting, func() { h.pace = s.pace })
	r.sever(faultDeposed, cuts, lasting)
}

// orphan aims at appends that replace each other before they are durable: a
// leader reaches one follower only, whose log stalls; the others elect another
// leader, and the follower meets it with the first one's entries still in hand.
func (r *run) orphan() {
	var leader, follower *server
	for _, s := range r.servers {
		switch {
		case s.role() == "leader":
			leader = s
		case s.up() && (follower == nil || r.chaos.IntN(2) == 0):
			follower = s
		}
	}
	if leader == nil || follower == nil {
		return
	}
	timeout := r.swarm.electionTimeout()
	r.note("orphan: %s leads, %s is its only follower, and slow", leader.name(), follower.name())
	apart := timeout + upTo(r.chaos, timeout)
	follower.stalledUntil = r.world.clock.now + apart + timeout/2
	for _, o := range r.servers {
		if o != leader && o != follower {
			r.shut(leader.name(), o.name(), 3*timeout)
			r.shut(follower.name(), o.name(), apart)
		}
	}
}

// shut cuts both ways between two hosts for a while.
func (r *run) shut(a, b string, lasting time.Duration) {
	set := func(cut bool) {
		r.world.net.cut(a, b, cut)
		r.world.net.cut(b, a, cut)
	}
	set(true)
	r.world.clock.after(lasting, nil, func() {
		if !r.healed {
			set(false)
		}
	})
}

// names are those of all servers and clients, nodes first.
func (r *run) names() []string {
	var names []string
	for _, s := range r.servers {
		names = append(names, s.name())
	}
	for _, c := range r.clients {
		names = append(names, c.name)
	}
	return names
}

// lossy makes the ways between some hosts bad for a while.
func (r *run) lossy() {
	bad := quality{
		latency: r.swarm.way.latency * time.Duration(1+r.chaos.IntN(10)), jitter: r.swarm.way.jitter,
		drop:      pick(r.chaos, 0, 0.02, 0.2, 0.5),
		duplicate: pick(r.chaos, 0, 0.02, 0.3),
		overtake:  pick(r.chaos, 0, 0.05, 0.5),
	}
	share := 1 + r.chaos.IntN(4)
	for _, a := range r.names() {
		for _, b := range r.names() {
			if a != b && r.chaos.IntN(share) == 0 {
				w := r.world.net.wayOf(a, b)
				w.quality = bad
				r.later(func() { w.quality = r.swarm.way })
			}
		}
	}
}

// hangUp breaks the connections between a server and another host, or any of the
// server's if there is none.
func (r *run) hangUp(s *server, other *host) {
	if !s.up() {
		return
	}
	for _, c := range slices.Clone(r.world.net.conns) {
		if c.touches(s.host) && (other != nil && c.touches(other) || other == nil && r.chaos.IntN(2) == 0) {
			r.world.net.sever(c, "the connection broke")
		}
	}
}

// fragile are the actors of a member that may fail and start anew, core those whose failure is
// the whole process's.
var fragile, core = actorsByPolicy()

func actorsByPolicy() (fragile, core []*messages.Actor) {
	for _, a := range messages.Actors {
		if a.OnPanic == messages.EndsProcess {
			core = append(core, a)
		} else if a.Name != messages.ActorJoining {
			fragile = append(fragile, a)
		}
	}
	return fragile, core
}

// inject lets the next message that such an actor is given end in a panic.
func (r *run) inject(s *server, into *messages.Actor) {
	if s.up() {
		s.host.sabotage = into
	}
}

// sabotaged reports whether this actor's message is to end in a panic.
func (h *host) sabotaged(actorID string) bool {
	return h.sabotage != nil && h.sabotage.Covers(actorID)
}

// injected: an actor panicked because it was made to. One of the core takes the
// process with it, and soon.
func (r *run) injected(h *host, into *messages.Actor) {
	r.coverage[panicCell(into)]++
	if into.OnPanic != messages.EndsProcess {
		return
	}
	h.doomed = true
	// Its supervisor hears of it when it is done with what its disk holds it up with.
	grace := coreGraceMax + r.slowness[h.node] + r.swarm.fsync + r.swarm.apply
	r.world.clock.after(grace, h, func() {
		if !h.frozen {
			r.world.fail("a panic of the core ends the process", "%s lives on though %s panicked", h.name, into.Name)
		}
	})
}

// coreGraceMax is how long a process may outlive a panic of its core.
const coreGraceMax = 100 * time.Millisecond

func panicCell(in *messages.Actor) string { return "panic-in-" + in.Kind() }

// aimed draws whether the server crashes right now or a little later: within
// some steps, or some milliseconds, of what just happened.
func (r *run) aimed(a aim, s *server) {
	p, on := r.swarm.aims[a]
	if !on || r.healed || !r.strikes() {
		return
	}
	r.by(a.crash(), func() { r.lightFuse(a, s, p) })
}

func (r *run) lightFuse(a aim, s *server, p float64) {
	if r.chaos.Float64() >= p {
		return
	}
	r.count(a.crash(), s)
	powerCut, h := r.chaos.IntN(2) == 0, s.host
	strike := func() {
		if s.host == h && !r.healed && !r.held {
			r.note("%s strikes at %s", a.crash(), s.name())
			r.by(a.crash(), func() { r.crash(s, powerCut) })
		}
	}
	if r.chaos.IntN(2) == 0 {
		r.fuses = append(r.fuses, fuse{steps: r.chaos.IntN(40), burn: strike})
		return
	}
	r.world.clock.after(time.Duration(r.chaos.Int64N(int64(5*time.Millisecond))), nil, strike)
}

// fuse is something that happens after so many steps of the world.
type fuse struct {
	steps int
	burn  func()
}

// burn lets fuses burn down, between two steps.
func (r *run) burn() {
	for i := 0; i < len(r.fuses); {
		if r.fuses[i].steps--; r.fuses[i].steps > 0 {
			i++
			continue
		}
		burnt := r.fuses[i]
		r.fuses = append(r.fuses[:i], r.fuses[i+1:]...)
		burnt.burn()
	}
}

func (r *run) note(format string, args ...any) {
	r.world.did("world", fmt.Sprintf(format, args...))
}

// count notes that a fault met a node in its role.
func (r *run) count(fault string, s *server) { r.coverage[fault+" x "+s.role()]++ }
