package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/membershipactor/rules"
	"keyval/messages"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

// drawMembers draws an entry about members, and has the shadow follow: it is the
// configuration if nothing is refused that rules alone do not refuse.
func drawMembers(t *rapid.T, index, now uint64, shadow *rules.Configuration) *raftpb.Entry {
	id := rapid.Uint64Range(1, 8)
	configuration := rapid.SampledFrom([]uint64{shadow.Index, shadow.Index, shadow.Index, 1}).Draw(t, "configuration")
	switch rapid.IntRange(0, 4).Draw(t, "about members") {
	case 0:
		version, phase := rapid.Uint64Range(1, 3), rapid.SampledFrom([]messages.OperationPhase{messages.OperationPhase_CATCH_UP, messages.OperationPhase_FAILED})
		record := statetest.RecordOperation(rapid.ByteRange(1, 4).Draw(t, "record"), version.Draw(t, "version"), phase.Draw(t, "phase"))
		return statetest.Entry(index, now, &messages.Command{Operations: statetest.Ops(record)})
	case 1:
		bind := statetest.BindIncarnation(id.Draw(t, "bound"), rapid.ByteRange(1, 8).Draw(t, "incarnation"))
		if next, err := shadow.Bind(bind.GetBindIncarnation()); err == nil {
			*shadow = next
		}
		return statetest.Entry(index, now, &messages.Command{Operations: statetest.Ops(bind)})
	case 2:
		update := statetest.UpdateMember(configuration, id.Draw(t, "moved"), fmt.Sprintf("other:%d", rapid.IntRange(1, 9).Draw(t, "port")))
		if next, err := shadow.Update(update.GetUpdateMember(), index); err == nil {
			*shadow = next
		}
		return statetest.Entry(index, now, &messages.Command{Operations: statetest.Ops(update)})
	}
	var list []*messages.MemberChange
	for range rapid.IntRange(0, 2).Draw(t, "changes") {
		list = append(list, rapid.SampledFrom([]*messages.MemberChange{
			statetest.Add(shadow.NextRaftID), statetest.Promote(id.Draw(t, "promoted")), statetest.Remove(id.Draw(t, "removed")),
		}).Draw(t, "change"))
	}
	change := statetest.ChangeMembers(configuration, list...)
	if next, _, err := shadow.Change(change.GetChangeMembers(), index, nil); err == nil {
		*shadow = next
	}
	return statetest.Change(index, now, change)
}

func TestChangesOfMembers(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	step := func(e *raftpb.Entry, want *raftpb.ConfState) {
		t.Helper()
		if err := r.state.Apply(r.batch, e); err != nil {
			t.Fatal(err)
		}
		v := r.batch.Verdicts
		if len(v) != 1 || !v[0].Accepted || v[0].Index != e.GetIndex() || v[0].Change.Context != nil || !r.batch.MembersChanged {
			t.Errorf("entry %d: %v, members changed: %v", e.GetIndex(), v, r.batch.MembersChanged)
		}
		if err := want.Equivalent(r.state.conf); err != nil {
			t.Error(err)
		}
		if err := want.Equivalent(v[0].ConfState); err != nil {
			t.Error(err)
		}
		r.batch.Clear()
	}
	add := statetest.ChangeMembers(1, statetest.Add(4))
	add.GetChangeMembers().Record = statetest.RecordOperation(4, 1, messages.OperationPhase_ADD_LEARNER).GetRecordOperation()
	step(statetest.Change(2, 5, add), &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}})
	if m := r.state.Configuration().Member(4); !bytes.Equal(m.GetOperation(), r.state.Operations()[0].Id) || r.state.Operations()[0].ChangedLogMs != 5 || r.state.LogTimeMS() != 5 {
		t.Errorf("%v by %v", m, r.state.Operations())
	}
	step(statetest.Change(3, 6, statetest.ChangeMembers(2, statetest.Promote(4), statetest.Remove(3))),
		&raftpb.ConfState{Voters: []uint64{1, 2, 4}, VotersOutgoing: []uint64{1, 2, 3}})
	step(statetest.Change(4, 7, statetest.ChangeMembers(3)), &raftpb.ConfState{Voters: []uint64{1, 2, 4}})
	if c := r.state.Checkpoint(); c.NextRaftId != 5 || c.ConfigurationIndex != 4 || len(c.Members) != 3 || c.Members[2].Name != "node4" {
		t.Errorf("%v", c)
	}
}

