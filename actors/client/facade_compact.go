package client

import (
	"context"

	"keyval/messages"
)

// CompactResult is the outcome of a Compact.
type CompactResult struct {
	Compacted uint64 // reads below this revision are refused from now on, if they were not before
	Newest    uint64 // the newest revision when it was asked for
	Revision  uint64 // the newest when it took effect
	RequestID string
	// Already says that more was given up before: nothing was sent, and nothing changed.
	Already bool
}

// Compact gives up history: reads below a revision are refused from now on, and the
// nodes give the space of what only those could see back. 0 stands for the newest
// revision. Where more was given up before, nothing changes, and the result says so. A
// revision in the future is INVALID.
func (c *Client) Compact(ctx context.Context, revision uint64) (CompactResult, error) {
	newest, err := c.Newest(ctx)
	switch {
	case err != nil:
		return CompactResult{}, err
	case revision == 0:
		revision = newest
	}
	r := CompactResult{Compacted: revision, Newest: newest}
	switch {
	case newest == 0:
		return r, messages.Errorf(messages.Code_INVALID, "nothing was written yet: there is no history")
	case revision > newest:
		return r, messages.Errorf(messages.Code_INVALID, "revision %d is in the future, the newest is %d", revision, newest)
	}
	if revision < newest {
		_, err := c.page(ctx, nil, nil, 1, ScanOptions{Limit: 1, KeysOnly: true, Revision: revision})
		switch messages.CodeOf(err) {
		case messages.Code_OK:
		case messages.Code_COMPACTED:
			r.Already, r.Revision = true, newest
			return r, nil
		default:
			return r, err
		}
	}
	d, err := c.write(ctx, &messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}})
	r.RequestID = d.GetRequestId()
	if messages.CodeOf(err) == messages.Code_OUTCOME_UNKNOWN {
		err = reworded(err, func(e *messages.Error) { e.Hint = "compact again: the same revision twice does no harm" })
	}
	if err != nil {
		return r, err
	}
	r.Revision = d.Write.Revision
	return r, nil
}

// Newest is the newest revision, by a linearizable read: of a range without keys, which needs
// the right to none.
func (c *Client) Newest(ctx context.Context) (uint64, error) {
	nothing := []byte{0}
	d, err := c.page(ctx, nothing, nothing, 1, ScanOptions{Limit: 1, KeysOnly: true})
	if err != nil {
		return 0, err
	}
	return d.Read.Revision, nil
}
