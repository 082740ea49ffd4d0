package state

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// leveled is a replica of a cluster at this level, which supports levels up to 3.
func leveled(t *testing.T, level uint32) *replica {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	r.state.level, r.state.supports = level, 3
	return r
}

func TestRaiseLevel(t *testing.T) {
	for _, row := range []struct {
		name  string
		raise *messages.Operation
		code  messages.Code
		level uint32 // behind it; it was 2
	}{
		{"as expected", statetest.RaiseLevel(2, 3, 1, 2, 3), messages.Code_OK, 3},
		{"there already", statetest.RaiseLevel(1, 2, 1, 2, 3), messages.Code_OK, 2},
		{"above it already", statetest.RaiseLevel(0, 1, 1, 2, 3), messages.Code_OK, 2},
		{"there already, by other members", statetest.RaiseLevel(1, 2, 1), messages.Code_OK, 2},
		{"from another level", statetest.RaiseLevel(1, 3, 1, 2, 3), messages.Code_CONFLICT, 2},
		{"a member was not asked", statetest.RaiseLevel(2, 3, 1, 2), messages.Code_CONFLICT, 2},
		{"somebody else was asked too", statetest.RaiseLevel(2, 3, 1, 2, 3, 4), messages.Code_CONFLICT, 2},
		{"nobody was asked", statetest.RaiseLevel(2, 3), messages.Code_CONFLICT, 2},
		{"down", statetest.RaiseLevel(2, 1, 1, 2, 3), messages.Code_INVALID, 2},
	} {
		r := leveled(t, 2)
		settled := r.applyNext(&messages.Command{Operations: statetest.Ops(row.raise)})
		if o := settled[0].outcome; o.code != row.code || r.state.level != row.level {
			t.Errorf("%s: %s, level %d", row.name, o, r.state.level)
		}
		if c := r.state.Checkpoint(); c.Level != row.level {
			t.Errorf("%s: the checkpoint has level %d", row.name, c.Level)
		}
	}
}

// applyNext applies one entry.
func (r *replica) applyNext(list ...*messages.Command) []Settled {
	return r.apply(statetest.Entry(r.state.index+1, 1, list...))
}

// A raise comes alone in its command, and those who hold the view hear of it.
func TestRaiseLevelIsTold(t *testing.T) {
	r := leveled(t, 2)
	twice := &messages.Command{Operations: statetest.Ops(statetest.RaiseLevel(2, 3, 1, 2, 3), statetest.Compact(1))}
	if o := r.applyNext(twice)[0].outcome; o.code != messages.Code_INVALID || r.state.level != 2 {
		t.Errorf("with a compaction: %s, level %d", o, r.state.level)
	}
	raise := &messages.Command{Operations: statetest.Ops(statetest.RaiseLevel(2, 3, 1, 2, 3))}
	if err := r.state.Apply(r.batch, statetest.Entry(r.state.index+1, 1, raise)); err != nil || !r.batch.MembersChanged {
		t.Errorf("%v, told: %v", err, r.batch.MembersChanged)
	}
}

// What the level does not admit yet is refused, by all replicas alike and whatever else is
// wrong with it; nothing of the command happens.
func TestOperationsAboveTheLevel(t *testing.T) {
	r := leveled(t, 0)
	put := &messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(1000, 1000), Operations: statetest.Ops(statetest.Put("k", "v"))}
	otherwise := &messages.Command{Session: statetest.Client(2), Seq: 1, Open: statetest.Opens(1000, 1000),
		Conditions: []*messages.Condition{statetest.IfRevision("k", 1)}, Otherwise: statetest.Ops(statetest.Put("", "v"))}
	for _, s := range r.applyNext(put, otherwise) {
		if s.outcome.code != messages.Code_UNSUPPORTED {
			t.Errorf("%s", s.outcome)
		}
	}
	if live := r.store.Live(t, 9); live != "" || len(r.state.sessions.rows) != 0 {
		t.Errorf("there are %q and %d sessions", live, len(r.state.sessions.rows))
	}
}

// A replica that does not understand the level which an entry raises, or is stamped with,
// stops there and says so.
func TestReplicaTooOld(t *testing.T) {
	raise := &messages.Command{Operations: statetest.Ops(statetest.RaiseLevel(2, 3, 1, 2, 3))}
	stamped := &raftpb.Entry{Index: new(uint64(2)), Term: new(uint64(1)), Data: statetest.Marshal(&messages.Commands{Level: 3})}
	for _, e := range []*raftpb.Entry{statetest.Entry(2, 1, raise), stamped} {
		r := leveled(t, 2)
		r.state.supports = 2
		err := r.state.Apply(r.batch, e)
		if messages.CodeOf(err) != messages.Code_UNSUPPORTED || !strings.Contains(err.Error(), "needs level 3, and this replica understands 2") {
			t.Errorf("%v", err)
		}
	}
}
