package badger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4/skl"
	"github.com/dgraph-io/badger/v4/y"
)

// Whatever is put near to what was put before, forwards, backwards or once more, the list
// is in order at every level and has the last value of each key.
func TestPutsNearEachOther(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		list, want, place := skl.NewSkiplist(8<<20), map[string]string{}, skl.Place{}
		for len(want) < 2_000 {
			batch := make([][]byte, 1+random.IntN(200))
			for i := range batch {
				batch[i] = y.KeyWithTs(fmt.Appendf(nil, "key/%d", random.IntN(1_000)), 1+random.Uint64N(50))
			}
			if random.IntN(4) > 0 {
				slices.SortFunc(batch, y.CompareKeys)
			}
			for _, key := range batch {
				value := fmt.Sprintf("value/%d", random.Uint32())
				list.PutNear(&place, key, y.ValueStruct{Value: []byte(value)})
				want[string(key)] = value
			}
		}
		checkList(t, list, want)
	}
}

func checkList(t *testing.T, list *skl.Skiplist, want map[string]string) {
	t.Helper()
	it, seen, last := list.NewIterator(), 0, []byte(nil)
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		if seen++; last != nil && y.CompareKeys(last, it.Key()) >= 0 {
			t.Fatalf("%q comes behind %q", it.Key(), last)
		}
		last = bytes.Clone(it.Key())
		if got := string(it.Value().Value); got != want[string(last)] {
			t.Fatalf("%q has the value %q, not %q", last, got, want[string(last)])
		}
	}
	if seen != len(want) {
		t.Fatalf("the list has %d of %d keys", seen, len(want))
	}
	for key := range want { // from the highest level down
		if it.Seek([]byte(key)); !it.Valid() || string(it.Key()) != key {
			t.Fatalf("%q is not found", key)
		}
	}
}

// BenchmarkMemtable puts a memtable's rows into a list in batches, as they come and in
// order. Its figure is CPU time, since other processes are no part of it.
func BenchmarkMemtable(b *testing.B) {
	const rows = 100_000
	value := y.ValueStruct{Value: make([]byte, 270)}
	keys := make([][]byte, rows)
	for i := range keys {
		keys[i] = y.KeyWithTs(fmt.Appendf(nil, "ubench/%012d", i), uint64(i+1))
	}
	for _, size := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("batches of %d", size), func(b *testing.B) {
			spent := int64(0)
			for b.Loop() {
				rand.Shuffle(rows, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
				list, place, before := skl.NewSkiplist(48<<20), skl.Place{}, cpuTime(b)
				for batch := range slices.Chunk(keys, size) {
					slices.SortFunc(batch, y.CompareKeys)
					for _, key := range batch {
						list.PutNear(&place, key, value)
					}
				}
				spent += cpuTime(b) - before
			}
			b.ReportMetric(float64(spent)/float64(b.N)/rows, "cpu-ns/row")
		})
	}
}

// cpuTime is what this process used, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
