package sim

import (
	cryptorand "crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors"
	"keyval/messages"
	"keyval/sim/disk"
)

// Scene is a run that somebody directs: there is no chaos, and what goes wrong is
// what the director does. All checkers look on. Actors take turns instead of being
// drawn, so that a change to one of them shuffles little else.
//
// One simulation a process: between NewScene and Close no other runs.
type Scene struct {
	run    *run
	jitter io.Reader // raft's own
}

// SceneConfig is the cluster of a scene, and who listens to it.
type SceneConfig struct {
	Nodes      int
	Levels     []uint32      // the highest cluster level that each node supports; absent: messages.Level
	SessionTTL time.Duration // of its clients; 0: the default
	Options    actors.Options
	Hear       func(Said)              // is told every message right before its actor takes it
	Note       func(name, text string) // is told what the world does to a host
}

// NewScene makes a cluster of servers that are down.
func NewScene(c SceneConfig) *Scene {
	door.Lock()
	r := newRun(Options{Nodes: c.Nodes})
	r.swarm.ttl, r.swarm.levels, r.swarm.clients, r.clients = c.SessionTTL, false, 0, nil
	r.swarm.spares, r.swarm.rights, r.swarm.invitations, r.servers = 0, 0, 0, r.servers[:r.swarm.nodes]
	r.swarm.options = c.Options
	for i, level := range c.Levels {
		r.servers[i].level = level
	}
	r.world.watch, r.world.queue.chance = onlooker{r}, nil
	r.world.ear = newEar(c.Hear, c.Note)
	s := &Scene{run: r, jitter: cryptorand.Reader}
	cryptorand.Reader = patience{r.world}
	return s
}

// Close ends the scene.
func (s *Scene) Close() {
	cryptorand.Reader = s.jitter
	door.Unlock()
}

// patience is raft's source of jitter in a scene. Where nobody leads, the node
// with the lowest name loses patience first: n1 wins the first election.
type patience struct{ world *world }

func (p patience) Read(out []byte) (int, error) {
	var node byte
	if speaker := p.world.ear.speaker; speaker != nil {
		node = byte(max(0, speaker.host.node))
	}
	for i := range out {
		out[i] = node // below the ticks that raft draws from
	}
	return len(out), nil
}

// onlooker watches as a run does, but what ends processes is the director's affair.
type onlooker struct{ *run }

func (o onlooker) died(h *host, _ string) {
	if h.node < 0 {
		return
	}
	s := o.servers[h.node]
	o.world.clock.after(0, nil, func() {
		if s.host == h {
			s.crash(false)
		}
	})
}

// Now is the time in the scene.
func (s *Scene) Now() time.Duration { return s.run.world.clock.now }

// Run lets time go on until an instant, until Pause, or until an invariant breaks.
func (s *Scene) Run(until time.Duration) {
	s.run.world.ear.enough = false
	s.run.world.run(until)
}

// Pause ends Run before the next message. Those who hear may call it.
func (s *Scene) Pause() { s.run.world.ear.enough = true }

// Violation is the first invariant that broke; nil: none has.
func (s *Scene) Violation() *Violation { return s.run.world.failure }

// Judge checks what can only be said at the end.
func (s *Scene) Judge() *Violation {
	s.run.history.close()
	if s.run.world.failure == nil {
		s.run.history.judge()
	}
	return s.run.world.failure
}

// Cut lets nothing through between two hosts any more, servers or clients.
func (s *Scene) Cut(a, b string) {
	s.run.world.net.cut(a, b, true)
	s.run.world.net.cut(b, a, true)
}

// Mend opens all ways.
func (s *Scene) Mend() { s.run.world.net.mend(s.run.swarm.way) }

// Client is the client of this name. One that is not there yet starts, and knows
// these servers; if they are not all, it asks no others.
func (s *Scene) Client(name string, knows []Server) Client {
	for _, c := range s.run.clients {
		if c.name == name {
			return Client{c}
		}
	}
	var endpoints []string
	for _, server := range knows {
		endpoints = append(endpoints, server.server.listen())
	}
	c := s.run.customer(name)
	c.startWith(endpoints, len(knows) < len(s.run.endpoints()))
	return Client{c}
}

// Client is a client of a scene.
type Client struct{ customer *customer }

