package state

import (
	"bytes"
	"cmp"
	"container/heap"
	"math"
	"slices"

	"keyval/messages"
	"keyval/mutant"
)

// sessions is every client's exactly-once record. All that it decides depends on
// the log alone, so every replica keeps and drops the same.
//
// A client opens its ClientID once: all its commands that open carry the same
// OpenSession. Then no command runs twice: while before_ms is ahead the session
// neither expires nor is evicted, and afterwards nothing can open it anew.
type sessions struct {
	rows   map[clientID]*session // never iterated
	kept   int                   // outcomes in all rows
	bounds sessionBounds

	holders map[string]*holder
	crowd   crowd // the holders, that of the most sessions first

	// sinceMS is the log time before it last moved on, and dropped are the sessions that
	// went since. What opens until sinceMS or later was still open then, if it ever was.
	nowMS, sinceMS uint64
	dropped        map[clientID]bool

	expiry order // all sessions, by deadline
	pinned order // sessions that may not be evicted yet, by openBeforeMS
	idle   order // the others, by activeMS
}

// sessionBounds are the constants of limits.go, but for tests.
type sessionBounds struct {
	sessions int
	bytes    int
	window   uint64 // sequence numbers
}

type clientID [messages.ClientIDSize]byte

// session is a messages.Session.
type session struct {
	client       clientID
	ttlMS        uint64
	activeMS     uint64
	ackedBelow   uint64
	openBeforeMS uint64
	kept         outcomes
	holder       *holder
	seat         [orders]seat
}

// holder is whose sessions are counted together: a user's, or without keys an address's. One that opens many loses
// its own, and then is refused; it does not cost others theirs. What came through no
// node's gateway has the holder without a name, which has no share of its own.
type holder struct {
	name  []byte // never modified
	rows  int    // its sessions
	kept  int    // outcomes in them
	idle  order  // of its sessions those that may be evicted, by activeMS
	place int    // in the crowd
}

// deadlineMS is the last log time at which the session lives. It outlives its
// last opening: a late one must find it.
func (s *session) deadlineMS() uint64 {
	if mutant.OpenedAnew { // a repetition opens it anew, and runs twice
		return s.activeMS
	}
	return max(s.activeMS+s.ttlMS, s.openBeforeMS)
}

// outcome is a messages.Outcome.
type outcome struct {
	seq      uint64
	revision uint64
	deleted  uint64
	code     messages.Code
	failed   uint32 // condition
	more     bool
	unopened bool // of a refusal
}

func newSessions(bounds sessionBounds) *sessions {
	return &sessions{
		rows:    map[clientID]*session{},
		holders: map[string]*holder{},
		dropped: map[clientID]bool{},
		sinceMS: math.MaxUint64, // of a checkpoint: what went then is not known
		bounds:  bounds,
		expiry:  order{which: byDeadline, when: (*session).deadlineMS},
		pinned:  order{which: byOpening, when: func(s *session) uint64 { return s.openBeforeMS }},
		idle:    order{which: byIdleness, when: func(s *session) uint64 { return s.activeMS }},
	}
}

// advance moves to log time now: what has expired goes. It costs by the expired,
// not by the sessions.
func (t *sessions) advance(now uint64) {
	if now > t.nowMS {
		t.sinceMS, t.nowMS = t.nowMS, now
		clear(t.dropped)
	}
	for s := t.expiry.before(now); s != nil; s = t.expiry.before(now) {
		t.drop(s)
	}
	for s := t.pinned.before(now); s != nil; s = t.pinned.before(now) {
		t.pinned.remove(s)
		t.rest(s)
	}
}

// rest and unrest put a session among those that may be evicted, and take it away.
func (t *sessions) rest(s *session) {
	t.idle.add(s)
	s.holder.idle.add(s)
}

func (t *sessions) unrest(s *session) {
	t.idle.remove(s)
	s.holder.idle.remove(s)
}

// admit decides whether a command of a principal is executed. If so it returns the session, with
// room for the outcome, which is to be recorded; else nil and what to answer,
// which is not to be recorded: a refusal, as of revision, or the outcome that the
// command had before.
func (t *sessions) admit(c *command, principal []byte, now, revision uint64) (*session, outcome) {
	refuse := func(code messages.Code) (*session, outcome) {
		return nil, outcome{seq: c.seq, code: code, revision: revision}
	}
	s, known := t.rows[clientID(c.session)]
	if !known {
		if !c.opens || c.beforeMS < now {
			_, o := refuse(messages.Code_SESSION_EXPIRED)
			o.unopened = c.opens && c.beforeMS >= t.sinceMS && !t.dropped[clientID(c.session)]
			return nil, o
		}
		if c.seq-c.ackedBelow >= t.bounds.window || !t.makeRoom(c.holder, 1, 1) {
			return refuse(messages.Code_BUSY)
		}
		return t.open(c, now), outcome{}
	}
	if user := messages.UserOf(s.holder.name); user != nil && len(principal) > 0 && !bytes.Equal(user, principal) && !mutant.SessionShared {
		return refuse(messages.Code_NOT_ALLOWED) // it is another's, who alone uses its numbers
	}
	t.touch(s, c, now)
	if c.seq < s.ackedBelow {
		return refuse(messages.Code_CONFLICT)
	}
	if o, ok := s.kept.find(c.seq); ok {
		return nil, o
	}
	if c.seq-s.ackedBelow >= t.bounds.window || !t.makeRoomBeside(s) {
		return refuse(messages.Code_BUSY)
	}
	return s, outcome{}
}

