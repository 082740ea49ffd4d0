package storeactor

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// memory is an Engine in memory: all versions of all keys.
type memory struct {
	disk.Engine // what is not overridden is not used
	mutex       sync.Mutex
	rows        map[string][]disk.Row // by key, then revision
	keys        []string              // sorted
	writes      int                   // calls of Write
	err         error                 // of every call, if not nil
	panics      string                // a Get of this key panics
	closed      bool
	closing     chan struct{} // closed by Close
	// holds lets a Get of the key "slow" wait until it is closed; entered is told.
	holds   chan struct{}
	entered chan struct{}

	floor     uint64
	discarded chan uint64  // is told the floors, if not nil
	reclaims  func() error // called by Reclaim, if not nil
}

func newMemory() *memory { return &memory{rows: map[string][]disk.Row{}, closing: make(chan struct{})} }

func (m *memory) Write(rows []disk.Row) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.err != nil {
		return m.err
	}
	m.writes++
	for _, r := range rows {
		key := string(r.Key)
		versions, known := m.rows[key]
		if !known {
			i := sort.SearchStrings(m.keys, key)
			m.keys = slices.Insert(m.keys, i, key)
		}
		i, found := slices.BinarySearchFunc(versions, r.Revision, func(a disk.Row, n uint64) int { return int(a.Revision) - int(n) })
		if found {
			versions[i] = r
		} else {
			m.rows[key] = slices.Insert(versions, i, r)
		}
	}
	return nil
}

// holdReads lets reads of "slow" wait until release is called.
func (m *memory) holdReads() (release func()) {
	holds := make(chan struct{})
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.holds, m.entered = holds, make(chan struct{}, 100)
	return func() { close(holds) }
}

func (m *memory) Get(key []byte, revision uint64) (disk.Row, bool, error) {
	m.mutex.Lock()
	holds, entered := m.holds, m.entered
	m.mutex.Unlock()
	if holds != nil && string(key) == "slow" {
		entered <- struct{}{}
		<-holds
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.panics != "" && m.panics == string(key) {
		panic("the engine met " + m.panics)
	}
	return m.get(string(key), revision)
}

func (m *memory) get(key string, revision uint64) (disk.Row, bool, error) {
	if m.err != nil {
		return disk.Row{}, false, m.err
	}
	versions := m.rows[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].Revision <= revision {
			return versions[i], !versions[i].Deleted, nil
		}
	}
	return disk.Row{}, false, nil
}

func (m *memory) Scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.err != nil {
		return m.err
	}
	keys := slices.Clone(m.keys)
	if reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if key < string(from) || len(to) > 0 && key >= string(to) {
			continue
		}
		row, found, err := m.get(key, revision)
		if err != nil {
			return err
		}
		// The slices are the engine's own: whoever keeps them must copy.
		row.Key, row.Value = bytes.Clone(row.Key), bytes.Clone(row.Value)
		proceed := !found || yield(row)
		clear(row.Key)
		clear(row.Value)
		if !proceed {
			return nil
		}
	}
	return nil
}

// Export is the rows of a snapshot. It keeps the lock: what a test writes beside it waits.
func (m *memory) Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.err != nil {
		return m.err
	}
	for _, key := range m.keys {
		if key < string(after.Key) {
			continue
		}
		versions := m.rows[key]
		for i := len(versions) - 1; i >= 0; i-- {
			row := versions[i]
			behind := key > string(after.Key) || row.Revision < after.Revision
			oldest := row.Revision <= floor // of those that count
			if behind && row.Revision <= revision && !(oldest && row.Deleted) && !yield(row) {
				return nil
			}
			if oldest {
				break
			}
		}
	}
	return nil
}

// Discard drops at once what the floor allows, as any engine may.
func (m *memory) Discard(floor uint64) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.floor = max(m.floor, floor)
	for key, versions := range m.rows {
		if n := slices.IndexFunc(versions, func(r disk.Row) bool { return r.Revision > m.floor }); n > 1 {
			m.rows[key] = versions[n-1:]
		} else if n < 0 {
			m.rows[key] = versions[len(versions)-1:]
		}
	}
	if m.discarded != nil && floor > 0 {
		m.discarded <- floor
	}
}

func (m *memory) Reclaim() error {
	if m.reclaims != nil {
		return m.reclaims()
	}
	return nil
}

