package sim

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors"
	"keyval/actors/seam"
	"keyval/messages"
	"keyval/sim/disk"
	"keyval/sim/phrase"
)

// server is one node's hardware: a disk that outlives the node's processes, and
// the process that runs on it now. Which replica it holds its identity says: it may be
// none yet, and another one after the disk was emptied.
type server struct {
	run    *run
	node   int // its index, name and address
	disk   *disk.Disk
	host   *host    // nil: no process runs
	joins  []string // whom it asks to be let into the cluster; nil: it is a founder's
	place  int      // which of its addresses it has now
	starts int
	pace   pace
	level  uint32 // the highest cluster level that its software supports; 0: messages.Level

	since        time.Duration   // its process runs, or none does
	knows        knows           // what its membership was told
	vouching     map[uint64]bool // for whom its audit was asked whether the state may be shipped
	leader       messages.RaftID // as the node was told last; 0: nobody
	fenced       bool            // as it says of itself: it may have lost data
	stalledUntil time.Duration   // no sync of its log ends before

	shipping  int    // snapshots on their way from the process
	installed uint64 // index of the last snapshot that was; 0: none
	outrun    bool   // more has come behind that than the leader kept, which ships another
	switched  int    // snapshots that were installed since the world was healed, without that

	struckAt uint64                       // the step in which a fault of the disk met the process, which may end itself then
	damaged  bool                         // synced data are gone: it must notice, and never serve again
	aged     bool                         // its directory is an older copy: it must be told, and never take part again
	removers map[messages.RaftID]bool     // who has refused its process as that of a member that was removed
	voices   map[messages.RaftID]bool     // who has spoken against its process, or for those who did
	acks     map[messages.RaftID]position // what the process has heard others acknowledge last
	rot      rot                          // a value is not what was synced; the others have to find it
	was      rot                          // the same of the state before the last that was installed, which may count again
	spoilt   map[string]bool              // snapshot files that may have been written of an altered state
}

func (s *server) name() string   { return nameOf(s.node) }
func (s *server) up() bool       { return s.host != nil && !s.host.dead }
func (s *server) listen() string { return s.addresses()[s.place] }

// addresses are the places where the server may stand, the first one first.
func (s *server) addresses() []string {
	return []string{phrase.Address(s.node), fmt.Sprintf("10.1.0.%d:7001", s.node+1)}
}

// id is that of the replica that it holds; 0: none yet.
func (s *server) id() messages.RaftID { return s.run.check.nodes[s.node].id }

// role is what a node believes to be, for the count of what was covered.
func (s *server) role() string {
	switch {
	case !s.up():
		return "down"
	case s.leader != 0 && s.leader == s.id():
		return "leader"
	case s.leader == 0:
		return "candidate"
	}
	return "follower"
}

// media is what the checkers see of the disk.
func (s *server) media() media {
	is := media{checkpoint: s.disk.LastCheckpoint()}
	if !s.damaged && !s.rotten() {
		is.rows = s.disk.SnapshotRows
	}
	return is
}

// start runs a process on the server, as kvctl serve does, unless it is to stay down.
func (s *server) start() {
	if s.up() || s.run.leftDown[s.node] {
		return
	}
	s.starts++
	s.since, s.knows, s.vouching = s.run.world.clock.now, knows{}, map[uint64]bool{}
	s.host = &host{
		world: s.run.world, name: s.name(), node: s.node, pace: s.pace, delay: s.run.delayOf(s),
		memory: &memory{},
	}
	s.leader, s.fenced, s.shipping, s.removers, s.voices, s.acks = 0, false, 0, map[messages.RaftID]bool{}, map[messages.RaftID]bool{}, map[messages.RaftID]position{}
	s.run.world.note(s.host, "process %d starts", s.starts)
	s.upgrade()
	s.begin(reader{stream(s.run.options.Seed, fmt.Sprintf("%s/%d", s.name(), s.starts))})
}

// begin starts the node of a process: once more in the same process when it has joined.
func (s *server) begin(random reader) {
	w := s.run.world
	s.run.recur(s)
	identity, err := actors.Prepare(s.disk, random, s.identity())
	if err == nil {
		id := messages.RaftIDOf(identity)
		s.run.check.starts(s.node, id)
		w.trace.names.Own(s.name(), identity.Incarnation, id)
		_, err = actors.Start(actors.Config{
			Disk: s.disk, Network: place{w.net, s.host}, Version: "simulated", Level: s.level, Options: s.run.swarm.options,
			World: s.host.seams(random),
			Ended: func(removed *messages.Removed) { w.clock.after(0, s.host, func() { s.ended(random, removed) }) },
		}, identity)
	}
	if err != nil {
		s.host.fatal(err)
	}
}

// ended: the node has stopped by itself, since it knows now which replica it is, or
// since it was removed.
func (s *server) ended(random reader, removed *messages.Removed) {
	if removed == nil {
		s.begin(random)
		return
	}
	if s.isMember() {
		s.run.world.fail("members are not removed", "%s ends itself: %s", s.name(), removed.Why)
	}
	if fewest := s.run.votersMin(); !s.run.options.blind && len(s.removers) < min(fewest-1, fewest/2+1) {
		s.run.world.fail("majorities send away", "%s ends itself, and %d of %d have refused it: %s", s.name(), len(s.removers), fewest, removed.Why)
	}
	s.run.world.note(s.host, "the process ends: %s", removed.Why)
	s.crash(false)
}

