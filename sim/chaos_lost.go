package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/sim/disk"
)

// What disks lose, and what others say of it.

// spared reports whether a server must keep its data: it is not part of a cluster yet,
// or has lost some already, or with it a quorum would have.
func (r *run) spared(s *server) bool {
	initialised, _ := s.disk.Initialised()
	return !initialised || r.check.last() == 0 || s.lost() || r.needs(s)
}

// needs reports whether a quorum may be gone with a server.
func (r *run) needs(s *server) bool {
	return !r.suffices(func(o *server) bool { return o == s || o.lost() })
}

// wipe empties the disk of one of a minority. What starts there knows nothing, and those
// who knew the node before must not take it for that one. One that founded alone has nobody
// to ask who it was, and founds again: another cluster.
func (r *run) wipe(s *server) {
	alone := r.swarm.nodes == 1
	if r.spared(s) || r.founding() || alone || s.joins != nil { // one that joins would be let in again: see churn
		return
	}
	if s.up() {
		r.world.note(s.host, "the server is replaced by one with an empty disk")
	}
	s.crash(true)
	s.disk.LoseMedia()
	s.damaged = true
	s.restartLater()
}

// damage takes synced data from a minority. The process that starts on what is
// left has to notice.
func (r *run) damage(s *server) {
	if r.spared(s) {
		return
	}
	if s.up() {
		r.world.note(s.host, "the power is cut, and the disk damaged")
	}
	s.crash(true)
	if r.chaos.IntN(2) == 0 {
		s.disk.LoseState()
		s.damaged = true
	} else {
		s.damaged = s.loseTail(r.chaos.IntN(5))
	}
	s.restartLater()
}

// loseTail takes entries off the end of a log, down to some that its witness
// knows. A witness that the power cut took back knows less than was synced: to
// lose just what it does not know is a second fault, which only the leader's
// next heartbeat can show.
func (s *server) loseTail(more int) (noticeable bool) {
	_, last, _ := s.disk.Durable()
	known, base := s.disk.Witnessed(), s.disk.Base()
	if known <= base {
		return false
	}
	s.disk.LoseTail(int(min(last-known+1+uint64(more), last-base)))
	return true
}

// rollBack puts the directory of one of a minority back to an older copy. Meanwhile a bare
// quorum goes on with it, and counts on what it acknowledges then; the others are cut off,
// and know neither that nor the process. So whatever is acknowledged is lost if the node
// votes with them.
func (r *run) rollBack(v *server) {
	if r.rolling || r.spared(v) {
		return
	}
	if v.disk.Base() == 0 { // it has joined and got nothing yet: it has promised nothing, and knows nobody to ask
		return
	}
	r.rolling = true
	v.crash(false)
	at := v.disk.LastCheckpoint()
	was := older{copy: v.disk.Copy(), starts: v.disk.Started(), voters: at.GetConfState().GetVoters(), members: at.GetMembers()}
	for _, o := range r.servers {
		_, last, _ := o.disk.Durable()
		was.last = max(was.last, last)
	}
	v.start()
	lasting := r.swarm.electionTimeout() + upTo(r.chaos, 2*r.swarm.electionTimeout())
	bystanders := map[*server]bool{}
	for _, i := range r.chaos.Perm(len(r.servers)) {
		o := r.servers[i]
		away := func(other *server) bool { return other == o || bystanders[other] || other.lost() }
		if o != v && r.suffices(away) {
			bystanders[o] = true
		}
	}
	for _, o := range r.servers {
		for _, other := range r.servers {
			if bystanders[o] && !bystanders[other] {
				r.shut(o.name(), other.name(), lasting+r.lasting())
			}
		}
	}
	r.world.clock.after(lasting, nil, func() {
		r.rolling = false
		if !r.healed && !r.held && !r.spared(v) {
			r.by(faultRolledBack.String(), func() { r.putBack(v, was) })
		}
	})
}

// older is a directory as it was.
type older struct {
	copy   disk.Copy
	starts uint64 // of processes on it
	last   uint64 // index at which the longest of all logs ended then

	// of its checkpoint: whoever starts on the copy knows no others
	voters  []uint64
	members []*messages.Member // with their addresses
}

// finds reports whether the process on it finds another server: whoever knows better refuses
// its hello, so it has to reach that one.
func (o older) finds(s *server) bool {
	return slices.ContainsFunc(o.members, func(m *messages.Member) bool { return m.RaftId == s.id() && m.Address == s.listen() })
}

