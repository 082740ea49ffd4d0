package main

import (
	"bytes"
	"context"
	bigendian "encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// hijacked is a key that only writes in another's name would write.
const hijacked = "hijacked"

// intruder is one connection of an attacker, which puts on the wire what it likes.
type intruder struct {
	siege   *siege
	client  *grpc.ClientConn
	stream  grpc.ClientStream
	cancel  context.CancelFunc
	address string // logical, once it said hello as a client
	session string // once it is attached
	id      []byte // its ClientID

	logTimeMS uint64 // when it was attached
}

// patiently dials until the node answers: strangers crowd out each other.
func (s *siege) patiently() (in *intruder, err error) {
	for range 20 {
		if in, err = s.dial(s.address); err == nil || s.ctx.Err() != nil {
			return in, err
		}
	}
	return nil, err
}

// asIs is a codec that takes bytes for a message.
type asIs struct{}

func (asIs) Name() string                  { return "proto" }
func (asIs) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (asIs) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = b
	return nil
}

func (s *siege) dial(address string) (*intruder, error) {
	s.connections.Add(1)
	secured := insecure.NewCredentials()
	if s.keys != nil {
		secured = credentials.NewTLS(s.keys)
	}
	client, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secured),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(asIs{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	in := &intruder{siege: s, client: client, cancel: cancel}
	in.stream, err = client.NewStream(ctx, &messages.Link_ServiceDesc.Streams[0], messages.Link_Connect_FullMethodName)
	if err != nil {
		in.hang()
		return nil, err
	}
	return in, nil
}

func (in *intruder) hang() {
	in.cancel()
	in.client.Close()
}

func (in *intruder) send(frame []byte) error { return in.stream.SendMsg(&frame) }

func (in *intruder) receive() (*messages.Frame, error) {
	var b []byte
	if err := in.stream.RecvMsg(&b); err != nil {
		return nil, err
	}
	f := &messages.Frame{}
	return f, proto.Unmarshal(b, f)
}

// drain reads replies until the stream ends.
func (in *intruder) drain() {
	for {
		var b []byte
		if in.stream.RecvMsg(&b) != nil {
			return
		}
	}
}

func (in *intruder) hello(h *messages.Hello) (*messages.Welcome, error) {
	in.address = h.Address
	if err := in.send(packed(&messages.Frame{Kind: &messages.Frame_Hello{Hello: h}})); err != nil && err != io.EOF {
		return nil, err
	}
	f, err := in.receive()
	if err != nil {
		return nil, err
	}
	if f.GetWelcome() == nil {
		return nil, fmt.Errorf("refused: %s", f.GetRefusal().GetMessage())
	}
	return f.GetWelcome(), nil
}

// attach gets a session, which is the first that is answered.
func (in *intruder) attach(id []byte) error {
	in.id = id
	if err := in.send(parcel(to(messages.ActorGateway, &messages.Attach{Client: id}))); err != nil {
		return err
	}
	m, err := in.answer(func(m proto.Message) bool { _, is := m.(*messages.Attached); return is })
	if err != nil {
		return err
	}
	a := m.(*messages.Attached)
	if a.Code != messages.Code_OK {
		return messages.Errorf(a.Code, "%s", a.Message)
	}
	in.session, in.logTimeMS = a.Session, a.LogTimeMs
	return nil
}

// ask sends a command of a session, and returns its outcome.
func (in *intruder) ask(c *messages.Command) (messages.Code, error) {
	if err := in.send(parcel(to(in.session, &messages.Write{Request: c.Seq, Command: packed(c)}))); err != nil {
		return 0, err
	}
	m, err := in.answer(func(m proto.Message) bool { r, is := m.(*messages.WriteReply); return is && r.Request == c.Seq })
	if err != nil {
		return 0, err
	}
	return m.(*messages.WriteReply).Code, nil
}

// answer is the first message that is wanted.
func (in *intruder) answer(wanted func(proto.Message) bool) (proto.Message, error) {
	for {
		f, err := in.receive()
		if err != nil {
			return nil, err
		}
		for _, e := range f.GetParcel().GetEnvelopes() {
			if m, err := messages.Open(e); err == nil && wanted(m) {
				return m, nil
			}
		}
	}
}

// client is a connection of a client that did nothing wrong yet.
func (s *siege) client(r *rand.Rand) (*intruder, error) {
	in, err := s.dial(s.address)
	if err != nil {
		return nil, err
	}
	if _, err = in.hello(clientHello(r)); err == nil {
		err = in.attach(noise(r, messages.ClientIDSize))
	}
	if err != nil {
		in.hang()
		return nil, err
	}
	s.sessions.Add(1)
	return in, nil
}

func clientHello(r *rand.Rand) *messages.Hello {
	return &messages.Hello{Protocol: messages.ProtocolVersion, Role: messages.Role_CLIENT, Address: messages.ClientAddress(noise(r, 16)), Version: "hostile"}
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func packed(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func to(target string, m proto.Message) *messages.Envelope {
	e, err := messages.Seal(target, "me", m)
	if err != nil {
		panic(err)
	}
	return e
}

func parcel(envelopes ...*messages.Envelope) []byte {
	return packed(&messages.Frame{Kind: &messages.Frame_Parcel{Parcel: &messages.Parcel{Envelopes: envelopes}}})
}

// idlers are clients that say hello and nothing more.
func (s *siege) idlers(n int) (idle []*intruder) {
	var mu sync.Mutex
	var dialling sync.WaitGroup
	for i := range 8 {
		dialling.Go(func() {
			r := random(1000 + uint64(i))
			for range n / 8 {
				in, err := s.dial(s.address)
				if err == nil {
					_, err = in.hello(clientHello(r))
				}
				if err != nil {
					s.t.Errorf("an idle client: %v", err)
					return
				}
				mu.Lock()
				idle = append(idle, in)
				mu.Unlock()
			}
		})
	}
	dialling.Wait()
	return idle
}

func (s *siege) leave(idle []*intruder) {
	for _, in := range idle {
		in.hang()
	}
	s.cancel()
	s.running.Wait()
}

// frozen clients ask for all they can and read nothing, again and again.
func (s *siege) frozen(ctx context.Context, r *rand.Rand) {
	large := parcel(to(messages.ActorGateway, &messages.StatusRequest{Request: 1}))
	for ctx.Err() == nil {
		in, err := s.client(r)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, in.hang)
		scan := &messages.Read{Consistency: messages.Consistency_STALE, Kind: &messages.Read_Scan{Scan: &messages.Scan{Limit: math.MaxUint32}}}
		for n := uint64(0); n < 20_000; n++ {
			scan.Request = n
			frame := large
			if n%2 == 0 {
				frame = parcel(to(in.session, scan))
			}
			if in.send(frame) != nil {
				break
			}
		}
		stop()
		in.hang()
	}
}

// askOnly floods the gateway with what every node answers, and reads the answers.
func (s *siege) askOnly(ctx context.Context, r *rand.Rand) {
	var many []*messages.Envelope
	for range 1000 {
		many = append(many, to(messages.ActorGateway, &messages.StatusRequest{Request: 1}))
	}
	frame := parcel(many...)
	for ctx.Err() == nil {
		in, err := s.client(r)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, in.hang)
		go in.drain()
		for in.send(frame) == nil {
		}
		stop()
		in.hang()
	}
}

// churn connects and leaves, at different moments of a connection's life.
func (s *siege) churn(ctx context.Context, r *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		in, err := s.dial(s.address)
		if err != nil {
			continue
		}
		if n%3 > 0 {
			_, err = in.hello(clientHello(r))
		}
		if err == nil && n%3 > 1 {
			_ = in.send(parcel(to(messages.ActorGateway, &messages.Attach{Client: noise(r, 16)})))
		}
		in.hang()
	}
}

