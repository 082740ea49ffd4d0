package storeactor

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/mutant"
)

// LogConfig is what the log actor needs.
type LogConfig struct {
	Raft  *actor.PID
	Disk  Disk
	Fatal func(reason error)
}

// NewLog makes the actor that owns the log. It tells raft LogOpened when it
// starts; from then on it makes durable what raft appends, in order.
func NewLog(config LogConfig) actor.Producer {
	return func() actor.Actor { return &logActor{config: config} }
}

// logActor merges all appends in its mailbox into one Save and so one fsync.
type logActor struct {
	config LogConfig
	log    Log
	commit uint64 // of the last saved HardState; durable after a Sync
	failed bool   // the disk is not to be used again

	// pending are the appends of the next Save. Raft bounds them: two appends with
	// entries are under way at most.
	pending []*messages.Append
	// waiting are those who need a commit that was not saved yet; the checkpoint
	// actor asks for one at a time.
	waiting []commitWait
}

type commitWait struct {
	index uint64
	asker *actor.PID
}

func (l *logActor) Receive(ctx actor.Context) {
	if l.failed {
		return
	}
	switch m := ctx.Message().(type) {
	case *actor.Started:
		l.onStarted(ctx)
	case *messages.Append:
		l.onAppend(ctx, m)
	case *messages.Flush:
		l.onFlush(ctx)
	case *messages.SyncCommit:
		l.onSyncCommit(ctx, m)
	case *actor.Stopping:
		l.onStopping(ctx)
	default:
		unexpected(ctx)
	}
}

func (l *logActor) onStarted(ctx actor.Context) {
	log, image, err := l.config.Disk.OpenLog()
	if err != nil {
		l.fail(fmt.Errorf("open the log: %w", err))
		return
	}
	l.log, l.commit = log, image.HardState.GetCommit()
	ctx.Send(l.config.Raft, &messages.LogOpened{
		HardState: image.HardState,
		BaseIndex: image.BaseIndex,
		BaseTerm:  image.BaseTerm,
		Entries:   image.Entries,
	})
}

func (l *logActor) onAppend(ctx actor.Context, m *messages.Append) {
	if !raft.IsEmptySnap(m.Message.GetSnapshot()) {
		l.fail(messages.Errorf(messages.Code_UNSUPPORTED, "the leader sent a snapshot, and snapshots are not supported by this version").
			WithHint("start a version that supports them"))
		return
	}
	l.pending = append(l.pending, m)
	if len(l.pending) == 1 {
		ctx.Send(ctx.Self(), &messages.Flush{})
	}
}

func (l *logActor) onFlush(ctx actor.Context) {
	hs, entries := mergeAppends(l.pending)
	if hs != nil || len(entries) > 0 {
		if err := l.log.Save(hs, entries); err != nil {
			l.fail(fmt.Errorf("write the log: %w", err))
			return
		}
	}
	for i, m := range l.pending {
		ctx.Send(l.config.Raft, &messages.Appended{Message: m.Message})
		l.pending[i] = nil
	}
	l.pending = l.pending[:0]
	if hs != nil {
		l.commit = hs.GetCommit()
		l.answerWaiting(ctx)
	}
}

func (l *logActor) onSyncCommit(ctx actor.Context, m *messages.SyncCommit) {
	l.waiting = append(l.waiting, commitWait{index: m.Index, asker: ctx.Sender()})
	l.answerWaiting(ctx)
}

// answerWaiting syncs once for all whose commit was saved, and tells them.
func (l *logActor) answerWaiting(ctx actor.Context) {
	var ready, rest []commitWait
	for _, w := range l.waiting {
		if w.index <= l.commit {
			ready = append(ready, w)
		} else {
			rest = append(rest, w)
		}
	}
	if len(ready) == 0 {
		return
	}
	if err := l.log.Sync(); err != nil {
		l.fail(fmt.Errorf("sync the log: %w", err))
		return
	}
	l.waiting = rest
	for _, w := range ready {
		ctx.Send(w.asker, &messages.CommitSynced{Index: w.index})
	}
}

func (l *logActor) onStopping(ctx actor.Context) {
	if l.log == nil {
		return
	}
	if err := l.log.Close(); err != nil {
		ctx.Logger().Error("the log did not close cleanly", "error", err)
	}
}

func (l *logActor) fail(reason error) {
	l.failed = true
	l.config.Fatal(reason)
}

// mergeAppends is what appends, in order, leave behind: the last hard state, or
// nil, and the entries as one suffix of the log. A later append may overwrite the
// end of an earlier one.
func mergeAppends(appends []*messages.Append) (*raftpb.HardState, []*raftpb.Entry) {
	var hs *raftpb.HardState
	var entries []*raftpb.Entry
	for _, a := range appends {
		m := a.Message
		if m.Term != nil || m.Vote != nil || m.Commit != nil {
			hs = &raftpb.HardState{Term: new(m.GetTerm()), Vote: new(m.GetVote()), Commit: new(m.GetCommit())}
			if mutant.VoteNotPersisted { // after a restart it votes again
				hs.Vote = new(raft.None)
			}
		}
		entries = mergeEntries(entries, m.GetEntries())
	}
	return hs, entries
}

// mergeEntries never writes into either argument's array: they belong to messages.
func mergeEntries(before, after []*raftpb.Entry) []*raftpb.Entry {
	if len(before) == 0 || len(after) == 0 {
		return append(before[:len(before):len(before)], after...)
	}
	first, next := before[0].GetIndex(), after[0].GetIndex()
	if next > first+uint64(len(before)) {
		panic(fmt.Sprintf("an append at index %d leaves a gap behind index %d", next, first+uint64(len(before))-1))
	}
	kept := int(max(next, first) - first)
	if mutant.MergeKeepsAll { // what the later append replaces stays
		kept = len(before)
	}
	return append(before[:kept:kept], after...)
}

// unexpected reports a message that an actor has no handler for. Messages of an
// actor's life need none.
func unexpected(ctx actor.Context) {
	switch ctx.Message().(type) {
	case actor.AutoReceiveMessage, actor.SystemMessage:
	default:
		ctx.Logger().Error("unexpected message", "actor", ctx.Self().Id, "type", fmt.Sprintf("%T", ctx.Message()))
	}
}
