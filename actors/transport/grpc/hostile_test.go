package grpc

import (
	"slices"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"
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

// TestPeersCannotFillTheMailbox: while the raft actor does not come to work, one peer
// floods it with appends, heartbeats and proposals. What waits is bounded, proposals are
// answered, and a heartbeat of another peer arrives.
func TestPeersCannotFillTheMailbox(t *testing.T) {
	local := nodeLocal(1)
	local.Inbox = &transport.Inbox{}
	n := serve(t, local)
	works, held, beats := make(chan struct{}), 0, make(chan struct{}, 1)
	_, err := n.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *messages.RaftMessage:
			<-works
			held += proto.Size(m)
			local.Inbox.Took(m.Message.GetFrom(), m)
			if m.Message.GetFrom() == 3 {
				beats <- struct{}{}
			}
		case *messages.Propose:
			<-works
			held += proto.Size(m)
			local.Inbox.Took(m.Origin, m)
		}
	}), messages.ActorRaft)
	if err != nil {
		t.Fatal(err)
	}
	flood := attack(t, n.address()).hello(nodeLocal(2))
	large := raftMessage(raftpb.MsgApp, 2, 1, 1)
	large.Message.Entries = []*raftpb.Entry{{Data: make([]byte, 2<<20)}}
	appends, _ := messages.Seal(messages.ActorRaft, "", large)
	beat, _ := messages.Seal(messages.ActorRaft, "", raftMessage(raftpb.MsgHeartbeat, 2, 1, 1))
	proposal, _ := messages.Seal(messages.ActorRaft, messages.ActorSessionPrefix+"1", &messages.Propose{Origin: 2, Seq: 7, Command: make([]byte, 100)})
	for range 40 { // 80 MiB
		flood.say(parcel([]*messages.Envelope{appends}))
	}
	for range 4 {
		flood.say(parcel(slices.Repeat([]*messages.Envelope{beat}, 4000)))
	}
	for range 3 {
		flood.say(parcel(slices.Repeat([]*messages.Envelope{proposal}, 4000)))
	}
	for refused := false; !refused; {
		f, err := flood.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range f.GetParcel().GetEnvelopes() {
			m, err := messages.Open(e)
			r, ok := m.(*messages.ProposalRefused)
			refused = err == nil && ok && r.Seq == 7 && r.Code == messages.Code_BUSY && e.Target == messages.ActorSessionPrefix+"1"
		}
	}
	other, _ := messages.Seal(messages.ActorRaft, "", raftMessage(raftpb.MsgHeartbeat, 3, 1, 1))
	attack(t, n.address()).hello(nodeLocal(3)).say(parcel([]*messages.Envelope{other}))
	time.Sleep(50 * time.Millisecond) // it arrives before the actor works again
	close(works)
	receive(t, beats, "heartbeat of another peer")
	if most := 34 << 20; held > most {
		t.Errorf("%d bytes waited for the actor, %d are allowed", held, most)
	}
	if local.Inbox.Lost() < 4000 {
		t.Errorf("%d messages are counted as dropped", local.Inbox.Lost())
	}
}
