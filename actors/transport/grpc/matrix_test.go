package grpc

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// bearer is who comes to a node, by what he has in his hands.
type bearer string

const (
	keyless      bearer = "no certificate"
	foreign      bearer = "a foreign CA"
	expired      bearer = "an expired certificate"
	aClient      bearer = "a client"
	joining      bearer = "a node that joins"
	aMember      bearer = "a member"
	aLearner     bearer = "a learner"
	removed      bearer = "a removed member"
	elsewhere    bearer = "a node of another cluster"
	pretender    bearer = "a client that says it is a member"
	masquerading bearer = "a member that says it is another"
)

var bearers = []bearer{keyless, foreign, expired, aClient, joining, aMember, aLearner, removed, elsewhere, pretender, masquerading}

// allowed is who may send a node which message. Everybody else is refused, and everything
// that is not here.
var allowed = map[string][]bearer{
	"Attach": {aClient}, "Detach": {aClient}, "Write": {aClient}, "Read": {aClient}, "StatusRequest": {aClient},
	"SnapshotRequest": {aClient}, "ClusterRequest": {aClient}, "JoinAsk": {joining},

	"Attached": {}, "WriteReply": {}, "ReadReply": {}, "StatusReply": {}, "SnapshotReply": {}, "ClusterReply": {}, "JoinAnswer": {}, // to clients

	"RaftMessage": nodes, "Propose": nodes, "ProposalRefused": nodes, "FounderState": nodes,
	"SnapshotOffer": nodes, "SnapshotPull": nodes, "SnapshotPiece": nodes, "SnapshotEnd": nodes,
	"AuditAsk": nodes, "AuditAnswer": nodes, "AuditVerdict": nodes, "AuditConfirmed": nodes, "NodePulse": nodes, "ClusterPulse": nodes,
	"LossAsk": nodes, "LossAnswer": nodes, "LevelAsk": nodes, "LevelAnswer": nodes,
}

var nodes = []bearer{aMember, aLearner}

// matrix is a node with keys, and what the bearers come with.
type matrix struct {
	*station
	certificates map[bearer]tls.Certificate
}

func newMatrix(t *testing.T) *matrix {
	t.Helper()
	here, other := keys.Authority{Dir: filepath.Join(t.TempDir(), "here")}, keys.Authority{Dir: filepath.Join(t.TempDir(), "other")}
	for _, a := range []keys.Authority{here, other} {
		if _, err := a.Create(); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(a keys.Authority, kind transport.PrincipalKind, name string) keys.Files {
		dir, _, err := a.Issue(transport.Principal{Kind: kind, Name: name}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return keys.FilesIn(dir, kind)
	}
	pair := func(f keys.Files) tls.Certificate {
		c, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	own, err := keys.Load(issue(here, transport.NodeKey, "node1"))
	if err != nil {
		t.Fatal(err)
	}
	past := keys.Authority{Dir: here.Dir, Now: func() time.Time { return time.Now().Add(-400 * 24 * time.Hour) }}
	user, member := pair(issue(here, transport.UserKey, "alice")), pair(issue(here, transport.NodeKey, "node2"))
	m := &matrix{certificates: map[bearer]tls.Certificate{
		foreign: pair(issue(other, transport.NodeKey, "node2")), expired: pair(issue(past, transport.NodeKey, "late")),
		aClient: user, pretender: user, aMember: member, masquerading: member, elsewhere: member,
		aLearner: pair(issue(here, transport.NodeKey, "node3")), removed: pair(issue(here, transport.NodeKey, "node4")), joining: pair(issue(here, transport.NodeKey, "node9")),
	}}
	o := testOptions()
	o.Keys = own
	m.station = serveWith(t, nodeLocal(1), "127.0.0.1:0", o)
	m.hub.SetPeers([]*messages.Member{
		{RaftId: 1, Name: "node1", Incarnation: incarnation(1), Address: "127.0.0.1:1"}, {RaftId: 2, Name: "node2", Incarnation: incarnation(2), Address: "127.0.0.1:1"},
		{RaftId: 3, Name: "node3", Incarnation: incarnation(3), Address: "127.0.0.1:1", Type: messages.MemberType_LEARNER},
	}, 5)
	return m
}

// comes is a bearer's connection, after his hello. false: it was refused before there
// was anything to send.
func (m *matrix) comes(t *testing.T, who bearer, lane messages.Lane) (*attacker, bool) {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c := m.certificates[who] // of no one: an empty one, which is none
		return &c, nil
	}}
	client, err := grpc.NewClient("passthrough:///"+m.address(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); client.Close() })
	s, err := messages.NewLinkClient(client).Connect(ctx)
	if err != nil {
		return nil, false
	}
	local, to := clientLocal(1), messages.RaftID(0)
	switch who {
	case aMember, foreign, expired, pretender, keyless:
		local, to = nodeLocal(2), 1
	case aLearner, masquerading:
		local, to = nodeLocal(3), 1
	case removed:
		local, to = nodeLocal(4), 1
	case elsewhere:
		local, to = nodeLocal(2), 1
		local.ClusterID = clusterB
	}
	a := &attacker{t, client, s}
	a.say(&messages.Frame{Kind: &messages.Frame_Hello{Hello: transport.HelloTo(local, to, lane)}})
	f, err := a.Recv()
	return a, err == nil && f.GetWelcome() != nil
}

