package actors

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyval/messages"
)

var (
	clusterX = bytes.Repeat([]byte{1}, messages.ClusterIDSize)
	clusterY = bytes.Repeat([]byte{2}, messages.ClusterIDSize)
)

// joinBench is a node that joins, and what it wanted done since it was asked last.
type joinBench struct {
	*joining
	did   []string
	asked map[int]uint64 // the last request, by node
}

func newJoinBench(endpoints ...string) *joinBench {
	return &joinBench{asked: map[int]uint64{}, joining: newJoining(&messages.WaitingNode{Name: "n4", Address: "h:4"}, endpoints)}
}

func (b *joinBench) take(effects []any) {
	for _, e := range effects {
		switch e := e.(type) {
		case dialMember:
			b.did = append(b.did, "dial "+e.Endpoint)
		case hangUp:
			b.did = append(b.did, "hang up "+e.Endpoint)
		case askMember:
			b.did = append(b.did, "ask "+e.Address)
			id, _ := messages.ParseNodeAddress(e.Address)
			b.asked[int(id)] = e.Ask.Request
		case joined:
			b.did = append(b.did, fmt.Sprintf("joined as %d", e.RaftId))
		case cannotJoin:
			b.did = append(b.did, e.Error.Code.String()+": "+e.Error.Message)
		}
	}
}

func (b *joinBench) tick() { b.take(b.onTick(joinAskTicks)) }
func (b *joinBench) up(n int) {
	b.take(b.onUp(&messages.LinkUp{Endpoint: fmt.Sprintf("h:%d", n), RaftId: uint64(n), Name: fmt.Sprintf("n%d", n)}))
}
func (b *joinBench) down(n int, why string) {
	b.take(b.onDown(&messages.LinkDown{Endpoint: fmt.Sprintf("h:%d", n), Message: why}))
}

func (b *joinBench) answer(from int, code messages.Code, raftID uint64, cluster []byte) {
	m := &messages.JoinAnswer{Request: b.asked[from], Code: code, Message: "no", RaftId: raftID, ClusterId: cluster}
	if code == messages.Code_BUSY {
		m.Message = ""
	}
	for i := range 3 {
		m.Members = append(m.Members, &messages.Member{RaftId: uint64(i) + 1, Address: fmt.Sprintf("h:%d", i+1)})
	}
	b.take(b.onAnswer(m))
}

func (b *joinBench) expect(t *testing.T, what ...string) {
	t.Helper()
	if !slices.Equal(b.did, what) {
		t.Errorf("it does %q, want %q", b.did, what)
	}
	b.did = nil
}

func TestJoining(t *testing.T) {
	b := newJoinBench("h:1", "h:9", "h:4")
	b.tick()
	b.expect(t, "dial h:1", "dial h:9")
	b.tick()
	b.expect(t) // both are being dialled
	b.up(1)
	b.expect(t, "ask node/1")
	b.down(9, "nothing listens there")
	b.answer(1, messages.Code_BUSY, 0, clusterX)
	b.expect(t)
	if text := b.waitingFor(); text != "waiting to be added: kvctl cluster add n4 h:4" {
		t.Errorf("it says: %s", text)
	}
	b.tick()
	b.expect(t, "ask node/1", "dial h:9", "dial h:2", "dial h:3")
	b.up(3)
	b.answer(3, messages.Code_OK, 0, clusterX) // no RaftID: it is not let in
	b.answer(3, messages.Code_OK, 4, clusterX)
	b.expect(t, "ask node/3", "joined as 4")
	b.tick()
	b.answer(1, messages.Code_OK, 4, clusterX)
	b.expect(t) // it is said once
}

// TestWhoWasAddedAsksAtOnce: a member says so without being asked.
func TestWhoWasAddedAsksAtOnce(t *testing.T) {
	b := newJoinBench("h:1")
	b.tick()
	b.up(1)
	b.answer(1, messages.Code_BUSY, 0, clusterX)
	b.expect(t, "dial h:1", "ask node/1")
	b.take(b.onAnswer(&messages.JoinAnswer{Request: b.asked[1], Code: messages.Code_BUSY, ClusterId: clusterX, Again: true}))
	b.expect(t, "ask node/1")
	b.answer(1, messages.Code_OK, 4, clusterX)
	b.expect(t, "joined as 4")
}

func TestJoiningSaysWhoDoesNotAnswer(t *testing.T) {
	b := newJoinBench("h:1", "h:2")
	b.tick()
	b.down(1, "nothing listens there")
	b.take(b.onUp(&messages.LinkUp{Endpoint: "h:2", Name: "n2", WaitingFor: "the other founders"}))
	b.expect(t, "dial h:1", "dial h:2", "hang up h:2")
	b.down(2, "hung up")
	want := "nobody knows of it yet: h:1: nothing listens there; h:2: n2 does not serve yet"
	if text := b.waitingFor(); !strings.HasSuffix(text, want) {
		t.Errorf("it says: %s", text)
	}
	b.tick()
	b.expect(t, "dial h:1", "dial h:2")
}

// TestJoiningIsRefused by most members, not by one that may lag behind.
func TestJoiningIsRefused(t *testing.T) {
	b := newJoinBench("h:1", "h:2", "h:3")
	b.tick()
	for n := 1; n <= 3; n++ {
		b.up(n)
	}
	b.did = nil
	b.answer(1, messages.Code_NOT_ALLOWED, 0, clusterX)
	b.answer(1, messages.Code_NOT_ALLOWED, 0, clusterX)
	b.expect(t)
	b.answer(1, messages.Code_BUSY, 0, clusterX) // it has caught up
	b.answer(2, messages.Code_NOT_ALLOWED, 0, clusterX)
	b.expect(t)
	b.answer(3, messages.Code_NOT_ALLOWED, 0, clusterX)
	b.expect(t, "NOT_ALLOWED: n4 is not let in: no")

	b = newJoinBench("h:1", "h:2")
	b.up(1)
	b.up(2)
	b.did = nil
	b.answer(1, messages.Code_BUSY, 0, clusterX)
	b.answer(2, messages.Code_BUSY, 0, clusterY)
	if len(b.did) != 1 || !strings.HasPrefix(b.did[0], "CONFLICT: --join names nodes of two clusters") {
		t.Errorf("it does %q", b.did)
	}
}
