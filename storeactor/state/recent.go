package state

import "hash/maphash"

// known is what a key is as of the last command, without its value.
type known struct {
	revision uint64 // of the row that was written last, as far as it is known; 0: none is
	created  uint64
	version  uint64 // 0: the key is not there
	row      int    // its place in Batch.Rows, where the row of this revision waits
	at, size int    // of the key, in the keys of its generation
}

// recent knows the keys that commands asked for lately. A put needs the version that
// its key has, on every replica, and to ask the engine costs more than the put.
//
// It only makes faster: whatever it has forgotten the engine says again, and what it
// says is true as of the revision that a command sees. For it begins empty with its
// state, every row passes through it, and it forgets nothing whose row still waits.
type recent struct {
	young, old *generation // what is asked for becomes young; what is in both counts as it is there
	keysMax    int         // of young, when rows are flushed
	seed       maphash.Seed
}

func newRecent() recent {
	return recent{young: newGeneration(), old: newGeneration(), keysMax: recentKeysMax, seed: maphash.MakeSeed()}
}

// find is what is known of a key, or nil. The caller may change it, until recent is asked
// again.
func (r *recent) find(key []byte) *known {
	hash := r.hash(key)
	if k := r.young.find(hash, key); k != nil {
		return k
	}
	k := r.old.find(hash, key)
	if k == nil {
		return nil
	}
	return r.young.add(hash, key, *k)
}

// add takes in a key that is not known: as one that is not there. See find.
func (r *recent) add(key []byte) *known { return r.young.add(r.hash(key), key, known{}) }

func (r *recent) hash(key []byte) uint32 { return uint32(maphash.Bytes(r.seed, key)) }

// flushed: no row waits, so the older half may go.
func (r *recent) flushed() {
	if len(r.young.known) < r.keysMax && len(r.young.keys) < recentBytesMax {
		return
	}
	r.old.clear()
	r.young, r.old = r.old, r.young
}

// generation is a hash table with open addressing. It has no pointers in it: a map of a
// hundred thousand keys would be looked through by every garbage collection.
//
// Invariant: fewer than half of the places are taken, and their number is a power of two.
type generation struct {
	places []place
	known  []known
	keys   []byte // of all known, one behind the other
}

// place says where a key is known.
type place struct {
	hash uint32
	next uint32 // one above its index in known; 0: the place is free
}

const placesMin = 1 << 10

func newGeneration() *generation { return &generation{places: make([]place, placesMin)} }

func (g *generation) find(hash uint32, key []byte) *known {
	for i := g.first(hash); g.places[i].next > 0; i = g.after(i) {
		if p := g.places[i]; p.hash == hash {
			if k := &g.known[p.next-1]; string(g.keys[k.at:k.at+k.size]) == string(key) {
				return k
			}
		}
	}
	return nil
}

// add takes in a key that is not there.
func (g *generation) add(hash uint32, key []byte, k known) *known {
	k.at, k.size = len(g.keys), len(key)
	g.keys = append(g.keys, key...)
	g.known = append(g.known, k)
	if 2*len(g.known) >= len(g.places) {
		g.grow()
	}
	g.take(place{hash, uint32(len(g.known))})
	return &g.known[len(g.known)-1]
}

// take gives a key the first free place.
func (g *generation) take(p place) {
	i := g.first(p.hash)
	for g.places[i].next > 0 {
		i = g.after(i)
	}
	g.places[i] = p
}

func (g *generation) grow() {
	before := g.places
	g.places = make([]place, 2*len(before))
	for _, p := range before {
		if p.next > 0 {
			g.take(p)
		}
	}
}

func (g *generation) first(hash uint32) int { return int(hash) & (len(g.places) - 1) }
func (g *generation) after(i int) int       { return (i + 1) & (len(g.places) - 1) }

func (g *generation) clear() {
	clear(g.places)
	g.known, g.keys = g.known[:0], g.keys[:0]
}
