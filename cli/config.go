package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// A node's settings may stand in its environment or in a file, so that a unit file or an
// image need no command line: the flag counts, else the variable, else the file.

const configFlag = "config"

func configFileFlag() urfave.Flag {
	return &urfave.StringFlag{Name: configFlag, TakesFile: true,
		Usage: "read what the line leaves out from `FILE` (TOML; its keys are the flags' names), or from variables: KVCTL_LISTEN for --listen"}
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "KVCTL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fill sets the command's own flags that the line leaves out. A value that its flag does
// not take, and a key that no flag has, are usage errors that name where they stand.
func (c *Call) fill() error {
	own := slices.Clone(c.path[len(c.path)-1].Flags)
	for _, f := range keyFlags {
		own = append(own, flagNamed(c.app, f.flag))
	}
	set := func(flag, value, source string) error {
		if err := c.flags.Set(flag, value); err != nil {
			return c.usage("", "%s takes %s, not %q", source, takes(flagNamed(c.app, flag)), value)
		}
		if c.sources == nil {
			c.sources = map[string]string{}
		}
		c.sources[flag] = source
		return nil
	}
	for _, f := range own {
		name := f.Names()[0]
		if value := c.Env(variable(name)); value != "" && !c.flags.IsSet(name) {
			if err := set(name, value, variable(name)); err != nil {
				return err
			}
		}
	}
	file := c.flags.String(configFlag)
	if file == "" {
		return nil
	}
	settings, err := readConfig(file)
	if err != nil {
		return err
	}
	for _, s := range settings {
		name := strings.ReplaceAll(s.key, "_", "-")
		if name == configFlag || !owns(own, name) {
			return messages.Errorf(messages.Code_INVALID, "%s: %s has no setting %q", file, join(c.path), s.key).
				WithHint("%s", nameOr(suggest(name, flagNames(own)), "its keys are the names of the flags of "+commandLine(c.path)))
		}
		if !c.flags.IsSet(name) {
			if err := set(name, s.value, file+": "+s.key); err != nil {
				return err
			}
		}
	}
	return nil
}

type fileSetting struct{ key, value string }

// readConfig reads the settings of a file, by key.
func readConfig(file string) ([]fileSetting, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "--%s: %v", configFlag, err).WithHint("name a file that can be read")
	}
	var all map[string]any
	if _, err := toml.Decode(string(text), &all); err != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "%s: %v", file, err).WithHint("write it as TOML: listen = \"10.0.0.1:7001\"")
	}
	var settings []fileSetting
	for key, value := range all {
		switch value.(type) {
		case string, int64, float64, bool:
		default:
			return nil, messages.Errorf(messages.Code_INVALID, "%s: %s is neither a text, a number, nor true or false", file, key).
				WithHint("write it as the flag takes it: listen = \"10.0.0.1:7001\"")
		}
		settings = append(settings, fileSetting{key, fmt.Sprint(value)})
	}
	slices.SortFunc(settings, func(a, b fileSetting) int { return strings.Compare(a.key, b.key) })
	return settings, nil
}

func flagNames(flags []urfave.Flag) []string {
	var names []string
	for _, f := range flags {
		names = append(names, f.Names()[0])
	}
	return names
}
