package badger

import (
	"errors"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/y"

	"keyval/messages"
	"keyval/storeactor/files/durable"
)

// usable is an error once Badger met a file that it could not make, write, sync or
// read: from then on it leaves its files as they are, which with the log hold all that
// was acknowledged, and nothing is read or written here any more. The process ends
// and starts again from the checkpoint.
func (e *Engine) usable() error {
	failure := e.db.Failure()
	switch {
	case failure == nil:
		return nil
	case errors.Is(failure, badger.ErrUnreadable):
		return damaged("%v", oneLine{failure})
	}
	return refused("keep the state (nothing is lost: it is replayed from the log)", oneLine{failure})
}

// refused gives what the operating system or the disk refused a code and a next step.
func refused(what string, err error) error {
	if fault := (*y.Fault)(nil); errors.As(err, &fault) {
		return messages.Errorf(messages.Code_INTERNAL, "cannot %s: %v", what, err).
			WithHint("make room on the disk, or have it checked, and start again")
	}
	return durable.Error(what, err)
}

// reading does what reads rows, and may have ended early where a table could not be
// read: then it has failed, whatever it found. Files are mapped: a page that the disk
// does not give is a fault at an address.
func (e *Engine) reading(what string, read func() error) error {
	err := y.CatchFault(what, read)
	if failure := e.usable(); failure != nil {
		return failure
	}
	if fault := (*y.Fault)(nil); errors.As(err, &fault) {
		return refused(what, err)
	}
	return err
}

// oneLine is an error that was joined of several, each on a line.
type oneLine struct{ error }

func (o oneLine) Error() string {
	return strings.Join(strings.FieldsFunc(o.error.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
func (o oneLine) Unwrap() error { return o.error }
