package sim

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// bench holds checkers over two nodes whose disks hold what the test says.
type bench struct {
	*checkers
	history *history
	broken  []string // invariants, in order
	disks   [2]struct {
		hs         *raftpb.HardState
		last       uint64
		checkpoint *messages.Checkpoint
		rows       []row
		sound      bool
	}
	holders  int // nodes that hold what is committed
	memories [2]*memory
}

func newBench() *bench {
	b := &bench{checkers: newCheckers(2), memories: [2]*memory{{}, {}}, holders: 2}
	b.checkers.fail = func(invariant, _ string, _ ...any) { b.broken = append(b.broken, invariant) }
	b.checkers.durable = func(node int) (*raftpb.HardState, uint64) { return b.disks[node].hs, b.disks[node].last }
	b.checkers.stored = func(node int, _ position) bool { return node < b.holders }
	b.checkers.media = func(node int) media {
		d := &b.disks[node]
		is := media{checkpoint: d.checkpoint}
		if d.sound {
			is.rows = func() []row { return d.rows }
		}
		return is
	}
	b.history = &history{fail: b.checkers.fail, model: b.model}
	b.are(1, firstState().ConfState)
	for i := range b.disks {
		b.starts(i, idOf(i))
		b.disks[i].hs = hardState(9, 0, 0)
		b.disks[i].last = 100
		b.disks[i].checkpoint = firstState()
		b.give(i, messages.ActorRaft, &messages.MachineOpened{Index: 1})
		b.give(i, messages.ActorRaft, &messages.LogOpened{HardState: hardState(1, 0, 1), BaseIndex: 1, BaseTerm: 1})
	}
	return b
}

func (b *bench) give(node int, actorID string, m any) {
	b.received(node, b.memories[node], actorID, m)
}

// firstState is where the history of a bench begins.
func firstState() *messages.Checkpoint {
	return &messages.Checkpoint{Format: 1, Index: 1, Level: messages.LevelMin, Term: 1, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}
}

func (b *bench) restart(node int) { b.memories[node] = &memory{} }

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func entry(index, term uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Index: &index, Term: &term, Data: []byte(data), Type: raftpb.EntryNormal.Enum()}
}

func appending(entries ...*raftpb.Entry) *messages.Append {
	return &messages.Append{Message: &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum(), Entries: entries}}
}

func stateOf(term, commit uint64) *messages.Append {
	return &messages.Append{Message: &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum(), Term: &term, Commit: &commit}}
}

func applying(entries ...*raftpb.Entry) *messages.Apply {
	return &messages.Apply{Message: &raftpb.Message{Type: raftpb.MsgStorageApply.Enum(), Entries: entries}}
}

func peer(kind raftpb.MessageType, to, term, index uint64) *messages.RaftMessage {
	return &messages.RaftMessage{Message: &raftpb.Message{Type: kind.Enum(), To: &to, Term: &term, Index: &index}}
}

// sending is a leader's append.
func sending(term, commit uint64, entries ...*raftpb.Entry) *messages.RaftMessage {
	return &messages.RaftMessage{Message: &raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: &term, Commit: &commit, Entries: entries}}
}

// commanded is an entry with one command of client 'a'.
func commanded(index, term, seq uint64, operations ...*messages.Operation) *raftpb.Entry {
	return logged(index, term, 0, &messages.Command{
		Session: []byte("aaaaaaaaaaaaaaaa"), Seq: seq, AckedBelow: 1,
		Open: &messages.OpenSession{TtlMs: 1000, BeforeMs: 1000}, Operations: operations,
	})
}

func logged(index, term, timeMS uint64, c *messages.Command) *raftpb.Entry {
	command, err := proto.Marshal(c)
	if err != nil {
		panic(err)
	}
	data, err := proto.Marshal(&messages.Commands{Level: messages.Level, LogTimeMs: timeMS, Proposals: []*messages.Proposal{{Origin: 1, Command: command}}})
	if err != nil {
		panic(err)
	}
	return entry(index, term, string(data))
}

