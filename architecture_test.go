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

// kind says what a package may touch. Its files say so by what they import.
type kind int

const (
	// pure decides: no actor, nothing of the operating system, no disk, no clock.
	pure kind = iota
	// actor passes messages: nothing of the operating system, no disk, no clock, no
	// goroutine, no lock, no future.
	actor
	// world is the production side of a seam, or a program, or a test's support: it
	// may do all of it.
	world
)

// room is a package: what it is, and which packages of this module it may import.
type room struct {
	kind    kind
	imports []string
}

// rooms are all packages. One that is not listed fails the test.
var rooms = map[string]room{
	"messages":                         {pure, nil},
	"mutant":                           {pure, nil},
	"actors/fair":                      {pure, nil},
	"actors/auth":                      {pure, []string{"messages", "mutant"}},
	"raftactor":                        {actor, []string{"actors/telemetry", "actors/fair", "messages", "mutant"}},
	"membershipactor":                  {actor, []string{"actors/auth", "actors/telemetry", "membershipactor/rules", "membershipactor/saga", "messages", "mutant"}},
	"membershipactor/rules":            {pure, []string{"messages", "mutant"}},
	"membershipactor/saga":             {pure, []string{"membershipactor/rules", "messages", "mutant"}},
	"storeactor":                       {actor, []string{"actors/auth", "actors/telemetry", "actors/fair", "messages", "mutant", "storeactor/disk", "storeactor/reading", "storeactor/snapshot", "storeactor/state"}},
	"storeactor/audit":                 {actor, []string{"actors/telemetry", "messages", "mutant", "storeactor/disk"}},
	"storeactor/backup":                {world, []string{"messages", "storeactor/disk", "storeactor/files", "storeactor/files/durable", "storeactor/snapshot", "storeactor/state"}},
	"storeactor/disk":                  {pure, []string{"messages"}},
	"storeactor/disk/disktest":         {world, []string{"messages", "storeactor/disk"}},
	"storeactor/files":                 {world, []string{"actors/telemetry", "messages", "storeactor/disk", "storeactor/files/badger", "storeactor/files/durable", "storeactor/files/wal"}},
	"storeactor/shipping":              {actor, []string{"actors/telemetry", "messages", "mutant", "storeactor/disk", "storeactor/snapshot"}},
	"storeactor/snapshot":              {pure, []string{"messages", "mutant", "storeactor/disk", "storeactor/state"}},
	"storeactor/snapshot/snapshottest": {world, []string{"messages", "storeactor/disk", "storeactor/state/statetest"}},
	"storeactor/state":                 {pure, []string{"actors/auth", "membershipactor/rules", "messages", "mutant", "storeactor/disk"}},
	"storeactor/state/statetest":       {world, []string{"messages", "storeactor/disk"}},
	"storeactor/files/badger":          {world, []string{"messages", "storeactor/disk", "storeactor/files/durable"}},
	"storeactor/files/durable":         {world, []string{"messages"}},
	"storeactor/files/wal":             {world, []string{"messages", "storeactor/disk", "storeactor/files/durable"}},
	"storeactor/reading":               {pure, []string{"messages", "mutant", "storeactor/disk"}},
	"storeactor/actortest":             {world, []string{"messages"}},
	"actors/seam":                      {actor, []string{"actors/transport", "messages"}},
	"actors/seam/production":           {world, []string{"actors/seam"}},
	"actors/transport":                 {pure, []string{"actors/auth", "messages", "mutant"}},
	"actors/client":                    {actor, []string{"actors/seam", "actors/seam/production", "actors/telemetry", "actors/transport", "actors/transport/grpc", "actors/transport/keys", "membershipactor/rules", "messages", "mutant"}},
	"actors":                           {actor, []string{"actors/auth", "actors/seam", "actors/seam/production", "actors/telemetry", "actors/transport", "actors/transport/grpc", "actors/transport/keys", "membershipactor", "messages", "mutant", "raftactor", "storeactor", "storeactor/audit", "storeactor/disk", "storeactor/files", "storeactor/shipping"}},
	"sim":                              {world, []string{"actors", "actors/client", "actors/seam", "actors/transport", "membershipactor/rules", "messages", "raftactor", "sim/disk", "sim/phrase", "storeactor", "storeactor/backup", "storeactor/disk", "storeactor/snapshot", "storeactor/state"}},
	"cli":                              {world, []string{"actors", "actors/auth", "actors/client", "actors/seam/production", "actors/telemetry", "actors/transport", "actors/transport/grpc", "actors/transport/keys", "cli/doctor", "cli/inside", "membershipactor/rules", "messages", "sim", "sim/script", "storeactor/backup", "storeactor/files", "storeactor/snapshot"}},
	"cli/doctor":                       {world, []string{"actors/client", "actors/transport", "messages"}},
	"cli/inside":                       {world, []string{"actors/auth", "actors/client", "actors/telemetry", "actors/transport", "actors/transport/grpc", "actors/transport/keys", "cli/doctor", "messages"}},
	"cli/kvctl":                        {world, []string{"cli"}},
	"actors/telemetry":                 {actor, []string{"messages"}},
	"actors/transport/grpc":            {world, []string{"actors/seam", "actors/transport", "actors/transport/keys", "messages"}},
	"actors/transport/keys":            {world, []string{"actors/transport", "messages"}},
	"sim/disk":                         {pure, []string{"messages", "mutant", "storeactor/disk"}},
	"sim/phrase":                       {pure, []string{"messages"}},
	"sim/script":                       {world, []string{"actors", "actors/auth", "actors/client", "messages", "sim", "sim/disk", "sim/phrase"}},
}

