package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func operation(n byte, alter ...func(*messages.ClusterOperation)) *messages.ClusterOperation {
	o := &messages.ClusterOperation{
		Id: incarnation(n), Version: 1, Kind: messages.OperationKind_ADD, Phase: messages.OperationPhase_ADD_LEARNER,
		NewNode: fmt.Sprintf("node%d", n), NewAddress: fmt.Sprintf("host:%d", 7000+int(n)),
	}
	for _, f := range alter {
		f(o)
	}
	return o
}

func version(n uint64) func(*messages.ClusterOperation) {
	return func(o *messages.ClusterOperation) { o.Version = n }
}

func ended(o *messages.ClusterOperation) { o.Phase = messages.OperationPhase_COMPLETE }

func TestRecord(t *testing.T) {
	began := []*messages.ClusterOperation{operation(1)}
	over := []*messages.ClusterOperation{operation(1, ended)}
	var many []*messages.ClusterOperation
	for n := range byte(OperationsMax) {
		many = append(many, operation(n+1))
	}
	for name, row := range map[string]struct {
		all  []*messages.ClusterOperation
		o    *messages.ClusterOperation
		code messages.Code
		says string
	}{
		"the first":                 {nil, operation(1), messages.Code_OK, ""},
		"another":                   {began, operation(2), messages.Code_OK, ""},
		"the next version":          {began, operation(1, version(2)), messages.Code_OK, ""},
		"it ends":                   {began, operation(1, version(2), ended), messages.Code_OK, ""},
		"the same node later":       {over, operation(2, func(o *messages.ClusterOperation) { o.NewNode = "node1" }), messages.Code_OK, ""},
		"begun twice":               {began, operation(1), messages.Code_CONFLICT, "version 1, and version 1 cannot follow"},
		"a version left out":        {began, operation(1, version(3)), messages.Code_CONFLICT, "version 3 cannot follow"},
		"begun in the middle":       {nil, operation(1, version(2)), messages.Code_CONFLICT, "there is no such operation"},
		"changed after its end":     {over, operation(1, version(2)), messages.Code_CONFLICT, "has ended"},
		"about the same node":       {began, operation(2, func(o *messages.ClusterOperation) { o.NewNode = "node1" }), messages.Code_CONFLICT, "another operation is about node1"},
		"about it as the old one":   {began, operation(2, func(o *messages.ClusterOperation) { o.OldNode = "node1" }), messages.Code_CONFLICT, "another operation is about node1"},
		"too many":                  {many, operation(100), messages.Code_BUSY, "16 operations are under way"},
		"one of many goes on":       {many, operation(3, version(2)), messages.Code_OK, ""},
		"another kind":              {began, operation(1, version(2), func(o *messages.ClusterOperation) { o.Kind = messages.OperationKind_REMOVE }), messages.Code_INVALID, "does not become another"},
		"another node":              {began, operation(1, version(2), func(o *messages.ClusterOperation) { o.NewNode = "x" }), messages.Code_INVALID, "does not become another"},
		"another address":           {began, operation(1, version(2), func(o *messages.ClusterOperation) { o.NewAddress = "x:1" }), messages.Code_INVALID, "does not become another"},
		"nothing":                   {nil, nil, messages.Code_INVALID, "16 bytes, this one 0"},
		"a short id":                {nil, operation(1, func(o *messages.ClusterOperation) { o.Id = o.Id[1:] }), messages.Code_INVALID, "16 bytes, this one 15"},
		"of no kind":                {nil, operation(1, func(o *messages.ClusterOperation) { o.Kind = 0 }), messages.Code_INVALID, "kind 0"},
		"of a kind of the future":   {nil, operation(1, func(o *messages.ClusterOperation) { o.Kind = 77 }), messages.Code_INVALID, "kind 77"},
		"in no phase":               {nil, operation(1, func(o *messages.ClusterOperation) { o.Phase = 0 }), messages.Code_INVALID, "phase 0"},
		"with an unknown code":      {nil, operation(1, func(o *messages.ClusterOperation) { o.Code = 77 }), messages.Code_INVALID, "code 77"},
		"about nobody":              {nil, operation(1, func(o *messages.ClusterOperation) { o.NewNode = "" }), messages.Code_INVALID, "names the node"},
		"with a name that is none":  {nil, operation(1, func(o *messages.ClusterOperation) { o.OldNode = "a b" }), messages.Code_INVALID, "not made of letters"},
		"with an address of nobody": {nil, operation(1, func(o *messages.ClusterOperation) { o.NewAddress = "host" }), messages.Code_INVALID, "no HOST:PORT"},
		"with a long error":         {nil, operation(1, func(o *messages.ClusterOperation) { o.Error = strings.Repeat("x", 1025) }), messages.Code_INVALID, "1025 bytes, 1024"},
	} {
		before := slices.Clone(row.all)
		got, err := Record(row.all, &messages.RecordOperation{Operation: row.o}, 50)
		if !slices.Equal(before, row.all) {
			t.Errorf("%s: the list before was changed", name)
		}
		if row.code != messages.Code_OK {
			if err == nil || err.Code != row.code || !strings.Contains(err.Message, row.says) {
				t.Errorf("%s: %v, want %v: %s", name, err, row.code, row.says)
			}
			continue
		}
		want := proto.Clone(row.o).(*messages.ClusterOperation)
		want.ChangedLogMs = 50
		if err != nil || !slices.ContainsFunc(got, func(o *messages.ClusterOperation) bool { return proto.Equal(o, want) }) || row.o.ChangedLogMs != 0 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestEndedOperationsAreForgotten(t *testing.T) {
	var all []*messages.ClusterOperation
	for n := range byte(EndedMax) {
		all = append(all, operation(n+1, ended))
		if n == 3 {
			all = append(all, operation(200))
		}
	}
	if got := Forget(all, 1); len(got) != EndedMax+1 {
		t.Errorf("%d are kept", len(got))
	}
	all = append(all, operation(100), operation(101, ended))
	got := Forget(all, 1)
	if len(got) != EndedMax+2 || got[0].NewNode != "node2" || len(all) != EndedMax+3 {
		t.Errorf("%d are kept, %s first, of %d", len(got), got[0].NewNode, len(all))
	}
	if kept := Forget(got, EndedMaxMS); len(kept) != EndedMax+2 {
		t.Errorf("within 7 days %d are kept", len(kept))
	}
	if got = Forget(got, EndedMaxMS+1); len(got) != 2 || Ended(got[0]) || Ended(got[1]) {
		t.Errorf("after 7 days %d are kept", len(got))
	}
}
