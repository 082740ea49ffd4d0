package cli

import (
	"context"
	"errors"
	"fmt"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func ifRevisionFlag() urfave.Flag {
	return &urfave.Uint64Flag{Name: "if-revision", Usage: "only while the key's last write is of `REVISION`; 0: while there is no such key", DefaultText: "whatever is there"}
}

func ifAbsentFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "if-absent", Usage: "only while there is no such key"}
}

// condition is what --if-revision and --if-absent ask for; nil: nothing.
type condition struct{ revision uint64 }

func (c *Call) condition() (*condition, error) {
	absent := c.flags.Bool("if-absent")
	switch ranged := c.flags.IsSet("if-revision"); {
	case absent && ranged:
		return nil, c.usage("", "--if-revision and --if-absent exclude each other")
	case absent, ranged:
		return &condition{c.flags.Uint64("if-revision")}, nil
	}
	return nil, nil
}

func (n *condition) options() []client.WriteOption {
	if n == nil {
		return nil
	}
	return []client.WriteOption{client.IfRevision(n.revision)}
}

// conflictError is a condition that did not hold, and what stands there instead.
type conflictError struct {
	problem *messages.Error
	current getJSON // without a revision: the key is not there
	value   []byte
}

func (e *conflictError) Error() string { return e.problem.Error() }
func (e *conflictError) Unwrap() error { return e.problem }

// conflict adds to a write's error what stands there, if it is that the condition did
// not hold: as of the revision at which it did not.
func (n *condition) conflict(ctx context.Context, store Store, key []byte, at uint64, err error) error {
	var problem *messages.Error
	if n == nil || !errors.As(err, &problem) || problem.Code != messages.Code_CONFLICT {
		return err
	}
	told := *problem
	e := &conflictError{problem: &told}
	stands, when := client.GetResult{Key: key}, fmt.Sprintf("as of revision %d", at)
	if at > 0 { // before the first write nothing is there
		stands, err = store.Get(ctx, key, at, false)
		if messages.CodeOf(err) == messages.Code_COMPACTED {
			stands, err = store.Get(ctx, key, 0, false)
			when = fmt.Sprintf("now, at revision %d, for revision %d, at which the condition did not hold, is no longer kept", stands.ReadRevision, at)
		}
	}
	if code := messages.CodeOf(err); code != messages.Code_OK && code != messages.Code_NOT_FOUND && code != messages.Code_CONFLICT {
		told.Message = fmt.Sprintf("%s; what stands there could not be read: %v", told.Message, err)
		return &told
	}
	stands.Key, stands.RequestID = key, problem.RequestID
	e.current, e.value = getRow(stands), stands.Value
	told.Message, told.Hint = n.explain(key, stands.Revision, when)
	if stands.Revision == 0 {
		e.current.Value, e.current.ValueBase64 = nil, nil
	}
	return e
}

// explain says how what stands there is not as it was to be, and what to do.
func (n *condition) explain(key []byte, revision uint64, when string) (message, hint string) {
	switch {
	case revision == 0:
		return fmt.Sprintf("nothing was written: there is no key %s (%s), and revision %d was asked for", shown(key), when, n.revision),
			"--if-absent writes it"
	case n.revision == 0:
		message = fmt.Sprintf("nothing was written: %s is there, of revision %d (%s)", shown(key), revision, when)
	default:
		message = fmt.Sprintf("nothing was written: %s is of revision %d (%s), and not of revision %d", shown(key), revision, when, n.revision)
	}
	return message, fmt.Sprintf("if that may be overwritten: --if-revision %d", revision)
}
