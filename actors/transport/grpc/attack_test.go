package grpc

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"keyval/actors/transport"
	"keyval/messages"
)

// attacker speaks gRPC with its own codec and says what it likes.
type attacker struct {
	t      testing.TB
	client *grpc.ClientConn
	grpc.BidiStreamingClient[messages.Frame, messages.Frame]
}

func attack(t testing.TB, address string) *attacker {
	t.Helper()
	client, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s, err := messages.NewLinkClient(client).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); client.Close() })
	return &attacker{t, client, s}
}

func (a *attacker) say(f *messages.Frame) {
	a.t.Helper()
	if err := a.Send(f); err != nil && err != io.EOF {
		a.t.Fatal(err)
	}
}

func helloFrame(local transport.Local, change func(*messages.Hello)) *messages.Frame {
	to := messages.RaftID(1)
	h := transport.HelloTo(local, to, messages.Lane_CONTROL)
	if change != nil {
		change(h)
	}
	return &messages.Frame{Kind: &messages.Frame_Hello{Hello: h}}
}

// hello introduces the attacker as a rightful client or node.
func (a *attacker) hello(local transport.Local) *attacker {
	a.t.Helper()
	a.say(helloFrame(local, nil))
	f, err := a.Recv()
	if err != nil || f.GetWelcome() == nil {
		a.t.Fatalf("%v, %v", f, err)
	}
	return a
}

// dismissed waits for the refusal that ends the stream.
func (a *attacker) dismissed(text string) {
	a.t.Helper()
	f, err := a.Recv()
	if err != nil || !strings.Contains(f.GetRefusal().GetMessage(), text) {
		a.t.Fatalf("%v, %v, want a refusal with %q", f, err, text)
	}
	if f, err := a.Recv(); err == nil {
		a.t.Fatalf("the stream goes on with %v", f)
	}
}

func target(t testing.TB) *station {
	t.Helper()
	n := serve(t, nodeLocal(1))
	n.newGateway()
	n.spawn(messages.ActorRaft, nil)
	return n
}

// isWell shows that the node still serves, and that nothing reached its actors before.
func (s *station) isWell(client byte) {
	s.t.Helper()
	c := join(s.t, clientLocal(client))
	c.dialer.Dial(s.address())
	if up, ok := receive(s.t, c.events, "LinkUp").(*messages.LinkUp); !ok {
		s.t.Fatalf("%v", up)
	}
	c.system.Root.RequestWithCustomSender(c.pid(1, messages.ActorGateway), &messages.StatusRequest{Request: 7}, c.spawn("client", nil))
	receive(s.t, c.inbox, "StatusReply")
	if h := receive(s.t, s.inbox, "StatusRequest"); h.actor != messages.ActorGateway {
		s.t.Fatalf("%s heard %v before", h.actor, h.message)
	}
	c.dialer.Close()
}

func TestFirstFrameIsAnAdmittedHello(t *testing.T) {
	n := target(t)
	for name, test := range map[string]struct {
		frame *messages.Frame
		text  string
	}{
		"nothing":        {&messages.Frame{}, "starts with a hello"},
		"a parcel":       {parcel([]*messages.Envelope{{Type: 1, Target: messages.ActorGateway}}), "starts with a hello"},
		"a welcome":      {&messages.Frame{Kind: &messages.Frame_Welcome{Welcome: &messages.Welcome{}}}, "starts with a hello"},
		"wrong cluster":  {helloFrame(nodeLocal(2), func(h *messages.Hello) { h.ClusterId = clusterB }), "not to cluster bbbb"},
		"node's address": {helloFrame(clientLocal(1), func(h *messages.Hello) { h.Address = "node/2" }), "not a client's address"},
		"our own id":     {helloFrame(nodeLocal(1), nil), "raft id 1 itself"},
	} {
		t.Run(name, func(t *testing.T) {
			a := attack(t, n.address())
			a.say(test.frame)
			a.dismissed(test.text)
		})
	}
	n.isWell(1)
}

