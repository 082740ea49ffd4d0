package grpc

import (
	"context"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"keyval/actors/auth"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// The messages that cross links, and who may send them to a node, over TLS. A client's are told
// apart by roles where that is decided at the door.

// bearer is who comes to a node, by what he has in his hands.
type bearer string

const (
	keyless      bearer = "no certificate"
	foreign      bearer = "a foreign CA"
	expired      bearer = "an expired certificate"
	roleless     bearer = "a user without a role"
	viewer       bearer = "a viewer"
	writer       bearer = "a writer"
	operator     bearer = "an operator"
	admin        bearer = "an admin"
	joining      bearer = "a node that joins"
	aMember      bearer = "a member"
	aLearner     bearer = "a learner"
	removed      bearer = "a removed member"
	elsewhere    bearer = "a node of another cluster"
	pretender    bearer = "a client that says it is a member"
	masquerading bearer = "a member that says it is another"
	nobody       bearer = "nobody, the door being open"
	tokened      bearer = "a writer by a token"
	lateToken    bearer = "an expired token"
	removedToken bearer = "a token of a removed member"
	otherToken   bearer = "a token of another cluster"
	formerToken  bearer = "a token of a password that was changed"
)

var bearers = []bearer{keyless, foreign, expired, roleless, viewer, writer, operator, admin, joining, aMember, aLearner, removed, elsewhere, pretender, masquerading, nobody, tokened, lateToken, removedToken, otherToken, formerToken}

// allowed is who may send a node which message. Everybody else is refused, and everything
// that is not here.
var allowed = map[string][]bearer{
	// What a command or a read is about is held against roles where it is carried out.
	"Attach": users, "Detach": users, "Write": users, "Read": users,
	"StatusRequest": rolled, "SnapshotRequest": {operator, admin}, "JoinAsk": {joining},

	"ClusterRequest": {operator, admin}, "ClusterRequest query": rolled, "ClusterRequest auth_query": users, "ClusterRequest auth": users,
	"ClusterRequest begin": {operator, admin}, "ClusterRequest abort": {operator, admin}, "ClusterRequest transfer": {operator, admin},
	"ClusterRequest address": {operator, admin}, "ClusterRequest level_raise": {operator, admin},
	"ClusterRequest healing": {operator, admin}, "ClusterRequest backup": {operator, admin},
	"ClusterRequest invitation": {operator, admin}, "ClusterRequest invitation_query": {operator, admin},

	"Attached": {}, "WriteReply": {}, "ReadReply": {}, "StatusReply": {}, "SnapshotReply": {}, "ClusterReply": {}, "JoinAnswer": {}, // to clients

	"RaftMessage": nodes, "Propose": nodes, "ProposalRefused": nodes, "FounderState": nodes,
	"SnapshotOffer": nodes, "SnapshotPull": nodes, "SnapshotPiece": nodes, "SnapshotEnd": nodes,
	"AuditAsk": nodes, "AuditAnswer": nodes, "AuditVerdict": nodes, "AuditConfirmed": nodes, "NodePulse": nodes, "ClusterPulse": nodes,
	"LossAsk": nodes, "LossAnswer": nodes, "LevelAsk": nodes, "LevelAnswer": nodes,

	"LoginRequest": append([]bearer{nobody}, users...), "LoginReply": {},
	"InvitationAsk": append([]bearer{nobody}, users...), "InvitationAnswer": {}, // which proves himself by his token
}

var (
	nodes = []bearer{aMember, aLearner}
	users = []bearer{roleless, viewer, writer, operator, admin, tokened}
	// rolled are those who have any role.
	rolled = []bearer{viewer, writer, operator, admin, tokened}
)

// try is one kind of message: of those about the cluster, what is asked for too.
type try struct {
	name string
	kind *messages.Kind
	ask  protoreflect.FieldDescriptor // of a ClusterRequest; nil: nothing
}

// tries are all that cross links.
func tries() (all []try) {
	for number := range uint32(1 << 10) {
		k := messages.KindNumbered(number)
		if k == nil {
			continue
		}
		all = append(all, try{k.Name, k, nil})
		if k.Name != "ClusterRequest" {
			continue
		}
		asks := new(messages.ClusterRequest).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
		for i := range asks.Len() {
			all = append(all, try{k.Name + " " + string(asks.Get(i).Name()), k, asks.Get(i)})
		}
	}
	return all
}

// roles are what users have.
var roles = map[bearer]messages.UserRole{
	viewer: messages.UserRole_VIEWER, writer: messages.UserRole_WRITER, operator: messages.UserRole_OPERATOR, admin: messages.UserRole_ADMIN,
}

// matrix is a node with keys, and what the bearers come with.
type matrix struct {
	*station
	certificates map[bearer]tls.Certificate
	tokens       map[bearer]string
	who          *messages.Auth
	sign         func(version uint64, ttl time.Duration) string // a token of a writer, by node2
	stranger     *keys.Ring                                     // of a client without a certificate
}

func newMatrix(t *testing.T) *matrix { t.Helper(); return newMatrixWith(t, patience) } // on a busy machine a handshake takes its time

func newMatrixWith(t *testing.T, handshake time.Duration) *matrix {
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
	pretends, member := pair(issue(here, transport.UserKey, "pretender")), pair(issue(here, transport.NodeKey, "node2"))
	m := &matrix{certificates: map[bearer]tls.Certificate{
		foreign: pair(issue(other, transport.NodeKey, "node2")), expired: pair(issue(past, transport.NodeKey, "late")),
		pretender: pretends, aMember: member, masquerading: member, elsewhere: member,
		aLearner: pair(issue(here, transport.NodeKey, "node3")), removed: pair(issue(here, transport.NodeKey, "node4")), joining: pair(issue(here, transport.NodeKey, "node9")),
	}}
	who := &messages.Auth{Version: 1, Enabled: true}
	for _, user := range users {
		if user == tokened {
			continue
		}
		m.certificates[user] = pair(issue(here, transport.UserKey, nameOf(user)))
		if role, has := roles[user]; has {
			who.Users = append(who.Users, &messages.User{Name: nameOf(user), Grants: []*messages.Grant{{Role: role}}})
		}
	}
	slices.SortFunc(who.Users, func(a, b *messages.User) int { return strings.Compare(a.Name, b.Name) })
	m.who = who
	auth.Find(who, nameOf(writer)).Password = &messages.Password{Hash: []byte("?"), Version: 1}
	load := func(f keys.Files) *keys.Ring {
		r, err := keys.Load(f)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	gone := load(keys.FilesIn(here.Of(transport.Principal{Kind: transport.NodeKey, Name: "node4"}), transport.NodeKey))
	sign := func(by *keys.Ring, cluster []byte, version uint64, ttl time.Duration) string {
		token, _, err := by.Sign(nameOf(writer), cluster, version, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	second := load(keys.FilesIn(here.Of(transport.Principal{Kind: transport.NodeKey, Name: "node2"}), transport.NodeKey))
	m.sign = func(version uint64, ttl time.Duration) string { return sign(second, clusterA, version, ttl) }
	m.stranger = load(keys.Files{CA: keys.FilesIn(here.Of(own.Principal()), transport.NodeKey).CA})
	m.tokens = map[bearer]string{
		tokened: sign(own, clusterA, 1, time.Hour), lateToken: sign(own, clusterA, 1, -time.Minute), removedToken: sign(gone, clusterA, 1, time.Hour),
		otherToken: sign(own, clusterB, 1, time.Hour), formerToken: sign(own, clusterA, 2, time.Hour),
	}
	o := testOptions()
	o.Keys, o.HandshakeTimeout = own, handshake
	m.station = serveWith(t, nodeLocal(1), "127.0.0.1:0", o)
	m.hub.SetPeers([]*messages.Member{
		{RaftId: 1, Name: "node1", Incarnation: incarnation(1), Address: "127.0.0.1:1"}, {RaftId: 2, Name: "node2", Incarnation: incarnation(2), Address: "127.0.0.1:1"},
		{RaftId: 3, Name: "node3", Incarnation: incarnation(3), Address: "127.0.0.1:1", Type: messages.MemberType_LEARNER},
	}, 5)
	m.hub.SetAuth(who)
	return m
}

// nameOf is what a user is called.
func nameOf(user bearer) string { return strings.ReplaceAll(string(user), " ", "-") }

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
	local, to := clientLocal(byte(slices.Index(bearers, who))), messages.RaftID(0)
	local.Token = m.tokens[who]
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
func (t try) sent(from messages.RaftID) proto.Message {
	switch t.name {
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
	m, err := messages.Open(&messages.Envelope{Type: t.kind.Number})
	if err != nil {
		panic(err)
	}
	if t.ask != nil {
		m.ProtoReflect().Mutable(t.ask)
	}
	return m
}

// TestWhoMaySendWhat: every message that there is, from everybody that there is, to a node
// with keys, over TLS.
func TestWhoMaySendWhat(t *testing.T) {
	m := newMatrix(t)
	known := map[string]bool{}
	spawned := map[string]bool{}
	for _, is := range tries() {
		may, listed := allowed[is.name]
		if known[is.name] = true; !listed {
			t.Errorf("%s crosses links, and nobody has said who may send it to a node", is.name)
			continue
		}
		target := is.kind.Actor
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
			m.tries(t, is, target, who, slices.Contains(may, who))
		}
	}
	for name := range allowed {
		if !known[name] {
			t.Errorf("%s crosses no links", name)
		}
	}
}

// TestNobodyTakesAnothersAddress: a client's address is no proof of who it is. Sessions answer to an
// address, so while one user is connected under it, nobody else can be.
func TestNobodyTakesAnothersAddress(t *testing.T) {
	m := newMatrix(t)
	hello := &messages.Frame{Kind: &messages.Frame_Hello{Hello: transport.HelloTo(clientLocal(7), 0, messages.Lane_CONTROL)}}
	say := func(who bearer) *messages.Frame {
		t.Helper()
		own := m.certificates[who]
		config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }}
		client, err := grpc.NewClient("passthrough:///"+m.address(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		t.Cleanup(func() { cancel(); client.Close() })
		s, err := messages.NewLinkClient(client).Connect(ctx)
		if err == nil {
			err = s.Send(hello)
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := say(writer); f.GetWelcome() == nil {
		t.Fatal(f)
	}
	if f := say(admin); f.GetRefusal().GetCode() != messages.Code_CONFLICT {
		t.Errorf("another user is answered with %v", f)
	}
	if f := say(writer); f.GetWelcome() == nil {
		t.Errorf("the same is answered with %v", f)
	}
}

// TestSecurityHasTheMatrix holds the table in docs/SECURITY.md to the one that is tried here.
func TestSecurityHasTheMatrix(t *testing.T) {
	const file, begin, end = "../../../docs/SECURITY.md", "<!-- matrix: made by make docs -->\n", "<!-- end of matrix -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	written, after, ended := strings.Cut(rest, end)
	switch {
	case !ok || !ended:
		t.Fatalf("%s has no place for the matrix", file)
	case written == printed():
	case !*rewrite:
		t.Errorf("%s: the matrix is not the one that is tried: make docs", file)
	default:
		if err := os.WriteFile(file, []byte(before+begin+printed()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var rewrite = flag.Bool("rewrite", false, "write the matrix into docs/SECURITY.md (make docs)")

// printed is the matrix for people: messages that the same bearers may send share a row.
func printed() string {
	var b strings.Builder
	b.WriteString("| message |")
	for _, who := range bearers {
		b.WriteString(" " + string(who) + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(bearers)) + "\n")
	var rows []string
	names := map[string][]string{}
	for _, is := range tries() {
		row := ""
		for _, who := range bearers {
			row += map[bool]string{true: " ✓ |", false: " |"}[slices.Contains(allowed[is.name], who)]
		}
		if names[row] == nil {
			rows = append(rows, row)
		}
		names[row] = append(names[row], is.name)
	}
	for _, row := range rows {
		b.WriteString("| " + strings.Join(names[row], ", ") + " |" + row + "\n")
	}
	return b.String()
}

func (m *matrix) tries(t *testing.T, is try, target string, who bearer, may bool) {
	t.Helper()
	k := is.kind
	a, welcome := m.comes(t, who, messages.Lane_CONTROL)
	if a != nil {
		defer a.client.Close()
	}
	if !welcome {
		if may || slices.Contains(users, who) || who == nobody || who == joining || who == aMember || who == aLearner {
			t.Errorf("%s was not let in", who)
		}
		return
	}
	from := messages.RaftID(2)
	if who == aLearner {
		from = 3
	}
	e, err := messages.Seal(target, "asker", is.sent(from))
	if err != nil {
		t.Fatal(err)
	}
	a.say(parcel([]*messages.Envelope{e}))
	if may {
		if h := receive(t, m.inbox, k.Name); messages.KindOf(h.message) != k {
			t.Errorf("%s from %s came as %T", is.name, who, h.message)
		}
		return
	}
	// Who lacks a role is told so, and may go on; who sends what is not his to send is let go of.
	f, err := a.Recv()
	if lacks := slices.Contains(users, who) && k.From == messages.Role_CLIENT && k.Name != "JoinAsk"; err != nil || lacks == (f.GetRefusal() != nil) || lacks && !denies(f) {
		t.Errorf("%s from %s is answered with %v, %v", is.name, who, f, err)
	}
	select {
	case h := <-m.inbox:
		t.Errorf("%s from %s reached %s", k.Name, who, h.actor)
	default:
	}
}

// denies reports whether a frame answers that somebody was not allowed what he asked for.
func denies(f *messages.Frame) bool {
	for _, e := range f.GetParcel().GetEnvelopes() {
		m, err := messages.Open(e)
		if r, is := m.(interface{ GetCode() messages.Code }); err != nil || !is || r.GetCode() != messages.Code_NOT_ALLOWED {
			return false
		}
	}
	return len(f.GetParcel().GetEnvelopes()) == 1
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
	m.tries(t, try{name: "StatusRequest", kind: messages.KindNumbered(8)}, messages.ActorGateway, viewer, true)
	for range 50 {
		receive(t, slow, "end of a slow handshake")
	}
}
