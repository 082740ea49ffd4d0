package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

func newPut(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "put",
		Usage:     "store a value under a key",
		ArgsUsage: "KEY [VALUE]",
		Description: fmt.Sprintf(`VALUE is taken as it stands; - reads it from stdin, --file from a file.
Any bytes survive. A key has at most %d bytes, a value at most %d.
With --if-revision or --if-absent it is stored only while that holds. Else it exits 7 and
says what stands there, as of the revision at which it did not hold; with --json in the
error's field current, which is as get prints it, of revision 0 if there is no such key.`, messages.KeySizeMax, messages.ValueSizeMax),
		UsageText: `kvctl put hello world
kvctl put hello world --if-absent
kvctl put counter 8 --if-revision 41
echo hi | kvctl put hello -
kvctl put temperature -- -5`,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "file", Usage: "read the value from `FILE`", TakesFile: true},
			ifRevisionFlag(),
			ifAbsentFlag(),
		},
		Action: sh.action(put),
	}
}

type putJSON struct {
	Key       *string `json:"key,omitempty"`
	KeyBase64 *string `json:"key_base64,omitempty"`
	Revision  uint64  `json:"revision,string"`
	RequestID string  `json:"request_id"`
}

func put(c *Call) error {
	key := []byte(c.Args[0])
	condition, err := c.condition()
	if err != nil {
		return err
	}
	value, err := c.value()
	if err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		r, err := store.Put(ctx, key, value, condition.options()...)
		if err != nil {
			return condition.conflict(ctx, store, key, r.Revision, err)
		}
		switch c.Format {
		case Simple:
			c.printSimple([][]string{{strconv.FormatUint(r.Revision, 10)}})
		case Table:
			fmt.Fprintf(c.Stdout, "put %s at revision %d (request %s)\n", shown(key), r.Revision, r.RequestID)
		default:
			row := putJSON{Revision: r.Revision, RequestID: r.RequestID}
			row.Key, row.KeyBase64 = text(key)
			return c.printJSON(row)
		}
		return nil
	})
}

// value is what to store: the second argument, stdin for "-", or --file's.
func (c *Call) value() ([]byte, error) {
	fromFile := c.flags.IsSet("file")
	switch {
	case len(c.Args) == 2 && fromFile:
		return nil, c.usage("", "a value and --file exclude each other")
	case fromFile:
		return readFile(c.flags.String("file"))
	case len(c.Args) == 1:
		return nil, c.usage("to store an empty value, give ''", "put needs a value: VALUE, - for stdin, or --file FILE")
	case c.Args[1] != "-":
		return []byte(c.Args[1]), nil
	}
	if c.InTTY {
		c.note("reading until Ctrl-D")
	}
	return readValue(c.Stdin, "stdin")
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, noValue(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return nil, noValue(cmp.Or(err, error(&os.PathError{Op: "read", Path: path, Err: syscall.EISDIR})))
	}
	return readValue(f, path)
}

func noValue(err error) error {
	return messages.Errorf(messages.Code_INVALID, "--file: no value to read: %v", err).WithHint("name a file that can be read")
}

// readValue reads no more than a value may have.
func readValue(r io.Reader, source string) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, messages.ValueSizeMax+1))
	if err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "reading the value from %s: %v", source, err)
	}
	if len(value) > messages.ValueSizeMax {
		return nil, messages.Errorf(messages.Code_INVALID, "the value from %s has more than %d bytes", source, messages.ValueSizeMax).
			WithHint("store it in parts, under several keys")
	}
	return value, nil
}
