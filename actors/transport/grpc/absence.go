package grpc

import "time"

// absenceMin is how long a peer is away before people are told. Most links that break are
// back in a moment: when a cluster is founded, all are.
const absenceMin = time.Second

// absence is how long a peer has not been reached, and what people were told of it.
type absence struct {
	since time.Time // zero: it was reached last
	said  string    // the reason that was told last; empty: none
}

// goesOn takes note of one more attempt that failed, and reports whether people are to be
// told the reason: once, and again when it is another.
func (a *absence) goesOn(now time.Time, reason string) bool {
	if a.since.IsZero() {
		a.since = now
	}
	if now.Sub(a.since) < absenceMin || a.said == reason {
		return false
	}
	a.said = reason
	return true
}

// over takes note that the peer is reached, and returns how long it was not. told says that
// people know of that.
func (a *absence) over(now time.Time) (away time.Duration, told bool) {
	if !a.since.IsZero() {
		away, told = now.Sub(a.since), a.said != ""
	}
	*a = absence{}
	return away, told
}
