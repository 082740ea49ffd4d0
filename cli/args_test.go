package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	urfave "github.com/urfave/cli/v2"
)

// tree is the real tree of commands with actions that only tell.
func tree(ran *[]string) *urfave.App {
	sh := &Shell{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Env: func(string) string { return "" }}
	app := newApp(sh)
	tell := func(u *urfave.Context) error {
		line := u.Command.Name
		for _, f := range flagsOf(app, pathOf(u)) {
			if name := f.Names()[0]; u.IsSet(name) {
				line += fmt.Sprintf(" %s=%v", name, u.Value(name))
			}
		}
		*ran = append(*ran, line+fmt.Sprintf(" %q", u.Args().Slice()))
		return nil
	}
	app.Action = tell
	var replace func([]*urfave.Command)
	replace = func(commands []*urfave.Command) {
		for _, c := range commands {
			if c.Action != nil {
				c.Action = tell
			}
			replace(c.Subcommands)
		}
	}
	replace(app.Commands)
	return app
}

// once sorts and runs a line, and returns what ran.
func once(words ...string) (ran []string, err error) {
	app := tree(&ran)
	line, err := Normalize(app, append([]string{"kvctl"}, words...))
	if err != nil {
		return nil, err
	}
	if line.Help {
		return []string{"help " + join(line.Path)}, nil
	}
	return ran, app.RunContext(context.Background(), line.Argv)
}

