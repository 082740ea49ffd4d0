// Package shipping brings snapshots to other nodes and takes those that come, and keeps
// snapshot files.
package shipping

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
)

// Config is what the snapshots actor needs. Zero numbers mean their defaults.
type Config struct {
	Self          messages.RaftID
	Name, Version string // of this node and its software, for people
	Level         uint32 // the highest cluster level that it understands; messages.Level
	TickMS        uint64
	Raft, Machine *actor.PID
	Audit         *actor.PID                       // nil: nobody vouches for what is shipped
	Peer          func(messages.RaftID) *actor.PID // a peer's snapshots actor
	Disk          disk.Disk
	Logger        *slog.Logger          // nil discards
	Meter         prometheus.Registerer // nil: nobody counts
	Fatal         func(reason error)

	// Nonce is random, of this process: shipments are numbered from it, so that a
	// peer never takes one of this process for one of an earlier.
	Nonce uint64

	Rate       uint64 // bytes a second to one follower; 64 MiB
	RoomBytes  int64  // of the disk that files leave free, and a quarter more; as disk.Room.BytesNeeded is told
	Keep       int    // the newest files that stay when another is written; 0: all
	ChunkBytes int    // about, of a chunk; at most 1 MiB, which is the default
}

func (c Config) withDefaults() Config {
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.TickMS = cmp.Or(c.TickMS, 50)
	c.Level = cmp.Or(c.Level, messages.Level)
	c.Rate = cmp.Or(c.Rate, 64<<20)
	if c.ChunkBytes <= 0 || c.ChunkBytes > snapshot.ChunkBytesMax {
		c.ChunkBytes = snapshot.ChunkBytesMax
	}
	return c
}

// requestsInHandMax bounds the clients' requests that wait for the archive, in number.
const requestsInHandMax = 64

// New makes the actor that brings snapshots to other nodes and takes those
// that come, and that keeps snapshot files. It is to be spawned as
// messages.ActorSnapshots.
func New(config Config) actor.Producer {
	config = config.withDefaults()
	debts := &debts{shipment: config.Nonce, asked: map[uint64]asked{}, shipping: map[messages.RaftID]string{}, transient: transient{}}
	return func() actor.Actor {
		return &snapshotsActor{
			config: config, meters: newMeters(config.Meter), debts: debts, ships: map[messages.RaftID]*shipment{}, incoming: incoming{tickMS: config.TickMS},
		}
	}
}

// debts are what is owed to others: pins to let go, requests to answer. They outlive an
// actor that panics, and the one that starts anew pays them.
type debts struct {
	shipment  uint64                     // the last number that was used
	holders   uint64                     // pins that were named
	requests  uint64                     // that were given to the archive
	asked     map[uint64]asked           // who waits, by the number the archive knows
	shipping  map[messages.RaftID]string // holders of the pins of what is under way
	writing   string                     // holder of the pin of a file; empty: none is written
	raftHas   bool                       // a staging
	transient transient                  // files that are to go
	started   bool
}

// snapshotsActor routes between raft, the machine, the peers and the clients, and its
// children, which wait for the disk. What is to be done is decided by a shipment for
// each peer, by incoming, and by a creation.
type snapshotsActor struct {
	config Config
	meters meters
	debts  *debts
	self   *actor.PID

	ships    map[messages.RaftID]*shipment // the last one to each peer that is under way
	incoming incoming
	creation *creation // the last one; nil: none since the start, or it is whole

	intake, archive *actor.PID
}

func (s *snapshotsActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		s.onStarted(ctx)
	case *messages.Tick:
		s.onTick(ctx, m)
	case *messages.ShipSnapshot:
		s.onShip(ctx, m)
	case *messages.StatePinned:
		s.onPinned(ctx, m)
	case *messages.RowsRead:
		s.onRows(ctx, m)
	case *messages.StateVouched:
		if ship := s.shipOf(m.Holder); ship != nil {
			s.run(ctx, ship.onVouched(m))
		}
	case *messages.SnapshotOffer:
		s.run(ctx, s.incoming.onOffer(s.peerOf(ctx), m))
	case *messages.SnapshotPull:
		s.onPull(ctx, m)
	case *messages.SnapshotPiece:
		s.run(ctx, s.incoming.onPiece(s.peerOf(ctx), m))
	case *messages.SnapshotEnd:
		s.onEnd(ctx, m)
	case *messages.ChunkStaged:
		s.run(ctx, s.incoming.onStaged(m))
	case *messages.Installed:
		s.onInstalled(ctx, m)
	case *messages.StagingUnused:
		s.debts.raftHas = false
		s.run(ctx, s.incoming.onUnused(m))
	case *messages.ChunkWritten:
		s.onWritten(ctx, m)
	case *messages.SnapshotRequest:
		s.onRequest(ctx, m)
	case *messages.SnapshotReply:
		s.onArchived(ctx, m)
	case *messages.StatusDraft:
		s.onStatus(ctx, m)
	default:
		telemetry.Unexpected(ctx, s.config.Logger, s.config.Meter)
	}
}