func TestViolationsEndTheConnection(t *testing.T) {
	n := target(t)
	raft, _ := messages.Seal(messages.ActorRaft, "", raftMessage(raftpb.MsgHeartbeat, 2, 1, 1))
	forged, _ := messages.Seal(messages.ActorRaft, "", raftMessage(raftpb.MsgHeartbeat, 3, 1, 1))
	proposal, _ := messages.Seal(messages.ActorRaft, "", &messages.Propose{Origin: 1})
	stray, _ := messages.Seal("node/machine", "", raftMessage(raftpb.MsgHeartbeat, 2, 1, 1))
	write, _ := messages.Seal(aSession, "", &messages.Write{})
	for name, test := range map[string]struct {
		local transport.Local
		e     *messages.Envelope
		text  string
	}{
		"client speaks Raft":        {clientLocal(9), raft, "a CLIENT sends no message of type 32"},
		"client proposes":           {clientLocal(9), proposal, "a CLIENT sends no message"},
		"node writes":               {nodeLocal(2), write, "a NODE sends no message of type 4 to a NODE"},
		"unknown type":              {nodeLocal(2), &messages.Envelope{Type: 4711, Target: messages.ActorRaft}, "type 4711"},
		"type 0":                    {clientLocal(9), &messages.Envelope{Target: messages.ActorGateway}, "type 0"},
		"no target":                 {clientLocal(9), &messages.Envelope{Type: 1}, "name is empty"},
		"the node itself":           {clientLocal(9), &messages.Envelope{Type: 1, Target: messages.ActorNode}, "sends no Attach to actor"},
		"event stream":              {clientLocal(9), &messages.Envelope{Type: 1, Target: "eventstream"}, "sends no Attach to actor"},
		"guardian":                  {nodeLocal(2), &messages.Envelope{Type: 32, Target: "guardian"}, "sends no RaftMessage"},
		"another actor":             {nodeLocal(2), stray, "sends no RaftMessage to actor"},
		"in another's name":         {nodeLocal(2), forged, "in another's name"},
		"proposal in our name":      {nodeLocal(2), proposal, "in another's name"},
		"broken body":               {clientLocal(9), &messages.Envelope{Type: 1, Target: messages.ActorGateway, Body: []byte{0xff}}, "broken message"},
		"large body":                {clientLocal(9), &messages.Envelope{Type: 1, Target: messages.ActorGateway, Body: make([]byte, 1<<20)}, "are allowed"},
		"long name":                 {clientLocal(9), &messages.Envelope{Type: 1, Target: strings.Repeat("x", 1<<20)}, "too long"},
		"sender with control codes": {clientLocal(9), &messages.Envelope{Type: 1, Target: messages.ActorGateway, Sender: "\r\n"}, "unprintable"},
	} {
		t.Run(name, func(t *testing.T) {
			a := attack(t, n.address()).hello(test.local)
			a.say(parcel([]*messages.Envelope{test.e}))
			a.dismissed(test.text)
		})
	}
	n.isWell(1)
}

func TestSecondHelloEndsTheConnection(t *testing.T) {
	n := target(t)
	a := attack(t, n.address()).hello(clientLocal(9))
	a.say(helloFrame(nodeLocal(2), nil))
	a.dismissed("second hello")
	n.isWell(1)
}

func TestSenderIsTheConnections(t *testing.T) {
	n := target(t)
	a := attack(t, n.address()).hello(clientLocal(9))
	a.say(parcel([]*messages.Envelope{{Type: 8, Target: messages.ActorGateway, Sender: "node/2/node/raft"}}))
	h := receive(t, n.inbox, "StatusRequest")
	if want := clientLocal(9).Address + "/node/2/node/raft"; h.sender != want {
		t.Errorf("sender %q, want %q", h.sender, want)
	}
	if f, err := a.Recv(); err != nil || len(f.GetParcel().GetEnvelopes()) != 1 {
		t.Errorf("the answer went elsewhere: %v, %v", f, err)
	}
}