// attachMany attaches thousands of clients over one connection after another, and
// leaves a large write with each.
func (s *siege) attachMany(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		in, err := s.client(r)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, in.hang)
		go in.drain()
		for range 20_000 {
			if in.send(parcel(to(messages.ActorGateway, &messages.Attach{Client: noise(r, 16)}))) != nil {
				break
			}
			s.sessions.Add(1)
		}
		stop()
		in.hang()
	}
}

// drip holds connections open with a byte now and then.
func (s *siege) drip(ctx context.Context) {
	words := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00", 1000)
	conns := make([]net.Conn, 256)
	for at := 0; ctx.Err() == nil; at = (at + 1) % len(words) {
		for i := range conns {
			if conns[i] != nil {
				if _, err := io.WriteString(conns[i], words[at:at+1]); err == nil {
					continue
				}
				conns[i].Close()
			}
			at = 0
			conns[i], _ = net.Dial("tcp", s.address)
			s.lorises.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// http2 is a frame of HTTP/2.
func http2(kind, flags byte, stream uint32, payload string) string {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(bigendian.BigEndian.AppendUint32(b, stream)) + payload
}

// bareSockets says what is no gRPC at all, or misuses what lies below it.
func (s *siege) bareSockets(ctx context.Context, r *rand.Rand) {
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2(4, 0, 0, "")
	var reset strings.Builder
	for stream := uint32(1); stream < 2000; stream += 2 {
		reset.WriteString(http2(1, 4, stream, "\x83\x86") + http2(3, 0, stream, "\x00\x00\x00\x08"))
	}
	for n := 0; ctx.Err() == nil; n++ {
		words := []string{
			string(noise(r, 1+r.IntN(4096))),
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /keyval.v1.Link/Connect HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + string(noise(r, 100)),
			"\x16\x03\x01\x02\x00\x01\x00" + string(noise(r, 512)),
			"SSH-2.0-OpenSSH_9.2\r\n",
			preface + string(noise(r, 1+r.IntN(4096))),
			preface + strings.Repeat(http2(6, 0, 0, "12345678"), 2000),                         // pings
			preface + strings.Repeat(http2(4, 0, 0, "\x00\x04\x7f\xff\xff\xff"), 2000),         // settings
			preface + reset.String(),                                                           // streams that end at once
			preface + http2(1, 0, 1, "\x83") + strings.Repeat(http2(9, 0, 1, "\x00aab"), 2000), // headers that go on
			preface + http2(0, 0, 1, string(noise(r, 16000))),                                  // data of no stream
			preface + strings.Repeat(http2(8, 0, 0, "\x7f\xff\xff\xff"), 3),                    // windows that overflow
			preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",                                   // a frame of 16 MiB
		}[n%13]
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.WriteString(conn, words)
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
		conn.Close()
		s.garbage.Add(1)
	}
}

// atRandom sends frames until there were so many. Most are such that the guard
// lets them pass, so that there is an actor behind them that has to bear them; one
// that it refuses ends a connection's life.
func (s *siege) atRandom(ctx context.Context, r *rand.Rand, frames int64) {
	for sent := int64(0); sent < frames && ctx.Err() == nil; {
		in, err := s.client(r)
		if err != nil {
			continue
		}
		go in.drain()
		for range 1 + r.IntN(200) {
			if in.send(in.passable(r)) != nil {
				break
			}
			sent++
			s.frames.Add(1)
		}
		if in.send(in.impassable(r)) == nil {
			sent++
			s.frames.Add(1)
		}
		select {
		case <-in.stream.Context().Done(): // drain has met the end
		case <-time.After(50 * time.Millisecond): // it passed after all
		}
		in.hang()
	}
}

// passable is a random frame of up to four envelopes that a client may send.
func (in *intruder) passable(r *rand.Rand) []byte {
	var envelopes []*messages.Envelope
	for range 1 + r.IntN(4) {
		var e *messages.Envelope
		session := in.session
		if r.IntN(8) == 0 {
			session = fmt.Sprintf("%s%d", messages.ActorSessionPrefix, r.IntN(1000))
		}
		switch r.IntN(8) {
		case 0:
			e = to(messages.ActorGateway, &messages.Attach{Client: noise(r, r.IntN(20))})
		case 1:
			e = to(messages.ActorGateway, &messages.StatusRequest{Request: r.Uint64()})
		case 2, 3:
			e = to(session, in.read(r))
		default:
			e = to(session, in.write(r))
		}
		switch r.IntN(16) {
		case 0:
			e.Sender = ""
		case 1:
			e.Sender = "node/raft"
		case 2:
			e.Sender = strings.Repeat("x", 128)
		}
		envelopes = append(envelopes, e)
	}
	return parcel(envelopes...)
}

func (in *intruder) write(r *rand.Rand) *messages.Write {
	c := &messages.Command{Session: in.id, Seq: 1 + r.Uint64N(1500), Open: &messages.OpenSession{TtlMs: 1000 * r.Uint64N(5), BeforeMs: r.Uint64N(1 << 20)}}
	c.AckedBelow = r.Uint64N(c.Seq + 2)
	for range r.IntN(4) {
		key, value := noise(r, r.IntN(20)), noise(r, r.IntN(200))
		c.Operations = append(c.Operations, []*messages.Operation{
			{Kind: &messages.Operation_Put{Put: &messages.Put{Key: append([]byte("hostile/"), key...), Value: value}}},
			{Kind: &messages.Operation_Put{Put: &messages.Put{Key: key[:len(key)/16], Value: value}}},
			{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: append([]byte("hostile/"), key...)}}},
			{Kind: &messages.Operation_DeleteRange{DeleteRange: &messages.DeleteRange{From: []byte("hostile/"), To: []byte("hostile0"), Limit: r.Uint32()}}},
			{},
		}[r.IntN(5)])
	}
	w := &messages.Write{Request: c.Seq}
	switch r.IntN(12) {
	case 0:
		c.Session = noise(r, r.IntN(20))
	case 1:
		w.Request = r.Uint64()
	case 2:
		c.Seq, c.AckedBelow, w.Request = math.MaxUint64, 0, math.MaxUint64
	case 3:
		if r.IntN(100) == 0 { // all of it stays in the log
			c.Operations = []*messages.Operation{{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte("hostile/large"), Value: make([]byte, r.IntN(messages.ValueSizeMax+100))}}}}
		}
	case 4:
		c.Open = nil
	}
	w.Command = packed(c)
	if r.IntN(4) == 0 && len(w.Command) > 0 {
		w.Command[r.IntN(len(w.Command))] ^= byte(1 + r.IntN(255))
	}
	return w
}