func TestLines(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"", `kvctl ["--"]`},
		{"put k v", `put ["--" "k" "v"]`},
		{"put help me", `put ["--" "help" "me"]`},
		{"put put put", `put ["--" "put" "put"]`},
		{"put k -", `put ["--" "k" "-"]`},
		{"put k @v", `put ["--" "k" "@v"]`},
		{"put k -- -5", `put ["--" "k" "-5"]`},
		{"put -- k --json", `put ["--" "k" "--json"]`},
		{"put k -- --", `put ["--" "k" "--"]`},
		{"put k --file -5", `put file=-5 ["--" "k"]`},
		{"put k --file --", `put file=-- ["--" "k"]`},
		{"put k --file=--json", `put file=--json ["--" "k"]`},
		{"--file f put k", `put file=f ["--" "k"]`},
		{"get --json k", `get json=true ["--" "k"]`},
		{"get -json k", `get json=true ["--" "k"]`},
		{"get k -o simple -o jsonl", `get output=jsonl ["--" "k"]`},
		{"get k --output simple -o jsonl", `get output=jsonl ["--" "k"]`},
		{"get k --raw=false", `get raw=false ["--" "k"]`},
		{"status --endpoints a:1,b:2", `status endpoints=a:1,b:2 ["--"]`},
		{"--timeout 1s", `kvctl timeout=1s ["--"]`},
		{"sim run --seed 3 --faults off", `run seed=3 faults=off ["--"]`},
		{"--seed 3 sim --faults=off run", `run seed=3 faults=off ["--"]`},
		{"sim", `error: sim needs a command: run, script`},
		{"sim rn", `error: unknown command "sim rn"; did you mean run?`},
		{"help", `help ["--"]`},
		{"help put", `help ["--" "put"]`},
		{"put --help", `help put`},
		{"-h put k v", `help put`},
		{"put k -h --bogus", `help put`},
		{"--help", `help kvctl`},
		{"status -ojson", `status output=json ["--"]`},
		{"--version", `version version=true ["--"]`},
		{"put k --version", `version version=true ["--"]`},

		{"bogus", `error: unknown command "bogus"`},
		{"clutser level", `error: unknown command "clutser"; did you mean cluster?`},
		{"cluster bogus", `error: unknown command "cluster bogus"`},
		{"cluster", `error: cluster needs a command: info, health, leader, members, member, add, remove, promote, replace, transfer, update, token, spare, autoreplace, upgrade, level, recover`},
		{"cluster level", `level ["--"]`},
		{"cluster --json level", `level json=true ["--"]`},
		{"cluster level rise", `error: unknown command "cluster level rise"; did you mean raise?`},
		{"cluster level raise", `raise ["--"]`},
		{"cluster level raise 2 --yes", `raise yes=true ["--" "2"]`},
		{"cluster level --yes raise", `raise yes=true ["--"]`},
		{"cluster level --yes", `error: cluster level has no flag --yes`},
		{"bogus --help", `error: unknown command "bogus"`},
		{"-- put k v", `error: unknown command "put"; did you mean auth?`},
		{"pit k v --bogus", `error: unknown command "pit"; did you mean put?`},
		{"put k v --bogus", `error: unknown flag --bogus`},
		{"--bogus put k v", `error: unknown flag --bogus`},
		{"put --bogus=1 k v", `error: unknown flag --bogus`},
		{"put k v --jsno", `error: unknown flag --jsno; did you mean --json?`},
		{"put k -5", `error: unknown flag -5; if -5 is an argument, write -- before it`},
		{"put k v ---json", `error: unknown flag ---json; did you mean --json?`},
		{"put k v --=x", `error: unknown flag --`},
		{"put k v --raw", `error: put has no flag --raw`},
		{"--nodes 3 get k", `error: get has no flag --nodes`},
		{"get k --timeout", `error: flag --timeout needs a value`},
		{"get k --revision abc", `error: --revision takes a whole number, not negative, not "abc"`},
		{"get k --timeout x", `error: --timeout takes a duration such as 500ms, 10s or 1m, not "x"`},
		{"get k --raw=maybe", `error: --raw takes true or false, not "maybe"`},
		{"put", `error: put needs KEY [VALUE]`},
		{"get", `error: get needs KEY`},
		{"get a b", `error: get takes KEY, but "b" was given too; quote a value that holds spaces`},
		{"status x", `error: status takes no arguments, but "x" was given`},
	} {
		t.Run(test.line, func(t *testing.T) {
			ran, err := once(strings.Fields(test.line)...)
			got := strings.Join(ran, " AND ")
			if err != nil {
				var usage *UsageError
				if !errors.As(err, &usage) {
					t.Fatalf("%v is %T, not *UsageError", err, err)
				}
				got = "error: " + usage.Problem.Message
				if usage.Problem.Hint != "" {
					got += "; " + usage.Problem.Hint
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPlacements puts three flags, two of them with a value, into every gap of a
// line: 64 lines, one run.
func TestPlacements(t *testing.T) {
	flags := [][]string{{"--timeout", "3s"}, {"--file=f"}, {"--json"}}
	words := []string{"put", "k", "v"}
	lines := 0
	for place := range 64 {
		gaps := []int{place % 4, place / 4 % 4, place / 16}
		var line []string
		for gap := range len(words) + 1 {
			for i, f := range flags {
				if gaps[i] == gap {
					line = append(line, f...)
				}
			}
			if gap < len(words) {
				line = append(line, words[gap])
			}
		}
		ran, err := once(line...)
		want := []string{`put timeout=3s json=true file=f ["--" "k" "v"]`}
		if err != nil || !slices.Equal(ran, want) {
			t.Errorf("%q: ran %q, error %v", line, ran, err)
		}
		lines++
	}
	if lines != 64 {
		t.Errorf("%d lines", lines)
	}
}

// TestFlagNames: a name has one arity and one meaning over the whole tree, since
// a flag may stand before the command that owns it.
func TestFlagNames(t *testing.T) {
	app := tree(new([]string))
	declared := map[string]string{}
	eachFlag(app, func(f urfave.Flag) {
		d, ok := f.(urfave.DocGenerationFlag)
		if !ok {
			t.Fatalf("%v has no documentation", f.Names())
		}
		for _, name := range f.Names() {
			arity := fmt.Sprintf("%T takes a value: %v", f, d.TakesValue())
			if other, ok := declared[name]; ok && other != arity {
				t.Errorf("--%s is %s and %s", name, other, arity)
			}
			declared[name] = arity
		}
	})
	if len(declared) < 15 {
		t.Errorf("only %d flags", len(declared))
	}
}

func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{
		"put k v", "--json get k --raw", "put k -- -5", "sim run --seed 1", "dev --nodes=3 --data d", "put help -h",
		"-o json status", "completion bash", "help sim run", "- -- --- = --= -o", "--file -- put k", "get k --timeout 1x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words := strings.Split(text, " ")
		ran, err := once(words...)
		if err == nil && len(ran) != 1 {
			t.Fatalf("%q ran %q", words, ran)
		}
		if err != nil && len(ran) != 0 {
			t.Fatalf("%q ran %q and failed: %v", words, ran, err)
		}
		var usage *UsageError
		if err != nil && !errors.As(err, &usage) {
			t.Fatalf("%q: %v is %T", words, err, err)
		}
		complete(io.Discard, tree(new([]string)), words)
	})
}