// TestChangesThatAreRefused: they have no effect at all, and raft is told so.
func TestChangesThatAreRefused(t *testing.T) {
	change := func(alter func(*raftpb.ConfChangeV2), list ...*messages.Operation) *raftpb.Entry {
		e := statetest.Change(2, 0, list...)
		c := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(e.Data, c); err != nil {
			t.Fatal(err)
		}
		alter(c)
		e.Data = statetest.Marshal(c)
		return e
	}
	nothing := func(*raftpb.ConfChangeV2) {}
	add := statetest.ChangeMembers(1, statetest.Add(4))
	recorded := func(version uint64) *messages.Operation {
		o := proto.Clone(add).(*messages.Operation)
		o.GetChangeMembers().Record = statetest.RecordOperation(4, version, messages.OperationPhase_ADD_LEARNER).GetRecordOperation()
		return o
	}
	session := statetest.Marshal(&messages.Commands{Level: 1, Proposals: []*messages.Proposal{{Command: statetest.Marshal(
		&messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(10, 10), Operations: statetest.Ops(add)})}}})
	twice := &messages.Proposal{Command: statetest.Marshal(&messages.Command{Operations: statetest.Ops(add)})}
	v1 := statetest.Change(2, 0)
	v1.Type, v1.Data = raftpb.EntryConfChange.Enum(), statetest.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(4))})
	for name, row := range map[string]struct {
		e    *raftpb.Entry
		says string
	}{
		"no context":           {change(func(c *raftpb.ConfChangeV2) { c.Context = nil }, add), "with 0 commands"},
		"an empty entry":       {&raftpb.Entry{Index: new(uint64(2)), Term: new(uint64(1)), Type: raftpb.EntryConfChangeV2.Enum()}, "with 0 commands"},
		"of the first version": {v1, "with 0 commands"},
		"two commands": {change(func(c *raftpb.ConfChangeV2) {
			c.Context = statetest.Marshal(&messages.Commands{Proposals: []*messages.Proposal{twice, twice}})
		}, add), "with 2 commands"},
		"two operations":    {change(nothing, add, statetest.Compact(1)), "does not change the members"},
		"another operation": {change(nothing, statetest.BindIncarnation(1, 1)), "does not change the members"},
		"a client's":        {change(func(c *raftpb.ConfChangeV2) { c.Context = session }, add), "does not change the members"},
		"a put":             {change(nothing, statetest.Put("k", "v")), "does not change the members"},
		"another id":        {change(func(c *raftpb.ConfChangeV2) { c.Changes[0].NodeId = new(uint64(5)) }, add), "another one for raft"},
		"another kind":      {change(func(c *raftpb.ConfChangeV2) { c.Changes[0].Type = raftpb.ConfChangeAddNode.Enum() }, add), "another one for raft"},
		"one more for raft": {change(func(c *raftpb.ConfChangeV2) { c.Changes = append(c.Changes, c.Changes[0]) }, add), "another one for raft"},
		"left by itself": {change(func(c *raftpb.ConfChangeV2) {
			c.Transition = raftpb.ConfChangeTransition_ConfChangeTransitionJointImplicit.Enum()
		}, add), "another one for raft"},
		"none for raft":          {change(func(c *raftpb.ConfChangeV2) { c.Changes = nil }, add), "another one for raft"},
		"of another time":        {change(nothing, statetest.ChangeMembers(7, statetest.Add(4))), "configuration of index 1 is in force"},
		"of a record's other":    {change(nothing, recorded(2)), "there is no such operation"},
		"that must not be":       {change(nothing, statetest.ChangeMembers(1, statetest.Promote(1))), "is a voter already"},
		"leaving what is simple": {change(nothing, statetest.ChangeMembers(1)), "no joint configuration"},
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		before := r.state.Checkpoint()
		if err := r.state.Apply(r.batch, row.e); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := r.batch.Verdicts
		if len(v) != 1 || v[0].Accepted || v[0].Change != nil || !strings.Contains(v[0].Refusal, row.says) || !proto.Equal(v[0].ConfState, before.ConfState) {
			t.Errorf("%s: %v, want %s", name, v, row.says)
		}
		after := r.state.Checkpoint()
		if after.HistoryHash == before.HistoryHash {
			t.Errorf("%s leaves history as it was", name)
		}
		before.Index, before.HistoryHash = after.Index, after.HistoryHash
		if !proto.Equal(before, after) || r.batch.MembersChanged || len(r.batch.Settled) > 0 {
			t.Errorf("%s has an effect: %v", name, after)
		}
	}
}

