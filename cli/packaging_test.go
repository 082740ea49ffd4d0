package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	urfave "github.com/urfave/cli/v2"
)

// TestPackagedSettings: every setting of the packaged file, also of those that are only
// shown, is a flag of serve.
func TestPackagedSettings(t *testing.T) {
	text, err := os.ReadFile("packaging/node.toml")
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for line := range strings.Lines(string(text)) {
		if setting := strings.TrimPrefix(line, "# "); strings.Contains(setting, " = ") {
			shown.WriteString(setting)
		}
	}
	var settings map[string]any
	if _, err := toml.Decode(shown.String(), &settings); err != nil {
		t.Fatal(err)
	}
	if len(settings) < 6 {
		t.Errorf("only %v are shown", settings)
	}
	app := newApp(&Shell{})
	taken := named(app.Commands, "serve").Flags
	for _, f := range keyFlags {
		taken = append(taken, flagNamed(app, f.flag))
	}
	for key := range settings {
		if !owns(taken, key) {
			t.Errorf("serve has no flag for %q", key)
		}
	}
}

// TestUnit: systemd takes the unit of the package without a word.
func TestUnit(t *testing.T) {
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd here")
	}
	text, err := os.ReadFile("packaging/keyval.service")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "keyval.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/bin/kvctl"), []byte(here)), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(verify, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestManual: the manual has every command that people see.
func TestManual(t *testing.T) {
	got := run{}.kvctl(t, "man")
	if got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	var look func([]*urfave.Command)
	look = func(commands []*urfave.Command) {
		for _, c := range commands {
			if !c.Hidden && !strings.Contains(got.out, c.Name) {
				t.Errorf("%s is not in the manual", c.Name)
			}
			look(c.Subcommands)
		}
	}
	look(newApp(&Shell{}).Commands)
}

// TestContainerFile: a builder takes the container file without a warning. The image is not
// root's, needs no shell, and its variables are those of serve.
func TestContainerFile(t *testing.T) {
	file, err := os.Open("packaging/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range parsed.Warnings {
		t.Error(w.Short)
	}
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{
		Warn: func(rule, description, _, text string, _ []parser.Range) {
			t.Errorf("%s: %s (%s)", rule, text, description)
		},
	}))
	if err != nil || len(stages) != 1 {
		t.Fatalf("%d stages: %v", len(stages), err)
	}
	var user string
	for _, command := range stages[0].Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			if c.PrependShell || user == "" {
				t.Errorf("%s needs a shell, or runs as root", c)
			}
		case *instructions.CmdCommand:
			if app := newApp(&Shell{}); c.PrependShell || named(app.Commands, c.CmdLine[0]) == nil {
				t.Errorf("%s needs a shell, or is no command of kvctl", c)
			}
		case *instructions.EnvCommand:
			for _, e := range c.Env {
				if !owns(named(newApp(&Shell{}).Commands, "serve").Flags, strings.ToLower(strings.TrimPrefix(e.Key, "KVCTL_"))) {
					t.Errorf("serve reads no %s", e.Key)
				}
			}
		case *instructions.RunCommand:
			t.Errorf("%s: there is no shell in the image", c)
		}
	}
	if name, _, _ := strings.Cut(user, ":"); name == "" || name == "0" || name == "root" {
		t.Errorf("the image runs as %q", user)
	}
}