func TestAbsentActorsCostNothing(t *testing.T) {
	n := target(t)
	a := attack(t, n.address()).hello(clientLocal(9))
	a.say(parcel([]*messages.Envelope{{Type: 3, Target: messages.ActorSessionPrefix + "gone", Sender: "me"}, {Type: 8, Target: messages.ActorGateway, Sender: "me"}}))
	if f, err := a.Recv(); err != nil || f.GetParcel() == nil {
		t.Errorf("%v, %v", f, err)
	}
	if got := n.hub.absent.Load(); got != 1 {
		t.Errorf("%d absent targets were counted, want 1", got)
	}
}

func TestOversizedFrameEndsTheConnection(t *testing.T) {
	n := target(t)
	a := attack(t, n.address()).hello(clientLocal(9))
	a.say(parcel([]*messages.Envelope{{Type: 4, Target: aSession, Body: make([]byte, messageSizeMax+1)}}))
	for {
		if _, err := a.Recv(); err != nil {
			break
		}
	}
	n.isWell(1)
}

func TestOtherCallsAreRefused(t *testing.T) {
	n := target(t)
	a := attack(t, n.address())
	a.CloseSend()
	a.Recv()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, method := range []string{"/keyval.v1.Link/Stop", "/remote.Remoting/ListProcesses", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"} {
		err := a.client.Invoke(ctx, method, &messages.Attach{}, &messages.Attached{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	n.isWell(1)
}

func TestGarbageIsSurvived(t *testing.T) {
	n := target(t)
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for name, words := range map[string]string{
		"noise": string(noise), "HTTP/1": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00\x01\x00",
		"noise after the preface": preface + string(noise), "the preface alone": preface, "silence": "",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", n.address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, words); err != nil {
				t.Fatal(err)
			}
			// Whatever it answers, it ends the connection at its deadline at the latest.
			conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Error("the connection goes on")
			}
		})
	}
	n.isWell(1)
}

func TestStreamWithoutHelloIsEnded(t *testing.T) {
	n := target(t)
	a := attack(t, n.address())
	begun := time.Now()
	if f, err := a.Recv(); err == nil {
		t.Fatalf("%v", f)
	}
	if took := time.Since(begun); took >= patience {
		t.Errorf("it took %v", took)
	}
	n.isWell(1)
}

func TestIdleStrangersAreBounded(t *testing.T) {
	n := target(t)
	gate := n.hub.listener.(*gate)
	open := func() int {
		gate.mu.Lock()
		defer gate.mu.Unlock()
		return gate.guests[transport.Stranger].Len() + gate.guests[transport.Client].Len()
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	gate.mu.Lock()
	gate.patience = time.Hour // the bound holds by itself
	gate.mu.Unlock()
	for range 1000 {
		c, err := net.Dial("tcp", n.address())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if got := open(); got > transport.AllPlaces.Strangers+1 {
			t.Fatalf("%d connections of strangers are open", got)
		}
	}
	n.isWell(1)
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "all connections are counted out", func() bool { return open() == 0 })
}

// TestFullNodes: a client that finds a node full hears so, and who was silent for long
// makes room for it; a member has a place whatever clients do.
func TestFullNodes(t *testing.T) {
	n := serveWith(t, nodeLocal(1), "127.0.0.1:0", Options{HandshakeTimeout: time.Hour, Places: transport.Places{Strangers: 4, Clients: 3, Nodes: 1}})
	n.newGateway()
	n.spawn(messages.ActorRaft, nil)
	var clients []*attacker
	for i := range 3 {
		clients = append(clients, attack(t, n.address()).hello(clientLocal(byte(i+1))))
	}
	turnedAway := attack(t, n.address())
	turnedAway.say(helloFrame(clientLocal(9), nil))
	turnedAway.dismissed("serves 3 clients, and takes no more")

	gate := n.hub.listener.(*gate)
	gate.mu.Lock()
	second := 0
	for e := gate.guests[transport.Client].Front(); e != nil; e = e.Next() {
		if second++; second == 2 {
			e.Value.(*guest).heard.Add(-int64(time.Hour))
		}
	}
	gate.mu.Unlock()
	attack(t, n.address()).hello(clientLocal(8))
	clients[1].dismissed("was silent for the longest time")

	n.hub.SetPeers([]*messages.Member{{RaftId: 2, Address: "127.0.0.1:1", Incarnation: nodeLocal(2).Incarnation}}, 0)
	attack(t, n.address()).hello(nodeLocal(3)) // nobody knows it: it may join
	stranger := attack(t, n.address())
	stranger.say(helloFrame(nodeLocal(4), nil))
	stranger.dismissed("1 connections of nodes, and takes no more")
	attack(t, n.address()).hello(nodeLocal(2))
	clients[0].client.Close()
	clients[2].client.Close()
	eventually(t, "who left is counted out", func() bool {
		gate.mu.Lock()
		defer gate.mu.Unlock()
		return gate.guests[transport.Client].Len() == 1 && gate.leaving == 0
	})
	n.isWell(7)
}