func put(key, value string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: []byte(value)}}}
}

func removal(key string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(key)}}}
}

// TestCheckersFire gives each checker a history that breaks what it watches, and
// one that differs only in that and is right.
func TestCheckersFire(t *testing.T) {
	for _, c := range []struct {
		invariant string
		good, bad func(b *bench)
	}{
		{"one leader a term",
			func(b *bench) { b.leads(0, 2); b.leads(1, 3); b.leads(0, 2) },
			func(b *bench) { b.leads(0, 2); b.leads(1, 2) }},
		{"log matching",
			func(b *bench) { b.append(0, entry(2, 2, "x")); b.append(1, entry(2, 2, "x")) },
			func(b *bench) { b.append(0, entry(2, 2, "x")); b.append(1, entry(2, 2, "y")) }},
		{"logs have no gaps",
			func(b *bench) { b.append(0, entry(2, 2, ""), entry(3, 2, "")); b.append(0, entry(3, 3, "")) },
			func(b *bench) { b.append(0, entry(2, 2, "")); b.append(0, entry(4, 2, "")) }},
		{"term and commit never go back",
			func(b *bench) {
				b.give(0, messages.ActorLog, stateOf(3, 1))
				b.give(0, messages.ActorLog, stateOf(3, 2))
			},
			func(b *bench) {
				b.give(0, messages.ActorLog, stateOf(3, 2))
				b.give(0, messages.ActorLog, stateOf(3, 1))
			}},
		{"committed is durable on a quorum",
			func(b *bench) { b.committedBy(0) },
			func(b *bench) { b.holders = 1; b.committedBy(0) }},
		{"leader completeness",
			func(b *bench) {
				b.committedBy(0)
				b.append(1, entry(2, 2, ""))
				b.leads(1, 3)
				b.append(1, entry(3, 3, ""))
			},
			func(b *bench) { b.committedBy(0); b.leads(1, 3); b.append(1, entry(2, 3, "")) }},
		{"leader completeness",
			func(b *bench) {
				b.committedBy(0)
				b.append(1, entry(2, 2, ""))
				b.leads(1, 3)
				b.append(1, entry(3, 3, ""))
			},
			func(b *bench) {
				b.committedBy(0)
				b.append(1, entry(2, 1, ""))
				b.leads(1, 3)
				b.append(1, entry(3, 3, ""))
			}},
		{"leader completeness", // the leader is late: one of a newer term has committed meanwhile
			func(b *bench) {
				b.append(1, entry(2, 1, ""))
				b.leads(1, 1)
				b.committedBy(0)
				b.append(1, entry(3, 1, ""))
			},
			func(b *bench) {
				b.append(1, entry(2, 1, ""))
				b.leads(1, 3)
				b.committedBy(0)
				b.append(1, entry(3, 3, ""))
			}},
		{"replay starts at the checkpoint",
			func(b *bench) { b.apply(0, entry(2, 2, "")) },
			func(b *bench) { b.restart(0); b.apply(0, entry(1, 2, "")) }},
		{"applied once and in order",
			func(b *bench) { b.apply(0, entry(2, 2, "")); b.apply(0, entry(3, 2, "")) },
			func(b *bench) { b.apply(0, entry(2, 2, "")); b.apply(0, entry(2, 2, "")) }},
		{"applied once and in order",
			func(b *bench) {
				b.apply(0, entry(2, 2, ""))
				b.restart(0)
				b.give(0, messages.ActorRaft, &messages.MachineOpened{Index: 1})
				b.apply(0, entry(2, 2, ""))
			},
			func(b *bench) { b.apply(0, entry(2, 2, "")); b.apply(0, entry(4, 2, "")) }},
		{"committed once",
			func(b *bench) { b.apply(0, entry(2, 2, "")); b.apply(1, entry(2, 2, "")) },
			func(b *bench) { b.apply(0, entry(2, 2, "")); b.apply(1, entry(2, 3, "")) }},
		{"committed without a gap",
			func(b *bench) { b.apply(0, entry(2, 2, "")) },
			func(b *bench) {
				b.apply(0, entry(2, 2, ""))
				b.restart(1)
				b.give(1, messages.ActorRaft, &messages.MachineOpened{Index: 3})
				b.apply(1, entry(4, 2, ""))
			}},
		{"equal state at equal index",
			func(b *bench) { b.state(0, 2, 7); b.state(1, 2, 7); b.state(1, 3, 8) },
			func(b *bench) { b.state(0, 2, 7); b.state(1, 2, 8) }},
		{"votes are durable first",
			func(b *bench) { b.disks[0].hs = hardState(3, 2, 1); b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0)) },
			func(b *bench) { b.disks[0].hs = hardState(2, 2, 1); b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0)) }},
		{"one vote a term",
			func(b *bench) {
				b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0))
				b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0))
			},
			func(b *bench) {
				b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0))
				b.departs(0, peer(raftpb.MsgVoteResp, 3, 3, 0))
			}},
		{"votes survive",
			func(b *bench) { b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0)); b.reopen(0, hardState(3, 2, 1)) },
			func(b *bench) { b.departs(0, peer(raftpb.MsgVoteResp, 2, 3, 0)); b.reopen(0, hardState(3, 1, 1)) }},
		{"terms are durable first",
			func(b *bench) { b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 5)) },
			func(b *bench) { b.departs(0, peer(raftpb.MsgAppResp, 2, 10, 5)) }},
		{"acknowledgements are durable first",
			func(b *bench) { b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 100)) },
			func(b *bench) { b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 101)) }},
		{"acknowledged entries survive",
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 2, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 3))
				b.append(0, entry(2, 3, ""))
				b.reopen(0, hardState(3, 0, 1), entry(2, 3, ""))
			},
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 2, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 3))
				b.reopen(0, hardState(3, 0, 1), entry(2, 2, ""))
			}},
		{"acknowledged entries survive", // they were replaced, and a part of what replaced them was written
			func(b *bench) {
				b.quarrel()
				b.reopen(0, hardState(9, 0, 1), entry(2, 2, ""), entry(3, 3, ""))
			},
			func(b *bench) {
				b.quarrel()
				b.reopen(0, hardState(9, 0, 1))
			}},
		{"acknowledged entries survive", // one of a later term, which acknowledges less, takes nothing back
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 2, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 3))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 2))
				b.reopen(0, hardState(9, 0, 1), entry(2, 2, ""), entry(3, 2, ""))
			},
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 2, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 8, 3))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 2))
				b.reopen(0, hardState(9, 0, 1), entry(2, 2, ""))
			}},
		{"acknowledged entries survive", // an acknowledgement leaves when its entries are replaced already
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 2, ""), entry(4, 2, ""))
				b.append(0, entry(3, 3, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 2, 4))
				b.reopen(0, hardState(9, 0, 1), entry(2, 2, ""))
			},
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 2, ""), entry(4, 2, ""))
				b.append(0, entry(3, 3, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 3, 3))
				b.reopen(0, hardState(9, 0, 1), entry(2, 2, ""))
			}},
		{"acknowledged entries survive", // something else stands in their place
			func(b *bench) {
				b.append(0, entry(2, 2, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 2))
				b.reopen(0, hardState(9, 0, 1), entry(2, 2, ""))
			},
			func(b *bench) {
				b.append(0, entry(2, 2, ""))
				b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 2))
				b.reopen(0, hardState(9, 0, 1), entry(2, 1, ""))
			}},
		{"leaders send what logs hold",
			func(b *bench) { b.append(0, entry(2, 2, "x")); b.departs(0, sending(2, 1, entry(2, 2, "x"))) },
			func(b *bench) { b.append(0, entry(2, 2, "x")); b.departs(0, sending(2, 1, entry(2, 2, "y"))) }},
		{"leaders commit by entries of their own",
			func(b *bench) {
				b.append(0, entry(2, 2, ""), entry(3, 3, ""))
				b.departs(0, sending(3, 3))
				b.departs(0, sending(4, 2))
			},
			func(b *bench) { b.append(0, entry(2, 2, ""), entry(3, 3, "")); b.departs(0, sending(3, 2)) }},
		{"each command at most once",
			func(b *bench) {
				b.apply(0, commanded(2, 2, 1, put("k", "v")))
				b.apply(0, commanded(3, 2, 1, put("k", "v")))
			},
			func(b *bench) {
				b.apply(0, commanded(2, 2, 1, put("k", "v")))
				b.apply(0, commanded(3, 2, 2, put("k", "v")))
			}},
		{"acknowledged writes are in the log",
			func(b *bench) {
				op := b.asks(put("k", "v"))
				b.apply(0, commanded(2, 2, 1, put("k", "v")))
				b.wrote(op, 1, 1)
			},
			func(b *bench) { op := b.asks(put("k", "v")); b.wrote(op, 1, 1) }},
		{"acknowledged writes are in the log",
			func(b *bench) {
				op := b.asks(put("k", "v"))
				b.apply(0, commanded(2, 2, 1, put("k", "v")))
				b.wrote(op, 1, 1)
			},
			func(b *bench) {
				op := b.asks(put("k", "v"))
				b.apply(0, commanded(2, 2, 1, put("k", "w")))
				b.wrote(op, 1, 1)
			}},
		{"acknowledged writes are in the log", // a condition that held is said to have failed
			func(b *bench) {
				op := b.asksIf("k", 0, put("k", "v"))
				b.apply(0, b.conditional(2, 1, "k", 0, put("k", "v")))
				b.wrote(op, 1, 1)
			},
			func(b *bench) {
				op := b.asksIf("k", 0, put("k", "v"))
				b.apply(0, b.conditional(2, 1, "k", 0, put("k", "v")))
				b.conflicts(op, 1, 1)
			}},
		{"acknowledged writes are in the log", // one that failed is said to have held
			func(b *bench) {
				op := b.asksIf("k", 7, put("k", "v"))
				b.apply(0, b.conditional(2, 1, "k", 7, put("k", "v")))
				b.conflicts(op, 1, 0)
			},
			func(b *bench) {
				op := b.asksIf("k", 7, put("k", "v"))
				b.apply(0, b.conditional(2, 1, "k", 7, put("k", "v")))
				b.wrote(op, 1, 0)
			}},
		{"linearizable", // a refusal that saw the past
			func(b *bench) {
				b.two()
				b.wrote(b.asks(put("k", "2")), 2, 2)
				op := b.asksIf("k", 1, put("k", "v"))
				b.apply(0, b.conditional(4, 3, "k", 1, put("k", "v")))
				b.conflicts(op, 3, 2)
			},
			func(b *bench) {
				b.apply(0, b.conditional(2, 3, "k", 1, put("k", "v")))
				b.apply(0, commanded(3, 2, 1, put("k", "1")), commanded(4, 2, 2, put("k", "2")))
				b.wrote(b.asks(put("k", "2")), 2, 2)
				b.conflicts(b.asksIf("k", 1, put("k", "v")), 3, 0)
			}},
		{"counters are exact",
			func(b *bench) {
				b.apply(0, commanded(2, 2, 1, put("count0", "a=1")), commanded(3, 2, 2, put("count0", "b=2")))
				b.history.counts()
			},
			func(b *bench) {
				b.apply(0, commanded(2, 2, 1, put("count0", "a=1")), commanded(3, 2, 2, put("count0", "b=1")))
				b.history.counts()
			}},
		{"linearizable", // a write that began after another had ended
			func(b *bench) {
				b.two()
				first := b.asks(put("k", "1"))
				b.wrote(first, 1, 1)
				second := b.asks(put("k", "2"))
				b.wrote(second, 2, 2)
			},
			func(b *bench) {
				b.two()
				second := b.asks(put("k", "2"))
				b.wrote(second, 2, 2)
				first := b.asks(put("k", "1"))
				b.wrote(first, 1, 1)
			}},
		{"linearizable", // a read that misses a write that had ended
			func(b *bench) { b.two(); b.wrote(b.asks(put("k", "2")), 2, 2); b.saw(b.gets("k"), 2, "2", 2) },
			func(b *bench) { b.two(); b.wrote(b.asks(put("k", "2")), 2, 2); b.saw(b.gets("k"), 1, "1", 1) }},
		{"reads what was written",
			func(b *bench) { b.two(); b.saw(b.gets("k"), 1, "1", 1) },
			func(b *bench) { b.two(); b.saw(b.gets("k"), 1, "2", 1) }},
		{"reads what is committed",
			func(b *bench) { b.two(); b.saw(b.gets("k"), 2, "2", 2) },
			func(b *bench) { b.saw(b.gets("k"), 3, "2", 2) }},
		{"refused writes never happen",
			func(b *bench) { b.refused(b.asks(put("k", "v")), 1); b.history.close() },
			func(b *bench) {
				op := b.asks(put("k", "v"))
				b.apply(0, commanded(2, 2, 1, put("k", "v")))
				b.refused(op, 1)
				b.history.close()
			}},
		{"refused writes never happen",
			func(b *bench) { b.refused(b.asks(removal("k")), 1); b.history.close() },
			func(b *bench) {
				op := b.asks(removal("k"))
				b.apply(0, commanded(2, 2, 1, removal("k")))
				b.refused(op, 1)
				b.history.close()
			}},
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

