package sim

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// TestSnapshotCheckersFire is TestCheckersFire for logs that are cut, states that
// are installed, and history that is given up.
func TestSnapshotCheckersFire(t *testing.T) {
	for _, c := range []struct {
		invariant string
		good, bad func(b *bench)
	}{
		{"the log is cut behind a checkpoint",
			func(b *bench) { b.three(0); b.disks[0].checkpoint = b.stateAt(3); b.cut(0, 3, 2) },
			func(b *bench) { b.three(0); b.disks[0].checkpoint = b.stateAt(2); b.cut(0, 3, 2) }},
		{"the log is cut behind a checkpoint",
			func(b *bench) { b.three(0); b.disks[0].checkpoint = b.stateAt(3); b.cut(0, 2, 2) },
			func(b *bench) {
				b.append(0, entry(2, 2, ""))
				b.disks[0].checkpoint = b.stateAt(3)
				b.cut(0, 2, 2)
			}},
		{"the log is cut where it is",
			func(b *bench) { b.three(0); b.disks[0].checkpoint = b.stateAt(3); b.cut(0, 3, 2); b.cut(0, 2, 2) },
			func(b *bench) { b.three(0); b.disks[0].checkpoint = b.stateAt(3); b.cut(0, 3, 1) }},
		{"the log is cut behind a checkpoint",
			func(b *bench) { b.disks[0].checkpoint = b.stateAt(3); b.reopenBehind(0, 3) },
			func(b *bench) { b.disks[0].checkpoint = b.stateAt(2); b.reopenBehind(0, 3) }},
		{"bases never go back",
			func(b *bench) { b.disks[0].checkpoint = b.stateAt(3); b.reopenBehind(0, 3); b.reopenBehind(0, 3) },
			func(b *bench) { b.disks[0].checkpoint = b.stateAt(3); b.reopenBehind(0, 3); b.reopenBehind(0, 2) }},
		{"logs have no gaps", // behind what was cut
			func(b *bench) {
				b.three(0)
				b.disks[0].checkpoint = b.stateAt(3)
				b.cut(0, 2, 2)
				b.append(0, entry(3, 3, ""))
			},
			func(b *bench) {
				b.three(0)
				b.disks[0].checkpoint = b.stateAt(3)
				b.cut(0, 3, 2)
				b.append(0, entry(3, 3, ""))
			}},
		{"snapshots go ahead",
			func(b *bench) { b.three(0); b.install(1, 3, 2) },
			func(b *bench) {
				b.three(0)
				b.append(1, entry(2, 2, ""), entry(3, 2, ""), entry(4, 2, ""))
				b.install(1, 3, 2)
			}},
		{"snapshots go ahead",
			func(b *bench) { b.three(0); b.install(1, 2, 2); b.install(1, 3, 2) },
			func(b *bench) { b.three(0); b.install(1, 3, 2); b.install(1, 2, 2) }},
		{"snapshots are of what is committed",
			func(b *bench) { b.three(0); b.install(1, 3, 2) },
			func(b *bench) { b.three(0); b.install(1, 3, 1) }},
		{"snapshots are of what is committed",
			func(b *bench) { b.three(0); b.install(1, 3, 2) },
			func(b *bench) { b.three(0); b.install(1, 5, 2) }},
		{"what is installed counts",
			func(b *bench) { b.three(0); b.install(1, 3, 2); b.disks[1].checkpoint = b.stateAt(3); b.told(1, 3) },
			func(b *bench) { b.three(0); b.install(1, 3, 2); b.told(1, 3) }},
		{"applied jumps by installation only",
			func(b *bench) {
				b.three(0)
				b.install(1, 3, 2)
				b.disks[1].checkpoint = b.stateAt(3)
				b.told(1, 3)
				b.opens(1, 3, 0)
				b.apply(1, entry(4, 2, ""))
			},
			func(b *bench) {
				b.three(0)
				b.install(1, 3, 2)
				b.disks[1].checkpoint = b.stateAt(3)
				b.opens(1, 3, 0)
			}},
		{"applied once and in order", // before the machine has switched
			func(b *bench) { b.three(0); b.install(1, 3, 2); b.apply(1, entry(2, 2, "")) },
			func(b *bench) { b.three(0); b.install(1, 3, 2); b.apply(1, entry(4, 2, "")) }},
		{"state from snapshot equals state from replay",
			func(b *bench) {
				b.replayed()
				b.disks[1].rows = b.reference.engine.SnapshotRows(b.disks[1].checkpoint)
				b.restart(1)
				b.opens(1, 3, 0)
			},
			func(b *bench) { b.replayed(); b.restart(1); b.opens(1, 3, 0) }}, // a row is missing
		{"state from snapshot equals state from replay",
			func(b *bench) {
				b.replayed()
				b.disks[1].rows = b.reference.engine.SnapshotRows(b.disks[1].checkpoint)
				b.restart(1)
				b.opens(1, 3, 0)
			},
			func(b *bench) {
				b.replayed()
				b.disks[1].rows = disktest.Whole(disk.Row{Key: []byte("k"), Value: []byte("w"), Revision: 2, Created: 1, Version: 2}, disk.Row{Key: []byte("k"), Value: []byte("v"), Revision: 1})
				b.restart(1)
				b.opens(1, 3, 0)
			}},
		{"state from snapshot equals state from replay",
			func(b *bench) {
				b.replayed()
				b.disks[1].rows = b.reference.engine.SnapshotRows(b.disks[1].checkpoint)
				b.restart(1)
				b.opens(1, 3, 0)
			},
			func(b *bench) {
				b.replayed()
				b.disks[1].checkpoint.Sessions = nil
				b.give(1, messages.ActorMachine, &messages.CheckpointWritten{Index: 3})
			}},
		{"equal state at equal index",
			func(b *bench) { b.state(0, 3, 7); b.disks[1].sound = true; b.disks[1].checkpoint.HistoryHash = 7 },
			func(b *bench) {
				b.replayed()
				b.state(0, 3, b.disks[1].checkpoint.HistoryHash)
				b.disks[1].checkpoint.HistoryHash++
				b.restart(1)
				b.opens(1, 3, 0)
			}},
		{"history stays given up",
			func(b *bench) { b.gaveUp(0, 2, 5); b.gaveUp(0, 3, 5); b.restart(0); b.opens(0, 1, 0) },
			func(b *bench) { b.gaveUp(0, 2, 5); b.gaveUp(0, 3, 4) }},
		{"rows are discarded behind a checkpoint",
			func(b *bench) { b.disks[0].checkpoint.CompactedRevision = 5; b.discards(0, 5) },
			func(b *bench) { b.disks[0].checkpoint.CompactedRevision = 5; b.discards(0, 6) }},
		{"what is kept is readable",
			func(b *bench) { b.two(); b.compacts(2); b.turnedAway(b.getsAt("k", 1)) },
			func(b *bench) { b.two(); b.compacts(2); b.turnedAway(b.getsAt("k", 2)) }},
		{"what is kept is readable", // a compaction of the future changes nothing
			func(b *bench) { b.two(); b.compacts(2); b.turnedAway(b.getsAt("k", 1)) },
			func(b *bench) { b.two(); b.compacts(3); b.turnedAway(b.getsAt("k", 1)) }},
		{"what is given up is not read",
			func(b *bench) { b.two(); op := b.getsAt("k", 1); b.compacts(2); b.saw(op, 1, "1", 1) },
			func(b *bench) { b.two(); b.compacts(2); b.saw(b.getsAt("k", 1), 1, "1", 1) }},
	} {
		t.Run(c.invariant, func(t *testing.T) {
			good, bad := newBench(), newBench()
			if c.good(good); len(good.broken) > 0 {
				t.Errorf("the good history breaks %q", good.broken)
			}
			if c.bad(bad); len(bad.broken) == 0 || bad.broken[0] != c.invariant {
				t.Errorf("the bad history breaks %q", bad.broken)
			}
		})
	}
}