func (in *intruder) read(r *rand.Rand) *messages.Read {
	m := &messages.Read{Request: r.Uint64N(2000), Consistency: messages.Consistency(r.IntN(3)), Revision: r.Uint64() >> r.IntN(64)}
	if r.IntN(2) == 0 {
		m.Revision = 0
	}
	switch r.IntN(5) {
	case 0:
	case 1, 2:
		m.Kind = &messages.Read_Get{Get: &messages.Get{Key: noise(r, r.IntN(20))}}
	default:
		m.Kind = &messages.Read_Scan{Scan: &messages.Scan{From: noise(r, r.IntN(20)), To: noise(r, r.IntN(20)), Limit: r.Uint32() >> r.IntN(32), Reverse: r.IntN(2) == 0, KeysOnly: r.IntN(2) == 0}}
	}
	return m
}

// impassable is a random frame that ends a client's connection, almost always.
func (in *intruder) impassable(r *rand.Rand) []byte {
	switch r.IntN(4) {
	case 0:
		return noise(r, r.IntN(300))
	case 1:
		b := in.passable(r)
		for range 1 + r.IntN(8) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		return b
	case 2:
		b := in.passable(r)
		return b[:r.IntN(len(b))]
	}
	targets := []string{"node", messages.ActorRaft, messages.ActorLog, messages.ActorMachine, messages.ActorTicker, messages.ActorFounding, "eventstream", "deadletter", "", "$1", messages.ActorGateway, in.session}
	return parcel(&messages.Envelope{Type: r.Uint32N(40), Target: targets[r.IntN(len(targets))], Sender: "me", Body: noise(r, r.IntN(100))})
}

