package raftactor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyval/messages"
	"keyval/mutant"
)

// A replica that lost what it had made durable (its directory was put back to an older
// copy, a file is gone) has acknowledged entries and granted votes that it does not know of
// any more. With its next vote the group may lose what it has acknowledged. So it must not
// take part, and a restart must not make it forget that.
//
// The others notice: a leader counts on entries that are not here, or a member has heard a
// process that ran on this directory since, and lets none of this one in. One message is no
// proof, and a sound replica that is sent away is a loss too. So a replica that is accused
// falls mute at once, asks, and goes through these stages:
//
//   - asking, when it starts: a member that knows better says so before this one votes.
//   - takesPart.
//   - doubted: a heartbeat counts on what is not here. Its sender is asked. If it takes it
//     back, the replica is clear again.
//   - suspected: a member has accused it when it was asked. That is durable.
//   - condemned: a majority stands by an accuser. The process ends for good.
//
// A suspicion is lifted when all accusers have taken it back, or when it does not matter any
// more: a majority follows a leader of a later term, which has committed entries in it
// without this replica, and no accuser is among them. Each entry that was committed with an
// acknowledgement of this replica is then on a quorum without it, and none of those will
// ever again vote in a term in which it may have voted.

const (
	// fenceStartTicks is how long a replica that starts waits for the answers of those that
	// do not answer. It is over before the replica may stand for election.
	fenceStartTicks = 4
	fenceAskTicks   = 10 // between two questions
)

const _ = uint(startTicks - fenceStartTicks - 1)

type stage int

const (
	asking stage = iota
	takesPart
	doubted
	suspected
	condemned
)

// view is what a fence sees of its replica.
type view struct {
	self   uint64
	term   uint64
	last   uint64   // index at which the durable log ends
	voters []uint64 // of the configuration, in order
	// halves are these by configuration, the second one empty unless they are changed
	// right now: a majority is one of each.
	halves [2][]uint64
}

// most reports whether these are a majority.
func (v view) most(ids map[uint64]bool) bool {
	for i, half := range v.halves {
		n := 0
		for _, id := range half {
			if ids[id] {
				n++
			}
		}
		if 2*n <= len(half) && (i == 0 || len(half) > 0) {
			return false
		}
	}
	return true
}

// others is the number of voters but this replica.
func (v view) others() (n int) {
	for _, id := range v.voters {
		if id != v.self {
			n++
		}
	}
	return n
}

func (v view) votes(id uint64) bool { return id != v.self && slices.Contains(v.voters, id) }

// fence decides whether its replica may take part.
//
// Invariants: answers are to the question of this nonce. A suspicion is only judged when it
// is durable; it has accusations in stages suspected and condemned, and in no other.
type fence struct {
	stage     stage
	nonce     uint64 // of the last question; the first is random
	wait      int    // ticks until it asks again, or has waited long enough
	doubt     *messages.Accusation
	suspicion *messages.Suspicion
	recording int // changes of the suspicion that are not durable yet
	answers   map[uint64]*messages.LossAnswer
	refused   map[uint64]bool // by whom, since that one answered last

	effects []Effect
}

// newFence makes the fence of a process. The suspicion is what its directory holds.
func newFence(nonce uint64, suspicion *messages.Suspicion) *fence {
	f := &fence{nonce: nonce, refused: map[uint64]bool{}, suspicion: &messages.Suspicion{}}
	if len(suspicion.GetAccusations()) > 0 && !mutant.SuspicionForgotten {
		f.stage, f.suspicion = suspected, suspicion
	}
	return f
}

func (f *fence) emit(e Effect) { f.effects = append(f.effects, e) }

func (f *fence) take() []Effect {
	out := f.effects
	f.effects = nil
	return out
}

// mute reports whether the replica must not take part.
func (f *fence) mute() bool {
	return f.stage != takesPart && !(mutant.SuspectVotes && f.stage == suspected)
}

// fenced reports whether this node may have lost data, so that it answers no reads either.
func (f *fence) fenced() bool { return f.mute() && f.stage != asking }

// open begins: the log is read, and it is known who votes.
func (f *fence) open(v view) {
	if f.stage == suspected {
		f.emit(Warn{"this node is suspected to have lost acknowledged data, and neither votes nor answers until a majority of the members has settled that: " + f.said()})
	}
	f.ask(v, fenceStartTicks)
	for _, id := range v.voters {
		if f.refused[id] {
			f.suspect(v, &messages.Accusation{RaftId: id, Last: v.last})
		}
	}
	f.settle(v)
}

func (f *fence) ask(v view, wait int) {
	f.nonce++
	f.wait, f.answers = wait, map[uint64]*messages.LossAnswer{}
	f.askAgain(v)
}

