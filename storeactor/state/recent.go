package state

// known is what a key is as of the last command, without its value.
type known struct {
	key      string
	revision uint64 // of the row that was written last, as far as it is known; 0: none is
	created  uint64
	version  uint64 // 0: the key is not there
	row      int    // its place in Batch.Rows, where the row of this revision waits
}

// recent knows the keys that commands asked for lately. A put needs the version that
// its key has, on every replica, and to ask the engine costs more than the put.
//
// It only makes faster: whatever it has forgotten the engine says again, and what it
// says is true as of the revision that a command sees. For it begins empty with its
// state, every row passes through it, and it forgets nothing whose row still waits.
type recent struct {
	young, old map[string]*known // by key; what is asked for becomes young
	bytes      int               // of the keys of young
	keysMax    int               // of young, when rows are flushed
}

func newRecent() recent {
	return recent{young: map[string]*known{}, old: map[string]*known{}, keysMax: recentKeysMax}
}

// find is what is known of a key, or nil. The caller may change it.
func (r *recent) find(key []byte) *known {
	if k := r.young[string(key)]; k != nil {
		return k
	}
	k := r.old[string(key)]
	if k != nil {
		r.keep(k)
	}
	return k
}

// add takes in a key that is not known: as one that is not there.
func (r *recent) add(key []byte) *known {
	k := &known{key: string(key)}
	r.keep(k)
	return k
}

func (r *recent) keep(k *known) {
	r.young[k.key] = k
	r.bytes += len(k.key)
}

// flushed: no row waits, so the older half may go.
func (r *recent) flushed() {
	if len(r.young) < r.keysMax && r.bytes < recentBytesMax {
		return
	}
	clear(r.old)
	r.young, r.old, r.bytes = r.old, r.young, 0
}
