package shipping

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

var testShipments = shipmentConfig{tickMS: 100, rate: 1 << 30, chunkBytes: 30, about: &messages.SnapshotHeader{CreatedBy: "node1", Version: "test"}}

// lines are effects as people read them.
func lines(effects []effect) []string {
	var all []string
	for _, effect := range effects {
		if e, ok := effect.(post); ok {
			to := e.to.String()
			if e.to == toPeer {
				to = fmt.Sprintf("node %d", e.peer)
			}
			text := messages.Line(e.message)
			switch m := e.message.(type) {
			case *messages.SnapshotPiece:
				text = fmt.Sprintf("piece %d of %d: %s", m.Chunk.Sequence, m.Shipment, m.Chunk.Kind)
			case *messages.StageChunk:
				text = fmt.Sprintf("stage %d of %d: %s", m.Chunk.Sequence, m.Shipment, m.Chunk.Kind)
			case *messages.WriteChunk:
				text = fmt.Sprintf("write %d of %s: %s", m.Chunk.Sequence, m.Id, m.Chunk.Kind)
			case *messages.SnapshotOffer:
				text = fmt.Sprintf("offer %d", m.Shipment)
			case *messages.StagedSnapshot:
				text = "StagedSnapshot"
			}
			all = append(all, to+" <- "+text)
		}
	}
	return all
}

// turn is one event of a story and what comes of it, a line an effect.
type turn struct {
	what string
	got  []effect
	want string
}

func tell(t *testing.T, steps ...turn) {
	t.Helper()
	for i, s := range steps {
		if got := strings.Join(lines(s.got), "\n"); got != s.want {
			t.Fatalf("step %d, %s:\n%s\nand not\n%s", i+1, s.what, got, s.want)
		}
	}
}

// onItsWay is a shipment whose offer is out.
func onItsWay(t *testing.T, config shipmentConfig) *shipment {
	t.Helper()
	s := newShipment(config, 77, "to-2-1", msgSnap(1, 2))
	tell(t,
		turn{"start", s.start(), `machine <- PinState{holder="to-2-1" index=9}`},
		turn{"the state is pinned", s.onPinned(&messages.StatePinned{Holder: "to-2-1", Checkpoint: snapshottest.StateAt(9, 4), Bytes: 100}), "node 2 <- offer 77"},
	)
	return s
}

func pulls(next uint64, again bool) *messages.SnapshotPull {
	return &messages.SnapshotPull{Shipment: 77, Next: next, Window: shipWindow, Again: again}
}

const (
	unpinned = "machine <- UnpinState{holder=\"to-2-1\"}"
	reported = "raft <- SnapshotShipped{peer=2 failed=true}"
	failed2  = "\n" + unpinned + "\n" + reported
)

func TestShipmentKeepsToItsCredit(t *testing.T) {
	config := testShipments
	config.chunkBytes = 10
	s := onItsWay(t, config)
	piece := func(n int, kind string) string { return fmt.Sprintf("node 2 <- piece %d of 77: %s", n, kind) }
	tell(t,
		turn{"a pull of another shipment", s.onPull(&messages.SnapshotPull{Shipment: 76, Window: 4}), ""},
		turn{"a pull beyond what is sent", s.onPull(pulls(1, false)), ""},
		turn{"the first pull", s.onPull(pulls(0, false)), strings.Join([]string{piece(0, "HEADER"), piece(1, "STATE"), piece(2, "STATE"), piece(3, "STATE")}, "\n")},
		turn{"the same once more", s.onPull(pulls(0, false)), ""},
		turn{"one is taken", s.onPull(pulls(1, false)), piece(4, "STATE")},
		turn{"three are taken", s.onPull(pulls(4, false)), strings.Join([]string{piece(5, "STATE"), piece(6, "STATE"), piece(7, "STATE")}, "\n")},
		turn{"an older pull", s.onPull(pulls(1, false)), ""},
		turn{"again", s.onPull(pulls(4, true)), strings.Join([]string{piece(4, "STATE"), piece(5, "STATE"), piece(6, "STATE"), piece(7, "STATE")}, "\n")},
		turn{"no credit", s.onPull(&messages.SnapshotPull{Shipment: 77, Next: 8}), ""},
		turn{"nothing is sent again without need", s.onPull(&messages.SnapshotPull{Shipment: 77, Next: 8, Window: 1, Again: true}), piece(8, "STATE")},
	)
}

