package cli

import (
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/transport/grpc"
)

// A setting comes from its flag, else from its environment variable, else it has
// its default. urfave's own EnvVars are not used: they take an empty variable
// for a value, and a bad one for an error even where the flag is given.
const (
	envEndpoints = "KVCTL_ENDPOINTS"
	envTimeout   = "KVCTL_TIMEOUT"
	envOutput    = "KVCTL_OUTPUT"

	defaultEndpoints = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003"
	defaultTimeout   = 10 * time.Second
)

func globalFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "endpoints", Usage: "ask the nodes at `HOST:PORT,...`; any node serves any command [$" + envEndpoints + "]", DefaultText: defaultEndpoints},
		&urfave.StringFlag{Name: "server", Usage: "ask the one node at `HOST:PORT`, instead of --endpoints"},
		&urfave.StringFlag{Name: "certs-dir", TakesFile: true, Usage: "prove who this is with the keys in `DIR`: ca.crt, and client.crt and client.key, of serve node.crt and node.key [$" + envCertsDir + "]"},
		&urfave.StringFlag{Name: "cacert", TakesFile: true, Usage: "trust the authorities in `FILE`, instead of --certs-dir [$" + envCACert + "]"},
		&urfave.StringFlag{Name: "cert", TakesFile: true, Usage: "the own certificate, with --cacert and --key, is in `FILE` [$" + envCert + "]"},
		&urfave.StringFlag{Name: "key", TakesFile: true, Usage: "its key is in `FILE` [$" + envKey + "]"},
		&urfave.StringFlag{Name: "login-file", TakesFile: true, Usage: "keep the token of kvctl login in `FILE`, and show it where there is no certificate [$" + envLoginFile + "]"},
		&urfave.DurationFlag{Name: "timeout", Usage: "give up after `DURATION`, such as 500ms or 1m [$" + envTimeout + "]", DefaultText: defaultTimeout.String()},
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "print as `FORMAT`: table, json, jsonl or simple [$" + envOutput + "]", DefaultText: string(Table)},
		&urfave.BoolFlag{Name: "json", Usage: "short for -o json; errors are JSON too"},
		&urfave.BoolFlag{Name: "no-color", Usage: "never print colour"},
		&urfave.BoolFlag{Name: versionFlag, Aliases: []string{"v"}, Usage: "show what this binary is"},
		&urfave.BoolFlag{Name: helpFlag, Aliases: []string{"h"}, Usage: "show help for a command"},
	}
}

// endpoints is the nodes to ask, each once, in the order given.
func (c *Call) endpoints() ([]string, error) {
	given, server := c.flags.IsSet("endpoints"), c.flags.IsSet("server")
	switch {
	case given && server:
		return nil, c.usage("give all nodes to --endpoints", "--endpoints and --server exclude each other")
	case server:
		return c.parseEndpoints("--server", c.flags.String("server"), false)
	case given:
		return c.parseEndpoints("--endpoints", c.flags.String("endpoints"), true)
	case c.Env(envEndpoints) != "":
		return c.parseEndpoints(envEndpoints, c.Env(envEndpoints), true)
	}
	return strings.Split(defaultEndpoints, ","), nil
}

func (c *Call) parseEndpoints(source, text string, several bool) ([]string, error) {
	list := []string{text}
	if several {
		list = strings.Split(text, ",")
	}
	var endpoints []string
	for _, e := range list {
		e = strings.TrimSpace(e)
		if err := grpc.CheckReachable(e); err != nil {
			return nil, c.usage(err.Hint, "%s: %s", source, err.Message)
		}
		if !slices.Contains(endpoints, e) {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, nil
}

func (c *Call) timeout() (time.Duration, error) {
	given, source := c.flags.Duration("timeout"), "--timeout"
	if !c.flags.IsSet("timeout") {
		text := c.Env(envTimeout)
		if text == "" {
			return defaultTimeout, nil
		}
		var err error
		source = envTimeout
		if given, err = time.ParseDuration(text); err != nil {
			return 0, c.usage("", "%s: %q is no duration such as 500ms, 10s or 1m", source, text)
		}
	}
	if given <= 0 {
		return 0, c.usage("", "%s must be more than nothing, not %v", source, given)
	}
	return given, nil
}

// timeoutGiven reports whether somebody chose the timeout.
func (c *Call) timeoutGiven() bool { return c.flags.IsSet("timeout") || c.Env(envTimeout) != "" }

func formatOf(c *Call) (Format, error) {
	output, json := c.flags.IsSet("output"), c.flags.Bool("json")
	text, source := c.Env(envOutput), envOutput
	if output {
		text, source = c.flags.String("output"), "--output"
	}
	switch {
	case json && output && text != string(JSON):
		return "", c.usage("", "--json and --output %s exclude each other", text)
	case json:
		return JSON, nil
	case text == "" && !output:
		return Table, nil
	case !slices.Contains(choices["output"], text):
		return "", c.usage("", "%s: %q is none of %s", source, text, strings.Join(choices["output"], ", "))
	}
	return Format(text), nil
}

// errorStyle is how errors are printed. It is known even of lines that are not
// understood.
type errorStyle struct{ json, colour bool }

func errorStyleOf(sh *Shell, app *urfave.App, argv []string) errorStyle {
	format, style := sh.Env(envOutput), errorStyle{colour: sh.ErrTTY && sh.colourful()}
	for _, g := range read(app, argv[min(1, len(argv)):]).flags {
		on := g.bare || g.value == "true"
		switch {
		case g.name == "output":
			format = g.value
		case g.name == "json" && on:
			style.json = true
		case g.name == "no-color" && on:
			style.colour = false
		}
	}
	style.json = style.json || Format(format).structured()
	return style
}
