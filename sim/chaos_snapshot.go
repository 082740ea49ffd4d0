package sim

import (
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// phase is a moment on the way of a snapshot, or of a log that is cut, right after
// which a fault hurts most. Sender and receiver have phases of their own.
type phase int

const (
	phaseOffered      phase = iota // the sender has offered
	phasePieceSent                 // and sent a piece
	phaseEnded                     // and knows how it ended
	phaseOffer                     // the receiver was offered a snapshot
	phasePiece                     // and has a piece
	phaseSealed                    // and all of it
	phaseStaged                    // its raft knows
	phaseInstalling                // its log is to install it
	phaseInstalled                 // its machine is to open it
	phaseSwitched                  // and has
	phaseCheckpointed              // a checkpoint counts
	phaseCut                       // the log is to be cut
	phases
)

func (p phase) String() string {
	return [...]string{"offered", "piece-sent", "ended", "offer", "piece", "sealed", "staged", "installing", "installed", "switched",
		"checkpointed", "cut"}[p]
}

// often is how likely a fault may follow at most.
func (p phase) often() float64 {
	switch p {
	case phasePieceSent, phasePiece:
		return 0.05
	case phaseCheckpointed, phaseCut:
		return 0.05
	}
	return 0.4
}

// blow is what follows a phase.
type blow int

const (
	blowCrash blow = iota
	blowPowerCut
	blowPartition // the node reaches no other node for a while
	blowElection  // another leader is elected meanwhile
	blowFreeze
	blows
)

func (b blow) String() string {
	return [...]string{"crash", "power-cut", "partition", "election", "freeze"}[b]
}

func phaseCell(p phase, b blow) string { return b.String() + "-after-" + p.String() }

// phaseOf is the phase that a message begins for the node whose actor is given it.
func phaseOf(actorID string, message any) (phase, bool) {
	switch m := message.(type) {
	case *messages.SnapshotShipped:
		return phaseEnded, true
	case *messages.SnapshotOffer:
		return phaseOffer, true
	case *messages.SnapshotPiece:
		return phasePiece, true
	case *messages.ChunkStaged:
		return phaseSealed, m.Sealed
	case *messages.StagedSnapshot:
		return phaseStaged, true
	case *messages.Append:
		return phaseInstalling, m.Message.GetSnapshot().GetMetadata().GetIndex() > 0
	case *messages.Installed:
		return phaseInstalled, actorID == messages.ActorMachine
	case *messages.Switched:
		return phaseSwitched, true
	case *messages.Checkpointed:
		return phaseCheckpointed, true
	case *messages.CutLog:
		return phaseCut, true
	}
	return 0, false
}

// departing is the phase that a message to another node begins for its sender.
func departing(body proto.Message) (phase, bool) {
	switch body.(type) {
	case *messages.SnapshotOffer:
		return phaseOffered, true
	case *messages.SnapshotPiece:
		return phasePieceSent, true
	}
	return 0, false
}

// follow counts what snapshots come to, and lets blows fall right after a phase.
func (r *run) follow(m *machine, actorID string, message any) {
	switch message := message.(type) {
	case *messages.ShipSnapshot:
		m.shipping++
	case *messages.SnapshotShipped:
		m.shipping--
	case *messages.Switched:
		r.installs++
	case *messages.SnapshotOffer:
		if _, on := r.swarm.rates[faultTornStep]; on && r.striking && !r.healed && r.chaos.IntN(3) == 0 {
			r.tearInstall(m)
		}
		if _, on := r.swarm.rates[faultPanic]; on && r.striking && !r.healed && r.chaos.IntN(6) == 0 {
			r.inject(m, messages.ActorIntake)
		}
	case *messages.Append:
		if kind := message.Message.GetType(); kind != raftpb.MsgStorageAppend {
			r.world.fail("appends are of the kind that raft makes", "%s appends a %v", m.name(), kind)
		}
	}
	if p, is := phaseOf(actorID, message); is {
		r.phased(p, m)
	}
}

// inSnapshot reports whether a snapshot comes to the machine, or goes from it.
func (m *machine) inSnapshot() bool {
	return m.up() && (m.disk.staging != nil || m.shipping > 0 || m.host.memory.installed > 0)
}

// phased draws whether a blow falls right now or a little later.
func (r *run) phased(p phase, m *machine) {
	chance, on := r.swarm.phases[p]
	if !on || r.healed || !r.striking || r.chaos.Float64() >= chance {
		return
	}
	b, h := blow(r.chaos.IntN(int(blows))), m.host
	r.coverage[phaseCell(p, b)]++
	strike := func() {
		if m.host == h && m.up() && !r.healed {
			r.fall(b, m)
		}
	}
	if r.chaos.IntN(3) > 0 {
		r.fuses = append(r.fuses, fuse{steps: 1 + r.chaos.IntN(12), burn: strike})
		return
	}
	r.world.clock.after(upTo(r.chaos, 50*time.Millisecond), nil, strike)
}

func (r *run) fall(b blow, m *machine) {
	switch b {
	case blowCrash, blowPowerCut:
		r.crash(m, b == blowPowerCut)
	case blowPartition:
		for _, o := range r.machines {
			if o != m {
				r.shut(m.name(), o.name(), r.lasting())
			}
		}
	case blowElection:
		r.unseat()
	case blowFreeze:
		r.freeze(m)
	}
}

// unseat keeps the leader from all other nodes for as long as an election takes.
func (r *run) unseat() {
	for _, m := range r.machines {
		if m.role() != "leader" {
			continue
		}
		for _, o := range r.machines {
			if o != m {
				r.shut(m.name(), o.name(), r.swarm.electionTimeout())
			}
		}
	}
}

// lag keeps one or two followers away, crashed or cut off, until so much was written
// that the leader's log has left them behind.
func (r *run) lag(m *machine) {
	target := r.check.last() + 5 + r.load.Uint64N(r.swarm.lag+1)
	until := r.world.clock.now + 10*time.Second
	left := len(r.machines) - len(r.machines)/2 - 1 // what more may be away: a quorum stays
	for _, o := range r.machines {
		if !o.up() {
			left--
		}
	}
	victims := []*machine{m}
	if r.chaos.IntN(2) == 0 {
		victims = append(victims, r.machines[r.chaos.IntN(len(r.machines))])
	}
	for _, v := range victims {
		if left <= 0 || !v.up() || v.role() == "leader" {
			continue
		}
		left--
		if r.chaos.IntN(2) == 0 {
			r.world.note(v.host, "the process is killed, and stays away up to index %d", target)
			v.crash(r.chaos.IntN(2) == 0)
			r.awaits(target, until, v.start)
		} else {
			r.note("%s is cut off up to index %d", v.name(), target)
			r.apart(v, true)
			r.awaits(target, until, func() { r.apart(v, false) })
		}
	}
}

// apart cuts a node off from all others, or ends that.
func (r *run) apart(m *machine, cut bool) {
	for _, o := range r.machines {
		if o != m {
			r.world.net.cut(m.name(), o.name(), cut)
			r.world.net.cut(o.name(), m.name(), cut)
		}
	}
}

// awaits does something once an index is committed, or a time has come; at healing
// all is undone anyway.
func (r *run) awaits(index uint64, until time.Duration, do func()) {
	r.world.clock.after(50*time.Millisecond, nil, func() {
		switch {
		case r.healed:
		case r.check.last() >= index || r.world.clock.now >= until:
			do()
		default:
			r.awaits(index, until, do)
		}
	})
}

// tear orders a crash within what a disk does next of some kind.
func (r *run) tear(m *machine) {
	if !m.up() {
		return
	}
	r.tearAt(m, CrashBeforeCut, crashPoints)
}

// tearInstall orders one within the installation of what comes to a node.
func (r *run) tearInstall(m *machine) { r.tearAt(m, CrashBeforeSeal, CrashBeforeCheckpoint) }

func (r *run) tearAt(m *machine, from, to CrashPoint) {
	at := from + CrashPoint(r.chaos.IntN(int(to-from)))
	r.world.note(m.host, "a crash is ordered: %v", at)
	m.disk.CrashNext(at)
}

// tornCell names what was torn.
func tornCell(at CrashPoint) string { return "crash-" + at.String() }

// failSnapshot lets a step of a snapshot, or of a cut, fail without a crash.
func (r *run) failSnapshot(m *machine) {
	if !m.up() {
		return
	}
	which := r.chaos.IntN(4)
	r.world.note(m.host, "a fault of the disk is ordered: %s", [...]string{"staging", "install", "cut", "file"}[which])
	[]func(){m.disk.FailNextStaging, m.disk.FailNextInstall, m.disk.FailNextCut, m.disk.FailNextArchive}[which]()
}

// decay alters a value on the disk of a minority. If it was written so, with a checksum
// that fits, its readers get what is there, and only the others can tell.
func (r *run) decay(m *machine, written bool) {
	lost := 0
	for _, o := range r.machines {
		if o.damaged || o.rotten() {
			lost++
		}
	}
	if m.damaged || m.rotten() || 2*(lost+1) >= len(r.machines) {
		return
	}
	key, revision, ok := m.disk.Rot(written)
	if !ok {
		return
	}
	m.rot = rot{key: key, revision: revision}
	r.note("%s: the value of %q at revision %d is altered, as it was written: %t", m.name(), key, revision, written)
}

// The altered values that were found: by an audit, or by who read them.
const (
	cellRotAudited = "rot-audited"
	cellRotRead    = "rot-read"
)

// rotCell is who found the altered value, as the node's last words say.
func (m *machine) rotCell(why string) string {
	if strings.Contains(why, "not what was written") {
		return cellRotRead
	}
	return cellRotAudited
}

// rotShows reports whether the altered value is what the key has now.
func (r *run) rotShows(m *machine) bool {
	all := r.check.model.versions[m.rot.key]
	return m.rotten() && len(all) > 0 && all[len(all)-1].revision == m.rot.revision && m.disk.now.engine.altered(m.rot.key, m.rot.revision)
}