// rowsOf has a shipment send all that comes before its rows, which is taken; it asks
// for these.
func rowsOf(t *testing.T, s *shipment) (ask *messages.ReadRows) {
	t.Helper()
	for next := uint64(0); ; next++ {
		for _, effect := range s.onPull(pulls(min(next, s.position()), false)) {
			if e, ok := effect.(post); ok && e.to == toMachine {
				s.onPull(pulls(s.position(), false))
				return e.message.(*messages.ReadRows)
			}
		}
	}
}

func TestShipmentReadsRows(t *testing.T) {
	s := onItsWay(t, testShipments)
	ask := rowsOf(t, s)
	n := s.position()
	if want := (&messages.ReadRows{Holder: "to-2-1", Sequence: n, Revision: 9, CompactedRevision: 4, BytesMax: 30}); !proto.Equal(ask, want) {
		t.Fatalf("it asks %s", messages.Line(ask))
	}
	first := snapshottest.RowsRead(snapshottest.SomeRows(), ask)
	second := &messages.ReadRows{Holder: "to-2-1", Sequence: n + 1, After: first.Last, BytesMax: 1000}
	tell(t,
		turn{"rows of another pin", s.onRows(&messages.RowsRead{Holder: "to-2-0", Sequence: n}), ""},
		turn{"rows of another chunk", s.onRows(&messages.RowsRead{Holder: "to-2-1", Sequence: n + 1}), ""},
		turn{"the rows", s.onRows(first), fmt.Sprintf("node 2 <- piece %d of 77: ROWS\n", n) +
			fmt.Sprintf(`machine <- ReadRows{holder="to-2-1" sequence=%d revision=9 compacted_revision=4 after=RowCursor{key="a" revision=4} bytes_max=30}`, n+1)},
		turn{"the same rows once more", s.onRows(first), ""},
		turn{"the peer lacks the first", s.onPull(pulls(n, true)),
			fmt.Sprintf(`machine <- ReadRows{holder="to-2-1" sequence=%d revision=9 compacted_revision=4 bytes_max=30}`, n)},
		turn{"rows that were asked for before", s.onRows(snapshottest.RowsRead(snapshottest.SomeRows(), second)), ""},
		turn{"the first rows again", s.onRows(first), fmt.Sprintf("node 2 <- piece %d of 77: ROWS\n", n) +
			fmt.Sprintf(`machine <- ReadRows{holder="to-2-1" sequence=%d revision=9 compacted_revision=4 after=RowCursor{key="a" revision=4} bytes_max=30}`, n+1)},
		turn{"the last rows", s.onRows(snapshottest.RowsRead(snapshottest.SomeRows(), second)), fmt.Sprintf("node 2 <- piece %d of 77: ROWS\nnode 2 <- piece %d of 77: TRAILER", n+1, n+2)},
		turn{"nothing is left", s.onPull(pulls(n+3, false)), ""},
		turn{"it is installed", s.onEnd(&messages.SnapshotEnd{Shipment: 77}), "machine <- UnpinState{holder=\"to-2-1\"}\nraft <- SnapshotShipped{peer=2}"},
		turn{"nothing more", append(append(s.tick(1000), s.onEnd(&messages.SnapshotEnd{Shipment: 77})...), s.onPull(pulls(n, true))...), ""},
	)
}

