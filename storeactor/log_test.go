package storeactor

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/actortest"
)

// appendOf reads "term/vote/commit index.term ...", with "-" for no hard state.
func appendOf(text string) *messages.Append {
	m := &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum()}
	for i, word := range strings.Fields(text) {
		var a, b, c uint64
		if i > 0 {
			if _, err := fmt.Sscanf(word, "%d.%d", &a, &b); err != nil {
				panic(err)
			}
			m.Entries = append(m.Entries, &raftpb.Entry{Index: &a, Term: &b})
		} else if word != "-" {
			if _, err := fmt.Sscanf(word, "%d/%d/%d", &a, &b, &c); err != nil {
				panic(err)
			}
			m.Term, m.Vote, m.Commit = &a, &b, &c
		}
	}
	return &messages.Append{Message: m}
}

func TestMergeAppends(t *testing.T) {
	for _, test := range []struct {
		name    string
		appends []string
		merged  string
	}{
		{"nothing", []string{"-", "-"}, "-"},
		{"one", []string{"1/2/3 5.1 6.1"}, "1/2/3 5.1 6.1"},
		{"a follows b", []string{"- 5.1 6.1", "- 7.1", "- 8.1 9.1"}, "- 5.1 6.1 7.1 8.1 9.1"},
		{"the last hard state counts", []string{"1/2/3 5.1", "2/0/3", "- 6.2"}, "2/0/3 5.1 6.2"},
		{"a hard state with a vote for nobody", []string{"1/2/3", "2/0/0"}, "2/0/0"},
		{"the end is overwritten", []string{"- 5.1 6.1 7.1", "- 6.2"}, "- 5.1 6.2"},
		{"all is overwritten", []string{"- 5.1 6.1", "- 5.2"}, "- 5.2"},
		{"more than all is overwritten", []string{"- 5.1 6.1", "- 3.2 4.2"}, "- 3.2 4.2"},
		{"twice", []string{"- 5.1 6.1 7.1", "- 6.2 7.2", "- 7.3 8.3"}, "- 5.1 6.2 7.3 8.3"},
		{"back to the first", []string{"- 5.1 6.1", "- 6.2", "- 6.1 7.1"}, "- 5.1 6.1 7.1"},
	} {
		var appends []*messages.Append
		for _, text := range test.appends {
			a := appendOf(text)
			// Room behind the entries must not be written into: it is a message's.
			a.Message.Entries = append(make([]*raftpb.Entry, 0, 10), a.Message.Entries...)
			appends = append(appends, a)
		}
		if got := describe(mergeAppends(appends)); got != test.merged {
			t.Errorf("%s: %s, not %s", test.name, got, test.merged)
		}
		for i, a := range appends {
			if got := describe(mergeAppends(appends[i : i+1])); got != test.appends[i] {
				t.Errorf("%s: append %d has become %s", test.name, i, got)
			}
			if spare := a.Message.Entries[len(a.Message.Entries):cap(a.Message.Entries)]; len(spare) > 0 && spare[0] != nil {
				t.Errorf("%s: the array of append %d was written to", test.name, i)
			}
		}
	}
	defer func() {
		if reason := fmt.Sprint(recover()); !strings.Contains(reason, "index 8 leaves a gap behind index 6") {
			t.Errorf("a gap: %s", reason)
		}
	}()
	mergeAppends([]*messages.Append{appendOf("- 5.1 6.1"), appendOf("- 8.1")})
}

func (d *memoryDisk) expect(t *testing.T, event string) {
	t.Helper()
	if got := <-d.events; got != event {
		t.Fatalf("the disk did %q, not %q", got, event)
	}
}

