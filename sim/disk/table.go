package disk

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// table is the rows, in order of keys and, within a key, of revisions.
type table struct {
	open     bool
	floor    uint64 // of Discard, in this process
	idle     bool   // nothing is left that may go at this floor
	keys     []*keyRows
	unsynced []batch
	// forgotten are batches that a sync could not write: they are in the page cache and
	// nowhere else, and nothing is left that would write them.
	forgotten []batch
	lent      []byte // what was lent last
	bytes     int    // of keys and values, all versions
}

// keyRows are the versions of one key.
type keyRows struct {
	key      string
	versions []version // revisions rise
}

type version struct {
	row     disk.Row // with bytes of its own
	durable bool
	altered bool // by the world
}

// batch is what one Write added.
type batch struct {
	first uint64 // its lowest revision
	rows  []written
}

// written is a version that a batch wrote.
type written struct {
	key      *keyRows
	revision uint64
}

// find is where a key is, or would be.
func (t *table) find(key string) (int, bool) {
	at := sort.Search(len(t.keys), func(i int) bool { return t.keys[i].key >= key })
	return at, at < len(t.keys) && t.keys[at].key == key
}

func (k *keyRows) find(revision uint64) (int, bool) {
	// Most writes are of a newer revision than any before.
	at := len(k.versions)
	if at > 0 && k.versions[at-1].row.Revision >= revision {
		at = sort.Search(at, func(i int) bool { return k.versions[i].row.Revision >= revision })
	}
	return at, at < len(k.versions) && k.versions[at].row.Revision == revision
}

// put adds a version. Replay writes versions again that are there already, and must
// write the same: a difference panics.
func (t *table) put(r disk.Row) *keyRows {
	at, found := t.find(string(r.Key))
	if !found {
		t.keys = slices.Insert(t.keys, at, &keyRows{key: string(r.Key)})
	}
	k := t.keys[at]
	v := version{row: r}
	v.row.Key, v.row.Value = []byte(k.key), slices.Clone(r.Value)
	i, found := k.find(r.Revision)
	if !found {
		k.versions = slices.Insert(k.versions, i, v)
		t.bytes += len(k.key) + len(v.row.Value)
	} else if was := k.versions[i]; was.altered {
		v.durable = true
		k.versions[i] = v
	} else if !sameRow(was.row, v.row) {
		panic(fmt.Sprintf("two rows of one key at one revision: %+v, then %+v", was.row, v.row))
	}
	return k
}

func (t *table) firstUnsynced() uint64 {
	var first uint64
	for _, b := range t.unsynced {
		if first == 0 || b.first < first {
			first = b.first
		}
	}
	return first
}

// harden marks a batch's rows as durable.
func (b batch) harden() {
	for _, r := range b.rows {
		if i, found := r.key.find(r.revision); found {
			r.key.versions[i].durable = true
		}
	}
}

// powerCut keeps any subset of the unsynced batches.
func (t *table) powerCut(rng *rand.Rand) {
	for _, b := range t.unsynced {
		if rng.IntN(2) == 0 {
			b.harden()
		}
	}
	for _, b := range append(t.unsynced, t.forgotten...) {
		for _, r := range b.rows {
			t.drop(r)
		}
	}
	t.unsynced, t.forgotten = nil, nil
}

// lend shows a row to somebody who may look at it until yield returns. Afterwards its
// bytes are others.
func (t *table) lend(row disk.Row, yield func(disk.Row) bool) bool {
	t.lent = append(append(t.lent[:0], row.Key...), row.Value...)
	n := len(row.Key)
	row.Key = t.lent[:n:n]
	if row.Value != nil {
		row.Value = t.lent[n:len(t.lent):len(t.lent)]
	}
	more := yield(row)
	for i := range t.lent {
		t.lent[i] = poison
	}
	return more
}

const poison = 0xdb

// drop removes a row that is not on the media.
func (t *table) drop(r written) {
	i, found := r.key.find(r.revision)
	if !found || r.key.versions[i].durable {
		return
	}
	t.bytes -= len(r.key.key) + len(r.key.versions[i].row.Value)
	r.key.versions = slices.Delete(r.key.versions, i, i+1)
	if len(r.key.versions) == 0 {
		at, _ := t.find(r.key.key)
		t.keys = slices.Delete(t.keys, at, at+1)
	}
}

// newest is a key's newest live version at or below a revision.
func (k *keyRows) newest(revision uint64) (disk.Row, bool) {
	i, found := k.find(revision)
	if !found {
		i--
	}
	if i < 0 || k.versions[i].row.Deleted {
		return disk.Row{}, false
	}
	return k.versions[i].row, true
}

func (t *table) export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) {
	start, _ := t.find(string(after.Key))
	for _, k := range t.keys[start:] {
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
func (t *table) canonical(c *messages.Checkpoint) []disk.Row {
	var rows []disk.Row
	t.export(disk.Cursor{}, c.CompactedRevision, c.Revision, func(row disk.Row) bool {
		rows = append(rows, row)
		return true
	})
	return rows
}

// tidy drops now and then some of what may go: any subset may be gone at any time.
func (t *table) tidy(rng *rand.Rand) {
	if t.floor > 0 && !t.idle && rng.IntN(4) == 0 {
		t.discard(func() bool { return rng.IntN(2) == 0 })
	}
}

// discard drops versions that no reader at or above the floor can see, if goes says so.
// A deletion goes only after all that it hides.
func (t *table) discard(goes func() bool) {
	t.idle = true
	t.keys = slices.DeleteFunc(t.keys, func(k *keyRows) bool {
		newest := -1 // at or below the floor
		for newest+1 < len(k.versions) && k.versions[newest+1].row.Revision <= t.floor {
			newest++
		}
		if newest < 0 {
			return false
		}
		kept := k.versions[:0]
		for i, v := range k.versions {
			mayGo := i < newest || i == newest && v.row.Deleted && len(kept) == 0
			if mayGo && goes() {
				t.bytes -= len(k.key) + len(v.row.Value)
				continue
			}
			t.idle = t.idle && !mayGo && !(i == newest && v.row.Deleted)
			kept = append(kept, v)
		}
		clear(k.versions[len(kept):])
		k.versions = kept
		return len(kept) == 0
	})
}

// altered reports whether a version is there and not what was written.
func (t *table) altered(key string, revision uint64) bool {
	v := t.version(key, revision)
	return v != nil && v.altered
}

// version is one of a key; nil: it is not there.
func (t *table) version(key string, revision uint64) *version {
	at, found := t.find(key)
	if !found {
		return nil
	}
	i, found := t.keys[at].find(revision)
	if !found {
		return nil
	}
	return &t.keys[at].versions[i]
}

// decay alters a synced value, the newest of its key. Its checksum tells, unless it is
// written so: then the row is well formed, and only other replicas can tell. It reports
// whose it is; false if there is none.
func (t *table) decay(rng *rand.Rand, written bool) (key string, revision uint64, ok bool) {
	var sound []*version
	for _, k := range t.keys {
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

func sameRow(a, b disk.Row) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Revision == b.Revision &&
		a.Created == b.Created && a.Version == b.Version && a.Deleted == b.Deleted && a.Sum == b.Sum
}
