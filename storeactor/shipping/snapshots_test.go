package shipping

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot/snapshottest"
	"keyval/storeactor/state/statetest"
)

// shelf is a Disk in memory as the snapshots actor uses it: a staging and an archive.
type shelf struct {
	disk.Disk // what is not overridden is not used
	mutex     sync.Mutex

	cluster []byte
	staging *shelfStaging
	files   map[string][]byte
	taken   uint64 // bytes of all files, also of those that came to nothing
	room    uint64 // bytes for files; 0: nobody counts

	stageErr, writeErr, sealErr, fileErr, commitErr error
	panics                                          string        // the name of the call that panics, once
	opens                                           chan struct{} // Open of a file waits for it, if not nil
}

type shelfStaging struct {
	shelf      *shelf
	rows       []disk.Row
	lineage    *messages.Lineage
	checkpoint *messages.Checkpoint // once sealed
	dropped    bool
}

func newShelf() *shelf {
	return &shelf{cluster: statetest.First().ClusterId, files: map[string][]byte{}}
}

func (d *shelf) Room() (disk.Room, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if d.room == 0 {
		return disk.Room{}, nil
	}
	return disk.Room{Bytes: d.room - min(d.taken, d.room), BytesAll: 100 << 30}, nil
}

func (d *shelf) panicIn(call string) {
	if d.panics == call {
		d.panics = ""
		panic("a defect in " + call)
	}
}

func (d *shelf) Checkpoint() (*messages.Checkpoint, error) {
	return &messages.Checkpoint{ClusterId: d.cluster}, nil
}

func (d *shelf) Stage() (disk.Staging, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.panicIn("Stage")
	if d.stageErr != nil {
		return nil, d.stageErr
	}
	d.staging = &shelfStaging{shelf: d}
	return d.staging, nil
}

func (s *shelfStaging) Write(rows []disk.Row) error {
	s.shelf.mutex.Lock()
	defer s.shelf.mutex.Unlock()
	s.shelf.panicIn("Write")
	for _, r := range rows {
		s.rows = append(s.rows, disk.Row{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Revision: r.Revision, Deleted: r.Deleted})
	}
	return s.shelf.writeErr
}

func (s *shelfStaging) Inherit(l *messages.Lineage) error {
	s.shelf.mutex.Lock()
	defer s.shelf.mutex.Unlock()
	s.lineage = l
	return nil
}

func (s *shelfStaging) Seal(c *messages.Checkpoint) error {
	s.shelf.mutex.Lock()
	defer s.shelf.mutex.Unlock()
	s.checkpoint = c
	return s.shelf.sealErr
}

func (s *shelfStaging) Drop() error {
	s.shelf.mutex.Lock()
	defer s.shelf.mutex.Unlock()
	s.dropped = true
	return nil
}

// staged describes the staging of now.
func (d *shelf) staged() string {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	switch s := d.staging; {
	case s == nil:
		return "none"
	case s.dropped:
		return "dropped"
	case s.checkpoint == nil:
		return "open"
	default:
		return fmt.Sprintf("sealed at %d with %d rows", s.checkpoint.Index, len(s.rows))
	}
}

func (d *shelf) Archive() disk.Archive { return (*shelfArchive)(d) }

type shelfArchive shelf

func (a *shelfArchive) List() ([]disk.ArchiveFile, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	(*shelf)(a).panicIn("List")
	var files []disk.ArchiveFile
	for id, b := range a.files {
		files = append(files, disk.ArchiveFile{ID: id, Bytes: int64(len(b))})
	}
	slices.SortFunc(files, func(x, y disk.ArchiveFile) int { return cmp.Compare(x.ID, y.ID) })
	return files, a.fileErr
}

func (a *shelfArchive) Create(id string) (disk.ArchiveWriter, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if _, there := a.files[id]; there {
		return nil, messages.Errorf(messages.Code_CONFLICT, "there is a snapshot %s already", id)
	}
	return &shelfFile{shelf: (*shelf)(a), id: id}, nil
}

