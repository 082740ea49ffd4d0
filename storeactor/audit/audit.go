// Package audit compares what the members hold: equal entries give equal states, and
// the disk below may still lie.
package audit

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/mutant"
)

// Bounds and ages of an audit.
const (
	questionRowsMax = 2000 // of one question
	againTicks      = 10   // a member that did not answer, or was not there yet, is asked again
	giveUpTicks     = 60   // a member that has not answered by then has no voice
	passTicks       = 200  // between two walks through all keys
)

// A member is asked several times before it is given up.
const _ = uint(giveUpTicks - 3*againTicks)

// effect is what an audit wants done.
type effect interface{ effect() }

type (
	// readOwn reads this node's own digest; the answer carries request.
	readOwn struct {
		request  uint64
		revision uint64 // 0: the newest
		digest   *messages.Digest
	}
	// readState reads the hash of this node's own state beside the rows; the answer
	// carries request.
	readState struct {
		request uint64
		index   uint64 // 0: one that is chosen
	}
	// askPeer asks a member.
	askPeer struct {
		peer messages.RaftID
		ask  *messages.AuditAsk
	}
	// answerPeer answers the member that asked.
	answerPeer struct {
		peer   messages.RaftID
		answer *messages.AuditAnswer
	}
	// tell tells a member that most hold something else.
	tell struct {
		peer    messages.RaftID
		verdict *messages.AuditVerdict
	}
	// vouch answers who is to ship this node's state.
	vouch struct{ answer *messages.StateVouched }
	// confirmOwn ends the lineage of this node's state, confirmPeer that of a member's.
	confirmOwn  struct{ index uint64 }
	confirmPeer struct {
		peer  messages.RaftID
		index uint64
	}
	// condemn takes this node out of service, for good.
	condemn struct{ reason string }
	// warn tells people that members differ.
	warn struct{ text string }
)

func (readOwn) effect()     {}
func (readState) effect()   {}
func (askPeer) effect()     {}
func (answerPeer) effect()  {}
func (tell) effect()        {}
func (vouch) effect()       {}
func (confirmOwn) effect()  {}
func (confirmPeer) effect() {}
func (condemn) effect()     {}
func (warn) effect()        {}

// audit compares what the members hold. The leader's walks through all keys, one
// range after the other, each at a revision of its own, and at the end compares the hash of
// all other state at one index; the others' answer. What
// replicas apply is equal by construction: an audit looks for what disks did to it.
//
// Invariants: at most one question is under way. A node is condemned by itself alone: on
// a verdict it asks all members once more, and judges by their answers.
type audit struct {
	self    messages.RaftID
	ticks   uint32 // between two questions
	members []*messages.Member
	leader  messages.RaftID

	round    uint64
	cursor   []byte // where the next question begins
	pause    uint32 // ticks until it is asked
	stateDue bool   // the walk has come to its end: the next question is about the rest of the state
	walked   uint64 // how many walks came to their end, that question included
	rowless  bool   // nothing was ever written: that question is the whole walk
	question *question
	lineage  *messages.Lineage // of this node's state, when it was read last
	walk     *walk             // nil: none has begun at the first key
	vouching vouching

	requests uint64
	reads    []pendingRead // of this node, that are not answered

	effects []effect
}

// question is what the leader asks about one range.
type question struct {
	first    bool   // of a walk
	state    bool   // it is about all state but the rows, at index
	index    uint64 // 0: not chosen yet
	revision uint64
	from, to []byte
	own      *messages.RangeDigest // nil: not read yet
	lineage  *messages.Lineage     // of the state that was read here
	voices   []voice               // of the other members
	age      uint32
	again    bool // a verdict, or the own judgement, is looked into
}

type voice struct {
	member  *messages.Member
	digest  *messages.RangeDigest // nil: none yet
	lineage *messages.Lineage     // of what it has read
	silent  bool                  // it cannot answer
	late    bool                  // it may answer, and nobody waits for it
}

// pendingRead is what a digest of this node is read for.
type pendingRead struct {
	request uint64
	asker   messages.RaftID // who asked for it, 0: this node
	round   uint64          // of its question, or of the own one
	age     uint32
}

// newAudit numbers its rounds from nonce, which is random: an answer to a question of an
// earlier process fits none of this one.
func newAudit(self messages.RaftID, ticks uint32, nonce uint64) *audit {
	return &audit{self: self, ticks: cmp.Or(ticks, 4), pause: cmp.Or(ticks, 4), round: nonce}
}

func (a *audit) emit(e effect) { a.effects = append(a.effects, e) }

func (a *audit) take() []effect {
	out := a.effects
	a.effects = nil
	return out
}

