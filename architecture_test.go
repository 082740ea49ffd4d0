// Package keyval has no code of its own: this test holds the architecture that
// docs/ARCHITECTURE.md draws. Imports run one way, actors have no clock, no
// goroutine, no lock and no future, and functions stay short.
package keyval

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport lists, for every package, which packages of this module it may
// import. A package that is not listed fails the test.
var mayImport = map[string][]string{
	"messages":               {},
	"mutant":                 {},
	"raftactor":              {"messages", "mutant"},
	"membershipactor":        {"messages"},
	"storeactor":             {"messages", "mutant"},
	"storeactor/disktest":    {"messages", "storeactor"},
	"actors/seam":            {"messages", "actors/transport"},
	"actors/seam/production": {"actors/seam"},
	"actors/transport":       {"messages"},
	"actors/transport/grpc":  {"messages", "actors/seam", "actors/transport"},
	"actors/client":          {"messages", "mutant", "actors/seam", "actors/seam/production", "actors/transport", "actors/transport/grpc"},
	"actors":                 {"messages", "raftactor", "membershipactor", "storeactor", "actors/seam", "actors/seam/production", "actors/transport", "actors/transport/grpc"},
	"sim":                    {"messages", "raftactor", "storeactor", "actors", "actors/seam", "actors/transport", "actors/client"},
	"cli":                    {"messages", "actors", "actors/client", "sim"},
	"cli/kvctl":              {"cli"},
}

// worldly are the files where the world is: the production sides of the seams,
// and the blocking façade of the client library. (actors/transport/grpc is such a
// side as a whole.) In every other file of an actor
// package the bans hold.
var worldly = []string{
	"actors/seam/production/*", "actors/serve.go", "actors/client/facade*.go",
	"storeactor/files*.go", "storeactor/walog*.go", "storeactor/witness*.go", "storeactor/badger*.go",
}

var actorPackages = []string{"raftactor", "membershipactor", "storeactor", "actors", "actors/client", "actors/transport", "actors/seam"}

// banned are selectors that an actor never uses, with the reason.
var banned = map[string]string{
	"time.Now": "time enters as ticks", "time.Since": "time enters as ticks", "time.Sleep": "an actor never waits",
	"time.After": "time enters as ticks", "time.AfterFunc": "time enters as ticks", "time.NewTimer": "time enters as ticks",
	"time.NewTicker": "time enters as ticks", "time.Tick": "time enters as ticks",
	"sync.Mutex": "actors share nothing", "sync.RWMutex": "actors share nothing", "sync.WaitGroup": "an actor never waits",
	"sync.Cond":   "actors share nothing",
	"rand.Reader": "randomness comes through the seam", "rand.Int": "randomness comes through the seam", "rand.Intn": "randomness comes through the seam",
}

// bannedMethods are methods of the actor library that block, or that own a timer
// or an order of their own.
var bannedMethods = []string{"Result", "StopFuture", "PoisonFuture", "RequestFuture", "SetReceiveTimeout", "Stash", "ReenterAfter"}

// linesMax bounds a function, in lines.
const linesMax = 80

type sourceFile struct {
	path, pkg string
	set       *token.FileSet
	ast       *ast.File
}

func sources(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "examples" || d.Name() == "bench" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") || strings.HasSuffix(p, ".pb.go") {
			return nil
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		files = append(files, sourceFile{path: p, pkg: path.Dir(p), set: set, ast: tree})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d files found: this test looks at the wrong place", len(files))
	}
	return files
}

func TestImportsRunOneWay(t *testing.T) {
	for _, f := range sources(t) {
		allowed, known := mayImport[f.pkg]
		if !known {
			t.Errorf("%s: package %s has no room in the house: list what it may import", f.path, f.pkg)
			continue
		}
		for _, spec := range f.ast.Imports {
			name, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "keyval/")
			if ours && !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s", f.path, name)
			}
		}
	}
}

func TestActorsHaveNoClockGoroutineLockOrFuture(t *testing.T) {
	for _, f := range sources(t) {
		if !slices.Contains(actorPackages, f.pkg) || isWorldly(f.path) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a go statement", f.set.Position(n.Pos()))
			case *ast.SelectorExpr:
				checkSelector(t, f, n)
			}
			return true
		})
	}
}

func checkSelector(t *testing.T, f sourceFile, n *ast.SelectorExpr) {
	t.Helper()
	if x, ok := n.X.(*ast.Ident); ok {
		if why := banned[x.Name+"."+n.Sel.Name]; why != "" {
			t.Errorf("%s: %s.%s: %s", f.set.Position(n.Pos()), x.Name, n.Sel.Name, why)
		}
	}
	if slices.Contains(bannedMethods, n.Sel.Name) {
		t.Errorf("%s: .%s blocks, or brings a timer or an order of its own", f.set.Position(n.Pos()), n.Sel.Name)
	}
}

func isWorldly(file string) bool {
	return slices.ContainsFunc(worldly, func(pattern string) bool {
		ok, err := path.Match(pattern, file)
		return ok && err == nil
	})
}

func TestReceiveIsATable(t *testing.T) {
	for _, f := range sources(t) {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line
			if lines > linesMax {
				t.Errorf("%s: %s has %d lines, %d are allowed", f.set.Position(fn.Pos()), fn.Name.Name, lines, linesMax)
			}
			if fn.Name.Name == "Receive" && fn.Recv != nil && slices.Contains(actorPackages, f.pkg) {
				checkReceive(t, f, fn)
			}
		}
	}
}

// checkReceive wants one type switch over the message with a default case, since
// what nobody expects is reported and never swallowed.
func checkReceive(t *testing.T, f sourceFile, fn *ast.FuncDecl) {
	t.Helper()
	found := false
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		s, ok := n.(*ast.TypeSwitchStmt)
		if !ok {
			return true
		}
		for _, c := range s.Body.List {
			found = found || c.(*ast.CaseClause).List == nil
		}
		return false
	})
	if !found {
		t.Errorf("%s: Receive has no type switch with a default case", f.set.Position(fn.Pos()))
	}
}
