package actors

import (
	"bytes"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Bounds of what a session may have unanswered at once. Beyond them it answers BUSY.
const (
	sessionRequestsMax = 1024
	sessionBytesMax    = 8 << 20
)

// Ages of an unanswered request, in ticks: when it is sent again, since it may have been
// lost, and when it is given up, since the client's own deadline has passed.
const (
	proposeAgainTicks = 40
	readAgainTicks    = 60
	giveUpTicks       = 1200
)

// sessionEffect is what a session wants done.
type sessionEffect interface{ sessionEffect() }

type (
	// proposeTo sends a command to the leader's raft, here or elsewhere.
	proposeTo struct {
		Leader  messages.RaftID
		Propose *messages.Propose
	}
	// readIndex sends a read to this node's raft.
	readIndex struct{ Read *messages.Read }
	// readStale sends a read straight to this node's machine.
	readStale struct{ Read *messages.Read }
	// answer sends a reply to an actor of the client's system.
	answer struct {
		Actor string
		Reply proto.Message
	}
)

func (proposeTo) sessionEffect() {}
func (readIndex) sessionEffect() {}
func (readStale) sessionEffect() {}
func (answer) sessionEffect()    {}

type pendingWrite struct {
	actor    string // of the client's system
	asked    int    // how often the client sent it; each time is answered
	command  []byte
	age      int
	proposed int // how often; after the first time, an earlier attempt may have been taken
}

type pendingRead struct {
	actor string
	asked int
	read  *messages.Read
	age   int
}

// sessionCore holds the unanswered requests of one client.
//
// Invariants: len(writes)+len(reads) <= sessionRequestsMax; bytes is the size of all
// pending commands, and <= sessionBytesMax. A write stays pending until its outcome is
// applied on this node, even if the leader changes. It may be proposed any number of
// times: the machine executes each number once.
type sessionCore struct {
	self   messages.RaftID
	client []byte
	leader *messages.Leader // nil: none known
	term   uint64
	writes map[uint64]*pendingWrite
	reads  map[uint64]*pendingRead
	bytes  int

	effects []sessionEffect
}

func newSessionCore(self messages.RaftID, client []byte, leader *messages.Leader) *sessionCore {
	s := &sessionCore{self: self, client: client, writes: map[uint64]*pendingWrite{}, reads: map[uint64]*pendingRead{}}
	s.leader = leader
	if leader != nil {
		s.term = leader.Term
	}
	return s
}

func (s *sessionCore) emit(e sessionEffect) { s.effects = append(s.effects, e) }

func (s *sessionCore) take() []sessionEffect {
	out := s.effects
	s.effects = nil
	return out
}

// reuse saves an allocation: the next effects go where those that were carried out stood.
func (s *sessionCore) reuse(effects []sessionEffect) {
	clear(effects)
	s.effects = effects[:0]
}

// onWrite checks a command and proposes it. If its number is pending already, only whom
// to answer changes.
func (s *sessionCore) onWrite(actor string, m *messages.Write) {
	if w, ok := s.writes[m.Request]; ok && bytes.Equal(w.command, m.Command) {
		w.actor, w.asked = actor, w.asked+1
		return
	}
	if err := s.check(m); err != nil {
		s.emit(answer{actor, &messages.WriteReply{Request: m.Request, Code: err.Code, Message: err.Message, Leader: s.leader}})
		return
	}
	if s.leader == nil {
		s.emit(answer{actor, &messages.WriteReply{Request: m.Request, Code: messages.Code_NO_LEADER}})
		return
	}
	w := &pendingWrite{actor: actor, asked: 1, command: m.Command}
	s.writes[m.Request] = w
	s.bytes += len(m.Command)
	s.propose(m.Request, w)
}

func (s *sessionCore) check(m *messages.Write) *messages.Error {
	if len(s.writes)+len(s.reads) >= sessionRequestsMax || s.bytes+len(m.Command) > sessionBytesMax {
		return messages.Errorf(messages.Code_BUSY, "more than %d requests or %d bytes are unanswered", sessionRequestsMax, sessionBytesMax)
	}
	if len(m.Command) > messages.CommandSizeMax {
		return messages.Errorf(messages.Code_INVALID, "the command has %d bytes, %d are allowed", len(m.Command), messages.CommandSizeMax)
	}
	if _, ok := s.writes[m.Request]; ok {
		return messages.Errorf(messages.Code_CONFLICT, "request %d is under way with another command", m.Request)
	}
	c := new(messages.Command)
	if err := proto.Unmarshal(m.Command, c); err != nil {
		return messages.Errorf(messages.Code_INVALID, "the command cannot be read: %v", err)
	}
	if !bytes.Equal(c.Session, s.client) || c.Seq != m.Request {
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the command is of another session or number than its request")
	}
	return messages.CheckCommand(c)
}

func (s *sessionCore) propose(seq uint64, w *pendingWrite) {
	w.age = 0
	w.proposed++
	s.emit(proposeTo{s.leader.RaftId, &messages.Propose{Origin: s.self, Seq: seq, Command: w.command}})
}

// onRead passes a read on to raft, or to the machine if it may be stale. A number that
// is pending already stands for the same read.
func (s *sessionCore) onRead(actor string, m *messages.Read) {
	if r, ok := s.reads[m.Request]; ok {
		r.actor, r.asked = actor, r.asked+1
		return
	}
	refuse := func(code messages.Code, text string) {
		s.emit(answer{actor, &messages.ReadReply{Request: m.Request, Code: code, Message: text, Leader: s.leader}})
	}
	switch get := m.GetGet(); {
	case len(s.writes)+len(s.reads) >= sessionRequestsMax:
		refuse(messages.Code_BUSY, "too many requests are unanswered")
		return
	case m.Kind == nil:
		refuse(messages.Code_INVALID, "the read says neither get nor scan")
		return
	case get != nil && messages.CheckKey(get.Key) != nil:
		refuse(messages.Code_INVALID, messages.CheckKey(get.Key).Message)
		return
	}
	s.reads[m.Request] = &pendingRead{actor: actor, asked: 1, read: m}
	s.ask(m)
}

func (s *sessionCore) ask(m *messages.Read) {
	if m.Consistency == messages.Consistency_STALE {
		s.emit(readStale{m})
		return
	}
	s.emit(readIndex{m})
}

// onOutcome answers a write that the machine has applied. It may not be pending: it was
// sent through an earlier session actor, or is answered already.
func (s *sessionCore) onOutcome(o *messages.Outcome) {
	w, ok := s.writes[o.Seq]
	if !ok {
		return
	}
	s.answerWrite(o.Seq, w, &messages.WriteReply{
		Code: o.Code, Revision: o.Revision, Deleted: o.Deleted, More: o.More, Leader: s.leader,
	})
}

// answerWrite ends a pending write. There is one reply for each time that the client
// sent it, since the link counts requests against replies.
func (s *sessionCore) answerWrite(seq uint64, w *pendingWrite, reply *messages.WriteReply) {
	delete(s.writes, seq)
	s.bytes -= len(w.command)
	reply.Request = seq
	for range w.asked {
		s.emit(answer{w.actor, reply})
	}
}

// onProposalRefused answers a write that was refused; the client decides where to go
// next. A write that was proposed once was surely not executed. If it was proposed
// before, that attempt may have been taken: its outcome is unknown, and the client may
// send it again under the same number. A refusal without a term comes from the link,
// which knows nothing of other attempts.
func (s *sessionCore) onProposalRefused(m *messages.ProposalRefused) {
	w, ok := s.writes[m.Seq]
	if !ok || m.Term == 0 && w.proposed > 1 || m.Term != 0 && m.Term < s.term {
		return // another attempt is under way
	}
	reply := &messages.WriteReply{Code: m.Code}
	if w.proposed > 1 {
		reply.Code, reply.Message = messages.Code_OUTCOME_UNKNOWN, "the leader changed while the command was under way"
	}
	// The replica that this node takes for the leader may redirect to another one. Then
	// this node's leader is out of date, and the reply names none.
	if m.Code != messages.Code_REDIRECT || m.Leader == s.leader.GetRaftId() {
		reply.Leader = s.leader
	}
	s.answerWrite(m.Seq, w, reply)
}

func (s *sessionCore) onReadRefused(m *messages.ReadRefused) {
	s.answerRead(&messages.ReadReply{Request: m.Request, Code: m.Code, Leader: s.leader})
}

func (s *sessionCore) answerRead(reply *messages.ReadReply) {
	r, ok := s.reads[reply.Request]
	if !ok {
		return
	}
	delete(s.reads, reply.Request)
	for range r.asked {
		s.emit(answer{r.actor, reply})
	}
}

// onLeader proposes all pending writes again, in order, if there is a new leader: the
// old one may have lost them.
func (s *sessionCore) onLeader(leader *messages.Leader, term uint64) {
	if term < s.term {
		return
	}
	moved := leader != nil && (s.leader == nil || term != s.term || leader.RaftId != s.leader.RaftId)
	s.leader, s.term = leader, term
	if !moved {
		return
	}
	for _, seq := range slices.Sorted(maps.Keys(s.writes)) {
		s.propose(seq, s.writes[seq])
	}
}

// onTick sends again what a link or a reader may have lost, and gives up what nobody
// waits for any more.
func (s *sessionCore) onTick(elapsed int) {
	for _, seq := range slices.Sorted(maps.Keys(s.writes)) {
		w := s.writes[seq]
		w.age += elapsed
		switch {
		case w.age >= giveUpTicks:
			s.answerWrite(seq, w, &messages.WriteReply{Code: messages.Code_OUTCOME_UNKNOWN, Leader: s.leader})
		case crossed(w.age, elapsed, proposeAgainTicks) && s.leader != nil && s.leader.RaftId != s.self:
			age := w.age
			s.propose(seq, w)
			w.age = age
		}
	}
	for _, request := range slices.Sorted(maps.Keys(s.reads)) {
		r := s.reads[request]
		r.age += elapsed
		switch {
		case r.age >= giveUpTicks:
			s.answerRead(&messages.ReadReply{Request: request, Code: messages.Code_TIMED_OUT, Leader: s.leader})
		case crossed(r.age, elapsed, readAgainTicks):
			s.ask(r.read)
		}
	}
}

// end answers all pending requests when the actor stops before it knows their outcome.
func (s *sessionCore) end() {
	for _, seq := range slices.Sorted(maps.Keys(s.writes)) {
		s.answerWrite(seq, s.writes[seq], &messages.WriteReply{Code: messages.Code_OUTCOME_UNKNOWN, Message: "the session has moved", Leader: s.leader})
	}
	for _, request := range slices.Sorted(maps.Keys(s.reads)) {
		s.answerRead(&messages.ReadReply{Request: request, Code: messages.Code_TIMED_OUT, Leader: s.leader})
	}
}

// crossed reports whether age passed a multiple of period in its last step.
func crossed(age, step, period int) bool { return age/period != (age-step)/period }
