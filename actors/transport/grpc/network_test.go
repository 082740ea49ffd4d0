package grpc

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"keyval/actors/transport"
	"keyval/messages"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(goleak.IgnoreTopFunction("github.com/asynkron/protoactor-go/actor.NewThrottle.func1")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const aSession = messages.ActorSessionPrefix + "1"

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

// heard is a message that an actor received, and from whom.
type heard struct {
	actor, sender string
	message       proto.Message
}

// station is an actor system in a test, with its place in the network.
type station struct {
	t      testing.TB
	system *actor.ActorSystem
	local  transport.Local
	hub    *hub
	dialer *dialer
	log    *syncBuffer
	inbox  chan heard // what its actors received
	events chan proto.Message
}

var (
	clusterA = bytes.Repeat([]byte{0xaa}, messages.ClusterIDSize)
	clusterB = bytes.Repeat([]byte{0xbb}, messages.ClusterIDSize)
)

func incarnation(id messages.RaftID) []byte {
	return bytes.Repeat([]byte{byte(id)}, messages.IncarnationSize)
}

func nodeLocal(id messages.RaftID) transport.Local {
	return transport.Local{
		Role: messages.Role_NODE, ClusterID: clusterA, RaftID: id, Incarnation: incarnation(id),
		Name: fmt.Sprintf("node%d", id), Address: messages.NodeAddress(id), Version: "test",
	}
}

func clientLocal(n byte) transport.Local {
	return transport.Local{Role: messages.Role_CLIENT, Address: messages.ClientAddress(bytes.Repeat([]byte{n}, 16)), Version: "test"}
}

func newStation(t testing.TB, local transport.Local) *station {
	t.Helper()
	s := &station{t: t, local: local, log: &syncBuffer{}, inbox: make(chan heard, 1<<16), events: make(chan proto.Message, 1<<10)}
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	s.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return logger }))
	s.system.ProcessRegistry.Address = local.Address
	return s
}

// spawn makes an actor that passes on what it receives and answers with reply.
func (s *station) spawn(name string, reply func(proto.Message) proto.Message) *actor.PID {
	s.t.Helper()
	pid, err := s.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		m, ok := ctx.Message().(proto.Message)
		if _, system := ctx.Message().(actor.SystemMessage); !ok || system {
			return
		}
		if _, automatic := ctx.Message().(actor.AutoReceiveMessage); automatic {
			return
		}
		sender := ""
		if ctx.Sender() != nil {
			sender = ctx.Sender().Address + "/" + ctx.Sender().Id
		}
		s.inbox <- heard{name, sender, m}
		if reply != nil && ctx.Sender() != nil {
			if r := reply(m); r != nil {
				ctx.Request(ctx.Sender(), r)
			}
		}
	}), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func (s *station) spawnEvents() *actor.PID {
	s.t.Helper()
	pid, err := s.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *messages.ClientGone, *messages.PeerGone, *messages.PeerRefused, *messages.LinkUp, *messages.LinkDown:
			s.events <- m.(proto.Message)
		}
	}), "events")
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func testOptions() Options {
	return Options{HandshakeTimeout: 500 * time.Millisecond, DialTimeout: time.Second}
}

// serveAt makes a node that listens.
func serveAt(t testing.TB, local transport.Local, listen string) *station {
	t.Helper()
	return serveWith(t, local, listen, testOptions())
}

func serveWith(t testing.TB, local transport.Local, listen string, o Options) *station {
	t.Helper()
	s := newStation(t, local)
	h, err := New(o).Serve(s.system, listen, local, s.spawnEvents())
	if err != nil {
		t.Fatal(err)
	}
	s.hub = h.(*hub)
	t.Cleanup(s.hub.Close)
	return s
}

func serve(t testing.TB, local transport.Local) *station {
	t.Helper()
	return serveAt(t, local, "127.0.0.1:0")
}

func (s *station) address() string { return s.hub.Addr().String() }

func (s *station) member() *messages.Member {
	return &messages.Member{RaftId: s.local.RaftID, Name: s.local.Name, Address: s.address(), Incarnation: s.local.Incarnation}
}

