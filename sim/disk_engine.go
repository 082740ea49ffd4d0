package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// diskEngine is the rows, in order of keys and, within a key, of revisions.
type diskEngine struct {
	open     bool
	floor    uint64 // of Discard, in this process
	idle     bool   // nothing is left that may go at this floor
	keys     []*diskKey
	unsynced []diskBatch
	bytes    int // of keys and values, all versions
}

type diskKey struct {
	key      string
	versions []diskVersion // revisions rise
}

type diskVersion struct {
	row     disk.Row // with a value of its own
	durable bool
	altered bool // by the world
}

// diskBatch is what one Write added.
type diskBatch struct {
	first uint64 // its lowest revision
	rows  []diskRow
}

type diskRow struct {
	key      *diskKey
	revision uint64
}

func (d *Disk) OpenEngine(at *messages.Checkpoint) (disk.Engine, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	e := d.now.engine
	switch {
	case e.open:
		return nil, messages.Errorf(messages.Code_CONFLICT, "the state is open already")
	case at.GetRevision() > d.now.checkpoint.Revision:
		return nil, messages.Errorf(messages.Code_INTERNAL, "the state cannot be opened at revision %d: the last checkpoint is of revision %d", at.GetRevision(), d.now.checkpoint.Revision)
	case d.faults.stateLost:
		return nil, messages.Errorf(messages.Code_DAMAGED, "the state is damaged: rows that were synced are gone").
			WithHint("put a new node in its place (kvctl cluster replace)")
	}
	e.open, e.floor = true, 0
	return &engineHandle{disk: d, process: d.process, engine: e}, nil
}

// find is where a key is, or would be.
func (e *diskEngine) find(key string) (int, bool) {
	at := sort.Search(len(e.keys), func(i int) bool { return e.keys[i].key >= key })
	return at, at < len(e.keys) && e.keys[at].key == key
}

func (k *diskKey) find(revision uint64) (int, bool) {
	// Most writes are of a newer revision than any before.
	at := len(k.versions)
	if at > 0 && k.versions[at-1].row.Revision >= revision {
		at = sort.Search(at, func(i int) bool { return k.versions[i].row.Revision >= revision })
	}
	return at, at < len(k.versions) && k.versions[at].row.Revision == revision
}

// put adds a version. One that is there already is written once more by replay,
// which must write the same: a difference is a broken machine, and panics.
func (e *diskEngine) put(r disk.Row) *diskKey {
	at, found := e.find(string(r.Key))
	if !found {
		e.keys = slices.Insert(e.keys, at, &diskKey{key: string(r.Key)})
	}
	k := e.keys[at]
	v := diskVersion{row: r}
	v.row.Key, v.row.Value = []byte(k.key), slices.Clone(r.Value)
	i, found := k.find(r.Revision)
	if !found {
		k.versions = slices.Insert(k.versions, i, v)
		e.bytes += len(k.key) + len(v.row.Value)
	} else if was := k.versions[i]; was.altered {
		v.durable = true
		k.versions[i] = v
	} else if !sameRow(was.row, v.row) {
		panic(fmt.Sprintf("two rows of one key at one revision: %s, then %s", rowText(was.row), rowText(v.row)))
	}
	return k
}

func (e *diskEngine) firstUnsynced() uint64 {
	var first uint64
	for _, b := range e.unsynced {
		if first == 0 || b.first < first {
			first = b.first
		}
	}
	return first
}

// settle marks a batch's rows as durable.
func (b diskBatch) settle() {
	for _, r := range b.rows {
		if i, found := r.key.find(r.revision); found {
			r.key.versions[i].durable = true
		}
	}
}

// powerCut keeps any subset of the unsynced batches.
func (e *diskEngine) powerCut(rng *rand.Rand) {
	for _, b := range e.unsynced {
		if rng.IntN(2) == 0 {
			b.settle()
		}
	}
	for _, b := range e.unsynced {
		for _, r := range b.rows {
			e.drop(r)
		}
	}
	e.unsynced = nil
}

