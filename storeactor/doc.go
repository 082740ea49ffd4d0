// Package storeactor keeps a node's state: the log actor (append, fsync), the
// machine (apply), its readers and checkpoints, over the disk behind
// the seam of package disk.
//
// Log order is the truth. The engine holds a rebuildable, unsynced,
// multi-version copy of user data only; all other state is in a Checkpoint and
// in memory, and replay from the last checkpoint gives the same result whatever
// part of the unsynced engine survived.
package storeactor