// worldly are files that are world in a package that is not: the assembly of a
// process, what asks its actors from outside, addresses as package net reads them, the blocking façade of the client
// library, and what the environment chooses in a build with mutants.
var worldly = []string{
	"actors/serve.go", "actors/vitals.go", "actors/inspect.go", "actors/identity.go", "actors/client/facade*.go", "mutant/chosen.go",
}

// theWorld are imports of worldly files alone, with all that lies below them.
var theWorld = []string{
	"os", "net", "syscall", "golang.org/x/sys",
	"go.etcd.io/etcd", "go.uber.org/zap", "github.com/dgraph-io", "google.golang.org/grpc",
	"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters",
}

const actorLibrary = "github.com/asynkron/protoactor-go"

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
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "examples" || d.Name() == "bench" || d.Name() == "monitoring" || d.Name() == "third_party" || d.Name() == "bin") {
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
		r, known := rooms[f.pkg]
		if !known {
			t.Errorf("%s: package %s has no room in the house: list what it may import", f.path, f.pkg)
			continue
		}
		for _, spec := range f.ast.Imports {
			name, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "keyval/")
			switch {
			case ours && !slices.Contains(r.imports, name):
				t.Errorf("%s imports %s", f.path, name)
			case ours && rooms[name].kind > f.kind():
				t.Errorf("%s imports %s, which may do what this file may not", f.path, name)
			case f.kind() < actor && below(name, actorLibrary):
				t.Errorf("%s decides, and imports the actor library", f.path)
			case f.kind() < world && slices.ContainsFunc(theWorld, func(root string) bool { return below(name, root) }):
				t.Errorf("%s imports %s, which touches the world", f.path, name)
			}
		}
	}
}

// kind is that of a file: its package's, unless it is worldly.
func (f sourceFile) kind() kind {
	for _, pattern := range worldly {
		if ok, err := path.Match(pattern, f.path); ok && err == nil {
			return world
		}
	}
	return rooms[f.pkg].kind
}

// below reports whether a package is root or lies below it.
func below(name, root string) bool {
	return name == root || strings.HasPrefix(name, root+"/")
}

func TestActorsHaveNoClockGoroutineLockOrFuture(t *testing.T) {
	for _, f := range sources(t) {
		if f.kind() == world {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a go statement", f.set.Position(n.Pos()))
			case *ast.SelectorExpr:
				checkSelector(t, f, n)
			case *ast.CallExpr:
				if called, ok := n.Fun.(*ast.SelectorExpr); ok && called.Sel.Name == "Logger" {
					t.Errorf("%s: the actor library's logger says an Info to developers only: a Config brings one", f.set.Position(n.Pos()))
				}
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
			if fn.Name.Name == "Receive" && fn.Recv != nil && rooms[f.pkg].kind == actor {
				checkReceive(t, f, fn)
			}
		}
	}
}