// introduce makes stations each other's peers.
func introduce(stations ...*station) {
	var members []*messages.Member
	for _, s := range stations {
		members = append(members, s.member())
	}
	for _, s := range stations {
		s.hub.SetPeers(members, 0)
	}
}

// join makes a client.
func join(t testing.TB, local transport.Local) *station {
	t.Helper()
	s := newStation(t, local)
	d, err := New(testOptions()).Join(s.system, local, s.spawnEvents())
	if err != nil {
		t.Fatal(err)
	}
	s.dialer = d.(*dialer)
	t.Cleanup(s.dialer.Close)
	return s
}

func receive[M any](t testing.TB, from chan M, what string) M {
	t.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(patience):
		t.Fatalf("no %s came", what)
		panic("unreachable")
	}
}

// hears waits until a message reaches an actor of s, sending it again and again
// as Raft does, since links may lose messages.
func (s *station) hears(send func()) heard {
	s.t.Helper()
	deadline := time.After(patience)
	for again := time.NewTicker(5 * time.Millisecond); ; {
		send()
		select {
		case h := <-s.inbox:
			again.Stop()
			return h
		case <-again.C:
		case <-deadline:
			s.t.Fatalf("%s heard nothing", s.local.Address)
		}
	}
}

// eventually waits until condition holds; for what cannot announce itself.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !condition() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (s *station) pid(id messages.RaftID, name string) *actor.PID {
	return actor.NewPID(messages.NodeAddress(id), name)
}

func raftMessage(kind raftpb.MessageType, from, to, term uint64) *messages.RaftMessage {
	return &messages.RaftMessage{Message: &raftpb.Message{Type: kind.Enum(), From: &from, To: &to, Term: &term}}
}

// offered is what node 1 offers node 2.
func offered() *messages.SnapshotOffer {
	m := raftMessage(raftpb.MsgSnap, 1, 2, 3).Message
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(9)), Term: new(uint64(3)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}},
	}}
	return &messages.SnapshotOffer{Shipment: 1, Message: m, Bytes: 1}
}

func same(t testing.TB, got, want proto.Message) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}
}

func TestNodesExchangeRaftMessagesOnThreeLanes(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	a.spawn(messages.ActorRaft, nil)
	b.spawn(messages.ActorRaft, nil)
	b.spawn(messages.ActorSnapshots, nil)
	introduce(a, b)
	append := raftMessage(raftpb.MsgApp, 1, 2, 7)
	append.Message.Entries = []*raftpb.Entry{{Term: proto.Uint64(7), Index: proto.Uint64(3), Data: []byte("data")}}
	for lane, m := range map[messages.Lane]proto.Message{
		messages.Lane_CONTROL: raftMessage(raftpb.MsgHeartbeat, 1, 2, 7),
		messages.Lane_APPEND:  append,
		messages.Lane_BULK:    offered(),
	} {
		to := a.pid(2, messages.ActorRaft)
		if lane == messages.Lane_BULK {
			to = a.pid(2, messages.ActorSnapshots)
		}
		send := func() {
			a.system.Root.RequestWithCustomSender(to, m, actor.NewPID("node/1", messages.ActorRaft))
		}
		got := b.hears(send)
		for !proto.Equal(got.message, m) { // others were sent more than once
			got = b.hears(send)
		}
		if got.sender != "node/1/"+messages.ActorRaft {
			t.Errorf("%v: sender %q", lane, got.sender)
		}
		b.hub.mu.Lock()
		list := b.hub.inbound[inboundKey{"node/1", lane}]
		b.hub.mu.Unlock()
		if len(list) != 1 {
			t.Errorf("nothing came on lane %v", lane)
		}
	}
	back := raftMessage(raftpb.MsgAppResp, 2, 1, 7)
	same(t, a.hears(func() { b.system.Root.Send(b.pid(1, messages.ActorRaft), back) }).message, back)
}

// newGateway answers as a node's gateway and one session do.
func (s *station) newGateway() {
	s.spawn(messages.ActorGateway, func(m proto.Message) proto.Message {
		switch m := m.(type) {
		case *messages.Attach:
			return &messages.Attached{Session: aSession}
		case *messages.StatusRequest:
			return &messages.StatusReply{Request: m.Request, Name: s.local.Name}
		}
		return nil
	})
	s.spawn(aSession, func(m proto.Message) proto.Message {
		if w, ok := m.(*messages.Write); ok {
			return &messages.WriteReply{Request: w.Request, Revision: w.Request + 1}
		}
		return nil
	})
}