// levelNewest is what the newest software of a run with levels supports.
const levelNewest = 3

// upgrade puts newer software on the server now and then: levels only rise.
func (s *server) upgrade() {
	if !s.run.swarm.levels {
		return
	}
	chance := stream(s.run.options.Seed, fmt.Sprintf("%s/%d/software", s.name(), s.starts))
	if s.level == 0 {
		s.level = 1 + uint32(chance.IntN(levelNewest))
	} else if chance.IntN(2) == 0 {
		s.level = min(s.level+uint32(chance.IntN(levelNewest)), levelNewest)
	}
	s.run.world.note(s.host, "its software supports cluster levels up to %d", s.level)
}

// seams are those of a process that are not disk or network.
func (h *host) seams(random reader) seam.World {
	h.meter = prometheus.NewRegistry()
	wall := func() int64 { return h.world.clock.now.Milliseconds() }
	return seam.World{Runtime: h, Ticker: h, Rand: random, Fatal: h.fatal, Logger: slog.New(slog.DiscardHandler), Meter: h.meter, WallMS: wall}
}

// token is that of every cluster that is founded.
const token = "simulated"

func (s *server) identity() *messages.Identity {
	want := &messages.Identity{Name: s.name(), Listen: s.listen(), Advertise: s.listen(), Join: s.joins}
	if s.joins != nil {
		return want
	}
	want.Token = token
	for _, o := range s.run.servers[:s.run.swarm.nodes] {
		want.Founders = append(want.Founders, &messages.Founder{Name: o.name(), Address: o.addresses()[0]})
	}
	return want
}

// crash ends the process; the page cache stays. A power cut takes that too, and
// nobody is left to tell the other ends of its connections.
func (s *server) crash(powerCut bool) {
	if s.up() {
		s.run.world.kill(s.host, powerCut)
	}
	if s.host != nil {
		s.since = s.run.world.clock.now
	}
	s.host = nil
	if powerCut {
		s.disk.PowerCut()
	} else {
		s.disk.Crash()
	}
}

// restartLater starts the server again, after a while that is drawn.
func (s *server) restartLater() {
	delay := time.Duration(s.run.chaos.ExpFloat64() * float64(s.run.swarm.down))
	s.run.world.clock.after(min(delay, 10*time.Second), nil, func() {
		if s.disk.Retired() == "" {
			s.start()
		}
	})
}

// delayOf says how long a node's actors take with disks as slow as drawn.
func (r *run) delayOf(s *server) func(string, any) time.Duration {
	return func(actorID string, message any) time.Duration {
		if r.healed {
			return 0
		}
		switch message.(type) {
		case *messages.Flush:
			if actorID == messages.ActorLog {
				return max(s.stalledUntil-r.world.clock.now, upTo(r.world.chance, r.swarm.fsync+r.slowness[s.node]))
			}
		case *messages.StageChunk:
			return upTo(r.world.chance, r.swarm.stage+r.slowness[s.node])
		case *messages.CommitSynced, *messages.SyncCommit:
			return upTo(r.world.chance, r.swarm.fsync+r.slowness[s.node])
		case *messages.ReadAt, *messages.ReadRows:
			if strings.HasPrefix(actorID, messages.ActorReaderPrefix) {
				return upTo(r.world.chance, r.swarm.read+r.slowness[s.node])
			}
		case *messages.Apply:
			return upTo(r.world.chance, r.swarm.apply+r.slowness[s.node])
		}
		return 0
	}
}

func upTo(chance *rand.Rand, limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	return time.Duration(chance.Int64N(int64(limit)))
}

// struck: a fault of the disk meets the process, which may end itself for it in this
// step. One that crashed is over when the step is.
func (s *server) struck(crashed bool) {
	s.struckAt = s.run.world.steps
	if !crashed {
		return
	}
	_, at := s.disk.LastFault()
	s.run.coverage[tornCell(at)]++
	if s.inSnapshot() {
		s.run.interrupted++
	}
	h := s.host
	s.run.fuses = append(s.run.fuses, fuse{steps: 1, burn: func() { h.fatal(disk.ErrCrashed) }})
}

// rot is a version that the world has altered on a disk.
type rot struct {
	key      string
	revision uint64 // 0: none
	state    bool   // not a version, but the checkpoint
}

// is reports whether an item is of the version.
func (r rot) is(i *messages.Item) bool { return string(i.Key) == r.key && i.Revision == r.revision }

// lost reports whether the disk is not what it was: the node is, or has to be, out of service.
func (s *server) lost() bool { return s.damaged || s.aged || s.rotten() }

func (s *server) rotten() bool { return s.rot.revision != 0 || s.rot.state }

// mend leaves no fault on a server, and lets it run unless it is to stay down.
func (s *server) mend() {
	s.pace = pace{rate: 1}
	s.disk.MendFaults()
	switch {
	case s.run.leftDown[s.node], s.damaged, s.disk.Retired() != "":
		if s.up() {
			s.crash(false)
		}
		return
	case s.up():
		s.host.pace, s.host.burst, s.host.sabotage = s.pace, 0, nil
		s.host.thaw()
	default:
		s.start()
	}
}

// serves: a node with damaged data opens its log or its state, never both.
func (s *server) serves() {
	if s.damaged && s.host.memory.log && s.host.memory.opened {
		s.run.world.fail("damaged data are noticed", "%s serves, though data that it had synced are gone", s.name())
	}
}
