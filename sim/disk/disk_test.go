package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

func TestDiskKeepsTheContract(t *testing.T) {
	for seed := range uint64(5) {
		disktest.Run(t, func(*testing.T) disktest.Opener {
			return opener{New(rand.New(rand.NewPCG(seed, 0)))}
		})
	}
}

type opener struct{ *Disk }

func (o opener) Open() (disk.Disk, error) { return o.Disk, nil }

// process is a process on a simulated disk, and what it was told is durable.
type process struct {
	*testing.T
	disk   *Disk
	rng    *rand.Rand
	log    disk.Log
	engine disk.Engine
	image  *disk.LogImage

	index, term uint64                // of the last entry in the log
	commit      uint64                // of the last HardState saved
	acked       disk.Witness          // what must survive
	batches     map[uint64]batchState // by revision; a batch is two rows
	revision    uint64
	seen        map[string]int // outcomes, by name
}

// batchState is what is known of a batch.
type batchState int

const (
	batchUnsynced batchState = iota
	batchSynced
	batchLost
)

func startProcess(t *testing.T, seed uint64, seen map[string]int) *process {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := &process{T: t, disk: New(rng), rng: rng, index: 1, term: 1, commit: 1, batches: map[uint64]batchState{}, seen: seen}
	p.acked = disk.Witness{BaseIndex: 1, BaseTerm: 1, Index: 1, Term: 1, HardTerm: 1, Commit: 1}
	p.ok(p.disk.WriteIdentity(&messages.Identity{Name: "node1"}))
	p.ok(disk.Initialise(p.disk, &messages.Checkpoint{Index: 1, Term: 1, ConfState: &raftpb.ConfState{Voters: []uint64{1}}}))
	p.open()
	return p
}

