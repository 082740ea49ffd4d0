package transport

import (
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Inbox counts what links have handed to a node's raft actor and it has not taken yet: a
// mailbox has no bound of its own, and a peer can send faster than an actor works. What
// is above a bound is dropped, since Raft sends it again. Each peer has its own bounds,
// and what carries no entries has its own, so that neither a peer's flood nor a flood of
// appends costs others their votes and heartbeats. A nil Inbox takes all.
type Inbox struct {
	bulk  atomic.Int64 // what carries entries or commands, of all peers, in bytes
	peers [inboxShares]inboxShare
	lost  atomic.Uint64
}

// inboxShare is what is in the mailbox of one peer, in bytes. Peers whose RaftIDs are
// equal modulo inboxShares have one together.
type inboxShare struct{ bulk, brief atomic.Int64 }

const (
	inboxShares   = 64
	inboxOverhead = 256 // of a message or an entry, beside its data, in bytes

	// inboxPeerMax bounds what carries entries or commands, of one peer, in bytes: about
	// what Raft has in flight to one follower. inboxMax bounds it of all, and inboxBriefMax
	// what carries none, of one peer.
	inboxPeerMax  = 32 << 20
	inboxMax      = 128 << 20
	inboxBriefMax = 1 << 20
)

// Enter counts a message in that came from a peer, and reports whether it may be handed
// over. What is no raft actor's concern may.
func (b *Inbox) Enter(peer messages.RaftID, m proto.Message) bool {
	size, bulk, counted := weigh(m)
	if b == nil || !counted {
		return true
	}
	share := &b.peers[peer%inboxShares]
	ok := false
	switch {
	case !bulk:
		ok = take(&share.brief, size, inboxBriefMax)
	case take(&share.bulk, size, inboxPeerMax):
		if ok = take(&b.bulk, size, inboxMax); !ok {
			share.bulk.Add(-size)
		}
	}
	if !ok {
		b.lost.Add(1)
	}
	return ok
}

// take adds to a count unless that takes it above its bound.
func take(count *atomic.Int64, size, most int64) bool {
	if count.Add(size) <= most {
		return true
	}
	count.Add(-size)
	return false
}

// Took counts a message out, which Enter has counted in.
func (b *Inbox) Took(peer messages.RaftID, m proto.Message) {
	size, bulk, counted := weigh(m)
	if b == nil || !counted {
		return
	}
	share := &b.peers[peer%inboxShares]
	if !bulk {
		share.brief.Add(-size)
		return
	}
	share.bulk.Add(-size)
	b.bulk.Add(-size)
}

// Lost counts what was dropped, ever.
func (b *Inbox) Lost() uint64 {
	if b == nil {
		return 0
	}
	return b.lost.Load()
}

// Waits is what carries entries or commands and waits now, in bytes.
func (b *Inbox) Waits() int64 {
	if b == nil {
		return 0
	}
	return b.bulk.Load()
}

// weigh is what a message holds in a mailbox, in bytes, and whether it carries entries or
// commands, or as much. Both sides say the same of a message: it is never modified.
func weigh(m proto.Message) (size int64, bulk, counted bool) {
	switch m := m.(type) {
	case *messages.RaftMessage:
		entries := len(m.GetMessage().GetEntries())
		size = int64(proto.Size(m)) + int64(1+entries)*inboxOverhead
		return size, entries > 0 || size > inboxBriefMax/64, true
	case *messages.Propose:
		return int64(proto.Size(m)) + inboxOverhead, true, true
	}
	return 0, false, false
}