// drop removes a row that is not on the media.
func (e *diskEngine) drop(r diskRow) {
	i, found := r.key.find(r.revision)
	if !found || r.key.versions[i].durable {
		return
	}
	e.bytes -= len(r.key.key) + len(r.key.versions[i].row.Value)
	r.key.versions = slices.Delete(r.key.versions, i, i+1)
	if len(r.key.versions) == 0 {
		at, _ := e.find(r.key.key)
		e.keys = slices.Delete(e.keys, at, at+1)
	}
}

// newest is a key's newest live version at or below a revision.
func (k *diskKey) newest(revision uint64) (disk.Row, bool) {
	i, found := k.find(revision)
	if !found {
		i--
	}
	if i < 0 || k.versions[i].row.Deleted {
		return disk.Row{}, false
	}
	return k.versions[i].row, true
}

// engineHandle is a diskEngine opened by one process. It stays with its rows when
// another state is installed.
type engineHandle struct {
	disk    *Disk
	process uint64
	engine  *diskEngine
	closed  bool
}

func (h *engineHandle) dead() error {
	switch {
	case h.process != h.disk.process:
		return ErrCrashed
	case h.closed:
		return messages.Errorf(messages.Code_INTERNAL, "the state is closed")
	}
	return nil
}

func (h *engineHandle) Write(rows []disk.Row) error {
	if err := h.dead(); err != nil || len(rows) == 0 {
		return err
	}
	if err := disk.CheckRows(rows); err != nil {
		return err
	}
	if err := h.disk.noRoom("the state"); err != nil {
		return err
	}
	e := h.engine
	b := diskBatch{first: rows[0].Revision, rows: make([]diskRow, 0, len(rows))}
	for _, r := range rows {
		b.first = min(b.first, r.Revision)
		b.rows = append(b.rows, diskRow{key: e.put(r), revision: r.Revision})
	}
	e.unsynced = append(e.unsynced, b)
	e.idle = e.idle && b.first > e.floor
	e.tidy(h.disk.rng)
	return nil
}

// mayRead is why nothing can be read now.
func (h *engineHandle) mayRead() error {
	if err := h.dead(); err != nil {
		return err
	}
	return h.disk.readFails()
}

func (h *engineHandle) Get(key []byte, revision uint64) (disk.Row, bool, error) {
	if err := h.mayRead(); err != nil {
		return disk.Row{}, false, err
	}
	at, found := h.engine.find(string(key))
	if !found {
		return disk.Row{}, false, nil
	}
	row, ok := h.engine.keys[at].newest(revision)
	if !ok {
		return disk.Row{}, false, nil
	}
	if err := row.Check(); err != nil {
		return disk.Row{}, false, err
	}
	row.Value = slices.Clone(row.Value)
	return row, true, nil
}

func (h *engineHandle) Scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	if err := h.mayRead(); err != nil {
		return err
	}
	keys := h.engine.keys
	start, _ := h.engine.find(string(from))
	end := len(keys)
	if len(to) > 0 {
		end, _ = h.engine.find(string(to))
	}
	for n := range max(0, end-start) {
		at := start + n
		if reverse {
			at = end - 1 - n
		}
		row, ok := keys[at].newest(revision)
		if !ok {
			continue
		}
		if err := row.Check(); err != nil {
			return err
		}
		if !yield(row) {
			return nil
		}
	}
	return nil
}

func (h *engineHandle) Sync() error {
	if err := h.dead(); err != nil {
		return err
	}
	e := h.engine
	for _, b := range e.unsynced {
		b.settle()
	}
	e.unsynced = nil
	e.tidy(h.disk.rng)
	return nil
}

func (h *engineHandle) Close() error {
	if err := h.dead(); err != nil {
		return nil
	}
	err := h.Sync()
	h.closed, h.engine.open = true, false
	return err
}

// Export is the contract, to the letter: what an engine dropped already, or has not
// dropped yet, makes no difference.
func (h *engineHandle) Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error {
	if err := h.mayRead(); err != nil {
		return err
	}
	var rot error
	h.engine.export(after, floor, revision, func(row disk.Row) bool {
		rot = row.Check()
		return rot == nil && yield(row)
	})
	return rot
}