func (b *bench) leads(node int, term uint64) {
	b.give(node, messages.ActorGateway, &messages.LeaderChanged{Leader: idOf(node), Term: term})
}

func (b *bench) append(node int, entries ...*raftpb.Entry) {
	b.give(node, messages.ActorLog, appending(entries...))
}

func (b *bench) apply(node int, entries ...*raftpb.Entry) {
	b.give(node, messages.ActorMachine, applying(entries...))
}

// quarrel lets a node acknowledge entries of term 2, all of which but the first a leader
// of term 3 replaces.
func (b *bench) quarrel() {
	b.append(0, entry(2, 2, ""), entry(3, 2, ""), entry(4, 2, ""), entry(5, 2, ""))
	b.departs(0, peer(raftpb.MsgAppResp, 2, 9, 5))
	b.append(0, entry(3, 3, ""), entry(4, 3, ""), entry(5, 3, ""), entry(6, 3, ""))
}

func (b *bench) committedBy(node int) {
	b.append(node, entry(2, 2, ""))
	b.apply(node, entry(2, 2, ""))
}

func (b *bench) state(node int, index, history uint64) {
	b.give(node, messages.ActorRaft, &messages.Applied{Index: index, HistoryHash: history})
}

func (b *bench) reopen(node int, hs *raftpb.HardState, entries ...*raftpb.Entry) {
	b.restart(node)
	b.give(node, messages.ActorRaft, &messages.LogOpened{HardState: hs, BaseIndex: 1, BaseTerm: 1, Entries: entries})
}