func TestLogMergesWhatIsInItsMailbox(t *testing.T) {
	s, d := actortest.NewStage(t), newDisk()
	d.gate = make(chan struct{})
	raft, meter := s.Probe("raft"), prometheus.NewRegistry()
	log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Disk: d, Meter: meter, Fatal: s.OnFatal}))
	asked := []*messages.Append{appendOf("2/1/1 2.2 3.2"), appendOf("- 4.2"), appendOf("3/1/2 3.3"), appendOf("-")}
	for _, a := range asked {
		s.System.Root.Send(log, a)
	}
	close(d.gate)
	raft.Expect("LogOpened{hard_state=HardState{term=1 vote=0 commit=1} base_index=1 base_term=1}")
	d.expect(t, "save 3/1/2 2.2 3.3")
	for i, a := range asked {
		if got := actortest.Take[*messages.Appended](raft); got.Message != a.Message {
			t.Errorf("answer %d is of %s", i, describe(mergeAppends([]*messages.Append{{Message: got.Message}})))
		}
	}
	later := appendOf("- 4.3")
	later.Message.Entries[0].Data = []byte("12345")
	s.System.Root.Send(log, later)
	d.expect(t, "save - 4.3")
	actortest.Take[*messages.Appended](raft)
	if n := actortest.Counted(t, meter, "keyval_log_appended_bytes_total"); n != 5 {
		t.Errorf("%d bytes of 5 are counted", n)
	}
	s.System.Root.Send(log, appendOf("-")) // nothing to save, but an answer
	actortest.Take[*messages.Appended](raft)
	s.Stop(log)
	d.expect(t, "close")
}

func TestLogSyncsACommitWhenItIsThere(t *testing.T) {
	s, d := actortest.NewStage(t), newDisk()
	raft, asker := s.Probe("raft"), s.Probe("asker")
	log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Disk: d, Fatal: s.OnFatal}))
	actortest.Take[*messages.LogOpened](raft)
	for _, index := range []uint64{1, 4, 3} {
		s.System.Root.RequestWithCustomSender(log, &messages.SyncCommit{Index: index}, asker.PID)
	}
	d.expect(t, "sync")
	asker.Expect("CommitSynced{index=1}") // it was there when the log was opened
	s.System.Root.Send(log, appendOf("1/0/2"))
	d.expect(t, "save 1/0/2")
	s.System.Root.Send(log, appendOf("1/0/3"))
	d.expect(t, "save 1/0/3")
	d.expect(t, "sync")
	asker.Expect("CommitSynced{index=3}")
	s.System.Root.Send(log, appendOf("1/0/9"))
	d.expect(t, "save 1/0/9")
	d.expect(t, "sync")
	asker.Expect("CommitSynced{index=4}")
	s.Stop(log)
}

// withSnapshot makes an append carry the snapshot at this index and term.
func withSnapshot(a *messages.Append, index, term uint64) *messages.Append {
	a.Message.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term}}
	return a
}

