// Package cli is kvctl: one binary that is client, operator's tool, node, local
// cluster and simulator. One file holds one command.
//
// A command line is sorted by Normalize, run by urfave/cli, and ends in one of
// the exit codes of exit.go. Data goes to stdout, all else to stderr.
package cli

import (
	"context"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/term"

	"keyval/actors/client"
	"keyval/actors/seam/production"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
)

const binary = "kvctl"

// Shell is what kvctl has of the world around it.
type Shell struct {
	Stdin                 io.Reader
	Stdout, Stderr        io.Writer
	InTTY, OutTTY, ErrTTY bool
	Columns               int // of the terminal behind Stdout; 0: not known
	Env                   func(name string) string
	// Invoked is the command as the user wrote it, Self the path of the binary.
	Invoked, Self string
	// Connect finds a cluster. One call lasts at most timeout.
	Connect func(ctx context.Context, endpoints []string, timeout time.Duration) (Store, error)
	// ConnectTo finds one node, and asks no other.
	ConnectTo func(ctx context.Context, endpoint string, timeout time.Duration) (Store, error)
	// Probe fails at once if nobody listens at an endpoint. (Connect would go on
	// trying.)
	Probe func(ctx context.Context, endpoint string, timeout time.Duration) error

	// Login asks for a token.
	Login func(ctx context.Context, o client.LoginOptions) (client.LoginResult, error)

	argv  []string            // the line that runs
	lines []*production.Lines // that are written to without waiting: Stderr after outlast, and a log file
}

// NewShell is the Shell of this process.
func NewShell() *Shell {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	columns, _, _ := term.GetSize(int(os.Stdout.Fd())) // 0 where that is no terminal
	return &Shell{
		Columns: columns,
		Stdin:   os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		InTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		OutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTTY: term.IsTerminal(int(os.Stderr.Fd())),
		Env:    os.Getenv, Invoked: os.Args[0], Self: self,
		Connect: connect, ConnectTo: connectTo, Probe: probe, Login: client.Login,
	}
}

// Run runs one command line (argv[0] is the program) and returns its exit code.
func Run(ctx context.Context, sh Shell, argv []string) int {
	out := &sticky{w: sh.Stdout}
	sh.Stdout, sh.argv = out, argv
	app := newApp(&sh)
	if len(argv) > 1 && argv[1] == completeWord {
		complete(sh.Stdout, app, argv[2:])
		return exitOK
	}
	line, err := Normalize(app, argv)
	switch {
	case err != nil:
	case line.Help:
		writeHelp(sh.Stdout, app, line.Path)
	default:
		err = app.RunContext(ctx, line.Argv)
	}
	if err == nil && out.err != nil {
		err = out.failure()
	}
	code := report(&sh, app, errorStyleOf(&sh, app, argv), err)
	if err != nil && interrupted(ctx) {
		code = exitInterrupted // whatever was under way came to nothing for that, and says how it stands
	}
	for _, l := range sh.lines {
		l.Close(partingMax)
	}
	return code
}

// partingMax is how long the last words of a node wait for whoever reads them.
const partingMax = time.Second

// outlast is for commands that serve others: what becomes of those who read its output must
// not end the process nor stop it. A pipe whose reader has gone is an error like any other
// from then on, and nobody waits for stderr. How many lines were lost there stands in format.
func (sh *Shell) outlast(format newHandler) {
	signal.Ignore(syscall.SIGPIPE)
	lines := production.NewLines(sh.Stderr, format)
	sh.lines = append(sh.lines, lines)
	sh.Stderr = lines
}

