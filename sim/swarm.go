package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"keyval/actors"
	"keyval/raftactor"
)

// swarm is what one run draws: the cluster, its options, its clients, and how often it
// meets which faults. Runs that leave out most faults find more than runs that have a
// little of everything.
type swarm struct {
	nodes   int
	clients int
	depth   int // operations a client keeps under way, at most
	keys    int
	ranges  bool          // clients also delete ranges
	reading int           // so many more operations of a hundred are reads
	idlers  int           // clients that only read
	hasty   int           // so many operations of a hundred have hardly any time
	think   time.Duration // between a client's operations, on average
	ttl     time.Duration // of the clients' sessions, in log time; 0: the default
	options actors.Options

	way    quality
	cost   time.Duration // a step takes up to this
	fsync  time.Duration // what an append costs, up to
	apply  time.Duration // what an apply costs, up to
	read   time.Duration // what a read costs, up to
	skewed bool          // clocks run at rates of their own

	rates       map[fault]time.Duration // on average between two of a kind; absent: never
	aims        map[aim]float64         // how likely a crash follows
	phases      map[phase]float64       // how likely a blow follows
	lag         uint64                  // how many entries a follower may be left behind
	stage       time.Duration           // what a staged chunk costs, up to
	still       bool                    // some keys are written once
	compacts    bool                    // clients give up history
	levels      bool                    // nodes start with different software and are upgraded, and clients have the level raised
	rights      time.Duration           // between two changes of who may do what, on average; 0: nobody says
	invitations time.Duration           // between two things that become of invitations, on average; 0: nobody is invited
	spares      int                     // machines that wait to be added; 0: the members stay as they are
	asking      time.Duration           // between two things that the operator does, on average
	steps       float64                 // how likely a blow follows a step of a change of the members
	blows       []stepBlow              // are aimed at, until each has met somebody
	conditional int                     // so many operations of a hundred have conditions
	down        time.Duration           // a crashed node stays away, on average
	backups     time.Duration           // between two tries of a backup, about; 0: none are made
}

// draw makes the swarm of a run. With no faults the network is fair, disks are
// instant and nothing breaks.
func draw(chance *rand.Rand, o Options) *swarm {
	s := &swarm{
		nodes: o.Nodes, clients: 1 + chance.IntN(6), depth: 1 + chance.IntN(3), keys: 1 + chance.IntN(12), ranges: chance.IntN(2) == 0,
		ttl:   pick(chance, 0, time.Second, 3*time.Second),
		think: pick(chance, 5*time.Millisecond, 20*time.Millisecond, 100*time.Millisecond),
		down:  pick(chance, 50*time.Millisecond, 500*time.Millisecond, 3*time.Second),
		rates: map[fault]time.Duration{}, aims: map[aim]float64{}, phases: map[phase]float64{},
		way: quality{latency: time.Millisecond},
	}
	if s.nodes == 0 {
		s.nodes = pick(chance, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7)
	}
	if o.Rate > 0 {
		s.think = time.Duration(float64(s.clients) / o.Rate * float64(time.Second))
	}
	s.reading = pick(chance, 0, 0, 80)
	s.idlers = pick(chance, 0, 0, s.clients/2, s.clients-1)
	s.hasty = pick(chance, 0, 0, 5, 40)
	s.compacts = chance.IntN(2) == 0
	s.conditional = pick(chance, 0, 10, 10, 60)
	s.drawOptions(chance)
	s.drawHistory(chance)
	if !o.Faults {
		return s
	}
	// Nobody can be elected where an answer takes longer than an election.
	patience := s.electionTimeout() / 2
	s.way.latency = pick(chance, 50*time.Microsecond, patience/200, patience/40, patience/16)
	s.way.jitter = pick(chance, 0, s.way.latency/2, 2*s.way.latency)
	s.cost = pick(chance, 0, 0, time.Microsecond, 5*time.Microsecond)
	s.fsync = pick(chance, 0, patience/200, patience/40, patience/8)
	s.apply = pick(chance, 0, 0, patience/200, patience/20)
	s.read = pick(chance, 0, 0, patience/200, patience/8)
	s.stage = pick(chance, 0, patience/200, patience/20)
	s.skewed = chance.IntN(3) == 0
	for f := range faultRot {
		if chance.IntN(3) == 0 {
			s.rates[f] = pick(chance, time.Second, 3*time.Second, 10*time.Second, 30*time.Second)
		}
	}
	for a := range aims {
		if chance.IntN(3) == 0 {
			s.aims[a] = a.often() * pick(chance, 1, 0.3, 0.1, 0.02)
		}
	}
	for p := range phases {
		if chance.IntN(2) == 0 {
			s.phases[p] = p.often() * pick(chance, 1, 0.5, 0.2)
		}
	}
	s.sharpen(chance)
	for f := faultRolledBack; f < faults; f++ {
		if chance.IntN(3) == 0 {
			s.rates[f] = pick(chance, time.Second, 3*time.Second, 10*time.Second)
		}
	}
	s.leaveOut(o.Without)
	return s
}