func (p *process) ok(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// open checks that all that was acknowledged is there.
func (p *process) open() {
	p.Helper()
	var err error
	p.log, p.image, err = p.disk.OpenLog()
	p.ok(err)
	p.ok(p.acked.Meet(p.image))
	last, lastTerm := p.image.Last()
	// A torn save leaves entries without the HardState behind them.
	p.index, p.term = last, max(lastTerm, p.image.HardState.GetTerm())
	p.commit = p.image.HardState.GetCommit()
	p.ack() // the log is synced when it is open
	at, err := p.disk.Checkpoint()
	p.ok(err)
	p.engine, err = p.disk.OpenEngine(at)
	p.ok(err)
	p.checkRows()
}

func (p *process) ack() {
	hs, index, term := p.disk.Durable()
	p.acked.Index, p.acked.Term = index, term
	p.acked.HardTerm, p.acked.Vote, p.acked.Commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
	if index != p.index {
		p.Fatalf("index %d was acknowledged, and %d is durable", p.index, index)
	}
}

// checkRows: both rows of a batch or none; none missing that was synced.
func (p *process) checkRows() {
	p.Helper()
	for revision := uint64(1); revision <= p.revision; revision++ {
		state := p.batches[revision]
		_, a, err := p.engine.Get(fmt.Appendf(nil, "a%d", revision), revision)
		p.ok(err)
		_, b, err := p.engine.Get(fmt.Appendf(nil, "b%d", revision), revision)
		p.ok(err)
		switch {
		case a != b:
			p.Fatalf("half of the batch of revision %d is there", revision)
		case state == batchSynced && !a:
			p.Fatalf("revision %d was synced and is gone", revision)
		case state == batchLost && a:
			p.Fatalf("revision %d was lost and is back", revision)
		case !a:
			p.batches[revision] = batchLost
		}
	}
}

// save saves something, and reports whether the process lives on.
func (p *process) save() bool {
	var hs *raftpb.HardState
	var es []*raftpb.Entry
	if p.rng.IntN(3) == 0 {
		p.term++
	}
	from := p.index + 1
	if p.index > p.commit && p.rng.IntN(6) == 0 {
		p.term++ // another leader's entries replace those above commit
		from = p.commit + 1
	}
	if from > p.index && p.rng.IntN(2) == 0 {
		p.commit = max(p.commit, p.index-min(p.index, uint64(p.rng.IntN(3))))
		hs = &raftpb.HardState{Term: new(p.term), Vote: new(p.term % 3), Commit: new(p.commit)}
	} else {
		hs = &raftpb.HardState{Term: new(p.term), Vote: new(p.term % 3), Commit: new(p.commit)}
		for i := range uint64(1 + p.rng.IntN(5)) {
			es = append(es, &raftpb.Entry{Term: new(p.term), Index: new(from + i)})
		}
	}
	hardTerm := p.acked.HardTerm
	err := p.log.Save(hs, es)
	switch {
	case errors.Is(err, ErrCrashed):
		p.seen["crash in save"]++
		return false
	case err != nil:
		p.seen["failed save"]++
		if p.log.Save(hs, es) == nil || p.log.Sync() == nil {
			p.Fatal("a log that failed can be used")
		}
		return false
	}
	if len(es) > 0 {
		p.index = es[len(es)-1].GetIndex()
	}
	if len(es) > 0 || p.term != hardTerm {
		p.ack()
	}
	return true
}

func (p *process) write() {
	p.revision++
	p.ok(p.engine.Write(disktest.Whole(
		disk.Row{Key: fmt.Appendf(nil, "a%d", p.revision), Revision: p.revision},
		disk.Row{Key: fmt.Appendf(nil, "b%d", p.revision), Revision: p.revision},
	)))
	p.batches[p.revision] = batchUnsynced
}

func (p *process) sync() {
	p.ok(p.engine.Sync())
	for revision, state := range p.batches {
		if state == batchUnsynced {
			p.batches[revision] = batchSynced
		}
	}
}

func (p *process) order() {
	[]func(){func() { p.disk.CrashNext(CrashInSave) }, p.disk.FailNextSave, p.disk.FailNextSync}[p.rng.IntN(3)]()
}

// end ends the process in one of the ways there are; what was on its way in a
// save that failed may be there or not.
func (p *process) end() {
	before := p.disk.now.log.cached.clone()
	lost := p.countLost()
	switch p.rng.IntN(4) {
	case 0:
		p.disk.Crash()
	case 1:
		p.disk.PowerCut()
	case 2:
		p.disk.Crash()
		p.open() // synced by being opened
		p.disk.PowerCut()
	case 3:
		p.disk.Crash()
		p.disk.PowerCut() // before anything was synced again
	}
	if err := p.engine.Write([]disk.Row{{Key: []byte("x"), Revision: 1}}); err != ErrCrashed {
		p.Fatalf("a dead process writes: %v", err)
	}
	if err := p.log.Save(nil, nil); err != ErrCrashed {
		p.Fatalf("a dead process saves: %v", err)
	}
	p.open()
	after, _ := p.disk.now.log.cached.last()
	if was, _ := before.last(); after < was {
		p.seen["entries lost"]++
	} else if after == was {
		p.seen["entries kept"]++
	}
	if p.countLost() > lost {
		p.seen["batches lost"]++
	}
}

func (p *process) countLost() (n int) {
	for _, state := range p.batches {
		if state == batchLost {
			n++
		}
	}
	return n
}

func (p *process) run(steps int) {
	for range steps {
		switch n := p.rng.IntN(100); {
		case n < 50:
			if !p.save() {
				p.end()
			}
		case n < 80:
			p.write()
		case n < 88:
			p.sync()
		case n < 94:
			p.order()
		default:
			p.end()
		}
	}
}

func TestNothingAcknowledgedIsLost(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(300) {
		startProcess(t, seed, seen).run(120)
	}
	for _, outcome := range []string{"crash in save", "failed save", "entries lost", "entries kept", "batches lost"} {
		if seen[outcome] < 20 {
			t.Errorf("%s: seen %d times only", outcome, seen[outcome])
		}
	}
}

func TestSameSeedSameDisk(t *testing.T) {
	var all []string
	for range 2 {
		p := startProcess(t, 7, map[string]int{})
		p.run(400)
		hs, index, term := p.disk.Durable()
		line := fmt.Sprint(hs.GetTerm(), hs.GetVote(), hs.GetCommit(), index, term, p.disk.Bytes(), p.seen, p.rng.Uint64())
		p.ok(p.engine.Scan(nil, nil, p.revision, false, func(r disk.Row) bool {
			line += string(r.Key)
			return true
		}))
		all = append(all, line)
	}
	if all[0] != all[1] {
		t.Fatalf("two runs of one seed:\n%s\n%s", all[0], all[1])
	}
}

func TestMediaThatLoseWhatWasSynced(t *testing.T) {
	entries := []*raftpb.Entry{{Term: new(uint64(1)), Index: new(uint64(2))}, {Term: new(uint64(1)), Index: new(uint64(3))}}
	openLog := func(d *Disk) error { _, _, err := d.OpenLog(); return err }
	openEngine := func(d *Disk) error { _, err := d.OpenEngine(&messages.Checkpoint{}); return err }
	for _, c := range []struct {
		name     string
		lose     func(d *Disk)
		open     func(d *Disk) error
		expected messages.Code
	}{
		{"nothing of the log", func(d *Disk) { d.PowerCut() }, openLog, messages.Code_OK},
		{"the log's last entry", func(d *Disk) { d.LoseTail(1) }, openLog, messages.Code_DAMAGED},
		{"the whole log", func(d *Disk) { d.LoseTail(9) }, openLog, messages.Code_DAMAGED},
		{"nothing of the state", func(d *Disk) { d.PowerCut() }, openEngine, messages.Code_OK},
		{"the state", func(d *Disk) { d.LoseState() }, openEngine, messages.Code_DAMAGED},
		{"the state, but not the log", func(d *Disk) { d.LoseState() }, openLog, messages.Code_OK},
		{"all", func(d *Disk) { d.LoseMedia() }, openLog, messages.Code_NOT_FOUND},
	} {
		p := startProcess(t, 1, map[string]int{})
		p.ok(p.log.Save(nil, entries))
		p.ok(p.log.Sync())
		c.lose(p.disk)
		if err := c.open(p.disk); messages.CodeOf(err) != c.expected {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.expected)
		}
	}
}

