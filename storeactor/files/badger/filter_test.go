package badger

import (
	"fmt"
	"testing"

	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/y"
)

// The filter of a memtable passes every key that is there, whatever version is asked for.
func TestNoKeyIsFilteredOut(t *testing.T) {
	const keys = 20_000
	for _, arena := range []int64{4 << 20, 64 << 20} {
		list := skl.NewSkiplist(arena)
		key := func(i int, version uint64) []byte { return y.KeyWithTs(fmt.Appendf(nil, "key/%d", i), version) }
		for i := range keys {
			list.Put(key(i, uint64(i+7)), y.ValueStruct{Value: []byte("value")})
		}
		for i := range keys {
			if v := list.Get(key(i, uint64(i+7))); v.Version != uint64(i+7) {
				t.Fatalf("key %d is at version %d", i, v.Version)
			}
			if v := list.Get(key(i, 1<<40)); v.Version != uint64(i+7) {
				t.Fatalf("key %d is at version %d to a later read", i, v.Version)
			}
			if v := list.Get(key(i, uint64(i+6))); v.Value != nil {
				t.Fatalf("key %d is there before it was written", i)
			}
			if v := list.Get(key(keys+i, 1<<40)); v.Value != nil {
				t.Fatalf("key %d is there, and was never written", keys+i)
			}
		}
	}
}