// leaveOut takes faults out of what was drawn. What the others draw stays the same.
func (s *swarm) leaveOut(names []string) {
	out := func(name string) bool { return slices.Contains(names, name) }
	maps.DeleteFunc(s.rates, func(f fault, _ time.Duration) bool { return out(f.String()) })
	maps.DeleteFunc(s.aims, func(a aim, _ float64) bool { return out(a.crash()) })
	maps.DeleteFunc(s.phases, func(p phase, _ float64) bool { return out(p.blow()) })
}

// FaultNames are the names of all that may go wrong, and may be left out.
func FaultNames() []string {
	var names []string
	for f := range faults {
		names = append(names, f.String())
	}
	for a := range aims {
		names = append(names, a.crash())
	}
	for p := range phases {
		names = append(names, p.blow())
	}
	return names
}

// sharpen draws the faults that hurt a cluster of this size most more often.
func (s *swarm) sharpen(chance *rand.Rand) {
	soon := func(f fault) { s.rates[f] = pick(chance, time.Second, 3*time.Second) }
	switch {
	case s.nodes > 3 && chance.IntN(3) == 0:
		// An orphan takes some elections in peace, and entries to quarrel about.
		for f := range faults {
			if chance.IntN(4) > 0 {
				delete(s.rates, f)
			}
		}
		s.rates[faultOrphan] = time.Second
		s.options.Raft.ElectionTicks = 5
		s.way.latency = min(s.way.latency, s.electionTimeout()/32) // as above
		s.way.jitter = min(s.way.jitter, 2*s.way.latency)
		s.think = 5 * time.Millisecond
	case s.nodes > 1 && chance.IntN(2) == 0:
		soon(faultDeposed)
		s.clients = max(s.clients, 2)
	case s.nodes > 1 && chance.IntN(3) > 0:
		soon(faultLag)
		s.think = min(s.think, 20*time.Millisecond)
	case s.nodes > 2 && chance.IntN(3) == 0:
		s.letRot(chance)
	case s.nodes == 1:
		// A node alone has nobody to tell it what is committed: after a crash it may serve
		// reads before it has applied its log again.
		soon(faultCrash)
		s.aims[aimCommit] = aimCommit.often()
		s.down = 50 * time.Millisecond
		s.fsync = s.electionTimeout() / 8
	}
}

func (s *swarm) drawOptions(chance *rand.Rand) {
	s.options = actors.Options{
		TickInterval: pick(chance, 20*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond),
		Readers:      1 + chance.IntN(4),
		Raft: raftactor.Options{
			ElectionTicks:      pick(chance, 5, 10, 10, 20),
			HeartbeatTicks:     pick(chance, 1, 2),
			AppendsInFlightMax: pick(chance, 1, 2, 4),
			MaxSizePerMsg:      pick[uint64](chance, 0, 256, 4<<10, 64<<10),
			MaxInflightMsgs:    pick(chance, 0, 2, 16),
			MaxCommitted:       pick[uint64](chance, 0, 512, 16<<10),
			NoPreVote:          chance.IntN(4) == 0,
		},
		CheckpointEntries: pick[uint64](chance, 0, 10, 50, 500),
		CheckpointTicks:   pick[uint32](chance, 0, 10, 50),
	}
}

// drawHistory draws how much of log and history is kept. Mostly it is little, so that
// snapshots are needed.
func (s *swarm) drawHistory(chance *rand.Rand) {
	o := &s.options
	o.HistoryRevisions = pick[uint64](chance, 0, 0, 10, 100, 1000)
	o.HistoryTime = pick[time.Duration](chance, 0, 0, time.Second, 5*time.Second)
	o.AuditTicks = pick[uint32](chance, 0, 1, 4, 20)
	o.SnapshotChunkBytes = pick(chance, 0, 200, 200, 1000, 16<<10)
	o.SnapshotRate = pick[uint64](chance, 0, 0, 128<<10, 1<<20)
	s.lag = pick[uint64](chance, 20, 100, 400)
	if chance.IntN(4) == 0 {
		return
	}
	o.CheckpointEntries = pick[uint64](chance, 3, 10, 50)
	o.Raft.LogEntriesKeep = pick[uint64](chance, 1, 5, 50)
	o.Raft.LogEntriesMax = pick[uint64](chance, 2, 20, 100)
	o.Raft.LogBytesKeep = pick[uint64](chance, 0, 1<<10, 16<<10)
	o.Raft.LogBytesMax = pick[uint64](chance, 0, 16<<10, 128<<10)
	o.Raft.PinnedBytesMax = pick[uint64](chance, 0, 4<<10, 128<<10)
	o.CheckpointBytes = o.Raft.LogBytesMax // proposals wait where checkpoints are fewer
}

