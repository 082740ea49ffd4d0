package storeactor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/disk"
	"keyval/storeactor/state/statetest"
)

// company is a machine among probes.
type company struct {
	*actortest.Stage
	disk                           *memoryDisk
	machine                        *actor.PID
	raft, log, gateway, membership *actortest.Probe
	session                        *actortest.Probe
	asked                          int // times that passed was called
}

// newCompany starts a machine; change may alter its configuration.
func newCompany(t *testing.T, change func(*MachineConfig)) *company {
	t.Helper()
	s := actortest.NewStage(t)
	c := &company{
		Stage:      s,
		disk:       newDisk(),
		raft:       s.Probe(messages.ActorRaft),
		log:        s.Probe(messages.ActorLog),
		gateway:    s.Probe(messages.ActorGateway),
		membership: s.Probe(messages.ActorMembership),
		session:    s.Probe(messages.ActorSessionPrefix + "1"),
	}
	config := MachineConfig{
		Self: 1, Raft: c.raft.PID, Log: c.log.PID, Gateway: c.gateway.PID, Membership: c.membership.PID,
		Disk: c.disk, Fatal: s.OnFatal, Readers: 2,
	}
	if change != nil {
		change(&config)
	}
	c.machine = s.Spawn(messages.ActorMachine, NewMachine(config))
	return c
}

// opened takes what the machine says when it starts.
func (c *company) opened() *company {
	c.T.Helper()
	actortest.Take[*messages.MachineOpened](c.raft)
	actortest.Take[*messages.MembersChanged](c.membership)
	actortest.Take[*messages.MembersChanged](c.gateway)
	actortest.Take[*messages.LogTimeAdvanced](c.gateway)
	return c
}

func (c *company) send(m any) { c.System.Root.Send(c.machine, m) }

func (c *company) ask(from *actortest.Probe, m any) {
	c.System.Root.RequestWithCustomSender(c.machine, m, from.PID)
}

// tick lets time pass, and waits until the machine has taken all that was sent before.
func (c *company) tick(n uint32) {
	c.T.Helper()
	ticker := c.Probe(fmt.Sprint(messages.ActorTicker, c.asked))
	c.asked++
	c.ask(ticker, &messages.Tick{Elapsed: n})
	ticker.Expect("Ticked{}")
}

func (c *company) passed() { c.T.Helper(); c.tick(0) }

func (c *company) apply(entries ...*raftpb.Entry) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgStorageApply.Enum(), Entries: entries}
	c.send(&messages.Apply{Message: m})
	return m
}

// write is the command of client 1 with this number, which puts a=<number>.
func write(seq uint64) *messages.Command {
	return &messages.Command{Session: statetest.Client(1), Seq: seq, Open: statetest.Opens(1000, 1000), Operations: statetest.Ops(statetest.Put("a", fmt.Sprint(seq)))}
}

func asks(index uint64, read ...*messages.Read) *messages.ReadAt {
	at := &messages.ReadAt{Index: index}
	for _, r := range read {
		at.Reads = append(at.Reads, &messages.ReadIndex{Session: messages.ActorSessionPrefix + "1", Read: r})
	}
	return at
}

func TestMachineSaysWhereItStarts(t *testing.T) {
	c := newCompany(t, nil)
	c.raft.Expect("MachineOpened{index=1 conf_state=ConfState{voters=[1 2 3]} term=1 level=1}")
	members := `MembersChanged{members=[Member{raft_id=1 name="node1"} Member{raft_id=2 name="node2"} Member{raft_id=3 name="node3"}]` +
		` cluster_id="\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a" next_raft_id=4 configuration_index=1` +
		` conf_state=ConfState{voters=[1 2 3]} index=1 level=1 settled=true}`
	c.membership.Expect(members)
	c.gateway.Expect(members)
	c.gateway.Expect("LogTimeAdvanced{}")

	c.System.Root.RequestWithCustomSender(c.machine, &messages.Introduce{}, c.membership.PID)
	c.membership.Expect(members)
	c.System.Root.RequestWithCustomSender(c.machine, &messages.Introduce{}, c.gateway.PID)
	c.gateway.Expect(members)
	c.gateway.Expect("LogTimeAdvanced{}")
	c.Stop(c.machine)
	c.membership.ExpectNoMore(c.Stage)
	if !c.disk.engine.Closed {
		t.Error("the engine was left open")
	}
}