func TestClientAsksAndIsAnswered(t *testing.T) {
	n := serve(t, nodeLocal(1))
	n.newGateway()
	c := join(t, clientLocal(1))
	me := c.spawn("client", nil)
	c.dialer.Dial(n.address())
	same(t, receive(t, c.events, "LinkUp"), &messages.LinkUp{Endpoint: n.address(), RaftId: 1, Name: "node1", ClusterId: clusterA, Version: "test"})

	c.system.Root.RequestWithCustomSender(c.pid(1, messages.ActorGateway), &messages.Attach{Client: []byte("x")}, me)
	got := receive(t, c.inbox, "Attached")
	same(t, got.message, &messages.Attached{Session: aSession})
	if got.sender != "node/1/"+messages.ActorGateway {
		t.Errorf("sender %q", got.sender)
	}
	if h := receive(t, n.inbox, "Attach"); h.sender != c.local.Address+"/client" {
		t.Errorf("the gateway saw sender %q", h.sender)
	}
	for i := range uint64(1000) {
		c.system.Root.RequestWithCustomSender(c.pid(1, aSession), &messages.Write{Request: i}, me)
	}
	for i := range uint64(1000) {
		same(t, receive(t, c.inbox, "WriteReply").message, &messages.WriteReply{Request: i, Revision: i + 1})
	}
	c.dialer.Hang(n.address())
	down := receive(t, c.events, "LinkDown").(*messages.LinkDown)
	if down.Endpoint != n.address() || !strings.Contains(down.Message, "hung up") {
		t.Errorf("%v", down)
	}
	same(t, receive(t, n.events, "ClientGone"), &messages.ClientGone{Address: c.local.Address})
}

func TestLinkDownSaysWhy(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	closed.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, by its backlog, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	chatty, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer chatty.Close()
	go func() {
		for {
			conn, err := chatty.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		}
	}()
	n := serve(t, nodeLocal(1))
	for _, test := range []struct {
		name, endpoint string
		cluster        []byte
		code           messages.Code
		text           string
	}{
		{"nobody", nobody, nil, messages.Code_UNREACHABLE, "nothing listens at " + nobody},
		{"mute", mute.Addr().String(), nil, messages.Code_UNREACHABLE, "does not answer"},
		{"stranger", chatty.Addr().String(), nil, messages.Code_UNREACHABLE, "does not answer as a KeyVal node"},
		{"no endpoint", "here", nil, messages.Code_INVALID, `"here" is no endpoint`},
		{"cluster", n.address(), clusterB, messages.Code_CONFLICT, fmt.Sprintf("node node1 belongs to cluster %x, not to cluster %x", clusterA, clusterB)},
	} {
		t.Run(test.name, func(t *testing.T) {
			local := clientLocal(1)
			local.ClusterID = test.cluster
			c := join(t, local)
			c.dialer.Dial(test.endpoint)
			down, ok := receive(t, c.events, "LinkDown").(*messages.LinkDown)
			if !ok || down.Code != test.code || !strings.Contains(down.Message, test.text) || down.Hint == "" {
				t.Errorf("%v", down)
			}
			c.dialer.Dial(test.endpoint) // free again
			receive(t, c.events, "second LinkDown")
		})
	}
}

func TestBrokenLinkIsReported(t *testing.T) {
	n := serve(t, nodeLocal(1))
	c := join(t, clientLocal(1))
	c.dialer.Dial(n.address())
	c.dialer.Dial(n.address()) // does nothing
	receive(t, c.events, "LinkUp")
	n.hub.Close()
	down, ok := receive(t, c.events, "LinkDown").(*messages.LinkDown)
	if !ok || down.Code != messages.Code_UNREACHABLE || !strings.Contains(down.Message, "broke") {
		t.Errorf("%v", down)
	}
}

