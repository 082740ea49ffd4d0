package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	pretty "github.com/jedib0t/go-pretty/v6/text"

	"keyval/actors/client"
)

// rowWriter prints the rows of a scan one by one. Its end must be called, or its
// interrupt when the rows break off.
type rowWriter interface {
	// write fails when the output does.
	write(client.Item) error
	end()
	interrupt()
}

// rowBuffer is how much output is collected before it is written, in bytes.
const rowBuffer = 64 << 10

func (c *Call) rowWriter(keysOnly bool) rowWriter {
	out := bufio.NewWriterSize(c.Stdout, rowBuffer)
	switch c.Format {
	case Table:
		w := &tableRows{out: out, keysOnly: keysOnly}
		if c.OutTTY {
			w.screen = cmp.Or(c.Columns, screenColumns)
		}
		return w
	case Simple:
		return &simpleRows{out: out, keysOnly: keysOnly}
	}
	w := &jsonRows{out: out, keysOnly: keysOnly, array: c.Format == JSON}
	w.encoder = json.NewEncoder(&w.row)
	w.encoder.SetEscapeHTML(false)
	if w.array {
		w.encoder.SetIndent("  ", "  ")
	}
	return w
}

// jsonRows writes an array, or a line a row. The array of a scan that broke stays
// open, so that nobody takes it for whole.
type jsonRows struct {
	out      *bufio.Writer
	row      bytes.Buffer
	encoder  *json.Encoder // to row
	keysOnly bool
	array    bool
	begun    bool
}

func (w *jsonRows) write(item client.Item) error {
	row := getJSON{
		Revision: item.Revision, CreateRevision: item.CreateRevision, Version: item.Version,
		ReadRevision: item.ReadRevision, RequestID: item.RequestID,
	}
	row.Key, row.KeyBase64 = text(item.Key)
	if !w.keysOnly {
		row.Value, row.ValueBase64 = text(item.Value)
	}
	w.row.Reset()
	if err := w.encoder.Encode(row); err != nil {
		return err
	}
	line := w.row.Bytes()
	if w.array {
		separator := ",\n  "
		if !w.begun {
			separator = "[\n  "
		}
		if _, err := w.out.WriteString(separator); err != nil {
			return err
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
	}
	w.begun = true
	_, err := w.out.Write(line)
	return err
}

// The error of a Writer's Flush is Shell.Stdout's to remember.

func (w *jsonRows) end() {
	switch {
	case w.array && w.begun:
		_, _ = w.out.WriteString("\n]\n")
	case w.array:
		_, _ = w.out.WriteString("[]\n")
	}
	_ = w.out.Flush()
}

func (w *jsonRows) interrupt() {
	if w.array && w.begun {
		_ = w.out.WriteByte('\n')
	}
	_ = w.out.Flush()
}

// simpleRows writes KEY, a tab and VALUE.
type simpleRows struct {
	out      *bufio.Writer
	keysOnly bool
}

// fieldEscapes keep a field in its place; every other byte stands for itself.
var fieldEscapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

func (w *simpleRows) write(item client.Item) error {
	_, err := fieldEscapes.WriteString(w.out, string(item.Key))
	if err == nil && !w.keysOnly {
		_ = w.out.WriteByte('\t')
		_, err = fieldEscapes.WriteString(w.out, string(item.Value))
	}
	if err != nil {
		return err
	}
	return w.out.WriteByte('\n')
}

func (w *simpleRows) end()       { _ = w.out.Flush() }
func (w *simpleRows) interrupt() { _ = w.out.Flush() }

// Bounds of what a table of rows looks at before it prints its first line: that
// is how it knows how wide the keys are without knowing all of them.
const (
	tableAheadRows  = 100
	tableAheadBytes = 64 << 10
	tableKeyMax     = 46 // columns; off a terminal a longer key moves the rest of its own line only
	tableValueMax   = 100
	tableValueMin   = 20 // columns that a value gets however narrow the screen is
	screenColumns   = 80 // of a terminal that does not say
	revisionColumns = 10
)

// tableRows writes a table whose columns are as wide as the first rows ask for.
type tableRows struct {
	out      *bufio.Writer
	keysOnly bool
	screen   int // columns of the terminal, for which what is long is cut; 0: there is none
	ahead    []client.Item
	bytes    int // of ahead
	width    int // of the keys; 0: not known yet
}

func (w *tableRows) write(item client.Item) error {
	if w.width > 0 {
		return w.line(item)
	}
	w.ahead = append(w.ahead, item)
	w.bytes += len(item.Key) + len(item.Value)
	if len(w.ahead) < tableAheadRows && w.bytes < tableAheadBytes {
		return nil
	}
	return w.begin()
}

// begin fixes the width, and prints the header and what was held back.
func (w *tableRows) begin() error {
	w.width = len("KEY")
	for _, item := range w.ahead {
		if width := pretty.StringWidth(w.key(item.Key)); width <= tableKeyMax {
			w.width = max(w.width, width)
		}
	}
	if len(w.ahead) > 0 {
		header := fmt.Sprintf("%-*s  %-*s", w.width, "KEY", revisionColumns, "REVISION")
		if !w.keysOnly {
			header += "  VALUE"
		}
		fmt.Fprintln(w.out, strings.TrimRight(header, " "))
	}
	for _, item := range w.ahead {
		if err := w.line(item); err != nil {
			return err
		}
	}
	w.ahead = nil
	return nil
}

func (w *tableRows) line(item client.Item) error {
	key, revision := pretty.Pad(w.key(item.Key), w.width, ' '), strconv.FormatUint(item.Revision, 10)
	if w.keysOnly {
		_, err := fmt.Fprintf(w.out, "%s  %s\n", key, revision)
		return err
	}
	value := cell(item.Value)
	if w.screen > 0 {
		value = cutTo(item.Value, max(tableValueMin, w.screen-w.width-revisionColumns-4))
	}
	line := fmt.Sprintf("%s  %-*s  %s", key, revisionColumns, revision, value)
	_, err := fmt.Fprintln(w.out, strings.TrimRight(line, " "))
	return err
}

// key is a key that leaves the table one.
func (w *tableRows) key(key []byte) string {
	if w.screen == 0 {
		return cell(key)
	}
	return cutTo(key, tableKeyMax)
}

// cutTo is a cell of so many columns at most. What is cut says how long it is.
func cutTo(b []byte, columns int) string {
	whole := cell(b)
	if pretty.StringWidth(whole) <= columns {
		return whole
	}
	end := fmt.Sprintf("... (%d bytes)", len(b))
	return pretty.Trim(whole, max(1, columns-len(end))) + end
}

func (w *tableRows) end() {
	if w.width == 0 {
		_ = w.begin()
	}
	_ = w.out.Flush()
}

func (w *tableRows) interrupt() { w.end() }

// cutCell is a cell that is not too long to be looked at.
func cutCell(b []byte) string {
	text := cell(b)
	if utf8.RuneCountInString(text) > tableValueMax {
		return fmt.Sprintf("%s... (%d bytes)", string([]rune(text)[:tableValueMax]), len(b))
	}
	return text
}

// cell is bytes in a table. They are quoted unless a terminal can show them on one line
// as they are, and they do not look quoted themselves.
func cell(b []byte) string {
	plain := len(b) == 0 || b[0] != '"' && b[0] != ' ' && b[len(b)-1] != ' ' && utf8.Valid(b)
	if plain && bytes.IndexFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return string(b)
	}
	return strconv.Quote(string(b))
}
