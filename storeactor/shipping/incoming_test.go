package shipping

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

func offers(from messages.RaftID, shipment uint64) *messages.SnapshotOffer {
	return &messages.SnapshotOffer{Shipment: shipment, Message: msgSnap(from, 2), Bytes: 500}
}

// wares are the chunks of a good snapshot.
func wares(t snapshottest.T) []*messages.SnapshotChunk {
	return snapshottest.Cut(t, snapshot.NewSource(snapshottest.StateAt(9, 4), &messages.SnapshotHeader{CreatedBy: "node1"}, 90), snapshottest.SomeRows())
}

func pieceOf(shipment uint64, c *messages.SnapshotChunk) *messages.SnapshotPiece {
	return &messages.SnapshotPiece{Shipment: shipment, Chunk: c}
}

func stagedAt(shipment, sequence uint64) *messages.ChunkStaged {
	return &messages.ChunkStaged{Shipment: shipment, Sequence: sequence}
}

func pulled(peer, shipment, next uint64, again bool) string {
	line := fmt.Sprintf("node %d <- SnapshotPull{shipment=%d", peer, shipment)
	if next > 0 {
		line += fmt.Sprintf(" next=%d", next)
	}
	line += " window=4"
	if again {
		line += " again=true"
	}
	return line + "}"
}

const dropped = "intake <- DropStaging{}"

// receiving is a receiver with an offer of node 1 accepted.
func receiving(t *testing.T) *incoming {
	t.Helper()
	in := &incoming{tickMS: 100}
	tell(t, turn{"an offer", in.onOffer(1, offers(1, 5)), pulled(1, 5, 0, false)})
	return in
}

// holding is one that raft has a snapshot of.
func holding(t *testing.T) *incoming {
	t.Helper()
	in := receiving(t)
	chunks := wares(t)
	for i, c := range chunks {
		in.onPiece(1, pieceOf(5, c))
		if i < len(chunks)-1 {
			in.onStaged(stagedAt(5, uint64(i)))
		}
	}
	last := stagedAt(5, uint64(len(chunks)-1))
	last.Sealed = true
	tell(t, turn{"it is whole", in.onStaged(last), "raft <- StagedSnapshot\n" + pulled(1, 5, uint64(len(chunks)), false)})
	return in
}

func TestReceiverTakesChunksInOrder(t *testing.T) {
	in, c := receiving(t), wares(t)
	tell(t,
		turn{"the same offer", in.onOffer(1, offers(1, 5)), pulled(1, 5, 0, false)},
		turn{"the second chunk", in.onPiece(1, pieceOf(5, c[1])), ""},
		turn{"the first", in.onPiece(1, pieceOf(5, c[0])), "intake <- stage 0 of 5: HEADER"},
		turn{"the first once more", in.onPiece(1, pieceOf(5, c[0])), ""},
		turn{"the second", in.onPiece(1, pieceOf(5, c[1])), "intake <- stage 1 of 5: STATE"},
		turn{"of another shipment", in.onPiece(1, pieceOf(6, c[2])), `node 1 <- SnapshotEnd{shipment=6 code=NOT_FOUND message="this shipment is not known"}`},
		turn{"of another node", in.onPiece(3, pieceOf(5, c[2])), `node 3 <- SnapshotEnd{shipment=5 code=NOT_FOUND message="this shipment is not known"}`},
		turn{"from nowhere", append(in.onPiece(0, pieceOf(5, c[2])), in.onOffer(0, offers(1, 7))...), ""},
		turn{"the first is staged", in.onStaged(stagedAt(5, 0)), pulled(1, 5, 1, false)},
		turn{"staged of another shipment", in.onStaged(stagedAt(6, 1)), ""},
		turn{"the third", in.onPiece(1, pieceOf(5, c[2])), "intake <- stage 2 of 5: STATE"},
		turn{"the fourth", in.onPiece(1, pieceOf(5, c[3])), "intake <- stage 3 of 5: STATE"},
		turn{"the fifth", in.onPiece(1, pieceOf(5, c[4])), "intake <- stage 4 of 5: ROWS"},
		turn{"beyond the window", in.onPiece(1, pieceOf(5, c[5])), ""},
		turn{"the second is staged", in.onStaged(stagedAt(5, 1)), pulled(1, 5, 2, false)},
		turn{"the disk is full", in.onStaged(&messages.ChunkStaged{Shipment: 5, Sequence: 2, Code: messages.Code_INTERNAL, Message: "full"}),
			`node 1 <- SnapshotEnd{shipment=5 code=INTERNAL message="full"}` + "\n" + dropped},
		turn{"late", in.onStaged(stagedAt(5, 3)), ""},
		turn{"another offer", in.onOffer(3, offers(3, 9)), pulled(3, 9, 0, false)},
	)
}