func (s *station) status(request uint64) {
	s.system.Root.RequestWithCustomSender(s.pid(1, messages.ActorGateway), &messages.StatusRequest{Request: request}, s.system.NewLocalPID("client"))
}

func (s *station) hasOneConnectionOf(client *station) {
	s.t.Helper()
	eventually(s.t, "one connection is left", func() bool {
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		return len(s.hub.inbound[inboundKey{client.local.Address, messages.Lane_CONTROL}]) == 1
	})
}

func TestNewestConnectionOfAClientIsAnswered(t *testing.T) {
	n := serve(t, nodeLocal(1))
	n.newGateway()
	first, second := join(t, clientLocal(1)), join(t, clientLocal(1))
	for _, c := range []*station{first, second} {
		c.spawn("client", nil)
		c.dialer.Dial(n.address())
		receive(t, c.events, "LinkUp")
	}
	first.status(5)
	same(t, receive(t, second.inbox, "StatusReply").message, &messages.StatusReply{Request: 5, Name: "node1"})
	second.dialer.Close()
	n.hasOneConnectionOf(first)
	if len(n.events) != 0 {
		t.Errorf("the client is still there: %v", <-n.events)
	}
	first.status(6)
	same(t, receive(t, first.inbox, "StatusReply").message, &messages.StatusReply{Request: 6, Name: "node1"})
	first.dialer.Close()
	same(t, receive(t, n.events, "ClientGone"), &messages.ClientGone{Address: first.local.Address})
}

func TestConnectionsOfAClientAreBounded(t *testing.T) {
	n := serve(t, nodeLocal(1))
	var oldest *attacker
	for i := range connectionsOfClientMax + 1 {
		a := attack(t, n.address()).hello(clientLocal(1))
		if i == 0 {
			oldest = a
		}
	}
	oldest.dismissed("connected again")
}

func TestNewestConnectionOfANodeWins(t *testing.T) {
	n := serve(t, nodeLocal(1))
	first := attack(t, n.address()).hello(nodeLocal(2))
	attack(t, n.address()).hello(nodeLocal(3))
	attack(t, n.address()).hello(nodeLocal(2))
	first.dismissed("connected again")
}

func TestOfTwoLinksToANodeOneIsLeft(t *testing.T) {
	n := serve(t, nodeLocal(1))
	n.newGateway()
	c := join(t, clientLocal(1))
	c.spawn("client", nil)
	_, port, _ := net.SplitHostPort(n.address())
	endpoints := []string{n.address(), "localhost:" + port}
	route := func() string {
		l, ok := c.dialer.routes.Load("node/1")
		if !ok {
			return ""
		}
		return l.(*clientLink).endpoint
	}
	for _, endpoint := range endpoints {
		c.dialer.Dial(endpoint)
		receive(t, c.events, "LinkUp")
		if route() != endpoint {
			t.Errorf("the route is %q, want %q", route(), endpoint)
		}
	}
	c.dialer.Hang(endpoints[1])
	receive(t, c.events, "LinkDown")
	if route() != endpoints[0] {
		t.Errorf("the route is %q, want the link that is left", route())
	}
	n.hasOneConnectionOf(c)
	c.status(1)
	receive(t, c.inbox, "StatusReply")
	c.dialer.Hang(endpoints[0])
	receive(t, c.events, "LinkDown")
	if route() != "" {
		t.Errorf("the route is %q, want none", route())
	}
}

func TestPeerIsBackSoonAfterRestart(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	beat := func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeat, 1, 2, 1)) }
	b.hears(beat)
	address, members := b.address(), []*messages.Member{a.member(), b.member()}
	b.hub.Close()
	eventually(t, "the delay has grown", func() bool { return strings.Contains(a.log.String(), "nothing listens") })

	b = serveAt(t, nodeLocal(2), address)
	b.spawn(messages.ActorRaft, nil)
	back := time.Now()
	b.hub.SetPeers(members, 0)
	b.hears(beat)
	if took := time.Since(back); took > time.Second {
		t.Errorf("it took %v until the peer was heard again", took)
	}
}

