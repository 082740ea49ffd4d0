package messages

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// TestEveryActorStandsInTheTableOnce holds the table to the names above it.
func TestEveryActorStandsInTheTableOnce(t *testing.T) {
	tree, err := parser.ParseFile(token.NewFileSet(), "actors.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, c := range tree.Decls[1].(*ast.GenDecl).Specs {
		name, err := strconv.Unquote(c.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		named = append(named, name)
	}
	var listed []string
	for _, a := range Actors {
		if a.Parent() != "" && !slices.Contains(listed, a.Parent()) {
			t.Errorf("%s is listed before its parent %s", a.Name, a.Parent())
		}
		if a.Purpose == "" {
			t.Errorf("nobody says what %s is for", a.Name)
		}
		listed = append(listed, a.Name)
	}
	if !slices.Equal(named, listed) {
		t.Errorf("named are %q, the table lists %q", named, listed)
	}
}

func TestActorOf(t *testing.T) {
	for name, want := range map[string]string{
		"node": "node", "node/raft": "raft", "node/machine": "machine", "node/machine/checkpoint": "checkpoint",
		"node/machine/reader-3": "reader", "node/gateway/session-17": "session",
		"node/raft2": "", "node/machine/other": "", "client": "", "": "",
	} {
		got := ""
		if a := ActorOf(name); a != nil {
			got = a.Kind()
		}
		if got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
