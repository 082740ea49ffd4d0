package client

import (
	"errors"
	"fmt"
	"testing"

	"keyval/messages"
)

func TestTransact(t *testing.T) {
	n, _ := fakes(t, 1)
	c := connected(t, n, Options{})
	a, b := []byte("a"), []byte("b")
	mustPut(t, c, "a", "1")
	move := Transaction{
		If:   []Condition{Absent(b), RevisionIs(a, 1)},
		Then: []Operation{DeleteOperation(a), PutOperation(b, []byte("2"))},
	}
	if r, err := c.Transact(t.Context(), move); err != nil || !r.Held || r.Failed != -1 || r.Deleted != 1 || r.Revision != 2 || r.RequestID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	r, err := c.Transact(t.Context(), move)
	if !errors.Is(err, ErrConflict) || r.Held || r.Failed != 0 || r.Revision != 2 {
		t.Fatalf("a condition that does not hold: %+v, %v", r, err)
	}
	move.Otherwise = []Operation{PutOperation(a, []byte("3"))}
	if r, err := c.Transact(t.Context(), move); err != nil || r.Held || r.Failed != 0 || r.Revision != 3 {
		t.Fatalf("otherwise: %+v, %v", r, err)
	}
	_, err = c.Transact(t.Context(), Transaction{If: move.If})
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("nothing to do: %v", err)
	}
	_, err = c.Transact(t.Context(), Transaction{Then: make([]Operation, 129)})
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("too much to do: %v", err)
	}
}

// TestErrorsAreToldApart: by their code alone, whatever they wrap or are wrapped in.
func TestErrorsAreToldApart(t *testing.T) {
	n, _ := fakes(t, 1)
	c := connected(t, n, Options{})
	_, err := c.Get(t.Context(), []byte("missing"))
	if err = fmt.Errorf("look: %w", err); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) || CodeOf(err) != NotFound {
		t.Fatalf("%v", err)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != NotFound || e.Endpoint != "n1:1" {
		t.Fatalf("%+v", e)
	}
	if errors.Is(err, messages.Errorf(NotFound, "another")) {
		t.Error("two errors of one code are not the same")
	}
}

// TestRequestIDsNameOneRequest: a client numbers writes, reads and what it asks of a node
// apart from each other, and its ids never meet.
func TestRequestIDsNameOneRequest(t *testing.T) {
	n, _ := fakes(t, 1)
	c := connected(t, n, Options{})
	seen := map[string]bool{}
	for range 3 {
		put, err := c.Put(t.Context(), []byte("k"), []byte("v"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Get(t.Context(), []byte("k"))
		if err != nil {
			t.Fatal(err)
		}
		health, err := c.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{put.RequestID, got.RequestID, health.RequestID} {
			if len(id) < len("0badcafe-w1") || seen[id] {
				t.Errorf("%q, behind %v", id, seen)
			}
			seen[id] = true
		}
	}
}
