package sim

import (
	"strings"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim/disk"
)

// phase is a step of shipping a snapshot, or of cutting a log. A fault hurts most right
// after one. Sender and receiver have phases of their own.
type phase int

const (
	phaseOffered      phase = iota // the sender has offered
	phasePieceSent                 // the sender has sent a piece
	phaseEnded                     // the sender knows how it ended
	phaseOffer                     // the receiver was offered a snapshot
	phasePiece                     // the receiver has a piece
	phaseSealed                    // the receiver has all of it
	phaseStaged                    // its raft was told
	phaseInstalling                // its log was told to install it
	phaseInstalled                 // its machine was told to open it
	phaseSwitched                  // its machine has opened it
	phaseCheckpointed              // a checkpoint was written
	phaseCut                       // the log was told to be cut
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

// blow is what the blow after it is called.
func (p phase) blow() string { return "blow-after-" + p.String() }

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

// follow counts installed snapshots, and lets blows fall right after a phase.
func (r *run) follow(s *server, actorID string, message any) {
	switch message := message.(type) {
	case *messages.ShipSnapshot:
		s.shipping++
		r.outruns(s, message.Message.GetTo())
	case *messages.SnapshotShipped:
		if s.shipping--; message.Peer == 0 || s.shipping < 0 { // all that were under way have come to nothing
			s.shipping = 0
		}
	case *messages.Switched:
		r.installs++
		r.again(s, message.Index)
	case *messages.SnapshotOffer:
		if _, on := r.swarm.rates[faultTornStep]; on && r.strikes() && !r.healed && r.chaos.IntN(3) == 0 {
			r.tearInstall(s)
		}
		if _, on := r.swarm.rates[faultPanic]; on && r.strikes() && !r.healed && r.chaos.IntN(6) == 0 {
			r.inject(s, messages.ActorOf(messages.ActorIntake))
		}
	case *messages.Append:
		if kind := message.Message.GetType(); kind != raftpb.MsgStorageAppend {
			r.world.fail("appends are of the kind that raft makes", "%s appends a %v", s.name(), kind)
		}
	}
	if p, is := phaseOf(actorID, message); is {
		r.phased(p, s)
	}
}

// snapshotsMax is how many snapshots a node may install once nothing goes wrong any more:
// one was under way, and may be too old when it is there, and the next must do.
const snapshotsMax = 3

// again: a healed follower does not need one snapshot after the other, unless it is outrun. The lane
// of appends may still hang in a dial that began before.
func (r *run) again(s *server, index uint64) {
	s.installed = index
	if !r.healed || s.outrun || r.world.clock.now < r.healedAt+dialTimeout+backoffMax {
		return
	}
	if s.switched++; s.switched > snapshotsMax {
		r.world.fail("snapshots help", "%s has installed %d snapshots since the world was healed, and the log would have kept what came behind the one before",
			s.name(), s.switched)
	}
}

// outruns: until clients fall silent, more may come behind a snapshot on its way than the leader's
// options let its log keep. Then the one who has installed it needs the next that is shipped.
func (r *run) outruns(leader *server, to messages.RaftID) {
	node, there := r.check.holder(to)
	if !there {
		return
	}
	s, most := r.servers[node], r.swarm.options.Raft.PinnedBytesMax // 0: more than any run writes
	s.outrun = !r.quiet && most > 0 && s.installed > 0 && r.check.bytesAbove(leader.node, s.installed) > most
}

// inSnapshot reports whether a snapshot comes to the server, or goes from it.
func (s *server) inSnapshot() bool {
	return s.up() && (s.disk.Staging() || s.shipping > 0 || s.host.memory.installed > 0)
}

// phased draws whether a blow falls right now or a little later.
func (r *run) phased(p phase, s *server) {
	if chance, on := r.swarm.phases[p]; on && !r.healed && r.strikes() {
		r.by(p.blow(), func() { r.swing(p, s, chance) })
	}
}

func (r *run) swing(p phase, s *server, chance float64) {
	if r.chaos.Float64() >= chance {
		return
	}
	b, h := blow(r.chaos.IntN(int(blows))), s.host
	r.coverage[phaseCell(p, b)]++
	strike := func() {
		if s.host == h && s.up() && !r.healed && !r.held {
			r.note("%s strikes at %s", phaseCell(p, b), s.name())
			r.by(p.blow(), func() { r.fall(b, s) })
		}
	}
	if r.chaos.IntN(3) > 0 {
		r.fuses = append(r.fuses, fuse{steps: 1 + r.chaos.IntN(12), burn: strike})
		return
	}
	r.world.clock.after(upTo(r.chaos, 50*time.Millisecond), nil, strike)
}

func (r *run) fall(b blow, s *server) {
	switch b {
	case blowCrash, blowPowerCut:
		r.crash(s, b == blowPowerCut)
	case blowPartition:
		for _, o := range r.servers {
			if o != s {
				r.shut(s.name(), o.name(), r.lasting())
			}
		}
	case blowElection:
		r.unseat()
	case blowFreeze:
		r.freeze(s)
	}
}

// unseat keeps the leader from all other nodes for as long as an election takes.
func (r *run) unseat() {
	for _, s := range r.servers {
		if s.role() != "leader" {
			continue
		}
		for _, o := range r.servers {
			if o != s {
				r.shut(s.name(), o.name(), r.swarm.electionTimeout())
			}
		}
	}
}

// lag keeps one or two followers away, crashed or cut off, until so much was written
// that the leader's log has left them behind.
func (r *run) lag(s *server) {
	target := r.check.last() + 5 + r.chaos.Uint64N(r.swarm.lag+1)
	until := r.world.clock.now + 10*time.Second
	gone := map[*server]bool{}
	victims := []*server{s}
	if r.chaos.IntN(2) == 0 {
		victims = append(victims, r.servers[r.chaos.IntN(len(r.servers))])
	}
	for _, v := range victims {
		if !v.up() || v.role() == "leader" || !r.suffices(func(o *server) bool { return o == v || gone[o] || !o.up() }) {
			continue
		}
		gone[v] = true
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
func (r *run) apart(s *server, cut bool) {
	for _, o := range r.servers {
		if o != s {
			r.world.net.cut(s.name(), o.name(), cut)
			r.world.net.cut(o.name(), s.name(), cut)
		}
	}
}

// awaits does something once an index is committed, or a time has come, unless the
// world is healed before: healing undoes everything.
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

// tear orders a crash within the disk's next cut, seal, installation or checkpoint.
func (r *run) tear(s *server) {
	if !s.up() {
		return
	}
	r.tearAt(s, disk.CrashBeforeCut, disk.CrashAfterCheckpoint+1)
}

// tearInstall orders one within the installation of a snapshot.
func (r *run) tearInstall(s *server) { r.tearAt(s, disk.CrashBeforeSeal, disk.CrashBeforeCheckpoint) }

func (r *run) tearAt(s *server, from, to disk.CrashPoint) {
	at := from + disk.CrashPoint(r.chaos.IntN(int(to-from)))
	r.world.note(s.host, "a crash is ordered: %v", at)
	s.disk.CrashNext(at)
}

// tornCell names what was torn.
func tornCell(at disk.CrashPoint) string { return "crash-" + at.String() }

// failSnapshot lets a step of a snapshot, or of a cut, fail without a crash.
func (r *run) failSnapshot(s *server) {
	if !s.up() {
		return
	}
	which := r.chaos.IntN(4)
	r.world.note(s.host, "a fault of the disk is ordered: %s", [...]string{"staging", "install", "cut", "file"}[which])
	[]func(){s.disk.FailNextStaging, s.disk.FailNextInstall, s.disk.FailNextCut, s.disk.FailNextArchive}[which]()
}

// decay alters a value on the disks of a minority. If it was written so, with a checksum
// that fits, its readers get what is there, and only the others can tell.
func (r *run) decay(s *server, written bool) {
	if r.spared(s) {
		return
	}
	key, revision, ok := s.disk.Rot(written)
	if !ok {
		return
	}
	s.rot = rot{key: key, revision: revision}
	r.note("%s: the value of %q at revision %d is altered, as it was written: %t", s.name(), key, revision, written)
}

// misstate alters the checkpoint of one of a minority, as if it had been written so. The
// next process goes on from there, and only the others can tell.
func (r *run) misstate(s *server) {
	if r.spared(s) {
		return
	}
	r.crash(s, false)
	s.disk.AlterState()
	s.rot = rot{state: true}
	r.note("%s: the checkpoint is altered", s.name())
}

// inherit: a state that was installed has what its sender's had, and nothing of what was
// there before.
func (r *run) inherit(s *server) {
	if s.rotten() {
		s.was = s.rot
		for _, id := range s.disk.Files() {
			if s.spoilt == nil {
				s.spoilt = map[string]bool{}
			}
			s.spoilt[id] = true
		}
	}
	s.rot = rot{}
	for _, o := range r.servers {
		switch {
		case o == s:
		case o.rot.state && r.check.reference.differs(s.disk.LastCheckpoint()) != "",
			!o.rot.state && o.rotten() && s.disk.Inherited(o.disk, o.rot.key, o.rot.revision):
			s.rot = o.rot
			r.note("%s: the state that is installed is altered as that of %s", s.name(), o.name())
			r.coverage[cellRotShipped]++
		}
	}
}

// recur: a power cut may have brought the state back that was there before an installation.
func (r *run) recur(s *server) {
	before, is := s.was, s.disk.LastCheckpoint() // nil: the disk was wiped since
	if before.state && is != nil && r.check.reference.differs(is) != "" || before.revision != 0 && s.disk.Altered(before.key, before.revision) {
		s.rot = before
	}
}

// undecided reports whether nobody can tell which of two states is the altered one: the sound
// members that are no copies of others are no majority. Then no node ends itself, and none
// that differs from another ships its state.
func (r *run) undecided() bool {
	altered, sound := false, 0
	for _, s := range r.servers {
		if !s.up() || !s.isMember() || s.aged {
			continue
		}
		lineage, _ := s.disk.Lineage()
		altered = altered || s.rotten()
		if !s.rotten() && len(lineage.GetFrom()) == 0 && s.host.memory.applied == r.check.last() {
			sound++
		}
	}
	return altered && 2*sound <= len(r.check.reference.state.Members())
}

// The altered values that were found: by an audit, or by who read them.
const (
	cellRotAudited = "rot-audited"
	cellRotRead    = "rot-read"
	cellRotShipped = "rot-shipped" // and those that went on with a snapshot
)

// rotCell is who found the altered value, as the node's last words say.
func (s *server) rotCell(why string) string {
	if strings.Contains(why, "not what was written") {
		return cellRotRead
	}
	return cellRotAudited
}

// rotShows reports whether the altered value is what the key has now.
func (r *run) rotShows(s *server) bool {
	if s.rot.state {
		return true
	}
	all := r.check.model.versions[s.rot.key]
	return s.rotten() && len(all) > 0 && all[len(all)-1].revision == s.rot.revision && s.disk.Altered(s.rot.key, s.rot.revision)
}