// What stood before a snapshot is saved before it, what comes with it behind it, and
// what came after it waits for the machine.
func TestLogInstallsSnapshots(t *testing.T) {
	for _, test := range []struct {
		name      string
		before    []string
		snapshot  string // at 9.4
		after     []string
		installed []string // what the disk does until the machine is told
		rest      []string // and afterwards
	}{
		{"alone", nil, "4/0/9", nil,
			[]string{"close", "install 9.4 with 4/0/9"}, nil},
		{"behind others", []string{"2/1/1 2.2 3.2", "3/1/2 3.3"}, "4/0/9", nil,
			[]string{"save 3/1/2 2.2 3.3", "close", "install 9.4 with 4/0/9"}, nil},
		{"before others", nil, "4/0/9", []string{"- 10.4", "5/2/10"},
			[]string{"close", "install 9.4 with 4/0/9"}, []string{"save 5/2/10 10.4"}},
		{"without a hard state: the last one goes on", []string{"3/2/1 2.3"}, "-", nil,
			[]string{"save 3/2/1 2.3", "close", "install 9.4 with 3/2/9"}, nil},
		{"without any hard state of this run", nil, "-", nil,
			[]string{"close", "install 9.4 with 1/0/9"}, nil},
		{"with entries", nil, "4/3/9 10.4 11.4", nil,
			[]string{"close", "install 9.4 with 4/3/9", "save - 10.4 11.4"}, nil},
		{"with entries that are committed", nil, "4/3/11 10.4 11.4", []string{"- 12.4"},
			[]string{"close", "install 9.4 with 4/3/9", "save 4/3/11 10.4 11.4"}, []string{"save - 12.4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, d := actortest.NewStage(t), newDisk()
			d.gate = make(chan struct{}, 2)
			raft, machine, snapshots := s.Probe("raft"), s.Probe("machine"), s.Probe("snapshots")
			log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Machine: machine.PID, Snapshots: snapshots.PID, Disk: d, Fatal: s.OnFatal}))
			var asked []*messages.Append
			for _, text := range test.before {
				asked = append(asked, appendOf(text))
			}
			asked = append(asked, withSnapshot(appendOf(test.snapshot), 9, 4))
			for _, text := range test.after {
				asked = append(asked, appendOf(text))
			}
			for _, a := range asked {
				s.System.Root.Send(log, a)
			}
			d.gate <- struct{}{}
			d.gate <- struct{}{}
			actortest.Take[*messages.LogOpened](raft)
			machine.Expect("Installed{index=9}")
			snapshots.Expect("Installed{index=9}")
			for _, event := range test.installed {
				d.expect(t, event)
			}
			for _, a := range asked[:len(test.before)] {
				if got := actortest.Take[*messages.Appended](raft); got.Message != a.Message {
					t.Error("an answer is of another append")
				}
			}
			// Nothing is said of the snapshot, or of what came after it, before the machine
			// has switched to it. That of another one does not count.
			late := appendOf("-")
			s.System.Root.Send(log, late)
			s.System.Root.Send(log, &messages.Switched{Index: 8})
			s.System.Root.RequestWithCustomSender(log, &messages.SyncCommit{Index: 9}, machine.PID)
			machine.Expect("CommitSynced{index=9}")
			raft.ExpectNoMore(s)
			d.expect(t, "sync")
			if len(d.events) > 0 {
				t.Errorf("while the machine switches the disk did %q", <-d.events)
			}
			s.System.Root.Send(log, &messages.Switched{Index: 9})
			for _, a := range append(asked[len(test.before):], late) {
				if got := actortest.Take[*messages.Appended](raft); got.Message != a.Message {
					t.Error("an answer is of another append")
				}
			}
			s.Stop(log)
			for _, event := range append(test.rest, "close") {
				d.expect(t, event)
			}
			machine.ExpectNoMore(s)
			snapshots.ExpectNoMore(s)
		})
	}
}

// A commit that is waited for may come with a snapshot.
func TestLogSyncsACommitThatASnapshotBrings(t *testing.T) {
	s, d := actortest.NewStage(t), newDisk()
	raft, others := s.Probe("raft"), s.Probe("others")
	log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Machine: others.PID, Snapshots: others.PID, Disk: d, Fatal: s.OnFatal}))
	asker := s.Probe("asker")
	s.System.Root.RequestWithCustomSender(log, &messages.SyncCommit{Index: 7}, asker.PID)
	s.System.Root.Send(log, withSnapshot(appendOf("4/0/9"), 9, 4))
	asker.Expect("CommitSynced{index=7}")
	for _, event := range []string{"close", "install 9.4 with 4/0/9", "sync"} {
		d.expect(t, event)
	}
	s.Stop(log)
}

// The log is cut behind what was appended before.
func TestLogIsCut(t *testing.T) {
	cut := func(index, term uint64) *messages.CutLog {
		return &messages.CutLog{Index: index, Term: term}
	}
	s, d := actortest.NewStage(t), newDisk()
	d.gate = make(chan struct{})
	raft := s.Probe("raft")
	log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Disk: d, Fatal: s.OnFatal}))
	for _, m := range []any{appendOf("2/1/1 2.2 3.2"), cut(2, 2), appendOf("- 4.2"), cut(3, 2)} {
		s.System.Root.Send(log, m)
	}
	close(d.gate)
	d.expect(t, "save 2/1/1 2.2 3.2 4.2")
	d.expect(t, "cut 3.2") // the last one says it all
	s.System.Root.Send(log, cut(4, 2))
	d.expect(t, "cut 4.2")
	s.System.Root.Send(log, cut(5, 2))
	if reason := (<-s.Fatal).Error(); reason != "the log was to be cut at entry 5 and ends at entry 4" {
		t.Errorf("the reason is %q", reason)
	}
	s.Stop(log)
}

