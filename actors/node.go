// Package actors is the node: it spawns all actors, connects and supervises them. PIDs
// and props are made in node.go and wiring.go only. What an actor decides stands in a
// core beside it, which knows neither.
package actors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/actors/seam"
	"keyval/actors/telemetry"
	"keyval/actors/transport"
	"keyval/membershipactor"
	"keyval/messages"
	"keyval/raftactor"
	"keyval/storeactor"
	"keyval/storeactor/audit"
	"keyval/storeactor/disk"
	"keyval/storeactor/shipping"
)

// Options tune a node. Zero fields take the default.
type Options struct {
	TickInterval time.Duration // default 50 ms
	Raft         raftactor.Options
	Readers      int // actors that serve reads beside the machine; default 4

	// A checkpoint is due after this many entries, bytes of rows, or ticks;
	// defaults: see storeactor.
	CheckpointEntries uint64
	CheckpointBytes   uint64
	CheckpointTicks   uint32

	// How much history is kept, in revisions and in log time; 0: no bound.
	HistoryRevisions uint64
	HistoryTime      time.Duration

	SnapshotRate       uint64 // bytes a second to one follower; default 64 MiB
	SnapshotChunkBytes int    // default 1 MiB
	SnapshotsKeep      int    // see shipping.Config
	AuditTicks         uint32 // between two questions to the members; default 4
	RoomBytes          int64  // see storeactor.MachineConfig
}

// Config is what a node is made of: its disk, its network and the rest of its
// world. The same assembly serves in production, in tests and in the simulator.
type Config struct {
	Disk      disk.Disk
	Network   seam.Network
	World     seam.World
	Version   string
	Level     uint32 // the highest cluster level that it understands; default messages.Level
	ProcessID int64
	Options   Options

	// Ended is called once the tree has stopped without being asked. nil: the node has
	// joined a cluster, and is to be started again with the identity that its disk has
	// now. Else it was removed, and is not to be started again.
	Ended func(*messages.Removed)
}

// Node is a running node.
type Node struct {
	System *actor.ActorSystem
	root   *actor.RootContext
	pid    *actor.PID
	done   chan struct{}
}

// Start spawns the actors of a node. If its disk is not initialised, the node first
// founds the cluster together with the other founders, or asks to be let into one.
func Start(cfg Config, identity *messages.Identity) (*Node, error) {
	if cfg.Options.TickInterval == 0 {
		cfg.Options.TickInterval = 50 * time.Millisecond
	}
	cfg.Level = cmp.Or(cfg.Level, messages.Level)
	self := messages.RaftIDOf(identity)
	if self == 0 && len(identity.Join) == 0 {
		return nil, messages.Errorf(messages.Code_DAMAGED, "the identity of %s does not hold %s itself", identity.Name, identity.Name)
	}
	var random [56]byte
	if _, err := io.ReadFull(cfg.World.Rand, random[:]); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	nonces := nonces{reads: binary.BigEndian.Uint64(random[:]), shipments: binary.BigEndian.Uint64(random[8:]), audits: binary.BigEndian.Uint64(random[16:]), start: binary.BigEndian.Uint64(random[24:]), losses: binary.BigEndian.Uint64(random[32:])}
	address := messages.NodeAddress(self)
	if self == 0 { // it is a client of the cluster still
		address = messages.ClientAddress(random[40:])
	}
	w := &wiring{
		self: self, address: address, version: cfg.Version, level: cfg.Level, pid: cfg.ProcessID,
		logger: cfg.World.Logger.With("node", identity.Name), meter: cfg.World.Meter, fatal: cfg.World.Fatal,
		inbox: &transport.Inbox{}, nanos: cfg.World.Nanos, tracer: telemetry.NewTracer(cfg.World.Traces), vitals: cfg.World.Vitals, events: cfg.World.Events, requests: newRequestMeters(cfg.World.Meter),
	}
	telemetry.Begin(w.meter)
	system, root := cfg.World.Runtime.NewSystem(w.address, w.logger)
	root = root.Copy().WithGuardian(newSupervision(w))
	n := &Node{System: system, root: root, done: make(chan struct{})}
	pid, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor {
		return &node{wiring: w, cfg: cfg, identity: identity, nonces: nonces, done: n.done}
	}, actor.WithSupervisor(newSupervision(w))), messages.ActorNode)
	if err != nil {
		return nil, fmt.Errorf("spawn the node: %w", err)
	}
	n.pid = pid
	return n, nil
}