// open makes a session with room for it already made.
func (t *sessions) open(c *command, now uint64) *session {
	s := &session{
		client:       clientID(c.session),
		ttlMS:        c.ttlMS,
		activeMS:     now,
		ackedBelow:   c.ackedBelow,
		openBeforeMS: c.beforeMS,
	}
	t.add(s, c.holder, now)
	return s
}

// touch takes note of a command of a known session, whatever becomes of it.
func (t *sessions) touch(s *session, c *command, now uint64) {
	s.activeMS = now
	if c.opens && c.beforeMS > s.openBeforeMS {
		s.openBeforeMS = c.beforeMS
		t.unrest(s)
		t.pinned.remove(s)
		t.queue(s, now)
	}
	if c.ackedBelow > s.ackedBelow {
		s.ackedBelow = c.ackedBelow
		n := s.kept.prune(s.ackedBelow)
		t.kept -= n
		s.holder.kept -= n
	}
}

// record keeps the outcome of an executed command.
func (t *sessions) record(s *session, o outcome) {
	if mutant.OutcomeForgotten { // a repetition runs again
		return
	}
	s.kept.insert(o)
	t.kept++
	s.holder.kept++
}

// makeRoom evicts sessions until a holder may have so many more sessions and outcomes,
// and reports whether it may. While it is at its share of the bounds, its own idlest go;
// while all are at the bounds, the idlest of who has the most. If none of these may be
// evicted, the idlest of all goes, but only for a holder that has no more than all have on
// average.
func (t *sessions) makeRoom(name []byte, rows, outcomes int) bool {
	for h := t.holders[string(name)]; h != nil && len(name) > 0 && !t.fits(h.rows+rows, h.kept+outcomes, holderShare); {
		s := h.idle.before(math.MaxUint64)
		if s == nil {
			return false
		}
		t.drop(s)
	}
	for !t.fits(len(t.rows)+rows, t.kept+outcomes, 1) {
		if len(t.crowd) == 0 {
			return false
		}
		s := t.crowd[0].idle.before(math.MaxUint64)
		if h := t.holders[string(name)]; s == nil && (h == nil || h.rows*len(t.holders) <= len(t.rows)) {
			s = t.idle.before(math.MaxUint64)
		}
		if s == nil {
			return false
		}
		t.drop(s)
	}
	return true
}

// fits reports whether so many sessions and outcomes are within a share of the bounds.
func (t *sessions) fits(rows, outcomes, share int) bool {
	return rows <= t.bounds.sessions/share && priceOf(rows, outcomes) <= t.bounds.bytes/share
}

func priceOf(rows, outcomes int) int { return rows*sessionBytes + outcomes*outcomeBytes }

// makeRoomBeside makes room for an outcome of s without evicting s.
func (t *sessions) makeRoomBeside(s *session) bool {
	if !t.idle.holds(s) || t.fits(len(t.rows), t.kept+1, 1) && t.fits(s.holder.rows, s.holder.kept+1, holderShare) {
		return t.makeRoom(s.holder.name, 0, 1)
	}
	t.unrest(s)
	defer t.rest(s)
	return t.makeRoom(s.holder.name, 0, 1)
}

func (t *sessions) bytes() int { return priceOf(len(t.rows), t.kept) }

func (t *sessions) add(s *session, name []byte, now uint64) {
	h := t.holders[string(name)]
	if h == nil {
		h = &holder{name: bytes.Clone(name), idle: order{which: byShare, when: func(s *session) uint64 { return s.activeMS }}}
		t.holders[string(name)] = h
		heap.Push(&t.crowd, h)
	}
	s.holder = h
	t.rows[s.client] = s
	t.count(h, 1, s.kept.len())
	for i := range s.seat {
		s.seat[i].place = nowhere
	}
	t.expiry.add(s)
	t.queue(s, now)
}

// queue gives a session its place in the order of eviction.
func (t *sessions) queue(s *session, now uint64) {
	if s.openBeforeMS >= now {
		t.pinned.add(s)
	} else {
		t.rest(s)
	}
}

func (t *sessions) drop(s *session) {
	delete(t.rows, s.client)
	t.dropped[s.client] = true
	t.expiry.remove(s)
	t.pinned.remove(s)
	t.unrest(s)
	t.count(s.holder, -1, -s.kept.len())
}