// TestCommandsAboutMembers: those that leave the configuration as it is.
func TestCommandsAboutMembers(t *testing.T) {
	command := func(list ...*messages.Operation) *messages.Command { return &messages.Command{Operations: list} }
	record := statetest.RecordOperation(4, 1, messages.OperationPhase_ADD_LEARNER)
	add := statetest.ChangeMembers(1, statetest.Add(4))
	client := &messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(10, 10), Operations: statetest.Ops(record)}
	otherwise := &messages.Command{Session: statetest.Client(1), Seq: 1, Open: statetest.Opens(10, 10),
		Conditions: []*messages.Condition{statetest.IfRevision("k", 1)}, Otherwise: statetest.Ops(record)}
	for name, row := range map[string]struct {
		list []*messages.Command
		want string // codes, and whether members changed
	}{
		"a record":                    {[]*messages.Command{command(record)}, "[OK] true"},
		"the same again":              {[]*messages.Command{command(record), command(record)}, "[OK CONFLICT] true"},
		"a directory":                 {[]*messages.Command{command(statetest.BindIncarnation(2, 2))}, "[OK] true"},
		"another directory":           {[]*messages.Command{command(statetest.BindIncarnation(2, 2)), command(statetest.BindIncarnation(2, 3))}, "[OK CONFLICT] true"},
		"a directory of nobody":       {[]*messages.Command{command(statetest.BindIncarnation(9, 2))}, "[NOT_FOUND] false"},
		"an address":                  {[]*messages.Command{command(statetest.UpdateMember(1, 2, "host:1"))}, "[OK] true"},
		"how to heal":                 {[]*messages.Command{command(statetest.SetHealing(1, "node9"))}, "[OK] true"},
		"how to heal, twice":          {[]*messages.Command{command(statetest.SetHealing(1, "node9")), command(statetest.SetHealing(1, "node8"))}, "[OK CONFLICT] true"},
		"a backup":                    {[]*messages.Command{command(statetest.NoteBackup("b", 1, false))}, "[OK] true"},
		"a backup, twice":             {[]*messages.Command{command(statetest.NoteBackup("b", 1, false)), command(statetest.NoteBackup("b", 1, false))}, "[OK CONFLICT] true"},
		"no backup job to forget":     {[]*messages.Command{command(statetest.NoteBackup("b", 1, true))}, "[NOT_FOUND] false"},
		"users":                       {[]*messages.Command{command(statetest.SetAuth(1))}, "[OK] true"},
		"users, twice":                {[]*messages.Command{command(statetest.SetAuth(1)), command(statetest.SetAuth(1))}, "[OK CONFLICT] true"},
		"users that may not be":       {[]*messages.Command{command(statetest.SetAuth(1, statetest.User("z", messages.UserRole_VIEWER, "")))}, "[INVALID] false"},
		"an invitation":               {[]*messages.Command{command(statetest.WriteInvitation(1, "n4"))}, "[OK] true"},
		"an invitation, twice":        {[]*messages.Command{command(statetest.WriteInvitation(1, "n4")), command(statetest.WriteInvitation(1, "n4"))}, "[OK CONFLICT] true"},
		"an invitation of nobody":     {[]*messages.Command{command(statetest.WriteInvitation(1, "n 4"))}, "[INVALID] false"},
		"a spare that is a member":    {[]*messages.Command{command(statetest.SetHealing(1, "node2"))}, "[CONFLICT] false"},
		"two upon one configuration":  {[]*messages.Command{command(statetest.UpdateMember(1, 2, "host:1")), command(statetest.UpdateMember(1, 2, "host:2"))}, "[OK CONFLICT] true"},
		"members without raft":        {[]*messages.Command{command(add)}, "[INVALID] false"},
		"two operations":              {[]*messages.Command{command(record, record)}, "[INVALID] false"},
		"with a compaction":           {[]*messages.Command{command(record, statetest.Compact(1))}, "[INVALID] false"},
		"of a client":                 {[]*messages.Command{client}, "[INVALID] false"},
		"of a client, otherwise":      {[]*messages.Command{otherwise}, "[INVALID] false"},
		"with a number and no client": {[]*messages.Command{{Seq: 1, Operations: statetest.Ops(record)}}, "[INVALID] false"},
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		if err := r.state.Apply(r.batch, statetest.Entry(2, 5, row.list...)); err != nil {
			t.Fatal(err)
		}
		var codes []messages.Code
		for _, s := range r.batch.Settled {
			codes = append(codes, s.outcome.code)
		}
		if got := fmt.Sprint(codes, r.batch.MembersChanged); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
		if changed := len(r.state.operations) > 0 || r.state.confIndex != 1 || len(r.state.members[1].Incarnation) > 0 || r.state.healing != nil || r.state.backups != nil || r.state.auth != nil || r.state.invitations != nil; changed != r.batch.MembersChanged {
			t.Errorf("%s: %v", name, r.state.Checkpoint())
		}
		if messages.CheckCommand(row.list[0]) == nil {
			t.Errorf("%s passes as a client's", name)
		}
	}
}