// barred are the hellos of attacks: with a user's keys nobody is a node, whatever he knows.
func barred(list []crafted) (hellos []crafted) {
	for _, a := range list {
		hellos = append(hellos, crafted{name: a.name + ", with a user's keys", hello: a.hello, ends: true})
	}
	return hellos
}

// crafted is an attack that somebody thought of.
type crafted struct {
	name   string
	hello  *messages.Hello // nil: it says none
	frames [][]byte
	ends   bool // the connection does not outlive it
}

// craft carries out every crafted attack, and all of them again until there were
// so many frames.
func (s *siege) craft(frames int64) {
	for round := uint64(0); round == 0 || s.crafted.Load() < frames; round++ {
		r := random(5000 + round)
		asNode := s.asNode(r)
		if s.keys != nil {
			asNode = barred(asNode)
		}
		for _, a := range append(s.asClient(r), asNode...) {
			s.carryOut(a, 0)
		}
		for _, h := range s.hellos(r) {
			s.carryOut(crafted{name: "a hello: " + messages.Line(h), hello: h, ends: true}, 0)
		}
		s.hijack(r)
		s.otherCalls()
		if s.ctx.Err() != nil {
			return
		}
	}
}

// carryOut sends an attack's frames and sees whether the connection ends.
func (s *siege) carryOut(a crafted, tries int) {
	in, err := s.patiently()
	if err != nil {
		if s.ctx.Err() == nil {
			s.t.Errorf("%s: %v", a.name, err)
		}
		return
	}
	defer in.hang()
	defer context.AfterFunc(s.ctx, in.cancel)()
	timer := time.AfterFunc(20*time.Second, in.cancel)
	defer timer.Stop()
	began := time.Now()
	if a.hello != nil {
		s.crafted.Add(1)
		_, err := in.hello(a.hello)
		switch {
		case s.ctx.Err() != nil:
			return
		case len(a.frames) > 0 && status.Code(err) == codes.Unavailable && tries < 20:
			in.hang()
			s.carryOut(a, tries+1) // of so many strangers at the door it was the oldest
			return
		case len(a.frames) == 0 && err == nil:
			s.t.Errorf("%s: it is welcomed", a.name)
			return
		case len(a.frames) > 0 && err != nil:
			s.t.Errorf("%s: %v", a.name, err)
			return
		}
	}
	for _, frame := range a.frames {
		s.crafted.Add(1)
		if in.send(frame) != nil {
			break
		}
	}
	if !a.ends {
		if a.hello.GetRole() != messages.Role_CLIENT {
			return
		}
		_ = in.send(parcel(to(messages.ActorGateway, &messages.StatusRequest{Request: 4711})))
	}
	said := time.Since(began)
	for n := 0; ; n++ {
		f, err := in.receive()
		switch {
		case err != nil && (!a.ends || status.Code(err) == codes.Canceled) && s.ctx.Err() == nil:
			s.t.Errorf("%s: the stream ended with %v, wanted %v; all was said after %v, %d frames came until %v", a.name, err, a.ends, said, n, time.Since(began))
			return
		case err != nil:
			return
		case !a.ends && answers(f, 4711):
			return // it stands
		}
	}
}

