// Package storeactor keeps a node's state: an actor that makes the log durable, one
// that applies what the group has agreed upon, and the children of the latter.
//
// Log order is the truth. The engine holds a rebuildable, unsynced, multi-version
// copy of user data only; all other state is in a Checkpoint and in memory. Replay
// from the last checkpoint gives the same result, whatever part of the unsynced
// engine survived.
//
// Whoever comes for the first time reads in this order:
//
//	disk/      what a disk has to be: the seam, and its contract as a test (disktest)
//	state/     what an entry does; pure
//	log.go     appends become durable; a snapshot is installed between two of them
//	machine.go entries are applied, reads and checkpoints given to children
//	           (machine_open.go: how it begins, and switches to an installed snapshot)
//	reading/   how a read is answered; pure. reader.go is its actor
//	checkpoint.go, discard.go, reclaim.go, pins.go  what else the machine has done beside it
//	snapshot/  the format in which a state travels; pure
//	shipping/  snapshots between nodes, and files for operators
//	audit/     do the members hold the same?
//	files/     the real disk: durable/, wal/ (the log), badger/ (the rows)
//
// Names that end in test are packages of what tests of several rooms need.
package storeactor
