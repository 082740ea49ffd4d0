package sim

import (
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// Options of a run. The zero Options make a whole run of seed 0 without faults.
type Options struct {
	Seed     uint64
	Nodes    int           // 0: drawn, 1 to 7
	Faults   bool          // whether anything goes wrong
	Duration time.Duration // of load, and chaos, in simulated time; 0: DefaultDuration
	Rate     float64       // operations a second, of all clients together; 0: drawn
	Trace    io.Writer     // takes the whole trace as text; may be nil

	blind bool // see checkers.blind
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
	jitter := cryptorand.Reader
	cryptorand.Reader = reader{stream(o.Seed, "jitter")}
	defer func() { cryptorand.Reader = jitter }()
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))

	started := time.Now()
	r := newRun(o)
	r.play()
	return r.report(time.Since(started))
}

// run is one seed being played.
type run struct {
	options  Options
	swarm    *swarm
	world    *world
	chaos    *rand.Rand // of faults
	load     *rand.Rand // of what clients do
	machines []*machine
	clients  []*customer
	check    *checkers
	history  *history

	slowness map[int]time.Duration // how much longer than drawn a node's disk takes
	fuses    []fuse
	striking bool         // faults strike
	healed   bool         // no fault is left
	quiet    bool         // clients ask for nothing more
	leftDown map[int]bool // nodes that are not healed
	values   uint64       // written so far
	stills   int          // keys of those that are written once
	coverage map[string]uint64

	installs    int // snapshots that were installed
	interrupted int // crashes of nodes that sent or received one
}

func newRun(o Options) *run {
	r := &run{
		options: o, swarm: draw(stream(o.Seed, "swarm"), o), world: newWorld(o.Seed, o.Trace),
		chaos: stream(o.Seed, "chaos"), load: stream(o.Seed, "load"),
		slowness: map[int]time.Duration{}, leftDown: map[int]bool{}, coverage: map[string]uint64{},
	}
	r.world.watch, r.world.stepped = r, r.burn
	r.world.cost, r.world.net.fair = r.swarm.cost, r.swarm.way
	r.check = newCheckers(r.swarm.nodes)
	r.check.fail = r.world.fail
	r.check.durable = func(node int) (*raftpb.HardState, uint64) {
		log := &r.machines[node].disk.now.log.durable
		last, _ := log.last()
		return log.hardState, last
	}
	r.check.blind = o.blind
	r.check.stored = func(node int, p position) bool {
		m := r.machines[node]
		term, ok := m.disk.Entry(p.index)
		return m.damaged || ok && term == p.term || p.index < m.disk.Base() // it is part of the state
	}
	r.check.media = func(node int) media { return r.machines[node].media() }
	r.check.onCommit = r.committed
	r.history = &history{fail: r.world.fail, model: r.check.model}
	for i := range r.swarm.nodes {
		m := &machine{run: r, node: i, disk: NewDisk(stream(o.Seed, "disk/"+nameOf(i))), pace: pace{rate: 1}}
		m.disk.onFault, m.disk.onDiscard = m.struck, func(floor uint64) { r.check.discards(i, floor) }
		if r.swarm.skewed {
			m.pace = pace{rate: 0.9 + 0.2*r.chaos.Float64(), jitter: time.Duration(r.chaos.Int64N(int64(10 * time.Millisecond)))}
		}
		r.machines = append(r.machines, m)
	}
	for i := range r.swarm.clients {
		r.clients = append(r.clients, &customer{run: r, number: i, name: fmt.Sprintf("c%d", i+1)})
	}
	return r
}

func (r *run) endpoints() []string {
	var all []string
	for _, m := range r.machines {
		all = append(all, m.listen())
	}
	return all
}

// play goes through the phases of a run, until one fails.
func (r *run) play() {
	r.note("swarm: %s", r.swarm)
	for _, m := range r.machines {
		r.world.clock.after(upTo(r.chaos, 500*time.Millisecond), nil, m.start)
	}
	for _, c := range r.clients {
		c.start()
		c.work()
	}
	if r.chaos.IntN(4) > 0 {
		r.warmUp()
	}
	r.storm()
	r.heal()
	r.progress()
	r.settle()
	r.finish()
}

