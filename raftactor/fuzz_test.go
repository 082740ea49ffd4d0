package raftactor

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// script drives one replica of three by bytes: an operation each, with its
// arguments behind it. The other two are whatever the bytes make of them.
type script struct {
	rest    []byte
	replica *Replica
	appends []*raftpb.Message // that the log has not answered
	applies []*raftpb.Message // that the machine has not answered
	dead    bool
}

func newScript(data []byte) *script {
	s := &script{rest: data, replica: NewReplica(ReplicaConfig{
		Self: 1, TickMS: 50, ReadNonce: 1, Logger: raftLogger{slog.New(slog.DiscardHandler)},
		Options: Options{LogEntriesKeep: 2, LogEntriesMax: 4, LogBytesKeep: 300, LogBytesMax: 400, PinnedBytesMax: 600, MaxInflightMsgs: 4, MaxInflightBytes: 1 << 10, MaxSizePerMsg: 64, MaxUncommitted: 256, MaxCommitted: 64},
	})}
	var entries []*raftpb.Entry
	for i, term := range []uint64{1, 2, 2, 3, 5} {
		entries = append(entries, &raftpb.Entry{Index: new(uint64(i) + 2), Term: new(term)})
	}
	s.replica.OnLogOpened(&messages.LogOpened{
		BaseIndex: 1, BaseTerm: 1, Entries: entries,
		HardState: &raftpb.HardState{Term: new(uint64(6)), Commit: new(uint64(4))},
	})
	s.replica.OnMachineOpened(&messages.MachineOpened{Index: 3, Term: 2, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}})
	welcome(s.replica)
	return s
}

func (s *script) byte() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

// number is small, near the replica's own, or at an edge of what there is.
func (s *script) number() uint64 {
	edges := []uint64{math.MaxUint64, math.MaxUint64 - 1, raft.LocalAppendThread, raft.LocalApplyThread, 1 << 63, 1<<63 - 1, 1 << 32, 1<<62 + 1}
	switch b := s.byte(); {
	case b >= 0xf0:
		return edges[int(b)%len(edges)]
	case b >= 0xe0:
		return s.replica.node.BasicStatus().GetTerm() + uint64(b&3)
	case b >= 0xd0:
		return s.replica.tail.last() + uint64(b&3)
	default:
		return uint64(b & 15)
	}
}

func (s *script) message() *raftpb.Message {
	m := &raftpb.Message{
		Type: raftpb.MessageType(s.byte() % 25).Enum(), To: new(uint64(1)), From: new(uint64(s.byte() & 3)),
		Term: new(s.number()), LogTerm: new(s.number()), Index: new(s.number()), Commit: new(s.number()),
	}
	flags := s.byte()
	m.Reject = new(flags&1 != 0)
	if flags&2 != 0 {
		m.RejectHint = new(s.number())
	}
	if flags&4 != 0 {
		m.Context = s.rest[:min(len(s.rest), int(flags>>4))]
	}
	if flags&8 != 0 {
		m.From, m.To = new(s.number()), new(s.number())
	}
	for i := range uint64(flags >> 6) {
		index, term := m.GetIndex()+1+i, m.GetLogTerm()
		if s.byte()&1 != 0 {
			index, term = s.number(), s.number()
		}
		m.Entries = append(m.Entries, &raftpb.Entry{Index: &index, Term: &term, Data: make([]byte, s.byte())})
	}
	if flags&16 != 0 && m.GetType() == raftpb.MsgSnap {
		m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(s.number()), Term: new(s.number())}}
	}
	return m
}

func (s *script) run() {
	for len(s.rest) > 0 && !s.dead {
		switch op := s.byte(); {
		case op < 0x90:
			s.say(s.message())
		case op < 0xa0:
			s.replica.OnTick(uint32(op & 15))
		case op < 0xb0:
			s.replica.OnPropose(Asker{"node/1", "s"}, &messages.Propose{Origin: 1, Command: make([]byte, op)})
		case op < 0xb8:
			s.replica.OnRead(&messages.ReadIndex{Session: "s", Read: &messages.Read{}})
		case op < 0xc0:
			s.campaign()
		case op < 0xc4:
			s.checkpoint(op&1 == 0)
		case op < 0xca:
			s.stage()
		case op < 0xcd:
			s.replica.OnShipped(&messages.SnapshotShipped{Peer: uint64(s.byte() & 3), Failed: op&1 == 0})
		default:
			s.answer(op)
		}
		if op := s.byte(); op&1 == 0 {
			s.replica.Advance()
		}
		s.effects()
	}
}

func (s *script) say(m *raftpb.Message) {
	wire, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	_ = s.replica.OnPeer(m)
	again := &raftpb.Message{}
	if proto.Unmarshal(wire, again) == nil && s.byte()&3 == 0 {
		_ = s.replica.OnPeer(again) // and once more
	}
}

// campaign makes the replica a candidate and lets the others vote for it.
func (s *script) campaign() {
	for range 40 {
		s.replica.OnTick(1)
	}
	for _, kind := range []raftpb.MessageType{raftpb.MsgPreVoteResp, raftpb.MsgVoteResp} {
		s.replica.Advance()
		s.effects()
		s.answer(0xff)
		term := s.replica.node.BasicStatus().GetTerm()
		if kind == raftpb.MsgPreVoteResp {
			term++
		}
		_ = s.replica.OnPeer(&raftpb.Message{Type: kind.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: &term})
	}
}

