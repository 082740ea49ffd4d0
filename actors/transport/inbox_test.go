package transport

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

func appendOf(from uint64, size int) *messages.RaftMessage {
	return &messages.RaftMessage{Message: &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: &from, Entries: []*raftpb.Entry{{Data: make([]byte, size)}},
	}}
}

func beatOf(from uint64) *messages.RaftMessage {
	return &messages.RaftMessage{Message: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from}}
}

// fill hands over what a peer sends until it is dropped, and returns how much that was.
func fill(b *Inbox, peer uint64, m *messages.RaftMessage) (taken int) {
	for b.Enter(peer, m) {
		taken++
	}
	return taken
}

// A flood of appends leaves others their appends, and all their heartbeats; a flood of
// heartbeats leaves others theirs. What the actor takes makes room again.
func TestInbox(t *testing.T) {
	b := &Inbox{}
	large := appendOf(2, 1<<20)
	if got := fill(b, 2, large); got != inboxPeerMax/(1<<20)-1 {
		t.Errorf("%d MiB of one peer were taken", got)
	}
	if !b.Enter(2, beatOf(2)) || !b.Enter(3, beatOf(3)) || !b.Enter(3, appendOf(3, 1<<20)) {
		t.Error("a flood of appends costs heartbeats, or another's appends")
	}
	if fill(b, 2, beatOf(2)) == 0 || b.Enter(2, beatOf(2)) || !b.Enter(3, beatOf(3)) {
		t.Error("a flood of heartbeats has no bound, or costs another's")
	}
	lost := b.Lost()
	if b.Enter(2, large) || b.Lost() != lost+1 || lost < 3 {
		t.Errorf("%d and then %d are counted as lost", lost, b.Lost())
	}
	b.Took(2, large)
	if !b.Enter(2, large) || b.Enter(2, large) {
		t.Error("what was taken does not make room for as much")
	}
	all := 0
	for peer := uint64(4); peer < 20; peer++ {
		all += fill(b, peer, large)
	}
	if all < inboxMax/(1<<20)*2/3 || b.bulk.Load() > inboxMax {
		t.Errorf("%d MiB of others were taken, %d bytes are held", all, b.bulk.Load())
	}
	if !b.Enter(5, beatOf(5)) {
		t.Error("appends of all cost a heartbeat")
	}
	if !(*Inbox)(nil).Enter(2, large) || (*Inbox)(nil).Lost() != 0 {
		t.Error("no inbox has a bound")
	}
}

// What enters and is taken leaves nothing behind.
func TestInboxCountsOut(t *testing.T) {
	b := &Inbox{}
	for _, m := range []*messages.RaftMessage{beatOf(2), appendOf(2, 0), appendOf(2, 77)} {
		b.Enter(2, m)
		b.Took(2, m)
	}
	p := &messages.Propose{Origin: 2, Command: []byte("command")}
	b.Enter(2, p)
	if b.bulk.Load() == 0 {
		t.Error("a proposal is not counted")
	}
	b.Took(2, p)
	if s := &b.peers[2]; b.bulk.Load() != 0 || s.bulk.Load() != 0 || s.brief.Load() != 0 {
		t.Errorf("%d, %d, %d bytes are left", b.bulk.Load(), s.bulk.Load(), s.brief.Load())
	}
}