// warmUp lets the cluster be founded in peace.
func (r *run) warmUp() {
	limit := r.world.clock.now + 30*time.Second
	for r.world.failure == nil && r.check.last() == 0 {
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
	if r.world.failure != nil {
		return
	}
	down := 0
	for _, m := range r.machines {
		if m.damaged || m.rotten() {
			down++
		}
	}
	founded := r.check.last() > 0 // before, every founder is needed
	for _, m := range r.machines {
		if r.options.Faults && founded && !m.damaged && !m.rotten() && 2*(down+1) < len(r.machines) && r.chaos.IntN(4) == 0 {
			r.leftDown[m.node] = true
			down++
		}
	}
	r.healed = true
	r.fuses = nil
	r.note("healed, but for %v", r.leftDown)
	r.world.net.mend(r.swarm.calm())
	for _, m := range r.machines {
		m.mend()
	}
}

func (m *machine) mend() {
	m.pace = pace{rate: 1}
	m.disk.faults = diskFaults{stateLost: m.disk.faults.stateLost}
	switch {
	case m.run.leftDown[m.node]:
		if m.up() {
			m.crash(false)
		}
		return
	case m.up():
		m.host.pace, m.host.burst, m.host.sabotage = m.pace, 0, ""
		m.host.thaw()
	case !m.damaged:
		m.start()
	}
}

// progress: a healed quorum commits within ten election timeouts, once its links
// are there again.
func (r *run) progress() {
	last, limit := r.check.last(), 10*r.swarm.electionTimeout()+dialTimeout+backoffMax+r.shipping()
	until := r.world.clock.now + limit
	for r.world.failure == nil && r.check.last() == last {
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
	for _, m := range r.machines {
		if m.up() {
			base, bytes = max(base, m.disk.Base()), max(bytes, m.disk.Bytes())
		}
	}
	for _, m := range r.machines {
		if _, last := r.check.durable(m.node); m.up() && last < base {
			return standsStillTicks*r.swarm.options.TickInterval + 2*r.swarm.bringing(bytes)
		}
	}
	return 0
}

// standsStillTicks is when a receiver gives up a snapshot of which nothing comes.
const standsStillTicks = 200

// settle: clients fall silent, every operation ends, and every live node comes
// to the same state.
func (r *run) settle() {
	r.quiet = true
	limit := r.world.clock.now + deadlineMS*time.Millisecond + 20*r.swarm.electionTimeout() + r.shipping()
	for r.world.failure == nil && !r.settled() {
		if r.world.clock.now >= limit {
			r.world.fail("convergence", "%s", r.unsettled())
			return
		}
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
}

func (r *run) settled() bool { return r.unsettled() == "" }

// unsettled says what is still to come, or nothing.
func (r *run) unsettled() string {
	for _, c := range r.clients {
		for _, op := range c.under {
			return "no answer to " + op.String()
		}
	}
	for _, m := range r.machines {
		if m.up() && m.host.memory.applied < r.check.last() {
			return fmt.Sprintf("%s has applied up to index %d of %d", m.name(), m.host.memory.applied, r.check.last())
		}
		if what := r.unfinished(m); what != "" {
			return what
		}
	}
	return ""
}

// unfinished says what a node should have come to an end with.
func (r *run) unfinished(m *machine) string {
	switch {
	case !m.up():
	case m.disk.staging != nil:
		return m.name() + " keeps a state that nobody installs"
	case len(m.disk.writing) > 0:
		return fmt.Sprintf("%s still writes the files %v", m.name(), m.disk.writing)
	case m.shipping > 0:
		return fmt.Sprintf("%s still ships %d snapshots", m.name(), m.shipping)
	case r.rotShows(m):
		return fmt.Sprintf("%s serves the altered value of %q", m.name(), m.rot.key)
	}
	return ""
}

// probe adds a client to every live node, which knows no other: whatever was done
// to it, it serves.
func (r *run) probe() {
	for _, m := range r.machines {
		if m.up() {
			c := &customer{run: r, number: len(r.clients), name: "probe-" + m.name(), probes: m}
			r.clients = append(r.clients, c)
			c.startWith([]string{m.listen()})
			c.submit(writing(c.put(c.key())))
		}
	}
}

// finish reads everything from everywhere, and compares.
func (r *run) finish() {
	if r.world.failure != nil {
		return
	}
	r.probe()
	for _, c := range r.clients {
		c.submit(&messages.Submit{Read: &messages.Read{Kind: &messages.Read_Scan{Scan: &messages.Scan{}}}})
	}
	limit := r.world.clock.now + 2*deadlineMS*time.Millisecond
	for r.world.failure == nil && !r.settled() {
		if r.world.clock.now >= limit {
			r.world.fail("final reads", "%s", r.unsettled())
			return
		}
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
	for _, c := range r.clients {
		if last := r.history.lastOf(c.number); r.world.failure == nil && last.done.Read.GetCode() != messages.Code_OK {
			r.world.fail("final reads", "%s", last)
		}
	}
	for _, op := range r.history.all {
		if m := r.clients[op.client].probes; m != nil && op.submit.Operations != nil && op.done.Write.GetCode() != messages.Code_OK {
			r.world.fail("every live node serves", "%s: %s", m.name(), op)
		}
	}
	r.compareEngines()
	r.compareFiles()
	r.countSessions()
	r.history.close()
	r.history.counts()
	if r.world.failure == nil {
		r.history.judge()
	}
}

// compareEngines holds every live node's rows against the true history.
func (r *run) compareEngines() {
	for _, m := range r.machines {
		if !m.up() || m.rotten() {
			continue
		}
		rows := liveRows(m.disk, r.check.model.revision)
		keys := r.check.model.live("", "", r.check.model.revision)
		if len(rows) != len(keys) {
			r.world.fail("engines hold the state", "%s has %d keys, there are %d", m.name(), len(rows), len(keys))
			return
		}
		for i, key := range keys {
			v, _ := r.check.model.get(key, r.check.model.revision)
			if !v.is(key, &rows[i]) {
				r.world.fail("engines hold the state", "%s has %q of revision %d where %q of revision %d belongs",
					m.name(), rows[i].Key, rows[i].Revision, key, v.revision)
				return
			}
		}
	}
}

// compareFiles: a snapshot file is the state of replay.
func (r *run) compareFiles() {
	for _, m := range r.machines {
		for _, id := range slices.Sorted(maps.Keys(m.disk.archive)) {
			if m.rotten() {
				continue
			}
			if what := r.check.reference.fileDiffers(m.disk.archive[id]); what != "" {
				r.world.fail("state from snapshot equals state from replay", "file %s of %s: %s", id, m.name(), what)
			}
		}
		if why := m.disk.Condemned(); why != "" && !m.rotten() {
			r.world.fail("sound disks are not condemned", "%s: %s", m.name(), why)
		}
	}
}

// countSessions: no session actor outlives its client's connection. A client has
// one on the node it uses, and one where it was before.
func (r *run) countSessions() {
	for _, m := range r.machines {
		if !m.up() {
			continue
		}
		sessions := 0
		for _, bucket := range m.host.system.ProcessRegistry.LocalPIDs.LocalPIDs {
			for _, name := range bucket.Keys() {
				if strings.HasPrefix(name, messages.ActorSessionPrefix) {
					sessions++
				}
			}
		}
		if sessions > 2*len(r.clients) {
			r.world.fail("sessions end with their clients", "%s has %d session actors for %d clients", m.name(), sessions, len(r.clients))
		}
	}
}

// liveRows are the rows that a disk's page cache holds as of a revision.
func liveRows(d *Disk, revision uint64) []disk.Row {
	var rows []disk.Row
	for _, k := range d.now.engine.keys {
		if row, live := k.newest(revision); live {
			rows = append(rows, row)
		}
	}
	return rows
}

// received, departs, died and counted implement watcher.
func (r *run) received(h *host, actorID string, message any) {
	if h.node < 0 {
		return
	}
	m := r.machines[h.node]
	r.check.received(h.node, h.memory, actorID, message)
	r.follow(m, actorID, message)
	switch message := message.(type) {
	case *messages.LeaderChanged:
		if actorID == messages.ActorGateway {
			m.leader = message.Leader
			if m.leader == idOf(m.node) {
				r.aimed(aimElected, m)
			}
		}
	case *messages.LogOpened, *messages.MachineOpened:
		m.serves()
	case *messages.CheckpointWritten:
		r.aimed(aimCheckpoint, m)
	case *messages.Append:
		if len(message.Message.GetEntries()) > 0 {
			r.aimed(aimAppend, m)
		}
	}
}

// serves: a node with damaged data opens its log or its state, never both.
func (m *machine) serves() {
	if m.damaged && m.host.memory.log && m.host.memory.opened {
		m.run.world.fail("damaged data are noticed", "%s serves, though data that it had synced are gone", m.name())
	}
}

func (r *run) departs(h *host, _ messages.RaftID, body proto.Message) {
	r.check.departs(h.node, body)
	if p, is := departing(body); is {
		r.phased(p, r.machines[h.node])
	}
	if rm, ok := body.(*messages.RaftMessage); ok && !rm.Message.GetReject() {
		switch rm.Message.GetType() {
		case raftpb.MsgVoteResp:
			r.aimed(aimVote, r.machines[h.node])
		case raftpb.MsgAppResp:
			r.aimed(aimAck, r.machines[h.node])
		}
	}
}

func (r *run) committed() {
	if r.swarm.aims[aimCommit] > 0 && r.striking {
		r.aimed(aimCommit, r.victim())
	}
}

// died: a process ended itself. Only a fault of its disk that it just met, or a
// panic of its core, explains that, and its last words have to name it.
func (r *run) died(h *host, why string) {
	if h.node < 0 {
		r.world.fail("no process ends itself", "client %s: %s", h.name, why)
		return
	}
	m := r.machines[h.node]
	struck := m.struckAt == r.world.steps
	if why := m.disk.Condemned(); why != "" {
		if !m.rotten() {
			r.world.fail("sound disks are not condemned", "%s: %s", m.name(), why)
			return
		}
		m.damaged = true
		r.coverage[m.rotCell(why)]++
	}
	switch {
	case !struck && !m.damaged && !h.doomed:
		r.world.fail("no process ends itself", "%s: %s", h.name, why)
		return
	case struck && !strings.Contains(why, m.disk.cause), !struck && h.doomed && !strings.Contains(why, injectedCause):
		r.world.fail("last words say why", "%s: %s", h.name, why)
		return
	}
	r.coverage["ended-itself x "+m.role()]++
	powerCut := r.chaos.IntN(2) == 0
	r.world.clock.after(0, nil, func() {
		m.crash(powerCut)
		if m.damaged {
			return
		}
		if r.healed {
			m.start()
		} else {
			m.restartLater()
		}
	})
}

func (r *run) counted(h *host, fault string) {
	if h.node >= 0 {
		r.count(fault, r.machines[h.node])
	}
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
