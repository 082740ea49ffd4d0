package transport

import (
	"bytes"
	"maps"
	"slices"

	"keyval/messages"
	"keyval/mutant"
)

// Known is what a node knows of the members. It is used to refuse, never to require:
// a node that lags must hear leaders that it does not know yet. The zero Known knows
// nobody. A Known is never modified.
type Known struct {
	incarnations map[messages.RaftID][]byte // of members; empty: not bound yet
	names        map[messages.RaftID]string // of members
	next         messages.RaftID            // all below were given, and are never reused; 0: the cluster is not founded
	heard        map[messages.RaftID]*messages.Start
}

// heardMax bounds the nodes whose starts are remembered, in number.
const heardMax = 64

// With returns what is known once these are the members and nextID is the RaftID that is
// given next; 0: the cluster is not founded. An empty list changes nothing.
func (k Known) With(members []*messages.Member, nextID messages.RaftID) Known {
	if len(members) == 0 {
		return k
	}
	next := Known{incarnations: map[messages.RaftID][]byte{}, names: map[messages.RaftID]string{}, next: nextID, heard: map[messages.RaftID]*messages.Start{}}
	for _, m := range members {
		next.incarnations[m.RaftId], next.names[m.RaftId] = m.Incarnation, m.Name
		if s := k.heard[m.RaftId]; s != nil && (len(m.Incarnation) == 0 || bytes.Equal(s.Incarnation, m.Incarnation)) {
			next.heard[m.RaftId] = s
		}
	}
	return next
}

// Hear returns what is known once a node was heard that this node does not refuse.
// news is its start, if it was started anew since it was heard last.
func (k Known) Hear(id messages.RaftID, incarnation []byte, starts *messages.Starts) (next Known, news *messages.Start) {
	last, n := k.heard[id], len(starts.GetMarks())
	known := last != nil && bytes.Equal(last.Incarnation, incarnation)
	if n == 0 || known && last.Number >= starts.Number || last == nil && len(k.heard) >= heardMax {
		return k, nil
	}
	news = &messages.Start{RaftId: id, Incarnation: incarnation, Number: starts.Number, Mark: starts.Marks[n-1]}
	return k.Remember(&messages.StartsHeard{Heard: []*messages.Start{news}}), news
}

// Remember returns what is known once these starts were heard.
func (k Known) Remember(heard *messages.StartsHeard) Known {
	next := k
	next.heard = map[messages.RaftID]*messages.Start{}
	maps.Copy(next.heard, k.heard)
	for _, s := range heard.GetHeard() {
		next.heard[s.RaftId] = s
	}
	return next
}

// Heard is all that was heard, by RaftID.
func (k Known) Heard() *messages.StartsHeard {
	all := &messages.StartsHeard{}
	for _, id := range slices.Sorted(maps.Keys(k.heard)) {
		all.Heard = append(all.Heard, k.heard[id])
	}
	return all
}

// descends reports whether a directory of these starts is the one that was heard, or
// what became of it. One that counts as many starts and does not hold the mark is an
// older copy on which others were started.
func descends(starts *messages.Starts, heard *messages.Start) bool {
	if starts.GetNumber() < heard.Number {
		return false
	}
	since, kept := starts.Number-heard.Number, uint64(len(starts.Marks))
	return since >= kept || starts.Marks[kept-1-since] == heard.Mark
}

// Removed reports whether id was a member and is none any more. An id that was not given
// yet, as far as this node knows, is a stranger's: it may lag.
func (k Known) Removed(id messages.RaftID) bool {
	_, member := k.incarnations[id]
	return id < k.next && !member
}

// Standing is that of whoever sent a hello which is admitted. A member is one whose
// incarnation is known.
func (k Known) Standing(h *messages.Hello) Standing {
	known := k.incarnations[h.RaftId]
	switch {
	case h.Role == messages.Role_CLIENT:
		return Client
	case len(known) > 0 && bytes.Equal(known, h.Incarnation):
		return Member
	}
	return Newcomer
}

// Refuses says why this node takes no connection from a replica; nil: it does. A member that
// is not bound here yet is heard, as one is that this node does not know: nobody learns a
// RaftID before its directory is agreed upon, so this node lags, and that may be its leader.
func (k Known) Refuses(id messages.RaftID, incarnation []byte, starts *messages.Starts) *messages.Error {
	known, heard := k.incarnations[id], k.heard[id]
	switch {
	case k.Removed(id) && !mutant.OldUnfenced:
		return messages.Errorf(messages.Code_REMOVED, "raft id %d was removed from this cluster", id).
			WithHint("stop that node: a removed identity never comes back")
	case len(known) > 0 && !bytes.Equal(known, incarnation):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "raft id %d has another incarnation here: a wiped node under its old name", id).
			WithHint("start it on its old data directory; if that is lost: kvctl cluster replace NAME NAME HOST:PORT, then serve --join on an empty directory")
	case heard != nil && bytes.Equal(heard.Incarnation, incarnation) && !descends(starts, heard):
		return messages.Errorf(messages.Code_DAMAGED, "the data directory of raft id %d is an older copy: it counts %d starts, and start %d was heard here as another process", id, starts.GetNumber(), heard.Number).
			WithHint("this node must not vote: keep its directory for inspection; the other nodes serve on without it")
	}
	return nil
}