func (a *shelfArchive) Open(id string) (io.ReadCloser, error) {
	if a.opens != nil {
		<-a.opens
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	b, there := a.files[id]
	if !there {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s", id)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (a *shelfArchive) Delete(id string) error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if _, there := a.files[id]; !there {
		return messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s", id)
	}
	delete(a.files, id)
	return nil
}

type shelfFile struct {
	shelf *shelf
	id    string
	bytes []byte
}

func (f *shelfFile) Write(b []byte) (int, error) {
	f.shelf.mutex.Lock()
	defer f.shelf.mutex.Unlock()
	f.shelf.panicIn("WriteFile")
	if f.shelf.writeErr != nil {
		return 0, f.shelf.writeErr
	}
	f.bytes = append(f.bytes, b...)
	f.shelf.taken += uint64(len(b))
	return len(b), nil
}

func (f *shelfFile) Commit() error {
	f.shelf.mutex.Lock()
	defer f.shelf.mutex.Unlock()
	if f.shelf.commitErr != nil {
		return f.shelf.commitErr
	}
	f.shelf.files[f.id] = f.bytes
	return nil
}

func (f *shelfFile) Abort() error { return nil }

// vault is a machine as snapshots know it: one state that it pins, and its rows.
type vault struct {
	checkpoint *messages.Checkpoint
	rows       []disk.Row
	pins       sync.Map // holder -> true
	refuse     bool     // says COMPACTED
	mute       bool     // never answers a ReadRows
	unread     messages.Code
}

func (v *vault) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.PinState:
		if v.refuse || m.Index != 0 && m.Index != v.checkpoint.Index {
			ctx.Respond(&messages.StatePinned{Holder: m.Holder, Code: messages.Code_COMPACTED})
			return
		}
		v.pins.Store(m.Holder, true)
		ctx.Respond(&messages.StatePinned{Holder: m.Holder, Checkpoint: v.checkpoint, Bytes: 300})
	case *messages.UnpinState:
		v.pins.Delete(m.Holder)
	case *messages.ReadRows:
		if _, pinned := v.pins.Load(m.Holder); !pinned {
			panic("rows of a state that is not pinned are read")
		}
		switch {
		case v.mute:
		case v.unread != 0:
			ctx.Respond(&messages.RowsRead{Holder: m.Holder, Sequence: m.Sequence, Code: v.unread, Message: "the disk is gone"})
		default:
			ctx.Respond(snapshottest.RowsRead(v.rows, m))
		}
	}
}

// house is a node with a snapshots actor, its machine and its disk; raft and a client
// are probes.
type house struct {
	*actortest.Stage
	id        messages.RaftID
	disk      *shelf
	vault     *vault
	snapshots *actor.PID
	diary     *diary
	raft      *actortest.Probe
	client    *actortest.Probe
	ticker    *actortest.Probe
}

// street joins the actor systems of houses. Every message is copied on the way.
type street struct {
	mutex  sync.Mutex
	houses map[string]*house
	lose   func(to messages.RaftID, m proto.Message) bool // nil: nothing is lost
	heard  []string                                       // what went over it, in order
}

// newStreet makes houses 1 to n.
func newStreet(t *testing.T, n int, change func(*Config)) (*street, []*house) {
	t.Helper()
	s := &street{houses: map[string]*house{}}
	var all []*house
	for id := range messages.RaftID(n) {
		all = append(all, s.build(t, id+1, change))
	}
	return s, all
}

func (s *street) build(t *testing.T, id messages.RaftID, change func(*Config)) *house {
	t.Helper()
	h := &house{Stage: actortest.NewStage(t), id: id, disk: newShelf(), diary: &diary{}, vault: &vault{checkpoint: snapshottest.StateAt(9, 4), rows: snapshottest.SomeRows()}}
	h.System.ProcessRegistry.Address = messages.NodeAddress(id)
	h.System.ProcessRegistry.RegisterAddressResolver(func(*actor.PID) (actor.Process, bool) { return s, true })
	h.raft, h.client, h.ticker = h.Probe(messages.ActorRaft), h.Probe("client"), h.Probe(messages.ActorTicker)
	config := Config{
		Self: id, Name: fmt.Sprintf("node%d", id), Version: "test", TickMS: 100, Nonce: 1000 * id,
		Raft: h.raft.PID, Machine: h.Spawn(messages.ActorMachine, func() actor.Actor { return h.vault }),
		Peer: func(id messages.RaftID) *actor.PID {
			if id == 9 {
				panic("there is no node 9")
			}
			return actor.NewPID(messages.NodeAddress(id), messages.ActorSnapshots)
		},
		Disk: h.disk, Logger: h.diary.logger(), Fatal: h.OnFatal, ChunkBytes: 30,
	}
	if change != nil {
		change(&config)
	}
	h.snapshots = h.Spawn(messages.ActorSnapshots, New(config))
	s.mutex.Lock()
	s.houses[messages.NodeAddress(id)] = h
	s.mutex.Unlock()
	return h
}