// Stop asks the tree to stop. Done is closed when it has.
func (n *Node) Stop() { n.root.Stop(n.pid) }

// Done is closed when the tree has stopped.
func (n *Node) Done() <-chan struct{} { return n.done }

// node is the root of the tree. It spawns and supervises; it holds no state of
// the cluster.
type node struct {
	wiring   *wiring
	cfg      Config
	identity *messages.Identity
	nonces   nonces
	done     chan struct{}
	ended    bool              // by itself
	removed  *messages.Removed // why; nil: it has joined
}

// nonces are random numbers of this process. They stand in what it asks, so that an
// answer to an earlier process is not taken for its own.
type nonces struct{ reads, shipments, audits, start, losses uint64 }

func (a *node) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.onStarted(ctx)
	case *messages.Agreed:
		a.onAgreed(ctx, m)
	case *messages.Founded:
		a.onFounded(ctx, m)
	case *messages.Joined:
		a.onJoined(ctx, m)
	case *messages.Removed:
		a.onRemoved(ctx, m)
	case *actor.Stopped:
		close(a.done)
		if a.ended {
			a.cfg.Ended(a.removed)
		}
	default:
		a.wiring.unexpected(ctx)
	}
}

func (a *node) onStarted(ctx actor.Context) {
	checkpoint, err := a.checkpoint()
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	if a.wiring.self == 0 {
		a.join(ctx)
		return
	}
	core := newFounding(a.wiring.self, a.cfg.Level, a.identity, checkpoint)
	local := transport.Local{
		Role: messages.Role_NODE, ClusterID: a.identity.ClusterId, RaftID: a.wiring.self, Incarnation: a.identity.Incarnation,
		Name: a.identity.Name, Address: a.wiring.address, Version: a.wiring.version,
		Inbox: a.wiring.inbox,
	}
	if !core.founded {
		local.WaitingFor = waitingForFounders + core.waitingFor()
	} else if local.Starts, err = a.cfg.Disk.Start(a.nonces.start); err != nil {
		a.wiring.fatal(err)
		return
	} else if checkpoint.GetIndex() == 0 {
		local.WaitingFor = "its first snapshot, from the leader"
	}
	a.spawn(ctx, messages.ActorTicker, newTicker(a.wiring, a.cfg.World.Ticker, a.cfg.Options.TickInterval))
	a.spawn(ctx, messages.ActorTransport, newTransport(a.wiring, a.cfg.Disk, a.cfg.Network, a.identity.Listen, local))
	a.spawn(ctx, messages.ActorFounding, newFounder(a.wiring, core))
	if !core.founded {
		a.tellPeers(ctx, core.founders)
		return
	}
	a.serve(ctx)
}

// checkpoint returns the last checkpoint, or nil if the disk is not initialised.
func (a *node) checkpoint() (*messages.Checkpoint, error) {
	initialised, err := a.cfg.Disk.Initialised()
	if err != nil || !initialised {
		return nil, err
	}
	return a.cfg.Disk.Checkpoint()
}

// onAgreed initialises the disk. All founders write the same state.
func (a *node) onAgreed(ctx actor.Context, m *messages.Agreed) {
	if err := disk.Initialise(a.cfg.Disk, firstCheckpoint(a.identity.Token, m)); err != nil {
		a.wiring.fatal(err)
		return
	}
	ctx.Respond(&messages.Initialised{ClusterId: m.ClusterId})
}

// onFounded makes durable that this node takes part, and lets it.
func (a *node) onFounded(ctx actor.Context, m *messages.Founded) {
	err := a.cfg.Disk.Found(m.ClusterId, 0)
	var starts *messages.Starts
	if err == nil {
		starts, err = a.cfg.Disk.Start(a.nonces.start)
	}
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	a.wiring.logger.Info("the cluster is founded", "cluster", fmt.Sprintf("%x", m.ClusterId), "founders", foundersText(a.identity.Founders))
	ctx.Send(a.wiring.local(messages.ActorTransport), &messages.Identified{ClusterId: m.ClusterId, Starts: starts})
	a.serve(ctx)
}