// two commits two writes of k, at revisions 1 and 2.
func (b *bench) two() {
	b.apply(0, commanded(2, 2, 1, put("k", "1")), commanded(3, 2, 2, put("k", "2")))
}

func (b *bench) asks(operations ...*messages.Operation) *operation {
	return b.history.begin(0, &messages.Submit{Operations: operations}, 0)
}

// asksIf is a write on condition that the key's last write is of a revision.
func (b *bench) asksIf(key string, revision uint64, operations ...*messages.Operation) *operation {
	return b.history.begin(0, &messages.Submit{Operations: operations, Conditions: []*messages.Condition{ifRevision(key, revision)}}, 0)
}

// conditional is an entry with that command.
func (b *bench) conditional(index, seq uint64, key string, revision uint64, operations ...*messages.Operation) *raftpb.Entry {
	return logged(index, 2, 0, &messages.Command{
		Session: []byte("aaaaaaaaaaaaaaaa"), Seq: seq, AckedBelow: 1, Open: &messages.OpenSession{TtlMs: 1000, BeforeMs: 1000},
		Conditions: []*messages.Condition{ifRevision(key, revision)}, Operations: operations,
	})
}

func ifRevision(key string, revision uint64) *messages.Condition {
	return &messages.Condition{Key: []byte(key), Target: &messages.Condition_ModRevision{ModRevision: revision}}
}

