package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"keyval/actors/seam"
	"keyval/actors/seam/production"
	"keyval/actors/transport"
	"keyval/actors/transport/grpc"
	"keyval/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a network within the process: nodes by endpoint, and the clients that
// dialled them. Every hop marshals.
type memory struct {
	mu      sync.Mutex
	nodes   map[string]*fakeNode // by endpoint
	dialers []*memoryDialer
}

var _ seam.Network = (*memory)(nil)

func (n *memory) Serve(*actor.ActorSystem, string, transport.Local, *actor.PID) (seam.Hub, error) {
	return nil, errors.New("nodes are added with start")
}

func (n *memory) Join(system *actor.ActorSystem, local transport.Local, events *actor.PID) (seam.Dialer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &memoryDialer{net: n, system: system, local: local, events: events, links: map[string]*fakeNode{}}
	n.dialers = append(n.dialers, d)
	system.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) {
		return hop{system, func() *actor.ActorSystem { return d.reach(pid.Address) }}, true
	})
	return d, nil
}

// kill ends a node: its links go down, and its endpoint refuses.
func (n *memory) kill(endpoint string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, endpoint)
	for _, d := range n.dialers {
		d.lose(endpoint)
	}
}

type memoryDialer struct {
	net    *memory
	system *actor.ActorSystem
	local  transport.Local
	events *actor.PID
	links  map[string]*fakeNode
	closed bool
}

func (d *memoryDialer) Dial(endpoint string) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	node := d.net.nodes[endpoint]
	switch {
	case d.closed || d.links[endpoint] != nil:
	case node == nil:
		d.tell(&messages.LinkDown{Endpoint: endpoint, Code: messages.Code_UNREACHABLE, Message: "nothing listens at " + endpoint})
	default:
		d.links[endpoint] = node
		d.tell(&messages.LinkUp{Endpoint: endpoint, RaftId: node.id, Name: node.name(), ClusterId: []byte("one"), WaitingFor: node.waitingFor})
	}
}

func (d *memoryDialer) Hang(endpoint string) {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.lose(endpoint)
}

func (d *memoryDialer) Close() {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.closed = true
	clear(d.links)
}

func (d *memoryDialer) lose(endpoint string) {
	if d.links[endpoint] != nil {
		delete(d.links, endpoint)
		d.tell(&messages.LinkDown{Endpoint: endpoint, Code: messages.Code_UNREACHABLE, Message: "the connection broke"})
	}
}

func (d *memoryDialer) tell(event any) { d.system.Root.Send(d.events, event) }

// reach finds the system of a linked node.
func (d *memoryDialer) reach(address string) *actor.ActorSystem {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	for _, node := range d.links {
		if node.system.Address() == address {
			return node.system
		}
	}
	return nil
}

// client finds the system of a client that is linked to node.
func (n *memory) client(node *fakeNode, address string) *actor.ActorSystem {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.dialers {
		if d.system.Address() == address && d.links[node.endpoint] == node {
			return d.system
		}
	}
	return nil
}

// hop carries a message from one system to another, as bytes.
type hop struct {
	from *actor.ActorSystem
	to   func() *actor.ActorSystem
}

func (h hop) SendUserMessage(pid *actor.PID, message any) {
	_, body, sender := actor.UnwrapEnvelope(message)
	name := ""
	if sender != nil {
		name = sender.Id
	}
	sealed, err := messages.Seal(pid.Id, name, body.(proto.Message))
	if err != nil {
		panic(err)
	}
	opened, err := messages.Open(sealed)
	if err != nil {
		panic(err)
	}
	to := h.to()
	if to == nil {
		return
	}
	var from *actor.PID
	if name != "" {
		from = actor.NewPID(h.from.Address(), name)
	}
	to.Root.RequestWithCustomSender(to.NewLocalPID(pid.Id), opened, from)
}
func (h hop) SendSystemMessage(*actor.PID, any) {}
func (h hop) Stop(*actor.PID)                   {}

