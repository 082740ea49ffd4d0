package sim

import (
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/sim/disk"
)

// Options of a run. The zero Options make a whole run of seed 0 without faults.
type Options struct {
	Seed     uint64
	Nodes    int           // 0: drawn, 1 to 7
	Faults   bool          // whether anything goes wrong
	Duration time.Duration // of load, and chaos, in simulated time; 0: DefaultDuration
	Rate     float64       // operations a second, of all clients together; 0: drawn
	Without  []string      // of Faults: what does not happen, though it was drawn
	Until    time.Duration // the run ends here, in simulated time; 0: when it is over
	Trace    io.Writer     // takes the trace as text; may be nil
	Only     Filter        // of that text

	blind    bool      // see checkers.blind
	restored *restored // the cluster is made of a backup; nil: it is founded
}

// DefaultDuration is how long a run is under load, in simulated time.
const DefaultDuration = 20 * time.Second

// gcPercent trades memory for speed: a world is small, and makes much garbage.
const gcPercent = 1000

// one simulation a process: raft's source of jitter is global.
var door sync.Mutex

// Run plays one seed. The report says what came of it.
func Run(o Options) *Report {
	door.Lock()
	defer door.Unlock()
	if o.Duration == 0 {
		o.Duration = DefaultDuration
	}
	defer quicken(o.Seed)()

	started := time.Now()
	r := newRun(o)
	r.play()
	from := r.survivor()
	report := r.report(time.Since(started))
	if from == nil {
		return report
	}
	again := newRun(o.next(from))
	again.play()
	report.goesOn(again.report(time.Since(started)))
	return report
}

// quicken prepares the process for a run, behind the door. What it returns undoes that.
func quicken(seed uint64) (undo func()) {
	jitter, percent := cryptorand.Reader, debug.SetGCPercent(gcPercent)
	cryptorand.Reader = reader{stream(seed, "jitter")}
	return func() {
		cryptorand.Reader = jitter
		debug.SetGCPercent(percent)
	}
}

// run is one seed being played.
type run struct {
	options  Options
	swarm    *swarm
	world    *world
	chaos    *rand.Rand            // of the fault that strikes now
	chances  map[string]*rand.Rand // of each kind of fault
	load     *rand.Rand            // of what clients do
	servers  []*server
	clients  []*customer
	check    *checkers
	history  *history
	operator *operator // nil: the members stay as they are
	warden   *warden   // nil: everybody may do everything
	thief    *thief    // nil: nobody is after others' sessions
	inviter  *inviter  // nil: no node is invited
	stranger *stranger // the same
	bearer   *bearer   // nil: nobody comes with tokens
	keeper   *keeper   // nil: no backups are made
	rolls    *rolling  // nil: nobody restarts the nodes one by one

	slowness map[int]time.Duration // how much longer than drawn a node's disk takes
	fuses    []fuse
	striking bool // faults strike
	rolling  bool // a directory is about to be put back to a copy
	held     bool // nothing strikes until a node is told that its directory is one
	healed   bool // no fault is left
	healedAt time.Duration
	quiet    bool         // clients ask for nothing more
	split    bool         // the members hold different states, and nobody can tell which is right
	leftDown map[int]bool // nodes that are not started again, nor healed
	values   uint64       // written so far
	stills   int          // keys of those that are written once
	coverage map[string]uint64

	installs    int // snapshots that were installed
	interrupted int // crashes of nodes that sent or received one
}

func newRun(o Options) *run {
	r := &run{
		options: o, swarm: draw(stream(o.Seed, "swarm"), o), world: newWorld(o.Seed, o.Trace, o.Only),
		chaos: stream(o.Seed, "chaos"), load: stream(o.Seed, "load"),
		chances: map[string]*rand.Rand{}, slowness: map[int]time.Duration{}, leftDown: map[int]bool{}, coverage: map[string]uint64{},
	}
	r.swarm.letMisstate(stream(o.Seed, "misstate"), o)
	r.swarm.levels = stream(o.Seed, "levels").IntN(3) == 0
	r.swarm.drawChurn(stream(o.Seed, "churn"), o)
	r.swarm.drawRights(stream(o.Seed, "who may"), o)
	r.swarm.drawInvitations(stream(o.Seed, "invitations"))
	if o.restored == nil {
		r.swarm.drawBackups(stream(o.Seed, "backups"))
	} else {
		r.swarm.levels = false
	}
	r.world.watch, r.world.stepped, r.world.end = r, r.burn, o.Until
	r.world.cost, r.world.net.fair = r.swarm.cost, r.swarm.way
	r.check = newCheckers(0)
	r.check.fail, r.check.clock = r.world.fail, func() time.Duration { return r.world.clock.now }
	r.check.durable = func(node int) (*raftpb.HardState, uint64) {
		hs, last, _ := r.servers[node].disk.Durable()
		return hs, last
	}
	r.check.blind = o.blind
	r.check.stored = func(node int, p position) bool {
		s := r.servers[node]
		term, ok := s.disk.Entry(p.index)
		return s.damaged || s.aged || ok && term == p.term || p.index < s.disk.Base() // it is part of the state
	}
	r.check.media = func(node int) media { return r.servers[node].media() }
	r.check.onCommit = r.committed
	r.check.membership.onStep = r.stepped
	r.history = &history{fail: r.world.fail, model: r.check.model}
	for range r.swarm.nodes {
		r.machine()
	}
	for range r.swarm.spares {
		r.spare()
	}
	if o.restored != nil {
		r.restore(o.restored)
	}
	for i := range r.swarm.clients {
		r.customer(fmt.Sprintf("c%d", i+1))
	}
	return r
}

// machine adds one, with an empty disk.
func (r *run) machine() *server {
	i := len(r.servers)
	s := &server{run: r, node: i, disk: disk.New(stream(r.options.Seed, "disk/"+nameOf(i))), pace: pace{rate: 1}}
	s.disk.Watch(disk.Watcher{Fault: s.struck, Discard: func(floor uint64) { r.check.discards(i, floor) }, Install: func() { r.inherit(s) }})
	if r.swarm.skewed {
		s.pace = pace{rate: 0.9 + 0.2*r.chaos.Float64(), jitter: time.Duration(r.chaos.Int64N(int64(10 * time.Millisecond)))}
	}
	r.check.machine()
	r.servers = append(r.servers, s)
	return s
}

func (r *run) endpoints() []string {
	var all []string
	for _, s := range r.servers {
		all = append(all, s.addresses()[0])
		if r.swarm.spares > 0 {
			all = append(all, s.addresses()[1])
		}
	}
	return all
}
