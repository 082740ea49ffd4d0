package client

import (
	"context"
	"errors"

	"keyval/messages"
)

// ErrClosed is what the errors of a Client wrap that was closed.
var ErrClosed = errors.New("the client is closed")

// unfinished is the error of a call that ended without the cluster's answer. It wraps
// what is known of the request, a *messages.Error, and why the wait ended, which is
// context.DeadlineExceeded, context.Canceled or ErrClosed.
type unfinished struct {
	known *messages.Error
	why   error
}

func (u *unfinished) Error() string   { return u.known.Error() }
func (u *unfinished) Unwrap() []error { return []error{u.known, u.why} }

// ending is the error of an answer that says e.
func ending(d *messages.Done, e *messages.Error) error {
	switch d.Ending {
	case messages.Ending_LATE:
		return &unfinished{e, context.DeadlineExceeded}
	case messages.Ending_WITHDRAWN:
		return &unfinished{e, context.Canceled}
	case messages.Ending_CLOSED:
		return &unfinished{e, ErrClosed}
	}
	return e
}

// reworded is err with other words for people. What it wraps beside them stays.
func reworded(err error, change func(*messages.Error)) error {
	e, ok := errors.AsType[*messages.Error](err)
	if !ok {
		return err
	}
	told := *e
	change(&told)
	if u, ok := errors.AsType[*unfinished](err); ok {
		return &unfinished{&told, u.why}
	}
	return &told
}