// TestOldOperationsAreForgotten: as soon as log time says so, also behind a checkpoint.
func TestOldOperationsAreForgotten(t *testing.T) {
	r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
	record := func(n byte, phase messages.OperationPhase) *messages.Command {
		return &messages.Command{Operations: statetest.Ops(statetest.RecordOperation(n, 1, phase))}
	}
	r.apply(statetest.Entry(2, 5, record(4, messages.OperationPhase_FAILED), record(5, messages.OperationPhase_CATCH_UP)))
	r = newReplica(t, r.state.Checkpoint(), r.store, wideBounds)
	r.apply(statetest.Entry(3, 5+rules.EndedMaxMS))
	if len(r.state.operations) != 2 || r.batch.MembersChanged {
		t.Errorf("within 7 days there are %d", len(r.state.operations))
	}
	if err := r.state.Apply(r.batch, statetest.Entry(4, 6+rules.EndedMaxMS)); err != nil {
		t.Fatal(err)
	}
	if len(r.state.operations) != 1 || !r.batch.MembersChanged {
		t.Errorf("after 7 days there are %d", len(r.state.operations))
	}
}

// TestHistoryOfMembers: histories that differ in what is known of members differ.
func TestHistoryOfMembers(t *testing.T) {
	seen := map[uint64]string{}
	for name, e := range map[string]*raftpb.Entry{
		"nothing":          statetest.Entry(2, 0),
		"a member":         statetest.Change(2, 0, statetest.ChangeMembers(1, statetest.Add(4))),
		"a refused member": statetest.Change(2, 0, statetest.ChangeMembers(1, statetest.Add(5))),
		"a removal":        statetest.Change(2, 0, statetest.ChangeMembers(1, statetest.Remove(3))),
		"another removal":  statetest.Change(2, 0, statetest.ChangeMembers(1, statetest.Remove(2))),
		"a record":         statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.RecordOperation(4, 1, messages.OperationPhase_CATCH_UP))}),
		"another record":   statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.RecordOperation(4, 1, messages.OperationPhase_FAILED))}),
		"a directory":      statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.BindIncarnation(2, 2))}),
		"how to heal":      statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.SetHealing(1, "node9"))}),
		"users":            statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.SetAuth(1))}),
		"an invitation":    statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.WriteInvitation(1, "n4"))}),
		"a backup":         statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.NoteBackup("b", 1, false))}),
		"an address":       statetest.Entry(2, 0, &messages.Command{Operations: statetest.Ops(statetest.UpdateMember(1, 2, "host:1"))}),
	} {
		r := newReplica(t, statetest.First(), disktest.NewMemory(), wideBounds)
		r.apply(e)
		if other, is := seen[r.state.History()]; is {
			t.Errorf("%s is the same history as %s", name, other)
		}
		seen[r.state.History()] = name
	}
}