// askAgain asks those who have not answered.
func (f *fence) askAgain(v view) {
	for _, id := range v.voters {
		if id != v.self && f.answers[id] == nil {
			f.emit(AskLoss{id, &messages.LossAsk{Nonce: f.nonce}})
		}
	}
}

func (f *fence) tick(v view) {
	if f.stage == takesPart || f.stage == condemned {
		return
	}
	switch f.wait--; {
	case f.wait > 0 && f.stage == asking: // when it opens, its peers may not be known to the network yet
		f.askAgain(v)
	case f.wait > 0:
	case f.stage == asking:
		f.stage = takesPart
	default:
		f.ask(v, fenceAskTicks)
	}
}

// accused takes a heartbeat of a leader that counts on more than the log holds.
func (f *fence) accused(v view, by, term, commit uint64) {
	a := &messages.Accusation{RaftId: by, Term: term, Acknowledged: commit, Last: v.last}
	switch {
	case mutant.AccuserBelieved:
		f.suspect(v, a)
	case f.stage == asking || f.stage == takesPart:
		f.stage, f.doubt = doubted, a
		f.emit(Warn{"is asked again, and this node neither votes nor answers meanwhile: " + saidOf(a)})
		f.ask(v, fenceAskTicks)
	}
}

// refusedBy takes a refusal of a member that this node has dialled: that one has heard a
// process which ran on this directory since it was as it is.
func (f *fence) refusedBy(v view, id uint64) {
	f.refused[id] = true
	delete(f.answers, id)
	if v.votes(id) {
		f.suspect(v, &messages.Accusation{RaftId: id, Last: v.last})
		f.settle(v)
	}
}

// answered takes what a member says to the last question.
func (f *fence) answered(v view, from uint64, m *messages.LossAnswer) {
	if f.stage == condemned || m.Nonce != f.nonce || !v.votes(from) {
		return
	}
	delete(f.refused, from)
	f.answers[from] = m
	if a := accuses(v, from, m); a != nil {
		f.suspect(v, a)
	}
	f.settle(v)
}

// accuses is what an answer says of something that is missing here; nil: it does not. A
// leader of an older term does not know what was replaced since; one of this term or a later
// one does, though it may lead no more.
func accuses(v view, from uint64, m *messages.LossAnswer) *messages.Accusation {
	switch {
	case m.Leader == from && m.Term >= v.term && m.Acknowledged > v.last:
		return &messages.Accusation{RaftId: from, Term: m.Term, Acknowledged: m.Acknowledged, Last: v.last}
	case m.LedTerm > 0 && m.LedTerm >= v.term && m.LedAcknowledged > v.last:
		return &messages.Accusation{RaftId: from, Term: m.LedTerm, Acknowledged: m.LedAcknowledged, Last: v.last}
	}
	return nil
}

// suspect makes an accusation durable, unless the same one is already.
func (f *fence) suspect(v view, a *messages.Accusation) {
	for _, known := range f.suspicion.Accusations {
		if known.RaftId == a.RaftId && known.Term == a.Term {
			return
		}
	}
	if f.stage == condemned {
		return
	}
	f.stage, f.doubt = suspected, nil
	f.emit(Warn{"this node is suspected to have lost acknowledged data, and neither votes nor answers until a majority of the members has settled that: " + saidOf(a)})
	f.record(append(slices.Clone(f.suspicion.Accusations), a))
	f.wait = fenceAskTicks
}

func (f *fence) record(accusations []*messages.Accusation) {
	f.suspicion = &messages.Suspicion{Accusations: accusations}
	f.recording++
	f.emit(RecordSuspicion{Suspicion: f.suspicion})
}

// recorded: what was recorded first is durable.
func (f *fence) recorded(v view) {
	f.recording--
	f.settle(v)
}

// settle judges what is known by now.
func (f *fence) settle(v view) {
	switch {
	case f.stage == asking && len(f.answers) == v.others():
		f.stage = takesPart
	case f.stage == doubted:
		if refuted(v, f.doubt, f.answers[f.doubt.RaftId]) || f.overtaken(v, f.doubt.Term, nil) {
			f.stage, f.doubt = takesPart, nil
			f.emit(Warn{"nothing is missing in this node's log"})
		}
	case f.stage == suspected && f.recording == 0:
		f.judge(v)
	}
}

func (f *fence) judge(v view) {
	if voices := f.voices(v); v.most(voices) || mutant.OneVoiceCondemns && len(voices) > 0 {
		f.stage = condemned
		f.emit(RecordSuspicion{Condemned: fmt.Sprintf("acknowledged data was lost on this disk: %s; %s of %d voters stand by that",
			f.said(), idsText(slices.Sorted(maps.Keys(voices))), len(v.voters))})
		return
	}
	if len(f.suspicion.Accusations) == 0 { // that this is so is durable now
		f.stage = takesPart
		return
	}
	if kept := f.kept(v); len(kept) < len(f.suspicion.Accusations) {
		if len(kept) == 0 {
			f.emit(Warn{"the suspicion that this node has lost data is lifted: it is taken back, or all that is committed is on a majority without this node"})
		}
		f.record(kept)
	}
}

