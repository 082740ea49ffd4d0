package storeactor

// What one node may hold in memory or put into one answer. Free to change.
const (
	// waitingReadsMax bounds the reads that wait for an index to be applied; more
	// are refused as busy.
	waitingReadsMax = 16_384
	// readsPerTurn is how many reads of a batch one reader gets before the next
	// reader has its turn.
	readsPerTurn = 64

	// ScanRowsMax bounds the rows of one reply to a scan, and ScanBytesMax its
	// bytes; a single row always fits.
	ScanRowsMax  = 1000
	ScanBytesMax = 1 << 20
	itemBytes    = 16 // what an item takes beside its key and value

	// DigestRowsMax bounds the rows of one digest, and DigestBytesMax the bytes of
	// their keys and values; a single row always fits.
	DigestRowsMax  = 10_000
	DigestBytesMax = 16 << 20

	// pinsMax bounds the states that are kept for others, in number; one that nobody
	// has used for pinTicksMax goes.
	pinsMax     = 64
	pinTicksMax = 1200
)
