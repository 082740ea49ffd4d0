package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// Store is what commands ask of a cluster. Errors are *messages.Error.
type Store interface {
	// Put writes a value. A condition that does not hold is CONFLICT, and the result
	// names the revision at which it did not.
	Put(ctx context.Context, key, value []byte, options ...client.WriteOption) (client.PutResult, error)
	// PutAll writes several values, all or none.
	PutAll(ctx context.Context, rows []client.KeyValue) (client.PutResult, error)
	// Get reads the newest value, or with revision above 0 the value as of that
	// revision. A stale read asks one node alone and may miss the latest writes.
	Get(ctx context.Context, key []byte, revision uint64, stale bool) (client.GetResult, error)
	Delete(ctx context.Context, key []byte, options ...client.WriteOption) (client.DeleteResult, error)
	// Scan yields the keys of [from, to) in order, page by page, all at one
	// revision. An error is the last thing that it yields.
	Scan(ctx context.Context, from, to []byte, o client.ScanOptions) iter.Seq2[client.Item, error]
	// Count counts what Scan would yield.
	Count(ctx context.Context, from, to []byte, o client.ScanOptions) (client.CountResult, error)
	// DeleteSteps deletes the keys of [from, to) and yields the sum after each
	// step. An error is the last thing that it yields.
	DeleteSteps(ctx context.Context, from, to []byte) iter.Seq2[client.DeleteRangeResult, error]
	// Compact gives up history below a revision; 0: the newest.
	Compact(ctx context.Context, revision uint64) (client.CompactResult, error)

	// RaiseLevel raises the cluster's level; 0: to the newest that any member supports.
	RaiseLevel(ctx context.Context, level uint32) (client.RaiseLevelResult, error)

	// What follows asks one node. A store that is connected to one endpoint asks the
	// node there.

	// Digest is what a node holds of [from, to), up to limit keys, at a revision.
	Digest(ctx context.Context, from, to []byte, limit int, revision uint64) (client.DigestResult, error)
	Snapshots(ctx context.Context) (client.SnapshotsResult, error)
	SnapshotShow(ctx context.Context, id string) (client.SnapshotsResult, error)
	SnapshotCreate(ctx context.Context, id string, createdAtMs int64) (client.SnapshotsResult, error)
	SnapshotDelete(ctx context.Context, id string) (client.SnapshotsResult, error)
	// SnapshotFetch reads a part of a snapshot file, from a byte on.
	SnapshotFetch(ctx context.Context, id string, from uint64) (client.SnapshotPart, error)
	// ClusterAsker is asked about the cluster, and for changes of it.
	client.ClusterAsker

	// Status asks one node and says which.
	Status(ctx context.Context) (*messages.StatusReply, string, error)
	// StatusAndEvents is Status with what the node's log said lately.
	StatusAndEvents(ctx context.Context) (*messages.StatusReply, string, error)
	Close()
}

// remote is a Store behind a network.
type remote struct{ *client.Client }

func (r remote) Get(ctx context.Context, key []byte, revision uint64, stale bool) (client.GetResult, error) {
	var options []client.ReadOption
	if revision > 0 {
		options = append(options, client.AtRevision(revision))
	}
	if stale {
		options = append(options, client.Stale())
	}
	return r.Client.Get(ctx, key, options...)
}

// connect makes a client that the cluster need not remember for long.
func connect(ctx context.Context, endpoints []string, timeout time.Duration) (Store, error) {
	return connectWith(ctx, client.Options{Endpoints: endpoints}, timeout)
}

// connectTo makes one that asks one node and no other.
func connectTo(ctx context.Context, endpoint string, timeout time.Duration) (Store, error) {
	return connectWith(ctx, client.Options{Endpoints: []string{endpoint}, Pinned: true, Impatient: true}, timeout)
}

func connectWith(ctx context.Context, o client.Options, timeout time.Duration) (Store, error) {
	ring, err := keysOf(ctx)
	if err != nil {
		return nil, err
	}
	c, err := client.Connect(ctx, client.Options{
		Keys: ring, Endpoints: o.Endpoints, Pinned: o.Pinned, Impatient: o.Impatient, Timeout: timeout, SessionTTL: client.OneShotSessionTTL, Version: version(),
	})
	if err != nil {
		return nil, err
	}
	return remote{c}, nil
}

// probe knocks at an endpoint.
func probe(ctx context.Context, endpoint string, timeout time.Duration) error {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", endpoint)
	if err == nil {
		return conn.Close()
	}
	reason := err
	if e, ok := errors.AsType[*net.OpError](err); ok {
		reason = e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		reason = e.Err
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		reason = fmt.Errorf("no answer within %v", timeout)
	}
	return messages.Errorf(messages.Code_UNREACHABLE, "%v", reason).At(endpoint, "").
		WithHint("check the address, and that the node runs")
}