// SendUserMessage implements actor.Process.
func (s *street) SendUserMessage(pid *actor.PID, message any) {
	_, body, sender := actor.UnwrapEnvelope(message)
	m := proto.Clone(body.(proto.Message))
	to, _ := messages.ParseNodeAddress(pid.Address)
	s.mutex.Lock()
	h, lost := s.houses[pid.Address], s.lose != nil && s.lose(to, m)
	s.heard = append(s.heard, fmt.Sprintf("%s %s", pid.Address, m.ProtoReflect().Descriptor().Name()))
	s.mutex.Unlock()
	if h != nil && !lost {
		h.System.Root.RequestWithCustomSender(actor.NewPID(pid.Address, pid.Id), m, sender)
	}
}

func (s *street) SendSystemMessage(*actor.PID, any) {}
func (s *street) Stop(*actor.PID)                   {}

// losing has the street lose what lose names from now on.
func (s *street) losing(lose func(to messages.RaftID, m proto.Message) bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.lose = lose
}

func (s *street) count(line string) (n int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, h := range s.heard {
		if h == line {
			n++
		}
	}
	return n
}

func (h *house) send(m any) { h.System.Root.Send(h.snapshots, m) }

// tick lets so many ticks pass, one at a time.
func (h *house) tick(n int) {
	for range n {
		h.System.Root.RequestWithCustomSender(h.snapshots, &messages.Tick{Elapsed: 1}, h.ticker.PID)
		actortest.Take[*messages.Ticked](h.ticker)
	}
}

// ask is a client's request and its answer.
func (h *house) ask(request *messages.SnapshotRequest) *messages.SnapshotReply {
	h.T.Helper()
	h.System.Root.RequestWithCustomSender(h.snapshots, request, h.client.PID)
	return actortest.Take[*messages.SnapshotReply](h.client)
}

func creates(id string, at int64) *messages.SnapshotRequest {
	return &messages.SnapshotRequest{Request: 7, Kind: &messages.SnapshotRequest_Create{Create: &messages.SnapshotCreate{Id: id, CreatedAtMs: at}}}
}

func lists(id string) *messages.SnapshotRequest {
	return &messages.SnapshotRequest{Request: 8, Kind: &messages.SnapshotRequest_List{List: &messages.SnapshotList{Id: id}}}
}

func deletes(id string) *messages.SnapshotRequest {
	return &messages.SnapshotRequest{Request: 9, Kind: &messages.SnapshotRequest_Delete{Delete: &messages.SnapshotDelete{Id: id}}}
}

// transfers is what a status tells.
func (h *house) transfers() []*messages.Transfer {
	h.T.Helper()
	h.System.Root.RequestWithCustomSender(h.snapshots, &messages.StatusDraft{Reply: &messages.StatusReply{Name: "x"}}, h.client.PID)
	return actortest.Take[*messages.StatusDraft](h.raft).Reply.Transfers
}

func (h *house) pinned() (n int) {
	h.vault.pins.Range(func(any, any) bool { n++; return true })
	return n
}

// msgSnap is raft's wish to bring node to the state at index 9.
func msgSnap(from, to messages.RaftID) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: &from, To: &to, Term: new(uint64(5)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(uint64(9)), Term: new(uint64(3)), ConfState: &raftpb.ConfState{Voters: []uint64{3, 2, 1}},
		}},
	}
}

// eventually waits for what has to come, and lets time pass meanwhile.
func eventually(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come: %s", what)
		}
	}
}

// arrives ships from a to b and waits until b's raft has it.
func arrives(t *testing.T, a, b *house) *messages.StagedSnapshot {
	t.Helper()
	a.send(&messages.ShipSnapshot{Message: msgSnap(a.id, b.id)})
	return actortest.Take[*messages.StagedSnapshot](b.raft)
}

// refuses ships what the other side refuses, and waits for so many reports to raft. Time
// passes only when the refusal is there: ticks alone would end it otherwise.
func (s *street) refuses(t *testing.T, from *house, m *raftpb.Message, reports int) {
	t.Helper()
	end := messages.NodeAddress(from.id) + " SnapshotEnd"
	before, told := s.count(end), len(from.raft.Got)
	from.send(&messages.ShipSnapshot{Message: m})
	eventually(t, end, func() bool { return s.count(end) > before })
	eventually(t, "raft hears of it", func() bool {
		from.tick(1)
		return len(from.raft.Got) >= told+reports
	})
}