// putBack needs one who knows better: it has heard a process that ran on the directory since,
// or if log and state alone are put back, it leads and has committed entries by their
// acknowledgement. Nobody could notice without. So the world holds its breath until the node
// is told.
func (r *run) putBack(v *server, was older) {
	parts := r.chaos.IntN(2) == 0
	var knows []*server
	for _, o := range r.servers {
		if o == v || !o.up() || o.host.frozen || o.host.doomed || o.lost() || !slices.Contains(was.voters, o.id()) || !was.finds(o) {
			continue // learners are not asked, nor who has moved since
		}
		if parts && o.countsOn(v, was.last) && v.disk.Started() > was.starts ||
			!parts && o.disk.HeardOf(v.id()) > was.starts {
			knows = append(knows, o)
		}
	}
	if len(knows) == 0 {
		return
	}
	k := pick(r.chaos, knows...)
	v.crash(false)
	if parts {
		r.coverage[cellParts]++
		fit := r.chaos.IntN(3) > 0
		r.note("%s: log and state are older ones, and %s counts on more; as if they belonged there: %t", v.name(), k.name(), fit)
		if v.disk.RestoreLog(was.copy, fit); !fit { // it notices by itself
			v.damaged = true
			v.rolledBack()
			v.restartLater()
			return
		}
	} else {
		r.note("%s: the data directory is an older copy, and %s knows better", v.name(), k.name())
		v.disk.Restore(was.copy)
	}
	v.rolledBack()
	v.aged = true
	for _, s := range []*server{v, k} {
		s.disk.MendFaults()
		s.pace, r.slowness[s.node], s.stalledUntil = pace{rate: 1}, 0, 0
	}
	k.host.pace, k.host.burst, k.host.sabotage = k.pace, 0, nil
	for _, way := range [][2]string{{v.name(), k.name()}, {k.name(), v.name()}} {
		r.world.net.cut(way[0], way[1], false)
		r.world.net.wayOf(way[0], way[1]).quality = r.swarm.calm()
	}
	r.held = true
	v.start()
	term := uint64(0) // any: its disk knows
	if parts {
		term = k.host.memory.term
	}
	r.holdBreath(v, k, term, r.world.clock.now+noticeMax)
}

// countsOn reports whether a leader has committed entries above an index that another node
// has acknowledged to it.
func (s *server) countsOn(other *server, above uint64) bool {
	ack := s.acks[other.id()]
	return s.role() == "leader" && ack.term == s.host.memory.term && min(ack.index, s.host.memory.commit) > above
}

// noticeMax is how long a node whose directory is an older copy may not have been told so by
// a member that it reaches.
const noticeMax = 3 * time.Second

// holdBreath waits until the one who knows has told the node. term is that of its lead, if it
// knows no longer than it leads; else 0.
func (r *run) holdBreath(v, k *server, term uint64, until time.Duration) {
	r.world.clock.after(time.Millisecond, nil, func() {
		switch {
		case r.healed || !r.held:
		case v.disk.Retired() != "" || !v.isMember(): // it was removed, and is told that instead
			r.giveUp(v)
		case !k.up() || term > 0 && (k.role() != "leader" || k.host.memory.term != term):
			if !v.disk.Suspected() && v.disk.Condemned() == "" { // nobody is left who knows
				r.giveUp(v)
				return
			}
			fallthrough
		case v.disk.Suspected() || v.disk.Condemned() != "":
			r.held = false
			r.by(faultRolledBack.String(), func() { r.aftermath(v, k) })
		case r.world.clock.now >= until:
			r.world.fail("older copies are noticed", "%s runs on an older copy of its directory, and %s, which has heard a process that ran on it since, has not told it", v.name(), k.name())
		default:
			r.holdBreath(v, k, term, until)
		}
	})
}

// giveUp takes a server away for good, whoever was to start it again.
func (r *run) giveUp(v *server) {
	r.held, v.damaged, r.leftDown[v.node] = false, true, true
	v.crash(false)
}

// aftermath: mostly the one who knew goes away for a while, and somebody starts the node
// again at once.
func (r *run) aftermath(v, k *server) {
	r.coverage[cellSuspected]++
	if r.chaos.IntN(3) == 0 {
		return
	}
	k.crash(r.chaos.IntN(2) == 0)
	v.crash(r.chaos.IntN(2) == 0)
	v.start()
	r.after(r.swarm.electionTimeout()+r.lasting(), k.start)
}

// What became of a node whose directory is an older copy.
const (
	cellParts     = "rolled-back-in-parts"
	cellSuspected = "suspected"
	cellCondemned = "condemned"
)

// forge lets a node hear a heartbeat that nobody sent, of its term, which counts on entries
// that it does not have.
func (r *run) forge(s *server) {
	from := r.servers[r.chaos.IntN(len(r.servers))]
	if r.chaos.IntN(2) == 0 {
		for _, o := range r.servers {
			if s.leader != 0 && s.leader == o.id() {
				from = o
			}
		}
	}
	// One that stands still would take it once the world is healed, and doubt whoever led before.
	if from == s || !s.up() || s.host.frozen || !s.host.memory.log || s.lost() {
		return
	}
	_, last, _ := s.disk.Durable()
	s.forged(from, last+1+r.chaos.Uint64N(1000))
}

// forged brings a heartbeat to the process.
func (s *server) forged(from *server, commit uint64) {
	self, other, term := s.id(), from.id(), s.host.memory.term
	s.run.world.note(s.host, "a heartbeat that %s never sent counts on index %d", from.name(), commit)
	s.host.system.Root.Send(s.host.system.NewLocalPID(messages.ActorRaft), &messages.RaftMessage{Message: &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: &other, To: &self, Term: &term, Commit: &commit,
	}})
}
