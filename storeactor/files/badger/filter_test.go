package badger

import (
	"fmt"
	"testing"

	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/y"

	"keyval/storeactor/disk"
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

// Every put of a key that is not known asks for it, and most are not there.
func TestAReadAllocatesLittle(t *testing.T) {
	e := newEngine(t)
	row := disk.Row{Key: []byte("there"), Value: make([]byte, 256), Revision: 1, Created: 1, Version: 1}.Summed()
	if err := e.Write([]disk.Row{row}); err != nil {
		t.Fatal(err)
	}
	for key, most := range map[string]float64{"there": 8, "missing": 6} {
		allocations := testing.AllocsPerRun(1000, func() {
			if _, found, err := e.Get([]byte(key), 1); err != nil || found != (key == "there") {
				t.Fatal(found, err)
			}
		})
		t.Logf("key %q: %v allocations", key, allocations)
		if allocations > most {
			t.Errorf("a read of key %q makes %v allocations, more than %v", key, allocations, most)
		}
	}
}