func (b *bench) conflicts(op *operation, seq, revision uint64) {
	b.history.end(op, &messages.Done{RequestId: messages.RequestID([]byte("aaaa"), messages.RequestWrite, seq),
		Write: &messages.WriteReply{Code: messages.Code_CONFLICT, Revision: revision, FailedCondition: 1}}, 0)
}

func (b *bench) gets(key string) *operation {
	return b.history.begin(0, &messages.Submit{Read: &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(key)}}}}, 0)
}

func (b *bench) wrote(op *operation, seq, revision uint64) {
	b.history.end(op, &messages.Done{RequestId: messages.RequestID([]byte("aaaa"), messages.RequestWrite, seq), Write: &messages.WriteReply{Revision: revision}}, 0)
}

func (b *bench) refused(op *operation, seq uint64) {
	b.history.end(op, &messages.Done{RequestId: messages.RequestID([]byte("aaaa"), messages.RequestWrite, seq), Write: &messages.WriteReply{Code: messages.Code_NO_LEADER}}, 0)
}

func (b *bench) saw(op *operation, revision uint64, value string, written uint64) {
	item := &messages.Item{Key: op.submit.Read.GetGet().Key, Value: []byte(value), Revision: written, CreateRevision: 1, Version: written}
	b.history.end(op, &messages.Done{Read: &messages.ReadReply{Revision: revision, Items: []*messages.Item{item}}}, 0)
}