// A state of newer software ends the process: no other that comes would be understood.
func TestReceiverThatIsTooOldStops(t *testing.T) {
	in := receiving(t)
	c := wares(t)
	in.onPiece(1, pieceOf(5, c[0]))
	effects := in.onStaged(&messages.ChunkStaged{Shipment: 5, Code: messages.Code_UNSUPPORTED, Message: "the snapshot has level 2"})
	end, ends := effects[len(effects)-1].(outdated)
	if !ends || end.Code != messages.Code_UNSUPPORTED || end.Hint == "" || in.current != nil ||
		end.Message != "node1 brings a newer state: the snapshot has level 2: this node is too old and stops" {
		t.Errorf("%v", effects)
	}
}

func TestReceiverHoldsTheHeaderAgainstTheOffer(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*raftpb.Message, *messages.SnapshotChunk)
		code   messages.Code
	}{
		"right":         {func(*raftpb.Message, *messages.SnapshotChunk) {}, messages.Code_OK},
		"another index": {func(m *raftpb.Message, _ *messages.SnapshotChunk) { m.Snapshot.Metadata.Index = new(uint64(8)) }, messages.Code_INVALID},
		"another term":  {func(m *raftpb.Message, _ *messages.SnapshotChunk) { m.Snapshot.Metadata.Term = new(uint64(2)) }, messages.Code_INVALID},
		"another configuration": {func(m *raftpb.Message, _ *messages.SnapshotChunk) {
			m.Snapshot.Metadata.ConfState.Voters = []uint64{1, 2}
		}, messages.Code_INVALID},
		"no configuration": {func(m *raftpb.Message, _ *messages.SnapshotChunk) { m.Snapshot.Metadata.ConfState = nil }, messages.Code_INVALID},
		"wrong checksum":   {func(_ *raftpb.Message, c *messages.SnapshotChunk) { c.Checksum++ }, messages.Code_DAMAGED},
		"no header":        {func(_ *raftpb.Message, c *messages.SnapshotChunk) { c.Kind = messages.ChunkKind_ROWS }, messages.Code_DAMAGED},
	} {
		in, offer, chunk := &incoming{tickMS: 100}, offers(1, 5), wares(t)[0]
		test.change(offer.Message, chunk)
		in.onOffer(1, offer)
		got := in.onPiece(1, pieceOf(5, chunk))
		if test.code == messages.Code_OK {
			if fmt.Sprint(lines(got)) != "[intake <- stage 0 of 5: HEADER]" {
				t.Errorf("%s: %q", name, lines(got))
			}
			continue
		}
		end, ok := got[0].(post)
		if !ok || end.message.(*messages.SnapshotEnd).Code != test.code || in.current != nil || len(lines(got)) != 1 {
			t.Errorf("%s: %q", name, lines(got))
		}
	}
}

