package transport

import (
	"bytes"
	"maps"

	"keyval/messages"
)

// Known is what a node knows of the members. It is used to refuse, never to require:
// a node that lags must hear leaders that it does not know yet. The zero Known knows
// nobody. A Known is never modified.
type Known struct {
	incarnations map[messages.RaftID][]byte // of members; empty: not known yet
	removed      map[messages.RaftID]bool   // were members once; RaftIDs are never reused
}

// With returns what is known once these are the members. Whoever was a member before
// and is not in the list was removed. An empty list changes nothing.
func (k Known) With(members []*messages.Member) Known {
	if len(members) == 0 {
		return k
	}
	next := Known{incarnations: map[messages.RaftID][]byte{}, removed: map[messages.RaftID]bool{}}
	maps.Copy(next.removed, k.removed)
	for id := range k.incarnations {
		next.removed[id] = true
	}
	for _, m := range members {
		next.incarnations[m.RaftId] = m.Incarnation
		delete(next.removed, m.RaftId)
	}
	return next
}

// Removed reports whether id was a member and is none any more.
func (k Known) Removed(id messages.RaftID) bool { return k.removed[id] }

// Member reports whether a hello comes from a member whose incarnation is known.
func (k Known) Member(h *messages.Hello) bool {
	known := k.incarnations[h.RaftId]
	return h.Role == messages.Role_NODE && len(known) > 0 && bytes.Equal(known, h.Incarnation)
}

// Refuses says why this node takes no connection from a replica; nil: it does.
func (k Known) Refuses(id messages.RaftID, incarnation []byte) *messages.Error {
	known := k.incarnations[id]
	switch {
	case k.removed[id]:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "raft id %d was removed from this cluster", id).
			WithHint("stop that node: a removed identity never comes back")
	case len(known) > 0 && !bytes.Equal(known, incarnation):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "raft id %d has another incarnation here (%x, not %x): a wiped node under its old name",
			id, short(known), short(incarnation)).
			WithHint("start it on its old data directory; the other nodes serve on without it")
	}
	return nil
}

func short(id []byte) []byte { return id[:min(4, len(id))] }