// sent is a message of a kind as that node or client would send it.
func sent(k *messages.Kind, from messages.RaftID) proto.Message {
	switch k.Name {
	case "RaftMessage":
		return raftMessage(raftpb.MsgHeartbeat, from, 1, 1)
	case "Propose":
		return &messages.Propose{Origin: from}
	case "FounderState":
		return &messages.FounderState{RaftId: from}
	case "SnapshotOffer":
		offer := offered()
		offer.Message.From, offer.Message.To = &from, new(uint64(1))
		return offer
	case "SnapshotPiece":
		return &messages.SnapshotPiece{Chunk: &messages.SnapshotChunk{}}
	case "JoinAsk":
		return &messages.JoinAsk{Node: &messages.WaitingNode{Name: "node9"}}
	}
	m, err := messages.Open(&messages.Envelope{Type: k.Number})
	if err != nil {
		panic(err)
	}
	return m
}

// TestWhoMaySendWhat: every message that there is, from everybody that there is, to a node
// with keys, over TLS.
func TestWhoMaySendWhat(t *testing.T) {
	m := newMatrix(t)
	known := map[string]bool{}
	spawned := map[string]bool{}
	for number := uint32(0); number < 1<<10; number++ {
		k := messages.KindNumbered(number)
		if k == nil {
			continue
		}
		may, listed := allowed[k.Name]
		if known[k.Name] = true; !listed {
			t.Errorf("%s crosses links, and nobody has said who may send it to a node", k.Name)
			continue
		}
		target := k.Actor
		if target == "" {
			target = messages.ActorGateway
		} else if target[len(target)-1] == '-' {
			target += "1"
		}
		if !spawned[target] {
			spawned[target] = true
			m.spawn(target, nil)
		}
		for _, who := range bearers {
			m.tries(t, k, target, who, slices.Contains(may, who))
		}
	}
	for name := range allowed {
		if !known[name] {
			t.Errorf("%s crosses no links", name)
		}
	}
}

func (m *matrix) tries(t *testing.T, k *messages.Kind, target string, who bearer, may bool) {
	t.Helper()
	a, welcome := m.comes(t, who, messages.Lane_CONTROL)
	if a != nil {
		defer a.client.Close()
	}
	if !welcome {
		if may || who == aClient || who == joining || who == aMember || who == aLearner {
			t.Errorf("%s was not let in", who)
		}
		return
	}
	from := messages.RaftID(2)
	if who == aLearner {
		from = 3
	}
	e, err := messages.Seal(target, "asker", sent(k, from))
	if err != nil {
		t.Fatal(err)
	}
	a.say(parcel([]*messages.Envelope{e}))
	if may {
		if h := receive(t, m.inbox, k.Name); messages.KindOf(h.message) != k {
			t.Errorf("%s from %s came as %T", k.Name, who, h.message)
		}
		return
	}
	if f, err := a.Recv(); err != nil || f.GetRefusal() == nil {
		t.Errorf("%s from %s is answered with %v, %v", k.Name, who, f, err)
	}
	select {
	case h := <-m.inbox:
		t.Errorf("%s from %s reached %s", k.Name, who, h.actor)
	default:
	}
}

// TestTLSDoesNotWait: whoever connects and does not shake hands is let go of, however slowly
// he speaks, and those who do are served meanwhile.
func TestTLSDoesNotWait(t *testing.T) {
	m := newMatrix(t)
	m.spawn(messages.ActorGateway, nil)
	slow := make(chan struct{})
	for range 50 {
		conn, err := net.Dial("tcp", m.address())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer func() { slow <- struct{}{} }()
			defer conn.Close()
			for _, b := range []byte{22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3} { // a ClientHello, a byte at a time
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			for { // it was not ended for what came; it is for the time that it took
				if _, err := conn.Read(make([]byte, 64)); err != nil {
					return
				}
			}
		}()
	}
	m.tries(t, messages.KindNumbered(8), messages.ActorGateway, aClient, true)
	for range 50 {
		receive(t, slow, "end of a slow handshake")
	}
}