// newApp is the whole tree of commands.
func newApp(sh *Shell) *urfave.App {
	app := &urfave.App{
		Name:  binary,
		Usage: "a replicated, strongly consistent key-value store",
		Description: `Without a command kvctl shows the state of the cluster.
Flags may stand before or after arguments; what follows -- is an argument.`,
		UsageText: `kvctl dev
kvctl put hello world
kvctl get hello`,
		Flags: globalFlags(),
		Commands: []*urfave.Command{
			newPut(sh), newGet(sh), newScan(sh), newDelete(sh), newStatus(sh), newTop(sh), newDoctor(sh),
			newCluster(sh), newOps(sh),
			newSnapshot(sh), newBackup(sh), newRestore(sh), newRebuild(sh), newExport(sh), newImport(sh), newCompact(sh), newVerify(sh), newBench(sh),
			newServe(sh), newCert(sh), newUser(sh), newAuth(sh), newLogin(sh), newLogout(sh), newWhoami(sh), newDev(sh), newSim(sh),
			newVersion(sh), newCompletion(sh), newHelp(sh), newMan(sh),
		},
		Action:                    sh.action(home),
		HideHelp:                  true, // help is ours: it must also go to stderr
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*urfave.Context, error) {}, // exit codes are report's part
		Reader:                    sh.Stdin, Writer: sh.Stdout, ErrWriter: sh.Stderr,
	}
	app.OnUsageError = onUsageError(nil)
	var prepare func([]*urfave.Command, []*urfave.Command)
	prepare = func(path, commands []*urfave.Command) {
		for _, c := range commands {
			own := append(path[:len(path):len(path)], c)
			c.HideHelp, c.HideHelpCommand = true, true
			c.OnUsageError = onUsageError(own)
			prepare(own, c.Subcommands)
		}
	}
	prepare(nil, app.Commands)
	return app
}

// refusedFlag is how package flag names a value that it refuses, and its flag.
var refusedFlag = regexp.MustCompile(`^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-([a-z-]+): `)

// onUsageError says which value a flag refused, and what it takes.
func onUsageError(path []*urfave.Command) urfave.OnUsageErrorFunc {
	return func(u *urfave.Context, err error, _ bool) error {
		refused := refusedFlag.FindStringSubmatch(err.Error())
		if refused == nil {
			return usagef(path, "", "%v", err)
		}
		return usagef(path, "", "--%s takes %s, not %s", refused[2], takes(flagNamed(u.App, refused[2])), refused[1])
	}
}

// takes is what a flag's value is, for people.
func takes(f urfave.Flag) string {
	switch f.(type) {
	case *urfave.DurationFlag:
		return "a duration such as 500ms, 10s or 1m"
	case *urfave.Float64Flag:
		return "a number"
	case *urfave.BoolFlag:
		return "true or false"
	case *urfave.Uint64Flag, *urfave.UintFlag:
		return "a whole number, not negative"
	case *urfave.IntFlag, *urfave.Int64Flag:
		return "a whole number"
	}
	return "another value"
}

// Call is one command being run.
type Call struct {
	context.Context
	*Shell
	Args   []string
	Format Format
	app    *urfave.App
	path   []*urfave.Command
	flags  *urfave.Context

	sources map[string]string // by flag: where its value is from, if not from the line
}

// action makes a command's function one that urfave/cli runs.
func (sh *Shell) action(run func(*Call) error) urfave.ActionFunc {
	return func(u *urfave.Context) error {
		c := &Call{Context: u.Context, Shell: sh, Args: u.Args().Slice(), app: u.App, path: pathOf(u), flags: u}
		if len(c.Args) > 0 && c.Args[0] == "--" { // the second of Line.Argv's
			c.Args = c.Args[1:]
		}
		var err error
		if c.Format, err = formatOf(c); err != nil {
			return err
		}
		c.Context = withKeys(c.Context, sync.OnceValues(func() (*keys.Ring, error) { return c.ring(transport.UserKey) }))
		return run(c)
	}
}

// pathOf is the commands from the top down to the one that runs.
func pathOf(u *urfave.Context) []*urfave.Command {
	var path []*urfave.Command
	for _, up := range u.Lineage() {
		if up.Command != nil && up.Command.Name != binary && up.Command.Name != "" {
			path = append([]*urfave.Command{up.Command}, path...)
		}
	}
	return path
}

// usage is a usage error about the command that runs.
func (c *Call) usage(hint, format string, args ...any) error {
	return usagef(c.path, hint, format, args...)
}

// self is how this binary is called in commands for people to paste.
func (sh *Shell) self() string {
	if found, err := exec.LookPath(binary); err == nil && sameFile(found, sh.Self) {
		return binary
	}
	if strings.ContainsRune(sh.Invoked, os.PathSeparator) {
		return quoteWord(sh.Invoked)
	}
	return quoteWord(sh.Self)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// quoteWord writes a word as a shell reads it back.
func quoteWord(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:,=@%", r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