func TestDurableIsWhatAPowerCutLeaves(t *testing.T) {
	p := startProcess(t, 1, map[string]int{})
	p.ok(p.log.Save(&raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(uint64(1))}, []*raftpb.Entry{{Term: new(uint64(2)), Index: new(uint64(2))}}))
	p.ok(p.log.Save(&raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(uint64(2))}, nil))
	p.disk.CrashNext(CrashInSave)
	if err := p.log.Save(nil, []*raftpb.Entry{{Term: new(uint64(2)), Index: new(uint64(3))}}); err != ErrCrashed {
		t.Fatalf("got %v, expected a crash", err)
	}
	hs, index, term := p.disk.Durable()
	if got := []uint64{hs.GetTerm(), hs.GetVote(), hs.GetCommit(), index, term}; !slices.Equal(got, []uint64{2, 1, 1, 2, 2}) {
		t.Fatalf("durable is %v", got)
	}
	for index, expected := range map[uint64]uint64{0: 0, 1: 1, 2: 2, 3: 0} {
		if term, ok := p.disk.Entry(index); term != expected || ok != (expected != 0) {
			t.Errorf("entry %d is of term %d (%t), expected %d", index, term, ok, expected)
		}
	}
}

func TestRowsOfARevisionAreOne(t *testing.T) {
	p := startProcess(t, 1, map[string]int{})
	p.ok(p.engine.Write(disktest.Whole(disk.Row{Key: []byte("a"), Value: []byte("1"), Revision: 1})))
	defer func() {
		if recover() == nil {
			t.Fatal("a replay that differs was taken")
		}
	}()
	p.engine.Write(disktest.Whole(disk.Row{Key: []byte("a"), Value: []byte("2"), Revision: 1}))
}