// log is what the fake nodes agree on: commands executed at most once.
type log struct {
	mu       sync.Mutex
	revision uint64
	rows     []*messages.Item // by key
	done     map[string]*messages.WriteReply
	leader   *fakeNode
	asked    *messages.Read    // the last read
	told     *messages.Command // the last command
	// compacted is what a Compact left: reads below are refused.
	compacted uint64
}

func (l *log) write(m *messages.Write) *messages.WriteReply {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := new(messages.Command)
	if err := proto.Unmarshal(m.Command, c); err != nil {
		return &messages.WriteReply{Request: m.Request, Code: messages.Code_INVALID}
	}
	l.told = c
	name := messages.RequestID(c.Session, messages.RequestWrite, c.Seq)
	if r := l.done[name]; r != nil {
		return r
	}
	r := &messages.WriteReply{Request: m.Request, Revision: l.revision}
	operations := c.Operations
	for i, condition := range c.Conditions {
		held := l.between(condition.Key, append(bytes.Clone(condition.Key), 0))
		if (len(held) == 0) != (condition.GetModRevision() == 0) || len(held) > 0 && held[0].Revision != condition.GetModRevision() {
			r.FailedCondition, operations = uint32(i)+1, c.Otherwise
			break
		}
	}
	if r.FailedCondition > 0 && len(operations) == 0 {
		r.Code = messages.Code_CONFLICT
		l.done[name] = r
		return r
	}
	l.revision++
	r.Revision = l.revision
	for _, op := range operations {
		switch k := op.Kind.(type) {
		case *messages.Operation_Put:
			l.remove(k.Put.Key)
			l.rows = append(l.rows, &messages.Item{Key: k.Put.Key, Value: k.Put.Value, Revision: l.revision})
			slices.SortFunc(l.rows, func(a, b *messages.Item) int { return bytes.Compare(a.Key, b.Key) })
		case *messages.Operation_Delete:
			r.Deleted += l.remove(k.Delete.Key)
		case *messages.Operation_DeleteRange:
			for _, row := range l.between(k.DeleteRange.From, k.DeleteRange.To) {
				if r.More = r.Deleted == 3; r.More { // a fake is small: so are its steps
					break
				}
				r.Deleted += l.remove(row.Key)
			}
		case *messages.Operation_Compact:
			l.compacted = max(l.compacted, k.Compact.Revision)
		}
	}
	l.done[name] = r
	return r
}

func (l *log) remove(key []byte) uint64 {
	before := len(l.rows)
	l.rows = slices.DeleteFunc(slices.Clone(l.rows), func(i *messages.Item) bool { return bytes.Equal(i.Key, key) })
	return uint64(before - len(l.rows))
}

func (l *log) between(from, to []byte) []*messages.Item {
	var found []*messages.Item
	for _, row := range l.rows {
		if bytes.Compare(row.Key, from) >= 0 && (len(to) == 0 || bytes.Compare(row.Key, to) < 0) {
			found = append(found, row)
		}
	}
	return found
}

func (l *log) read(m *messages.Read) *messages.ReadReply {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = m
	r := &messages.ReadReply{Request: m.Request, Revision: l.revision}
	if m.Revision != 0 {
		r.Revision = m.Revision
	}
	if r.Revision < l.compacted {
		r.Code, r.Message = messages.Code_COMPACTED, fmt.Sprintf("revision %d is no longer kept, the oldest is %d", r.Revision, l.compacted)
		return r
	}
	switch k := m.Kind.(type) {
	case *messages.Read_Get:
		r.Items = l.between(k.Get.Key, append(bytes.Clone(k.Get.Key), 0))
	case *messages.Read_Scan:
		r.Items = l.between(k.Scan.From, k.Scan.To)
		if k.Scan.Reverse {
			slices.Reverse(r.Items)
		}
		if limit := int(k.Scan.Limit); limit > 0 && len(r.Items) > limit {
			r.Items, r.More = r.Items[:limit], true
		}
	case *messages.Read_Digest:
		rows := l.between(k.Digest.From, k.Digest.To)
		r.Digest = &messages.RangeDigest{Rows: min(uint64(len(rows)), uint64(k.Digest.Limit)), More: len(rows) > int(k.Digest.Limit)}
	}
	return r
}