func TestMachineApplies(t *testing.T) {
	c := newCompany(t, nil).opened()
	first := statetest.Entry(2, 20, write(1), write(2))
	foreign := &messages.Commands{Level: 1, LogTimeMs: 20, Proposals: []*messages.Proposal{{Origin: 2, Command: statetest.Marshal(write(3))}}}
	message := c.apply(first, &raftpb.Entry{Index: new(uint64(3)), Term: new(uint64(1)), Data: statetest.Marshal(foreign)})
	client := `"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"`
	c.gateway.Expect("Outcomes{outcomes=[SessionOutcome{client=" + client + " outcome=Outcome{seq=1 revision=1}}" +
		" SessionOutcome{client=" + client + " outcome=Outcome{seq=2 revision=2}}]}")
	c.gateway.Expect("LogTimeAdvanced{log_time_ms=20}")
	applied := actortest.Take[*messages.Applied](c.raft)
	if applied.Message != message || applied.Index != 3 || applied.Revision != 3 || applied.LogTimeMs != 20 || applied.HistoryHash == 0 {
		t.Errorf("raft is told %s", messages.Line(applied))
	}
	if got := c.disk.engine.Live(t, 3); got != "a=3@3" || c.disk.engine.Writes != 1 {
		t.Errorf("%q was written with %d writes", got, c.disk.engine.Writes)
	}

	// Without commands of its own and without a step of time there is no news.
	c.apply(&raftpb.Entry{Index: new(uint64(4)), Term: new(uint64(2))})
	again := actortest.Take[*messages.Applied](c.raft)
	if again.Index != 4 || again.Revision != 3 || again.HistoryHash == applied.HistoryHash {
		t.Errorf("raft is told %s", messages.Line(again))
	}
	c.apply(statetest.Change(5, 20, statetest.ChangeMembers(1, statetest.Add(4))), statetest.Change(6, 20, statetest.ChangeMembers(1, statetest.Add(4))))
	if v := actortest.Take[*messages.Applied](c.raft).Verdicts; len(v) != 2 || !v[0].Accepted || len(v[0].ConfState.Learners) != 1 || v[1].Accepted {
		t.Errorf("raft is told %v", v)
	}
	actortest.Take[*messages.SyncCommit](c.log) // of a checkpoint that is due at once
	actortest.Take[*messages.MembersChanged](c.membership)
	actortest.Take[*messages.MembersChanged](c.gateway)
	c.Stop(c.machine)
	c.gateway.ExpectNoMore(c.Stage)
}

// TestMachineHoldsReadsAgainstRights: as they are applied when the read is answered, and those of
// clients alone: the node's own know nobody.
func TestMachineHoldsReadsAgainstRights(t *testing.T) {
	c := newCompany(t, nil).opened()
	reads := func(client, principal string) {
		t.Helper()
		at := asks(0, statetest.GetAt(0, "a"))
		at.Reads[0].Client, at.Reads[0].Principal = client, principal
		c.send(at)
	}
	const client, there = "client/01", `ReadReply{request=7 revision=1 items=[Item{key="a" value="1" revision=1 create_revision=1 version=1}]}`
	set := func(version uint64, users ...*messages.User) *messages.Command {
		return &messages.Command{Operations: statetest.Ops(statetest.SetAuth(version, users...))}
	}
	c.apply(statetest.Entry(2, 1, write(1)), statetest.Entry(3, 1, set(1, statetest.User("alice", messages.UserRole_VIEWER, "a"))))
	reads(client, "alice")
	c.session.Expect(there)
	reads(client, "bob")
	c.session.Expect(`ReadReply{request=7 code=NOT_ALLOWED revision=1 message="user bob lacks the role viewer for key \"a\"" hint="ask who can give it, root: kvctl user grant bob viewer --prefix \"a\""}`)
	reads("", "")
	c.session.Expect(there)

	late := asks(4, statetest.GetAt(0, "a"))
	late.Reads[0].Client, late.Reads[0].Principal = client, "alice"
	c.send(late)
	c.apply(statetest.Entry(4, 1, set(2)))
	if got := actortest.Take[*messages.ReadReply](c.session); got.Code != messages.Code_NOT_ALLOWED {
		t.Errorf("what was allowed when it was asked for is answered with %s", messages.Line(got))
	}
}

