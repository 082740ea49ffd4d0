package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

const (
	helpFlag    = "help"
	versionFlag = "version" // the command's name too
)

func newHelp(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "help",
		Usage:       "show help for a command",
		ArgsUsage:   "[COMMAND...]",
		Description: "The same as --help behind the command.",
		UsageText:   "kvctl help put",
		Action: sh.action(func(c *Call) error {
			var path []*urfave.Command
			for _, word := range c.Args {
				next := named(below(c.app, path), word)
				if next == nil {
					return usagef(path, suggest(word, commandNames(below(c.app, path))), "unknown command %q", join(path, word))
				}
				path = append(path, next)
			}
			writeHelp(sh.Stdout, c.app, path)
			return nil
		}),
	}
}

// writeHelp prints the help of one command, or of kvctl itself. A command's
// UsageText holds its examples, a line each.
func writeHelp(w io.Writer, app *urfave.App, path []*urfave.Command) {
	name := commandLine(path)
	usage, description, examples := app.Usage, app.Description, app.UsageText
	if len(path) > 0 {
		c := path[len(path)-1]
		usage, description, examples = c.Usage, c.Description, c.UsageText
	}
	commands := below(app, path)
	fmt.Fprintf(w, "%s - %s\n\nUsage:\n  %s\n", name, usage, usageLine(app, path))
	if description != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(description))
	}
	if examples != "" {
		fmt.Fprintf(w, "\nExamples:\n  %s\n", strings.ReplaceAll(strings.TrimSpace(examples), "\n", "\n  "))
	}
	writeRows(w, "Commands", commandRows(commands))
	if len(path) > 0 {
		var own []urfave.Flag
		for _, c := range path {
			own = append(own, c.Flags...)
		}
		writeRows(w, "Flags", flagRows(own))
	}
	writeRows(w, "Global flags", flagRows(app.Flags))
}

// usageLine is how a command is called.
func usageLine(app *urfave.App, path []*urfave.Command) string {
	line := commandLine(path) + " [flags]"
	switch {
	case len(below(app, path)) > 0:
		return line + " COMMAND"
	case len(path) > 0 && path[len(path)-1].ArgsUsage != "":
		return line + " " + path[len(path)-1].ArgsUsage
	}
	return line
}

// writeUsage follows an error: how the command is called, and where to read more. The
// whole help would push the error off the screen.
func writeUsage(w io.Writer, app *urfave.App, path []*urfave.Command) {
	fmt.Fprintf(w, "  usage: %s\n  see %s --help\n", usageLine(app, path), commandLine(path))
}

// commandLine is the words that name a command.
func commandLine(path []*urfave.Command) string {
	return strings.TrimSpace(binary + " " + strings.TrimPrefix(join(path), binary))
}

type helpRow struct{ left, right string }

func commandRows(commands []*urfave.Command) []helpRow {
	var rows []helpRow
	for _, c := range commands {
		if !c.Hidden {
			rows = append(rows, helpRow{c.Name, c.Usage})
		}
	}
	return rows
}

func flagRows(flags []urfave.Flag) []helpRow {
	var rows []helpRow
	for _, f := range flags {
		var names []string
		for _, n := range f.Names() {
			names = append(names, flagWord(n))
		}
		slices.SortFunc(names, func(a, b string) int { return len(a) - len(b) })
		left, right := strings.Join(names, ", "), ""
		if d, ok := f.(urfave.DocGenerationFlag); ok {
			placeholder, usage := unquote(d.GetUsage())
			right = usage
			if d.TakesValue() {
				left += " " + placeholder
			}
			if text := d.GetDefaultText(); d.TakesValue() && text != "" && text != `""` && text != "0" {
				right += fmt.Sprintf(" (default %s)", strings.Trim(text, `"`))
			}
		}
		rows = append(rows, helpRow{left, right})
	}
	return rows
}

// unquote takes the name of a flag's value out of its usage, where it stands in
// backquotes.
func unquote(usage string) (placeholder, plain string) {
	before, rest, ok := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		return "VALUE", usage
	}
	return name, before + name + after
}

func writeRows(w io.Writer, title string, rows []helpRow) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r.left))
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, r := range rows {
		fmt.Fprintf(w, "  %-*s  %s\n", width, r.left, r.right)
	}
}