// count counts sessions and outcomes of a holder in, or out.
func (t *sessions) count(h *holder, rows, outcomes int) {
	t.kept += outcomes
	h.kept += outcomes
	h.rows += rows
	if h.rows > 0 {
		heap.Fix(&t.crowd, h.place)
		return
	}
	heap.Remove(&t.crowd, h.place)
	delete(t.holders, string(h.name))
}

// sorted lists all sessions in the order of Checkpoint.sessions.
func (t *sessions) sorted() []*session {
	all := slices.Clone(t.expiry.heap)
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.activeMS, b.activeMS), bytes.Compare(a.client[:], b.client[:]))
	})
	return all
}

// outcomes are what a session keeps, by seq. The first head of all are pruned:
// they stay until they are half of it, so that pruning one by one costs little.
type outcomes struct {
	all  []outcome
	head int
}

func (k *outcomes) len() int              { return len(k.all) - k.head }
func (k *outcomes) list() []outcome       { return k.all[k.head:] }
func (o outcome) compareSeq(n uint64) int { return cmp.Compare(o.seq, n) }

func (k *outcomes) find(seq uint64) (outcome, bool) {
	i, ok := slices.BinarySearchFunc(k.list(), seq, outcome.compareSeq)
	if !ok {
		return outcome{}, false
	}
	return k.list()[i], true
}

func (k *outcomes) insert(o outcome) {
	i, _ := slices.BinarySearchFunc(k.list(), o.seq, outcome.compareSeq)
	k.all = slices.Insert(k.all, k.head+i, o)
}

// prune forgets all below seq and returns how many those were.
func (k *outcomes) prune(seq uint64) int {
	n, _ := slices.BinarySearchFunc(k.list(), seq, outcome.compareSeq)
	k.head += n
	if 2*k.head >= len(k.all) {
		k.all = k.all[:copy(k.all, k.all[k.head:])]
		k.head = 0
		if cap(k.all) > 4*len(k.all)+16 { // what is not kept is not held either
			k.all = slices.Clone(k.all)
		}
	}
	return n
}

// The orders of sessions.
const (
	byDeadline = iota
	byOpening
	byIdleness
	byShare // of the holder's, as byIdleness is of all
	orders
)

// seat is a session's place in one order.
type seat struct {
	place int    // in the heap; nowhere if it is not there
	key   uint64 // at most when(session): times only grow, and are looked at late
}

const nowhere = -1

// order is a heap of sessions by a time that never goes down, then by client. A
// session whose time grew sinks only once it comes to the top, so a command costs
// nothing here. The order is total and the top is settled before it is used: what
// comes out does not depend on the shape of the heap.
type order struct {
	which int
	when  func(*session) uint64
	heap  []*session
}

// before returns the first session whose time is before limit, or nil.
func (o *order) before(limit uint64) *session {
	for len(o.heap) > 0 && o.heap[0].seat[o.which].key < limit {
		s := o.heap[0]
		when := o.when(s)
		if when == s.seat[o.which].key {
			return s
		}
		s.seat[o.which].key = when
		heap.Fix(o, 0)
	}
	return nil
}

func (o *order) holds(s *session) bool { return s.seat[o.which].place != nowhere }

func (o *order) add(s *session) { heap.Push(o, s) }

func (o *order) remove(s *session) {
	if o.holds(s) {
		heap.Remove(o, s.seat[o.which].place)
	}
}

// Len, Less, Swap, Push and Pop are heap.Interface.
func (o *order) Len() int { return len(o.heap) }

func (o *order) Less(i, j int) bool {
	a, b := o.heap[i], o.heap[j]
	if x, y := a.seat[o.which].key, b.seat[o.which].key; x != y {
		return x < y
	}
	return bytes.Compare(a.client[:], b.client[:]) < 0
}

func (o *order) Swap(i, j int) {
	o.heap[i], o.heap[j] = o.heap[j], o.heap[i]
	o.heap[i].seat[o.which].place = i
	o.heap[j].seat[o.which].place = j
}

func (o *order) Push(x any) {
	s := x.(*session)
	s.seat[o.which] = seat{place: len(o.heap), key: o.when(s)}
	o.heap = append(o.heap, s)
}

func (o *order) Pop() any {
	last := len(o.heap) - 1
	s := o.heap[last]
	o.heap[last] = nil
	o.heap = o.heap[:last]
	s.seat[o.which].place = nowhere
	return s
}

// crowd is a heap of holders: that of the most sessions first, of these by name.
type crowd []*holder

// Len, Less, Swap, Push and Pop are heap.Interface.
func (c crowd) Len() int { return len(c) }

func (c crowd) Less(i, j int) bool {
	if c[i].rows != c[j].rows {
		return c[i].rows > c[j].rows
	}
	return bytes.Compare(c[i].name, c[j].name) < 0
}

func (c crowd) Swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].place, c[j].place = i, j
}

func (c *crowd) Push(x any) {
	h := x.(*holder)
	h.place = len(*c)
	*c = append(*c, h)
}

func (c *crowd) Pop() any {
	last := len(*c) - 1
	h := (*c)[last]
	(*c)[last] = nil
	*c = (*c)[:last]
	return h
}
