package badger

import (
	"bytes"
	"runtime"

	"github.com/dgraph-io/badger/v4"

	"keyval/storeactor/disk"
)

// exportStep is how many versions that nobody wants an export steps over before
// it seeks the next key.
const exportStep = 16

// exporter hands out the rows of one Export.
type exporter struct {
	db              *badger.DB
	floor, revision uint64
	yield           func(disk.Row) bool
	yielded         int
	over            bool // yield wants no more
}

// Export is as disk.Engine says.
func (e *Engine) Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error {
	x := &exporter{db: e.db, floor: floor, revision: revision, yield: yield}
	runtime.Gosched() // as in a Scan
	return e.reading("read the state", func() error { return x.behind(after) })
}

// behind yields all of a snapshot behind a cursor.
func (x *exporter) behind(after disk.Cursor) error {
	next := userKey(after.Key)
	if len(after.Key) > 0 || after.Revision != 0 {
		if err := x.rest(next, after.Revision); err != nil || x.over {
			return err
		}
		next = append(next, 0)
	}
	return x.from(next)
}

// rest yields what a snapshot has of one key behind a revision. It seeks: a call
// that begins in the middle of many versions does not step over those before.
//
// Behind a revision at or below the floor there is nothing but the newest version
// at or below it, and that only if it is behind.
func (x *exporter) rest(key []byte, behind uint64) error {
	if behind == 0 {
		return nil
	}
	from := min(max(behind-1, x.floor), x.revision)
	txn := x.db.NewTransactionAt(from, false)
	defer txn.Discard()
	it := txn.NewKeyIterator(key, badger.IteratorOptions{})
	defer it.Close()
	for it.Seek(key); it.Valid(); it.Next() {
		item := it.Item()
		if item.Version() < behind {
			if err := x.item(item); err != nil || x.over {
				return err
			}
		}
		if item.Version() <= x.floor {
			return nil
		}
	}
	return nil
}

// from yields all of a snapshot from a key on.
func (x *exporter) from(key []byte) error {
	txn := x.db.NewTransactionAt(x.revision, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{AllVersions: true})
	defer it.Close()
	var done []byte // a key all of whose rows were yielded
	skipped := 0    // versions of it, since then
	end := []byte{prefixEnd}
	for it.Seek(key); it.Valid(); {
		item := it.Item()
		if bytes.Compare(item.Key(), end) >= 0 {
			return nil
		}
		if done != nil && bytes.Equal(item.Key(), done) {
			if skipped++; skipped > exportStep {
				it.Seek(append(done, 0))
			} else {
				it.Next()
			}
			continue
		}
		if err := x.item(item); err != nil || x.over {
			return err
		}
		if done = done[:0]; item.Version() <= x.floor {
			done, skipped = append(done, item.Key()...), 0
		}
		it.Next()
	}
	return nil
}

// item yields one version of those that a snapshot may have: a deletion at or
// below the floor is none.
func (x *exporter) item(item *badger.Item) error {
	r := disk.Row{Key: item.Key()[1:], Revision: item.Version(), Deleted: item.IsDeletedOrExpired()}
	if r.Deleted && r.Revision <= x.floor {
		return nil
	}
	if x.yielded++; x.yielded%scanYieldRows == 0 {
		runtime.Gosched()
	}
	err := item.Value(func(value []byte) error {
		if !r.Deleted {
			r.Value = value
		}
		x.over = !x.yield(r)
		return nil
	})
	if err != nil {
		return damaged("the value of %q cannot be read: %v", r.Key, err)
	}
	return nil
}