func TestMachineServesReads(t *testing.T) {
	c := newCompany(t, nil).opened()
	c.send(asks(3, statetest.GetAt(0, "a")))
	c.send(asks(0, statetest.GetAt(0, "a"))) // stale: at once
	c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	c.apply(statetest.Entry(2, 1, write(1)))
	actortest.Take[*messages.Applied](c.raft)
	c.send(asks(2, statetest.GetAt(0, "a")))
	c.session.Expect(`ReadReply{request=7 revision=1 items=[Item{key="a" value="1" revision=1 create_revision=1 version=1}]}`)
	c.apply(statetest.Entry(3, 1, write(2)))
	c.session.Expect(`ReadReply{request=7 revision=2 items=[Item{key="a" value="2" revision=2 create_revision=1 version=2}]}`)

	// What cannot wait is refused, and what waits is answered nevertheless.
	c.send(&messages.ReadAt{Index: 4, Reads: asks(4, make([]*messages.Read, waitingReadsMax)...).Reads})
	c.send(asks(4, statetest.GetAt(0, "a")))
	c.session.Expect("ReadRefused{request=7 code=BUSY}")
	c.apply(&raftpb.Entry{Index: new(uint64(4)), Term: new(uint64(1))})
	for range waitingReadsMax {
		if got := actortest.Take[*messages.ReadReply](c.session); got.Code != messages.Code_INVALID {
			t.Fatalf("a read of nothing is answered with %s", messages.Line(got))
		}
	}
	c.Stop(c.machine)
	c.session.ExpectNoMore(c.Stage)
}

// Scans of one client hold up another's get for two turns at most, and those that no
// reader has yet end with their session.
func TestFloodsOfScansHoldUpNobodyAndEndWithTheirSession(t *testing.T) {
	c := newCompany(t, func(config *MachineConfig) { config.Readers = 1 }).opened()
	flood := c.Probe(messages.ActorSessionPrefix + "2")
	release := c.hold()
	scans := &messages.ReadAt{}
	for n := range 100 {
		read := &messages.Read{Request: uint64(n), Kind: &messages.Read_Scan{Scan: &messages.Scan{}}}
		scans.Reads = append(scans.Reads, &messages.ReadIndex{Session: messages.ActorSessionPrefix + "2", Client: "client/flood", Read: read})
	}
	c.send(scans)
	c.send(asks(0, statetest.GetAt(0, "a")))
	c.send(&messages.DropReads{Client: "client/flood", Session: messages.ActorSessionPrefix + "2"})
	c.passed()
	release()
	for range 2 { // the slow one, and the get
		c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	}
	c.passed()
	c.Stop(c.machine)
	flood.Expect("ReadReply{}")
	flood.ExpectNoMore(c.Stage)
}

// A reader that panics loses its read and nothing else, and is counted.
func TestReadersRestart(t *testing.T) {
	meter := prometheus.NewRegistry()
	c := newCompany(t, func(config *MachineConfig) { config.Readers, config.Meter = 1, meter }).opened()
	c.disk.engine.Panics = "bad"
	for range 20 {
		c.send(asks(0, statetest.GetAt(0, "bad")))
		c.send(asks(0, statetest.GetAt(0, "good")))
		c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	}
	// The reader goes by its name.
	reader := actor.NewPID(c.System.Address(), messages.ActorReaderPrefix+"0")
	c.System.Root.Send(reader, asks(0, statetest.GetAt(0, "good")))
	c.session.Expect("ReadReply{request=7 code=NOT_FOUND}")
	if len(c.Fatal) > 0 {
		t.Errorf("a reader's panic is no reason to end: %v", <-c.Fatal)
	}
	if n := actortest.Counted(t, meter, "keyval_actor_failures_total"); n != 20 {
		t.Errorf("%d failures of 20 are counted", n)
	}
	c.Stop(c.machine)
}