// TestCrowdsOfOneHostLeaveOthers: the host that has the most strangers loses the oldest.
func TestCrowdsOfOneHostLeaveOthers(t *testing.T) {
	g := &gate{patience: time.Hour, places: transport.Places{Strangers: 3, Clients: 9, Nodes: 9}, arrived: newBudget(1 << 20)}
	enter := func(host string) (c, leaves *guest) {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		c = &guest{Conn: near, gate: g, host: host}
		leaves, ok := g.enter(c)
		if !ok {
			t.Fatalf("%s was turned away", host)
		}
		if leaves != nil {
			leaves.Close()
		}
		return c, leaves
	}
	alone, _ := enter("a")
	var crowd []*guest
	for i := range 5 {
		c, leaves := enter("b")
		crowd = append(crowd, c)
		if i >= 2 && leaves != crowd[i-2] {
			t.Errorf("connection %d: %v leaves", i, leaves)
		}
	}
	if _, _, ok := alone.seat(transport.Client, "", nil); !ok {
		t.Error("who was alone has lost its place")
	}
}

// TestAUserMakesRoomForHimself: at his share a user loses his own idlest connection, however long
// others have been silent, and is turned away where none of his has been.
func TestAUserMakesRoomForHimself(t *testing.T) {
	g := &gate{patience: time.Hour, places: transport.Places{Strangers: 3, Clients: 4, Nodes: 9}, arrived: newBudget(1 << 20)}
	comes := func(user string, silent time.Duration) (c, leaves *guest, ok bool) {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		c = &guest{Conn: near, gate: g, host: "one"}
		c.unread = g.arrived.share(func() {})
		if _, ok := g.enter(c); !ok {
			t.Fatal("turned away as a stranger")
		}
		leaves, _, ok = c.seat(transport.Client, user, nil)
		c.heard.Add(-int64(silent))
		return c, leaves, ok
	}
	comes("bob", 3*time.Hour)
	busy, _, _ := comes("alice", 0)
	asleep, _, _ := comes("alice", time.Hour)
	if _, leaves, ok := comes("alice", 0); !ok || leaves != asleep {
		t.Errorf("%v leaves, %v", leaves, ok)
	}
	asleep.Close()
	if c, leaves, ok := comes("alice", 0); ok || leaves != nil || busy.leaves || c.as != transport.Stranger {
		t.Errorf("%v leaves, and she has a place: %v", leaves, ok)
	}
	if _, leaves, ok := comes("bob", 0); !ok || leaves != nil {
		t.Errorf("bob: %v leaves, %v", leaves, ok)
	}
}

// TestFrozenClientLosesItsConnection: a client that asks and never reads costs
// the bound of its queue and no more.
func TestFrozenClientLosesItsConnection(t *testing.T) {
	n := target(t)
	attack(t, n.address()).hello(clientLocal(9))
	to, reply := clientLocal(9).Address, &messages.ReadReply{Items: []*messages.Item{{Value: make([]byte, 512<<10)}}}
	sent := 0
	eventually(t, "the connection is ended", func() bool {
		for range 16 {
			n.system.Root.Send(actor.NewPID(to, "client"), reply)
			sent++
		}
		if c, ok := n.hub.clients.Load(to); ok {
			if bytes, _ := c.(*inbound).queue.sizes(); bytes > replyBytesMax {
				t.Fatalf("%d bytes wait", bytes)
			}
		}
		return len(n.events) > 0
	})
	same(t, receive(t, n.events, "ClientGone"), &messages.ClientGone{Address: to})
	if mb := sent / 2; mb < 8 {
		t.Errorf("it was ended after %d MiB", mb)
	}
	n.isWell(1)
}