// answers reports whether a frame answers a status request.
func answers(f *messages.Frame, request uint64) bool {
	for _, e := range f.GetParcel().GetEnvelopes() {
		if m, err := messages.Open(e); err == nil {
			if r, ok := m.(*messages.StatusReply); ok && r.Request == request {
				return true
			}
		}
	}
	return false
}

// asClient are attacks by one that is welcome as a client.
func (s *siege) asClient(r *rand.Rand) (list []crafted) {
	add := func(name string, ends bool, frames ...[]byte) {
		list = append(list, crafted{name, clientHello(r), frames, ends})
	}
	raft := &messages.RaftMessage{Message: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(s.peers[0].id), To: new(s.node), Term: new(uint64(99))}}
	attach := &messages.Attach{Client: noise(r, 16)}
	session := messages.ActorSessionPrefix + "1"
	envelope := func(e *messages.Envelope) []byte { return parcel(e) }

	for _, number := range []uint32{0, 2, 5, 7, 9, 10, 31, 36, 4711, math.MaxUint32} {
		add(fmt.Sprintf("type %d", number), true, envelope(&messages.Envelope{Type: number, Target: messages.ActorGateway, Sender: "me"}))
	}
	for _, target := range []string{"node", "node/raft", "node/log", "node/machine", "node/machine/reader-0", "node/membership", "node/ticker", "node/transport",
		"node/founding", "eventstream", "deadletter", "guardian", "$1", "", "node/gateway/", session, "node/2/node/gateway", "\x00", strings.Repeat("x", 129), "nöde"} {
		add("attach at "+target, true, envelope(&messages.Envelope{Type: 1, Target: target, Sender: "me", Body: packed(attach)}))
	}
	add("Raft's word", true, envelope(to(messages.ActorRaft, raft)))
	add("a proposal", true, envelope(to(messages.ActorRaft, &messages.Propose{Origin: s.node, Command: []byte("x")})))
	add("a refusal of another's proposal", true, envelope(to(session, &messages.ProposalRefused{Seq: 1, Code: messages.Code_REDIRECT, Term: math.MaxUint64})))
	add("a founder's state", true, envelope(to(messages.ActorFounding, &messages.FounderState{RaftId: s.peers[0].id, ClusterId: s.cluster})))
	add("a write to the gateway", true, envelope(to(messages.ActorGateway, &messages.Write{})))
	add("an answer to a session", true, envelope(to(session, &messages.ReadReply{Request: 1})))
	add("a second hello", true, packed(&messages.Frame{Kind: &messages.Frame_Hello{Hello: clientHello(r)}}))
	add("a hello as a node", true, packed(&messages.Frame{Kind: &messages.Frame_Hello{Hello: s.nodeHello(s.peers[0], 0)}}))
	add("a welcome", true, packed(&messages.Frame{Kind: &messages.Frame_Welcome{Welcome: &messages.Welcome{RaftId: 1}}}))
	add("a refusal", true, packed(&messages.Frame{Kind: &messages.Frame_Refusal{Refusal: &messages.Refusal{Code: messages.Code_DAMAGED, Message: "\x1b[2J"}}}))
	add("an empty frame", true, []byte{})
	add("a frame of 9 MiB", true, envelope(&messages.Envelope{Type: 4, Target: session, Body: make([]byte, 9<<20)}))
	add("an envelope of 2 MiB", true, envelope(&messages.Envelope{Type: 4, Target: session, Body: make([]byte, 2<<20)}))
	add("an attach of 1 MiB", true, envelope(&messages.Envelope{Type: 1, Target: messages.ActorGateway, Body: make([]byte, 1<<20)}))
	add("a name of 1 MiB", true, envelope(&messages.Envelope{Type: 1, Target: strings.Repeat("x", 1<<20)}))
	add("many envelopes", true, append(protowire.AppendTag(nil, 4, protowire.BytesType), protowire.AppendBytes(nil, bytes.Repeat([]byte{0x0a, 0}, 1<<20))...))
	add("as many empty envelopes as may be", true, append(protowire.AppendTag(nil, 4, protowire.BytesType), protowire.AppendBytes(nil, bytes.Repeat([]byte{0x0a, 0}, 4096))...))
	add("groups in groups", true, bytes.Repeat([]byte{0x0b}, 1<<20))
	add("a body of groups", true, envelope(&messages.Envelope{Type: 1, Target: messages.ActorGateway, Body: bytes.Repeat([]byte{0x0b}, 4000)}))
	add("a length beyond the end", true, []byte{0x22, 0xff, 0xff, 0xff, 0xff, 0x0f})
	add("a length that overflows", true, []byte{0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	add("field number 0", true, []byte{0x02, 0x01, 0x00})
	add("control codes for a sender", true, envelope(&messages.Envelope{Type: 1, Target: messages.ActorGateway, Sender: "\r\n\x1b"}))
	for _, n := range []int{0, 1, 15, 17, 4000} {
		add(fmt.Sprintf("a ClientID of %d bytes", n), false, envelope(to(messages.ActorGateway, &messages.Attach{Client: make([]byte, n)})))
	}
	anonymous := to(messages.ActorGateway, attach)
	anonymous.Sender = ""
	add("an attach without a sender", true, envelope(anonymous))
	for _, sender := range []string{"node/raft", "node/gateway", "eventstream", "deadletter", "$1", "../x"} {
		named := to(messages.ActorGateway, &messages.StatusRequest{})
		named.Sender = sender
		add("asking in the name of "+sender, false, envelope(named))
	}
	add("what another's session is asked", false, envelope(to(session, &messages.Detach{})),
		envelope(to(session, &messages.Read{Request: 1, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("v/1")}}})))
	add("an unknown field", false, append(envelope(to(messages.ActorGateway, attach)), 0x78, 1))
	return list
}