// TestJudge gives porcupine what clients saw, without any revision to go by.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		seen []seen
		good bool
	}{
		{"a read of what was written", []seen{{value: "1", write: true, from: 0, to: 1}, {value: "1", write: false, from: 2, to: 3}}, true},
		{"a read of the past", []seen{{value: "1", write: true, from: 0, to: 1}, {value: "2", write: true, from: 2, to: 3}, {value: "1", write: false, from: 4, to: 5}}, false},
		{"a read of what is being written", []seen{{value: "1", write: true, from: 0, to: 1}, {value: "2", write: true, from: 2, to: 9}, {value: "1", write: false, from: 3, to: 4}, {value: "2", write: false, from: 5, to: 6}}, true},
		{"two reads that disagree", []seen{{value: "1", write: true, from: 0, to: 1}, {value: "2", write: true, from: 2, to: 9}, {value: "2", write: false, from: 3, to: 4}, {value: "1", write: false, from: 5, to: 6}}, false},
		{"a lost write", []seen{{value: "1", write: true, from: 0, to: 1}, {value: "", write: false, from: 2, to: 3}}, false},
		{"an unknown write that nobody saw", []seen{{value: "1", write: true, from: 0, to: noAnswer}, {value: "", write: false, from: 2, to: 3}}, true},
		{"an unknown write, seen late", []seen{{value: "1", write: true, from: 0, to: noAnswer}, {value: "", write: false, from: 2, to: 3}, {value: "1", write: false, from: 4, to: 5}}, true},
		{"an unknown write that comes and goes", []seen{{value: "1", write: true, from: 0, to: noAnswer}, {value: "1", write: false, from: 2, to: 3}, {value: "", write: false, from: 4, to: 5}}, false},
		{"a compare-and-set of what is there", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, 3).onlyIf("1", true), {value: "2", write: false, from: 4, to: 5}}, true},
		{"one of what is not there", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, 3).onlyIf("3", true)}, false},
		{"one that was refused", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, 3).onlyIf("3", false), {value: "1", write: false, from: 4, to: 5}}, true},
		{"one that was refused without a reason", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, 3).onlyIf("1", false)}, false},
		{"one of absence", []seen{write("1", 0, 1).onlyIf("", true), {value: "1", write: false, from: 2, to: 3}}, true},
		{"two of one value", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, 9).onlyIf("1", true), write("3", 2, 9).onlyIf("1", true)}, false},
		{"two of one value, of which one was refused", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, 9).onlyIf("1", true), write("3", 2, 9).onlyIf("1", false)}, true},
		{"one in doubt, seen late", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, noAnswer).onlyIf("1", true), {value: "1", write: false, from: 3, to: 4}, {value: "2", write: false, from: 5, to: 6}}, true},
		{"one in doubt that could not be", []seen{{value: "1", write: true, from: 0, to: 1}, write("2", 2, noAnswer).onlyIf("9", true), {value: "2", write: false, from: 5, to: 6}}, false},
		{"an unknown delete", []seen{{value: "1", write: true, from: 0, to: 1}, {value: "", write: true, from: 2, to: noAnswer}, {value: "1", write: false, from: 3, to: 4}, {value: "", write: false, from: 5, to: 6}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := false
			h := &history{model: newModel(), fail: func(string, string, ...any) { broken = true }}
			h.model.keys = []string{"k"}
			for _, s := range c.seen {
				h.all = append(h.all, s.operation())
			}
			if h.judge(); broken == c.good {
				t.Errorf("linearizable: %v, want %v", !broken, c.good)
			}
		})
	}
}