// join asks to be let in. Two places in the network are one system's: what is sent goes by
// the first, as a client's does; the other says at the node's address what it waits for.
func (a *node) join(ctx actor.Context) {
	core := newJoining(&messages.WaitingNode{
		Name: a.identity.Name, Address: a.identity.Advertise, Incarnation: a.identity.Incarnation, Version: a.wiring.version,
		LevelMin: messages.LevelMin, LevelMax: a.wiring.level,
	}, a.identity.Join)
	dialer, err := a.cfg.Network.Join(ctx.ActorSystem(), transport.Local{
		Role: messages.Role_CLIENT, Address: a.wiring.address, Version: a.wiring.version,
	}, a.wiring.local(messages.ActorJoining))
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	a.spawn(ctx, messages.ActorTicker, newTicker(a.wiring, a.cfg.World.Ticker, a.cfg.Options.TickInterval))
	a.spawn(ctx, messages.ActorTransport, newTransport(a.wiring, a.cfg.Disk, a.cfg.Network, a.identity.Listen, transport.Local{
		Role: messages.Role_NODE, Incarnation: a.identity.Incarnation, Name: a.identity.Name, Address: a.wiring.address,
		Version: a.wiring.version, WaitingFor: core.waitingFor(),
	}))
	a.spawn(ctx, messages.ActorJoining, newJoiner(a.wiring, dialer, core))
}

// onJoined makes durable who this node is, and ends: it starts anew as that.
func (a *node) onJoined(ctx actor.Context, m *messages.Joined) {
	err := disk.Initialise(a.cfg.Disk, &messages.Checkpoint{
		Format: disk.CheckpointFormat, ClusterId: m.ClusterId, ConfState: &raftpb.ConfState{}, Members: m.Members,
	})
	if err == nil {
		err = a.cfg.Disk.Found(m.ClusterId, m.RaftId)
	}
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	a.wiring.logger.Info("this node is a member", "cluster", fmt.Sprintf("%x", m.ClusterId), "raft_id", m.RaftId)
	a.end(ctx, nil)
}

// onRemoved gives the directory up once nobody needs this node's vote any more.
func (a *node) onRemoved(ctx actor.Context, m *messages.Removed) {
	if !m.Confirmed {
		return
	}
	if err := a.cfg.Disk.Retire(m.Why); err != nil {
		a.wiring.fatal(err)
		return
	}
	a.end(ctx, m)
}

func (a *node) end(ctx actor.Context, removed *messages.Removed) {
	a.ended, a.removed = true, removed
	ctx.Stop(ctx.Self())
}

func (a *node) tellPeers(ctx actor.Context, founders []*messages.Founder) {
	ctx.Send(a.wiring.local(messages.ActorTransport), &messages.MembersChanged{Members: membersOf(founders)})
}

