package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

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
		return &tableRows{out: out, keysOnly: keysOnly, cut: c.OutTTY}
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
	tableKeyMax     = 48 // columns; a longer key moves the rest of its own line only
	tableValueMax   = 100
)

// tableRows writes a table whose columns are as wide as the first rows ask for.
type tableRows struct {
	out      *bufio.Writer
	keysOnly bool
	cut      bool // long values
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
		if width := utf8.RuneCountInString(cell(item.Key)); width <= tableKeyMax {
			w.width = max(w.width, width)
		}
	}
	if len(w.ahead) > 0 {
		header := fmt.Sprintf("%-*s  %-10s", w.width, "KEY", "REVISION")
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
	key, revision := cell(item.Key), strconv.FormatUint(item.Revision, 10)
	if w.keysOnly {
		_, err := fmt.Fprintf(w.out, "%-*s  %s\n", w.width, key, revision)
		return err
	}
	value := cell(item.Value)
	if w.cut {
		value = cutCell(item.Value)
	}
	line := fmt.Sprintf("%-*s  %-10s  %s", w.width, key, revision, value)
	_, err := fmt.Fprintln(w.out, strings.TrimRight(line, " "))
	return err
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
