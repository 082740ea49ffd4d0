package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"

	"keyval/actors/client"
	"keyval/messages"
)

// Bounds of an import.
const (
	importLineMax    = 8 << 20   // bytes of a line
	importBatchBytes = 256 << 10 // of keys and values in one command, about
	importBatchKeys  = messages.OperationsMax
	importBatchesMax = 8 // commands at once
)

func openFile(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	switch {
	case os.IsNotExist(err):
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no file %s", path).WithHint("name the file of an export, or - for stdin")
	case err != nil:
		return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "%v", err).WithHint("name a file that this user may read")
	}
	return f, nil
}

// lineReader reads the lines of an export.
type lineReader struct {
	scanner *bufio.Scanner
	line    uint64 // that was read last, from 1
}

func newLineReader(in io.Reader) *lineReader {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 64<<10), importLineMax)
	return &lineReader{scanner: s}
}

// skip passes over a line, whatever is in it. io.EOF: there was none.
func (r *lineReader) skip() error {
	if r.scanner.Scan() {
		r.line++
		return nil
	}
	switch err := r.scanner.Err(); {
	case err == nil:
		return io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return messages.Errorf(messages.Code_INVALID, "line %d has more than %d bytes", r.line+1, importLineMax).
			WithHint("a line is one key and its value; is PATH an export?")
	default:
		return messages.Errorf(messages.Code_INTERNAL, "line %d cannot be read: %v", r.line+1, err)
	}
}

// next reads a line. INVALID: it is no line of an export.
func (r *lineReader) next() (row client.KeyValue, err error) {
	if err := r.skip(); err != nil {
		return row, err
	}
	var line exportedJSON
	if err := json.Unmarshal(r.scanner.Bytes(), &line); err != nil {
		return row, r.invalid("it is not one JSON object with key and value: %v", err)
	}
	if row.Key, err = bytesOf(line.Key, line.KeyBase64); err != nil {
		return row, r.invalid("key: %v", err)
	}
	if row.Value, err = bytesOf(line.Value, line.ValueBase64); err != nil {
		return row, r.invalid("value: %v", err)
	}
	if err := messages.CheckKey(row.Key); err != nil {
		return row, r.invalid("%s", err.Message)
	}
	if err := messages.CheckValue(row.Value); err != nil {
		return row, r.invalid("%s", err.Message)
	}
	return row, nil
}

func (r *lineReader) invalid(format string, args ...any) error {
	return messages.Errorf(messages.Code_INVALID, "line %d: %s", r.line, messages.Errorf(messages.Code_INVALID, format, args...).Message).
		WithHint(`a line is {"key":"k","value":"v"}, or has key_base64 and value_base64; mend it, and import again`)
}

// bytesOf is the inverse of text: one of both is there.
func bytesOf(plain, encoded *string) ([]byte, error) {
	switch {
	case (plain == nil) == (encoded == nil):
		return nil, errors.New("it stands there once, as text or as base64")
	case plain != nil:
		return []byte(*plain), nil
	}
	return base64.StdEncoding.DecodeString(*encoded)
}

// importer stores lines, in waves of batches. In a wave no key stands twice, so that its
// batches may be stored in any order, and the last line of a key has the last word.
type importer struct {
	lines    *lineReader
	progress *keyProgress
	skip     uint64 // lines to leave out
	done     importedJSON
}

// run stores all lines; without a store it only reads them.
func (w *importer) run(ctx context.Context, store Store) error {
	for w.lines.line < w.skip {
		if err := w.lines.skip(); err != nil {
			if err == io.EOF {
				return messages.Errorf(messages.Code_INVALID, "there are %d lines, and --skip leaves out %d", w.lines.line, w.skip).
					WithHint("all of them are in already if --skip was what the last import said; else lower it")
			}
			return err
		}
	}
	w.done.Lines = max(w.done.Lines, w.lines.line)
	var ahead *client.KeyValue // begins the next wave
	for ended := false; !ended; {
		wave := newWave()
		if ahead != nil {
			wave.add(*ahead)
			ahead = nil
		}
		var failed error
		for failed == nil && !wave.full() {
			row, err := w.lines.next()
			if err == nil && !wave.add(row) {
				ahead = &row
				break
			}
			failed = err
		}
		if ended = failed == io.EOF; ended {
			failed = nil
		}
		if store != nil {
			revision, err := wave.store(ctx, store)
			if err != nil {
				return err
			}
			w.done.Revision = max(w.done.Revision, revision)
		} else if err := ctx.Err(); err != nil {
			return err
		}
		// What comes before a bad line is stored.
		w.done.Lines += uint64(len(wave.keys))
		w.done.Keys += uint64(len(wave.keys))
		w.done.Bytes += uint64(wave.bytes)
		if failed != nil {
			return failed
		}
		w.progress.tell(w.done.Keys, w.done.Bytes)
	}
	return nil
}

// wave is batches that are stored at once.
type wave struct {
	batches [][]client.KeyValue
	size    int // of the last batch, in bytes
	bytes   int
	keys    map[string]bool
}

func newWave() *wave { return &wave{keys: map[string]bool{}} }

// full reports whether it has as many batches as are stored at once. A large row may add one.
func (w *wave) full() bool {
	n := len(w.batches)
	return n > importBatchesMax || n == importBatchesMax && (len(w.batches[n-1]) == importBatchKeys || w.size >= importBatchBytes)
}

// add takes a row; false: its key is there already.
func (w *wave) add(row client.KeyValue) bool {
	if w.keys[string(row.Key)] {
		return false
	}
	w.keys[string(row.Key)] = true
	size, n := len(row.Key)+len(row.Value), len(w.batches)
	if n == 0 || len(w.batches[n-1]) == importBatchKeys || w.size > 0 && w.size+size > importBatchBytes {
		w.batches, w.size = append(w.batches, nil), 0
		n++
	}
	w.batches[n-1] = append(w.batches[n-1], row)
	w.size += size
	w.bytes += size
	return true
}

// store waits until all batches are stored, or one is not.
func (w *wave) store(ctx context.Context, store Store) (revision uint64, failed error) {
	type stored struct {
		revision uint64
		err      error
	}
	ends := make(chan stored, len(w.batches))
	for _, batch := range w.batches {
		go func() {
			r, err := store.PutAll(ctx, batch)
			ends <- stored{r.Revision, err}
		}()
	}
	for range w.batches {
		end := <-ends
		revision = max(revision, end.revision)
		if failed == nil {
			failed = end.err
		}
	}
	return revision, failed
}