// voices are the voters that stand by an accusation: those who accuse, and if one of these
// belongs to those who follow a leader, all of them. An accuser that has a majority with it
// is no stray.
func (f *fence) voices(v view) map[uint64]bool {
	accusers := map[uint64]bool{}
	for _, a := range f.suspicion.Accusations {
		accusers[a.RaftId] = true
	}
	own := map[uint64]bool{} // those who accuse now
	for _, id := range v.voters {
		if m := f.answers[id]; f.refused[id] && id != v.self || m != nil && accuses(v, id, m) != nil {
			own[id] = true
		}
	}
	most := own
	for _, g := range f.followings(v) {
		with := maps.Clone(own)
		stands := false
		for id := range g.members {
			with[id] = true
			stands = stands || accusers[id]
		}
		if stands && (v.most(with) || len(with) > len(most)) {
			most = with
		}
	}
	return most
}

// following is a leader with those who are known to follow it.
type following struct {
	leader, term uint64
	own          *messages.LossAnswer // the leader's; nil: it has not answered
	members      map[uint64]bool      // with the leader, if it has answered or refused
}

// followings are those of the last answers, the newest term first.
func (f *fence) followings(v view) []*following {
	var all []*following
	for _, id := range v.voters {
		m := f.answers[id]
		if m == nil || m.Leader == 0 || m.Term < v.term {
			continue
		}
		i := slices.IndexFunc(all, func(g *following) bool { return g.leader == m.Leader && g.term == m.Term })
		if i < 0 {
			i = len(all)
			all = append(all, &following{leader: m.Leader, term: m.Term, members: map[uint64]bool{}})
		}
		g := all[i]
		g.members[id] = true
		if f.refused[m.Leader] && v.votes(m.Leader) {
			g.members[m.Leader] = true
		}
		if m.Leader != id {
			continue
		}
		g.own = m
		for _, follower := range m.Followers {
			if v.votes(follower) {
				g.members[follower] = true
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *following) int { return int(b.term) - int(a.term) })
	return all
}

// kept are the accusations that are neither taken back nor overtaken.
func (f *fence) kept(v view) []*messages.Accusation {
	accusers := map[uint64]bool{}
	for _, a := range f.suspicion.Accusations {
		accusers[a.RaftId] = true
	}
	return slices.DeleteFunc(slices.Clone(f.suspicion.Accusations), func(a *messages.Accusation) bool {
		return a.Term != 0 && (takenBack(v, a, f.answers[a.RaftId]) || f.overtaken(v, a.Term, accusers))
	})
}

// takenBack reports whether an accuser says in the same term that nothing is missing. What a
// leader counts on only grows, so it was wrong. In a later term it does not know any more.
func takenBack(v view, a *messages.Accusation, m *messages.LossAnswer) bool {
	return m != nil && m.Leader == a.RaftId && m.Term == a.Term && m.Acknowledged <= v.last
}

// refuted reports whether the alleged sender of a heartbeat cannot have sent it, or takes it
// back: it has never been in that term, or follows another leader in it.
func refuted(v view, a *messages.Accusation, m *messages.LossAnswer) bool {
	return takenBack(v, a, m) || m != nil && (m.Term < a.Term || m.Term == a.Term && m.Leader != 0 && m.Leader != a.RaftId)
}

// overtaken reports whether a loss of before a term does not matter any more: a majority
// without this replica, and without the accusers, follows a leader of a later term that
// has committed in it and counts on nothing that is not here.
func (f *fence) overtaken(v view, term uint64, accusers map[uint64]bool) bool {
	return slices.ContainsFunc(f.followings(v), func(g *following) bool {
		for id := range g.members {
			if accusers[id] {
				return false
			}
		}
		return g.term > max(term, v.term) && g.own.GetSettled() && g.own.Acknowledged <= v.last && v.most(g.members)
	})
}

// said is all accusations, for people.
func (f *fence) said() string {
	var all []string
	for _, a := range f.suspicion.Accusations {
		all = append(all, saidOf(a))
	}
	return strings.Join(all, "; ")
}

func saidOf(a *messages.Accusation) string {
	if a.Term == 0 {
		return fmt.Sprintf("raft id %d has heard a process that ran on this data directory since: it was put back to an older copy", a.RaftId)
	}
	return fmt.Sprintf("raft id %d, leader of term %d, counts on entries up to index %d that this node has acknowledged, and its log ended at index %d",
		a.RaftId, a.Term, a.Acknowledged, a.Last)
}

func idsText(ids []uint64) string {
	var all []string
	for _, id := range ids {
		all = append(all, fmt.Sprint(id))
	}
	return "raft ids " + strings.Join(all, " and ")
}