// three lets a node append and apply up to index 4.
func (b *bench) three(node int) {
	es := []*raftpb.Entry{entry(2, 2, ""), entry(3, 2, ""), entry(4, 2, "")}
	b.append(node, es...)
	b.apply(node, es...)
}

func (b *bench) stateAt(index uint64) *messages.Checkpoint {
	c := firstState()
	c.Index, c.Term = index, 2
	return c
}

func (b *bench) cut(node int, index, term uint64) {
	b.give(node, messages.ActorLog, &messages.CutLog{Index: index, Term: term})
}

func (b *bench) reopenBehind(node int, base uint64) {
	b.restart(node)
	b.give(node, messages.ActorRaft, &messages.LogOpened{HardState: hardState(3, 0, base), BaseIndex: base, BaseTerm: 2})
}

func (b *bench) install(node int, index, term uint64) {
	m := &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum(), Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term}}}
	b.give(node, messages.ActorLog, &messages.Append{Message: m})
}

func (b *bench) told(node int, index uint64) {
	b.give(node, messages.ActorMachine, &messages.Installed{Index: index})
}

func (b *bench) opens(node int, index, compacted uint64) {
	b.give(node, messages.ActorRaft, &messages.MachineOpened{Index: index, CompactedRevision: compacted})
}

// replayed lets history come to index 3, and node 1 have the checkpoint of it.
func (b *bench) replayed() {
	b.disks[0].sound, b.disks[1].sound = true, true
	b.restart(0)
	b.opens(0, 1, 0)
	b.two()
	b.disks[1].checkpoint = proto.Clone(b.reference.state.Checkpoint()).(*messages.Checkpoint)
}

func (b *bench) gaveUp(node int, index, compacted uint64) {
	b.give(node, messages.ActorRaft, &messages.Applied{Index: index, CompactedRevision: compacted})
}

// compacts commits a compaction as the third command, and tells its client.
func (b *bench) compacts(revision uint64) {
	o := &messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}}
	op := b.asks(o)
	b.apply(0, commanded(4, 2, 3, o))
	if b.model.compacted > 0 {
		b.wrote(op, 3, 2)
	}
}

func (b *bench) getsAt(key string, revision uint64) *operation {
	op := b.gets(key)
	op.submit.Read.Revision = revision
	return op
}

func (b *bench) turnedAway(op *operation) {
	b.history.end(op, &messages.Done{Read: &messages.ReadReply{Code: messages.Code_COMPACTED, Revision: op.submit.Read.Revision}}, 0)
}
