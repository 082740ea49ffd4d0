package client

import (
	"context"

	"keyval/messages"
)

// SnapshotsResult is what one node says of the snapshots that it keeps: each keeps
// snapshots of its own.
type SnapshotsResult struct {
	Snapshots []*messages.SnapshotInfo // newest first; the one being written among them
	Node      string                   // name of the node that answered
	Endpoint  string
	RequestID string
}

// Snapshots lists the snapshots of the node in use. A client with one endpoint asks
// that node and no other; so for the calls below.
func (c *Client) Snapshots(ctx context.Context) (SnapshotsResult, error) {
	return c.snapshots(ctx, &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_List{List: &messages.SnapshotList{}}})
}

// SnapshotShow finds one snapshot of the node in use. The code of the error is
// NOT_FOUND if it has none of this id.
func (c *Client) SnapshotShow(ctx context.Context, id string) (SnapshotsResult, error) {
	r, err := c.snapshots(ctx, &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_List{List: &messages.SnapshotList{Id: id}}})
	if err == nil && len(r.Snapshots) == 0 {
		err = messages.Errorf(messages.Code_NOT_FOUND, "%s has no snapshot %s", r.Node, id).At(r.Endpoint, r.RequestID)
	}
	return r, err
}

// SnapshotCreate has the node in use begin to write a snapshot of the state of now.
// It does not wait for its end, which SnapshotShow tells. createdAtMs is wall time,
// for people. The code of the error is CONFLICT if the node has one of this id, or
// writes another.
func (c *Client) SnapshotCreate(ctx context.Context, id string, createdAtMs int64) (SnapshotsResult, error) {
	r, err := c.snapshots(ctx, &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Create{
		Create: &messages.SnapshotCreate{Id: id, CreatedAtMs: createdAtMs},
	}})
	if messages.CodeOf(err) != messages.Code_CONFLICT {
		return r, err
	}
	// The request may have been sent more than once, and be in its own way: then
	// there is a snapshot of this very id and time.
	found, missing := c.SnapshotShow(ctx, id)
	if missing == nil && found.Snapshots[0].CreatedAtMs == createdAtMs {
		return found, nil
	}
	return r, err
}

// SnapshotDelete removes a snapshot of the node in use. The code of the error is
// NOT_FOUND if there is none of this id, CONFLICT while it is being written. Of a transient
// one the result says nothing: it is not read once more.
func (c *Client) SnapshotDelete(ctx context.Context, id string) (SnapshotsResult, error) {
	var found SnapshotsResult
	if !messages.IsTransient(id) {
		var err error
		if found, err = c.SnapshotShow(ctx, id); err != nil {
			return found, err
		}
	}
	r, err := c.snapshots(ctx, &messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Delete{Delete: &messages.SnapshotDelete{Id: id}}})
	if messages.CodeOf(err) == messages.Code_NOT_FOUND {
		err = nil // it was there a moment ago: an earlier sending of this request removed it
	}
	r.Snapshots = found.Snapshots
	return r, err
}

// SnapshotPart is a part of a snapshot file of one node.
type SnapshotPart struct {
	Body  []byte // up to 1 MiB; empty: the file ends before it
	Total uint64 // bytes of the file
}

// SnapshotFetch reads a part of a snapshot file of the node in use, from a byte on. The
// code of the error is NOT_FOUND if there is none of this id, CONFLICT while it is being
// written, DAMAGED if the part is not what was sent.
func (c *Client) SnapshotFetch(ctx context.Context, id string, from uint64) (SnapshotPart, error) {
	d, err := c.call(ctx, &messages.Submit{Snapshot: &messages.SnapshotRequest{
		Kind: &messages.SnapshotRequest_Fetch{Fetch: &messages.SnapshotFetch{Id: id, From: from}},
	}})
	if err != nil {
		return SnapshotPart{}, err
	}
	p := d.GetSnapshot().GetPart()
	if p.GetFrom() != from || p.GetChecksum() != messages.PartChecksum(p) || p == nil {
		return SnapshotPart{}, messages.Errorf(messages.Code_DAMAGED, "the part of %s at byte %d is not what the node sent", id, from).
			At(d.GetEndpoint(), d.GetRequestId()).WithHint("try again; if it happens again, check the network")
	}
	return SnapshotPart{Body: p.Body, Total: p.Total}, nil
}

func (c *Client) snapshots(ctx context.Context, m *messages.SnapshotRequest) (SnapshotsResult, error) {
	d, err := c.call(ctx, &messages.Submit{Snapshot: m})
	r := SnapshotsResult{
		Snapshots: d.GetSnapshot().GetSnapshots(), Node: d.GetSnapshot().GetNode(), Endpoint: d.GetEndpoint(), RequestID: d.GetRequestId(),
	}
	if messages.CodeOf(err) == messages.Code_TIMED_OUT && m.GetCreate() != nil {
		err = reworded(err, func(e *messages.Error) { e.Hint = "it may be under way all the same: list the snapshots of that node" })
	}
	return r, err
}