func (s *snapshotsActor) onStarted(ctx actor.Context) {
	s.self = ctx.Self()
	var err error
	s.intake, err = s.spawn(ctx, messages.ActorIntake, func() actor.Actor { return &intakeActor{config: s.config} })
	if err == nil {
		s.archive, err = s.spawn(ctx, messages.ActorArchive, func() actor.Actor { return &archiveActor{config: s.config} })
	}
	if err != nil {
		s.config.Fatal(err)
		return
	}
	s.pay(ctx)
}

func (s *snapshotsActor) spawn(ctx actor.Context, name string, producer actor.Producer) (*actor.PID, error) {
	pid, err := ctx.SpawnNamed(actor.PropsFromProducer(producer), strings.TrimPrefix(name, messages.ActorSnapshots+"/"))
	if err != nil {
		return nil, fmt.Errorf("spawn %s: %w", name, err)
	}
	return pid, nil
}

// pay pays the debts that were left when the actor panicked. Raft is told that every
// shipment failed, also one that it asked for at that moment, of which nothing is known.
func (s *snapshotsActor) pay(ctx actor.Context) {
	d := s.debts
	if d.started {
		ctx.Send(s.config.Raft, &messages.SnapshotShipped{Failed: true})
	}
	d.started = true
	for _, peer := range slices.Sorted(maps.Keys(d.shipping)) {
		ctx.Send(s.config.Machine, &messages.UnpinState{Holder: d.shipping[peer]})
	}
	clear(d.shipping)
	if d.writing != "" {
		ctx.Send(s.config.Machine, &messages.UnpinState{Holder: d.writing})
		d.writing = ""
	}
	for _, n := range slices.Sorted(maps.Keys(d.asked)) {
		s.answer(ctx, n, refused(0, errAnew))
	}
	if d.raftHas {
		s.incoming.current = &arrival{raftHas: true, ended: true}
	}
}

var errAnew = messages.Errorf(messages.Code_INTERNAL, "the actor that was to answer failed").WithHint("ask again")

func (s *snapshotsActor) shipmentConfig(about *messages.SnapshotHeader) shipmentConfig {
	about.CreatedBy, about.Version = s.config.Name, s.config.Version
	return shipmentConfig{tickMS: s.config.TickMS, rate: s.config.Rate, chunkBytes: s.config.ChunkBytes, about: about}
}

// holder names a pin as none was named before: an answer to an earlier one is known
// by it.
func (s *snapshotsActor) holder(prefix string) string {
	s.debts.holders++
	return fmt.Sprintf("%s-%d", prefix, s.debts.holders)
}

func (s *snapshotsActor) onShip(ctx actor.Context, m *messages.ShipSnapshot) {
	peer := m.Message.GetTo()
	if before := s.ships[peer]; before != nil {
		s.run(ctx, before.fail(messages.Code_CONFLICT, "another snapshot takes its place"))
	}
	s.debts.shipment++
	config := s.shipmentConfig(&messages.SnapshotHeader{})
	if s.config.Audit != nil {
		own, err := s.config.Disk.Lineage()
		if err != nil {
			s.config.Fatal(err)
			return
		}
		config.audited, config.lineage = true, own.From
	}
	ship := newShipment(config, s.debts.shipment, s.holder(fmt.Sprintf("to-%d", peer)), m.Message)
	s.ships[peer] = ship
	s.debts.shipping[peer] = ship.holder
	s.run(ctx, ship.start())
}

// shipOf finds the shipment that a pin belongs to.
func (s *snapshotsActor) shipOf(holder string) *shipment {
	for peer, held := range s.debts.shipping {
		if held == holder {
			return s.ships[peer]
		}
	}
	return nil
}

func (s *snapshotsActor) onPinned(ctx actor.Context, m *messages.StatePinned) {
	if ship := s.shipOf(m.Holder); ship != nil {
		s.run(ctx, ship.onPinned(m))
	} else if s.creation.running() {
		s.run(ctx, s.creation.onPinned(m))
	}
}

func (s *snapshotsActor) onRows(ctx actor.Context, m *messages.RowsRead) {
	if ship := s.shipOf(m.Holder); ship != nil {
		s.run(ctx, ship.onRows(m))
	} else if s.creation.running() {
		s.run(ctx, s.creation.onRows(m))
	}
}

// peerOf is the node that sent the message; 0: it came from this one, or from a client.
func (s *snapshotsActor) peerOf(ctx actor.Context) messages.RaftID {
	return messages.PeerAt(ctx.Sender().GetAddress(), s.config.Self)
}

func (s *snapshotsActor) onPull(ctx actor.Context, m *messages.SnapshotPull) {
	from := s.peerOf(ctx)
	if ship := s.ships[from]; ship != nil && ship.number == m.Shipment {
		s.run(ctx, ship.onPull(m))
		return
	}
	s.run(ctx, []effect{endOf(from, m.Shipment, messages.Code_NOT_FOUND, "this shipment is not known")})
}

func (s *snapshotsActor) onEnd(ctx actor.Context, m *messages.SnapshotEnd) {
	from := s.peerOf(ctx)
	if ship := s.ships[from]; ship != nil {
		s.run(ctx, ship.onEnd(m))
	}
	s.run(ctx, s.incoming.onEnd(from, m))
}