func TestShipmentFails(t *testing.T) {
	ended := &messages.SnapshotEnd{Shipment: 77, Code: messages.Code_BUSY, Message: "no room"}
	timedOut := `node 2 <- SnapshotEnd{shipment=77 code=TIMED_OUT message="node2 was not heard for 10 s"}`
	tell(t, turn{"it is compacted", newShipment(testShipments, 77, "to-2-1", msgSnap(1, 2)).onPinned(
		&messages.StatePinned{Holder: "to-2-1", Code: messages.Code_COMPACTED}), failed2[1:]})
	tell(t, turn{"another index is pinned", newShipment(testShipments, 77, "to-2-1", msgSnap(1, 2)).onPinned(
		&messages.StatePinned{Holder: "to-2-1", Checkpoint: &messages.Checkpoint{Index: 8}}), unpinned})
	late := newShipment(testShipments, 77, "to-2-1", msgSnap(1, 2))
	tell(t, turn{"an answer to another", late.onPinned(&messages.StatePinned{Holder: "to-2-0", Checkpoint: snapshottest.StateAt(9, 4)}), ""},
		turn{"not yet", late.tick(199), ""}, turn{"no answer", late.tick(1), failed2[1:]},
		turn{"a late answer", late.onPinned(&messages.StatePinned{Holder: "to-2-1", Checkpoint: snapshottest.StateAt(9, 4)}), ""})

	unheard := onItsWay(t, testShipments)
	tell(t, turn{"not yet", unheard.tick(9), ""}, turn{"once more", unheard.tick(1), "node 2 <- offer 77"}, turn{"and", unheard.tick(10), "node 2 <- offer 77"},
		turn{"never", unheard.tick(80), timedOut + failed2})
	refused := onItsWay(t, testShipments)
	tell(t, turn{"another's end", refused.onEnd(&messages.SnapshotEnd{Shipment: 76}), ""}, turn{"refused", refused.onEnd(ended), unpinned},
		turn{"a late pull", refused.onPull(pulls(0, false)), ""}, turn{"not yet", refused.tick(19), ""}, turn{"reported", refused.tick(1), reported},
		turn{"once", append(refused.tick(100), refused.onEnd(ended)...), ""})
	replaced := onItsWay(t, testShipments)
	tell(t, turn{"refused", replaced.onEnd(ended), unpinned}, turn{"another takes its place", replaced.fail(messages.Code_CONFLICT, "another"), reported})
	away := onItsWay(t, testShipments)
	tell(t, turn{"another takes its place", away.fail(messages.Code_CONFLICT, "another"),
		`node 2 <- SnapshotEnd{shipment=77 code=CONFLICT message="another"}` + failed2})

	lost := onItsWay(t, testShipments)
	rowsOf(t, lost)
	ask := fmt.Sprintf(`machine <- ReadRows{holder="to-2-1" sequence=%d revision=9 compacted_revision=4 bytes_max=30}`, lost.position())
	for range 4 {
		tell(t, turn{"not yet", lost.tick(39), ""}, turn{"asked again", lost.tick(1), ask})
		lost.onPull(pulls(lost.acked, true))
	}
	tell(t, turn{"not read", lost.tick(40), `node 2 <- SnapshotEnd{shipment=77 code=TIMED_OUT message="the rows were not read"}` + failed2})

	for what, rows := range map[string]*messages.RowsRead{
		"the rows cannot be read: gone":       {Code: messages.Code_DAMAGED, Message: "gone"},
		"0 rows of 0 bytes were read for one": {More: true},
		"2097153 bytes":                       {Count: 1, Last: &messages.RowCursor{}, Rows: make([]byte, snapshot.BodyBytesMax+1)},
	} {
		s := onItsWay(t, testShipments)
		rows.Holder, rows.Sequence = "to-2-1", rowsOf(t, s).Sequence
		got := lines(s.onRows(rows))
		if len(got) != 2 || !strings.Contains(got[0], what) || got[1] != unpinned || !strings.Contains(s.transfer().WaitingFor, what) {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// The rate holds over any time: what is sent is at most what the ticks gave, what was
// saved up before, and the chunk that crosses it.
func TestShipmentKeepsToItsRate(t *testing.T) {
	config := testShipments
	config.rate, config.chunkBytes = 200, 30 // a bucket of 40 bytes, 20 a tick
	s := onItsWay(t, config)
	sent, ticks := 0, 0
	take := func(effects []effect) {
		for len(effects) > 0 {
			e, ok := effects[0].(post)
			effects = effects[1:]
			if !ok {
				continue
			}
			switch m := e.message.(type) {
			case *messages.SnapshotPiece:
				sent += len(m.Chunk.Body)
				effects = append(effects, s.onPull(pulls(m.Chunk.Sequence+1, false))...)
			case *messages.ReadRows:
				effects = append(effects, s.onRows(snapshottest.RowsRead(snapshottest.SomeRows(), m))...)
			}
			if sent > 40+20*ticks+150 {
				t.Fatalf("%d bytes are sent after %d ticks", sent, ticks)
			}
		}
	}
	take(s.onPull(pulls(0, false)))
	if s.waitingFor() != "the rate limit" {
		t.Errorf("it waits for %q", s.waitingFor())
	}
	for !s.source.Ended() {
		ticks++
		take(s.tick(1))
		if ticks > 1000 {
			t.Fatal("it never ends")
		}
	}
	if ticks < 5 {
		t.Errorf("%d bytes took %d ticks", sent, ticks)
	}
}

func TestShipmentSaysHowItStands(t *testing.T) {
	s := newShipment(testShipments, 77, "to-2-1", msgSnap(1, 2))
	expect := func(what string) {
		t.Helper()
		if got := s.transfer().WaitingFor; got != what {
			t.Errorf("it waits for %q, not for %q", got, what)
		}
	}
	expect("the machine of this node")
	s.onPinned(&messages.StatePinned{Holder: "to-2-1", Checkpoint: snapshottest.StateAt(9, 4), Bytes: 100})
	s.tick(20)
	expect("node2 has not answered the offer for 2 s")
	s.onPull(pulls(0, false))
	expect("")
	s.tick(15)
	expect("node2 has taken nothing for 1 s")
	ask := rowsOf(t, s)
	expect("")
	s.tick(10)
	expect("the disk of this node")
	got := s.transfer()
	if got.Peer != 2 || got.Incoming || got.Index != 9 || got.BytesDone == 0 || got.BytesTotal < got.BytesDone || got.Rate == 0 {
		t.Errorf("%s", messages.Line(got))
	}
	ask.BytesMax = 1000
	s.onRows(snapshottest.RowsRead(snapshottest.SomeRows(), ask))
	s.onPull(pulls(s.position(), false))
	expect("node2 is to install it")
	if got := s.transfer(); got.BytesDone != got.BytesTotal || got.EtaMs != 0 {
		t.Errorf("%s", messages.Line(got))
	}
}

// meeting is a shipment, a receiver and what lies between, without actors: messages
// wait in order of sending, and some are lost, doubled, or come late.
type meeting struct {
	ship     *shipment
	in       *incoming
	check    *snapshot.Check // of the intake
	rows     []disk.Row
	got      []disk.Row
	queue    []effect
	staged   bool
	reported []bool // failed
	chunks   int    // the most that waited at once
}

func (m *meeting) add(effects []effect) {
	m.queue = append(m.queue, effects...)
	waiting := 0
	for _, e := range m.queue {
		if p, ok := e.(post); ok {
			switch p.message.(type) {
			case *messages.SnapshotPiece, *messages.StageChunk:
				waiting++
			}
		}
	}
	m.chunks = max(m.chunks, waiting)
}

// carry carries out one effect.
func (m *meeting) carry(e post) {
	switch b := e.message.(type) {
	case *messages.PinState:
		m.add(m.ship.onPinned(&messages.StatePinned{Holder: b.Holder, Checkpoint: snapshottest.StateAt(9, 4)}))
	case *messages.ReadRows:
		m.add(m.ship.onRows(snapshottest.RowsRead(m.rows, b)))
	case *messages.SnapshotShipped:
		m.reported = append(m.reported, b.Failed)
	case *messages.SnapshotOffer:
		m.add(m.in.onOffer(1, b))
	case *messages.SnapshotPiece:
		m.add(m.in.onPiece(1, b))
	case *messages.SnapshotPull:
		m.add(m.ship.onPull(b))
	case *messages.SnapshotEnd:
		if e.peer == 1 {
			m.add(m.ship.onEnd(b))
		} else {
			m.add(m.in.onEnd(1, b))
		}
	case *messages.StageChunk:
		answer := &messages.ChunkStaged{Shipment: b.Shipment, Sequence: b.Chunk.Sequence}
		if b.Chunk.Sequence == 0 {
			m.check, m.got = &snapshot.Check{}, nil
		}
		rows, err := m.check.Take(b.Chunk)
		if err != nil {
			answer.Code, answer.Message = messages.CodeOf(err), err.Error()
		}
		m.got = append(m.got, rows...)
		answer.Sealed = m.check.Trailer() != nil
		m.add(m.in.onStaged(answer))
	case *messages.StagedSnapshot:
		m.staged = true
		m.add(m.in.onInstalled(&messages.Installed{Index: 9}))
	}
}

// lostInARow is how many messages one after the other may be lost: four pulls would be 80 ticks,
// and whoever was not heard for shipPullTicks is given up.
const lostInARow = 3

// TestShipmentsComeThroughALossyLink: with any messages between the nodes lost or
// doubled, as long as one of some comes through, the snapshot arrives as it was, is reported
// once, and no more than a window of chunks waits anywhere.
func TestShipmentsComeThroughALossyLink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &meeting{ship: newShipment(testShipments, 77, "to-2-1", msgSnap(1, 2)), in: &incoming{tickMS: 100}, rows: snapshottest.SomeRows()}
		m.add(m.ship.start())
		losses, lost := rapid.IntRange(0, 12).Draw(t, "losses"), 0
		for steps := 0; len(m.reported) == 0; steps++ {
			if steps > 5000 {
				t.Fatal("it never ends")
			}
			if len(m.queue) == 0 {
				m.add(m.ship.tick(1))
				m.add(m.in.tick(1))
				continue
			}
			e, ok := m.queue[0].(post)
			m.queue = m.queue[1:]
			if !ok {
				continue
			}
			if e.to == toPeer && losses > 0 {
				switch rapid.IntRange(0, 9).Draw(t, "fate") {
				case 0:
					if lost < lostInARow {
						losses, lost = losses-1, lost+1
						continue
					}
				case 1:
					losses--
					m.carry(e)
				}
				lost = 0
			}
			m.carry(e)
		}
		if m.staged && !m.reported[0] || len(m.reported) != 1 {
			if len(m.got) != len(snapshottest.SomeRows()) {
				t.Fatalf("%d rows came", len(m.got))
			}
		}
		if !m.staged {
			t.Fatal("it never came")
		}
		for i, r := range snapshottest.SomeRows() {
			if !bytes.Equal(m.got[i].Key, r.Key) || !bytes.Equal(m.got[i].Value, r.Value) || m.got[i].Revision != r.Revision {
				t.Fatalf("row %d is %v", i, m.got[i])
			}
		}
		if m.chunks > 3*shipWindow {
			t.Fatalf("%d chunks waited at once", m.chunks)
		}
	})
}

