package grpc

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// A Detach has no answer that could be counted against it.
func TestDetachesAreBounded(t *testing.T) {
	send := func(i *inlet, m proto.Message, times int) (err error) {
		e := &messages.Envelope{Sender: "me"}
		for range times {
			if err = i.count(e, m); err != nil {
				return err
			}
			i.window.answered()
		}
		return nil
	}
	for _, test := range []struct {
		name               string
		attaches, detaches int
		ok                 bool
	}{
		{"what was attached elsewhere", 0, detachesMax, true}, {"more than that", 0, detachesMax + 1, false},
		{"what was attached here", 1000, 1000 + detachesMax, true}, {"and more", 1000, 1001 + detachesMax, false},
	} {
		i := &inlet{window: newWindow(newPool())}
		if err := send(i, &messages.Attach{}, test.attaches); err != nil {
			t.Fatal(err)
		}
		if err := send(i, &messages.Detach{}, test.detaches); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// A SnapshotRequest counts against the window of a client until it is answered, as
// all requests do: a client that asks without end waits.
func TestSnapshotRequestsAreCounted(t *testing.T) {
	n := serve(t, nodeLocal(1))
	n.spawn(messages.ActorSnapshots, func(m proto.Message) proto.Message {
		if r := m.(*messages.SnapshotRequest).Request; r%2 == 0 {
			return &messages.SnapshotReply{Request: r}
		}
		return nil
	})
	c := join(t, clientLocal(1))
	me := c.spawn("client", nil)
	c.dialer.Dial(n.address())
	receive(t, c.events, "LinkUp")
	for request := range uint64(10) {
		c.system.Root.RequestWithCustomSender(c.pid(1, messages.ActorSnapshots), &messages.SnapshotRequest{Request: request}, me)
	}
	for request := uint64(0); request < 10; request += 2 {
		same(t, receive(t, c.inbox, "SnapshotReply").message, &messages.SnapshotReply{Request: request})
	}
	for range 10 {
		receive(t, n.inbox, "SnapshotRequest")
	}
	found, ok := n.hub.clients.Load(clientLocal(1).Address)
	if !ok {
		t.Fatal("the client's connection is gone")
	}
	w := found.(*inbound).window
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.taken) != 5 {
		t.Errorf("%d requests are counted as unanswered, 5 are", len(w.taken))
	}
}

// What a snapshot has under way fits the lane that carries it: four chunks of a
// mebibyte with the keys of their ranges, even while a link is being made.
func TestWindowOfChunksFitsItsLane(t *testing.T) {
	chunk := &messages.SnapshotChunk{First: make([]byte, messages.KeySizeMax), Last: make([]byte, messages.KeySizeMax), Body: make([]byte, 1<<20)}
	q := newQueue(diallingLimits[messages.Lane_BULK], false)
	for i := range 4 {
		if !q.push(item{sealed: mustSeal(t, messages.ActorSnapshots, messages.ActorSnapshots, &messages.SnapshotPiece{Chunk: chunk})}) {
			t.Fatalf("chunk %d of a window does not fit", i)
		}
	}
	largest := &messages.SnapshotPiece{Chunk: &messages.SnapshotChunk{Body: make([]byte, 2<<20)}}
	if size := len(mustSeal(t, messages.ActorSnapshots, "", largest)); size > transport.PieceBodySizeMax || 2*transport.PieceBodySizeMax > laneLimits[messages.Lane_BULK] {
		t.Errorf("the largest piece has %d bytes", size)
	}
}
