package disktest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"keyval/storeactor/disk"
)

// Memory is an Engine in memory: all versions of all keys.
type Memory struct {
	disk.Engine // what is not overridden is not used
	mutex       sync.Mutex
	Rows        map[string][]disk.Row // by key, then revision
	Keys        []string              // sorted
	Writes      int                   // calls of Write
	Err         error                 // of every call, if not nil
	WriteErr    error                 // of every Write, if not nil
	Panics      string                // a Get of this key panics
	Closed      bool
	Closing     chan struct{} // closed by Close
	// holds lets a Get of the key "slow" wait until it is closed; entered is told.
	holds   chan struct{}
	Entered chan struct{}

	floor     uint64
	Discarded chan uint64  // is told the floors, if not nil
	Reclaims  func() error // called by Reclaim, if not nil
}

func NewMemory() *Memory { return &Memory{Rows: map[string][]disk.Row{}, Closing: make(chan struct{})} }

func (m *Memory) Write(rows []disk.Row) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err := cmp.Or(m.Err, m.WriteErr); err != nil {
		return err
	}
	m.Writes++
	for _, r := range rows {
		key := string(r.Key)
		versions, known := m.Rows[key]
		if !known {
			i := sort.SearchStrings(m.Keys, key)
			m.Keys = slices.Insert(m.Keys, i, key)
		}
		i, found := slices.BinarySearchFunc(versions, r.Revision, func(a disk.Row, n uint64) int { return int(a.Revision) - int(n) })
		if found {
			versions[i] = r
		} else {
			m.Rows[key] = slices.Insert(versions, i, r)
		}
	}
	return nil
}

// HoldReads lets reads of "slow" wait until release is called.
func (m *Memory) HoldReads() (release func()) {
	holds := make(chan struct{})
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.holds, m.Entered = holds, make(chan struct{}, 100)
	return func() { close(holds) }
}

func (m *Memory) Get(key []byte, revision uint64) (disk.Row, bool, error) {
	m.mutex.Lock()
	holds, entered := m.holds, m.Entered
	m.mutex.Unlock()
	if holds != nil && string(key) == "slow" {
		entered <- struct{}{}
		<-holds
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.Panics != "" && m.Panics == string(key) {
		panic("the engine met " + m.Panics)
	}
	return m.get(string(key), revision)
}

func (m *Memory) get(key string, revision uint64) (disk.Row, bool, error) {
	if m.Err != nil {
		return disk.Row{}, false, m.Err
	}
	versions := m.Rows[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].Revision <= revision {
			return versions[i], !versions[i].Deleted, nil
		}
	}
	return disk.Row{}, false, nil
}

func (m *Memory) Scan(from, to []byte, revision uint64, reverse bool, yield func(disk.Row) bool) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.Err != nil {
		return m.Err
	}
	keys := slices.Clone(m.Keys)
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
func (m *Memory) Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.Err != nil {
		return m.Err
	}
	for _, key := range m.Keys {
		if key < string(after.Key) {
			continue
		}
		versions := m.Rows[key]
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
func (m *Memory) Discard(floor uint64) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.floor = max(m.floor, floor)
	for key, versions := range m.Rows {
		if n := slices.IndexFunc(versions, func(r disk.Row) bool { return r.Revision > m.floor }); n > 1 {
			m.Rows[key] = versions[n-1:]
		} else if n < 0 {
			m.Rows[key] = versions[len(versions)-1:]
		}
	}
	if m.Discarded != nil && floor > 0 {
		m.Discarded <- floor
	}
}

func (m *Memory) Reclaim() error {
	if m.Reclaims != nil {
		return m.Reclaims()
	}
	return nil
}

func (m *Memory) Size() int64 { return 1000 }

func (m *Memory) Sync() error { return m.Err }

func (m *Memory) Close() error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if !m.Closed {
		close(m.Closing)
	}
	m.Closed = true
	return nil
}

func (m *Memory) IsClosed() bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.Closed
}

// Dump is every version, one a line.
func (m *Memory) Dump() string {
	var b strings.Builder
	for _, key := range m.Keys {
		for _, r := range m.Rows[key] {
			fmt.Fprintf(&b, "%q@%d=%q created=%d version=%d deleted=%v sum=%08x\n", r.Key, r.Revision, r.Value, r.Created, r.Version, r.Deleted, r.Sum)
		}
	}
	return b.String()
}

// Live is what there is at a revision: key=value@revision, by key.
func (m *Memory) Live(t testing.TB, revision uint64) string {
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
