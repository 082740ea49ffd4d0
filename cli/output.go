package cli

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	pretty "github.com/jedib0t/go-pretty/v6/text"

	"keyval/messages"
)

// Format is how data is printed.
type Format string

const (
	Table     Format = "table"  // for people
	JSON      Format = "json"   // one value, indented
	JSONLines Format = "jsonl"  // one value a line
	Simple    Format = "simple" // bare fields between tabs, for shells
)

// structured reports whether nothing but JSON may be on stdout.
func (f Format) structured() bool { return f == JSON || f == JSONLines }

// printJSONList writes an array; in JSONLines a line an element.
func printJSONList[T any](c *Call, values []T) error {
	if c.Format == JSON {
		if values == nil {
			values = []T{}
		}
		return c.printJSON(values)
	}
	for _, v := range values {
		if err := c.printJSON(v); err != nil {
			return err
		}
	}
	return nil
}

// printJSON writes one value.
func (c *Call) printJSON(value any) error {
	e := json.NewEncoder(c.Stdout)
	e.SetEscapeHTML(false)
	if c.Format == JSON {
		e.SetIndent("", "  ")
	}
	return e.Encode(value)
}

// columnMin is what a column of a table gets however narrow the terminal is.
const columnMin = 8

// printTable writes rows under a header, columns two spaces apart. On a terminal that is too
// narrow the widest columns are cut.
func (c *Call) printTable(header []string, rows [][]string) {
	w := table.NewWriter()
	if c.OutTTY {
		widths, cut := fitColumns(columnWidths(header, rows), cmp.Or(c.Columns, screenColumns))
		var columns []table.ColumnConfig
		header = slices.Clone(header)
		for i, width := range widths {
			columns = append(columns, table.ColumnConfig{Number: i + 1, WidthMax: width, WidthMaxEnforcer: snip})
			header[i] = snip(header[i], width)
		}
		w.SetColumnConfigs(columns)
		if cut {
			defer c.banner("… is cut to fit the terminal: --json has it whole")
		}
	}
	w.SetStyle(table.Style{
		Name: "plain",
		Box:  table.BoxStyle{PaddingRight: "  "},
	})
	w.AppendHeader(tableRow(header))
	for _, r := range rows {
		w.AppendRow(tableRow(r))
	}
	for line := range strings.Lines(w.Render() + "\n") {
		fmt.Fprintln(c.Stdout, strings.TrimRight(line, " \n"))
	}
}

func snip(cell string, width int) string { return pretty.Snip(cell, width, "…") }

// columnWidths are as wide as the widest cells.
func columnWidths(header []string, rows [][]string) []int {
	widths := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], pretty.StringWidthWithoutEscSequences(cell))
		}
	}
	return widths
}

// fitColumns makes the widest columns narrower until all, two spaces apart, fit a screen.
func fitColumns(widths []int, screen int) (fit []int, cut bool) {
	fit = slices.Clone(widths)
	needed := -2
	for _, w := range fit {
		needed += w + 2
	}
	for ; needed > screen; needed-- {
		widest := 0
		for i := range fit {
			if fit[i] >= fit[widest] { // of equals the last: names come first
				widest = i
			}
		}
		if fit[widest] <= columnMin {
			break
		}
		fit[widest]--
		cut = true
	}
	return fit, cut
}

func tableRow(cells []string) table.Row {
	row := make(table.Row, len(cells))
	for i, cell := range cells {
		row[i] = cell
	}
	return row
}

// printSimple writes rows without a header, cells between tabs.
func (c *Call) printSimple(rows [][]string) {
	for _, r := range rows {
		fmt.Fprintln(c.Stdout, strings.Join(r, "\t"))
	}
}

// note tells people something beside the data. Where nothing but JSON may be printed it is an
// object with the field note.
func (c *Call) note(format string, args ...any) {
	if c.Format.structured() {
		encoder := json.NewEncoder(c.Stderr)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(struct { // a stderr that cannot be written to has nobody to be told about
			Note string `json:"note"`
		}{strings.TrimSpace(fmt.Sprintf(format, args...))})
		return
	}
	fmt.Fprintf(c.Stderr, format+"\n", args...)
}

// banner is a note for a terminal only.
func (c *Call) banner(format string, args ...any) {
	if c.OutTTY && c.ErrTTY && !c.Format.structured() {
		c.note(format, args...)
	}
}

// Colours of ECMA-48.
const (
	red   = "31"
	amber = "33"
	green = "32"
)

// paint colours text on a terminal that takes colour.
func (c *Call) paint(colour, text string) string {
	if !c.OutTTY || c.flags.Bool("no-color") || !c.colourful() {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (sh *Shell) colourful() bool {
	return sh.Env("NO_COLOR") == "" && sh.Env("TERM") != "dumb"
}

// text is bytes as JSON has them: a string where they are UTF-8, base64 else.
// One of the two is nil.
func text(b []byte) (plain, encoded *string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	s := base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

// shown is bytes as people see them in messages: quoted, and cut.
func shown(b []byte) string {
	const bytesMax = 64
	if len(b) > bytesMax {
		return fmt.Sprintf("%q...", b[:bytesMax])
	}
	return fmt.Sprintf("%q", b)
}

// plural is a number of things.
func plural(n uint64, thing string) string { return countText(n, thing, thing+"s") }

// countText is plural where many are called otherwise.
func countText(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// sticky remembers the first write that failed, so that a full disk behind
// stdout does not pass for success.
type sticky struct {
	w   io.Writer
	err error
}

func (s *sticky) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	var n int
	n, s.err = s.w.Write(p)
	return n, s.err
}

// failure is the first write that failed. A reader that went away, as head does, is
// none.
func (s *sticky) failure() error {
	if errors.Is(s.err, syscall.EPIPE) || errors.Is(s.err, io.ErrClosedPipe) {
		return nil
	}
	return messages.Errorf(messages.Code_INTERNAL, "writing the output: %v", s.err)
}