func TestReadersOfDamagedDataEndTheNode(t *testing.T) {
	c := newCompany(t, nil).opened()
	c.disk.engine.Err = messages.Errorf(messages.Code_DAMAGED, "a block is damaged")
	c.send(asks(0, statetest.GetAt(0, "a")))
	if reason := <-c.Fatal; messages.CodeOf(reason) != messages.Code_DAMAGED {
		t.Errorf("the reason is %v", reason)
	}
	c.Stop(c.machine)
	c.session.ExpectNoMore(c.Stage)
}

// A row that is not what was written ends the process, whoever reads it, and the
// directory is given up before; nobody is answered.
func TestRotCondemnsTheDirectory(t *testing.T) {
	for name, reads := range map[string]any{
		"a read":    asks(0, statetest.GetAt(0, "a")),
		"a scan":    asks(0, &messages.Read{Request: 7, Kind: &messages.Read_Scan{Scan: &messages.Scan{}}}),
		"a digest":  asks(0, &messages.Read{Request: 7, Kind: &messages.Read_Digest{Digest: &messages.Digest{}}}),
		"an export": &messages.ReadRows{Holder: "to-2"},
		"a command": &messages.Apply{Message: &raftpb.Message{Entries: []*raftpb.Entry{statetest.Entry(2, 1, write(1))}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCompany(t, nil).opened()
			c.ask(c.session, &messages.PinState{Holder: "to-2"})
			actortest.Take[*messages.StatePinned](c.session)
			c.disk.engine.Err = disk.NewRot([]byte("a"), 7, "its checksum does not fit")
			c.ask(c.session, reads)
			said := `the state is damaged: the row of key "a" at revision 7 is not what was written: its checksum does not fit`
			c.disk.expect(t, "condemned: "+said)
			if reason := <-c.Fatal; messages.CodeOf(reason) != messages.Code_DAMAGED || !strings.HasSuffix(reason.Error(), said) {
				t.Errorf("the reason is %v", reason)
			}
			c.Stop(c.machine)
			for _, p := range []*actortest.Probe{c.raft, c.gateway, c.session} {
				p.ExpectNoMore(c.Stage)
			}
		})
	}
}

func TestMachineStopsAtABrokenInvariant(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*company)
		entries []*raftpb.Entry
		reason  string
	}{
		{"a gap", func(*company) {}, []*raftpb.Entry{statetest.Entry(3, 1)}, "entry 3 was to be applied behind entry 1"},
		{"an entry again", func(*company) {}, []*raftpb.Entry{statetest.Entry(2, 1), statetest.Entry(2, 1)}, "entry 2 was to be applied behind entry 2"},
		{"a failed read", func(c *company) { c.disk.engine.Err = fmt.Errorf("the disk is gone") }, []*raftpb.Entry{statetest.Entry(2, 1, write(1))},
			"apply entry 2: the disk is gone"},
		{"a failed write", func(c *company) { c.disk.engine.WriteErr = fmt.Errorf("the disk is gone") }, []*raftpb.Entry{statetest.Entry(2, 1, write(1))},
			"write the user data: the disk is gone"},
		{"a newer level", func(*company) {}, []*raftpb.Entry{{Index: new(uint64(2)), Data: statetest.Marshal(&messages.Commands{Level: 9})}},
			"apply entry 2: entry 2 of the log needs level 9, and this replica understands 1: it is too old and stops"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCompany(t, nil).opened()
			test.change(c)
			c.apply(test.entries...)
			if reason := (<-c.Fatal).Error(); reason != test.reason {
				t.Errorf("the reason is %q", reason)
			}
			c.apply(statetest.Entry(2, 1))
			c.send(asks(0, statetest.GetAt(0, "a")))
			c.Stop(c.machine)
			for _, p := range []*actortest.Probe{c.raft, c.gateway, c.session} {
				p.ExpectNoMore(c.Stage)
			}
		})
	}
}