func TestReceiverTakesOneAtATime(t *testing.T) {
	in, c := receiving(t), wares(t)
	in.onPiece(1, pieceOf(5, c[0]))
	busy := `node 3 <- SnapshotEnd{shipment=9 code=BUSY message="a snapshot from node1 is coming in"}`
	tell(t,
		turn{"another node's", in.onOffer(3, offers(3, 9)), busy},
		turn{"this node's disk is slow", in.tick(300), pulled(1, 5, 0, false)},
		turn{"another node's, still", in.onOffer(3, offers(3, 9)), busy},
		turn{"staged", in.onStaged(stagedAt(5, 0)), pulled(1, 5, 1, false)},
		turn{"nothing comes", in.tick(39), pulled(1, 5, 1, true)},
		turn{"not yet", in.onOffer(3, offers(3, 9)), busy},
		turn{"nothing comes", in.tick(1), ""},
		turn{"another node's, now", in.onOffer(3, offers(3, 9)),
			`node 1 <- SnapshotEnd{shipment=5 code=CONFLICT message="another snapshot took its place"}` + "\n" + dropped + "\n" + pulled(3, 9, 0, false)},
		turn{"the same node begins anew", in.onOffer(3, offers(3, 10)), pulled(3, 10, 0, false)}, // nothing was staged
		turn{"the sender gives up another", in.onEnd(3, &messages.SnapshotEnd{Shipment: 9}), ""},
		turn{"another node gives up", in.onEnd(1, &messages.SnapshotEnd{Shipment: 10}), ""},
		turn{"the sender gives up", in.onEnd(3, &messages.SnapshotEnd{Shipment: 10, Code: messages.Code_CONFLICT}), ""},
	)
	if in.current != nil {
		t.Error("it is not given up")
	}
}

func TestReceiverLosesPatience(t *testing.T) {
	in := receiving(t)
	in.onPiece(1, pieceOf(5, wares(t)[0]))
	in.onStaged(stagedAt(5, 0))
	tell(t, turn{"not yet", in.tick(19), ""})
	for range 9 {
		tell(t, turn{"again", in.tick(1), pulled(1, 5, 1, true)}, turn{"not yet", in.tick(19), ""})
	}
	tell(t, turn{"enough", in.tick(1), `node 1 <- SnapshotEnd{shipment=5 code=TIMED_OUT message="node1 has sent nothing for 20 s"}` + "\n" + dropped},
		turn{"nothing more", in.tick(100), ""})
}

// What raft has is not touched, whatever comes, until raft or the log has answered.
func TestReceiverLeavesAloneWhatRaftHas(t *testing.T) {
	busy := `node 3 <- SnapshotEnd{shipment=9 code=BUSY message="another snapshot is being installed"}`
	in := holding(t)
	n := uint64(len(wares(t)))
	tell(t,
		turn{"another node's", in.onOffer(3, offers(3, 9)), busy},
		turn{"another of this node", in.onOffer(1, offers(1, 9)), "node 1" + busy[6:]},
		turn{"the same offer", in.onOffer(1, offers(1, 5)), pulled(1, 5, n, false)},
		turn{"a chunk behind the end", in.onPiece(1, pieceOf(5, &messages.SnapshotChunk{Sequence: n})), ""},
		turn{"an error behind the end", in.onStaged(&messages.ChunkStaged{Shipment: 5, Sequence: n, Code: messages.Code_NOT_FOUND}), ""},
		turn{"the sender gives up", in.onEnd(1, &messages.SnapshotEnd{Shipment: 5, Code: messages.Code_TIMED_OUT}), ""},
		turn{"long", in.tick(10_000), pulled(1, 5, n, false)},
		turn{"it is installed", in.onInstalled(&messages.Installed{Index: 9}), "node 1 <- SnapshotEnd{shipment=5}"},
		turn{"once", in.onInstalled(&messages.Installed{Index: 9}), ""},
		turn{"an answer to nothing", in.onUnused(&messages.StagingUnused{Index: 9}), ""},
	)
	in = holding(t)
	tell(t, turn{"it is not needed", in.onUnused(&messages.StagingUnused{Index: 9}), "node 1 <- SnapshotEnd{shipment=5}\n" + dropped})

	anew := &incoming{tickMS: 100, current: &arrival{raftHas: true, ended: true}} // of an actor that failed
	tell(t,
		turn{"an offer", anew.onOffer(3, offers(3, 9)), busy},
		turn{"time passes", anew.tick(1000), ""},
		turn{"a chunk", anew.onPiece(1, pieceOf(5, wares(t)[0])), `node 1 <- SnapshotEnd{shipment=5 code=NOT_FOUND message="this shipment is not known"}`},
		turn{"it is not needed", anew.onUnused(&messages.StagingUnused{Index: 9}), dropped},
		turn{"an offer", anew.onOffer(3, offers(3, 9)), pulled(3, 9, 0, false)},
	)
}