// checkpoint makes what is applied durable, if the log holds it.
func (s *script) checkpoint(thorough bool) {
	if r := s.replica; r.installing == nil {
		s.replica.OnCheckpointed(&messages.Checkpointed{Index: r.applied, Term: r.appliedTerm, Thorough: thorough, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}})
	}
}

// stage brings a snapshot, such as a peer might have sent.
func (s *script) stage() {
	m := s.message()
	m.Type, m.Entries = raftpb.MsgSnap.Enum(), nil
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(s.number()), Term: new(s.number()), ConfState: &raftpb.ConfState{}}}
	conf := m.Snapshot.Metadata.ConfState
	if s.byte()&3 != 0 { // such as a good peer brings
		m.From, m.To, m.Term, m.Snapshot.Metadata.Term = new(uint64(2)), new(uint64(1)), new(s.replica.node.BasicStatus().GetTerm()), new(uint64(5))
		m.Snapshot.Metadata.Index, conf.Voters = new(s.replica.tail.last()+uint64(s.byte()&15)), []uint64{1, 2, 3}
		_ = s.replica.OnStaged(m)
		return
	}
	for b := s.byte(); b > 0; b >>= 2 {
		switch id := uint64(b & 3); {
		case b&0xc0 == 0xc0:
			conf.Learners = append(conf.Learners, id)
		case b&0xc0 == 0x80:
			conf.VotersOutgoing = append(conf.VotersOutgoing, id)
		default:
			conf.Voters = append(conf.Voters, id)
		}
	}
	_ = s.replica.OnStaged(m)
}

// answer lets log and machine answer some of what they were asked, in order.
func (s *script) answer(op byte) {
	for n := op & 3; n > 0 && len(s.appends) > 0; n-- {
		if snapshot := s.appends[0].GetSnapshot().GetMetadata(); snapshot != nil {
			s.apply(len(s.applies))
			s.replica.OnMachineOpened(&messages.MachineOpened{Index: snapshot.GetIndex(), Term: snapshot.GetTerm(), ConfState: snapshot.GetConfState()})
		}
		s.replica.OnAppended(s.appends[0])
		s.appends = s.appends[1:]
	}
	s.apply(int(op >> 2 & 3))
}

func (s *script) apply(n int) {
	for ; n > 0 && len(s.applies) > 0; n-- {
		entries := s.applies[0].GetEntries()
		s.replica.OnApplied(&messages.Applied{Message: s.applies[0], Index: entries[len(entries)-1].GetIndex()})
		s.applies = s.applies[1:]
	}
}

func (s *script) effects() {
	for _, effect := range s.replica.Effects() {
		switch e := effect.(type) {
		case AppendLog:
			s.appends = append(s.appends, e.Message)
		case ApplyEntries:
			s.applies = append(s.applies, e.Message)
		case Die:
			s.dead = true
		}
	}
}

// FuzzPeers: whatever two peers say, in whatever state, and whatever snapshots they
// brought, a replica does not panic: it refuses what raft would choke on.
func FuzzPeers(f *testing.F) {
	message := func(kind raftpb.MessageType, term, logTerm, index, commit, flags byte, entries ...byte) []byte {
		return append([]byte{0, byte(kind), 2, term, logTerm, index, commit, flags}, append(entries, 0, 0)...)
	}
	for kind := range raftpb.MessageType_name {
		for _, term := range []byte{0, 1, 6, 7, 0xe1, 0xf0, 0xf4} {
			f.Add(message(raftpb.MessageType(kind), term, 5, 6, 9, 0))
			f.Add(message(raftpb.MessageType(kind), term, 5, 6, 9, 0xc0, 0, 1, 0, 2, 0, 3))
			f.Add(message(raftpb.MessageType(kind), term, 2, 3, 4, 0x41, 1, 4, 4, 9))
			f.Add(append([]byte{0xb8, 0}, message(raftpb.MessageType(kind), 0xe0, 0xf0, 0xf0, 0xf0, 0x43, 0xd1, 0, 0)...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		newScript(data[:min(len(data), 4096)]).run()
	})
}

// Long random scripts reach states that few bytes do not. KEYVAL_HOSTILE=n runs n.
func TestPeersAtRandom(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("KEYVAL_HOSTILE"))
	var seed uint64
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("seed %d: %v\n%s", seed, r, debug.Stack())
		}
	}()
	for ; seed < uint64(max(n, 300)); seed++ {
		random := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 2000)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		newScript(data).run()
	}
}

// FuzzPeerBytes is FuzzPeers for a message as it comes off the wire.
func FuzzPeerBytes(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{0x0a, 0}, true)
	wire, err := proto.Marshal(&messages.RaftMessage{Message: &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(7)), Index: new(uint64(6)), LogTerm: new(uint64(5)),
		Commit: new(uint64(7)), Entries: []*raftpb.Entry{{Index: new(uint64(7)), Term: new(uint64(7)), Data: []byte("x")}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire, false)
	f.Add(wire, true)
	f.Fuzz(func(t *testing.T, wire []byte, leads bool) {
		m := &messages.RaftMessage{}
		if proto.Unmarshal(wire, m) != nil || m.Message == nil {
			return // the guard refuses an empty one
		}
		s := newScript(nil)
		if leads {
			s.campaign()
		}
		m.Message.To = new(uint64(1))
		s.say(m.Message)
		s.replica.Advance()
		s.effects()
		s.answer(0xff)
	})
}