func (a *audit) onMembers(members []*messages.Member) {
	a.members, a.question, a.vouching.alone = members, nil, 0
}

// onLeader starts the walk at the first key if this node has just become the leader.
// Only the leader asks.
func (a *audit) onLeader(leader messages.RaftID) {
	if leader != a.leader {
		a.leader, a.question, a.cursor, a.pause, a.stateDue, a.walk = leader, nil, nil, a.ticks, false, nil
		a.vouching.equal, a.vouching.alone = false, 0
		a.answerVouches(messages.Code_UNREACHABLE, "this node has just come to lead, or to lead no more")
	}
}

func (a *audit) onTick(elapsed uint32) {
	for i := range a.reads {
		a.reads[i].age += elapsed
	}
	a.reads = slices.DeleteFunc(a.reads, func(r pendingRead) bool { return r.age >= giveUpTicks })
	a.vouching.age += elapsed
	a.vouching.alone -= min(a.vouching.alone, elapsed)
	if a.walk != nil {
		a.walk.age += elapsed
	}
	switch q := a.question; {
	case q != nil:
		q.age += elapsed
		if q.age >= a.patience(q) {
			a.judge()
		} else if messages.Crossed(q.age, elapsed, againTicks) {
			a.askVoices()
		}
	case a.leader != a.self || len(a.members) < 2:
	case a.pause > elapsed:
		a.pause -= elapsed
	case a.stateDue && !mutant.StateUnaudited:
		a.begin(&question{state: true, first: a.rowless}, 0)
	default:
		a.begin(&question{from: a.cursor, first: len(a.cursor) == 0}, questionRowsMax)
	}
}

// begin asks a question: first of this node, which fixes what is not fixed yet of
// revision and range.
func (a *audit) begin(q *question, limit uint32) {
	a.round++
	a.question = q
	for _, m := range a.members {
		if m.RaftId != a.self {
			q.voices = append(q.voices, voice{member: m, silent: !q.again && a.receives(m.RaftId), late: !q.again && a.isMute(m.RaftId)})
		}
	}
	if q.state {
		a.readState(pendingRead{round: a.round}, 0)
		return
	}
	a.read(pendingRead{round: a.round}, q.revision, &messages.Digest{From: q.from, To: q.to, Limit: limit})
}

func (a *audit) readState(why pendingRead, index uint64) {
	a.requests++
	why.request = a.requests
	a.reads = append(a.reads, why)
	a.emit(readState{a.requests, index})
}

// onState takes a hash of this node's own state: first the index that was chosen for it,
// which the others are asked about before they have come to it, then the hash.
func (a *audit) onState(m *messages.StateRead) {
	at := slices.IndexFunc(a.reads, func(r pendingRead) bool { return r.request == m.Request })
	if at < 0 {
		return
	}
	why, pending := a.reads[at], m.Code == messages.Code_OK && len(m.Hash) == 0
	if !pending {
		a.reads = slices.Delete(a.reads, at, at+1)
	}
	q := a.question
	switch {
	case why.asker != 0 && !pending:
		a.emit(answerPeer{why.asker, &messages.AuditAnswer{Round: why.round, Code: m.Code, Digest: &messages.RangeDigest{Hash: m.Hash}, Lineage: a.lineage}})
	case why.asker != 0, q == nil, why.round != a.round:
	case m.Code != messages.Code_OK:
		a.question, a.pause = nil, againTicks
	case pending:
		q.index = m.Index
		a.askVoices()
	default:
		q.own, q.lineage = &messages.RangeDigest{Hash: m.Hash}, a.lineage
		a.judgeIfHeard()
	}
}

func (a *audit) read(why pendingRead, revision uint64, d *messages.Digest) {
	a.requests++
	why.request = a.requests
	a.reads = append(a.reads, why)
	a.emit(readOwn{a.requests, revision, d})
}

// onRead takes a digest of this node's own.
func (a *audit) onRead(m *messages.ReadReply) {
	at := slices.IndexFunc(a.reads, func(r pendingRead) bool { return r.request == m.Request })
	if at < 0 {
		return
	}
	why := a.reads[at]
	a.reads = slices.Delete(a.reads, at, at+1)
	switch {
	case why.asker != 0:
		a.emit(answerPeer{why.asker, &messages.AuditAnswer{Round: why.round, Code: m.Code, Digest: m.Digest, Lineage: a.lineage}})
	case a.question != nil && why.round == a.round:
		a.onOwn(m)
	}
}

