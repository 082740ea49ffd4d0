package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
	"keyval/storeactor/backup"
)

func newExport(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "export",
		Usage:     "print keys and values as lines of JSON, for import",
		ArgsUsage: "[PREFIX]",
		Description: `All of it is read at one revision, however long it takes. A line is an object: key, value,
revision; what is not UTF-8 stands as key_base64, value_base64. Without --file it goes to
stdout; with it, the file has its name only once it is whole. An export that breaks says
how to go on. History, sessions and members are for kvctl backup.`,
		UsageText: `kvctl export > all.jsonl
kvctl export user/ --file users.jsonl
kvctl export --from user/8121 --revision 90210 >> all.jsonl`,
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "from", Usage: "begin at `KEY`"},
			&urfave.StringFlag{Name: "to", Usage: "end before `KEY`"},
			&urfave.StringFlag{Name: "file", Usage: "write to `FILE`, which is not there yet", TakesFile: true},
			progressFlag(),
		}, readFlags()...),
		Action: sh.action(export),
	}
}

// exportedJSON is one line of an export. What an import does not know it passes over, so the
// lines of scan -o jsonl are an export too.
type exportedJSON struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   *string `json:"key_base64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
	Revision    uint64  `json:"revision,string,omitempty"`
}

// exportEvent is one line of --progress json of export and import.
type exportEvent struct {
	Phase string `json:"phase"` // exporting, importing
	Keys  uint64 `json:"keys,string"`
	Bytes uint64 `json:"bytes"`
	Rate  uint64 `json:"rate_keys_per_s"`
}

// keyProgress tells how many keys are done.
type keyProgress struct {
	*progress
	phase string
	rate  rate
}

func (p *keyProgress) tell(keys, bytes uint64) {
	now := time.Now()
	if !p.due(now) {
		return
	}
	p.rate.note(now, keys)
	p.progress.tell(now, exportEvent{p.phase, keys, bytes, uint64(p.rate.perSecond)}, "%s: %s, %s, %d/s", p.phase, plural(keys, "key"), bytesText(bytes), uint64(p.rate.perSecond))
}

func export(c *Call) error {
	from, to, err := c.bounds()
	if err != nil {
		return err
	}
	var o client.ScanOptions
	if o.Revision, o.Stale, err = c.reading(); err != nil {
		return err
	}
	p, err := c.progress(true, false)
	if err != nil {
		return err
	}
	if c.OutTTY && !c.flags.IsSet("file") {
		p.style = "none" // the lines go to the same terminal
	}
	out := c.Stdout
	var file *backup.File
	if path := c.flags.String("file"); path != "" {
		if path, err = backup.Target(path, time.Now()); err != nil {
			return err
		}
		if file, err = backup.Create(path); err != nil {
			return err
		}
		defer file.Abort()
		out = file
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		w := &exporter{out: bufio.NewWriterSize(out, rowBuffer), progress: &keyProgress{progress: p, phase: "exporting"}}
		err := w.run(ctx, store, from, to, o)
		p.end()
		if err == nil && file != nil {
			err = file.Commit()
		}
		if err != nil {
			return w.broken(c, err, file != nil)
		}
		c.note("exported %s (%s) as of revision %d", plural(w.keys, "key"), bytesText(w.bytes), w.revision)
		return nil
	})
}

// exporter writes lines.
type exporter struct {
	out                   *bufio.Writer
	progress              *keyProgress
	keys, bytes, revision uint64
	last                  []byte // the key that was written last
}

func (w *exporter) run(ctx context.Context, store Store, from, to []byte, o client.ScanOptions) error {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	for item, err := range store.Scan(ctx, from, to, o) {
		if err != nil {
			_ = w.out.Flush() // what was read is good
			return err
		}
		row := exportedJSON{Revision: item.Revision}
		row.Key, row.KeyBase64 = text(item.Key)
		row.Value, row.ValueBase64 = text(item.Value)
		line.Reset()
		if err := encoder.Encode(row); err != nil {
			return err
		}
		if _, err := w.out.Write(line.Bytes()); err != nil {
			return err
		}
		w.keys, w.bytes, w.revision, w.last = w.keys+1, w.bytes+uint64(line.Len()), item.ReadRevision, item.Key
		w.progress.tell(w.keys, w.bytes)
	}
	return w.out.Flush()
}

// broken says how an export goes on. The key may be anything: it is quoted for the shell.
func (w *exporter) broken(c *Call, err error, file bool) error {
	if w.keys == 0 || file {
		return broken(err, fmt.Sprintf("the export broke after %s: ", plural(w.keys, "key")))
	}
	return hinted(broken(err, fmt.Sprintf("the export broke after %s, the last being %s: ", plural(w.keys, "key"), shown(w.last))),
		fmt.Sprintf("go on with --from that key --revision %d, which writes it once more", w.revision))
}

func newImport(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "import",
		Usage:     "store the keys and values of an export",
		ArgsUsage: "PATH",
		Description: `PATH is a file, or - for stdin. Keys that are there get the value of the line; others