func (e *diskEngine) export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) {
	start, _ := e.find(string(after.Key))
	for _, k := range e.keys[start:] {
		below := uint64(math.MaxUint64)
		if k.key == string(after.Key) {
			below = after.Revision
		}
		for i := len(k.versions) - 1; i >= 0; i-- {
			v := k.versions[i]
			last := v.row.Revision <= floor
			if v.row.Revision <= revision && v.row.Revision < below && !(last && v.row.Deleted) && !yield(v.row) {
				return
			}
			if last {
				break
			}
		}
	}
}

// canonical are the rows of a snapshot of a checkpoint.
func (e *diskEngine) canonical(c *messages.Checkpoint) []disk.Row {
	var rows []disk.Row
	e.export(disk.Cursor{}, c.CompactedRevision, c.Revision, func(row disk.Row) bool {
		rows = append(rows, row)
		return true
	})
	return rows
}

func (h *engineHandle) Discard(floor uint64) {
	if h.disk.onDiscard != nil {
		h.disk.onDiscard(floor)
	}
	if h.dead() == nil && floor > h.engine.floor {
		h.engine.floor, h.engine.idle = floor, false
	}
}

// Reclaim drops all that may go.
func (h *engineHandle) Reclaim() error {
	if err := h.dead(); err != nil {
		return err
	}
	h.engine.discard(func() bool { return true })
	return nil
}

func (h *engineHandle) Size() int64 { return int64(h.engine.bytes) }

// tidy drops now and then some of what may go: any subset may be gone at any time.
func (e *diskEngine) tidy(rng *rand.Rand) {
	if e.floor > 0 && !e.idle && rng.IntN(4) == 0 {
		e.discard(func() bool { return rng.IntN(2) == 0 })
	}
}

// discard drops versions that nobody can see who reads at the floor or above, as
// goes says; a deletion only behind all that it hides.
func (e *diskEngine) discard(goes func() bool) {
	e.idle = true
	e.keys = slices.DeleteFunc(e.keys, func(k *diskKey) bool {
		newest := -1 // at or below the floor
		for newest+1 < len(k.versions) && k.versions[newest+1].row.Revision <= e.floor {
			newest++
		}
		if newest < 0 {
			return false
		}
		kept := k.versions[:0]
		for i, v := range k.versions {
			mayGo := i < newest || i == newest && v.row.Deleted && len(kept) == 0
			if mayGo && goes() {
				e.bytes -= len(k.key) + len(v.row.Value)
				continue
			}
			e.idle = e.idle && !mayGo && !(i == newest && v.row.Deleted)
			kept = append(kept, v)
		}
		clear(k.versions[len(kept):])
		k.versions = kept
		return len(kept) == 0
	})
}

// altered reports whether a version is there and not what was written.
func (e *diskEngine) altered(key string, revision uint64) bool {
	at, found := e.find(key)
	if !found {
		return false
	}
	i, found := e.keys[at].find(revision)
	return found && e.keys[at].versions[i].altered
}

// decay alters a synced value, the newest of its key. Its checksum tells, unless it is
// written: then the row is well formed, and only other replicas can tell. It reports
// whose it is; false if there is none.
func (e *diskEngine) decay(rng *rand.Rand, written bool) (key string, revision uint64, ok bool) {
	var sound []*diskVersion
	for _, k := range e.keys {
		if v := &k.versions[len(k.versions)-1]; v.durable && len(v.row.Value) > 0 {
			sound = append(sound, v)
		}
	}
	if len(sound) == 0 {
		return "", 0, false
	}
	v := sound[rng.IntN(len(sound))]
	v.row.Value = slices.Clone(v.row.Value)
	v.row.Value[rng.IntN(len(v.row.Value))] ^= 1 << rng.IntN(8)
	v.altered = true
	if written {
		v.row.Sum = v.row.Checksum()
	}
	return string(v.row.Key), v.row.Revision, true
}