// Request is what a client asked.
type Request struct{ operation *operation }

// Ask hands a request to the client.
func (c Client) Ask(submit *messages.Submit) Request { return Request{c.customer.submit(submit)} }

// Answer is nil as long as there is none.
func (r Request) Answer() *messages.Done { return r.operation.done }

// Servers are all servers of the scene, n1 first.
func (s *Scene) Servers() []Server {
	var all []Server
	for _, server := range s.run.servers {
		all = append(all, Server{server})
	}
	return all
}

// Server is a server of a scene. What is done to its process is done to one that
// is up.
type Server struct{ server *server }

// Name is what the server is called.
func (s Server) Name() string { return s.server.name() }

// Up reports whether a process runs on it.
func (s Server) Up() bool { return s.server.up() }

// Start runs a process on it. The incarnation is that of its data; nil: it has none. The
// RaftID is 0 if it has none yet.
func (s Server) Start() (incarnation []byte, id messages.RaftID) {
	s.server.start()
	identity, err := s.server.disk.Identity()
	if err != nil {
		return nil, 0
	}
	return identity.Incarnation, s.server.id()
}

func (s Server) note(text string) { s.server.run.world.note(s.server.host, "%s", text) }

// Crash kills the process: what it wrote stays.
func (s Server) Crash() {
	s.note("the process is killed")
	s.server.crash(false)
}

// CutPower kills the process, and loses what was not synced.
func (s Server) CutPower() {
	s.note("the power is cut")
	s.server.crash(true)
}

// Wipe empties the data directory of a server that is down.
func (s Server) Wipe() {
	s.server.disk.LoseMedia()
	s.server.run.world.ear.noted(s.Name(), "the data directory is empty")
}

// Upgrade puts other software on a server that is down: what starts there next supports
// cluster levels up to this one.
func (s Server) Upgrade(level uint32) {
	s.server.level = level
	s.server.run.world.ear.noted(s.Name(), fmt.Sprintf("other software is installed: it supports cluster levels up to %d", level))
}

// Freeze lets the process stand still.
func (s Server) Freeze() {
	s.note("the process stands still")
	s.server.run.world.net.freeze(s.server.host)
}

// Thaw lets it go on.
func (s Server) Thaw() {
	s.note("the process goes on")
	s.server.host.thaw()
}

// Fragile are the actors that may fail and start anew.
func Fragile() []*messages.Actor { return fragile }

// Forget takes another server out of the table of peers of the process: it cannot reach
// that one any more, but knows nothing against it. The table is whole again with the next
// change of members.
func (s Server) Forget(other Server) {
	s.note(other.Name() + " is not in its table any more")
	s.server.run.world.net.forget(s.server.host, other.server.id())
}

// Panic lets the next message to one of those actors end in a panic.
func (s Server) Panic(into *messages.Actor) { s.server.host.sabotage = into }

// Meter is what the process that runs on it has counted.
func (s Server) Meter() prometheus.Gatherer { return s.server.host.meter }

// CrashIn lets the process crash when its disk comes to a place.
func (s Server) CrashIn(at disk.CrashPoint) { s.server.disk.CrashNext(at) }

// Rot alters a synced value on the disk. It names the version; false: there is none. If
// the wrong value was written, its checksum fits.
func (s Server) Rot(written bool) (key string, revision uint64, ok bool) {
	key, revision, ok = s.server.disk.Rot(written)
	if ok {
		s.server.rot = rot{key: key, revision: revision}
	}
	return key, revision, ok
}

// Forge lets the process hear a heartbeat, as if another had sent it in the term that both
// are in, that counts on entries up to an index.
func (s Server) Forge(from Server, commit uint64) { s.server.forged(from.server, commit) }

// State is what a process knows, and has.
type State struct {
	Role                     string
	Leader                   messages.RaftID // as it was told last; 0: nobody
	Term                     uint64
	Durable, Commit, Applied uint64 // indexes of the log
}

// State is that of the process that runs.
func (s Server) State() State {
	_, last, _ := s.server.disk.Durable()
	know := s.server.host.memory
	role := s.server.role()
	if s.server.fenced {
		role = "suspected"
	}
	return State{Role: role, Leader: s.server.leader, Term: know.term, Durable: last, Commit: know.commit, Applied: know.applied}
}