// fakeNode is a gateway with its sessions.
type fakeNode struct {
	id         messages.RaftID
	endpoint   string
	waitingFor string
	mute       bool // takes writes and never answers
	system     *actor.ActorSystem
	log        *log
	next       int
	snapshots  fakeSnapshots
	cluster    fakeCluster
}

func (n *fakeNode) name() string { return fmt.Sprint("n", n.id) }

func (n *fakeNode) leader() *messages.Leader {
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	if l := n.log.leader; l != nil {
		return &messages.Leader{RaftId: l.id, Name: l.name(), Address: l.endpoint, Term: 1}
	}
	return nil
}

// Receive is the gateway's.
func (n *fakeNode) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.Attach:
		n.next++
		name := fmt.Sprint(messages.ActorSessionPrefix, n.next)
		_, err := n.system.Root.SpawnNamed(actor.PropsFromFunc(n.session), name)
		if err != nil {
			panic(err)
		}
		ctx.Respond(&messages.Attached{Request: m.Request, Session: name, LogTimeMs: 5, RequestsMax: 16, BytesMax: 1 << 20, Leader: n.leader()})
	case *messages.StatusRequest:
		ctx.Respond(&messages.StatusReply{Request: m.Request, Name: n.name(), RaftId: n.id, Leader: n.leader()})
	}
}

func (n *fakeNode) session(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.Write:
		switch {
		case n.mute:
		case n.leader() == nil:
			ctx.Respond(&messages.WriteReply{Request: m.Request, Code: messages.Code_NO_LEADER})
		default:
			ctx.Respond(n.log.write(m))
		}
	case *messages.Read:
		ctx.Respond(n.log.read(m))
	case *messages.Detach:
		ctx.Stop(ctx.Self())
	}
}

// fakes starts nodes at n1:1, n2:1 and so on, led by the first.
func fakes(t *testing.T, count int) (*memory, []*fakeNode) {
	t.Helper()
	n := &memory{nodes: map[string]*fakeNode{}}
	l := &log{done: map[string]*messages.WriteReply{}}
	var nodes []*fakeNode
	for i := range count {
		node := &fakeNode{id: uint64(i + 1), endpoint: fmt.Sprintf("n%d:1", i+1), log: l}
		node.start(t, n)
		n.nodes[node.endpoint] = node
		nodes = append(nodes, node)
	}
	l.leader = nodes[0]
	return n, nodes
}

func (n *fakeNode) start(t *testing.T, net *memory) {
	t.Helper()
	system, root := production.World(nil, nil).Runtime.NewSystem(messages.NodeAddress(n.id), slog.New(slog.DiscardHandler))
	n.system = system
	if net != nil {
		system.ProcessRegistry.RegisterAddressResolver(func(pid *actor.PID) (actor.Process, bool) {
			return hop{system, func() *actor.ActorSystem { return net.client(n, pid.Address) }}, true
		})
	}
	if _, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return n }), messages.ActorGateway); err != nil {
		t.Fatal(err)
	}
	n.snapshots.node = n.name()
	if _, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return &n.snapshots }), messages.ActorSnapshots); err != nil {
		t.Fatal(err)
	}
	if _, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return &n.cluster }), messages.ActorMembership); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(system.Shutdown)
}

