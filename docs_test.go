package keyval

import (
	"cmp"
	"flag"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyval/messages"
)

var rewrite = flag.Bool("rewrite", false, "write what docs/ARCHITECTURE.md holds of this test's tables (make docs)")

// TestDocsAreFresh holds docs/ARCHITECTURE.md to the tables that it shows: each stands
// between a pair of markers.
func TestDocsAreFresh(t *testing.T) {
	const file = "docs/ARCHITECTURE.md"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for _, part := range []struct{ name, want string }{
		{"imports", drawImports(importsOfRooms())},
		{"packages", listPackages(purposes(t))},
		{"actors", drawActors(messages.Actors)},
	} {
		begin, end := "<!-- "+part.name+": made by make docs -->\n", "<!-- end of "+part.name+" -->\n"
		_, rest, begun := strings.Cut(text, begin)
		have, _, ended := strings.Cut(rest, end)
		switch {
		case !begun || !ended:
			t.Errorf("%s has no place for %q between markers", file, part.name)
		case have != part.want && *rewrite:
			text = strings.Replace(text, begin+have+end, begin+part.want+end, 1)
		case have != part.want:
			t.Errorf("%s: the part %q is stale: make docs", file, part.name)
		}
	}
	if text != string(old) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatIsWatchedIsExported: every metric that the dashboard or an alert names is one that a
// node shows, as docs/METRICS.md lists them.
func TestWhatIsWatchedIsExported(t *testing.T) {
	listed, err := os.ReadFile("docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"monitoring/dashboard.json", "monitoring/alerts.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`keyval_\w+`).FindAllString(string(text), -1)
		if len(named) < 10 {
			t.Fatalf("%s names %d metrics: this test looks for something else", file, len(named))
		}
		for _, name := range named {
			row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(strings.TrimSuffix(name, "_bucket")) + "[{`]")
			if !row.Match(listed) {
				t.Errorf("%s names %s, which no node shows", file, name)
			}
		}
	}
}

// drawImports is a picture of who may import whom, for Mermaid. What a longer way
// says already has no arrow of its own.
func drawImports(mayImport map[string][]string) string {
	var b strings.Builder
	b.WriteString("```mermaid\nflowchart TB\n")
	floors := map[string][]string{} // packages by the first part of their path
	for _, pkg := range slices.Sorted(maps.Keys(mayImport)) {
		floor, _, _ := strings.Cut(pkg, "/")
		floors[floor] = append(floors[floor], pkg)
	}
	node := func(pkg string) string { return strings.ReplaceAll(pkg, "/", "_") }
	for _, floor := range slices.Sorted(maps.Keys(floors)) {
		indent := "  "
		if len(floors[floor]) > 1 {
			fmt.Fprintf(&b, "  subgraph floor_%s [ ]\n", floor)
			indent = "    "
		}
		for _, pkg := range floors[floor] {
			fmt.Fprintf(&b, "%s%s[%q]\n", indent, node(pkg), pkg)
		}
		if len(floors[floor]) > 1 {
			b.WriteString("  end\n")
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(mayImport)) {
		for _, other := range slices.Sorted(slices.Values(mayImport[pkg])) {
			longer := slices.ContainsFunc(mayImport[pkg], func(via string) bool { return via != other && reaches(mayImport, via, other) })
			if !longer {
				fmt.Fprintf(&b, "  %s --> %s\n", node(pkg), node(other))
			}
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// importsOfRooms is what each package may import.
func importsOfRooms() map[string][]string {
	imports := map[string][]string{}
	for pkg, r := range rooms {
		imports[pkg] = r.imports
	}
	return imports
}

// reaches reports whether imports lead from one package to another.
func reaches(mayImport map[string][]string, from, to string) bool {
	return slices.ContainsFunc(mayImport[from], func(next string) bool { return next == to || reaches(mayImport, next, to) })
}

// purposes are the first sentences of the packages' comments, without their subject.
func purposes(t *testing.T) map[string]string {
	t.Helper()
	purposes := map[string]string{}
	for _, f := range sources(t) {
		tree, err := parser.ParseFile(token.NewFileSet(), f.path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Doc == nil {
			continue
		}
		sentence := strings.TrimPrefix(new(doc.Package).Synopsis(tree.Doc.Text()), "Package ")
		_, purposes[f.pkg], _ = strings.Cut(sentence, " ")
	}
	for pkg := range rooms {
		if purposes[pkg] == "" {
			t.Errorf("package %s has no comment that says what it is", pkg)
		}
	}
	return purposes
}

func listPackages(purposes map[string]string) string {
	var b strings.Builder
	b.WriteString("| package | |\n|---|---|\n")
	for _, pkg := range slices.Sorted(maps.Keys(purposes)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", pkg, purposes[pkg])
	}
	return b.String()
}

// drawActors is the tree of actors, with what becomes of each if it panics.
func drawActors(actors []*messages.Actor) string {
	type line struct {
		name  string
		actor *messages.Actor
	}
	var lines []line
	var draw func(parent, trunk string)
	draw = func(parent, trunk string) {
		children := slices.DeleteFunc(slices.Clone(actors), func(a *messages.Actor) bool { return a.Parent() != parent })
		for i, a := range children {
			branch, below := "├ ", "│ "
			switch {
			case parent == "":
				branch, below = "", ""
			case i == len(children)-1:
				branch, below = "└ ", "  "
			}
			name := a.Own()
			if strings.HasSuffix(name, "-") {
				name += "<n>"
			}
			lines = append(lines, line{trunk + branch + name, a})
			draw(a.Name, trunk+below)
		}
	}
	draw("", "")
	width := func(l line) int { return len([]rune(l.name)) }
	widest := width(slices.MaxFunc(lines, func(a, b line) int { return cmp.Compare(width(a), width(b)) }))
	var b strings.Builder
	b.WriteString("```\n")
	for _, l := range lines {
		ticks := "     "
		if l.actor.HearsTicks {
			ticks = "ticks"
		}
		fmt.Fprintf(&b, "%s%s   %-8v  %s   %s\n", l.name, strings.Repeat(" ", widest-width(l)), l.actor.OnPanic, ticks, l.actor.Purpose)
	}
	b.WriteString("```\n")
	return b.String()
}