func (s *siege) nodeHello(as lawful, lane messages.Lane) *messages.Hello {
	return &messages.Hello{Protocol: messages.ProtocolVersion, Role: messages.Role_NODE, Lane: lane, ClusterId: s.cluster, RaftId: as.id, Incarnation: as.incarnation, Starts: as.starts, To: s.node, Version: "hostile"}
}

// hellos are those that are refused.
func (s *siege) hellos(r *rand.Rand) (list []*messages.Hello) {
	node := func(change func(*messages.Hello)) {
		h := s.nodeHello(s.peers[0], messages.Lane_CONTROL)
		change(h)
		list = append(list, h)
	}
	client := func(change func(*messages.Hello)) {
		h := clientHello(r)
		change(h)
		list = append(list, h)
	}
	node(func(h *messages.Hello) { h.Incarnation = noise(r, 16) })
	node(func(h *messages.Hello) { h.Incarnation = nil })
	node(func(h *messages.Hello) { h.ClusterId = noise(r, 16) })
	node(func(h *messages.Hello) { h.ClusterId = h.ClusterId[:15] })
	node(func(h *messages.Hello) { h.RaftId = s.node })
	node(func(h *messages.Hello) { h.RaftId = 0 })
	node(func(h *messages.Hello) { h.RaftId = math.MaxUint64 })
	node(func(h *messages.Hello) { h.RaftId = math.MaxUint64 - 1 })
	node(func(h *messages.Hello) { h.To = 0 })
	node(func(h *messages.Hello) { h.To = s.peers[0].id })
	node(func(h *messages.Hello) { h.Lane = 3 })
	node(func(h *messages.Hello) { h.Address = messages.ClientAddress(noise(r, 16)) })
	node(func(h *messages.Hello) { h.Protocol = 2 })
	node(func(h *messages.Hello) { h.Version = strings.Repeat("v", 1<<20) })
	client(func(h *messages.Hello) { h.Address = messages.NodeAddress(s.peers[0].id) })
	client(func(h *messages.Hello) { h.Address = "client/" + strings.Repeat("A", 32) })
	client(func(h *messages.Hello) { h.Address = strings.Repeat("x", 1<<20) })
	client(func(h *messages.Hello) { h.RaftId = 2 })
	client(func(h *messages.Hello) { h.Incarnation = s.peers[0].incarnation })
	client(func(h *messages.Hello) { h.Lane = messages.Lane_APPEND })
	client(func(h *messages.Hello) { h.ClusterId = noise(r, 16) })
	client(func(h *messages.Hello) { h.To = 99 })
	client(func(h *messages.Hello) { h.Role = 9 })
	client(func(h *messages.Hello) { h.Version = "\x1b[2J" })
	return append(list, &messages.Hello{})
}