func connected(t *testing.T, n seam.Network, o Options) *Client {
	t.Helper()
	o.Network = n
	if o.Endpoints == nil {
		o.Endpoints = []string{"n1:1", "n2:1", "n3:1"}
	}
	c, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// adrift is a client that has reached no node yet.
func adrift(t *testing.T, n seam.Network, o Options) *Client {
	t.Helper()
	o.Network = n
	c, err := connect(o, production.World(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestConnectReachesANode(t *testing.T) {
	n, nodes := fakes(t, 2)
	nodes[0].log.leader = nil // nobody needs to lead
	if c, err := Connect(t.Context(), Options{Network: n, Endpoints: []string{"n9:1", "n1:1"}}); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	nodes[1].waitingFor = "waiting to be added"
	for endpoint, row := range map[string]struct {
		code messages.Code
		says string
	}{
		"n9:1": {messages.Code_UNREACHABLE, "nothing listens at n9:1"},
		"n2:1": {messages.Code_STARTING, "does not serve yet: waiting to be added"},
	} {
		_, err := Connect(t.Context(), Options{Network: n, Endpoints: []string{endpoint}, Timeout: 50 * time.Millisecond})
		failed(t, err, row.code, row.says)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v hides that the time was up", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Connect(ctx, Options{Network: n, Endpoints: []string{"n9:1"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v hides that the caller gave up", err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		n.appear(&fakeNode{id: 2, endpoint: "late:1", log: nodes[1].log, system: nodes[1].system})
	}()
	if c, err := Connect(t.Context(), Options{Network: n, Endpoints: []string{"late:1"}}); err != nil {
		t.Errorf("a node came, and was not reached: %v", err)
	} else {
		c.Close()
	}
}

func mustPut(t *testing.T, c *Client, key, value string) PutResult {
	t.Helper()
	r, err := c.Put(t.Context(), []byte(key), []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// failed holds an error against a code and a text that people should see.
func failed(t *testing.T, err error, code messages.Code, says string) {
	t.Helper()
	if messages.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v %q, want %s and %q", messages.CodeOf(err), err, code, says)
	}
}

func TestPutGetDelete(t *testing.T) {
	n, _ := fakes(t, 3)
	c := connected(t, n, Options{})
	put := mustPut(t, c, "color", "red")
	if put.Revision != 1 || put.RequestID == "" {
		t.Fatalf("put: %+v", put)
	}
	got, err := c.Get(t.Context(), []byte("color"))
	if err != nil {
		t.Fatal(err)
	}
	if got.RequestID == "" || got.Endpoint == "" {
		t.Fatalf("get: %+v", got)
	}
	got.RequestID, got.Endpoint = "", ""
	if diff := cmp.Diff(GetResult{Key: []byte("color"), Value: []byte("red"), Revision: 1, ReadRevision: 1}, got); diff != "" {
		t.Fatal(diff)
	}
	for _, want := range []bool{true, false} {
		if d, err := c.Delete(t.Context(), []byte("color")); err != nil || d.Deleted != want {
			t.Fatalf("delete: %+v, %v", d, err)
		}
	}
	_, err = c.Get(t.Context(), []byte("color"))
	failed(t, err, messages.Code_NOT_FOUND, "no such key")
	var e *messages.Error
	if !errors.As(err, &e) || e.RequestID == "" || e.Endpoint == "" {
		t.Fatalf("the error lacks its place: %+v", e)
	}
}

func TestWriteOptionsReachTheNode(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
	asks := func(revision uint64) string {
		t.Helper()
		told := nodes[0].log.told
		if len(told.Conditions) != 1 || string(told.Conditions[0].Key) != "k" || told.Conditions[0].GetModRevision() != revision {
			t.Fatalf("the node is told %s", messages.Line(told))
		}
		return told.Conditions[0].Comparison.String()
	}
	if _, err := c.Put(t.Context(), []byte("k"), []byte("v"), IfAbsent()); err != nil || asks(0) != "EQUAL" {
		t.Fatal(err)
	}
	if _, err := c.Delete(t.Context(), []byte("k"), IfRevision(7)); !errors.Is(err, ErrConflict) || asks(7) != "EQUAL" {
		t.Fatal(err)
	}
}

func TestReadOptionsReachTheNode(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
	mustPut(t, c, "k", "v")
	if r, err := c.Get(t.Context(), []byte("k"), AtRevision(1), Stale()); err != nil || r.ReadRevision != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if m := nodes[0].log.asked; m.Revision != 1 || m.Consistency != messages.Consistency_STALE {
		t.Fatalf("the node is asked %s", messages.Line(m))
	}
	for _, err := range c.Scan(t.Context(), nil, nil, ScanOptions{Stale: true, KeysOnly: true, Revision: 1}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if m := nodes[0].log.asked; m.Revision != 1 || m.Consistency != messages.Consistency_STALE || !m.GetScan().KeysOnly {
		t.Fatalf("the node is asked %s", messages.Line(m))
	}
}

func TestBrokenScanEndsWithItsError(t *testing.T) {
	n, _ := fakes(t, 1)
	c := adrift(t, n, Options{Endpoints: []string{"n9:1"}, Timeout: 100 * time.Millisecond})
	rounds := 0
	for item, err := range c.Scan(t.Context(), nil, nil, ScanOptions{}) {
		rounds++
		failed(t, err, messages.Code_UNREACHABLE, "nothing listens")
		if item.Key != nil {
			t.Fatalf("%+v", item)
		}
	}
	if rounds != 1 {
		t.Fatalf("%d rounds", rounds)
	}
}

// noRandomness is a world in which no client can start.
type noRandomness struct{}

func (noRandomness) Read([]byte) (int, error) { return 0, errors.New("the well is dry") }

func TestFailedClientSaysWhy(t *testing.T) {
	world := production.World(nil, nil)
	world.Rand = noRandomness{}
	n, _ := fakes(t, 1)
	c, err := connect(Options{Endpoints: []string{"n1:1"}, Network: n}, world)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-c.desk.ended
	_, err = c.Put(t.Context(), []byte("k"), nil)
	failed(t, err, messages.Code_INTERNAL, "the well is dry; nothing was sent")
}

func TestScanReadsPagesAtOneRevision(t *testing.T) {
	n, _ := fakes(t, 1)
	c := connected(t, n, Options{})
	for _, key := range strings.Split("abcdefg", "") {
		mustPut(t, c, key, key)
	}
	for _, tt := range []struct {
		from, to string
		o        ScanOptions
		want     string
	}{
		{"", "", ScanOptions{PageSize: 2}, "abcdefg"},
		{"b", "f", ScanOptions{PageSize: 3}, "bcde"},
		{"b", "f", ScanOptions{PageSize: 3, Reverse: true}, "edcb"},
		{"", "", ScanOptions{PageSize: 3, Limit: 4}, "abcd"},
		{"", "", ScanOptions{Limit: 3}, "abc"},
		{"x", "", ScanOptions{}, ""},
	} {
		got := ""
		for item, err := range c.Scan(t.Context(), []byte(tt.from), []byte(tt.to), tt.o) {
			if err != nil {
				t.Fatal(err)
			}
			got += string(item.Key)
		}
		if got != tt.want {
			t.Errorf("[%s,%s) %+v: %q, want %q", tt.from, tt.to, tt.o, got, tt.want)
		}
	}
	revisions := map[uint64]bool{}
	for item, err := range c.Scan(t.Context(), nil, nil, ScanOptions{PageSize: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		revisions[item.ReadRevision] = true
		mustPut(t, c, "a", "again")
	}
	if len(revisions) != 1 {
		t.Fatalf("pages are read at %d revisions", len(revisions))
	}
}

func TestDeleteRangeGoesOnUntilNothingIsLeft(t *testing.T) {
	n, _ := fakes(t, 1)
	c := connected(t, n, Options{})
	for _, key := range strings.Split("abcdefghi", "") {
		mustPut(t, c, key, key)
	}
	r, err := c.DeleteRange(t.Context(), []byte("b"), nil)
	if err != nil || r.Deleted != 8 || r.Revision != 12 {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestManyCallersShareOneClient(t *testing.T) {
	n, nodes := fakes(t, 3)
	c := connected(t, n, Options{})
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			for j := range 8 {
				if _, err := c.Put(t.Context(), fmt.Appendf(nil, "%d-%d", i, j), []byte("v")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if l := nodes[0].log; l.revision != 64*8 || len(l.rows) != 64*8 {
		t.Fatalf("revision %d, %d rows", l.revision, len(l.rows))
	}
}

func TestLifeGoesOnWithoutADeadNode(t *testing.T) {
	n, nodes := fakes(t, 3)
	c := connected(t, n, Options{})
	mustPut(t, c, "k", "1")
	nodes[0].log.mu.Lock()
	nodes[0].log.leader = nodes[1]
	nodes[0].log.mu.Unlock()
	n.kill("n1:1")
	if r := mustPut(t, c, "k", "2"); r.Revision != 2 {
		t.Fatalf("revision %d", r.Revision)
	}
}

func TestStatusAsksOneNode(t *testing.T) {
	n, nodes := fakes(t, 3)
	nodes[1].log.leader = nil
	c := connected(t, n, Options{Endpoints: []string{"n2:1"}})
	s, endpoint, err := c.Status(t.Context())
	if err != nil || s.Name != "n2" || endpoint != "n2:1" {
		t.Fatalf("%v from %s, %v", s, endpoint, err)
	}
	gone := adrift(t, n, Options{Endpoints: []string{"n9:1"}, Timeout: 100 * time.Millisecond})
	_, _, err = gone.Status(t.Context())
	failed(t, err, messages.Code_UNREACHABLE, "nothing listens at n9:1")
}

func TestWhatCallersHearWhenNothingWorks(t *testing.T) {
	brief := 300 * time.Millisecond
	t.Run("nobody listens", func(t *testing.T) {
		n, _ := fakes(t, 1)
		c := adrift(t, n, Options{Endpoints: []string{"x:1", "y:1"}, Timeout: brief})
		_, err := c.Put(t.Context(), []byte("k"), nil)
		failed(t, err, messages.Code_UNREACHABLE, "nothing listens at x:1; nothing listens at y:1")
	})
	t.Run("a node waits", func(t *testing.T) {
		n, nodes := fakes(t, 1)
		nodes[0].waitingFor = "waiting to be added"
		c := adrift(t, n, Options{Endpoints: []string{"n1:1"}, Timeout: brief})
		_, err := c.Get(t.Context(), []byte("k"))
		failed(t, err, messages.Code_STARTING, "does not serve yet: waiting to be added")
	})
	t.Run("nobody leads", func(t *testing.T) {
		n, nodes := fakes(t, 1)
		nodes[0].log.leader = nil
		c := connected(t, n, Options{Endpoints: []string{"n1:1"}, Timeout: brief})
		_, err := c.Put(t.Context(), []byte("k"), nil)
		for try := 0; messages.CodeOf(err) == messages.Code_OUTCOME_UNKNOWN && try < 10; try++ {
			_, err = c.Put(t.Context(), []byte("k"), nil) // it was on its way once more at the deadline
		}
		failed(t, err, messages.Code_NO_LEADER, "no node leads")
	})
	t.Run("no answer to a write", func(t *testing.T) {
		n, nodes := fakes(t, 1)
		nodes[0].mute = true
		c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
		ctx, cancel := context.WithTimeout(t.Context(), brief)
		defer cancel()
		_, err := c.Put(ctx, []byte("k"), nil)
		failed(t, err, messages.Code_OUTCOME_UNKNOWN, "may or may not have happened")
		var e *messages.Error
		if !errors.As(err, &e) || e.Hint == "" || e.RequestID == "" || e.Endpoint != "n1:1" {
			t.Fatalf("%+v", e)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		n, nodes := fakes(t, 1)
		nodes[0].mute = true
		c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		_, err := c.Put(ctx, []byte("k"), nil)
		failed(t, err, messages.Code_OUTCOME_UNKNOWN, "given up")
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%v hides that the context was cancelled", err)
		}
		_, err = c.Put(ctx, []byte("k"), nil)
		failed(t, err, messages.Code_TIMED_OUT, "nothing was sent")
	})
}

// appear has a node listen where nothing did.
func (n *memory) appear(node *fakeNode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[node.endpoint] = node
}

// A caller owns its slices again when a call returns, however it returns: what it does
// with them then reaches no cluster.
func TestWhatIsGivenUpIsNotSentLater(t *testing.T) {
	for name, give := range map[string]func(t *testing.T) (context.Context, context.CancelFunc){
		"cancelled": func(t *testing.T) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		},
		"late": func(t *testing.T) (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 20*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, nodes := fakes(t, 1)
			n.kill("n1:1")
			c := adrift(t, n, Options{Endpoints: []string{"n1:1"}})
			key, value := []byte("mine"), []byte("mine")
			ctx, cancel := give(t)
			defer cancel()
			_, err := c.Put(ctx, key, value)
			if code := messages.CodeOf(err); code != messages.Code_TIMED_OUT && code != messages.Code_UNREACHABLE {
				t.Fatalf("%v %v: nothing was sent, so it surely did not happen", code, err)
			}
			copy(key, "xxxx")
			copy(value, "xxxx")
			n.appear(nodes[0])
			mustPut(t, c, "other", "v")
			for _, row := range nodes[0].log.rows {
				if string(row.Key) != "other" {
					t.Errorf("nobody put %q", row.Key)
				}
			}
		})
	}
}

// Whatever is known of a request, its error says whether the time was up or the caller
// gave up, in the words of package context.
func TestErrorsSayWhyTheWaitEnded(t *testing.T) {
	const brief = 30 * time.Millisecond
	for _, tt := range []struct {
		name  string
		ends  func(context.Context) (context.Context, context.CancelFunc)
		cause error
	}{
		{"Options.Timeout", context.WithCancel, context.DeadlineExceeded},
		{"the context's deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, brief)
		}, context.DeadlineExceeded},
		{"over before", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, -brief)
		}, context.DeadlineExceeded},
		{"cancelled", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(brief, cancel)
			return ctx, cancel
		}, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, nodes := fakes(t, 2)
			nodes[0].mute = true // it takes writes
			nodes[1].log = &log{}
			options := Options{Timeout: 10 * time.Second}
			if tt.name == "Options.Timeout" {
				options.Timeout = brief
			}
			taken, nobody := options, options
			taken.Endpoints, nobody.Endpoints = []string{"n1:1"}, []string{"n9:1"}
			clients := []*Client{adrift(t, n, taken), adrift(t, n, nobody)}
			calls := map[string]func(context.Context, *Client) error{
				"put":         func(ctx context.Context, c *Client) error { _, err := c.Put(ctx, []byte("k"), nil); return err },
				"compact":     func(ctx context.Context, c *Client) error { _, err := c.Compact(ctx, 1); return err },
				"deleteRange": func(ctx context.Context, c *Client) error { _, err := c.DeleteRange(ctx, nil, nil); return err },
			}
			nodes[0].log.revision = 1
			nodes[0].log.rows = []*messages.Item{{Key: []byte("k"), Revision: 1}}
			for name, call := range calls {
				for i, c := range clients {
					ctx, cancel := tt.ends(t.Context())
					err := call(ctx, c)
					cancel()
					var e *messages.Error
					if !errors.Is(err, tt.cause) || !errors.As(err, &e) {
						t.Errorf("%s, client %d: %v (%v) is not %v", name, i, err, messages.CodeOf(err), tt.cause)
					}
				}
			}
		})
	}
}

// still is a ticker that does not beat, as when the process stands still.
type still struct{}

func (still) Start(time.Duration, func()) func() { return func() {} }

func TestTimeoutIsWallTime(t *testing.T) {
	world := production.World(nil, nil)
	world.Ticker = still{}
	n, nodes := fakes(t, 1)
	nodes[0].mute = true
	c, err := connect(Options{Endpoints: []string{"n1:1"}, Network: n, Timeout: 500 * time.Millisecond}, world)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), []byte("k"), nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		failed(t, err, messages.Code_OUTCOME_UNKNOWN, "no answer within 500 ms")
	case <-time.After(5 * time.Second):
		t.Fatal("a timeout of 500 ms has not ended a call after 5 s")
	}
}

func TestWrongInputIsRefusedBeforeItIsSent(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
	_, err := c.Put(t.Context(), nil, nil)
	failed(t, err, messages.Code_INVALID, "the key is empty")
	_, err = c.Put(t.Context(), make([]byte, messages.KeySizeMax+1), nil)
	failed(t, err, messages.Code_INVALID, "16384 are allowed")
	_, err = c.Put(t.Context(), []byte("k"), make([]byte, messages.ValueSizeMax+1))
	failed(t, err, messages.Code_INVALID, "524288 are allowed")
	_, err = c.Get(t.Context(), nil)
	failed(t, err, messages.Code_INVALID, "the key is empty")
	if _, err = c.Put(t.Context(), make([]byte, messages.KeySizeMax), make([]byte, messages.ValueSizeMax)); err != nil {
		t.Fatal(err)
	}
	if nodes[0].log.revision != 1 {
		t.Fatalf("revision %d", nodes[0].log.revision)
	}
	for _, endpoints := range [][]string{nil, {"localhost"}, {"localhost:x"}, {"localhost:0"}, {":7001"}} {
		_, err := Connect(t.Context(), Options{Endpoints: endpoints, Network: n})
		failed(t, err, messages.Code_INVALID, "endpoint")
	}
}

func TestCloseEndsCallsUnderWay(t *testing.T) {
	n, nodes := fakes(t, 1)
	nodes[0].mute = true
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}})
	if _, err := c.Get(t.Context(), []byte("k")); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := c.Put(t.Context(), []byte("k"), nil)
		result <- err
	}()
	for !c.desk.waits() { // the actor takes the Put before it is stopped, or the desk ends the wait
		runtime.Gosched()
	}
	c.Close()
	err := <-result
	failed(t, err, messages.Code_OUTCOME_UNKNOWN, "closed")
	if !errors.Is(err, ErrClosed) {
		t.Errorf("%v hides that the client was closed", err)
	}
	c.Close()
	_, err = c.Put(t.Context(), []byte("k"), nil)
	failed(t, err, messages.Code_INVALID, "the client was closed; nothing was sent")
	if !errors.Is(err, ErrClosed) {
		t.Errorf("%v hides that the client was closed", err)
	}
}

