package storeactor

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// LogConfig is what the log actor needs.
type LogConfig struct {
	Raft, Machine, Snapshots *actor.PID
	Disk                     disk.Disk
	Logger                   *slog.Logger          // nil discards
	Meter                    prometheus.Registerer // nil: nobody counts
	Fatal                    func(reason error)
}

// NewLog makes the actor that owns the log. It tells raft LogOpened when it
// starts; from then on it makes durable what raft appends, in order.
func NewLog(config LogConfig) actor.Producer {
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	return func() actor.Actor { return &logActor{config: config, appended: appendedBytes(config.Meter)} }
}

// logActor merges all appends in its mailbox into one Save and so one fsync. An
// append that carries a snapshot is not merged: the appends before it are saved, then
// the staged state is installed, and later appends wait until the machine has switched
// to it.
type logActor struct {
	config   LogConfig
	appended prometheus.Counter // bytes

	log    disk.Log
	hs     *raftpb.HardState // saved last; its commit is durable after a Sync
	last   uint64            // index of the last saved entry, or the base
	failed bool              // the disk is not to be used again

	// pending are the appends that are not saved yet. Raft bounds them: two appends
	// of own entries are under way at most, and a leader sends a follower no more
	// than its window.
	pending  []*messages.Append
	flushing bool // a Flush to itself is under way
	// installed is the append whose snapshot was installed while the machine
	// switches to it, or nil.
	installed *messages.Append
	cut       *messages.CutLog // the last one, if it waits for the next save
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
	case *messages.Switched:
		l.onSwitched(ctx, m)
	case *messages.CutLog:
		l.onCutLog(m)
	case *messages.SyncCommit:
		l.onSyncCommit(ctx, m)
	case *messages.RecordSuspicion:
		l.onRecordSuspicion(ctx, m)
	case *actor.Stopping:
		l.onStopping(ctx)
	default:
		telemetry.Unexpected(ctx, l.config.Logger, l.config.Meter)
	}
}

func (l *logActor) onStarted(ctx actor.Context) {
	image, err := l.open()
	if err != nil {
		l.fail(fmt.Errorf("open the log: %w", err))
		return
	}
	ctx.Send(l.config.Raft, &messages.LogOpened{
		HardState: image.HardState,
		BaseIndex: image.BaseIndex,
		BaseTerm:  image.BaseTerm,
		Entries:   image.Entries,
	})
}

func (l *logActor) open() (*disk.LogImage, error) {
	log, image, err := l.config.Disk.OpenLog()
	if err != nil {
		return nil, err
	}
	l.log, l.hs = log, image.HardState
	l.last = image.BaseIndex + uint64(len(image.Entries))
	return image, nil
}

func (l *logActor) onAppend(ctx actor.Context, m *messages.Append) {
	l.pending = append(l.pending, m)
	l.flushSoon(ctx)
}

func (l *logActor) flushSoon(ctx actor.Context) {
	if !l.flushing && l.installed == nil && len(l.pending) > 0 {
		l.flushing = true
		ctx.Send(ctx.Self(), &messages.Flush{})
	}
}

// onFlush saves what stands before the first snapshot, and then installs that.
func (l *logActor) onFlush(ctx actor.Context) {
	l.flushing = false
	n := slices.IndexFunc(l.pending, carriesSnapshot)
	if n < 0 {
		n = len(l.pending)
	}
	err := l.save(mergeAppends(l.pending[:n]))
	if err == nil {
		for _, m := range l.pending[:n] {
			ctx.Send(l.config.Raft, &messages.Appended{Message: m.Message})
		}
		if l.pending = slices.Delete(l.pending, 0, n); len(l.pending) > 0 {
			err = l.install(ctx)
		}
	}
	if err == nil {
		err = l.cutIfAsked()
	}
	if err == nil {
		err = l.answerWaiting(ctx)
	}
	if err != nil {
		l.fail(err)
	}
}

func carriesSnapshot(a *messages.Append) bool { return !raft.IsEmptySnap(a.Message.GetSnapshot()) }

func (l *logActor) save(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if hs == nil && len(entries) == 0 {
		return nil
	}
	if err := l.log.Save(hs, entries); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	if hs != nil {
		l.hs = hs
	}
	if n := len(entries); n > 0 {
		l.last = entries[n-1].GetIndex()
	}
	for _, e := range entries {
		l.appended.Add(float64(len(e.GetData())))
	}
	return nil
}