// seen is what a client saw of key "k".
type seen struct {
	value    string // written, or read; "" makes absent, or reads that it is
	write    bool
	from, to time.Duration // to noAnswer: it was never told

	expects *expectation // of a compare-and-set, as it is met
	met     bool
}

func write(value string, from, to time.Duration) seen {
	return seen{value: value, write: true, from: from, to: to}
}

// onlyIf makes a write one that expects a value; "" is absence.
func (s seen) onlyIf(value string, met bool) seen {
	s.expects, s.met = &expectation{key: "k", absent: value == "", value: value}, met
	return s
}

const noAnswer = time.Duration(-1)

func (s seen) operation() *operation {
	op := &operation{beganAt: s.from, endedAt: s.to, submit: &messages.Submit{}, done: &messages.Done{}}
	switch {
	case s.write && s.value == "":
		op.submit.Operations, op.done.Write = []*messages.Operation{removal("k")}, &messages.WriteReply{}
	case s.write:
		op.submit.Operations, op.done.Write = []*messages.Operation{put("k", s.value)}, &messages.WriteReply{}
	default:
		op.submit.Read = &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}}
		op.done.Read = &messages.ReadReply{Code: messages.Code_NOT_FOUND}
		if s.value != "" {
			op.done.Read = &messages.ReadReply{Items: []*messages.Item{{Key: []byte("k"), Value: []byte(s.value)}}}
		}
	}
	if s.expects != nil {
		op.expects, op.submit.Conditions = s.expects, []*messages.Condition{{}}
		if !s.met {
			op.done.Write.Code, op.done.Write.FailedCondition = messages.Code_CONFLICT, 1
		}
	}
	if s.to == noAnswer {
		op.done = nil
	}
	return op
}

// idOf is the RaftID of the machine of this index in tests.
func idOf(node int) messages.RaftID { return messages.RaftID(node) + 1 }

// TestModelRaises: a raise counts only if the members are those that were asked.
func TestModelRaises(t *testing.T) {
	m := newModel()
	m.members = []messages.RaftID{1, 2}
	for _, row := range []struct {
		asked []messages.RaftID
		level uint32
	}{{[]messages.RaftID{1}, 1}, {[]messages.RaftID{1, 2}, 2}} {
		raise := &messages.Operation{Kind: &messages.Operation_RaiseLevel{RaiseLevel: &messages.RaiseLevel{From: 1, To: 2, Members: row.asked}}}
		if err := m.command("", &messages.Command{Operations: []*messages.Operation{raise}}); err != nil || m.level != row.level {
			t.Errorf("asked %v of %v: level %d, %v", row.asked, m.members, m.level, err)
		}
	}
}
