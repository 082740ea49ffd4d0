package cli

import (
	"bufio"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// dangerFlags are those of every command that cannot be undone.
func dangerFlags() []urfave.Flag { return []urfave.Flag{dryRunFlag(), yesFlag()} }

func dryRunFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "dry-run", Usage: "show what would happen, and change nothing"}
}

func yesFlag() urfave.Flag { return &urfave.BoolFlag{Name: "yes", Usage: "do not ask"} }

// refuseUnasked is the error of a dangerous command where nobody can be asked and
// nobody said --yes. It comes before anything is done.
func (c *Call) refuseUnasked(what string) error {
	if c.flags.Bool("yes") || c.flags.Bool("dry-run") || c.InTTY && c.ErrTTY {
		return nil
	}
	return messages.Errorf(messages.Code_UNSAFE, "%s cannot be undone, and without a terminal nobody can be asked", what).
		WithHint("%s", c.commandWith("--yes"))
}

// confirm asks on the terminal, unless --yes was given. Where the answer is no it says what
// was left undone, and the error ends the command with exitFailure.
func (c *Call) confirm(question, undone string) error {
	if c.flags.Bool("yes") {
		return nil
	}
	fmt.Fprintf(c.Stderr, "%s [y/N] ", question)
	said := make(chan string, 1)
	go func() { // a read from a terminal cannot be interrupted otherwise
		line, _ := bufio.NewReader(c.Stdin).ReadString('\n') // what cannot be read is no yes
		said <- line
	}()
	select {
	case line := <-said:
		if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
			return nil
		}
		c.note("%s", undone)
		return quiet(exitFailure)
	case <-c.Done():
		c.note("")
		return c.Err()
	}
}

// commandWith is the command line that runs, with one flag more, for people to
// paste.
func (c *Call) commandWith(flag string) string {
	line := read(c.app, c.argv[min(1, len(c.argv)):])
	words := append([]string{c.self()}, quoteWords(strings.Fields(join(line.path)))...)
	for _, g := range line.flags {
		words = append(words, quoteWord(g.word))
		if !g.bare && !strings.Contains(g.word, "=") {
			words = append(words, quoteWord(g.value))
		}
	}
	words = append(words, flag)
	for i, arg := range line.args {
		if i == 0 && strings.HasPrefix(arg, "-") {
			words = append(words, "--")
		}
		words = append(words, quoteWord(arg))
	}
	return strings.Join(words, " ")
}

func quoteWords(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return quoted
}
