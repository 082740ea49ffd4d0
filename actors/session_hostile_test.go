package actors

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

// besieged drives a session core with whatever its client, the machine and other
// nodes may send, in any order.
type besieged struct {
	t        *rapid.T
	core     *sessionCore
	asked    int // requests
	answered int
}

func (b *besieged) write() {
	c := &messages.Command{Session: testClient, Seq: rapid.Uint64Range(0, 5).Draw(b.t, "seq")}
	switch rapid.IntRange(0, 4).Draw(b.t, "kind") {
	case 0:
		c.Session = []byte("another")
	case 1:
		c.AckedBelow = rapid.Uint64().Draw(b.t, "acked")
	case 2:
		c.Operations = []*messages.Operation{{}}
	default:
		value := make([]byte, rapid.SampledFrom([]int{0, 1, messages.ValueSizeMax, messages.ValueSizeMax + 1}).Draw(b.t, "size"))
		c.Operations = []*messages.Operation{{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("k"), Value: value}}}}
	}
	data, err := proto.Marshal(c)
	if err != nil {
		b.t.Fatal(err)
	}
	if rapid.IntRange(0, 4).Draw(b.t, "damage") == 0 && len(data) > 0 {
		data = data[:rapid.IntRange(0, len(data)-1).Draw(b.t, "cut")]
	}
	b.asked++
	b.core.onWrite("asker", &messages.Write{Request: c.Seq, Command: data})
}

func (b *besieged) read() {
	m := &messages.Read{Request: rapid.Uint64Range(0, 5).Draw(b.t, "request"), Consistency: messages.Consistency(rapid.IntRange(0, 2).Draw(b.t, "consistency"))}
	switch rapid.IntRange(0, 2).Draw(b.t, "kind") {
	case 0:
		m.Kind = &messages.Read_Get{Get: &messages.Get{Key: make([]byte, rapid.SampledFrom([]int{0, 1, messages.KeySizeMax + 1}).Draw(b.t, "size"))}}
	case 1:
		m.Kind = &messages.Read_Scan{Scan: &messages.Scan{}}
	}
	b.asked++
	b.core.onRead("asker", m)
}

func (b *besieged) step() {
	seq, term := rapid.Uint64Range(0, 5).Draw(b.t, "seq"), rapid.Uint64Range(0, 3).Draw(b.t, "term")
	switch rapid.IntRange(0, 9).Draw(b.t, "step") {
	case 0, 1, 2:
		b.write()
	case 3, 4:
		b.read()
	case 5:
		b.core.onOutcome(&messages.Outcome{Seq: seq})
	case 6:
		b.core.onProposalRefused(&messages.ProposalRefused{Seq: seq, Term: term, Code: messages.Code(rapid.IntRange(0, 20).Draw(b.t, "code"))})
	case 7:
		b.core.answerRead(&messages.ReadReply{Request: seq})
	case 8:
		leader := leaderAt(seq, term)
		if seq == 0 {
			leader = nil
		}
		b.core.onLeader(leader, term, 1)
	default:
		b.core.onTick(rapid.IntRange(1, giveUpTicks).Draw(b.t, "elapsed"))
	}
	b.look()
}

// look holds the invariants of a session against what it holds.
func (b *besieged) look() {
	for _, e := range b.core.take() {
		if _, ok := e.(answer); ok {
			b.answered++
		}
	}
	bytes, pending := 0, 0
	for _, w := range b.core.writes {
		bytes += len(w.command)
		pending += w.asked
	}
	for _, r := range b.core.reads {
		pending += r.asked
	}
	if bytes != b.core.bytes || bytes > sessionBytesMax || len(b.core.writes)+len(b.core.reads) > sessionRequestsMax {
		b.t.Fatalf("%d bytes are pending and %d counted", bytes, b.core.bytes)
	}
	if b.answered+pending != b.asked {
		b.t.Fatalf("of %d requests %d were answered and %d are pending", b.asked, b.answered, pending)
	}
}

// Whatever comes, a session holds its bounds, and every request is answered once.
func TestSessionUnderAttack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &besieged{t: t, core: newSessionCore(1, testClient, nil, leaderAt(2, 1), 1)}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			b.step()
		}
		b.core.end()
		b.look()
		if b.answered != b.asked {
			t.Fatalf("%d of %d requests were answered in the end", b.answered, b.asked)
		}
	})
}

// A client that asks for all it may is told when it is too much, of each kind.
func TestSessionBounds(t *testing.T) {
	large := make([]byte, messages.ValueSizeMax)
	busyAfter := func(ask func(s *sessionCore, n uint64)) (n uint64) {
		s := newSessionCore(1, testClient, nil, leaderAt(1, 1), 1)
		for n = 1; n <= 2*sessionRequestsMax; n++ {
			ask(s, n)
			if code, answered := answerCode(s.take()); answered {
				if code != messages.Code_BUSY {
					t.Fatalf("request %d is answered with %v", n, code)
				}
				return n - 1
			}
		}
		return n
	}
	for name, row := range map[string]struct {
		ask  func(s *sessionCore, n uint64)
		want uint64
	}{
		"small writes": {func(s *sessionCore, n uint64) { s.onWrite("a", command(t, n, nil)) }, sessionRequestsMax},
		"large writes": {func(s *sessionCore, n uint64) {
			s.onWrite("a", command(t, n, func(c *messages.Command) { c.Operations[0].GetPut().Value = large }))
		}, sessionBytesMax / (messages.ValueSizeMax + 64)},
		"reads": {func(s *sessionCore, n uint64) {
			s.onRead("a", &messages.Read{Request: n, Kind: &messages.Read_Get{Get: &messages.Get{Key: fmt.Append(nil, n)}}})
		}, sessionRequestsMax},
	} {
		if got := busyAfter(row.ask); got != row.want {
			t.Errorf("%s: %d are taken, want %d", name, got, row.want)
		}
	}
}
