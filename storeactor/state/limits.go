package state

// What a command may be and what a session keeps. These bounds are part of what
// the log means: replicas of different versions apply the same entries and must
// agree, so changing one needs a new cluster level.
const (
	// DeleteRangeKeysMax bounds the keys that one command deletes by ranges, and
	// DeleteRangeBytesMax the bytes of those keys; a single key always goes.
	DeleteRangeKeysMax  = 10_000
	DeleteRangeBytesMax = 1 << 20

	// ConditionKeysMax bounds the keys that the conditions of one command look at, and
	// ConditionBytesMax the keys and values of their ranges, in bytes.
	ConditionKeysMax  = 10_000
	ConditionBytesMax = 16 << 20

	// SessionsMax bounds the sessions of a cluster, and SessionBytesMax what they
	// take in all, counted at a fixed price for each session and kept outcome.
	SessionsMax     = 65_536
	SessionBytesMax = 32 << 20
	sessionBytes    = 256
	outcomeBytes    = 64
	// One holder has at most this part of both: a half.
	holderShare = 2
	// SessionWindow is how many numbers from acked_below on a session may use.
	SessionWindow = 1024
	// SessionTTLMaxMS bounds OpenSession.ttl_ms: one day.
	SessionTTLMaxMS = 24 * 60 * 60 * 1000
)

// What one node may hold in memory. Free to change.
const (
	// batchBytesMax bounds the rows that wait for the end of their batch, in bytes
	// of keys and values with rowBytes for each row; one command may exceed it.
	batchBytesMax = 8 << 20
	rowBytes      = 64

	// recentKeysMax is how many keys are known without asking the engine, in two
	// halves of which this is one, and recentBytesMax the bytes of their keys.
	recentKeysMax  = 65_536
	recentBytesMax = 8 << 20

	// historyBytesMax is how many bytes of commands history may have: an engine keeps
	// all versions of a key in one table, and one of some gigabytes is beyond it.
	historyBytesMax = 128 << 20
	// retentionTicks is how long nothing is proposed after a compaction was.
	retentionTicks = 20
)
