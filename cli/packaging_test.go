package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
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