// asNode are attacks by one who has a node's proofs, or those of a node that
// nobody knows. What Raft itself has to believe a member is not among them.
func (s *siege) asNode(r *rand.Rand) (list []crafted) {
	stranger := lawful{id: 1 << 20, incarnation: noise(r, 16)}
	message := func(as lawful, kind raftpb.MessageType, term uint64, change func(*raftpb.Message)) []byte {
		m := &raftpb.Message{Type: kind.Enum(), From: &as.id, To: &s.node, Term: &term}
		if change != nil {
			change(m)
		}
		return parcel(to(messages.ActorRaft, &messages.RaftMessage{Message: m}))
	}
	for _, as := range []lawful{stranger, s.peers[0]} {
		add := func(name string, ends bool, lane messages.Lane, frames ...[]byte) {
			list = append(list, crafted{fmt.Sprintf("%s, as node %d", name, as.id), s.nodeHello(as, lane), frames, ends})
		}
		other := s.peers[1]
		add("in another's name", true, 0, message(other, raftpb.MsgHeartbeat, 1, nil))
		add("in our own name", true, 0, message(lawful{id: s.node}, raftpb.MsgHeartbeat, 1, nil))
		add("for another", true, 0, message(as, raftpb.MsgHeartbeat, 1, func(m *raftpb.Message) { m.To = &other.id }))
		add("with storage's responses", true, 0, message(as, raftpb.MsgApp, 1, func(m *raftpb.Message) { m.Responses = []*raftpb.Message{{}} }))
		for _, kind := range []raftpb.MessageType{raftpb.MsgHup, raftpb.MsgBeat, raftpb.MsgProp, raftpb.MsgUnreachable, raftpb.MsgSnapStatus, raftpb.MsgCheckQuorum,
			raftpb.MsgStorageAppend, raftpb.MsgStorageAppendResp, raftpb.MsgStorageApply, raftpb.MsgStorageApplyResp, raftpb.MsgForgetLeader, 99, -1} {
			add("a "+kind.String(), true, 0, message(as, kind, 1, nil))
		}
		add("an empty Raft message", true, 0, parcel(to(messages.ActorRaft, &messages.RaftMessage{})))
		add("an attach", true, 0, parcel(to(messages.ActorGateway, &messages.Attach{Client: noise(r, 16)})))
		add("a client's write", true, 0, parcel(to(messages.ActorSessionPrefix+"1", &messages.Write{})))
		add("a proposal in another's name", true, 1, parcel(to(messages.ActorRaft, &messages.Propose{Origin: other.id, Command: []byte("x")})))
		add("a large proposal", true, 1, parcel(to(messages.ActorRaft, &messages.Propose{Origin: as.id, Command: make([]byte, 1<<20)})))
		add("an append of 5 MiB", true, 1, message(as, raftpb.MsgApp, 1, func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{{Data: make([]byte, 5<<20)}} }))
		// These pass the guard, and Raft would not survive them.
		far := uint64(1 << 40)
		add("what Raft chokes on", false, 0,
			message(as, raftpb.MsgHeartbeat, 0, func(m *raftpb.Message) { m.Commit = &far }),
			message(as, raftpb.MsgVote, 0, nil),
			message(as, raftpb.MsgVote, math.MaxUint64, nil),
			message(as, raftpb.MsgPreVote, math.MaxUint64, func(m *raftpb.Message) { m.Index, m.LogTerm = &far, &far }),
			message(as, raftpb.MsgApp, 0, func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{{Index: &far}} }),
			message(as, raftpb.MsgApp, math.MaxUint64, nil),
			message(as, raftpb.MsgReadIndex, 0, nil),
			message(as, raftpb.MsgReadIndexResp, 1, nil),
			message(as, raftpb.MsgHeartbeatResp, 1, func(m *raftpb.Message) { m.Context = []byte{1} }),
			message(as, raftpb.MsgAppResp, 1, func(m *raftpb.Message) { m.Index = new(uint64(math.MaxUint64)) }),
			message(as, raftpb.MsgSnap, 1, nil),
			message(as, raftpb.MsgTransferLeader, 1, nil),
			parcel(to(messages.ActorRaft, &messages.Propose{Origin: as.id, Seq: 1, Command: []byte{0xff}})),
			parcel(to(messages.ActorRaft, &messages.Propose{Origin: as.id, Seq: 2})),
			parcel(to(messages.ActorSessionPrefix+"1", &messages.ProposalRefused{Seq: 1, Code: messages.Code_BUSY})),
			parcel(to(messages.ActorFounding, &messages.FounderState{RaftId: as.id})))
	}
	return list
}

