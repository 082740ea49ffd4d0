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
	AskedEarly       = false // a candidate asks for votes before its own log has the term
	ReadUnconfirmed  = false // a leader serves reads without asking whether it still leads
	MergeKeepsAll    = false // the log merges appends without dropping what a later one replaces
	ReadBeforeOwn    = false // a leader serves reads before an entry of its own term is applied
	AppendedEarly    = false // raft goes on with a snapshot before the machine has switched to it
	InstallForgets   = false // the log that a snapshot begins forgets for whom the replica voted
	CutUncovered     = false // the log is cut at what is applied, checkpoint or not
	DiscardUncovered = false // rows go as soon as history is given up, checkpoint or not
	DiscardOvertakes = false // rows go while readers still have reads of them before them
	PinsIgnored      = false // rows go though a snapshot of them is on its way
	PagesBelieved    = false // what a sync of the log failed to write is read by the next process, and synced alone
	StateSyncRetried = false // a sync of the state that failed is tried again, and believed
	CommitUnsynced   = false // a checkpoint is written though the commit behind it is not durable
	WipedAdopted     = false // a founder with an empty disk joins the cluster that knew it with other data
	DeleteUnseen     = false // a deletion does not see what its own command put
	RangeCountsLast  = false // of several deletions in a command the last range alone is counted
	LastPutLost      = false // of several puts of a key in one command the first counts
	LentKept         = false // a scan keeps the values that the engine lent it
	RangeLentKept    = false // a deletion of a range keeps the keys that the engine lent it
	CommitByCount    = false // a leader commits entries of older terms once a quorum has them
	TailKeepsOlder   = false // the tail in memory keeps entries that the log has replaced
	ReadUnapplied    = false // a read is answered before its index is applied
	ReadGivenUp      = false // a read is answered where history is given up
	HardStateFirst   = false // of merged appends the first hard state is written
	DeadlineDenies   = false // a write whose deadline passed after it was sent is called not done
	OutcomeForgotten = false // a session does not keep what became of its commands
	OpenedAnew       = false // a session expires while its opening is still valid, and is opened again
	LogNeverCut      = false // the log grows for ever
	HistoryNeverGoes = false // nobody gives up history
	NothingDiscarded = false // the rows of history that was given up stay
	SnapshotNewest   = false // a snapshot lacks the history that is kept
	EffectFirst      = false // an operation changes the members before its record is in the log
	RollbackLate     = false // an operation is undone though the joint configuration has begun
	TwoSagas         = false // two operations touch one member
	PromotedEarly    = false // a learner is promoted before it has caught up
	LeaderRemoved    = false // a leader is removed while it leads
	SessionShared    = false // whoever knows a session's ClientID is its user
	AllowedAtPropose = false // who may do what is asked when a command is proposed, not when it is applied
	ChangeAtPropose  = false // a leader decides by a new configuration as soon as it proposed it
	RemovedCounts    = false // a leader goes on counting what a removed member has
	LearnerRefuses   = false // a learner refuses its vote to one that knows it as a voter
	SnapshotOld      = false // a member is sent a snapshot of before it was added, which it cannot use
	UnboundAdmitted  = false // a member takes part before it is agreed upon which directory it has
	OneRefusal       = false // a node takes itself for removed as soon as one member says so
	JointStays       = false // a joint configuration is never left
	OldUnfenced      = false // a node that was replaced, or removed, is taken in when it comes back
	RefusedEarly     = false // a member that was removed is refused before that is durable, and gives up its directory
	ReadAhead        = false // a command reads rows of later revisions too, which replay finds in the engine
	StampedOwn       = false // a leader stamps entries with its software's level, not the cluster's
	RaisedUnasked    = false // the cluster's level is raised without asking all members
	StateUnaudited   = false // the members compare nothing but rows

	InvitationShared      = false // a second taker is given what was sealed for an invitation, too
	InvitationRevived     = false // what is written of invitations counts upon any version, and a removed one is given
	InvitationUnconfirmed = false // a leader says what became of an invitation without asking whether it still leads
	PasswordUnversioned   = false // a token whose password was changed still counts
	SignerUnknown         = false // a token that a removed member has signed still counts

	LineageIgnored     = false // a copy is a voice of its own beside what it was copied from
	ShippedUnasked     = false // a state is shipped that no other member has vouched for
	SuspectVotes       = false // a node that is suspected to have lost data takes part
	SuspicionForgotten = false // it is suspected no more after a restart
	OneVoiceCondemns   = false // an accuser alone condemns it
	AccuserBelieved    = false // it is suspected by a heartbeat alone, and asks nobody
)