// TestDeathOfAPeerIsToldOnce: its connections break and its port refuses.
func TestDeathOfAPeerIsToldOnce(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	for _, s := range []*station{a, b} {
		s.spawn(messages.ActorRaft, nil)
	}
	introduce(a, b)
	a.hears(func() { b.system.Root.Send(b.pid(1, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeat, 2, 1, 1)) })
	b.hears(func() {
		a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeatResp, 1, 2, 1))
	})
	began := time.Now()
	b.hub.Close()
	same(t, receive(t, a.events, "PeerGone"), &messages.PeerGone{Peer: 2})
	t.Logf("it was told after %v", time.Since(began))
	time.Sleep(3 * delayNearMax)
	if len(a.events) > 0 {
		t.Errorf("then came %v", <-a.events)
	}
}

// A node whose directory is an older copy is told so by the peer that it dials, on a
// connection that stands already too. What it holds against the peer itself is no news of that one.
func TestRefusalsAreTold(t *testing.T) {
	old := nodeLocal(2)
	old.Starts = &messages.Starts{Number: 2, Marks: []uint64{1, 7}}
	a, b := serve(t, nodeLocal(1)), serve(t, old)
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	b.hears(func() {
		a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeatResp, 1, 2, 1))
	})
	eventually(t, "the older copy is linked", func() bool { return a.hub.hears(messages.NodeAddress(2)) })
	want := &messages.PeerRefused{Peer: 1, Code: messages.Code_DAMAGED}
	a.hub.Remember(&messages.StartsHeard{Heard: []*messages.Start{{RaftId: 2, Incarnation: old.Incarnation, Number: 2, Mark: 9}}})
	same(t, receive(t, b.events, "refusal on the connection that stands"), want)
	same(t, receive(t, b.events, "refusal of the next"), want)
	if len(a.events) > 0 {
		t.Errorf("the other is told %v", <-a.events)
	}
}

// TestPeerThatHangsUpIsNotDead: its connections break, and it listens on.
func TestPeerThatHangsUpIsNotDead(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	beat := func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeat, 1, 2, 1)) }
	b.hears(beat)
	b.hub.mu.Lock()
	b.hub.endAll(func(*inbound) *messages.Error { return messages.Errorf(messages.Code_BUSY, "for a test") })
	b.hub.mu.Unlock()
	same(t, receive(t, a.events, "refusal"), &messages.PeerRefused{Peer: 2, Code: messages.Code_BUSY})
	b.hears(beat)
	if len(a.events) > 0 {
		t.Errorf("%v was told", <-a.events)
	}
}

func TestIdentifyEndsFounding(t *testing.T) {
	la, lb := nodeLocal(1), nodeLocal(2)
	la.ClusterID, lb.ClusterID = nil, nil
	a, b := serve(t, la), serve(t, lb)
	b.spawn(messages.ActorFounding, nil)
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	state := &messages.FounderState{RaftId: 1, Token: "t"}
	same(t, b.hears(func() { a.system.Root.Send(a.pid(2, messages.ActorFounding), state) }).message, state)
	// Nothing else passes while founding.
	a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeat, 1, 2, 1))
	for h := b.hears(func() { a.system.Root.Send(a.pid(2, messages.ActorFounding), state) }); ; h = receive(t, b.inbox, "state") {
		if h.actor != messages.ActorFounding {
			t.Fatalf("%s heard %v", h.actor, h.message)
		}
		if len(b.inbox) == 0 {
			break
		}
	}
	b.hub.Identify(nodeLocal(2))
	a.hub.Identify(nodeLocal(1))
	eventually(t, "Raft is heard", func() bool {
		h := b.hears(func() {
			a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgHeartbeat, 1, 2, 1))
		})
		return h.actor == messages.ActorRaft
	})
}

func TestRemovedPeerIsCutOff(t *testing.T) {
	a, b, c := serve(t, nodeLocal(1)), serve(t, nodeLocal(2)), serve(t, nodeLocal(3))
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b, c)
	b.hears(func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgVote, 1, 2, 1)) })
	b.hub.SetPeers([]*messages.Member{b.member(), c.member()}, 4)
	eventually(t, "node 1 is told", func() bool { return strings.Contains(a.log.String(), "was removed from this cluster") })
	if (*b.hub.peers.Load())["node/1"] != nil {
		t.Error("node 2 still links to node 1")
	}
}