// A state is shipped once another member has vouched for it, or could not within a bound;
// never while another holds something else.
func TestShipmentAsksForAVoucher(t *testing.T) {
	config := testShipments
	config.audited, config.lineage = true, []uint64{3}
	asked := func() *shipment {
		s := newShipment(config, 77, "to-2-1", msgSnap(1, 2))
		s.start()
		tell(t, turn{"the state is pinned", s.onPinned(&messages.StatePinned{Holder: "to-2-1", Checkpoint: snapshottest.StateAt(9, 4), Bytes: 100}),
			`audit <- VouchState{holder="to-2-1" peer=2}`})
		return s
	}
	vouched := func(code messages.Code, holder string) *messages.StateVouched {
		return &messages.StateVouched{Holder: holder, Code: code, Message: "why"}
	}
	for _, row := range []struct {
		what string
		do   func(*shipment) []effect
		want string
	}{
		{"it is equal", func(s *shipment) []effect { return s.onVouched(vouched(messages.Code_OK, "to-2-1")) }, "node 2 <- offer 77"},
		{"of another shipment", func(s *shipment) []effect { return s.onVouched(vouched(messages.Code_OK, "to-2-0")) }, ""},
		{"nobody could tell", func(s *shipment) []effect { return s.onVouched(vouched(messages.Code_UNREACHABLE, "to-2-1")) }, "node 2 <- offer 77"},
		{"another differs", func(s *shipment) []effect { return s.onVouched(vouched(messages.Code_CONFLICT, "to-2-1")) }, unpinned},
		{"almost too long", func(s *shipment) []effect { return s.tick(shipVouchTicks - 1) }, ""},
		{"too long", func(s *shipment) []effect { return s.tick(shipVouchTicks) }, "node 2 <- offer 77"},
	} {
		tell(t, turn{row.what, row.do(asked()), row.want})
	}
	s := asked()
	offer := s.onVouched(vouched(messages.Code_OK, "to-2-1"))[0].(post).message.(*messages.SnapshotOffer)
	if len(offer.Lineage) != 1 || offer.Lineage[0] != 3 {
		t.Errorf("offered as %v", offer)
	}
	in := &incoming{tickMS: 100}
	in.onOffer(1, offer)
	if got := in.current.lineage; len(got) != 2 || got[0] != 1 || got[1] != 3 {
		t.Errorf("taken as of %v", got)
	}
}