// frozen is a node that welcomes and then reads nothing more.
type frozen struct {
	messages.UnimplementedLinkServer
	thaw chan struct{}
	lane [len(laneLimits)]atomic.Bool
}

func (f *frozen) Connect(s grpc.BidiStreamingServer[messages.Frame, messages.Frame]) error {
	hello, err := s.Recv()
	if err != nil {
		return err
	}
	w, r := transport.Admit(nodeLocal(2), transport.Known{}, transport.Principal{}, hello.GetHello())
	if r != nil {
		return r
	}
	if err := s.Send(&messages.Frame{Kind: &messages.Frame_Welcome{Welcome: w}}); err != nil {
		return err
	}
	f.lane[hello.GetHello().Lane].Store(true)
	<-f.thaw
	return nil
}

// TestFrozenPeerCostsItsBounds: whatever is sent to a peer that reads nothing,
// each lane holds at most its limit and no sender waits.
func TestFrozenPeerCostsItsBounds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &frozen{thaw: make(chan struct{})}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	messages.RegisterLinkServer(server, f)
	go server.Serve(l)
	defer server.Stop()
	defer close(f.thaw)

	n := serve(t, nodeLocal(1))
	session := n.spawn(aSession, nil)
	n.hub.SetPeers([]*messages.Member{n.member(), {RaftId: 2, Address: l.Addr().String()}}, 0)
	entries := raftMessage(raftpb.MsgApp, 1, 2, 1)
	entries.Message.Entries = []*raftpb.Entry{{Data: make([]byte, 256<<10)}}
	beat := raftMessage(raftpb.MsgHeartbeat, 1, 2, 1)
	beat.Message.Context = make([]byte, 32<<10)
	piece := &messages.SnapshotPiece{Chunk: &messages.SnapshotChunk{Body: make([]byte, 1<<20)}}
	to, snapshots := n.pid(2, messages.ActorRaft), n.pid(2, messages.ActorSnapshots)
	p := (*n.hub.peers.Load())["node/2"]
	biggest := map[messages.Lane]int{messages.Lane_CONTROL: 512 << 10, messages.Lane_APPEND: 512 << 10, messages.Lane_BULK: 2 << 20}
	full := func(kind messages.Lane) bool {
		q := p.lanes[kind].queue
		bytes, lost := q.sizes()
		if bytes > laneLimits[kind] {
			t.Fatalf("%d bytes wait on lane %v", bytes, kind)
		}
		return f.lane[kind].Load() && lost > 0 && bytes > laneLimits[kind]-biggest[kind]
	}
	eventually(t, "the lanes are full", func() bool {
		for range 16 {
			n.system.Root.Send(to, entries)
			n.system.Root.Send(to, beat)
			n.system.Root.Send(snapshots, piece)
		}
		return full(messages.Lane_APPEND) && full(messages.Lane_CONTROL) && full(messages.Lane_BULK)
	})
	n.system.Root.RequestWithCustomSender(to, &messages.Propose{Origin: 1, Seq: 3, Command: make([]byte, 512<<10)}, session)
	same(t, receive(t, n.inbox, "refusal").message, &messages.ProposalRefused{Seq: 3, Code: messages.Code_BUSY})
}

// panics is a stream that fails in a way nobody thought of.
type panics struct{}

func (panics) SendMsg(any) error { return nil }
func (panics) RecvMsg(any) error { panic("unforeseen") }

func TestPanicEndsOneConnection(t *testing.T) {
	err := (&inlet{conn: transport.Conn{Address: "node/2"}}).read(panics{})
	if messages.CodeOf(err) != messages.Code_INTERNAL || !strings.Contains(err.Error(), "unforeseen") {
		t.Errorf("%v", err)
	}
}
