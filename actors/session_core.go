package actors

import (
	"bytes"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Credits of a session: what may be unanswered at once, beyond it BUSY.
const (
	sessionRequestsMax = 1024
	sessionBytesMax    = 8 << 20
)

// scansMax is how many scans and digests of a session are with raft or the readers at
// once. The others wait in the session, and end with it.
const scansMax = 8

// Ages in ticks after which a session asks again for what may have been lost, and
// after which it gives up on an answer: the client's own deadline has passed then. Each
// time it waits twice as long as before: when the node is slow, asking again makes it
// slower.
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
	// dropReads tells this node's machine that nobody waits for the reads it may have.
	dropReads struct{}
	// answer sends a reply to an actor of the client's system.
	answer struct {
		Actor string
		Reply proto.Message
		begun int64 // when the request came, by the session's clock
		scans bool  // it is that of a scan or digest
	}
)

func (proposeTo) sessionEffect() {}
func (readIndex) sessionEffect() {}
func (readStale) sessionEffect() {}
func (dropReads) sessionEffect() {}
func (answer) sessionEffect()    {}

type pendingWrite struct {
	actor    string                // of the client's system
	asked    int                   // times; each is answered
	trace    *messages.Traceparent // what is proposed carries it; nil: it is not traced
	command  []byte                // as the client sent it
	stamped  []byte                // as it is proposed
	age      int
	again    int // the age at which it is proposed again
	proposed int // times; beyond the first, nobody knows what became of the earlier ones
	begun    int64
}

type pendingRead struct {
	actor string
	asked int
	read  *messages.Read
	sent  bool // false: it waits in held
	age   int
	again int // the age at which it is asked for again
	begun int64
}

// sessionCore is one client's requests on their way through this node.
//
// Invariants: len(writes)+len(reads) <= sessionRequestsMax and bytes, the sum of
// the pending commands, <= sessionBytesMax. scans <= scansMax is the number of scans and
// digests that were sent on; held is empty unless it is scansMax. A write stays pending until its
// outcome is applied here, however many leaders it meets; its number makes every
// repetition harmless.
type sessionCore struct {
	self   messages.RaftID
	client []byte
	stamp  []byte           // ends commands that open the session: whose it is
	leader *messages.Leader // nil: none known
	term   uint64
	level  uint32 // of the cluster, as applied here; never above what it is
	fenced bool   // this node may have lost data: no read is answered
	// refused is why writes that need room are refused; empty: they are not.
	refused string
	writes  map[uint64]*pendingWrite
	reads   map[uint64]*pendingRead
	now     int64                 // in ns, as requests come in, for metrics
	trace   *messages.Traceparent // what is done for the request that comes in stands below it; nil: it is not traced
	bytes   int
	scans   int
	held    []uint64 // scans and digests that are not sent on yet, in order; some may be answered

	effects []sessionEffect
}

func newSessionCore(self messages.RaftID, client, holder []byte, leader *messages.Leader, level uint32) *sessionCore {
	s := &sessionCore{self: self, client: client, level: level, stamp: stampOf(holder), writes: map[uint64]*pendingWrite{}, reads: map[uint64]*pendingRead{}}
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

// reuse takes back a list of effects that were carried out, for those to come.
func (s *sessionCore) reuse(effects []sessionEffect) {
	clear(effects)
	s.effects = effects[:0]
}

// onWrite checks a command and proposes it. Asking again for a pending number
// only renews whom to answer.
func (s *sessionCore) onWrite(actor string, m *messages.Write) {
	if w, ok := s.writes[m.Request]; ok && bytes.Equal(w.command, m.Command) {
		w.actor, w.asked = actor, w.asked+1
		return
	}
	opens, err := s.check(m)
	if err != nil {
		s.emit(answer{Actor: actor, Reply: &messages.WriteReply{Request: m.Request, Code: err.Code, Message: err.Message, Leader: s.leader}, begun: s.now})
		return
	}
	if s.leader == nil {
		s.emit(answer{Actor: actor, Reply: &messages.WriteReply{Request: m.Request, Code: messages.Code_NO_LEADER}, begun: s.now})
		return
	}
	w := &pendingWrite{actor: actor, asked: 1, command: m.Command, stamped: m.Command, begun: s.now, trace: s.trace}
	if opens {
		w.stamped = slices.Concat(m.Command, s.stamp)
	}
	s.writes[m.Request] = w
	s.bytes += len(m.Command)
	s.propose(m.Request, w)
}

// stampOf is what a command ends with that opens a session for a holder. A message that
// stands twice in another is merged, and the last value of a field counts: so what the
// client says of its holder is replaced.
func stampOf(holder []byte) []byte {
	open := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), holder) // an empty one too
	return protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), open)
}

