package sim

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors"
	"keyval/actors/seam"
	"keyval/messages"
	"keyval/storeactor"
)

// machine is one node's hardware: a disk that outlives the node's processes, and
// the process that runs on it now.
type machine struct {
	run    *run
	node   int
	disk   *Disk
	host   *host // nil: no process runs
	starts int
	recent recent
	pace   pace

	leader       messages.RaftID // as the node was told last; 0: nobody
	stalledUntil time.Duration   // no sync of its log ends before

	shipping int // snapshots on their way from the process

	struckAt uint64 // the step in which a fault of the disk met the process, which may end itself then
	damaged  bool   // synced data are gone: it must notice, and never serve again
	rot      rot    // a value is not what was synced; the others have to find it
}

func (m *machine) name() string   { return nameOf(m.node) }
func (m *machine) listen() string { return fmt.Sprintf("10.0.0.%d:7001", m.node+1) }
func (m *machine) up() bool       { return m.host != nil && !m.host.dead }

// role is what a node believes to be, for the count of what was covered.
func (m *machine) role() string {
	switch {
	case !m.up():
		return "down"
	case m.leader == idOf(m.node):
		return "leader"
	case m.leader == 0:
		return "candidate"
	}
	return "follower"
}

// media is what the checkers see of the disk.
func (m *machine) media() media {
	g := m.disk.now
	is := media{checkpoint: g.checkpoint}
	if !m.damaged && !m.rotten() {
		is.rows = func() []storeactor.Row {
			return g.engine.canonical(g.checkpoint)
		}
	}
	return is
}

// start runs a process on the machine, as kvctl serve does.
func (m *machine) start() {
	if m.up() {
		return
	}
	m.starts++
	w := m.run.world
	m.host = &host{
		world: w, name: m.name(), node: m.node, pace: m.pace, delay: m.run.delayOf(m),
		recent: &m.recent, memory: &memory{},
	}
	m.leader, m.shipping = 0, 0
	w.note(m.host, "process %d starts", m.starts)
	chance := stream(m.run.options.Seed, fmt.Sprintf("%s/%d", m.name(), m.starts))
	identity, err := actors.Prepare(m.disk, reader{chance}, m.identity())
	if err == nil {
		_, err = actors.Start(actors.Config{
			Disk: m.disk, Network: place{w.net, m.host}, Version: "simulated", Options: m.run.swarm.options,
			World: m.host.seams(reader{chance}),
		}, identity)
	}
	if err != nil {
		m.host.fatal(err)
	}
}

// seams are those of a process that are not disk or network.
func (h *host) seams(random reader) seam.World {
	h.meter = prometheus.NewRegistry()
	return seam.World{Runtime: h, Ticker: h, Rand: random, Fatal: h.fatal, Logger: slog.New(slog.DiscardHandler), Meter: h.meter}
}

func (m *machine) identity() *messages.Identity {
	want := &messages.Identity{Name: m.name(), Listen: m.listen(), Advertise: m.listen(), Token: "simulated"}
	for _, o := range m.run.machines {
		want.Founders = append(want.Founders, &messages.Founder{Name: o.name(), Address: o.listen()})
	}
	return want
}

// crash ends the process; the page cache stays. A power cut takes that too, and
// nobody is left to tell the other ends of its connections.
func (m *machine) crash(powerCut bool) {
	if m.up() {
		m.run.world.kill(m.host, powerCut)
	}
	m.host = nil
	if powerCut {
		m.disk.PowerCut()
	} else {
		m.disk.Crash()
	}
}

// restartLater starts the machine again, after a while that is drawn.
func (m *machine) restartLater() {
	delay := time.Duration(m.run.chaos.ExpFloat64() * float64(m.run.swarm.down))
	m.run.world.clock.after(min(delay, 10*time.Second), nil, func() {
		if !m.run.leftDown[m.node] {
			m.start()
		}
	})
}

// delayOf says how long a node's actors take with disks as slow as drawn.
func (r *run) delayOf(m *machine) func(string, any) time.Duration {
	return func(actorID string, message any) time.Duration {
		if r.healed {
			return 0
		}
		switch message.(type) {
		case *messages.Flush:
			if actorID == messages.ActorLog {
				return max(m.stalledUntil-r.world.clock.now, upTo(r.world.chance, r.swarm.fsync+r.slowness[m.node]))
			}
		case *messages.StageChunk:
			return upTo(r.world.chance, r.swarm.stage+r.slowness[m.node])
		case *messages.CommitSynced, *messages.SyncCommit:
			return upTo(r.world.chance, r.swarm.fsync+r.slowness[m.node])
		case *messages.Apply:
			return upTo(r.world.chance, r.swarm.apply+r.slowness[m.node])
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
func (m *machine) struck(crashed bool) {
	m.struckAt = m.run.world.steps
	if !crashed {
		return
	}
	m.run.coverage[tornCell(m.disk.crashedAt)]++
	if m.inSnapshot() {
		m.run.interrupted++
	}
	h := m.host
	m.run.fuses = append(m.run.fuses, fuse{steps: 1, burn: func() { h.fatal(ErrCrashed) }})
}

// rot is a version that the world has altered on a disk.
type rot struct {
	key      string
	revision uint64 // 0: none
}

func (m *machine) rotten() bool { return m.rot.revision != 0 }
