package client

import "context"

// CountResult is how many keys there were.
type CountResult struct {
	Count        uint64
	ReadRevision uint64 // at which they were counted
	RequestID    string // of the last page
}

// countPage is what a Count asks for at once, in rows: all that a node gives.
const countPage = 1000

// Count counts what Scan would yield. The keys cross the network, the values do
// not, and none is kept.
func (c *Client) Count(ctx context.Context, from, to []byte, o ScanOptions) (CountResult, error) {
	var sum CountResult
	o.KeysOnly = true
	if o.PageSize <= 0 {
		o.PageSize = countPage
	}
	for left := o.Limit; ; {
		d, err := c.page(ctx, from, to, left, o)
		if err != nil {
			return sum, err
		}
		o.Revision = d.Read.Revision
		sum.Count += uint64(len(d.Read.Items))
		sum.ReadRevision, sum.RequestID = d.Read.Revision, d.RequestId
		if left -= len(d.Read.Items); !d.Read.More || o.Limit > 0 && left <= 0 {
			return sum, nil
		}
		from, to = behind(d.Read.Items, from, to, o.Reverse)
	}
}