// check returns why a command is refused, or whether it opens the session.
func (s *sessionCore) check(m *messages.Write) (opens bool, why *messages.Error) {
	if len(s.writes)+len(s.reads) >= sessionRequestsMax || s.bytes+len(m.Command) > sessionBytesMax {
		return false, messages.Errorf(messages.Code_BUSY, "more than %d requests or %d bytes are unanswered", sessionRequestsMax, sessionBytesMax)
	}
	if len(m.Command) > messages.CommandSizeMax {
		return false, messages.Errorf(messages.Code_INVALID, "the command has %d bytes, %d are allowed", len(m.Command), messages.CommandSizeMax)
	}
	if _, ok := s.writes[m.Request]; ok {
		return false, messages.Errorf(messages.Code_CONFLICT, "request %d is under way with another command", m.Request)
	}
	c := new(messages.Command)
	if err := proto.Unmarshal(m.Command, c); err != nil {
		return false, messages.Errorf(messages.Code_INVALID, "the command cannot be read: %v", err)
	}
	if !bytes.Equal(c.Session, s.client) || c.Seq != m.Request {
		return false, messages.Errorf(messages.Code_NOT_ALLOWED, "the command is of another session or number than its request")
	}
	if whole := len(m.Command) + len(s.stamp); c.Open != nil && whole > messages.CommandSizeMax {
		return false, messages.Errorf(messages.Code_INVALID, "the command has %d bytes with whose it is, %d are allowed", whole, messages.CommandSizeMax)
	}
	if err := messages.CheckCommand(c); err != nil || s.leader == nil { // with a leader's place the level is known
		return c.Open != nil, err
	}
	if s.refused != "" && grows(c) {
		return false, messages.Errorf(messages.Code_BUSY, "%s", s.refused)
	}
	return c.Open != nil, messages.CheckLevel(c, s.level)
}

// grows reports whether a command may leave more than was there. A deletion takes room too, until
// history is given up, and little of it.
func grows(c *messages.Command) bool {
	put := func(o *messages.Operation) bool { return o.GetPut() != nil }
	return slices.ContainsFunc(c.Operations, put) || slices.ContainsFunc(c.Otherwise, put)
}

func (s *sessionCore) propose(seq uint64, w *pendingWrite) {
	w.age, w.again = 0, proposeAgainTicks
	s.proposeAgain(seq, w)
}

func (s *sessionCore) proposeAgain(seq uint64, w *pendingWrite) {
	w.proposed++
	s.emit(proposeTo{s.leader.RaftId, &messages.Propose{Origin: s.self, Seq: seq, Command: w.stamped, Traceparent: w.trace}})
}

// onRead sends a read on. A number that comes again is the same read, asked again.
func (s *sessionCore) onRead(actor string, m *messages.Read) {
	if r, ok := s.reads[m.Request]; ok {
		r.actor, r.asked = actor, r.asked+1
		return
	}
	refuse := func(code messages.Code, text string) {
		s.emit(answer{Actor: actor, Reply: &messages.ReadReply{Request: m.Request, Code: code, Message: text, Leader: s.leader}, begun: s.now, scans: m.GetGet() == nil})
	}
	switch get := m.GetGet(); {
	case s.fenced:
		refuse(messages.Code_NO_LEADER, fencedText)
		return
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
	if s.trace != m.Traceparent {
		m = &messages.Read{Request: m.Request, Consistency: m.Consistency, Revision: m.Revision, Kind: m.Kind, Traceparent: s.trace}
	}
	r := &pendingRead{actor: actor, asked: 1, read: m, begun: s.now}
	s.reads[m.Request] = r
	switch {
	case m.GetGet() != nil:
		s.send(r)
	case s.scans < scansMax:
		s.scans++
		s.send(r)
	default:
		s.held = append(s.held, m.Request)
	}
}

func (s *sessionCore) send(r *pendingRead) {
	r.sent, r.age, r.again = true, 0, readAgainTicks
	s.ask(r.read)
}

func (s *sessionCore) ask(m *messages.Read) {
	if m.Consistency == messages.Consistency_STALE {
		s.emit(readStale{m})
		return
	}
	s.emit(readIndex{m})
}

// onOutcome answers the write that was applied. It ignores an outcome that was answered
// already, or belongs to an earlier session actor of this client.
func (s *sessionCore) onOutcome(o *messages.Outcome) {
	w, ok := s.writes[o.Seq]
	if !ok {
		return
	}
	s.answerWrite(o.Seq, w, &messages.WriteReply{
		Code: o.Code, Revision: o.Revision, Deleted: o.Deleted, More: o.More, FailedCondition: o.FailedCondition, Unopened: o.Unopened, Leader: s.leader,
	})
}

// answerWrite ends a pending write. A client that asked several times has as many
// replies: the link counts requests against them.
func (s *sessionCore) answerWrite(seq uint64, w *pendingWrite, reply *messages.WriteReply) {
	delete(s.writes, seq)
	s.bytes -= len(w.command)
	reply.Request = seq
	for range w.asked {
		s.emit(answer{Actor: w.actor, Reply: reply, begun: w.begun})
	}
}

// onProposalRefused passes a refusal on: the client decides where to go next. What
// was refused the first time surely did not happen; an earlier proposal may have
// been taken, and its number keeps it from happening twice. A refusal without a
// term is the link's, which knows no leaders: it says nothing of other attempts.
func (s *sessionCore) onProposalRefused(m *messages.ProposalRefused) {
	w, ok := s.writes[m.Seq]
	if !ok || m.Term == 0 && w.proposed > 1 || m.Term != 0 && m.Term < s.term {
		return // another attempt is under way
	}
	reply := &messages.WriteReply{Code: m.Code}
	if w.proposed > 1 {
		reply.Code, reply.Message = messages.Code_OUTCOME_UNKNOWN, "the leader changed while the command was under way"
	}
	// A redirect to somebody else shows that the leader this node knows leads no longer.
	// The client is then told of none and tries another node, instead of going back there.
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
		s.emit(answer{Actor: r.actor, Reply: reply, begun: r.begun, scans: r.read.GetGet() == nil})
	}
	if r.sent && r.read.GetGet() == nil {
		s.scans--
		s.sendHeld()
	}
}

