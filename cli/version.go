package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
)

// Version is set when a release is built: -ldflags "-X keyval/cli.Version=v1.2.3".
var Version = ""

func newVersion(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:        "version",
		Usage:       "show what this binary is",
		Description: "PROTOCOL is spoken between nodes; LEVEL is the newest cluster level this binary understands.",
		UsageText:   "kvctl version --json",
		Action: sh.action(func(c *Call) error {
			v := versionJSON{version(), runtime.Version(), messages.ProtocolVersion, messages.Level}
			switch c.Format {
			case Table:
				_, err := fmt.Fprintf(c.Stdout, "%s %s\n%s\nprotocol %d\nlevel %d\n", binary, v.Version, v.Go, v.Protocol, v.Level)
				return err
			case Simple:
				_, err := fmt.Fprintln(c.Stdout, v.Version)
				return err
			}
			return c.printJSON(v)
		}),
	}
}

type versionJSON struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Protocol int    `json:"protocol"`
	Level    int    `json:"level"`
}

// version is the release, or what the build knows of its checkout.
func version() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = "-" + s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	return "devel" + revision + modified
}