// serve spawns the actors that need an initialised disk. Raft is the first: log and
// machine tell it only once what they hold. The others ask for what they missed.
func (a *node) serve(ctx actor.Context) {
	w, o := a.wiring, a.cfg.Options
	tickMS := uint64(o.TickInterval / time.Millisecond)
	suspicion, err := a.cfg.Disk.Suspicion()
	if err != nil {
		w.fatal(err)
		return
	}
	a.spawn(ctx, messages.ActorRaft, raftactor.New(raftactor.Config{
		Self: w.self, TickMS: tickMS, Level: w.level, ReadNonce: a.nonces.reads, LossNonce: a.nonces.losses, Suspicion: suspicion, Options: o.Raft, Logger: w.logger, Meter: w.meter, Fatal: w.fatal,
		Log: w.local(messages.ActorLog), Machine: w.machine(), Gateway: w.local(messages.ActorGateway), Membership: w.membership(),
		Snapshots: w.local(messages.ActorSnapshots), Peer: w.peer(messages.ActorRaft), PID: w.of,
		Inbox: w.inbox, Tracer: w.tracer, Nanos: w.nanos,
	}))
	a.spawn(ctx, messages.ActorLog, storeactor.NewLog(storeactor.LogConfig{
		Raft: w.raft(), Machine: w.machine(), Snapshots: w.local(messages.ActorSnapshots), Disk: a.cfg.Disk, Logger: w.logger, Meter: w.meter, Fatal: w.fatal,
	}))
	a.spawn(ctx, messages.ActorMachine, storeactor.NewMachine(storeactor.MachineConfig{
		Self: w.self, TickMS: tickMS, Level: w.level, Raft: w.raft(), Gateway: w.local(messages.ActorGateway), Membership: w.membership(), Log: w.local(messages.ActorLog),
		Disk: a.cfg.Disk, Logger: w.logger, Meter: w.meter, Fatal: w.fatal, Readers: o.Readers,
		CheckpointEntries: o.CheckpointEntries, CheckpointBytes: o.CheckpointBytes, CheckpointTicks: o.CheckpointTicks,
		HistoryRevisions: o.HistoryRevisions, HistoryMS: uint64(o.HistoryTime / time.Millisecond), RoomBytes: o.RoomBytes, Tracer: w.tracer, Nanos: w.nanos,
	}))
	a.spawn(ctx, messages.ActorSnapshots, shipping.New(shipping.Config{
		Self: w.self, Name: a.identity.Name, Version: w.version, Level: w.level, TickMS: tickMS, Nonce: a.nonces.shipments,
		Raft: w.raft(), Machine: w.machine(), Audit: w.local(messages.ActorAudit), Peer: w.peer(messages.ActorSnapshots),
		Disk: a.cfg.Disk, Logger: w.logger, Meter: w.meter, Fatal: w.fatal, Rate: o.SnapshotRate, ChunkBytes: o.SnapshotChunkBytes, Keep: o.SnapshotsKeep, RoomBytes: o.RoomBytes,
	}))
	a.spawn(ctx, messages.ActorAudit, audit.New(audit.Config{
		Self: w.self, Machine: w.machine(), Membership: w.membership(), Snapshots: w.local(messages.ActorSnapshots), Peer: w.peer(messages.ActorAudit),
		Disk: a.cfg.Disk, Logger: w.logger, Meter: w.meter, Fatal: w.fatal, Nonce: a.nonces.audits, Ticks: o.AuditTicks,
	}))
	a.spawn(ctx, messages.ActorMembership, membershipactor.New(membershipactor.Config{
		Self: w.self, Version: w.version, Level: w.level, Nonce: a.nonces.audits, TickMS: tickMS, WallMS: a.cfg.World.WallMS, Keys: a.cfg.World.Keys,
		Name: a.identity.Name, Address: a.identity.Advertise, Node: w.local(messages.ActorNode), Gateway: w.local(messages.ActorGateway),
		Raft: w.raft(), Machine: w.machine(), Transport: w.local(messages.ActorTransport),
		Snapshots: w.local(messages.ActorSnapshots), Audit: w.local(messages.ActorAudit), Logger: w.logger, Meter: w.meter,
		Peer: w.peer(messages.ActorMembership), PeerRaft: w.peer(messages.ActorRaft), Client: w.ofClient, Tracer: w.tracer,
	}))
	a.spawn(ctx, messages.ActorLogin, newLogin(w, a.cfg.World.Sign, uint64(tickMS)))
	a.spawn(ctx, messages.ActorGateway, newGateway(w))
}

// spawn makes a child as the table of actors says. The ticker must be the first, since
// it is told who hears ticks.
func (a *node) spawn(ctx actor.Context, name string, producer actor.Producer) {
	spec := messages.ActorOf(name)
	_, err := ctx.SpawnNamed(actor.PropsFromProducer(producer, actor.WithSupervisor(newSupervision(a.wiring))), spec.Own())
	if err != nil && !errors.Is(err, actor.ErrNameExists) {
		panic(fmt.Sprintf("spawn %s: %v", name, err))
	}
	if spec.HearsTicks {
		ctx.Send(a.wiring.local(messages.ActorTicker), &messages.HearTicks{Names: []string{name}})
	}
}

// firstCheckpoint is where every founder's history starts: the same bytes on each.
func firstCheckpoint(token string, m *messages.Agreed) *messages.Checkpoint {
	c := &messages.Checkpoint{
		Format: disk.CheckpointFormat, ClusterId: m.ClusterId, Index: 1, Term: 1, Level: messages.FoundingLevel(m.Founders),
		ConfState: &raftpb.ConfState{}, Members: membersOf(m.Founders), Founders: m.Founders, Token: token,
		NextRaftId: uint64(len(m.Founders)) + 1, ConfigurationIndex: 1,
	}
	for _, f := range m.Founders {
		c.ConfState.Voters = append(c.ConfState.Voters, f.RaftId)
	}
	return c
}

func membersOf(founders []*messages.Founder) []*messages.Member {
	var members []*messages.Member
	for _, f := range founders {
		members = append(members, &messages.Member{RaftId: f.RaftId, Name: f.Name, Address: f.Address, Incarnation: f.Incarnation})
	}
	return members
}
