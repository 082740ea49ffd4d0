package cli

import (
	"fmt"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

// UsageError says that a command line could not be understood. It exits 2, with
// the usage line of the command it was about on stderr.
type UsageError struct {
	Problem *messages.Error   // its code is INVALID
	Path    []*urfave.Command // the command it was about; empty: kvctl itself
}

func (e *UsageError) Error() string { return e.Problem.Error() }
func (e *UsageError) Unwrap() error { return e.Problem }

func usagef(path []*urfave.Command, hint, format string, args ...any) *UsageError {
	problem := messages.Errorf(messages.Code_INVALID, format, args...)
	problem.Hint = hint
	return &UsageError{Problem: problem, Path: path}
}

// Line is a command line that was understood.
type Line struct {
	// Argv is the one order in which urfave/cli reads every line as it was meant:
	// kvctl GLOBALS path LOCALS -- -- ARGS. The library eats the first "--"; the
	// second keeps it from taking an argument for a command.
	Argv []string
	Path []*urfave.Command // the command, from the top; empty: kvctl alone
	Args []string
	Help bool // help was asked for; Argv is not meant to be run
}

// Normalize sorts a command line into the order that urfave/cli understands.
// Flags may stand anywhere: before, between and after commands and arguments.
// A word that begins with "-" is a flag unless it is "-" alone, follows a flag
// that takes a value, or follows "--". It reads the tree of app and changes
// nothing. Errors are *UsageError.
func Normalize(app *urfave.App, argv []string) (Line, error) {
	l := read(app, argv[min(1, len(argv)):])
	if l.help && l.unknownWord == "" {
		return Line{Path: l.path, Help: true}, nil
	}
	if l.version && l.unknownWord == "" { // it stands for the command, wherever it stands
		l.path, l.args = []*urfave.Command{named(app.Commands, versionFlag)}, nil
	}
	if err := l.check(app); err != nil {
		return Line{Path: l.path}, err
	}
	return Line{Argv: l.arrange(app), Path: l.path, Args: l.args}, nil
}

// given is one flag of a line.
type given struct {
	flag  urfave.Flag // nil: no command has one of this name
	word  string      // as it was written
	name  string      // the flag's first name
	value string
	bare  bool // it stands without a value
}

// words is a command line read without judgement: completion reads unfinished
// lines the same way.
type words struct {
	path        []*urfave.Command
	flags       []given
	args        []string
	help        bool
	version     bool
	unknownWord string // stands where a command was expected
	dangling    string // the flag at the end whose value is missing
	closed      bool   // "--" was seen: only arguments follow
}

func read(app *urfave.App, line []string) words {
	var l words
	for i := 0; i < len(line); i++ {
		switch word := line[i]; {
		case l.closed:
			l.word(app, word)
		case word == "--":
			l.closed = true
		case len(word) > 1 && word[0] == '-':
			i += l.flag(app, word, line[i+1:])
		default:
			l.word(app, word)
		}
	}
	return l
}

func (l *words) word(app *urfave.App, word string) {
	commands := below(app, l.path)
	if len(commands) == 0 {
		l.args = append(l.args, word)
		return
	}
	if l.unknownWord != "" {
		return // what follows an unknown command means nothing
	}
	if c := named(commands, word); c != nil && !l.closed && len(l.args) == 0 {
		l.path = append(l.path, c)
		return
	}
	if n := len(l.path); n > 0 && l.path[n-1].ArgsUsage != "" { // as in backup PATH, beside backup verify
		l.args = append(l.args, word)
		return
	}
	l.unknownWord = word
}

// flag reads one flag and says how many of the words behind it were its value.
func (l *words) flag(app *urfave.App, word string, rest []string) int {
	name, value, valued := strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
	f := flagNamed(app, name)
	if short := flagNamed(app, word[1:2]); f == nil && word[1] != '-' && short != nil && takesValue(short) {
		f, value, valued = short, word[2:], true // as in -ojson
	}
	g := given{flag: f, word: word, value: value, bare: !valued}
	if f == nil {
		l.flags = append(l.flags, g)
		return 0
	}
	g.name = f.Names()[0]
	taken := 0
	if g.bare && takesValue(f) {
		if len(rest) == 0 {
			l.dangling = word
			return 0
		}
		g.value, g.bare, taken = rest[0], false, 1
	}
	switch g.name {
	case helpFlag:
		l.help = true
	case versionFlag:
		l.version = true
	}
	l.flags = append(l.flags, g)
	return taken
}

// check finds the first thing that is wrong with a line.
func (l *words) check(app *urfave.App) error {
	commands := below(app, l.path)
	if l.unknownWord != "" {
		return usagef(l.path, suggest(l.unknownWord, commandNames(commands)), "unknown command %q", join(l.path, l.unknownWord))
	}
	for _, g := range l.flags {
		if g.flag == nil || !owns(flagsOf(app, l.path), g.name) {
			return l.unknownFlag(app, g)
		}
	}
	switch {
	case l.dangling != "":
		return usagef(l.path, "", "flag %s needs a value", l.dangling)
	case len(l.path) > 0 && len(commands) > 0 && l.path[len(l.path)-1].Action == nil:
		return usagef(l.path, "", "%s needs a command: %s", join(l.path), strings.Join(commandNames(commands), ", "))
	case len(l.path) > 0 && !l.plan():
		return checkCount(l.path, l.args)
	}
	return nil
}

// plan reports whether the one argument is a plan that is to be carried out: it says all that
// arguments would.
func (l *words) plan() bool {
	asked := slices.ContainsFunc(l.flags, func(g given) bool { return g.name == planFlag })
	return asked && len(l.args) == 1 && client.IsPlan(l.args[0])
}

func (l *words) unknownFlag(app *urfave.App, g given) error {
	if g.flag != nil {
		return usagef(l.path, "", "%s has no flag %s", join(l.path), g.word)
	}
	name, _, _ := strings.Cut(g.word, "=")
	hint := suggest(name, flagWords(app, l.path))
	if hint == "" && len(l.path) > 0 && !strings.HasPrefix(g.word, "--") {
		hint = fmt.Sprintf("if %s is an argument, write -- before it", g.word)
	}
	return usagef(l.path, hint, "unknown flag %s", name)
}

// arrange writes the line in Line.Argv's order. A value travels in its flag's
// own word, so that it may be anything.
func (l *words) arrange(app *urfave.App) []string {
	argv := []string{app.Name}
	argv = l.appendFlags(argv, app.Flags)
	for _, c := range l.path {
		argv = append(argv, c.Name)
		argv = l.appendFlags(argv, c.Flags)
	}
	argv = append(argv, "--", "--")
	return append(argv, l.args...)
}

func (l *words) appendFlags(argv []string, of []urfave.Flag) []string {
	for _, g := range l.flags {
		switch {
		case !owns(of, g.name):
		case g.bare:
			argv = append(argv, "--"+g.name)
		default:
			argv = append(argv, "--"+g.name+"="+g.value)
		}
	}
	return argv
}

// Arguments are declared once, in ArgsUsage: "KEY [VALUE]" takes one or two,
// "[COMMAND...]" any number.
func checkCount(path []*urfave.Command, args []string) error {
	declared := path[len(path)-1].ArgsUsage
	least, most := 0, 0
	for _, word := range strings.Fields(declared) {
		most++
		if !strings.HasPrefix(word, "[") {
			least++
		}
	}
	many := strings.Contains(declared, "...")
	switch {
	case len(args) < least:
		return usagef(path, "", "%s needs %s", join(path), declared)
	case len(args) <= most || many:
		return nil
	case most == 0:
		return usagef(path, "", "%s takes no arguments, but %q was given", join(path), args[0])
	default:
		return usagef(path, "quote a value that holds spaces", "%s takes %s, but %q was given too", join(path), declared, args[most])
	}
}

// below is the commands that may follow a path.
func below(app *urfave.App, path []*urfave.Command) []*urfave.Command {
	if len(path) == 0 {
		return app.Commands
	}
	return path[len(path)-1].Subcommands
}

func named(commands []*urfave.Command, name string) *urfave.Command {
	i := slices.IndexFunc(commands, func(c *urfave.Command) bool { return c.HasName(name) })
	if i < 0 {
		return nil
	}
	return commands[i]
}

// flagNamed finds a flag anywhere in the tree: a flag may stand before the
// command that owns it, so a name must have one arity over the whole tree.
// Whether the line's own command has it is for owns to say.
func flagNamed(app *urfave.App, name string) urfave.Flag {
	var found urfave.Flag
	eachFlag(app, func(f urfave.Flag) {
		if found == nil && slices.Contains(f.Names(), name) {
			found = f
		}
	})
	return found
}

func eachFlag(app *urfave.App, visit func(urfave.Flag)) {
	for _, f := range app.Flags {
		visit(f)
	}
	var walk func([]*urfave.Command)
	walk = func(commands []*urfave.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				visit(f)
			}
			walk(c.Subcommands)
		}
	}
	walk(app.Commands)
}