// TestForgottenSyncOfTheLog: what a sync of the log failed to write is there when the log
// is opened again, or nothing of it; and what is there then, or comes behind it, no power
// cut takes.
func TestForgottenSyncOfTheLog(t *testing.T) {
	entry := func(index uint64) []*raftpb.Entry {
		return []*raftpb.Entry{{Term: new(uint64(1)), Index: new(index)}}
	}
	seen := map[uint64]int{}
	for seed := range uint64(60) {
		p := startProcess(t, seed, map[string]int{})
		p.ok(p.log.Save(nil, entry(2)))
		p.disk.FailNextSync()
		if err := p.log.Save(nil, entry(3)); err == nil {
			t.Fatal("the ordered fault did not come")
		}
		if seed%2 == 0 {
			p.disk.Crash()
		} else {
			p.disk.PowerCut()
		}
		log, image, err := p.disk.OpenLog()
		p.ok(err)
		last, _ := image.Last()
		seen[last]++
		p.ok(log.Save(nil, entry(last+1)))
		p.disk.PowerCut()
		_, image, err = p.disk.OpenLog()
		p.ok(err)
		if now, _ := image.Last(); now != last+1 {
			t.Errorf("seed %d: entry %d was saved behind what was found, and the last is %d", seed, last+1, now)
		}
	}
	if seen[2] < 5 || seen[3] < 5 || len(seen) != 2 {
		t.Errorf("the logs ended at %v, want some at 2 and some at 3", seen)
	}
}

// TestForgottenSync: what a failed sync of the state was to write is read, and no later
// sync brings it to the media: the power takes it, unless it is written anew.
func TestForgottenSync(t *testing.T) {
	p := startProcess(t, 1, map[string]int{})
	put := func(key string, revision uint64) {
		p.ok(p.engine.Write([]disk.Row{{Key: []byte(key), Value: []byte("v"), Revision: revision}}))
	}
	put("lost", 1)
	put("again", 2)
	p.disk.FailNextStateSync()
	if err := p.engine.Sync(); err == nil {
		t.Fatal("the ordered fault did not come")
	}
	p.ok(p.engine.Sync())
	put("again", 2)
	p.ok(p.engine.Sync())
	if rows := p.disk.LiveRows(2); len(rows) != 2 {
		t.Errorf("%d rows are read before the power cut, want 2", len(rows))
	}
	p.disk.PowerCut()
	if rows := p.disk.LiveRows(2); len(rows) != 1 || string(rows[0].Key) != "again" {
		t.Errorf("the media hold %v, want what was written anew", rows)
	}
}

// TestLentRows: the bytes that a scan or an export shows are others once it goes on.
func TestLentRows(t *testing.T) {
	engine := NewEngine()
	if err := engine.Write(disktest.Whole(disk.Row{Key: []byte("a"), Value: []byte("1"), Revision: 1}, disk.Row{Key: []byte("b"), Value: []byte("2"), Revision: 1})); err != nil {
		t.Fatal(err)
	}
	var lent [][]byte
	keep := func(row disk.Row) bool {
		if string(row.Key)+string(row.Value) != [...]string{"a1", "b2"}[len(lent)/2%2] {
			t.Errorf("row %d is %q with %q", len(lent)/2, row.Key, row.Value)
		}
		lent = append(lent, row.Key, row.Value)
		return true
	}
	if err := engine.Scan(nil, nil, 1, false, keep); err != nil {
		t.Fatal(err)
	}
	if err := engine.Export(disk.Cursor{}, 0, 1, keep); err != nil {
		t.Fatal(err)
	}
	for i, slice := range lent {
		if slice[0] != poison {
			t.Errorf("slice %d of %d still holds %q", i, len(lent), slice)
		}
	}
	if row, found, err := engine.Get([]byte("a"), 1); err != nil || !found || string(row.Value) != "1" {
		t.Errorf("then a is %q, %v, %v", row.Value, found, err)
	}
}

func BenchmarkDiskSave(b *testing.B) {
	d := New(rand.New(rand.NewPCG(1, 1)))
	d.WriteIdentity(&messages.Identity{})
	disk.Initialise(d, &messages.Checkpoint{})
	l, _, err := d.OpenLog()
	if err != nil {
		b.Fatal(err)
	}
	index := uint64(0)
	for b.Loop() {
		index++
		l.Save(&raftpb.HardState{Term: new(uint64(1)), Commit: new(index - 1)}, []*raftpb.Entry{{Term: new(uint64(1)), Index: new(index)}})
	}
}