func TestReceiverSaysHowItStands(t *testing.T) {
	in, c := &incoming{tickMS: 100}, wares(t)
	expect := func(what string) {
		t.Helper()
		got := in.transfer()
		if got.WaitingFor != what || got.Peer != 1 || !got.Incoming || got.Index != 9 || got.BytesTotal != 500 {
			t.Errorf("%s, and not %q", messages.Line(got), what)
		}
	}
	if in.transfer() != nil {
		t.Error("nothing comes in, and it tells of it")
	}
	in.onOffer(1, offers(1, 5))
	in.tick(15)
	expect("the node with raft id 1 has sent nothing for 1 s")
	in.onPiece(1, pieceOf(5, c[0]))
	expect("")
	in.tick(10)
	expect("the disk of this node")
	in.onStaged(stagedAt(5, 0))
	expect("")
	if got := in.transfer(); got.BytesDone != uint64(len(c[0].Body)) || got.Rate == 0 || got.EtaMs == 0 {
		t.Errorf("%s", messages.Line(got))
	}
	in.tick(30)
	expect("node1 has sent nothing for 3 s")
	in.current.raftHas = true
	expect("this node is to install it")
	in.current = &arrival{raftHas: true}
	if in.transfer() != nil {
		t.Error("it tells of what it does not know")
	}
}

// TestIntake holds the intake against chunks as they come, in its own words.
func TestIntakeAnswersEveryChunk(t *testing.T) {
	_, h := newStreet(t, 1, nil)
	disk := h[0].disk
	parent := &intakeProbe{disk: disk, got: make(chan *messages.ChunkStaged, 100)}
	pid := h[0].Spawn("parent", func() actor.Actor { return parent })
	stage := func(shipment uint64, c *messages.SnapshotChunk) *messages.ChunkStaged {
		h[0].System.Root.Send(pid, &messages.StageChunk{Shipment: shipment, Chunk: c})
		return <-parent.got
	}
	chunks := wares(t)
	if got := stage(1, chunks[1]); got.Code != messages.Code_NOT_FOUND {
		t.Errorf("a chunk without a beginning: %s", messages.Line(got))
	}
	stage(1, chunks[0])
	if got := stage(1, chunks[2]); got.Code != messages.Code_DAMAGED || disk.staged() != "dropped" {
		t.Errorf("a chunk too early: %s, %s", messages.Line(got), disk.staged())
	}
	for i, c := range chunks {
		if got := stage(2, c); !proto.Equal(got, &messages.ChunkStaged{Shipment: 2, Sequence: uint64(i), Sealed: i == len(chunks)-1}) {
			t.Fatalf("chunk %d: %s", i, messages.Line(got))
		}
	}
	// What is sealed is left alone by what comes behind it, and by the next one.
	sealed := disk.staging
	if got := stage(2, chunks[1]); got.Code == messages.Code_OK {
		t.Errorf("a chunk behind the end: %s", messages.Line(got))
	}
	stage(3, chunks[0])
	if sealed.dropped || disk.staged() != "open" {
		t.Errorf("the sealed staging was dropped")
	}
	h[0].Stop(pid)
	if disk.staged() != "dropped" {
		t.Errorf("what is not sealed is %s when the intake stops", disk.staged())
	}
}

// intakeProbe is the parent of an intake, and passes on what is said to each other.
type intakeProbe struct {
	disk   disk.Disk
	intake *actor.PID
	got    chan *messages.ChunkStaged
}

func (p *intakeProbe) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		p.intake = ctx.Spawn(actor.PropsFromProducer(func() actor.Actor {
			return &intakeActor{config: Config{Disk: p.disk, Logger: slog.New(slog.DiscardHandler)}}
		}))
	case *messages.StageChunk:
		ctx.Send(p.intake, m)
	case *messages.ChunkStaged:
		p.got <- m
	}
}
