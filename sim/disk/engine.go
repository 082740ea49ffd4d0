package disk

import (
	"math/rand/v2"
	"slices"

	"keyval/messages"
	"keyval/storeactor/disk"
)

func (d *Disk) OpenEngine(at *messages.Checkpoint) (disk.Engine, error) {
	if err := d.notInitialised(); err != nil {
		return nil, err
	}
	t := d.now.table
	switch {
	case t.open:
		return nil, messages.Errorf(messages.Code_CONFLICT, "the state is open already")
	case at.GetRevision() > d.now.checkpoint.Revision:
		return nil, messages.Errorf(messages.Code_INTERNAL, "the state cannot be opened at revision %d: the last checkpoint is of revision %d", at.GetRevision(), d.now.checkpoint.Revision)
	case d.faults.stateLost:
		return nil, messages.Errorf(messages.Code_DAMAGED, "the state is damaged: rows that were synced are gone").
			WithHint("put a new node in its place (kvctl cluster replace)")
	}
	t.open, t.floor = true, 0
	return &Engine{disk: d, process: d.process, table: t}, nil
}

// Engine is a table opened by one process. It stays with its rows when another
// state is installed.
type Engine struct {
	disk    *Disk
	process uint64
	table   *table
	closed  bool
}

// NewEngine is one without rows, on a disk that nothing happens to.
func NewEngine() *Engine {
	d := New(rand.New(rand.NewPCG(0, 0)))
	return &Engine{disk: d, table: d.now.table}
}

// SnapshotRows are the rows of a snapshot of a checkpoint.
func (h *Engine) SnapshotRows(c *messages.Checkpoint) []disk.Row { return h.table.canonical(c) }

func (h *Engine) dead() error {
	switch {
	case h.process != h.disk.process:
		return ErrCrashed
	case h.closed:
		return messages.Errorf(messages.Code_INTERNAL, "the state is closed")
	}
	return nil
}

func (h *Engine) Write(rows []disk.Row) error {
	if err := h.dead(); err != nil || len(rows) == 0 {
		return err
	}
	if err := disk.CheckRows(rows); err != nil {
		return err
	}
	if err := h.disk.noRoom("the state"); err != nil {
		return err
	}
	t := h.table
	b := batch{first: rows[0].Revision, rows: make([]written, 0, len(rows))}
	for _, r := range rows {
		b.first = min(b.first, r.Revision)
		b.rows = append(b.rows, written{key: t.put(r), revision: r.Revision})
	}
	t.unsynced = append(t.unsynced, b)
	t.idle = t.idle && b.first > t.floor
	t.tidy(h.disk.rng)
	return nil
}

// mayRead is why nothing can be read now.
func (h *Engine) mayRead() error {
	if err := h.dead(); err != nil {
		return err
	}
	return h.disk.readFails()
}

func (h *Engine) Get(key []byte, revision uint64) (disk.Row, bool, error) {
	if err := h.mayRead(); err != nil {
		return disk.Row{}, false, err
	}
	at, found := h.table.find(string(key))
	if !found {
		return disk.Row{}, false, nil
	}
	row, ok := h.table.keys[at].newest(revision)
	if !ok {
		return disk.Row{}, false, nil
	}
	if err := row.Check(); err != nil {
		return disk.Row{}, false, err
	}
	row.Value = slices.Clone(row.Value)
	return row, true, nil
}

func (h *Engine) Scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	if err := h.mayRead(); err != nil {
		return err
	}
	keys := h.table.keys
	start, _ := h.table.find(string(from))
	end := len(keys)
	if len(to) > 0 {
		end, _ = h.table.find(string(to))
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
		if !h.table.lend(row, yield) {
			return nil
		}
	}
	return nil
}

func (h *Engine) Sync() error {
	if err := h.dead(); err != nil {
		return err
	}
	t := h.table
	if err := h.disk.fails(&h.disk.faults.failStateSync, "sync the state"); err != nil {
		t.forgotten, t.unsynced = append(t.forgotten, t.unsynced...), nil
		return err
	}
	for _, b := range t.unsynced {
		b.harden()
	}
	t.unsynced = nil
	t.tidy(h.disk.rng)
	return nil
}

func (h *Engine) Close() error {
	if err := h.dead(); err != nil {
		return nil
	}
	err := h.Sync()
	h.closed, h.table.open = true, false
	return err
}

// Export is the contract, to the letter: what an engine dropped already, or has not
// dropped yet, makes no difference.
func (h *Engine) Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error {
	if err := h.mayRead(); err != nil {
		return err
	}
	var rot error
	h.table.export(after, floor, revision, func(row disk.Row) bool {
		rot = row.Check()
		return rot == nil && h.table.lend(row, yield)
	})
	return rot
}

func (h *Engine) Discard(floor uint64) {
	if h.disk.watcher.Discard != nil {
		h.disk.watcher.Discard(floor)
	}
	if h.dead() == nil && floor > h.table.floor {
		h.table.floor, h.table.idle = floor, false
	}
}

// Reclaim drops all that may go.
func (h *Engine) Reclaim() error {
	if err := h.dead(); err != nil {
		return err
	}
	h.table.discard(func() bool { return true })
	return nil
}

func (h *Engine) Size() int64 { return int64(h.table.bytes) }
