package audit

import (
	"fmt"
	"maps"
	"slices"

	"keyval/messages"
	"keyval/mutant"
)

// A state that was installed from a member's snapshot has what that member's disk did to
// it. So it is no second witness, until a whole walk has found it equal to the state of a
// member from which it does not come; and who is to ship a state asks first whether such a
// walk has found it equal not long ago.

// Ages of a vouching, in ticks.
const (
	vouchedTicks = 600              // an equal walk counts as long, and for twice its own length
	aloneTicks   = 200              // so long nobody is asked again whom none of another lineage has answered
	hasteTicks   = 2*againTicks + 1 // a member that has not answered by then has no voice while somebody waits
)

// kin joins members whose states come from one another: each leads to the next, the last
// to itself.
type kin map[messages.RaftID]messages.RaftID

func kinOf(heard []copied) kin {
	k := kin{}
	for _, c := range heard {
		for _, from := range c.lineage.GetFrom() {
			if !mutant.LineageIgnored {
				k[k.head(c.member)] = k.head(from)
			}
		}
	}
	return k
}

// head stands for all that are joined with a member.
func (k kin) head(id messages.RaftID) messages.RaftID {
	for next, joined := k[id]; joined && next != id; next, joined = k[id] {
		id = next
	}
	return id
}

// walk is what a walk from the first key on has shown so far.
type walk struct {
	age     uint32
	equal   map[messages.RaftID]uint64 // members that were like one of another lineage in every question, with the index of their own
	differs string                     // what this node and another hold differently, and no majority settles
}

// vouching is what is known of this node's own state, and who waits for it.
type vouching struct {
	equal bool   // a whole walk found it like one of another lineage
	age   uint32 // since that
	long  uint32 // ticks that it took
	alone uint32 // ticks for which nobody who could tell is expected to answer; a member that was mute ends it
	asked []*messages.VouchState
	mute  map[messages.RaftID]bool // members that have let a question of the walk pass, and not answered since
}

// patience is how long a question waits for answers.
func (a *audit) patience(q *question) uint32 {
	if len(a.vouching.asked) > 0 && !q.again {
		return hasteTicks
	}
	return giveUpTicks
}

// follow takes a question into the walk's account, and ends it with the state's.
func (a *audit) follow(q *question, held *messages.RangeDigest) {
	if q.first {
		a.walk = &walk{equal: map[messages.RaftID]uint64{}}
	}
	w, heard := a.walk, q.heard(a.self)
	if held != nil && !q.same(q.own, held) {
		a.vouching.equal = false
	}
	if held == nil && q.differ() {
		a.vouching.equal = false
		text := fmt.Sprintf("the members hold different %s", q.text())
		if w != nil {
			w.differs = text
		}
		a.refuse(text, len(heard))
	}
	if w == nil {
		return
	}
	of, like := kinOf(heard), map[messages.RaftID]uint64{}
	for _, c := range heard {
		if slices.ContainsFunc(heard, func(o copied) bool { return of.head(o.member) != of.head(c.member) && q.same(o.digest, c.digest) }) {
			like[c.member] = c.lineage.GetIndex()
		}
	}
	if q.first {
		maps.Copy(w.equal, like)
	}
	maps.DeleteFunc(w.equal, func(id messages.RaftID, index uint64) bool {
		now, is := like[id]
		return !is || now != index
	})
	if q.state {
		a.endWalk(heard)
	}
}

// endWalk confirms who has a lineage and was equal throughout.
func (a *audit) endWalk(heard []copied) {
	w := a.walk
	a.walk = nil
	for _, c := range heard {
		index, equal := w.equal[c.member]
		switch {
		case !equal || len(c.lineage.GetFrom()) == 0:
		case c.member == a.self:
			a.emit(confirmOwn{index})
		default:
			a.emit(confirmPeer{c.member, index})
		}
	}
	if _, equal := w.equal[a.self]; equal {
		a.vouching.equal, a.vouching.age, a.vouching.long = true, 0, w.age
		a.answerVouches(messages.Code_OK, "")
		return
	}
	switch {
	case w.differs != "":
		a.refuse(w.differs, len(heard))
	case len(a.vouching.asked) > 0:
		a.vouching.alone = aloneTicks
	}
	a.answerVouches(messages.Code_UNREACHABLE, nobodyAnswered)
}

// refuse keeps a state from being shipped that differs from another, unless those who are
// here are no quorum without the receiver.
func (a *audit) refuse(what string, heard int) {
	if 2*heard > len(a.members) {
		a.answerVouches(messages.Code_CONFLICT, what)
	}
}

const nobodyAnswered = "no other member of another lineage has answered"

// onVouch answers at once if an equal walk is fresh, or if there is nobody to ask. Where nobody
// could tell a moment ago it does too: a member that falls behind while its snapshot waits for
// others would need the next one, for ever.
func (a *audit) onVouch(m *messages.VouchState) {
	others := func(o *messages.Member) bool { return o.RaftId != a.self && o.RaftId != m.Peer }
	v := &a.vouching
	switch {
	case v.equal && v.age <= vouchedTicks+2*v.long, !slices.ContainsFunc(a.members, others):
		a.emit(vouchFor(m, messages.Code_OK, ""))
	case a.leader != a.self:
		a.emit(vouchFor(m, messages.Code_UNREACHABLE, "this node does not lead, as its audit knows"))
	case v.alone > 0:
		a.emit(vouchFor(m, messages.Code_UNREACHABLE, nobodyAnswered))
	default:
		v.asked = append(slices.DeleteFunc(v.asked, func(o *messages.VouchState) bool { return o.Peer == m.Peer }), m)
		a.pause = min(a.pause, 1)
		a.hush(m.Peer)
	}
}

// receives reports whether a member waits for this node's state: it lacks what it would be
// asked about, so it has no voice.
func (a *audit) receives(peer messages.RaftID) bool {
	return slices.ContainsFunc(a.vouching.asked, func(m *messages.VouchState) bool { return m.Peer == peer })
}

// isMute reports whether nobody waits for a member while somebody waits for the walk's end: it
// has let a question pass, and not answered since.
func (a *audit) isMute(peer messages.RaftID) bool {
	return len(a.vouching.asked) > 0 && a.vouching.mute[peer]
}

// noteMute remembers who has let a question pass.
func (a *audit) noteMute(q *question) {
	if q.first {
		a.vouching.mute = map[messages.RaftID]bool{}
	}
	for _, v := range q.voices {
		if v.digest == nil && !v.silent && a.vouching.mute != nil {
			a.vouching.mute[v.member.RaftId] = true
		}
	}
}

// hush ends the waiting for a member's voice.
func (a *audit) hush(peer messages.RaftID) {
	q := a.question
	if q == nil || q.again {
		return
	}
	for i := range q.voices {
		if v := &q.voices[i]; v.member.RaftId == peer && v.digest == nil {
			v.silent = true
		}
	}
	a.judgeIfHeard()
}

func (a *audit) answerVouches(code messages.Code, text string) {
	for _, m := range a.vouching.asked {
		a.emit(vouchFor(m, code, text))
	}
	a.vouching.asked = nil
}

func vouchFor(m *messages.VouchState, code messages.Code, text string) vouch {
	return vouch{&messages.StateVouched{Holder: m.Holder, Code: code, Message: text}}
}