// checkReceive wants one type switch over the message whose default case reports
// what nobody expects: it is never swallowed.
func checkReceive(t *testing.T, f sourceFile, fn *ast.FuncDecl) {
	t.Helper()
	reported := false
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		s, ok := n.(*ast.TypeSwitchStmt)
		if !ok {
			return true
		}
		for _, c := range s.Body.List {
			c := c.(*ast.CaseClause)
			reported = reported || c.List == nil && len(c.Body) > 0 && callsUnexpected(c.Body[0])
		}
		return false
	})
	if !reported {
		t.Errorf("%s: Receive has no type switch whose default case begins with telemetry.Unexpected, or a method around it", f.set.Position(fn.Pos()))
	}
}

func callsUnexpected(s ast.Stmt) bool {
	expression, ok := s.(*ast.ExprStmt)
	if !ok {
		return false
	}
	call, ok := expression.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name == "unexpected"
	case *ast.SelectorExpr:
		return strings.EqualFold(f.Sel.Name, "unexpected")
	}
	return false
}

// vocabulary are the names of fields in logs. One thing has one name: whoever is at the far side of a
// link between nodes is peer, what went wrong is reason, and what to do about it is hint.
var vocabulary = strings.Fields(`
	actor address advertised all_clients authorities before below by bytes certificate change clients cluster code confirmed endpoint expires
	files founders hint host how index invitation is lacks lane leader level limit member members message messages missing operation peer phase
	principal raft_id reason record request sender snapshot target term took type
`)

// TestLogsHaveOneVocabulary: fields of lines are of the vocabulary, and what is an error says what to do.
func TestLogsHaveOneVocabulary(t *testing.T) {
	// These tell whoever started the process why it ends: the reason has the hint in it.
	ends := []string{"the process ends", "the node ends", "the client ends", "the client actor failed"}
	used, lines := map[string]bool{}, 0
	for _, f := range sources(t) {
		check := func(at token.Pos, fields []ast.Expr) (names []string) {
			for i := 0; i < len(fields); i += 2 {
				literal, is := fields[i].(*ast.BasicLit)
				if !is || literal.Kind != token.STRING {
					return names
				}
				name := strings.Trim(literal.Value, `"`)
				if !slices.Contains(vocabulary, name) {
					t.Errorf("%s: a line of the log has a field %q, which is not in the vocabulary", f.set.Position(at), name)
				}
				used[name] = true
				names = append(names, name)
			}
			return names
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				called, is := n.Fun.(*ast.SelectorExpr)
				if !is || !slices.Contains([]string{"Info", "Warn", "Error", "Debug", "warn", "tell"}, called.Sel.Name) || len(n.Args) < 3 {
					break
				}
				text, literal := n.Args[0].(*ast.BasicLit)
				if called.Sel.Name == "tell" && !literal { // it begins with what level the line has
					break
				}
				names := check(n.Pos(), n.Args[1:])
				lines++
				if called.Sel.Name == "Error" && text != nil && !slices.Contains(names, "hint") && !slices.Contains(ends, strings.Trim(text.Value, `"`)) {
					t.Errorf("%s: an error in the log does not say what to do: give it a hint", f.set.Position(n.Pos()))
				}
			case *ast.CompositeLit:
				array, is := n.Type.(*ast.ArrayType)
				if element, named := ast.Expr(nil), false; is {
					element = array.Elt
					if name, is := element.(*ast.Ident); is {
						named = name.Name == "any"
					}
					if named && len(n.Elts)%2 == 0 && !strings.HasPrefix(f.path, "cli/") {
						check(n.Pos(), n.Elts)
					}
				}
			}
			return true
		})
	}
	if lines < 40 || !used["hint"] {
		t.Errorf("only %d lines of logs were found: this test looks for something else", lines)
	}
	for _, name := range vocabulary {
		if !used[name] {
			t.Errorf("no line of a log has a field %q", name)
		}
	}
}