func (m *memory) Size() int64 { return 1000 }

func (m *memory) Sync() error { return m.err }

func (m *memory) Close() error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if !m.closed {
		close(m.closing)
	}
	m.closed = true
	return nil
}

func (m *memory) isClosed() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.closed
}

// dump is every version, one a line.
func (m *memory) dump() string {
	var b strings.Builder
	for _, key := range m.keys {
		for _, r := range m.rows[key] {
			fmt.Fprintf(&b, "%q@%d=%q deleted=%v\n", r.Key, r.Revision, r.Value, r.Deleted)
		}
	}
	return b.String()
}

// live is what there is at a revision: key=value@revision, by key.
func (m *memory) live(t testing.TB, revision uint64) string {
	t.Helper()
	var lines []string
	err := m.Scan(nil, nil, revision, false, func(r disk.Row) bool {
		lines = append(lines, fmt.Sprintf("%s=%s@%d", r.Key, r.Value, r.Revision))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, " ")
}

// memoryDisk is a Disk in memory. It tells events what happens to it.
type memoryDisk struct {
	disk.Disk  // what is not overridden is not used
	image      *disk.LogImage
	checkpoint *messages.Checkpoint
	engine     *memory
	events     chan string
	gate       chan struct{} // OpenLog waits for it, if not nil
	saveErr    error
	syncErr    error

	checkpointErr error
	closeErr      error // of the log
	installErr    error

	// staged is what Install finds, with its rows.
	staged       *messages.Checkpoint
	stagedEngine *memory
	engineErr    error
}

func newDisk() *memoryDisk {
	return &memoryDisk{
		image:      &disk.LogImage{HardState: &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(uint64(1))}, BaseIndex: 1, BaseTerm: 1},
		checkpoint: firstCheckpoint(),
		engine:     newMemory(),
		events:     make(chan string, 100),
	}
}

func firstCheckpoint() *messages.Checkpoint {
	return &messages.Checkpoint{
		Format:     CheckpointFormat,
		ClusterId:  bytes.Repeat([]byte{7}, messages.ClusterIDSize),
		Index:      1,
		Term:       1,
		Level:      1,
		ConfState:  &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		Members:    []*messages.Member{{RaftId: 1, Name: "node1"}, {RaftId: 2, Name: "node2"}, {RaftId: 3, Name: "node3"}},
		NextRaftId: 4,
		Founders:   []*messages.Founder{{RaftId: 1, Name: "node1"}, {RaftId: 2, Name: "node2"}, {RaftId: 3, Name: "node3"}},
		Token:      "token",
	}
}

func (d *memoryDisk) Identity() (*messages.Identity, error)     { return nil, nil }
func (d *memoryDisk) WriteIdentity(*messages.Identity) error    { return nil }
func (d *memoryDisk) Initialise(*messages.Checkpoint) error     { return nil }
func (d *memoryDisk) Initialised() (bool, error)                { return true, nil }
func (d *memoryDisk) Close() error                              { return nil }
func (d *memoryDisk) Checkpoint() (*messages.Checkpoint, error) { return d.checkpoint, nil }

func (d *memoryDisk) OpenEngine(*messages.Checkpoint) (disk.Engine, error) {
	if d.engineErr != nil {
		return nil, d.engineErr
	}
	return d.engine, nil
}

// Install makes what is staged the state that counts.
func (d *memoryDisk) Install(index, term uint64, hs *raftpb.HardState) error {
	if d.installErr != nil {
		return d.installErr
	}
	d.events <- fmt.Sprintf("install %d.%d with %s", index, term, describe(hs, nil))
	d.image = &disk.LogImage{BaseIndex: index, BaseTerm: term, HardState: hs}
	if d.staged != nil {
		d.checkpoint, d.engine = d.staged, d.stagedEngine
	}
	return nil
}

func (d *memoryDisk) OpenLog() (disk.Log, *disk.LogImage, error) {
	if d.gate != nil {
		<-d.gate
	}
	return (*memoryLog)(d), d.image, nil
}

func (d *memoryDisk) WriteCheckpoint(c *messages.Checkpoint) error {
	if d.checkpointErr != nil {
		return d.checkpointErr
	}
	d.events <- fmt.Sprintf("checkpoint %d", c.Index)
	return nil
}

type memoryLog memoryDisk

