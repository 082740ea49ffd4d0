package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/messages"
)

func newLevel(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:  "level",
		Usage: "show the cluster's level, and which levels each node supports",
		Description: `The level says what the log may hold: all nodes understand it, whatever their version.
What a newer version brings can be used once all nodes run it and the level was raised.
Exits 0 if all members answer, 9 if some do, 5 if none does.
With --json an object: level, supported (the highest that all members support; 0: one
does not answer), newest (the highest that any of them does), and members: an array of name, endpoint, level, level_min, level_max,
version, error.`,
		UsageText: `kvctl cluster level
kvctl cluster level --json
kvctl cluster level raise --yes`,
		Subcommands: []*urfave.Command{newLevelRaise(sh)},
		Action:      sh.action(levelShow),
	}
}

func newLevelRaise(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "raise",
		Usage:     "raise the cluster's level, for good",
		ArgsUsage: "[LEVEL]",
		Description: `Raises it to LEVEL, or else to the newest level that any member supports. Every member is
asked, and has to answer: exits 6 if one does not, or does not support the level, and
names it. A version that does not understand the level cannot be started on these data
afterwards. Exits 0 if the level is there already.
With --json an object: level, level_before, raised, dry_run, request_id, and members as
in cluster level.`,
		UsageText: `kvctl cluster level raise --dry-run
kvctl cluster level raise --yes
kvctl cluster level raise 2 --yes --json`,
		Flags:  dangerFlags(),
		Action: sh.action(levelRaise),
	}
}

type levelJSON struct {
	Level     uint32            `json:"level"`
	Supported uint32            `json:"supported"` // by all members; 0: one does not answer
	Newest    uint32            `json:"newest"`    // that any member supports
	Members   []levelMemberJSON `json:"members"`
}

type levelMemberJSON struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	Level    uint32 `json:"level"` // as applied there
	LevelMin uint32 `json:"level_min"`
	LevelMax uint32 `json:"level_max"`
	Version  string `json:"version"`
	Error    string `json:"error"`
}

type levelRaiseJSON struct {
	Level     uint32            `json:"level"`
	Before    uint32            `json:"level_before"`
	Raised    bool              `json:"raised"`
	DryRun    bool              `json:"dry_run"`
	RequestID string            `json:"request_id"`
	Members   []levelMemberJSON `json:"members"`
}

// levels is the cluster's level, and what the members support.
func levels(all []member) levelJSON {
	l := levelJSON{Members: []levelMemberJSON{}}
	silent := false
	for _, m := range all {
		l.Members = append(l.Members, levelMemberJSON{m.Name, nameOr(m.Endpoint, m.address), m.Level, m.LevelMin, m.LevelMax, m.Version, m.Error})
		l.Level, l.Newest = max(l.Level, m.Level), max(l.Newest, m.LevelMax)
		switch {
		case m.problem != nil:
			silent = true
		case l.Supported == 0 || m.LevelMax < l.Supported:
			l.Supported = m.LevelMax
		}
	}
	if silent {
		l.Supported = 0
	}
	return l
}

func (c *Call) levels() (levelJSON, []member, error) {
	patience, err := c.patience()
	if err != nil {
		return levelJSON{}, nil, err
	}
	all, err := c.roster(c, patience)
	return levels(all), all, err
}

func levelShow(c *Call) error {
	l, all, err := c.levels()
	if err != nil {
		return err
	}
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{levelText(l.Level)}})
	case Table:
		fmt.Fprintf(c.Stdout, "the cluster is at level %d\n", l.Level)
		c.levelTable(l.Members)
		if l.Supported > l.Level {
			c.note("all members support level %d: %s cluster level raise", l.Supported, c.self())
		}
	default:
		if err := c.printJSON(l); err != nil {
			return err
		}
	}
	rows := make([]nodeJSON, len(all))
	for i, m := range all {
		rows[i] = m.nodeJSON
	}
	return statusCode(rows)
}

func levelText(level uint32) string { return strconv.FormatUint(uint64(level), 10) }

func (c *Call) levelTable(members []levelMemberJSON) {
	var cells [][]string
	for _, m := range members {
		supports := levelText(m.LevelMin) + " to " + levelText(m.LevelMax)
		if m.Error != "" {
			supports = c.paint(red, m.Error)
		}
		cells = append(cells, []string{m.Name, m.Endpoint, supports, nameOr(m.Version, "-")})
	}
	c.printTable([]string{"NAME", "ENDPOINT", "SUPPORTS", "VERSION"}, cells)
}

func levelRaise(c *Call) error {
	var want uint32
	if len(c.Args) > 0 {
		n, err := strconv.ParseUint(c.Args[0], 10, 32)
		if err != nil || n == 0 {
			return c.usage("levels count from 1", "%q is no level", c.Args[0])
		}
		want = uint32(n)
	}
	if err := c.refuseUnasked("raising the level"); err != nil {
		return err
	}
	l, _, err := c.levels()
	if err != nil {
		return err
	}
	if c.flags.Bool("dry-run") {
		return c.printLevelDryRun(want, l)
	}
	if err := c.confirm(fmt.Sprintf("Raise the cluster's level from %d to %d? Versions that do not understand it cannot be started on these data afterwards.",
		l.Level, l.wanted(want)), "the level was not raised"); err != nil {
		return err
	}
	return c.withStore(func(ctx context.Context, store Store) error {
		done, err := store.RaiseLevel(ctx, want)
		if err != nil {
			return err
		}
		return c.printRaised(done, l)
	})
}

// wanted is the level to raise to: the one that is asked for, or the newest.
func (l levelJSON) wanted(asked uint32) uint32 { return cmp.Or(asked, max(l.Newest, l.Level)) }

// printLevelDryRun says what the members say now. The nodes ask once more.
func (c *Call) printLevelDryRun(want uint32, l levelJSON) error {
	to := l.wanted(want)
	var against []string
	for _, m := range l.Members {
		switch {
		case m.Error != "":
			against = append(against, m.Name+" does not answer")
		case to < m.LevelMin || to > m.LevelMax:
			against = append(against, m.Name+" supports "+messages.LevelsText(m.LevelMin, m.LevelMax))
		}
	}
	switch {
	case to < l.Level:
		return messages.Errorf(messages.Code_INVALID, "the cluster is at level %d, which never goes back to %d", l.Level, to).
			WithHint("name a level above it, or none")
	case to > l.Level && len(against) > 0:
		return messages.Errorf(messages.Code_UNSAFE, "the level would not be raised: %s", strings.Join(against, ", ")).
			WithHint("upgrade or start these nodes first")
	}
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{levelText(to)}})
	case Table:
		fmt.Fprintf(c.Stdout, "would raise the level from %d to %d\n", l.Level, to)
		c.levelTable(l.Members)
	default:
		return c.printJSON(levelRaiseJSON{Level: to, Before: l.Level, DryRun: true, Members: l.Members})
	}
	return nil
}

func (c *Call) printRaised(done client.RaiseLevelResult, l levelJSON) error {
	switch c.Format {
	case Simple:
		c.printSimple([][]string{{levelText(done.Level)}})
	case Table:
		if done.Level == done.Before {
			fmt.Fprintf(c.Stdout, "the cluster is at level %d already\n", done.Level)
		} else {
			fmt.Fprintf(c.Stdout, "the cluster's level is %d, it was %d\n", done.Level, done.Before)
		}
	default:
		return c.printJSON(levelRaiseJSON{Level: done.Level, Before: done.Before, Raised: done.Level != done.Before, RequestID: done.RequestID, Members: l.Members})
	}
	return nil
}