func TestSnapshotIsShippedAndInstalled(t *testing.T) {
	meter := prometheus.NewRegistry()
	s, h := newStreet(t, 2, func(c *Config) { c.Meter = meter })
	a, b := h[0], h[1]
	staged := arrives(t, a, b)
	if !proto.Equal(staged.Message, msgSnap(1, 2)) {
		t.Errorf("raft is told %s", messages.Line(staged))
	}
	if got, want := b.disk.staged(), fmt.Sprintf("sealed at 9 with %d rows", len(snapshottest.SomeRows())); got != want {
		t.Errorf("the staging is %s, want %s", got, want)
	}
	for i, r := range snapshottest.SomeRows() {
		if got := b.disk.staging.rows[i]; !bytes.Equal(got.Key, r.Key) || !bytes.Equal(got.Value, r.Value) || got.Revision != r.Revision || got.Deleted != r.Deleted {
			t.Errorf("row %d is %v, want %v", i, got, r)
		}
	}
	if !proto.Equal(b.disk.staging.checkpoint, a.vault.checkpoint) {
		t.Error("another state was sealed")
	}
	b.send(&messages.Installed{Index: 9})
	a.raft.Expect("SnapshotShipped{peer=2}")
	if b.disk.staged() == "dropped" {
		t.Error("what was installed is dropped")
	}
	eventually(t, "the state is not pinned any more", func() bool { return a.pinned() == 0 })
	if n := s.count("node/2 SnapshotOffer"); n != 1 {
		t.Errorf("%d offers", n)
	}
	sent, received := actortest.Counted(t, meter, "keyval_snapshot_sent_bytes_total"), actortest.Counted(t, meter, "keyval_snapshot_received_bytes_total")
	if installed := actortest.Counted(t, meter, "keyval_snapshots_installed_total"); sent == 0 || received != sent || installed != 1 {
		t.Errorf("counted are %d bytes sent, %d received, %d snapshots installed", sent, received, installed)
	}
	// Another one comes in its place, and is not needed.
	arrives(t, a, b)
	b.send(&messages.StagingUnused{Index: 9})
	a.raft.Expect("SnapshotShipped{peer=2}")
	eventually(t, "it is dropped", func() bool { return b.disk.staged() == "dropped" })
}

func TestShipmentsThatFailAreReported(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*street, *house, *house)
	}{
		"the state is gone": {func(_ *street, a, _ *house) { a.vault.refuse = true }},
		"nobody answers": {func(s *street, _, _ *house) {
			s.lose = func(to messages.RaftID, _ proto.Message) bool { return to == 2 }
		}},
		"the rows cannot be read":      {func(_ *street, a, _ *house) { a.vault.unread = messages.Code_INTERNAL }},
		"the rows are not read":        {func(_ *street, a, _ *house) { a.vault.mute = true }},
		"another state is pinned":      {func(_ *street, a, _ *house) { a.vault.checkpoint.Term = 2 }},
		"the receiver has no room":     {func(_ *street, _, b *house) { b.disk.stageErr = io.ErrShortWrite }},
		"the receiver cannot write":    {func(_ *street, _, b *house) { b.disk.writeErr = io.ErrShortWrite }},
		"the receiver cannot seal":     {func(_ *street, _, b *house) { b.disk.sealErr = io.ErrShortWrite }},
		"the receiver is of elsewhere": {func(_ *street, _, b *house) { b.disk.cluster = statetest.Client(9) }},
		"the intake panics at once":    {func(_ *street, _, b *house) { b.disk.panics = "Stage" }},
		"the intake panics":            {func(_ *street, _, b *house) { b.disk.panics = "Write" }},
		"the receiver goes silent": {func(s *street, _, _ *house) {
			s.lose = func(_ messages.RaftID, m proto.Message) bool {
				p, ok := m.(*messages.SnapshotPull)
				return ok && p.Next >= 5
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := newStreet(t, 2, nil)
			a, b := h[0], h[1]
			test.change(s, a, b)
			a.send(&messages.ShipSnapshot{Message: msgSnap(1, 2)})
			for len(a.raft.Got) == 0 {
				a.tick(1)
				b.tick(1)
			}
			a.raft.Expect("SnapshotShipped{peer=2 failed=true}")
			eventually(t, "the state is not pinned any more", func() bool { return a.pinned() == 0 })
			if len(b.raft.Got) > 0 {
				t.Errorf("the receiver's raft is told %s", messages.Line(<-b.raft.Got))
			}
			// It goes well the next time, once the cause is gone.
			s.losing(nil)
			a.Stop(a.snapshots)
			b.Stop(b.snapshots)
			a, b = s.build(t, 1, nil), s.build(t, 2, nil)
			arrives(t, a, b)
		})
	}
}