// hijack writes to one client's session over another's connection.
func (s *siege) hijack(r *rand.Rand) {
	victim, err := s.client(r)
	if err != nil {
		return
	}
	defer victim.hang()
	thief, err := s.client(r)
	if err != nil {
		return
	}
	defer thief.hang()
	command := packed(&messages.Command{Session: victim.id, Seq: 1, Open: &messages.OpenSession{TtlMs: 1000, BeforeMs: 1000},
		Operations: []*messages.Operation{{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(hijacked), Value: []byte("x")}}}}})
	for _, session := range []string{victim.session, thief.session} {
		s.crafted.Add(1)
		_ = thief.send(parcel(to(session, &messages.Write{Request: 1, Command: command})))
	}
	// The thief's own session answers, and refuses; all before it was taken by then.
	ended := time.AfterFunc(10*time.Second, thief.cancel)
	defer ended.Stop()
	if f, err := thief.receive(); err == nil && !bytes.Contains(packed(f), []byte("another")) {
		s.t.Errorf("a write in another's name is answered with %v", f)
	}
	// A Detach has no answer; a flood of them ends the thief and not the victim.
	var many []*messages.Envelope
	for range 1000 {
		many = append(many, to(victim.session, &messages.Detach{}))
	}
	s.crafted.Add(1)
	_ = thief.send(parcel(many...))
	for {
		if _, err := thief.receive(); err != nil {
			if status.Code(err) == codes.Canceled && s.ctx.Err() == nil {
				s.t.Error("a flood of detaches is borne")
			}
			break
		}
	}
	alive := time.AfterFunc(10*time.Second, victim.cancel)
	defer alive.Stop()
	_ = victim.send(parcel(to(victim.session, &messages.Read{Request: 7})))
	if f, err := victim.receive(); s.ctx.Err() == nil && (err != nil || f.GetParcel() == nil) {
		s.t.Errorf("the victim's session answers %v, %v", f, err)
	}
}

// otherCalls are calls that the service does not have.
func (s *siege) otherCalls() {
	in, err := s.dial(s.address)
	if err != nil {
		return
	}
	defer in.hang()
	in.stream.CloseSend()
	in.drain()
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	for _, method := range []string{"/keyval.v1.Link/Stop", "/keyval.v1.Link/", "/remote.Remoting/ListProcesses", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/" + strings.Repeat("y", 4000)} {
		s.crafted.Add(1)
		request, reply := noise(random(1), 100), []byte{}
		if err := in.client.Invoke(ctx, method, &request, &reply); status.Code(err) != codes.Unimplemented &&
			status.Code(err) != codes.Unavailable && s.ctx.Err() == nil { // unavailable: crowded out, as who says no hello may be
			s.t.Errorf("%s: %v", method[:10], err)
		}
	}
}
