package skl

// patched: this file is new. Most keys that are looked up are in one memtable at most, or
// in none: and to find that out takes as many cache misses as to find them.

import (
	"math/bits"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4/y"
)

// filter tells of most keys without the list that they are not in it, at the cost of one
// cache miss. A key sets two bits of one word. Keys are without their version.
type filter []atomic.Uint64

// filterShare is how many bytes of an arena share a word: some two common rows.
const filterShare = 512

// newFilter has a power of two of words, which is at least 2.
func newFilter(arenaSize int64) filter {
	return make(filter, 2<<bits.Len64(uint64(arenaSize/filterShare)/4))
}

func (f filter) place(key []byte) (word *atomic.Uint64, mask uint64) {
	h := y.Hash(y.ParseKey(key))
	return &f[(h>>12)&uint32(len(f)-1)], 1<<(h&63) | 1<<((h>>6)&63)
}

// add comes before the key is in the list, so that no reader misses it.
func (f filter) add(key []byte) {
	word, mask := f.place(key)
	if word.Load()&mask != mask {
		word.Or(mask)
	}
}

func (f filter) mayHave(key []byte) bool {
	word, mask := f.place(key)
	return word.Load()&mask == mask
}