// What failed at the receiver leaves it ready for the next one, with the same actors.
func TestReceiverRecovers(t *testing.T) {
	for _, call := range []string{"Stage", "Write"} {
		s, h := newStreet(t, 2, nil)
		h[1].disk.panics = call
		s.refuses(t, h[0], msgSnap(1, 2), 1)
		h[0].raft.Expect("SnapshotShipped{peer=2 failed=true}")
		arrives(t, h[0], h[1])
		h[1].send(&messages.Installed{Index: 9})
		h[0].raft.Expect("SnapshotShipped{peer=2}")
	}
}

// A later wish ends the earlier one; each is reported once.
func TestLaterShipmentTakesThePlaceOfAnEarlier(t *testing.T) {
	s, h := newStreet(t, 2, nil)
	s.losing(func(to messages.RaftID, m proto.Message) bool {
		p, ok := m.(*messages.SnapshotPiece)
		return ok && p.Shipment == 1001
	})
	h[0].send(&messages.ShipSnapshot{Message: msgSnap(1, 2)})
	eventually(t, "it began", func() bool { return s.count("node/2 SnapshotPiece") > 0 })
	arrives(t, h[0], h[1])
	h[0].raft.Expect("SnapshotShipped{peer=2 failed=true}")
	h[1].send(&messages.Installed{Index: 9})
	h[0].raft.Expect("SnapshotShipped{peer=2}")
	h[0].Stop(h[0].snapshots)
	h[0].raft.ExpectNoMore(h[0].Stage)
}

// While raft has one, no other is taken, and the one it has is not touched.
func TestNothingComesWhileRaftHasOne(t *testing.T) {
	s, h := newStreet(t, 3, nil)
	arrives(t, h[0], h[1])
	for _, other := range []*house{h[0], h[2]} { // another one of the same node, or of another
		if other == h[0] { // what it shipped before is ended
			s.refuses(t, other, msgSnap(other.id, 2), 2)
			other.raft.Expect("SnapshotShipped{peer=2 failed=true}")
		} else {
			s.refuses(t, other, msgSnap(other.id, 2), 1)
		}
		other.raft.Expect("SnapshotShipped{peer=2 failed=true}")
		for range intakeLostTicks + 1 {
			h[1].tick(1)
		}
		if got := h[1].disk.staged(); got != "sealed at 9 with 8 rows" {
			t.Fatalf("the staging is %s", got)
		}
	}
	h[1].send(&messages.Installed{Index: 9})
	arrives(t, h[2], h[1])
}

// An actor that fails pays its debts when it starts anew: it reports, lets go of pins,
// answers clients, and leaves alone what raft has.
func TestSnapshotsStartAnew(t *testing.T) {
	s, h := newStreet(t, 2, nil)
	a, b := h[0], h[1]
	arrives(t, a, b)
	a.fail()
	a.raft.Expect("SnapshotShipped{failed=true}")
	eventually(t, "the state is not pinned any more", func() bool { return a.pinned() == 0 })
	b.fail()
	b.raft.Expect("SnapshotShipped{failed=true}")
	s.refuses(t, a, msgSnap(1, 2), 1)
	a.raft.Expect("SnapshotShipped{peer=2 failed=true}") // raft of 2 still has the first
	if got := b.disk.staged(); got != "sealed at 9 with 8 rows" {
		t.Fatalf("the staging is %s", got)
	}
	b.send(&messages.StagingUnused{Index: 9})
	arrives(t, a, b)
	if n := s.count("node/1 SnapshotPull"); n == 0 {
		t.Error("nothing was pulled")
	}
}

// fail has the snapshots actor panic: it is to answer node 9.
func (h *house) fail() {
	h.System.Root.RequestWithCustomSender(h.snapshots, &messages.SnapshotPull{Shipment: 1}, actor.NewPID("node/9", messages.ActorSnapshots))
}
