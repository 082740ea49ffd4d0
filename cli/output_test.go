package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	pretty "github.com/jedib0t/go-pretty/v6/text"
)

// TestAnyTableFitsTheScreen: on a terminal the widest columns are cut for the others; off one
// nothing is.
func TestAnyTableFitsTheScreen(t *testing.T) {
	name, why := strings.Repeat("n", 63), strings.Repeat("it waits for 世界 ", 30)
	for label, row := range map[string]struct {
		cells [][]string
		tty   bool
		want  []string // stands in it whole
		cut   bool
	}{
		"short":               {[][]string{{"n1", "h:1", "leader", "-"}}, true, []string{"ID  ADDRESS  ROLE    WAITS FOR", "n1  h:1      leader  -"}, false},
		"a long text":         {[][]string{{"n1", "10.11.12.13:7001", "\x1b[32mleader\x1b[0m", why}}, true, []string{"10.11.12.13:7001", "leader\x1b[0m  it waits", "…"}, true},
		"everything is long":  {[][]string{{name, name + ":7001", "follower", why}, {"n2", "h:2", "leader", "-"}}, true, []string{"nnn…", "follower", "n2 "}, true},
		"it goes into a file": {[][]string{{name, name + ":7001", "follower", why}}, false, []string{name + "  " + name + ":7001", strings.TrimSpace(why)}, false},
	} {
		var out, stderr bytes.Buffer
		c := &Call{Shell: &Shell{Stdout: &out, Stderr: &stderr, OutTTY: row.tty, ErrTTY: row.tty}, Format: Table}
		c.printTable([]string{"ID", "ADDRESS", "ROLE", "WAITS FOR"}, row.cells)
		for _, want := range row.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", label, want, &out)
			}
		}
		if lines := strings.Count(out.String(), "\n"); lines != len(row.cells)+1 || strings.Contains(stderr.String(), "--json has it whole") != row.cut {
			t.Errorf("%s: %d lines, %q", label, lines, &stderr)
		}
		for line := range strings.Lines(out.String()) {
			if width := pretty.StringWidthWithoutEscSequences(strings.TrimSpace(line)); row.tty && width > 80 {
				t.Errorf("%s: %d columns: %q", label, width, line)
			}
		}
	}
	for _, row := range []struct {
		widths []int
		screen int
		want   string
	}{
		{[]int{3, 4}, 80, "[3 4] false"}, {[]int{40, 38}, 80, "[40 38] false"}, {[]int{40, 39}, 80, "[39 39] true"},
		{[]int{5, 100, 3}, 40, "[5 28 3] true"}, {[]int{50, 50, 50}, 10, "[8 8 8] true"}, {nil, 80, "[] false"},
	} {
		fit, cut := fitColumns(row.widths, row.screen)
		if got := fmt.Sprint(fit, cut); got != row.want {
			t.Errorf("%v on %d columns: %s, want %s", row.widths, row.screen, got, row.want)
		}
	}
}
