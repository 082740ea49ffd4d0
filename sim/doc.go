// Package sim runs a whole cluster and its clients in one goroutine, from one
// seed. The actors are those of production, assembled by the same code; the
// simulator owns what is outside of them: the run queue, time, randomness, the
// network and the disks.
//
// The same seed and the same build give the same trace, byte for byte, in any
// process. A run draws its own cluster, workload and mix of faults from the
// seed, holds all that the actors say to each other against the checkers, heals
// what it broke, and demands that the cluster then gets on.
//
// A process that simulates does nothing else: raft's source of election jitter
// and the actor library's registry size are global, and are replaced.
package sim
