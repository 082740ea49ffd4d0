//go:build !mutant

// Package mutant holds faults that were put into the software on purpose, to prove
// that the simulator's checkers bite. Each is one constant, and one line behind it
// at the place of the fault. Here all are false, so the compiler leaves nothing of
// them in a program; built with the tag mutant, the environment variable
// KEYVAL_MUTANT names the one that is true.
package mutant

const (
	AckBeforeFsync   = false // a replica's acknowledgements and votes leave before they are durable
	VoteNotPersisted = false // the log forgets for whom the replica voted
	AckBeforeQuorum  = false // a leader counts what it sent to a peer as what the peer has
	RetryRenumbered  = false // a client repeats a command under a new number
	ReadUnconfirmed  = false // a leader serves reads without asking whether it still leads
	MergeKeepsAll    = false // the log merges appends without dropping what a later one replaces
	AppendedEarly    = false // raft goes on with a snapshot before the machine has switched to it
	InstallForgets   = false // the log that a snapshot begins forgets for whom the replica voted
	CutUncovered     = false // the log is cut at what is applied, checkpoint or not
	DiscardUncovered = false // rows go as soon as history is given up, checkpoint or not
	ReadBeforeOwn    = false // a leader serves reads before an entry of its own term is applied
	ReadAhead        = false // a command reads rows of later revisions too, which replay finds in the engine
)
