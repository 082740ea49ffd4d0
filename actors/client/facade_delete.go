package client

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"keyval/messages"
)

// DeleteRangeResult is the outcome of a DeleteRange, or of its steps so far.
type DeleteRangeResult struct {
	Deleted   uint64 // keys, surely
	Revision  uint64 // of the last step, or at which no key was left
	RequestID string // of the last step
}

// deleteStepKeys is how many keys one command of a DeleteRange deletes at most. The
// cluster ends a step earlier when its keys are long.
const deleteStepKeys = 10_000

const hintDeleteAgain = "delete again: it goes on with what is left"

// DeletePrefix removes the keys that begin with prefix, as DeleteRange does. The
// empty prefix is that of every key.
func (c *Client) DeletePrefix(ctx context.Context, prefix []byte) (DeleteRangeResult, error) {
	return c.DeleteRange(ctx, prefix, PrefixEnd(prefix))
}

// DeleteRange removes the keys of [from, to), in steps; an empty to has no end.
// Each step is atomic, the whole is not. With an error it returns what the steps
// before it did, and the error says how many keys those were.
func (c *Client) DeleteRange(ctx context.Context, from, to []byte) (DeleteRangeResult, error) {
	var sum DeleteRangeResult
	for sofar, err := range c.DeleteSteps(ctx, from, to) {
		if err != nil {
			return sofar, err
		}
		sum = sofar
	}
	return sum, nil
}

// DeleteSteps is DeleteRange for those who want to see it going on: it yields the
// sum after each step. It stops when nobody ranges on; the same call again goes on
// with what is left. An error is the last thing that it yields.
func (c *Client) DeleteSteps(ctx context.Context, from, to []byte) iter.Seq2[DeleteRangeResult, error] {
	return func(yield func(DeleteRangeResult, error) bool) {
		var sum DeleteRangeResult
		at := from
		for more := true; more; {
			done, err := c.deleteStep(ctx, &at, to)
			if err != nil {
				yield(sum, stopped(err, sum.Deleted))
				return
			}
			sum.Deleted += done.Deleted
			sum.Revision, sum.RequestID, more = done.Revision, done.RequestID, done.more
			if !yield(sum, nil) {
				return
			}
		}
	}
}

type deletedStep struct {
	DeleteRangeResult
	more bool
}

// deleteStep deletes from the first key of the range on, and moves from to it. The
// first key is looked for by a read: a command that began at from again would have
// every replica pass all that was deleted before, over and over, and apply nothing
// else meanwhile.
func (c *Client) deleteStep(ctx context.Context, from *[]byte, to []byte) (deletedStep, error) {
	first, err := c.page(ctx, *from, to, 1, ScanOptions{Limit: 1, KeysOnly: true})
	switch {
	case err != nil:
		return deletedStep{}, err
	case len(first.Read.Items) == 0:
		return deletedStep{DeleteRangeResult{Revision: first.Read.Revision, RequestID: first.RequestId}, false}, nil
	}
	*from = first.Read.Items[0].Key
	d, err := c.write(ctx, &messages.Operation{Kind: &messages.Operation_DeleteRange{
		DeleteRange: &messages.DeleteRange{From: *from, To: to, Limit: deleteStepKeys},
	}})
	if err != nil {
		return deletedStep{}, err
	}
	return deletedStep{DeleteRangeResult{d.Write.Deleted, d.Write.Revision, d.RequestId}, d.Write.More}, nil
}

// stopped says what had been deleted when a step's error came.
func stopped(err error, deleted uint64) error {
	return reworded(err, func(e *messages.Error) {
		switch {
		case e.Code == messages.Code_OUTCOME_UNKNOWN:
			e.Message = fmt.Sprintf("%s; %d keys were surely deleted before it, up to %d more may be", e.Message, deleted, deleteStepKeys)
			e.Hint = hintDeleteAgain
		case deleted > 0:
			e.Message = fmt.Sprintf("%s; %d keys were deleted before", e.Message, deleted)
		}
	})
}

// PrefixEnd is where the keys that begin with prefix end: the to of their range.
// It is nil where they have no end.
func PrefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for len(end) > 0 {
		last := len(end) - 1
		if end[last]++; end[last] != 0 {
			return end
		}
		end = end[:last] // 0xff has no successor of the same length
	}
	return nil
}