func (l *memoryLog) Cut(index, term uint64, conf *raftpb.ConfState) error {
	l.events <- fmt.Sprintf("cut %d.%d %v", index, term, conf.GetVoters())
	return l.saveErr
}

func (l *memoryLog) Save(hs *raftpb.HardState, entries []*raftpb.Entry) error {
	if l.saveErr != nil {
		return l.saveErr
	}
	l.events <- "save " + describe(hs, entries)
	return nil
}

func (l *memoryLog) Sync() error {
	l.events <- "sync"
	return l.syncErr
}

func (l *memoryLog) Close() error {
	l.events <- "close"
	return l.closeErr
}

// describe writes a hard state as term/vote/commit and entries as index.term.
func describe(hs *raftpb.HardState, entries []*raftpb.Entry) string {
	words := []string{"-"}
	if hs != nil {
		words[0] = fmt.Sprintf("%d/%d/%d", hs.GetTerm(), hs.GetVote(), hs.GetCommit())
	}
	for _, e := range entries {
		words = append(words, fmt.Sprintf("%d.%d", e.GetIndex(), e.GetTerm()))
	}
	return strings.Join(words, " ")
}

// stage is an actor system with probes: actors that hand what they get to the test.
type stage struct {
	t      *testing.T
	system *actor.ActorSystem
	fatal  chan error
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, system: actor.NewActorSystem(), fatal: make(chan error, 10)}
}

func (s *stage) onFatal(reason error) { s.fatal <- reason }

func (s *stage) spawn(name string, producer actor.Producer) *actor.PID {
	s.t.Helper()
	pid, err := s.system.Root.SpawnNamed(actor.PropsFromProducer(producer), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

// stop ends an actor and waits until it is gone.
func (s *stage) stop(pid *actor.PID) {
	if err := s.system.Root.StopFuture(pid).Wait(); err != nil {
		s.t.Error(err)
	}
}

// probe is an actor that passes on every message.
type probe struct {
	t   *testing.T
	pid *actor.PID
	got chan proto.Message
}

func (s *stage) probe(name string) *probe {
	p := &probe{t: s.t, got: make(chan proto.Message, 1000)}
	p.pid = s.spawn(name, func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if m, ok := ctx.Message().(proto.Message); ok {
				p.got <- m
			}
		})
	})
	return p
}

// expect takes the next message, which must be rendered as line.
func (p *probe) expect(line string) {
	p.t.Helper()
	if got := messages.Line(<-p.got); got != line {
		p.t.Fatalf("%s got\n\t%s\nand not\n\t%s", p.pid.Id, got, line)
	}
}

// expectNoMore holds once all who could have sent something are stopped.
func (p *probe) expectNoMore(s *stage) {
	p.t.Helper()
	s.system.Root.Send(p.pid, &messages.Flush{})
	p.expect("Flush{}")
}

// take takes the next message, which must be a T.
func take[T proto.Message](p *probe) T {
	p.t.Helper()
	var m proto.Message
	select {
	case m = <-p.got:
	case <-time.After(time.Minute):
		p.t.Fatalf("%s got nothing for a minute", p.pid.Id)
	}
	typed, ok := m.(T)
	if !ok {
		p.t.Fatalf("%s got %s", p.pid.Id, messages.Line(m))
	}
	return typed
}

// Builders of commands and entries.

func client(n byte) []byte { return bytes.Repeat([]byte{n}, messages.ClientIDSize) }

func put(key, value string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: []byte(value)}}}
}

func del(key string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(key)}}}
}

func delRange(from, to string, limit uint32) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_DeleteRange{
		DeleteRange: &messages.DeleteRange{From: []byte(from), To: []byte(to), Limit: limit}}}
}

func compact(revision uint64) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}}
}

func opens(ttl, before uint64) *messages.OpenSession {
	return &messages.OpenSession{TtlMs: ttl, BeforeMs: before}
}

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// entry is one at log time now with these commands, all from node 1.
func entry(index, now uint64, list ...*messages.Command) *raftpb.Entry {
	all := &messages.Commands{Level: messages.Level, LogTimeMs: now}
	for _, c := range list {
		all.Proposals = append(all.Proposals, &messages.Proposal{Origin: 1, Command: marshal(c)})
	}
	return &raftpb.Entry{Index: new(index), Term: new(uint64(1)), Data: marshal(all)}
}