// install makes the snapshot of the first pending append the state that counts,
// and saves what else the append brings behind it.
func (l *logActor) install(ctx actor.Context) error {
	m := l.pending[0]
	l.pending = slices.Delete(l.pending, 0, 1)
	index, term := m.Message.GetSnapshot().GetMetadata().GetIndex(), m.Message.GetSnapshot().GetMetadata().GetTerm()
	hs, entries := mergeAppends([]*messages.Append{m})
	if hs == nil {
		hs = l.hs
	}
	if err := l.log.Close(); err != nil {
		return fmt.Errorf("close the log before a snapshot is installed: %w", err)
	}
	l.log = nil
	// The new log ends at its base, and a commit beyond its end is damage: one that
	// reaches the entries behind the snapshot is saved with them.
	at := &raftpb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(index)}
	if mutant.InstallForgets { // after a restart it votes again
		at.Vote = new(raft.None)
	}
	if err := l.config.Disk.Install(index, term, at); err != nil {
		return fmt.Errorf("install the snapshot at index %d: %w", index, err)
	}
	if _, err := l.open(); err != nil {
		return fmt.Errorf("open the log behind the snapshot at index %d: %w", index, err)
	}
	if hs.GetCommit() <= index {
		hs = nil
	}
	if err := l.save(hs, entries); err != nil {
		return err
	}
	l.installed = m
	if mutant.AppendedEarly { // raft applies what follows before the machine is there
		ctx.Send(l.config.Raft, &messages.Appended{Message: m.Message})
	}
	ctx.Send(l.config.Machine, &messages.Installed{Index: index})
	ctx.Send(l.config.Snapshots, &messages.Installed{Index: index})
	return nil
}

// onSwitched goes on with what waited for the machine.
func (l *logActor) onSwitched(ctx actor.Context, m *messages.Switched) {
	if l.installed == nil || l.installed.Message.GetSnapshot().GetMetadata().GetIndex() != m.Index {
		telemetry.Unexpected(ctx, l.config.Logger, l.config.Meter)
		return
	}
	if !mutant.AppendedEarly {
		ctx.Send(l.config.Raft, &messages.Appended{Message: l.installed.Message})
	}
	l.installed = nil
	l.flushSoon(ctx)
}

// onCutLog cuts between two saves: what raft has appended before stands in the
// log by then.
func (l *logActor) onCutLog(m *messages.CutLog) {
	l.cut = m
	if l.flushing {
		return
	}
	if err := l.cutIfAsked(); err != nil {
		l.fail(err)
	}
}

func (l *logActor) cutIfAsked() error {
	m := l.cut
	if m == nil {
		return nil
	}
	l.cut = nil
	if m.Index > l.last {
		return messages.Errorf(messages.Code_INTERNAL, "the log was to be cut at entry %d and ends at entry %d", m.Index, l.last).
			WithHint("this is a defect of the software; start the node again")
	}
	if err := l.log.Cut(m.Index, m.Term); err != nil {
		return fmt.Errorf("cut the log at entry %d: %w", m.Index, err)
	}
	return nil
}

func (l *logActor) onSyncCommit(ctx actor.Context, m *messages.SyncCommit) {
	l.waiting = append(l.waiting, commitWait{index: m.Index, asker: ctx.Sender()})
	if err := l.answerWaiting(ctx); err != nil {
		l.fail(err)
	}
}

// answerWaiting syncs once for all whose commit was saved, and tells them.
func (l *logActor) answerWaiting(ctx actor.Context) error {
	var ready, rest []commitWait
	for _, w := range l.waiting {
		if w.index <= l.hs.GetCommit() {
			ready = append(ready, w)
		} else {
			rest = append(rest, w)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	if mutant.CommitUnsynced { // after a power cut the checkpoint is ahead of the log
		l.waiting = rest
		for _, w := range ready {
			ctx.Send(w.asker, &messages.CommitSynced{Index: w.index})
		}
		return nil
	}
	if err := l.log.Sync(); err != nil {
		return fmt.Errorf("sync the log: %w", err)
	}
	l.waiting = rest
	for _, w := range ready {
		ctx.Send(w.asker, &messages.CommitSynced{Index: w.index})
	}
	return nil
}

// onRecordSuspicion makes durable what raft has come to know about losses of this disk.
func (l *logActor) onRecordSuspicion(ctx actor.Context, m *messages.RecordSuspicion) {
	if m.Condemned == "" {
		if err := l.config.Disk.Suspect(m.Suspicion); err != nil {
			l.fail(fmt.Errorf("record what speaks for a loss of data: %w", err))
			return
		}
		ctx.Respond(&messages.SuspicionRecorded{})
		return
	}
	l.fail(disk.Condemn(l.config.Disk, m.Condemned))
}

func (l *logActor) onStopping(ctx actor.Context) {
	if l.log == nil {
		return
	}
	if err := l.log.Close(); err != nil {
		l.config.Logger.Error("the log did not close cleanly", "reason", err, "hint", "look at the disk; what was acknowledged is durable")
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
		if (m.Term != nil || m.Vote != nil || m.Commit != nil) && (hs == nil || !mutant.HardStateFirst) {
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