func owns(flags []urfave.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f urfave.Flag) bool { return f.Names()[0] == name })
}

// flagsOf is what may stand on a line of this command: the global flags first.
func flagsOf(app *urfave.App, path []*urfave.Command) []urfave.Flag {
	flags := slices.Clone(app.Flags)
	for _, c := range path {
		flags = append(flags, c.Flags...)
	}
	return flags
}

func takesValue(f urfave.Flag) bool {
	d, ok := f.(urfave.DocGenerationFlag)
	return ok && d.TakesValue()
}

func commandNames(commands []*urfave.Command) []string {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func flagWords(app *urfave.App, path []*urfave.Command) []string {
	var all []string
	for _, f := range flagsOf(app, path) {
		all = append(all, flagWord(f.Names()[0]))
	}
	return all
}

func flagWord(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func join(path []*urfave.Command, more ...string) string {
	names := []string{}
	for _, c := range path {
		names = append(names, c.Name)
	}
	names = append(names, more...)
	if len(names) == 0 {
		return binary
	}
	return strings.Join(names, " ")
}

// suggest names the nearest of known if word may be a slip of the fingers. (urfave/cli
// always suggests something, however far from word, and may name a hidden command.)
func suggest(word string, known []string) string {
	best, least := "", 3
	if len(word) > 32 {
		return ""
	}
	for _, k := range known {
		if d := distance(word, k); d > 0 && d < least && d < len(k)-1 {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