func TestMachineWritesCheckpoints(t *testing.T) {
	meter := prometheus.NewRegistry()
	c := newCompany(t, func(config *MachineConfig) {
		config.CheckpointEntries, config.CheckpointTicks, config.Meter = 2, 5, meter
	}).opened()
	c.apply(statetest.Entry(2, 1, write(1)))
	c.apply(statetest.Entry(3, 2, write(2)))
	c.log.Expect("SyncCommit{index=3}")
	c.apply(statetest.Entry(4, 3, write(3)), statetest.Entry(5, 3, write(4))) // due again, but one is under way
	c.apply(statetest.Entry(6, 3))
	for range 4 {
		actortest.Take[*messages.Applied](c.raft)
	}
	checkpoint := actor.NewPID(c.System.Address(), messages.ActorCheckpoint)
	c.send(&messages.CheckpointWritten{Index: 2}) // of nobody's
	c.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 3})
	c.disk.expect(t, "checkpoint 3")
	c.raft.Expect("Checkpointed{index=3 term=1 conf_state=ConfState{voters=[1 2 3]}}")
	c.log.Expect("SyncCommit{index=6}")
	c.System.Root.Send(checkpoint, &messages.CommitSynced{Index: 6})
	c.disk.expect(t, "checkpoint 6")
	c.raft.Expect("Checkpointed{index=6 term=1 conf_state=ConfState{voters=[1 2 3]}}")

	c.apply(statetest.Entry(7, 3))
	actortest.Take[*messages.Applied](c.raft)
	ticker := c.Probe(messages.ActorTicker)
	for _, elapsed := range []uint32{2, 2} {
		c.System.Root.RequestWithCustomSender(c.machine, &messages.Tick{Elapsed: elapsed}, ticker.PID)
		ticker.Expect("Ticked{}")
	}
	c.System.Root.RequestWithCustomSender(c.machine, &messages.Tick{Elapsed: 1}, ticker.PID)
	ticker.Expect("Ticked{}")
	c.log.Expect("SyncCommit{index=7}")
	for name, want := range map[string]int{"keyval_checkpoint_seconds": 2, "keyval_machine_applied_entries_total": 6} {
		if n := actortest.Counted(t, meter, name); n != want {
			t.Errorf("%s counts %d, want %d", name, n, want)
		}
	}
	c.Stop(c.machine)
	c.log.ExpectNoMore(c.Stage)
}

// A checkpoint's panic is the whole node's: it goes on to the machine's supervisor.
func TestACheckpointsPanicEscalates(t *testing.T) {
	s, d := actortest.NewStage(t), newDisk()
	raft, log, others := s.Probe("raft"), s.Probe("log"), s.Probe("others")
	reasons := make(chan any, 1)
	root := s.System.Root.Copy().WithGuardian(actor.NewOneForOneStrategy(0, 0, func(reason any) actor.Directive {
		reasons <- reason
		return actor.StopDirective
	}))
	machine, err := root.SpawnNamed(actor.PropsFromProducer(NewMachine(MachineConfig{
		Self: 1, Raft: raft.PID, Log: log.PID, Gateway: others.PID, Membership: others.PID, Disk: d, Fatal: s.OnFatal})), messages.ActorMachine)
	if err != nil {
		t.Fatal(err)
	}
	actortest.Take[*messages.MachineOpened](raft)
	for range 2 {
		s.System.Root.Send(actor.NewPID(machine.Address, messages.ActorCheckpoint), &messages.WriteCheckpoint{Checkpoint: statetest.First()})
	}
	if reason := fmt.Sprint(<-reasons); reason != "checkpoint 1 was begun while 1 is being written" {
		t.Errorf("the reason is %q", reason)
	}
}
