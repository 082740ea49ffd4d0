package state

import (
	"bytes"
	"math"
	"slices"

	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// Store is the part of an Engine that applying needs.
type Store interface {
	disk.View
	Write(rows []disk.Row) error
}

// Settled is what became of one command.
type Settled struct {
	Origin    messages.RaftID
	Client    []byte // as the command named it; part of its entry
	Principal []byte // whose command it is; likewise
	outcome   outcome
}

// Fill writes the outcome into m.
func (s *Settled) Fill(m *messages.Outcome) { s.outcome.fill(m) }

// Batch is what a run of entries asks of the world. Rows reach the store with
// Flush, so what is read is read through those that wait.
type Batch struct {
	Rows           []disk.Row // that wait; at most one a key a revision, revisions never going down
	Settled        []Settled
	MembersChanged bool                // or operations, or the level
	Verdicts       []*messages.Verdict // of configuration changes, in order
	Compaction     Compaction          // the strongest that was asked for
	GivenUp        GivenUp             // the last time that history went

	store   Store
	recent  recent // every key of Rows, and others
	bytes   int    // of Rows
	ordered []int  // the newest row of each key among Rows[:looked], by key
	looked  int
}

// Compaction says who gave up history.
type Compaction int

const (
	NoCompaction     Compaction = iota
	NodeCompaction              // a node, as its configuration says
	ClientCompaction            // a client, who wants the space back
)

// GivenUp says who had history below a revision given up: a client's command, or a node's
// without Client. Below is 0 if nothing was.
type GivenUp struct {
	Below  uint64
	Client []byte
	Seq    uint64
}

// NewBatch makes an empty batch in front of a store that nobody else writes to.
func NewBatch(store Store) *Batch { return &Batch{store: store, recent: newRecent()} }

// Flush writes the rows that wait.
func (b *Batch) Flush() error {
	if len(b.Rows) == 0 {
		return nil
	}
	if err := b.store.Write(b.Rows); err != nil {
		return err
	}
	b.Rows, b.ordered = b.Rows[:0], b.ordered[:0]
	b.bytes, b.looked = 0, 0
	b.recent.flushed()
	return nil
}

// Clear forgets what was settled, once it has been told.
func (b *Batch) Clear() {
	clear(b.Settled)
	b.Settled, b.MembersChanged, b.Compaction, b.GivenUp = b.Settled[:0], false, NoCompaction, GivenUp{}
	b.Verdicts = nil // they are told, and not copied
}

// spill keeps a batch of great commands within its bound.
func (b *Batch) spill() error {
	if b.bytes < batchBytesMax {
		return nil
	}
	return b.Flush()
}

// execute carries out operations. They see each other's effects in their order; what
// they write is of the given revision, the next one. They change nothing if no row was
// added. Compactions ask nothing of the rows.
func (b *Batch) execute(operations []operation, revision uint64) (deleted uint64, more bool, err error) {
	spent := rangeStep{}
	for i := range operations {
		op := &operations[i]
		switch op.kind {
		case kindPut:
			if err := b.put(op, revision); err != nil {
				return 0, false, err
			}
		case kindDelete:
			n, err := b.delete(op.key, revision)
			if err != nil {
				return 0, false, err
			}
			deleted += n
		case kindDeleteRange:
			step, err := b.deleteRange(op, revision, spent)
			if err != nil {
				return 0, false, err
			}
			if mutant.RangeCountsLast { // what was deleted before is not told
				deleted = 0
			}
			deleted += uint64(step.keys)
			more = more || step.more
			spent.keys += step.keys
			spent.bytes += step.bytes
		}
	}
	return deleted, more, nil
}

// put writes a key's next version.
func (b *Batch) put(op *operation, revision uint64) error {
	was, err := b.find(op.key, revision)
	if err != nil {
		return err
	}
	row := disk.Row{Key: op.key, Value: op.value, Revision: revision, Created: was.created, Version: was.version + 1}
	if was.version == 0 {
		row.Created = revision
	}
	b.write(row, was)
	return nil
}

func (b *Batch) delete(key []byte, revision uint64) (deleted uint64, err error) {
	was, err := b.find(key, revision)
	if err != nil || was.version == 0 || mutant.DeleteUnseen && was.revision == revision {
		return 0, err
	}
	b.write(disk.Row{Key: key, Revision: revision, Deleted: true}, was)
	return 1, nil
}

// before is the revision as of which the command at revision reads: whatever later
// rows an engine holds, replay makes the same of it.
func before(revision uint64) uint64 {
	if mutant.ReadAhead {
		return math.MaxUint64
	}
	return revision - 1
}

// find is what a key is for the command at revision.
func (b *Batch) find(key []byte, revision uint64) (*known, error) {
	if k := b.recent.find(key); k != nil {
		return k, nil
	}
	row, found, err := b.store.Get(key, before(revision))
	if err != nil {
		return nil, err
	}
	k := b.recent.add(key)
	if found {
		k.revision, k.created, k.version = row.Revision, row.Created, row.Version
	}
	return k, nil
}

// rangeStep is what a command has deleted by ranges.
type rangeStep struct {
	keys  int
	bytes int  // of the keys
	more  bool // it stopped at a bound
}

// deleteRange deletes what is in the range, as far as its limit (0: none of its
// own) and what the command has not spent yet allow.
func (b *Batch) deleteRange(op *operation, revision uint64, spent rangeStep) (rangeStep, error) {
	limit := DeleteRangeKeysMax - spent.keys
	if op.limit != 0 {
		limit = min(limit, int(op.limit))
	}
	step := rangeStep{}
	var keys [][]byte
	err := b.live(op.key, op.to, revision, func(row *disk.Row) bool {
		tooLong := step.keys > 0 && spent.bytes+step.bytes+len(row.Key) > DeleteRangeBytesMax
		if step.keys == limit || tooLong {
			step.more = true
			return false
		}
		if mutant.RangeLentKept { // the engine writes over it
			keys = append(keys, row.Key)
		} else {
			keys = append(keys, bytes.Clone(row.Key))
		}
		step.keys++
		step.bytes += len(row.Key)
		return true
	})
	for _, key := range keys {
		was := b.recent.find(key)
		if was == nil { // it is there, and no row of it waits
			was = b.recent.add(key)
		}
		b.write(disk.Row{Key: key, Revision: revision, Deleted: true}, was)
	}
	return step, err
}

// write adds the row of a key, and changes what is known of it. If the command has
// written the key before, the last row counts.
func (b *Batch) write(row disk.Row, k *known) {
	row = row.Summed()
	b.bytes += len(row.Key) + len(row.Value) + rowBytes
	if k.revision == row.Revision && !mutant.LastPutLost {
		b.Rows[k.row] = row
	} else {
		k.row = len(b.Rows)
		b.Rows = append(b.Rows, row)
	}
	k.revision, k.created, k.version = row.Revision, row.Created, row.Version
}

// live yields the rows of [from, to) that are there for the command at revision,
// in order, until yield returns false. A row is good until then.
func (b *Batch) live(from, to []byte, revision uint64, yield func(row *disk.Row) bool) error {
	if len(to) > 0 && bytes.Compare(from, to) >= 0 {
		return nil
	}
	next, _ := b.search(from)
	last := len(b.ordered)
	if len(to) > 0 {
		last, _ = b.search(to)
	}
	// waiting yields the rows that wait, up to and with those of key (all, if it
	// is nil). It reports whether to go on and whether key was among them.
	waiting := func(key []byte) (proceed, found bool) {
		for ; next < last && !found; next++ {
			row := &b.Rows[b.ordered[next]]
			if key != nil {
				order := bytes.Compare(row.Key, key)
				if order > 0 {
					break
				}
				found = order == 0
			}
			if !row.Deleted && !yield(row) {
				return false, found
			}
		}
		return true, found
	}
	stopped := false
	err := b.store.Scan(from, to, before(revision), false, func(row disk.Row) bool {
		proceed, found := waiting(row.Key)
		stopped = !proceed || !found && !yield(&row)
		return !stopped
	})
	if err == nil && !stopped {
		waiting(nil)
	}
	return err
}

// search finds the place of a key among the rows that wait, in order. It looks at
// them only when a range asks, so a batch of plain puts pays nothing.
func (b *Batch) search(key []byte) (int, bool) {
	for ; b.looked < len(b.Rows); b.looked++ {
		i, found := b.place(b.Rows[b.looked].Key)
		if found {
			b.ordered[i] = b.looked
		} else {
			b.ordered = slices.Insert(b.ordered, i, b.looked)
		}
	}
	return b.place(key)
}

func (b *Batch) place(key []byte) (int, bool) {
	return slices.BinarySearchFunc(b.ordered, key, func(i int, key []byte) int { return bytes.Compare(b.Rows[i].Key, key) })
}
