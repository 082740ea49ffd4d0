// Package fair shares one outlet among all who queue for it.
package fair

// Queue gives each key a line of its own and serves the lines by deficit round robin: in
// the long run every key that waits is served the same cost, whoever queues how much. It
// is deterministic. Items of one key leave in the order they came.
//
// Invariants: lines holds the lines with items, which are the ring that begins at turn;
// cost is the sum of theirs.
type Queue[K comparable, T any] struct {
	quantum int
	lines   map[K]*line[K, T]
	turn    *line[K, T] // the next to be served; nil: nobody waits
	cost    int
	spare   []*line[K, T] // at most sparesMax, for those to come
}

// sparesMax is how many empty lines a queue keeps, in number.
const sparesMax = 64

// line is what one key has in the queue. A cost above its credit waits for as many
// turns as bring it there.
type line[K comparable, T any] struct {
	key        K
	items      []item[T]
	head       int // items before it are gone
	cost       int
	credit     int
	prev, next *line[K, T]
}

type item[T any] struct {
	value T
	cost  int
}

// New makes a queue that serves each line a cost of quantum a turn. That of a common item
// makes for short waits, that of many for few turns.
func New[K comparable, T any](quantum int) *Queue[K, T] {
	return &Queue[K, T]{quantum: quantum, lines: map[K]*line[K, T]{}}
}

// Cost is that of all items.
func (q *Queue[K, T]) Cost() int { return q.cost }

// Room reports whether one more item of a key keeps its line within what nobody uses of
// max. So a full queue always has room for a newcomer: n greedy keys get max/(n+1) each,
// and leave as much.
func (q *Queue[K, T]) Room(key K, cost, max int) bool {
	own := 0
	if l := q.lines[key]; l != nil {
		own = l.cost
	}
	return own+cost <= max-q.cost
}

// Push puts an item at the end of its key's line. The line of a new key is the last of
// the round.
func (q *Queue[K, T]) Push(key K, value T, cost int) {
	l := q.lines[key]
	if l == nil {
		l = q.join(key)
	}
	if l.head > 0 && len(l.items) == cap(l.items) {
		n := copy(l.items, l.items[l.head:])
		clear(l.items[n:])
		l.items, l.head = l.items[:n], 0
	}
	l.items = append(l.items, item[T]{value, cost})
	l.cost += cost
	q.cost += cost
}

func (q *Queue[K, T]) join(key K) *line[K, T] {
	l := new(line[K, T])
	if n := len(q.spare); n > 0 {
		l, q.spare = q.spare[n-1], q.spare[:n-1]
	}
	l.key, l.credit = key, q.quantum
	q.lines[key] = l
	if q.turn == nil {
		l.prev, l.next = l, l
		q.turn = l
		return l
	}
	l.prev, l.next = q.turn.prev, q.turn
	l.prev.next, l.next.prev = l, l
	return l
}

// Pop takes out the item whose turn it is, unless there is none.
func (q *Queue[K, T]) Pop() (value T, ok bool) {
	for q.turn != nil {
		l := q.turn
		first := l.items[l.head]
		if first.cost > l.credit {
			l.credit += q.quantum
			q.turn = l.next
			continue
		}
		l.credit -= first.cost
		l.items[l.head] = item[T]{}
		l.head++
		q.count(l, first.cost)
		return first.value, true
	}
	return value, false
}

// Holds reports whether an item of a key that is such waits.
func (q *Queue[K, T]) Holds(key K, such func(T) bool) bool {
	l := q.lines[key]
	if l == nil {
		return false
	}
	for _, it := range l.items[l.head:] {
		if such(it.value) {
			return true
		}
	}
	return false
}

// Drop takes out all items of a key that are such.
func (q *Queue[K, T]) Drop(key K, such func(T) bool) {
	l := q.lines[key]
	if l == nil {
		return
	}
	kept, dropped := l.items[:l.head], 0
	for _, it := range l.items[l.head:] {
		if such(it.value) {
			dropped += it.cost
		} else {
			kept = append(kept, it)
		}
	}
	clear(l.items[len(kept):])
	l.items = kept
	q.count(l, dropped)
}

// count takes note that a line became shorter. An empty one leaves, and its credit with it.
func (q *Queue[K, T]) count(l *line[K, T], cost int) {
	l.cost -= cost
	q.cost -= cost
	if l.head < len(l.items) {
		return
	}
	delete(q.lines, l.key)
	l.prev.next, l.next.prev = l.next, l.prev
	switch {
	case l.next == l:
		q.turn = nil
	case q.turn == l:
		q.turn = l.next
	}
	if len(q.spare) < sparesMax && cap(l.items) <= spareItemsMax {
		*l = line[K, T]{items: l.items[:0]}
		q.spare = append(q.spare, l)
	}
}

// spareItemsMax is how much room for items a line has that is kept, in number.
const spareItemsMax = 1024