func TestCloseEndsReadsUnderWay(t *testing.T) {
	n, _ := fakes(t, 1)
	c := adrift(t, n, Options{Endpoints: []string{"n9:1"}})
	result := make(chan error)
	go func() {
		_, err := c.Get(t.Context(), []byte("k"))
		result <- err
	}()
	for !c.desk.waits() {
		runtime.Gosched()
	}
	c.Close()
	err := <-result
	failed(t, err, messages.Code_INVALID, "closed")
	if !errors.Is(err, ErrClosed) {
		t.Errorf("%v hides that the client was closed", err)
	}
}

func (d *desk) waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting) > 0
}

// TestOverGRPC talks to a fake node over the network of production.
func TestOverGRPC(t *testing.T) {
	node := &fakeNode{id: 1, log: &log{done: map[string]*messages.WriteReply{}}}
	node.log.leader = node
	node.start(t, nil)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node.endpoint = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	hub, err := grpc.New(grpc.Options{}).Serve(node.system, node.endpoint, transport.Local{
		Role: messages.Role_NODE, ClusterID: make([]byte, messages.ClusterIDSize), RaftID: 1,
		Incarnation: make([]byte, messages.IncarnationSize), Name: "n1", Address: messages.NodeAddress(1), Version: "test",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := connected(t, nil, Options{Endpoints: []string{node.endpoint}, Timeout: 5 * time.Second})
	if r := mustPut(t, c, "k", "v"); r.Revision != 1 {
		t.Fatalf("revision %d", r.Revision)
	}
	if r, err := c.Get(t.Context(), []byte("k")); err != nil || string(r.Value) != "v" || r.Endpoint != node.endpoint {
		t.Fatalf("%+v, %v", r, err)
	}
	if s, _, err := c.Status(t.Context()); err != nil || s.Name != "n1" {
		t.Fatalf("%v, %v", s, err)
	}
	hub.Close()
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if _, _, err = c.Status(brief()); err == nil || !strings.Contains(err.Error(), "nothing listens at "+node.endpoint) {
		t.Fatal(err)
	}
	_, err = c.Put(brief(), []byte("k"), []byte("w"))
	failed(t, err, messages.Code_UNREACHABLE, "nothing listens at "+node.endpoint)
}