// onOwn takes this node's own digest, which decides what the others are asked.
func (a *audit) onOwn(m *messages.ReadReply) {
	q := a.question
	if m.Code == messages.Code_COMPACTED && q.again { // the verdict's revision is gone: what lies there now?
		a.begin(&question{from: q.from, to: q.to, again: true}, 0)
		return
	}
	if m.Code != messages.Code_OK || m.Digest == nil {
		a.question, a.pause = nil, againTicks
		return
	}
	if a.rowless = m.Revision == 0; a.rowless { // to ask for revision 0 is to ask for the newest
		a.question, a.stateDue, a.pause = nil, a.stateDue || !q.again, a.ticks
		return
	}
	q.own, q.revision, q.lineage = m.Digest, m.Revision, a.lineage
	if m.Digest.More { // the range ends behind the last key that was read: later rows of others are no difference
		q.to = append(bytes.Clone(m.Digest.Last), 0)
	}
	a.askVoices()
}

// posed reports whether it is fixed what the others are asked.
func (q *question) posed() bool { return q.own != nil || q.state && q.index > 0 }

func (a *audit) askVoices() {
	q := a.question
	if !q.posed() {
		return
	}
	for _, v := range q.voices {
		if v.digest == nil && !v.silent {
			if q.state {
				a.emit(askPeer{v.member.RaftId, &messages.AuditAsk{Round: a.round, Index: q.index}})
				continue
			}
			// One row more than there are here shows that there is one more.
			a.emit(askPeer{v.member.RaftId, &messages.AuditAsk{
				Round: a.round, Revision: q.revision, From: q.from, To: q.to, Limit: uint32(q.own.Rows) + 1,
			}})
		}
	}
}

// onAsk answers for this node. One question of each member is in hand: a later one
// takes its place, and the same one once more changes nothing.
func (a *audit) onAsk(asker messages.RaftID, m *messages.AuditAsk) {
	if slices.ContainsFunc(a.reads, func(r pendingRead) bool { return r.asker == asker && r.round == m.Round }) {
		return
	}
	a.reads = slices.DeleteFunc(a.reads, func(r pendingRead) bool { return r.asker == asker })
	if m.Index > 0 {
		a.readState(pendingRead{asker: asker, round: m.Round}, m.Index)
		return
	}
	a.read(pendingRead{asker: asker, round: m.Round}, m.Revision, &messages.Digest{From: m.From, To: m.To, Limit: m.Limit})
}

func (a *audit) onAnswer(peer messages.RaftID, m *messages.AuditAnswer) {
	if a.vouching.mute[peer] {
		delete(a.vouching.mute, peer)
		a.vouching.alone = 0
	}
	q := a.question
	if q == nil || !q.posed() || m.Round != a.round {
		return
	}
	for i := range q.voices {
		v := &q.voices[i]
		if v.member.RaftId == peer && v.digest == nil {
			switch {
			case m.Code == messages.Code_OK && m.Digest != nil:
				v.digest, v.lineage = m.Digest, m.Lineage
			case m.Code != messages.Code_INVALID: // else it is not there yet, and asked again
				v.silent = true
			}
		}
	}
	a.judgeIfHeard()
}

// judgeIfHeard judges once this node's own digest is there and nobody else's is open.
func (a *audit) judgeIfHeard() {
	open := func(v voice) bool { return v.digest == nil && !v.silent && !v.late }
	if a.question.own != nil && !slices.ContainsFunc(a.question.voices, open) {
		a.judge()
	}
}

// judge compares what was answered, and moves the walk on behind the range.
func (a *audit) judge() {
	q := a.question
	a.question = nil
	if q.own == nil { // this node's own read was lost: the walk stays where it is
		a.pause = againTicks
		return
	}
	held, most := q.majority(a.self, a.members)
	if !q.again {
		a.noteMute(q)
		a.goOn(q)
		a.follow(q, held)
	}
	switch {
	case held == nil && q.differ():
		a.emit(warn{fmt.Sprintf("the members hold different %s, and no majority holds the same%s", q.text(), q.copies(a.self, a.members))})
	case held == nil:
	case q.same(q.own, held):
		a.tellOthers(q, held, most)
	case q.again:
		a.emit(condemn{fmt.Sprintf("this node holds other %s than %s: its disk altered or lost what was written", q.text(), strings.Join(most, " and "))})
	default:
		a.onVerdict(q.verdict())
	}
}

// tellOthers tells those who differ from the majority; this node belongs to it.
func (a *audit) tellOthers(q *question, held *messages.RangeDigest, most []string) {
	for _, v := range q.voices {
		if v.digest == nil || q.same(v.digest, held) {
			continue
		}
		a.emit(warn{fmt.Sprintf("%s holds other %s than %s", messages.MemberName(a.members, v.member.RaftId), q.text(), strings.Join(most, " and "))})
		a.emit(tell{v.member.RaftId, q.verdict()})
	}
}

