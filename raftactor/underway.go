package raftactor

import (
	"bytes"
	"slices"
)

// underWay knows which commands a leader has, from the gate until they are applied here: a
// session asks again for what takes long, and in the log twice it takes longer.
//
// Numbers of an asker mostly go up, and one above all of its others is surely new. So a
// command costs no more than a look-up of its asker.
type underWay struct {
	askers map[Asker]*asked
	logged []logged // handed to raft and not applied yet, in the log's order
}

// asked is what one asker has under way. count is above 0, but amid a change.
type asked struct {
	asker   Asker
	count   int
	highest uint64 // number so far
}

// logged is a command in the log, without its bytes.
type logged struct {
	of    *asked
	seq   uint64
	size  int    // of the command
	index uint64 // that of its entry, or of a later one of the same proposal
}

// has reports whether a command is under way. A number stands for one command; a client that
// gives one to two waits in vain for the second. Commands without a number are never the same.
func (r *Replica) has(p proposal) bool {
	a := r.under.askers[p.asker]
	if a == nil || p.seq == 0 || p.seq > a.highest {
		return false
	}
	same := func(q proposal) bool {
		return q.asker == p.asker && q.seq == p.seq && bytes.Equal(q.command, p.command)
	}
	return slices.ContainsFunc(r.next, same) || r.queue.Holds(p.asker, same) ||
		slices.ContainsFunc(r.under.logged, func(l logged) bool { return l.of == a && l.seq == p.seq && l.size == len(p.command) })
}

// begin takes note of a command that waits for the gate now.
func (u *underWay) begin(p *proposal) {
	a := u.askers[p.asker]
	if a == nil {
		a = &asked{asker: p.asker}
		u.askers[p.asker] = a
	}
	a.count++
	a.highest = max(a.highest, p.seq)
	p.of = a
}

// log takes note of commands whose last entry has this index.
func (u *underWay) log(proposals []proposal, index uint64) {
	for _, p := range proposals {
		u.logged = append(u.logged, logged{p.of, p.seq, len(p.command), index})
	}
}

// applied ends what is in the log up to index.
func (u *underWay) applied(index uint64) {
	n := 0
	for ; n < len(u.logged) && u.logged[n].index <= index; n++ {
		a := u.logged[n].of
		if a.count--; a.count == 0 {
			delete(u.askers, a.asker)
		}
	}
	u.logged = slices.Delete(u.logged, 0, n)
}

// clear forgets all: another leader decides what becomes of it.
func (u *underWay) clear() {
	clear(u.askers)
	u.logged = nil
}
