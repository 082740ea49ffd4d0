package client

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// fakeSnapshots is what a node says of its snapshots. It drops the answer to the
// first request of a kind if it is told to.
type fakeSnapshots struct {
	node       string
	files      []*messages.SnapshotInfo
	dropFirst  bool
	dropped    map[string]bool
	perRequest map[string]int // requests by kind
}

func (s *fakeSnapshots) Receive(ctx actor.Context) {
	m, ok := ctx.Message().(*messages.SnapshotRequest)
	if !ok {
		return
	}
	kind, r := "", &messages.SnapshotReply{Request: m.Request, Node: s.node}
	named := func(id string) int {
		return slices.IndexFunc(s.files, func(f *messages.SnapshotInfo) bool { return f.Id == id })
	}
	switch k := m.Kind.(type) {
	case *messages.SnapshotRequest_Create:
		kind = "create"
		if named(k.Create.Id) >= 0 {
			r.Code, r.Message = messages.Code_CONFLICT, "there is one already"
			break
		}
		s.files = append(s.files, &messages.SnapshotInfo{Id: k.Create.Id, CreatedAtMs: k.Create.CreatedAtMs, Writing: true})
		r.Snapshots = s.files[len(s.files)-1:]
	case *messages.SnapshotRequest_List:
		kind = "list"
		for _, f := range s.files {
			if k.List.Id == "" || k.List.Id == f.Id {
				r.Snapshots = append(r.Snapshots, f)
			}
		}
	case *messages.SnapshotRequest_Delete:
		kind = "delete"
		i := named(k.Delete.Id)
		if i < 0 {
			r.Code = messages.Code_NOT_FOUND
			break
		}
		s.files = slices.Delete(s.files, i, i+1)
	}
	if s.perRequest == nil {
		s.perRequest, s.dropped = map[string]int{}, map[string]bool{}
	}
	s.perRequest[kind]++
	if s.dropFirst && kind != "list" && !s.dropped[kind] {
		s.dropped[kind] = true
		return
	}
	ctx.Respond(r)
}

func TestSnapshotsOfOneNode(t *testing.T) {
	n, nodes := fakes(t, 3)
	c := connected(t, n, Options{Endpoints: []string{"n2:1"}})
	const id = "snapshot-2026-01-31-235959"
	if r, err := c.SnapshotCreate(t.Context(), id, 5); err != nil || r.Node != "n2" || r.Endpoint != "n2:1" || r.Snapshots[0].Id != id {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err := c.SnapshotCreate(t.Context(), id, 6)
	failed(t, err, messages.Code_CONFLICT, "there is one already")
	if r, err := c.SnapshotShow(t.Context(), id); err != nil || r.Snapshots[0].CreatedAtMs != 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = c.SnapshotShow(t.Context(), "another")
	failed(t, err, messages.Code_NOT_FOUND, "n2 has no snapshot another")
	_, err = c.SnapshotCreate(t.Context(), "../wal", 5)
	failed(t, err, messages.Code_INVALID, "is not the id of a snapshot")
	if r, err := c.Snapshots(t.Context()); err != nil || len(r.Snapshots) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := c.SnapshotDelete(t.Context(), id); err != nil || r.Snapshots[0].Id != id {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = c.SnapshotDelete(t.Context(), id)
	failed(t, err, messages.Code_NOT_FOUND, "has no snapshot")
	if len(nodes[0].snapshots.files)+len(nodes[2].snapshots.files) != 0 {
		t.Fatal("another node was asked")
	}
}

// A repeated request whose first answer was lost is in nobody's way.
func TestSnapshotRequestsWhoseAnswersAreLost(t *testing.T) {
	n, nodes := fakes(t, 1)
	nodes[0].snapshots.dropFirst = true
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}, Timeout: 5 * time.Second})
	if r, err := c.SnapshotCreate(t.Context(), "once", 5); err != nil || len(r.Snapshots) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := c.SnapshotDelete(t.Context(), "once"); err != nil || r.Snapshots[0].Id != "once" {
		t.Fatalf("%+v, %v", r, err)
	}
	if p := nodes[0].snapshots.perRequest; p["create"] < 2 || p["delete"] < 2 {
		t.Fatalf("no answer was lost: %v", p)
	}
}

func TestSnapshotCreateInDoubtSaysSo(t *testing.T) {
	n, nodes := fakes(t, 1)
	nodes[0].snapshots.dropFirst = true
	c := connected(t, n, Options{Endpoints: []string{"n1:1"}, Timeout: 200 * time.Millisecond})
	_, err := c.SnapshotCreate(t.Context(), "once", 5)
	failed(t, err, messages.Code_TIMED_OUT, "no answer")
	if e, ok := errors.AsType[*messages.Error](err); !ok || e.Hint != "it may be under way all the same: list the snapshots of that node" {
		t.Fatalf("%+v", e)
	}
}

func TestCompact(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{})
	_, err := c.Compact(t.Context(), 0)
	failed(t, err, messages.Code_INVALID, "nothing was written yet")
	for range 5 {
		mustPut(t, c, "k", "v")
	}
	_, err = c.Compact(t.Context(), 6)
	failed(t, err, messages.Code_INVALID, "revision 6 is in the future, the newest is 5")
	if r, err := c.Compact(t.Context(), 3); err != nil || r.Compacted != 3 || r.Newest != 5 || r.Revision != 6 || r.RequestID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	_, err = c.Get(t.Context(), []byte("k"), AtRevision(2))
	failed(t, err, messages.Code_COMPACTED, "revision 2 is no longer kept, the oldest is 3")
	if e := err.(*messages.Error); e.Hint == "" {
		t.Fatalf("%+v", e)
	}
	if r, err := c.Compact(t.Context(), 2); err != nil || !r.Already || r.Revision != 6 || nodes[0].log.revision != 6 {
		t.Fatalf("below what was given up: %+v, %v, at revision %d", r, err, nodes[0].log.revision)
	}
	if r, err := c.Compact(t.Context(), 0); err != nil || r.Compacted != 6 || r.Already {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestDigestAsksOneNodeAtOneRevision(t *testing.T) {
	n, nodes := fakes(t, 1)
	c := connected(t, n, Options{})
	for _, key := range []string{"a", "b", "c"} {
		mustPut(t, c, key, "v")
	}
	r, err := c.Digest(t.Context(), []byte("b"), nil, 1, 3)
	if err != nil || r.Rows != 1 || !r.More || r.Revision != 3 || r.Endpoint == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if m := nodes[0].log.asked; m.Consistency != messages.Consistency_STALE || m.Revision != 3 || m.GetDigest().Limit != 1 {
		t.Fatalf("the node is asked %s", messages.Line(m))
	}
}