// onInstalled ends all that reads the state before: it is gone.
func (s *snapshotsActor) onInstalled(ctx actor.Context, m *messages.Installed) {
	s.debts.raftHas = false
	s.meters.installed.Inc()
	s.run(ctx, s.incoming.onInstalled(m))
	for _, peer := range slices.Sorted(maps.Keys(s.ships)) {
		if ship := s.ships[peer]; ship != nil {
			s.run(ctx, ship.fail(messages.Code_CONFLICT, "this node installed a snapshot itself"))
		}
	}
	if s.creation.running() {
		s.run(ctx, s.creation.fail("this node installed a snapshot from another"))
	}
}

func (s *snapshotsActor) onWritten(ctx actor.Context, m *messages.ChunkWritten) {
	if s.creation.running() {
		s.run(ctx, s.creation.onWritten(m))
	}
	if s.creation != nil && s.creation.phase == creationEnded {
		s.debts.transient.made(s.creation.id)
		s.creation = nil
	}
}

func (s *snapshotsActor) onTick(ctx actor.Context, m *messages.Tick) {
	ctx.Request(ctx.Sender(), &messages.Ticked{})
	for _, peer := range slices.Sorted(maps.Keys(s.ships)) {
		if ship := s.ships[peer]; ship != nil {
			s.run(ctx, ship.tick(m.Elapsed))
		}
	}
	s.run(ctx, s.incoming.tick(m.Elapsed))
	if s.creation.running() {
		s.run(ctx, s.creation.tick(m.Elapsed))
	}
	for _, id := range s.debts.transient.tick(m.Elapsed, s.config.TickMS) {
		s.run(ctx, []effect{
			post{to: toArchive, message: &messages.DropFile{Id: id}},
			note{"a transient snapshot goes: nobody fetches of it", false, []any{"snapshot", id}},
		})
	}
}

// onStatus adds what is under way to a status and passes it on.
func (s *snapshotsActor) onStatus(ctx actor.Context, m *messages.StatusDraft) {
	reply := proto.Clone(m.Reply).(*messages.StatusReply)
	for _, peer := range slices.Sorted(maps.Keys(s.ships)) {
		reply.Transfers = append(reply.Transfers, s.ships[peer].transfer())
	}
	if t := s.incoming.transfer(); t != nil {
		reply.Transfers = append(reply.Transfers, t)
	}
	ctx.RequestWithCustomSender(s.config.Raft, &messages.StatusDraft{Reply: reply}, ctx.Sender())
}

// run carries out effects, and keeps account of what is owed.
func (s *snapshotsActor) run(ctx actor.Context, effects []effect) {
	for _, effect := range effects {
		switch e := effect.(type) {
		case post:
			if e.to == toPeer && e.peer == 0 {
				continue // nobody to answer
			}
			s.account(e)
			s.meters.count(e.message)
			ctx.Request(s.pid(e), e.message)
		case outdated:
			s.config.Fatal(e.Error)
		case note:
			if e.failed {
				s.config.Logger.Warn(e.text, e.args...)
			} else {
				s.config.Logger.Info(e.text, e.args...)
			}
		}
	}
}

func (s *snapshotsActor) pid(e post) *actor.PID {
	switch e.to {
	case toMachine:
		return s.config.Machine
	case toRaft:
		return s.config.Raft
	case toIntake:
		return s.intake
	case toArchive:
		return s.archive
	case toAudit:
		return s.config.Audit
	}
	return s.config.Peer(e.peer)
}

// account enters the debts that a message makes, and strikes those that it pays.
func (s *snapshotsActor) account(e post) {
	switch m := e.message.(type) {
	case *messages.SnapshotShipped:
		delete(s.ships, m.Peer)
		delete(s.debts.shipping, m.Peer)
	case *messages.StagedSnapshot:
		s.debts.raftHas = true
	case *messages.UnpinState:
		if m.Holder == s.debts.writing {
			s.debts.writing = ""
		}
	}
}

// HandleFailure makes snapshots the supervisor of its children: they start anew with
// nothing in hand, and those who wait for them hear it.
func (s *snapshotsActor) HandleFailure(system *actor.ActorSystem, supervisor actor.Supervisor, child *actor.PID,
	_ *actor.RestartStatistics, reason, message any) {
	telemetry.Failed(s.config.Logger, s.config.Meter, child, "starts anew", reason, message)
	supervisor.RestartChildren(child)
	what := fmt.Sprintf("an actor failed: %v", reason)
	if child.Equal(s.intake) {
		if c := s.incoming.current; c != nil {
			system.Root.Send(s.self, &messages.ChunkStaged{Shipment: c.shipment, Code: messages.Code_INTERNAL, Message: what})
		}
		return
	}
	if s.creation.running() {
		system.Root.Send(s.self, &messages.ChunkWritten{Id: s.creation.id, Code: messages.Code_INTERNAL, Message: what})
	}
	for _, n := range slices.Sorted(maps.Keys(s.debts.asked)) {
		system.Root.Send(s.self, refused(n, errAnew))
	}
}