// goOn moves the walk on behind the range, faster where somebody waits for its end.
func (a *audit) goOn(q *question) {
	pause, between := a.ticks, uint32(passTicks)
	if len(a.vouching.asked) > 0 {
		pause, between = 1, 1
	}
	if q.state {
		a.stateDue, a.pause, a.walked = false, between, a.walked+1
		return
	}
	a.cursor, a.pause, a.stateDue = q.to, pause, len(q.to) == 0
}

// copied is what one member holds.
type copied struct {
	member  messages.RaftID
	digest  *messages.RangeDigest
	lineage *messages.Lineage
}

// heard is what was answered, this node's own first.
func (q *question) heard(self messages.RaftID) []copied {
	all := []copied{{self, q.own, q.lineage}}
	for _, v := range q.voices {
		if v.digest != nil {
			all = append(all, copied{v.member.RaftId, v.digest, v.lineage})
		}
	}
	return all
}

// camp are those that hold the same.
type camp struct {
	digest *messages.RangeDigest
	all    []copied
}

func (q *question) camps(self messages.RaftID) (all []*camp) {
	for _, c := range q.heard(self) {
		i := slices.IndexFunc(all, func(o *camp) bool { return q.same(c.digest, o.digest) })
		if i < 0 {
			all, i = append(all, &camp{digest: c.digest}), len(all)
		}
		all[i].all = append(all[i].all, c)
	}
	return all
}

// witnesses is how many have come by it without one another: those whose states come from one
// another, or from one that holds something else by now, are one. What rotted before it was
// copied has no witness in the copy.
func (c *camp) witnesses() int {
	of, heads := kinOf(c.all), map[messages.RaftID]bool{}
	for _, m := range c.all {
		heads[of.head(m.member)] = true
	}
	return len(heads)
}

// majority is what more than half of all members hold and more than half of the witnesses, and
// who they are; nil if there is no such thing. A member that was not heard counts as one for
// something else.
func (q *question) majority(self messages.RaftID, members []*messages.Member) (*messages.RangeDigest, []string) {
	camps := q.camps(self)
	witnesses := len(members)
	for _, c := range camps {
		witnesses -= len(c.all) - c.witnesses()
	}
	for _, c := range camps {
		if 2*len(c.all) <= len(members) || 2*c.witnesses() <= witnesses {
			continue
		}
		var who []string
		for _, m := range c.all {
			who = append(who, messages.MemberName(members, m.member))
		}
		return c.digest, who
	}
	return nil, nil
}

// copies says, for people, whose states come from others'.
func (q *question) copies(self messages.RaftID, members []*messages.Member) string {
	var text strings.Builder
	for _, c := range q.heard(self) {
		if from := c.lineage.GetFrom(); len(from) > 0 {
			fmt.Fprintf(&text, "; what %s holds is a copy of what %s held", messages.MemberName(members, c.member), messages.MemberName(members, from[0]))
		}
	}
	return text.String()
}

func (q *question) differ() bool {
	return slices.ContainsFunc(q.voices, func(v voice) bool { return v.digest != nil && !q.same(v.digest, q.own) })
}

// same reports whether two hold equal rows, and nothing behind them in the range.
func (q *question) same(x, y *messages.RangeDigest) bool {
	// This node's own rows end the range: what it holds behind them does not count.
	more := func(d *messages.RangeDigest) bool { return d.More && d != q.own }
	return x.Rows == y.Rows && bytes.Equal(x.Hash, y.Hash) && more(x) == more(y)
}

// onVerdict has this node ask all members itself, at the revision of the verdict. A
// verdict that they do not confirm has no effect.
func (a *audit) onVerdict(m *messages.AuditVerdict) {
	if a.question == nil || !a.question.again {
		a.begin(&question{state: m.State, revision: m.Revision, from: m.From, to: m.To, again: true}, 0)
	}
}

func (q *question) verdict() *messages.AuditVerdict {
	return &messages.AuditVerdict{Revision: q.revision, From: q.from, To: q.to, State: q.state}
}

// text is what was compared, for people.
func (q *question) text() string {
	if q.state {
		return fmt.Sprintf("state beside the rows at index %d (members, sessions, configuration, level)", q.index)
	}
	return fmt.Sprintf("rows %s at revision %d", rangeText(q.from, q.to), q.revision)
}

func rangeText(from, to []byte) string {
	switch {
	case len(from) == 0 && len(to) == 0:
		return "of all keys"
	case len(to) == 0:
		return fmt.Sprintf("from key %.60q on", from)
	}
	return fmt.Sprintf("of keys %.60q to %.60q", from, bytes.TrimSuffix(to, []byte{0}))
}
