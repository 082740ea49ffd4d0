package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyval/messages"
)

// fault is a kind of thing that goes wrong.
type fault int

const (
	faultCrash      fault = iota // a process ends; what it wrote stays
	faultPowerCut                // a machine goes; what was not synced is lost
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
	faultLag                     // followers stay away until a snapshot is all that helps
	faultRot                     // a value is altered on a disk: who reads it must notice
	faultMiswrite                // another value was written, with its checksum: the others must notice
	faults
)

func (f fault) String() string {
	return [...]string{"crash", "power-cut", "torn-save", "torn-step", "snapshot-fails", "save-fails", "sync-fails", "read-fails", "full", "damage", "storm",
		"one-way", "pair", "isolate", "split", "alone", "deposed", "orphan", "freeze", "slow", "lossy", "clock-jump", "clock-drift", "hang-up",
		"panic", "core-panic", "client", "lag", "rot", "miswrite"}[f]
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

// plan draws the next fault of each kind.
func (r *run) plan(f fault) {
	rate, on := r.swarm.rates[f]
	if !on {
		return
	}
	r.world.clock.after(time.Duration(r.chaos.ExpFloat64()*float64(rate)), nil, func() {
		if r.healed {
			return
		}
		if r.striking {
			r.strike(f)
		}
		r.plan(f)
	})
}

// lasting is how long a passing fault lasts.
func (r *run) lasting() time.Duration {
	return 20*time.Millisecond + time.Duration(r.chaos.ExpFloat64()*float64(pick(r.chaos, 200*time.Millisecond, time.Second, 3*time.Second)))
}

// victim is a node; leaders more often than their share.
func (r *run) victim() *machine {
	if r.chaos.IntN(3) == 0 {
		for _, m := range r.machines {
			if m.role() == "leader" {
				return m
			}
		}
	}
	return r.machines[r.chaos.IntN(len(r.machines))]
}

func (r *run) strike(f fault) {
	m := r.victim()
	if f == faultDeposed {
		r.depose(m)
		return
	}
	r.count(f.String(), m)
	switch f {
	case faultCrash, faultPowerCut:
		r.crash(m, f == faultPowerCut)
	case faultStorm:
		for _, m := range r.machines {
			r.crash(m, r.chaos.IntN(2) == 0)
		}
	case faultTornStep:
		r.tear(m)
	case faultSnapshot:
		r.failSnapshot(m)
	case faultLag:
		r.lag(m)
	case faultRot, faultMiswrite:
		r.decay(m, f == faultMiswrite)
	case faultTornSave, faultSaveFails, faultSyncFails, faultReadFails, faultFull:
		r.order(f, m)
	case faultDamage:
		r.damage(m)
	case faultOneWay, faultPair, faultIsolate, faultSplit, faultAlone:
		r.partition(f, m)
	case faultOrphan:
		r.orphan()
	case faultFreeze:
		r.freeze(m)
	case faultSlow:
		r.slowness[m.node] = upTo(r.chaos, pick[time.Duration](r.chaos, 1, 10)*r.swarm.electionTimeout()/4)
		r.later(func() { r.slowness[m.node] = 0 })
	case faultLossy:
		r.lossy()
	case faultClockJump:
		if m.up() {
			m.host.burst = 1 + r.chaos.IntN(3*r.swarm.options.Raft.ElectionTicks)
		}
	case faultClockDrift:
		m.pace = pace{rate: 0.5 + r.chaos.Float64()}
		if m.up() {
			m.host.pace = m.pace
		}
	case faultHangUp:
		r.hangUp(m, nil)
	case faultPanic:
		name := pick(r.chaos, fragile...)
		if m.disk.staging != nil && r.chaos.IntN(2) == 0 {
			name = messages.ActorIntake
		}
		r.inject(m, name)
	case faultCorePanic:
		r.inject(m, pick(r.chaos, core...))
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

func (r *run) crash(m *machine, powerCut bool) {
	if !m.up() {
		return
	}
	if m.inSnapshot() {
		r.interrupted++
	}
	what := "the process is killed"
	if powerCut {
		what = "the power is cut"
	}
	r.world.note(m.host, "%s", what)
	m.crash(powerCut)
	m.restartLater()
}

// order lets the disk fail under the running process.
func (r *run) order(f fault, m *machine) {
	if !m.up() {
		return
	}
	r.world.note(m.host, "a fault of the disk is ordered: %v", f)
	switch f {
	case faultTornSave:
		m.disk.CrashNext(CrashInSave)
	case faultSaveFails:
		m.disk.FailNextSave()
	case faultSyncFails:
		m.disk.FailNextSync()
	case faultReadFails:
		m.disk.FailNextReads(1 + r.chaos.IntN(3))
	case faultFull:
		m.disk.Fill(true)
		r.later(func() { m.disk.Fill(false) })
	}
}

// damage takes synced data from a minority. The process that starts on what is
// left has to notice.
func (r *run) damage(m *machine) {
	lost := 0
	for _, o := range r.machines {
		if o.damaged || o.rotten() {
			lost++
		}
	}
	initialised, _ := m.disk.Initialised()
	if !initialised || r.check.last() == 0 || m.damaged || 2*(lost+1) >= len(r.machines) {
		return
	}
	if m.up() {
		r.world.note(m.host, "the power is cut, and the disk damaged")
	}
	m.crash(true)
	if r.chaos.IntN(2) == 0 {
		m.disk.LoseState()
		m.damaged = true
	} else {
		m.damaged = m.loseTail(r.chaos.IntN(5))
	}
	m.restartLater()
}

// loseTail takes entries off the end of a log, down to some that its witness
// knows. A witness that the power cut took back knows less than was synced: to
// lose just what it does not know is a second fault, which only the leader's
// next heartbeat can show.
func (m *machine) loseTail(more int) (noticeable bool) {
	_, last, _ := m.disk.Durable()
	known, base := m.disk.now.log.witness.Index, m.disk.Base()
	if known <= base {
		return false
	}
	m.disk.LoseTail(int(min(last-known+1+uint64(more), last-base)))
	return true
}

func (r *run) freeze(m *machine) {
	if !m.up() || m.host.frozen {
		return
	}
	h := m.host
	r.world.note(h, "the process stands still")
	r.world.net.freeze(h)
	r.later(h.thaw)
}

// partition draws the ways that one of these faults cuts.
func (r *run) partition(f fault, m *machine) {
	var cuts [][2]string
	both := func(a, b string) { cuts = append(cuts, [2]string{a, b}, [2]string{b, a}) }
	other := r.machines[r.chaos.IntN(len(r.machines))]
	switch f {
	case faultOneWay:
		cuts = append(cuts, [2]string{m.name(), other.name()})
	case faultPair:
		both(m.name(), other.name())
	case faultIsolate:
		for _, name := range r.names() {
			both(m.name(), name)
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
			both(m.name(), c.name)
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
func (r *run) depose(m *machine) {
	if m.role() != "leader" {
		return
	}
	r.count(faultDeposed.String(), m)
	var cuts [][2]string
	both := func(name string) { cuts = append(cuts, [2]string{m.name(), name}, [2]string{name, m.name()}) }
	for _, o := range r.machines {
		both(o.name())
	}
	first := r.chaos.IntN(2)
	for i, c := range r.clients {
		if i%2 == first {
			both(c.name)
			r.hangUp(m, c.host)
		}
	}
	h, lasting := m.host, r.swarm.electionTimeout()+upTo(r.chaos, 3*r.swarm.electionTimeout())
	h.pace.rate = 1 + 3*r.chaos.Float64()
	r.after(lasting, func() { h.pace = m.pace })
	r.sever(faultDeposed, cuts, lasting)
}

// orphan aims at appends that replace each other before they are durable: a
// leader reaches one follower only, whose log stalls; the others elect another
// leader, and the follower meets it with the first one's entries still in hand.
func (r *run) orphan() {
	var leader, follower *machine
	for _, m := range r.machines {
		switch {
		case m.role() == "leader":
			leader = m
		case m.up() && (follower == nil || r.chaos.IntN(2) == 0):
			follower = m
		}
	}
	if leader == nil || follower == nil {
		return
	}
	timeout := r.swarm.electionTimeout()
	r.note("orphan: %s leads, %s is its only follower, and slow", leader.name(), follower.name())
	apart := timeout + upTo(r.chaos, timeout)
	follower.stalledUntil = r.world.clock.now + apart + timeout/2
	for _, o := range r.machines {
		if o != leader && o != follower {
			r.shut(leader.name(), o.name(), 3*timeout)
			r.shut(follower.name(), o.name(), apart)
		}
	}
}

// shut cuts both ways between two machines for a while.
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

// names are those of all machines, nodes first.
func (r *run) names() []string {
	var names []string
	for _, m := range r.machines {
		names = append(names, m.name())
	}
	for _, c := range r.clients {
		names = append(names, c.name)
	}
	return names
}

// lossy makes the ways between some machines bad for a while.
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

// hangUp breaks the connections between a machine and another host, or any of the
// machine's if there is none.
func (r *run) hangUp(m *machine, other *host) {
	if !m.up() {
		return
	}
	for _, c := range slices.Clone(r.world.net.conns) {
		if c.touches(m.host) && (other != nil && c.touches(other) || other == nil && r.chaos.IntN(2) == 0) {
			r.world.net.sever(c, "the connection broke")
		}
	}
}

// fragile are the actors that may fail and start anew, core those whose failure is
// the whole process's.
var (
	fragile = []string{messages.ActorSessionPrefix, messages.ActorReaderPrefix, messages.ActorGateway, messages.ActorMembership,
		messages.ActorFounding, messages.ActorTransport, messages.ActorSnapshots, messages.ActorIntake, messages.ActorArchive,
		messages.ActorAudit}
	core = []string{messages.ActorRaft, messages.ActorLog, messages.ActorMachine, messages.ActorCheckpoint, messages.ActorTicker}
)

// inject lets the next message that an actor of this name is given end in a panic.
func (r *run) inject(m *machine, name string) {
	if m.up() {
		m.host.sabotage = name
	}
}

// sabotaged reports whether this actor's message is to end in a panic. A name that
// ends in a dash stands for all that begin with it.
func (h *host) sabotaged(actorID string) bool {
	name := h.sabotage
	return name != "" && (actorID == name || strings.HasSuffix(name, "-") && strings.HasPrefix(actorID, name))
}

// injected: an actor panicked because it was made to. One of the core takes the
// process with it, and soon.
func (r *run) injected(h *host, name string) {
	r.coverage[panicCell(name)]++
	if !slices.Contains(core, name) {
		return
	}
	h.doomed = true
	// Its supervisor hears of it when it is done with what its disk holds it up with.
	grace := coreGraceMax + r.slowness[h.node] + r.swarm.fsync + r.swarm.apply
	r.world.clock.after(grace, h, func() {
		if !h.frozen {
			r.world.fail("a panic of the core ends the process", "%s lives on though %s panicked", h.name, name)
		}
	})
}

// coreGraceMax is how long a process may outlive a panic of its core.
const coreGraceMax = 100 * time.Millisecond

func panicCell(name string) string {
	return "panic-in-" + strings.TrimSuffix(name[strings.LastIndexByte(name, '/')+1:], "-")
}

// aimed draws whether the machine crashes right now or a little later: within
// some steps, or some milliseconds, of what just happened.
func (r *run) aimed(a aim, m *machine) {
	p, on := r.swarm.aims[a]
	if !on || r.healed || !r.striking || r.chaos.Float64() >= p {
		return
	}
	r.count("crash-after-"+a.String(), m)
	powerCut, h := r.chaos.IntN(2) == 0, m.host
	strike := func() {
		if m.host == h && !r.healed {
			r.crash(m, powerCut)
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

func (r *run) note(format string, args ...any) {
	r.world.trace.note(r.world.clock.now, "world", fmt.Sprintf(format, args...))
}

// count notes that a fault met a node in its role.
func (r *run) count(fault string, m *machine) { r.coverage[fault+" x "+m.role()]++ }