// TestNodeThatIsNoPeerIsAnswered: node 2 knows no member, as one that was cut off while
// the others changed. It must be able to vote for whoever asks.
func TestNodeThatIsNoPeerIsAnswered(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	a.spawn(messages.ActorRaft, nil)
	b.spawn(messages.ActorRaft, nil)
	session := b.spawn(aSession, nil)
	a.hub.SetPeers([]*messages.Member{a.member(), b.member()}, 0)
	b.hears(func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgVote, 1, 2, 7)) })

	app := raftMessage(raftpb.MsgApp, 2, 1, 7)
	app.Message.Entries = []*raftpb.Entry{{Term: new(uint64(7)), Index: new(uint64(3)), Data: []byte("data")}}
	for _, m := range []*messages.RaftMessage{raftMessage(raftpb.MsgVoteResp, 2, 1, 7), app} {
		b.system.Root.Send(b.pid(1, messages.ActorRaft), m)
		same(t, receive(t, a.inbox, "answer").message, m)
	}
	a.hub.Close()
	refusal := func() {
		b.system.Root.RequestWithCustomSender(b.pid(1, messages.ActorRaft), &messages.Propose{Origin: 2, Seq: 5, Command: []byte("c")}, session)
	}
	eventually(t, "a proposal without a way is refused", func() bool {
		h := b.hears(refusal)
		return h.actor == aSession && proto.Equal(h.message, &messages.ProposalRefused{Seq: 5, Code: messages.Code_BUSY})
	})
}

// TestPeerThatHasMovedIsAnswered: nobody is where node 1 looks for node 2, which reaches node 1.
// The record of its address cannot be changed before they have elected a leader.
func TestPeerThatHasMovedIsAnswered(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	a.spawn(messages.ActorRaft, nil)
	b.spawn(messages.ActorRaft, nil)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	was := proto.CloneOf(b.member())
	was.Address = gone.Addr().String()
	gone.Close()
	a.hub.SetPeers([]*messages.Member{a.member(), was}, 0)
	b.hub.SetPeers([]*messages.Member{a.member(), b.member()}, 0)
	a.hears(func() { b.system.Root.Send(b.pid(1, messages.ActorRaft), raftMessage(raftpb.MsgVote, 2, 1, 7)) })
	app := raftMessage(raftpb.MsgApp, 1, 2, 7)
	app.Message.Entries = []*raftpb.Entry{{Term: new(uint64(7)), Index: new(uint64(3)), Data: []byte("data")}}
	for _, m := range []*messages.RaftMessage{raftMessage(raftpb.MsgVoteResp, 1, 2, 7), app} {
		for got := proto.Message(nil); !proto.Equal(got, m); { // others were sent more than once
			got = b.hears(func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), m) }).message
		}
	}
	a.hub.SetPeers([]*messages.Member{a.member(), b.member()}, 0)
	beat := raftMessage(raftpb.MsgHeartbeat, 1, 2, 7)
	eventually(t, "it is reached where it is", func() bool {
		a.system.Root.Send(a.pid(2, messages.ActorRaft), beat)
		return b.hub.newest(inboundKey{"node/1", messages.Lane_CONTROL}) != nil
	})
}