// letRot draws a run in which values are altered on disks. What its checksum tells is
// never shipped. One that was written so may be, if somebody needs a snapshot before it is
// found. What a condition sees of it lets its replica go another way than the others, so
// nobody asks for one then.
func (s *swarm) letRot(chance *rand.Rand) {
	s.options.AuditTicks = pick[uint32](chance, 1, 2, 4)
	if chance.IntN(2) == 0 {
		s.rates[faultRot] = pick(chance, time.Second, 5*time.Second)
		return
	}
	s.rates[faultMiswrite] = pick(chance, time.Second, 5*time.Second)
	s.still, s.ranges, s.conditional = true, false, 0
	if chance.IntN(2) == 0 {
		s.spareSnapshots()
	}
}

// spareSnapshots leaves nobody in need of a snapshot.
func (s *swarm) spareSnapshots() {
	r := &s.options.Raft
	s.compacts = false
	r.LogEntriesKeep, r.LogEntriesMax, r.LogBytesKeep, r.LogBytesMax, s.options.CheckpointBytes = 0, 0, 0, 0, 0
}

// letMisstate draws a run in which checkpoints are altered, well formed. A snapshot of one
// spreads it, and heals whoever gets a sound one.
func (s *swarm) letMisstate(chance *rand.Rand, o Options) {
	if o.Faults && s.nodes > 2 && chance.IntN(8) == 0 {
		s.rates[faultMisstate] = pick(chance, time.Second, 5*time.Second)
		s.options.AuditTicks = pick[uint32](chance, 1, 2, 4)
		if chance.IntN(2) == 0 {
			s.spareSnapshots()
		}
		s.leaveOut(o.Without)
	}
}

// electionTimeout is the longest that a follower of this swarm waits.
func (s *swarm) electionTimeout() time.Duration {
	return 2 * time.Duration(s.options.Raft.ElectionTicks) * s.options.TickInterval
}

// bringing is how long it takes to bring a snapshot of so many bytes.
func (s *swarm) bringing(bytes int) time.Duration {
	if s.options.SnapshotRate == 0 {
		return 0
	}
	return time.Duration(float64(bytes) / float64(s.options.SnapshotRate) * float64(time.Second))
}

// calm is the network once it is healed. If a message took a good part of an election,
// a bare quorum might split its votes for longer than the checks wait.
func (s *swarm) calm() quality {
	limit := s.electionTimeout() / 80
	return quality{latency: min(s.way.latency, limit), jitter: min(s.way.jitter, limit)}
}

func (s *swarm) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes, %d clients x %d (%d only read, %d%% are hasty), %d keys, ttl %v, latency %v+%v, fsync %v, prevote %v, down %v;",
		s.nodes, s.clients, s.depth, s.idlers, s.hasty, s.keys, s.ttl, s.way.latency, s.way.jitter, s.fsync, !s.options.Raft.NoPreVote, s.down)
	for f := range faults {
		if rate, on := s.rates[f]; on {
			fmt.Fprintf(&b, " %s/%v", f, rate)
		}
	}
	for a := range aims {
		if p, on := s.aims[a]; on {
			fmt.Fprintf(&b, " %s:%v", a.crash(), p)
		}
	}
	for p := range phases {
		if chance, on := s.phases[p]; on {
			fmt.Fprintf(&b, " %s:%v", p.blow(), chance)
		}
	}
	o := s.options
	fmt.Fprintf(&b, "; checkpoint %d, keep %d/%d entries %d/%d bytes, pinned %d, chunks %d, rate %d, history %d %v, audit %d, lag %d, levels %v, rights/%v, %d spares, asking %v, blows %v, aimed %v",
		o.CheckpointEntries, o.Raft.LogEntriesKeep, o.Raft.LogEntriesMax, o.Raft.LogBytesKeep, o.Raft.LogBytesMax, o.Raft.PinnedBytesMax,
		o.SnapshotChunkBytes, o.SnapshotRate, o.HistoryRevisions, o.HistoryTime, o.AuditTicks, s.lag, s.levels, s.rights, s.spares, s.asking, s.steps, s.blows)
	if s.backups > 0 {
		fmt.Fprintf(&b, ", backups/%v", s.backups)
	}
	return b.String()
}

func pick[T any](chance *rand.Rand, from ...T) T { return from[chance.IntN(len(from))] }
