package client

import "keyval/messages"

// Error is what went wrong: a code, a sentence, the endpoint and the request that it is of, and
// the next step. Every error of a Client is or wraps one; errors.As finds it.
type Error = messages.Error

// Code says what an Error is about. CodeOf finds it in any error.
type Code = messages.Code

// The codes that calls end with. What each says of a write: OutcomeUnknown alone leaves open
// whether it has happened; with all others it surely has not.
const (
	OK             = messages.Code_OK
	Invalid        = messages.Code_INVALID         // bad input
	NotFound       = messages.Code_NOT_FOUND       // there is no such key, snapshot, member, operation
	NotAllowed     = messages.Code_NOT_ALLOWED     // a bound or a rule forbids it, or a role is missing
	NoLeader       = messages.Code_NO_LEADER       // nobody leads now
	Unreachable    = messages.Code_UNREACHABLE     // no endpoint serves
	Unsafe         = messages.Code_UNSAFE          // it would lose data or availability
	Conflict       = messages.Code_CONFLICT        // a condition does not hold; something else is under way
	OutcomeUnknown = messages.Code_OUTCOME_UNKNOWN // it was sent; it may or may not have happened
	TimedOut       = messages.Code_TIMED_OUT       // a read, or a write that was surely not proposed
	Busy           = messages.Code_BUSY            // a bound is reached; try later
	Compacted      = messages.Code_COMPACTED       // the revision is older than the history that is kept
	Unsupported    = messages.Code_UNSUPPORTED     // the nodes are too old for it
	Damaged        = messages.Code_DAMAGED         // the data of the node that was asked are damaged
	Internal       = messages.Code_INTERNAL        // a defect
	Removed        = messages.Code_REMOVED         // the node that was asked is no member any more
	Starting       = messages.Code_STARTING        // the node that was asked serves nobody yet
)

// Errors for errors.Is, which finds an Error of the same code in any error of a Client.
var (
	ErrInvalid        error = &Error{Code: Invalid}
	ErrNotFound       error = &Error{Code: NotFound}
	ErrNotAllowed     error = &Error{Code: NotAllowed}
	ErrNoLeader       error = &Error{Code: NoLeader}
	ErrUnreachable    error = &Error{Code: Unreachable}
	ErrUnsafe         error = &Error{Code: Unsafe}
	ErrConflict       error = &Error{Code: Conflict}
	ErrOutcomeUnknown error = &Error{Code: OutcomeUnknown}
	ErrTimedOut       error = &Error{Code: TimedOut}
	ErrBusy           error = &Error{Code: Busy}
	ErrCompacted      error = &Error{Code: Compacted}
)

// CodeOf is the code of err: OK for nil, Internal for one that is of nobody here.
func CodeOf(err error) Code { return messages.CodeOf(err) }
