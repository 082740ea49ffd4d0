// Package phrase says what a message means, on one line. Bytes are opened:
// commands, entries, and what raft says. Identities, which are random, get names:
// n1.2 is the second data directory of n1, c.1#3 the third command of client c's
// first session.
package phrase