// sendHeld sends the next scan that waits.
func (s *sessionCore) sendHeld() {
	for len(s.held) > 0 && s.scans < scansMax {
		r, ok := s.reads[s.held[0]]
		s.held = s.held[1:]
		if ok {
			s.scans++
			s.send(r)
		}
	}
}

// onLeader proposes all pending writes again to a new leader, in order: the old one may
// have lost them.
func (s *sessionCore) onLeader(leader *messages.Leader, term uint64, level uint32) {
	s.level = max(s.level, level)
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

const fencedText = "this node may have lost acknowledged data, and answers nothing until that is settled"

// onFenced refuses the reads that are under way once this node may have lost data.
func (s *sessionCore) onFenced(fenced bool) {
	if fenced && !s.fenced {
		s.refuseReads(messages.Code_NO_LEADER, fencedText)
	}
	s.fenced = fenced
}

// refuseReads answers all reads that are pending.
func (s *sessionCore) refuseReads(code messages.Code, text string) {
	if len(s.reads) > 0 {
		s.emit(dropReads{})
	}
	s.held = nil
	for _, request := range slices.Sorted(maps.Keys(s.reads)) {
		s.answerRead(&messages.ReadReply{Request: request, Code: code, Message: text, Leader: s.leader})
	}
}

// onTick asks again for what may have been lost on a link or with a reader, and
// gives up on what nobody waits for any more.
func (s *sessionCore) onTick(elapsed int) {
	for _, seq := range slices.Sorted(maps.Keys(s.writes)) {
		w := s.writes[seq]
		w.age += elapsed
		switch {
		case w.age >= giveUpTicks:
			s.answerWrite(seq, w, &messages.WriteReply{Code: messages.Code_OUTCOME_UNKNOWN, Leader: s.leader})
		case w.age >= w.again && s.leader != nil && s.leader.RaftId != s.self:
			w.again = later(w.again, proposeAgainTicks)
			s.proposeAgain(seq, w)
		}
	}
	for _, request := range slices.Sorted(maps.Keys(s.reads)) {
		r := s.reads[request]
		r.age += elapsed
		switch {
		case r.age >= giveUpTicks:
			s.answerRead(&messages.ReadReply{Request: request, Code: messages.Code_TIMED_OUT, Leader: s.leader})
		case r.sent && r.age >= r.again:
			r.again = later(r.again, readAgainTicks)
			s.ask(r.read)
		}
	}
}

// later is the age after this one at which something is asked for again: with ages of
// 1, 3, 7 times the first, each pause is twice the one before.
func later(age, first int) int { return 2*age + first }

// end answers whatever is pending when the session actor ends before it knows.
func (s *sessionCore) end() {
	for _, seq := range slices.Sorted(maps.Keys(s.writes)) {
		s.answerWrite(seq, s.writes[seq], &messages.WriteReply{Code: messages.Code_OUTCOME_UNKNOWN, Message: "the session has moved", Leader: s.leader})
	}
	s.refuseReads(messages.Code_TIMED_OUT, "")
}
