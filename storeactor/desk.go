package storeactor

import (
	"slices"

	"keyval/actors/fair"
	"keyval/messages"
	"keyval/storeactor/reading"
)

const (
	// turnCost is what the reads of one turn of a reader cost about: in gets.
	turnCost = 64
	// turnsMax is how many turns a reader has at once, the one that it is at included:
	// it need not wait for the machine between two.
	turnsMax = 2
	// deskCostMax bounds the reads that wait for a reader, in gets; more are refused as
	// busy. See fair.Queue.Room for what one client may have of it.
	deskCostMax = 256 << 10
)

// desk shares the readers among the clients. One that scans without a pause would fill
// the readers' mailboxes for minutes otherwise, and its reads would outlive it. So a
// reader gets one turn after another, and the reads for which nobody has a turn yet wait
// here, where they can be overtaken and dropped.
type desk struct {
	queue *fair.Queue[string, *messages.ReadIndex] // by client
	turns []int                                    // by reader: given and not done, at most turnsMax
}

func newDesk() desk { return desk{queue: fair.New[string, *messages.ReadIndex](turnCost)} }

// open begins anew with readers that have nothing to do. What waits, waits for them.
func (d *desk) open(readers int) { d.turns = make([]int, readers) }

// add queues a read and reports whether there was room.
func (d *desk) add(read *messages.ReadIndex) bool {
	cost := reading.Cost(read.Read)
	if !d.queue.Room(read.Client, cost, deskCostMax) {
		return false
	}
	d.queue.Push(read.Client, read, cost)
	return true
}

// next gives out a turn to the reader with the least to do. It is empty if nobody waits,
// or all readers have enough.
func (d *desk) next() (reader int, reads []*messages.ReadIndex) {
	if d.queue.Cost() == 0 {
		return 0, nil
	}
	reader = slices.Index(d.turns, slices.Min(d.turns))
	if d.turns[reader] >= turnsMax {
		return 0, nil
	}
	d.turns[reader]++
	for cost := 0; cost < turnCost; {
		read, ok := d.queue.Pop()
		if !ok {
			break
		}
		reads = append(reads, read)
		cost += reading.Cost(read.Read)
	}
	return reader, reads
}

// done takes note that a reader has answered, or lost, the reads of a turn.
func (d *desk) done(reader int) {
	if reader < len(d.turns) && d.turns[reader] > 0 {
		d.turns[reader]--
	}
}

// drop forgets the reads of a session.
func (d *desk) drop(client, session string) {
	d.queue.Drop(client, func(read *messages.ReadIndex) bool { return read.Session == session })
}
