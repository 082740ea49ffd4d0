package client

import (
	"context"
	"iter"

	"keyval/messages"
)

// ReadOption changes how something is read.
type ReadOption func(*messages.Read)

// AtRevision reads as of a revision. COMPACTED is the error when that is older
// than the history that is kept.
func AtRevision(revision uint64) ReadOption {
	return func(r *messages.Read) { r.Revision = revision }
}

// Stale reads what the node in use holds. It may miss the latest writes, needs
// no leader, and costs no round trip between nodes.
func Stale() ReadOption {
	return func(r *messages.Read) { r.Consistency = messages.Consistency_STALE }
}

// GetResult is what was read.
type GetResult struct {
	Key, Value     []byte
	Revision       uint64 // of the key's last write
	CreateRevision uint64 // at which the key came to be there
	Version        uint64 // writes since then with the last one: 1 after the first
	ReadRevision   uint64 // at which it was read
	RequestID      string
	Endpoint       string // the node that answered
}

// Get reads the value of a key. The error is ErrNotFound if there is none; the result still says at which revision that was so.
func (c *Client) Get(ctx context.Context, key []byte, options ...ReadOption) (GetResult, error) {
	r := &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: key}}}
	for _, o := range options {
		o(r)
	}
	d, err := c.call(ctx, &messages.Submit{Read: r})
	result := GetResult{Key: key, ReadRevision: d.GetRead().GetRevision(), RequestID: d.GetRequestId(), Endpoint: d.GetEndpoint()}
	if err != nil {
		return result, err
	}
	if len(d.Read.Items) == 0 {
		return result, messages.Errorf(messages.Code_NOT_FOUND, "%s", wordsOf(messages.Code_NOT_FOUND)).At(d.Endpoint, d.RequestId)
	}
	item := d.Read.Items[0]
	result.Value, result.Revision, result.CreateRevision, result.Version = item.Value, item.Revision, item.CreateRevision, item.Version
	return result, nil
}

// Item is one row of a Scan.
type Item struct {
	Key, Value     []byte // Value is nil with KeysOnly
	Revision       uint64 // of the key's last write
	CreateRevision uint64 // at which the key came to be there
	Version        uint64 // writes since then with the last one: 1 after the first
	ReadRevision   uint64 // at which all of the Scan is read
	RequestID      string // of its page
}

// ScanOptions change what a Scan reads. The zero ScanOptions read everything of
// the newest revision.
type ScanOptions struct {
	Limit    int    // rows in all; 0: no limit
	PageSize int    // rows a request; 0: 512. A node may send fewer
	Revision uint64 // 0: the newest
	Reverse  bool   // from the end to the start
	KeysOnly bool
	Stale    bool // see Stale
}

// pageSize is what a Scan asks for at once, in rows.
const pageSize = 512

// Scan reads the keys of [from, to) in order; an empty to has no end. It asks for
// a page at a time, while it is ranged over, all at the revision of the first
// page. An error is the last thing that it yields, with an empty Item.
func (c *Client) Scan(ctx context.Context, from, to []byte, o ScanOptions) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		left := o.Limit
		for {
			d, err := c.page(ctx, from, to, left, o)
			if err != nil {
				yield(Item{}, err)
				return
			}
			page := d.Read
			o.Revision = page.Revision
			for _, row := range page.Items {
				if !yield(Item{row.Key, row.Value, row.Revision, row.CreateRevision, row.Version, page.Revision, d.RequestId}, nil) {
					return
				}
			}
			if left -= len(page.Items); !page.More || o.Limit > 0 && left <= 0 {
				return
			}
			from, to = behind(page.Items, from, to, o.Reverse)
		}
	}
}

// page reads one page of a Scan; left is how many rows are still wanted, when
// there is a limit.
func (c *Client) page(ctx context.Context, from, to []byte, left int, o ScanOptions) (*messages.Done, error) {
	rows := pageSize
	if o.PageSize > 0 {
		rows = o.PageSize
	}
	if o.Limit > 0 {
		rows = min(rows, left)
	}
	r := &messages.Read{Revision: o.Revision, Kind: &messages.Read_Scan{Scan: &messages.Scan{
		From: from, To: to, Limit: uint32(rows), Reverse: o.Reverse, KeysOnly: o.KeysOnly,
	}}}
	if o.Stale {
		r.Consistency = messages.Consistency_STALE
	}
	d, err := c.call(ctx, &messages.Submit{Read: r})
	if err != nil {
		return nil, err
	}
	if d.Read.More && len(d.Read.Items) == 0 {
		return nil, messages.Errorf(messages.Code_INTERNAL, "a page without rows says that there are more").At(d.Endpoint, d.RequestId)
	}
	return d, nil
}

// behind is the range that a page leaves.
func behind(page []*messages.Item, from, to []byte, reverse bool) ([]byte, []byte) {
	last := page[len(page)-1].Key
	if reverse {
		return from, last
	}
	return append(last[:len(last):len(last)], 0), to
}

// DigestResult is what the node in use holds in a range of keys.
type DigestResult struct {
	*messages.RangeDigest
	Revision  uint64 // at which it was read
	Endpoint  string
	RequestID string
}

// Digest asks the node in use, and no other, what it holds of [from, to) as of a
// revision, up to limit keys; an empty to has no end. Nodes with the same state give
// the same digest. INVALID: the node has not come to the revision yet.
func (c *Client) Digest(ctx context.Context, from, to []byte, limit int, revision uint64) (DigestResult, error) {
	d, err := c.call(ctx, &messages.Submit{Read: &messages.Read{
		Consistency: messages.Consistency_STALE, Revision: revision,
		Kind: &messages.Read_Digest{Digest: &messages.Digest{From: from, To: to, Limit: uint32(limit)}},
	}})
	r := DigestResult{RangeDigest: d.GetRead().GetDigest(), Revision: d.GetRead().GetRevision(), Endpoint: d.GetEndpoint(), RequestID: d.GetRequestId()}
	if err == nil && r.RangeDigest == nil {
		err = messages.Errorf(messages.Code_UNSUPPORTED, "the node gives no digests").WithHint("upgrade it first").At(d.Endpoint, d.RequestId)
	}
	return r, err
}