stay as they are. Lines are stored in batches, each of them whole or not at all. It does no
harm to import lines twice: that is how an import goes on that broke, and --skip leaves out
those that are known to be in. With --dry-run all lines are read, and nothing is stored.
With --json an object: lines, keys, bytes, revision, took_ms.`,
		UsageText: `kvctl import all.jsonl
kvctl import all.jsonl --skip 120000
gunzip < all.jsonl.gz | kvctl import - --json`,
		Flags: []urfave.Flag{
			&urfave.Uint64Flag{Name: "skip", Usage: "leave out the first `N` lines"},
			dryRunFlag(),
			progressFlag(),
		},
		Action: sh.action(importLines),
	}
}

type importedJSON struct {
	Lines    uint64 `json:"lines,string"` // that are stored now, those that were left out among them
	Keys     uint64 `json:"keys,string"`
	Bytes    uint64 `json:"bytes"`
	Revision uint64 `json:"revision,string"`
	TookMs   int64  `json:"took_ms"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

func importLines(c *Call) error {
	p, err := c.progress(true, false)
	if err != nil {
		return err
	}
	in := io.NopCloser(c.Stdin)
	if path := c.Args[0]; path != "-" {
		if in, err = openFile(path); err != nil {
			return err
		}
	} else if c.InTTY {
		c.note("reading until Ctrl-D")
	}
	defer in.Close()
	w := &importer{lines: newLineReader(in), progress: &keyProgress{progress: p, phase: "importing"}, skip: c.flags.Uint64("skip")}
	began := time.Now()
	if c.flags.Bool("dry-run") {
		err = w.run(c, nil)
	} else {
		err = c.withStore(func(ctx context.Context, store Store) error { return w.run(ctx, store) })
	}
	p.end()
	if err != nil {
		problem, _ := explain(err)
		hint := problem.Hint
		if messages.CodeOf(err) != messages.Code_INVALID {
			hint = fmt.Sprintf("go on with --skip %d", w.done.Lines)
		}
		return hinted(broken(err, fmt.Sprintf("the import broke, with %s stored: ", plural(w.done.Lines, "line"))), hint)
	}
	w.done.TookMs, w.done.DryRun = time.Since(began).Milliseconds(), c.flags.Bool("dry-run")
	return c.printImported(w.done)
}

func (c *Call) printImported(row importedJSON) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{fmt.Sprint(row.Keys), fmt.Sprint(row.Revision)}})
		return nil
	case Table:
		verb := "imported"
		if row.DryRun {
			verb = "would import"
		}
		_, err := fmt.Fprintf(c.Stdout, "%s %s (%s) in %s\n", verb, plural(row.Keys, "key"), bytesText(row.Bytes), timeText(time.Duration(row.TookMs)*time.Millisecond))
		return err
	}
	return c.printJSON(row)
}