// After a failure nothing is answered, and the disk is left alone.
func TestLogFailures(t *testing.T) {
	lost := errors.New("the disk is gone")
	for _, test := range []struct {
		name   string
		change func(*memoryDisk)
		send   any
		reason string
		events []string
	}{
		{"a write fails", func(d *memoryDisk) { d.saveErr = lost }, appendOf("- 2.1"), "write the log: the disk is gone", nil},
		{"a cut fails", func(d *memoryDisk) { d.saveErr = lost }, &messages.CutLog{Index: 1, Term: 1}, "cut the log at entry 1: the disk is gone", []string{"cut 1.1"}},
		{"a close fails", func(d *memoryDisk) { d.closeErr = lost }, withSnapshot(appendOf("4/0/9"), 9, 4),
			"close the log before a snapshot is installed: the disk is gone", []string{"close"}},
		{"an install fails", func(d *memoryDisk) { d.installErr = lost }, withSnapshot(appendOf("4/0/9"), 9, 4),
			"install the snapshot at index 9: the disk is gone", []string{"close"}},
		{"a save behind a snapshot fails", func(d *memoryDisk) { d.saveErr = lost }, withSnapshot(appendOf("4/0/9 10.4"), 9, 4),
			"write the log: the disk is gone", []string{"close", "install 9.4 with 4/0/9"}},
		{"a sync fails", func(d *memoryDisk) { d.syncErr = lost }, &messages.SyncCommit{Index: 1}, "sync the log: the disk is gone", []string{"sync"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, d := actortest.NewStage(t), newDisk()
			test.change(d)
			raft := s.Probe("raft")
			log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Disk: d, Fatal: s.OnFatal}))
			actortest.Take[*messages.LogOpened](raft)
			s.System.Root.RequestWithCustomSender(log, test.send, raft.PID)
			if reason := (<-s.Fatal).Error(); reason != test.reason {
				t.Errorf("the reason is %q", reason)
			}
			s.System.Root.Send(log, appendOf("- 2.1"))
			s.Stop(log)
			raft.ExpectNoMore(s)
			for _, event := range test.events {
				d.expect(t, event)
			}
			if len(d.events) > 0 || len(s.Fatal) > 0 {
				t.Errorf("after the failure: %d events, %d failures", len(d.events), len(s.Fatal))
			}
		})
	}
}

// What speaks for a loss is durable before raft hears that it is; a verdict ends the process.
func TestLogRecordsSuspicions(t *testing.T) {
	s, d := actortest.NewStage(t), newDisk()
	raft := s.Probe("raft")
	log := s.Spawn("log", NewLog(LogConfig{Raft: raft.PID, Disk: d, Fatal: s.OnFatal}))
	actortest.Take[*messages.LogOpened](raft)
	s.System.Root.RequestWithCustomSender(log, &messages.RecordSuspicion{Suspicion: &messages.Suspicion{Accusations: []*messages.Accusation{{RaftId: 2}}}}, raft.PID)
	actortest.Take[*messages.SuspicionRecorded](raft)
	d.expect(t, "suspected by 1")
	s.System.Root.RequestWithCustomSender(log, &messages.RecordSuspicion{Condemned: "so it is"}, raft.PID)
	if err := <-s.Fatal; messages.CodeOf(err) != messages.Code_DAMAGED || err.Error() != "so it is" {
		t.Errorf("it ends with %v", err)
	}
	d.expect(t, "condemned: so it is")
	s.Stop(log)
	raft.ExpectNoMore(s)
}
