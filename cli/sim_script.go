package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/sim"
	"keyval/sim/script"
)

func newSimScript(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "script",
		Usage:     "play a scenario, and show what the actors say to each other",
		ArgsUsage: "FILE",
		Description: `A scenario is a text: lines that begin with # are prose, each other line is a verb. The same
text gives the same conversation. FILE - is stdin. A line of the answer is a message, right
before its actor takes it: milliseconds since the verb began, who speaks, to whom, and what.
"6@2" is the log's entry at index 6, of term 2; "c.1#3" the third command of client c's session.

` + strings.TrimSpace(script.Verbs()),
		UsageText: `printf 'cluster nodes=3\nput color red\n' | kvctl sim script -
kvctl sim script sim/script/testdata/scripts/failover.txt`,
		Action: sh.action(simScript),
	}
}

// scriptJSON is one verb of a scenario.
type scriptJSON struct {
	Line int      `json:"line"`
	Verb string   `json:"verb"`
	Said []string `json:"said"`
}

func simScript(c *Call) error {
	text := c.Stdin
	if path := c.Args[0]; path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return messages.Errorf(messages.Code_INVALID, "%v", err)
		}
		defer f.Close()
		text = f
	}
	err := c.playScript(text)
	var violated *sim.Violation
	if errors.As(err, &violated) {
		return messages.Errorf(messages.Code_INTERNAL, "%v", violated)
	}
	return err
}

// playScript prints each line as it is played; as JSON, one array at the end.
func (c *Call) playScript(text io.Reader) error {
	var rows []scriptJSON
	err := script.Play(text, func(l script.Line) error {
		if err := c.Err(); err != nil {
			return err
		}
		if !c.Format.structured() {
			_, err := fmt.Fprintf(c.Stdout, "%s\n%s", l.Text, l.Said)
			return err
		}
		if !l.Verb {
			return nil
		}
		row := scriptJSON{Line: l.Number, Verb: l.Text, Said: []string{}}
		for said := range strings.Lines(l.Said) {
			row.Said = append(row.Said, strings.TrimSuffix(said, "\n"))
		}
		if c.Format == JSONLines {
			return c.printJSON(row)
		}
		rows = append(rows, row)
		return nil
	})
	if c.Format == JSON {
		if failed := printJSONList(c, rows); err == nil {
			err = failed
		}
	}
	return err
}