func TestProposalWithoutAWayIsRefused(t *testing.T) {
	n := serve(t, nodeLocal(1))
	session := n.spawn(aSession, nil)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := &messages.Member{RaftId: 2, Address: closed.Addr().String()}
	closed.Close()
	n.hub.SetPeers([]*messages.Member{n.member(), away}, 0)
	for seq, id := range map[uint64]messages.RaftID{5: 2, 6: 3} { // away, unknown
		n.system.Root.RequestWithCustomSender(n.pid(id, messages.ActorRaft), &messages.Propose{Origin: 1, Seq: seq, Command: []byte("c")}, session)
		got := receive(t, n.inbox, "refusal")
		same(t, got.message, &messages.ProposalRefused{Seq: seq, Code: messages.Code_BUSY})
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	n := serve(t, nodeLocal(1))
	_, err := New(Options{}).Serve(newStation(t, nodeLocal(2)).system, n.address(), nodeLocal(2), nil)
	if messages.CodeOf(err) != messages.Code_CONFLICT || !strings.Contains(err.Error(), n.address()+" is in use") {
		t.Errorf("%v", err)
	}
}

func TestUnsendableMessagesAreDropped(t *testing.T) {
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	to := a.pid(2, messages.ActorRaft)
	a.system.Root.Send(to, "no message")
	a.system.Root.Send(to, &messages.Tick{})
	a.system.Root.Send(to, &messages.Attach{})
	a.system.Root.Send(to, raftMessage(raftpb.MsgHup, 1, 2, 1))
	a.system.Root.Send(to, raftMessage(raftpb.MsgHeartbeat, 9, 2, 1))
	a.system.Root.RequestWithCustomSender(to, raftMessage(raftpb.MsgHeartbeat, 1, 2, 1), actor.NewPID("node/7", "raft"))
	a.system.Root.Stop(to)
	a.system.Root.Poison(to)
	good := raftMessage(raftpb.MsgHeartbeat, 1, 2, 42)
	same(t, b.hears(func() { a.system.Root.Send(to, good) }).message, good)
}

func TestCloseEndsEverything(t *testing.T) {
	before := goleak.IgnoreCurrent()
	a, b := serve(t, nodeLocal(1)), serve(t, nodeLocal(2))
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	c := join(t, clientLocal(1))
	c.dialer.Dial(a.address())
	receive(t, c.events, "LinkUp")
	b.hears(func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgVote, 1, 2, 1)) })
	c.dialer.Dial("127.0.0.1:1")
	for _, close := range []func(){a.hub.Close, c.dialer.Close, b.hub.Close, b.hub.Close, c.dialer.Close} {
		close()
	}
	a.hub.SetPeers([]*messages.Member{b.member()}, 0)
	a.hub.Identify(nodeLocal(1))
	c.dialer.Dial(a.address())
	a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgVote, 1, 2, 1))
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("github.com/asynkron/protoactor-go/actor.NewThrottle.func1"))
}

// TestNodeThatServesNoMore: its clients are sent away and told why. Nodes still get their
// answers, since they may need this one's vote.
func TestNodeThatServesNoMore(t *testing.T) {
	a, b, c := serve(t, nodeLocal(1)), serve(t, nodeLocal(2)), join(t, clientLocal(1))
	b.spawn(messages.ActorRaft, nil)
	introduce(a, b)
	vote := func() { a.system.Root.Send(a.pid(2, messages.ActorRaft), raftMessage(raftpb.MsgVote, 1, 2, 1)) }
	b.hears(vote)
	c.dialer.Dial(b.address())
	receive(t, c.events, "LinkUp")
	removed := b.local
	removed.WaitingFor = "node2 was removed"
	b.hub.Identify(removed)
	if down, is := receive(t, c.events, "LinkDown").(*messages.LinkDown); !is || !strings.Contains(down.Message, "node node2 does not serve any more: node2 was removed") {
		t.Errorf("the client hears %v", down)
	}
	c.dialer.Dial(b.address())
	if up, is := receive(t, c.events, "LinkUp").(*messages.LinkUp); !is || up.WaitingFor != "node2 was removed" {
		t.Errorf("the client hears %v", up)
	}
	b.hears(vote)
}

// TestNodeWithoutARaftID waits to be added: a client is told that, a node is to come again.
func TestNodeWithoutARaftID(t *testing.T) {
	waits := nodeLocal(4)
	waits.RaftID, waits.ClusterID, waits.Address, waits.WaitingFor = 0, nil, clientLocal(9).Address, "waiting to be added"
	n, c := serve(t, waits), join(t, clientLocal(1))
	c.dialer.Dial(n.address())
	if up, is := receive(t, c.events, "LinkUp").(*messages.LinkUp); !is || up.WaitingFor != "waiting to be added" || up.RaftId != 0 {
		t.Errorf("the client hears %v", up)
	}
	a := serve(t, nodeLocal(1))
	a.hub.SetPeers([]*messages.Member{a.member(), {RaftId: 4, Address: n.address()}}, 0)
	eventually(t, "node 1 is told", func() bool { return strings.Contains(a.log.String(), "waits to be added, and has no raft id yet") })
}
